//! Tables built in a map of doublewords, walked for every granule, level and fault.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::Va;

/// Guest memory that holds tables and nothing else.
#[derive(Default)]
struct Tables(BTreeMap<u64, u64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NothingThere;

impl fmt::Display for NothingThere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing there")
    }
}

impl PhysicalMemory for Tables {
    type Error = NothingThere;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, NothingThere> {
        self.0.get(&ipa.0).copied().ok_or(NothingThere)
    }
}

impl<const N: usize> From<[(u64, u64); N]> for Tables {
    fn from(descriptors: [(u64, u64); N]) -> Self {
        Self(descriptors.into())
    }
}

const TABLE: u64 = 0b11;
const PAGE: u64 = 0b11;
const BLOCK: u64 = 0b01;
const AF: u64 = 1 << 10;
const AP_EL0: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const DBM: u64 = 1 << 51;

const SCTLR_M: u64 = 1 << 0;
const TCR_IPS_48: u64 = 5 << 32;
/// TG1 of the 4 KiB granule.
const TCR_TG1_4K: u64 = 0b10 << 30;

/// A kernel's regime: both ranges 48 bits of 4 KiB pages, tables at 0x4000_0000 and 0x5000_0000.
fn regime() -> Regime {
    Regime {
        sctlr: SCTLR_M,
        tcr: 16 | 16 << 16 | TCR_TG1_4K | TCR_IPS_48,
        ttbr0: 0x4000_0000,
        ttbr1: 0x5000_0000,
        mair: 0x0000_00bb_440c_04ff,
        pa_bits: 48,
    }
}

/// Four levels from 0x4000_0000 to a page of IPA 0x8000_0000 for VA 0x0000_1234_5678_9000.
const VA: u64 = 0x0000_1234_5678_9abc;
const LEVEL3_AT: u64 = 0x4000_3000 + 0x189 * 8;

fn tables(page: u64) -> Tables {
    Tables::from([
        (0x4000_0000 + 0x24 * 8, 0x4000_1000 | TABLE),
        (0x4000_1000 + 0xd1 * 8, 0x4000_2000 | TABLE),
        (0x4000_2000 + 0xb3 * 8, 0x4000_3000 | TABLE),
        (LEVEL3_AT, page),
    ])
}

fn access(kind: AccessKind, el0: bool, pan: bool) -> Access {
    Access { kind, el0, pan }
}

fn fault(kind: FaultKind, level: i8) -> WalkError<NothingThere> {
    WalkError::Fault(TranslationFault { kind, level })
}

fn read(regime: &Regime, va: u64, memory: &Tables) -> Result<Ipa, WalkError<NothingThere>> {
    translate(regime, Va(va), Access::PRIVILEGED_READ, memory).map(|translation| translation.ipa)
}

#[test]
fn four_levels_of_4_kib() {
    let memory = tables(0x8000_0000 | PAGE | AF | 3 << 8 | UXN);
    let found = translate(&regime(), Va(VA), Access::PRIVILEGED_READ, &&memory).unwrap();
    let expected = Translation {
        ipa: Ipa(0x8000_0abc),
        memory_type: MemoryType(0xff),
        shareability: Shareability::Inner,
        permissions: Permissions { el1_write: true, el1_execute: true, ..Default::default() },
        page_bytes: 4096,
    };
    assert_eq!(found, expected);
    let walked = walk(&regime(), Va(VA), Access::PRIVILEGED_READ, &memory);
    let levels: Vec<_> = walked.steps().iter().map(|step| (step.level, step.kind)).collect();
    let table = DescriptorKind::Table;
    assert_eq!(levels, [(0, table), (1, table), (2, table), (3, DescriptorKind::Page)]);
    assert_eq!(walked.steps()[3].descriptor_ipa, Ipa(LEVEL3_AT));
    assert_eq!(walked.steps()[3].descriptor, memory.0[&LEVEL3_AT]);
}

