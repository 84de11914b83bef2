//! Calls, added up by how they were reached: what a flame graph draws.
//!
//! All calls that took the same way are one node, with the instructions that they executed
//! themselves. Interrupts are beside what they interrupted, not inside it: they did not cost it
//! anything, and where they fall differs from run to run.
//!
//! The tree never outgrows [`NODES_MAX`] nodes. Beyond, what a call executes counts for its caller.

use crate::call_stack::{CallVisitor, Entry, Exit, FrameKind, FunctionId};
use std::collections::{BTreeMap, HashMap};
use stepwell_arch::address::Va;

/// Most nodes: some 40 MiB. The boot of a Linux kernel has about a quarter of it.
pub const NODES_MAX: usize = 400_000;

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlameLabel {
    /// All that was recorded.
    All,
    /// All that a vCPU executed.
    Vcpu(u8),
    /// All interrupts.
    Interrupts,
    /// Exceptions that were taken in the function above: system calls, page faults.
    Exception,
    /// A function.
    Function(FunctionId),
}

/// Calls that were reached by the same way.
#[derive(Clone, Debug)]
pub struct FlameNode {
    /// What it stands for.
    pub label: FlameLabel,
    /// Index of its caller; its own for the first node.
    pub parent: u32,
    /// Instructions that it executed itself.
    pub own: u64,
    /// Instructions that it and what it called executed; 0 before [`FlameTree::finish`].
    pub total: u64,
    /// How many nodes are above it.
    pub depth: u32,
}

/// Adds calls up.
#[derive(Clone, Debug)]
pub struct FlameTree {
    /// A caller always comes before those that it called.
    nodes: Vec<FlameNode>,
    index: HashMap<(u32, FlameLabel), u32>,
    stacks: BTreeMap<u8, Vec<u32>>,
    by_vcpu: bool,
    is_cut: bool,
}

impl FlameTree {
    /// Returns an empty tree; `by_vcpu` gives each vCPU a node of its own.
    #[must_use]
    pub fn new(by_vcpu: bool) -> Self {
        let root = FlameNode { label: FlameLabel::All, parent: 0, own: 0, total: 0, depth: 0 };
        Self {
            nodes: vec![root],
            index: HashMap::new(),
            stacks: BTreeMap::new(),
            by_vcpu,
            is_cut: false,
        }
    }

    /// Adds the instructions up from the leaves to the root.
    pub fn finish(&mut self) {
        for node in &mut self.nodes {
            node.total = node.own;
        }
        for index in (1..self.nodes.len()).rev() {
            let (total, parent) = (self.nodes[index].total, self.nodes[index].parent);
            self.nodes[parent as usize].total += total;
        }
    }

    /// Returns all nodes, a caller before those that it called. The first is the root.
    #[must_use]
    pub fn nodes(&self) -> &[FlameNode] {
        &self.nodes
    }

    /// Tells whether there were more ways than nodes.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Returns for each node the indices of those that it called, those that cost most first.
    #[must_use]
    pub fn children(&self) -> Vec<Vec<u32>> {
        let mut children = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            children[node.parent as usize].push(index as u32);
        }
        for list in &mut children {
            list.sort_by_key(|&child| std::cmp::Reverse(self.nodes[child as usize].total));
        }
        children
    }

    fn child(&mut self, parent: u32, label: FlameLabel) -> u32 {
        if let Some(&child) = self.index.get(&(parent, label)) {
            return child;
        }
        if self.nodes.len() >= NODES_MAX {
            self.is_cut = true;
            return parent;
        }
        let child = self.nodes.len() as u32;
        let depth = self.nodes[parent as usize].depth + 1;
        self.nodes.push(FlameNode { label, parent, own: 0, total: 0, depth });
        self.index.insert((parent, label), child);
        child
    }

    fn base(&mut self, vcpu: u8) -> u32 {
        if self.by_vcpu { self.child(0, FlameLabel::Vcpu(vcpu)) } else { 0 }
    }
}

impl CallVisitor for FlameTree {
    fn enter(&mut self, entry: Entry<'_>) {
        let base = self.base(entry.vcpu);
        let top = self.stacks.entry(entry.vcpu).or_default().last().copied().unwrap_or(base);
        let node = match entry.kind {
            FrameKind::Interrupt => self.child(base, FlameLabel::Interrupts),
            FrameKind::Exception => self.child(top, FlameLabel::Exception),
            FrameKind::Function | FrameKind::TailCall | FrameKind::Found => {
                let label = FlameLabel::Function(entry.function);
                // Code without names calls itself, as far as anybody can tell.
                let again = entry.function.is_nameless() && self.nodes[top as usize].label == label;
                if again { top } else { self.child(top, label) }
            }
        };
        self.stacks.entry(entry.vcpu).or_default().push(node);
    }

    fn leave(&mut self, exit: Exit) {
        if let Some(stack) = self.stacks.get_mut(&exit.vcpu) {
            stack.pop();
        }
    }

    fn execute(&mut self, vcpu: u8, _pc: Va, length: u32) {
        let top = self.stacks.get(&vcpu).and_then(|stack| stack.last()).copied().unwrap_or(0);
        self.nodes[top as usize].own += u64::from(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: FrameKind, function: u32) -> Entry<'static> {
        let function = FunctionId(function);
        Entry { vcpu: 0, kind, function, name: "", at: Va(0), resumed: false }
    }

    fn exit() -> Exit {
        let (kind, function) = (FrameKind::Function, FunctionId(0));
        Exit { vcpu: 0, kind, function, suspended: false }
    }

    #[test]
    fn the_same_way_is_one_node_and_interrupts_stand_aside() {
        let mut tree = FlameTree::new(false);
        tree.enter(entry(FrameKind::Found, 7));
        for _ in 0..3 {
            tree.enter(entry(FrameKind::Function, 8));
            tree.execute(0, Va(0), 5);
            tree.leave(exit());
        }
        tree.enter(entry(FrameKind::Interrupt, 7));
        tree.enter(entry(FrameKind::Found, 9));
        tree.execute(0, Va(0), 2);
        tree.finish();
        let totals: Vec<_> = tree.nodes().iter().map(|node| (node.label, node.total)).collect();
        let function = |number| FlameLabel::Function(FunctionId(number));
        let expected = [
            (FlameLabel::All, 17),
            (function(7), 15),
            (function(8), 15),
            (FlameLabel::Interrupts, 2),
            (function(9), 2),
        ];
        assert_eq!(totals, expected);
        assert_eq!(tree.children()[0], [1, 3]);
    }

    #[test]
    fn nameless_code_is_one_node_however_deep_it_calls() {
        let mut tree = FlameTree::new(true);
        for _ in 0..40 {
            tree.enter(entry(FrameKind::Function, FunctionId::USER.0));
        }
        tree.execute(0, Va(0), 1);
        (0..39).for_each(|_| tree.leave(exit()));
        tree.execute(0, Va(0), 1);
        tree.finish();
        assert_eq!(tree.nodes().len(), 3);
        assert_eq!(tree.nodes()[2].own, 2);
    }

    #[test]
    fn the_sum_is_kept_when_there_is_no_room() {
        let mut tree = FlameTree::new(false);
        for function in 0..NODES_MAX as u32 + 100 {
            tree.enter(entry(FrameKind::Function, function + 2));
            tree.execute(0, Va(0), 1);
            tree.leave(exit());
        }
        tree.finish();
        assert!(tree.is_cut());
        assert_eq!(tree.nodes()[0].total, NODES_MAX as u64 + 100);
    }
}
