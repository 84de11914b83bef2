//! What each of the tool's commands does.
//!
//! A command either happens whole or is refused, and then nothing has changed.

mod breakpoints;
mod running;
mod state;
mod timeline;
mod vectors;

use crate::cpu::Cpu;
use crate::device::virtio::Identity;
use crate::domain::{Control, Domain, MAX_VCPUS, Power, Role, StepOrder, bit};
use crate::machine::Machine;
use crate::ring::Ring as _;
use crate::timeline::Moment;
use crate::vcpu::bus::update_domain_uart_line;
use crate::vcpu::interrupt;
use heapless::Vec;
use stepwell_engine::Scope;
use stepwell_protocol::{Monitor, Refusal, TraceDetail, VcpuState};
use stepwell_wire::{Answer, Bytes, Command, VERSION};

type Result<T = Answer> = core::result::Result<T, Refusal>;

/// Lets a domain run, all its vCPUs, as nobody else would.
///
/// # Errors
///
/// [`Refusal`].
pub fn run_freely<C: Cpu>(cpu: &C, domain: &Domain<C>) -> Result {
    running::go_on(cpu, domain, None)
}

/// Carries out one command.
///
/// # Errors
///
/// [`Refusal`].
pub fn serve<C: Cpu>(cpu: &C, machine: &Machine<C>, command: Command) -> Result {
    if would_diverge(machine, &command) {
        return Err(Refusal::WouldDiverge);
    }
    match command {
        Command::Hello { version } => hello(cpu, machine, version),
        Command::PowerOff => {
            cpu.power_off();
            Ok(Answer::Done)
        }
        Command::Status { domain } => status(find(machine, domain)?),
        Command::Pause { domain } => running::pause(cpu, machine, find(machine, domain)?),
        Command::Continue { domain, vcpu } => running::go_on(cpu, find(machine, domain)?, vcpu),
        Command::Step { domain, vcpu, count, until, record, all, within } => {
            let scope = if all { Scope::All } else { Scope::Focus };
            let order = StepOrder { until, record, within, role: Role::Focus };
            running::step(cpu, machine, find(machine, domain)?, vcpu, (count, scope), order)
        }
        Command::SetOthersPolicy { domain, policy } => {
            running::set_others_policy(find(machine, domain)?, policy)
        }
        Command::SetMonitor { domain, vcpu, monitor, on } => {
            running::set_monitor(cpu, machine, find(machine, domain)?, vcpu, monitor, on)
        }
        Command::SetInterruptPolicy { domain, policy } => {
            stopped(find(machine, domain)?)?.interrupts = policy;
            Ok(Answer::Done)
        }
        Command::SetTimePolicy { domain, policy } => {
            running::set_time_policy(cpu, find(machine, domain)?, policy)
        }
        Command::SetBreakpoint { domain, place } => {
            breakpoints::set_breakpoint(cpu, find(machine, domain)?, place)
        }
        Command::ClearBreakpoint { domain, place } => {
            breakpoints::clear_breakpoint(find(machine, domain)?, place)
        }
        Command::SetWatchpoint { domain, vcpu, watchpoint } => {
            breakpoints::set_watchpoint(cpu, find(machine, domain)?, vcpu, watchpoint)
        }
        Command::ClearWatchpoint { domain, watchpoint } => {
            breakpoints::clear_watchpoint(find(machine, domain)?, watchpoint)
        }
        Command::ReadTimeline { domain } => timeline::read(find(machine, domain)?),
        Command::RunUntil { domain, position, clock, turn, record } => {
            let until = (Moment { position, clock }, turn);
            timeline::run_until(cpu, machine, find(machine, domain)?, until, record)
        }
        Command::Keep { domain } => timeline::keep(find(machine, domain)?),
        Command::GoTo { domain, checkpoint } => {
            timeline::go_to(cpu, find(machine, domain)?, checkpoint)
        }
        Command::Forget { checkpoint } => timeline::forget(machine, checkpoint),
        Command::Wrote { domain, from, to, ipa, bytes } => {
            timeline::wrote(find(machine, domain)?, (from, to), ipa, bytes)
        }
        Command::Fork { domain } => timeline::fork(find(machine, domain)?),
        Command::AttachDevice { domain, slot, device, features, queues, configuration } => {
            let identity = Identity { id: device, features, queues, configuration };
            attach(find(machine, domain)?, slot, identity)
        }
        Command::ConsoleInput { domain, bytes } => type_in(cpu, find(machine, domain)?, &bytes),
        Command::SetDetail { domain, registers, memory } => {
            running::set_detail(find(machine, domain)?, TraceDetail { registers, memory })
        }
        other => state::inspect(cpu, machine, other),
    }
}

