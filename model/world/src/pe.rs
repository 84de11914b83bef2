//! The machine that the real loop runs on here: the specification's PEs behind [`Cpu`], and their
//! memory.
//!
//! A [`ModelCpu`] has a number and nothing else. What it stands for is in a place of the thread's own,
//! so that the explorer's threads do not share it, and that a state of the exploration can be put
//! into it and taken out of it: see [`crate::board`].
//!
//! Addresses: instruction n of a program is at [`CODE`]` + 4 n`, the line that exclusives are about at
//! [`LINE`].

use crate::{bits, programs};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use stepwell_arch::esr::ec;
use stepwell_arch::{Ipa, Pa, Pstate, SystemRegister, Va};
use stepwell_engine::Image;
use stepwell_spec::exception::SYNCHRONOUS_VECTOR;
use stepwell_spec::exclusive::stored;
use stepwell_spec::{Choice, Class, El, Event, Op, Program, SpecMachine, Syndrome};
use stepwell_vm::cpu::{
    Context, Cpu, CpuFacts, DebugBank, Interrupt, Near, Purpose, Run, TranslationFailed, Vector,
};
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::memory::{GuestMemory, OutsideRam};
use stepwell_vm::registers::{GuestRegisters, PrivateRegisters, Snapshot};
use stepwell_vm::ring::{Lease, Ring};
use stepwell_vm::simd::SimdRegisters;
use stepwell_vm::stage2::{PageUse, TableMemory, Vttbr};
use stepwell_vm::vgic::CpuInterface;
use stepwell_vm::views::CodeMemory;

/// Where instruction 0 is.
pub const CODE: u64 = RAM_BASE.0;
/// VBAR_EL1.
const VECTORS: u64 = RAM_BASE.0 + 0x1000;
/// The line.
pub const LINE: u64 = RAM_BASE.0 + 0x2000;
/// Bytes of RAM.
pub const RAM_BYTES: u64 = 0x20_0000;
/// Bytes of an instruction.
const INSTRUCTION: u64 = 4;
/// UARTFR, which a guest reads that reads a device.
const DEVICE: u64 = 0x0900_0018;
/// Breakpoints of a PE.
pub const BREAKPOINTS: usize = 4;
/// SCTLR_EL1: WFI and WFE of EL0 are not trapped to EL1.
const SCTLR_NTWI: u64 = 1 << 16;
const SCTLR_NTWE: u64 = 1 << 18;
/// What the counter shows after any turn.
const LATE: u64 = 1 << 40;
/// Most PEs.
pub const PES: usize = 2;

/// The address of an instruction.
#[must_use]
pub fn address_of(number: u8) -> u64 {
    let Some(n) = number.checked_sub(SYNCHRONOUS_VECTOR).map(u64::from) else {
        return CODE + u64::from(number) * INSTRUCTION;
    };
    // Eight instructions for each kind of exception, from EL1 itself and from EL0.
    let (kind, from, n) = (n >> 4, n >> 3 & 1, n & 7);
    VECTORS + 0x200 + from * 0x200 + kind * 0x80 + n * INSTRUCTION
}

