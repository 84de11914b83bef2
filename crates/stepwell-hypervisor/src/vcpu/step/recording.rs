//! Steps into the trace ring.

use super::Stepper;
use crate::recorder::WORDS_PER_STEP;
use stepwell_arch::Va;
use stepwell_wire::ring::Record;

impl Stepper<'_, '_> {
    pub(super) fn has_ring_room(&mut self) -> bool {
        if self.ring_room < WORDS_PER_STEP {
            let ring = self.running.machine.ring.lock();
            self.ring_room = ring.as_ref().map_or(0, |ring| ring.room());
        }
        self.ring_room >= WORDS_PER_STEP
    }

    pub(super) fn begin(&mut self, pc: Va) {
        if !self.record {
            return;
        }
        let vcpu = self.running.index as u8;
        if let Some(record) = self.running.core.recorder.begin(vcpu, pc.0) {
            self.write(record);
        }
    }

    /// The instruction that was begun has not executed, and is not going to for now.
    pub(super) fn take_back(&mut self) {
        if self.record {
            self.running.core.recorder.take_back();
        }
    }

    pub(super) fn note_interrupt(&mut self) {
        if !self.record {
            return;
        }
        self.finish_recording();
        let vcpu = self.running.index as u8;
        self.write(Record::Interrupt { vcpu, pc: self.running.core.pc().0 });
    }

    pub(super) fn finish_recording(&mut self) {
        if let Some(record) = self.running.core.recorder.finish(self.running.index as u8) {
            self.write(record);
        }
    }

    fn write(&mut self, record: Record) {
        let (first, second) = self.running.core.recorder.encode(record);
        if let Some(ring) = self.running.machine.ring.lock().as_mut() {
            ring.push(first);
            self.ring_room = self.ring_room.saturating_sub(1);
            if let Some(second) = second {
                ring.push(second);
                self.ring_room = self.ring_room.saturating_sub(1);
            }
        }
    }
}
