//! Several vCPUs on one CPU, in turns.
//!
//! A vCPU that has its CPU for itself never comes here. One that shares it gives it away where its turn
//! is over and where it waits, and goes on from there when it is there again: what it was in the middle
//! of is a [`Flow`]. One that is called out is always next, since the others that stop wait for it; and
//! an idle CPU waits for the first timer of any of its vCPUs.
//!
//! Turns are of a length in time, or, where the machine counts instructions, in instructions: then
//! which vCPU executes when is a function of the domain's position, and nothing that comes from
//! outside gets in but between turns ([`super::counted`]).

use super::advance::{Needs, VcpuLoop, advance};
use super::call_out::Progress;
use super::flow::Flow;
use super::running::Running;
use super::state::{VcpuCore, vmpidr};
use super::{counted, interrupt, park, put_on_cpu, shared_cpu, take_off_cpu, time};
use crate::cpu::{Cpu, Vector};
use crate::domain::{Domain, MAX_VCPUS, Order, PendingStop, Vcpu, bit};
use crate::machine::Machine;
use core::sync::atomic::Ordering;
use spin::MutexGuard;
use stepwell_protocol::StopReason;

/// Longest wait for a timer: far deadlines would overflow the counter.
const LONGEST_WAIT_NS: u64 = 1_000_000_000;

/// What a CPU keeps of the vCPUs that share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shared {
    /// Whose turn it was.
    pub last: usize,
    /// What each is in the middle of. Where another one has the CPU, it has its order back.
    pub paused: [Option<Paused>; MAX_VCPUS],
    /// The one that was on the CPU last has left nothing on in its breakpoint and watchpoint registers.
    pub has_clear_banks: bool,
}

impl Shared {
    /// A vCPU has come to the end of its order.
    pub fn forget(&mut self, index: usize) {
        if let Some(paused) = self.paused.get_mut(index) {
            *paused = None;
        }
    }
}

/// What a vCPU was in the middle of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Paused {
    /// What it was ordered.
    pub order: Order,
    /// What is left of that.
    pub progress: Progress,
    /// Where it is in that.
    pub flow: Flow,
}

/// Runs the vCPUs of a CPU, one bit each in `vcpus`, for good.
pub fn serve<C: Cpu>(
    machine: &Machine<C>,
    cpu: &C,
    number: usize,
    domain: &Domain<C>,
    vcpus: u8,
) -> ! {
    cpu.prepare(vmpidr(0), domain.vttbr);
    let mut shared = Shared::default();
    loop {
        interrupt::take_all_at_el2(machine, cpu, number);
        if !serve_once(machine, cpu, domain, vcpus, &mut shared) {
            idle(machine, cpu, domain, vcpus);
        }
    }
}

/// Lets the next one of `vcpus` move, if any can.
pub fn serve_once<C: Cpu>(
    machine: &Machine<C>,
    cpu: &C,
    domain: &Domain<C>,
    vcpus: u8,
    shared: &mut Shared,
) -> bool {
    let Some(mut turn) = InTurn::begin(machine, cpu, domain, vcpus, shared) else { return false };
    let mut left = None;
    loop {
        match turn.go_on(left.take()) {
            Needs::Entry => left = Some(turn.enter()),
            Needs::Others => core::hint::spin_loop(),
            needs => {
                let index = turn.index;
                if turn.end(needs) {
                    shared.forget(index);
                }
                return true;
            }
        }
    }
}

/// A vCPU that has the CPU, for a turn.
pub struct InTurn<'a, C: Cpu> {
    /// What it is in the middle of: where the CPU keeps it, as copying costs more than a short turn.
    pub paused: &'a mut Paused,
    has_clear_banks: &'a mut bool,
    /// The vCPU's number in its domain.
    pub index: usize,
    machine: &'a Machine<C>,
    domain: &'a Domain<C>,
    cpu: &'a C,
    vcpu: &'a Vcpu<C>,
    /// Its registers and all.
    pub core: MutexGuard<'a, VcpuCore<C>>,
}

impl<'a, C: Cpu> InTurn<'a, C> {
    /// Gives the CPU to the next one of `vcpus`, if any can move.
    pub fn begin(
        machine: &'a Machine<C>,
        cpu: &'a C,
        domain: &'a Domain<C>,
        vcpus: u8,
        shared: &'a mut Shared,
    ) -> Option<Self> {
        let index = next(cpu, domain, vcpus, &mut shared.last)?;
        let order = domain.vcpus.get(index)?.order.lock().take()?;
        if domain.timeline.is_some() {
            cpu.enable_link(false);
        }
        let begun = || Paused { order, progress: Progress::new(order), flow: Flow::new(order) };
        let place = shared.paused.get_mut(index)?;
        let goes_on = place.is_some();
        let _paused = place.get_or_insert_with(begun);
        domain.on_cpu.fetch_or(bit(index), Ordering::SeqCst);
        let mut turn = Self::of(machine, cpu, domain, index, shared)?;
        turn.get_on(goes_on);
        Some(turn)
    }