/// Tells whether a command would make another run of one whose instructions are counted, without its
/// having been [forked](Command::Fork): all vCPUs move by positions there, and nothing is written.
fn would_diverge<C: Cpu>(machine: &Machine<C>, command: &Command) -> bool {
    let domain = match *command {
        Command::WriteRegisters { domain, .. }
        | Command::WriteSimd { domain, .. }
        | Command::WriteSve { domain, .. }
        | Command::WriteSystemRegister { domain, .. }
        | Command::WriteMemory { domain, .. }
        | Command::Step { domain, .. }
        | Command::Continue { domain, vcpu: Some(_) }
        | Command::SetMonitor { domain, monitor: Monitor::SingleStep, on: true, .. } => domain,
        _ => return false,
    };
    let timeline = find(machine, domain).ok().and_then(|domain| domain.timeline.as_ref());
    timeline.is_some_and(|timeline| !timeline.lock().is_forked())
}

fn hello<C: Cpu>(cpu: &C, machine: &Machine<C>, version: u16) -> Result {
    if version != VERSION {
        return Err(Refusal::Version(VERSION));
    }
    let ring = machine.ring.lock();
    Ok(Answer::Hello {
        version: VERSION,
        cpus: machine.cpus,
        domains: machine.domains.len() as u8,
        vcpus: machine.domains.iter().map(|domain| domain.vcpus.len() as u8).collect(),
        frequency_hz: cpu.frequency_hz(),
        ring_bytes: ring.as_ref().map_or(0, |ring| ring.bytes()),
        mailbox: machine.link.has_mailbox(),
    })
}

fn find<C: Cpu>(machine: &Machine<C>, domain: u8) -> Result<&Domain<C>> {
    machine.domains.get(usize::from(domain)).ok_or(Refusal::NoSuchVcpu)
}

type ControlGuard<'a> = spin::MutexGuard<'a, Control>;

/// The control of a domain of which every vCPU is stopped.
fn stopped<C: Cpu>(domain: &Domain<C>) -> Result<ControlGuard<'_>> {
    let control = domain.control.lock();
    if control.ending.is_some() {
        return Err(Refusal::Ended);
    }
    if control.running != 0 {
        return Err(Refusal::NotStopped);
    }
    Ok(control)
}

fn status<C: Cpu>(domain: &Domain<C>) -> Result {
    let control = domain.control.lock();
    let state = |index: usize| {
        if control.ending.is_some() {
            VcpuState::Ended
        } else if control.running & bit(index) != 0 {
            VcpuState::Running
        } else if control.power(index) == Power::Off {
            VcpuState::Off
        } else {
            VcpuState::Stopped
        }
    };
    let mut vcpus: Vec<_, MAX_VCPUS> = Vec::new();
    for (index, vcpu) in domain.vcpus.iter().enumerate() {
        let state = state(index);
        let pc = match state {
            VcpuState::Stopped => vcpu.core.lock().context.elr,
            _ => 0,
        };
        // As many as the domain has.
        let _fits = vcpus.push((state, pc));
    }
    Ok(Answer::Vcpus(vcpus))
}

fn attach<C: Cpu>(domain: &Domain<C>, slot: u8, identity: Identity) -> Result {
    let _stopped = stopped(domain)?;
    let is_attached = domain.virtio.lock().attach(slot.into(), identity);
    if is_attached { Ok(Answer::Done) } else { Err(Refusal::Busy) }
}

fn type_in<C: Cpu>(cpu: &C, domain: &Domain<C>, bytes: &Bytes) -> Result {
    let mut uart = domain.uart.lock();
    if uart.input_room() < bytes.len() {
        return Err(Refusal::Busy);
    }
    let _all_of_them = uart.push_input(bytes);
    drop(uart);
    if update_domain_uart_line(domain) {
        interrupt::call_out(cpu, domain, u8::MAX);
    }
    Ok(Answer::Done)
}
