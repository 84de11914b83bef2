//! What a vCPU loop needs of whatever executes guest instructions.
//!
//! At EL2 that is the CPU itself, by a type of no size whose methods are inlined; in tests it is a
//! value. The loop reads and writes registers by Arm's names and never asks which it is.
//!
//! All methods take `&self`: a CPU's registers are there to be changed by whoever runs on it, and
//! nobody else does. A value that stands for one keeps them in cells.
//!
//! Deliberately absent: anything about other CPUs but [`Cpu::kick`]. A `Cpu` runs one vCPU at a
//! time; which one is its caller's choice.

use crate::memory::GuestMemory;
use crate::registers::{GuestRegisters, PrivateRegisters, Snapshot};
use crate::ring::{Lease, Ring};
use crate::simd::SimdRegisters;
use crate::stage2::Vttbr;
use crate::vgic::CpuInterface;
use core::fmt;
use core::ops::DerefMut;
use stepwell_arch::{Ipa, SystemRegister, Va};

/// X0 to X30.
pub const GENERAL: usize = 31;

/// Whatever executes a vCPU's instructions.
pub trait Cpu: Sized + 'static {
    /// The guest's registers while it is not in the guest, and what a fast path works with.
    type Context: Context<Page = <Self::Memory as GuestMemory>::Page, Lease = <Self::Ring as Ring>::Lease>;
    /// A domain's RAM.
    type Memory: GuestMemory + Send + Sync;
    /// The trace ring.
    type Ring: Ring + Send;
    /// What this kind of CPU can do beside executing its guest.
    const CAN: Abilities = Abilities::ALL;

    /// Its number among the machine's.
    fn number(&self) -> usize;
    /// What this CPU has of what guest and debugger share.
    fn facts(&self) -> CpuFacts;
    /// Gets ready for the vCPU that reads `vmpidr` as its MPIDR_EL1 and lives by these tables.
    fn prepare(&self, vmpidr: u64, tables: Vttbr);
    /// Has another vCPU of the same domain in place of the one before. What that one's translations
    /// have left in the TLB is the new one's where `keeps_tlb`, if it lives by the same tables.
    fn change_vcpu(&self, vmpidr: u64, tables: Vttbr, keeps_tlb: bool);

    /// Reads a system register of the guest that is on this CPU, or an ID register of the CPU.
    fn read(&self, register: SystemRegister) -> u64;
    /// Writes a system register of the guest that is on this CPU.
    fn write(&self, register: SystemRegister, value: u64);
    /// A feature ID register as the guest reads it.
    fn guest_feature_id(&self, register: SystemRegister) -> u64;
    /// Reads a breakpoint or watchpoint register; 0 where the CPU has none of this number.
    fn read_debug(&self, bank: DebugBank, n: usize) -> u64;
    /// Writes a breakpoint or watchpoint register, if the CPU has one of this number.
    fn write_debug(&self, bank: DebugBank, n: usize, value: u64);
    /// Carries out a guest's MRS or MSR, which has trapped, of a debug register that nothing
    /// depends on. `value`: what is written, or what the destination holds before it is read, which
    /// it may go on holding.
    fn access_debug(&self, register: SystemRegister, value: u64, write: bool) -> Option<u64>;
    /// Writes MDCR_EL2: these traps beside what it always has.
    fn set_debug_traps(&self, traps: u64);
    /// Lets debug exceptions of EL2 itself be taken, or not: PSTATE.D.
    fn set_debug_masked(&self, is_masked: bool);
    /// Has what was written take effect.
    fn synchronize(&self);

    /// Puts what only the guest uses, and nobody has a copy of, into its reset state.
    fn reset(&self);
    /// Copies out what [`Cpu::reset`] resets.
    fn save_private(&self, into: &mut PrivateRegisters);
    /// Puts it in.
    fn load_private(&self, from: &PrivateRegisters);
    /// Copies the guest's system registers out.
    fn save(&self, into: &mut Snapshot);
    /// Puts the guest's system registers in.
    fn load(&self, from: &Snapshot);
    /// Copies FP/SIMD and SVE registers out.
    fn save_simd(&self, into: &mut SimdRegisters);
    /// Puts in what was written of them.
    fn load_simd(&self, from: &mut SimdRegisters);
    /// Keeps the guest's virtual timer from interrupting while its vCPU is stopped.
    fn stop_virtual_timer(&self);

    /// Runs the guest up to its next exit.
    fn enter(&self, context: &mut Self::Context) -> Vector;
    /// As [`Cpu::enter`], on a machine whose counter counts instructions: the guest's shows `clock`
    /// before its first one, and it is interrupted before the one at which it would show `until`, if
    /// it gets there. Returns what it shows after its last one, too.
    fn enter_counted(&self, context: &mut Self::Context, clock: u64, until: u64) -> (Vector, u64);

    /// Translates by stage 1 alone: what stage 2 maps is the loop's own to say.
    ///
    /// # Errors
    ///
    /// [`TranslationFailed`] where stage 1, or stage 2 at its tables, forbids such an access.
    fn to_ipa(&self, va: Va, el0: bool, purpose: Purpose) -> Result<Ipa, TranslationFailed>;
    /// Drops the guest's stage-1 translations, on all CPUs.
    fn invalidate_guest_stage1(&self);
    /// Has the guest's WFI trap, or not.
    fn trap_waits(&self, trap: bool);
    /// Has the guest's TLB invalidations trap, or not.
    fn trap_invalidations(&self, trap: bool);
    /// Has the guest's writes of the registers that make an address space trap, or not.
    fn trap_translation_changes(&self, trap: bool);
    /// Puts other stage-2 tables of the same domain in force.
    fn set_stage2(&self, tables: Vttbr);

    /// Loads the virtual CPU interface.
    fn load_interface(&self, interface: &CpuInterface);
    /// Takes the virtual CPU interface back, and leaves it off: it signals nothing, to EL2 neither,
    /// until it is loaded again.
    fn save_interface(&self, interface: &mut CpuInterface);

    /// Makes a virtual SError pending for the guest, with this ISS, where it may have one.
    fn raise_serror(&self, iss: u32);
    /// Withdraws it. Tells whether the guest has taken it, or deferred it by an ESB.
    fn take_serror_back(&self) -> bool;

    /// Takes the next physical interrupt that is pending, and ends it.
    fn take_interrupt(&self) -> Option<Interrupt>;
    /// Lets the guest's virtual timer interrupt this CPU, or not.
    fn enable_virtual_timer(&self, enable: bool);
    /// Waits until an interrupt is pending.
    fn wait_for_interrupt(&self);
    /// Lets the link interrupt this CPU, or not.
    fn enable_link(&self, enable: bool);
    /// Calls CPUs out of their guests: one bit each.
    fn kick(&self, cpus: u8);

    /// Ticks of the counter in a second.
    fn frequency_hz(&self) -> u64;
    /// The counter.
    fn counter(&self) -> u64;
    /// What guests' counters show at reset.
    fn counter_at_reset(&self) -> u64;
    /// Sets what the guest's counter lags behind.
    fn set_offset(&self, offset: u64);
    /// What the guest's counter lags behind.
    fn offset(&self) -> u64;
    /// Has this CPU interrupted in `ns` nanoseconds, or before if that was asked for.
    fn interrupt_in(&self, ns: u64);
    /// Takes [`Cpu::interrupt_in`] back.
    fn cancel_interrupt(&self);

    /// Switches the machine off.
    fn power_off(&self);
    /// Writes a line into the log.
    fn log(&self, line: fmt::Arguments<'_>);
}

