//! The navigator as a debuggee: what looks is asked of the one below, what changes the run is refused.

use super::leg::How;
use super::search::What;
use super::{Going, Navigator, Told};
use std::time::Duration;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Console, Debuggee, Edge, Error, Event, Moment, Place, Refusal, Registers, Reverse, Simd,
    SimdRegisters, Snapshot, StateHash, StepRequest, Sve, SveRegister, SystemRegisters, TimeTravel,
    Trace, TraceDetail, TraceRecord, VcpuId, VcpuState, VcpuStatus, VectorLength, Watchpoint,
    Watchpoints, Way,
};

/// What `wait` must not say: nobody asked for anything that could be refused.
fn lost(error: Error) -> Error {
    match error {
        Error::Refused(refusal) => Error::Lost(Box::new(refusal)),
        lost => lost,
    }
}

impl Debuggee for Navigator<'_> {
    fn vcpu_counts(&self) -> &[u8] {
        &self.vcpus
    }

    fn status(&mut self, domain: u8) -> Result<Vec<VcpuStatus>, Error> {
        let mut status = self.below().status(domain)?;
        if !matches!(self.going, Going::Stopped) {
            // Between two pieces of a way it is stopped for nobody.
            let stopped = status.iter_mut().filter(|vcpu| vcpu.state == VcpuState::Stopped);
            stopped.for_each(|vcpu| vcpu.state = VcpuState::Running);
        }
        Ok(status)
    }

    fn pause(&mut self, domain: u8) -> Result<(), Error> {
        if !matches!(self.going, Going::Stopped) {
            self.is_paused = true;
        }
        self.below().pause(domain)
    }

    fn resume(&mut self, domain: u8) -> Result<(), Error> {
        self.stopped(domain)?;
        self.go_forward(self.end_of_run(), How::Run)
    }

    fn resume_only(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        self.stopped(vcpu.domain)?;
        Err(Refusal::WouldDiverge.into())
    }

    fn step(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<(), Error> {
        self.stopped(vcpu.domain)?;
        self.go_step(vcpu, request)
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.next_event(timeout).map_err(lost)
    }

    fn read_registers(&mut self, vcpu: VcpuId) -> Result<Registers, Error> {
        self.below().read_registers(vcpu)
    }

    fn write_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<(), Error> {
        self.demand_fork()?;
        self.below().write_registers(vcpu, registers)
    }

    fn read_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &mut [u8]) -> Result<(), Error> {
        self.below().read_memory(vcpu, place, bytes)
    }

    fn write_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &[u8]) -> Result<(), Error> {
        self.demand_fork()?;
        self.below().write_memory(vcpu, place, bytes)
    }

    fn translate(&mut self, vcpu: VcpuId, va: Va) -> Result<Ipa, Error> {
        self.below().translate(vcpu, va)
    }

    fn set_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.stopped(domain)?;
        self.below().set_breakpoint(domain, place)?;
        self.breakpoints.push(place);
        Ok(())
    }

    fn clear_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.stopped(domain)?;
        self.below().clear_breakpoint(domain, place)?;
        self.breakpoints.retain(|&set| set != place);
        Ok(())
    }

    fn support_system_registers(&mut self) -> Option<&mut dyn SystemRegisters> {
        self.below().support_system_registers()?;
        Some(self)
    }

    fn support_simd(&mut self) -> Option<&mut dyn Simd> {
        self.below().support_simd()?;
        Some(self)
    }

    fn support_sve(&mut self) -> Option<&mut dyn Sve> {
        self.below().support_sve()?;
        Some(self)
    }

    fn support_trace(&mut self) -> Option<&mut dyn Trace> {
        self.below().support_trace()?;
        Some(self)
    }

    fn support_watchpoints(&mut self) -> Option<&mut dyn Watchpoints> {
        self.below().support_watchpoints()?;
        Some(self)
    }

    fn support_time_travel(&mut self) -> Option<&mut dyn TimeTravel> {
        Some(self)
    }

    fn support_reverse(&mut self) -> Option<&mut dyn Reverse> {
        Some(self)
    }

    fn support_console(&mut self) -> Option<&mut dyn Console> {
        Some(self)
    }
}

impl Reverse for Navigator<'_> {
    fn end(&self) -> Moment {
        self.script.end
    }

    fn edge(&mut self, domain: u8) -> Result<Option<Edge>, Error> {
        self.stopped(domain)?;
        Ok(match self.now {
            Moment { position: 0, .. } => Some(Edge::Begin),
            now if now >= self.script.end && !self.is_forked => Some(Edge::End),
            _ => None,
        })
    }

    fn go_to(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        self.stopped(domain)?;
        self.seek(moment, Told::REACHED)
    }

    fn step_back(&mut self, vcpu: VcpuId, count: u64) -> Result<(), Error> {
        self.stopped(vcpu.domain)?;
        self.go_back(vcpu, count)
    }

    fn continue_back(&mut self, domain: u8) -> Result<(), Error> {
        self.stopped(domain)?;
        self.search(What::Anything)
    }

    fn way(&self) -> Option<Way> {
        let now = self.now;
        match &self.going {
            Going::Seek(leg, _) => Some(Way { now, to: Some(leg.until) }),
            Going::Search(_) => Some(Way { now, to: None }),
            Going::Stopped | Going::Forward(_) | Going::Step(_) => None,
        }
    }

    fn take_snapshot(&mut self, domain: u8, name: &str) -> Result<(), Error> {
        self.stopped(domain)?;
        self.name_moment(name)
    }

    fn go_to_snapshot(&mut self, domain: u8, name: &str) -> Result<(), Error> {
        self.stopped(domain)?;
        self.go_to_named(name)
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.all_named()
    }

    fn last_access(&mut self, vcpu: VcpuId, watchpoint: Watchpoint) -> Result<(), Error> {
        self.stopped(vcpu.domain)?;
        self.search(What::Access(vcpu, watchpoint))
    }
}