    /// The turn of a vCPU that has the CPU already, and is in the middle of something.
    pub fn of(
        machine: &'a Machine<C>,
        cpu: &'a C,
        domain: &'a Domain<C>,
        index: usize,
        shared: &'a mut Shared,
    ) -> Option<Self> {
        let vcpu = domain.vcpus.get(index)?;
        let Shared { paused, has_clear_banks, .. } = shared;
        let paused = paused.get_mut(index)?.as_mut()?;
        let core = vcpu.core.lock();
        Some(Self { paused, has_clear_banks, index, machine, domain, cpu, vcpu, core })
    }

    fn running(&mut self) -> Running<'_, C> {
        let Self { index, machine, domain, cpu, vcpu, core, .. } = self;
        Running { machine, domain, index: *index, vcpu, cpu: *cpu, core }
    }

    /// `goes_on`: others have had the CPU since, and nobody else has had the guest.
    fn get_on(&mut self, goes_on: bool) {
        let is_counted = goes_on && self.domain.timeline.is_some();
        shared_cpu::take_over(self.cpu, self.index, &mut self.core, is_counted);
        self.core.debug.take_over(core::mem::take(self.has_clear_banks));
        put_on_cpu(self.cpu, self.domain, &mut self.core, self.paused.progress.order);
        regain(&mut self.running());
    }

    fn get_off(&mut self) {
        take_off_cpu(self.cpu, &mut self.core);
        shared_cpu::give_away(self.cpu, &mut self.core);
        *self.has_clear_banks = self.core.debug.has_clear_banks();
    }

    /// Goes on with the order. The turn is over where that has come to its end, and where the vCPU
    /// waits for anything but other CPUs.
    pub fn go_on(&mut self, mut left: Option<Vector>) -> Needs {
        loop {
            let Self { index, machine, domain, cpu, vcpu, core, paused, .. } = self;
            let index = *index;
            let mut running = Running { machine, domain, index, vcpu, cpu: *cpu, core };
            let needs = advance(&mut running, &mut paused.flow, left.take());
            let Needs::Nothing(piece) = needs else { return needs };
            if let Some(end) = paused.progress.came_to(&mut running, piece) {
                return Needs::Nothing(end);
            }
            self.get_off();
            self.paused.flow = Flow::new(self.paused.progress.order);
            self.get_on(false);
        }
    }

    /// Lets the vCPU into its guest.
    pub fn enter(&mut self) -> Vector {
        let steps = self.paused.flow.is_stepping();
        counted::enter(&mut self.running(), steps)
    }

    /// Takes the CPU from the vCPU, because of what it needs. Tells whether it has come to the end of
    /// its order ([`Shared::forget`]).
    pub fn end(mut self, needs: Needs) -> bool {
        if !matches!(needs, Needs::Nothing(_)) {
            let Self { index, machine, domain, cpu, vcpu, core, paused, .. } = &mut self;
            let mut running = Running { machine, domain, index: *index, vcpu, cpu: *cpu, core };
            VcpuLoop { running: &mut running, flow: &mut paused.flow }.pause_recording();
        }
        self.get_off();
        let Self { paused, index, machine, domain, cpu, vcpu, core, .. } = self;
        drop(core);
        if let Needs::Nothing(end) = needs {
            domain.on_cpu.fetch_and(!bit(index), Ordering::SeqCst);
            park(machine, domain, index, cpu, end);
            return true;
        }
        *vcpu.order.lock() = Some(paused.order);
        domain.on_cpu.fetch_and(!bit(index), Ordering::SeqCst);
        false
    }
}

/// Others have had the CPU: what is where, what is pending, and whose timer it is.
fn regain<C: Cpu>(running: &mut Running<'_, C>) {
    running.core.forget_pages();
    interrupt::forget_signalled(running);
    if running.core.virtual_clock {
        time::hold(running);
    } else {
        time::release(running);
    }
}

