//! The time of a domain whose machine counts instructions, as a value.
//!
//! Its position is how many instructions its vCPUs have executed, all together, since reset. Its clock
//! is a function of that: each instruction takes the same number of ticks, and to them comes what the
//! domain has slept while every vCPU waited. Neither depends on what EL2 does meanwhile, nor on how a
//! position was come to: by running, by steps, or by both.
//!
//! The vCPUs take turns on one CPU, a number of instructions each, so that their order is a function of
//! the position, too. Where all the others wait, one has several turns at once ([`TURNS_ALONE`]): it ends
//! with the one in which another can move again, and so nobody waits for longer than without.

use crate::domain::{MAX_VCPUS, bit};
use crate::draws::Draws;
use serde::{Deserialize, Serialize};

/// What an instruction takes. QEMU counts so with `-icount shift=4`.
const NS_PER_INSTRUCTION: u64 = 16;
const NS_PER_SECOND: u64 = 1_000_000_000;
/// Turns that a vCPU has at once where no other can move. For as long as that, nothing that comes from
/// outside gets in.
const TURNS_ALONE: u64 = 8;
/// Instructions between two looks, at least and at most: powers of two.
const SHORTEST_LOOK: u64 = 1 << 10;
const LONGEST_LOOK: u64 = 1 << 16;

/// A moment of a domain: how far it has come, and what time it is there. While every vCPU waits, the clock
/// goes on and the position does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// Instructions that were executed before it.
    pub position: u64,
    /// The guest's counter.
    pub clock: u64,
}

/// Ticks of a counter that one instruction takes.
#[must_use]
pub const fn ticks_per_instruction(frequency_hz: u64) -> u64 {
    match frequency_hz.saturating_mul(NS_PER_INSTRUCTION) / NS_PER_SECOND {
        0 => 1,
        ticks => ticks,
    }
}

/// The time of a counted domain, and whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    clock: u64,
    slept: u64,
    ticks_per_instruction: u64,
    turn_length: u64,
    /// Where turns are drawn.
    draws: Option<Draws>,
    vcpu: u8,
    /// Where the turn began, and where it is over.
    turn_begin: u64,
    turn_end: u64,
    /// Another vCPU can move now, perhaps: of several turns at once, this is the last.
    is_called_for: bool,
    /// For each vCPU, where its last turn ended in which it executed anything.
    executed: [u64; MAX_VCPUS],
    until: Option<Moment>,
    /// The vCPU whose turn it is to stop at, too.
    until_turn: Option<u8>,
    /// What comes is not what was recorded, or is to be replayed: a debugger's doing.
    is_forked: bool,
}

impl Timeline {
    /// Makes that of a domain at reset, where vCPU 0 has the turn. `frequency_hz`: of its counter.
    #[must_use]
    pub fn new(frequency_hz: u64, turn_length: u64) -> Self {
        let turn_length = turn_length.max(1);
        Self {
            clock: 0,
            slept: 0,
            ticks_per_instruction: ticks_per_instruction(frequency_hz),
            turn_length,
            draws: None,
            vcpu: 0,
            turn_begin: 0,
            turn_end: turn_length,
            is_called_for: false,
            executed: [0; MAX_VCPUS],
            until: None,
            until_turn: None,
            is_forked: false,
        }
    }

    /// Has what comes be another run.
    pub const fn fork(&mut self) {
        self.is_forked = true;
    }

    /// Tells whether it is another run already.
    #[must_use]
    pub const fn is_forked(&self) -> bool {
        self.is_forked
    }

    /// Makes that of a domain whose turns are drawn from a seed.
    #[must_use]
    pub fn drawn(frequency_hz: u64, seed: u64) -> Self {
        let mut draws = Draws::new(seed);
        let length = draws.length();
        Self { draws: Some(draws), ..Self::new(frequency_hz, length) }
    }

    /// Instructions that were executed.
    #[must_use]
    pub const fn position(&self) -> u64 {
        match self.clock.wrapping_sub(self.slept).checked_div(self.ticks_per_instruction) {
            Some(position) => position,
            None => 0,
        }
    }

    /// The guest's counter.
    #[must_use]
    pub const fn clock(&self) -> u64 {
        self.clock
    }

