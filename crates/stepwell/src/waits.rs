//! Says where a stepped vCPU spends its time waiting for others that hardly move.
//!
//! While one vCPU is stepped and the others are stopped, they get a short turn where it is seen to
//! wait: enough for a lock, and slow where a guest waits long or often. A wait that is not recognised
//! has no end at all. So after a few seconds the user is told, once a place, who waits where, for whom
//! that may be, and which policy helps. A long computation in a small loop may be taken for a wait: it
//! is only said.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;
use stepwell_arch::Va;
use stepwell_debuggee::{TraceRecord, VcpuState, VcpuStatus};

/// So long it is looked before anything is said.
const PATIENCE: Duration = Duration::from_secs(4);
/// Places about which something is said.
const NOTICES: usize = 8;
/// A loop is small that lies in so many blocks of code.
const BLOCKS: usize = 8;
/// Bytes of a block are two to the power of this.
const BLOCK_BITS: u32 = 8;
/// Fewest instructions in which a loop is seen.
const ROUND_STEPS: u64 = 50_000;

/// A wait, or what looks like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The others have moved more than the vCPU that they moved for.
    InTurns {
        /// Turns that they had.
        turns: u64,
        /// Instructions that they executed.
        beside: u64,
        /// Instructions that it did.
        own: u64,
    },
    /// It goes round in a small loop.
    Round {
        /// Instructions that it executed.
        own: u64,
    },
}

/// Looks for waits in what is recorded.
#[derive(Debug, Default)]
pub struct WaitWatch {
    /// When the present look began.
    began: Duration,
    own: u64,
    beside: u64,
    turns: u64,
    /// Blocks of code that were executed, as long as these are few.
    blocks: BTreeSet<u64>,
    /// Where something was said.
    said: Vec<u64>,
}

impl WaitWatch {
    /// Takes note of what was recorded.
    pub fn note(&mut self, records: &[TraceRecord]) {
        for record in records {
            match *record {
                TraceRecord::Run { pc, length, .. } => {
                    self.own += u64::from(length);
                    let last = pc.0.wrapping_add(4 * u64::from(length.saturating_sub(1)));
                    for pc in [pc.0, last] {
                        if self.blocks.len() <= BLOCKS {
                            self.blocks.insert(pc >> BLOCK_BITS);
                        }
                    }
                }
                TraceRecord::Turns { steps, .. } => {
                    self.turns += 1;
                    self.beside += steps;
                }
                _ => {}
            }
        }
    }

    /// At a stop: a wait that has not been told, with the vCPU at `pc`. `now`: since the start.
    pub fn assess(&mut self, now: Duration, pc: Va) -> Option<Wait> {
        if now.saturating_sub(self.began) < PATIENCE {
            return None;
        }
        let Self { own, beside, turns, .. } = *self;
        let is_small = self.blocks.len() <= BLOCKS;
        let wait = if turns > 1 && beside > own {
            Some(Wait::InTurns { turns, beside, own })
        } else if is_small && own >= ROUND_STEPS {
            Some(Wait::Round { own })
        } else {
            None
        };
        let said = std::mem::take(&mut self.said);
        *self = Self { began: now, said, ..Self::default() };
        let place = pc.0 >> BLOCK_BITS;
        let is_new = self.said.len() < NOTICES && !self.said.contains(&place);
        let wait = wait.filter(|_| is_new)?;
        self.said.push(place);
        Some(wait)
    }
}

impl Wait {
    /// Says it: `vcpu` waits at `pc`, beside others of which `statuses` tells; nothing where no other
    /// is on. `name` names places.
    #[must_use]
    pub fn describe(
        self,
        vcpu: u8,
        pc: Va,
        statuses: &[VcpuStatus],
        name: impl Fn(Va) -> String,
    ) -> Option<String> {
        let mut others = String::new();
        for (n, status) in statuses.iter().enumerate() {
            if n != usize::from(vcpu) && status.state == VcpuState::Stopped {
                let comma = if others.is_empty() { "" } else { ", " };
                write!(others, "{comma}vcpu{n} at {}", name(status.pc)).ok()?;
            }
        }
        if others.is_empty() {
            return None;
        }
        let place = name(pc);
        Some(match self {
            Self::InTurns { turns, beside, own } => format!(
                "vcpu{vcpu} waits at {place} for others, which move in short turns only: {turns} of \
                 these, {beside} instructions to its own {own}; they are {others}. --others step moves \
                 all of them alike, --others run lets them run"
            ),
            Self::Round { own } => format!(
                "vcpu{vcpu} goes round at {place}, {own} instructions by now, while others are stopped: \
                 {others}. If it waits for one of these, --others step or --others run lets them move"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_debuggee::Waiting;

    fn run(pc: u64, length: u32) -> TraceRecord {
        TraceRecord::Run { vcpu: 0, pc: Va(pc), length }
    }

    const LATER: Duration = Duration::from_secs(5);

    #[test]
    fn a_small_loop_is_told_once() {
        let mut watch = WaitWatch::default();
        for round in 1..4 {
            watch.note(&vec![run(0x1000, 4); 20_000]);
            assert_eq!(watch.assess(LATER * round - PATIENCE / 2, Va(0x1004)), None, "too early");
            let found = watch.assess(LATER * round, Va(0x1004));
            assert_eq!(found.is_some(), round == 1, "{found:?}");
        }
        watch.note(&vec![run(0x8000, 4); 20_000]);
        assert_eq!(watch.assess(LATER * 5, Va(0x8000)), Some(Wait::Round { own: 80_000 }));
    }

    #[test]
    fn what_goes_about_is_no_wait() {
        let mut watch = WaitWatch::default();
        let all: Vec<_> = (0..20_000).map(|n| run(0x1000 + n % 64 * 0x100, 4)).collect();
        watch.note(&all);
        assert_eq!(watch.assess(LATER, Va(0x1000)), None);
        watch.note(&[run(0x1000, 4)]);
        assert_eq!(watch.assess(LATER * 2, Va(0x1000)), None, "too few to tell");
    }

    #[test]
    fn turns_of_the_others_are_told() {
        let mut watch = WaitWatch::default();
        let turn =
            TraceRecord::Turns { vcpu: 0, pc: Va(0x1000), why: Waiting::Memory, steps: 10_000 };
        watch.note(&[run(0x1000, 100), turn, turn]);
        let wait = watch.assess(LATER, Va(0x1000)).expect("it waits");
        assert_eq!(wait, Wait::InTurns { turns: 2, beside: 20_000, own: 100 });
        let status = |state, pc| VcpuStatus { state, pc: Va(pc) };
        let name = |va: Va| format!("{:#x}", va.0);
        let alone = [status(VcpuState::Stopped, 0x1000), status(VcpuState::Off, 0)];
        assert_eq!(wait.describe(0, Va(0x1000), &alone, name), None);
        let two = [status(VcpuState::Stopped, 0x1000), status(VcpuState::Stopped, 0x2000)];
        let text = wait.describe(0, Va(0x1000), &two, name).expect("there is another");
        assert!(text.contains("vcpu0 waits at 0x1000"), "{text}");
        assert!(text.contains("vcpu1 at 0x2000") && text.contains("--others run"), "{text}");
    }
}
