//! Filling list registers before an entry, and taking them back after an exit.
//!
//! Usually everything fits. When it does not, the choice is made so that the guest cannot tell:
//! the most urgent pending interrupts are loaded, and ICH_HCR_EL2.NPIE brings us back when all of
//! those have been acknowledged; of the active ones the most urgent are, because those end first,
//! and EOIcount says how many ended that were not loaded. One list register is kept for a pending
//! interrupt even when active ones could fill them all, since it might preempt them.
//!
//! A level-sensitive interrupt asks for a maintenance interrupt on deactivation, so that its input
//! is sampled again: it is never pending and active in a list register, where a line that falls in
//! between could not be taken back.

use heapless::Vec;

use super::bank::{Bank, Groups, Returned, bit_mask, bits};
use super::list_registers::{IMPLEMENTED_PRIORITY, hcr};
use super::{CpuInterface, ListRegister, Signal, Vgic};

/// List registers that the architecture can have.
const LIST_REGISTERS_MAX: usize = 16;

/// An interrupt in a list register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub intid: usize,
    was_pending: bool,
    was_active: bool,
}

/// What a vCPU's list registers were filled with, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Loaded(Vec<Entry, LIST_REGISTERS_MAX>);

impl Loaded {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

/// An interrupt that a list register of the vCPU should have.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    intid: usize,
    priority: u8,
    group1: bool,
    /// Priority and group in which it was acknowledged. Only by these the CPU interface knows, at its
    /// end, that it is the one whose priority is dropped.
    running: (u8, bool),
    /// A handler is to end it.
    acknowledged: bool,
    /// To be signalled.
    pending: bool,
    active: bool,
    /// Something is to be done when it is deactivated.
    watched: bool,
}

impl Candidate {
    /// The order of delivery: by priority, then by INTID, as a distributor chooses.
    const fn rank(&self) -> Rank {
        (false, self.priority, self.intid)
    }

    /// The order of ending: a handler ends before the one that it preempted, and what was made active
    /// by a write has none.
    const fn end_rank(&self) -> Rank {
        (!self.acknowledged, self.running.0, self.intid)
    }

    /// Puts off being signalled again until we were told of the deactivation.
    const fn watch(&mut self) {
        self.watched |= self.pending;
        self.pending = false;
    }

    const fn list_register(&self) -> ListRegister {
        let (priority, group1) =
            if self.active { self.running } else { (self.priority, self.group1) };
        ListRegister::new(
            self.intid as u32,
            priority,
            group1,
            self.pending,
            self.active,
            self.watched,
        )
    }
}

/// A place in an order: what comes last at all, a priority, an INTID.
type Rank = (bool, u8, usize);

/// What goes into the list registers.
type Chosen = Vec<Candidate, LIST_REGISTERS_MAX>;

/// What found no room in the list registers.
struct Left {
    active: bool,
    pending: bool,
}

/// The first in some order of the candidates offered.
struct Ranking {
    best: Chosen,
    rank: fn(&Candidate) -> Rank,
    room: usize,
    offered: usize,
}

impl Ranking {
    const fn new(room: usize, rank: fn(&Candidate) -> Rank) -> Self {
        Self { best: Vec::new(), rank, room, offered: 0 }
    }

    fn offer(&mut self, candidate: Candidate) {
        self.offered += 1;
        let place = self.best.iter().position(|other| (self.rank)(&candidate) < (self.rank)(other));
        let place = place.unwrap_or(self.best.len());
        if self.best.len() >= self.room {
            if place >= self.best.len() {
                return;
            }
            self.best.pop();
        }
        // There is room: one was taken out, or there are fewer than the capacity.
        let _ = self.best.insert(place, candidate);
    }
}

impl Vgic {
    /// Fills the list registers before an entry. Every flush is followed by one [`Vgic::sync`]
    /// before anything else is done on behalf of `vcpu`.
    ///
    /// `hold` leaves out what is pending, so that no interrupt is delivered; what is active stays,
    /// so that the guest's handlers can end.
    pub fn flush(&mut self, vcpu: usize, hold: bool, interface: &mut CpuInterface) {
        self.unload(vcpu);
        interface.lr.iter_mut().take(interface.lr_count).for_each(|value| *value = 0);
        if self.is_idle(vcpu) || hold && !self.is_any_active(vcpu) {
            // As most entries find it, above all those of a stepped guest.
            return Self::set_controls(interface, false, false);
        }
        let (chosen, left) = self.choose(vcpu, hold, interface);
        for (value, candidate) in interface.lr.iter_mut().zip(&chosen) {
            let register = candidate.list_register();
            *value = match self.sender(vcpu, candidate.intid) {
                Some(sender) => register.sent_by(sender).0,
                None => register.0,
            };
            self.load(vcpu, candidate);
        }
        Self::set_controls(interface, left.active, left.pending);
    }