/// The number of an instruction.
#[must_use]
pub fn number_of(address: u64) -> u8 {
    let number = match address.checked_sub(VECTORS) {
        None => address.wrapping_sub(CODE) / INSTRUCTION,
        Some(offset) => {
            let (from, kind, n) = (offset >> 9 & 3, offset >> 7 & 3, offset >> 2 & 7);
            u64::from(SYNCHRONOUS_VECTOR) + kind * 0x10 + from.saturating_sub(1) * 8 + n
        }
    };
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// One PE, and what EL2 has loaded into it.
#[derive(Clone, Debug)]
pub struct Pe {
    /// The specification's machine.
    pub machine: SpecMachine,
    /// The guest has acknowledged what its list registers offered.
    pub has_acknowledged: bool,
    /// The virtual CPU interface.
    pub interface: CpuInterface,
}

/// What a thread's machine has beside its PEs.
#[derive(Debug)]
pub struct Place {
    /// The PEs.
    pub pes: [Pe; PES],
    /// What they execute.
    pub program: Program,
    /// The turn on a shared CPU is over.
    pub is_late: bool,
    /// CPUs that were called: one bit each.
    pub kicks: u8,
    /// Words of the ring since this was emptied.
    pub words: Vec<u64>,
    /// VTTBR_EL2 of the domain's own tables.
    pub root: u64,
    /// Pages of tables.
    tables: Vec<[u64; 512]>,
}

thread_local! {
    static PLACE: RefCell<Place> = RefCell::new(Place::new());
}

/// Does something with this thread's machine.
pub fn with<T>(act: impl FnOnce(&mut Place) -> T) -> T {
    PLACE.with_borrow_mut(act)
}

impl Place {
    fn new() -> Self {
        let pe = Pe {
            machine: SpecMachine::new(stepwell_spec::ProcState::at(El::El1)),
            has_acknowledged: false,
            interface: CpuInterface::new(4),
        };
        Self {
            pes: [pe.clone(), pe],
            program: Program(&[]),
            is_late: false,
            kicks: 0,
            words: Vec::new(),
            root: 0,
            tables: Vec::new(),
        }
    }

    fn word(&self, va: u64) -> u32 {
        programs::word(self.program.fetch(number_of(va)))
    }

    fn line(&self) -> u8 {
        self.pes.first().map_or(0, |pe| pe.machine.line)
    }

    /// Somebody writes the line. `by`: a PE, by its own store, or EL2 in the place of one.
    pub fn write_line(&mut self, by: Option<usize>, value: u8) {
        for (n, pe) in self.pes.iter_mut().enumerate() {
            if Some(n) == by {
                pe.machine.line = value;
            } else {
                pe.machine.written_by_another(value);
            }
        }
    }
}

/// The registers of a vCPU, and a fast path as `world.S` has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModelContext {
    registers: GuestRegisters,
    budget: u64,
    run: Run,
    known: Option<Va>,
}

impl ModelContext {
    /// The fast path's budget, run and known page.
    #[must_use]
    pub const fn fast(&self) -> (u64, Run, Option<Va>) {
        (self.budget, self.run, self.known)
    }

    /// Puts these in.
    pub const fn put_fast(&mut self, (budget, run, known): (u64, Run, Option<Va>)) {
        (self.budget, self.run, self.known) = (budget, run, known);
    }

    /// As the fast path: takes the step exception that the guest has left by, if it is a plain one
    /// and what comes next is plain, too. Tells whether it did.
    pub fn goes_fast(&mut self, syndrome: Syndrome, program: Program) -> bool {
        let is_plain = syndrome.class == Class::SoftwareStep && syndrome.isv && !syndrome.ex;
        let pc = self.registers.elr;
        let is_known = self.known == Some(Va(pc).align_down(0x1000));
        if !is_plain || !is_known || self.budget == 0 {
            return false;
        }
        if !programs::is_plain(program.fetch(number_of(pc))) {
            return false;
        }
        if self.run.next != 0 {
            if self.run.next != pc {
                return false;
            }
            self.run.next += INSTRUCTION;
        }
        self.budget -= 1;
        true
    }
}

impl Deref for ModelContext {
    type Target = GuestRegisters;
    fn deref(&self) -> &GuestRegisters {
        &self.registers
    }
}

impl DerefMut for ModelContext {
    fn deref_mut(&mut self) -> &mut GuestRegisters {
        &mut self.registers
    }
}

impl Context for ModelContext {
    type Page = ();
    type Lease = NoLease;

    fn set_fast_budget(&mut self, steps: u64) {
        self.budget = steps;
    }
    fn fast_budget(&self) -> u64 {
        self.budget
    }
    fn know_page(&mut self, va: Va, (): ()) {
        self.known = Some(va.align_down(0x1000));
    }
    fn known_page(&self, va: Va) -> Option<()> {
        (self.known == Some(va.align_down(0x1000))).then_some(())
    }
    fn forget_pages(&mut self) {
        self.known = None;
    }
    fn lend_run(&mut self, run: Run, _: Option<Near<NoLease>>) {
        self.run = run;
    }
    fn take_run_back(&mut self) -> (Run, Option<NoLease>) {
        (core::mem::take(&mut self.run), None)
    }
}

