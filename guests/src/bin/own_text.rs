//! A guest that reads, patches and executes its own text, on every CPU that there is and at EL0.
//!
//! The notes' loop is that text: functions of 128 bytes each, each of which adds 4 to x0, one of them
//! by a literal that lies between the instructions. Behind them is a BRK of the guest's own. Whatever
//! a debugger puts on any of these instructions, what is read and what is executed stays the same.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, EL0, Frame, class, enter_el0};
use stepwell_guests::hardware::cpus;
use stepwell_guests::report::{Failure, Outcome, check};

global_asm!(
    r#"
    .section .text.functions, "ax"
    .balign 0x1000
    .globl  loop_start, loop_end, own_brk, el0_code
loop_start:
    .rept   208
    .balign 128
    add     x0, x0, #1
    ldr     x1, 1f
    add     x0, x0, x1
    ret
1:  .quad   3
    .endr
    .balign 128
loop_end:
own_brk:
    brk     #0x55
    ret
    // x0: the first function.
el0_code:
    mov     x19, x0
    ldr     w20, [x0]
    mov     x0, #0
    blr     x19
    add     x19, x19, #128
    blr     x19
    add     x0, x0, x20, lsl #32
    svc     #0xff
    .text
"#
);

unsafe extern "C" {
    fn loop_start();
    fn loop_end();
    fn own_brk();
    fn el0_code();
}

const FUNCTIONS: u64 = 208;
const FUNCTION_BYTES: u64 = 128;
const CPUS: usize = 4;
/// `add x0, x0, #1`
const ADD_1: u32 = 0x9100_0400;
/// `add x0, x0, #5`
const ADD_5: u32 = 0x9100_1400;
const ROUNDS: u64 = 1;

static BRKS: AtomicU64 = AtomicU64::new(0);
static SUMS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
static CALLS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];

fn start() -> u64 {
    loop_start as *const () as u64
}

fn end() -> u64 {
    loop_end as *const () as u64
}

fn call(function: u64, x0: u64) -> u64 {
    let result;
    // SAFETY: the functions change x0 and x1 only, and return.
    unsafe {
        asm!("blr {}", in(reg) function, inout("x0") x0 => result, out("x1") _, out("x30") _);
    }
    result
}

/// Adds up the text, by every kind of load that there is.
fn sum() -> u64 {
    let (mut sum, mut at) = (0_u64, start());
    while at < end() {
        let (a, b, c, d, e, f, g, h): (u64, u64, u64, u64, u64, u64, u64, u64);
        // SAFETY: 64 bytes of text, read.
        unsafe {
            asm!(
                "ldr {a}, [{at}], #8",
                "ldp {b}, {c}, [{at}], #16",
                "ldar {d}, [{at}]",
                "ldxr {e}, [{at}]",
                "clrex",
                "ldrb {f:w}, [{at}, #8]!",
                "ldursh {g}, [{at}, #6]",
                "ldpsw {h}, {b2}, [{at}, #24]",
                "add {h}, {h}, {b2}, lsl #1",
                "add {at}, {at}, #32",
                at = inout(reg) at, a = out(reg) a, b = out(reg) b, c = out(reg) c, d = out(reg) d,
                e = out(reg) e, f = out(reg) f, g = out(reg) g, h = out(reg) h, b2 = out(reg) _,
            );
        }
        for value in [a, b, c, d, e, f, g, h] {
            sum = sum.rotate_left(7).wrapping_add(value);
        }
    }
    sum
}

/// What each CPU does.
fn work(cpu: usize) {
    let mut calls = 0;
    for _ in 0..ROUNDS {
        for n in 0..FUNCTIONS {
            calls = call(start() + n * FUNCTION_BYTES, calls);
        }
    }
    SUMS[cpu].store(sum(), Relaxed);
    CALLS[cpu].store(calls, Relaxed);
}

extern "C" fn secondary() -> ! {
    work(cpus::number());
    loop {
        stepwell_guests::instruction!("wfi");
    }
}

/// Switches the others on; returns how many there are in all.
fn start_others() -> usize {
    for cpu in 1..CPUS {
        if cpus::start(cpu, secondary) != 0 {
            return cpu;
        }
    }
    CPUS
}

/// Makes an instruction that was written the one that executes.
fn publish(at: u64) {
    // SAFETY: cache maintenance of the guest's own text.
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) at);
    }
}

/// Rewrites functions while it uses them.
fn patch() -> Result<(), Failure> {
    for n in 200..FUNCTIONS {
        let at = start() + n * FUNCTION_BYTES;
        // SAFETY: the guest's own text, which nobody else executes now.
        unsafe { (at as *mut u32).write_volatile(ADD_5) };
        publish(at);
        check("patched", call(at, 0), 8)?;
        // A pair of words at once, then bytes.
        let second = u64::from(ADD_5) << 32 | u64::from(ADD_5);
        // SAFETY: as above.
        unsafe {
            asm!("stp {0:w}, {1:w}, [{2}]", in(reg) second, in(reg) second >> 32, in(reg) at);
        }
        publish(at);
        // The literal's register is what it was.
        check("patched twice", call_keeping_x1(at, 0, 3), 13)?;
        // SAFETY: as above.
        unsafe {
            for (byte, value) in ADD_1.to_le_bytes().into_iter().enumerate() {
                ((at + byte as u64) as *mut u8).write_volatile(value);
            }
            ((at + 4) as *mut u32).write_volatile(0x5800_0061);
        }
        publish(at);
        check("patched back", call(at, 0), 4)?;
    }
    Ok(())
}

fn call_keeping_x1(function: u64, x0: u64, x1: u64) -> u64 {
    let result;
    // SAFETY: as in `call`.
    unsafe {
        asm!("blr {}", in(reg) function, inout("x0") x0 => result, inout("x1") x1 => _,
            out("x30") _);
    }
    result
}

fn handle(frame: &mut Frame) {
    match frame.class() {
        _ if frame.wants_to_leave() => frame.leave_el0(),
        class::BRK => {
            check("BRK", frame.immediate(), 0x55).unwrap_or_else(|_| exception::unexpected(frame));
            BRKS.store(BRKS.load(Relaxed) + 1, Relaxed);
            frame.elr += 4;
        }
        _ => exception::unexpected(frame),
    }
}

fn run() -> Outcome {
    check("length", end() - start(), FUNCTIONS * FUNCTION_BYTES)?;
    let first = sum();
    let all = start_others();
    work(0);
    for cpu in 0..all {
        while CALLS[cpu].load(Relaxed) == 0 {
            core::hint::spin_loop();
        }
        check("calls", CALLS[cpu].load(Relaxed), 4 * FUNCTIONS * ROUNDS)?;
        check("sum", SUMS[cpu].load(Relaxed), first)?;
    }
    patch()?;
    check("sum after patches", sum(), first)?;
    call(own_brk as *const () as u64, 0);
    check("BRKs", BRKS.load(Relaxed), 1)?;
    // This CPU has another stack at EL1.
    let stack = cpus::stack_top(0) as u64;
    let el0 = enter_el0(el0_code as *const () as u64, start(), EL0, stack);
    check("EL0", el0, u64::from(ADD_1) << 32 | 8)?;
    Ok(first ^ all as u64)
}

stepwell_guests::guest!("own_text", run, handle);
