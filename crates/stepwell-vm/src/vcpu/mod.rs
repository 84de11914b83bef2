//! A vCPU on its CPU: from an order to the stop that answers it.
//!
//! Data flows one way: the guest exits, [`exit`] finds out why and does what the machine would have
//! done, and what it returns decides whether the guest goes on. Stepping is the same loop with the
//! engine in between; see [`step`].

pub mod address_space;
pub mod bus;
pub mod call_out;
pub mod changes;
pub mod coprocessor;
pub mod debug;
pub mod device_access;
pub mod exit;
pub mod guest_view;
pub mod handled;
pub mod inject;
pub mod interrupt;
pub mod memory;
pub mod pages;
pub mod psci;
pub mod quiesce;
pub mod roots;
pub mod run;
pub mod running;
pub mod shadow;
pub mod state;
pub mod step;
pub mod system;
pub mod time;
pub mod timers;
pub mod translation;
pub mod watch;
pub mod watchpoint;

use crate::cpu::Cpu;
use crate::domain::{Domain, Order, PendingStop, Vcpu};
use crate::machine::Machine;
use crate::vcpu::call_out::Progress;
use crate::vcpu::running::{End, Running};

use stepwell_protocol::StopReason;

/// Runs whatever vCPU is pinned to this CPU, for good.
pub fn serve_cpu<C: Cpu>(machine: &Machine<C>, cpu: &C, number: usize) -> ! {
    let Some((domain, index, vcpu)) = machine.vcpu_of(number) else {
        idle(machine, cpu, number);
    };
    cpu.prepare(vmpidr(index), domain.vttbr);
    vcpu.core.lock().vttbr = domain.vttbr;
    loop {
        let order = wait_for_order(machine, vcpu, cpu, number);
        carry_out_and_park(machine, domain, index, vcpu, cpu, order);
    }
}

/// Does as ordered until something stops the vCPU.
pub fn carry_out_and_park<C: Cpu>(
    machine: &Machine<C>,
    domain: &Domain<C>,
    index: usize,
    vcpu: &Vcpu<C>,
    cpu: &C,
    order: Order,
) {
    let (end, stop) = carry_out(machine, domain, index, vcpu, cpu, order);
    let is_reported = match end {
        End::Stop(_) => domain.request_stop(cpu, stop),
        _ => domain.control.lock().stop.is_some_and(|stop| stop.vcpu == index),
    };
    let mut core = vcpu.core.lock();
    if is_reported {
        core.reported_pc = Some(core.context.elr);
    } else if let End::Stop(_) = end {
        // Another vCPU's reason was first: this one's comes again when they go on.
        core.reported_call = None;
        core.debug.reported_watch = None;
        core.reported_pc = None;
        core.monitor.clear();
    }
    drop(core);
    domain.park(machine, cpu, stop, end == End::SwitchedOff);
}

/// MPIDR_EL1 as the guest reads it: affinity 0 is the vCPU's number, bit 31 is RES1.
const fn vmpidr(index: usize) -> u64 {
    1 << 31 | index as u64
}

fn idle<C: Cpu>(machine: &Machine<C>, cpu: &C, number: usize) -> ! {
    loop {
        interrupt::take_all_at_el2(machine, cpu, number);
        cpu.wait_for_interrupt();
    }
}

fn wait_for_order<C: Cpu>(machine: &Machine<C>, vcpu: &Vcpu<C>, cpu: &C, number: usize) -> Order {
    loop {
        interrupt::take_all_at_el2(machine, cpu, number);
        if let Some(order) = vcpu.order.lock().take() {
            return order;
        }
        if !machine.link.linger(cpu, machine, &|| vcpu.order.lock().is_some()) {
            cpu.wait_for_interrupt();
        }
    }
}

fn carry_out<C: Cpu>(
    machine: &Machine<C>,
    domain: &Domain<C>,
    index: usize,
    vcpu: &Vcpu<C>,
    cpu: &C,
    order: Order,
) -> (End, PendingStop) {
    translation::load(cpu, domain, order);
    let mut core = vcpu.core.lock();
    if core::mem::take(&mut core.is_reset) {
        cpu.reset();
    }
    let mut progress = Progress::new(order);
    let (end, steps) = loop {
        cpu.load(&core.snapshot);
        cpu.load_simd(&mut core.simd);
        let mut running = Running { machine, domain, index, vcpu, cpu, core: &mut core };
        address_space::load(&running);
        let piece = match progress.order {
            Order::Run => {
                let end = run::run(&mut running);
                time::ran(&mut running);
                (end, 0)
            }
            Order::Step(order) => step::step(&mut running, order),
        };
        let end = progress.came_to(&mut running, piece);
        cpu.save(&mut core.snapshot);
        cpu.save_simd(&mut core.simd);
        cpu.stop_virtual_timer();
        cpu.synchronize();
        if let Some(end) = end {
            break end;
        }
    };
    // Whoever stops within a handler goes on from there, seen.
    core.handler_of = None;
    let reason = match end {
        End::Stop(reason) => reason,
        End::Asked => StopReason::Paused,
        End::SwitchedOff => StopReason::SwitchedOff,
    };
    // A pause that arrived while this vCPU stepped reports what the steps came to.
    if end == End::Asked
        && let Some(stop) = domain.control.lock().stop.as_mut()
        && stop.vcpu == index
    {
        stop.steps = steps;
    }
    (end, PendingStop { vcpu: index, reason, steps })
}
