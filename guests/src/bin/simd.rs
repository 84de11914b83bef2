//! FP and SIMD registers: they are the guest's, whatever exits to EL2 fall between.
//!
//! Each register gets a pattern of its own; then come firmware calls, device accesses and a spin;
//! then all must be as they were. The code around is compiled without FP, so only this touches it.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;

use stepwell_guests::hardware::{psci, read32, timer, uart};
use stepwell_guests::report::{Failure, Outcome, check};
use stepwell_guests::write_register;

global_asm!(
    r#"
    .arch armv8-a+simd
    .text
    // x0: seed. Vn = seed + n in each half, the high one inverted; FPCR and FPSR too.
    .macro  fill n
    add     x1, x0, #\n
    mvn     x2, x1
    fmov    d\n, x1
    ins     v\n\().d[1], x2
    .endm
    .macro  examine n
    add     x1, x0, #\n
    mvn     x2, x1
    umov    x3, v\n\().d[0]
    umov    x4, v\n\().d[1]
    eor     x3, x3, x1
    eor     x4, x4, x2
    orr     x5, x5, x3
    orr     x5, x5, x4
    .endm
fill_vectors:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    fill    \n
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    fill    \n
    .endr
    mov     x1, #0x1c00000          // FZ, RMode
    msr     fpcr, x1
    mov     x1, #0x15               // IOC, OFC, IXC
    msr     fpsr, x1
    ret
    // Returns what differs, all bits or-ed.
examine_vectors:
    mov     x5, #0
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    examine \n
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    examine \n
    .endr
    mrs     x1, fpcr
    mov     x2, #0x1c00000
    eor     x1, x1, x2
    orr     x5, x5, x1
    mrs     x1, fpsr
    mov     x2, #0x15
    eor     x1, x1, x2
    orr     x0, x5, x1
    ret
    // Bits of the double 3.0 * 7.0 + 0.5.
compute:
    fmov    d0, #3.0
    fmov    d1, #7.0
    fmov    d2, #0.5
    fmadd   d0, d0, d1, d2
    fmov    x0, d0
    ret
"#
);

unsafe extern "C" {
    safe fn fill_vectors(seed: u64);
    safe fn examine_vectors(seed: u64) -> u64;
    safe fn compute() -> u64;
}

fn exits() -> Result<(), Failure> {
    for _ in 0..10 {
        psci::call(psci::VERSION, 0, 0, 0);
        let _ = read32(uart::FR);
    }
    timer::spin(timer::ticks_of_us(100));
    Ok(())
}

fn run() -> Outcome {
    write_register!("cpacr_el1", 3 << 20);
    check("3 * 7 + 0.5", compute(), 21.5_f64.to_bits())?;
    for seed in [0x0123_4567_89ab_cdef, u64::MAX - 1000, 1] {
        fill_vectors(seed);
        check("at once", examine_vectors(seed), 0)?;
        exits()?;
        check("after exits", examine_vectors(seed), 0)?;
    }
    Ok(0)
}

stepwell_guests::guest!("simd", run);
