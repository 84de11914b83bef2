//! The instructions of the hottest functions, with how often each was executed.

use super::super::analysis::Seen;
use crate::call_stack::{CallStacks, FunctionId};
use crate::code::CodePages;
use crate::disassemble::Disassembler;
use crate::export::ExportError;
use serde::Serialize;
use std::collections::BTreeMap;
use stepwell_arch::address::Va;

/// Functions that are taken apart.
const FUNCTIONS_MAX: usize = 40;
/// Instructions of one that are shown: those around the hottest.
const LINES_MAX: usize = 120;

/// A function, instruction by instruction.
#[derive(Debug, Serialize)]
pub(super) struct Hot {
    name: String,
    own: u64,
    /// Some of its instructions are not shown.
    cut: bool,
    /// Address, how often it was executed, text.
    lines: Vec<(String, u64, String)>,
}

pub(super) fn collect(
    seen: &Seen,
    code: &CodePages,
    stacks: &mut CallStacks<'_>,
) -> Result<Vec<Hot>, ExportError> {
    let mut order: Vec<usize> = (0..seen.functions.len())
        .filter(|&id| seen.functions[id].own > 0 && !FunctionId(id as u32).is_nameless())
        .collect();
    order.sort_by_key(|&id| std::cmp::Reverse(seen.functions[id].own));
    order.truncate(FUNCTIONS_MAX);
    let mut lines: BTreeMap<usize, Vec<(Va, u64)>> =
        order.iter().map(|id| (*id, Vec::new())).collect();
    seen.counts.each(|pc, count| {
        let id = stacks.function_at(pc).0 as usize;
        if let Some(lines) = lines.get_mut(&id) {
            lines.push((pc, count));
        }
    });
    let disassembler = Disassembler::new()?;
    let hot = order.into_iter().map(|id| {
        let all = lines.remove(&id).unwrap_or_default();
        let shown = around_the_hottest(&all);
        let text = |pc: Va| match code.word(pc) {
            Some(word) => disassembler.text(word, pc),
            None => String::new(),
        };
        Hot {
            name: stacks.name(FunctionId(id as u32)).to_owned(),
            own: seen.functions[id].own,
            cut: shown.len() < all.len(),
            lines: shown.iter().map(|&(pc, count)| (format!("{pc}"), count, text(pc))).collect(),
        }
    });
    Ok(hot.collect())
}

fn around_the_hottest(lines: &[(Va, u64)]) -> &[(Va, u64)] {
    let hottest = (0..lines.len()).max_by_key(|&index| lines[index].1).unwrap_or(0);
    let start = hottest.saturating_sub(LINES_MAX / 2).min(lines.len().saturating_sub(LINES_MAX));
    &lines[start..lines.len().min(start + LINES_MAX)]
}
