//! Executes every encoding of MRS, MSR, SYS and SYSL, of MSR (immediate), hints and barriers, at EL1 and
//! at EL0, and prints what each did.
//!
//! The instructions are made at run time, one *slot* each, and run straight through: a slot executes
//! its instruction and stores X0 and ESR_EL1, which is 0 where there was no exception. An MSR writes
//! back what the MRS of the same encoding read, or 0. Of MSR (immediate) and what is beside it, PSTATE is
//! stored in place of X0, with SVCR above it, as an SVC saves it. `tests/tests/encodings.rs` compares what three
//! machines print, so that nothing here decides what is right.
//!
//! A line has the pass, the encoding, ESR_EL1 and X0, for every slot that was not plainly undefined.
//! From `loop_start` to `loop_end` everything executes that is compared; the rest of the guest need
//! not be stepped.
//!
//! Translation is off, so that EL0 executes the same code as EL1.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::{asm, global_asm};
use core::ops::Range;

use stepwell_guests::exception::EL1H;
use stepwell_guests::hardware::uart;
use stepwell_guests::report::{Outcome, line, number};
use stepwell_guests::{read_register, write_register};

global_asm!(
    r#"
    .section .text.scan, "ax"
    .globl  loop_start, loop_end, scan_vectors, run_slots
loop_start:
    ret
loop_end:
    ret

    // Skips the instruction, with ESR_EL1 in x2. Changes x1 besides.
    .macro  skip
    mrs     x1, elr_el1
    add     x1, x1, #4
    msr     elr_el1, x1
    mrs     x2, esr_el1
    eret
    .endm
    // The same, where SVC #1 has PSTATE stored.
    .macro  skip_or_store
    mrs     x1, esr_el1
    lsr     x1, x1, #26
    cmp     x1, #0x15
    b.eq    store_pstate
    skip
    .endm
    // The same from EL0, where SVC #0 (of this exception class) ends the slots.
    .macro  skip_or_leave class
    mrs     x1, esr_el1
    lsr     x1, x1, #26
    cmp     x1, #\class
    b.ne    2f
    mrs     x1, esr_el1
    tbz     x1, #0, leave_slots
    b       store_pstate
2:  skip
    .endm

    .balign 0x800
scan_vectors:
    skip_or_store
    .balign 0x200
    skip_or_store
    .balign 0x200
    skip_or_leave 0x15
    .balign 0x200
    skip_or_leave 0x11
    .balign 0x200

    // x20: whether there is SVCR, x22: PSTATE as it is to be again.
store_pstate:
    mrs     x0, spsr_el1
    cbz     x20, 3f
    mrs     x1, S3_3_C4_C2_2
    orr     x0, x0, x1, lsl #32
    msr     S3_3_C4_C2_2, xzr
3:  stp     x0, x2, [x19], #16
    mov     x2, xzr
    msr     spsr_el1, x22
    eret

    // run_slots(slots, results, operand, values, spsr): at EL1 if spsr is 0.
run_slots:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mov     x9, x0
    mov     x19, x1
    mov     x20, x2
    mov     x22, x3
    mov     x2, xzr
    mov     x3, xzr
    cbnz    x4, 1f
    blr     x9
    b       leave_slots
1:  msr     elr_el1, x9
    msr     spsr_el1, x4
    mov     x4, x19
    adr     x30, 2f
    isb
    eret
2:  svc     #0
leave_slots:
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #96
    ret
    .text
"#
);

unsafe extern "C" {
    safe fn loop_start();
    safe fn loop_end();
    fn scan_vectors();
    fn run_slots(slots: u64, results: u64, operand: u64, values: u64, spsr: u64);
}

/// Where slots are made, and where their results go: RAM that nothing else uses.
const SLOTS: u64 = 0x4100_0000;
const RESULTS: u64 = 0x4200_0000;
/// What instructions with an address get: a page of its own.
const OPERAND: u64 = 0x43f0_0000;
/// SPSR_EL1 for AArch64 EL0 and for A32, everything masked.
const A64: u64 = 0x3c0;
const A32: u64 = 0x1d0;
/// Bytes of a result.
const RESULT: u64 = 16;

/// Which encodings (bits 20:5 of the instruction) a block of slots has.
#[derive(Clone, Copy)]
enum Encodings {
    /// op0 1 to 3.
    All,
    /// op0 0: MSR (immediate), hints and barriers.
    Immediate,
    /// Of those, the ones with op1 = 3, which EL0 may have.
    ForEl0,
    /// Coprocessor transfers of A32, in an order of their own.
    Coprocessor,
}

impl Encodings {
    fn each(self, mut with: impl FnMut(u32)) {
        let ranges: [Range<u32>; 3] = match self {
            Self::Immediate => [0..0x4000, 0..0, 0..0],
            Self::All => [0x4000..0x8000, 0x8000..0xc000, 0xc000..0x1_0000],
            Self::ForEl0 => [0x5800..0x6000, 0x9800..0xa000, 0xd800..0xe000],
            // opc1:CRn:CRm:opc2, of p14 and p15; then opc1:CRm of those.
            Self::Coprocessor => [0..1 << 14, 1 << 14..1 << 15, 1 << 15..(1 << 15) + (1 << 9)],
        };
        for range in ranges {
            range.for_each(&mut with);
        }
    }
}

