//! A kernel made by hand, for tests and fuzzing: an image with types, code and a first task, and
//! memory with its lists.

pub mod hostile;
mod process;
#[cfg_attr(not(test), allow(dead_code, reason = "tests make more types than this kernel has"))]
pub(crate) mod types;

use crate::{Error, Kernel, Memory};
use std::collections::HashMap;
use stepwell_trace::{Symbol, SymbolKind, Symbols};
use types::Builder;

/// Where the image was linked.
pub const BASE: u64 = 0xffff_8000_0800_0000;
/// How far it runs from there.
pub const MOVED: u64 = 0x20_0000;
pub(crate) const INIT_TASK: u64 = 0x2000;
pub(crate) const MODULES: u64 = 0x2800;
/// Where the list of modules' types begins.
pub(crate) const MODULE_TYPES: u64 = 0x2900;
pub(crate) const PER_CPU: u64 = 0x3000;
/// Where `__entry_task` is among the variables of each CPU.
pub(crate) const ENTRY_TASK: u64 = 0x10;
pub(crate) const TYPES: usize = 0x4000;
/// Where what the kernel allocates begins.
pub const HEAP: u64 = 0xffff_0000_1000_0000;

/// Offsets of the members, in bytes.
pub(crate) mod at {
    pub const FLAGS: u64 = 0;
    pub const PID: u64 = 4;
    pub const TGID: u64 = 8;
    pub const STATE: u64 = 12;
    pub const PRIORITY: u64 = 28;
    pub const MM: u64 = 32;
    pub const TASKS: u64 = 48;
    pub const THREAD_NODE: u64 = 64;
    pub const SIGNAL: u64 = 80;
    pub const COMM: u64 = 88;
    pub const OWN: u64 = 128;
    pub const LIST: u64 = 8;
    pub const NAME: u64 = 24;
    pub const REFERENCES: u64 = 80;
    pub const INIT: u64 = 88;
    pub const KALLSYMS: u64 = 96;
    pub const CORE: u64 = 104;
    pub const PER_CPU: u64 = 136;
}

/// Memory of which only what was written is mapped.
#[derive(Clone, Default)]
pub struct Sparse {
    bytes: HashMap<u64, u8>,
}

impl Sparse {
    /// Writes bytes; where they are, something is mapped from now on.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        self.bytes.extend((address..).zip(bytes.iter().copied()));
    }

    /// Writes a doubleword.
    pub fn write_u64(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn write_u32(&mut self, address: u64, value: u32) {
        self.write(address, &value.to_le_bytes());
    }

    /// Writes a list of these entries.
    fn link(&mut self, head: u64, entries: &[u64]) {
        let all: Vec<u64> = [head].into_iter().chain(entries.iter().copied()).collect();
        for (index, entry) in all.iter().enumerate() {
            self.write_u64(*entry, all[(index + 1) % all.len()]);
            self.write_u64(entry + 8, all[(index + all.len() - 1) % all.len()]);
        }
    }
}

impl Memory for Sparse {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        for (at, byte) in (0..).map(|n| address.wrapping_add(n)).zip(bytes) {
            *byte = *self.bytes.get(&at).ok_or(Error::NotMapped(at))?;
        }
        Ok(())
    }
}

