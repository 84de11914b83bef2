//! The CPU that the vCPU loop runs on: the machine's own. An image for tests has `loop_cpu_tests.rs`
//! in place of this.

use crate::hw::el2::El2;
use crate::hw::setup;
use stepwell_vm::machine::Machine;

/// What executes guests.
pub type LoopCpu = El2;

/// The CPU that this is executed on.
#[must_use]
pub fn this_cpu(_: &'static Machine<LoopCpu>) -> LoopCpu {
    setup::control_registers(0)
}

/// Takes what the test mode is to do, if anything.
///
/// # Errors
///
/// There is no test mode here.
pub const fn configure(words: Option<&'static str>) -> Result<(), &'static str> {
    match words {
        None => Ok(()),
        Some(_) => Err("this hypervisor has no test mode: use stepwell-hypervisor-test-mode.bin"),
    }
}