/// The fast path here never writes the ring.
#[derive(Debug)]
pub struct NoLease;

impl Lease for NoLease {
    fn words(&self) -> u64 {
        0
    }
}

/// The trace ring: emptied after each event, so that there is always room.
#[derive(Debug)]
pub struct ModelRing;

impl Ring for ModelRing {
    type Lease = NoLease;

    fn bytes(&self) -> u64 {
        1 << 16
    }
    fn room(&self) -> u64 {
        1 << 12
    }
    fn push(&mut self, words: &[u64]) {
        with(|place| place.words.extend_from_slice(words));
    }
    fn lease(&mut self, _: u64) -> NoLease {
        NoLease
    }
    fn settle(&mut self, _: NoLease) {}
}

/// A PE, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelCpu(pub usize);

impl ModelCpu {
    fn pe<T>(self, act: impl FnOnce(&mut Pe) -> T) -> T {
        with(|place| act(&mut place.pes[self.0 % PES]))
    }

    /// Returns from EL2 to the guest.
    pub fn enter_guest(self, context: &ModelContext) {
        self.pe(|pe| {
            let machine = &mut pe.machine;
            machine.spsr_el2 = bits::proc_state(Pstate(context.spsr));
            machine.elr_el2 = number_of(context.elr);
            machine.exception_return();
        });
        self.registers_are(context);
    }

    /// What programs use of the general registers is this.
    pub fn registers_are(self, context: &ModelContext) {
        self.pe(|pe| {
            pe.machine.status = context.x[3] as u32 != 0;
            pe.machine.loaded = context.x[5] as u8;
        });
    }

    /// The guest has left for EL2: what the exit saves.
    pub fn leave_guest(self, context: &mut ModelContext, program: Program) -> Vector {
        self.pe(|pe| {
            let machine = &pe.machine;
            context.spsr = bits::pstate(machine.spsr_el2).0;
            context.elr = address_of(machine.elr_el2);
            registers(&mut context.registers, machine.loaded, machine.status);
            let op = program.fetch(machine.elr_el2);
            if let Op::WriteMdscr(value) = op {
                context.x[4] = bits::mdscr(value);
            }
            let vector = match machine.esr_el2.class {
                Class::Irq => Vector::Irq,
                Class::Fiq => Vector::Fiq,
                Class::SystemError => Vector::SError,
                _ => Vector::Synchronous,
            };
            if !matches!(vector, Vector::Irq | Vector::Fiq) {
                context.esr = syndrome(machine.esr_el2);
                (context.far, context.hpfar) = match machine.esr_el2.class {
                    Class::Mmio => (DEVICE, DEVICE >> 12 << 4),
                    Class::Stage2 => (LINE + 0x40, 0),
                    _ => (0, 0),
                };
            }
            vector
        })
    }

    /// ESR_EL2.
    #[must_use]
    pub fn syndrome(self) -> Syndrome {
        self.pe(|pe| pe.machine.esr_el2)
    }

    /// Does what comes next below EL2.
    pub fn advance(self, program: Program, choice: Choice) -> Event {
        with(|place| {
            let machine = &mut place.pes[self.0 % PES].machine;
            let is_ack =
                choice != Choice::VirtualInterrupt && program.fetch(machine.pc) == Op::Acknowledge;
            let line = machine.line;
            let event = machine.advance(program, choice);
            let now = machine.line;
            if is_ack && matches!(event, Event::Executed(_)) {
                place.pes[self.0 % PES].has_acknowledged = true;
            }
            if now != line {
                place.write_line(Some(self.0), now);
            }
            event
        })
    }
}

/// What the general registers hold that programs use.
pub fn registers(registers: &mut GuestRegisters, loaded: u8, status: bool) {
    registers.x[1] = LINE;
    registers.x[2] = stored(loaded).into();
    registers.x[3] = status.into();
    registers.x[5] = loaded.into();
    registers.x[8] = LINE + 0x40;
    registers.x[9] = DEVICE;
}

