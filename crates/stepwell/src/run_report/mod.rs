//! A whole run as one page for a browser: what `stepwell report` makes of a replay log.
//!
//! A log says what came in, and where the state was taken down. What each vCPU was at it does not say: that
//! is seen by going through the run once more, and looking at it a thousand times
//! ([`Samples`]). So the page is right for what it shows, and coarse: two instructions of one vCPU within a
//! bin are one. What happened to the instruction is in a recording of a part, which the page can have in it.

mod page;

pub use page::Page;

use stepwell_debuggee::Moment;

/// Looks at a run: more than a wide screen has columns.
pub const LOOKS: u64 = 1000;

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Where it begins.
    pub from: Moment,
    /// Where it ends.
    pub to: Moment,
    /// For each vCPU, whether it has executed anything in it.
    pub ran: Vec<bool>,
}

impl Bin {
    /// Of its time, how many thousandths all vCPUs waited. The clock goes on by one for each instruction,
    /// and by more only where there is none to be executed.
    #[must_use]
    pub const fn waited(&self) -> u64 {
        let time = self.to.clock.saturating_sub(self.from.clock);
        let executed = self.to.position.saturating_sub(self.from.position);
        match time {
            0 => 0,
            time => time.saturating_sub(executed).saturating_mul(1000) / time,
        }
    }
}

/// What was seen of a run.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The parts, in order.
    pub bins: Vec<Bin>,
    now: Moment,
}

impl Samples {
    /// Takes a look: for each vCPU the position behind the last instruction that it has executed.
    pub fn look(&mut self, moment: Moment, executed: &[u64]) {
        if moment <= self.now {
            return;
        }
        let from = std::mem::replace(&mut self.now, moment);
        let ran = executed.iter().map(|&behind| behind > from.position).collect();
        self.bins.push(Bin { from, to: moment, ran });
    }

    /// Where the last look was.
    #[must_use]
    pub const fn end(&self) -> Moment {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_executed_since_the_last_look_ran() {
        let mut samples = Samples::default();
        samples.look(Moment { position: 100, clock: 100 }, &[100, 0]);
        samples.look(Moment { position: 150, clock: 350 }, &[120, 150]);
        samples.look(Moment { position: 150, clock: 350 }, &[120, 150]);
        samples.look(Moment { position: 200, clock: 400 }, &[120, 200]);
        let ran: Vec<&[bool]> = samples.bins.iter().map(|bin| bin.ran.as_slice()).collect();
        assert_eq!(ran, [[true, false], [true, true], [false, true]]);
        let waited: Vec<u64> = samples.bins.iter().map(Bin::waited).collect();
        assert_eq!(waited, [0, 800, 0]);
    }
}