    /// Tells whether no interrupt is pending or active that could be this vCPU's.
    fn is_idle(&self, vcpu: usize) -> bool {
        let own = self.redistributors.get(vcpu).is_none_or(|r| r.bank.is_idle());
        own && self.distributor.banks().all(|(_, bank)| bank.is_idle())
    }

    /// Tells whether an interrupt is active that could be this vCPU's.
    fn is_any_active(&self, vcpu: usize) -> bool {
        let own = self.redistributors.get(vcpu).is_some_and(|r| r.bank.active != 0);
        own || self.distributor.banks().any(|(_, bank)| bank.active != 0)
    }

    /// Chooses what goes into the list registers, in the order of delivery.
    fn choose(&self, vcpu: usize, hold: bool, interface: &CpuInterface) -> (Chosen, Left) {
        let room = interface.lr_count.min(LIST_REGISTERS_MAX);
        let mut active = Ranking::new(room, Candidate::end_rank);
        let mut pending = Ranking::new(room, Candidate::rank);
        // Those whose group the guest's CPU interface has off wait behind those it would take.
        let mut masked = Ranking::new(room, Candidate::rank);
        for mut candidate in self.candidates(vcpu) {
            candidate.pending &= !hold;
            if candidate.active {
                active.offer(candidate);
            } else if candidate.pending && interface.enables(candidate.group1) {
                pending.offer(candidate);
            } else if candidate.pending {
                masked.offer(candidate);
            }
        }
        let waiting = pending.offered + masked.offered;
        let for_pending = usize::from(waiting > 0);
        let for_active = active.best.len().min(room.saturating_sub(for_pending));
        let chosen = active.best.iter().take(for_active).chain(&pending.best).chain(&masked.best);
        let mut chosen: Chosen = chosen.copied().take(room).collect();
        let left = Left {
            active: active.offered > for_active,
            pending: waiting + for_active > chosen.len(),
        };
        if left.pending {
            // What comes back from active to pending must not overtake those left out.
            chosen.iter_mut().filter(|candidate| candidate.active).for_each(Candidate::watch);
        }
        // Of equals hardware takes the lowest list register: let it be that of the lowest INTID.
        chosen.sort_unstable_by_key(Candidate::rank);
        (chosen, left)
    }

    /// Sets what ICH_HCR_EL2 must say beside a full or not so full set of list registers.
    fn set_controls(interface: &mut CpuInterface, actives_left: bool, pending_left: bool) {
        // ICC_DIR_EL1 may name an interrupt that another vCPU acknowledges meanwhile.
        let mut value = interface.hcr & !hcr::OWNED | hcr::EN | hcr::TDIR;
        if pending_left {
            value |= hcr::NPIE;
            // A disabled group's interrupts may be the ones left out.
            value |= if interface.enables(false) { 0 } else { hcr::VGRP0EIE };
            value |= if interface.enables(true) { 0 } else { hcr::VGRP1EIE };
        }
        if actives_left {
            value |= hcr::LRENPIE;
        }
        interface.hcr = value;
    }

    /// Notes an interrupt as loaded.
    fn load(&mut self, vcpu: usize, candidate: &Candidate) {
        let Candidate { intid, pending, active, .. } = *candidate;
        let Some(loaded) = self.loaded.get_mut(vcpu) else { return };
        if loaded.0.push(Entry { intid, was_pending: pending, was_active: active }).is_ok()
            && let Some(bank) = self.bank_mut(vcpu, intid)
        {
            bank.load(bit_mask(intid % 32));
        }
    }

    /// Forgets what was loaded, should a caller flush twice: as if it had not been.
    fn unload(&mut self, vcpu: usize) {
        let Some(loaded) = self.loaded.get_mut(vcpu).filter(|loaded| !loaded.0.is_empty()) else {
            return;
        };
        for entry in core::mem::take(&mut loaded.0) {
            if let Some(bank) = self.bank_mut(vcpu, entry.intid) {
                bank.loaded &= !bit_mask(entry.intid % 32);
            }
        }
    }

