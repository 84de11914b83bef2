//! From the wire's types to the debuggee's, and back.
//!
//! They look alike on purpose and are kept apart on purpose: the wire imports nothing of ours,
//! and what is built on [`stepwell_debuggee`] must not change when the wire's version does.

use stepwell_arch::{InstructionSet, Ipa, Va};
use stepwell_debuggee as debuggee;
use stepwell_debuggee::WatchAccess;
use stepwell_wire as wire;

pub(crate) const fn place(place: debuggee::Place) -> wire::Place {
    match place {
        debuggee::Place::Va(Va(address)) => wire::Place::Va(address),
        debuggee::Place::Ipa(Ipa(address)) => wire::Place::Ipa(address),
    }
}

pub(crate) const fn watchpoint(watchpoint: debuggee::Watchpoint) -> wire::Watchpoint {
    let debuggee::Watchpoint { address: Va(address), length, access } = watchpoint;
    let access = match access {
        WatchAccess::Read => wire::Access::Read,
        WatchAccess::Write => wire::Access::Write,
        WatchAccess::ReadWrite => wire::Access::ReadWrite,
    };
    wire::Watchpoint { address, length, access }
}

const fn access(access: wire::Access) -> WatchAccess {
    match access {
        wire::Access::Read => WatchAccess::Read,
        wire::Access::Write => WatchAccess::Write,
        wire::Access::ReadWrite => WatchAccess::ReadWrite,
    }
}

pub(crate) const fn monitor(monitor: debuggee::Monitor) -> wire::Monitor {
    match monitor {
        debuggee::Monitor::SingleStep => wire::Monitor::SingleStep,
        debuggee::Monitor::PrivilegedCall => wire::Monitor::PrivilegedCall,
    }
}

pub(crate) const fn interrupts(policy: debuggee::InterruptPolicy) -> wire::InterruptPolicy {
    match policy {
        debuggee::InterruptPolicy::Hold => wire::InterruptPolicy::Hold,
        debuggee::InterruptPolicy::Over => wire::InterruptPolicy::Over,
        debuggee::InterruptPolicy::Into => wire::InterruptPolicy::Into,
    }
}

pub(crate) const fn time(policy: debuggee::TimePolicy) -> wire::TimePolicy {
    match policy {
        debuggee::TimePolicy::Stopped => wire::TimePolicy::Stopped,
        debuggee::TimePolicy::PerStep { ns } => wire::TimePolicy::PerStep { ns },
        debuggee::TimePolicy::Real => wire::TimePolicy::Real,
    }
}

pub(crate) const fn others(policy: debuggee::OthersPolicy) -> wire::OthersPolicy {
    match policy {
        debuggee::OthersPolicy::Stop => wire::OthersPolicy::Stop,
        debuggee::OthersPolicy::Run => wire::OthersPolicy::Run,
        debuggee::OthersPolicy::Step { quantum } => wire::OthersPolicy::Step { quantum },
    }
}

pub(crate) const fn registers_out(from: &debuggee::Registers) -> wire::Registers {
    wire::Registers { x: from.x, sp: from.sp, pc: from.pc, pstate: from.pstate }
}

pub(crate) const fn registers_in(from: &wire::Registers) -> debuggee::Registers {
    debuggee::Registers { x: from.x, sp: from.sp, pc: from.pc, pstate: from.pstate }
}

pub(crate) const fn state(state: wire::VcpuState) -> debuggee::VcpuState {
    match state {
        wire::VcpuState::Off => debuggee::VcpuState::Off,
        wire::VcpuState::Running => debuggee::VcpuState::Running,
        wire::VcpuState::Stopped => debuggee::VcpuState::Stopped,
        wire::VcpuState::Ended => debuggee::VcpuState::Ended,
    }
}

