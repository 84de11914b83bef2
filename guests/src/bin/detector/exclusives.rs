//! Exclusive sequences that succeed on a CPU of one's own, whatever is between load and store, and at
//! once, and stores that fail.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{syndrome, tell, value, words_beside_breakpoints};

global_asm!(
    r#"
    // A sequence that gives up after 20 turns: x2 is 0 where it came to its end.
    .macro  sequence load, between, store
    mov     w4, #20
9:  subs    w4, w4, #1
    b.eq    8f
    \load
    \between
    \store
    cbnz    w2, 9b
8:  add     w5, w5, w2
    .endm

    .text
    .globl  detect_sequences
detect_sequences:                // x0: two doublewords, x1: a device's register, x8: any word
    mov     w5, #0
    stp     xzr, xzr, [x0]
    mov     x6, #5
    sequence "ldxr x3, [x0]", "nop", "stxr w2, w6, [x0]"
    sequence "ldxr w3, [x0]", "nop", "stxr w2, x6, [x0]"
    sequence "ldxrb w3, [x0]", "nop", "stxrh w2, w6, [x0]"
    sequence "ldaxrh w3, [x0]", "nop", "stlxrb w2, w6, [x0]"
    sequence "ldxp w3, w7, [x0]", "nop", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "nop", "stxp w2, w6, wzr, [x0]"
    sequence "ldaxp x3, x7, [x0]", "nop", "stlxp w2, x6, xzr, [x0]"
    .irp    register, mdscr_el1, oslsr_el1, dbgbvr0_el1, dbgbcr1_el1, dbgwcr0_el1, id_aa64isar0_el1
    sequence "ldxr x3, [x0]", "mrs x7, \register", "stxr w2, x6, [x0]"
    .endr
    .irp    register, cntvct_el0, cntpct_el0, cntp_ctl_el0, cntv_cval_el0, isr_el1, ctr_el0
    sequence "ldxr x3, [x0]", "mrs x7, \register", "stxr w2, x6, [x0]"
    .endr
    sequence "ldxr x3, [x0]", "msr dbgbvr0_el1, xzr", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "isb", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "dmb sy", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "ldr w7, [x1]", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "ldr x7, [x8]", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "str x6, [x8]", "stxr w2, x6, [x0]"
    sequence "ldxr x3, [x0]", "ldp x7, x9, [x8]", "stxr w2, x6, [x0]"
    mov     w0, w5
    ret

    // One that is tried once.
    .macro  once load, between, store
    \load
    \between
    \store
    add     w5, w5, w2
    .endm

    .globl  detect_once
detect_once:                     // As above.
    mov     w5, #0
    mov     x6, #5
    mov     w4, #8
1:  once    "ldxr x3, [x0]", "nop", "stxr w2, x6, [x0]"
    once    "ldxr w3, [x0]", "mrs x7, id_aa64pfr0_el1", "stxr w2, w6, [x0]"
    once    "ldaxr x3, [x0]", "mrs x7, cntpct_el0", "stlxr w2, x6, [x0]"
    once    "ldxp x3, x7, [x0]", "mrs x9, cntp_ctl_el0", "stxp w2, x3, x7, [x0]"
    once    "ldxr x3, [x0]", "mrs x7, dbgbvr0_el1", "stxr w2, x6, [x0]"
    once    "ldxr x3, [x0]", "ldr w7, [x1]", "stxr w2, x6, [x0]"
    once    "ldxr x3, [x0]", "ldr x7, [x8]", "stxr w2, x6, [x0]"
    subs    w4, w4, #1
    b.ne    1b
    mov     w0, w5
    ret

    .globl  detect_failures
detect_failures:                 // x0: two doublewords. One bit for each store that fails
    mov     w5, #0
    clrex
    stxr    w2, xzr, [x0]
    orr     w5, w5, w2
    ldxr    x3, [x0]
    clrex
    stxr    w2, x3, [x0]
    orr     w5, w5, w2, lsl #1
    ldxr    x3, [x0]
    stxr    w2, x3, [x0]
    stxr    w2, x3, [x0]
    orr     w5, w5, w2, lsl #2
    ldxr    x3, [x0]
    add     x4, x3, #1
    str     x4, [x0]
    stxr    w2, x3, [x0]
    orr     w5, w5, w2, lsl #3
    ldxr    x3, [x0]
    svc     #0                   // an exception and its return
    stxr    w2, x3, [x0]
    orr     w5, w5, w2, lsl #4
    mov     w0, w5
    ret
"#
);

unsafe extern "C" {
    fn detect_failures(words: *mut u64) -> u64;
}

/// The UART's flag register.
const DEVICE: u64 = 0x0900_0018;

#[repr(align(16))]
struct Words([AtomicU64; 4]);

static FAILED: AtomicU64 = AtomicU64::new(0);
static WORDS: Words = Words([const { AtomicU64::new(0) }; 4]);

/// Stores that failed, of one of the functions above.
macro_rules! failures {
    ($function:literal, $words:expr, $other:expr) => {{
        let failures: u64;
        // SAFETY: both are words of this image; what changes is declared.
        unsafe {
            core::arch::asm!(concat!("bl ", $function), inout("x0") $words => failures,
                in("x1") DEVICE, in("x8") $other, out("x2") _, out("x3") _, out("x4") _, out("x5") _,
                out("x6") _, out("x7") _, out("x9") _, out("x30") _);
        }
        failures
    }};
}

fn sequences(words: *mut u64, other: *mut u64) -> u64 {
    failures!("detect_sequences", words, other)
}

/// Beside a CPU that runs, which does not write these words.
pub fn look_beside() {
    let (data, beside) = (WORDS.0[0].as_ptr(), words_beside_breakpoints());
    tell("exclusives-fail-beside-others", failures!("detect_once", data, beside) != 0);
    look_at(data, beside);
}

pub fn look() {
    let (data, beside) = (WORDS.0[0].as_ptr(), words_beside_breakpoints());
    value("exclusives.at-once", failures!("detect_once", data, beside));
    look_at(data, beside);
}

fn look_at(data: *mut u64, beside: *mut u64) {
    value("exclusives.data", sequences(data, data.wrapping_add(2)));
    value("exclusives.data-and-code", sequences(data, beside));
    value("exclusives.code", sequences(beside, beside.wrapping_add(2)));
    let esr = syndrome(|| {
        // SAFETY: words of this image; the SVC is expected.
        FAILED.store(unsafe { detect_failures(data) }, Relaxed);
    });
    value("exclusives.failures", FAILED.load(Relaxed));
    value("exclusives.svc", esr);
}