fn types() -> Vec<u8> {
    let mut types = Builder::default();
    let (word, char) = (types.int("unsigned int", 4), types.int("char", 1));
    let pointer = types.add("", 2, 0, 0, &[]);
    let list = types.structure("list_head", 16, &[("next", pointer, 0), ("prev", pointer, 8)]);
    let (comm, name) = (types.array(char, 16), types.array(char, 56));
    let context = types.structure("cpu_context", 16, &[("fp", pointer, 0), ("pc", pointer, 8)]);
    let thread = types.structure("thread_struct", 16, &[("cpu_context", context, 0)]);
    let record = types.array(pointer, 2);
    let registers = [("pc", pointer, 0), ("pstate", pointer, 8), ("stackframe", record, 16)];
    types.structure("pt_regs", 32, &registers);
    let task = [
        ("flags", word, at::FLAGS),
        ("pid", word, at::PID),
        ("tgid", word, at::TGID),
        ("__state", word, at::STATE),
        ("exit_state", word, 16),
        ("cpu", word, 20),
        ("on_cpu", word, 24),
        ("static_prio", word, at::PRIORITY),
        ("mm", pointer, at::MM),
        ("stack", pointer, 40),
        ("tasks", list, at::TASKS),
        ("thread_node", list, at::THREAD_NODE),
        ("signal", pointer, at::SIGNAL),
        ("comm", comm, at::COMM),
        ("thread", thread, 112),
        ("worker_private", pointer, at::OWN),
    ];
    types.structure("task_struct", 256, &task);
    types.structure("signal_struct", 16, &[("thread_head", list, 0)]);
    let layout = types.structure("module_layout", 16, &[("base", pointer, 0), ("size", word, 8)]);
    let module = [
        ("state", word, 0),
        ("list", list, at::LIST),
        ("name", name, at::NAME),
        ("refcnt", word, at::REFERENCES),
        ("init", pointer, at::INIT),
        ("kallsyms", pointer, at::KALLSYMS),
        ("core_layout", layout, at::CORE),
        ("init_layout", layout, at::CORE + 16),
        ("percpu", pointer, at::PER_CPU),
        ("percpu_size", word, at::PER_CPU + 8),
    ];
    types.structure("module", 256, &module);
    let symbols = [
        ("symtab", pointer, 0),
        ("num_symtab", word, 8),
        ("strtab", pointer, 16),
        ("typetab", pointer, 24),
    ];
    types.structure("mod_kallsyms", 32, &symbols);
    let of_module = [("list", list, 0), ("module", pointer, 16), ("btf", pointer, 24)];
    types.structure("btf_module", 32, &of_module);
    let table = [
        ("data", pointer, 0),
        ("data_size", word, 8),
        ("start_id", word, 12),
        ("start_str_off", word, 16),
    ];
    types.structure("btf", 24, &table);
    process::types(&mut types, pointer, word);
    types.section(".data..percpu", &[("__entry_task", pointer, ENTRY_TASK)]);
    types.bytes()
}

