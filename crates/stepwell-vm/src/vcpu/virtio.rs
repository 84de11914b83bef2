//! What a store to a virtio-mmio slot leads to: queues that the tool serves.
//!
//! Where vCPUs are stepped, or instructions are counted, the vCPU that notifies a queue waits at EL2
//! until it has been served. By a clock that does not go on meanwhile that takes it no time, and
//! whatever it finds afterwards is a function of what it did: so runs with disks are repeatable without
//! a log of them.
//!
//! Where all of the guest runs, in real time, the vCPU goes on at once, or nearly so
//! ([`is_asynchronous`](Domain::is_asynchronous)): the link's interrupt tells of the answer, and
//! whoever takes that writes it into the guest's memory. A vCPU that stops waits for what is in flight:
//! a stopped guest's memory does not change.
//!
//! Input (a frame) arrives while the guest runs or is stepped: the tool says which slot has some, and its
//! first queue is served then.
//!
//! Nothing is locked while the tool is at it.

use super::{address_space, interrupt};
use crate::cpu::Cpu;
use crate::device::virtio::{Effect, FIRST_INTID, Outcome, SLOTS};
use crate::domain::{Domain, bit};
use crate::link::Queues;
use crate::machine::Machine;
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::running::Running;
use core::sync::atomic::{Ordering, fence};
use stepwell_arch::Ipa;
use stepwell_wire::devices::{Bytes, QueueRequest, Served};

/// How often a vCPU that need not wait for an answer looks for it all the same: for a millisecond or
/// two, in which a request is served mostly. An interrupt takes a turn of the emulator's main loop, which
/// on a busy host is longer than that; what is worth it is a flush.
const LOOKS: usize = 20_000;
/// "The Virtqueue Available Ring": the driver does not want to hear of what was used.
const NO_INTERRUPT: u16 = 1;

/// Performs a store.
pub(super) fn write<C: Cpu>(
    running: &mut Running<'_, C>,
    slot: usize,
    offset: u64,
    bytes: u8,
    value: u64,
) {
    let Running { machine, domain, cpu, .. } = *running;
    while domain.virtio.lock().must_wait(slot, offset) {
        let _is_left = serve(machine, cpu, false);
        core::hint::spin_loop();
    }
    let mut virtio = domain.virtio.lock();
    let effect = virtio.write(slot, offset, bytes, value);
    if let Effect::Notified(queue) = effect {
        virtio.notify(slot, queue);
    }
    drop(virtio);
    update_line(cpu, machine, domain, slot);
    if effect == Effect::None {
        return;
    }
    if domain.is_asynchronous.load(Ordering::Acquire) {
        look(machine, cpu);
    } else {
        settle(machine, cpu, domain);
    }
}

/// Has queues served, and waits for them a little.
fn look<C: Cpu>(machine: &Machine<C>, cpu: &C) {
    for _ in 0..LOOKS {
        if !serve(machine, cpu, false) {
            return;
        }
        core::hint::spin_loop();
    }
    attend(machine, cpu);
}

/// Takes what has been served, has the next queues served, and leaves.
pub(super) fn attend<C: Cpu>(machine: &Machine<C>, cpu: &C) {
    let _is_left = serve(machine, cpu, true);
}

/// Waits until all queues of a domain have been served.
pub(super) fn settle<C: Cpu>(machine: &Machine<C>, cpu: &C, domain: &Domain<C>) {
    while domain.virtio.lock().has_work() {
        let _is_left = serve(machine, cpu, false);
        core::hint::spin_loop();
    }
}

fn serve<C: Cpu>(machine: &Machine<C>, cpu: &C, leaving: bool) -> bool {
    machine.link.serve_queues(&mut OfMachine { machine, cpu }, leaving)
}

/// The queues of all guests, as whatever CPU looks at them.
struct OfMachine<'a, C: Cpu> {
    machine: &'a Machine<C>,
    cpu: &'a C,
}

impl<'a, C: Cpu> OfMachine<'a, C> {
    fn domain(&self, id: u8) -> Option<&'a Domain<C>> {
        self.machine.domains.iter().find(|domain| domain.id == id)
    }
}

