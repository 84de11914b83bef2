//! Syndromes as hardware writes them, decoded and built again.

use proptest::prelude::*;

use super::*;
use crate::SystemRegister;

#[test]
fn a_step_syndrome() {
    let plain = EsrEl2(0xcb00_0022);
    assert_eq!(plain.ec(), ec::SOFTWARE_STEP_LOWER);
    assert!(plain.il() && plain.step().isv() && !plain.step().ex());
    let exclusive = EsrEl2(0xcb00_0062);
    assert!(exclusive.step().isv() && exclusive.step().ex());
    let pending = EsrEl2(0xca00_0022);
    assert!(!pending.step().isv());
    assert_eq!(plain.to_string(), "0xcb000022 (software step, ISS 0x1000022)");
}

#[test]
fn a_data_abort_of_a_store_to_a_device() {
    // strb w3, [x1] to an unmapped IPA: ISV, SAS 0, SRT 3, WnR, translation fault level 3.
    let esr = EsrEl2(0x9303_0047 & !(1 << 25) | 1 << 25 | 1 << 24);
    assert_eq!(esr.ec(), ec::DABT_LOWER);
    let iss = esr.data_abort();
    assert!(iss.isv() && iss.wnr() && !iss.sse() && !iss.sf() && !iss.ar());
    assert_eq!((iss.size(), iss.srt()), (1, 3));
    assert_eq!(iss.dfsc(), FaultStatus::translation(3));
    assert!(!iss.fnv() && !iss.ea() && !iss.cm() && !iss.s1ptw());
}

/// Reads one bit of the ISS.
type Accessor = fn(DataAbortIss) -> bool;

#[test]
fn each_data_abort_bit_has_its_accessor() {
    let sizes: Vec<_> = (0..4).map(|sas| DataAbortIss(sas << 22).size()).collect();
    assert_eq!(sizes, [1, 2, 4, 8]);
    let accessors: [(u32, Accessor); 10] = [
        (24, DataAbortIss::isv),
        (21, DataAbortIss::sse),
        (15, DataAbortIss::sf),
        (14, DataAbortIss::ar),
        (10, DataAbortIss::fnv),
        (9, DataAbortIss::ea),
        (8, DataAbortIss::cm),
        (7, DataAbortIss::s1ptw),
        (6, DataAbortIss::wnr),
        (0, |iss| iss.dfsc().0 & 1 != 0),
    ];
    for (bit, accessor) in accessors {
        assert!(accessor(DataAbortIss(1 << bit)), "bit {bit}");
        assert!(!accessor(DataAbortIss(!(1 << bit))), "bit {bit} alone");
    }
    let fetch = EsrEl2(0x8200_0690).instruction_abort();
    assert!(fetch.fnv() && fetch.ea() && fetch.s1ptw());
    assert_eq!(fetch.ifsc(), FaultStatus::EXTERNAL);
    let plain = InstructionAbortIss(0x04);
    assert!(!plain.fnv() && !plain.ea() && !plain.s1ptw() && plain.ifsc().is_translation());
}

#[test]
fn calls_and_breakpoints_carry_their_immediate() {
    assert_eq!(EsrEl2(0x5a00_1234).ec(), ec::HVC64);
    assert_eq!(EsrEl2(0x5a00_1234).call().immediate(), 0x1234);
    assert_eq!(EsrEl2(EsrEl1::brk(0x800).0).call().immediate(), 0x800);
    let watch = EsrEl2(EsrEl1::watchpoint(Origin::LowerEl, true, true).0).watchpoint();
    assert!(watch.cm() && watch.wnr());
    let watch = EsrEl2(EsrEl1::watchpoint(Origin::SameEl, false, false).0).watchpoint();
    assert!(!watch.cm() && !watch.wnr());
}

