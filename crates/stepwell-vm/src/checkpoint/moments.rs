//! A domain's moments: kept, gone to, and let go.

use super::values::Values;
use super::versions::Full;
use super::{Kept, Ram};
use crate::cpu::Cpu;
use crate::device::board::RAM_BASE;
use crate::domain::{Control, Domain, Power, bit};
use crate::memory::GuestMemory;
use crate::simd::Sve;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::address_space;
use crate::vcpu::state::{VcpuCore, VcpuValues};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hint::black_box;
use stepwell_arch::{Ipa, Pa};
use stepwell_protocol::Refusal;

/// What is given out at a time is rounded up to a power of two.
const ROUNDED_UP: usize = 2;

impl<C: Cpu> Domain<C> {
    /// Keeps the moment at which a domain is stopped. Returns its number.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotCounted`], [`Refusal::Unsupported`] where no memory was set aside, and
    /// [`Refusal::NoMemory`]. What devices have behind their queues is the tool's to keep.
    pub fn keep_moment(&self, control: &Control) -> Result<u64, Refusal> {
        let moment = self.timeline.as_ref().ok_or(Refusal::NotCounted)?.lock().now();
        let mut state = self.checkpoints.state.lock();
        let state = state.as_mut().ok_or(Refusal::Unsupported)?;
        let bit = 1_u64.checked_shl(state.bits().trailing_ones()).ok_or(Refusal::NoMemory)?;
        let values = Values::of(self, control).ok_or(Refusal::NoMemory)?;
        if self.checkpoints.withholds() {
            self.withhold_stores(state.versions.open_pages());
        } else {
            self.withhold_all_stores()?;
        }
        state.versions.keep(bit);
        let number = state.next;
        state.next += 1;
        let at = state.kept.partition_point(|kept| kept.moment <= moment);
        // There is room for every bit.
        let _fits = state.kept.insert(at, Kept { number, moment, bit, values });
        Ok(number)
    }

    /// Takes a stopped domain to a moment that is kept.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchCheckpoint`]; nothing has changed then. [`Refusal::NoMemory`] where breakpoints
    /// could not be put where they belong at that moment: it is there all the same.
    pub fn go_to_moment(&self, cpu: &C, control: &mut Control, number: u64) -> Result<(), Refusal> {
        let mut state = self.checkpoints.state.lock();
        let state = state.as_mut().ok_or(Refusal::NoSuchCheckpoint)?;
        let bit = state.find(number)?.bit;
        self.withhold_stores(state.versions.open_pages());
        while state.versions.go_to(&Ram(&self.ram), bit) == Err(Full) {
            if !state.thin_out(Some(bit)) {
                return Err(Refusal::NoMemory);
            }
        }
        state.find(number)?.values.restore(self, control);
        self.has_moved(cpu, control)
    }

    /// Lets a moment go. Tells whether it was this domain's.
    pub fn forget_moment(&self, number: u64) -> bool {
        let mut state = self.checkpoints.state.lock();
        let Some(state) = state.as_mut() else { return false };
        let at = state.kept.iter().position(|kept| kept.number == number);
        at.is_some_and(|at| state.forget_at(at))
    }

    /// Tells whether a part of the RAM may have been written between two moments.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchCheckpoint`], [`Refusal::NotMapped`].
    pub fn wrote_between(
        &self,
        (from, to): (u64, u64),
        ipa: Ipa,
        bytes: u64,
    ) -> Result<bool, Refusal> {
        let state = self.checkpoints.state.lock();
        let state = state.as_ref().ok_or(Refusal::NoSuchCheckpoint)?;
        let (from, to) = (state.find(from)?.bit, state.find(to)?.bit);
        let mut pages = self.pages_of(ipa, bytes).ok_or(Refusal::NotMapped(ipa.0))?;
        Ok(pages.any(|page| state.versions.differs(page, from, to)))
    }

    /// Before EL2 stores `bytes` bytes, at least one, from an address in RAM on.
    #[inline]
    pub fn about_to_store(&self, ipa: Ipa, bytes: u64) {
        if self.checkpoints.withholds() {
            self.open_pages(ipa, bytes);
        }
    }

    /// As [`Domain::about_to_store`], at a physical address.
    #[inline]
    pub fn about_to_store_at(&self, pa: Pa, bytes: u64) {
        self.about_to_store(RAM_BASE.offset(pa.0.wrapping_sub(self.ram.base().0)), bytes);
    }

