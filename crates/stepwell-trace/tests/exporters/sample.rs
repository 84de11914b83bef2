//! A small recording with everything that exporters tell about.

use std::io::Cursor;
use stepwell_arch::address::Va;
use stepwell_trace::{
    Context, Event, ExceptionCause, ExceptionEntry, Header, MemoryAccess, MemoryAccessKind, Reader,
    Record, Register, Symbol, SymbolKind, Symbols, Writer,
};

/// A recording in memory.
pub type MemoryReader = Reader<Cursor<Vec<u8>>>;

pub const MAIN: u64 = 0xffff_8000_0801_0000;
pub const WORK: u64 = 0xffff_8000_0801_0100;
pub const UNUSED: u64 = 0xffff_8000_0801_0200;
pub const VECTOR: u64 = 0xffff_8000_0802_0280;
pub const HANDLER: u64 = 0xffff_8000_0802_1000;
pub const PROGRAM: u64 = 0x40_0000;

const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const ERET: u32 = 0xd69f_03e0;
const SVC: u32 = 0xd400_0001;
/// `stp x29, x30, [sp, #-16]!`
const PUSH: u32 = 0xa9bf_7bfd;

fn bl(from: u64, to: u64) -> u32 {
    0x9400_0000 | (to.wrapping_sub(from) / 4) as u32 & 0x03ff_ffff
}

fn b(from: u64, to: u64) -> u32 {
    0x1400_0000 | (to.wrapping_sub(from) / 4) as u32 & 0x03ff_ffff
}

pub fn header() -> Header {
    Header {
        stepwell_version: "0.1.0".into(),
        cpu_model: "cortex-a57".into(),
        command_line: "console=ttyAMA0 \"née\"".into(),
        interrupt_policy: "into".into(),
        time_policy: "stopped".into(),
        recorded: "mem".into(),
        vcpus: 2,
    }
}

fn symbols() -> Symbols {
    let list = [
        ("main", MAIN, 0x40),
        ("work", WORK, 0x40),
        ("never_called", UNUSED, 0x40),
        ("vectors", VECTOR - 0x280, 0x800),
        ("handler", HANDLER, 0x40),
    ];
    let kind = SymbolKind::Function;
    let one =
        |(name, address, size): (&str, u64, u64)| Symbol { address, size, kind, name: name.into() };
    Symbols::new(list.map(one), None)
}

fn code() -> Vec<(u64, Vec<u32>)> {
    vec![
        (MAIN, vec![NOP, bl(MAIN + 4, WORK), NOP, NOP, ERET, RET]),
        (WORK, vec![PUSH, NOP, NOP, NOP, RET]),
        (VECTOR, vec![b(VECTOR, HANDLER)]),
        (HANDLER, vec![NOP, NOP, ERET]),
        (VECTOR + 0x180, vec![NOP, ERET]),
        (PROGRAM, vec![NOP, SVC, NOP]),
    ]
}

fn run(vcpu: u8, pc: u64, length: u32) -> Record {
    Record::Run { vcpu, pc: Va(pc), length }
}

fn entry(cause: ExceptionCause, from: u64, vector: u64, syndrome: u64) -> Record {
    let intid = (cause == ExceptionCause::Irq).then_some(27);
    let (return_address, vector) = (Va(from), Va(vector));
    Record::ExceptionEntry(ExceptionEntry {
        vcpu: 0,
        cause,
        return_address,
        vector,
        syndrome,
        intid,
    })
}

fn context(vcpu: u8, el: u8) -> Record {
    Record::Context(Context { vcpu, el, vmid: 1, asid: 7, ttbr0: 0x4100_0000 })
}

fn register(number: u8, value: u64, found: bool) -> Record {
    let register = Register::new(number).expect("a number of a register");
    Record::Register { vcpu: 0, register, value, found }
}

fn memory(access: MemoryAccessKind, address: u64, size: u16, value: Option<u128>) -> Record {
    Record::Memory(MemoryAccess { vcpu: 0, access, address: Va(address), size, value })
}

/// `main` calls `work`, which is interrupted; then a program makes a system call. Another vCPU
/// does nothing of interest.
pub fn records() -> Vec<Record> {
    vec![
        Record::Time { ns: 5000 },
        context(0, 1),
        register(32, 0x3c5, true),
        run(0, MAIN, 2),
        register(30, MAIN + 8, false),
        run(0, WORK, 1),
        register(31, 0xffff_8000_0a00_3ff0, false),
        memory(MemoryAccessKind::Store, 0xffff_8000_0a00_3ff0, 8, Some(0x1d)),
        memory(MemoryAccessKind::Store, 0xffff_8000_0a00_3ff8, 8, Some(0xffff_8000_0801_0008)),
        run(0, WORK + 4, 1),
        memory(MemoryAccessKind::Load, 0x1234, 1, Some(0xab)),
        memory(MemoryAccessKind::Load, 0x1238, 4, None),
        memory(MemoryAccessKind::Load, 0x1240, 16, Some(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)),
        memory(MemoryAccessKind::Zero, 0x2000, 64, Some(0)),
        Record::Interrupt { vcpu: 0, pc: Va(WORK + 8) },
        entry(ExceptionCause::Irq, WORK + 8, VECTOR, 0),
        run(0, VECTOR, 1),
        run(0, HANDLER, 3),
        Record::ExceptionReturn { vcpu: 0, to: Va(WORK + 8), el: 1 },
        run(0, WORK + 8, 3),
        Record::Exclusive { vcpu: 0, pc: Va(WORK + 12), stored: false },
        context(1, 1),
        run(1, MAIN, 1),
        Record::Interrupt { vcpu: 1, pc: Va(MAIN + 4) },
        run(1, MAIN + 4, 1),
        run(1, 0xffff_8000_0900_0000, 2),
        run(0, MAIN + 8, 3),
        Record::ExceptionReturn { vcpu: 0, to: Va(PROGRAM), el: 0 },
        run(0, PROGRAM, 2),
        entry(ExceptionCause::Synchronous, PROGRAM + 8, VECTOR + 0x180, 0x5600_0000),
        run(0, VECTOR + 0x180, 2),
        Record::ExceptionReturn { vcpu: 0, to: Va(PROGRAM + 8), el: 0 },
        Record::Time { ns: 9000 },
        Record::Event(Event::PrivilegedCall { vcpu: 0, pc: Va(PROGRAM + 8), immediate: 3 }),
        run(0, PROGRAM + 8, 1),
        Record::Event(Event::Note("two\nlines of \"text\"".into())),
    ]
}

/// Opens a recording of these records, with code and symbols.
pub fn open(records: &[Record]) -> MemoryReader {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header()).expect("memory takes everything");
    for record in records {
        writer.record(record).expect("memory takes everything");
    }
    for (at, words) in code() {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        writer.code(Va(at), &code).expect("memory takes everything");
    }
    writer.symbols(&symbols()).expect("memory takes everything");
    writer.finish().expect("memory takes everything");
    Reader::new(Cursor::new(bytes)).expect("a good recording")
}

/// Opens the sample.
pub fn sample() -> MemoryReader {
    open(&records())
}
