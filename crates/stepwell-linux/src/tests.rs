//! A kernel made by hand tells what it has, sound and hostile.

use crate::sample::Sparse;
use crate::sample::hostile;
use crate::sample::{
    BASE, ENTRY_TASK, HEAP, INIT_TASK, MODULES, MOVED, PER_CPU, TYPES, at, image, kernel, memory,
    run,
};
use crate::{Error, Kernel, Task, expression, mapping, module, module_types, task};
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
    assert_eq!(tasks[2].mm, HEAP + 0x6000);
}

#[test]
fn a_thread_of_the_kernels_has_its_whole_name() {
    let mut memory = memory();
    let tasks = task::all(&kernel(), &mut memory).unwrap();
    assert_eq!(tasks[0].shown(), "[swapper/0, which does nothing]");
    assert_eq!(tasks[1].name(), "init");
    memory.write_u32(run(INIT_TASK) + at::FLAGS, 0x20_0020);
    assert_eq!(task::all(&kernel(), &mut memory).unwrap()[0].name(), "swapper/0", "a worker");
    memory.write_u32(run(INIT_TASK) + at::FLAGS, 0x20_0000);
    // One that is being made has none yet, and one whose pointer leads nowhere goes without.
    memory.write_u64(run(INIT_TASK) + at::OWN, 0);
    assert_eq!(task::all(&kernel(), &mut memory).unwrap()[0].name(), "swapper/0");
    memory.write_u64(run(INIT_TASK) + at::OWN, 8);
    assert_eq!(task::all(&kernel(), &mut memory).unwrap()[0].name(), "swapper/0");
}

#[test]
fn mappings_are_the_lines_of_proc() {
    let (kernel, mut memory) = (kernel(), memory());
    let lines = |memory: &mut Sparse| {
        let mappings = mapping::all(&kernel, memory, HEAP + 0x6000).unwrap();
        mappings.iter().map(|one| one.line()).collect::<Vec<_>>()
    };
    let file =
        "00400000-005b2000 r-xp 00000000 07:02 15                                 /bin/busybox";
    let nameless = |range: &str, rights: &str, name: &str| {
        format!("{:<73}{name}", format!("{range} {rights} 00000000 00:00 0"))
    };
    let wanted = [
        file.to_owned(),
        nameless("00600000-00620000", "rw-p", "[heap]"),
        nameless("fff00000-fff01000", "r-xp", "[vdso]"),
        nameless("ffff0000-100000000", "rw-p", "[stack]"),
    ];
    assert_eq!(lines(&mut memory), wanted);
    // Nothing leads to its name any more.
    memory.write_u64(HEAP + 0x6e08, 0);
    assert_eq!(lines(&mut memory)[0], format!("{file} (deleted)"));
    // A file system whose mount is damaged.
    memory.write_u64(HEAP + 0x6a00, 8);
    assert!(lines(&mut memory)[0].ends_with(" ?"), "{:?}", lines(&mut memory));
}

#[test]
fn modules_have_their_symbols() {
    let (kernel, mut memory) = (kernel(), memory());
    let modules = module::all(&kernel, &mut memory).unwrap();
    let [module] = &modules[..] else { panic!("{modules:?}") };
    assert_eq!((module.name.as_str(), module.references, module.size()), ("a_module", 2, 0x3000));
    assert!(module.is_called("a-module") && module.has("a_module:run") && !module.has("run"));
    let symbols = module.symbols(&kernel, &mut memory).unwrap();
    assert_eq!(symbols.len(), 3);
    assert_eq!(symbols.address_of("each").unwrap().0, 0x8008, "one that each CPU has its own of");
    assert_eq!(symbols.address_of("run").unwrap().0, module.base() + 0x40);
    assert_eq!(
        symbols.symbol_at(stepwell_arch::Va(module.base() + 0x40)).unwrap().kind,
        SymbolKind::Function
    );
    let mut later = module.clone();
    later.init = 0;
    assert!(module.is_like(module) && !module.is_like(&later));
}

#[test]
fn a_modules_structures_are_known_by_its_own_types() {
    let (kernel, mut memory) = (kernel(), memory());
    let tables = module_types::all(&kernel, &mut memory).unwrap();
    let [table] = &tables[..] else { panic!("{} tables", tables.len()) };
    let own = table.structure("a_modules_own").unwrap();
    assert_eq!(u64::from(own.0), kernel.btf().end().0);
    assert!(kernel.btf().structure("a_modules_own").is_none());
    assert_eq!(table.member(own, "next").unwrap().offset, 8);
    assert_eq!(table.structure("task_struct"), kernel.btf().structure("task_struct"));
    memory.write_u64(HEAP, 7);
    memory.write_u64(HEAP + 8, HEAP);
    let print = |text: &str, memory: &mut Sparse| {
        expression::print(text, &kernel, memory, &hostile::Nowhere)
            .map_err(|error| error.to_string())
    };
    let through = format!("((struct a_modules_own *){HEAP:#x})->next->number");
    assert_eq!(print(&through, &mut memory).unwrap(), "7");
    let unknown = print("((struct nobodys *)1)->next", &mut memory).unwrap_err();
    assert_eq!(unknown, "the kernel's types have no struct nobodys");
    let member = print("((struct a_modules_own *)1)->prev", &mut memory).unwrap_err();
    assert_eq!(member, "a_modules_own has no member prev");
    // One that leads to no module, or does not go on where the kernel's types end, is none.
    let sound = memory.clone();
    memory.write_u64(HEAP + 0x5010, HEAP);
    assert!(module_types::all(&kernel, &mut memory).unwrap().is_empty());
    let mut memory = sound.clone();
    memory.write_u32(HEAP + 0x508c, 1);
    assert!(module_types::all(&kernel, &mut memory).unwrap().is_empty());
    let mut memory = sound;
    memory.write_u32(HEAP + 0x5088, u32::MAX);
    assert!(module_types::all(&kernel, &mut memory).unwrap().is_empty(), "a huge one");
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
