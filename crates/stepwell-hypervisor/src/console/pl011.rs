//! Arm's PL011, and the SBSA UART, which is the part of it that a system may count on.
//!
//! Arm DDI 0183 ("PrimeCell UART (PL011) Technical Reference Manual"). The control register is
//! left alone: the SBSA UART has none, and on any other the boot loader has enabled it.

use super::{Registers, Uart};

const DR: u32 = 0x00;
const FR: u32 = 0x18;
const FR_TXFF: u32 = 1 << 5;

pub(super) struct Pl011;

impl Uart for Pl011 {
    fn names(&self) -> &'static [&'static str] {
        &["arm,pl011", "arm,sbsa-uart"]
    }

    fn enable(&self, _: &mut dyn Registers) {}

    fn is_full(&self, registers: &dyn Registers) -> bool {
        registers.read(FR) & FR_TXFF != 0
    }

    fn send(&self, registers: &mut dyn Registers, byte: u8) {
        registers.write(DR, u32::from(byte));
    }
}