#[test]
fn each_missing_descriptor_faults_at_its_level() {
    let addresses: Vec<u64> = tables(0).0.into_keys().collect();
    for (level, at) in (0_i8..).zip(addresses) {
        let mut memory = tables(0x8000_0000 | PAGE | AF);
        memory.0.insert(at, 0);
        let error = read(&regime(), VA, &memory).unwrap_err();
        assert_eq!(error, fault(FaultKind::Translation, level));
        assert_eq!(error.fsc(), FaultStatus::translation(level));
        let walked = walk(&regime(), Va(VA), Access::PRIVILEGED_READ, &memory);
        let last = walked.steps().last().unwrap();
        assert_eq!((last.level, last.kind), (level, DescriptorKind::Invalid));
        memory.0.remove(&at);
        let error = read(&regime(), VA, &memory).unwrap_err();
        let expected = WalkError::Memory { descriptor: Ipa(at), level, error: NothingThere };
        assert_eq!(error, expected);
        assert_eq!(error.fsc(), FaultStatus::external_on_walk(level));
        assert!(error.to_string().ends_with("is unreadable: nothing there"), "{error}");
    }
}

#[test]
fn blocks_where_the_granule_allows_them() {
    let mut memory = tables(0);
    let at: Vec<u64> = memory.0.keys().copied().collect();
    memory.0.insert(at[2], 0x8000_0000 | BLOCK | AF);
    let found = translate(&regime(), Va(VA), Access::PRIVILEGED_READ, &memory).unwrap();
    assert_eq!((found.ipa, found.page_bytes), (Ipa(0x8018_9abc), 2 << 20));
    memory.0.insert(at[1], 0x8000_0000 | BLOCK | AF);
    let found = translate(&regime(), Va(VA), Access::PRIVILEGED_READ, &memory).unwrap();
    assert_eq!((found.ipa, found.page_bytes), (Ipa(0x9678_9abc), 1 << 30));
    memory.0.insert(at[0], 0x8000_0000 | BLOCK | AF);
    assert_eq!(read(&regime(), VA, &memory), Err(fault(FaultKind::Translation, 0)));
    let memory = tables(0x8000_0000 | BLOCK | AF);
    assert_eq!(read(&regime(), VA, &memory), Err(fault(FaultKind::Translation, 3)));
    for (granule, is_52_bit, expected) in [
        (Granule::Kib4, false, [false, false, true, true, false]),
        (Granule::Kib4, true, [false, true, true, true, false]),
        (Granule::Kib16, false, [false, false, false, true, false]),
        (Granule::Kib16, true, [false, false, true, true, false]),
        (Granule::Kib64, false, [false, false, false, true, false]),
        (Granule::Kib64, true, [false, false, true, true, false]),
    ] {
        let allowed = [-1, 0, 1, 2, 3].map(|level| granule.allows_block(level, is_52_bit));
        assert_eq!(allowed, expected, "{granule:?}");
    }
}

#[test]
fn the_other_granules() {
    // 64 KiB in TTBR0 (TG0 0b01), 42 bits: levels 2 and 3.
    let mut regime = regime();
    regime.tcr = 22 | 0b01 << 14 | TCR_IPS_48;
    let memory = Tables::from([
        (0x4000_0000 + 0x1abc * 8, 0x4001_0000 | TABLE),
        (0x4001_0000 + 0x0def * 8, 0x8000_0000 | PAGE | AF),
    ]);
    let va = 0x1abc << 29 | 0x0def << 16 | 0x1234;
    assert_eq!(read(&regime, va, &memory), Ok(Ipa(0x8000_1234)));
    // 16 KiB in TTBR0 (TG0 0b10), 47 bits: levels 1 to 3, the last one a block of 32 MiB.
    regime.tcr = 17 | 0b10 << 14 | TCR_IPS_48;
    let memory = Tables::from([
        (0x4000_0000 + 0x7ab * 8, 0x4001_0000 | TABLE),
        (0x4001_0000 + 0x321 * 8, 0x8000_0000 | BLOCK | AF),
    ]);
    let va = 0x7ab << 36 | 0x321 << 25 | 0x123_4567;
    assert_eq!(read(&regime, va, &memory), Ok(Ipa(0x8123_4567)));
    // 16 KiB in TTBR1 (TG1 0b01), 48 bits: a level 0 of two entries.
    regime.tcr = 16 << 16 | 0b01 << 30 | TCR_IPS_48;
    let memory = Tables::from([(0x5000_0000 + 8, 0)]);
    let upper = 0xffff_8000_0000_0000;
    assert_eq!(read(&regime, upper, &memory), Err(fault(FaultKind::Translation, 0)));
    // 64 KiB in TTBR1 (TG1 0b11), 36 bits: level 2 has 128 entries, its table is 1 KiB aligned.
    regime.tcr = 28 << 16 | 0b11 << 30 | TCR_IPS_48;
    regime.ttbr1 = 0x5000_07fe;
    let memory = Tables::from([(0x5000_0400 + 0x7f * 8, 0xa000_0000 | BLOCK | AF)]);
    assert_eq!(read(&regime, u64::MAX, &memory), Ok(Ipa(0xbfff_ffff)));
    // 64 KiB, 25 bits: level 3 alone.
    regime.tcr = 39 | 0b01 << 14 | TCR_IPS_48;
    let memory = Tables::from([(0x4000_0000 + 0x1ff * 8, 0x8000_0000 | PAGE | AF)]);
    assert_eq!(read(&regime, 0x1ff_1234, &memory), Ok(Ipa(0x8000_1234)));
}

