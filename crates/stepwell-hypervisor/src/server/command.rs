//! What each of the tool's commands does.
//!
//! A command either happens whole or is refused, and then nothing has changed.

use crate::domain::{
    Control, Detail, Domain, MAX_VCPUS, Order, Part, PendingStop, Power, StepOrder, bit,
};
use crate::hw::setup::CpuFacts;
use crate::hw::{power, timer};
use crate::machine::Machine;
use crate::mem::tables::HeapTables;
use crate::mem::views::ViewError;
use crate::vcpu::debug::RESERVED_BREAKPOINTS;
use crate::vcpu::memory::update_domain_uart_line;
use crate::vcpu::{VcpuCore, guest_view, watch};
use core::sync::atomic::Ordering;
use heapless::Vec;
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_engine::turns::QUANTUM;
use stepwell_engine::{Errand, Scope};
use stepwell_wire::message::MAX_BYTES;
use stepwell_wire::{
    Answer, Bytes, Command, Event, Monitor, OthersPolicy, Place, Refusal, Registers, StopReason,
    TimePolicy, VERSION, VcpuState, Watchpoint,
};

type Result<T = Answer> = core::result::Result<T, Refusal>;

/// Carries out one command.
///
/// # Errors
///
/// [`Refusal`].
pub fn serve(machine: &Machine, command: Command) -> Result {
    match command {
        Command::Hello { version } => hello(machine, version),
        Command::PowerOff => power::machine_off(),
        Command::Status { domain } => status(find(machine, domain)?),
        Command::Pause { domain } => pause(find(machine, domain)?),
        Command::Continue { domain, vcpu } => go_on(find(machine, domain)?, vcpu),
        Command::Step { domain, vcpu, count, until, record, all, within } => {
            let scope = if all { Scope::All } else { Scope::Focus };
            let order = StepOrder { until, record, within, part: Part::Focus };
            step(machine, find(machine, domain)?, vcpu, (count, scope), order)
        }
        Command::SetOthersPolicy { domain, policy } => {
            set_others_policy(find(machine, domain)?, policy)
        }
        Command::SetMonitor { domain, vcpu, monitor, on } => {
            set_monitor(find(machine, domain)?, vcpu, monitor, on)
        }
        Command::SetInterruptPolicy { domain, policy } => {
            stopped(find(machine, domain)?)?.interrupts = policy;
            Ok(Answer::Done)
        }
        Command::SetTimePolicy { domain, policy } => {
            let policy = match policy {
                TimePolicy::Stopped => stepwell_engine::TimePolicy::Stopped,
                TimePolicy::PerStep { ns } => stepwell_engine::TimePolicy::PerStep { ns },
                TimePolicy::Real => stepwell_engine::TimePolicy::Real,
            };
            let domain = find(machine, domain)?;
            stopped(domain)?.time = policy;
            let is_real = policy == stepwell_engine::TimePolicy::Real;
            let was_real = domain.real_time.swap(is_real, Ordering::AcqRel);
            if is_real && !was_real {
                // From here on it goes, whether the guest runs, stands or steps.
                release_clock(domain);
            } else if was_real && !is_real {
                let offset = domain.clock_offset.load(Ordering::Acquire);
                domain.clock.lock().hold(timer::counter(), offset);
            }
            Ok(Answer::Done)
        }
        Command::SetBreakpoint { domain, place } => set_breakpoint(find(machine, domain)?, place),
        Command::ClearBreakpoint { domain, place } => {
            clear_breakpoint(find(machine, domain)?, place)
        }
        Command::SetWatchpoint { domain, vcpu, watchpoint } => {
            set_watchpoint(find(machine, domain)?, vcpu, watchpoint)
        }
        Command::ClearWatchpoint { domain, watchpoint } => {
            let domain = find(machine, domain)?;
            let mut control = stopped(domain)?;
            watch::clear(domain, &mut control, watchpoint)?;
            Ok(Answer::Done)
        }
        Command::ConsoleInput { domain, bytes } => type_in(find(machine, domain)?, &bytes),
        Command::SetDetail { domain, registers, memory } => {
            set_detail(find(machine, domain)?, Detail { registers, memory })
        }
        other => inspect(machine, other),
    }
}

