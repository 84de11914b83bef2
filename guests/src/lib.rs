//! The ground that Stepwell's test guests share.
//!
//! Each guest is a program of one topic for a bare arm64 machine at EL1 (QEMU's `virt`). It prints
//! one line, `NAME: ok N` or `NAME: FAIL …`, and powers off. The same image runs on plain QEMU and
//! under Stepwell, which is how the tests in `tests/` compare the two instruction by instruction.
//! For that reason nothing here depends on chance: no addresses from outside, no time in a loop
//! except in the section `.text.timed`, no interrupt that code outside the handlers could notice
//! before `exact_end`.
//!
//! Deliberately absent: FP/SIMD, an allocator, formatting. Host builds see the declarations of the
//! conformance cases and nothing else.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    target_os = "none",
    allow(unsafe_code, reason = "guests are the machine's lowest layer: registers and devices")
)]

#[cfg(all(feature = "bare", target_os = "none"))]
mod boot;
pub mod conform;
#[cfg(all(feature = "bare", target_os = "none"))]
pub mod exception;
#[cfg(all(feature = "bare", target_os = "none"))]
pub mod hardware;
#[cfg(all(feature = "bare", target_os = "none"))]
pub mod report;
#[cfg(all(feature = "bare", target_os = "none"))]
pub mod translation;

/// Declares a guest: its name, the function that does the work, and the one that gets exceptions.
#[macro_export]
macro_rules! guest {
    ($name:literal, $run:path) => {
        $crate::guest!($name, $run, $crate::exception::unexpected);
    };
    ($name:literal, $run:path, $handler:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() -> ! {
            $crate::report::finish($name, $run())
        }

        #[unsafe(no_mangle)]
        extern "C" fn guest_exception(frame: &mut $crate::exception::Frame) {
            $handler(frame)
        }

        #[unsafe(no_mangle)]
        extern "C" fn guest_panicked() -> ! {
            $crate::report::finish($name, Err($crate::report::Failure::new("panic", 1, 0)))
        }
    };
}

/// Reads a system register by name.
#[macro_export]
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a system register of EL1 touches no memory.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack)) };
        value
    }};
}

/// Writes a system register by name, then synchronises.
#[macro_export]
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the guest owns the machine; it writes no register that its own code relies on
        // except by the contract of the function that does so.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) value) };
    }};
}

/// Executes one instruction that has no operands of interest (`wfi`, `sev`, `isb`, …).
#[macro_export]
macro_rules! instruction {
    ($text:literal) => {{
        // SAFETY: only hints, barriers, PSTATE writes and calls to the firmware are written so.
        unsafe { core::arch::asm!($text) };
    }};
}

/// Defines `exact_end()`: after its call the instructions depend on whether interrupts came.
#[macro_export]
macro_rules! define_exact_end {
    () => {
        core::arch::global_asm!(
            ".section .text.exact_end, \"ax\"",
            ".globl exact_end",
            "exact_end: ret",
            ".text"
        );
        unsafe extern "C" {
            /// Where the exact part of the guest ends.
            safe fn exact_end();
        }
    };
}
