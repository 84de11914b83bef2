//! Recognising a vCPU that goes round and gets nowhere.
//!
//! While one vCPU is stepped and the others are stopped, nobody writes memory but the stepped one.
//! Where it comes back to an instruction with every register as it was, it waits for something that
//! only another vCPU, or a device, can change: a spin lock that another holds. (A loop that changes
//! nothing but memory looks the same. Taking it for a wait costs the others a turn, and the guest
//! nothing.)
//!
//! A loop that waits with a time-out, or for a time, comes back with another count in a register.
//! It is recognised by what it looks at: the same memory in every round, or a counter, while
//! nothing that it reads or writes moves on. A long computation can look like that, too. So it has
//! to be found in the same place [`PATIENCE`] times before it counts; where it was found before,
//! once. And the vCPU goes on for as long as the others had their turns before it is found to wait
//! again: a mistake makes it half as fast, and no wait takes more than twice as long.
//!
//! Comparing registers at each step would cost more than the step. The caller therefore looks in
//! *windows*: [`WINDOW`] single steps, [`INTERVAL`] steps after the last; one window in
//! [`LONG_ONE_IN`] is a long one, in which loops that count are looked for.

/// Longest loop that is recognised, in instructions. Linux's and the usual textbooks' spin loops
/// have 2 to 10; with a backoff, up to 30.
pub const WINDOW: u64 = 48;
/// Longest loop that counts: it may call a function that asks for the time.
pub const LONG_WINDOW: u64 = 256;
/// Steps between two windows: a window costs about as much as 1,000 plain steps.
pub const INTERVAL: u64 = 20_000;
/// The same once a loop that counts has been found to wait: there may be more of the kind.
pub const SHORT_INTERVAL: u64 = 2_000;
/// So many windows make one long one.
pub const LONG_ONE_IN: u8 = 8;
/// A loop that counts must be found so often in a row.
pub const PATIENCE: u8 = 3;

/// What a loop must leave unchanged: X0 to X30, SP, PC and PSTATE.
pub type State = [u64; 34];
const SP: usize = 31;
const PC: usize = 32;

/// What the next instruction looks at, as far as a loop that counts is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// It reads memory, the time, or asks the machine: something that may end the wait.
    pub is_input: bool,
    /// The registers that make its address, one bit each; bit 31 is SP.
    pub address: u32,
}

/// A window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Window {
    begin: State,
    left: u64,
    /// Loops that count are looked for.
    is_long: bool,
    has_input: bool,
    /// Registers that addresses were made from.
    addresses: u32,
    /// The least and the greatest PC.
    range: (u64, u64),
}

/// Where a loop that counts has been found, and how often in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Found {
    range: (u64, u64),
    times: u8,
}

/// Watches for a state that comes back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpinDetector {
    /// Steps until the next window.
    wait: u64,
    window: Option<Window>,
    /// Windows until the next long one.
    until_long: u8,
    found: Found,
    /// The wait that was found last is likely, and not certain.
    is_likely: bool,
}

impl Default for SpinDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl SpinDetector {
    /// Makes a detector whose first window begins at once.
    #[must_use]
    pub const fn new() -> Self {
        let found = Found { range: (0, 0), times: 0 };
        Self { wait: 0, window: None, until_long: LONG_ONE_IN, found, is_likely: false }
    }

    /// Begins the next window after `wait` steps.
    pub fn rest(&mut self, wait: u64) {
        (self.wait, self.window) = (wait, None);
    }

    /// The others have executed `steps` because a wait was found.
    pub fn others_moved(&mut self, steps: u64) {
        if self.is_likely {
            self.rest(steps);
        }
    }

    /// Steps that may pass before [`SpinDetector::observe`] is to be called: 0 at once, and at each
    /// boundary while it is.
    #[must_use]
    pub const fn wait(&self) -> u64 {
        self.wait
    }

    /// Tells whether the next observation is to say what the instruction looks at.
    #[must_use]
    pub fn wants_look(&self) -> bool {
        self.window.as_ref().map_or(self.is_long_next(), |window| window.is_long)
    }

