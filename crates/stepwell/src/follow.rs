//! Waiting for a guest that was set going: its console, its recorded steps and our Ctrl-C
//! meanwhile. A long way through a replay is shown.

use crate::interruption::{self, Interruption};
use crate::travelled::Travelled;
use std::time::{Duration, Instant};
use stepwell_debuggee::{Debuggee, DomainEnding, Error, Event, Stop, TraceRecord};

/// Often enough that the trace ring does not fill while nobody looks.
const POLL: Duration = Duration::from_millis(20);
/// A way is shown once it has taken so long.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest stopped.
    Stopped(Stop),
    /// The guest ended.
    Ended(DomainEnding),
}

/// What to do with what comes in meanwhile.
pub struct Follower<'a> {
    /// Takes what the guest writes on its console.
    pub console: &'a mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    /// Gets the steps that were recorded, oldest first.
    pub records: &'a mut Vec<TraceRecord>,
    /// Set where the user, or the system, interrupted; the guest was paused then.
    pub interruption: Option<Interruption>,
}

impl Follower<'_> {
    /// Waits until the guest stops or ends. Ctrl-C pauses it.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost, or the console's output cannot be written.
    pub fn follow(&mut self, debuggee: &mut dyn Debuggee) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let mut shown = None;
        let outcome = loop {
            let event = debuggee.wait(POLL)?;
            if let Some(trace) = debuggee.support_trace() {
                trace.drain(self.records)?;
            }
            match event {
                Some(Event::Stopped(stop)) => break Outcome::Stopped(stop),
                Some(Event::Ended { ending, .. }) => break Outcome::Ended(ending),
                Some(Event::Console { bytes, .. }) => (self.console)(&bytes)?,
                None if begun.elapsed() > SHOWN_AFTER => show_way(debuggee, &mut shown),
                None => {}
            }
            if let Some(interruption) = interruption::take() {
                self.interruption = Some(interruption);
                match debuggee.pause(0) {
                    // Where it has stopped or ended by itself, the event is on its way.
                    Ok(()) | Err(Error::Refused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        };
        if let Some(shown) = shown {
            shown.finish();
        }
        Ok(outcome)
    }
}

/// Shows how far a debuggee has come on its way through a replay. Nothing of the guest's is printed on it.
fn show_way(debuggee: &mut dyn Debuggee, shown: &mut Option<Travelled>) {
    if let Some(reverse) = debuggee.support_reverse()
        && let Some(way) = reverse.way()
    {
        shown.get_or_insert_with(|| Travelled::on(way)).come_to(way.now);
    }
}
