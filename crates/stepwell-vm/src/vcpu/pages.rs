//! Accesses to pages that a debugger has an interest in: see [`crate::views`].
//!
//! Stage 2 keeps the guest from loads and stores of a page with breakpoints, and from the watched
//! accesses of a page with watched bytes. An access of watched bytes stops the vCPU. Every other one
//! happens: simple ones here, the rest by the CPU itself, with the domain's own tables.

use super::operand::{Operand, base, code_page, has_rights_of_el0, instruction, set_base, to_ipa};
use super::{address_space, debug, operand, watch};
use crate::cpu::{Context as _, Cpu};
use crate::device::mmio::MmioAccess;
use crate::device::transfer::Transfer;
use crate::domain::Domain;
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::handled::{Handled, advance};
use crate::vcpu::roots::{Root, WriteSet};
use crate::vcpu::running::Running;
use crate::views::BRK;
use crate::views::sequence::{
    has_load_before32, is_store, is_store32, leads_to_store, load_before,
};
use core::sync::atomic::{Ordering, fence};
use heapless::Vec;
use stepwell_arch::SystemRegister;
use stepwell_arch::debug::{DataAccess, mdscr_el1};
use stepwell_arch::esr::EsrEl2;
use stepwell_arch::{InstructionSet, Ipa, Pstate, Va};

/// TCR_EL1.HD: the CPU keeps the dirty state of pages.
const TCR_HD: u64 = 1 << 40;
/// SCTLR_EL1.E0E and EE: data is big-endian.
const SCTLR_BIG_ENDIAN: u64 = 1 << 24 | 1 << 25;
/// ID_AA64PFR1_EL1.MTE, 2 or more: accesses may be checked against tags.
const PFR1_MTE2: u64 = 0b1110 << 8;
/// ISS of a data abort, AR: acquire or release.
const ISS_AR: u64 = 1 << 14;
/// BRK without its immediate.
const BRK_MASK: u32 = 0xffe0_001f;

impl<C: Cpu> Domain<C> {
    /// Tells whether some page is of interest.
    #[must_use]
    pub fn has_views(&self) -> bool {
        self.roots.of_running() != self.vttbr
    }

    /// After the views have changed, while all vCPUs are stopped: has them used.
    pub fn use_views(&self) {
        let roots = self.views.lock().roots(self.vttbr.vmid() as u8);
        let running = roots.map_or(self.vttbr, |roots| roots.running);
        let guarded = roots.map_or(self.vttbr, |roots| roots.guarded);
        self.roots.running.store(running);
        self.roots.guarded.store(guarded);
    }

    /// After EL2 has written guest memory: brings what the guest executes up to date.
    #[inline]
    pub fn sync_views(&self, ipa: Ipa, bytes: u64) {
        if self.has_views() {
            self.sync_copies(ipa, bytes);
        }
    }

    #[inline(never)]
    fn sync_copies(&self, ipa: Ipa, bytes: u64) {
        let views = self.views.lock();
        let first = (PAGE_BYTES - ipa.0 % PAGE_BYTES).min(bytes);
        views.sync(&mut self.ram.tables(), ipa, first);
        if bytes > first {
            views.sync(&mut self.ram.tables(), ipa.offset(first), bytes - first);
        }
    }
}

/// Puts one of the domain's tables in force on this CPU.
pub fn select<C: Cpu>(running: &mut Running<'_, C>, root: Root) {
    let wanted = match root {
        Root::Running => running.domain.roots.of_running(),
        Root::Guarded => running.domain.roots.guarded.load(),
        Root::Unrestricted => running.domain.vttbr,
    };
    if running.core.vttbr != wanted {
        running.cpu.set_stage2(wanted);
        running.core.vttbr = wanted;
    }
}

/// Tells whether the guest has a BRK at the PC.
#[must_use]
pub fn is_brk<C: Cpu>(running: &Running<'_, C>) -> bool {
    instruction(running).is_none_or(|word| word & BRK_MASK == BRK & BRK_MASK)
}