    /// Where it is.
    #[must_use]
    pub const fn now(&self) -> Moment {
        Moment { position: self.position(), clock: self.clock }
    }

    /// Ticks of one instruction.
    #[must_use]
    pub const fn ticks_per_instruction(&self) -> u64 {
        self.ticks_per_instruction
    }

    /// The guest has executed until its counter showed this.
    pub const fn set_clock(&mut self, clock: u64) {
        self.clock = clock;
    }

    /// EL2 has carried an instruction out that the CPU did not count.
    pub const fn count(&mut self) {
        self.clock = self.clock.wrapping_add(self.ticks_per_instruction);
    }

    /// The CPU has counted instructions that have not executed, or that EL2 counts.
    pub const fn uncount(&mut self, instructions: u64) {
        let ticks = self.ticks_per_instruction.wrapping_mul(instructions);
        self.clock = self.clock.wrapping_sub(ticks);
    }

    /// Every vCPU waits: sleeps until the clock shows `deadline`.
    pub const fn sleep_until(&mut self, deadline: u64) {
        let ticks = deadline.saturating_sub(self.clock);
        self.clock = self.clock.wrapping_add(ticks);
        self.slept = self.slept.wrapping_add(ticks);
    }

    /// Whose turn it is.
    #[must_use]
    pub fn vcpu(&self) -> usize {
        usize::from(self.vcpu)
    }

    /// Tells whether the turn is over.
    #[must_use]
    pub const fn is_turn_over(&self) -> bool {
        self.position() >= self.turn_end
    }

    /// One of those that can move begins its turn, if any can; or several turns, if it alone can.
    /// `wakes_at`: the clock when one of those that wait does by itself, if one does.
    pub fn next_turn(&mut self, can_move: u8, wakes_at: Option<u64>) -> Option<usize> {
        let current = self.vcpu();
        let next = match &mut self.draws {
            Some(draws) => draws.vcpu(can_move),
            None => (1..=MAX_VCPUS)
                .map(|ahead| current.wrapping_add(ahead) & (MAX_VCPUS - 1))
                .find(|&vcpu| can_move & bit(vcpu) != 0),
        }?;
        self.begin_turn(next);
        if self.draws.is_none() && can_move == bit(next) {
            self.begin_turns_alone(wakes_at.unwrap_or(u64::MAX));
        }
        Some(next)
    }

    /// Has the turn that has just begun be several, up to the one in which another vCPU wakes.
    fn begin_turns_alone(&mut self, wakes_at: u64) {
        let ticks_per_turn = self.turn_length.saturating_mul(self.ticks_per_instruction);
        let turns = wakes_at.saturating_sub(self.clock).div_ceil(ticks_per_turn.max(1));
        let length = self.turn_length.saturating_mul(turns.clamp(1, TURNS_ALONE));
        self.turn_end = self.turn_begin.saturating_add(length);
    }

    /// Another vCPU than the one that has the turn can move now, perhaps.
    pub const fn call_for_turn(&mut self) {
        self.is_called_for = true;
    }

    /// At a boundary: has the turn end where it would have if it had not been several, should another
    /// vCPU have been called meanwhile.
    pub fn heed_call(&mut self) {
        if core::mem::take(&mut self.is_called_for) && self.draws.is_none() {
            let executed = self.position().saturating_sub(self.turn_begin);
            let turns = executed.div_ceil(self.turn_length).max(1);
            let end = self.turn_begin.saturating_add(self.turn_length.saturating_mul(turns));
            self.turn_end = self.turn_end.min(end);
        }
    }

    /// A vCPU begins its turn.
    pub fn begin_turn(&mut self, vcpu: usize) {
        let position = self.position();
        self.executed = self.executed();
        self.vcpu = vcpu as u8;
        self.turn_begin = position;
        self.is_called_for = false;
        let length = self.draws.as_mut().map_or(self.turn_length, Draws::length);
        self.turn_end = position.saturating_add(length);
    }

