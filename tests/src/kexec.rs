//! A program for Linux guests that has the kernel execute another one in its place (kexec): a few
//! instructions that say a word and power off, in the page of a function of the old kernel's.
//!
//! Written as words, like the tests' other programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use stepwell_trace::{KernelImage, RawPolicy};

use crate::guest::folder;
use crate::program::{self, START};

/// Where the guest has the program.
pub const FILE: &str = "/bin/kexec";
/// What the new kernel says.
pub const SAYS: char = '!';

/// Where the old kernel is loaded.
const KERNEL: u64 = 0x4020_0000;
const PAGE: u64 = 0x1000;
const NOP: u32 = 0xd503_201f;

/// The words of its code, behind which are the new kernel's first instruction and its one segment.
const CODE: [u32; 18] = [
    0x5800_0240, // ldr  x0, what is behind the code
    0xd280_0021, // mov  x1, #1: a segment
    0x1000_0242, // adr  x2, what is behind that
    0xd280_0003, // mov  x3, #0
    0xd280_0d08, // mov  x8, #104: kexec_load
    0xd400_0001, // svc  #0
    0xb500_0120, // cbnz x0, the last system call
    0xd29b_d5a0, // mov  x0, #0xdead
    0xf2bf_dc20, // movk x0, #0xfee1, lsl #16
    0xd283_2d21, // mov  x1, #0x1969
    0xf2a5_0241, // movk x1, #0x2812, lsl #16
    0xd288_a862, // mov  x2, #0x4543
    0xf2a8_ab02, // movk x2, #0x4558, lsl #16
    0xd280_11c8, // mov  x8, #142: reboot
    0xd400_0001, // svc  #0
    0xd280_0ba8, // mov  x8, #93: exit
    0xd400_0001, // svc  #0
    NOP,
];
/// The new kernel's, where it comes to behind the old one's function.
const NEW: [u32; 7] = [
    0xd2a1_2000, // mov  x0, #0x9000000: the PL011
    0x5280_0421, // mov  w1, #SAYS
    0xb900_0001, // str  w1, [x0]
    0xd2b0_8000, // mov  x0, #0x84000000
    0xf280_0100, // movk x0, #8: SYSTEM_OFF
    0xd400_0002, // hvc  #0
    0x1400_0000, // b    .
];

/// Makes an initial file system that is Debian's with the program added. The new kernel executes what is
/// where the old one had `function`.
///
/// # Errors
/// When a file cannot be read or written, or the kernel has no such function.
pub fn install(root: &Path, function: &str) -> Result<PathBuf> {
    let debian = folder().join("debian");
    let kernel = KernelImage::recognise(fs::read(debian.join("vmlinuz"))?, RawPolicy::Refuse)?;
    let symbols = kernel.symbols().context("the kernel has no symbols")?;
    let address = symbols.address_of(function).context("the kernel has no such function")?;
    let base = symbols.link_base().context("the kernel's place is not known")?;
    let place = KERNEL + address.0 - base;
    program::install(root, FILE, &build(place))
}

/// The program, and behind its code what it hands over.
fn build(place: u64) -> Vec<u8> {
    let page = place & !(PAGE - 1);
    let before = (place - page) / 4 + 1;
    let new: Vec<u32> = (0..before).map(|_| NOP).chain(NEW).collect();
    let code_bytes = 4 * CODE.len() as u64;
    // The first instruction, and a segment: where it is, how long, where it goes, how long that is.
    let new_at = START + code_bytes + 5 * 8;
    let handed = [page, new_at, 4 * new.len() as u64, page, PAGE];
    let mut all: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    all.extend(handed.iter().flat_map(|word| word.to_le_bytes()));
    all.extend(new.iter().flat_map(|word| word.to_le_bytes()));
    program::of_words(&all)
}