/// ESR_EL2.
fn syndrome(what: Syndrome) -> u64 {
    let of = |class: u8, iss: u64| u64::from(class) << 26 | 1 << 25 | iss;
    let bit = |set: bool, at: u32| u64::from(set) << at;
    match what.class {
        Class::SoftwareStep => {
            of(ec::SOFTWARE_STEP_LOWER, bit(what.isv, 24) | bit(what.ex, 6) | 0x22)
        }
        Class::Breakpoint => of(ec::BREAKPOINT_LOWER, 0x22),
        Class::Hvc => of(ec::HVC64, 0),
        Class::Smc => of(ec::SMC64, 0),
        Class::Wfx => of(ec::WFX, 0),
        Class::Brk => of(ec::BRK64, 0),
        // MSR MDSCR_EL1, X4: ISS of a trapped system register.
        Class::SystemRegister => {
            let register = u64::from(SystemRegister::MDSCR_EL1.0);
            let field =
                |from: u32, bits: u32, to: u32| (register >> from & ((1 << bits) - 1)) << to;
            let op0 = field(14, 2, 20);
            let rest = field(0, 3, 17) | field(11, 3, 14) | field(7, 4, 10) | field(3, 4, 1);
            of(ec::SYSTEM_REGISTER, op0 | rest | 4 << 5)
        }
        // LDR W6 of a device: a translation fault of level 3, with a valid syndrome.
        Class::Mmio => of(ec::DABT_LOWER, 1 << 24 | 2 << 22 | 6 << 16 | 0x7),
        // A permission fault of level 3 that says nothing of the access.
        Class::Stage2 => of(ec::DABT_LOWER, 0xf),
        Class::SystemError => of(ec::SERROR, 0),
        _ => of(ec::UNKNOWN, 0),
    }
}

/// EC of ESR_EL1 for each class that may be there, with one that there is not for none.
const CLASSES: [(u8, Class); 10] = [
    (ec::UNKNOWN, Class::Undefined),
    (ec::SOFTWARE_STEP_LOWER, Class::SoftwareStep),
    (ec::SOFTWARE_STEP_LOWER + 1, Class::SoftwareStep),
    (ec::BRK64, Class::Brk),
    (ec::SERROR, Class::SystemError),
    (0x15, Class::Svc),
    (0x0e, Class::IllegalState),
    (ec::DABT_LOWER, Class::Stage1),
    (ec::DABT_LOWER + 1, Class::Stage1),
    (0x3f, Class::None),
];

/// What an ESR_EL1 says.
fn class_of(esr: u64) -> Syndrome {
    let code = (esr >> 26) as u8 & 0x3f;
    let known = CLASSES.into_iter().find(|&(known, _)| known == code);
    let class = known.map_or(Class::Undefined, |(_, class)| class);
    let is_step = class == Class::SoftwareStep;
    Syndrome { class, isv: is_step && esr >> 24 & 1 != 0, ex: is_step && esr >> 6 & 1 != 0 }
}

fn esr_el1(what: Syndrome) -> u64 {
    let known = CLASSES.into_iter().find(|&(_, class)| class == what.class);
    let code = known.map_or(0x3f, |(code, _)| code);
    u64::from(code) << 26 | u64::from(what.isv) << 24 | u64::from(what.ex) << 6
}

/// What EL1 has of its own, beside what a debug shadow keeps.
const KEPT: [SystemRegister; 3] =
    [SystemRegister::SPSR_EL1, SystemRegister::ELR_EL1, SystemRegister::ESR_EL1];

fn read(machine: &SpecMachine, register: SystemRegister) -> u64 {
    match register {
        SystemRegister::VBAR_EL1 => VECTORS,
        // WFI and WFE are EL0's, too.
        SystemRegister::SCTLR_EL1 => SCTLR_NTWI | SCTLR_NTWE,
        SystemRegister::SPSR_EL1 => bits::pstate(machine.spsr_el1).0,
        SystemRegister::ELR_EL1 => address_of(machine.elr_el1),
        SystemRegister::ESR_EL1 => esr_el1(machine.esr_el1),
        SystemRegister::MDSCR_EL1 => bits::mdscr(machine.mdscr),
        _ => 0,
    }
}

