//! The trait itself, and the abilities that only some debuggees have.
//!
//! A debuggee is either *stopped* or *running*, a whole domain at a time. [`Debuggee::resume`] and
//! [`Debuggee::step`] set a stopped domain running and return at once; that it stopped again, or
//! ended, is an [`Event`] of [`Debuggee::wait`]. Nothing but `wait` waits.

use crate::{
    Error, Event, InterruptPolicy, Monitor, OthersPolicy, Place, Registers, Reverse, SimdRegisters,
    StepRequest, SveRegister, TimePolicy, TimeTravel, TraceDetail, TraceRecord, VcpuId, VcpuStatus,
    VectorLength, Watchpoint,
};
use std::time::Duration;
use stepwell_arch::{Ipa, Va};

/// Something that can be stopped, looked at, stepped and let go.
///
/// Every method may return [`Error::Lost`]; the `# Errors` sections name what may be refused
/// besides.
pub trait Debuggee {
    /// Returns how many vCPUs each domain has.
    fn vcpu_counts(&self) -> &[u8];

    /// Returns the state of each vCPU of a domain.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoSuchVcpu`].
    fn status(&mut self, domain: u8) -> Result<Vec<VcpuStatus>, Error>;

    /// Asks a running domain to stop; the stop is an event. Pausing a stopped one is harmless.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoSuchVcpu`], [`crate::Refusal::Ended`].
    fn pause(&mut self, domain: u8) -> Result<(), Error>;

    /// Lets a stopped domain run.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoSuchVcpu`], [`crate::Refusal::NotStopped`], [`crate::Refusal::Ended`].
    fn resume(&mut self, domain: u8) -> Result<(), Error>;

    /// Lets one vCPU of a stopped domain run, while the others are stopped. Those that wait for
    /// them wait.
    ///
    /// # Errors
    ///
    /// As [`Debuggee::resume`], and [`crate::Refusal::Off`].
    fn resume_only(&mut self, vcpu: VcpuId) -> Result<(), Error>;

    /// Sets one vCPU of a stopped domain stepping.
    ///
    /// # Errors
    ///
    /// As [`Debuggee::resume`], and [`crate::Refusal::NoSteps`],
    /// [`crate::Refusal::Off`], [`crate::Refusal::AArch32`].
    fn step(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<(), Error>;

    /// Returns the next event, waiting for it no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    fn wait(&mut self, timeout: Duration) -> Result<Option<Event>, Error>;

    /// Reads the core registers of a stopped vCPU.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoSuchVcpu`], [`crate::Refusal::NotStopped`], [`crate::Refusal::Off`].
    fn read_registers(&mut self, vcpu: VcpuId) -> Result<Registers, Error>;

    /// Writes the core registers of a stopped vCPU.
    ///
    /// # Errors
    ///
    /// As [`Debuggee::read_registers`].
    fn write_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<(), Error>;

    /// Fills `bytes` from guest memory.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotMapped`] where any of it is not there; `bytes` is then unspecified.
    fn read_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &mut [u8]) -> Result<(), Error>;

    /// Writes guest memory.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotMapped`] where any of it is not there.
    fn write_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &[u8]) -> Result<(), Error>;

    /// Translates a virtual address as the stopped vCPU would.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotMapped`].
    fn translate(&mut self, vcpu: VcpuId, va: Va) -> Result<Ipa, Error>;

    /// Sets a breakpoint that the guest cannot see, on all vCPUs of a domain.
    ///
    /// By virtual address it holds for that address in whichever address space, also in those that
    /// come later. The first few are the CPU's own; a debuggee may have no others. By guest-physical
    /// address there are as many as one likes.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::Breakpoint`] where there is one already, [`crate::Refusal::NotMapped`],
    /// [`crate::Refusal::NoBreakpointLeft`], [`crate::Refusal::NoMemory`].
    fn set_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error>;

    /// Removes a breakpoint.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::Breakpoint`] where there is none.
    fn clear_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error>;

    /// Reaches the system registers, where that is possible.
    fn support_system_registers(&mut self) -> Option<&mut dyn SystemRegisters> {
        None
    }

    /// Reaches the FP/SIMD registers, where that is possible.
    fn support_simd(&mut self) -> Option<&mut dyn Simd> {
        None
    }

    /// Reaches the registers of SVE, where that may be possible: whether the CPU has them is seen
    /// when they are read.
    fn support_sve(&mut self) -> Option<&mut dyn Sve> {
        None
    }

    /// Switches monitors, where there are any.
    fn support_monitors(&mut self) -> Option<&mut dyn Monitors> {
        None
    }

    /// Chooses what happens to interrupts, where that can be chosen.
    fn support_interrupts(&mut self) -> Option<&mut dyn Interrupts> {
        None
    }

    /// Chooses how the guest's clock goes, where that can be chosen.
    fn support_time(&mut self) -> Option<&mut dyn Time> {
        None
    }

    /// Chooses what the other vCPUs do while one is stepped, where that can be chosen.
    fn support_others(&mut self) -> Option<&mut dyn Others> {
        None
    }

    /// Drains recorded steps, where they are recorded.
    fn support_trace(&mut self) -> Option<&mut dyn Trace> {
        None
    }

    /// Watches memory, where that is possible.
    fn support_watchpoints(&mut self) -> Option<&mut dyn Watchpoints> {
        None
    }

    /// Goes to positions of a run, where the machine counts instructions.
    fn support_time_travel(&mut self) -> Option<&mut dyn TimeTravel> {
        None
    }

    /// Goes back, where there is a whole run to go back in.
    fn support_reverse(&mut self) -> Option<&mut dyn Reverse> {
        None
    }

    /// Types on the guest's console, where it has one.
    fn support_console(&mut self) -> Option<&mut dyn Console> {
        None
    }
}