    /// Lets `steps` pass.
    pub fn passed(&mut self, steps: u64) {
        self.wait = self.wait.saturating_sub(steps);
    }

    /// Looks at the state at a boundary, [`SpinDetector::wait`] being 0, and at what the next
    /// instruction looks at. Returns whether the vCPU gets nowhere.
    pub fn observe(&mut self, state: &State, look: Look) -> bool {
        let pc = pc_of(state);
        let Some(window) = &mut self.window else {
            let is_long = self.is_long_next();
            let (has_input, addresses) = (look.is_input, look.address);
            let left = if is_long { LONG_WINDOW } else { WINDOW };
            let (begin, range) = (*state, (pc, pc));
            self.window = Some(Window { begin, left, is_long, has_input, addresses, range });
            return false;
        };
        if window.begin == *state {
            (self.window, self.is_likely) = (None, false);
            return true;
        }
        if window.is_long && window.waits_at(state) {
            let range = window.range;
            return self.has_found(range);
        }
        if window.left == 0 {
            let was_long = window.is_long;
            self.end_window(was_long);
            return false;
        }
        window.left = window.left.saturating_sub(1);
        window.has_input |= look.is_input;
        window.addresses |= look.address;
        window.range = (window.range.0.min(pc), window.range.1.max(pc));
        false
    }

    /// A long window comes with its turn, and at once where a loop was found before.
    fn is_long_next(&self) -> bool {
        self.until_long <= 1 || self.found.times >= PATIENCE
    }

    /// Nothing was found in a window.
    fn end_window(&mut self, was_long: bool) {
        let is_known = self.found.times >= PATIENCE;
        if was_long && !is_known {
            self.found.times = 0;
        }
        self.next_window(if is_known { SHORT_INTERVAL } else { INTERVAL });
    }

    fn next_window(&mut self, wait: u64) {
        self.until_long = match self.until_long {
            0 | 1 => LONG_ONE_IN,
            more => more.saturating_sub(1),
        };
        self.rest(wait);
    }

    /// A loop that counts, in this range of PCs. Returns whether it has shown often enough.
    fn has_found(&mut self, range: (u64, u64)) -> bool {
        let overlaps = range.0 <= self.found.range.1 && self.found.range.0 <= range.1;
        let times = if overlaps { self.found.times.saturating_add(1) } else { 1 };
        self.found = Found { range, times };
        let waits = times >= PATIENCE;
        self.is_likely = true;
        // Where it waits it is looked at again as soon as it has the turn.
        self.next_window(if waits { 0 } else { INTERVAL });
        waits
    }
}

impl Window {
    /// Tells whether the loop has come round to where the window began, with nothing moved on that
    /// it looks at.
    fn waits_at(&self, state: &State) -> bool {
        let is_round = pc_of(&self.begin) == pc_of(state) && self.begin.get(SP) == state.get(SP);
        let changed = self.begin.iter().zip(state).take(SP).zip(0_u32..);
        let changed = changed
            .filter(|((before, now), _)| before != now)
            .fold(0, |bits, (_, n)| bits | 1_u32.wrapping_shl(n));
        is_round && self.has_input && self.addresses & changed == 0
    }
}

