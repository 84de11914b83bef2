//! AArch32 at EL0 of this 64-bit kernel: A32 and T32, IT blocks, exclusives of every size, timers
//! by coprocessor, and every way up to EL1 and back.
//!
//! The kernel checks what each exception says of its instruction: class, IL, ISS, where it returns
//! to and that the IT state and SPSR_EL1.SS are the program's own. It also single-steps a program.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, Frame, SS, class, enter_el0};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::report::{Failure, Outcome, check, require};
use stepwell_guests::{read_register, translation, write_register};

stepwell_guests::define_exact_end!();

global_asm!(include_str!("../aarch32_code.s"), options(raw));

unsafe extern "C" {
    fn a32_code();
    fn t32_code();
    fn a32_contended();
    fn t32_contended();
    fn stepped_code();
}

/// SPSR of AArch32 User mode, everything masked.
const USER: u64 = 0x1d0;
/// SPSR.T: T32.
const T: u64 = 1 << 5;
/// SPSR.I.
const I: u64 = 1 << 7;
/// What only EL1 may access, and nobody execute: a device.
const DEVICE: u64 = 0x0900_0000;
/// Of the timer. Were it much shorter, a machine that runs the handler at full speed and all else
/// step by step would see nothing but the handler.
const PERIOD_US: u64 = 50;
/// Vector of synchronous exceptions from AArch32 EL0.
const SYNCHRONOUS: u64 = 12;

/// ESR.IL: the instruction has 4 bytes.
const IL: u64 = 1 << 25;

const SVC32: u64 = 0x11;
const CP15: u64 = 0x03;
const FP: u64 = 0x07;
const BKPT32: u64 = 0x38;

/// The syndromes that `a32_code` comes to, in order: class, IL and ISS.
const A32_SYNDROMES: [u64; 17] = [
    0x4600_0001, // svc #1
    0x4600_0123, // svceq #0x123
    0x0200_0000, // udf
    0xe200_0321, // bkpt #0x321
    0xe200_4321, // bkpt #0x4321
    0x0200_0000, // hvc
    0x0200_0000, // smc
    0x0200_0000, // mcr of SCTLR
    0x9200_000d, // ldr of EL1's
    0x9200_004d, // str to EL1's
    0x9200_0021, // ldrex, unaligned
    0x9200_0021, // ldrexd, unaligned
    0x8200_000d, // fetch from EL1's
    0x9200_004d, // strex to what is read-only
    0x9200_004d, // strexd
    0,
    0,
];

/// As [`A32_SYNDROMES`], of `t32_code`.
const T32_SYNDROMES: [u64; 17] = [
    0x4400_0001, // svc #1
    0x4400_0002, // svceq #2
    0x0200_0000, // udf
    0xe200_0055, // bkpt #0x55
    0xe200_0056, // bkpt #0x56
    0x0200_0000, // udf.w
    0x0200_0000, // hvc
    0x0200_0000, // smc
    0x9200_000d, // ldr.w of EL1's
    0x9200_000d, // ldr of EL1's
    0x9200_000d, // ldreq of EL1's
    0x9200_0021, // ldrex, unaligned
    0x9200_0021, // ldrexdeq, unaligned
    0x8200_000d, // fetch from EL1's
    0x9200_004d, // strexeq to what is read-only
    0,
    0,
];

/// What the handler has seen.
struct Seen {
    syndromes: [u64; 17],
    count: usize,
    /// Where the steps of `stepped_code` ended, as offsets.
    steps: [u64; 64],
    step_count: usize,
}

struct Shared(UnsafeCell<Seen>);
// SAFETY: one CPU, and the handler runs only while EL0 does.
unsafe impl Sync for Shared {}
const NOTHING: Seen = Seen { syndromes: [0; 17], count: 0, steps: [0; 64], step_count: 0 };
static SEEN: Shared = Shared(UnsafeCell::new(NOTHING));
static TICKS: AtomicU64 = AtomicU64::new(0);
static LEAKS: AtomicU64 = AtomicU64::new(0);

#[repr(C, align(4096))]
struct Memory([u32; 1024]);
static mut MEMORY: Memory = Memory([0; 1024]);

/// ITAdvance, of a state in SPSR.
const fn it_advance(spsr: u64) -> u64 {
    let it = (spsr >> 10 & 0x3f) << 2 | spsr >> 25 & 3;
    let it = if it & 7 == 0 { 0 } else { it & 0xe0 | it << 1 & 0x1f };
    spsr & !(0x3f << 10 | 3 << 25) | it >> 2 << 10 | (it & 3) << 25
}

/// Skips the instruction, as a kernel does that emulates it.
fn skip(frame: &mut Frame) {
    // Coprocessor transfers and BKPT know their length, aborts do not: R12 does.
    frame.elr += frame.x[12];
    frame.spsr = it_advance(frame.spsr);
}