/// The guest's registers, and the state of a fast path that takes plain steps without asking.
///
/// A CPU without one ignores all of it, and takes no step by itself.
pub trait Context: DerefMut<Target = GuestRegisters> + Send {
    /// A page of guest code that the fast path may read.
    type Page: Copy;
    /// A part of the trace ring that it may write.
    type Lease: Lease;

    /// Reads Xn, where 31 is XZR. Whoever has to fetch the guest's registers one by one fetches those
    /// that are asked for.
    #[inline(always)]
    fn register(&self, n: u8) -> u64 {
        self.kept(n)
    }
    /// Writes Xn, where 31 is XZR.
    #[inline(always)]
    fn set_register(&mut self, n: u8, value: u64) {
        self.keep(n, value);
    }
    /// Reads X0 to X30.
    #[inline(always)]
    fn general(&self) -> [u64; GENERAL] {
        self.x
    }
    /// Writes X0 to X30.
    #[inline(always)]
    fn set_general(&mut self, x: &[u64; GENERAL]) {
        self.x = *x;
    }

    /// Lets the fast path take `steps` plain steps before it leaves; 0 switches it off.
    fn set_fast_budget(&mut self, steps: u64);
    /// Steps of the budget that are left.
    fn fast_budget(&self) -> u64;
    /// Lets the fast path look into the page at `va`.
    fn know_page(&mut self, va: Va, page: Self::Page);
    /// The page of `va`, if it is known.
    fn known_page(&self, va: Va) -> Option<Self::Page>;
    /// Forgets every page: the guest's translation may have changed.
    fn forget_pages(&mut self);
    /// Hands over the trace's current run, and, with a lease, where the fast path may write it.
    fn lend_run(&mut self, run: Run, near: Option<Near<Self::Lease>>);
    /// Takes the run back, and the lease.
    fn take_run_back(&mut self) -> (Run, Option<Self::Lease>);
}

