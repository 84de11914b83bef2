//! `--irq`, `--others` and `--time`: how a guest is stepped, for every command that steps one.

use clap::Args;
use stepwell_debuggee::{Debuggee, Error, InterruptPolicy, OthersPolicy, TimePolicy};

/// How a guest is stepped.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct StepPolicies {
    /// What happens to interrupts while stepping: into, over or hold
    #[arg(long, value_name = "POLICY", default_value = "over")]
    pub(super) irq: InterruptPolicy,
    /// What the other vCPUs do while one is stepped: stop (moving only so that it makes progress),
    /// run, step (one at a time; step=N: N steps a turn), or freeze (not moving, whatever it waits
    /// for)
    #[arg(long, value_name = "POLICY", default_value = "stop")]
    pub(super) others: OthersPolicy,
    /// How the guest's clock goes while it is stopped or steps: stopped, natural[=SEED], real or
    /// per-step=NS
    #[arg(long, value_name = "POLICY", default_value = "stopped")]
    pub(super) time: TimePolicy,
}

impl StepPolicies {
    /// Has domain 0 of a stopped debuggee stepped so, as far as it has the choice.
    ///
    /// # Errors
    ///
    /// Where it refuses, or is lost.
    pub(super) fn choose(self, debuggee: &mut dyn Debuggee) -> Result<(), Error> {
        if let Some(interrupts) = debuggee.support_interrupts() {
            interrupts.set_interrupt_policy(0, self.irq)?;
        }
        if let Some(time) = debuggee.support_time() {
            time.set_time_policy(0, self.time)?;
        }
        if let Some(others) = debuggee.support_others() {
            others.set_others_policy(0, self.others)?;
        }
        Ok(())
    }
}
