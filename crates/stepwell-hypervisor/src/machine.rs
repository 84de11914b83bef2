//! The whole machine: its domains, the trace ring, and what brings everything to a stop.

use crate::domain::{Domain, Order, PendingStop, Power, Vcpu, bit};
use crate::hw::{gic, power, registers, timer};
use crate::mem::ring::TraceRing;
use crate::server;
use core::sync::atomic::Ordering;
use heapless::Vec;
use spin::{Mutex, Once};
use stepwell_wire::{DomainEnding, Event, StopReason};

/// Domains of one machine.
pub const MAX_DOMAINS: usize = 4;

/// Everything that all CPUs share.
#[derive(Debug)]
pub struct Machine {
    /// The domains.
    pub domains: Vec<Domain, MAX_DOMAINS>,
    /// The trace ring, if the tool gave one.
    pub ring: Mutex<Option<TraceRing>>,
    /// CPUs that came up.
    pub cpus: u8,
}

static MACHINE: Once<Machine> = Once::new();

/// Makes the machine known to all CPUs. Once, on the boot CPU.
pub fn publish(machine: Machine) {
    MACHINE.call_once(|| machine);
}

/// The machine, once it is published.
#[must_use]
pub fn machine() -> Option<&'static Machine> {
    MACHINE.get()
}

impl Machine {
    /// The vCPU that is pinned to a CPU.
    #[must_use]
    pub fn vcpu_of(&self, cpu: usize) -> Option<(&Domain, usize, &Vcpu)> {
        self.domains.iter().find_map(|domain| {
            let index = domain.vcpus.iter().position(|vcpu| vcpu.cpu == cpu)?;
            Some((domain, index, domain.vcpus.get(index)?))
        })
    }

    /// Powers the machine off once no domain is left.
    pub fn power_off_if_over(&self) {
        if self.domains.iter().all(|domain| domain.control.lock().ending.is_some()) {
            power::machine_off();
        }
    }
}

impl Domain {
    /// Gives orders to vCPUs that stand and wakes their CPUs. Returns which had none before.
    ///
    /// The caller holds `control`, passed as `running`.
    pub fn give(&self, running: &mut u8, vcpus: u8, order: Order) {
        let mut cpus = 0;
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            if vcpus & bit(index) == 0 {
                continue;
            }
            vcpu.stop_requested.store(false, Ordering::Release);
            *vcpu.order.lock() = Some(order);
            *running |= bit(index);
            cpus |= bit(vcpu.cpu);
        }
        // This CPU looks for an order before it sleeps, and a call would only take it out of its
        // guest at the first instruction.
        gic::kick(cpus & !bit(registers::cpu_number()));
    }

    /// Asks every running vCPU to stand. The last one to do so reports `stop`, unless the domain
    /// is stopping for another reason already.
    ///
    /// Returns whether `stop` is what will be reported. It is not where every vCPU stands already.
    pub fn request_stop(&self, stop: PendingStop) -> bool {
        let mut control = self.control.lock();
        if control.running == 0 {
            return false;
        }
        match &mut control.stop {
            // Somebody asked for a pause, and this vCPU had a better reason meanwhile.
            Some(pause) if pause.reason == StopReason::Paused => *pause = stop,
            Some(_) => {}
            none => *none = Some(stop),
        }
        let is_accepted = control.stop == Some(stop);
        let running = control.running;
        drop(control);
        self.call_out(running);
        is_accepted
    }

    /// Ends the domain: every vCPU is asked to stand, and none ever runs again.
    pub fn end(&self, ending: DomainEnding) {
        let mut control = self.control.lock();
        control.ending.get_or_insert(ending);
        let running = control.running;
        drop(control);
        self.call_out(running);
    }

    fn call_out(&self, vcpus: u8) {
        let mut cpus = 0;
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            if vcpus & bit(index) != 0 {
                vcpu.stop_requested.store(true, Ordering::Release);
                cpus |= bit(vcpu.cpu);
            }
        }
        gic::kick(cpus);
    }

    /// Takes note that a vCPU stands, and whether it switched itself off. The last of its domain
    /// reports the stop, `own` where nobody has another.
    pub fn has_parked(&self, own: PendingStop, is_off: bool) {
        let mut control = self.control.lock();
        control.running &= !bit(own.vcpu);
        if is_off && let Some(power) = control.power.get_mut(own.vcpu) {
            *power = Power::Off;
        }
        if control.running != 0 {
            return;
        }
        control.joining = None;
        let by_turns = core::mem::take(&mut control.by_turns);
        if control.free {
            control.free = false;
            let offset = self.clock_offset.load(Ordering::Acquire);
            self.clock.lock().hold(timer::counter(), offset);
        }
        // All of this before `control` is let go: whoever finds that nobody runs may have them run
        // again, and what is told or opened afterwards would be taken for theirs.
        self.region.open();
        server::flush_console(self);
        if let Some(ending) = control.ending {
            server::send(Event::DomainEnded { domain: self.id, ending });
            drop(control);
            if let Some(machine) = machine() {
                machine.power_off_if_over();
            }
            return;
        }
        let mut stop = control.stop.take().unwrap_or(own);
        if by_turns {
            stop.steps = self.turns.lock().counted();
        }
        server::tell_of(self, stop);
    }
}
