//! The guest's own single-step, breakpoints and watchpoints.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{EL0, Frame, SS, class, enter_el0};
use stepwell_guests::{instruction, read_register, write_register};

use crate::value;

global_asm!(
    r#"
    .text
    .globl  detect_stepped, detect_broken
detect_stepped:                  // x0: a word
    mov     x1, #3
1:  ldxr    w2, [x0]
    add     w2, w2, #1
    subs    x1, x1, #1
    b.ne    1b
    str     w2, [x0]
    mrs     x3, nzcv
    svc     #0xff

detect_broken:                   // x0: a word
    nop
    str     xzr, [x0]
    ldr     x1, [x0]
    ret
"#
);

unsafe extern "C" {
    fn detect_stepped();
    fn detect_broken(word: *mut u64);
}

const MDSCR_SS: u64 = 1;
const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;
const BREAKPOINT: u64 = class::BREAKPOINT_LOWER + 1;
const WATCHPOINT: u64 = class::WATCHPOINT_LOWER + 1;

static STEPS: AtomicU64 = AtomicU64::new(0);
static HITS: AtomicU64 = AtomicU64::new(0);
static PLACES: AtomicU64 = AtomicU64::new(0);
static SYNDROMES: AtomicU64 = AtomicU64::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);
static mut STACK: [u128; 16] = [0; 16];

fn add(sum: &AtomicU64, value: u64) {
    sum.store(sum.load(Relaxed).rotate_left(5) ^ value, Relaxed);
}

/// Takes an exception that this module has asked for.
pub fn take(frame: &mut Frame) -> bool {
    let counted = match frame.class() {
        class::SOFTWARE_STEP_LOWER => {
            frame.spsr |= SS;
            &STEPS
        }
        BREAKPOINT => {
            write_register!("dbgbcr0_el1", 0);
            // UNKNOWN, by the manual; what the CPU leaves there it is to leave under a debugger, too.
            add(&PLACES, frame.far);
            &HITS
        }
        WATCHPOINT => {
            write_register!("dbgwcr0_el1", 0);
            add(&PLACES, frame.far);
            &HITS
        }
        _ => return false,
    };
    counted.store(counted.load(Relaxed) + 1, Relaxed);
    add(&PLACES, frame.elr);
    add(&SYNDROMES, frame.esr);
    true
}

fn said(name: &str, hits: &AtomicU64) {
    value(name, hits.swap(0, Relaxed));
    value("debug.places", PLACES.swap(0, Relaxed));
    value("debug.syndromes", SYNDROMES.swap(0, Relaxed));
}

pub fn look() {
    let stack = (&raw mut STACK) as u64 + 256;
    write_register!("mdscr_el1", MDSCR_SS);
    enter_el0(detect_stepped as *const () as u64, WORD.as_ptr() as u64, EL0 | SS, stack);
    write_register!("mdscr_el1", 0);
    said("debug.steps", &STEPS);
    write_register!("mdscr_el1", KDE | MDE);
    instruction!("msr daifclr, #8");
    write_register!("dbgbvr0_el1", detect_broken as *const () as u64 + 4);
    write_register!("dbgbcr0_el1", 0xf << 5 | 1 << 1 | 1);
    // SAFETY: stores a word of this module.
    unsafe { detect_broken(WORD.as_ptr()) };
    said("debug.breakpoints", &HITS);
    write_register!("dbgwvr0_el1", WORD.as_ptr() as u64);
    // Loads.
    write_register!("dbgwcr0_el1", 0xff << 5 | 1 << 3 | 1 << 1 | 1);
    // SAFETY: as above.
    unsafe { detect_broken(WORD.as_ptr()) };
    said("debug.watchpoints", &HITS);
    instruction!("msr daifset, #8");
    write_register!("mdscr_el1", 0);
    value("debug.mdscr", read_register!("mdscr_el1"));
}
