//! An in-memory debuggee: one vCPU, a little RAM, and a handful of A64 instructions.
//!
//! It exists to test what is built on [`Debuggee`] without a machine, and to keep the
//! [`crate::contract`] honest: a suite that only ever ran against one implementation tests that
//! implementation's accidents. It is no emulator: there is no MMU, no exception level and no
//! interrupt, and an instruction that it does not know ends its domain.

mod cpu;
mod time_travel;
mod vectors;

use crate::{
    Console, Debuggee, DomainEnding, Error, Event, InterruptPolicy, Interrupts, Monitor, Monitors,
    Place, Refusal, Registers, Simd, StepRequest, Stop, StopReason, Sve, TimeTravel, Trace,
    TraceDetail, TraceRecord, VcpuId, VcpuState, VcpuStatus, VectorLength, WatchAccess, Watchpoint,
    Watchpoints,
};
use cpu::{Cpu, Outcome};
use std::collections::VecDeque;
use std::time::Duration;
use stepwell_arch::{Ipa, Va};
use time_travel::Timeline;
use vectors::Vectors;

/// Instructions that one [`Debuggee::wait`] executes at most, so that an endless guest can be
/// paused.
const SLICE: u64 = 100_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    Stopped,
    Free,
    Stepping(StepRequest),
    Ended,
}

/// The fake.
pub struct Fake {
    cpu: Cpu,
    going: Going,
    /// Steps since the last command that set it going.
    steps: u64,
    /// Whether the instruction that it is stopped at has been reported, so that it may execute.
    reported: bool,
    breakpoints: Vec<Place>,
    watchpoints: Vec<Watchpoint>,
    privileged_calls: bool,
    single_step: bool,
    trace: Vec<TraceRecord>,
    typed: Vec<u8>,
    vectors: Vectors,
    events: VecDeque<Event>,
    timeline: Timeline,
}

impl Fake {
    /// Makes a machine with `image` at [`crate::contract::ENTRY`], stopped there at reset.
    #[must_use]
    pub fn new(image: &[u8]) -> Self {
        let mut fake = Self {
            cpu: Cpu::new(image),
            going: Going::Stopped,
            steps: 0,
            reported: true,
            breakpoints: Vec::new(),
            watchpoints: Vec::new(),
            privileged_calls: false,
            single_step: false,
            trace: Vec::new(),
            typed: Vec::new(),
            vectors: Vectors::default(),
            events: VecDeque::new(),
            timeline: Timeline::default(),
        };
        fake.stop(StopReason::Reset);
        fake
    }

    /// Makes a machine that has SVE as well.
    #[must_use]
    pub fn with_sve(image: &[u8], length: VectorLength) -> Self {
        Self { vectors: Vectors::with_sve(length), ..Self::new(image) }
    }

    /// Returns what was typed on the console so far.
    #[must_use]
    pub fn typed(&self) -> &[u8] {
        &self.typed
    }

    fn stop(&mut self, reason: StopReason) {
        self.going = Going::Stopped;
        self.timeline.until = None;
        // That one tells of a moment, and not of the instruction that is next.
        self.reported |= reason != StopReason::Reached;
        let pc = Va(self.cpu.registers.pc);
        let (vcpu, steps) = (VcpuId::default(), self.steps);
        self.events.push_back(Event::Stopped(Stop { vcpu, reason, pc, steps }));
    }

    fn end(&mut self, ending: DomainEnding) {
        self.going = Going::Ended;
        self.events.push_back(Event::Ended { domain: 0, ending });
    }

    fn stopped(&self, vcpu: VcpuId) -> Result<(), Refusal> {
        if vcpu != VcpuId::default() {
            return Err(Refusal::NoSuchVcpu);
        }
        match self.going {
            Going::Stopped => Ok(()),
            Going::Ended => Err(Refusal::Ended),
            Going::Free | Going::Stepping(_) => Err(Refusal::NotStopped),
        }
    }

    fn domain(domain: u8) -> Result<(), Refusal> {
        if domain == 0 { Ok(()) } else { Err(Refusal::NoSuchVcpu) }
    }

    /// Says why the instruction that is next must not execute yet.
    fn reason_to_stop(&self) -> Option<StopReason> {
        if self.timeline.is_reached() {
            return Some(StopReason::Reached);
        }
        let pc = self.cpu.registers.pc;
        if let Going::Stepping(request) = self.going {
            if self.steps > 0 && request.until == Some(Va(pc)) {
                return Some(StopReason::Until);
            }
            if self.steps > 0 && request.within.is_some_and(|range| !range.contains(Va(pc))) {
                return Some(StopReason::LeftRange);
            }
            if self.steps >= request.count {
                return Some(StopReason::Stepped);
            }
        }
        if self.reported {
            return None;
        }
        if self.single_step && self.going == Going::Free {
            return Some(StopReason::Stepped);
        }
        let here = [Place::Va(Va(pc)), Place::Ipa(Ipa(pc))];
        if self.breakpoints.iter().any(|place| here.contains(place)) {
            return Some(StopReason::Breakpoint);
        }
        if let Some(hit) = self.watchpoint_hit() {
            return Some(hit);
        }
        let immediate = self.cpu.next_smc().filter(|_| self.privileged_calls)?;
        Some(StopReason::PrivilegedCall { immediate })
    }

