//! A vCPU on its CPU: from an order to the stop that answers it.
//!
//! Data flows one way: the guest exits, [`exit`] finds out why and does what the machine would have
//! done, and what it returns decides whether the guest goes on. Stepping is the same loop with the
//! engine in between; see [`step`]. Several vCPUs may share a CPU; see [`sharing`].

pub mod acknowledged;
pub mod address_space;
pub mod advance;
mod block;
pub mod bus;
pub mod byte_order;
pub mod call_out;
pub mod changes;
pub mod coprocessor;
pub mod count;
pub mod counted;
pub mod debug;
pub mod device_access;
pub mod exit;
mod fetch;
pub mod flash;
pub mod flow;
mod free;
mod fw_cfg;
pub mod guest_view;
mod hand;
pub mod handled;
pub mod inject;
pub mod interrupt;
pub mod memory;
pub mod operand;
pub mod pages;
pub mod psci;
pub mod quiesce;
pub mod roots;
pub mod running;
pub mod shadow;
pub mod shared_cpu;
pub mod sharing;
pub mod state;
pub mod step;
pub mod system;
pub mod time;
pub mod timers;
pub mod translation;
mod virtio;
mod walk_abort;
pub mod watch;
pub mod watchpoint;

use crate::cpu::Cpu;
use crate::domain::{Domain, Order, PendingStop, Vcpu};
use crate::machine::Machine;
use crate::vcpu::advance::drive;
use crate::vcpu::call_out::Progress;
use crate::vcpu::flow::Flow;
use crate::vcpu::running::{End, Running};
use crate::vcpu::state::{VcpuCore, vmpidr};

/// Runs whatever vCPUs are this CPU's, for good.
pub fn serve_cpu<C: Cpu>(machine: &Machine<C>, cpu: &C, number: usize) -> ! {
    let Some((domain, vcpus)) = machine.vcpus_of(number) else {
        idle(machine, cpu, number);
    };
    let index = vcpus.trailing_zeros() as usize;
    let Some(vcpu) = domain.vcpus.get(index).filter(|vcpu| !vcpu.shares_cpu) else {
        sharing::serve(machine, cpu, number, domain, vcpus);
    };
    cpu.prepare(vmpidr(index), domain.vttbr);
    vcpu.core.lock().vttbr = domain.vttbr;
    loop {
        let order = wait_for_order(machine, vcpu, cpu, number);
        carry_out_and_park(machine, domain, index, vcpu, cpu, order);
    }
}

/// Does as ordered until something stops the vCPU, and parks it.
pub fn carry_out_and_park<C: Cpu>(
    machine: &Machine<C>,
    domain: &Domain<C>,
    index: usize,
    vcpu: &Vcpu<C>,
    cpu: &C,
    order: Order,
) {
    let mut core = vcpu.core.lock();
    let mut progress = Progress::new(order);
    let end = loop {
        put_on_cpu(cpu, domain, &mut core, order);
        let mut running = Running { machine, domain, index, vcpu, cpu, core: &mut core };
        let piece = drive(&mut running, &mut Flow::new(progress.order));
        let end = progress.came_to(&mut running, piece);
        take_off_cpu(cpu, &mut core);
        if let Some(end) = end {
            break end;
        }
    };
    drop(core);
    park(machine, domain, index, cpu, end);
}

/// Has the CPU hold a vCPU that is about to do as ordered.
pub fn put_on_cpu<C: Cpu>(cpu: &C, domain: &Domain<C>, core: &mut VcpuCore<C>, order: Order) {
    translation::load(cpu, domain, order);
    if core::mem::take(&mut core.is_reset) {
        cpu.reset();
    }
    cpu.load(&core.snapshot);
    cpu.load_simd(&mut core.simd);
}

/// Takes from the CPU what it holds of a vCPU.
pub fn take_off_cpu<C: Cpu>(cpu: &C, core: &mut VcpuCore<C>) {
    cpu.save(&mut core.snapshot);
    cpu.save_simd(&mut core.simd);
    cpu.stop_virtual_timer();
    cpu.synchronize();
}

/// Parks a vCPU whose order has come to its end. The last one of its domain reports the stop.
pub fn park<C: Cpu>(machine: &Machine<C>, domain: &Domain<C>, index: usize, cpu: &C, end: End) {
    let own = PendingStop { vcpu: index, reason: end.reason() };
    let is_other = matches!(end, End::Stop(_)) && !domain.request_stop(cpu, own);
    if let Some(vcpu) = domain.vcpus.get(index) {
        let mut core = vcpu.core.lock();
        // Whoever stops within a handler goes on from there, seen.
        core.handler_of = None;
        if is_other {
            // Another vCPU's reason was first: this one's comes again when they go on.
            core.acknowledged = None;
            core.monitor.clear();
        }
    }
    // One that is switched off leaves the others running, who have queues served for ever.
    if end != End::SwitchedOff {
        virtio::settle(machine, cpu, domain);
    }
    domain.park(machine, cpu, own, end == End::SwitchedOff);
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