fn write(machine: &mut SpecMachine, register: SystemRegister, value: u64) {
    match register {
        SystemRegister::SPSR_EL1 => machine.spsr_el1 = bits::proc_state(Pstate(value)),
        SystemRegister::ELR_EL1 => machine.elr_el1 = number_of(value),
        SystemRegister::ESR_EL1 => machine.esr_el1 = class_of(value),
        SystemRegister::MDSCR_EL1 => machine.mdscr = bits::mdscr_of(value),
        SystemRegister::OSLAR_EL1 => machine.os_lock = value & 1 != 0,
        _ => {}
    }
}

/// Puts a copy of EL1's registers in.
pub fn load(machine: &mut SpecMachine, from: &Snapshot) {
    for (register, value) in from.iter() {
        write(machine, register, value);
    }
}

/// Takes a copy of them.
pub fn save(machine: &SpecMachine, into: &mut Snapshot) {
    into.fill(KEPT.into_iter().map(|kept| (kept, read(machine, kept))));
}

/// Takes what called a CPU.
pub fn take_all(cpu: usize) {
    with(|place| place.kicks &= !(1 << cpu));
}

impl Cpu for ModelCpu {
    type Context = ModelContext;
    type Memory = ModelMemory;
    type Ring = ModelRing;

    fn number(&self) -> usize {
        self.0
    }
    fn facts(&self) -> CpuFacts {
        CpuFacts {
            breakpoints: BREAKPOINTS as u8,
            watchpoints: 4,
            context_breakpoints: 1,
            pa_range: 2,
            list_registers: 4,
        }
    }
    fn prepare(&self, _: u64, _: Vttbr) {}
    fn change_vcpu(&self, _: u64, _: Vttbr, _: bool) {}

    fn read(&self, register: SystemRegister) -> u64 {
        self.pe(|pe| read(&pe.machine, register))
    }
    fn write(&self, register: SystemRegister, value: u64) {
        self.pe(|pe| write(&mut pe.machine, register, value));
    }
    fn guest_feature_id(&self, _: SystemRegister) -> u64 {
        0
    }
    fn read_debug(&self, bank: DebugBank, n: usize) -> u64 {
        self.pe(|pe| match (bank, pe.machine.breakpoints.get(n).copied().flatten()) {
            (DebugBank::BreakpointValue, Some(number)) => address_of(number),
            (DebugBank::BreakpointControl, Some(_)) => 1,
            _ => 0,
        })
    }
    fn write_debug(&self, bank: DebugBank, n: usize, value: u64) {
        self.pe(|pe| {
            let Some(breakpoint) = pe.machine.breakpoints.get_mut(n) else { return };
            // EL2 writes value and control of each, in this order.
            match bank {
                DebugBank::BreakpointValue => *breakpoint = Some(number_of(value)),
                DebugBank::BreakpointControl if value & 1 == 0 => *breakpoint = None,
                _ => {}
            }
        });
    }
    fn access_debug(&self, _: SystemRegister, _: u64, _: bool) -> Option<u64> {
        None
    }
    fn set_debug_traps(&self, traps: u64) {
        self.pe(|pe| pe.machine.mdcr = bits::mdcr_of(traps));
    }
    fn set_debug_masked(&self, is_masked: bool) {
        self.pe(|pe| pe.machine.pstate.d = is_masked);
    }
    fn synchronize(&self) {
        self.pe(|pe| pe.machine.synchronize_context());
    }

