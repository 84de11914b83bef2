//! The whole machine: its domains, the trace ring, and what brings everything to a stop.

use crate::cpu::Cpu;
use crate::domain::{Control, Domain, Order, PendingStop, Power, bit};
use crate::link::Link;
use crate::mutation::{self, LoopMutant};
use crate::registers::Snapshot;
use alloc::boxed::Box;
use core::sync::atomic::Ordering;
use heapless::Vec;
use spin::Mutex;
use stepwell_protocol::{DomainEnding, StopReason};
use stepwell_wire::Event;

/// Domains of one machine.
pub const MAX_DOMAINS: usize = 4;

/// Everything that all CPUs share.
pub struct Machine<C: Cpu> {
    /// The domains.
    pub domains: Vec<Domain<C>, MAX_DOMAINS>,
    /// The trace ring, if the tool gave one.
    pub ring: Mutex<Option<C::Ring>>,
    /// CPUs that came up.
    pub cpus: u8,
    /// System registers as the CPU resets them.
    pub reset: Snapshot,
    /// The machine's end of the link.
    pub link: Box<dyn Link<C>>,
}

impl<C: Cpu> Machine<C> {
    /// The domain whose vCPUs a CPU runs, and these: one bit each.
    #[must_use]
    pub fn vcpus_of(&self, cpu: usize) -> Option<(&Domain<C>, u8)> {
        self.domains.iter().find_map(|domain| {
            let vcpus = domain.vcpus.iter().enumerate().filter(|(_, vcpu)| vcpu.cpu == cpu);
            let mask = vcpus.fold(0, |mask, (index, _)| mask | bit(index));
            (mask != 0).then_some((domain, mask))
        })
    }

    /// The vCPU that is on a CPU.
    #[must_use]
    pub fn vcpu_on(&self, cpu: usize) -> Option<(&Domain<C>, &crate::domain::Vcpu<C>)> {
        let (domain, vcpus) = self.vcpus_of(cpu)?;
        let on = vcpus & domain.on_cpu.load(Ordering::SeqCst);
        Some((domain, domain.vcpus.get(on.trailing_zeros() as usize)?))
    }

    /// Emits a stop, once all vCPUs of the domain are stopped.
    pub fn emit_stop(&self, domain: &Domain<C>, stop: PendingStop, steps: u64) {
        let PendingStop { vcpu, reason } = stop;
        // There is no vCPU that is not the domain's.
        let Some(stopped) = domain.vcpus.get(vcpu) else { return };
        let registers = stopped.core.lock().registers();
        let vcpu = vcpu as u8;
        self.link.send(&Event::Stopped { domain: domain.id, vcpu, reason, steps, registers });
    }

    /// Sends what a domain wrote on its console so far.
    pub fn flush_console(&self, domain: &Domain<C>) {
        self.send_console(domain.id, &mut domain.console.lock());
    }

    /// Sends a console's text while nobody else can add to it, so that it arrives in order.
    pub fn send_console<const N: usize>(&self, domain: u8, console: &mut Vec<u8, N>) {
        if let Ok(bytes) = Vec::from_slice(console)
            && !bytes.is_empty()
        {
            self.link.send(&Event::Console { domain, bytes });
        }
        console.clear();
    }

    /// Powers the machine off once no domain is left.
    pub fn power_off_if_over(&self, cpu: &C) {
        if self.domains.iter().all(|domain| domain.control.lock().ending.is_some()) {
            cpu.power_off();
        }
    }
}

