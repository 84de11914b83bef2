//! What the guest's own breakpoints and watchpoints keep of each control value, and what they hit.
//!
//! For every combination of HMC, SSC and PAC or PMC, every BAS, MASK, LSC, BT and link that matters, a
//! line has what was written, what reads back, and which instructions hit at EL1, at EL0 and in T32 code
//! at EL0. Nothing here decides what is right: the test compares the lines with those of other machines.
//!
//! From `loop_start` to `loop_end` nobody executes anything: a debugger may have its own breakpoints
//! there, in the page of the instructions that hit.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{EL0, Frame, class, enter_el0, unexpected};
use stepwell_guests::hardware::uart;
use stepwell_guests::report::{Outcome, line, number};
use stepwell_guests::{instruction, read_register, write_register};

global_asm!(
    r#"
    .text
    .balign 4096
    .globl  loop_start, loop_end
loop_start:
    .rept   64
    nop
    .endr
loop_end:
    .globl  controls_targets, controls_targets_el0, controls_t32
controls_targets:
    nop
    nop
    nop
    ret
controls_targets_el0:
    bl      controls_targets
    svc     #0xff
    .balign 4
controls_t32:
    .hword  0xbf00, 0xbf00       // 0: nop; nop
    .hword  0xbf00, 0xbf00       // 4: nop; nop
    .hword  0xf3af, 0x8000       // 8: nop.w
    .hword  0xdfff, 0xbf00       // c: svc #255

    .globl  controls_accesses, controls_accesses_el0
controls_accesses:               // x0: in the middle of 128 bytes; each hit skips its instruction
    ldr     x1, [x0]
    str     x1, [x0]
    ldr     w1, [x0, #4]
    str     w1, [x0]
    ldrh    w1, [x0, #2]
    strh    w1, [x0, #6]
    ldrb    w1, [x0]
    strb    w1, [x0, #3]
    ldrsb   x1, [x0, #7]
    ldp     x1, x2, [x0, #-8]
    stp     x1, x2, [x0]
    ldr     x1, [x0, #-8]
    str     x1, [x0, #8]
    ldar    x1, [x0]
    stlr    w1, [x0]
    ldxr    x1, [x0]
    stxr    w2, x1, [x0]
    ret
controls_accesses_el0:
    bl      controls_accesses
    svc     #0xff
    .balign 4096

    .bss
    .balign 4096
    .globl  controls_area
controls_area:
    .skip   4096
    .text
"#
);

unsafe extern "C" {
    fn controls_targets();
    fn controls_targets_el0();
    fn controls_t32();
    fn controls_accesses(area: u64);
    fn controls_accesses_el0();
    static controls_area: u64;
}

const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;
/// SPSR of AArch32 User mode and T32, interrupts masked.
const T32: u64 = 0x1f0;
const T32_STATE: u64 = 0x30;
const SVC32: u64 = 0x11;
/// What the guest's context is.
const CONTEXT: u64 = 0x77;

/// A bit for each instruction that hit, and the last bit for one that is not among them.
static HITS: AtomicU64 = AtomicU64::new(0);
static BASE: AtomicU64 = AtomicU64::new(0);
const ELSEWHERE: u64 = 1 << 63;

fn handle(frame: &mut Frame) {
    let is_t32 = frame.spsr & T32_STATE == T32_STATE;
    match frame.class() {
        class::SVC | SVC32 if frame.immediate() & 0xff == 0xff => frame.leave_el0(),
        0x30 | 0x31 | 0x34 | 0x35 => {
            let size = if is_t32 { 2 } else { 4 };
            let place = frame.elr.wrapping_sub(BASE.load(Relaxed)) / size;
            if place < 32 {
                HITS.store(HITS.load(Relaxed) | 1 << place, Relaxed);
                frame.elr += size;
            } else {
                HITS.store(HITS.load(Relaxed) | ELSEWHERE, Relaxed);
                write_register!("dbgbcr0_el1", 0);
                write_register!("dbgwcr0_el1", 0);
            }
        }
        _ => unexpected(frame),
    }
}

/// Which instructions from `base` on hit while `act` executes.
fn hits(base: unsafe extern "C" fn(), act: impl FnOnce()) -> u64 {
    HITS.store(0, Relaxed);
    BASE.store(base as *const () as u64, Relaxed);
    instruction!("msr daifclr, #8");
    act();
    instruction!("msr daifset, #8");
    HITS.load(Relaxed)
}

fn targets() -> [u64; 3] {
    let at_el0 = |entry: unsafe extern "C" fn(), spsr| {
        enter_el0(entry as *const () as u64, 0, spsr, 0);
    };
    [
        // SAFETY: it returns, and changes nothing.
        hits(controls_targets, || unsafe { controls_targets() }),
        hits(controls_targets, || at_el0(controls_targets_el0, EL0)),
        hits(controls_t32, || at_el0(controls_t32, T32)),
    ]
}

fn area() -> u64 {
    (&raw const controls_area) as u64 + 1024
}

fn accesses() -> [u64; 2] {
    let base = controls_accesses as unsafe extern "C" fn(u64);
    // SAFETY: only the address is used.
    let base: unsafe extern "C" fn() = unsafe { core::mem::transmute(base) };
    [
        // SAFETY: it reads and writes the area alone.
        hits(base, || unsafe { controls_accesses(area()) }),
        hits(base, || {
            enter_el0(controls_accesses_el0 as *const () as u64, area(), EL0, 0);
        }),
    ]
}

fn show(what: &str, values: &[u64]) {
    uart::write(what);
    for &value in values {
        uart::put(b' ');
        number(value);
    }
    line("");
}

/// A breakpoint at the second of the targets.
fn breakpoint(t32: bool, control: u64) {
    let base =
        if t32 { controls_t32 as *const () as u64 } else { controls_targets as *const () as u64 };
    write_register!("dbgbvr0_el1", base + 4);
    write_register!("dbgbcr0_el1", control);
    let [el1, el0, t32] = targets();
    show("b", &[control, read_register!("dbgbcr0_el1"), el1, el0, t32]);
    write_register!("dbgbcr0_el1", 0);
}

fn watchpoint(at: u64, control: u64) {
    write_register!("dbgwvr0_el1", at);
    write_register!("dbgwcr0_el1", control);
    let [el1, el0] = accesses();
    let value = read_register!("dbgwvr0_el1");
    show("w", &[at - area(), control, read_register!("dbgwcr0_el1"), value, el1, el0]);
    write_register!("dbgwcr0_el1", 0);
}

/// HMC, SSC, and PAC or PMC, in their places.
fn privileges() -> impl Iterator<Item = u64> {
    (0..32).map(|n| (n >> 4 & 1) << 13 | (n >> 2 & 3) << 14 | (n & 3) << 1)
}

/// LBN of the breakpoint that matches the context, in its place; BT or WT.
const fn link(breakpoint: u64, kind: u64) -> u64 {
    breakpoint << 16 | kind << 20
}

/// The first breakpoint that can match a context.
fn first_aware() -> u64 {
    let dfr0 = read_register!("id_aa64dfr0_el1");
    (dfr0 >> 12 & 15) - (dfr0 >> 28 & 15)
}

const EVERYWHERE: u64 = 3 << 1;
const ENABLED: u64 = 1;

fn breakpoints() {
    for privilege in privileges() {
        breakpoint(false, privilege | 0xf << 5 | ENABLED);
        breakpoint(true, privilege | 0xf << 5 | ENABLED);
    }
    for bas in 0..16 {
        breakpoint(false, EVERYWHERE | bas << 5 | ENABLED);
        breakpoint(true, EVERYWHERE | bas << 5 | ENABLED);
        breakpoint(true, EVERYWHERE | bas << 5);
    }
    let aware = first_aware();
    for kind in 0..16 {
        for linked in [0, 1, aware, aware + 1, 15] {
            breakpoint(false, EVERYWHERE | 0xf << 5 | link(linked, kind) | ENABLED);
        }
    }
    // Bits that nothing is in.
    breakpoint(false, u64::MAX << 24 | EVERYWHERE | 0xf << 5 | ENABLED);
    breakpoint(false, 1 << 3 | 1 << 4 | EVERYWHERE | 0xf << 5 | ENABLED);
}

fn watchpoints() {
    const LOADS_AND_STORES: u64 = 3 << 3;
    let all = 0xff << 5;
    for privilege in privileges() {
        watchpoint(area(), privilege | LOADS_AND_STORES | all | ENABLED);
    }
    for lsc in 0..4 {
        watchpoint(area(), EVERYWHERE | lsc << 3 | all | ENABLED);
        watchpoint(area(), EVERYWHERE | lsc << 3 | all);
    }
    for bas in 0..256 {
        watchpoint(area(), EVERYWHERE | LOADS_AND_STORES | bas << 5 | ENABLED);
    }
    for bas in [1, 3, 0xf] {
        watchpoint(area() + 4, EVERYWHERE | LOADS_AND_STORES | bas << 5 | ENABLED);
        watchpoint(area() - 4, EVERYWHERE | LOADS_AND_STORES | bas << 5 | ENABLED);
    }
    for mask in 0..32 {
        for (offset, lsc) in [(0, 3), (8, 1), (64, 2)] {
            watchpoint(area() + offset, EVERYWHERE | lsc << 3 | all | mask << 24 | ENABLED);
        }
    }
    let aware = first_aware();
    for linked in [0, 1, aware, aware + 1, 15] {
        watchpoint(area(), EVERYWHERE | LOADS_AND_STORES | all | link(linked, 1) | ENABLED);
    }
}

/// With breakpoints that match the context, and one that does not.
fn contexts() {
    const CONTEXT_LINKED: u64 = 3;
    write_register!("contextidr_el1", CONTEXT);
    let controls = [EVERYWHERE | 0xf << 5 | link(0, CONTEXT_LINKED) | ENABLED, 0];
    for (n, control) in controls.into_iter().enumerate() {
        show("context", &[n as u64, control]);
        if first_aware() == 4 {
            write_register!("dbgbvr4_el1", CONTEXT);
            write_register!("dbgbcr4_el1", control);
            write_register!("dbgbvr5_el1", CONTEXT + 1);
            write_register!("dbgbcr5_el1", control);
        } else {
            line("no such breakpoints");
        }
        for kind in [0, 1] {
            for linked in [0, 3, 4, 5] {
                breakpoint(false, EVERYWHERE | 0xf << 5 | link(linked, kind) | ENABLED);
                let watch = EVERYWHERE | 3 << 3 | 0xff << 5 | link(linked, kind) | ENABLED;
                watchpoint(area(), watch);
            }
        }
    }
    write_register!("dbgbcr4_el1", 0);
    write_register!("dbgbcr5_el1", 0);
    write_register!("contextidr_el1", 0);
}

fn run() -> Outcome {
    write_register!("oslar_el1", 0);
    for mdscr in [MDE, 0, KDE] {
        write_register!("mdscr_el1", mdscr);
        breakpoint(false, EVERYWHERE | 0xf << 5 | ENABLED);
        watchpoint(area(), EVERYWHERE | 3 << 3 | 0xff << 5 | ENABLED);
    }
    write_register!("mdscr_el1", KDE | MDE);
    breakpoints();
    watchpoints();
    contexts();
    Ok(0)
}

stepwell_guests::guest!("debug_controls", run, handle);
