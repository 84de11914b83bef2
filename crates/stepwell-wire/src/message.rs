//! The messages themselves.
//!
//! Adding a variant at the end of an enum is compatible with an older reader only as far as it
//! never receives it; anything else raises [`crate::VERSION`].

use heapless::Vec;
use serde::{Deserialize, Serialize};
use stepwell_arch::Ipa;
use stepwell_protocol::{
    DomainEnding, InterruptPolicy, MAX_VCPUS, Monitor, OthersPolicy, Place, Refusal, Registers,
    SimdRegisters, StopReason, SveRegister, TimePolicy, VcpuState, VectorLength, Watchpoint,
};

/// Most bytes of guest memory or console text in one message.
pub const MAX_BYTES: usize = 1024;

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
        registers: SimdRegisters,
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
    /// cannot reach now have to be ([`Refusal::BadValue`]).
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
    /// Asks where a domain is stopped; answered by [`Answer::Timeline`]. Refused as
    /// [`Refusal::NotCounted`] where the machine does not count instructions, as the next one is.
    ReadTimeline {
        /// The domain.
        domain: u8,
    },
    /// Lets a stopped domain run until so many instructions have been executed, and, if all vCPUs wait
    /// there, until its counter has come that far: [`StopReason::Reached`].
    RunUntil {
        /// The domain.
        domain: u8,
        /// Instructions since reset.
        position: u64,
        /// The counter.
        clock: u64,
        /// Stop before that where it is this vCPU's turn, before it executes anything.
        turn: Option<u8>,
        /// By steps, and write them into the trace ring.
        record: bool,
    },
    /// Keeps the moment at which a domain is stopped; answered by [`Answer::Value`], its number.
    Keep {
        /// The domain.
        domain: u8,
    },
    /// Takes a stopped domain to a moment that is kept.
    GoTo {
        /// The domain.
        domain: u8,
        /// The moment's number.
        checkpoint: u64,
    },
    /// Lets a moment go that is kept.
    Forget {
        /// Its number.
        checkpoint: u64,
    },
    /// Asks whether memory may have been written between two moments that are kept; answered by
    /// [`Answer::Value`], which is 0 where it has not been.
    Wrote {
        /// The domain.
        domain: u8,
        /// The earlier one's number.
        from: u64,
        /// The later one's.
        to: u64,
        /// The first byte.
        ipa: Ipa,
        /// How many.
        bytes: u64,
    },
    /// Lets a domain depart from the run that its positions are of.
    Fork {
        /// The domain.
        domain: u8,
    },
    /// Puts a device into a virtio-mmio slot of a stopped domain. What its queues are asked for comes
    /// through the [device channel](crate::devices). Refused as busy where the slot is taken.
    AttachDevice {
        /// The domain.
        domain: u8,
        /// The slot.
        slot: u8,
        /// The type of the device, as virtio numbers them.
        device: u32,
        /// What it offers.
        features: u64,
        /// The most descriptors that each of its queues has.
        queues: Vec<u16, 4>,
        /// Its configuration.
        configuration: Vec<u8, 64>,
    },
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
        vcpus: Vec<u8, MAX_VCPUS>,
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
    Simd(SimdRegisters),
    /// A register's value, or an address.
    Value(u64),
    /// Guest memory, or a register that is too long for a value.
    Memory(Bytes),
    /// Bytes of a vector.
    VectorLength(VectorLength),
    /// Where a domain is whose machine counts instructions.
    Timeline(Timeline),
}

/// Where a domain is whose machine counts instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Instructions that its vCPUs have executed since reset.
    pub position: u64,
    /// The guest's counter.
    pub clock: u64,
    /// For each vCPU, the position behind the last instruction that it has executed; 0 for none.
    pub executed: [u64; 8],
    /// A hash of what its vCPUs' registers hold.
    pub registers: u64,
    /// Where its RAM begins, physically.
    pub ram: u64,
    /// Bytes of its RAM.
    pub ram_bytes: u64,
}

/// What the hypervisor tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// Its position and its counter, where its machine counts instructions.
        moment: Option<(u64, u64)>,
    },
    /// The guest's firmware has stored into the bank of flash that its variables are in. Whatever comes
    /// later is told later.
    FlashProgrammed {
        /// The domain.
        domain: u8,
        /// So far into the bank.
        offset: u64,
        /// What is there now.
        bytes: Bytes,
    },
    /// The guest's firmware has erased a part of that bank: it is all ones.
    FlashErased {
        /// The domain.
        domain: u8,
        /// So far into the bank.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
}