/// Tells whether the instruction at the PC is a store-exclusive.
#[must_use]
pub fn is_store_exclusive<C: Cpu>(running: &Running<'_, C>) -> bool {
    let pc = running.core.pc();
    let Some(page) = code_page(running, pc) else { return false };
    match InstructionSet::of(running.core.pstate()) {
        InstructionSet::A64 => {
            let word = running.domain.ram.instruction(page, pc).unwrap_or(0);
            is_store(word)
        }
        set => is_store32(set, pc.0 % PAGE_BYTES, |at| running.domain.ram.halfword(page, Va(at))),
    }
}

/// Tells whether the instruction at `pc`, at which a vCPU that runs freely came to EL2, lies in an
/// exclusive sequence: that has lost the CPU's monitor by it.
#[must_use]
pub fn is_in_sequence<C: Cpu>(running: &Running<'_, C>, pc: Va) -> bool {
    let ram = &running.domain.ram;
    let Some(page) = code_page(running, pc) else { return false };
    let offset = pc.0 % PAGE_BYTES;
    match InstructionSet::of(running.core.pstate()) {
        InstructionSet::A64 => {
            let word = |n| ram.instruction(page, Va(n as u64 * 4)).unwrap_or(0);
            let at = offset as usize / 4;
            let link = running.core.context.register(30);
            let is_here = link.wrapping_sub(pc.align_down(PAGE_BYTES).0) < PAGE_BYTES;
            let link = is_here.then_some((link % PAGE_BYTES) as usize / 4);
            is_store(word(at)) || load_before(at, word).is_some() || leads_to_store(at, link, word)
        }
        set => {
            let halfword = |at| ram.halfword(page, Va(at));
            is_store32(set, offset, halfword) || has_load_before32(set, offset, halfword)
        }
    }
}

/// The index in the page of `pc` of where X30 points.
pub fn link_in_page<C: Cpu>(running: &Running<'_, C>, pc: Va) -> Option<usize> {
    let link = running.core.context.register(30);
    let is_here = link / PAGE_BYTES == pc.0 / PAGE_BYTES;
    is_here.then_some((link % PAGE_BYTES) as usize / 4)
}

/// What comes of a watchpoint in a register, the debugger's or the guest's own, that the access of a
/// stage-2 abort hits, where EL2 is to carry the access out: a Watchpoint comes after an MMU fault, and
/// the CPU did not get to it.
#[inline]
pub fn watchpoint<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Option<Handled> {
    let debug = &running.core.debug;
    let may_hit = !debug.watched.is_empty() || debug.mdscr() & mdscr_el1::MDE != 0;
    if may_hit { hit_by_access(running, esr) } else { None }
}

#[inline(never)]
fn hit_by_access<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Option<Handled> {
    let is_watched = !running.core.debug.watched.is_empty() && !running.core.is_act_acknowledged();
    let Operand { address, bytes, read, write, is_all } = operand::operand(running, esr);
    if is_watched && let Some(reason) = watch::accesses(running, address, bytes, read, write) {
        return Some(Handled::Stop(reason));
    }
    let el0 = has_rights_of_el0(running);
    // Of what is not known the guest is told of what is certain.
    let bytes = if is_all { bytes } else { 1 };
    debug::own_watchpoint(running, DataAccess { address, bytes, read, write, el0 })
}

/// Where stage 2 had no translation at all: tells whether another vCPU is changing the tables, or was,
/// and waits until that is over. All RAM has one.
#[must_use]
pub fn is_being_changed<C: Cpu>(running: &Running<'_, C>) -> bool {
    let is_ram = || running.domain.ram.locate(operand::fault_address(running), 1).is_ok();
    let may_be = running.core.vttbr != running.domain.vttbr && is_ram();
    if may_be {
        drop(running.domain.views.lock());
    }
    may_be
}

