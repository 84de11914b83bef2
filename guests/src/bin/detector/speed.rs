//! Whether time passes as on a board: what is slow is slow, nothing takes as long each time, handlers
//! run as fast as what they interrupt.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::{instruction, write_register};

use crate::clock::{least_each, measure, now, ticks};
use crate::interrupts::{MEASURES, SGIS, TAKEN};
use crate::{tell, words_beside_breakpoints};

global_asm!(
    r#"
    .text
    .globl  detect_nops, detect_divisions, detect_device, detect_loop, detect_loads
detect_nops:
    .rept   200
    nop
    .endr
    ret
detect_divisions:
    .arch_extension fp
    fmov    d0, #3.0
    fmov    d1, #7.0
    .rept   200
    fdiv    d2, d0, d1
    .endr
    .arch_extension nofp
    ret
detect_device:                   // x0: a register
    .rept   200
    ldr     w1, [x0]
    .endr
    ret
detect_loads:                    // x0: a word
    .rept   200
    ldr     x1, [x0]
    .endr
    ret
detect_loop:                     // x0: turns
    subs    x0, x0, #1
    b.ne    detect_loop
    ret
"#
);

unsafe extern "C" {
    fn detect_nops();
    fn detect_divisions();
    fn detect_device(register: u64);
    fn detect_loads(word: *const u64);
    fn detect_loop(turns: u64);
}

/// The UART's flag register.
const DEVICE: u64 = 0x0900_0018;
/// Tries of what is not to be the same each time.
const TRIES: usize = 16;
/// Turns of the loop that handlers are measured by.
const TURNS: u64 = 500;
/// How many times as slow a handler may be: what else the host has to do is in it, too.
const SLOWER: u64 = 6;

static IN_HANDLER: AtomicU64 = AtomicU64::new(0);
static BEFORE_ACKNOWLEDGE: AtomicU64 = AtomicU64::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);

fn turns(count: u64) {
    // SAFETY: it counts.
    unsafe { detect_loop(count) };
}

/// In the handler, before the GIC is asked what it is.
pub fn before_acknowledge() {
    BEFORE_ACKNOWLEDGE.fetch_min(measure(|| turns(TURNS)), Relaxed);
}

/// In the handler, later.
pub fn in_handler() {
    IN_HANDLER.fetch_min(measure(|| turns(TURNS)), Relaxed);
}

fn instructions() {
    // FPEN.
    write_register!("cpacr_el1", 3 << 20);
    // SAFETY: each does what its name says, of a device's register and words of this image.
    let [nops, divisions, device, loads, beside] = unsafe {
        least_each([
            &mut || detect_nops(),
            &mut || detect_divisions(),
            &mut || detect_device(DEVICE),
            &mut || detect_loads(WORD.as_ptr()),
            &mut || detect_loads(words_beside_breakpoints()),
        ])
    };
    tell("devices-are-fast", device < 2 * nops);
    tell("divisions-are-fast", divisions * 4 < nops * 5);
    tell("loads-of-code-are-slow", beside > 8 * loads + ticks(10));
}

/// But for the rounding of the clock.
fn are_same(values: &[u64; TRIES]) -> bool {
    let least = values.iter().min().copied().unwrap_or(0);
    values.iter().all(|value| value - least <= 1)
}

/// Whether the same code takes the same time, WFI ends on the tick, and interrupts come after the same
/// number of instructions.
fn repetitions() {
    let mut each = [0; TRIES];
    each.iter_mut().for_each(|took| *took = measure(|| turns(10_000)));
    tell("code-always-takes-as-long", are_same(&each));
    for late in &mut each {
        let deadline = now() + ticks(50);
        write_register!("cntv_cval_el0", deadline);
        write_register!("cntv_ctl_el0", 1);
        while now() < deadline {
            instruction!("wfi");
        }
        *late = now() - deadline;
        timer::stop();
    }
    tell("wfi-is-on-the-tick", are_same(&each));
    for rounds in &mut each {
        TAKEN.store(0, Relaxed);
        timer::start(ticks(100));
        let start = now();
        *rounds = 0;
        instruction!("msr daifclr, #2");
        while TAKEN.load(Relaxed) == 0 && now() - start < ticks(1_000) {
            *rounds += 1;
        }
        instruction!("msr daifset, #2");
        timer::stop();
    }
    // Where none is taken it is told already.
    tell("interrupts-come-in-the-same-round", TAKEN.load(Relaxed) != 0 && are_same(&each));
}

/// Handlers of SGIs and of the timer, against what they interrupt.
fn handlers() {
    IN_HANDLER.store(u64::MAX, Relaxed);
    BEFORE_ACKNOWLEDGE.store(u64::MAX, Relaxed);
    MEASURES.store(1, Relaxed);
    for try_ in 0..8 {
        TAKEN.store(0, Relaxed);
        instruction!("msr daifclr, #2");
        if try_ % 2 == 0 {
            gic::send_sgi(SGIS[1].into(), 1);
        } else {
            timer::start(ticks(20));
        }
        let start = now();
        while TAKEN.load(Relaxed) == 0 && now() - start < ticks(500) {}
        instruction!("msr daifset, #2");
        timer::stop();
        if TAKEN.load(Relaxed) == 0 {
            let intid = gic::acknowledge();
            if intid != gic::SPURIOUS {
                gic::end(intid);
            }
        }
    }
    MEASURES.store(0, Relaxed);
    let [outside] = least_each([&mut || turns(TURNS)]);
    let differs = |inside: u64| inside > SLOWER * outside || outside > SLOWER * inside.max(1);
    let (inside, before) = (IN_HANDLER.load(Relaxed), BEFORE_ACKNOWLEDGE.load(Relaxed));
    tell("handlers-have-another-speed", inside != u64::MAX && differs(inside));
    tell("handlers-begin-slowly", before != u64::MAX && differs(before));
}

pub fn look() {
    instructions();
    repetitions();
    handlers();
}
