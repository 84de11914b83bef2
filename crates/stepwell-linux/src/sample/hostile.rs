//! The kernel that was made by hand, changed at will: every question ends, answered or not.

use super::{BASE, HEAP, MOVED, Sparse};
use crate::stack::{self, Top};
use crate::{Btf, Cached, Error, Kernel, Memory, expression, mapping, module, module_types, task};

/// How much of the image can be changed; places beyond are on the heap.
const OF_IMAGE: u64 = 1 << 15;

/// Memory in which everything is mapped, so that lists lead on and on.
struct Everywhere(Sparse);

impl Memory for Everywhere {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        for (at, byte) in (0..).map(|n| address.wrapping_add(n)).zip(bytes.chunks_mut(1)) {
            if self.0.read(at, byte).is_err() {
                byte.fill((at >> 3) as u8 & 0xf8);
            }
        }
        Ok(())
    }
}

/// Where nothing has a name.
pub(crate) struct Nowhere;

impl expression::Scope for Nowhere {
    fn current(&self) -> Option<u64> {
        Some(HEAP)
    }

    fn per_cpu_offset(&self) -> Option<u64> {
        Some(0)
    }

    fn register(&self, _: &str) -> Option<u64> {
        None
    }

    fn symbol(&self, _: &str) -> Option<u64> {
        None
    }

    fn describe(&self, _: u64) -> Option<String> {
        None
    }
}

/// Changes image and memory, and asks everything. Of `changes` each ten bytes are a place and the
/// doubleword to be there.
///
/// # Panics
///
/// Where an answer is too long.
pub fn ask(changes: &[u8]) {
    let ((mut image, symbols), mut memory) = (super::image(), super::memory());
    for change in changes.chunks_exact(10) {
        let (place, value) = change.split_at(2);
        let place = place.iter().rev().fold(0_u64, |place, byte| place << 8 | u64::from(*byte));
        if let Some(on_heap) = place.checked_sub(OF_IMAGE) {
            memory.write(HEAP + on_heap, value);
        } else {
            let room = image.len() - value.len();
            let at = place as usize % room;
            image[at..at + value.len()].copy_from_slice(value);
        }
    }
    let mut memory = Cached::new(Everywhere(memory));
    if let Ok(kernel) = Kernel::new(&image, BASE, &symbols, MOVED) {
        ask_kernel(&kernel, &mut memory);
    } else if let Ok(btf) = Btf::find(&image) {
        for (id, _) in btf.iter() {
            let _answers = (btf.size_of(id), btf.member(id, "a.0.b"));
        }
    }
}

fn ask_kernel(kernel: &Kernel, memory: &mut dyn Memory) {
    for task in task::all(kernel, memory).unwrap_or_default().iter().take(8) {
        if let Ok(top) = Top::of_sleeper(kernel, memory, task.address) {
            let _stack = stack::follow(kernel, memory, top);
        }
        for mapping in mapping::all(kernel, memory, task.mm).unwrap_or_default().iter().take(64) {
            assert!(mapping.line().len() < 1 << 16, "{} bytes", mapping.line().len());
        }
    }
    for module in module::all(kernel, memory).unwrap_or_default().iter().take(8) {
        let _symbols = module.symbols(kernel, memory);
    }
    let _tables = module_types::all(kernel, memory);
    for text in [
        "*current",
        "*module(a_module)",
        "init_task.tasks.next",
        "__entry_task",
        "*(struct a_modules_own *)current",
    ] {
        if let Ok(shown) = expression::print(text, kernel, memory, &Nowhere) {
            assert!(shown.len() < 1 << 20, "{} bytes of {text}", shown.len());
        }
    }
}
