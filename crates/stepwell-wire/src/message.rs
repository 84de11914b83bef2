//! The messages themselves.
//!
//! Adding a variant at the end of an enum is compatible with an older reader only as far as it
//! never receives it; anything else raises [`crate::VERSION`].

use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Most bytes of guest memory or console text in one message.
pub const MAX_BYTES: usize = 1024;
/// Most vCPUs of one domain.
pub const MAX_VCPUS: usize = 8;

/// Bytes of guest memory or console text.
pub type Bytes = Vec<u8, MAX_BYTES>;

/// One command of the tool, with the id that its response will bear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the tool; returned unchanged.
    pub id: u32,
    /// What is asked for.
    pub command: Command,
}

/// Everything that the hypervisor sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHypervisor {
    /// The answer to the request with this id.
    Response {
        /// The request's id.
        id: u32,
        /// The answer, or why there is none.
        result: Result<Answer, Refusal>,
    },
    /// Something happened.
    Event(Event),
}

/// What the tool can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Opens the conversation; answered by [`Answer::Hello`].
    Hello {
        /// The tool's [`crate::VERSION`].
        version: u16,
    },
    /// Asks for the state of every vCPU of a domain; answered by [`Answer::Vcpus`].
    Status {
        /// The domain.
        domain: u8,
    },
    /// Stops all vCPUs of a domain; [`Event::Stopped`] follows for one of them, once all are
    /// stopped.
    Pause {
        /// The domain.
        domain: u8,
    },
    /// Lets a stopped domain run, unstepped unless the single-step monitor is on.
    Continue {
        /// The domain.
        domain: u8,
        /// This vCPU alone; the others are stopped. All of them where it is not told.
        vcpu: Option<u8>,
    },
    /// Steps one vCPU of a stopped domain; [`Event::Stopped`] follows.
    Step {
        /// The domain.
        domain: u8,
        /// The vCPU that moves.
        vcpu: u8,
        /// How many steps at most. 0 is refused.
        count: u64,
        /// Stop early where this virtual address is about to execute.
        until: Option<u64>,
        /// Write the steps into the trace ring.
        record: bool,
        /// Count the steps of all vCPUs that move, and not only those of `vcpu`.
        all: bool,
        /// Stop early where the next instruction is not in this range of virtual addresses: its
        /// first byte, and the first byte behind it.
        within: Option<(u64, u64)>,
    },
    /// Switches a monitor on or off, pausing the domain while it changes.
    SetMonitor {
        /// The domain.
        domain: u8,
        /// One vCPU, or all of them.
        vcpu: Option<u8>,
        /// What is monitored.
        monitor: Monitor,
        /// On or off.
        on: bool,
    },
    /// Sets what happens to the guest's interrupts while it is stepped.
    SetInterruptPolicy {
        /// The domain.
        domain: u8,
        /// The policy.
        policy: InterruptPolicy,
    },
    /// Sets how the guest's clock goes while it is stepped or stopped.
    SetTimePolicy {
        /// The domain.
        domain: u8,
        /// The policy.
        policy: TimePolicy,
    },
    /// Sets a breakpoint that the guest cannot see, on all vCPUs of a domain.
    SetBreakpoint {
        /// The domain.
        domain: u8,
        /// Where.
        place: Place,
    },
    /// Removes a breakpoint.
    ClearBreakpoint {
        /// The domain.
        domain: u8,
        /// Where it was set.
        place: Place,
    },
    /// Reads the core registers of a stopped vCPU; answered by [`Answer::Registers`].
    ReadRegisters {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
    },
    /// Writes the core registers of a stopped vCPU.
    WriteRegisters {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
        /// All of them.
        registers: Registers,
    },
    /// Reads the FP/SIMD registers of a stopped vCPU; answered by [`Answer::Simd`].
    ReadSimd {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
    },
    /// Reads a system register of a stopped vCPU; answered by [`Answer::Value`].
    ReadSystemRegister {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
        /// `op0:op1:CRn:CRm:op2`, packed as in the MSR/MRS encoding (bits 20:5 of the instruction).
        register: u16,
    },
    /// Writes a system register of a stopped vCPU.
    WriteSystemRegister {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
        /// As in [`Command::ReadSystemRegister`].
        register: u16,
        /// The new value.
        value: u64,
    },
    /// Reads guest memory; answered by [`Answer::Memory`].
    ReadMemory {
        /// The domain.
        domain: u8,
        /// Whose translation is used for a virtual address.
        vcpu: u8,
        /// The first byte.
        place: Place,
        /// How many bytes, at most [`MAX_BYTES`].
        length: u16,
    },
    /// Writes guest memory.
    WriteMemory {
        /// The domain.
        domain: u8,
        /// Whose translation is used for a virtual address.
        vcpu: u8,
        /// The first byte.
        place: Place,
        /// The bytes.
        bytes: Bytes,
    },
    /// Translates a virtual address by a stopped vCPU's stage 1; answered by [`Answer::Value`].
    Translate {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
        /// The virtual address.
        va: u64,
    },
    /// Types on the guest's serial console. Refused as busy when its receive buffer is full.
    ConsoleInput {
        /// The domain.
        domain: u8,
        /// What is typed.
        bytes: Bytes,
    },
    /// Powers the whole machine off, whatever the guests are doing.
    PowerOff,
    /// Sets what is recorded of each step beside its PC, where steps are recorded.
    SetDetail {
        /// The domain.
        domain: u8,
        /// The registers that it changed.
        registers: bool,
        /// What it loaded and stored.
        memory: bool,
    },
    /// Watches bytes of memory on all vCPUs of a stopped domain: [`StopReason::Watchpoint`] before
    /// an instruction accesses one of them.
    SetWatchpoint {
        /// The domain.
        domain: u8,
        /// Whose translation is used where the CPU has no watchpoint left for it, so that what is
        /// watched are the bytes that the address leads to now.
        vcpu: u8,
        /// What is watched.
        watchpoint: Watchpoint,
    },
    /// Ends a watch.
    ClearWatchpoint {
        /// The domain.
        domain: u8,
        /// As it was set.
        watchpoint: Watchpoint,
    },
    /// Sets what the other vCPUs of a domain do while one is stepped.
    SetOthersPolicy {
        /// The domain.
        domain: u8,
        /// The policy.
        policy: OthersPolicy,
    },
    /// Writes the FP/SIMD registers of a stopped vCPU. With SVE, what Z0 to Z31 have beyond V0 to
    /// V31 stays as it is.
    WriteSimd {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
        /// All of them.
        registers: Simd,
    },
    /// Asks how long the vectors of SVE are; answered by [`Answer::VectorLength`]. Refused as
    /// [`Refusal::NoSuchRegister`] by a CPU without SVE.
    VectorLength {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
    },
    /// Reads a register of SVE of a stopped vCPU; answered by [`Answer::Memory`], as long as the
    /// CPU's longest vector has it. What the guest cannot reach now is zero. Refused as
    /// [`Refusal::NoSuchRegister`] without SVE and in Streaming SVE mode.
    ReadSve {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
        /// Which.
        register: SveRegister,
    },
    /// Writes a register of SVE of a stopped vCPU. Missing bytes are zero; those that the guest
    /// cannot reach now have to be ([`Refusal::Range`]).
    WriteSve {
        /// The domain.
        domain: u8,
        /// The vCPU.
        vcpu: u8,
        /// Which.
        register: SveRegister,
        /// From the least significant byte on.
        bytes: Bytes,
    },
}

