//! Standing aside for an exclusive sequence.
//!
//! With `--others run` the other vCPUs run at full speed beside the stepped one. What it read by a
//! load-exclusive they may then change, and change back, before its store-exclusive is carried out:
//! a compare-and-swap would not notice (ABA). So they stand aside, at EL2, from before the
//! load-exclusive executes until the store-exclusive has, or [`SEQUENCE_MAX`] instructions later.
//!
//! The same is done where vCPUs run freely and one of them is stepped through a sequence, because a
//! breakpoint stands in it: there each may be the one that the others stand aside for, one at a
//! time. It holds the region until the domain stands, if it stops within the sequence, and has it
//! again before the others are let go: nobody runs between its load and its store.
//!
//! The other way would be to write-protect the page at stage 2. That costs two broadcasts of TLB
//! invalidation for each sequence, or where protection stays, a trap for whoever writes anything
//! else in the page: ARCHITECTURE.md has what was measured.

use super::{interrupt, time};
use crate::cpu::Cpu;
use crate::domain::{Domain, bit};
use crate::vcpu::running::Running;
use core::sync::atomic::Ordering;

/// Instructions from a load-exclusive on for which the others stand aside. The architecture
/// promises success only to sequences of far fewer ("Load-Exclusive and Store-Exclusive instruction
/// usage restrictions": 128 bytes).
pub const SEQUENCE_MAX: u64 = 64;

fn others<C: Cpu>(running: &Running<'_, C>) -> u8 {
    running.domain.control.lock().running & !bit(running.index)
}

fn kick<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpus: u8) {
    let cpus = domain.vcpus.iter().enumerate().filter(|(n, _)| vcpus & bit(*n) != 0);
    cpu.kick(cpus.fold(0, |mask, (_, vcpu)| mask | bit(vcpu.cpu)));
}

/// Waits until all others stand aside, or have parked. Tells whether they do: else another vCPU
/// has the region, and this one is called out.
pub fn hold<C: Cpu>(running: &mut Running<'_, C>) -> bool {
    let region = &running.domain.region;
    while !region.take(running.index) {
        stand_aside(running);
        if running.is_called() {
            return false;
        }
    }
    kick(running.cpu, running.domain, others(running));
    loop {
        if region.missing(others(running)) == 0 {
            return true;
        }
        core::hint::spin_loop();
    }
}

/// Lets the others go on, if they stand aside for this one.
pub fn release<C: Cpu>(running: &Running<'_, C>) {
    let region = &running.domain.region;
    if region.is_held_by(running.index) {
        region.open();
        kick(running.cpu, running.domain, others(running));
    }
}

/// In a vCPU that runs: stands aside for as long as that takes.
pub fn stand_aside<C: Cpu>(running: &mut Running<'_, C>) {
    let (region, vcpu) = (&running.domain.region, running.vcpu);
    let is_called = || vcpu.stop_requested.load(Ordering::Acquire);
    let index = running.index;
    let has_stood = region.stand_aside(index, is_called, || {
        running.cpu.wait_for_interrupt();
        interrupt::take_all(running);
    });
    if has_stood {
        // EL2's timer may have gone off here, which the guest's physical timer rests on.
        time::update_lines(running);
    }
}