    /// Takes the list registers back after an exit. Returns the PPIs that the guest deactivated,
    /// bit n for INTID n, whose inputs are to be sampled again.
    pub fn sync(&mut self, vcpu: usize, interface: &CpuInterface) -> u32 {
        self.awaited.no_longer(vcpu);
        let mut deactivated = self.end_unloaded(vcpu, interface);
        let Some(loaded) = self.loaded.get_mut(vcpu).filter(|loaded| !loaded.0.is_empty()) else {
            return deactivated & PPIS;
        };
        let entries = core::mem::take(&mut loaded.0);
        for (entry, register) in entries.iter().zip(interface.list_registers()) {
            deactivated |= self.take_back(vcpu, *entry, register);
        }
        deactivated & PPIS
    }

    fn take_back(&mut self, vcpu: usize, entry: Entry, register: ListRegister) -> u32 {
        let bit = bit_mask(entry.intid % 32);
        let returned = Returned {
            was_pending: entry.was_pending,
            was_active: entry.was_active,
            is_pending: register.is_pending(),
            is_active: register.is_active(),
        };
        let Some(bank) = self.bank_mut(vcpu, entry.intid) else { return 0 };
        let folded = bank.fold(bit, returned);
        if folded.activated {
            bank.set_running(entry.intid % 32, register.priority(), register.is_group1());
        }
        if returned.was_pending && !returned.is_pending {
            self.take_sender(vcpu, entry.intid, register.sender());
        }
        let Some(spi) = entry.intid.checked_sub(32) else {
            return if folded.deactivated { bit } else { 0 };
        };
        if folded.activated {
            self.distributor.set_home(spi, vcpu);
        }
        // It may be for another vCPU by now, which could not have it while it was loaded here.
        self.notice_spis(spi / 32, bit, Some(vcpu));
        0
    }

    /// Deactivates interrupts that ended without being in a list register.
    ///
    /// EOIcount does not say which. An interrupt handler ends before the one that it preempted, so
    /// it was the most urgent of those not loaded. Where the guest deactivates by ICC_DIR_EL1, which
    /// traps, nothing has ended: QEMU counts the priority drop.
    fn end_unloaded(&mut self, vcpu: usize, interface: &CpuInterface) -> u32 {
        if interface.splits_eoi() {
            return 0;
        }
        let ended = (interface.hcr & hcr::EOICOUNT) >> hcr::EOICOUNT_SHIFT;
        let mut deactivated = 0;
        for _ in 0..ended {
            let unloaded = self.candidates(vcpu).filter(|candidate| candidate.active);
            let Some(first) = unloaded.min_by_key(Candidate::end_rank) else { break };
            deactivated |= self.deactivate(vcpu, first.intid);
        }
        deactivated
    }

    fn deactivate(&mut self, vcpu: usize, intid: usize) -> u32 {
        let bit = bit_mask(intid % 32);
        let Some(bank) = self.bank_mut(vcpu, intid) else { return 0 };
        bank.active &= !bit;
        match intid.checked_sub(32) {
            None => bit,
            Some(spi) => {
                self.notice_spis(spi / 32, bit, Some(vcpu));
                0
            }
        }
    }

    /// Performs a write of ICC_DIR_EL1, which traps. Returns the PPI that this deactivated, like [`Vgic::sync`], after which it is to be called.
    pub fn write_dir(&mut self, vcpu: usize, value: u64) -> u32 {
        usize::try_from(value & 0xff_ffff).map_or(0, |intid| self.deactivate(vcpu, intid)) & PPIS
    }

    /// Tells what the vCPU would be signalled if it ran, whatever PSTATE masks. To be asked between
    /// `sync` and `flush`; after `flush` [`CpuInterface::signal`] says the same of what is loaded.
    #[must_use]
    pub fn signal(&self, vcpu: usize, interface: &CpuInterface) -> Option<Signal> {
        self.signalled(vcpu, interface).map(|(signal, _)| signal)
    }