/// The FP/SIMD registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simd {
    /// Low halves of V0–V31.
    pub low: [u64; 32],
    /// High halves of V0–V31.
    pub high: [u64; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
}

/// A register of SVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SveRegister {
    /// Z0 to Z31.
    Z(u8),
    /// P0 to P15, a bit for each byte of a vector.
    P(u8),
    /// The first-fault register, as long as a predicate.
    Ffr,
}

/// A range of memory, and which accesses to it are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchpoint {
    /// Virtual address of the first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Which accesses.
    pub access: Access,
}

/// Accesses to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Loads.
    Read,
    /// Stores.
    Write,
    /// Both.
    ReadWrite,
}

/// What a successful command returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "one message lives on the stack at a time")]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// To [`Command::Hello`].
    Hello {
        /// The hypervisor's [`crate::VERSION`].
        version: u16,
        /// Physical CPUs that came up.
        cpus: u8,
        /// Domains, numbered from 0.
        domains: u8,
        /// vCPUs of each domain.
        vcpus: Vec<u8, 8>,
        /// Counter frequency in Hz.
        frequency_hz: u64,
        /// Size of the trace ring in bytes; 0 where there is none.
        ring_bytes: u64,
        /// All frames after this one go through the mailbox.
        mailbox: bool,
    },
    /// State and PC of each vCPU. The PC is 0 unless the vCPU is stopped.
    Vcpus(Vec<(VcpuState, u64), MAX_VCPUS>),
    /// Core registers.
    Registers(Registers),
    /// FP/SIMD registers.
    Simd(Simd),
    /// A register's value, or an address.
    Value(u64),
    /// Guest memory, or a register that is too long for a value.
    Memory(Bytes),
    /// Bytes of a vector.
    VectorLength {
        /// Of the longest that the CPU has.
        longest: u16,
        /// As the guest's EL1 and EL0 have them now.
        current: u16,
    },
}

