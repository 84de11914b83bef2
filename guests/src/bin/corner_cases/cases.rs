//! Cases in assembly, and how they are run at EL1 and EL0.

use core::arch::global_asm;

use stepwell_guests::exception::{EL0, enter_el0};

use crate::show;

/// Declares functions in assembly, and the table `CASES` of them. Each gets words in X0 and other words in
/// X1, a device's register in X2 and what else it is told in X3, leaves what it has found in X10 to X13,
/// and changes nothing from X18 on.
#[macro_export]
macro_rules! cases {
    ($table:ident: $($name:ident $($text:literal)+)*) => {
        core::arch::global_asm!(
            ".text",
            $(
                concat!(".globl corner_", stringify!($name)),
                concat!("corner_", stringify!($name), ":"),
                $($text,)+
                "ret",
            )*
        );
        mod symbols {
            unsafe extern "C" {
                $(
                    #[link_name = concat!("corner_", stringify!($name))]
                    pub(super) fn $name();
                )*
            }
        }
        const $table: &[$crate::cases::Case] =
            &[$((stringify!($name), symbols::$name as unsafe extern "C" fn())),*];
    };
}

/// A name, and the function.
pub type Case = (&'static str, unsafe extern "C" fn());

global_asm!(
    r#"
    .text
    .macro  run_arguments
    mov     x19, x0
    ldr     x9, [x19]
    ldp     x0, x1, [x19, #8]
    ldp     x2, x3, [x19, #24]
    mov     x10, #0
    mov     x11, #0
    mov     x12, #0
    mov     x13, #0
    blr     x9
    stp     x10, x11, [x19, #40]
    stp     x12, x13, [x19, #56]
    .endm

    .globl  corner_at_el1, corner_at_el0
corner_at_el1:
    stp     x19, x30, [sp, #-16]!
    run_arguments
    ldp     x19, x30, [sp], #16
    ret
corner_at_el0:
    run_arguments
    svc     #0xff
"#
);

unsafe extern "C" {
    fn corner_at_el1(arguments: *mut Arguments);
    fn corner_at_el0();
}

/// What a case gets, and what it leaves. The assembly above knows where.
#[repr(C)]
pub struct Arguments {
    function: u64,
    given: [u64; 4],
    found: [u64; 4],
}

/// Runs a case at EL1.
pub fn at_el1(function: u64, given: [u64; 4]) -> [u64; 4] {
    let mut arguments = Arguments { function, given, found: [0; 4] };
    // SAFETY: a case changes what the calling convention lets it, and memory that it is given.
    unsafe { corner_at_el1(&raw mut arguments) };
    arguments.found
}

/// Runs a case at EL0, which has everything `alias` higher than EL1.
pub fn at_el0(function: u64, given: [u64; 4], alias: u64) -> [u64; 4] {
    let mut arguments = Arguments { function: function + alias, given, found: [0; 4] };
    let place = (&raw mut arguments) as u64 + alias;
    enter_el0(corner_at_el0 as *const () as u64 + alias, place, EL0, 0);
    // SAFETY: EL0 has written it behind the compiler's back.
    unsafe { (&raw const arguments.found).read_volatile() }
}

/// Runs cases with words that are set before each, and shows what became of them.
pub fn each(level: u64, words: *mut u64, cases: &[Case], run: impl Fn(u64) -> [u64; 4]) {
    for &(name, function) in cases {
        for n in 0..4 {
            // SAFETY: the caller's words, of which there are as many.
            unsafe { words.add(n).write_volatile(0x11 * (n as u64 + 1)) };
        }
        let [a, b, c, d] = run(function as *const () as u64);
        // SAFETY: as above.
        let left = [0, 1, 2, 3].map(|n| unsafe { words.add(n).read_volatile() });
        show(name, &[level, a, b, c, d, left[0], left[1], left[2], left[3]]);
    }
}