impl<C: Cpu> Domain<C> {
    /// Gives orders to vCPUs that are stopped and wakes their CPUs. Returns which had none before.
    ///
    /// The caller holds `control`, passed as `running`.
    pub fn give(&self, cpu: &C, running: &mut u8, vcpus: u8, order: Order) {
        let mut cpus = 0;
        let all = (0..self.vcpus.len()).fold(0, |mask, index| mask | bit(index));
        *running |= vcpus & all;
        self.alone.set_ordered(*running);
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            if vcpus & bit(index) == 0 {
                continue;
            }
            vcpu.stop_requested.store(false, Ordering::Release);
            *vcpu.order.lock() = Some(order);
            cpus |= bit(vcpu.cpu);
        }
        // This CPU looks for an order before it sleeps, and a call would only take it out of its
        // guest at the first instruction.
        cpu.kick(cpus & !bit(cpu.number()));
    }

    /// Asks every running vCPU to stop. The last one to do so reports `stop`, unless the domain
    /// is stopping for another reason already.
    ///
    /// Returns whether `stop` is what will be reported. It is not where every vCPU is stopped
    /// already.
    pub fn request_stop(&self, cpu: &C, stop: PendingStop) -> bool {
        let mut control = self.control.lock();
        if control.running == 0 {
            return false;
        }
        let Control { stop: told, overlooked, .. } = &mut *control;
        match told {
            // Somebody asked for a pause, and this vCPU had a better reason meanwhile.
            Some(pause) if pause.reason == StopReason::Paused => *pause = stop,
            // One that is faster would be told of each time: a debugger may wait for this one.
            Some(other) if overlooked.is_before(stop.vcpu, other.vcpu) => {
                overlooked.add(other.vcpu);
                *other = stop;
            }
            Some(other) if other.vcpu != stop.vcpu && stop.reason != StopReason::Paused => {
                overlooked.add(stop.vcpu);
            }
            Some(_) => {}
            none => *none = Some(stop),
        }
        // What is notified from here on is served before its vCPU stops.
        self.is_asynchronous.store(false, Ordering::Release);
        let is_accepted = control.stop == Some(stop);
        let running = control.running;
        drop(control);
        self.call_out(cpu, running);
        is_accepted
    }

    /// Ends the domain: every vCPU is asked to stop, and none ever runs again.
    pub fn end(&self, cpu: &C, ending: DomainEnding) {
        let mut control = self.control.lock();
        control.ending.get_or_insert(ending);
        self.is_asynchronous.store(false, Ordering::Release);
        let running = control.running;
        drop(control);
        self.call_out(cpu, running);
    }

    fn call_out(&self, cpu: &C, vcpus: u8) {
        let mut cpus = 0;
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            if vcpus & bit(index) != 0 {
                vcpu.stop_requested.store(true, Ordering::Release);
                cpus |= bit(vcpu.cpu);
            }
        }
        cpu.kick(cpus);
    }

    /// Takes note that a vCPU is stopped, and whether it switched itself off. The last of its
    /// domain reports the stop, `own` where nobody has another.
    pub fn park(&self, machine: &Machine<C>, cpu: &C, own: PendingStop, is_off: bool) {
        let mut control = self.control.lock();
        control.running &= !bit(own.vcpu);
        self.alone.set_ordered(control.running);
        if is_off && let Some(power) = control.power.get_mut(own.vcpu) {
            *power = Power::Off;
        }
        if control.running != 0 && !mutation::is(LoopMutant::StopToldByEach) {
            return;
        }
        control.joining = None;
        self.is_asynchronous.store(false, Ordering::Release);
        let by_turns = core::mem::take(&mut control.by_turns);
        if control.free {
            control.free = false;
            self.hold_clock(cpu);
        }
        // All of this before `control` is let go: whoever finds that nobody runs may have them run
        // again, and what is told or opened afterwards would be taken for theirs.
        self.quiescence.resume();
        machine.flush_console(self);
        if let Some(ending) = control.ending {
            let moment = self.timeline.as_ref().map(|timeline| {
                let now = timeline.lock().now();
                (now.position, now.clock)
            });
            machine.link.send(&Event::DomainEnded { domain: self.id, ending, moment });
            drop(control);
            machine.power_off_if_over(cpu);
            return;
        }
        let stop = control.stop.take().unwrap_or(own);
        control.overlooked.remove(stop.vcpu);
        // Not before: a pause gives way to what another vCPU comes to meanwhile, and then who was to
        // be told of has not been. A position that is reached tells of a moment, and not of the
        // instruction that is next.
        if let Some(stopped) = self.vcpus.get(stop.vcpu)
            && stop.reason != StopReason::Reached
            && !mutation::is(LoopMutant::StopNotAcknowledged)
        {
            stopped.core.lock().acknowledge(stop.reason);
        }
        let steps = match self.vcpus.get(stop.vcpu) {
            Some(stopped) if !by_turns => stopped.core.lock().steps,
            _ => self.turns.lock().counted(),
        };
        machine.emit_stop(self, stop, steps);
    }
}