#[test]
fn addresses_outside_both_ranges() {
    let memory = tables(0x8000_0000 | PAGE | AF);
    let outside = Err(fault(FaultKind::Translation, 0));
    let tag = 0xab << 56;
    let mut regime = regime();
    assert_eq!(read(&regime, VA | 1 << 48, &memory), outside);
    assert_eq!(read(&regime, VA | tag, &memory), outside);
    regime.tcr |= 1 << 37; // TBI0
    assert_eq!(read(&regime, VA | tag, &memory), Ok(Ipa(0x8000_0abc)));
    assert_eq!(read(&regime, VA | 1 << 54, &memory), outside, "the top byte only");
    let fetch = access(AccessKind::Execute, false, false);
    assert!(translate(&regime, Va(VA | tag), fetch, &memory).is_ok());
    regime.tcr |= 1 << 51; // TBID0
    assert!(translate(&regime, Va(VA | tag), fetch, &memory).is_err());
    assert!(read(&regime, VA | tag, &memory).is_ok(), "TBID leaves data alone");
    // The upper range has its own controls: TBI1 and TBID1.
    let upper = Va(0x00ff_ffff_ffff_f000);
    assert!(!regime.top_byte_ignored(upper, AccessKind::Read));
    regime.tcr |= 1 << 38;
    assert!(regime.top_byte_ignored(upper, AccessKind::Execute));
    regime.tcr |= 1 << 52;
    assert!(!regime.top_byte_ignored(upper, AccessKind::Execute));
    assert!(regime.top_byte_ignored(upper, AccessKind::Write));
}

#[test]
fn disabled_and_impossible_ranges() {
    let memory = tables(0x8000_0000 | PAGE | AF | AP_EL0);
    let outside = Err(fault(FaultKind::Translation, 0));
    let user = access(AccessKind::Read, true, false);
    assert!(translate(&regime(), Va(VA), user, &memory).is_ok());
    for (bit, va, el0) in [(7, VA, false), (55, VA, true), (23, !VA, false), (56, !VA, true)] {
        let mut regime = regime();
        regime.tcr |= 1 << bit;
        let access = access(AccessKind::Read, el0, false);
        let found = translate(&regime, Va(va), access, &memory).map(|translation| translation.ipa);
        assert_eq!(found, outside, "TCR_EL1 bit {bit}");
    }
    let mut e0pd = regime();
    e0pd.tcr |= 1 << 55;
    assert!(read(&e0pd, VA, &memory).is_ok(), "E0PD does not concern EL1");
    for (txsz, granule) in [(15, 0), (49, 0), (63, 0), (0, 0), (48, 0b01), (49, 0b10)] {
        let mut regime = regime();
        regime.tcr = txsz | granule << 14 | TCR_IPS_48;
        assert_eq!(read(&regime, 0, &memory), outside, "T0SZ {txsz}");
    }
}

