//! The table against the packing rules, and against a full disassembler's own table.

use capstone::prelude::*;

use super::*;

#[test]
fn an_encoding_is_bits_20_to_5_of_the_instruction() {
    let register = SystemRegister::new(3, 3, 14, 3, 2);
    assert_eq!(register, SystemRegister::CNTV_CVAL_EL0);
    assert_eq!(register.mrs(0), 0xd53b_e340);
    assert_eq!(register.msr(31), 0xd51b_e35f);
    assert_eq!((register.mrs(5) >> 5) as u16, register.0);
    let fields = (register.op0(), register.op1(), register.crn(), register.crm(), register.op2());
    assert_eq!(fields, (3, 3, 14, 3, 2));
    assert_eq!(SystemRegister::new(0xff, 0xff, 0xff, 0xff, 0xff).0, 0xffff, "surplus bits go");
}

#[test]
fn the_table_is_sorted_and_without_doubles() {
    let all: Vec<_> = SystemRegister::all().collect();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    let mut names: Vec<_> = all.iter().map(|register| register.name().unwrap()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn names_round_trip_in_any_case() {
    for register in SystemRegister::all() {
        let name = register.name().unwrap();
        assert!(!register.title().unwrap().is_empty());
        assert_eq!(SystemRegister::from_name(name), Some(register));
        assert_eq!(SystemRegister::from_name(&name.to_lowercase()), Some(register));
        assert_eq!(register.to_string(), name);
        assert_eq!(format!("{register:?}"), name);
    }
}

#[test]
fn what_has_no_name_has_a_generic_one() {
    let register = SystemRegister::new(3, 0, 15, 2, 1);
    assert_eq!(register.name(), None);
    assert_eq!(register.title(), None);
    assert_eq!(register.to_string(), "S3_0_C15_C2_1");
    for encoding in 0..=u16::MAX {
        let register = SystemRegister(encoding);
        let (op0, op1, op2) = (register.op0(), register.op1(), register.op2());
        let generic = format!("s{op0}_{op1}_c{}_c{}_{op2}", register.crn(), register.crm());
        assert_eq!(SystemRegister::from_name(&generic), Some(register));
    }
    for nonsense in [
        "",
        "SCTLR",
        "S3_0_C15_C2",
        "S3_0_C15_C2_1_0",
        "S4_0_C1_C0_0",
        "S3_8_C1_C0_0",
        "S3_0_C16_C0_0",
        "S3_0_C1_C0_+1",
        "S3_0_1_C0_0",
        "S3_0_C_C0_0",
        "S3_0_C1_C999_0",
        "x3_0_c1_c0_0",
    ] {
        assert_eq!(SystemRegister::from_name(nonsense), None, "{nonsense:?}");
    }
}

#[test]
fn groups_of_registers() {
    assert!(SystemRegister::ID_PFR0_EL1.is_feature_id());
    assert!(SystemRegister::ID_AA64MMFR4_EL1.is_feature_id());
    assert!(SystemRegister::new(3, 0, 0, 7, 7).is_feature_id(), "unallocated, reads as zero");
    assert!(!SystemRegister::MIDR_EL1.is_feature_id());
    assert!(!SystemRegister::new(3, 0, 0, 8, 0).is_feature_id());
    assert!(!SystemRegister::CTR_EL0.is_feature_id());
    assert!(!SystemRegister::SCTLR_EL1.is_feature_id());
    assert_eq!(SystemRegister::DBGBVR0_EL1.debug_pair_index(), Some(0));
    assert_eq!(SystemRegister::DBGBCR15_EL1.debug_pair_index(), Some(15));
    assert_eq!(SystemRegister::DBGWVR3_EL1.debug_pair_index(), Some(3));
    assert_eq!(SystemRegister::DBGWCR4_EL1.debug_pair_index(), Some(4));
    assert_eq!(SystemRegister::MDSCR_EL1.debug_pair_index(), None);
    assert_eq!(SystemRegister::MDRAR_EL1.debug_pair_index(), None);
}

/// Registers newer than the oracle's table.
const UNKNOWN_TO_THE_ORACLE: &[&str] = &[
    "MDSELR_EL1",
    "ID_DFR1_EL1",
    "ID_AA64PFR2_EL1",
    "ID_AA64FPFR0_EL1",
    "ID_AA64DFR2_EL1",
    "ID_AA64ISAR3_EL1",
    "ID_AA64MMFR3_EL1",
    "ID_AA64MMFR4_EL1",
    "SCTLR2_EL1",
    "TCR2_EL1",
    "GCSCR_EL1",
    "GCSPR_EL1",
    "ALLINT",
    "PIRE0_EL1",
    "PIR_EL1",
    "ICC_NMIAR1_EL1",
    "FPMR",
];

#[test]
fn encodings_agree_with_the_oracle() {
    let builder = Capstone::new().arm64().mode(arch::arm64::ArchMode::Arm);
    let oracle = builder.build().expect("the oracle is built in");
    let operands = |word: u32| {
        let instructions = oracle.disasm_count(&word.to_le_bytes(), 0, 1).ok()?;
        Some(instructions.first()?.op_str()?.to_owned())
    };
    let unknown: Vec<_> = SystemRegister::all()
        .filter_map(SystemRegister::name)
        .filter(|name| {
            let register = SystemRegister::from_name(name).expect("the name is of the table");
            // Some are write-only, and some have one name for reading and another for writing.
            let read = operands(register.mrs(1)).unwrap_or_default();
            let written = operands(register.msr(1)).unwrap_or_default();
            let lower = name.to_lowercase();
            read != format!("x1, {lower}") && written != format!("{lower}, x1")
        })
        .collect();
    assert_eq!(unknown, UNKNOWN_TO_THE_ORACLE);
}
