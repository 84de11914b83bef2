//! The values that go into a debuggee and come out of it.

use std::fmt;
use std::str::FromStr;
use stepwell_arch::debug::WatchAccess;
use stepwell_arch::{InstructionSet, Ipa, Va};

/// Which vCPU, of which domain. Both are numbered from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuId {
    /// The domain.
    pub domain: u8,
    /// The vCPU within it.
    pub vcpu: u8,
}

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.domain {
            0 => write!(f, "vcpu{}", self.vcpu),
            domain => write!(f, "d{domain}.vcpu{}", self.vcpu),
        }
    }
}

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuState {
    /// Not started, or switched off.
    Off,
    /// In the guest, or about to be.
    Running,
    /// Held for the debugger.
    Stopped,
    /// Its domain has ended.
    Ended,
}

/// A vCPU's state, and its PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuStatus {
    /// What it is doing.
    pub state: VcpuState,
    /// The next instruction; 0 unless it is stopped.
    pub pc: Va,
}

/// A guest address, and of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Virtual, in the translation that is current.
    Va(Va),
    /// What the guest takes for physical.
    Ipa(Ipa),
}

impl Place {
    /// Returns the place `bytes` further on, in the same address space.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        match self {
            Self::Va(va) => Self::Va(va.offset(bytes)),
            Self::Ipa(ipa) => Self::Ipa(ipa.offset(bytes)),
        }
    }
}

/// Core registers, as the guest would see them: its own PSTATE.SS, never the debugger's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

impl Registers {
    /// Returns the one that has this name: `x0` to `x30`, `lr`, `sp`, `pc`, `pstate`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<u64> {
        match name {
            "pc" => Some(self.pc),
            "sp" => Some(self.sp),
            "pstate" => Some(self.pstate),
            "lr" => Some(self.x[30]),
            _ => self.x.get(name.strip_prefix('x')?.parse::<usize>().ok()?).copied(),
        }
    }
}

/// The FP/SIMD registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimdRegisters {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
}

/// A register of SVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SveRegister {
    /// Z0 to Z31, whose low 128 bits are V0 to V31.
    Z(u8),
    /// P0 to P15: a bit for each byte of a vector.
    P(u8),
    /// The first-fault register, as long as a predicate.
    Ffr,
}

impl SveRegister {
    /// Returns how many bytes it has where a vector has `vector_bytes`.
    #[must_use]
    pub const fn bytes(self, vector_bytes: usize) -> usize {
        match self {
            Self::Z(_) => vector_bytes,
            Self::P(_) | Self::Ffr => vector_bytes / 8,
        }
    }
}

/// How long the vectors of SVE are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorLength {
    /// Bytes of the longest that the CPU has.
    pub longest: usize,
    /// Bytes as EL1 and EL0 have them now, which EL1 chooses (ZCR_EL1).
    pub current: usize,
}

/// What can be monitored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitor {
    /// Every instruction: while on, a vCPU that is let run stops after one.
    SingleStep,
    /// SMC: while on, an SMC stops the domain before it takes effect.
    PrivilegedCall,
}

/// What happens to the guest's interrupts while it is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptPolicy {
    /// None is delivered.
    Hold,
    /// A handler runs at full speed, and steps go on where the interrupted code resumes.
    Over,
    /// The exception entry is reported, and the handler stepped.
    Into,
}

impl fmt::Display for InterruptPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold",
            Self::Over => "over",
            Self::Into => "into",
        })
    }
}

/// A word that names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {expected}")]
pub struct UnknownPolicy {
    given: String,
    expected: &'static str,
}

impl FromStr for InterruptPolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, UnknownPolicy> {
        match word {
            "hold" => Ok(Self::Hold),
            "over" => Ok(Self::Over),
            "into" => Ok(Self::Into),
            _ => Err(UnknownPolicy { given: word.into(), expected: "hold, over, into" }),
        }
    }
}

/// How the guest's clock goes while it is stepped or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePolicy {
    /// It does not advance while the domain is stopped and while a step is worked on.
    Stopped,
    /// It advances by so many nanoseconds a step, and does not advance otherwise.
    PerStep {
        /// Nanoseconds a step.
        ns: u32,
    },
    /// It goes on like the machine's.
    Real,
}

impl fmt::Display for TimePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::PerStep { ns } => write!(f, "per-step={ns}"),
            Self::Real => f.write_str("real"),
        }
    }
}

impl FromStr for TimePolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, UnknownPolicy> {
        let per_step = word.strip_prefix("per-step=").and_then(|ns| ns.parse().ok());
        match (word, per_step) {
            ("stopped", _) => Ok(Self::Stopped),
            ("real", _) => Ok(Self::Real),
            (_, Some(ns)) => Ok(Self::PerStep { ns }),
            _ => Err(UnknownPolicy { given: word.into(), expected: "stopped, real, per-step=NS" }),
        }
    }
}

/// What the other vCPUs of a domain do while one is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl OthersPolicy {
    /// [`OthersPolicy::Step`] with turns long enough that handing them on costs little beside
    /// them, and short enough that a lock's holder is soon back.
    pub const STEP: Self = Self::Step { quantum: 10_000 };
}

impl fmt::Display for OthersPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.write_str("stop"),
            Self::Run => f.write_str("run"),
            Self::Step { quantum } => write!(f, "step={quantum}"),
        }
    }
}

impl FromStr for OthersPolicy {
    type Err = UnknownPolicy;

