//! Whose turn it is, where several vCPUs of a domain are stepped.
//!
//! One vCPU at a time moves: the steps of a domain have a total order, and the order depends on
//! nothing but the guest and the policy. A vCPU keeps its turn until its quantum of instructions is
//! used up, or until it makes no progress alone: it waits for an interrupt, for an event, or for a
//! lock that another holds.
//!
//! ```text
//!              take                 spend: quantum used up
//!   waiting ----------> its turn ----------------------------> waiting
//!      ^                   | yield(Idle): nothing pending
//!      |  woken, deadline  v
//!      +---------------- idle
//! ```
//!
//! With [`OthersPolicy::Stop`] the vCPU that the debugger steps has no quantum. The others get one
//! each, once, whenever it makes no progress.
//!
//! A vCPU that is idle is skipped until it is woken, or until its timer is due. Where all are
//! idle, time goes to the first deadline; where there is none, nobody has the turn until an
//! interrupt from outside wakes one.

use stepwell_protocol::MAX_VCPUS as VCPUS;
use stepwell_protocol::OthersPolicy;

/// Whose instructions a step command counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of the vCPU that the debugger steps.
    #[default]
    Focus,
    /// Those of all that take part.
    All,
}

/// What a step command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnPlan {
    /// What the others do.
    pub policy: OthersPolicy,
    /// The vCPU that the debugger steps.
    pub focus: usize,
    /// A bit for each vCPU that takes part.
    pub vcpus: u8,
    /// Whose instructions count.
    pub scope: Scope,
    /// So many of them.
    pub wanted: u64,
}

/// Why a vCPU yields its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// Its quantum is used up, or it waits for something that another vCPU may do.
    NoProgress,
    /// It waits for an interrupt, and has none pending.
    Idle {
        /// When its own timers make one, in ticks of the domain's clock.
        deadline: Option<u64>,
    },
    /// It takes no part any more: switched off.
    SwitchedOff,
}

/// Who is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTurn {
    /// The vCPU whose turn it is now.
    pub vcpu: usize,
    /// Where the domain's clock goes first, since nothing happens before.
    pub skip_to: Option<u64>,
}

/// What is known of one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Participant {
    is_in: bool,
    is_idle: bool,
    deadline: Option<u64>,
}

/// The turns of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Turns {
    policy: OthersPolicy,
    /// The vCPU that the debugger steps.
    focus: usize,
    participants: [Participant; VCPUS],
    /// Whose turn it is.
    now: Option<usize>,
    /// Instructions that are left of it.
    left: u64,
    /// Whose instructions count.
    scope: Scope,
    /// So many of them are wanted.
    wanted: u64,
    /// So many have executed since [`Turns::begin`].
    counted: u64,
    /// So many that did not count.
    beside: u64,
}

impl Turns {
    /// Makes the turns of a domain in which nobody steps.
    #[must_use]
    pub const fn new() -> Self {
        const NOBODY: Participant = Participant { is_in: false, is_idle: false, deadline: None };
        Self {
            policy: OthersPolicy::Stop,
            focus: 0,
            participants: [NOBODY; VCPUS],
            now: None,
            left: 0,
            scope: Scope::Focus,
            wanted: 0,
            counted: 0,
            beside: 0,
        }
    }

    /// Starts, or goes on after a stop, for what is asked for in `plan`.
    ///
    /// With [`OthersPolicy::Step`] the order goes on where it was, whoever the focus is: a stop
    /// leaves no trace in it. Else the focus has the turn.
    pub fn begin(&mut self, plan: TurnPlan) {
        let TurnPlan { policy, focus, vcpus, scope, wanted } = plan;
        let goes_on = policy.is_step() && self.policy.is_step();
        (self.policy, self.focus) = (policy, focus);
        (self.scope, self.wanted) = (scope, wanted);
        (self.counted, self.beside) = (0, 0);
        for (index, one) in self.participants.iter_mut().enumerate() {
            one.is_in = vcpus.checked_shr(index as u32).is_some_and(|bits| bits & 1 != 0);
            if !one.is_in || !goes_on {
                *one = Participant { is_in: one.is_in, ..Participant::default() };
            }
        }
        let is_there = self.now.is_some_and(|now| self.takes_part(now));
        if !goes_on || !is_there {
            self.give(focus);
        }
    }