    /// The watchpoint that the next instruction runs into.
    fn watchpoint_hit(&self) -> Option<StopReason> {
        let (address, stores) = self.cpu.next_access()?;
        let access = if stores { WatchAccess::Write } else { WatchAccess::Read };
        let hit = self.watchpoints.iter().find(|watch| {
            let wanted = watch.access == WatchAccess::ReadWrite || watch.access == access;
            wanted && address < watch.address.0 + watch.length && watch.address.0 < address + 8
        })?;
        Some(StopReason::Watchpoint { address: Va(address.max(hit.address.0)), access })
    }

    fn go(&mut self) {
        for _ in 0..SLICE {
            if let Some(reason) = self.reason_to_stop() {
                return self.stop(reason);
            }
            let pc = self.cpu.registers.pc;
            if let Some((address, true)) = self.cpu.next_access() {
                self.timeline.stores.push((self.timeline.position, address));
            }
            match self.cpu.execute() {
                Outcome::Executed => {}
                Outcome::Printed(byte) => {
                    self.events.push_back(Event::Console { domain: 0, bytes: vec![byte] });
                }
                Outcome::Ended(ending) => return self.end(ending),
            }
            self.steps += 1;
            self.timeline.position += 1;
            self.reported = false;
            if let Going::Stepping(StepRequest { record: true, .. }) = self.going {
                self.record(pc);
            }
        }
    }

    fn record(&mut self, at: u64) {
        if let Some(TraceRecord::Run { pc, length, .. }) = self.trace.last_mut()
            && pc.0.wrapping_add(4 * u64::from(*length)) == at
            && *length < u32::from(u16::MAX)
        {
            *length += 1;
            return;
        }
        self.trace.push(TraceRecord::Run { vcpu: 0, pc: Va(at), length: 1 });
    }
}

impl Debuggee for Fake {
    fn vcpu_counts(&self) -> &[u8] {
        &[1]
    }

    fn status(&mut self, domain: u8) -> Result<Vec<VcpuStatus>, Error> {
        Self::domain(domain)?;
        let (state, pc) = match self.going {
            Going::Stopped => (VcpuState::Stopped, self.cpu.registers.pc),
            Going::Free | Going::Stepping(_) => (VcpuState::Running, 0),
            Going::Ended => (VcpuState::Ended, 0),
        };
        Ok(vec![VcpuStatus { state, pc: Va(pc) }])
    }

    fn pause(&mut self, domain: u8) -> Result<(), Error> {
        Self::domain(domain)?;
        match self.going {
            Going::Ended => Err(Refusal::Ended.into()),
            Going::Stopped => Ok(()),
            Going::Free | Going::Stepping(_) => {
                self.stop(StopReason::Paused);
                Ok(())
            }
        }
    }

    fn resume(&mut self, domain: u8) -> Result<(), Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        (self.going, self.steps) = (Going::Free, 0);
        Ok(())
    }

    fn resume_only(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        self.stopped(vcpu)?;
        self.resume(vcpu.domain)
    }

    fn step(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<(), Error> {
        self.stopped(vcpu)?;
        if request.count == 0 {
            return Err(Refusal::NoSteps.into());
        }
        (self.going, self.steps) = (Going::Stepping(request), 0);
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        if self.events.is_empty() {
            match self.going {
                Going::Free | Going::Stepping(_) => self.go(),
                Going::Stopped | Going::Ended => std::thread::sleep(timeout),
            }
        }
        Ok(self.events.pop_front())
    }

    fn read_registers(&mut self, vcpu: VcpuId) -> Result<Registers, Error> {
        self.stopped(vcpu)?;
        Ok(self.cpu.registers.clone())
    }

    fn write_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<(), Error> {
        self.stopped(vcpu)?;
        self.cpu.registers = registers.clone();
        Ok(())
    }

    fn read_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &mut [u8]) -> Result<(), Error> {
        self.stopped(vcpu)?;
        bytes.copy_from_slice(self.cpu.memory(address(place), bytes.len())?);
        Ok(())
    }

    fn write_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &[u8]) -> Result<(), Error> {
        self.stopped(vcpu)?;
        self.cpu.memory(address(place), bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn translate(&mut self, vcpu: VcpuId, va: Va) -> Result<Ipa, Error> {
        self.stopped(vcpu)?;
        Ok(Ipa(va.0))
    }

    fn set_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        Self::domain(domain)?;
        self.cpu.memory(address(place), 4)?;
        if self.breakpoints.contains(&place) {
            return Err(Refusal::Breakpoint.into());
        }
        self.breakpoints.push(place);
        Ok(())
    }

    fn clear_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        Self::domain(domain)?;
        let at = self.breakpoints.iter().position(|&set| set == place);
        self.breakpoints.remove(at.ok_or(Refusal::Breakpoint)?);
        Ok(())
    }

    fn support_simd(&mut self) -> Option<&mut dyn Simd> {
        Some(self)
    }

    fn support_sve(&mut self) -> Option<&mut dyn Sve> {
        Some(self)
    }

    fn support_monitors(&mut self) -> Option<&mut dyn Monitors> {
        Some(self)
    }

    fn support_interrupts(&mut self) -> Option<&mut dyn Interrupts> {
        Some(self)
    }

    fn support_trace(&mut self) -> Option<&mut dyn Trace> {
        Some(self)
    }

    fn support_watchpoints(&mut self) -> Option<&mut dyn Watchpoints> {
        Some(self)
    }

    fn support_time_travel(&mut self) -> Option<&mut dyn TimeTravel> {
        Some(self)
    }

    fn support_console(&mut self) -> Option<&mut dyn Console> {
        Some(self)
    }
}

