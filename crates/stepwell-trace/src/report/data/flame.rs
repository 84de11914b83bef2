//! The flame graph, pruned to what can be seen.

use super::NameTable;
use crate::call_stack::FunctionId;
use crate::flame_tree::{FlameLabel, FlameTree};
use serde::Serialize;

/// Most nodes that a page has. The threshold rises until they fit.
const NODES_MAX: usize = 12_000;
/// A node that is narrower than this part of the whole is left out at any rate: zoomed to the
/// function that called it, it may still be a hundredth of the width.
const THRESHOLD: u64 = 100_000;

/// The tree, each node before what it called, those that cost most first.
#[derive(Debug, Serialize)]
pub(super) struct Flame {
    /// Four numbers a node: depth, name, instructions with and without what it called.
    nodes: Vec<u64>,
    /// Nodes that cost less were left out.
    threshold: u64,
    /// How many were.
    left_out: usize,
    /// There were more ways than the tree could hold.
    cut: bool,
}

impl Flame {
    pub(super) fn collect<'n>(
        tree: &FlameTree,
        name: impl Fn(FunctionId) -> &'n str,
        names: &mut NameTable,
    ) -> Self {
        let all = tree.nodes();
        let mut totals: Vec<u64> = all.iter().map(|node| node.total).collect();
        totals.sort_unstable_by_key(|&total| std::cmp::Reverse(total));
        let fits = totals.get(NODES_MAX).map_or(0, |total| total + 1);
        let threshold = fits.max(totals[0] / THRESHOLD).max(1);
        let children = tree.children();
        let mut nodes = Vec::new();
        // A list instead of recursion: a stack may be deep.
        let mut waiting = vec![0_u32];
        while let Some(index) = waiting.pop() {
            let node = &all[index as usize];
            let label = match node.label {
                FlameLabel::All => "all".to_owned(),
                FlameLabel::Vcpu(vcpu) => format!("vCPU {vcpu}"),
                FlameLabel::Interrupts => "[interrupts]".to_owned(),
                FlameLabel::Exception => "[exception]".to_owned(),
                FlameLabel::Function(function) => name(function).to_owned(),
            };
            let number = u64::from(names.number(&label));
            nodes.extend([u64::from(node.depth), number, node.total, node.own]);
            let seen = |child: &&u32| all[**child as usize].total >= threshold;
            waiting.extend(children[index as usize].iter().filter(seen).rev());
        }
        let left_out = all.len() - nodes.len() / 4;
        Self { nodes, threshold, left_out, cut: tree.is_cut() }
    }
}

/// Returns the instructions of each function with what it called, counted once where it called
/// itself.
pub(super) fn totals(tree: &FlameTree, functions: usize) -> Vec<u64> {
    let (nodes, children) = (tree.nodes(), tree.children());
    let mut totals = vec![0; functions];
    let mut active = vec![0_u32; functions];
    let mut waiting = vec![(0_u32, false)];
    while let Some((index, leaving)) = waiting.pop() {
        let node = &nodes[index as usize];
        let function = match node.label {
            FlameLabel::Function(function) => Some(function.0 as usize),
            _ => None,
        };
        if let Some(function) = function.filter(|function| *function < functions) {
            if leaving {
                active[function] -= 1;
                continue;
            }
            if active[function] == 0 {
                totals[function] += node.total;
            }
            active[function] += 1;
            waiting.push((index, true));
        }
        if !leaving {
            waiting.extend(children[index as usize].iter().map(|child| (*child, false)));
        }
    }
    totals
}