/// Commands that read or write a vCPU that stands, or its memory.
fn inspect(machine: &Machine, command: Command) -> Result {
    match command {
        Command::ReadRegisters { domain, vcpu } => {
            with_core(find(machine, domain)?, vcpu, |_, core| {
                Ok(Answer::Registers(guest_view::read(core)))
            })
        }
        Command::WriteRegisters { domain, vcpu, registers } => {
            with_core(find(machine, domain)?, vcpu, |_, core| write_registers(core, &registers))
        }
        Command::ReadSimd { domain, vcpu } => {
            with_core(find(machine, domain)?, vcpu, |_, core| Ok(simd(core)))
        }
        Command::ReadSystemRegister { domain, vcpu, register } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                let register = SystemRegister(register);
                let value = guest_view::read_system(domain, vcpu, core, register);
                value.map(Answer::Value).ok_or(Refusal::NoSuchRegister)
            })
        }
        Command::WriteSystemRegister { domain, vcpu, register, value } => {
            with_core(find(machine, domain)?, vcpu, |_, core| {
                let written = guest_view::write_system(core, SystemRegister(register), value);
                if written { Ok(Answer::Done) } else { Err(Refusal::NoSuchRegister) }
            })
        }
        Command::ReadMemory { domain, vcpu, place, length } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                read_memory(domain, core, place, usize::from(length))
            })
        }
        Command::WriteMemory { domain, vcpu, place, bytes } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                write_memory(domain, core, place, &bytes)
            })
        }
        Command::Translate { domain, vcpu, va } => {
            with_core(find(machine, domain)?, vcpu, |domain, core| {
                let ipa = guest_view::translate(domain, core, Va(va));
                ipa.map(|ipa| Answer::Value(ipa.0)).ok_or(Refusal::NotMapped(va))
            })
        }
        _ => Err(Refusal::Range),
    }
}

fn hello(machine: &Machine, version: u16) -> Result {
    if version != VERSION {
        return Err(Refusal::Version(VERSION));
    }
    let ring = machine.ring.lock();
    Ok(Answer::Hello {
        version: VERSION,
        cpus: machine.cpus,
        domains: machine.domains.len() as u8,
        vcpus: machine.domains.iter().map(|domain| domain.vcpus.len() as u8).collect(),
        frequency_hz: timer::frequency_hz(),
        ring_bytes: ring.as_ref().map_or(0, |ring| ring.bytes()),
    })
}

fn find(machine: &Machine, domain: u8) -> Result<&Domain> {
    machine.domains.get(usize::from(domain)).ok_or(Refusal::NoSuchVcpu)
}

type ControlGuard<'a> = spin::MutexGuard<'a, Control>;

/// The control of a domain of which every vCPU stands.
fn stopped(domain: &Domain) -> Result<ControlGuard<'_>> {
    let control = domain.control.lock();
    if control.ending.is_some() {
        return Err(Refusal::Ended);
    }
    if control.running != 0 {
        return Err(Refusal::NotStopped);
    }
    Ok(control)
}