    pub(super) fn open_pages(&self, ipa: Ipa, bytes: u64) {
        if let (Some(state), Some(pages)) =
            (self.checkpoints.state.lock().as_mut(), self.pages_of(ipa, bytes))
        {
            pages.for_each(|page| state.open(&self.ram, page));
        }
    }

    /// The numbers of the pages of a part of the RAM.
    fn pages_of(&self, ipa: Ipa, bytes: u64) -> Option<impl Iterator<Item = usize> + use<C>> {
        self.ram.locate(ipa, bytes).ok()?;
        let first = ipa.0.checked_sub(RAM_BASE.0)?;
        let end = first.checked_add(bytes)?.div_ceil(PAGE_BYTES);
        Some((first / PAGE_BYTES..end).map(|page| page as usize))
    }

    /// RAM and registers are those of another moment: has everything that was made from them made anew.
    fn has_moved(&self, cpu: &C, control: &Control) -> Result<(), Refusal> {
        self.views.lock().sync_all(&mut self.ram.tables());
        if !self.follow.is_used() {
            return Ok(());
        }
        let spaces = address_space::of_all_stopped(cpu, self, control);
        let mut entered =
            spaces.map(|(vcpu, regime)| self.follow.enter(vcpu, regime, &self.ram, &self.views));
        let result = entered.try_for_each(|entered| entered).and(self.stored(None));
        result.map_err(|_| Refusal::NoMemory)
    }
}

impl Values {
    /// Copies a domain's; nothing where there is no memory for them.
    fn of<C: Cpu>(domain: &Domain<C>, control: &Control) -> Option<Box<Self>> {
        if !has_room(bytes_of(domain).checked_mul(ROUNDED_UP)?) {
            return None;
        }
        let vcpus = domain.vcpus.iter().map(|vcpu| vcpu.core.lock().values());
        Some(Box::new(Self {
            timeline: domain.timeline.as_ref().map(|timeline| timeline.lock().clone()),
            vgic: domain.vgic.lock().clone(),
            uart: domain.uart.lock().clone(),
            virtio: domain.virtio.lock().clone(),
            peripherals: domain.peripherals.lock().registers,
            on: powered(control),
            vcpus: vcpus.collect(),
        }))
    }

    /// Makes a domain what it was.
    fn restore<C: Cpu>(&self, domain: &Domain<C>, control: &mut Control) {
        if let (Some(timeline), Some(was)) = (&domain.timeline, &self.timeline) {
            let mut timeline = timeline.lock();
            timeline.clone_from(was);
            let _until = timeline.stop_at(None, None);
        }
        *domain.vgic.change() = self.vgic.clone();
        domain.uart.lock().clone_from(&self.uart);
        domain.virtio.lock().clone_from(&self.virtio);
        domain.peripherals.lock().registers = self.peripherals;
        for (index, power) in control.power.iter_mut().enumerate() {
            *power = if self.on & bit(index) == 0 { Power::Off } else { Power::On };
        }
        // As after a stop at a moment: nobody was told of the instructions that are next.
        for (vcpu, was) in domain.vcpus.iter().zip(&self.vcpus) {
            vcpu.core.lock().restore(was);
        }
    }
}

/// Bytes that a domain's values take at most.
fn bytes_of<C: Cpu>(domain: &Domain<C>) -> usize {
    let of_vcpu = |core: &VcpuCore<C>| {
        let sve = core.simd.sve.as_ref().map_or(0, |_| Sve::BYTES);
        size_of::<VcpuValues>().saturating_add(sve)
    };
    let vcpus = domain.vcpus.iter().map(|vcpu| of_vcpu(&vcpu.core.lock()));
    vcpus.fold(size_of::<Values>(), usize::saturating_add)
}

/// Tells whether there is room for so many bytes. What is copied after that cannot run out of memory:
/// nobody else takes any while a command is served.
fn has_room(bytes: usize) -> bool {
    let mut room: Vec<u8> = Vec::new();
    let has_room = room.try_reserve_exact(bytes).is_ok();
    // It is to be asked for, although nothing is put there.
    let _kept = black_box(&mut room);
    has_room
}

fn powered(control: &Control) -> u8 {
    let power = control.power.iter().enumerate();
    power.filter(|(_, power)| **power == Power::On).fold(0, |on, (index, _)| on | bit(index))
}
