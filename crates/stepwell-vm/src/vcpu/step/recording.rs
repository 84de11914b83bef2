//! Steps into the trace ring.

use crate::cpu::Context as _;
use crate::cpu::{Cpu, Near, Run};
use crate::recorder::WORDS_PER_STEP;
use crate::ring::{Lease as _, Ring as _};
use crate::vcpu::advance::VcpuLoop;
use stepwell_arch::{InstructionSet, Va};
use stepwell_protocol::TraceRecord;
use stepwell_wire::ring::near_tag;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    pub(super) fn has_ring_room(&mut self) -> bool {
        if self.flow.tally.ring_room < WORDS_PER_STEP {
            let ring = self.running.machine.ring.lock();
            self.flow.tally.ring_room = ring.as_ref().map_or(0, |ring| ring.room());
        }
        self.flow.tally.ring_room >= WORDS_PER_STEP
    }

    #[inline(always)]
    pub(super) fn begin(&mut self, pc: Va) {
        if !self.flow.rules.record {
            return;
        }
        let set = InstructionSet::of(self.running.core.pstate());
        if !self.running.core.recorder.lengthen(set, pc.0) {
            self.begin_run(set, pc);
        }
    }

    #[inline(never)]
    fn begin_run(&mut self, set: InstructionSet, pc: Va) {
        let vcpu = self.running.index as u8;
        if self.running.core.recorder.is_new_set(set) {
            self.finish_recording();
            self.write(TraceRecord::InstructionSet { vcpu, set });
        }
        if let Some(record) = self.running.core.recorder.begin(vcpu, pc.0) {
            self.write(record);
        }
    }

    /// The instruction that was begun has not executed, and is not going to for now.
    pub(super) fn take_back(&mut self) {
        if self.flow.rules.record {
            self.running.core.recorder.take_back();
        }
    }

    pub(super) fn note_interrupt(&mut self) {
        if !self.flow.rules.record {
            return;
        }
        self.finish_recording();
        let vcpu = self.running.index as u8;
        self.write(TraceRecord::Interrupt { vcpu, pc: self.running.core.pc() });
    }

    /// Others are to write into the ring before this one goes on.
    pub(in crate::vcpu) fn pause_recording(&mut self) {
        self.finish_recording();
        self.flow.tally.ring_room = 0;
    }

    pub(super) fn finish_recording(&mut self) {
        if let Some(record) = self.running.core.recorder.finish(self.running.index as u8) {
            self.write(record);
        }
    }

    /// Lets the fast path lengthen the run, and write it where a jump ends it. Steps that are to stay
    /// within a range have nowhere to write it: a jump is for the slow path, which looks where it
    /// leads. So have those by a natural clock, which looks at what was executed.
    #[inline(always)]
    pub(super) fn lend_run(&mut self) {
        let is_whole = self.running.core.within.is_none() && !self.is_natural();
        let core = &mut *self.running.core;
        // What is left over is for the slow path, which has asked for it.
        let words =
            if is_whole { self.flow.tally.ring_room.saturating_sub(WORDS_PER_STEP) } else { 0 };
        let (start, next) = core.recorder.run();
        let tag = near_tag(self.running.index as u8);
        let mut ring = self.running.machine.ring.lock();
        let near = match (ring.as_mut(), core.recorder.base()) {
            (Some(ring), Some(base)) => Some(Near { base, tag, lease: ring.lease(words) }),
            // Nothing near can be written yet.
            _ => None,
        };
        core.context.lend_run(Run { start, next }, near);
    }

    /// Takes the run back, and publishes what the fast path wrote.
    #[inline(always)]
    pub(super) fn take_run_back(&mut self) {
        let core = &mut *self.running.core;
        let (run, lease) = core.context.take_run_back();
        core.recorder.resume(run.start, run.next);
        let Some(lease) = lease else { return };
        let words = lease.words();
        if words > 0 {
            self.flow.tally.ring_room = self.flow.tally.ring_room.saturating_sub(words);
            if let Some(ring) = self.running.machine.ring.lock().as_mut() {
                ring.settle(lease);
            }
        }
    }

    pub(super) fn write(&mut self, record: TraceRecord) {
        let words = self.running.core.recorder.encode(record);
        if let Some(ring) = self.running.machine.ring.lock().as_mut() {
            ring.push(&words);
            self.flow.tally.ring_room =
                self.flow.tally.ring_room.saturating_sub(words.len() as u64);
        }
    }
}
