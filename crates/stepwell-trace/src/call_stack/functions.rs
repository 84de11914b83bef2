//! Which function an address belongs to, and what its instruction does to the flow: looked up tens
//! of millions of times, so both are cached by address.

use super::FunctionId;
use crate::code::CodePages;
use crate::flow::Flow;
use crate::symbols::Symbols;
use std::collections::HashMap;
use stepwell_arch::address::Va;

/// Entries of each cache, a power of two: enough for the working set of a kernel.
const CACHE: usize = 1 << 15;
/// An address that no instruction has.
const NOWHERE: u64 = 1;

/// Functions that end in another task than they began in: those of Linux, FreeBSD, Zephyr and Xen.
const TASK_SWITCHES: [&str; 4] =
    ["cpu_switch_to", "cpu_switch", "z_arm64_context_switch", "__context_switch"];

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// The function.
    pub(super) id: FunctionId,
    /// The address is the function's first.
    pub(super) first: bool,
}

/// The names of functions, and caches by address.
#[derive(Debug)]
pub(super) struct Functions<'a> {
    code: &'a CodePages,
    symbols: &'a Symbols,
    /// The symbols are those of a kernel in the upper half of the addresses.
    of_kernel: bool,
    names: Vec<&'a str>,
    by_name: HashMap<&'a str, FunctionId>,
    task_switches: Vec<FunctionId>,
    at: Vec<(u64, At)>,
    flow: Vec<(u64, Option<Flow>)>,
}

impl<'a> Functions<'a> {
    pub(super) fn new(code: &'a CodePages, symbols: &'a Symbols) -> Self {
        let nobody = At { id: FunctionId::UNKNOWN, first: false };
        let mut functions = Self {
            code,
            symbols,
            of_kernel: symbols.iter().any(|symbol| symbol.address >> 63 == 1),
            names: Vec::new(),
            by_name: HashMap::new(),
            task_switches: Vec::new(),
            at: vec![(NOWHERE, nobody); CACHE],
            flow: vec![(NOWHERE, None); CACHE],
        };
        for name in ["(unknown)", "(user code)"] {
            functions.intern(name);
        }
        functions.task_switches = TASK_SWITCHES.map(|name| functions.intern(name)).to_vec();
        functions
    }

    pub(super) fn name(&self, function: FunctionId) -> &'a str {
        self.names.get(function.0 as usize).copied().unwrap_or("")
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// Returns what is at `pc`.
    pub(super) fn at(&mut self, pc: Va) -> At {
        let slot = slot(pc);
        if self.at[slot].0 == pc.0 {
            return self.at[slot].1;
        }
        let symbols = self.symbols;
        let at = match symbols.lookup(pc) {
            Some((name, offset)) => At { id: self.intern(name), first: offset == 0 },
            None if self.of_kernel && pc.0 >> 63 == 0 => At { id: FunctionId::USER, first: false },
            None => At { id: FunctionId::UNKNOWN, first: false },
        };
        self.at[slot] = (pc.0, at);
        at
    }

    /// Returns what the instruction at `pc` does, if its code was recorded.
    pub(super) fn flow(&mut self, pc: Va) -> Option<Flow> {
        let slot = slot(pc);
        if self.flow[slot].0 != pc.0 {
            let flow = self.code.word(pc).map(|word| Flow::of(word, pc));
            self.flow[slot] = (pc.0, flow);
        }
        self.flow[slot].1
    }

    /// Tells whether `pc` is in a function that switches tasks.
    pub(super) fn switches_tasks(&mut self, pc: Va) -> bool {
        let id = self.at(pc).id;
        self.task_switches.contains(&id)
    }

    fn intern(&mut self, name: &'a str) -> FunctionId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = FunctionId(u32::try_from(self.names.len()).unwrap_or(0));
        self.names.push(name);
        self.by_name.insert(name, id);
        id
    }
}

/// Mixes the upper bits in, so that functions a power of two apart do not share a slot.
const fn slot(pc: Va) -> usize {
    let word = pc.0 >> 2;
    (word ^ (word >> 15)) as usize & (CACHE - 1)
}
