//! PL011: identification, flags, masks, interrupt status.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::hardware::uart::{self, BASE, FR, TXFF};
use stepwell_guests::hardware::{read32, write32};
use stepwell_guests::report::{Outcome, check, require};

const IMSC: u64 = BASE + 0x38;
const RIS: u64 = BASE + 0x3c;
const MIS: u64 = BASE + 0x40;
const ICR: u64 = BASE + 0x44;
const TX_INTERRUPT: u32 = 1 << 5;
const RXFE: u32 = 1 << 4;
const TXFE: u32 = 1 << 7;

fn run() -> Outcome {
    let identification: [u32; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
    for (place, wanted) in (0u64..).zip(identification) {
        check("identification", read32(BASE + 0xfe0 + 4 * place).into(), wanted.into())?;
    }
    let flags = read32(FR);
    require("receive FIFO empty", flags & RXFE != 0)?;
    require("transmit FIFO empty", flags & TXFE != 0)?;
    require("transmit FIFO not full", flags & TXFF == 0)?;
    write32(IMSC, 0);
    uart::write("uart: text\r\n");
    require("sent", read32(RIS) & TX_INTERRUPT != 0)?;
    check("masked", read32(MIS).into(), 0)?;
    write32(IMSC, TX_INTERRUPT);
    check("mask reads back", read32(IMSC).into(), TX_INTERRUPT.into())?;
    check("unmasked", read32(MIS).into(), TX_INTERRUPT.into())?;
    write32(ICR, TX_INTERRUPT);
    check("cleared", (read32(RIS) & TX_INTERRUPT).into(), 0)?;
    write32(IMSC, 0);
    Ok(flags.into())
}

stepwell_guests::guest!("uart", run);
