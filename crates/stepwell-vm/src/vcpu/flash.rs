//! Flash as vCPUs reach it: memory that cannot be stored to, until a bank has been told something.
//!
//! Stage 2 maps both banks for loads and fetches, so that firmware runs from them, breakpoints and all, as
//! from RAM. A store is refused there, comes here, and is a command. From then on until the bank is memory
//! again stage 2 keeps it back altogether, and loads come here as well. What changes in the bank of
//! variables is told to the tool, in order, which keeps it.

use super::{device_access, operand, pages, walk_abort};
use crate::cpu::Cpu;
use crate::device::flash::{BANK_BYTES, BLOCK_BYTES, Change, FLASH_BYTES, place};
use crate::domain::Domain;
use crate::memory::GuestMemory;
use crate::stage2::Permissions;
use crate::vcpu::handled::{Handled, advance};
use crate::vcpu::operand::fault_address;
use crate::vcpu::running::Running;
use heapless::Vec;
use stepwell_arch::Ipa;
use stepwell_arch::esr::EsrEl2;
use stepwell_wire::Event;
use stepwell_wire::message::MAX_BYTES;

/// The bank whose changes are kept.
const VARIABLES: usize = 1;
/// Erased flash.
const ERASED: [u8; 512] = [0xff; 512];

impl<C: Cpu> Domain<C> {
    /// Tells whether an address is flash that this domain's board has.
    #[must_use]
    pub fn is_flash(&self, at: Ipa) -> bool {
        at.0 < FLASH_BYTES && self.ram.locate(at, 1).is_ok()
    }

    /// Tells whether an address is flash that reads as what it has been told to show.
    pub(super) fn shows_otherwise(&self, at: Ipa) -> bool {
        let Some((bank, _)) = place(at).filter(|_| self.is_flash(at)) else { return false };
        self.peripherals.lock().flash.banks.get(bank).is_some_and(|bank| !bank.is_array())
    }

    /// Has stage 2 give a bank, or keep it back.
    fn show_bank(&self, bank: usize, is_array: bool) {
        let memory = &mut self.ram.tables();
        let base = Ipa(bank as u64 * BANK_BYTES);
        let mut views = self.views.lock();
        let own = Permissions::of_flash(is_array);
        // Whole blocks, and pages that were made before: there is nothing to split.
        let _changed = self.stage2.lock().protect(memory, base, BANK_BYTES, own);
        let _changed = views.show_bank(memory, bank, is_array);
    }
}

/// Handles a permission fault of a load or store, if it is about flash.
#[inline(never)]
pub fn data_abort<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Option<Handled> {
    let iss = esr.data_abort();
    // HPFAR_EL2 is UNKNOWN for permission faults but those of walks.
    let address = match iss.s1ptw() {
        true => Some(fault_address(running)),
        false => operand::to_ipa(running, running.core.context.far),
    };
    let address = address.filter(|&address| running.domain.is_flash(address))?;
    let is_told = running.domain.shows_otherwise(address);
    if iss.s1ptw() {
        return is_told.then(|| walk_abort::handle(running, esr, false));
    }
    if iss.cm() {
        // Nothing of flash is in a cache that could be lost.
        advance(running);
        return Some(Handled::Emulated);
    }
    if !iss.wnr() && !is_told {
        // What a debugger keeps back, or another vCPU has just given back.
        let is_kept_back = running.domain.views.lock().has_page(address);
        return (!is_kept_back).then_some(Handled::Resume);
    }
    if let Some(handled) = pages::watchpoint(running, esr) {
        return Some(handled);
    }
    Some(device_access::carry_out(running, esr, address))
}

/// Loads 1, 2 or 4 bytes from a bank.
pub(super) fn read<C: Cpu>(running: &Running<'_, C>, at: Ipa, bytes: u8) -> u64 {
    let Some((bank, offset)) = place(at).filter(|_| running.domain.is_flash(at)) else { return 0 };
    let peripherals = running.domain.peripherals.lock();
    let shown = peripherals.flash.banks.get(bank).and_then(|bank| bank.read(offset, bytes));
    shown.unwrap_or_else(|| {
        let mut memory = [0; 8];
        let wanted = memory.get_mut(..usize::from(bytes)).unwrap_or_default();
        // It is there: that has been asked.
        let _read = running.domain.ram.read(at, wanted);
        u64::from_le_bytes(memory)
    })
}

/// Stores 1, 2 or 4 bytes to a bank: a command, or what belongs to one.
pub(super) fn write<C: Cpu>(running: &Running<'_, C>, at: Ipa, bytes: u8, value: u64) {
    let domain = running.domain;
    let Some((number, offset)) = place(at).filter(|_| domain.is_flash(at)) else { return };
    let mut peripherals = domain.peripherals.lock();
    let Some(bank) = peripherals.flash.banks.get_mut(number) else { return };
    let was_array = bank.is_array();
    let base = Ipa(number as u64 * BANK_BYTES);
    match bank.write(offset, bytes, value) {
        None => {}
        Some(Change::Programmed(at, bytes)) => {
            store(running, base.offset(at), bytes);
            if number == VARIABLES {
                tell(running, at, bytes);
            }
        }
        Some(Change::Erased(at)) => {
            for n in 0..BLOCK_BYTES / ERASED.len() as u64 {
                store(running, base.offset(at + n * ERASED.len() as u64), &ERASED);
            }
            if number == VARIABLES {
                let (domain, bytes) = (domain.id, BLOCK_BYTES);
                running.machine.link.send(&Event::FlashErased { domain, offset: at, bytes });
            }
        }
    }
    // Within the lock: whoever comes next finds stage 2 as the bank is.
    if bank.is_array() != was_array {
        domain.show_bank(number, bank.is_array());
    }
}

/// Has what a bank's array holds changed. It may reach beyond the bank's end, and is cut there.
fn store<C: Cpu>(running: &Running<'_, C>, at: Ipa, bytes: &[u8]) {
    let room = BANK_BYTES - at.0 % BANK_BYTES;
    let count = usize::try_from(room).unwrap_or(bytes.len()).min(bytes.len());
    let bytes = bytes.get(..count).unwrap_or(bytes);
    // It is there: that has been asked.
    let _written = running.domain.ram.write(at, bytes);
    running.domain.views.lock().sync_all(&mut running.domain.ram.tables());
}

/// Tells the tool what was programmed.
fn tell<C: Cpu>(running: &Running<'_, C>, at: u64, bytes: &[u8]) {
    for (n, piece) in (0..).zip(bytes.chunks(MAX_BYTES)) {
        let Ok(bytes) = Vec::from_slice(piece) else { return };
        let offset = at + n * MAX_BYTES as u64;
        let domain = running.domain.id;
        running.machine.link.send(&Event::FlashProgrammed { domain, offset, bytes });
    }
}
