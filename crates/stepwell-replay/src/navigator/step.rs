//! Steps of one vCPU among those that take turns as they were recorded.

use super::leg::{How, Leg};
use super::{Going, Navigator, Told};
use stepwell_arch::Va;
use stepwell_debuggee::{Error, Moment, Refusal, StepRequest, Stop, StopReason, VcpuId};

/// A vCPU that is stepped forwards, or back.
#[derive(Debug)]
pub(super) struct Step {
    vcpu: VcpuId,
    request: StepRequest,
    /// Instructions that it has executed.
    steps: u64,
    pub(super) leg: Leg,
}

impl Navigator<'_> {
    /// Sets a vCPU stepping.
    pub(super) fn go_step(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<(), Error> {
        if request.count == 0 {
            return Err(Refusal::NoSteps.into());
        }
        self.demand_on(vcpu)?;
        if self.now >= self.end_of_run() {
            return self.report_arrival(Told::REACHED);
        }
        let leg = self.next_leg(vcpu, request)?;
        self.set_stepping(Step { vcpu, request, steps: 0, leg })
    }

    fn demand_on(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        self.below().read_registers(vcpu).map(drop)
    }

    fn set_stepping(&mut self, mut step: Step) -> Result<(), Error> {
        self.set_off(&mut step.leg)?;
        self.going = Going::Step(step);
        Ok(())
    }

    /// The way to the vCPU's turn, or, where it has executed last, to behind the next instruction: that
    /// is its own, mostly.
    fn next_leg(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<Leg, Error> {
        Ok(match self.has_executed_last(vcpu)? {
            true => self.instruction(request),
            false => Leg::to(self.end_of_run(), How::ToTurn(vcpu)),
        })
    }

    fn instruction(&self, request: StepRequest) -> Leg {
        let how = if request.record { How::Record } else { How::Run };
        Leg::to(Moment::at(self.now.position + 1).min(self.end_of_run()), how)
    }

    /// Tells whether it was this vCPU that executed the instruction before this moment.
    fn has_executed_last(&mut self, vcpu: VcpuId) -> Result<bool, Error> {
        let position = self.now.position;
        Ok(position > 0 && self.executed_by(vcpu)? == position)
    }

    fn executed_by(&mut self, vcpu: VcpuId) -> Result<u64, Error> {
        let executed = self.travel()?.executed(vcpu.domain)?;
        executed.get(usize::from(vcpu.vcpu)).copied().ok_or(Refusal::NoSuchVcpu.into())
    }

    pub(super) fn went_step(&mut self, mut step: Step, stop: Stop) -> Result<(), Error> {
        // A breakpoint at the instruction behind the step is not in its way.
        let is_over = self.now >= step.leg.until && stop.reason == StopReason::Breakpoint;
        if stop.reason != StopReason::Reached && !is_over {
            if self.is_known(stop) {
                return self.set_stepping(step);
            }
            self.tell(Stop { steps: step.steps, ..stop });
            return Ok(());
        }
        if !self.is_at_end(&mut step.leg)? {
            return self.set_stepping(step);
        }
        if self.now >= self.end_of_run() {
            let vcpu = Some(step.vcpu);
            return self.report_arrival(Told { vcpu, steps: step.steps, ..Told::REACHED });
        }
        if let How::ToTurn(_) = step.leg.how {
            step.leg = self.instruction(step.request);
            return self.set_stepping(step);
        }
        if self.has_executed_last(step.vcpu)? {
            step.steps += 1;
            let pc = Va(self.below().read_registers(step.vcpu)?.pc);
            if let Some(reason) = done(&step, pc) {
                self.tell(Stop { vcpu: step.vcpu, reason, pc, steps: step.steps });
                return Ok(());
            }
        }
        step.leg = self.next_leg(step.vcpu, step.request)?;
        self.set_stepping(step)
    }

    /// Goes back by instructions of a vCPU.
    pub(super) fn go_back(&mut self, vcpu: VcpuId, count: u64) -> Result<(), Error> {
        if count == 0 {
            return Err(Refusal::NoSteps.into());
        }
        self.demand_on(vcpu)?;
        self.back_by(vcpu, count, 0)
    }

    /// Goes back by one more, `done` having been done.
    pub(super) fn back_by(&mut self, vcpu: VcpuId, left: u64, done: u64) -> Result<(), Error> {
        let behind = self.executed_by(vcpu)?;
        let by_itself = self.vcpus.first() == Some(&1);
        let count = if by_itself { left } else { 1 };
        match behind.checked_sub(count) {
            Some(position) => {
                let (vcpu, reason) = (Some(vcpu), StopReason::Stepped);
                let told = Told { vcpu, reason, steps: done + count, back: left - count };
                self.seek(Moment::at(position), told)
            }
            None => self.seek(Moment::default(), Told::REACHED),
        }
    }
}

/// Why a vCPU that came to `pc` is not stepped on.
fn done(step: &Step, pc: Va) -> Option<StopReason> {
    if step.request.until == Some(pc) {
        return Some(StopReason::Until);
    }
    if step.request.within.is_some_and(|range| !range.contains(pc)) {
        return Some(StopReason::LeftRange);
    }
    (step.steps >= step.request.count).then_some(StopReason::Stepped)
}