pub(crate) const fn refusal(refusal: wire::Refusal) -> debuggee::Refusal {
    match refusal {
        wire::Refusal::Version(version) => debuggee::Refusal::Version(version),
        wire::Refusal::NoSuchVcpu => debuggee::Refusal::NoSuchVcpu,
        wire::Refusal::NotStopped => debuggee::Refusal::NotStopped,
        wire::Refusal::Off => debuggee::Refusal::Off,
        wire::Refusal::Ended => debuggee::Refusal::Ended,
        wire::Refusal::AlreadySet(on) => debuggee::Refusal::AlreadySet(on),
        wire::Refusal::NoSuchRegister => debuggee::Refusal::NoSuchRegister,
        wire::Refusal::NotMapped(address) => debuggee::Refusal::NotMapped(address),
        wire::Refusal::NoBreakpointLeft(all) => debuggee::Refusal::NoBreakpointLeft(all),
        wire::Refusal::Breakpoint => debuggee::Refusal::Breakpoint,
        wire::Refusal::Range => debuggee::Refusal::Range,
        wire::Refusal::Busy => debuggee::Refusal::Busy,
        wire::Refusal::AArch32 => debuggee::Refusal::AArch32,
        wire::Refusal::RingInUse(domain) => debuggee::Refusal::RingInUse(domain),
        wire::Refusal::Watchpoint => debuggee::Refusal::Watchpoint,
        wire::Refusal::NoMemory => debuggee::Refusal::NoMemory,
        wire::Refusal::PerStepWhileOthersRun => debuggee::Refusal::PerStepWhileOthersRun,
    }
}

pub(crate) fn event(event: wire::Event) -> debuggee::Event {
    match event {
        wire::Event::Stopped { domain, vcpu, reason, steps, registers } => {
            debuggee::Event::Stopped(debuggee::Stop {
                vcpu: debuggee::VcpuId { domain, vcpu },
                reason: self::reason(reason),
                pc: Va(registers.pc),
                steps,
            })
        }
        wire::Event::Console { domain, bytes } => {
            debuggee::Event::Console { domain, bytes: bytes.to_vec() }
        }
        wire::Event::DomainEnded { domain, ending } => {
            debuggee::Event::Ended { domain, ending: self::ending(ending) }
        }
    }
}

const fn reason(reason: wire::StopReason) -> debuggee::StopReason {
    match reason {
        wire::StopReason::Reset => debuggee::StopReason::Reset,
        wire::StopReason::Paused => debuggee::StopReason::Paused,
        wire::StopReason::Stepped => debuggee::StopReason::Stepped,
        wire::StopReason::Until => debuggee::StopReason::Until,
        wire::StopReason::Breakpoint => debuggee::StopReason::Breakpoint,
        wire::StopReason::PrivilegedCall { immediate } => {
            debuggee::StopReason::PrivilegedCall { immediate }
        }
        wire::StopReason::RingFull => debuggee::StopReason::RingFull,
        wire::StopReason::AArch32 => debuggee::StopReason::AArch32,
        wire::StopReason::SwitchedOff => debuggee::StopReason::SwitchedOff,
        wire::StopReason::Watchpoint { address, access } => {
            debuggee::StopReason::Watchpoint { address: Va(address), access: self::access(access) }
        }
        wire::StopReason::LeftRange => debuggee::StopReason::LeftRange,
        wire::StopReason::BreakpointLost => debuggee::StopReason::BreakpointLost,
    }
}

const fn ending(ending: wire::DomainEnding) -> debuggee::Ending {
    match ending {
        wire::DomainEnding::PoweredOff => debuggee::Ending::PoweredOff,
        wire::DomainEnding::Reset => debuggee::Ending::Reset,
        wire::DomainEnding::Fault(fault) => debuggee::Ending::Fault(debuggee::GuestFault {
            vcpu: fault.vcpu,
            pc: Va(fault.pc),
            esr: fault.esr,
            address: fault.address,
            kind: match fault.kind {
                wire::FaultKind::UnmappedAccess => debuggee::FaultKind::UnmappedAccess,
                wire::FaultKind::UnmappedFetch => debuggee::FaultKind::UnmappedFetch,
                wire::FaultKind::BadDeviceAccess => debuggee::FaultKind::BadDeviceAccess,
                wire::FaultKind::SystemError => debuggee::FaultKind::SystemError,
                wire::FaultKind::UnknownException => debuggee::FaultKind::UnknownException,
                wire::FaultKind::DoesNotFit => debuggee::FaultKind::DoesNotFit,
            },
        }),
    }
}