    /// As [`Vgic::signal`], with the INTID that it is signalled for.
    #[must_use]
    pub fn signalled(&self, vcpu: usize, interface: &CpuInterface) -> Option<(Signal, u32)> {
        let groups = self.distributor.groups();
        let mut best: Option<((u8, usize), bool)> = None;
        // One bank after the other, of which most have none: this is asked around steps.
        let mut offer = |bank: &Bank, first: usize, wanted: u32| {
            for bit in bits(wanted) {
                let group1 = bank.group & bit_mask(bit) != 0;
                let rank = (bank.priority(bit), first + bit);
                let can_be = interface.enables(group1) && bank.priority(bit) < LEAST_PRIORITY;
                if can_be && best.is_none_or(|(other, _)| rank < other) {
                    best = Some((rank, group1));
                }
            }
        };
        if let Some(own) = self.redistributors.get(vcpu) {
            offer(&own.bank, 0, own.bank.deliverable(groups));
        }
        for (index, bank) in self.distributor.banks() {
            let spis = bits(bank.deliverable(groups));
            let ours = spis.filter(|bit| self.is_for(vcpu, index * 32 + bit));
            let ours = ours.fold(0, |ours, bit| ours | bit_mask(bit));
            offer(bank, (index + 1) * 32, ours);
        }
        let ((priority, intid), group1) = best?;
        let signal = interface.signal_of(group1);
        let intid = u32::try_from(intid).ok()?;
        interface.can_preempt(priority, group1).then_some((signal, intid))
    }

    /// Tells whether an SPI that is pending goes to a vCPU.
    fn is_for(&self, vcpu: usize, spi: usize) -> bool {
        self.distributor.target(spi, self.vcpus) == Some(vcpu)
    }

    /// Tells whether WFI ends: whether there is anything to signal.
    #[must_use]
    pub fn has_pending(&self, vcpu: usize, interface: &CpuInterface) -> bool {
        self.signal(vcpu, interface).is_some()
    }

    /// What should be in the list registers of a vCPU, apart from what is in some already.
    fn candidates(&self, vcpu: usize) -> impl Iterator<Item = Candidate> {
        let groups = self.distributor.groups();
        let own = self.redistributors.get(vcpu).map(|redistributor| &redistributor.bank);
        let private = own.into_iter().flat_map(move |bank| {
            let wanted = bank.deliverable(groups) | bank.active & !bank.loaded;
            bits(wanted).map(move |bit| candidate(bank, bit, bit, groups, true))
        });
        let shared = self.distributor.banks().flat_map(move |(index, bank)| {
            let wanted = bank.deliverable(groups) | bank.active & !bank.loaded;
            bits(wanted).filter_map(move |bit| {
                let spi = index * 32 + bit;
                let for_us = self.is_for(vcpu, spi);
                let candidate = candidate(bank, bit, spi + 32, groups, for_us);
                let here =
                    if candidate.active { self.distributor.home(spi) == vcpu } else { for_us };
                here.then_some(candidate)
            })
        });
        private.chain(shared)
    }

    /// The words that have an interrupt of a vCPU.
    fn bank_mut(&mut self, vcpu: usize, intid: usize) -> Option<&mut Bank> {
        match (intid / 32).checked_sub(1) {
            None => self.redistributors.get_mut(vcpu).map(|redistributor| &mut redistributor.bank),
            Some(index) => self.distributor.bank_mut(index),
        }
    }
}

/// No priority mask lets this one through; of it a list register has the upper bits only.
const LEAST_PRIORITY: u8 = 0xff;

/// INTIDs of PPIs.
const PPIS: u32 = 0xffff_0000;

/// Describes an interrupt of a bank; `for_us` tells whether it is routed to the vCPU in question.
fn candidate(bank: &Bank, bit: usize, intid: usize, groups: Groups, for_us: bool) -> Candidate {
    let mask = bit_mask(bit);
    let active = bank.active & mask != 0;
    let edge = bank.edge & mask != 0;
    let enabled = bank.enabled & groups.mask(bank.group) & mask != 0;
    let (priority, group1) = (bank.priority(bit), bank.group & mask != 0);
    let wanted = bank.pending() & mask != 0 && enabled && priority < LEAST_PRIORITY;
    let running = (bank.running(bit), bank.is_running_in_group1(bit));
    // What comes back from active to pending is signalled as what it was, not as what it has become.
    let is_same = running == (priority & IMPLEMENTED_PRIORITY, group1);
    let pending = wanted && (!active || edge && for_us && is_same);
    Candidate {
        intid,
        priority,
        group1,
        running,
        acknowledged: bank.is_acknowledged(bit),
        pending,
        active,
        // One that waits for its deactivation to go elsewhere needs us then, too.
        watched: !edge || wanted && !pending,
    }
}
