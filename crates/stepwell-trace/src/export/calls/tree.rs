//! The calls that ended, as a tree that folds and never outgrows its limit.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

/// Calls that are kept with what they called: some 50 MiB. Beyond, calls are kept without.
const NODES_FULL: usize = 400_000;
/// Calls that are kept at all. Beyond, they are only counted.
const NODES_MAX: usize = 2 * NODES_FULL;

/// A call that ended, or several that were the same.
#[derive(Debug)]
pub(super) struct Node {
    label: u32,
    /// How many calls this is.
    calls: u64,
    /// Instructions in it and below.
    instructions: u64,
    /// Tells calls apart by what they called, not by how long it took.
    shape: u64,
    /// Nodes in it and below.
    size: usize,
    /// What it called is not all there.
    cut: bool,
    children: Vec<Node>,
}

/// A call that has not ended.
#[derive(Debug, Default)]
pub(super) struct OpenNode {
    label: u32,
    /// Instructions of its own and of what it called that ended.
    pub(super) instructions: u64,
    children: Vec<Node>,
    cut: bool,
}

impl OpenNode {
    /// Begins a call.
    pub(super) fn new(label: u32) -> Self {
        Self { label, ..Self::default() }
    }
}

/// Labels, and how much of the limit is used.
#[derive(Debug)]
pub(super) struct Tree {
    labels: Vec<String>,
    by_label: HashMap<String, u32>,
    nodes: usize,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { labels: Vec::new(), by_label: HashMap::new(), nodes: 0 }
    }

    /// Returns the number that stands for `label`.
    pub(super) fn label(&mut self, label: &str) -> u32 {
        if let Some(&number) = self.by_label.get(label) {
            return number;
        }
        let number = self.labels.len() as u32;
        self.labels.push(label.to_owned());
        self.by_label.insert(label.to_owned(), number);
        number
    }

    /// Ends a call.
    pub(super) fn close(&mut self, open: OpenNode) -> Node {
        let mut shape = DefaultHasher::new();
        open.label.hash(&mut shape);
        for child in &open.children {
            (child.shape, child.calls).hash(&mut shape);
        }
        let mut node = Node {
            label: open.label,
            calls: 1,
            instructions: open.instructions,
            shape: shape.finish(),
            size: 1 + open.children.iter().map(|child| child.size).sum::<usize>(),
            cut: open.cut,
            children: open.children,
        };
        self.nodes += 1;
        if self.nodes > NODES_FULL && node.size > 1 {
            self.nodes -= node.size - 1;
            node.size = 1;
            node.cut = true;
            node.children = Vec::new();
        }
        node
    }

    /// Makes an ended call the last of what `parent` called.
    pub(super) fn attach(&mut self, parent: &mut OpenNode, node: Node) {
        parent.instructions += node.instructions;
        parent.cut |= self.add(&mut parent.children, node);
    }

    /// Makes an ended call the last of `siblings`, and returns whether it had to be left out.
    fn add(&mut self, siblings: &mut Vec<Node>, node: Node) -> bool {
        let full = self.nodes > NODES_FULL;
        if let Some(last) = siblings.last_mut()
            && last.label == node.label
            && (full || last.shape == node.shape)
        {
            last.calls += node.calls;
            last.instructions += node.instructions;
            last.cut |= node.cut;
            self.nodes -= node.size;
            return false;
        }
        if self.nodes > NODES_MAX {
            self.nodes -= node.size;
            return true;
        }
        siblings.push(node);
        false
    }

    /// Writes the outline of one vCPU: what `root` called, at most `depth_max` calls deep.
    pub(super) fn write(
        &self,
        vcpu: u8,
        root: &OpenNode,
        depth_max: Option<usize>,
        output: &mut impl Write,
    ) -> io::Result<()> {
        let cut = if root.cut { " …" } else { "" };
        writeln!(output, "vcpu {vcpu}: {} instructions{cut}", root.instructions)?;
        // A list instead of recursion: the tree may be as deep as a stack gets.
        let mut waiting: Vec<(usize, &Node)> =
            root.children.iter().rev().map(|node| (1, node)).collect();
        while let Some((depth, node)) = waiting.pop() {
            let label = &self.labels[node.label as usize];
            write!(output, "{:>12}{:depth$}{label}", node.instructions, "", depth = 2 * depth)?;
            if node.calls > 1 {
                write!(output, " ×{}", node.calls)?;
            }
            let too_deep = depth_max.is_some_and(|max| depth >= max);
            let left_out = node.cut || (too_deep && !node.children.is_empty());
            writeln!(output, "{}", if left_out { " …" } else { "" })?;
            if too_deep {
                continue;
            }
            waiting.extend(node.children.iter().rev().map(|child| (depth + 1, child)));
        }
        Ok(())
    }
}
