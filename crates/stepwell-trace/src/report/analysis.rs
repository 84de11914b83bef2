//! Everything that is counted while a recording streams by.

use super::counts::Counts;
use super::data::Data;
use super::distribution::Distribution;
use super::exclusives::Exclusives;
use super::facts::Completeness;
use super::interrupts::{self, Interrupts, OpenInterrupt};
use super::tasks::Tasks;
use super::timeline::{Activity, Interval, Intervals, Timeline};
use super::turns::Turns;
use crate::call_stack::{
    CallStacks, CallVisitor, Entry, Exit, FrameKind, FunctionId, is_task_switch,
};
use crate::code::CodePages;
use crate::export::ExportError;
use crate::flame_tree::FlameTree;
use crate::format::{Event, ExceptionCause, Record};
use crate::printable::printable;
use crate::symbols::Symbols;
use std::collections::BTreeMap;
use stepwell_arch::InstructionSet;
use stepwell_arch::address::Va;

/// Functions in which a vCPU waits for a lock that another has: those of Linux.
const LOCK_WAITS: [&str; 10] = [
    "queued_spin_lock_slowpath",
    "native_queued_spin_lock_slowpath",
    "queued_read_lock_slowpath",
    "queued_write_lock_slowpath",
    "osq_lock",
    "mutex_spin_on_owner",
    "rwsem_spin_on_owner",
    "rwsem_optimistic_spin",
    "do_raw_spin_lock_slowpath",
    "spin_wait",
];
/// Most notes that are kept.
const NOTES_MAX: usize = 50;
/// Longest note, in characters.
const NOTE_LENGTH_MAX: usize = 500;

/// Counted for the headline.
#[derive(Clone, Debug, Default)]
pub(super) struct Headline {
    pub(super) runs: u64,
    pub(super) calls: u64,
    pub(super) exceptions: u64,
    pub(super) task_switches: u64,
    pub(super) privileged_calls: u64,
    pub(super) user: u64,
    /// First and last time that was told, in ns.
    pub(super) time: Option<(u64, u64)>,
    /// Synchronous exceptions by ESR_EL1.EC.
    pub(super) by_class: BTreeMap<u8, u64>,
    pub(super) notes: Vec<String>,
}

/// What is known of a function.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FunctionCount {
    pub(super) own: u64,
    pub(super) calls: u64,
}

/// Counts a recording.
#[derive(Debug)]
pub(super) struct Analysis<'a> {
    pub(super) code: &'a CodePages,
    pub(super) stacks: CallStacks<'a>,
    pub(super) seen: Seen,
}

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) headline: Headline,
    pub(super) functions: Vec<FunctionCount>,
    pub(super) flame: FlameTree,
    pub(super) counts: Counts,
    /// Instructions of AArch32, which are not counted by address.
    pub(super) aarch32: u64,
    pub(super) timeline: Timeline,
    pub(super) interrupts: Interrupts,
    pub(super) lock_waits: Intervals,
    pub(super) lock_wait: Distribution,
    pub(super) exclusives: Exclusives,
    pub(super) tasks: Tasks,
    pub(super) turns: Turns,
    vcpus: BTreeMap<u8, Vcpu>,
}

/// Where a vCPU is.
#[derive(Debug, Default)]
struct Vcpu {
    frames: Vec<Frame>,
    interrupts: Vec<OpenInterrupt>,
    exceptions: u32,
    lock_waits: u32,
    /// Start of the outermost wait for a lock, and what it cost so far.
    lock_wait: (u64, u64),
    /// The last instruction that was executed, unless something came between.
    last: Option<Va>,
    /// What it executes.
    set: InstructionSet,
    /// The exception level, once told.
    level: Option<u8>,
    /// It was seen in the upper half of the addresses: a kernel runs there.
    seen_above: bool,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    function: FunctionId,
    kind: FrameKind,
    is_lock_wait: bool,
    is_dispatcher: bool,
}

impl<'a> Analysis<'a> {
    pub(super) fn new(code: &'a CodePages, symbols: &'a Symbols) -> Self {
        let seen = Seen {
            headline: Headline::default(),
            functions: Vec::new(),
            flame: FlameTree::new(false),
            counts: Counts::default(),
            aarch32: 0,
            timeline: Timeline::new(),
            interrupts: Interrupts::new(code),
            lock_waits: Intervals::default(),
            lock_wait: Distribution::default(),
            exclusives: Exclusives::new(code),
            tasks: Tasks::default(),
            turns: Turns::default(),
            vcpus: BTreeMap::new(),
        };
        Self { code, stacks: CallStacks::new(code, symbols), seen }
    }

