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

/// Tells whether a function of this name ends in another task than it began in.
pub(crate) fn is_task_switch(name: &str) -> bool {
    TASK_SWITCHES.contains(&name)
}

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
    /// The returns of functions that switch tasks, sorted.
    switching_returns: Vec<Va>,
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
            switching_returns: switching_returns(code, symbols),
            at: vec![(NOWHERE, nobody); CACHE],
            flow: vec![(NOWHERE, None); CACHE],
        };
        for name in ["(unknown)", "(user code)"] {
            functions.intern(name);
        }
        functions
    }

    pub(super) fn name(&self, function: FunctionId) -> &'a str {
        self.names.get(function.0 as usize).copied().unwrap_or("")
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    pub(super) fn place(&self, pc: Va) -> Option<(&'a str, u64)> {
        self.symbols.lookup(pc)
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

    /// Tells whether the instruction at `pc` returns into another task.
    pub(super) fn switches_tasks(&self, pc: Va) -> bool {
        self.switching_returns.binary_search(&pc).is_ok()
    }

    /// Returns how many instructions of a run are executed before the task is another: a new task
    /// of Linux begins right behind the return that leads to it, so a run goes on there.
    pub(super) fn until_switch(&self, pc: Va, length: u32) -> Option<u32> {
        let end = pc.0.saturating_add(u64::from(length) * 4);
        let first = self.switching_returns.partition_point(|at| at.0 < pc.0);
        let at = self.switching_returns.get(first).filter(|at| at.0.saturating_add(4) < end)?;
        u32::try_from((at.0 - pc.0) / 4 + 1).ok()
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

/// Looks for the returns of functions that switch tasks.
fn switching_returns(code: &CodePages, symbols: &Symbols) -> Vec<Va> {
    /// Longest such function that is looked through, in instructions.
    const LENGTH_MAX: u64 = 1024;
    /// Most of them: a kernel has one, at each of its addresses.
    const FUNCTIONS_MAX: usize = 64;
    let mut returns = Vec::new();
    let switches = symbols.iter().filter(|symbol| is_task_switch(&symbol.name));
    for symbol in switches.take(FUNCTIONS_MAX) {
        let all = (0..LENGTH_MAX).map(|index| Va(symbol.address).offset(index * 4));
        let own = all.take_while(|pc| symbols.lookup(*pc).is_some_and(|it| it.0 == symbol.name));
        returns.extend(
            own.filter(|pc| code.word(*pc).is_some_and(|word| Flow::of(word, *pc) == Flow::Return)),
        );
    }
    returns.sort_unstable();
    returns.dedup();
    returns
}

/// Mixes the upper bits in, so that functions a power of two apart do not share a slot.
const fn slot(pc: Va) -> usize {
    let word = pc.0 >> 2;
    (word ^ (word >> 15)) as usize & (CACHE - 1)
}