/// Handles a stage-2 abort of a load or store, if it is about a page of interest.
#[inline]
pub fn data_abort<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Option<Handled> {
    let is_withheld = running.core.vttbr != running.domain.vttbr;
    if is_withheld { data_abort_in_views(running, esr) } else { None }
}

#[inline(never)]
fn data_abort_in_views<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Option<Handled> {
    let iss = esr.data_abort();
    if iss.dfsc().is_translation() && is_being_changed(running) {
        return Some(Handled::Resume);
    }
    if !iss.dfsc().is_permission() {
        return None;
    }
    let far = running.core.context.far;
    // HPFAR_EL2 is UNKNOWN for permission faults but those of walks.
    let ipa = if iss.s1ptw() { None } else { to_ipa(running, far) };
    let Some(ipa) = ipa else {
        // A walk of the guest's tables was in the way, or these have just changed.
        running.core.write_set = WriteSet::Unknown;
        return Some(Handled::Unrestricted);
    };
    let operand = operand::operand(running, esr);
    let is_maintenance = operand::is_maintenance(running, esr);
    if !running.core.is_act_acknowledged() && !is_maintenance {
        let Operand { address, bytes, read, write, .. } = operand;
        if let Some(reason) = watch::accesses(running, address, bytes, read, write) {
            return Some(Handled::Stop(reason));
        }
    }
    if !is_maintenance && carry_out(running, esr, ipa, operand) {
        return Some(Handled::Emulated);
    }
    running.core.write_set = write_set(running, operand);
    Some(Handled::Unrestricted)
}

/// Takes down what an instruction may write.
pub(super) fn write_set<C: Cpu>(running: &Running<'_, C>, operand: Operand) -> WriteSet {
    if !operand.is_all {
        return WriteSet::Unknown;
    }
    if !operand.write {
        return WriteSet::Empty;
    }
    let Operand { address, bytes, .. } = operand;
    let first = (PAGE_BYTES - address % PAGE_BYTES).min(bytes);
    let mut pieces = Vec::new();
    for (va, bytes) in [(address, first), (address.wrapping_add(first), bytes - first)] {
        if bytes > 0 {
            let Some(ipa) = to_ipa(running, va) else { return WriteSet::Unknown };
            // There is room for both.
            let _fits = pieces.push((ipa, bytes));
        }
    }
    WriteSet::Pieces(pieces)
}

/// EL2 has written guest memory for the guest: brings up to date what depends on it.
#[inline(always)]
pub fn written<C: Cpu>(running: &Running<'_, C>, ipa: Ipa, bytes: u64) {
    running.domain.sync_views(ipa, bytes);
    address_space::stored(running, ipa, bytes);
}

/// After the instruction, or when it is given up: brings what the guest executes up to date.
#[inline]
pub fn settle<C: Cpu>(running: &mut Running<'_, C>) {
    if !matches!(running.core.write_set, WriteSet::Empty) {
        settle_touched(running);
    }
}

fn settle_touched<C: Cpu>(running: &mut Running<'_, C>) {
    match core::mem::take(&mut running.core.write_set) {
        WriteSet::Empty => {}
        WriteSet::Pieces(pieces) => {
            for (ipa, bytes) in pieces {
                written(running, ipa, bytes);
            }
        }
        WriteSet::Unknown => {
            running.domain.views.lock().sync_all(&mut running.domain.ram.tables());
            address_space::stored_anywhere(running);
        }
    }
}

