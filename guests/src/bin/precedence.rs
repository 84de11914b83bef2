//! What comes before instructions that a stepper carries out itself, and what does not come between.
//!
//! First the exceptions that come before a store-exclusive, a counter's read and a WFI: the guest's own
//! breakpoint and watchpoint, Illegal Execution state, undefined encodings, traps from EL0, alignment.
//! Then exclusive sequences with everything between load and store that traps for a hypervisor's
//! reasons, and of loads and stores of different sizes: each has to end.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, EL0, Frame, IL, class, enter_el0};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::report::{Failure, Outcome, check};
use stepwell_guests::{instruction, read_register, write_register};

global_asm!(
    r#"
    .text
    .globl counter, counter_at, store, store_at, wait, wait_at, illegal, device, device_at
counter:
    nop
counter_at:
    mrs     x0, cntvct_el0
    ret
store:                           // x0: a word
    ldxr    x1, [x0]
    add     x1, x1, #1
store_at:
    stxr    w2, x1, [x0]
    cbnz    w2, store
    ret
wait:
    nop
wait_at:
    wfi
    ret
device:                          // x0: a device's register
    nop
device_at:
    ldr     w0, [x0]
    ret
illegal:                         // to x0, in a mode that there is not
    msr     elr_el1, x0
    mov     x2, #0x3c9
    msr     spsr_el1, x2
    mov     x0, x1
    isb
    eret

    .globl el0_wait, el0_counter
el0_wait:
    wfi
    svc     #0xff
el0_counter:
    mrs     x0, cntvct_el0
    svc     #0xff

    .globl undefined
undefined:                       // returns how many were not
    mov     x0, #0
    .irp    register, S3_3_C14_C0_3, S3_3_C14_C0_7, S3_3_C14_C2_3, S3_3_C14_C3_7
    mrs     x1, \register
    msr     \register, x1
    .endr
    .inst   0xd51be041           // msr cntvct_el0, x1
    .inst   0xd51be021           // msr cntpct_el0, x1
    ret

    .globl misaligned
misaligned:                      // x0: in 16 bytes, whose end the store crosses: FEAT_LSE2 or not
    and     x0, x0, #~15
    add     x0, x0, #12
    ldxr    w1, [x0]
    stxr    w2, x1, [x0]
    ret

    // A sequence that gives up after 100 turns: x2 is 0 where it came to its end.
    .macro  sequence load, between, store
    mov     w4, #100
9:  subs    w4, w4, #1
    b.eq    8f
    \load
    \between
    \store
    cbnz    w2, 9b
8:  add     w5, w5, w2
    .endm

    .globl sequences
sequences:                       // x0: two doublewords, x1: a device's register. Returns failures
    mov     w5, #0
    stp     xzr, xzr, [x0]
    mov     x6, #5
    sequence "ldxr x3, [x0]", "nop", "stxr w2, w6, [x0]"
    sequence "ldxr w3, [x0]", "nop", "stxr w2, x6, [x0]"
    sequence "ldxrb w3, [x0]", "nop", "stxr w2, x6, [x0]"
    sequence "ldxrb w3, [x0]", "nop", "stxrh w2, w6, [x0]"
    sequence "ldaxr x3, [x0]", "nop", "stlxrb w2, w6, [x0]"
    sequence "ldxp w3, w7, [x0]", "nop", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "nop", "stxp w2, w6, wzr, [x0]"
    sequence "ldxp x3, x7, [x0]", "nop", "stxr w2, x6, [x0]"
    sequence "ldxp x3, x7, [x0]", "nop", "stxp w2, w6, wzr, [x0]"
    sequence "ldxr xzr, [x0]", "nop", "stxr w2, w6, [x0]"
    .irp    register, mdscr_el1, oslsr_el1, dbgbvr0_el1, dbgwcr1_el1, id_aa64pfr0_el1, cntpct_el0, cntp_ctl_el0, cntvct_el0
    sequence "ldxr x3, [x0]", "mrs x7, \register", "stxr w2, x6, [x0]"
    .endr
    sequence "ldxr x3, [x0]", "msr dbgbvr1_el1, xzr", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "ldr w7, [x1]", "stxr w2, x6, [x0]"
    sequence "ldaxr w3, [x0]", "ldr w7, [x1]", "stlxr w2, w6, [x0]"
    ldr     x3, [x0]
    cmp     x3, x6
    cinc    w5, w5, ne
    mov     w0, w5
    ret
"#
);