#[test]
fn address_sizes() {
    let size = |level| Err(fault(FaultKind::AddressSize, level));
    let mut regime = regime();
    regime.tcr &= !(7 << 32); // IPS: 32 bits
    assert_eq!(read(&regime, VA, &tables(1 << 32 | PAGE | AF)), size(3));
    let mut memory = tables(0);
    memory.0.insert(0x4000_1000 + 0xd1 * 8, 1 << 33 | TABLE);
    assert_eq!(read(&regime, VA, &memory), size(1));
    regime.ttbr0 = 1 << 47;
    assert_eq!(read(&regime, VA, &memory), size(0));
    assert_eq!(size(2).unwrap_err().fsc(), FaultStatus(2));
    let bits: Vec<_> = (0..8).map(Regime::pa_bits_of).collect();
    assert_eq!(bits, [32, 36, 40, 42, 44, 48, 52, 52]);
    for (implemented, output) in [(0, 32), (40, 40), (48, 48), (52, 48), (99, 48)] {
        let regime = Regime { pa_bits: implemented, ..self::regime() };
        let page = |bit: u32| tables(1 << bit | PAGE | AF);
        assert!(read(&regime, VA, &page(output - 1)).is_ok(), "as far as both reach");
        if output < 48 {
            assert_eq!(read(&regime, VA, &page(output)), size(3), "IPS reaches no further");
        }
    }
}

#[test]
fn the_access_flag() {
    let memory = tables(0x8000_0000 | PAGE);
    let error = read(&regime(), VA, &memory).unwrap_err();
    assert_eq!(error, fault(FaultKind::AccessFlag, 3));
    assert_eq!(error.fsc(), FaultStatus::access_flag(3));
    let mut regime = regime();
    regime.tcr |= 1 << 39; // HA
    assert_eq!(read(&regime, VA, &memory), Ok(Ipa(0x8000_0abc)));
}

#[test]
fn the_dirty_state() {
    let memory = tables(0x8000_0000 | PAGE | AF | AP_READ_ONLY | DBM);
    let write = access(AccessKind::Write, false, false);
    let mut regime = regime();
    regime.tcr |= 1 << 40; // HD without HA does nothing
    let error = translate(&regime, Va(VA), write, &memory).unwrap_err();
    assert_eq!(error.fsc(), FaultStatus::permission(3));
    regime.tcr |= 1 << 39;
    assert!(translate(&regime, Va(VA), write, &memory).is_ok());
    let clean = tables(0x8000_0000 | PAGE | AF | AP_READ_ONLY);
    assert!(translate(&regime, Va(VA), write, &clean).is_err(), "no DBM, no writing");
}

#[test]
fn permissions_of_the_descriptor() {
    let expected = [
        (0, "EL1 rwx EL0 --x"),
        (AP_EL0, "EL1 rw- EL0 rwx"),
        (AP_READ_ONLY, "EL1 r-x EL0 --x"),
        (AP_READ_ONLY | AP_EL0, "EL1 r-x EL0 r-x"),
        (UXN, "EL1 rwx EL0 ---"),
        (PXN, "EL1 rw- EL0 --x"),
        (PXN | UXN | AP_EL0, "EL1 rw- EL0 rw-"),
    ];
    for (bits, text) in expected {
        let memory = tables(0x8000_0000 | PAGE | AF | bits);
        let found = walk(&regime(), Va(VA), Access::PRIVILEGED_READ, &memory).outcome.unwrap();
        assert_eq!(found.permissions.to_string(), text);
    }
    let mut wxn = regime();
    wxn.sctlr |= 1 << 19;
    for (bits, text) in [
        (0, "EL1 rw- EL0 --x"),
        (AP_EL0, "EL1 rw- EL0 rw-"),
        (AP_READ_ONLY | AP_EL0, "EL1 r-x EL0 r-x"),
    ] {
        let memory = tables(0x8000_0000 | PAGE | AF | bits);
        let found = walk(&wxn, Va(VA), Access::PRIVILEGED_READ, &memory).outcome.unwrap();
        assert_eq!(found.permissions.to_string(), text);
    }
}

