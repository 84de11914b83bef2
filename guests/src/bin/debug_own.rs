//! The guest's own debugger: single-stepping its EL0, hardware breakpoint and watchpoint, BRK.
//!
//! A stepper that takes MDSCR_EL1.SS or the exceptions away from the guest is found out here.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, EL0, Frame, SS, class, enter_el0};
use stepwell_guests::report::{Failure, Outcome, check};
use stepwell_guests::{read_register, write_register};

global_asm!(
    r#"
    .text
    .globl el0_code, el0_target, el0_end
    // x0: one word of memory.
el0_code:
    mov     x1, #3
1:  subs    x1, x1, #1
    b.ne    1b
el0_target:
    add     x2, x0, #0
    str     x1, [x2]
    ldr     x3, [x2]
    brk     #0x77
    mov     x0, #42
el0_end:
    svc     #0xff
"#
);

unsafe extern "C" {
    fn el0_code();
    fn el0_target();
    fn el0_end();
}

/// Instructions of `el0_code` in the order of their execution, as words from its start.
const PATH: [u64; 13] = [0, 1, 2, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8];

const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;

static STEPS: AtomicU64 = AtomicU64::new(0);
static ASTRAY: AtomicU64 = AtomicU64::new(0);
static BRKS: AtomicU64 = AtomicU64::new(0);
static BREAKPOINTS: AtomicU64 = AtomicU64::new(0);
static WATCHPOINTS: AtomicU64 = AtomicU64::new(0);
static LAST_FAR: AtomicU64 = AtomicU64::new(0);
static SINGLE_STEP: AtomicU64 = AtomicU64::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);
static mut STACK: [u128; 64] = [0; 64];

fn bump(counter: &AtomicU64) -> u64 {
    let value = counter.load(Relaxed) + 1;
    counter.store(value, Relaxed);
    value
}

fn handle(frame: &mut Frame) {
    let stepping = SINGLE_STEP.load(Relaxed) != 0;
    match frame.class() {
        _ if frame.wants_to_leave() => {
            write_register!("mdscr_el1", 0);
            frame.leave_el0();
        }
        class::SOFTWARE_STEP_LOWER if stepping => {
            let done = bump(&STEPS) as usize;
            let expected = PATH.get(done).map(|word| el0_code as *const () as u64 + 4 * word);
            if expected != Some(frame.elr) {
                bump(&ASTRAY);
            }
            frame.spsr |= SS;
        }
        class::BRK => {
            bump(&BRKS);
            frame.elr += 4;
            // A BRK does not count as a step: what follows it is the next.
            if stepping {
                frame.spsr = frame.spsr & !SS | SS;
                bump(&STEPS);
            }
        }
        class::BREAKPOINT_LOWER => {
            bump(&BREAKPOINTS);
            LAST_FAR.store(frame.elr, Relaxed);
            write_register!("dbgbcr0_el1", 0);
        }
        class::WATCHPOINT_LOWER => {
            bump(&WATCHPOINTS);
            LAST_FAR.store(frame.far, Relaxed);
            write_register!("dbgwcr0_el1", 0);
        }
        _ => exception::unexpected(frame),
    }
}

fn run_el0(spsr: u64) -> u64 {
    let stack = (&raw mut STACK) as u64 + 1024;
    enter_el0(el0_code as *const () as u64, WORD.as_ptr() as u64, spsr, stack)
}

fn single_step() -> Result<(), Failure> {
    SINGLE_STEP.store(1, Relaxed);
    write_register!("mdscr_el1", 1);
    check("result, stepped", run_el0(EL0 | SS), 42)?;
    SINGLE_STEP.store(0, Relaxed);
    check("steps", STEPS.load(Relaxed), PATH.len() as u64 - 1)?;
    check("steps astray", ASTRAY.load(Relaxed), 0)?;
    check("BRK while stepped", BRKS.load(Relaxed), 1)?;
    check("switched off", read_register!("mdscr_el1") & 1, 0)
}

fn breakpoint() -> Result<(), Failure> {
    write_register!("dbgbvr0_el1", el0_target as *const () as u64);
    // Enabled, EL0 only, whole word.
    write_register!("dbgbcr0_el1", 0x1e5);
    write_register!("mdscr_el1", MDE | KDE);
    check("result with breakpoint", run_el0(EL0), 42)?;
    check("breakpoints", BREAKPOINTS.load(Relaxed), 1)?;
    check("breakpoint at", LAST_FAR.load(Relaxed), el0_target as *const () as u64)?;
    // Without MDE it is not taken.
    write_register!("dbgbcr0_el1", 0x1e5);
    write_register!("mdscr_el1", 0);
    check("result without MDE", run_el0(EL0), 42)?;
    write_register!("dbgbcr0_el1", 0);
    check("breakpoints without MDE", BREAKPOINTS.load(Relaxed), 1)
}

fn watchpoint() -> Result<(), Failure> {
    write_register!("dbgwvr0_el1", WORD.as_ptr() as u64);
    // Enabled, EL0 only, stores, all eight bytes.
    write_register!("dbgwcr0_el1", 0x1ff5);
    write_register!("mdscr_el1", MDE);
    check("result with watchpoint", run_el0(EL0), 42)?;
    check("watchpoints", WATCHPOINTS.load(Relaxed), 1)?;
    check("watchpoint at", LAST_FAR.load(Relaxed), WORD.as_ptr() as u64)
}

fn run() -> Outcome {
    write_register!("oslar_el1", 0);
    let length = (el0_end as *const () as u64 - el0_code as *const () as u64) / 4;
    check("length of the code", length, 8)?;
    single_step()?;
    BRKS.store(0, Relaxed);
    check("result, unstepped", run_el0(EL0), 42)?;
    check("BRK", BRKS.load(Relaxed), 1)?;
    breakpoint()?;
    watchpoint()?;
    Ok(STEPS.load(Relaxed))
}

stepwell_guests::guest!("debug_own", run, handle);