impl<C: Cpu> Queues for OfMachine<'_, C> {
    /// A domain that is stopped, or about to be, takes it when it goes on.
    fn wanted(&mut self, domain: u8, slots: u32) -> bool {
        let Some(domain) = self.domain(domain) else { return true };
        // Held until the queues are due: whoever asks for a stop from here on finds that they are.
        let control = domain.control.lock();
        if control.running == 0 || control.stop.is_some() || control.ending.is_some() {
            return false;
        }
        let mut virtio = domain.virtio.lock();
        for slot in (0..SLOTS).filter(|slot| slots >> slot & 1 != 0) {
            virtio.notify(slot, 0);
        }
        true
    }

    fn next(&mut self) -> Option<QueueRequest> {
        self.machine.domains.iter().find_map(|domain| {
            let work = domain.virtio.lock().begin()?;
            Some(QueueRequest {
                domain: domain.id,
                slot: work.slot as u8,
                queue: work.number,
                size: work.queue.size,
                descriptors: work.queue.descriptors,
                driver: work.queue.driver,
                device: work.queue.device,
                next_available: work.queue.next_available,
                next_used: work.queue.next_used,
                features: work.features,
                ram: domain.ram.base().0,
                ram_bytes: domain.ram.bytes(),
            })
        })
    }

    /// Page by page. What is not RAM is not written: the tool has found all of it to be.
    fn write(&mut self, domain: u8, ipa: Ipa, bytes: Bytes<'_>) {
        let Some(domain) = self.domain(domain) else { return };
        domain.alone.device_writes();
        let (mut at, mut rest) = (ipa, bytes);
        while rest.length() > 0 {
            let in_page = PAGE_BYTES - at.0 % PAGE_BYTES;
            let (now, later) = rest.split_at(in_page as usize);
            let length = now.length() as u64;
            domain.about_to_store(at, length);
            if domain.ram.write_shared(at, now).is_ok() {
                domain.sync_views(at, length);
                let vcpu = vcpu_here(self.machine, domain, self.cpu).unwrap_or(0);
                address_space::stored_by_device(self.cpu, domain, vcpu, (at, length));
            }
            (at, rest) = (at.offset(length), later);
        }
    }

    fn served(&mut self, request: &QueueRequest, served: Served) {
        let Some(domain) = self.domain(request.domain) else { return };
        let outcome = match served {
            Served::Done { next_available, next_used } => {
                let has_used = next_used != request.next_used;
                let interrupt = has_used && is_interrupted(domain, request.driver);
                Outcome::Served { next_available, next_used, interrupt }
            }
            Served::Broken => Outcome::Broken,
        };
        let slot = usize::from(request.slot);
        domain.virtio.lock().finish(slot, request.queue, outcome);
        update_line(self.cpu, self.machine, domain, slot);
    }
}

/// Writes to the guest's memory for a device, page by page. What is not RAM is not written: the tool
/// has found all of it to be.
pub(super) fn write_memory<C: Cpu>(running: &Running<'_, C>, ipa: Ipa, bytes: &[u8]) {
    let domain = running.domain;
    let mut rest = bytes;
    let mut at = ipa;
    while !rest.is_empty() {
        let in_page = PAGE_BYTES - at.0 % PAGE_BYTES;
        let count = usize::try_from(in_page).unwrap_or(rest.len()).min(rest.len());
        let (now, later) = rest.split_at(count);
        domain.about_to_store(at, now.len() as u64);
        if domain.ram.write(at, now).is_ok() {
            domain.sync_views(at, now.len() as u64);
            address_space::stored(running, at, now.len() as u64);
        }
        at = at.offset(now.len() as u64);
        rest = later;
    }
}

/// Tells whether a driver wants to be interrupted. It says so before it looks at what was used, so it is
/// asked after that was written.
fn is_interrupted<C: Cpu>(domain: &Domain<C>, driver: u64) -> bool {
    fence(Ordering::SeqCst);
    let mut flags = [0; 2];
    let is_there = domain.ram.read(Ipa(driver), &mut flags).is_ok();
    is_there && u16::from_le_bytes(flags) & NO_INTERRUPT == 0
}

/// Takes a slot's interrupt line to the GIC.
fn update_line<C: Cpu>(cpu: &C, machine: &Machine<C>, domain: &Domain<C>, slot: usize) {
    let virtio = domain.virtio.lock();
    // Within the lock: a later change is not to get to the GIC first.
    let line = virtio.line(slot);
    domain.vgic.change().set_line(FIRST_INTID + slot as u32, None, line);
    drop(virtio);
    // The one that is here looks at the GIC before it goes on.
    let here = vcpu_here(machine, domain, cpu).map_or(0, bit);
    interrupt::call_out(cpu, domain, !here);
}

/// The vCPU of a domain that is on this CPU.
fn vcpu_here<C: Cpu>(machine: &Machine<C>, domain: &Domain<C>, cpu: &C) -> Option<usize> {
    let (its, vcpus) = machine.vcpus_of(cpu.number())?;
    let here = vcpus & domain.on_cpu.load(Ordering::SeqCst);
    (its.id == domain.id && here != 0).then_some(here.trailing_zeros() as usize)
}
