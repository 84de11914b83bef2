//! A kernel made by hand tells what it has, sound and hostile.

use crate::sample::hostile;
use crate::sample::{
    BASE, ENTRY_TASK, HEAP, INIT_TASK, MODULES, MOVED, PER_CPU, TYPES, at, image, kernel, memory,
    run,
};
use crate::{Error, Kernel, Task, module, task};
use proptest::prelude::*;
use stepwell_trace::{SymbolKind, Symbols};

#[test]
fn a_kernel_without_names_of_variables_is_read() {
    let kernel = kernel();
    assert_eq!((kernel.version(), kernel.page_bytes()), ("6.1.0-test", 4096));
    assert_eq!(kernel.init_task(), run(INIT_TASK));
    assert_eq!(kernel.per_cpu("__entry_task", 0).unwrap().0, run(PER_CPU + ENTRY_TASK));
    let mut memory = memory();
    assert_eq!(kernel.current(&mut memory, 0x4000).unwrap(), HEAP + 0x1000);
    assert_eq!(kernel.current(&mut memory, 0x8000).unwrap(), run(INIT_TASK), "before any switch");
}

#[test]
fn what_an_image_lacks_is_told() {
    let (image, symbols) = image();
    let told = |image: &[u8], symbols: &Symbols| {
        Kernel::new(image, BASE, symbols, 0).unwrap_err().to_string()
    };
    assert!(told(&[0; 64], &symbols).contains("names no version"));
    let types = "the kernel carries no types (CONFIG_DEBUG_INFO_BTF)";
    assert_eq!(told(&image[..TYPES], &symbols), types);
    let mut nameless = image.clone();
    nameless[INIT_TASK as usize + at::COMM as usize] = b'S';
    assert!(told(&nameless, &symbols).contains("first task"));
    let kernel = Kernel::new(&image, BASE, &Symbols::default(), MOVED).unwrap();
    let error = module::all(&kernel, &mut memory()).unwrap_err().to_string();
    assert!(error.contains("list of modules") && error.contains("--symbols"), "{error}");
}

#[test]
fn tasks_come_with_their_threads() {
    let tasks = task::all(&kernel(), &mut memory()).unwrap();
    let said: Vec<(u32, u32, &str, char)> =
        tasks.iter().map(|t: &Task| (t.pid, t.tgid, t.comm.as_str(), t.state.0)).collect();
    // A name that fills its place has no zero behind it.
    let wanted = [
        (0, 0, "swapper/0", 'S'),
        (1, 1, "init", 'S'),
        (7, 7, "a process of not", 'S'),
        (8, 7, "its thread", 'S'),
    ];
    assert_eq!(said, wanted);
    let mut memory = memory();
    memory.write(HEAP + at::COMM, b"\x1b[2Jx\xff\0");
    let tasks = task::all(&kernel(), &mut memory).unwrap();
    assert_eq!(tasks[1].comm, "^[[2Jx\u{fffd}", "nothing that a terminal obeys");
    assert_eq!(tasks[2].mm, 0x5000);
}

#[test]
fn modules_have_their_symbols() {
    let (kernel, mut memory) = (kernel(), memory());
    let modules = module::all(&kernel, &mut memory).unwrap();
    let [module] = &modules[..] else { panic!("{modules:?}") };
    assert_eq!((module.name.as_str(), module.references, module.size()), ("a_module", 2, 0x3000));
    assert!(module.is_called("a-module") && module.has("a_module:run") && !module.has("run"));
    let symbols = module.symbols(&kernel, &mut memory).unwrap();
    assert_eq!(symbols.len(), 2);
    assert_eq!(symbols.address_of("run").unwrap().0, module.base() + 0x40);
    assert_eq!(symbols.iter().next().unwrap().kind, SymbolKind::Function);
    let mut later = module.clone();
    later.init = 0;
    assert!(module.is_like(module) && !module.is_like(&later));
}

#[test]
fn hostile_lists_and_counts_end() {
    let (kernel, sound) = (kernel(), memory());
    let mut memory = sound.clone();
    memory.write_u64(HEAP + at::TASKS, HEAP + at::TASKS);
    assert!(matches!(task::all(&kernel, &mut memory), Err(Error::Damaged { what: "tasks", .. })));
    let mut memory = sound.clone();
    memory.write_u64(HEAP + at::SIGNAL, 8);
    assert!(matches!(task::all(&kernel, &mut memory), Err(Error::NotMapped(8))));
    let mut memory = sound.clone();
    memory.write_u32(HEAP + 0x4208, u32::MAX);
    let module = module::all(&kernel, &mut memory).unwrap().remove(0);
    assert!(matches!(module.symbols(&kernel, &mut memory), Err(Error::Endless { .. })));
    let mut memory = sound;
    memory.write_u64(run(MODULES), 0xdead_beef);
    let error = module::all(&kernel, &mut memory);
    assert!(matches!(error, Err(Error::Damaged { what: "modules", .. })));
}

proptest! {
    #[test]
    fn whatever_the_guest_wrote_is_survived(
        changes in proptest::collection::vec((0_u16..0xd400, 0_u64..0x2000, 0_u8..4), 1..24),
    ) {
        let written = changes.iter().map(|(place, value, kind)| {
            // Numbers, and places on the heap and in the image.
            let value = match kind {
                0 => *value,
                1 => value << 19,
                2 => HEAP + (value & !7),
                _ => run(value & !7),
            };
            [&place.to_le_bytes()[..], &value.to_le_bytes()[..]].concat()
        });
        hostile::ask(&written.collect::<Vec<_>>().concat());
    }
}
