//! The fake's positions: it executes one instruction after another, so that counting them is enough.

use super::cpu::Cpu;
use super::{Fake, Going};
use crate::{
    CHECKPOINTS_MAX, Checkpoint, Checkpoints, Error, Moment, Refusal, StateHash, StepRequest,
    TimeTravel, VcpuId,
};

use stepwell_arch::Ipa;

/// How far it has come, and the moments that are kept.
#[derive(Default)]
pub(super) struct Timeline {
    /// Instructions that were executed.
    pub(super) position: u64,
    /// Where it is to stop.
    pub(super) until: Option<u64>,
    kept: Vec<Option<Kept>>,
    /// Stores on the way here: the position of each, and its first byte.
    pub(super) stores: Vec<(u64, u64)>,
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
    stores: Vec<(u64, u64)>,
}

const PAGE: u64 = 4096;

/// FNV-1a.
fn hash<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    let begin = 0xcbf2_9ce4_8422_2325_u64;
    bytes
        .into_iter()
        .fold(begin, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl TimeTravel for Fake {
    fn moment(&mut self, domain: u8) -> Result<Moment, Error> {
        if self.going != Going::Ended {
            self.stopped(VcpuId { domain, vcpu: 0 })?;
        }
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

    fn run_until_turn(&mut self, vcpu: VcpuId, moment: Moment) -> Result<(), Error> {
        self.stopped(vcpu)?;
        // Its only vCPU always has its turn.
        let position = self.timeline.position.min(moment.position);
        self.run_until(vcpu.domain, Moment::at(position))
    }

    fn executed(&mut self, domain: u8) -> Result<Vec<u64>, Error> {
        Ok(vec![self.moment(domain)?.position])
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

    fn fork(&mut self, domain: u8) -> Result<(), Error> {
        // It refuses nothing: its positions are nobody else's.
        Ok(self.stopped(VcpuId { domain, vcpu: 0 })?)
    }

    fn support_checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        Some(self)
    }
}

impl Fake {
    fn kept(&self, checkpoint: Checkpoint) -> Result<&Kept, Refusal> {
        let place = usize::try_from(checkpoint.0).ok();
        let kept = place.and_then(|place| self.timeline.kept.get(place)?.as_ref());
        kept.ok_or(Refusal::NoSuchCheckpoint)
    }
}

impl Checkpoints for Fake {
    fn keep(&mut self, domain: u8) -> Result<Checkpoint, Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        if self.timeline.kept.iter().flatten().count() >= CHECKPOINTS_MAX {
            return Err(Refusal::NoMemory.into());
        }
        let (cpu, typed) = (self.cpu.clone(), self.typed.clone());
        let Timeline { position, stores, .. } = &self.timeline;
        let kept = Kept { cpu, typed, position: *position, stores: stores.clone() };
        self.timeline.kept.push(Some(kept));
        Ok(Checkpoint(self.timeline.kept.len() as u64 - 1))
    }

    fn go_to(&mut self, domain: u8, checkpoint: Checkpoint) -> Result<(), Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        let Kept { cpu, typed, position, stores } = self.kept(checkpoint)?;
        let (cpu, typed, position, stores) =
            (cpu.clone(), typed.clone(), *position, stores.clone());
        (self.cpu, self.typed) = (cpu, typed);
        (self.timeline.position, self.timeline.stores) = (position, stores);
        self.reported = false;
        Ok(())
    }

    fn forget(&mut self, checkpoint: Checkpoint) {
        let place = usize::try_from(checkpoint.0).ok();
        if let Some(kept) = place.and_then(|place| self.timeline.kept.get_mut(place)) {
            *kept = None;
        }
    }

    fn wrote(
        &mut self,
        domain: u8,
        from: Checkpoint,
        to: Checkpoint,
        ipa: Ipa,
        bytes: u64,
    ) -> Result<bool, Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        let (from, to) = (self.kept(from)?, self.kept(to)?);
        let (first, end) = (ipa.0 & !(PAGE - 1), ipa.0.saturating_add(bytes));
        let is_between = |&&(position, _): &&(u64, u64)| position >= from.position;
        let mut between = to.stores.iter().filter(is_between);
        // A store of 8 bytes may begin before the page.
        Ok(between.any(|&(_, at)| at < end.next_multiple_of(PAGE) && at.saturating_add(8) > first))
    }
}
