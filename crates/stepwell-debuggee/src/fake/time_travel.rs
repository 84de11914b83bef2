//! The fake's positions: it executes one instruction after another, so that counting them is enough.

use super::cpu::Cpu;
use super::{Fake, Going};
use crate::{
    Checkpoint, Checkpoints, Error, Moment, Refusal, StateHash, StepRequest, TimeTravel, VcpuId,
};

/// How far it has come, and the moments that are kept.
#[derive(Default)]
pub(super) struct Timeline {
    /// Instructions that were executed.
    pub(super) position: u64,
    /// Where it is to stop.
    pub(super) until: Option<u64>,
    kept: Vec<Option<Kept>>,
}

impl Timeline {
    /// Tells whether it is to stop here.
    pub(super) fn is_reached(&self) -> bool {
        self.until.is_some_and(|until| self.position >= until)
    }
}

/// A moment that is kept.
struct Kept {
    cpu: Cpu,
    typed: Vec<u8>,
    position: u64,
}

/// FNV-1a.
fn hash<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    let begin = 0xcbf2_9ce4_8422_2325_u64;
    bytes
        .into_iter()
        .fold(begin, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl TimeTravel for Fake {
    fn moment(&mut self, domain: u8) -> Result<Moment, Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        // It never waits: its clock is its position.
        let position = self.timeline.position;
        Ok(Moment { position, clock: position })
    }

    fn run_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        self.timeline.until = Some(moment.position);
        (self.going, self.steps) = (Going::Free, 0);
        Ok(())
    }

    fn record_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        self.run_until(domain, moment)?;
        let request = StepRequest { record: true, ..StepRequest::steps(u64::MAX) };
        self.going = Going::Stepping(request);
        Ok(())
    }

    fn state_hash(&mut self, domain: u8) -> Result<StateHash, Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        let registers = &self.cpu.registers;
        let words = registers.x.iter().chain([&registers.sp, &registers.pc, &registers.pstate]);
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        // What was typed and not read yet lies in the UART, which a guest can tell, too.
        let registers = hash(bytes.iter().chain(&self.typed));
        Ok(StateHash { registers, memory: hash(self.cpu.ram()) })
    }

    fn support_checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        Some(self)
    }
}

impl Checkpoints for Fake {
    fn keep(&mut self, domain: u8) -> Result<Checkpoint, Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        let (cpu, typed, position) = (self.cpu.clone(), self.typed.clone(), self.timeline.position);
        self.timeline.kept.push(Some(Kept { cpu, typed, position }));
        Ok(Checkpoint(self.timeline.kept.len() as u64 - 1))
    }

    fn go_to(&mut self, domain: u8, checkpoint: Checkpoint) -> Result<(), Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        let place = usize::try_from(checkpoint.0).ok();
        let kept = place.and_then(|place| self.timeline.kept.get(place)?.as_ref());
        let kept = kept.ok_or(Refusal::NoSuchCheckpoint)?;
        self.cpu.clone_from(&kept.cpu);
        self.typed.clone_from(&kept.typed);
        self.timeline.position = kept.position;
        Ok(())
    }

    fn forget(&mut self, checkpoint: Checkpoint) {
        let place = usize::try_from(checkpoint.0).ok();
        if let Some(kept) = place.and_then(|place| self.timeline.kept.get_mut(place)) {
            *kept = None;
        }
    }
}