    /// A vCPU takes part from now on.
    pub fn join(&mut self, vcpu: usize) {
        if let Some(one) = self.participants.get_mut(vcpu) {
            *one = Participant { is_in: true, ..Participant::default() };
        }
        if self.now.is_none() {
            self.give(vcpu);
        }
    }

    /// Tells whether a vCPU takes part.
    #[must_use]
    pub fn takes_part(&self, vcpu: usize) -> bool {
        self.participants.get(vcpu).is_some_and(|one| one.is_in)
    }

    /// Instructions that `vcpu` may execute before it is to look again; `None` where it is not its
    /// turn.
    #[must_use]
    pub fn left(&self, vcpu: usize) -> Option<u64> {
        if self.now != Some(vcpu) {
            return None;
        }
        let wanted = if self.counts(vcpu) { self.wanted_left() } else { u64::MAX };
        Some(self.left.min(wanted))
    }

    /// As [`Turns::left`], for instructions that are not counted: those of a handler that is stepped
    /// over.
    #[must_use]
    pub fn left_unseen(&self, vcpu: usize) -> Option<u64> {
        (self.now == Some(vcpu)).then_some(self.left)
    }

    /// The vCPU whose turn it is has executed `steps` instructions that are not counted.
    pub fn spend_unseen(&mut self, steps: u64) {
        if self.left != u64::MAX {
            self.left = self.left.saturating_sub(steps);
        }
    }

    /// The vCPU whose turn it is has executed `steps` instructions.
    pub fn spend(&mut self, steps: u64) {
        self.spend_unseen(steps);
        if self.now.is_some_and(|now| self.counts(now)) {
            self.counted = self.counted.saturating_add(steps);
        } else {
            self.beside = self.beside.saturating_add(steps);
        }
    }

    /// Instructions that counted since [`Turns::begin`].
    #[must_use]
    pub const fn counted(&self) -> u64 {
        self.counted
    }

    /// Instructions since [`Turns::begin`] that did not count.
    #[must_use]
    pub const fn beside(&self) -> u64 {
        self.beside
    }

    /// Tells whether it is nobody's turn: all wait for something from outside.
    #[must_use]
    pub const fn has_nobody(&self) -> bool {
        self.now.is_none()
    }

