//! The devices that firmware finds beside the console: flash, fw_cfg, the clock, the power key's lines, the
//! bridge to PCIe.
//!
//! Each is in use for moments only, so that one lock is for all of them.

use super::flash::Flash;
use super::fw_cfg::FwCfg;
use super::pcie::Pcie;
use super::pl031::Pl031;
use super::pl061::Pl061;

/// All of them.
#[derive(Debug, Default)]
pub struct Peripherals {
    /// The flash, where the board has any. What its arrays hold is in the domain's memory.
    pub flash: Flash,
    /// What a moment that is kept has to have of the others.
    pub registers: Registers,
}

/// Those that are values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    /// fw_cfg.
    pub fw_cfg: FwCfg,
    /// The clock.
    pub rtc: Pl031,
    /// The power key's lines.
    pub gpio: Pl061,
    /// The bridge to PCIe.
    pub pcie: Pcie,
}
