//! Every register of a CPU has its reset value after CPU_OFF and CPU_ON.
//!
//! CPU 1 is started, reads every system register that it has, writes ones to each that this code
//! can do without, and goes off; started again, it must read what it read the first time. So must
//! its general-purpose and its vector registers. Which registers there are is found out by trying
//! every encoding, so that none can be forgotten; those whose value is not the CPU's are named.
//!
//! A line has an encoding and its value behind CPU_ON; what another machine resets them to is
//! compared by whoever reads the lines.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use stepwell_guests::exception::Frame;
use stepwell_guests::hardware::psci::{AFFINITY_INFO, CPU_ON, call};
use stepwell_guests::hardware::{cpus, gic, timer, uart};
use stepwell_guests::report::{Outcome, check, line, number, require};
use stepwell_guests::{instruction, read_register, write_register};

global_asm!(
    r#"
    .arch armv8-a+simd
    // x0: value in; the instruction is written over the first one.
    .section .data.poke, "awx"
    .balign 64
    .globl  poke
poke:
    nop
    ret

    .text
    // As a CPU starts: x0 is the top of its stack. Leaves below it, or-ed: X1 to X30 and SP, then
    // the vector registers.
    .globl  reset_entry
reset_entry:
    .irp    n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    orr     x1, x1, x\n
    .endr
    .irp    n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    orr     x1, x1, x\n
    .endr
    mov     x2, sp
    orr     x1, x1, x2
    str     x1, [x0, #-8]
    // FPEN, read and written back behind it: its reset value is looked at later.
    mrs     x3, cpacr_el1
    mov     x2, #3 << 20
    msr     cpacr_el1, x2
    isb
    .irp    n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    orr     v0.16b, v0.16b, v\n\().16b
    .endr
    .irp    n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    orr     v0.16b, v0.16b, v\n\().16b
    .endr
    umov    x1, v0.d[0]
    umov    x2, v0.d[1]
    orr     x1, x1, x2
    str     x1, [x0, #-16]
    msr     cpacr_el1, x3
    isb
    mov     sp, x0
    sub     sp, sp, #32
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    isb
    b       second_cpu

    .globl  soil_vectors
soil_vectors:
    mov     x1, #3 << 20
    msr     cpacr_el1, x1
    isb
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movi    v\n\().16b, #\n + 1
    .endr
    .irp    n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    movi    v\n\().16b, #\n + 1
    .endr
    ret
"#
);

unsafe extern "C" {
    fn poke(value: u64) -> u64;
    fn reset_entry();
    fn soil_vectors();
}

/// What the CPU found, per round: for each encoding whether it has the register, and its value. RAM
/// that nothing else uses.
const FOUND: [u64; 2] = [0x4200_0000, 0x4280_0000];
/// op0 is 2 or 3.
const ENCODINGS: core::ops::Range<u32> = 0x8000..0x1_0000;

static ROUND: AtomicU64 = AtomicU64::new(0);
static ROUNDS_DONE: AtomicU64 = AtomicU64::new(0);
static IS_UNDEFINED: AtomicU64 = AtomicU64::new(0);

/// Skips the instruction that was made.
fn handle(frame: &mut Frame) {
    if frame.is_interrupt() || frame.elr != poke as *const () as u64 {
        stepwell_guests::exception::unexpected(frame);
    }
    IS_UNDEFINED.store(1, SeqCst);
    frame.elr += 4;
}

/// Makes and executes MSR or MRS of x0; nothing where that is undefined.
fn access(base: u32, encoding: u32, value: u64) -> Option<u64> {
    let place = poke as *mut u32;
    IS_UNDEFINED.store(0, SeqCst);
    // SAFETY: `poke` lies in writable memory, and is executed only here, by one CPU at a time.
    let value = unsafe {
        place.write_volatile(base | encoding << 5);
        asm!("dc cvau, {p}", "dsb ish", "ic ivau, {p}", "dsb ish", "isb", p = in(reg) place);
        poke(value)
    };
    (IS_UNDEFINED.load(SeqCst) == 0).then_some(value)
}

const fn encoding(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// Registers whose value is not the CPU's state: time, randomness, where this code executes, and
/// what is pending.
fn is_volatile(register: u32) -> bool {
    const CNTPCT_EL0: u32 = encoding(3, 3, 14, 0, 1);
    const CNTVCT_EL0: u32 = encoding(3, 3, 14, 0, 2);
    const CNTPCTSS_EL0: u32 = encoding(3, 3, 14, 0, 5);
    const CNTVCTSS_EL0: u32 = encoding(3, 3, 14, 0, 6);
    const CNTP_TVAL_EL0: u32 = encoding(3, 3, 14, 2, 0);
    const CNTV_TVAL_EL0: u32 = encoding(3, 3, 14, 3, 0);
    const RNDR: u32 = encoding(3, 3, 2, 4, 0);
    const RNDRRS: u32 = encoding(3, 3, 2, 4, 1);
    const NZCV: u32 = encoding(3, 3, 4, 2, 0);
    // What the exception of the encoding before left.
    const SPSR_EL1: u32 = encoding(3, 0, 4, 0, 0);
    const ELR_EL1: u32 = encoding(3, 0, 4, 0, 1);
    const ESR_EL1: u32 = encoding(3, 0, 5, 2, 0);
    matches!(
        register,
        CNTPCT_EL0 | CNTVCT_EL0 | CNTPCTSS_EL0 | CNTVCTSS_EL0 | CNTP_TVAL_EL0 | CNTV_TVAL_EL0
    ) || matches!(register, RNDR | RNDRRS | NZCV | SPSR_EL1 | ELR_EL1 | ESR_EL1)
}

/// What is not written: what this code depends on, and what acts on others.
fn is_needed(register: u32) -> bool {
    const SCTLR_EL1: u32 = encoding(3, 0, 1, 0, 0);
    const VBAR_EL1: u32 = encoding(3, 0, 12, 0, 0);
    const SPSEL: u32 = encoding(3, 0, 4, 2, 0);
    const DAIF: u32 = encoding(3, 3, 4, 2, 1);
    // Resets the machine, where it does anything.
    const DBGPRCR_EL1: u32 = encoding(2, 0, 1, 4, 4);
    // The clock's frequency, which a board without EL2 lets EL1 write.
    const CNTFRQ_EL0: u32 = encoding(3, 3, 14, 0, 0);
    // ICC_DIR_EL1, ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1, and the ends of interrupts.
    let is_sent = register & !7 == encoding(3, 0, 12, 11, 0)
        || register == encoding(3, 0, 12, 8, 1)
        || register == encoding(3, 0, 12, 12, 1);
    is_sent || matches!(register, SCTLR_EL1 | VBAR_EL1 | SPSEL | DAIF | DBGPRCR_EL1 | CNTFRQ_EL0)
}

fn note(round: usize, register: u32, value: Option<u64>) {
    let place = (FOUND[round] + 16 * u64::from(register)) as *mut u64;
    // SAFETY: RAM that nothing else uses.
    unsafe {
        place.write_volatile(value.is_some().into());
        place.add(1).write_volatile(value.unwrap_or(0));
    }
}

fn noted(round: usize, register: u32) -> Option<u64> {
    let place = (FOUND[round] + 16 * u64::from(register)) as *const u64;
    // SAFETY: as above.
    let (is_there, value) = unsafe { (place.read_volatile(), place.add(1).read_volatile()) };
    (is_there != 0).then_some(value)
}

/// What the second CPU does each time that it is started.
#[unsafe(no_mangle)]
extern "C" fn second_cpu() -> ! {
    let round = ROUND.load(SeqCst) as usize;
    // What EL1 may reach goes by these; they are looked at first, as they are.
    const CPACR_EL1: u32 = encoding(3, 0, 1, 0, 2);
    let cpacr = read_register!("cpacr_el1");
    write_register!("cpacr_el1", 3 << 24 | 3 << 20 | 3 << 16);
    for register in ENCODINGS {
        let value = access(0xd520_0000, register, 0);
        note(round, register, if register == CPACR_EL1 { Some(cpacr) } else { value });
    }
    for register in ENCODINGS {
        if !is_needed(register) {
            access(0xd500_0000, register, u64::MAX);
            // What was let in by that is masked again.
            write_register!("daif", 0x3c0);
        }
    }
    // UCT, DZE, nTWI, nTWE.
    write_register!("sctlr_el1", read_register!("sctlr_el1") ^ 0x5_c000);
    // Out of Streaming SVE mode, in which they are other registers. SVCR is S3_3_C4_C2_2.
    if access(0xd500_0000, encoding(3, 3, 4, 2, 2), 0).is_some() {
        write_register!("cpacr_el1", 3 << 24 | 3 << 20 | 3 << 16);
    }
    // SAFETY: changes vector registers, which compiled code does not use.
    unsafe { soil_vectors() };
    access(0xd500_0000, encoding(3, 3, 4, 2, 2), 3);
    ROUNDS_DONE.store(ROUNDS_DONE.load(SeqCst) + 1, SeqCst);
    cpus::off()
}

/// It tries some ten thousand encodings, each in code that it writes: minutes on a busy host.
const PATIENCE_US: u64 = 700_000_000;

/// Waits until the second CPU has done so many rounds; false where that takes too long. It sleeps: with the
/// clock read in a loop, this CPU and the other would wait for each other in an emulator, whose clock has
/// the lock that is behind most of what the other executes.
fn sleep_until(wanted: u64) -> bool {
    const NAP_US: u64 = 5_000;
    for _ in 0..PATIENCE_US / NAP_US {
        if ROUNDS_DONE.load(SeqCst) >= wanted {
            return true;
        }
        // Its interrupt is masked, and ends the wait.
        timer::start(timer::ticks_of_us(NAP_US));
        instruction!("wfi");
    }
    false
}

/// Starts the second CPU and waits until it is off again.
fn round(round: u64) -> Outcome {
    let top = cpus::stack_top(1) as u64;
    ROUND.store(round, SeqCst);
    check("CPU_ON", call(CPU_ON, 1, reset_entry as *const () as u64, top), 0)?;
    require("it comes to its end", sleep_until(round + 1))?;
    while call(AFFINITY_INFO, 1, 0, 0) != 1 {
        timer::spin(timer::ticks_of_us(100));
    }
    // SAFETY: the words below the top of its stack, which only `reset_entry` writes.
    let left =
        unsafe { [(top - 8) as *const u64, (top - 16) as *const u64].map(|at| at.read_volatile()) };
    check("X1 to X30 and SP", left[0], 0)?;
    check("V0 to V31", left[1], 0)?;
    Ok(0)
}

fn run() -> Outcome {
    gic::start(0);
    gic::enable(0, timer::INTID);
    round(0)?;
    round(1)?;
    let mut differ = 0;
    let mut there = 0;
    for register in ENCODINGS.filter(|&register| !is_volatile(register)) {
        let [before, after] = [0, 1].map(|round| noted(round, register));
        if before != after {
            differ += 1;
            uart::write("differs: ");
        }
        let Some(value) = after.or(before) else { continue };
        there += 1;
        number(register.into());
        uart::write(" ");
        number(value);
        line("");
    }
    check("registers that differ", differ, 0)?;
    Ok(there)
}

stepwell_guests::guest!("cpu_reset", run, handle);