impl TimeTravel for Navigator<'_> {
    fn moment(&mut self, domain: u8) -> Result<Moment, Error> {
        self.stopped(domain)?;
        Ok(self.now)
    }

    fn run_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        self.stopped(domain)?;
        self.go_forward(moment, How::Run)
    }

    fn run_until_turn(&mut self, vcpu: VcpuId, moment: Moment) -> Result<(), Error> {
        self.stopped(vcpu.domain)?;
        self.go_forward(moment, How::ToTurn(vcpu))
    }

    fn executed(&mut self, domain: u8) -> Result<Vec<u64>, Error> {
        self.travel()?.executed(domain)
    }

    fn record_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        self.stopped(domain)?;
        self.go_forward(moment, How::Record)
    }

    fn state_hash(&mut self, domain: u8) -> Result<StateHash, Error> {
        self.travel()?.state_hash(domain)
    }

    fn fork(&mut self, domain: u8) -> Result<(), Error> {
        self.stopped(domain)?;
        self.travel()?.fork(domain)?;
        self.is_forked = true;
        Ok(())
    }
}

impl Watchpoints for Navigator<'_> {
    fn set_watchpoint(&mut self, vcpu: VcpuId, watchpoint: Watchpoint) -> Result<(), Error> {
        self.stopped(vcpu.domain)?;
        let below = self.below().support_watchpoints().ok_or(Refusal::Unsupported)?;
        below.set_watchpoint(vcpu, watchpoint)?;
        self.watchpoints.push((vcpu, watchpoint));
        Ok(())
    }

    fn clear_watchpoint(&mut self, domain: u8, watchpoint: Watchpoint) -> Result<(), Error> {
        self.stopped(domain)?;
        let below = self.below().support_watchpoints().ok_or(Refusal::Unsupported)?;
        below.clear_watchpoint(domain, watchpoint)?;
        self.watchpoints.retain(|&(_, set)| set != watchpoint);
        Ok(())
    }
}

impl Trace for Navigator<'_> {
    fn drain(&mut self, records: &mut Vec<TraceRecord>) -> Result<(), Error> {
        self.below().support_trace().ok_or(Refusal::Unsupported)?.drain(records)
    }

    fn set_detail(&mut self, domain: u8, detail: TraceDetail) -> Result<(), Error> {
        self.below().support_trace().ok_or(Refusal::Unsupported)?.set_detail(domain, detail)
    }
}

impl Console for Navigator<'_> {
    fn type_bytes(&mut self, domain: u8, bytes: &[u8]) -> Result<usize, Error> {
        if self.take_typed(bytes) {
            return Ok(bytes.len());
        }
        self.demand_fork()?;
        self.below().support_console().ok_or(Refusal::Unsupported)?.type_bytes(domain, bytes)
    }
}

impl SystemRegisters for Navigator<'_> {
    fn read_system_register(&mut self, vcpu: VcpuId, register: u16) -> Result<u64, Error> {
        let below = self.below().support_system_registers().ok_or(Refusal::Unsupported)?;
        below.read_system_register(vcpu, register)
    }

    fn write_system_register(
        &mut self,
        vcpu: VcpuId,
        register: u16,
        value: u64,
    ) -> Result<(), Error> {
        self.demand_fork()?;
        let below = self.below().support_system_registers().ok_or(Refusal::Unsupported)?;
        below.write_system_register(vcpu, register, value)
    }
}

impl Simd for Navigator<'_> {
    fn read_simd(&mut self, vcpu: VcpuId) -> Result<SimdRegisters, Error> {
        self.below().support_simd().ok_or(Refusal::Unsupported)?.read_simd(vcpu)
    }

    fn write_simd(&mut self, vcpu: VcpuId, registers: &SimdRegisters) -> Result<(), Error> {
        self.demand_fork()?;
        self.below().support_simd().ok_or(Refusal::Unsupported)?.write_simd(vcpu, registers)
    }
}

impl Sve for Navigator<'_> {
    fn vector_length(&mut self, vcpu: VcpuId) -> Result<VectorLength, Error> {
        self.below().support_sve().ok_or(Refusal::Unsupported)?.vector_length(vcpu)
    }

    fn read_sve(&mut self, vcpu: VcpuId, register: SveRegister) -> Result<Vec<u8>, Error> {
        self.below().support_sve().ok_or(Refusal::Unsupported)?.read_sve(vcpu, register)
    }

    fn write_sve(
        &mut self,
        vcpu: VcpuId,
        register: SveRegister,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.demand_fork()?;
        let below = self.below().support_sve().ok_or(Refusal::Unsupported)?;
        below.write_sve(vcpu, register, bytes)
    }
}
