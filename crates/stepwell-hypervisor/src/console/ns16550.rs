//! The 16550 and its many relatives, and the mini-UART of the Raspberry Pi.
//!
//! National Semiconductor PC16550D; Broadcom "BCM2711 ARM Peripherals", "Auxiliaries: UART1 &
//! SPI1, SPI2". The mini-UART has the 16550's registers at every fourth byte.

use super::{Registers, Spacing, Uart};

const THR: u32 = 0;
const LSR: u32 = 5;
const LSR_THRE: u32 = 1 << 5;

pub(super) struct Ns16550;

impl Uart for Ns16550 {
    fn names(&self) -> &'static [&'static str] {
        &["ns16550a", "ns16550", "ns8250", "snps,dw-apb-uart", "nvidia,tegra20-uart"]
    }

    fn usual_spacing(&self) -> Spacing {
        Spacing { shift: 0, bytes: 1 }
    }

    fn enable(&self, _: &mut dyn Registers) {}

    fn is_full(&self, registers: &dyn Registers) -> bool {
        registers.read(LSR) & LSR_THRE == 0
    }

    fn send(&self, registers: &mut dyn Registers, byte: u8) {
        registers.write(THR, u32::from(byte));
    }
}

pub(super) struct MiniUart;

impl Uart for MiniUart {
    fn names(&self) -> &'static [&'static str] {
        &["brcm,bcm2835-aux-uart"]
    }

    fn usual_spacing(&self) -> Spacing {
        Spacing { shift: 2, bytes: 4 }
    }

    fn enable(&self, registers: &mut dyn Registers) {
        Ns16550.enable(registers);
    }

    fn is_full(&self, registers: &dyn Registers) -> bool {
        Ns16550.is_full(registers)
    }

    fn send(&self, registers: &mut dyn Registers, byte: u8) {
        Ns16550.send(registers, byte);
    }
}
