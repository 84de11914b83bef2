//! Firmware's tables in a fake guest's memory, from the pointer to the image: no machine takes the wrong ways.

use super::*;
use stepwell_debuggee::{contract, fake::Fake};
use stepwell_trace::Symbols;

const RAM: Range<u64> = 0x4000_0000..0x4180_0000;
const POINTER: u64 = 0x4080_0000;
const SYSTEM: u64 = 0x4010_0000;
const LIST: u64 = 0x4011_0000;
const HEADER: u64 = 0x4012_0000;
const ENTRIES: u64 = 0x4013_0000;

/// A guest that has firmware's tables, and what watches it.
struct Machine {
    fake: Fake,
    edk2: Edk2,
}

impl Machine {
    fn new() -> Self {
        Self::with(&contract::guest_bytes())
    }

    fn with(image: &[u8]) -> Self {
        let sample = Sample::of(image, &Symbols::default(), 0);
        let mut edk2 = Edk2::new(sample, 0, RAM);
        let mut fake = Fake::new(image);
        edk2.arm(&mut fake, VcpuId::default()).unwrap();
        Self { fake, edk2 }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.fake.write_memory(VcpuId::default(), Place::Ipa(Ipa(at)), bytes).unwrap();
    }

    fn words(&mut self, at: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(at, &bytes);
    }

    /// An image's entry, its info and its protocol.
    fn image(&mut self, entry: u64, kind: u32, base: u64, bytes: u64) {
        let (info, protocol) = (ENTRIES + 0x1000 + entry * 16, ENTRIES + 0x2000 + entry * 96);
        self.words(ENTRIES + entry * 8, &[info]);
        self.words(info, &[u64::from(kind), protocol]);
        self.words(protocol + IMAGE_BASE, &[base, bytes]);
        let count = u32::try_from(entry + 1).unwrap();
        self.write(HEADER + 4, &count.to_le_bytes());
    }

    /// A stop before a store.
    fn before(&mut self, address: u64) -> Notice {
        let access = WatchAccess::Write;
        let reason = StopReason::Watchpoint { address: Va(address), access };
        let stop = Stop { vcpu: VcpuId::default(), reason, pc: contract::ENTRY, steps: 0 };
        self.edk2.notice(&mut self.fake, stop).unwrap()
    }

    /// A stop at a breakpoint.
    fn at(&mut self, pc: u64) -> Notice {
        let reason = StopReason::Breakpoint;
        let stop = Stop { vcpu: VcpuId::default(), reason, pc: Va(pc), steps: 0 };
        self.edk2.notice(&mut self.fake, stop).unwrap()
    }

    fn has_tables(&mut self) {
        self.write(POINTER, b"IBI SYST");
        self.words(POINTER + 8, &[SYSTEM]);
        assert_eq!(self.before(POINTER + 16), Notice::Passed);
        self.words(SYSTEM + TABLE_COUNT, &[2, LIST]);
        self.write(LIST + TABLE_BYTES, &IMAGES);
        self.words(LIST + TABLE_BYTES + 16, &[HEADER]);
        assert_eq!(self.before(SYSTEM + 16), Notice::Passed);
        self.words(HEADER + 8, &[ENTRIES]);
    }
}

#[test]
fn the_way_leads_to_the_image() {
    let mut machine = Machine::new();
    assert_eq!(machine.edk2.watched.len(), 6, "each 4 MiB");
    assert_eq!(machine.before(POINTER + 16), Notice::Passed, "no pointer yet");
    machine.has_tables();
    assert_eq!(machine.edk2.known, Known::Images(HEADER));
    assert_eq!(machine.edk2.watched.len(), 1);
    machine.image(0, NORMAL, 0x4020_0000, 0x1000);
    assert_eq!(machine.before(HEADER), Notice::Passed, "another image");
    machine.words(ENTRIES + 8, &[0]);
    machine.image(2, 7, contract::ENTRY.0, 0x1000);
    assert_eq!(machine.before(HEADER), Notice::Passed, "one unloaded, and of no kind");
    machine.image(3, NORMAL, contract::ENTRY.0, 0x1000);
    assert_eq!(machine.before(HEADER), Notice::Placed(Ipa(contract::ENTRY.0)));
    assert!(machine.edk2.watched.is_empty());
}