/// Why a command was not carried out. Nothing has changed where this is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The two sides speak different versions.
    #[error("the hypervisor speaks version {0} of the link's language")]
    Version(u16),
    /// No domain or vCPU of that number.
    #[error("no such domain or vCPU")]
    NoSuchVcpu,
    /// The vCPU must be stopped for this.
    #[error("the vCPU is running: pause the domain first")]
    NotStopped,
    /// The vCPU was never started, or has been switched off by the guest.
    #[error("the vCPU is switched off")]
    Off,
    /// The domain has ended.
    #[error("the domain has ended")]
    Ended,
    /// The monitor has that state already.
    #[error("already {}", if *.0 { "enabled" } else { "disabled" })]
    AlreadySet(bool),
    /// Not a register that can be reached this way.
    #[error("no such register, or not accessible")]
    NoSuchRegister,
    /// The guest's translation has no such address.
    #[error("address {0:#x} is not mapped")]
    NotMapped(u64),
    /// Every breakpoint of that kind is in use.
    #[error("no breakpoint of that kind is left: the CPU has {0}; delete one first")]
    NoBreakpointLeft(u8),
    /// No breakpoint was set there, or one is set there already.
    #[error("no breakpoint there, or one is there already")]
    Breakpoint,
    /// The argument is out of its range.
    #[error("argument out of range")]
    Range,
    /// Not now: try again.
    #[error("busy: try again")]
    Busy,
    /// The vCPU is in AArch32 state, which this version does not step.
    #[error("the vCPU is in AArch32 state, which cannot be stepped yet")]
    AArch32,
    /// Another domain is writing into the trace ring.
    #[error("domain {0} is being recorded: the trace ring takes one at a time")]
    RingInUse(u8),
    /// No such watchpoint was set, or one is set already.
    #[error("no such watchpoint, or it is set already")]
    Watchpoint,
    /// The hypervisor has no memory left for it.
    #[error("the hypervisor has no memory left for another")]
    NoMemory,
    /// No clock can go by the steps of one vCPU while others run.
    #[error("the clock cannot go by steps while the other vCPUs run: time stopped, or others step")]
    PerStepWhileOthersRun,
}

/// Core registers of a vCPU, as the guest would see them: its own PSTATE.SS, never ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The stack pointer in use.
    pub sp: u64,
    /// The next instruction.
    pub pc: u64,
    /// PSTATE in SPSR format.
    pub pstate: u64,
}

/// What can be monitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Monitor {
    /// Every instruction: while on, [`Command::Continue`] steps each vCPU and stops after one.
    SingleStep,
    /// SMC: while on, an SMC stops the domain before it takes effect.
    PrivilegedCall,
}

/// What happens to the guest's interrupts while it is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterruptPolicy {
    /// None is delivered.
    Hold,
    /// A handler runs at full speed, and steps go on where the interrupted code resumes.
    Over,
    /// The exception entry is reported, and the handler stepped.
    Into,
}

/// How the guest's clock goes while it is stepped or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimePolicy {
    /// It does not advance while the domain is stopped and while EL2 works.
    Stopped,
    /// It advances by so many nanoseconds a step, and does not advance otherwise.
    PerStep {
        /// Nanoseconds a step.
        ns: u32,
    },
    /// It goes on like the machine's.
    Real,
}

