//! What a kernel's image says: its version, its types, and where its lists begin.

use crate::btf::TypeId;
use crate::{Btf, Error, Memory, list, mapping, module, module_types, references, stack, task};
use std::collections::BTreeMap;
use stepwell_arch::Va;
use stepwell_trace::Symbols;

/// What a kernel's image has its version behind.
const BANNER: &[u8] = b"Linux version ";
/// Longest version that is shown.
const VERSION_MAX: usize = 128;
/// Functions that go through the list of modules.
const OF_MODULES: [&str; 2] = ["print_modules", "find_module_all"];
/// Functions, and a variable that each CPU has its own of and that they use.
const OF_PER_CPU: [(&str, &str); 4] = [
    ("__switch_to", "__entry_task"),
    ("__schedule", "runqueues"),
    ("scheduler_tick", "runqueues"),
    ("sched_tick", "runqueues"),
];
/// Where the section of these variables begins (`PERCPU_SECTION` in the linker's script).
const PER_CPU_ALIGNMENT: u64 = 4096;

/// A Linux kernel, where it runs.
#[derive(Clone, Debug)]
pub struct Kernel {
    version: String,
    page_bytes: u64,
    btf: Btf,
    pub(crate) tasks: task::Layout,
    modules: Option<module::Layout>,
    mappings: Option<mapping::Layout>,
    stacks: Option<stack::Layout>,
    init_task: u64,
    /// Where the list of modules may begin.
    module_lists: Vec<u64>,
    module_types: Option<module_types::Layout>,
    /// Where the list of modules' types may begin.
    module_types_lists: Vec<u64>,
    /// Where the variables of each CPU begin, before a CPU's own offset is added.
    per_cpu: Option<u64>,
    /// The function that names mappings of the kernel's own.
    special_mapping_name: Option<u64>,
}

impl Kernel {
    /// Reads a kernel's `image`, whose first byte was linked at `base` and that runs `moved_by`
    /// from there. `symbols` are as linked.
    ///
    /// # Errors
    ///
    /// [`Error::NotLinux`], [`Error::Types`], [`Error::NoMember`], [`Error::NoVariable`]: what is
    /// missing.
    pub fn new(image: &[u8], base: u64, symbols: &Symbols, moved_by: u64) -> Result<Self, Error> {
        let version = version(image).ok_or(Error::NotLinux("it names no version"))?;
        let btf = Btf::find(image)?;
        let tasks = task::Layout::new(&btf)?;
        let modules = module::Layout::new(&btf).ok();
        let mappings = mapping::Layout::new(&btf, &version).ok();
        let stacks = stack::Layout::new(&btf).ok();
        let module_types = module_types::Layout::new(&btf).ok();
        let linked = Linked { image, base, symbols };
        let init_task = linked.init_task(&tasks).ok_or(Error::NoVariable("first task"))?;
        let at = |link: u64| link.wrapping_add(moved_by);
        Ok(Self {
            version,
            page_bytes: page_bytes(image),
            init_task: at(init_task),
            module_lists: linked.module_lists().into_iter().map(at).collect(),
            module_types,
            module_types_lists: linked.module_types_lists().into_iter().map(at).collect(),
            per_cpu: linked.per_cpu(&btf).map(at),
            special_mapping_name: linked.named("special_mapping_name").map(at),
            btf,
            tasks,
            modules,
            mappings,
            stacks,
        })
    }

    /// Returns its version, as `uname -r` has it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns how large its pages are.
    #[must_use]
    pub const fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// Returns its types.
    #[must_use]
    pub const fn btf(&self) -> &Btf {
        &self.btf
    }

    /// Returns where the task is that a CPU is idle with: the first of all.
    #[must_use]
    pub const fn init_task(&self) -> u64 {
        self.init_task
    }

    /// Returns where a CPU has its own variable of this name, and its type. `offset` is what the
    /// CPU's TPIDR_EL1 holds in the kernel.
    #[must_use]
    pub fn per_cpu(&self, name: &str, offset: u64) -> Option<(u64, TypeId)> {
        let (within, id) = self.btf.per_cpu(name)?;
        Some((self.per_cpu?.wrapping_add(within).wrapping_add(offset), id))
    }

    /// Returns the address of the task that a CPU executes.
    ///
    /// # Errors
    ///
    /// [`Error::NoVariable`], and those of `memory`.
    pub fn current(&self, memory: &mut dyn Memory, offset: u64) -> Result<u64, Error> {
        let found = self.per_cpu("__entry_task", offset);
        let (at, _) = found.ok_or(Error::NoVariable("current tasks"))?;
        match memory.read_u64(at)? {
            // Nothing was scheduled here yet.
            0 => Ok(self.init_task),
            task => Ok(task),
        }
    }

    /// Returns how modules are laid out.
    pub(crate) fn module_layout(&self) -> Result<&module::Layout, Error> {
        self.modules.as_ref().ok_or_else(|| Error::NoMember("struct module".to_owned()))
    }

    /// Returns where the function is that names mappings of the kernel's own.
    pub(crate) const fn special_mapping_name(&self) -> Option<u64> {
        self.special_mapping_name
    }

    /// Returns how a process's mappings are laid out.
    pub(crate) fn mapping_layout(&self) -> Result<&mapping::Layout, Error> {
        self.mappings.as_ref().ok_or_else(|| Error::NoMember("struct vm_area_struct".to_owned()))
    }