impl Monitors for Fake {
    fn set_monitor(
        &mut self,
        domain: u8,
        vcpu: Option<u8>,
        monitor: Monitor,
        on: bool,
    ) -> Result<(), Error> {
        Self::domain(domain)?;
        if vcpu.is_some_and(|vcpu| vcpu != 0) {
            return Err(Refusal::NoSuchVcpu.into());
        }
        let state = match monitor {
            Monitor::SingleStep => &mut self.single_step,
            Monitor::PrivilegedCall => &mut self.privileged_calls,
        };
        if *state == on {
            return Err(Refusal::AlreadySet(on).into());
        }
        *state = on;
        Ok(())
    }
}

impl Interrupts for Fake {
    fn set_interrupt_policy(&mut self, domain: u8, _: InterruptPolicy) -> Result<(), Error> {
        Ok(Self::domain(domain)?)
    }
}

impl Watchpoints for Fake {
    fn set_watchpoint(&mut self, vcpu: VcpuId, watchpoint: Watchpoint) -> Result<(), Error> {
        self.stopped(vcpu)?;
        if watchpoint.length == 0 || watchpoint.address.0.checked_add(watchpoint.length).is_none() {
            return Err(Refusal::WatchedRange.into());
        }
        if self.watchpoints.contains(&watchpoint) {
            return Err(Refusal::Watchpoint.into());
        }
        self.watchpoints.push(watchpoint);
        Ok(())
    }

    fn clear_watchpoint(&mut self, domain: u8, watchpoint: Watchpoint) -> Result<(), Error> {
        self.stopped(VcpuId { domain, vcpu: 0 })?;
        let at = self.watchpoints.iter().position(|&set| set == watchpoint);
        self.watchpoints.remove(at.ok_or(Refusal::Watchpoint)?);
        Ok(())
    }
}

impl Trace for Fake {
    fn drain(&mut self, records: &mut Vec<TraceRecord>) -> Result<(), Error> {
        records.append(&mut self.trace);
        Ok(())
    }

    fn set_detail(&mut self, _domain: u8, detail: TraceDetail) -> Result<(), Error> {
        if detail == TraceDetail::default() { Ok(()) } else { Err(Refusal::Unsupported.into()) }
    }
}

impl Console for Fake {
    fn type_bytes(&mut self, domain: u8, bytes: &[u8]) -> Result<usize, Error> {
        Self::domain(domain)?;
        self.typed.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

const fn address(place: Place) -> u64 {
    match place {
        Place::Va(Va(address)) | Place::Ipa(Ipa(address)) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    #[test]
    fn the_fake_keeps_the_contract() {
        contract::check(|| Box::new(Fake::new(&contract::guest_bytes())));
        let length = VectorLength { longest: 64, current: 32 };
        contract::check(|| Box::new(Fake::with_sve(&contract::guest_bytes(), length)));
    }

    #[test]
    fn an_endless_guest_can_be_paused() {
        let mut fake = Fake::new(&0x1400_0000_u32.to_le_bytes());
        assert_eq!(contract::wait_for_stop(&mut fake).0.reason, StopReason::Reset);
        fake.resume(0).unwrap();
        assert_eq!(fake.wait(Duration::ZERO).unwrap(), None);
        fake.pause(0).unwrap();
        let (stop, _) = contract::wait_for_stop(&mut fake);
        assert_eq!((stop.reason, stop.steps), (StopReason::Paused, SLICE));
    }

    #[test]
    fn an_unknown_instruction_ends_the_domain() {
        let mut fake = Fake::new(&[0; 4]);
        contract::wait_for_stop(&mut fake);
        fake.resume(0).unwrap();
        let event = fake.wait(Duration::ZERO).unwrap();
        assert!(
            matches!(event, Some(Event::Ended { ending: DomainEnding::Fault(_), .. })),
            "{event:?}"
        );
        assert_eq!(fake.resume(0).unwrap_err().refusal(), Some(Refusal::Ended));
    }
}
