//! The guest's bus below RAM: which device a load or store goes to, and what it does there.
//!
//! An access comes here in the sizes that a device takes, aligned. Where nobody answers that is for
//! the caller to make an external abort of, as on the board.

use super::{flash, fw_cfg, interrupt, time, virtio};
use crate::cpu::Cpu;
use crate::device::board::{PL011_INTID, PL031_INTID, PL061_INTID, Region, region};
use crate::device::form::Extension;
use crate::device::pl011::Pl011;
use crate::device::pl031::Pl031;
use crate::device::pl061::Pl061;
use crate::domain::Domain;
use crate::vcpu::running::Running;
use crate::vgic::{GICC_BASE, GICC_BYTES};
use stepwell_arch::Ipa;

/// How long a partial line waits for more.
const CONSOLE_PATIENCE_NS: u64 = 5_000_000;

/// Nobody answers at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nobody;

/// The offset into the CPU interface of a GICv2, if the guest has one there.
fn gicc_offset<C: Cpu>(running: &Running<'_, C>, at: Ipa) -> Option<u64> {
    let offset = at.0.checked_sub(GICC_BASE.0).filter(|&offset| offset < GICC_BYTES)?;
    running.domain.vgic.lock().is_version_2().then_some(offset)
}

/// Loads 1, 2, 4 or 8 bytes of a device's.
///
/// # Errors
///
/// [`Nobody`].
pub fn read<C: Cpu>(running: &mut Running<'_, C>, at: Ipa, bytes: u8) -> Result<u64, Nobody> {
    let known = region(at, running.domain.vcpus.len());
    if bytes > known.widest_bytes() {
        return read_words(running, at);
    }
    let value = match known {
        Region::Gicd | Region::Gicr => {
            interrupt::sync_holders(running, |vgic| vgic.holders(running.index, at));
            let value = running.domain.vgic.change().mmio_read(running.index, at, bytes);
            interrupt::kick_others(running);
            value
        }
        Region::Pl011(offset) => {
            // Registers are words, and an access of less reaches the word that it lies in.
            with_uart(running, |uart| uart.read(offset & !3, bytes))
        }
        Region::Virtio(slot, offset) => running.domain.virtio.lock().read(slot, offset, bytes),
        Region::PcieConfiguration(offset) => {
            running.domain.peripherals.lock().registers.pcie.read(offset, bytes)
        }
        Region::Flash(..) => flash::read(running, at, bytes),
        Region::FwCfg(offset) => {
            running.domain.peripherals.lock().registers.fw_cfg.read(offset, bytes)
        }
        Region::Pl031(offset) => with_clock(running, |clock, second| clock.read(offset, second)),
        Region::Pl061(offset) => with_lines(running, |lines| lines.read(offset)),
        Region::Zeros => 0,
        Region::Ones => u64::MAX,
        Region::Nothing => return read_gicc(running, at, bytes),
    };
    Ok(Extension::Zero.extend(value, bytes))
}

/// As [`read`], where nobody answers but the CPU interface of a GICv2.
#[inline(never)]
fn read_gicc<C: Cpu>(running: &mut Running<'_, C>, at: Ipa, bytes: u8) -> Result<u64, Nobody> {
    let offset = gicc_offset(running, at).ok_or(Nobody)?;
    let mut vgic = running.domain.vgic.change();
    let value = vgic.read_gicc(running.index, &mut running.core.interface, offset, bytes);
    drop(vgic);
    interrupt::kick_others(running);
    Ok(value)
}

#[inline(never)]
fn read_words<C: Cpu>(running: &mut Running<'_, C>, at: Ipa) -> Result<u64, Nobody> {
    let low = read(running, at, 4)?;
    Ok(low | read(running, at.offset(4), 4)? << 32)
}