/// What the other vCPUs do while one is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OthersPolicy {
    /// They are stopped, but for bounded turns while the stepped one makes no progress alone.
    Stop,
    /// They run.
    Run,
    /// They are stepped as well, one at a time.
    Step {
        /// Instructions of a turn. 0 is refused.
        quantum: u32,
    },
}

/// A guest address, and of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Virtual, in the translation that is current.
    Va(u64),
    /// What the guest takes for physical.
    Ipa(u64),
}

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VcpuState {
    /// Not started, or switched off by PSCI.
    Off,
    /// In the guest, or about to be.
    Running,
    /// Held at EL2 for the debugger.
    Stopped,
    /// Its domain has ended.
    Ended,
}

/// What the hypervisor tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "one message lives on the stack at a time")]
pub enum Event {
    /// A vCPU stopped, and with it its whole domain.
    Stopped {
        /// The domain.
        domain: u8,
        /// The vCPU that has the reason.
        vcpu: u8,
        /// Why.
        reason: StopReason,
        /// Steps reported since the command that this stop answers.
        steps: u64,
        /// That vCPU's core registers, so that nobody has to ask.
        registers: Registers,
    },
    /// The guest wrote on its serial console.
    Console {
        /// The domain.
        domain: u8,
        /// What it wrote.
        bytes: Bytes,
    },
    /// A domain came to its end. The machine powers off once the last has.
    DomainEnded {
        /// The domain.
        domain: u8,
        /// How.
        ending: DomainEnding,
    },
}

/// Why a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The domain was made and has not run yet.
    Reset,
    /// The tool asked for it.
    Paused,
    /// The steps asked for are done.
    Stepped,
    /// The address given as `until` is next.
    Until,
    /// A breakpoint is at the next instruction.
    Breakpoint,
    /// An SMC with this immediate is the next instruction, and privileged calls are monitored.
    PrivilegedCall {
        /// The SMC's 16-bit immediate.
        immediate: u16,
    },
    /// The trace ring is full. Drain it and step on: nothing is lost.
    RingFull,
    /// The vCPU went into AArch32 state, which cannot be stepped yet.
    AArch32,
    /// The guest switched this vCPU off.
    SwitchedOff,
    /// The next instruction accesses memory that is watched.
    Watchpoint {
        /// The first watched byte that it accesses, as far as the CPU tells.
        address: u64,
        /// What it does there: loads or stores, or both at once.
        access: Access,
    },
    /// The next instruction is outside of the range given as `within`.
    LeftRange,
    /// The guest has changed where an address with a breakpoint leads, and EL2 has no memory left to
    /// have the breakpoint there.
    BreakpointLost,
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainEnding {
    /// PSCI SYSTEM_OFF.
    PoweredOff,
    /// PSCI SYSTEM_RESET.
    Reset,
    /// The guest did something that no machine could let it do.
    Fault(GuestFault),
}

/// What a guest did to end its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFault {
    /// The vCPU that did it.
    pub vcpu: u8,
    /// The instruction that did it.
    pub pc: u64,
    /// ESR_EL2 of the exit.
    pub esr: u64,
    /// The guest-physical address it reached for, or 0.
    pub address: u64,
    /// What it was.
    pub kind: FaultKind,
}

/// Kinds of [`GuestFault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FaultKind {
    /// A load or store where the guest has neither memory nor a device.
    #[error("accessed an address where there is nothing")]
    UnmappedAccess,
    /// An instruction fetch from outside its memory.
    #[error("executed from an address where there is no memory")]
    UnmappedFetch,
    /// A device access that cannot be emulated (a pair, a write-back form, SIMD, an atomic).
    #[error("accessed a device with an instruction that devices do not support")]
    BadDeviceAccess,
    /// A system error (SError) that the guest caused.
    #[error("caused a system error")]
    SystemError,
    /// An exception that the hypervisor does not know.
    #[error("raised an exception that has no handling")]
    UnknownException,
    /// The domain could not be started: its kernel or device tree does not fit its memory.
    #[error("cannot be loaded into its memory")]
    DoesNotFit,
}