#[test]
fn permissions_of_the_tables_above() {
    let restrict = |bits: u64| {
        let mut memory = tables(0x8000_0000 | PAGE | AF | AP_EL0);
        let level1 = 0x4000_1000 + 0xd1 * 8;
        *memory.0.get_mut(&level1).unwrap() |= bits;
        memory
    };
    let permissions = |regime: &Regime, memory: &Tables| {
        let outcome = walk(regime, Va(VA), Access::PRIVILEGED_READ, memory).outcome;
        outcome.unwrap().permissions.to_string()
    };
    for (bit, text) in [
        (62, "EL1 r-x EL0 r-x"),
        (61, "EL1 rwx EL0 --x"),
        (60, "EL1 rw- EL0 rw-"),
        (59, "EL1 rw- EL0 rwx"),
    ] {
        assert_eq!(permissions(&regime(), &restrict(1 << bit)), text, "table bit {bit}");
        let mut hpd = regime();
        hpd.tcr |= 1 << 41; // HPD0
        assert_eq!(permissions(&hpd, &restrict(1 << bit)), "EL1 rw- EL0 rwx");
    }
}

#[test]
fn accesses_against_permissions() {
    let page = Permissions::ALL;
    let nothing = Permissions::default();
    for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Execute] {
        assert!(page.allow(access(kind, true, false), false));
        assert!(page.allow(access(kind, false, false), false));
        assert!(!nothing.allow(access(kind, true, false), false));
        let privileged = access(kind, false, true);
        assert_eq!(page.allow(privileged, false), kind == AccessKind::Execute, "PAN: data only");
        assert_eq!(nothing.allow(privileged, false), kind == AccessKind::Read);
    }
    let execute_only = Permissions { el0_execute: true, ..nothing };
    let privileged = access(AccessKind::Read, false, true);
    assert!(execute_only.allow(privileged, false));
    assert!(!execute_only.allow(privileged, true), "EPAN covers execute-only pages");
    let mut epan = regime();
    epan.sctlr |= 1 << 57;
    let memory = tables(0x8000_0000 | PAGE | AF);
    assert!(translate(&epan, Va(VA), privileged, &memory).is_err());
    assert!(translate(&regime(), Va(VA), privileged, &memory).is_ok());
}

#[test]
fn big_endian_tables() {
    let mut memory = tables(0x8000_0000 | PAGE | AF);
    for descriptor in memory.0.values_mut() {
        *descriptor = descriptor.swap_bytes();
    }
    let mut regime = regime();
    regime.sctlr |= 1 << 25; // EE
    assert_eq!(read(&regime, VA, &memory), Ok(Ipa(0x8000_0abc)));
}

#[test]
fn memory_types_and_shareability() {
    let expected = [
        (0, "Normal, Write-Back"),
        (1, "Device-nGnRE"),
        (2, "Device-GRE"),
        (3, "Normal, Non-cacheable"),
        (4, "Normal, Write-Through"),
        (5, "Device-nGnRnE"),
    ];
    for (index, text) in expected {
        let memory = tables(0x8000_0000 | PAGE | AF | index << 2);
        let found = translate(&regime(), Va(VA), Access::PRIVILEGED_READ, &memory).unwrap();
        assert_eq!(found.memory_type.to_string(), text);
        assert_eq!(found.memory_type.is_device(), text.starts_with("Device"));
        assert_eq!(found.memory_type.is_cacheable(), text.contains("Write"));
    }
    for (byte, text) in [
        (0x08, "Device-nGRE"),
        (0x01, "Device, attributes 0x01"),
        (0xf0, "Normal, tagged"),
        (0x4f, "Normal, attributes 0x4f"),
    ] {
        assert_eq!(MemoryType(byte).to_string(), text);
    }
    let shareabilities =
        [Shareability::Non, Shareability::Reserved, Shareability::Outer, Shareability::Inner];
    assert_eq!([0, 1, 2, 3].map(Shareability::from_bits), shareabilities);
}

