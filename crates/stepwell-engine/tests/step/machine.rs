//! A model of the CPU, as small as these tests need it: instructions that do nothing but execute,
//! and Software Step around them as the manual has it.
//!
//! Source: Arm ARM (DDI 0487, issue L.b), "Software Step exceptions"; shared pseudocode
//! `CheckSoftwareStep`, `SSAdvance`, `DebugExceptionReturnSS` and `AArch64.TakeException`. The
//! names of the methods are the pseudocode's.

use stepwell_arch::Pstate;
use stepwell_arch::debug::{mdcr_el2, mdscr_el1};
use stepwell_arch::esr::StepIss;
use stepwell_engine::{DebugControls, Engine, Exit, Outcome};

/// VBAR_EL1 of the guest.
pub const VBAR: u64 = 0x8000;
/// ISS.ISV.
const ISV: u32 = 1 << 24;
/// ISS.EX.
const EX: u32 = 1 << 6;
/// IFSC of a debug exception.
const IFSC: u32 = 0x22;

/// What an instruction does to Software Step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Executes: arithmetic, a branch to the next instruction, ISB, an LSE atomic.
    Plain,
    /// Executes, and shows as ISS.EX.
    LoadExclusive,
    /// Is taken to EL1 after SSAdvance.
    Svc,
    /// Is taken to EL1 instead of executing: an abort, an undefined instruction.
    Fault,
    /// Is taken to EL2 after SSAdvance, the PC behind it.
    Hvc,
    /// Is taken to EL2 instead of executing: SMC, MMIO, WFI, a system register.
    Trap,
    /// Returns to what SPSR_EL1 and ELR_EL1 hold.
    Eret,
}

/// Where a physical interrupt falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Nowhere.
    None,
    /// Before the instruction, or before the exception that was pending on entry.
    Before,
    /// After the instruction and before its step exception: the order of the two is not defined.
    After,
}

/// Something that an exact trace has exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The instruction at this address has executed, or was carried out at EL2.
    Executed(u64),
    /// The one at this address was taken to EL1.
    Entered(u64),
}

/// The CPU and what its guest executes.
#[derive(Clone, Debug)]
pub struct TestMachine {
    /// The instruction at PC / 4; beyond the end everything is plain.
    pub program: Vec<Does>,
    /// Everything that has happened, in order.
    pub happened: Vec<Happened>,
    /// ELR_EL2 while at EL2.
    pub pc: u64,
    /// SPSR_EL1.
    pub spsr_el1: Pstate,
    /// ELR_EL1.
    pub elr_el1: u64,
    /// OSLSR_EL1.OSLK.
    pub os_lock: bool,
    /// PSTATE.D at EL2.
    pub el2_debug_masked: bool,
    /// The CPU takes a breakpoint before a step exception that is pending, as QEMU does.
    pub breakpoint: Option<u64>,
}

impl TestMachine {
    /// A machine at the beginning of `program`, its OS Lock unlocked.
    pub fn new(program: &[Does]) -> Self {
        Self {
            program: program.to_vec(),
            happened: Vec::new(),
            pc: 0,
            spsr_el1: Pstate(Pstate::M_EL0T),
            elr_el1: 0x4000,
            os_lock: false,
            el2_debug_masked: true,
            breakpoint: None,
        }
    }

    /// Runs the guest from the ERET with `controls` up to the next exit. Returns it with SPSR_EL2.
    pub fn enter(&mut self, controls: DebugControls, interrupt: Interrupt) -> (Exit, Pstate) {
        let mut pstate = controls.spsr.with_ss(self.debug_exception_return_ss(controls));
        let enabled = self.is_step_enabled(controls);
        let mut interrupt = interrupt;
        let mut syndrome = IFSC;
        loop {
            if interrupt == Interrupt::Before {
                return (Exit::Asynchronous, pstate);
            }
            if self.breakpoint == Some(self.pc) {
                return (Exit::Breakpoint, pstate);
            }
            if enabled && !pstate.ss() {
                return (Exit::SoftwareStep(StepIss(syndrome)), pstate);
            }
            if let Some(exit) = self.execute(&mut pstate, &mut syndrome) {
                return (exit, pstate);
            }
            // From now on it falls before the next instruction, or the step exception.
            if interrupt == Interrupt::After {
                interrupt = Interrupt::Before;
            }
        }
    }

    fn is_step_enabled(&self, controls: DebugControls) -> bool {
        let routed = controls.mdcr & mdcr_el2::TDE != 0;
        routed && !self.os_lock && controls.mdscr & mdscr_el1::SS != 0
    }