#[test]
fn waits_name_their_instruction() {
    let waits = [TrappedWait::Wfi, TrappedWait::Wfe, TrappedWait::Wfit, TrappedWait::Wfet];
    for (ti, wait) in waits.into_iter().enumerate() {
        let esr = EsrEl2(0x0600_0000 | ti as u64);
        assert_eq!(esr.ec(), ec::WFX);
        assert_eq!(esr.wfx().ti(), wait);
        assert_eq!(esr.wfx().rn(), None);
    }
    assert_eq!(WfxIss(7 << 5 | 1 << 2 | 3).rn(), Some(7));
}

#[test]
fn a_16_bit_instruction_is_two_bytes_long() {
    assert_eq!(EsrEl2(0x5a00_0000).instruction_bytes(), 4);
    assert_eq!(EsrEl2(0x4600_0000).instruction_bytes(), 4);
    assert_eq!(EsrEl2(0x4400_0000).instruction_bytes(), 2);
    assert_eq!(EsrEl2(0x00ab_cdef_0000_0000).iss2(), 0xab_cdef);
}

#[test]
fn every_class_has_a_name_of_its_own() {
    let mut names: Vec<_> = ec::ALL.iter().map(|&class| ec::name(class)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ec::ALL.len());
    assert_eq!(ec::name(0x3f), "reserved exception class");
}

#[test]
fn fault_status_codes() {
    for level in 0..4 {
        let codes = [
            FaultStatus::address_size(level),
            FaultStatus::translation(level),
            FaultStatus::access_flag(level),
            FaultStatus::permission(level),
            FaultStatus::external_on_walk(level),
        ];
        assert_eq!(codes.map(|code| code.0 - level as u8), [0x00, 0x04, 0x08, 0x0c, 0x14]);
        assert_eq!(codes.map(FaultStatus::level), [Some(level); 5]);
        assert_eq!(codes.map(FaultStatus::is_address_size), [true, false, false, false, false]);
        assert_eq!(codes.map(FaultStatus::is_translation), [false, true, false, false, false]);
        assert_eq!(codes.map(FaultStatus::is_access_flag), [false, false, true, false, false]);
        assert_eq!(codes.map(FaultStatus::is_permission), [false, false, false, true, false]);
    }
    // As QEMU's PAR_EL1 tells of an output address of level 3 that is too large.
    assert_eq!(FaultStatus::address_size(3).in_par_el1(), 0x807);
    let above = [
        FaultStatus::address_size(-1),
        FaultStatus::translation(-1),
        FaultStatus::external_on_walk(-1),
    ];
    assert_eq!(above.map(|code| code.0), [0x29, 0x2b, 0x13]);
    assert_eq!(above.map(FaultStatus::level), [Some(-1); 3]);
    assert_eq!(above.map(FaultStatus::is_address_size), [true, false, false]);
    assert_eq!(above.map(FaultStatus::is_translation), [false, true, false]);
    for code in [
        FaultStatus::EXTERNAL,
        FaultStatus::TAG_CHECK,
        FaultStatus::ALIGNMENT,
        FaultStatus::DEBUG,
        FaultStatus::TLB_CONFLICT,
        FaultStatus::UNSUPPORTED_EXCLUSIVE,
    ] {
        assert_eq!(code.level(), None);
        assert!(!code.is_translation() && !code.is_permission());
    }
}