#[test]
fn the_flat_map() {
    let memory = Tables::default();
    let mut off = Regime { pa_bits: 40, ..Default::default() };
    let found = translate(&off, Va(0x40_0000_1234), Access::PRIVILEGED_READ, &memory).unwrap();
    assert_eq!((found.ipa, found.memory_type), (Ipa(0x40_0000_1234), MemoryType(0)));
    assert_eq!((found.permissions, found.page_bytes), (Permissions::ALL, 4096));
    assert!(walk(&off, Va(0), Access::PRIVILEGED_READ, &memory).steps().is_empty());
    let size = Err(fault(FaultKind::AddressSize, 0));
    assert_eq!(read(&off, 1 << 40, &memory), size);
    assert_eq!(read(&off, 1 << 56, &memory), size);
    off.tcr = 1 << 37; // TBI0 counts with the MMU off too
    assert_eq!(read(&off, 1 << 56 | 0x1234, &memory), Ok(Ipa(0x1234)));
    let fetch = access(AccessKind::Execute, false, false);
    let memory_type =
        |regime: &Regime| translate(regime, Va(0), fetch, &memory).unwrap().memory_type;
    assert_eq!(memory_type(&off), MemoryType::NORMAL_NON_CACHEABLE);
    off.sctlr = 1 << 12; // I
    assert_eq!(memory_type(&off), MemoryType::NORMAL_WRITE_THROUGH);
}

#[test]
fn faults_speak_for_themselves() {
    for (kind, text) in [
        (FaultKind::AddressSize, "address size fault, level 2"),
        (FaultKind::Translation, "translation fault, level 2"),
        (FaultKind::AccessFlag, "access flag fault, level 2"),
        (FaultKind::Permission, "permission fault, level 2"),
    ] {
        assert_eq!(TranslationFault { kind, level: 2 }.to_string(), text);
        assert_eq!(fault(kind, 2).to_string(), text);
    }
}

const DS: u64 = 1 << 59;
const TCR_IPS_52: u64 = 6 << 32;

/// A regime of 52-bit addresses in TTBR0, with this granule and T0SZ.
fn large(tg0: u64, t0sz: u64) -> Regime {
    let ds = if tg0 == 0b01 { 0 } else { DS };
    let tcr = t0sz | tg0 << 14 | TCR_IPS_52 | ds | 3 << 12;
    // The table is at 0x000d_0000_4000_0000.
    Regime { tcr, ttbr0: 0x4000_0000 | 0xd << 2, pa_bits: 52, ..regime() }
}

/// Where [`large`] has its first table.
const LARGE_TABLE: u64 = 0xd << 48 | 0x4000_0000;

#[test]
fn large_addresses_of_4_kib_pages_begin_above_level_0() {
    let (va, high) = (0x000a_1234_5678_9abc, 0xe << 48 | 0x9_0000_0000_u64);
    // Bits 49:48 are where they are, 51:50 in bits 9:8.
    let held = |address: u64| address & ((1 << 50) - 1) | address >> 50 << 8;
    let table = |address: u64| held(address) | TABLE;
    let mut memory = Tables::from([
        (LARGE_TABLE + 0xa * 8, table(high)),
        (high + 0x24 * 8, table(high + 0x1000)),
        (high + 0x1000 + 0xd1 * 8, table(high + 0x2000)),
        (high + 0x2000 + 0xb3 * 8, table(high + 0x3000)),
        (high + 0x3000 + 0x189 * 8, held(0x7 << 48 | 0x8000_0000) | PAGE | AF),
    ]);
    let regime = large(0, 12);
    let walked = walk(&regime, Va(va), Access::PRIVILEGED_READ, &memory);
    let mapping = walked.outcome.unwrap();
    assert_eq!(mapping.ipa, Ipa(0x7 << 48 | 0x8000_0abc));
    assert_eq!(mapping.shareability, Shareability::Inner, "TCR_EL1 has it");
    let levels: Vec<_> = walked.steps().iter().map(|step| step.level).collect();
    assert_eq!(levels, [-1, 0, 1, 2, 3]);
    // A block of 512 GiB.
    memory.0.insert(high + 0x24 * 8, held(0x5 << 48) | BLOCK | AF);
    assert_eq!(read(&regime, va, &memory), Ok(Ipa(0x5 << 48 | va & 0x7f_ffff_ffff)));
    // Nothing at level -1, and what its faults are called.
    memory.0.insert(LARGE_TABLE + 0xa * 8, 0);
    let error = read(&regime, va, &memory).unwrap_err();
    assert_eq!((error, error.fsc().0), (fault(FaultKind::Translation, -1), 0x2b));
    memory.0.remove(&(LARGE_TABLE + 0xa * 8));
    assert_eq!(read(&regime, va, &memory).unwrap_err().fsc().0, 0x13);
    memory.0.insert(LARGE_TABLE + 0xa * 8, table(high));
    let small = Regime { pa_bits: 51, ttbr0: 0x4000_0000, ..regime };
    let memory = Tables::from([(0x4000_0000 + 0xa * 8, table(high))]);
    let error = read(&small, va, &memory).unwrap_err();
    assert_eq!((error, error.fsc().0), (fault(FaultKind::AddressSize, -1), 0x29));
}

