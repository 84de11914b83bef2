//! fw_cfg's transfers: what the guest has described in its memory is carried out there.

use super::virtio::write_memory;
use crate::cpu::Cpu;
use crate::device::board::RAM_BASE;
use crate::device::fw_cfg::transfer::{BYTES, ERROR, READ, SELECT, SKIP, WRITE};
use crate::memory::GuestMemory;
use crate::vcpu::running::Running;
use stepwell_arch::Ipa;

/// What is written where an item has come to its end.
const ZEROS: [u8; 256] = [0; 256];

/// Performs a store.
pub(super) fn write<C: Cpu>(running: &Running<'_, C>, offset: u64, bytes: u8, value: u64) {
    let begun = {
        let mut peripherals = running.domain.peripherals.lock();
        let fw_cfg = &mut peripherals.registers.fw_cfg;
        fw_cfg.write(offset, bytes, value).filter(|_| fw_cfg.is_there())
    };
    if let Some(at) = begun {
        let mut described = [0; BYTES];
        // A description that is not in memory is nobody's to be told of.
        if is_ram(running, Ipa(at), BYTES as u64)
            && running.domain.ram.read(Ipa(at), &mut described).is_ok()
        {
            let status = perform(running, described);
            write_memory(running, Ipa(at), &status.to_be_bytes());
        }
    }
}

/// Performs a transfer; returns what becomes of its control word.
fn perform<C: Cpu>(running: &Running<'_, C>, described: [u8; BYTES]) -> u32 {
    let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = described;
    let control = u32::from_be_bytes([c0, c1, c2, c3]);
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let to = Ipa(u64::from_be_bytes(address));
    let item = {
        let mut peripherals = running.domain.peripherals.lock();
        let fw_cfg = &mut peripherals.registers.fw_cfg;
        if control & SELECT != 0 {
            fw_cfg.select((control >> 16) as u16);
        }
        match control & (READ | WRITE | SKIP) {
            action if action & READ != 0 => {
                if length > 0 && !is_ram(running, to, length.into()) {
                    return ERROR;
                }
                fw_cfg.take(length)
            }
            action if action & WRITE != 0 => return ERROR,
            action if action & SKIP != 0 => {
                fw_cfg.take(length);
                return 0;
            }
            _ => return 0,
        }
    };
    write_memory(running, to, item);
    let (mut at, mut left) = (to.0 + item.len() as u64, u64::from(length) - item.len() as u64);
    while left > 0 {
        let piece = ZEROS.get(..left.min(ZEROS.len() as u64) as usize).unwrap_or(&ZEROS);
        write_memory(running, Ipa(at), piece);
        (at, left) = (at + piece.len() as u64, left - piece.len() as u64);
    }
    0
}

/// Tells whether all of a range is RAM: flash is written by commands alone.
fn is_ram<C: Cpu>(running: &Running<'_, C>, at: Ipa, bytes: u64) -> bool {
    at >= RAM_BASE && running.domain.ram.locate(at, bytes).is_ok()
}
