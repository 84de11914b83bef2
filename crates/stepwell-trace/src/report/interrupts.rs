//! What interrupts cost, and how long it took until the guest knew which one it was.
//!
//! Both are counted in instructions. The *cost* goes from the entry to the return, with whatever
//! the handler led to; where the guest switched to another task before it returned, to there. The
//! *latency* goes from the entry to the read of ICC_IAR1_EL1 that acknowledges the interrupt.

use super::distribution::Distribution;
use super::mix;
use super::timeline::{Interval, Intervals};
use crate::call_stack::FunctionId;
use crate::code::CodePages;
use std::collections::BTreeMap;
use stepwell_arch::address::Va;

/// Functions that call the handler of one interrupt, in Linux: what they call gives it its name.
const DISPATCHERS: [&str; 4] = [
    "__handle_irq_event_percpu",
    "handle_percpu_devid_irq",
    "handle_percpu_devid_fasteoi_ipi",
    "handle_percpu_devid_fasteoi_nmi",
];

/// Most kinds of interrupts that are told apart.
const HANDLERS_MAX: usize = 256;

/// Tells whether a function of this name calls the handler of an interrupt.
pub(super) fn is_dispatcher(name: &str) -> bool {
    DISPATCHERS.contains(&name)
}

/// What tells kinds of interrupts apart: the function that handles it, and its number.
pub(super) type Handler = (Option<FunctionId>, Option<u32>);

/// An interrupt that has not ended.
#[derive(Clone, Debug)]
pub(super) struct OpenInterrupt {
    start: u64,
    cost: u64,
    is_acknowledged: bool,
    handler: Option<FunctionId>,
    intid: Option<u32>,
    /// The guest switches tasks inside, and this is the second part.
    resumed: bool,
}

impl OpenInterrupt {
    /// Begins one, with `start` instructions of the recording before it.
    pub(super) const fn new(start: u64, resumed: bool) -> Self {
        Self { start, cost: 0, is_acknowledged: false, handler: None, intid: None, resumed }
    }

    /// Names it by its handler, once.
    pub(super) fn name(&mut self, handler: FunctionId) {
        self.handler.get_or_insert(handler);
    }

    /// Says which one the GIC signalled.
    pub(super) const fn identify(&mut self, intid: u32) {
        self.intid = Some(intid);
    }

    /// Adds what another cost that came inside.
    pub(super) const fn add(&mut self, instructions: u64) {
        self.cost += instructions;
    }

    /// Returns what it cost so far.
    pub(super) const fn cost(&self) -> u64 {
        self.cost
    }
}

/// All interrupts of a recording.
#[derive(Clone, Debug)]
pub(super) struct Interrupts {
    /// Where interrupts are acknowledged, sorted.
    acknowledges: Vec<u64>,
    pub(super) intervals: Intervals,
    pub(super) cost: Distribution,
    pub(super) latency: Distribution,
    pub(super) by_handler: BTreeMap<Handler, Distribution>,
}

impl Interrupts {
    /// Looks for where `code` acknowledges interrupts.
    pub(super) fn new(code: &CodePages) -> Self {
        let words = code.words().filter(|(_, word)| mix::acknowledges_interrupt(*word));
        let mut acknowledges: Vec<u64> = words.map(|(pc, _)| pc.0).collect();
        acknowledges.sort_unstable();
        Self {
            acknowledges,
            intervals: Intervals::default(),
            cost: Distribution::default(),
            latency: Distribution::default(),
            by_handler: BTreeMap::new(),
        }
    }

    /// Adds a run that was executed in an interrupt.
    pub(super) fn run(&mut self, open: &mut OpenInterrupt, pc: Va, length: u32) {
        if !open.is_acknowledged && !open.resumed {
            let end = pc.0.saturating_add(u64::from(length) * 4);
            let index = self.acknowledges.partition_point(|at| *at < pc.0);
            if let Some(at) = self.acknowledges.get(index).filter(|at| **at < end) {
                open.is_acknowledged = true;
                self.latency.add(open.cost + (at - pc.0) / 4 + 1);
            }
        }
        open.cost += u64::from(length);
    }

    /// Ends one, with `end` instructions of the recording before that.
    pub(super) fn end(&mut self, open: &OpenInterrupt, vcpu: u8, end: u64) {
        if open.resumed {
            return;
        }
        self.cost.add(open.cost);
        let handler = (open.handler, open.intid);
        let fits = self.by_handler.len() < HANDLERS_MAX || self.by_handler.contains_key(&handler);
        let handler = if fits { handler } else { (None, None) };
        self.by_handler.entry(handler).or_default().add(open.cost);
        self.intervals.add(Interval {
            cost: open.cost,
            vcpu,
            start: open.start,
            length: end - open.start,
            function: handler.0.unwrap_or(FunctionId::UNKNOWN).0,
        });
    }
}