    /// For each vCPU, the position behind the last instruction that it has executed; 0 for none.
    #[must_use]
    pub fn executed(&self) -> [u64; MAX_VCPUS] {
        let (mut executed, position) = (self.executed, self.position());
        if let Some(last) = executed.get_mut(self.vcpu()).filter(|_| position > self.turn_begin) {
            *last = position;
        }
        executed
    }

    /// Has the domain stop at a moment, or nowhere: before it executes more instructions, or, where all
    /// wait, once the clock has come there, too; and before, where a vCPU has its turn.
    /// Returns where it was to stop so far.
    pub const fn stop_at(
        &mut self,
        until: Option<Moment>,
        turn: Option<u8>,
    ) -> (Option<Moment>, Option<u8>) {
        let before = (self.until, self.until_turn);
        (self.until, self.until_turn) = (until, turn);
        before
    }

    /// Tells whether the domain is to stop rather than to execute another instruction.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.is_there() || self.until_turn == Some(self.vcpu) && !self.is_turn_over()
    }

    /// Tells whether the position has come at which the domain is to stop.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        match self.until {
            Some(Moment { position, .. }) => self.position() >= position,
            None => false,
        }
    }

    /// Tells whether the domain is to stop rather than to sleep on.
    #[must_use]
    pub const fn is_reached_asleep(&self) -> bool {
        match self.until {
            Some(Moment { clock, .. }) => self.is_there() && self.clock >= clock,
            None => false,
        }
    }

    /// Tells whether something other than the next instruction is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_turn_over() || self.is_reached()
    }

    /// What the clock shows when something is due, if nobody sleeps until then.
    #[must_use]
    pub fn due_at(&self) -> u64 {
        let until = self.until.map_or(u64::MAX, |until| until.position);
        let left = self.turn_end.min(until).saturating_sub(self.position());
        self.clock.saturating_add(left.saturating_mul(self.ticks_per_instruction))
    }
}

/// When to look at what the guest changes without coming to EL2: at positions that are functions of the
/// run alone. They are multiples of a power of two, the more apart the longer what is looked at has been
/// there, and so no more than a few dozen of them.
impl Timeline {
    /// Tells whether the position is one to look at what has been there since the clock showed `since`.
    #[must_use]
    pub fn is_look_due(&self, since: u64) -> bool {
        self.position().is_multiple_of(self.look_interval(since))
    }

    /// What the clock shows at the next position that may be one of these, if nobody sleeps until then.
    #[must_use]
    pub fn next_look(&self, since: u64) -> u64 {
        let interval = self.look_interval(since);
        // A multiple of a later interval is one of this, too.
        let left = interval.saturating_sub(self.position() & interval.saturating_sub(1));
        self.clock.saturating_add(left.saturating_mul(self.ticks_per_instruction))
    }

