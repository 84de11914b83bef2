//! Standing aside for an exclusive sequence.
//!
//! With `--others run` the other vCPUs run at full speed beside the stepped one. What it read by a
//! load-exclusive they may then change, and change back, before its store-exclusive is carried out:
//! a compare-and-swap would not notice (ABA). So they stand aside, at EL2, from before the
//! load-exclusive executes until the store-exclusive has, or [`SEQUENCE_MAX`] instructions later.
//!
//! The other way would be to write-protect the page at stage 2. That costs two broadcasts of TLB
//! invalidation for each sequence, and a trap for whoever writes anything else in the page: the
//! pages of locks are the busiest that there are.

use super::Running;
use super::interrupt;
use crate::domain::{Domain, bit};
use crate::hw::gic;
use crate::hw::registers::wfi;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Instructions from a load-exclusive on for which the others stand aside. The architecture
/// promises success only to sequences of far fewer ("Load-Exclusive and Store-Exclusive instruction
/// usage restrictions": 128 bytes).
pub const SEQUENCE_MAX: u64 = 64;

/// Who stands aside.
#[derive(Debug)]
pub struct Region {
    is_held: AtomicBool,
    aside: AtomicU8,
}

impl Region {
    /// Makes a region in which nobody is.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_held: AtomicBool::new(false), aside: AtomicU8::new(0) }
    }

    /// Has those that are about to run stand aside. Who runs is not waited for.
    pub fn close(&self) {
        self.is_held.store(true, Ordering::Release);
    }

    /// Lets everybody go on. Tells whether somebody was to stand aside.
    pub fn release(&self) -> bool {
        self.is_held.swap(false, Ordering::AcqRel)
    }

    /// Tells whether everybody is to stand aside.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }
}

impl Default for Region {
    fn default() -> Self {
        Self::new()
    }
}

fn others(running: &Running<'_>) -> u8 {
    running.domain.control.lock().running & !bit(running.index)
}

fn kick(domain: &Domain, vcpus: u8) {
    let cpus = domain.vcpus.iter().enumerate().filter(|(n, _)| vcpus & bit(*n) != 0);
    gic::kick(cpus.fold(0, |mask, (_, vcpu)| mask | bit(vcpu.cpu)));
}

/// Waits until all others stand aside, or have parked.
pub fn hold(running: &mut Running<'_>) {
    let region = &running.domain.region;
    if region.is_held() {
        return;
    }
    region.close();
    kick(running.domain, others(running));
    loop {
        let missing = others(running) & !region.aside.load(Ordering::Acquire);
        if missing == 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Lets the others go on.
pub fn release(running: &Running<'_>) {
    if running.domain.region.release() {
        kick(running.domain, others(running));
    }
}

/// In a vCPU that runs: stands aside for as long as that takes.
pub fn stand_aside(running: &mut Running<'_>) {
    let region = &running.domain.region;
    if !region.is_held() {
        return;
    }
    region.aside.fetch_or(bit(running.index), Ordering::AcqRel);
    while region.is_held() && !running.is_called() {
        wfi();
        interrupt::take_all(running);
    }
    region.aside.fetch_and(!bit(running.index), Ordering::AcqRel);
}