unsafe extern "C" {
    fn counter();
    fn counter_at();
    fn store(word: *const u64);
    fn store_at();
    fn wait();
    fn wait_at();
    fn device(register: u64);
    fn device_at();
    fn illegal(to: u64, argument: u64);
    fn el0_wait();
    fn el0_counter();
    fn undefined() -> u64;
    fn misaligned(word: *const u64);
    fn sequences(words: *const u64, register: u64) -> u32;
}

const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;
const BREAKPOINT: u64 = class::BREAKPOINT_LOWER + 1;
const WATCHPOINT: u64 = class::WATCHPOINT_LOWER + 1;
const WFX: u64 = 0x01;
const TRAPPED: u64 = 0x18;
/// The UART's flag register.
const DEVICE: u64 = 0x0900_0018;

static WORDS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static CLASS: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);
static ESR: AtomicU64 = AtomicU64::new(0);
static ELR: AtomicU64 = AtomicU64::new(0);
static FAR: AtomicU64 = AtomicU64::new(0);
static mut STACK: [u128; 16] = [0; 16];

fn handle(frame: &mut Frame) {
    if frame.wants_to_leave() {
        return frame.leave_el0();
    }
    if frame.class() != CLASS.load(Relaxed) {
        exception::unexpected(frame);
    }
    COUNT.store(COUNT.load(Relaxed) + 1, Relaxed);
    ESR.store(frame.esr, Relaxed);
    ELR.store(frame.elr, Relaxed);
    FAR.store(frame.far, Relaxed);
    match frame.class() {
        BREAKPOINT => write_register!("dbgbcr0_el1", 0),
        WATCHPOINT => write_register!("dbgwcr0_el1", 0),
        class::ILLEGAL_STATE => frame.spsr &= !IL,
        _ => frame.elr += 4,
    }
}

/// Does something that is to lead to `count` exceptions of a class, the last of them at `at`.
fn expect(
    what: &'static str,
    class: u64,
    (count, at): (u64, unsafe extern "C" fn()),
    act: impl FnOnce(),
) -> Result<(), Failure> {
    CLASS.store(class, Relaxed);
    COUNT.store(0, Relaxed);
    act();
    CLASS.store(u64::MAX, Relaxed);
    check(what, COUNT.load(Relaxed), count)?;
    check(what, ELR.load(Relaxed), at as *const () as u64)
}

fn word(n: usize) -> *const u64 {
    WORDS[n].as_ptr()
}

fn debug(on: bool) {
    write_register!("mdscr_el1", if on { KDE | MDE } else { 0 });
    if on {
        instruction!("msr daifclr, #8");
    } else {
        instruction!("msr daifset, #8");
    }
}

fn break_at(at: unsafe extern "C" fn()) {
    write_register!("dbgbvr0_el1", at as *const () as u64);
    write_register!("dbgbcr0_el1", 0xf << 5 | 1 << 1 | 1);
}

fn watch(at: u64, kind: u64) {
    write_register!("dbgwvr0_el1", at & !7);
    write_register!("dbgwcr0_el1", 0xff << 5 | kind << 3 | 1 << 1 | 1);
}

