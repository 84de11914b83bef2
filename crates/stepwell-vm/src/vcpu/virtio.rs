//! What a store to a virtio-mmio slot leads to: queues that the tool serves.
//!
//! The vCPU that notifies a queue waits at EL2 until it has been served. By a clock that does not go on
//! meanwhile that takes it no time, and whatever it finds afterwards is a function of what it did: so
//! runs with disks are repeatable without a log of them. Nothing is locked while the tool is at it.

use super::{address_space, interrupt};
use crate::cpu::Cpu;
use crate::device::virtio::{Effect, FIRST_INTID, Outcome};
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::running::Running;
use stepwell_arch::Ipa;
use stepwell_wire::devices::{QueueRequest, Served};

/// Performs a store.
pub(super) fn write<C: Cpu>(
    running: &mut Running<'_, C>,
    slot: usize,
    offset: u64,
    bytes: u8,
    value: u64,
) {
    // Another vCPU waits there for the tool, which waits for nobody.
    while running.domain.virtio.lock().must_wait(slot, offset) {
        core::hint::spin_loop();
    }
    let effect = running.domain.virtio.lock().write(slot, offset, bytes, value);
    update_line(running, slot);
    if let Effect::Notified(queue) = effect {
        serve(running, slot, queue);
    }
}

/// Has a queue served, and again where it was notified meanwhile.
fn serve<C: Cpu>(running: &mut Running<'_, C>, slot: usize, queue: u8) {
    let domain = running.domain;
    loop {
        let Some(work) = domain.virtio.lock().begin(slot, queue) else { return };
        let request = QueueRequest {
            domain: domain.id,
            slot: slot as u8,
            queue,
            size: work.queue.size,
            descriptors: work.queue.descriptors,
            driver: work.queue.driver,
            device: work.queue.device,
            next_available: work.queue.next_available,
            next_used: work.queue.next_used,
            features: work.features,
            ram: domain.ram.base().0,
            ram_bytes: domain.ram.bytes(),
        };
        let mut write = |ipa: Ipa, bytes: &[u8]| write_memory(running, ipa, bytes);
        let outcome = match running.machine.link.serve_queue(request, &mut write) {
            Served::Done { next_available, next_used, interrupt } => {
                Outcome::Served { next_available, next_used, interrupt }
            }
            Served::Broken => Outcome::Broken,
        };
        let is_due = domain.virtio.lock().finish(slot, queue, outcome);
        update_line(running, slot);
        if !is_due {
            return;
        }
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

/// Takes a slot's interrupt line to the GIC.
fn update_line<C: Cpu>(running: &mut Running<'_, C>, slot: usize) {
    let virtio = running.domain.virtio.lock();
    // Within the lock: a later change is not to get to the GIC first.
    let line = virtio.line(slot);
    running.domain.vgic.change().set_line(FIRST_INTID + slot as u32, None, line);
    drop(virtio);
    interrupt::kick_others(running);
}