    /// Returns how the registers of a task that does not run are laid out.
    pub(crate) fn stack_layout(&self) -> Result<&stack::Layout, Error> {
        self.stacks.as_ref().ok_or_else(|| Error::NoMember("struct cpu_context".to_owned()))
    }

    /// Returns how the tables of modules' types are laid out.
    pub(crate) fn module_types_layout(&self) -> Result<&module_types::Layout, Error> {
        self.module_types.as_ref().ok_or_else(|| Error::NoMember("struct btf_module".to_owned()))
    }

    /// Returns where the list of these tables may begin.
    pub(crate) fn module_types_lists(&self) -> &[u64] {
        &self.module_types_lists
    }

    /// Returns the same kernel with other types: its own, and those of a module.
    #[must_use]
    pub fn with_types(&self, btf: Btf) -> Self {
        Self { btf, ..self.clone() }
    }

    /// Returns where the list of modules begins.
    pub(crate) fn module_list(&self, memory: &mut dyn Memory) -> Result<u64, Error> {
        if let [head] = self.module_lists[..] {
            return Ok(head);
        }
        for &head in &self.module_lists {
            match list::is_head(memory, head) {
                Ok(true) => return Ok(head),
                Err(error) if error.is_fatal() => return Err(error),
                Ok(false) | Err(_) => {}
            }
        }
        Err(Error::NoVariable("list of modules"))
    }
}

fn version(image: &[u8]) -> Option<String> {
    let at = image.windows(BANNER.len()).position(|window| window == BANNER)?;
    let rest = image.get(at + BANNER.len()..)?;
    let word = rest.split(|byte| !byte.is_ascii_graphic()).next()?;
    let word = word.get(..VERSION_MAX).unwrap_or(word);
    (!word.is_empty()).then(|| String::from_utf8_lossy(word).into_owned())
}

/// Returns how large the pages are that an image was built for; 4 KiB where it does not say.
///
/// Source: Linux, Documentation/arch/arm64/booting.rst, "Call the kernel image", `flags`.
fn page_bytes(image: &[u8]) -> u64 {
    const FLAGS: usize = 24;
    match image.get(FLAGS).map(|flags| flags >> 1 & 3) {
        Some(2) => 16 << 10,
        Some(3) => 64 << 10,
        _ => 4 << 10,
    }
}

/// A kernel as it was linked.
struct Linked<'a> {
    image: &'a [u8],
    base: u64,
    symbols: &'a Symbols,
}

impl Linked<'_> {
    /// Returns what the code of a function refers to, in all that the compiler made of it.
    fn references(&self, function: &str) -> Vec<u64> {
        let part = |name: &str| name.strip_prefix(function).is_some_and(|end| end.starts_with('.'));
        let named = self.symbols.iter().filter(|one| one.name == function || part(&one.name));
        let mut found: Vec<u64> = named
            .filter_map(|symbol| {
                let place = self.symbols.place_of(symbol);
                let offset = |va: u64| usize::try_from(va.checked_sub(self.base)?).ok();
                let code = self.image.get(offset(*place.start())?..=offset(*place.end())?)?;
                Some(references::of(code, *place.start()))
            })
            .flatten()
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Finds the first task, by its name or else by what it holds from the start.
    fn init_task(&self, tasks: &task::Layout) -> Option<u64> {
        let named = self.symbols.address_of("init_task").map(|va| va.0);
        named.or_else(|| Some(self.base.wrapping_add(tasks.find_first(self.image)?)))
    }

    /// Finds where the list of modules may begin: what all functions that go through it refer to.
    fn module_lists(&self) -> Vec<u64> {
        let referred = OF_MODULES.map(|function| self.references(function));
        let mut known = referred.iter().filter(|found| !found.is_empty());
        let Some(first) = known.next() else { return self.named("modules").into_iter().collect() };
        let rest: Vec<_> = known.collect();
        let in_all = |at: &u64| rest.iter().all(|found| found.contains(at));
        let mut common: Vec<u64> = first.iter().copied().filter(in_all).collect();
        let named = self.named("modules");
        if named.is_some_and(|at| common.contains(&at)) {
            common = named.into_iter().collect();
        }
        common
    }

    /// Finds where the list of modules' types may begin.
    fn module_types_lists(&self) -> Vec<u64> {
        let all = module_types::OF_LIST.iter().flat_map(|function| self.references(function));
        all.collect()
    }

    /// Finds where the variables of each CPU begin: where most references say that they do.
    fn per_cpu(&self, btf: &Btf) -> Option<u64> {
        if let Some(start) = self.named("__per_cpu_start") {
            return Some(start);
        }
        let mut votes = BTreeMap::<u64, u32>::new();
        for (function, variable) in OF_PER_CPU {
            let Some((within, _)) = btf.per_cpu(variable) else { continue };
            for at in self.references(function) {
                let start = at.wrapping_sub(within);
                if start % PER_CPU_ALIGNMENT == 0 {
                    *votes.entry(start).or_default() += 1;
                }
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(start, _)| start)
    }

    fn named(&self, name: &str) -> Option<u64> {
        self.symbols.address_of(name).map(|Va(at)| at)
    }
}