/// What a pass does.
#[derive(Clone, Copy)]
struct Pass {
    name: u8,
    encodings: Encodings,
    is_write: bool,
    spsr: u64,
}

impl Pass {
    /// What MSR (immediate) and its neighbours have in place of a register.
    fn is_immediate(self) -> bool {
        matches!(self.encodings, Encodings::Immediate)
    }
}

const PASSES: [Pass; 14] = [
    // As after reset.
    Pass { name: b'a', encodings: Encodings::ForEl0, is_write: false, spsr: 0 },
    Pass { name: b'b', encodings: Encodings::ForEl0, is_write: true, spsr: 0 },
    Pass { name: b'c', encodings: Encodings::ForEl0, is_write: false, spsr: A64 },
    Pass { name: b'd', encodings: Encodings::ForEl0, is_write: true, spsr: A64 },
    // With everything allowed.
    Pass { name: b'e', encodings: Encodings::All, is_write: false, spsr: 0 },
    Pass { name: b'f', encodings: Encodings::All, is_write: true, spsr: 0 },
    Pass { name: b'g', encodings: Encodings::All, is_write: false, spsr: A64 },
    Pass { name: b'h', encodings: Encodings::All, is_write: true, spsr: A64 },
    Pass { name: b'i', encodings: Encodings::Coprocessor, is_write: false, spsr: A32 },
    Pass { name: b'j', encodings: Encodings::Coprocessor, is_write: true, spsr: A32 },
    // Rt is 31, as it has to be; or 0, which WFIT and WFET alone allow.
    Pass { name: b'A', encodings: Encodings::Immediate, is_write: true, spsr: 0 },
    Pass { name: b'B', encodings: Encodings::Immediate, is_write: true, spsr: A64 },
    Pass { name: WITH_RT, encodings: Encodings::Immediate, is_write: true, spsr: 0 },
    Pass { name: b'D', encodings: Encodings::Immediate, is_write: false, spsr: 0 },
];
/// The pass of MSR (immediate) and its neighbours with a register.
const WITH_RT: u8 = b'C';
/// The first pass with everything allowed.
const ALLOWED: u8 = b'e';

struct Writer {
    at: u64,
}

impl Writer {
    fn word(&mut self, word: u32) {
        // SAFETY: `SLOTS` up to `RESULTS` is RAM that nothing else uses.
        unsafe { (self.at as *mut u32).write_volatile(word) };
        self.at += 4;
    }
}

/// Words of a slot.
const SLOT: u64 = 5;
const NOP: u32 = 0xd503_201f;

fn make_slot(writer: &mut Writer, encoding: u32, is_write: bool) {
    const SYS: u32 = 1;
    let access = 0xd500_0000 | u32::from(!is_write) << 21 | encoding << 5;
    writer.word(match (is_write, encoding >> 14) {
        (true, SYS) => 0xaa14_03e0, // mov x0, x20
        (true, _) => 0xf940_02c0,   // ldr x0, [x22]
        (false, _) => 0xaa1f_03e0,  // mov x0, xzr
    });
    writer.word(access);
    writer.word(0xa881_0a60); // stp x0, x2, [x19], #16
    writer.word(0xaa1f_03e2); // mov x2, xzr
    writer.word(0x9100_42d6); // add x22, x22, #16
}

fn make_slot_immediate(writer: &mut Writer, encoding: u32, pass: Pass) {
    const WFE: u32 = 0x1902;
    const WFI: u32 = 0x1903;
    let rt = if pass.name == WITH_RT { 0 } else { 31 };
    let access = 0xd500_0000 | u32::from(!pass.is_write) << 21 | encoding << 5 | rt;
    let waits = pass.is_write && rt == 31 && matches!(encoding, WFE | WFI);
    writer.word(0xaa1f_03e0); // mov x0, xzr
    writer.word(if waits { NOP } else { access });
    writer.word(0xd400_0021); // svc #1
    writer.word(NOP);
    writer.word(NOP);
}

fn make_slot_32(writer: &mut Writer, encoding: u32, is_write: bool) {
    let read = u32::from(!is_write) << 20;
    let coprocessor = |is_15: bool| if is_15 { 0xf00 } else { 0xe00 };
    writer.word(0xe3a0_0000); // mov r0, #0
    writer.word(if encoding < 1 << 15 {
        let (opc1, crn) = (encoding >> 11 & 7, encoding >> 7 & 15);
        let (crm, opc2) = (encoding >> 3 & 15, encoding & 7);
        0xee00_0010
            | read
            | opc1 << 21
            | crn << 16
            | opc2 << 5
            | crm
            | coprocessor(encoding >> 14 != 0)
    } else {
        // MRRC and MCRR of r0 and r3.
        0xec43_0000 | read | encoding & 0xff | coprocessor(encoding >> 8 & 1 != 0)
    });
    writer.word(0xe8a4_000d); // stmia r4!, {r0, r2, r3}
    writer.word(0xe3a0_2000); // mov r2, #0
    writer.word(0xe3a0_3000); // mov r3, #0
}