fn handle(frame: &mut Frame) {
    if frame.is_interrupt() {
        return interrupt();
    }
    if frame.vector != SYNCHRONOUS || frame.spsr & 0x1f != 0x10 {
        exception::unexpected(frame);
    }
    // SAFETY: as for Sync.
    let seen = unsafe { &mut *SEEN.0.get() };
    if frame.class() == class::SOFTWARE_STEP_LOWER {
        if let Some(step) = seen.steps.get_mut(seen.step_count) {
            *step = frame.elr - alias(stepped_code) | (frame.esr & 0x40) << 32;
        }
        seen.step_count += 1;
        frame.spsr |= SS;
        return;
    }
    if frame.class() == SVC32 && frame.immediate() == exception::LEAVE {
        write_register!("mdscr_el1", 0);
        frame.leave_el0();
        return;
    }
    if frame.spsr & SS != 0 {
        LEAKS.store(LEAKS.load(Relaxed) + 1, Relaxed);
    }
    if let Some(syndrome) = seen.syndromes.get_mut(seen.count) {
        // QEMU has IL of T32's BKPT as if it were 4 bytes long.
        *syndrome = if frame.class() == BKPT32 { frame.esr | IL } else { frame.esr };
    }
    seen.count += 1;
    match frame.class() {
        SVC32 => {}
        class::UNKNOWN | CP15 | FP | BKPT32 | class::DATA_ABORT_LOWER => skip(frame),
        class::INSTRUCTION_ABORT_LOWER => {
            // To where the call came from, in the state that it came from.
            let back = frame.x[14];
            (frame.elr, frame.spsr) = (back & !1, frame.spsr & !T | (back & 1) << 5);
        }
        _ => exception::unexpected(frame),
    }
}

fn interrupt() {
    let intid = gic::acknowledge();
    if intid == u64::from(timer::INTID) {
        TICKS.store(TICKS.load(Relaxed) + 1, Relaxed);
        timer::start(timer::ticks_of_us(PERIOD_US));
    }
    if intid != gic::SPURIOUS {
        gic::end(intid);
    }
}

/// Where EL0 has a function.
fn alias(function: unsafe extern "C" fn()) -> u64 {
    function as *const () as u64 + translation::EL0_ALIAS
}

fn memory() -> *mut u32 {
    (&raw mut MEMORY).cast()
}

/// Runs a function at EL0 and returns its result.
fn at_el0(function: unsafe extern "C" fn(), spsr: u64) -> u64 {
    let own = memory() as u64;
    let shared = own + translation::EL0_ALIAS;
    let read_only = own + translation::READ_ONLY_ALIAS;
    for (place, value) in [(12, DEVICE), (13, DEVICE), (14, read_only), (15, shared + 4096)] {
        // SAFETY: within MEMORY, which nobody else uses while EL0 is stopped.
        unsafe { memory().add(place).write_volatile(value as u32) };
    }
    enter_el0(alias(function), shared, spsr, 0) & 0xffff_ffff
}

fn word(place: usize) -> u64 {
    // SAFETY: as above.
    u64::from(unsafe { memory().add(place).read_volatile() })
}

fn take() -> Seen {
    // SAFETY: as for Sync.
    core::mem::replace(unsafe { &mut *SEEN.0.get() }, NOTHING)
}

fn check_syndromes(name: &'static str, expected: [u64; 17]) -> Result<(), Failure> {
    for (got, want) in take().syndromes.into_iter().zip(expected) {
        check(name, got, want)?;
    }
    Ok(())
}

/// ISS.EX of a step, where the offset that it ends at has no bit.
const EX: u64 = 0x40 << 32;

/// Where each step of `stepped_code` ends, and whether it was a load-exclusive. One of them is
/// skipped in the second round: its EX may be either, and is 1 in QEMU.
const STEPS: [u64; 28] = [
    0x2,
    0x4,
    0x6,
    0x8,
    0xc,
    EX | 0x10,
    0x12,
    EX | 0x16,
    0x1a,
    0x1c,
    0x2,
    0x4,
    0x6,
    0x8,
    0xc,
    EX | 0x10,
    0x12,
    EX | 0x16,
    0x1a,
    0x1c,
    0x1e,
    0x20,
    0x28,
    0x2c,
    0x30,
    0x34,
    0x22,
    0x24,
];

fn own_steps() -> Result<(), Failure> {
    // Locked at reset, when nothing steps. (QEMU ignores it.)
    write_register!("oslar_el1", 0);
    write_register!("mdscr_el1", 1);
    check("stepped: result", at_el0(stepped_code, USER | T | SS), 0)?;
    let seen = take();
    check("steps", seen.step_count as u64, STEPS.len() as u64)?;
    for (got, want) in seen.steps.into_iter().zip(STEPS) {
        check("step", got, want)?;
    }
    Ok(())
}

fn contended() -> Result<(), Failure> {
    gic::start(0);
    gic::enable(0, timer::INTID);
    let rounds = 2 * 0x300;
    // SAFETY: within MEMORY.
    (0..8).for_each(|place| unsafe { memory().add(place).write_volatile(0) });
    timer::start(timer::ticks_of_us(PERIOD_US));
    check("A32 under interrupts", at_el0(a32_contended, USER & !I), 0)?;
    check("its total", word(0), rounds)?;
    check("T32 under interrupts", at_el0(t32_contended, (USER | T) & !I), 0)?;
    timer::stop();
    check("its words", word(2), 0x300)?;
    check("its halfwords", word(0), rounds + 0x300)?;
    require("some interrupts", TICKS.load(Relaxed) >= 12)
}

fn run() -> Outcome {
    translation::start();
    translation::let_el0_read();
    // EL0 may use the counters and both timers.
    write_register!("cntkctl_el1", 0x303);
    check("a32: case", at_el0(a32_code, USER), 0)?;
    check_syndromes("a32: syndrome", A32_SYNDROMES)?;
    check("t32: case", at_el0(t32_code, USER | T), 0)?;
    check_syndromes("t32: syndrome", T32_SYNDROMES)?;
    let debug_id = word(8);
    own_steps()?;
    check("SPSR.SS was set", LEAKS.load(Relaxed), 0)?;
    check("FAR", read_register!("far_el1"), memory() as u64 + translation::READ_ONLY_ALIAS)?;
    exact_end();
    contended()?;
    Ok(debug_id)
}

stepwell_guests::guest!("aarch32", run, handle);
