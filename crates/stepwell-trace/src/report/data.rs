//! What the page is given: numbers in arrays, names by their index, everything bounded.

mod flame;
mod hot;
mod turns;

use super::analysis::{Analysis, Seen};
use super::distribution::Summary;
use super::facts::{Completeness, Facts};
use super::mix::Class;
use super::timeline::{Bin, Intervals};
use crate::call_stack::{CallStacks, FunctionId};
use crate::code::CodePages;
use crate::export::ExportError;
use crate::printable::printable;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::HashMap;
use stepwell_arch::address::Va;

/// Functions that the table has.
const FUNCTIONS_MAX: usize = 400;
/// Store-exclusives that are listed.
const SITES_MAX: usize = 50;
/// Kinds of interrupts that are listed.
const HANDLERS_MAX: usize = 40;

/// Tasks that are listed.
const TASKS_MAX: usize = 200;

/// A row of the table of tasks.
type TaskRow = (u32, u32, String, u64, u64, u64);

/// Everything that the page shows.
#[derive(Debug, Serialize)]
pub(super) struct Data {
    pub(super) title: String,
    version: String,
    selection: String,
    recording: Recording,
    headline: Headline,
    /// Of everything that is named by an index.
    names: Vec<String>,
    /// Name, own, total, calls.
    functions: Vec<(u32, u64, u64, u64)>,
    flame: flame::Flame,
    timeline: Timeline,
    /// Class, instructions.
    mix: Vec<(&'static str, u64)>,
    exclusives: Exclusives,
    interrupts: Interrupts,
    locks: Locks,
    /// Number, process, name, instructions, of them in user space, how often it was scheduled.
    tasks: Vec<TaskRow>,
    turns: turns::Turns,
    hot: Vec<hot::Hot>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Recording {
    recorded_by: String,
    cpu: String,
    command_line: String,
    irq: String,
    time: String,
    recorded: String,
    vcpus: u8,
    bytes: u64,
    state: &'static str,
    damage: String,
}

#[derive(Debug, Serialize)]
struct Headline {
    instructions: u64,
    distinct: u64,
    functions: usize,
    vcpus: usize,
    runs: u64,
    calls: u64,
    exceptions: u64,
    interrupts: u64,
    task_switches: u64,
    privileged_calls: u64,
    user: u64,
    nanoseconds: Option<u64>,
    /// Name of the exception class, how many.
    exception_classes: Vec<(String, u64)>,
}

#[derive(Debug, Serialize)]
struct Timeline {
    /// Instructions of a bin.
    width: u64,
    instructions: u64,
    vcpus: Vec<VcpuTimeline>,
}

#[derive(Debug, Serialize)]
struct VcpuTimeline {
    vcpu: u8,
    /// Kernel, user, exception, interrupt, lock wait, then name and instructions of the functions
    /// that took most, the most first.
    bins: Vec<Vec<u64>>,
}

#[derive(Debug, Serialize)]
struct Exclusives {
    loads: u64,
    stores: u64,
    failed: u64,
    /// Attempts whose result is not known.
    unknown: u64,
    sites: usize,
    /// Place, attempts, failures (-1 if unknown).
    list: Vec<(String, u64, i64)>,
}

#[derive(Debug, Serialize)]
struct Interrupts {
    cost: Summary,
    latency: Summary,
    /// Instructions in all of them.
    total: u64,
    handlers: Vec<Handler>,
    /// vCPU, start, length, cost, name.
    list: Vec<(u8, u64, u64, u64, u32)>,
}

#[derive(Debug, Serialize)]
struct Handler {
    name: String,
    count: u64,
    median: u64,
    p99: u64,
    max: u64,
    total: u64,
}

#[derive(Debug, Serialize)]
struct Locks {
    cost: Summary,
    total: u64,
    list: Vec<(u8, u64, u64, u64, u32)>,
}

/// Gives names numbers, in the order in which they are needed.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    list: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl NameTable {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.list.len() as u32;
        self.list.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

impl Data {
    /// Makes the page's data of what was counted.
    pub(super) fn collect(
        analysis: Analysis<'_>,
        facts: Facts,
        completeness: &Completeness,
    ) -> Result<Self, ExportError> {
        let Analysis { code, mut stacks, mut seen } = analysis;
        let mut names = NameTable::default();
        let totals = flame::totals(&seen.flame, stacks.function_count());
        let (mix, distinct) = by_address(&mut seen, code);
        let hot = hot::collect(&seen, code, &mut stacks)?;
        let flame = flame::Flame::collect(&seen.flame, |id| stacks.name(id), &mut names);
        let functions = functions(&seen, &totals, &stacks, &mut names);
        let timeline = timeline(&mut seen, &stacks, &mut names);
        let interrupts = interrupts(&seen, &stacks, &mut names);
        let locks = Locks {
            cost: seen.lock_wait.summary(),
            total: seen.lock_waits.cost(),
            list: intervals(&seen.lock_waits, &stacks, &mut names),
        };
        let exclusives = exclusives(&seen, &stacks);
        let turns = turns::Turns::collect(&seen.turns, &stacks, &mut names);
        Ok(Self {
            title: facts.title.clone(),
            version: facts.version.clone(),
            selection: facts.selection.clone(),
            headline: headline(&seen, distinct, timeline.vcpus.len()),
            recording: recording(facts, completeness),
            names: names.list,
            functions,
            flame,
            timeline,
            mix,
            exclusives,
            interrupts,
            locks,
            tasks: tasks(&seen),
            turns,
            hot,
            notes: seen.headline.notes,
        })
    }
}

fn tasks(seen: &Seen) -> Vec<TaskRow> {
    let row = |((pid, tgid, name), count): (&super::tasks::Key, super::tasks::Count)| {
        (*pid, *tgid, printable(name).into_owned(), count.instructions, count.user, count.times)
    };
    let sorted = seen.tasks.sorted();
    let mut rows: Vec<TaskRow> = sorted.iter().take(TASKS_MAX).map(|one| row(*one)).collect();
    let mut others = seen.tasks.others;
    for (_, count) in sorted.iter().skip(TASKS_MAX) {
        others.instructions += count.instructions;
        others.user += count.user;
        others.times += count.times;
    }
    if others.instructions > 0 {
        let name = "(others)".to_owned();
        rows.push((0, 0, name, others.instructions, others.user, others.times));
    }
    rows
}

fn recording(facts: Facts, completeness: &Completeness) -> Recording {
    let header = facts.header;
    let (state, damage) = match completeness {
        Completeness::Whole => ("whole", String::new()),
        Completeness::Unfinished => ("unfinished", String::new()),
        Completeness::Damaged(what) => ("damaged", what.clone()),
    };
    Recording {
        recorded_by: header.stepwell_version,
        cpu: header.cpu_model,
        command_line: header.command_line,
        irq: header.interrupt_policy,
        time: header.time_policy,
        recorded: header.recorded,
        vcpus: header.vcpus,
        bytes: facts.bytes,
        state,
        damage,
    }
}

fn headline(seen: &Seen, distinct: u64, vcpus: usize) -> Headline {
    let counted = &seen.headline;
    let mut classes: Vec<(String, u64)> =
        counted.by_class.iter().map(|(class, count)| (exception_class(*class), *count)).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.1));
    Headline {
        instructions: seen.timeline.position(),
        distinct,
        functions: seen.functions.iter().filter(|function| function.own > 0).count(),
        vcpus,
        runs: counted.runs,
        calls: counted.calls,
        exceptions: counted.exceptions,
        interrupts: seen.interrupts.intervals.count(),
        task_switches: counted.task_switches,
        privileged_calls: counted.privileged_calls,
        user: counted.user,
        nanoseconds: counted.time.map(|(first, last)| last.saturating_sub(first)),
        exception_classes: classes,
    }
}