/// The guest's own breakpoints and watchpoints.
fn own_debug() -> Result<(), Failure> {
    debug(true);
    // SAFETY: each is as the assembly says; exceptions go to `handle`.
    unsafe {
        break_at(counter_at);
        expect("breakpoint at a counter's read", BREAKPOINT, (1, counter_at), || counter())?;
        break_at(store_at);
        expect("breakpoint at a store", BREAKPOINT, (1, store_at), || store(word(0)))?;
        break_at(wait_at);
        expect("breakpoint at a WFI", BREAKPOINT, (1, wait_at), || wait())?;
        watch(word(0) as u64, 2);
        expect("watchpoint of a store", WATCHPOINT, (1, store_at), || store(word(0)))?;
        check("its address", FAR.load(Relaxed), word(0) as u64)?;
        check("what is stored", WORDS[0].load(Relaxed), 2)?;
        watch(DEVICE, 1);
        expect("watchpoint of a device", WATCHPOINT, (1, device_at), || device(DEVICE))?;
        watch(DEVICE, 2);
        expect("of its stores alone", WATCHPOINT, (0, device_at), || device(DEVICE))?;
    }
    write_register!("dbgwcr0_el1", 0);
    debug(false);
    Ok(())
}

/// What else comes first.
fn others() -> Result<(), Failure> {
    let stack = (&raw mut STACK) as u64 + 256;
    let illegal_at = |what, at: unsafe extern "C" fn(), argument: u64| {
        // SAFETY: it returns by the link register.
        let act = || unsafe { illegal(at as *const () as u64, argument) };
        expect(what, class::ILLEGAL_STATE, (1, at), act)
    };
    illegal_at("illegal state at a counter's read", counter_at, 0)?;
    illegal_at("illegal state at a WFI", wait_at, 0)?;
    illegal_at("illegal state at a device", device_at, DEVICE)?;
    timer::stop();
    // Where a hypervisor has its interrupt still pending, that ends by coming there.
    // SAFETY: reads a device's register.
    unsafe { device(DEVICE) };
    let sctlr = read_register!("sctlr_el1");
    write_register!("sctlr_el1", sctlr & !(1 << 16));
    expect("WFI at EL0", WFX, (1, el0_wait), || {
        enter_el0(el0_wait as *const () as u64, 0, EL0, stack);
    })?;
    check("its syndrome", ESR.load(Relaxed), 0x07e0_0000)?;
    write_register!("sctlr_el1", sctlr);
    write_register!("cntkctl_el1", 0);
    expect("a counter at EL0", TRAPPED, (1, el0_counter), || {
        enter_el0(el0_counter as *const () as u64, 0, EL0, stack);
    })?;
    CLASS.store(class::UNKNOWN, Relaxed);
    COUNT.store(0, Relaxed);
    // SAFETY: as the assembly says.
    unsafe { undefined() };
    check("undefined encodings", COUNT.load(Relaxed), 10)?;
    CLASS.store(class::DATA_ABORT, Relaxed);
    COUNT.store(0, Relaxed);
    // SAFETY: as the assembly says; the store faults and is skipped.
    unsafe { misaligned(word(2)) };
    let has_lse2 = read_register!("id_aa64mmfr2_el1") >> 32 & 15 != 0;
    if has_lse2 && COUNT.load(Relaxed) == 0 {
        // QEMU 10 stores it below an EL2.
        return Ok(());
    }
    // WnR is left out: QEMU has it clear.
    check("a store that is not aligned", ESR.load(Relaxed) & 0x3f, 0x21)?;
    check("its address", FAR.load(Relaxed), (word(2) as u64 & !15) + 12)
}

fn run() -> Outcome {
    write_register!("oslar_el1", 0);
    // A timer that has gone off, masked: WFI ends at once.
    gic::start(0);
    gic::enable(0, timer::INTID);
    timer::start(0);
    // SAFETY: waits for the timer's status.
    unsafe { asm!("2: mrs {s}, cntv_ctl_el0", "tbz {s}, #2, 2b", s = out(reg) _) };
    own_debug()?;
    others()?;
    // SAFETY: as the assembly says. Aligned to 16 bytes, or the next two are.
    let pair = if word(0) as u64 % 16 == 0 { word(0) } else { word(1) };
    let failures = unsafe { sequences(pair, DEVICE) };
    check("sequences that do not end", failures.into(), 0)?;
    Ok(COUNT.load(Relaxed))
}

stepwell_guests::guest!("precedence", run, handle);