/// Makes the slots of a pass at `at`, and returns where they end.
fn make(at: u64, pass: Pass) -> u64 {
    let mut writer = Writer { at };
    let is_32 = pass.spsr == A32;
    pass.encodings.each(|encoding| {
        if pass.is_immediate() {
            make_slot_immediate(&mut writer, encoding, pass);
        } else if is_32 {
            make_slot_32(&mut writer, encoding, pass.is_write);
        } else {
            make_slot(&mut writer, encoding, pass.is_write);
        }
    });
    writer.word(if is_32 { 0xef00_0000 } else { 0xd65f_03c0 }); // svc #0; ret
    writer.at
}

/// Makes written instructions visible to instruction fetch.
fn synchronize(range: Range<u64>) {
    for at in range.step_by(16) {
        // SAFETY: cleaning a line to the point of unification changes nothing.
        unsafe { asm!("dc cvau, {}", in(reg) at) };
    }
    // SAFETY: dropping cached instructions is always allowed.
    unsafe { asm!("dsb ish", "ic iallu", "dsb ish", "isb") };
}

/// Lets EL0 have whatever EL1 can allow it, and EL1 the vectors.
fn allow() {
    // nTWE, nTWI, UCT, DZE, UMA, UCI, EnTP2; TSCXT is clear.
    const SCTLR: u64 = 1 << 18 | 1 << 16 | 1 << 15 | 1 << 14 | 1 << 9 | 1 << 26 | 1 << 60;
    const SCTLR_TSCXT: u64 = 1 << 20;
    // SMEN, FPEN, ZEN.
    write_register!("cpacr_el1", 3 << 24 | 3 << 20 | 3 << 16);
    // Counters and timers.
    write_register!("cntkctl_el1", 0x303);
    write_register!("sctlr_el1", (read_register!("sctlr_el1") | SCTLR) & !SCTLR_TSCXT);
    // PMUSERENR_EL0, where there is one; x1 and x2 are what its exception changes.
    // SAFETY: declares what it changes.
    unsafe { asm!("msr pmuserenr_el0, {}", in(reg) 0xf_u64, out("x1") _, out("x2") _) };
}

fn print(pass: Pass, results: u64) -> u64 {
    const UNDEFINED: u64 = 0x0200_0000;
    let mut printed = 0;
    let mut at = results;
    let read = |at: u64| {
        // SAFETY: the results are RAM.
        unsafe { u64::from((at as *const u32).read_volatile()) }
    };
    pass.encodings.each(|encoding| {
        let (esr, value) = if pass.spsr == A32 {
            let [low, esr, high] = [read(at), read(at + 4), read(at + 8)];
            at += 12;
            (esr, high << 32 | low)
        } else {
            let value = read(at + 4) << 32 | read(at);
            let esr = read(at + 12) << 32 | read(at + 8);
            at += RESULT;
            (esr, value)
        };
        if esr == UNDEFINED {
            return;
        }
        uart::put(pass.name);
        for value in [encoding.into(), esr, value] {
            uart::put(b' ');
            number(value);
        }
        line("");
        printed += 1;
    });
    printed
}

fn run() -> Outcome {
    let mut slots = [0; PASSES.len()];
    let mut at = SLOTS;
    for (start, pass) in slots.iter_mut().zip(PASSES) {
        *start = at;
        at = make(at, pass);
        at = at.next_multiple_of(64);
    }
    synchronize(SLOTS..at);
    let vectors = read_register!("vbar_el1");
    loop_start();
    write_register!("vbar_el1", scan_vectors as *const () as u64);
    let mut results = [RESULTS; PASSES.len() + 1];
    for (n, pass) in PASSES.into_iter().enumerate() {
        if pass.name == ALLOWED {
            allow();
        }
        let (own, read) = (results[n], results[n.saturating_sub(1)]);
        let has_sme = read_register!("id_aa64pfr1_el1") >> 24 & 15 != 0;
        let (operand, values) = match pass.is_immediate() {
            true => (has_sme.into(), if pass.spsr == 0 { EL1H } else { pass.spsr }),
            false => (OPERAND, read),
        };
        // SAFETY: slots change nothing but the registers that they name, and what they write back.
        unsafe { run_slots(slots[n], own, operand, values, pass.spsr) };
        let bytes = if n + 1 < slots.len() { slots[n + 1] - slots[n] } else { at - slots[n] };
        results[n + 1] = own + bytes / (4 * SLOT) * RESULT;
    }
    write_register!("vbar_el1", vectors);
    loop_end();
    let printed = PASSES.iter().zip(results).map(|(&pass, results)| print(pass, results)).sum();
    Ok(printed)
}

stepwell_guests::guest!("encodings", run);
