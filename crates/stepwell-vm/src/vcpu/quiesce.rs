//! Quiescing the other vCPUs during an exclusive sequence.
//!
//! With `--others run` the other vCPUs run at full speed beside the stepped one. What it read by a
//! load-exclusive they may then change, and change back, before its store-exclusive is carried out:
//! a compare-and-swap would not notice (ABA). So they are quiesced, at EL2, from before the
//! load-exclusive executes until the store-exclusive has, or [`SEQUENCE_MAX`] instructions later; another
//! load-exclusive in the second half of these begins anew.
//!
//! The same is done where vCPUs run freely and one of them is stepped through a sequence, because a
//! breakpoint is in it: there each may be the one that the others quiesce for, one at a time. It
//! holds the quiescence until the domain is stopped, if it stops within the sequence, and has it
//! again before the others are let go: nobody runs between its load and its store.
//!
//! The other way would be to write-protect the page at stage 2. That costs two broadcasts of TLB
//! invalidation for each sequence, or where protection stays, a trap for whoever writes anything
//! else in the page: ARCHITECTURE.md has what was measured.

use super::{interrupt, time};
use crate::cpu::Cpu;
use crate::domain::bit;
use crate::mutation::{self, LoopMutant};
use crate::vcpu::running::Running;
use core::sync::atomic::Ordering;

/// Instructions from a load-exclusive on for which the others are quiesced. The architecture
/// promises success only to sequences of far fewer ("Load-Exclusive and Store-Exclusive instruction
/// usage restrictions": 128 bytes).
pub const SEQUENCE_MAX: u64 = 64;

/// Those that may be in the guest. One that is to get a CPU that it shares looks before it executes.
fn others<C: Cpu>(running: &Running<'_, C>) -> u8 {
    let domain = running.domain;
    let moving = domain.control.lock().running & !bit(running.index);
    moving & domain.on_cpu.load(Ordering::SeqCst)
}

/// Calls the others, so that they see who has the quiescence.
pub fn call_others<C: Cpu>(running: &Running<'_, C>) {
    interrupt::call(running.cpu, running.domain, others(running));
}

/// Tells whether all others are quiesced, or have parked.
#[must_use]
pub fn are_others_quiesced<C: Cpu>(running: &Running<'_, C>) -> bool {
    mutation::is(LoopMutant::OthersNotAwaited)
        || running.domain.quiescence.missing(others(running)) == 0
}

/// Lets the others go on, if they are quiesced for this one.
pub fn resume_others<C: Cpu>(running: &Running<'_, C>) {
    let quiescence = &running.domain.quiescence;
    if quiescence.is_held_by(running.index) {
        quiescence.resume();
        let mut control = running.domain.control.lock();
        control.kept = control.kept.filter(|&kept| kept != running.index);
        drop(control);
        if mutation::is(LoopMutant::QuiescedNotCalled) {
            return;
        }
        interrupt::call(running.cpu, running.domain, others(running));
    }
}

/// In a vCPU that runs: is quiesced for as long as another asks for it.
pub fn wait_if_quiesced<C: Cpu>(running: &mut Running<'_, C>) {
    let (quiescence, vcpu) = (&running.domain.quiescence, running.vcpu);
    let is_called = || vcpu.stop_requested.load(Ordering::Acquire);
    let index = running.index;
    let was_quiesced = quiescence.wait_if_quiesced(index, is_called, || {
        running.cpu.wait_for_interrupt();
        interrupt::take_all(running);
    });
    if was_quiesced {
        // EL2's timer may have gone off here, which the guest's physical timer rests on.
        time::update_lines(running);
    }
}