#[test]
fn large_addresses_of_the_other_granules() {
    // 16 KiB: level 0 has 32 entries; a block of 64 GiB at level 1.
    let memory = Tables::from([
        (LARGE_TABLE + 0x1f * 8, 0x3 << 48 | 0x2 << 8 | 0x4_0000 | TABLE),
        ((0xb << 48 | 0x4_0000) + 0x7ff * 8, 0x1 << 48 | 0x10_0000_0000 | 0x1 << 8 | BLOCK | AF),
    ]);
    let va = 0x1f << 47 | 0x7ff << 36 | 0x9_8765_4321;
    let expected = 0x5 << 48 | 0x10_0000_0000 | 0x9_8765_4321;
    assert_eq!(read(&large(0b10, 12), va, &memory), Ok(Ipa(expected)));
    // 64 KiB: bits 51:48 are in bits 15:12, and the shareability stays where it was.
    let memory = Tables::from([
        (LARGE_TABLE + 0x3ff * 8, 0x8_0000 | 0xf << 12 | TABLE),
        ((0xf << 48 | 0x8_0000) + 5 * 8, 0x2000_0000 | 0x9 << 12 | BLOCK | AF | 2 << 8),
    ]);
    let va = 0x3ff << 42 | 5 << 29 | 0x1234_5678;
    let found = walk(&large(0b01, 12), Va(va), Access::PRIVILEGED_READ, &memory).outcome.unwrap();
    assert_eq!(found.ipa, Ipa(0x9 << 48 | 0x3234_5678));
    assert_eq!(found.shareability, Shareability::Outer);
    // Physical addresses of 48 bits have no more in their descriptors.
    let mut regime = large(0b01, 12);
    regime.tcr = regime.tcr & !(7 << 32) | TCR_IPS_48;
    regime.ttbr0 = 0x4000_0000;
    let memory = Tables::from([
        (0x4000_0000 + 0x3ff * 8, 0x8_0000 | 0xf << 12 | TABLE),
        (0x8_0000 + 5 * 8, 0x2000_0000 | BLOCK | AF),
    ]);
    assert_eq!(read(&regime, va, &memory), Ok(Ipa(0x3234_5678)));
    // 4 TiB at once: a block of level 1, for physical addresses of 52 bits.
    let memory = Tables::from([(LARGE_TABLE + 8, 0x400_0000_0000 | BLOCK | AF)]);
    let va = 1 << 42 | 0x123_4567_89ab;
    assert_eq!(read(&large(0b01, 12), va, &memory), Ok(Ipa(0x400_0000_0000 | 0x123_4567_89ab)));
}

#[test]
fn large_ranges_have_their_limits() {
    let outside = Err(fault(FaultKind::Translation, 0));
    for tg0 in [0, 0b10, 0b01] {
        let mut regime = large(tg0, 11);
        assert_eq!(read(&regime, 0, &Tables::default()), outside, "T0SZ 11");
        regime = large(tg0, 15);
        assert_ne!(read(&regime, 0, &Tables::default()), outside, "T0SZ 15");
        (regime.tcr, regime.pa_bits) = (regime.tcr & !DS, 48);
        assert_eq!(read(&regime, 0, &Tables::default()), outside, "48 bits");
    }
    // The upper range, of which the 52 bits begin with ones.
    let mut regime = large(0, 12);
    regime.tcr = 12 << 16 | TCR_TG1_4K | TCR_IPS_52 | DS | 2 << 28;
    let memory = Tables::from([(0x5000_0000 + 0xf * 8, 0)]);
    assert_eq!(read(&regime, u64::MAX, &memory), Err(fault(FaultKind::Translation, -1)));
    assert_eq!(read(&regime, 0xffef << 48, &memory), outside);
}