fn pc_of(state: &State) -> u64 {
    state.get(PC).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pc: u64, x0: u64) -> State {
        let mut state = [0; 34];
        (state[0], state[32]) = (x0, pc);
        state
    }

    /// Runs a loop of `length` instructions and returns the step at which it is recognised.
    fn recognised(length: u64, mut x0: impl FnMut(u64) -> u64, steps: u64) -> Option<u64> {
        let mut detector = SpinDetector::default();
        (0..steps).find(|&step| {
            let seen = detector.wait() == 0 && {
                let state = state(step % length * 4, x0(step));
                detector.observe(&state, Look::default())
            };
            detector.passed(1);
            seen
        })
    }

    #[test]
    fn a_branch_to_itself_is_recognised_at_once() {
        assert_eq!(recognised(1, |_| 7, 100), Some(1));
    }

    #[test]
    fn a_spin_loop_is_recognised_after_a_round() {
        assert_eq!(recognised(5, |_| 7, 100), Some(5));
        assert_eq!(recognised(WINDOW, |_| 7, 100), Some(WINDOW));
    }

    #[test]
    fn a_loop_that_counts_and_looks_at_nothing_is_none() {
        assert_eq!(recognised(5, |step| step / 5, 2_000_000), None);
    }

    /// Runs a loop that counts in X0 and looks at something in its second instruction, from
    /// `detector` on. Returns the step at which it is taken for a wait.
    fn waits(detector: &mut SpinDetector, at: u64, address: u32, steps: u64) -> Option<u64> {
        (0..steps).find(|&step| {
            let place = step % 6;
            let seen = detector.wait() == 0 && {
                let looks = detector.wants_look() && place == 1;
                let look = Look { is_input: looks, address: if looks { address } else { 0 } };
                let mut state = state(at + place * 4, step / 6);
                state[SP] = 0x8000;
                detector.observe(&state, look)
            };
            detector.passed(1);
            seen
        })
    }

    #[test]
    fn a_loop_that_counts_while_it_looks_at_one_place_waits_after_a_while() {
        let mut detector = SpinDetector::new();
        let first = waits(&mut detector, 0x1000, 1 << 5 | 1 << 31, 2_000_000).unwrap();
        assert!((300_000..600_000).contains(&first), "{first}");
        let again = waits(&mut detector, 0x1000, 1 << 5, 100).unwrap();
        assert!(again <= 12, "where it was found before, at once: {again}");
    }

    #[test]
    fn after_a_likely_wait_it_goes_on_for_as_long_as_the_others_did() {
        let mut detector = SpinDetector::new();
        waits(&mut detector, 0x1000, 1 << 5, 2_000_000).unwrap();
        detector.others_moved(30_000);
        let again = waits(&mut detector, 0x1000, 1 << 5, 100_000).unwrap();
        assert!((30_000..30_100).contains(&again), "{again}");
        let mut certain = SpinDetector::new();
        assert!(!certain.observe(&state(0, 1), Look::default()));
        assert!(certain.observe(&state(0, 1), Look::default()));
        certain.others_moved(30_000);
        assert_eq!(certain.wait(), 0, "it cannot do anything meanwhile");
    }

    #[test]
    fn a_loop_known_to_wait_is_found_soon_after_other_work() {
        let mut detector = SpinDetector::new();
        waits(&mut detector, 0x1000, 1 << 5, 2_000_000).unwrap();
        assert_eq!(waits(&mut detector, 0x9000, 1, 5_000), None, "X0 moves on: it works");
        let again = waits(&mut detector, 0x1000, 1 << 5, 100_000).unwrap();
        assert!(again <= SHORT_INTERVAL + LONG_WINDOW, "{again}");
    }

    #[test]
    fn a_loop_that_walks_through_memory_works() {
        let mut detector = SpinDetector::new();
        assert_eq!(waits(&mut detector, 0x1000, 1 << 0, 2_000_000), None);
    }

    #[test]
    fn loops_in_different_places_are_work() {
        let mut detector = SpinDetector::new();
        for round in 0..50 {
            let at = 0x1000 + round * 0x1000;
            assert_eq!(waits(&mut detector, at, 1 << 5, 160_000), None, "{round}");
        }
    }

    #[test]
    fn a_loop_that_begins_to_spin_is_recognised_in_the_next_window() {
        let begins = 10_000;
        let step = recognised(5, |step| (step / 5).min(begins / 5), 100_000).unwrap();
        assert!(step >= begins && step <= begins + INTERVAL + 2 * WINDOW, "{step}");
    }

    #[test]
    fn a_loop_longer_than_a_window_is_not_recognised() {
        assert_eq!(recognised(WINDOW + 2, |_| 7, 1000), None);
    }

    #[test]
    fn after_a_turn_of_the_others_it_looks_again_at_once() {
        let mut detector = SpinDetector::new();
        let look = Look::default();
        assert!(!detector.observe(&state(0, 1), look));
        assert!(detector.observe(&state(0, 1), look));
        assert_eq!(detector.wait(), 0);
        assert!(!detector.observe(&state(0, 2), look), "a new mark");
    }
}
