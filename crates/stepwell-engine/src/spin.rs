//! Recognising a vCPU that goes round and gets nowhere.
//!
//! While one vCPU is stepped and the others stand, nobody writes memory but the stepped one. Where
//! it comes back to an instruction with every register as it was, it waits for something that only
//! another vCPU, or a device, can change: a spin lock that another holds. (A loop that changes
//! nothing but memory looks the same. Taking it for a wait costs the others a turn, and the guest
//! nothing.)
//!
//! Comparing registers at each step would cost more than the step. The caller therefore looks in
//! *windows*: [`WINDOW`] single steps, [`INTERVAL`] steps after the last.

/// Longest loop that is recognised, in instructions. Linux's and the usual textbooks' spin loops
/// have 2 to 10; with a backoff, up to 30.
pub const WINDOW: u64 = 48;
/// Steps between two windows: a window costs about as much as 1,000 plain steps.
pub const INTERVAL: u64 = 20_000;

/// What a loop must leave unchanged: X0 to X30, SP, PC and PSTATE.
pub type State = [u64; 34];

/// Watches for a state that comes back.
#[derive(Clone, Debug)]
pub struct SpinDetector {
    /// Steps until the next window.
    wait: u64,
    /// The state that the window began with, and how many steps it has left.
    mark: Option<(State, u64)>,
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
        Self::after(0)
    }

    /// Makes a detector whose first window begins after `wait` steps.
    #[must_use]
    pub const fn after(wait: u64) -> Self {
        Self { wait, mark: None }
    }

    /// Steps that may pass before [`SpinDetector::observe`] is to be called: 0 at once, and at each
    /// boundary while it is.
    #[must_use]
    pub const fn wait(&self) -> u64 {
        self.wait
    }

    /// Lets `steps` pass.
    pub fn passed(&mut self, steps: u64) {
        self.wait = self.wait.saturating_sub(steps);
    }

    /// Looks at the state at a boundary, [`SpinDetector::wait`] being 0. Returns whether it has
    /// come back.
    pub fn observe(&mut self, state: &State) -> bool {
        match &mut self.mark {
            None => self.mark = Some((*state, WINDOW)),
            Some((mark, _)) if mark == state => {
                *self = Self::new();
                return true;
            }
            Some((_, 0)) => *self = Self::after(INTERVAL),
            Some((_, left)) => *left = left.saturating_sub(1),
        }
        false
    }
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
                detector.observe(&state)
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
    fn a_loop_that_counts_is_none() {
        assert_eq!(recognised(5, |step| step / 5, 100_000), None);
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
        assert!(!detector.observe(&state(0, 1)));
        assert!(detector.observe(&state(0, 1)));
        assert_eq!(detector.wait(), 0);
        assert!(!detector.observe(&state(0, 2)), "a new mark");
    }
}
