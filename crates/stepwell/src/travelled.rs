//! How far a run has come, on a bar that the guest's console does not get into.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};
use stepwell_debuggee::{Moment, Way};

const TICK: Duration = Duration::from_millis(100);
const TO_AN_END: &str = "{wide_bar} {percent}% {msg}, {eta} left";
const WITHOUT_END: &str = "{spinner} {msg}, {elapsed}";

/// How far a run has come.
pub struct Travelled {
    bar: ProgressBar,
    begun: Instant,
    from: u64,
    is_search: bool,
}

impl Travelled {
    /// Makes a bar on standard error, to a position if that is known.
    #[must_use]
    pub fn new(is_quiet: bool, to: Option<u64>) -> Self {
        Self::begin(is_quiet, 0, to, false)
    }

    /// Makes one of a way through a replay.
    #[must_use]
    pub fn on(way: Way) -> Self {
        let to = way.to.map(|to| to.position.saturating_sub(way.now.position));
        Self::begin(false, way.now.position, to, way.to.is_none())
    }

    fn begin(is_quiet: bool, from: u64, to: Option<u64>, is_search: bool) -> Self {
        let target =
            if is_quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let template = if to.is_some() { TO_AN_END } else { WITHOUT_END };
        let style = ProgressStyle::with_template(template).expect("the template is ours");
        let bar = ProgressBar::with_draw_target(to, target).with_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, begun: Instant::now(), from, is_search }
    }

    /// Tells whether anybody sees it.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Takes it that a moment has come.
    pub fn come_to(&self, moment: Moment) {
        let done = moment.position.saturating_sub(self.from);
        self.bar.set_position(done);
        let position = HumanCount(moment.position);
        self.bar.set_message(match self.is_search {
            // It goes back, and forwards in between.
            true => format!("looking back, at position {position}"),
            false => {
                let rate = done as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
                format!("position {position}, {} instructions/s", HumanCount(rate as u64))
            }
        });
    }

    /// Prints something without the bar in between.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
