//! What vCPUs waited for while the others had turns, as the page gets it.

use super::{NameTable, SITES_MAX, intervals, place};
use crate::call_stack::CallStacks;
use crate::report::turns;
use serde::Serialize;

/// A mark on the timeline: vCPU, start, 0, instructions of the others, name.
type Mark = (u8, u64, u64, u64, u32);

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Turns {
    times: u64,
    /// What the others executed in them.
    instructions: u64,
    sites: usize,
    /// Place, waited for, times, instructions of the others.
    list: Vec<(String, String, u64, u64)>,
    /// What was waited for, and where that was on the timeline.
    marks: Vec<(String, Vec<Mark>)>,
}

impl Turns {
    pub(super) fn collect(
        seen: &turns::Turns,
        stacks: &CallStacks<'_>,
        names: &mut NameTable,
    ) -> Self {
        let (sites, (times, instructions)) = (seen.sites(), seen.totals());
        let list = sites.iter().take(SITES_MAX).map(|(pc, why, site)| {
            (place(stacks, *pc), why.to_string(), site.times, site.instructions)
        });
        let marks = seen.marks().filter(|(_, of)| of.count() > 0);
        Self {
            times,
            instructions,
            sites: sites.len(),
            list: list.collect(),
            marks: marks.map(|(why, of)| (why.to_string(), intervals(of, stacks, names))).collect(),
        }
    }
}