    fn from_str(word: &str) -> Result<Self, UnknownPolicy> {
        match word {
            "stop" => Ok(Self::Stop),
            "run" => Ok(Self::Run),
            "step" => Ok(Self::STEP),
            _ => word
                .strip_prefix("step=")
                .and_then(|quantum| quantum.parse().ok())
                .filter(|quantum| *quantum > 0)
                .map(|quantum| Self::Step { quantum })
                .ok_or(UnknownPolicy { given: word.into(), expected: "stop, run, step, step=N" }),
        }
    }
}

/// What a step command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepRequest {
    /// How many steps at most. 0 is refused.
    pub count: u64,
    /// Stop early where this address is about to execute.
    pub until: Option<Va>,
    /// Put the steps into the trace, where there is one.
    pub record: bool,
    /// Count the steps of all vCPUs that move, and not only those of the one that is stepped.
    pub all: bool,
    /// Stop early where the instruction that is about to execute is not in this range: a line of
    /// source, stepped in one go.
    pub within: Option<CodeRange>,
}

/// Instructions from one address up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// The first.
    pub start: Va,
    /// Behind the last.
    pub end: Va,
}

impl CodeRange {
    /// Tells whether the instruction at `pc` is one of them.
    #[must_use]
    pub const fn contains(self, pc: Va) -> bool {
        self.start.0 <= pc.0 && pc.0 < self.end.0
    }
}

/// A range of memory, and which accesses to it are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watchpoint {
    /// The first byte.
    pub address: Va,
    /// Bytes; at least 1.
    pub length: u64,
    /// Which accesses.
    pub access: WatchAccess,
}

impl StepRequest {
    /// Asks for `count` steps, unrecorded.
    #[must_use]
    pub const fn steps(count: u64) -> Self {
        Self { count, until: None, record: false, all: false, within: None }
    }
}

/// What is recorded of each step beside its PC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceDetail {
    /// The registers that it changed.
    pub registers: bool,
    /// What it loaded and stored.
    pub memory: bool,
}

/// One thing that a trace tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceRecord {
    /// `length` instructions were stepped from `pc` on, 4 bytes apart.
    Run {
        /// Which vCPU stepped.
        vcpu: u8,
        /// The first instruction.
        pc: Va,
        /// How many; at least 1.
        length: u16,
    },
    /// The instruction at `pc` was about to execute when an interrupt was entered instead.
    Interrupt {
        /// Which vCPU was interrupted.
        vcpu: u8,
        /// The interrupted instruction, which did not execute.
        pc: Va,
    },
    /// An exception was entered at EL1.
    ExceptionEntry {
        /// The vCPU.
        vcpu: u8,
        /// 0 synchronous, 1 IRQ, 2 FIQ, 3 SError.
        cause: u8,
        /// ELR_EL1.
        return_address: Va,
        /// Where it goes on.
        vector: Va,
        /// ESR_EL1; 0 for interrupts.
        syndrome: u64,
        /// The interrupt, where it is known.
        intid: Option<u32>,
    },
    /// The last instruction was an exception return.
    ExceptionReturn {
        /// The vCPU.
        vcpu: u8,
        /// Where it goes on.
        to: Va,
        /// The exception level there.
        el: u8,
    },
    /// The last instruction was a store-exclusive.
    Exclusive {
        /// The vCPU.
        vcpu: u8,
        /// Its PC.
        pc: Va,
        /// It stored.
        stored: bool,
    },
    /// What the vCPU executes from here on; A64 until this is told.
    InstructionSet {
        /// The vCPU.
        vcpu: u8,
        /// The set.
        set: InstructionSet,
    },
    /// The vCPU made no progress at `pc` until others had moved, which is not recorded.
    Turns {
        /// The vCPU.
        vcpu: u8,
        /// Its next instruction.
        pc: Va,
        /// 0 it waited for an event, 1 for an interrupt, 2 it went round and nothing changed.
        why: u8,
        /// Instructions that the others executed.
        steps: u64,
    },
    /// The address space from here on.
    Context {
        /// The vCPU.
        vcpu: u8,
        /// Exception level.
        el: u8,
        /// VMID of stage 2.
        vmid: u16,
        /// ASID of stage 1.
        asid: u16,
        /// Base address in TTBR0_EL1.
        ttbr0: u64,
    },
    /// The guest's clock.
    Time {
        /// Nanoseconds since its counter was 0.
        ns: u64,
    },
    /// A register has changed.
    Register {
        /// The vCPU.
        vcpu: u8,
        /// 0 to 30: X0 to X30, 31: SP, 32: PSTATE.
        register: u8,
        /// The new value.
        value: u64,
        /// It was not the last instruction that changed it.
        found: bool,
    },
    /// The last instruction accessed memory.
    Memory {
        /// The vCPU.
        vcpu: u8,
        /// 0 load, 1 store, 2 bytes set to zero.
        access: u8,
        /// The first byte.
        address: Va,
        /// Bytes.
        size: u16,
        /// What was loaded or stored, if that is known.
        value: Option<u128>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for policy in [InterruptPolicy::Hold, InterruptPolicy::Over, InterruptPolicy::Into] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        for policy in [TimePolicy::Stopped, TimePolicy::PerStep { ns: 17 }, TimePolicy::Real] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        for policy in [OthersPolicy::Stop, OthersPolicy::Run, OthersPolicy::STEP] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let refused = "per-step=".parse::<TimePolicy>().unwrap_err();
        assert_eq!(refused.to_string(), "\"per-step=\" is none of stopped, real, per-step=NS");
        assert_eq!("step".parse(), Ok(OthersPolicy::STEP));
        let refused = "step=0".parse::<OthersPolicy>().unwrap_err();
        assert_eq!(refused.to_string(), "\"step=0\" is none of stop, run, step, step=N");
    }
}