/// ADRP and ADD that make the address of what is `to` into the image.
fn refers(from: u64, to: u64) -> Vec<u8> {
    let pages = ((to >> 12) - (from >> 12)) as u32;
    let words = [
        0x9000_0000 | (pages & 3) << 29 | (pages >> 2) << 5,
        0x9100_0000 | (to as u32 & 0xfff) << 10,
    ];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The image of a kernel without the names of variables, and its symbols.
#[must_use]
pub fn image() -> (Vec<u8>, Symbols) {
    let mut image = vec![0; TYPES];
    let mut put = |at: u64, bytes: &[u8]| {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    put(0x100, b"Linux version 6.1.0-test (somebody) #1\n\0");
    // What another text has is no task.
    put(0x808, b"swapper\0\0\0\0\0\0\0\0\0");
    put(0x1000, &refers(0x1000, MODULES));
    put(0x1008, &refers(0x1008, 0x2f00));
    put(0x1100, &refers(0x1100, MODULES));
    put(0x1500, &refers(0x1500, 0x2f00));
    put(0x1508, &refers(0x1508, MODULE_TYPES));
    put(0x1200, &refers(0x1200, PER_CPU + ENTRY_TASK));
    put(INIT_TASK + at::FLAGS, &0x20_0000_u32.to_le_bytes());
    put(INIT_TASK + at::PRIORITY, &120_u32.to_le_bytes());
    put(INIT_TASK + at::COMM, b"swapper");
    image.extend(types());
    let symbol = |(offset, name): &(u64, &str)| Symbol {
        address: BASE + offset,
        size: 0,
        kind: SymbolKind::Function,
        name: (*name).into(),
    };
    let names = [
        (0, "_text"),
        (0x1000, "print_modules"),
        (0x1100, "find_module_all"),
        (0x1200, "__switch_to"),
        (0x1300, "another"),
        (0x1400, "special_mapping_name"),
        (0x1500, "btf_module_notify"),
        (0x1600, "the last"),
    ];
    (image, Symbols::new(names.iter().map(symbol), Some(BASE)))
}

/// The kernel of that image, where it runs.
#[must_use]
pub fn kernel() -> Kernel {
    let (image, symbols) = image();
    Kernel::new(&image, BASE, &symbols, MOVED).expect("it is sound")
}

pub(crate) const fn run(offset: u64) -> u64 {
    BASE + MOVED + offset
}

/// Writes a task and its process's list of threads.
fn write_task(memory: &mut Sparse, address: u64, pid: u32, comm: &str, signal: u64) {
    memory.write(address, &[0; 256]);
    memory.write_u32(address + at::PID, pid);
    memory.write_u32(address + at::TGID, pid);
    memory.write_u32(address + at::STATE, 1);
    memory.write(address + at::COMM, comm.as_bytes());
    memory.write_u64(address + at::SIGNAL, signal);
}

/// Memory with tasks 0, 1 and 7, the last of which has a second thread, 8; and a module.
#[must_use]
pub fn memory() -> Sparse {
    let mut memory = Sparse::default();
    let tasks = [HEAP, HEAP + 0x1000, HEAP + 0x2000];
    let signals = [HEAP + 0x800, HEAP + 0x1800];
    write_task(&mut memory, run(INIT_TASK), 0, "swapper/0", 0);
    write_task(&mut memory, tasks[0], 1, "init", signals[0]);
    write_task(&mut memory, tasks[1], 7, "a process of note", signals[1]);
    write_task(&mut memory, tasks[2], 8, "its thread", signals[1]);
    memory.write_u32(tasks[2] + at::TGID, 7);
    memory.write_u64(tasks[1] + at::MM, process::MM);
    process::write(&mut memory, process::MM);
    // A thread of the kernel's with a long name.
    memory.write_u32(run(INIT_TASK) + at::FLAGS, 0x20_0000);
    memory.write_u64(run(INIT_TASK) + at::OWN, HEAP + 0x7000);
    memory.write_u64(HEAP + 0x7000, HEAP + 0x7010);
    memory.write(HEAP + 0x7010, b"swapper/0, which does nothing\0");
    memory.link(run(INIT_TASK) + at::TASKS, &[tasks[0] + at::TASKS, tasks[1] + at::TASKS]);
    memory.link(signals[0], &[tasks[0] + at::THREAD_NODE]);
    memory.link(signals[1], &[tasks[1] + at::THREAD_NODE, tasks[2] + at::THREAD_NODE]);
    memory.write_u64(run(PER_CPU + ENTRY_TASK) + 0x4000, tasks[1]);
    memory.write_u64(run(PER_CPU + ENTRY_TASK) + 0x8000, 0);
    write_module(&mut memory, HEAP + 0x4000);
    memory.link(run(MODULES), &[HEAP + 0x4000 + at::LIST]);
    write_module_types(&mut memory, HEAP + 0x5000, HEAP + 0x4000);
    memory.link(run(MODULE_TYPES), &[HEAP + 0x5000]);
    memory
}

/// Writes a module's table of types: one structure, of a number and a pointer to another.
fn write_module_types(memory: &mut Sparse, address: u64, module: u64) {
    let end = crate::Btf::parse(&types()).map(|table| table.end()).unwrap_or_default();
    let mut types = Builder::behind(end);
    let members = [("number", 1, 0), ("next", end.0 as u32 + 1, 8)];
    let own = types.structure("a_modules_own", 16, &members);
    types.add("", 2, 0, own, &[]);
    let bytes = types.bytes();
    memory.write(address, &[0; 0x100]);
    memory.write_u64(address + 16, module);
    memory.write_u64(address + 24, address + 0x80);
    memory.write_u64(address + 0x80, address + 0x100);
    memory.write_u32(address + 0x88, bytes.len() as u32);
    memory.write_u32(address + 0x8c, end.0 as u32);
    memory.write_u32(address + 0x90, end.1 as u32);
    memory.write(address + 0x100, &bytes);
}

fn write_module(memory: &mut Sparse, address: u64) {
    let (code, kallsyms, symbols) = (0xffff_8000_0100_0000, address + 0x200, address + 0x300);
    memory.write(address, &[0; 0x400]);
    memory.write(address + at::NAME, b"a_module");
    memory.write_u32(address + at::REFERENCES, 3);
    memory.write_u64(address + at::INIT, code + 0x40);
    memory.write_u64(address + at::KALLSYMS, kallsyms);
    memory.write_u64(address + at::CORE, code);
    memory.write_u32(address + at::CORE + 8, 0x3000);
    memory.write_u64(kallsyms, symbols);
    memory.write_u64(address + at::PER_CPU, 0x8000);
    memory.write_u32(address + at::PER_CPU + 8, 0x10);
    memory.write_u32(kallsyms + 8, 4);
    memory.write_u64(kallsyms + 16, address + 0x380);
    memory.write_u64(kallsyms + 24, address + 0x3a0);
    memory.write(address + 0x380, b"\0run\0data\0imported\0each\0");
    memory.write(address + 0x3a0, b"?tdd");
    // Name, section, value, size; the first is none, as in every table.
    for (index, (name, value, size)) in
        [(1, code + 0x40, 0x20), (5, code + 0x2000, 8), (19, 0x8008, 8)].iter().enumerate()
    {
        let at = symbols + 24 * (index as u64 + 1);
        memory.write_u32(at, *name);
        memory.write(at + 6, &[1, 0]);
        memory.write_u64(at + 8, *value);
        memory.write_u64(at + 16, *size);
    }
}