    /// Takes the next record.
    pub(super) fn record(&mut self, record: &Record) {
        self.seen.observe(record);
        self.stacks.record(record, &mut self.seen);
        if let Record::ExceptionEntry(entry) = record {
            self.seen.set_level(entry.vcpu, 1);
            let open = self.seen.vcpus.get_mut(&entry.vcpu).and_then(|it| it.interrupts.last_mut());
            if let (Some(open), Some(intid)) = (open, entry.intid) {
                open.identify(intid);
            }
        }
    }

    /// Ends the recording and returns what there is to show.
    pub(super) fn finish(
        mut self,
        facts: super::Facts,
        completeness: &Completeness,
    ) -> Result<Data, ExportError> {
        self.stacks.finish(&mut self.seen);
        self.seen.flame.finish();
        Data::collect(self, facts, completeness)
    }
}

impl Seen {
    fn observe(&mut self, record: &Record) {
        match record {
            Record::Run { vcpu, pc, length } => self.run(*vcpu, *pc, *length),
            Record::Interrupt { vcpu, pc } => self.branch(*vcpu, *pc),
            Record::ExceptionEntry(entry) => {
                self.branch(entry.vcpu, entry.return_address);
                if entry.cause == ExceptionCause::Synchronous {
                    let class = (entry.syndrome >> 26) as u8 & 0x3f;
                    *self.headline.by_class.entry(class).or_default() += 1;
                }
            }
            Record::ExceptionReturn { vcpu, el, .. } => self.set_level(*vcpu, *el),
            Record::Context(context) => self.set_level(context.vcpu, context.el),
            Record::Exclusive { pc, stored, .. } => self.exclusives.told(*pc, *stored),
            Record::Time { ns } => {
                let first = self.headline.time.map_or(*ns, |(first, _)| first);
                self.headline.time = Some((first, *ns));
            }
            Record::InstructionSet { vcpu, set } => {
                self.vcpus.entry(*vcpu).or_default().set = *set;
            }
            Record::Turns { vcpu, pc, why, steps } => {
                let function = self.vcpus.get(vcpu).and_then(|at| at.frames.last());
                let function = function.map_or(FunctionId::UNKNOWN, |frame| frame.function);
                let start = self.timeline.position();
                self.turns.add((*vcpu, *pc, function.0), start, *why, *steps);
            }
            Record::Event(Event::PrivilegedCall { .. }) => self.headline.privileged_calls += 1,
            Record::Event(Event::Note(text)) if self.headline.notes.len() < NOTES_MAX => {
                let text: String = text.chars().take(NOTE_LENGTH_MAX).collect();
                self.headline.notes.push(printable(&text).into_owned());
            }
            Record::Event(event @ Event::Task { .. }) => self.tasks.observe(event),
            Record::Event(_) | Record::Register { .. } | Record::Memory(_) => {}
        }
    }

    fn run(&mut self, vcpu: u8, pc: Va, length: u32) {
        self.branch(vcpu, pc);
        self.headline.runs += 1;
        let at = self.vcpus.entry(vcpu).or_default();
        at.seen_above |= pc.0 >> 63 == 1;
        if at.set != InstructionSet::A64 {
            // By address only A64 is looked at.
            self.aarch32 += u64::from(length);
            return;
        }
        self.counts.run(pc, length);
        at.last = Some(pc.offset(u64::from(length.max(1) - 1) * 4));
    }

    /// Notes where a vCPU goes on.
    fn branch(&mut self, vcpu: u8, pc: Va) {
        let last = self.vcpus.get_mut(&vcpu).and_then(|vcpu| vcpu.last.take());
        if let Some(last) = last.filter(|last| last.offset(4) != pc) {
            self.exclusives.branched(last);
        }
    }

    fn set_level(&mut self, vcpu: u8, level: u8) {
        self.vcpus.entry(vcpu).or_default().level = Some(level);
    }

    fn function(&mut self, id: FunctionId) -> &mut FunctionCount {
        let index = id.0 as usize;
        if self.functions.len() <= index {
            self.functions.resize(index + 1, FunctionCount::default());
        }
        &mut self.functions[index]
    }