fn status(domain: &Domain) -> Result {
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

fn pause(domain: &Domain) -> Result {
    let control = domain.control.lock();
    if control.ending.is_some() {
        return Err(Refusal::Ended);
    }
    let running = control.running;
    let by_turns = control.by_turns;
    drop(control);
    let vcpu = match by_turns {
        true => domain.turns.lock().focus(),
        false => running.trailing_zeros() as usize,
    };
    let pause = PendingStop { vcpu, reason: StopReason::Paused, pc: 0, steps: 0 };
    if running != 0 && domain.request_stop(pause) {
        return Ok(Answer::Done);
    }
    let control = domain.control.lock();
    if control.running != 0 || control.ending.is_some() {
        // It is stopping for a reason of its own, and reports that.
        return Ok(Answer::Done);
    }
    drop(control);
    let pc = domain.vcpus.first().map_or(0, |vcpu| vcpu.core.lock().context.elr);
    super::send(Event::Stopped {
        domain: domain.id,
        vcpu: 0,
        reason: StopReason::Paused,
        pc,
        steps: 0,
    });
    Ok(Answer::Done)
}

fn powered(control: &Control, domain: &Domain) -> u8 {
    (0..domain.vcpus.len())
        .filter(|&index| control.power(index) == Power::On)
        .fold(0, |mask, index| mask | bit(index))
}

fn go_on(domain: &Domain, vcpu: Option<u8>) -> Result {
    let mut control = stopped(domain)?;
    let chosen = match vcpu.map(usize::from) {
        None => u8::MAX,
        Some(vcpu) if vcpu < domain.vcpus.len() => bit(vcpu),
        Some(_) => return Err(Refusal::NoSuchVcpu),
    };
    let on = powered(&control, domain) & chosen;
    if on == 0 {
        return Err(Refusal::Off);
    }
    control.stop = None;
    let stepped = control.single_step & on;
    control.recording = false;
    let Control { running, free, time, .. } = &mut *control;
    if stepped != 0 {
        let order = StepOrder { until: None, record: false, within: None, part: Part::Alone(1) };
        domain.give(running, stepped, Order::Step(order));
        return Ok(Answer::Done);
    }
    *free = true;
    if *time != stepwell_engine::TimePolicy::Real {
        release_clock(domain);
    }
    domain.give(running, on, Order::Run);
    Ok(Answer::Done)
}

/// Lets the domain's clock go on with the machine's.
///
/// A clock that has never gone takes over the machine's as it is: CNTVOFF_EL2 stays 0 for a guest
/// that is never stopped, which QEMU 7.2 needs to survive a compare value of all ones.
fn release_clock(domain: &Domain) {
    let mut clock = domain.clock.lock();
    let counter = timer::counter();
    if clock.now() == 0 {
        clock.hold(counter, 0);
    }
    domain.clock_offset.store(clock.release(counter), Ordering::Release);
}

fn step(
    machine: &Machine,
    domain: &Domain,
    vcpu: u8,
    (wanted, scope): (u64, Scope),
    order: StepOrder,
) -> Result {
    if wanted == 0 || (order.record && machine.ring.lock().is_none()) {
        return Err(Refusal::Range);
    }
    if let Some(other) = machine.domains.iter().find(|other| order.record && records(other, domain))
    {
        return Err(Refusal::RingInUse(other.id));
    }
    let mut control = stopped(domain)?;
    let index = usize::from(vcpu);
    let state = domain.vcpus.get(index).ok_or(Refusal::NoSuchVcpu)?;
    if control.power(index) == Power::Off {
        return Err(Refusal::Off);
    }
    let pstate = state.core.lock().pstate();
    if pstate.is_aarch32() && pstate.el() > 0 {
        return Err(Refusal::AArch32);
    }
    let policy = control.others;
    let per_step = matches!(control.time, stepwell_engine::TimePolicy::PerStep { .. });
    if policy == stepwell_engine::OthersPolicy::Run && per_step {
        return Err(Refusal::PerStepWhileOthersRun);
    }
    let others = control.standing() & !bit(index);
    let vcpus = match policy {
        stepwell_engine::OthersPolicy::Step => others | bit(index),
        _ => bit(index),
    };
    let is_armed = state.core.lock().monitor.armed().is_some();
    let quantum = control.quantum;
    domain.turns.lock().begin(Errand { policy, focus: index, vcpus, scope, wanted, quantum });
    control.stop = None;
    control.by_turns = true;
    control.recording = order.record;
    match policy {
        stepwell_engine::OthersPolicy::Stop => {}
        stepwell_engine::OthersPolicy::Run => run_beside(domain, &mut control, others, is_armed),
        stepwell_engine::OthersPolicy::Step => {
            let joining =
                Order::Step(StepOrder { until: None, within: None, part: Part::Other, ..order });
            control.joining = Some(joining);
            domain.give(&mut control.running, others, joining);
        }
    }
    domain.give(&mut control.running, bit(index), Order::Step(order));
    Ok(Answer::Done)
}

/// Tells whether another domain than `domain` is writing into the trace ring. Nobody begins to
/// while a command is served.
fn records(other: &Domain, domain: &Domain) -> bool {
    let control = other.control.lock();
    other.id != domain.id && control.running != 0 && control.recording
}

fn set_detail(domain: &Domain, detail: Detail) -> Result {
    let mut control = stopped(domain)?;
    control.detail = detail;
    // Whoever chooses anew knows nothing yet.
    for vcpu in &domain.vcpus {
        vcpu.core.lock().recorder.tell_all();
    }
    Ok(Answer::Done)
}

/// Lets the others run while one is stepped. `is_armed`: that one is in an exclusive sequence.
fn run_beside(domain: &Domain, control: &mut Control, others: u8, is_armed: bool) {
    control.free = true;
    if control.time != stepwell_engine::TimePolicy::Real {
        release_clock(domain);
    }
    if is_armed {
        domain.region.close();
    }
    domain.give(&mut control.running, others, Order::Run);
}

fn set_others_policy(domain: &Domain, policy: OthersPolicy) -> Result {
    let mut control = stopped(domain)?;
    (control.others, control.quantum) = match policy {
        OthersPolicy::Stop => (stepwell_engine::OthersPolicy::Stop, QUANTUM),
        OthersPolicy::Run => (stepwell_engine::OthersPolicy::Run, QUANTUM),
        OthersPolicy::Step { quantum: 0 } => return Err(Refusal::Range),
        OthersPolicy::Step { quantum } => (stepwell_engine::OthersPolicy::Step, u64::from(quantum)),
    };
    Ok(Answer::Done)
}

fn set_monitor(domain: &Domain, vcpu: Option<u8>, monitor: Monitor, on: bool) -> Result {
    let mask = match vcpu {
        None => (0..domain.vcpus.len()).fold(0, |mask, index| mask | bit(index)),
        Some(vcpu) if usize::from(vcpu) < domain.vcpus.len() => bit(usize::from(vcpu)),
        Some(_) => return Err(Refusal::NoSuchVcpu),
    };
    let mut control = domain.control.lock();
    if control.ending.is_some() {
        return Err(Refusal::Ended);
    }
    let monitored = match monitor {
        Monitor::SingleStep => &mut control.single_step,
        Monitor::PrivilegedCall => &mut control.privileged_call,
    };
    let already = if on { *monitored & mask == mask } else { *monitored & mask == 0 };
    if already {
        return Err(Refusal::AlreadySet(on));
    }
    *monitored = if on { *monitored | mask } else { *monitored & !mask };
    // A running domain is paused with the change, and reports that it stands.
    let running = control.running;
    drop(control);
    if running != 0 {
        return pause(domain);
    }
    Ok(Answer::Done)
}

fn set_breakpoint(domain: &Domain, place: Place) -> Result {
    let mut control = stopped(domain)?;
    match place {
        Place::Va(va) if control.breakpoints.contains(&va) => return Err(Refusal::Breakpoint),
        Place::Va(va) => {
            let usable = CpuFacts::read().breakpoints.saturating_sub(RESERVED_BREAKPOINTS);
            if control.breakpoints.len() >= usize::from(usable) {
                return Err(Refusal::NoBreakpointLeft(usable));
            }
            control.breakpoints.push(va).map_err(|_| Refusal::NoBreakpointLeft(usable))?;
        }
        Place::Ipa(ipa) if !Ipa(ipa).is_aligned(4) => return Err(Refusal::Range),
        Place::Ipa(ipa) => {
            domain.ram.locate(Ipa(ipa), 4).map_err(|_| Refusal::NotMapped(ipa))?;
            domain.views.lock().set(&mut HeapTables, Ipa(ipa)).map_err(refusal)?;
            domain.use_views();
        }
    }
    Ok(Answer::Done)
}

const fn refusal(error: ViewError) -> Refusal {
    match error {
        ViewError::Already => Refusal::Breakpoint,
        ViewError::NoMemory => Refusal::NoMemory,
    }
}

fn clear_breakpoint(domain: &Domain, place: Place) -> Result {
    let mut control = stopped(domain)?;
    match place {
        Place::Va(va) => {
            let known = control.breakpoints.iter().position(|&known| known == va);
            control.breakpoints.remove(known.ok_or(Refusal::Breakpoint)?);
        }
        Place::Ipa(ipa) => {
            domain.views.lock().clear(&mut HeapTables, Ipa(ipa)).map_err(refusal)?;
            domain.use_views();
        }
    }
    Ok(Answer::Done)
}

fn set_watchpoint(domain: &Domain, vcpu: u8, watchpoint: Watchpoint) -> Result {
    let mut control = stopped(domain)?;
    let core = domain.vcpus.get(usize::from(vcpu)).ok_or(Refusal::NoSuchVcpu)?.core.lock();
    watch::set(domain, &mut control, watchpoint, |va| {
        guest_view::translate(domain, &core, Va(va))
    })?;
    Ok(Answer::Done)
}

fn type_in(domain: &Domain, bytes: &Bytes) -> Result {
    let mut uart = domain.uart.lock();
    if uart.input_room() < bytes.len() {
        return Err(Refusal::Busy);
    }
    let _all_of_them = uart.push_input(bytes);
    drop(uart);
    update_domain_uart_line(domain);
    let kicks = domain.vgic.lock().take_kicks();
    let cpus = domain.vcpus.iter().enumerate().filter(|(n, _)| kicks & bit(*n) != 0);
    crate::hw::gic::kick(cpus.fold(0, |mask, (_, vcpu)| mask | bit(vcpu.cpu)));
    Ok(Answer::Done)
}

fn with_core<T>(
    domain: &Domain,
    vcpu: u8,
    act: impl FnOnce(&Domain, &mut VcpuCore) -> Result<T>,
) -> Result<T> {
    let control = stopped(domain)?;
    let index = usize::from(vcpu);
    let vcpu = domain.vcpus.get(index).ok_or(Refusal::NoSuchVcpu)?;
    if control.power(index) == Power::Off {
        return Err(Refusal::Off);
    }
    act(domain, &mut vcpu.core.lock())
}

fn write_registers(core: &mut VcpuCore, registers: &Registers) -> Result {
    if guest_view::write(core, registers) { Ok(Answer::Done) } else { Err(Refusal::Range) }
}

fn simd(core: &VcpuCore) -> Answer {
    Answer::Simd {
        low: core.simd.v.map(|v| v as u64),
        high: core.simd.v.map(|v| (v >> 64) as u64),
        fpcr: core.simd.fpcr,
        fpsr: core.simd.fpsr,
    }
}

/// Splits an access at page borders, because each page has a translation of its own.
fn pages(
    domain: &Domain,
    core: &VcpuCore,
    place: Place,
    length: usize,
    mut act: impl FnMut(Ipa, core::ops::Range<usize>) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < length {
        let (start, ipa) = match place {
            Place::Va(va) => {
                let va = va.wrapping_add(done as u64);
                let ipa = guest_view::translate(domain, core, Va(va));
                (va, ipa.ok_or(Refusal::NotMapped(va))?)
            }
            Place::Ipa(ipa) => {
                let ipa = ipa.wrapping_add(done as u64);
                (ipa, Ipa(ipa))
            }
        };
        let left_in_page = 4096 - (start as usize & 0xfff);
        let end = length.min(done + left_in_page);
        act(ipa, done..end)?;
        done = end;
    }
    Ok(())
}

fn read_memory(domain: &Domain, core: &VcpuCore, place: Place, length: usize) -> Result {
    if length > MAX_BYTES {
        return Err(Refusal::Range);
    }
    let mut bytes = [0; MAX_BYTES];
    pages(domain, core, place, length, |ipa, range| {
        let into = bytes.get_mut(range).ok_or(Refusal::Range)?;
        domain.ram.read(ipa, into).map_err(|_| Refusal::NotMapped(ipa.0))
    })?;
    let read = bytes.get(..length).ok_or(Refusal::Range)?;
    Ok(Answer::Memory(Vec::from_slice(read).map_err(|_| Refusal::Range)?))
}

fn write_memory(domain: &Domain, core: &VcpuCore, place: Place, bytes: &Bytes) -> Result {
    // Every page first: a write that is refused has written nothing.
    pages(domain, core, place, bytes.len(), |ipa, range| {
        let located = domain.ram.locate(ipa, range.len() as u64);
        located.map(|_| ()).map_err(|_| Refusal::NotMapped(ipa.0))
    })?;
    pages(domain, core, place, bytes.len(), |ipa, range| {
        let from = bytes.get(range).ok_or(Refusal::Range)?;
        domain.ram.write(ipa, from).map_err(|_| Refusal::NotMapped(ipa.0))?;
        domain.sync_views(ipa, from.len() as u64);
        Ok(())
    })?;
    Ok(Answer::Done)
}
