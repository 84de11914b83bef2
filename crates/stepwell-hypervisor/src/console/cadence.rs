//! The UART of Cadence, in AMD's Zynq and Zynq UltraScale+.
//!
//! AMD UG1087 ("Zynq UltraScale+ Devices Register Reference"), "UART Module". It resets with the
//! transmitter off.

use super::{Registers, Uart};

const CONTROL: u32 = 0x00;
const STATUS: u32 = 0x2c;
const FIFO: u32 = 0x30;
const CONTROL_TXEN: u32 = 1 << 4;
const CONTROL_TXDIS: u32 = 1 << 5;
const STATUS_TXFULL: u32 = 1 << 4;

pub(super) struct Cadence;

impl Uart for Cadence {
    fn names(&self) -> &'static [&'static str] {
        &["cdns,uart-r1p12", "cdns,uart-r1p8", "xlnx,xuartps"]
    }

    fn enable(&self, registers: &mut dyn Registers) {
        let control = registers.read(CONTROL) & !CONTROL_TXDIS;
        registers.write(CONTROL, control | CONTROL_TXEN);
    }

    fn is_full(&self, registers: &dyn Registers) -> bool {
        registers.read(STATUS) & STATUS_TXFULL != 0
    }

    fn send(&self, registers: &mut dyn Registers, byte: u8) {
        registers.write(FIFO, u32::from(byte));
    }
}