    fn reset(&self) {}
    fn save_private(&self, _: &mut PrivateRegisters) {}
    fn load_private(&self, _: &PrivateRegisters) {}
    fn save(&self, into: &mut Snapshot) {
        self.pe(|pe| save(&pe.machine, into));
    }
    fn load(&self, from: &Snapshot) {
        self.pe(|pe| load(&mut pe.machine, from));
    }
    fn save_simd(&self, _: &mut SimdRegisters) {}
    fn load_simd(&self, simd: &mut SimdRegisters) {
        simd.is_written = false;
    }
    fn stop_virtual_timer(&self) {}

    fn enter(&self, context: &mut ModelContext) -> Vector {
        let program = with(|place| place.program);
        loop {
            self.enter_guest(context);
            while self.advance(program, Choice::Proceed) != Event::ExitedToEl2 {}
            let vector = self.leave_guest(context, program);
            if !context.goes_fast(self.syndrome(), program) {
                return vector;
            }
            context.spsr = Pstate(context.spsr).with_ss(true).0;
        }
    }

    fn enter_counted(&self, context: &mut ModelContext, clock: u64, _: u64) -> (Vector, u64) {
        (self.enter(context), clock)
    }

    fn to_ipa(&self, va: Va, _: bool, _: Purpose) -> Result<Ipa, TranslationFailed> {
        Ok(Ipa(va.0))
    }
    fn invalidate_guest_stage1(&self) {}
    fn trap_waits(&self, trap: bool) {
        self.pe(|pe| pe.machine.twi = trap);
    }
    fn trap_invalidations(&self, _: bool) {}
    fn trap_translation_changes(&self, _: bool) {}
    fn set_stage2(&self, tables: Vttbr) {
        with(|place| {
            let is_own = tables.bits() == place.root;
            place.pes[self.0 % PES].machine.is_mapped = is_own;
        });
    }
    fn load_interface(&self, interface: &CpuInterface) {
        self.pe(|pe| {
            pe.interface = interface.clone();
            pe.has_acknowledged = false;
            pe.machine.virq_signalled = interface.signal().is_some();
        });
    }
    fn save_interface(&self, interface: &mut CpuInterface) {
        self.pe(|pe| {
            *interface = pe.interface.clone();
            if pe.has_acknowledged {
                // Acknowledged, and its handling ended.
                interface.lr = [0; 16];
            }
            pe.has_acknowledged = false;
            pe.machine.virq_signalled = false;
        });
    }
    fn raise_serror(&self, _: u32) {
        self.pe(|pe| pe.machine.virq_signalled = true);
    }
    fn take_serror_back(&self) -> bool {
        self.pe(|pe| !pe.machine.virq)
    }
    fn take_interrupt(&self) -> Option<Interrupt> {
        let mine = 1 << self.0;
        with(|place| {
            let is_called = place.kicks & mine != 0;
            place.kicks &= !mine;
            is_called.then_some(Interrupt::Kick)
        })
    }
    fn enable_virtual_timer(&self, _: bool) {}
    fn wait_for_interrupt(&self) {}
    fn enable_link(&self, _: bool) {}
    fn kick(&self, cpus: u8) {
        with(|place| place.kicks |= cpus);
    }
    fn frequency_hz(&self) -> u64 {
        62_500_000
    }
    fn counter(&self) -> u64 {
        with(|place| if place.is_late { LATE } else { 0 })
    }
    fn counter_at_reset(&self) -> u64 {
        0
    }
    fn set_offset(&self, _: u64) {}
    fn offset(&self) -> u64 {
        0
    }
    fn interrupt_in(&self, _: u64) {}
    fn cancel_interrupt(&self) {}
    fn power_off(&self) {}
    fn log(&self, _: fmt::Arguments<'_>) {}
}

/// The first page of tables.
const FIRST_TABLE: u64 = RAM_BASE.0 + RAM_BYTES;

/// The RAM of this thread's machine, and what its tables lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelMemory;

impl GuestMemory for ModelMemory {
    type Page = ();
    type Tables = Self;

