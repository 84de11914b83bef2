//! The CPU that the vCPU loop runs on, in an image for tests: the machine's own, and what the test
//! mode makes happen to it.

use crate::hw::el2::El2;
use crate::hw::setup;
use spin::Once;
use stepwell_engine::mutation;
use stepwell_vm::adversary::{self, Adversary, Config, ConfigError};
use stepwell_vm::machine::Machine;

/// What executes guests.
pub type LoopCpu = Adversary<El2>;

static CONFIG: Once<Config<'static>> = Once::new();

/// The CPU that this is executed on.
#[must_use]
pub fn this_cpu(machine: &'static Machine<LoopCpu>) -> LoopCpu {
    Adversary::new(setup::control_registers(0), machine, CONFIG.get())
}

/// Takes what the test mode is to do, if anything.
///
/// # Errors
///
/// [`ConfigError`].
pub fn configure(words: Option<&'static str>) -> Result<(), ConfigError> {
    let Some(words) = words else { return Ok(()) };
    let config = Config::parse(words)?;
    mutation::select(config.mutant.map(adversary::mutant).transpose()?);
    CONFIG.call_once(|| config);
    Ok(())
}