#[test]
fn an_elf_begins_further_into_its_image() {
    let mut machine = Machine::new();
    machine.edk2.base = 0x1000;
    machine.has_tables();
    machine.image(0, NORMAL, contract::ENTRY.0 - 0x1000, 0x2000);
    assert_eq!(machine.before(HEADER), Notice::Placed(Ipa(contract::ENTRY.0)));
}

/// A kernel's image, entered at its 17th instruction.
fn kernel() -> Vec<u8> {
    let mut image = contract::guest_bytes();
    image.resize(image.len().max(256), 0x5a);
    image[4..8].copy_from_slice(&(0b000101 << 26 | 15u32).to_le_bytes());
    image[56..60].copy_from_slice(b"ARMd");
    image
}

#[test]
fn a_kernel_that_copies_itself_is_where_it_is_entered() {
    const SERVICES: u64 = 0x4014_0000;
    const LEAVING: u64 = 0x4015_0000;
    let copies = [0x4050_0000, 0x4060_0000];
    for (is_known, entered, wanted) in [
        (true, contract::ENTRY.0, Notice::Passed),
        (true, copies[0], Notice::Moved(Ipa(copies[0]))),
        (true, copies[1], Notice::Moved(Ipa(copies[1]))),
        // A boot loader has loaded it by itself.
        (false, copies[1], Notice::Placed(Ipa(copies[1]))),
    ] {
        let mut machine = Machine::with(&kernel());
        machine.words(SYSTEM + BOOT_SERVICES, &[SERVICES]);
        machine.words(SERVICES + EXIT_BOOT_SERVICES, &[LEAVING]);
        machine.has_tables();
        if is_known {
            machine.image(0, NORMAL, contract::ENTRY.0, 0x1000);
            assert_eq!(machine.before(HEADER), Notice::Placed(Ipa(contract::ENTRY.0)));
        }
        assert!(!machine.edk2.is_settled());
        for copy in copies {
            machine.write(copy, &kernel());
        }
        // Another kernel's header, and one that is entered nowhere.
        machine.write(0x4070_0000, &kernel()[..64]);
        machine.write(0x4071_0000 + 56, b"ARMd");
        assert_eq!(machine.at(LEAVING + 4), Notice::Foreign);
        assert_eq!(machine.at(LEAVING), Notice::Passed);
        assert_eq!(machine.edk2.entries.len(), 3);
        assert_eq!(machine.at(LEAVING), Notice::Foreign, "it is stopped there once");
        assert_eq!(machine.at(entered + 64), wanted);
        assert!(machine.edk2.is_settled() && machine.edk2.entries.is_empty());
    }
}

#[test]
fn what_the_guest_writes_leads_nowhere_else() {
    let mut machine = Machine::new();
    let stop = Stop {
        vcpu: VcpuId::default(),
        reason: StopReason::Breakpoint,
        pc: contract::ENTRY,
        steps: 0,
    };
    assert_eq!(machine.edk2.notice(&mut machine.fake, stop).unwrap(), Notice::Foreign);
    assert_eq!(machine.before(POINTER + 32), Notice::Foreign, "somebody else's watchpoint");
    machine.write(POINTER, b"IBI SYST");
    for system in [0, u64::MAX, RAM.end - 8] {
        machine.words(POINTER + 8, &[system]);
        assert_eq!(machine.before(POINTER + 16), Notice::Passed, "{system:#x}");
        assert_eq!(machine.edk2.known, Known::Nothing);
    }
    machine.words(POINTER + 8, &[SYSTEM]);
    machine.words(SYSTEM + TABLE_COUNT, &[u64::MAX, u64::MAX - 7]);
    assert_eq!(machine.before(POINTER + 16), Notice::Passed);
    machine.words(SYSTEM + TABLE_COUNT, &[1, LIST]);
    machine.write(LIST, &IMAGES);
    machine.words(LIST + 16, &[HEADER]);
    machine.write(HEADER + 4, &u32::MAX.to_le_bytes());
    machine.words(HEADER + 8, &[u64::MAX - 3]);
    assert_eq!(machine.before(SYSTEM + 16), Notice::Passed);
    machine.words(HEADER + 8, &[ENTRIES]);
    machine.image(0, NORMAL, u64::MAX, u64::MAX);
    assert_eq!(machine.before(HEADER), Notice::Passed);
}

#[test]
fn firmware_volumes_are_edk2_s() {
    let mut flash = vec![0xff; 0x3000];
    assert!(!is_edk2(&flash) && !is_edk2(&[]));
    flash[0x1028..0x102c].copy_from_slice(b"_FVH");
    assert!(is_edk2(&flash));
}
