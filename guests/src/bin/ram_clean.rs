//! Nothing lies in the machine's RAM at reset but this image and the device tree.
//!
//! What a machine's maker left there would tell the guest where it is: the trees, images and boot
//! code of whoever started the machine. Not for plain QEMU, whose own boot code is in the first page.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::exception::{Frame, unexpected};
use stepwell_guests::report::{Failure, Outcome, finish};

unsafe extern "C" {
    static _head: u8;
    static image_size: u8;
}

const RAM: u64 = 0x4000_0000;
const NODE: &[u8] = b"memory@40000000\0";
const PROPERTY: u32 = 3;
/// Address and size, two cells each.
const REG_BYTES: u32 = 16;

/// Reads a big-endian word.
///
/// # Safety
/// `at` must be RAM, and a multiple of 4.
unsafe fn cell(at: u64) -> u32 {
    // SAFETY: the caller's promise.
    u32::from_be(unsafe { (at as *const u32).read_volatile() })
}

/// Bytes of RAM, by the device tree.
///
/// # Safety
/// The tree must be one.
unsafe fn ram_bytes(tree: u64, bytes: u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(tree as *const u8, bytes as usize) };
    let node = text.windows(NODE.len()).position(|window| window == NODE)? as u64;
    let mut at = tree + node + NODE.len() as u64;
    // SAFETY: properties follow the name, and `reg` is among them.
    unsafe {
        while cell(at) == PROPERTY {
            let length = cell(at + 4);
            if length == REG_BYTES {
                return Some(u64::from(cell(at + 20)) << 32 | u64::from(cell(at + 24)));
            }
            at += 12 + u64::from(length).next_multiple_of(4);
        }
    }
    None
}

/// The first word in a range that is not zero.
fn find(from: u64, to: u64) -> Option<u64> {
    let count = to.saturating_sub(from) / 8;
    // SAFETY: the ranges below are RAM that nothing of this guest's is in.
    let words = unsafe { core::slice::from_raw_parts(from as *const u64, count as usize) };
    words.iter().position(|word| *word != 0).map(|index| from + index as u64 * 8)
}

fn run(tree: u64) -> Outcome {
    // SAFETY: the boot protocol has a tree there.
    let tree_bytes = u64::from(unsafe { cell(tree + 4) });
    // SAFETY: as above.
    let ram = unsafe { ram_bytes(tree, tree_bytes) };
    let ram = ram.ok_or(Failure::new("the tree has no memory", 1, 0))?;
    let head = core::ptr::addr_of!(_head) as u64;
    let image_end = head + core::ptr::addr_of!(image_size) as u64;
    let tree_end = (tree + tree_bytes).next_multiple_of(8);
    for (from, to) in [(RAM, head), (image_end, tree), (tree_end, RAM + ram)] {
        if let Some(place) = find(from, to) {
            return Err(Failure::new("not zero", 0, place));
        }
    }
    Ok(ram >> 20)
}

#[unsafe(no_mangle)]
extern "C" fn guest_main(tree: u64) -> ! {
    finish("ram_clean", run(tree))
}

#[unsafe(no_mangle)]
extern "C" fn guest_exception(frame: &mut Frame) {
    unexpected(frame)
}

#[unsafe(no_mangle)]
extern "C" fn guest_panicked() -> ! {
    finish("ram_clean", Err(Failure::new("panic", 1, 0)))
}