    fn debug_exception_return_ss(&self, controls: DebugControls) -> bool {
        let enabled_at_el2 = controls.mdscr & mdscr_el1::KDE != 0 && !self.el2_debug_masked;
        self.is_step_enabled(controls) && !enabled_at_el2 && controls.spsr.ss()
    }

    /// Executes one instruction. Returns the exception to EL2 that it made.
    fn execute(&mut self, pstate: &mut Pstate, syndrome: &mut u32) -> Option<Exit> {
        let (pc, next) = (self.pc, self.pc + 4);
        let does = self.program.get((pc / 4) as usize).copied().unwrap_or(Does::Plain);
        let ss_advance = |pstate: &mut Pstate| *pstate = pstate.with_ss(false);
        *syndrome = IFSC;
        match does {
            Does::Plain | Does::LoadExclusive => {
                ss_advance(pstate);
                *syndrome |= ISV | if does == Does::LoadExclusive { EX } else { 0 };
                self.pc = next;
                self.happened.push(Happened::Executed(pc));
            }
            Does::Svc => {
                ss_advance(pstate);
                self.take_to_el1(pstate, next);
                self.happened.push(Happened::Entered(pc));
            }
            Does::Fault => {
                self.take_to_el1(pstate, pc);
                self.happened.push(Happened::Entered(pc));
            }
            Does::Hvc => {
                ss_advance(pstate);
                self.pc = next;
                return Some(Exit::Synchronous);
            }
            Does::Trap => return Some(Exit::Synchronous),
            Does::Eret => {
                *pstate = self.spsr_el1.with_ss(false);
                self.pc = self.elr_el1;
                self.happened.push(Happened::Executed(pc));
            }
        }
        None
    }

    fn take_to_el1(&mut self, pstate: &mut Pstate, preferred_return: u64) {
        self.spsr_el1 = *pstate;
        self.elr_el1 = preferred_return;
        *pstate = Pstate::EL1H_MASKED.with_ss(false);
        self.pc = VBAR + 0x200;
    }
}

/// The machine with the engine at its EL2.
#[derive(Clone, Debug)]
pub struct Hypervisor {
    /// The CPU.
    pub machine: TestMachine,
    /// The engine.
    pub engine: Engine,
    /// The saved PSTATE, which a debugger may read and write.
    pub pstate: Pstate,
    /// Boundaries reported.
    pub reported: usize,
}

impl Hypervisor {
    /// A guest at EL1 that is stepped.
    pub fn stepping(program: &[Does]) -> Self {
        Self::stepping_with(program, Pstate(Pstate::M_EL1H), 0)
    }

    /// A guest with this PSTATE and MDSCR_EL1 that is stepped.
    pub fn stepping_with(program: &[Does], pstate: Pstate, mdscr: u64) -> Self {
        let mut engine = Engine::new();
        assert_eq!(engine.enable(pstate, mdscr), Ok(()));
        Self { machine: TestMachine::new(program), engine, pstate, reported: 0 }
    }

    /// Enters once. Returns the raw SPSR_EL2.SS at the exit, the exit, and what it means.
    pub fn enter(&mut self, interrupt: Interrupt) -> (bool, Exit, Outcome) {
        let controls = self.engine.on_entry(self.pstate);
        let (exit, spsr) = self.machine.enter(controls, interrupt);
        self.pstate = spsr;
        let outcome = self.engine.on_exit(exit, &mut self.pstate);
        self.reported += usize::from(matches!(outcome, Outcome::Boundary(_)));
        (spsr.ss(), exit, outcome)
    }

    /// Carries out the instruction that trapped, with `ss` as the exit left it: 0 for an HVC,
    /// whose PC is behind it already.
    pub fn emulate(&mut self, ss: bool) {
        let executed = if ss { self.machine.pc } else { self.machine.pc - 4 };
        self.machine.pc = executed + 4;
        self.machine.happened.push(Happened::Executed(executed));
        self.reported += usize::from(self.engine.emulated().is_some());
    }

    /// Enters until one boundary is reported, with `interrupts` falling one at each entry.
    pub fn step(&mut self, interrupts: &[Interrupt]) {
        let before = self.reported;
        let mut interrupts = interrupts.iter().copied();
        for _ in 0..100 {
            let interrupt = interrupts.next().unwrap_or(Interrupt::None);
            let (ss, _, outcome) = self.enter(interrupt);
            if outcome == Outcome::Trapped {
                self.emulate(ss);
            }
            if self.reported > before {
                return;
            }
        }
        panic!("no boundary in a hundred entries: {self:?}");
    }
}