/// Which vCPU is next. Where instructions are counted its turn begins, if it has none.
fn next<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpus: u8, last: &mut usize) -> Option<usize> {
    let ours = || (0..domain.vcpus.len()).filter(|&index| vcpus & bit(index) != 0);
    let has_order =
        |index: usize| domain.vcpus.get(index).is_some_and(|v| v.order.lock().is_some());
    let is_called = |index: usize| {
        let vcpu = domain.vcpus.get(index);
        vcpu.is_some_and(|vcpu| vcpu.stop_requested.load(Ordering::Acquire)) && has_order(index)
    };
    let called = || ours().find(|&index| is_called(index));
    if let Some(called) = called() {
        return Some(called);
    }
    let can_move = |index: usize| has_order(index) && !waits(cpu, domain, index);
    let Some(timeline) = &domain.timeline else {
        let rest = ours().filter(|&other| other > *last);
        let next = rest.chain(ours()).find(|&other| can_move(other))?;
        *last = next;
        return Some(next);
    };
    let (current, is_over, is_there) = {
        let timeline = timeline.lock();
        (timeline.vcpu(), timeline.is_turn_over(), timeline.is_there())
    };
    if !is_over && !is_there && can_move(current) {
        return Some(current);
    }
    let movable = ours().filter(|&index| can_move(index)).fold(0, |mask, index| mask | bit(index));
    // Who is next is chosen, and has waited, when it goes on: what is typed here may have a say in it, as it
    // has where the user has stopped the guest between two turns.
    if movable != 0 && is_there {
        request_stop(cpu, domain, current);
        return called();
    }
    let waiting = ours().filter(|&index| movable & bit(index) == 0 && has_order(index));
    let wakes_at = waiting.filter_map(|index| next_deadline(cpu, domain, index)).min();
    let next = timeline.lock().next_turn(movable, wakes_at)?;
    // A turn begins with the monitor open: it may have been stopped at the end of its last one, within
    // a sequence.
    if let Some(vcpu) = domain.vcpus.get(next) {
        vcpu.core.lock().monitor.clear();
    }
    Some(next)
}

/// Tells whether a vCPU that is on no CPU waits for an interrupt.
fn waits<C: Cpu>(cpu: &C, domain: &Domain<C>, index: usize) -> bool {
    let Some(vcpu) = domain.vcpus.get(index) else { return true };
    let mut core = vcpu.core.lock();
    if !core.is_suspended {
        return false;
    }
    time::update_lines_of(cpu, domain, index, &mut core);
    let is_to_wake = time::is_to_wake_at(cpu, domain, &core);
    !is_to_wake && core.serror.is_none() && !domain.vgic.lock().has_pending(index, &core.interface)
}

fn next_deadline<C: Cpu>(cpu: &C, domain: &Domain<C>, index: usize) -> Option<u64> {
    let vcpu = domain.vcpus.get(index)?;
    time::next_deadline_of(cpu, domain, &vcpu.core.lock())
}

/// Waits until one of them can move, or somebody has something to say.
pub fn idle<C: Cpu>(machine: &Machine<C>, cpu: &C, domain: &Domain<C>, vcpus: u8) {
    machine.flush_console(domain);
    let has_order = |(index, vcpu): (usize, &crate::domain::Vcpu<C>)| {
        vcpus & bit(index) != 0 && vcpu.order.lock().is_some()
    };
    let waiting = || domain.vcpus.iter().enumerate().filter(|&vcpu| has_order(vcpu));
    let deadline =
        waiting().filter_map(|(_, vcpu)| time::next_deadline_of(cpu, domain, &vcpu.core.lock()));
    if let Some(timeline) = &domain.timeline
        && waiting().next().is_some()
    {
        let timeline = timeline.lock();
        if timeline.is_reached_asleep() {
            let vcpu = timeline.vcpu();
            drop(timeline);
            request_stop(cpu, domain, vcpu);
            return;
        }
        drop(timeline);
        // Nothing happens to this guest before a timer goes off.
        if let Some(deadline) = deadline.min() {
            timeline_of(domain, |timeline| timeline.sleep_until(deadline));
            return;
        }
    } else if let Some(deadline) = deadline.min() {
        let now = cpu.counter().wrapping_sub(domain.clock_offset.load(Ordering::Acquire));
        let ns = time::ticks_to_ns(cpu, deadline.saturating_sub(now));
        cpu.interrupt_in(ns.min(LONGEST_WAIT_NS));
    }
    cpu.enable_link(true);
    let has_work = || domain.vcpus.iter().enumerate().any(|(index, vcpu)| has_order((index, vcpu)));
    if !machine.link.linger(cpu, machine, &has_work) {
        cpu.wait_for_interrupt();
    }
}

/// The domain has come to where it is to stop.
fn request_stop<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpu: usize) {
    let stop = PendingStop { vcpu, reason: StopReason::Reached };
    let _is_told = domain.request_stop(cpu, stop);
}

fn timeline_of<C: Cpu>(domain: &Domain<C>, act: impl FnOnce(&mut crate::timeline::Timeline)) {
    if let Some(timeline) = &domain.timeline {
        act(&mut timeline.lock());
    }
}