    fn count_entry(&mut self, entry: &Entry<'_>) {
        match entry.kind {
            FrameKind::Function | FrameKind::TailCall => {
                self.headline.calls += 1;
                self.function(entry.function).calls += 1;
                if is_task_switch(entry.name) {
                    self.headline.task_switches += 1;
                }
            }
            FrameKind::Exception => self.headline.exceptions += 1,
            FrameKind::Found | FrameKind::Interrupt => {}
        }
    }
}

impl Vcpu {
    /// Tells what it is at, and whether that is in a program.
    fn activity(&self, pc: Va) -> (Activity, bool) {
        let above = pc.0 >> 63 == 1;
        let level = self.level.unwrap_or_else(|| u8::from(above || !self.seen_above));
        let user = level == 0;
        let activity = if self.lock_waits > 0 {
            Activity::LockWait
        } else if !self.interrupts.is_empty() {
            Activity::Interrupt
        } else if user {
            Activity::User
        } else if self.exceptions > 0 {
            Activity::Exception
        } else {
            Activity::Kernel
        };
        (activity, user)
    }
}

impl CallVisitor for Seen {
    fn enter(&mut self, entry: Entry<'_>) {
        self.flame.enter(entry);
        if !entry.resumed {
            self.count_entry(&entry);
        }
        let start = self.timeline.position();
        let vcpu = self.vcpus.entry(entry.vcpu).or_default();
        let is_function = !entry.kind.is_exception();
        let frame = Frame {
            function: entry.function,
            kind: entry.kind,
            is_lock_wait: is_function && LOCK_WAITS.contains(&entry.name),
            is_dispatcher: is_function && interrupts::is_dispatcher(entry.name),
        };
        let dispatched = vcpu.frames.last().is_some_and(|caller| caller.is_dispatcher);
        if let Some(open) = vcpu.interrupts.last_mut().filter(|_| dispatched && is_function) {
            open.name(entry.function);
        }
        match entry.kind {
            FrameKind::Interrupt => vcpu.interrupts.push(OpenInterrupt::new(start, entry.resumed)),
            FrameKind::Exception => vcpu.exceptions += 1,
            _ if frame.is_lock_wait => {
                if vcpu.lock_waits == 0 {
                    vcpu.lock_wait = (start, 0);
                }
                vcpu.lock_waits += 1;
            }
            _ => {}
        }
        vcpu.frames.push(frame);
    }

    fn leave(&mut self, exit: Exit) {
        self.flame.leave(exit);
        let now = self.timeline.position();
        let Some(vcpu) = self.vcpus.get_mut(&exit.vcpu) else { return };
        let Some(frame) = vcpu.frames.pop() else { return };
        match frame.kind {
            FrameKind::Interrupt => {
                let Some(open) = vcpu.interrupts.pop() else { return };
                if let Some(outer) = vcpu.interrupts.last_mut() {
                    outer.add(open.cost());
                }
                self.interrupts.end(&open, exit.vcpu, now);
            }
            FrameKind::Exception => vcpu.exceptions -= 1,
            _ if frame.is_lock_wait => {
                vcpu.lock_waits -= 1;
                let ((start, cost), function) = (vcpu.lock_wait, frame.function.0);
                if vcpu.lock_waits == 0 {
                    let (vcpu, length) = (exit.vcpu, now - start);
                    self.lock_wait.add(cost);
                    self.lock_waits.add(Interval { cost, vcpu, start, length, function });
                }
            }
            _ => {}
        }
    }

    fn execute(&mut self, vcpu: u8, pc: Va, length: u32) {
        self.flame.execute(vcpu, pc, length);
        let count = u64::from(length);
        let at = self.vcpus.entry(vcpu).or_default();
        let function = at.frames.last().map_or(FunctionId::UNKNOWN, |frame| frame.function);
        if let Some(open) = at.interrupts.last_mut() {
            self.interrupts.run(open, pc, length);
        }
        if at.lock_waits > 0 {
            at.lock_wait.1 += count;
        }
        let (activity, user) = at.activity(pc);
        self.headline.user += if user { count } else { 0 };
        self.tasks.add(vcpu, count, user);
        self.timeline.add(vcpu, activity, function, count);
        self.function(function).own += count;
    }
}
