//! A program for Linux guests that sends itself from CPU to CPU, counting in between: its symbols are
//! in its file, and what it executes is known.
//!
//! Written as words, like the tests' module: neither a compiler nor a C library is needed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::program;

/// The program's name, and where the guest has it.
pub const NAME: &str = "wanderer";
/// Turns of its loop, of three instructions, between two system calls.
pub const TURNS: u64 = 200;
/// The register that it counts its turns in: X20.
pub const COUNTER: u8 = 20;
/// How often it goes on to the next CPU.
const ROUNDS: u32 = 400;
/// CPUs that it goes round.
const CPUS: u32 = 4;

/// Where it is linked.
const BASE: u64 = 0x40_0000;
/// How far into its file the code is.
const TEXT: u64 = 0x1000;

/// The words of its code.
const CODE: [u32; 24] = [
    0xd280_0013 | ROUNDS << 5,         // mov  x19, #ROUNDS
    0xd280_0014,                       // mov  x20, #0
    0xd280_0035,                       // mov  x21, #1
    0xd100_43ff,                       // round: sub sp, sp, #16
    0xf900_03f5,                       // str  x21, [sp]
    0xd280_0000,                       // mov  x0, #0
    0xd280_0101,                       // mov  x1, #8
    0x9100_03e2,                       // mov  x2, sp
    0xd280_0f48,                       // mov  x8, #122: sched_setaffinity
    0xd400_0001,                       // svc  #0
    0x9100_43ff,                       // add  sp, sp, #16
    0xd37f_fab5,                       // lsl  x21, x21, #1
    0xf100_02bf | (1 << CPUS) << 10,   // cmp  x21, #1 << CPUS
    0xd280_0020,                       // mov  x0, #1
    0x9a95_0015,                       // csel x21, x0, x21, eq
    0xd280_0016 | (TURNS as u32) << 5, // mov  x22, #TURNS
    0x9100_0694,                       // work: add x20, x20, #1
    0xf100_06d6,                       // subs x22, x22, #1
    0x54ff_ffc1,                       // b.ne work
    0xf100_0673,                       // subs x19, x19, #1
    0x54ff_fde1,                       // b.ne round
    0xd280_0000,                       // mov  x0, #0
    0xd280_0ba8,                       // mov  x8, #93: exit
    0xd400_0001,                       // svc  #0
];
const ROUND: u64 = 3;
const WORK: u64 = 16;

/// The address of its first instruction.
pub const START: u64 = BASE + TEXT;
/// The address where a turn of its loop begins.
pub const TURN: u64 = START + 4 * WORK;

/// Returns the instructions that may follow one of the program's.
#[must_use]
pub fn follows(pc: u64) -> [Option<u64>; 2] {
    let target = match pc.wrapping_sub(START) / 4 {
        18 => Some(TURN),
        20 => Some(START + 4 * ROUND),
        _ => None,
    };
    [Some(pc + 4), target]
}

/// Makes the program's file in a folder of the host's that has the guest's files (`--sysroot`), and an
/// initial file system that is Debian's with it added.
///
/// # Errors
/// When a file cannot be read or written.
pub fn install(root: &Path) -> Result<PathBuf> {
    install_as(root, &build(ET_EXEC, START))
}

/// As [`install`], a program that its kernel puts elsewhere each time.
///
/// # Errors
/// As [`install`].
pub fn install_movable(root: &Path) -> Result<PathBuf> {
    install_as(root, &build(ET_DYN, TEXT))
}

fn install_as(root: &Path, program: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(root.join("bin"))?;
    fs::write(root.join("bin").join(NAME), program)?;
    program::install(root, &format!("bin/{NAME}"), program)
}

/// Kinds of programs.
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

/// An ELF of one segment that is linked at an address, with a table of symbols.
fn build(kind: u16, start: u64) -> Vec<u8> {
    const HEADER: usize = 64;
    const SECTION: u64 = 64;
    let names = b"\0_start\0round\0work\0.text\0.symtab\0.strtab\0";
    let code: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut symbols = vec![0; 24];
    for (name, index, size) in [(1_u32, 0, 3), (8, ROUND, 13), (14, WORK, 8)] {
        symbols.extend(name.to_le_bytes());
        // A global function, of the first section.
        symbols.extend([0x12, 0, 1, 0]);
        symbols.extend((start + 4 * index).to_le_bytes());
        symbols.extend((4_u64 * size).to_le_bytes());
    }
    let symbols_at = TEXT + code.len() as u64;
    let names_at = symbols_at + symbols.len() as u64;
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    let long = |file: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    };
    // EM_AARCH64.
    half(&mut file, &[kind, 183]);
    word(&mut file, &[1]);
    long(&mut file, &[start, HEADER as u64, sections_at]);
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 64, 4, 3]);
    // PT_LOAD, readable and executable.
    word(&mut file, &[1, 5]);
    let length = code.len() as u64;
    long(&mut file, &[TEXT, start, start, length, length, 0x1000]);
    file.resize(TEXT as usize, 0);
    file.extend(code);
    file.extend(symbols);
    file.extend(names);
    file.resize(sections_at as usize, 0);
    file.resize((sections_at + SECTION) as usize, 0);
    let section = |file: &mut Vec<u8>,
                   [name, kind]: [u32; 2],
                   all: [u64; 4],
                   [link, info]: [u32; 2],
                   entry| {
        word(file, &[name, kind]);
        long(file, &all);
        word(file, &[link, info]);
        long(file, &[8, entry]);
    };
    section(&mut file, [19, 1], [6, start, TEXT, length], [0, 0], 0);
    section(&mut file, [25, 2], [0, 0, symbols_at, names_at - symbols_at], [3, 1], 24);
    section(&mut file, [33, 3], [0, 0, names_at, names.len() as u64], [0, 0], 0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_symbols_can_be_read() {
        let symbols = stepwell_trace::symbols::elf::from_elf(&build(ET_EXEC, START)).unwrap();
        assert_eq!(symbols.address_of("_start").unwrap().0, START);
        assert_eq!(symbols.address_of("work").unwrap().0, TURN);
        assert_eq!(follows(TURN + 8), [Some(TURN + 12), Some(TURN)]);
    }
}