    /// Tells whether as many instructions have executed as were wanted.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.counted >= self.wanted
    }

    /// The vCPU that the debugger steps.
    #[must_use]
    pub const fn focus(&self) -> usize {
        self.focus
    }

    /// Whose instructions count.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// What the others do.
    #[must_use]
    pub const fn policy(&self) -> OthersPolicy {
        self.policy
    }

    /// `vcpu`, whose turn it is, yields it while the clock shows `clock`. `None` where nobody can
    /// move before something happens from outside.
    pub fn yield_turn(&mut self, vcpu: usize, why: Yield, clock: u64) -> Option<NextTurn> {
        if let Some(one) = self.participants.get_mut(vcpu) {
            *one = match why {
                Yield::NoProgress => Participant { is_in: one.is_in, ..Participant::default() },
                Yield::Idle { deadline } => Participant { is_idle: true, deadline, ..*one },
                Yield::SwitchedOff => Participant::default(),
            };
        }
        let after = Self::after(vcpu);
        if let Some(next) = after.iter().copied().find(|&next| self.can_move(next, clock)) {
            self.give(next);
            return Some(NextTurn { vcpu: next, skip_to: None });
        }
        let due = |&index: &usize| {
            let one = self.participants.get(index)?;
            one.deadline.filter(|_| one.is_in).map(|deadline| (deadline, index))
        };
        // The first of those that are due first: `min_by_key` keeps the order of turns.
        let next = after.iter().filter_map(due).min_by_key(|&(deadline, _)| deadline);
        let Some((deadline, next)) = next else {
            self.now = None;
            return None;
        };
        self.give(next);
        Some(NextTurn { vcpu: next, skip_to: Some(deadline) })
    }

    /// Something may be pending for the vCPUs of `mask`. Returns one that has the turn by that,
    /// where nobody had it.
    pub fn wake(&mut self, mask: u8) -> Option<usize> {
        let mut woken = None;
        for (index, one) in self.participants.iter_mut().enumerate() {
            let is_meant = mask.checked_shr(index as u32).is_some_and(|bits| bits & 1 != 0);
            if is_meant && one.is_in {
                *one = Participant { is_in: true, ..Participant::default() };
                woken = woken.or(Some(index));
            }
        }
        let woken = woken.filter(|_| self.now.is_none())?;
        self.give(woken);
        Some(woken)
    }

    const fn wanted_left(&self) -> u64 {
        self.wanted.saturating_sub(self.counted)
    }

    fn counts(&self, vcpu: usize) -> bool {
        self.scope == Scope::All || vcpu == self.focus
    }

    /// The order of turns after `vcpu`, itself last.
    fn after(vcpu: usize) -> [usize; VCPUS] {
        let mut next = vcpu;
        [(); VCPUS].map(|()| {
            next = next.wrapping_add(1) % VCPUS;
            next
        })
    }

    fn can_move(&self, vcpu: usize, clock: u64) -> bool {
        self.participants.get(vcpu).is_some_and(|one| {
            let is_due = one.deadline.is_some_and(|deadline| clock >= deadline);
            one.is_in && (!one.is_idle || is_due)
        })
    }

    fn give(&mut self, vcpu: usize) {
        if let Some(one) = self.participants.get_mut(vcpu) {
            (one.is_idle, one.deadline) = (false, None);
        }
        let has_quantum = self.policy.is_step() || vcpu != self.focus;
        let quantum = u64::from(self.policy.quantum());
        (self.now, self.left) = (Some(vcpu), if has_quantum { quantum } else { u64::MAX });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUANTUM: u64 = OthersPolicy::QUANTUM as u64;

    fn begun(policy: OthersPolicy, focus: usize, vcpus: u8) -> Turns {
        let mut turns = Turns::new();
        let (scope, wanted) = (Scope::Focus, u64::MAX);
        turns.begin(TurnPlan { policy, focus, vcpus, scope, wanted });
        turns
    }

    fn next(vcpu: usize) -> Option<NextTurn> {
        Some(NextTurn { vcpu, skip_to: None })
    }

    const IDLE: Yield = Yield::Idle { deadline: None };

    #[test]
    fn with_step_all_take_turns_of_a_quantum() {
        let mut turns = begun(OthersPolicy::STEP, 1, 0b1011);
        assert_eq!((turns.left(1), turns.left(0)), (Some(QUANTUM), None));
        turns.spend(QUANTUM);
        assert_eq!(turns.left(1), Some(0));
        assert_eq!(turns.yield_turn(1, Yield::NoProgress, 0), next(3));
        assert_eq!(turns.yield_turn(3, Yield::NoProgress, 0), next(0));
        assert_eq!(turns.yield_turn(0, Yield::NoProgress, 0), next(1));
        assert_eq!(turns.left(1), Some(QUANTUM));
    }

    #[test]
    fn what_is_stepped_over_takes_up_the_turn_and_is_not_counted() {
        let mut turns = Turns::new();
        let plan = TurnPlan {
            policy: OthersPolicy::Step { quantum: 100 },
            focus: 0,
            vcpus: 0b11,
            scope: Scope::All,
            wanted: 5,
        };
        turns.begin(plan);
        assert_eq!(
            (turns.left(0), turns.left_unseen(0), turns.left_unseen(1)),
            (Some(5), Some(100), None)
        );
        turns.spend_unseen(98);
        assert_eq!((turns.left(0), turns.counted(), turns.beside()), (Some(2), 0, 0));
        let mut alone = begun(OthersPolicy::Stop, 0, 1);
        alone.spend_unseen(1 << 40);
        assert_eq!(alone.left(0), Some(u64::MAX), "the focus has no quantum");
    }

    #[test]
    fn a_stop_leaves_no_trace_in_the_order() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b11);
        turns.spend(QUANTUM);
        turns.yield_turn(0, Yield::NoProgress, 0);
        turns.spend(100);
        let wanted = u64::MAX;
        let policy = OthersPolicy::STEP;
        let scope = Scope::All;
        turns.begin(TurnPlan { policy, focus: 0, vcpus: 0b11, scope, wanted });
        assert_eq!((turns.left(1), turns.left(0)), (Some(QUANTUM - 100), None));
    }

    #[test]
    fn a_vcpu_that_is_there_no_more_loses_its_turn() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b11);
        turns.yield_turn(0, Yield::NoProgress, 0);
        let plan = TurnPlan {
            policy: OthersPolicy::STEP,
            focus: 0,
            vcpus: 0b01,
            scope: Scope::All,
            wanted: 5,
        };
        turns.begin(plan);
        assert_eq!((turns.left(0), turns.left(1)), (Some(5), None));
        assert!(!turns.takes_part(1));
    }

    #[test]
    fn with_stop_the_focus_moves_alone_until_it_makes_no_progress() {
        let mut turns = begun(OthersPolicy::Stop, 2, 0b100);
        assert_eq!(turns.left(2), Some(u64::MAX));
        turns.spend(1 << 40);
        assert!(turns.left(2) > Some(1 << 60));
        turns.join(0);
        turns.join(1);
        assert_eq!(turns.yield_turn(2, Yield::NoProgress, 0), next(0));
        assert_eq!(turns.left(0), Some(QUANTUM));
        assert_eq!(turns.yield_turn(0, Yield::NoProgress, 0), next(1));
        assert_eq!(turns.yield_turn(1, Yield::NoProgress, 0), next(2));
        assert!(turns.left(2) > Some(1 << 60));
    }

    #[test]
    fn alone_a_vcpu_keeps_its_turn() {
        let mut turns = begun(OthersPolicy::Stop, 0, 1);
        assert_eq!(turns.yield_turn(0, Yield::NoProgress, 0), next(0));
        let waits = Yield::Idle { deadline: Some(70) };
        assert_eq!(turns.yield_turn(0, waits, 10), Some(NextTurn { vcpu: 0, skip_to: Some(70) }));
    }

    #[test]
    fn the_idle_are_passed_over_until_they_are_due() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b111);
        assert_eq!(turns.yield_turn(0, Yield::Idle { deadline: Some(50) }, 0), next(1));
        assert_eq!(turns.yield_turn(1, Yield::NoProgress, 10), next(2));
        assert_eq!(turns.yield_turn(2, Yield::NoProgress, 20), next(1));
        assert_eq!(turns.yield_turn(1, Yield::NoProgress, 30), next(2));
        assert_eq!(turns.yield_turn(2, Yield::NoProgress, 50), next(0), "its timer is due");
    }

    #[test]
    fn where_all_are_idle_time_goes_to_the_first_deadline() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b111);
        turns.yield_turn(0, Yield::Idle { deadline: Some(90) }, 0);
        turns.yield_turn(1, Yield::Idle { deadline: Some(60) }, 0);
        let last = turns.yield_turn(2, IDLE, 0);
        assert_eq!(last, Some(NextTurn { vcpu: 1, skip_to: Some(60) }));
    }

    #[test]
    fn of_equal_deadlines_the_next_in_order_is_first() {
        let mut turns = begun(OthersPolicy::STEP, 2, 0b111);
        turns.yield_turn(2, Yield::Idle { deadline: Some(60) }, 0);
        turns.yield_turn(0, Yield::Idle { deadline: Some(60) }, 0);
        let last = turns.yield_turn(1, Yield::Idle { deadline: Some(60) }, 0);
        assert_eq!(last, Some(NextTurn { vcpu: 2, skip_to: Some(60) }));
    }

    #[test]
    fn without_any_deadline_nobody_moves_until_one_is_woken() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b11);
        assert_eq!(turns.yield_turn(0, IDLE, 0), next(1));
        assert_eq!(turns.yield_turn(1, IDLE, 0), None);
        assert!(turns.has_nobody());
        assert_eq!((turns.left(0), turns.left(1)), (None, None));
        assert_eq!(turns.wake(0b100), None, "that one takes no one");
        assert_eq!(turns.wake(0b10), Some(1));
        assert_eq!(turns.left(1), Some(QUANTUM));
    }

    #[test]
    fn a_vcpu_that_is_not_there_hands_on_nothing_of_its_own() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b11);
        assert_eq!(turns.yield_turn(9, IDLE, 0), next(0));
    }

    #[test]
    fn the_woken_wait_for_their_turn() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b111);
        turns.yield_turn(0, IDLE, 0);
        assert_eq!(turns.wake(0b001), None, "vCPU 1 has the turn");
        assert_eq!(turns.yield_turn(1, Yield::NoProgress, 0), next(2));
        assert_eq!(turns.yield_turn(2, Yield::NoProgress, 0), next(0));
    }

    #[test]
    fn who_is_switched_off_is_skipped() {
        let mut turns = begun(OthersPolicy::STEP, 0, 0b11);
        assert_eq!(turns.yield_turn(0, Yield::SwitchedOff, 0), next(1));
        assert_eq!(turns.yield_turn(1, Yield::NoProgress, 0), next(1));
        turns.join(0);
        assert_eq!(turns.yield_turn(1, Yield::NoProgress, 0), next(0));
        turns.yield_turn(0, Yield::SwitchedOff, 0);
        assert_eq!(turns.yield_turn(1, Yield::SwitchedOff, 0), None);
        turns.join(1);
        assert_eq!(turns.left(1), Some(QUANTUM), "it is alone");
    }

    #[test]
    fn what_counts_is_what_was_asked_for() {
        let mut turns = Turns::new();
        let mut plan = TurnPlan {
            policy: OthersPolicy::STEP,
            focus: 0,
            vcpus: 0b11,
            scope: Scope::Focus,
            wanted: 30,
        };
        turns.begin(plan);
        assert_eq!(turns.left(0), Some(30));
        turns.spend(20);
        turns.yield_turn(0, Yield::NoProgress, 0);
        assert_eq!(turns.left(1), Some(QUANTUM), "the other's do not count");
        turns.spend(100);
        assert_eq!((turns.counted(), turns.is_done()), (20, false));
        assert_eq!((turns.beside(), turns.scope()), (100, Scope::Focus));
        plan.scope = Scope::All;
        turns.begin(plan);
        turns.spend(29);
        assert_eq!((turns.counted(), turns.is_done(), turns.left(1)), (29, false, Some(1)));
        turns.spend(1);
        assert!(turns.is_done());
        assert_eq!((turns.focus(), turns.policy()), (0, OthersPolicy::STEP));
    }

    proptest! {
        #[test]
        fn whoever_can_move_gets_its_turn(
            vcpus in 1..=255_u8,
            passes in proptest::collection::vec((0..3_u8, 0..100_u64), 1..200),
        ) {
            let focus = vcpus.trailing_zeros() as usize;
            let mut turns = begun(OthersPolicy::STEP, focus, vcpus);
            let (mut now, mut clock) = (focus, 0);
            let mut waiting = [0_u32; 8];
            for (kind, ticks) in passes {
                clock += ticks;
                let why = match kind {
                    0 => Yield::NoProgress,
                    1 => Yield::Idle { deadline: Some(clock + 10 * ticks + 1) },
                    _ => Yield::Idle { deadline: None },
                };
                let Some(next) = turns.yield_turn(now, why, clock) else {
                    prop_assert!(waiting.iter().all(|&rounds| rounds <= 8));
                    now = turns.wake(vcpus).unwrap();
                    waiting = [0; 8];
                    continue;
                };
                prop_assert!(vcpus >> next.vcpu & 1 != 0, "takes one");
                prop_assert!(next.skip_to.is_none_or(|deadline| deadline > clock), "never back");
                clock = next.skip_to.unwrap_or(clock);
                for (vcpu, rounds) in waiting.iter_mut().enumerate() {
                    let can = turns.can_move(vcpu, clock) && vcpu != next.vcpu;
                    *rounds = if can { *rounds + 1 } else { 0 };
                    prop_assert!(*rounds <= 8, "vCPU {} starves", vcpu);
                }
                now = next.vcpu;
            }
        }
    }
}