/// Carries out a load or store of general-purpose registers, if nothing else depends on it: that
/// costs a tenth of letting the CPU do it with other tables.
fn carry_out<C: Cpu>(
    running: &mut Running<'_, C>,
    esr: EsrEl2,
    ipa: Ipa,
    operand: Operand,
) -> bool {
    let is_write = esr.data_abort().wnr();
    let keeps_dirty_state = is_write && running.cpu.read(SystemRegister::TCR_EL1) & TCR_HD != 0;
    if running.core.debug.guest().mdscr & mdscr_el1::MDE != 0
        || running.cpu.read(SystemRegister::SCTLR_EL1) & SCTLR_BIG_ENDIAN != 0
        || running.cpu.read(SystemRegister::ID_AA64PFR1_EL1) & PFR1_MTE2 != 0
        || keeps_dirty_state
        || is_for_the_cpu_alone(running.core.pstate(), esr)
    {
        return false;
    }
    let is_done = match MmioAccess::decode(esr.0) {
        // What lies in two pages may lie in two places.
        Some(_) if !operand.is_in_page_from(running.core.context.far) => false,
        Some(access) => carry_out_described(running, access, esr.0 & ISS_AR != 0, ipa),
        None => carry_out_decoded(running, ipa),
    };
    if is_done {
        advance(running);
    }
    is_done
}

/// AArch32 accesses that only the CPU understands: big-endian ones, and what the syndrome does not
/// describe, since only A64 is decoded.
fn is_for_the_cpu_alone(pstate: Pstate, esr: EsrEl2) -> bool {
    pstate.is_aarch32() && (pstate.0 & Pstate::E != 0 || MmioAccess::decode(esr.0).is_none())
}

fn carry_out_described<C: Cpu>(
    running: &mut Running<'_, C>,
    access: MmioAccess,
    is_ordered: bool,
    ipa: Ipa,
) -> bool {
    let ram = &running.domain.ram;
    let Ok(pa) = ram.locate(ipa, u64::from(access.bytes)) else { return false };
    if is_ordered {
        fence(Ordering::SeqCst);
    }
    if access.write {
        let value = access.store_value(running.core.context.register(access.register));
        address_space::before_store(running, ipa, access.bytes, value);
        running.domain.about_to_store(ipa, access.bytes.into());
        if ram.poke(pa, access.bytes, value).is_err() {
            return false;
        }
        written(running, ipa, u64::from(access.bytes));
    } else {
        let Ok([value, _]) = ram.peek(pa, access.bytes, false) else { return false };
        running.core.context.set_register(access.register, access.load_result(value));
    }
    if is_ordered {
        fence(Ordering::SeqCst);
    }
    true
}

/// As [`carry_out_described`], where the instruction itself has to tell.
fn carry_out_decoded<C: Cpu>(running: &mut Running<'_, C>, ipa: Ipa) -> bool {
    let word = instruction(running);
    let Some(transfer) = word.and_then(Transfer::decode) else { return false };
    let base = base(running, transfer.base);
    let (ram, core) = (&running.domain.ram, &mut *running.core);
    let size = u64::from(transfer.bytes);
    let address = base.wrapping_add(transfer.offset as u64);
    let first = ipa.align_down(PAGE_BYTES).offset(address % PAGE_BYTES);
    let all = size * u64::from(transfer.count);
    // All of it in the page of the abort.
    let is_here =
        (address ^ core.context.far) < PAGE_BYTES && address % PAGE_BYTES + all <= PAGE_BYTES;
    let Some(pa) = ram.locate(first, all).ok().filter(|pa| is_here && pa.is_aligned(size)) else {
        return false;
    };
    if transfer.write {
        running.domain.about_to_store(first, all);
    }
    for (n, &register) in (0..u64::from(transfer.count)).zip(&transfer.registers) {
        let at = pa.offset(n * size);
        // Aligned, and in RAM: neither can fail.
        if transfer.write {
            let _stored = ram.poke(at, transfer.bytes, core.context.register(register));
        } else if let Ok([value, _]) = ram.peek(at, transfer.bytes, false) {
            core.context.set_register(register, transfer.load_result(value));
        }
    }
    if transfer.moved != 0 {
        set_base(running, transfer.base, base.wrapping_add(transfer.moved as u64));
    }
    if transfer.write {
        written(running, first, all);
    }
    true
}
