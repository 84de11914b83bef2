//! Nothing of anybody else's lies in memory, and the tree does not say where this is.

use core::arch::asm;

use stepwell_guests::{instruction, read_register, translation, write_register};

use crate::clock::now;
use crate::{syndrome, value};

unsafe extern "C" {
    static image_size: u8;
    static _head: u8;
}

/// Behind the first page, in which plain QEMU has its boot code.
const RAM: u64 = 0x4000_1000;
/// As little as the tests give.
const RAM_END: u64 = 0x4400_0000;
const PAGE: u64 = 4096;

/// Words that are not zero where nothing is: the first of each page.
fn left_overs(from: u64, to: u64) -> u64 {
    let mut count = 0;
    for page in (from.next_multiple_of(PAGE)..to).step_by(PAGE as usize) {
        if page % (512 * PAGE) == 0 {
            now();
        }
        // SAFETY: it is RAM, by the least that there is.
        count += u64::from(unsafe { (page as *const u64).read_volatile() } != 0);
    }
    count
}

/// How often the tree has a word.
fn occurrences(tree: &[u8], word: &[u8]) -> u64 {
    now();
    let first = word.first().copied().unwrap_or(0);
    let starts = tree.iter().enumerate().filter(|(_, byte)| **byte == first);
    starts.filter(|(at, _)| tree.get(*at..*at + word.len()) == Some(word)).count() as u64
}

pub fn look(tree: u64) {
    // SAFETY: the boot protocol has a tree there, whose second word is its length.
    let bytes = u64::from(u32::from_be(unsafe { (tree as *const u32).add(1).read_volatile() }));
    let head = (&raw const _head) as u64;
    let end = head + (&raw const image_size) as u64;
    value("memory.before", left_overs(RAM, head));
    value("memory.between", left_overs(end, tree.min(RAM_END)));
    value("memory.behind", left_overs(tree + bytes, RAM_END));
    // SAFETY: as above.
    let text = unsafe { core::slice::from_raw_parts(tree as *const u8, bytes as usize) };
    value("memory.tree.names", occurrences(text, b"stepwell") + occurrences(text, b"hypervisor"));
    value("memory.tree.cpus", occurrences(text, b"cpu@"));
    without_translation();
    tables_outside_memory();
}

/// What AT tells of addresses whose tables are not in memory: PCIe's window reads as ones, which are
/// descriptors with too large an address, and beside it nobody answers, which is an abort.
fn tables_outside_memory() {
    const TABLES: [(&str, u64, u64); 2] = [
        ("memory.at.ones", 0x1_8000_0000, 0x2000_0000),
        ("memory.at.nothing", 0x1_c000_0000, 0x0f00_0000),
    ];
    for (_, address, table) in TABLES {
        translation::add_table(address, table);
    }
    translation::start();
    for (name, address, _) in TABLES {
        write_register!("par_el1", 0);
        // SAFETY: translates, and touches PAR_EL1 alone; its exception is skipped.
        let esr = syndrome(|| unsafe { asm!("at s1e1r, {}", "isb", in(reg) address) });
        value(name, read_register!("par_el1"));
        value(name, esr);
    }
    translation::stop();
}

/// What AT tells of an address, with translation off.
fn without_translation() {
    let address = (&raw const _head) as u64;
    let at = |name, act: fn(u64)| {
        act(address);
        instruction!("isb");
        value(name, read_register!("par_el1"));
    };
    macro_rules! at {
        ($operation:literal) => {
            // SAFETY: translates, and touches PAR_EL1 alone.
            |address| unsafe {
                core::arch::asm!(concat!("at ", $operation, ", {}"), in(reg) address);
            }
        };
    }
    at("memory.at.s1e1r", at!("s1e1r"));
    at("memory.at.s1e1w", at!("s1e1w"));
    at("memory.at.s1e0r", at!("s1e0r"));
}