/// The ability to reach system registers by encoding.
pub trait SystemRegisters {
    /// Reads one; `register` is `op0:op1:CRn:CRm:op2` as in bits 20:5 of MRS.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NoSuchRegister`], [`crate::Refusal::NotStopped`].
    fn read_system_register(&mut self, vcpu: VcpuId, register: u16) -> Result<u64, Error>;

    /// Writes one.
    ///
    /// # Errors
    ///
    /// As for reading.
    fn write_system_register(
        &mut self,
        vcpu: VcpuId,
        register: u16,
        value: u64,
    ) -> Result<(), Error>;
}

/// The ability to reach FP/SIMD registers.
pub trait Simd {
    /// Reads them all.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotStopped`], [`crate::Refusal::Off`].
    fn read_simd(&mut self, vcpu: VcpuId) -> Result<SimdRegisters, Error>;

    /// Writes them all. What the vectors of SVE have beyond V0 to V31 stays as it is.
    ///
    /// # Errors
    ///
    /// As for reading, and [`crate::Refusal::NoSuchRegister`] in Streaming SVE mode.
    fn write_simd(&mut self, vcpu: VcpuId, registers: &SimdRegisters) -> Result<(), Error>;
}

/// The ability to reach the registers of SVE.
///
/// They are as long as the CPU's longest vectors have them; what the guest's EL1 has put out of its
/// own reach ([`VectorLength::current`]) is zero. All of it is refused as
/// [`crate::Refusal::NoSuchRegister`] by a CPU without SVE.
pub trait Sve {
    /// Returns how long vectors are.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotStopped`], [`crate::Refusal::Off`].
    fn vector_length(&mut self, vcpu: VcpuId) -> Result<VectorLength, Error>;

    /// Reads one, from its least significant byte on.
    ///
    /// # Errors
    ///
    /// As above; [`crate::Refusal::NoSuchRegister`] in Streaming SVE mode, too.
    fn read_sve(&mut self, vcpu: VcpuId, register: SveRegister) -> Result<Vec<u8>, Error>;

    /// Writes one; what `bytes` is too short for becomes zero.
    ///
    /// # Errors
    ///
    /// As for reading, and [`crate::Refusal::TooLong`] for more bytes than there are,
    /// [`crate::Refusal::BadValue`] for any but zeros out of the guest's reach.
    fn write_sve(&mut self, vcpu: VcpuId, register: SveRegister, bytes: &[u8])
    -> Result<(), Error>;
}

/// The ability to monitor.
pub trait Monitors {
    /// Switches a monitor for one vCPU, or for all where `vcpu` is `None`.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::AlreadySet`] where it has that state.
    fn set_monitor(
        &mut self,
        domain: u8,
        vcpu: Option<u8>,
        monitor: Monitor,
        on: bool,
    ) -> Result<(), Error>;
}

/// The ability to choose an interrupt policy.
pub trait Interrupts {
    /// Chooses.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotStopped`].
    fn set_interrupt_policy(&mut self, domain: u8, policy: InterruptPolicy) -> Result<(), Error>;
}

/// The ability to choose a time policy.
pub trait Time {
    /// Chooses.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotStopped`].
    fn set_time_policy(&mut self, domain: u8, policy: TimePolicy) -> Result<(), Error>;
}

/// The ability to watch memory. A stop comes before the access: [`crate::StopReason::Watchpoint`].
/// The next command that sets the vCPU going lets that one access happen.
pub trait Watchpoints {
    /// Sets a watchpoint on all vCPUs of the domain; addresses are translated as `vcpu` does now,
    /// if they have to be.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::Watchpoint`] where it is set already, [`crate::Refusal::WatchedRange`] for
    /// no bytes or more than can be watched, [`crate::Refusal::NotMapped`],
    /// [`crate::Refusal::NoMemory`], [`crate::Refusal::NotStopped`].
    fn set_watchpoint(&mut self, vcpu: VcpuId, watchpoint: Watchpoint) -> Result<(), Error>;

    /// Removes a watchpoint.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::Watchpoint`] where there is none like it, [`crate::Refusal::NotStopped`].
    fn clear_watchpoint(&mut self, domain: u8, watchpoint: Watchpoint) -> Result<(), Error>;
}

/// The ability to choose what the other vCPUs do while one is stepped.
pub trait Others {
    /// Chooses.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotStopped`].
    fn set_others_policy(&mut self, domain: u8, policy: OthersPolicy) -> Result<(), Error>;
}

/// The ability to record steps.
pub trait Trace {
    /// Appends what was recorded since the last call, oldest first.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`]: a damaged trace cannot be trusted from there on.
    fn drain(&mut self, records: &mut Vec<TraceRecord>) -> Result<(), Error>;

    /// Chooses what is recorded of each step beside its PC. Anything makes steps slower.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::NotStopped`], [`crate::Refusal::Unsupported`] where there is no such detail.
    fn set_detail(&mut self, domain: u8, detail: TraceDetail) -> Result<(), Error>;
}

/// The ability to type on the guest's console.
pub trait Console {
    /// Types a prefix of `bytes` and returns how long it was: the rest did not fit just now.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::Ended`].
    fn type_bytes(&mut self, domain: u8, bytes: &[u8]) -> Result<usize, Error>;
}