#[test]
fn injected_syndromes_are_bit_exact() {
    use Origin::{LowerEl, SameEl};
    let level2 = FaultStatus::translation(2);
    let expected = [
        (EsrEl1::undefined(), 0x0200_0000),
        (EsrEl1::illegal_state(), 0x3a00_0000),
        (EsrEl1::pc_alignment(), 0x8a00_0000),
        (EsrEl1::sp_alignment(), 0x9a00_0000),
        (EsrEl1::wfi(4), 0x07e0_0000),
        (EsrEl1::wfi(2), 0x05e0_0000),
        (EsrEl1::wfit(3), 0x07e0_0066),
        (EsrEl1::svc(0x12), 0x5600_0012),
        (EsrEl1::brk(0xf000), 0xf200_f000),
        (EsrEl1::software_step(LowerEl, true, false), 0xcb00_0022),
        (EsrEl1::software_step(SameEl, true, true), 0xcf00_0062),
        (EsrEl1::software_step(SameEl, false, true), 0xce00_0022),
        (EsrEl1::breakpoint(LowerEl), 0xc200_0022),
        (EsrEl1::breakpoint(SameEl), 0xc600_0022),
        (EsrEl1::watchpoint(LowerEl, false, true), 0xd200_0062),
        (EsrEl1::watchpoint(SameEl, true, false), 0xd600_0122),
        (EsrEl1::data_abort(LowerEl, level2, false, true), 0x9200_0046),
        (EsrEl1::data_abort(SameEl, level2, true, true), 0x9600_0146),
        (EsrEl1::external_data_abort(SameEl, false), 0x9600_0010),
        (EsrEl1::external_data_abort(SameEl, true), 0x9600_0050),
        (EsrEl1::instruction_abort(LowerEl, level2), 0x8200_0006),
        (EsrEl1::external_instruction_abort(SameEl), 0x8600_0010),
    ];
    for (built, value) in expected {
        assert_eq!(built, EsrEl1(value), "{built} is not {value:#x}");
    }
    assert_eq!(EsrEl1::undefined().to_string(), "0x2000000 (unknown reason, ISS 0x0)");
}

proptest! {
    #[test]
    fn a_trapped_register_survives_the_syndrome(encoding: u16, rt in 0_u8..32, is_read: bool) {
        let register = SystemRegister(encoding);
        let esr = EsrEl2(EsrEl1::system_register(register, rt, is_read).0);
        prop_assert_eq!(esr.ec(), ec::SYSTEM_REGISTER);
        let iss = esr.system_register();
        prop_assert_eq!((iss.register(), iss.rt(), iss.is_read()), (register, rt, is_read));
        prop_assert_eq!(esr.iss() >> 22, 0, "nothing above op0");
    }

    #[test]
    fn no_syndrome_panics(value: u64) {
        let esr = EsrEl2(value);
        prop_assert!(esr.to_string().contains("ISS"));
        let _ = (esr.data_abort().dfsc().level(), esr.wfx().ti(), esr.system_register().register());
    }
}

#[test]
fn coprocessor_transfers_name_their_operands() {
    // MRC p15, #0, R3, c14, c2, #1, whose condition is EQ.
    let mrc = EsrEl2(0x0f00_0000 | 0x0002_0000 | 14 << 10 | 3 << 5 | 2 << 1 | 1).coprocessor();
    assert_eq!(mrc.condition(), Some(0));
    assert_eq!(mrc.transfer(), Transfer { opc1: 0, crn: 14, crm: 2, opc2: 1 });
    assert_eq!((mrc.rt(), mrc.is_read()), (3, true));
    // MCRR p15, #3, R2, R4, c14, of which the CPU does not tell the condition.
    let mcrr = EsrEl2(0x1200_0000 | 3 << 16 | 4 << 10 | 2 << 5 | 14 << 1).coprocessor();
    assert_eq!(mcrr.condition(), None);
    assert_eq!((mcrr.opc1_of_pair(), mcrr.crm()), (3, 14));
    assert_eq!((mcrr.rt(), mcrr.rt2(), mcrr.is_read()), (2, 4, false));
}

#[test]
fn an_serror_tells_whether_anybody_can_contain_it() {
    assert_eq!(EsrEl1::serror(0x11).0, 0xbe00_0011);
    let serror = |iss: u32| EsrEl2(EsrEl1::serror(iss).0).serror();
    assert!(serror(0x11).is_uncontainable(), "AET 0 is UC");
    assert!(!serror(0x11 | 3 << 10).is_uncontainable(), "AET 3 is UER");
    assert_eq!((serror(0x11 | 3 << 10).aet(), serror(0x11).dfsc()), (3, 0x11));
    assert!(!serror(0).is_uncontainable(), "uncategorized: it says nothing of an AET");
    assert!(!serror(1 << 24 | 0x11).is_uncontainable(), "the CPU's own format");
}
