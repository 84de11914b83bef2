//! A program for Linux guests that has a page of code of its own, which no file has, paged out before each
//! call of it. Written as words, like the tests' other programs.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::program;

/// Where the guest has the program.
pub const FILE: &str = "/bin/swapped";
/// Where it has its page, whose first instruction it calls.
pub const PAGE: u64 = 0x1000_0000;
/// How often.
pub const CALLS: usize = 5;

/// The words of its code.
const CODE: [u32; 29] = [
    0xd2a2_0000,                       // mov  x0, #PAGE
    0xd282_0001,                       // mov  x1, #4096
    0xd280_00e2,                       // mov  x2, #7: read, written, executed
    0xd280_0643,                       // mov  x3, #0x32: private, fixed, anonymous
    0x9280_0004,                       // mov  x4, #-1
    0xd280_0005,                       // mov  x5, #0
    0xd280_1bc8,                       // mov  x8, #222: mmap
    0xd400_0001,                       // svc  #0
    0xaa00_03f3,                       // mov  x19, x0
    0x5280_7801,                       // mov  w1, #0x03c0
    0x72ba_cbe1,                       // movk w1, #0xd65f, lsl #16: ret
    0xb900_0261,                       // str  w1, [x19]
    0xd50b_7b33,                       // dc   cvau, x19
    0xd503_3b9f,                       // dsb  ish
    0xd50b_7533,                       // ic   ivau, x19
    0xd503_3b9f,                       // dsb  ish
    0xd503_3fdf,                       // isb
    0xd280_0014 | (CALLS as u32) << 5, // mov  x20, #CALLS
    0xaa13_03e0,                       // call: mov x0, x19
    0xd282_0001,                       // mov  x1, #4096
    0xd280_02a2,                       // mov  x2, #21: MADV_PAGEOUT
    0xd280_1d28,                       // mov  x8, #233: madvise
    0xd400_0001,                       // svc  #0
    0xd63f_0260,                       // blr  x19
    0xf100_0694,                       // subs x20, x20, #1
    0x54ff_ff21,                       // b.ne call
    0xd280_0000,                       // mov  x0, #0
    0xd280_0ba8,                       // mov  x8, #93: exit
    0xd400_0001,                       // svc  #0
];

/// Makes an initial file system that is Debian's with the program added.
///
/// # Errors
/// When a file cannot be read or written.
pub fn install(root: &Path) -> Result<PathBuf> {
    let code: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    program::install(root, FILE, &program::of_words(&code))
}
