//! How long an answer is waited for.
//!
//! A hypervisor that hangs does not answer, and neither does one whose host is busy: only time tells
//! them apart, and so only patience long enough for the second. Somebody who presses Ctrl-C has none.

use std::time::{Duration, Instant};

/// Between two looks at whether somebody wants to leave.
const LOOK: Duration = Duration::from_millis(50);
/// An answer that takes so long is none that was about to come when somebody wanted to leave.
const SUSPECT: Duration = Duration::from_secs(1);
/// How long another is waited for then.
const IMPATIENT: Duration = Duration::from_secs(2);

/// Waiting for an answer.
pub(crate) struct Wait {
    started: Instant,
    deadline: Instant,
    is_interrupted: fn() -> bool,
    is_impatient: bool,
}

impl Wait {
    /// Begins to wait.
    pub(crate) fn new(patience: Duration, is_interrupted: fn() -> bool) -> Self {
        let started = Instant::now();
        Self { started, deadline: started + patience, is_interrupted, is_impatient: false }
    }

    /// Returns how long to wait before [`Wait::is_over`] is asked again.
    pub(crate) fn slice(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(LOOK)
    }

    /// Tells whether it was waited for long enough.
    pub(crate) fn is_over(&mut self) -> bool {
        let now = Instant::now();
        if !self.is_impatient && (self.is_interrupted)() {
            self.is_impatient = true;
            let is_suspect = now.duration_since(self.started) > SUSPECT;
            let more = if is_suspect { Duration::ZERO } else { IMPATIENT };
            self.deadline = self.deadline.min(now + more);
        }
        now >= self.deadline
    }

    /// Returns how long it was waited for.
    pub(crate) fn waited(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_to_leave_does_not_wait_for_what_does_not_come() {
        let patience = Duration::from_secs(3600);
        let mut wait = Wait::new(patience, || true);
        assert!(!wait.is_over(), "it may be about to come");
        assert!(wait.deadline <= Instant::now() + IMPATIENT);
        let started = Instant::now().checked_sub(2 * SUSPECT).unwrap();
        let mut wait = Wait { started, ..Wait::new(patience, || true) };
        assert!(wait.is_over(), "it has not come for long");
        let mut wait = Wait { started, ..Wait::new(patience, || false) };
        assert!(!wait.is_over() && wait.slice() == LOOK, "nobody wants to leave");
    }
}