/// Instructions that were executed one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Run {
    /// Address of the first.
    pub start: u64,
    /// The one that would lengthen the run; 0 where there is none.
    pub next: u64,
}

/// What it takes to write near records of a run that a jump ends.
#[derive(Clone, Copy, Debug)]
pub struct Near<Lease> {
    /// The full PC that they build on.
    pub base: u64,
    /// Their kind and vCPU.
    pub tag: u64,
    /// Where they go.
    pub lease: Lease,
}

/// What a kind of CPU can do beside executing its guest. It is known when the loop is compiled, so that
/// asking costs nothing where all of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Stage 2 can have a page executed and not read, so that the guest can be shown a copy of it with
    /// breakpoints. Where it cannot, a page with breakpoints is withheld, and stepped through.
    pub copies: bool,
    /// The guest takes interrupts from the list registers by itself. Where it does not, each
    /// acknowledgement comes to the loop.
    pub list_registers: bool,
    /// The guest's TLB invalidations, and its writes of the registers that make an address space, can
    /// be had trap.
    pub translation_traps: bool,
    /// The guest's SMCs come to the loop.
    pub privileged_calls: bool,
    /// The guest's accesses to its debug registers come to the loop, so that it shares the machine's with
    /// the debugger.
    pub debug_traps: bool,
}

impl Abilities {
    /// All of them: what EL2 has.
    pub const ALL: Self = Self {
        copies: true,
        list_registers: true,
        translation_traps: true,
        privileged_calls: true,
        debug_traps: true,
    };
}

/// What a CPU has of what guest and debugger share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFacts {
    /// Breakpoints, 2 to 16.
    pub breakpoints: u8,
    /// Watchpoints, 2 to 16.
    pub watchpoints: u8,
    /// Breakpoints that can compare contexts: the last ones.
    pub context_breakpoints: u8,
    /// ID_AA64MMFR0_EL1.PARange.
    pub pa_range: u64,
    /// List registers of the virtual CPU interface.
    pub list_registers: usize,
}

impl CpuFacts {
    /// The number of the first breakpoint that can compare contexts.
    #[must_use]
    pub fn first_context_breakpoint(&self) -> usize {
        usize::from(self.breakpoints.saturating_sub(self.context_breakpoints))
    }
}

/// Which vector the guest left by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// A synchronous exception.
    Synchronous,
    /// A physical interrupt.
    Irq,
    /// A physical fast interrupt.
    Fiq,
    /// A system error.
    SError,
}

/// Physical interrupts that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Another CPU's call.
    Kick,
    /// The virtual CPU interface wants its list registers looked at.
    Maintenance,
    /// [`Cpu::interrupt_in`].
    El2Timer,
    /// The guest's virtual timer.
    VirtualTimer,
    /// The link has something.
    Link,
    /// Anything else.
    Unknown(u32),
}

/// One of the four families of breakpoint and watchpoint registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugBank {
    /// DBGBVR: a breakpoint's address.
    BreakpointValue,
    /// DBGBCR: a breakpoint's control.
    BreakpointControl,
    /// DBGWVR: a watchpoint's address.
    WatchpointValue,
    /// DBGWCR: a watchpoint's control.
    WatchpointControl,
}

/// What a translation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A load, or an instruction fetch.
    Read,
    /// A store.
    Write,
}

/// The translation failed: PAR_EL1.FST, a fault status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationFailed {
    /// DFSC as the guest's abort would have it.
    pub status: u8,
    /// The fault is in stage 2: not the guest's.
    pub stage2: bool,
}