#[test]
fn the_start_of_a_small_table_may_be_anywhere_aligned() {
    // One entry at level -1 (T0SZ 15 has two): TTBR0 bits 5:2 are address bits all the same.
    let regime = large(0, 15);
    let memory = Tables::from([(LARGE_TABLE + 8, 0)]);
    assert_eq!(read(&regime, 1 << 48, &memory), Err(fault(FaultKind::Translation, -1)));
}

/// Memory where every doubleword is a function of its address: tables made of noise.
struct Noise(u64);

impl PhysicalMemory for Noise {
    type Error = core::convert::Infallible;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, Self::Error> {
        Ok((ipa.0 ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) | 1)
    }
}

prop_compose! {
    fn any_regime()(
        sctlr: u64, tcr: u64, ttbr0: u64, ttbr1: u64, mair: u64, pa_bits: u8, plausible: bool,
        is_large: bool,
    ) -> Regime {
        // Half of the regimes get ranges and tables that exist, or most walks would end before
        // they begin: T0SZ and T1SZ 20, IPS 5, EPDx 0.
        if plausible {
            let tcr = tcr & !(DS | 0x7_00bf_00bf);
            let (tcr, pa_bits) = match is_large {
                true => (tcr | DS | 6 << 32 | 12 << 16 | 12, 52),
                false => (tcr | 5 << 32 | 20 << 16 | 20, 48),
            };
            Regime { sctlr: sctlr | 1, tcr, ttbr0, ttbr1, mair, pa_bits }
        } else {
            Regime { sctlr, tcr, ttbr0, ttbr1, mair, pa_bits }
        }
    }
}

/// An address in one of the two ranges of a plausible regime, or anywhere.
fn any_va() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_u64 << 44, 0xffff_f000_0000_0000..=u64::MAX, any::<u64>()]
}

#[test]
fn noise_is_walked_to_the_end() {
    // Else the property below would hold of nothing.
    let regime = regime();
    let depths: Vec<usize> = (0..64)
        .map(|seed| {
            walk(&regime, Va(seed << 30), Access::PRIVILEGED_READ, &Noise(seed)).steps().len()
        })
        .collect();
    for depth in 1..=4 {
        assert!(depths.contains(&depth), "no walk of {depth} steps among {depths:?}");
    }
}

proptest! {
    #[test]
    fn no_register_and_no_table_panics(
        regime in any_regime(), seed: u64, va in any_va(), el0: bool, pan: bool, kind in 0_u8..3,
    ) {
        let kind = match kind {
            0 => AccessKind::Read,
            1 => AccessKind::Write,
            _ => AccessKind::Execute,
        };
        let walked = walk(&regime, Va(va), access(kind, el0, pan), &Noise(seed));
        prop_assert!(walked.steps().len() <= 5);
        let levels: Vec<i8> = walked.steps().iter().map(|step| step.level).collect();
        prop_assert!(levels.windows(2).all(|pair| pair[1] == pair[0] + 1));
        if let Ok(mapping) = walked.outcome {
            prop_assert!(mapping.ipa.0 < 1 << 52);
            prop_assert_eq!(mapping.ipa.0 % 4096, va % 4096, "the offset within a page stays");
        }
        let _ = translate(&regime, Va(va), access(kind, el0, pan), &Noise(seed));
    }

    #[test]
    fn the_walk_finds_the_page_it_was_built_for(va in 0_u64..1 << 48, page in 1_u64..1 << 36) {
        let index = |level: u32| va >> (39 - 9 * level) & 0x1ff;
        let memory = Tables::from([
            (0x4000_0000 + index(0) * 8, 0x4000_1000 | TABLE),
            (0x4000_1000 + index(1) * 8, 0x4000_2000 | TABLE),
            (0x4000_2000 + index(2) * 8, 0x4000_3000 | TABLE),
            (0x4000_3000 + index(3) * 8, page << 12 | PAGE | AF),
        ]);
        prop_assert_eq!(read(&regime(), va, &memory), Ok(Ipa(page << 12 | va & 0xfff)));
    }
}