pub(crate) const fn record(record: wire::ring::Record) -> debuggee::TraceRecord {
    use debuggee::TraceRecord as Ours;
    use wire::ring::Record;
    match record {
        Record::Run { vcpu, pc, length } => Ours::Run { vcpu, pc: Va(pc), length },
        Record::Interrupt { vcpu, pc } => Ours::Interrupt { vcpu, pc: Va(pc) },
        Record::ExceptionEntry { vcpu, cause, return_address, vector, syndrome, intid } => {
            let (return_address, vector) = (Va(return_address), Va(vector));
            Ours::ExceptionEntry { vcpu, cause, return_address, vector, syndrome, intid }
        }
        Record::ExceptionReturn { vcpu, to, el } => Ours::ExceptionReturn { vcpu, to: Va(to), el },
        Record::Exclusive { vcpu, pc, stored } => Ours::Exclusive { vcpu, pc: Va(pc), stored },
        Record::InstructionSet { vcpu, set } => {
            let set = match set {
                0 => InstructionSet::A64,
                1 => InstructionSet::A32,
                _ => InstructionSet::T32,
            };
            Ours::InstructionSet { vcpu, set }
        }
        Record::Turns { vcpu, pc, why, steps } => Ours::Turns { vcpu, pc: Va(pc), why, steps },
        Record::Context { vcpu, el, vmid, asid, ttbr0 } => {
            Ours::Context { vcpu, el, vmid, asid, ttbr0 }
        }
        Record::Time { ns, .. } => Ours::Time { ns },
        Record::Register { vcpu, register, value, found } => {
            Ours::Register { vcpu, register, value, found }
        }
        Record::Memory { vcpu, access, address, size, value } => {
            Ours::Memory { vcpu, access, address: Va(address), size, value }
        }
    }
}

pub(crate) fn simd_in(registers: &wire::Simd) -> debuggee::SimdRegisters {
    let mut v = [0; 32];
    for ((v, low), high) in v.iter_mut().zip(registers.low).zip(registers.high) {
        *v = u128::from(high) << 64 | u128::from(low);
    }
    debuggee::SimdRegisters { v, fpcr: registers.fpcr, fpsr: registers.fpsr }
}

pub(crate) fn simd_out(registers: &debuggee::SimdRegisters) -> wire::Simd {
    wire::Simd {
        low: registers.v.map(|v| v as u64),
        high: registers.v.map(|v| (v >> 64) as u64),
        fpcr: registers.fpcr,
        fpsr: registers.fpsr,
    }
}

pub(crate) const fn sve_register(register: debuggee::SveRegister) -> wire::SveRegister {
    match register {
        debuggee::SveRegister::Z(n) => wire::SveRegister::Z(n),
        debuggee::SveRegister::P(n) => wire::SveRegister::P(n),
        debuggee::SveRegister::Ffr => wire::SveRegister::Ffr,
    }
}

/// Names a command, for errors.
/// Tells whether a command leaves every vCPU as it is.
pub(crate) const fn changes_nothing(command: &wire::Command) -> bool {
    matches!(
        command,
        wire::Command::Status { .. }
            | wire::Command::ReadRegisters { .. }
            | wire::Command::ReadSimd { .. }
            | wire::Command::ReadSystemRegister { .. }
            | wire::Command::ReadMemory { .. }
            | wire::Command::Translate { .. }
            | wire::Command::VectorLength { .. }
            | wire::Command::ReadSve { .. }
    )
}

pub(crate) const fn name(command: &wire::Command) -> &'static str {
    match command {
        wire::Command::Hello { .. } => "hello",
        wire::Command::Status { .. } => "status",
        wire::Command::Pause { .. } => "pause",
        wire::Command::Continue { .. } => "continue",
        wire::Command::Step { .. } => "step",
        wire::Command::SetMonitor { .. } => "set-monitor",
        wire::Command::SetInterruptPolicy { .. } => "set-interrupt-policy",
        wire::Command::SetTimePolicy { .. } => "set-time-policy",
        wire::Command::SetOthersPolicy { .. } => "set-others-policy",
        wire::Command::SetBreakpoint { .. } => "set-breakpoint",
        wire::Command::ClearBreakpoint { .. } => "clear-breakpoint",
        wire::Command::ReadRegisters { .. } => "read-registers",
        wire::Command::WriteRegisters { .. } => "write-registers",
        wire::Command::ReadSimd { .. } => "read-simd",
        wire::Command::WriteSimd { .. } => "write-simd",
        wire::Command::VectorLength { .. } => "vector-length",
        wire::Command::ReadSve { .. } => "read-sve",
        wire::Command::WriteSve { .. } => "write-sve",
        wire::Command::ReadSystemRegister { .. } => "read-system-register",
        wire::Command::WriteSystemRegister { .. } => "write-system-register",
        wire::Command::ReadMemory { .. } => "read-memory",
        wire::Command::WriteMemory { .. } => "write-memory",
        wire::Command::Translate { .. } => "translate",
        wire::Command::ConsoleInput { .. } => "console-input",
        wire::Command::PowerOff => "power-off",
        wire::Command::SetDetail { .. } => "set-detail",
        wire::Command::SetWatchpoint { .. } => "set-watchpoint",
        wire::Command::ClearWatchpoint { .. } => "clear-watchpoint",
    }
}
