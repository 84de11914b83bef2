//! How far a run has come, on a bar that the guest's console does not get into.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;
use stepwell_debuggee::Moment;

const TICK: Duration = Duration::from_millis(100);

/// How far a run has come.
pub struct Travelled {
    bar: ProgressBar,
}

impl Travelled {
    /// Makes a bar on standard error, to a position if that is known.
    #[must_use]
    pub fn new(is_quiet: bool, to: Option<u64>) -> Self {
        let (template, target) = match to {
            Some(_) => ("{wide_bar} {percent}% {msg}, {eta} left", ProgressDrawTarget::stderr()),
            None => ("{spinner} {msg}, {elapsed}", ProgressDrawTarget::stderr()),
        };
        let target = if is_quiet { ProgressDrawTarget::hidden() } else { target };
        let style = ProgressStyle::with_template(template).expect("the template is ours");
        let bar = ProgressBar::with_draw_target(to, target).with_style(style);
        if !is_quiet {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// Takes it that a moment has come.
    pub fn come_to(&self, moment: Moment) {
        self.bar.set_position(moment.position);
        self.bar.set_message(format!("{} instructions", HumanCount(moment.position)));
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
