//! The machine's UART, to be heard on before anything else works.
//!
//! A board is brought up blind, so the first message goes out with nothing but registers: no
//! interrupts, no locks, no memory beyond the stack. Which UART it is, is the device tree's word
//! (`stdout-path`); how a byte is sent, a driver's here. Nobody sets a baud rate: whoever loaded
//! this image has talked on that line already. Receiving is not in it, since nobody listens.

mod cadence;
mod imx;
mod ns16550;
mod pl011;

use crate::devicetree::bus::{self, Place};
use crate::devicetree::range::Range;
use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use stepwell_arch::Pa;

/// A UART's registers, by their offsets as the manual of the UART has them.
pub trait Registers {
    /// Reads one.
    fn read(&self, offset: u32) -> u32;
    /// Writes one.
    fn write(&mut self, offset: u32, value: u32);
}

/// What a UART's transmitter can do.
pub trait Uart: Sync {
    /// `compatible` of those that it drives.
    fn names(&self) -> &'static [&'static str];
    /// How its registers lie where the tree does not say.
    fn usual_spacing(&self) -> Spacing {
        Spacing { shift: 0, bytes: 4 }
    }
    /// Switches the transmitter on, where a boot loader may have left it off.
    fn enable(&self, registers: &mut dyn Registers);
    /// Whether there is no room for another byte now.
    fn is_full(&self, registers: &dyn Registers) -> bool;
    /// Sends a byte. There must be room.
    fn send(&self, registers: &mut dyn Registers, byte: u8);
}

/// How registers lie: register n at `n << shift`, accessed with this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spacing {
    /// `reg-shift`.
    pub shift: u8,
    /// `reg-io-width`: 1, 2 or 4.
    pub bytes: u8,
}

/// A UART of this machine.
#[derive(Clone, Copy)]
pub struct Console {
    /// Its driver.
    pub uart: &'static dyn Uart,
    /// Where its registers are.
    pub registers: Range,
    /// How they lie there.
    pub spacing: Spacing,
}

impl Console {
    /// A PL011 at an address.
    #[must_use]
    pub fn pl011(base: Pa) -> Self {
        let uart = &pl011::Pl011;
        let registers = Range { base, bytes: 0x1000 };
        Self { uart, registers, spacing: uart.usual_spacing() }
    }
}

impl PartialEq for Console {
    fn eq(&self, other: &Self) -> bool {
        let facts = |console: &Self| (console.uart.names(), console.registers, console.spacing);
        facts(self) == facts(other)
    }
}

impl Eq for Console {}

impl core::fmt::Debug for Console {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = self.uart.names().first().copied().unwrap_or_default();
        write!(f, "{name} at {:#x}", self.registers.base.0)
    }
}

static DRIVERS: [&dyn Uart; 5] =
    [&pl011::Pl011, &ns16550::Ns16550, &ns16550::MiniUart, &imx::Imx, &cadence::Cadence];

/// A byte that finds no room after so many looks is dropped: a UART without a clock must not keep
/// the machine from starting. At 9600 baud a byte takes a millisecond.
const LOOKS_MAX: u32 = 1_000_000;

/// Finds the console: what `stdout-path` says or, where it leads to nothing that has a driver, the
/// first UART in use that has one.
#[must_use]
pub fn find(root: FdtNode<'_>) -> Option<Console> {
    let chosen = stdout(root).and_then(|place| console_at(&place));
    chosen.or_else(|| bus::nodes(root).find_map(|place| console_at(&place)))
}

fn stdout(root: FdtNode<'_>) -> Option<Place<'_>> {
    let chosen = root.child("chosen")?;
    // The second is what it was called before the specification had it.
    let property =
        chosen.property("stdout-path").or_else(|| chosen.property("linux,stdout-path"))?;
    let path = property.value_as::<&str>().ok()?;
    if path.starts_with('/') {
        return Place::at(root, path);
    }
    let alias = path.split(':').next()?;
    let alias = root.child("aliases")?.property(alias)?;
    Place::at(root, alias.value_as::<&str>().ok()?)
}

fn console_at(place: &Place<'_>) -> Option<Console> {
    let drives = |uart: &&&dyn Uart| uart.names().iter().any(|name| place.node.is_compatible(name));
    let uart = *DRIVERS.iter().find(drives)?;
    if !place.is_in_use() {
        return None;
    }
    let number = |name| {
        let value = place.node.property(name)?.value_as::<u32>().ok()?;
        u8::try_from(value).ok()
    };
    let usual = uart.usual_spacing();
    let spacing = Spacing {
        shift: number("reg-shift").filter(|&shift| shift <= 4).unwrap_or(usual.shift),
        bytes: number("reg-io-width").filter(|n| matches!(n, 1 | 2 | 4)).unwrap_or(usual.bytes),
    };
    let registers = place.registers(0).ok().filter(|range| range.base.0 != 0)?;
    Some(Console { uart, registers, spacing })
}

/// Sends a byte as soon as there is room; gives up if there never is.
pub fn send(uart: &dyn Uart, registers: &mut dyn Registers, byte: u8) {
    for _ in 0..LOOKS_MAX {
        if !uart.is_full(registers) {
            uart.send(registers, byte);
            return;
        }
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests;