    fn tables(&self) -> Self {
        *self
    }
    fn base(&self) -> Pa {
        Pa(RAM_BASE.0)
    }
    fn bytes(&self) -> u64 {
        RAM_BYTES
    }
    fn locate(&self, ipa: Ipa, length: u64) -> Result<Pa, OutsideRam> {
        let offset = ipa.0.checked_sub(RAM_BASE.0).ok_or(OutsideRam)?;
        let is_in = offset.checked_add(length).is_some_and(|end| end <= RAM_BYTES);
        if is_in { Ok(Pa(ipa.0)) } else { Err(OutsideRam) }
    }
    fn read(&self, ipa: Ipa, into: &mut [u8]) -> Result<(), OutsideRam> {
        self.locate(ipa, into.len() as u64)?;
        let word = with(|place| place.word(ipa.0)).to_le_bytes();
        into.iter_mut().zip(word.into_iter().cycle()).for_each(|(to, from)| *to = from);
        Ok(())
    }
    fn write(&self, _: Ipa, _: &[u8]) -> Result<(), OutsideRam> {
        Ok(())
    }
    fn code_page(&self, _: Pa) -> Option<()> {
        Some(())
    }
    fn instruction(&self, (): (), va: Va) -> Option<u32> {
        Some(with(|place| place.word(va.0)))
    }
    fn halfword(&self, (): (), _: Va) -> Option<u16> {
        None
    }
    fn compare_and_store(&self, _: Pa, old: Image, new: Image) -> Result<bool, OutsideRam> {
        Ok(with(|place| {
            let is_same = u128::from(place.line()) == old.value;
            if is_same {
                place.write_line(None, new.value as u8);
            }
            is_same
        }))
    }
    fn image(&self, _: Pa, bytes: u8) -> Result<Image, OutsideRam> {
        Ok(Image { value: with(|place| place.line()).into(), bytes })
    }
    fn poke(&self, _: Pa, _: u8, _: u64) -> Result<(), OutsideRam> {
        Err(OutsideRam)
    }
    fn peek(&self, _: Pa, _: u8, _: bool) -> Result<[u64; 2], OutsideRam> {
        Ok([with(|place| place.line()).into(), 0])
    }
}

impl ModelMemory {
    fn entry<T>(table: Pa, index: usize, act: impl FnOnce(&mut u64) -> T) -> Option<T> {
        let page = usize::try_from(table.0.checked_sub(FIRST_TABLE)? / 0x1000).ok()?;
        with(|place| place.tables.get_mut(page).and_then(|table| table.get_mut(index)).map(act))
    }
}

impl TableMemory for ModelMemory {
    fn allocate(&mut self, _: PageUse) -> Option<Pa> {
        with(|place| {
            place.tables.push([0; 512]);
            Some(Pa(FIRST_TABLE + (place.tables.len() as u64 - 1) * 0x1000))
        })
    }
    fn may_map(&self, _: Pa, _: u64) -> bool {
        true
    }
    fn free(&mut self, _: Pa) {}
    fn read(&self, table: Pa, index: usize) -> u64 {
        Self::entry(table, index, |entry| *entry).unwrap_or(0)
    }
    fn write(&mut self, table: Pa, index: usize, value: u64) {
        let _written = Self::entry(table, index, |entry| *entry = value);
    }
    fn invalidate(&mut self, _: Ipa, _: u64) {}
}

impl CodeMemory for ModelMemory {
    fn read_guest(&self, _: Pa, _: usize) -> u64 {
        0
    }
    fn publish(&mut self, _: Pa) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_has_one_address() {
        for number in (0..0x20).chain(SYNCHRONOUS_VECTOR..0x80) {
            assert_eq!(number_of(address_of(number)), number);
        }
        assert_eq!(address_of(0x48), VECTORS + 0x400, "synchronous, from EL0");
        assert_eq!(address_of(0x50), VECTORS + 0x280, "IRQ, from EL1");
    }

    #[test]
    fn what_esr_el1_says_comes_back() {
        for (_, class) in CLASSES {
            for (isv, ex) in [(false, false), (true, false), (true, true)] {
                let is_step = class == Class::SoftwareStep;
                let what = Syndrome { class, isv: isv && is_step, ex: ex && is_step };
                assert_eq!(class_of(esr_el1(what)), what);
            }
        }
    }
}
