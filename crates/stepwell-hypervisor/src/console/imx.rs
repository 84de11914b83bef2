//! The UART of NXP's i.MX.
//!
//! NXP "i.MX 8M Plus Applications Processor Reference Manual", "Universal Asynchronous
//! Receiver/Transmitter (UART)". It resets with transmitter and clock off, which is how QEMU hands
//! it over to an image that it loads itself.

use super::{Registers, Uart};

const UTXD: u32 = 0x40;
const UCR1: u32 = 0x80;
const UCR2: u32 = 0x84;
const UTS: u32 = 0xb4;
const UCR1_UARTEN: u32 = 1 << 0;
const UCR2_TXEN: u32 = 1 << 2;
const UTS_TXFULL: u32 = 1 << 4;

pub(super) struct Imx;

impl Uart for Imx {
    fn names(&self) -> &'static [&'static str] {
        &["fsl,imx6q-uart", "fsl,imx21-uart", "fsl,imx53-uart"]
    }

    fn enable(&self, registers: &mut dyn Registers) {
        registers.write(UCR1, registers.read(UCR1) | UCR1_UARTEN);
        registers.write(UCR2, registers.read(UCR2) | UCR2_TXEN);
    }

    fn is_full(&self, registers: &dyn Registers) -> bool {
        registers.read(UTS) & UTS_TXFULL != 0
    }

    fn send(&self, registers: &mut dyn Registers, byte: u8) {
        registers.write(UTXD, u32::from(byte));
    }
}