/// Stores 1, 2, 4 or 8 bytes into a device.
///
/// # Errors
///
/// [`Nobody`].
pub fn write<C: Cpu>(
    running: &mut Running<'_, C>,
    at: Ipa,
    bytes: u8,
    value: u64,
) -> Result<(), Nobody> {
    let known = region(at, running.domain.vcpus.len());
    if bytes > known.widest_bytes() {
        write(running, at, 4, value & 0xffff_ffff)?;
        return write(running, at.offset(4), 4, value >> 32);
    }
    match known {
        Region::Gicd | Region::Gicr => {
            interrupt::sync_holders(running, |vgic| vgic.holders(running.index, at));
            let mut vgic = running.domain.vgic.change();
            vgic.mmio_write(running.index, at, bytes, value);
            drop(vgic);
            interrupt::kick_others(running);
        }
        Region::Pl011(offset) => {
            let sent = with_uart(running, |uart| uart.write(offset & !3, bytes, value));
            if let Some(byte) = sent {
                print(running, byte);
            }
        }
        Region::Virtio(slot, offset) => virtio::write(running, slot, offset, bytes, value),
        Region::Flash(..) => flash::write(running, at, bytes, value),
        Region::FwCfg(offset) => fw_cfg::write(running, offset, bytes, value),
        Region::Pl031(offset) => {
            with_clock(running, |clock, second| clock.write(offset, value, second));
        }
        Region::Pl061(offset) => with_lines(running, |lines| lines.write(offset, value)),
        Region::PcieConfiguration(offset) => {
            running.domain.peripherals.lock().registers.pcie.write(offset, bytes, value);
        }
        Region::Zeros | Region::Ones => {}
        Region::Nothing => {
            let offset = gicc_offset(running, at).ok_or(Nobody)?;
            let mut vgic = running.domain.vgic.change();
            vgic.write_gicc(running.index, &mut running.core.interface, offset, bytes, value);
            drop(vgic);
            interrupt::kick_others(running);
        }
    }
    Ok(())
}

/// Does something with the UART, and takes its interrupt line to the GIC.
fn with_uart<C: Cpu, T>(running: &Running<'_, C>, act: impl FnOnce(&mut Pl011) -> T) -> T {
    let mut uart = running.domain.uart.lock();
    let done = act(&mut uart);
    let has_changed = update_line(running.domain, &mut uart);
    drop(uart);
    if has_changed {
        interrupt::kick_others(running);
    }
    done
}

/// Does something with the clock, at the second that the guest's own clock is at, and takes its interrupt
/// line to the GIC.
fn with_clock<C: Cpu, T>(running: &Running<'_, C>, act: impl FnOnce(&mut Pl031, u32) -> T) -> T {
    let ticks = time::since_reset(running);
    let mut peripherals = running.domain.peripherals.lock();
    let clock = &mut peripherals.registers.rtc;
    let second = clock.second(ticks, running.cpu.frequency_hz());
    let done = act(clock, second);
    // Within the lock: a later change is not to get to the GIC first.
    running.domain.vgic.change().set_line(PL031_INTID, None, clock.line());
    drop(peripherals);
    interrupt::kick_others(running);
    done
}

/// Does something with the power key's lines, and takes their interrupt line to the GIC.
fn with_lines<C: Cpu, T>(running: &Running<'_, C>, act: impl FnOnce(&mut Pl061) -> T) -> T {
    let mut peripherals = running.domain.peripherals.lock();
    let lines = &mut peripherals.registers.gpio;
    let done = act(lines);
    // Within the lock: a later change is not to get to the GIC first.
    running.domain.vgic.change().set_line(PL061_INTID, None, lines.line());
    drop(peripherals);
    interrupt::kick_others(running);
    done
}

/// Takes the UART's interrupt line to the GIC, from outside of any vCPU. Tells whether it has changed:
/// the vCPU that is to notice is kicked by the caller.
pub fn update_domain_uart_line<C: Cpu>(domain: &Domain<C>) -> bool {
    update_line(domain, &mut domain.uart.lock())
}

/// Within the UART's lock: a later change is not to get to the GIC first.
#[inline]
fn update_line<C: Cpu>(domain: &Domain<C>, uart: &mut Pl011) -> bool {
    let Some(line) = uart.line_change() else { return false };
    domain.vgic.change().set_line(PL011_INTID, None, line);
    true
}

fn print<C: Cpu>(running: &Running<'_, C>, byte: u8) {
    let mut console = running.domain.console.lock();
    if console.is_full() {
        running.machine.send_console(running.domain.id, &mut console);
    }
    // There is room now.
    let _fits = console.push(byte);
    if byte == b'\n' {
        running.machine.send_console(running.domain.id, &mut console);
    } else if running.domain.timeline.is_none() {
        running.cpu.interrupt_in(CONSOLE_PATIENCE_NS);
    }
}