    /// A power of two.
    fn look_interval(&self, since: u64) -> u64 {
        let ticks = self.clock.saturating_sub(since);
        let instructions = ticks.checked_div(self.ticks_per_instruction).unwrap_or(0);
        1 << instructions.clamp(SHORTEST_LOOK, LONGEST_LOOK).ilog2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU_7_HZ: u64 = 62_500_000;
    const QEMU_10_HZ: u64 = 1_000_000_000;

    #[test]
    fn an_instruction_is_a_tick_or_sixteen() {
        for (frequency_hz, ticks) in [(QEMU_7_HZ, 1), (QEMU_10_HZ, 16)] {
            let mut timeline = Timeline::new(frequency_hz, 1000);
            timeline.set_clock(10 * ticks);
            timeline.count();
            assert_eq!(timeline.now(), Moment { position: 11, clock: 11 * ticks });
            timeline.uncount(1);
            assert_eq!(timeline.position(), 10);
        }
    }

    #[test]
    fn sleep_moves_the_clock_alone() {
        let mut timeline = Timeline::new(QEMU_10_HZ, 1000);
        timeline.set_clock(160);
        timeline.sleep_until(1005);
        assert_eq!(timeline.now(), Moment { position: 10, clock: 1005 });
        timeline.sleep_until(900);
        assert_eq!(timeline.clock(), 1005, "never back");
        timeline.count();
        assert_eq!(timeline.now(), Moment { position: 11, clock: 1021 });
    }

    #[test]
    fn a_turn_is_over_after_its_instructions() {
        let mut timeline = Timeline::new(QEMU_7_HZ, 100);
        assert_eq!((timeline.vcpu(), timeline.due_at()), (0, 100));
        timeline.set_clock(99);
        assert!(!timeline.is_turn_over());
        timeline.set_clock(100);
        assert!(timeline.is_turn_over());
        timeline.begin_turn(3);
        assert_eq!((timeline.vcpu(), timeline.due_at()), (3, 200));
        timeline.sleep_until(5000);
        assert!(!timeline.is_due(), "sleep is nobody's turn");
        assert_eq!(timeline.due_at(), 5100);
    }

    #[test]
    fn it_stops_at_a_position_and_a_time() {
        let mut timeline = Timeline::new(QEMU_7_HZ, 100);
        let _before = timeline.stop_at(Some(Moment { position: 30, clock: 0 }), None);
        assert_eq!(timeline.due_at(), 30);
        timeline.set_clock(30);
        assert!(timeline.is_reached());
        let _before = timeline.stop_at(Some(Moment { position: 30, clock: 500 }), None);
        assert!(timeline.is_reached(), "an instruction more would be too many");
        assert!(!timeline.is_reached_asleep(), "but it may sleep");
        timeline.sleep_until(500);
        assert!(timeline.is_reached_asleep());
        let _before = timeline.stop_at(None, None);
        assert!(!timeline.is_due());
        // A position that lies behind is reached at once.
        let _before = timeline.stop_at(Some(Moment { position: 3, clock: 0 }), None);
        assert!(timeline.is_reached());
    }

    #[test]
    fn who_is_next_goes_round() {
        let mut timeline = Timeline::new(QEMU_7_HZ, 100);
        let next = |timeline: &mut Timeline, can_move| timeline.next_turn(can_move, None);
        assert_eq!(next(&mut timeline, 0b1011), Some(1));
        assert_eq!(next(&mut timeline, 0b1011), Some(3));
        assert_eq!(next(&mut timeline, 0b1011), Some(0));
        assert_eq!(next(&mut timeline, 0b0001), Some(0), "it is the only one");
        assert_eq!(next(&mut timeline, 0), None);
    }

    #[test]
    fn who_alone_can_move_has_several_turns() {
        let after = |instructions: u64, hz| {
            let mut timeline = Timeline::new(hz, 100);
            timeline.set_clock(100 * timeline.ticks_per_instruction());
            let wakes_at = timeline.clock() + instructions * timeline.ticks_per_instruction();
            assert_eq!(timeline.next_turn(0b10, Some(wakes_at)), Some(1));
            timeline.due_at() / timeline.ticks_per_instruction()
        };
        for hz in [QEMU_7_HZ, QEMU_10_HZ] {
            assert_eq!(after(1_000_000, hz), 100 + 100 * TURNS_ALONE);
            assert_eq!(after(101, hz), 300, "the other one wakes in the second turn");
            assert_eq!((after(100, hz), after(0, hz)), (200, 200));
        }
        let mut timeline = Timeline::new(QEMU_10_HZ, 100);
        let _vcpu = timeline.next_turn(0b10, Some(100 * 16 + 1));
        assert_eq!(timeline.due_at(), 200 * 16, "within an instruction");
        let _vcpu = timeline.next_turn(0b11, None);
        assert_eq!(timeline.due_at(), 100 * 16, "another one can move");
    }

    #[test]
    fn a_call_ends_the_turns_of_one_alone() {
        let ends_at = |position| {
            let mut timeline = Timeline::new(QEMU_7_HZ, 100);
            let _vcpu = timeline.next_turn(0b10, None);
            timeline.set_clock(position);
            timeline.call_for_turn();
            timeline.heed_call();
            timeline.heed_call();
            timeline.turn_end
        };
        assert_eq!(
            [0, 1, 99, 100, 101, 799, 800].map(ends_at),
            [100, 100, 100, 100, 200, 800, 800]
        );
        // It holds for one turn, and shortens none that has been drawn.
        let mut timeline = Timeline::new(QEMU_7_HZ, 100);
        timeline.call_for_turn();
        let _vcpu = timeline.next_turn(0b10, None);
        timeline.heed_call();
        assert_eq!(timeline.due_at(), 100 * TURNS_ALONE);
        let mut timeline = Timeline::drawn(QEMU_7_HZ, 1);
        let _vcpu = timeline.next_turn(0b10, None);
        let due = timeline.due_at();
        timeline.call_for_turn();
        timeline.heed_call();
        assert_eq!(timeline.due_at(), due);
    }

    #[test]
    fn turns_can_be_drawn() {
        let ends = |seed| {
            let mut timeline = Timeline::drawn(QEMU_7_HZ, seed);
            let turn = |_| {
                timeline.set_clock(timeline.due_at());
                (timeline.next_turn(0b111, None), timeline.position())
            };
            (0..50).map(turn).collect::<Vec<_>>()
        };
        assert_eq!(ends(5), ends(5));
        assert_ne!(ends(5), ends(6));
        assert!(ends(5).iter().all(|(vcpu, _)| vcpu.is_some_and(|vcpu| vcpu < 3)));
    }

    #[test]
    fn it_is_known_who_has_executed() {
        let mut timeline = Timeline::new(QEMU_7_HZ, 100);
        timeline.set_clock(30);
        assert_eq!(timeline.executed()[..2], [30, 0]);
        // It waits, and another one has the turn.
        timeline.begin_turn(1);
        timeline.sleep_until(500);
        assert_eq!(timeline.executed()[..2], [30, 0], "sleep is no instruction");
        timeline.count();
        assert_eq!(timeline.executed()[..2], [30, 31]);
        timeline.begin_turn(0);
        timeline.begin_turn(2);
        assert_eq!(timeline.executed()[..3], [30, 31, 0], "an empty turn is none");
    }

    #[test]
    fn it_stops_where_a_vcpu_has_its_turn() {
        let mut timeline = Timeline::new(QEMU_7_HZ, 100);
        let _before = timeline.stop_at(Some(Moment { position: 300, clock: 0 }), Some(1));
        assert!(!timeline.is_reached());
        timeline.begin_turn(1);
        assert!(timeline.is_reached() && !timeline.is_reached_asleep());
        timeline.set_clock(100);
        assert!(!timeline.is_reached(), "its turn is over");
        timeline.set_clock(300);
        assert!(timeline.is_reached());
    }

    #[test]
    fn looks_are_as_far_apart_as_they_go_back() {
        for hz in [QEMU_7_HZ, QEMU_10_HZ] {
            let mut timeline = Timeline::new(hz, 100);
            let ticks = timeline.ticks_per_instruction();
            let since = 5000 * ticks;
            timeline.set_clock(since);
            let mut looks = Vec::new();
            while timeline.position() < 1 << 20 {
                timeline.set_clock(timeline.next_look(since));
                if timeline.is_look_due(since) {
                    looks.push(timeline.position());
                }
            }
            assert_eq!(looks[..5], [5120, 6144, 8192, 12288, 16384]);
            assert!(looks.len() < 40, "{looks:?}");
            // Whatever else the run is looked at for, it finds these, and no other.
            let all = (5000..1 << 18).filter(|position| {
                timeline.set_clock(position * ticks);
                timeline.is_look_due(since)
            });
            let early: Vec<_> = looks.into_iter().filter(|&look| look < 1 << 18).collect();
            assert_eq!(all.collect::<Vec<_>>(), early);
        }
    }

    #[test]
    fn sleep_counts_for_looks_and_is_no_position() {
        let mut timeline = Timeline::new(QEMU_10_HZ, 100);
        timeline.set_clock(63 * 16);
        assert_eq!(timeline.next_look(0), SHORTEST_LOOK * 16);
        timeline.sleep_until(100_000 * 16);
        let next = timeline.next_look(0);
        assert_eq!(next, (100_000 + LONGEST_LOOK - 63) * 16);
        timeline.set_clock(next);
        assert!(timeline.is_look_due(0));
        assert_eq!(timeline.position(), LONGEST_LOOK);
    }

    #[test]
    fn a_turn_has_an_instruction_at_least() {
        let timeline = Timeline::new(QEMU_7_HZ, 0);
        assert!(!timeline.is_turn_over());
    }
}
