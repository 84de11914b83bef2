//! The types of modules: what each has beyond the kernel's own.
//!
//! A module's table (split BTF) goes on where the kernel's ends: its types have the next numbers, and
//! its names the next places. The kernel keeps it for as long as the module is loaded, in a list whose
//! place nothing tells but the code that goes through it. So what that code refers to is tried: the
//! right one is a list whose entries lead to modules that are loaded.
//!
//! Two modules' tables use the same numbers, so an expression means those of one module at a time.

use crate::btf::{Field, field};
use crate::{Btf, Error, Kernel, Memory, list, module};

/// Functions that go through the list.
pub(crate) const OF_LIST: [&str; 2] = ["btf_module_notify", "btf_try_get_module"];
/// Most modules whose types are read.
const MODULES_MAX: usize = 512;
/// Longest table that is read; Debian's largest has some 200 KiB.
const TABLE_MAX: u64 = 4 << 20;

/// Where the members are that are asked for here.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    list: Field,
    module: Field,
    btf: Field,
    data: Field,
    bytes: Field,
    first_type: Field,
    first_string: Field,
}

impl Layout {
    pub(crate) fn new(btf: &Btf) -> Result<Self, Error> {
        let of_module = |path: &str| field(btf, "btf_module", &[path]);
        let of_table = |path: &str| field(btf, "btf", &[path]);
        Ok(Self {
            list: of_module("list")?,
            module: of_module("module")?,
            btf: of_module("btf")?,
            data: of_table("data")?,
            bytes: of_table("data_size")?,
            first_type: of_table("start_id")?,
            first_string: of_table("start_str_off")?,
        })
    }
}

/// Returns the kernel's types with those of each loaded module behind them, where the module has any.
///
/// # Errors
///
/// [`Error::NoMember`] where this kernel keeps none; those of the list of modules and of `memory`.
pub fn all(kernel: &Kernel, memory: &mut dyn Memory) -> Result<Vec<Btf>, Error> {
    let layout = kernel.module_types_layout()?;
    let loaded: Vec<u64> = module::all(kernel, memory)?.iter().map(|one| one.address).collect();
    for &head in kernel.module_types_lists() {
        match entries(layout, memory, head, &loaded) {
            Ok(entries) if !entries.is_empty() => {
                return Ok(entries
                    .iter()
                    .filter_map(|at| table(kernel, layout, memory, *at))
                    .collect());
            }
            Err(error) if error.is_fatal() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(Vec::new())
}

/// Returns where the entries of a list are, if they lead to loaded modules.
fn entries(
    layout: &Layout,
    memory: &mut dyn Memory,
    head: u64,
    loaded: &[u64],
) -> Result<Vec<u64>, Error> {
    let entries = list::entries(memory, head, "modules' types", MODULES_MAX)?;
    let entries: Vec<u64> =
        entries.into_iter().map(|entry| entry.wrapping_sub(layout.list.offset)).collect();
    for entry in &entries {
        if !loaded.contains(&layout.module.read(memory, *entry)?) {
            return Ok(Vec::new());
        }
    }
    Ok(entries)
}

/// Reads the table of an entry; nothing where it is none that goes on where the kernel's ends.
fn table(kernel: &Kernel, layout: &Layout, memory: &mut dyn Memory, entry: u64) -> Option<Btf> {
    let at = layout.btf.read(memory, entry).ok()?;
    let mut read = |field: &Field| field.read(memory, at).ok();
    let (data, bytes) = (read(&layout.data)?, read(&layout.bytes)?);
    let begins = (read(&layout.first_type)?, read(&layout.first_string)?);
    let mut table = vec![0; usize::try_from(bytes).ok().filter(|_| bytes <= TABLE_MAX)?];
    memory.read(data, &mut table).ok()?;
    let (types, strings) = kernel.btf().end();
    (begins == (types, strings)).then(|| kernel.btf().extended(&table).ok()).flatten()
}