/// Names ESR_ELx.EC. Arm ARM, DDI 0487 L.b, "ESR_EL1".
fn exception_class(class: u8) -> String {
    let name = match class {
        0x00 => "Unknown reason",
        0x01 => "WFI or WFE",
        0x07 => "SIMD access",
        0x0e => "Illegal execution state",
        0x15 => "System call (SVC)",
        0x18 => "System register",
        0x20 => "Instruction abort, EL0",
        0x21 => "Instruction abort, EL1",
        0x22 => "PC alignment",
        0x24 => "Data abort, EL0",
        0x25 => "Data abort, EL1",
        0x26 => "SP alignment",
        0x2c => "Floating-point exception",
        0x30 | 0x31 => "Breakpoint",
        0x32 | 0x33 => "Software step",
        0x34 | 0x35 => "Watchpoint",
        0x3c => "BRK",
        other => return format!("Class {other:#04x}"),
    };
    name.into()
}

/// Goes through what was executed by address: the instruction mix, and the number of addresses.
fn by_address(seen: &mut Seen, code: &CodePages) -> (Vec<(&'static str, u64)>, u64) {
    let mut mix: BTreeMap<Class, u64> = BTreeMap::new();
    let mut distinct = 0;
    let exclusives = &mut seen.exclusives;
    seen.counts.each(|pc, count| {
        distinct += 1;
        let word = code.word(pc);
        *mix.entry(word.map_or(Class::Unknown, Class::of)).or_default() += count;
        if let Some(word) = word {
            exclusives.executed(pc, word, count);
        }
    });
    *mix.entry(Class::AArch32).or_default() += seen.aarch32;
    *mix.entry(Class::Unknown).or_default() += seen.counts.uncounted();
    let mut mix: Vec<_> = mix.into_iter().filter(|(_, count)| *count > 0).collect();
    mix.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    (mix.into_iter().map(|(class, count)| (class.name(), count)).collect(), distinct)
}

fn functions(
    seen: &Seen,
    totals: &[u64],
    stacks: &CallStacks<'_>,
    names: &mut NameTable,
) -> Vec<(u32, u64, u64, u64)> {
    let total = |id: usize| totals.get(id).copied().unwrap_or(0).max(seen.functions[id].own);
    let mut order: Vec<usize> = (0..seen.functions.len()).filter(|id| total(*id) > 0).collect();
    // Half of them by what they cost themselves, half by what they led to.
    order.sort_by_key(|&id| std::cmp::Reverse(seen.functions[id].own));
    let mut rest = order.split_off(order.len().min(FUNCTIONS_MAX / 2));
    rest.sort_by_key(|&id| std::cmp::Reverse(total(id)));
    order.extend(rest.into_iter().take(FUNCTIONS_MAX / 2));
    let row = |id: usize| {
        let count = seen.functions[id];
        let name = stacks.name(FunctionId(id as u32));
        (names.number(name), count.own, total(id), count.calls)
    };
    order.into_iter().map(row).collect()
}

fn timeline(seen: &mut Seen, stacks: &CallStacks<'_>, names: &mut NameTable) -> Timeline {
    let instructions = seen.timeline.position();
    let mut bin = |bin: &Bin| {
        let mut row = bin.activities.to_vec();
        let mut top = bin.top;
        top.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let sum: u64 = bin.activities.iter().sum();
        // What took less than a tenth is not worth a place, and not reliable either.
        for (function, count) in top.into_iter().filter(|&(_, count)| count * 10 > sum).take(2) {
            row.push(u64::from(names.number(stacks.name(FunctionId(function)))));
            row.push(count.min(sum));
        }
        row
    };
    let vcpus = seen.timeline.bins().iter();
    let vcpus = vcpus
        .map(|(&vcpu, bins)| VcpuTimeline { vcpu, bins: bins.iter().map(&mut bin).collect() })
        .collect();
    Timeline { width: seen.timeline.width(), instructions, vcpus }
}

fn intervals(
    intervals: &Intervals,
    stacks: &CallStacks<'_>,
    names: &mut NameTable,
) -> Vec<(u8, u64, u64, u64, u32)> {
    let mut row = |interval: super::timeline::Interval| {
        let name = names.number(stacks.name(FunctionId(interval.function)));
        (interval.vcpu, interval.start, interval.length, interval.cost, name)
    };
    intervals.in_order().into_iter().map(&mut row).collect()
}

fn interrupts(seen: &Seen, stacks: &CallStacks<'_>, names: &mut NameTable) -> Interrupts {
    let of = &seen.interrupts;
    let mut handlers: Vec<Handler> = of
        .by_handler
        .iter()
        .map(|((function, intid), costs)| {
            let name = function.map_or("(handler unknown)", |function| stacks.name(function));
            let name = intid.map_or(name.to_owned(), |intid| format!("{name}, INTID {intid}"));
            let Summary { count, median, p99, max, mean, .. } = costs.summary();
            Handler { name, count, median, p99, max, total: mean.saturating_mul(count) }
        })
        .collect();
    handlers.sort_by_key(|handler| std::cmp::Reverse(handler.total));
    handlers.truncate(HANDLERS_MAX);
    Interrupts {
        cost: of.cost.summary(),
        latency: of.latency.summary(),
        total: of.intervals.cost(),
        handlers,
        list: intervals(&of.intervals, stacks, names),
    }
}

fn exclusives(seen: &Seen, stacks: &CallStacks<'_>) -> Exclusives {
    let sites = seen.exclusives.executed_sites();
    let known = sites.iter().filter(|(_, site)| site.is_known());
    let stores = sites.iter().map(|(_, site)| site.attempts).sum();
    let mut list: Vec<(String, u64, i64)> = Vec::new();
    for (pc, site) in sites.iter().take(SITES_MAX) {
        let failed = if site.is_known() { site.failed as i64 } else { -1 };
        list.push((place(stacks, *pc), site.attempts, failed));
    }
    Exclusives {
        loads: seen.exclusives.loads,
        stores,
        failed: known.clone().map(|(_, site)| site.failed).sum(),
        unknown: stores - known.map(|(_, site)| site.attempts).sum::<u64>(),
        sites: sites.len(),
        list,
    }
}

/// Names a place by its function, or else by its address.
fn place(stacks: &CallStacks<'_>, pc: Va) -> String {
    match stacks.place(pc) {
        Some((name, 0)) => name.to_owned(),
        Some((name, offset)) => format!("{name}+{offset:#x}"),
        None => format!("{pc}"),
    }
}
