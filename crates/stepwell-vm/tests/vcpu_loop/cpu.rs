//! A CPU that is a value: EL1 and EL0 of a small A64, with Software Step, hardware breakpoints, the
//! exclusive monitor, list registers and stage 2 as the Arm ARM has them, and no caches.
//!
//! What it executes it writes down, so that a test can tell what the loop should have counted.

use crate::kept::KEPT;
use crate::memory::Ram;
use crate::words::{CLREX, TRAPPED, branch, is_by_address, is_wait};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use stepwell_arch::debug::{mdcr_el2, mdscr_el1};
use stepwell_arch::load_store::Direction;
use stepwell_arch::{Ipa, LoadStore, Pa, Pstate, SystemRegister, Va};
use stepwell_vm::cpu::{
    Abilities, Context, Cpu, CpuFacts, DebugBank, Interrupt, Near, Purpose, Run, TranslationFailed,
    Vector,
};
use stepwell_vm::registers::{GuestRegisters, PrivateRegisters, Snapshot};
use stepwell_vm::ring::{Lease, Ring};
use stepwell_vm::simd::SimdRegisters;
use stepwell_vm::stage2::Vttbr;
use stepwell_vm::vgic::CpuInterface;

/// Instructions of a free run after which the CPU's own timer interrupts it.
const RUN_MAX: u64 = 5000;
/// Ticks after which EL2's timer wakes the CPU, whatever it was set to.
const ALARM: u64 = 100;
const VBAR: u64 = 0x4000_8000;

/// The registers, and a fast path that takes steps of NOP and ADD.
#[derive(Default)]
pub struct FakeContext {
    registers: GuestRegisters,
    budget: u64,
    run: Run,
}

impl Deref for FakeContext {
    type Target = GuestRegisters;
    fn deref(&self) -> &GuestRegisters {
        &self.registers
    }
}

impl DerefMut for FakeContext {
    fn deref_mut(&mut self) -> &mut GuestRegisters {
        &mut self.registers
    }
}

impl Context for FakeContext {
    type Page = Pa;
    type Lease = NoLease;

    fn set_fast_budget(&mut self, steps: u64) {
        self.budget = steps;
    }
    fn fast_budget(&self) -> u64 {
        self.budget
    }
    fn know_page(&mut self, _: Va, _: Pa) {}
    fn known_page(&self, _: Va) -> Option<Pa> {
        None
    }
    fn forget_pages(&mut self) {}
    fn lend_run(&mut self, run: Run, _: Option<Near<NoLease>>) {
        self.run = run;
    }
    fn take_run_back(&mut self) -> (Run, Option<NoLease>) {
        (self.run, None)
    }
}

/// The fast path here never writes the ring.
pub struct NoLease;

impl Lease for NoLease {
    fn words(&self) -> u64 {
        0
    }
}

/// A ring of a fixed size.
#[derive(Default)]
pub struct FakeRing {
    pub words: Vec<u64>,
    pub capacity: u64,
}

impl Ring for FakeRing {
    type Lease = NoLease;

    fn bytes(&self) -> u64 {
        self.capacity * 8
    }
    fn room(&self) -> u64 {
        self.capacity - self.words.len() as u64
    }
    fn push(&mut self, words: &[u64]) {
        assert!(self.room() >= words.len() as u64, "whoever writes has asked for room");
        self.words.extend_from_slice(words);
    }
    fn lease(&mut self, _: u64) -> NoLease {
        NoLease
    }
    fn settle(&mut self, _: NoLease) {}
}

/// What comes between two instructions from outside of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asynchronous {
    /// An interrupt before the next instruction.
    Before,
    /// One after it, before its step exception.
    After,
}

#[derive(Default)]
struct State {
    system: BTreeMap<u16, u64>,
    debug: [[u64; 16]; 4],
    traps: u64,
    interface: Option<CpuInterface>,
    tables: Option<Vttbr>,
    monitor: Option<u64>,
    kept_tlb: Vec<bool>,
    counter: u64,
    /// Instructions of the last entry.
    counted: u64,
    traps_waits: bool,
    unmapped: Option<u64>,
    /// What EL2 takes for each entry.
    ticks_at_el2: u64,
    offset: u64,
    pending: VecDeque<Interrupt>,
    alarm: bool,
    /// By the number of the entry.
    script: VecDeque<Option<Asynchronous>>,
    executed: Vec<u64>,
    /// Software Step exceptions.
    stepped: u64,
    is_off: bool,
    /// What [`TRAPPED`] leaves in ESR_EL2.
    syndrome: u64,
    /// Where an SError of EL2's comes, once.
    error: Option<(u64, Asynchronous)>,
    /// The virtual SError that is pending: its ISS.
    virtual_error: Option<u32>,
}

/// The ISS of its SErrors, which is the implementation's own to define (IDS).
pub const ERROR_ISS: u64 = 1 << 24 | 0x123;
const SERROR: u64 = 0x2f << 26 | 1 << 25;

/// The CPU: with a stage 2 that has a page executed and not read, or without `COPIES`.
pub struct FakeCpu<const COPIES: bool = true> {
    number: usize,
    ram: Ram,
    kicks: Arc<AtomicU8>,
    state: RefCell<State>,
    after: RefCell<Option<(u64, Happening)>>,
}

/// What a test has happen in the middle of a run.
type Happening = Box<dyn FnOnce() + Send>;

/// How an instruction ended.
enum Done {
    Executed,
    LoadExclusive,
    Exit(Vector),
}

impl<const COPIES: bool> FakeCpu<COPIES> {
    /// Has the guest's tables lead nowhere from an address, as far as EL2 can tell; or from none.
    pub fn unmap(&self, va: Option<u64>) {
        self.state.borrow_mut().unmapped = va;
    }
    pub fn new(number: usize, ram: Ram, kicks: Arc<AtomicU8>) -> Self {
        let cpu = Self { number, ram, kicks, state: RefCell::default(), after: RefCell::default() };
        cpu.write(SystemRegister::VBAR_EL1, VBAR);
        cpu
    }

    /// For each vCPU that it was given since this was asked last, whether it kept its TLB.
    pub fn kept_tlb(&self) -> Vec<bool> {
        core::mem::take(&mut self.state.borrow_mut().kept_tlb)
    }

    /// Has this happen at the following entries.
    pub fn script(&self, script: impl IntoIterator<Item = Option<Asynchronous>>) {
        self.state.borrow_mut().script = script.into_iter().collect();
    }

    /// Has this happen once the instruction at `pc` has executed, and an interrupt come then.
    pub fn after(&self, pc: u64, happens: impl FnOnce() + Send + 'static) {
        *self.after.borrow_mut() = Some((pc, Box::new(happens)));
    }

    /// Has an SError come before the instruction at `pc`, or after it, before its step exception.
    pub fn error_at(&self, pc: u64, when: Asynchronous) {
        self.state.borrow_mut().error = Some((pc, when));
    }

    /// Has the link call for it, at the next physical interrupt.
    pub fn call_by_link(&self) {
        self.state.borrow_mut().pending.push_back(Interrupt::Link);
    }

    /// Where each instruction was that has executed, and each exception taken to EL1, since the last
    /// call.
    pub fn executed(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.borrow_mut().executed)
    }

    /// How many Software Step exceptions there were since the last call.
    pub fn stepped(&self) -> u64 {
        std::mem::take(&mut self.state.borrow_mut().stepped)
    }

    /// Lets time pass, with nobody in the guest.
    pub fn pass_time(&self, ticks: u64) {
        self.state.borrow_mut().counter += ticks;
    }

    /// Has EL2 take so long for each entry from now on.
    pub fn take_time_at_el2(&self, ticks: u64) {
        self.state.borrow_mut().ticks_at_el2 = ticks;
    }

    /// Has [`TRAPPED`] trap with this syndrome.
    pub fn trap_with(&self, syndrome: u64) {
        self.state.borrow_mut().syndrome = syndrome;
    }

    pub fn is_off(&self) -> bool {
        self.state.borrow().is_off
    }

    /// MDSCR_EL1 and the traps of MDCR_EL2, as they are in the CPU.
    pub fn debug_controls(&self) -> (u64, u64) {
        (self.read(SystemRegister::MDSCR_EL1), self.state.borrow().traps)
    }

    fn get(&self, register: SystemRegister) -> u64 {
        self.state.borrow().system.get(&register.0).copied().unwrap_or(0)
    }

    fn set(&self, register: SystemRegister, value: u64) {
        self.state.borrow_mut().system.insert(register.0, value);
    }

    /// Stage 2: where a guest-physical address is, and its S2AP and XN bits.
    fn stage2(&self, ipa: u64) -> Option<(Pa, u64)> {
        let root = self.state.borrow().tables?.bits() & 0x0000_ffff_ffff_f000;
        self.ram.stage2(Pa(root), ipa)
    }

    fn abort(
        context: &mut GuestRegisters,
        class: u64,
        va: u64,
        is_mapped: bool,
        write: bool,
    ) -> Done {
        // Permission or translation fault of level 3.
        let status = if is_mapped { 0xf } else { 0x7 };
        context.esr = class << 26 | 1 << 25 | u64::from(write) << 6 | status;
        context.far = va;
        context.hpfar = va >> 12 << 4;
        Done::Exit(Vector::Synchronous)
    }

    fn fetch(&self, context: &mut GuestRegisters) -> Result<u32, Done> {
        let pc = context.elr;
        let permits = |entry: u64| entry >> 54 & 1 == 0 && (COPIES || entry >> 6 & 1 != 0);
        match self.stage2(pc) {
            Some((pa, entry)) if permits(entry) => Ok(self.ram.load(pa, 4) as u32),
            found => Err(Self::abort(context, 0x20, pc, found.is_some(), false)),
        }
    }

    /// Where 8 bytes are: where they reach into the next page, that one is asked for as well, and is
    /// told of by its first byte. What the tests have there is side by side.
    fn access(
        &self,
        context: &mut GuestRegisters,
        va: u64,
        rt: u8,
        write: bool,
    ) -> Result<Pa, Done> {
        let permits = |entry: u64| entry >> (6 + u32::from(write)) & 1 != 0;
        let asked = [va, ((va + 7) & !0xfff).max(va)].map(|va| (va, self.stage2(va)));
        let refused = asked.iter().find(|(_, found)| !found.is_some_and(|(_, e)| permits(e)));
        match (refused, asked) {
            (None, [(_, Some((pa, _))), _]) => Ok(pa),
            _ => {
                let &(va, found) = refused.unwrap_or(&asked[0]);
                let is_mapped = found.is_some();
                let done = Self::abort(context, 0x24, va, is_mapped, write);
                // ISV, 8 bytes, to an X register.
                context.esr |= 1 << 24 | 3 << 22 | u64::from(rt) << 16 | 1 << 15;
                Err(done)
            }
        }
    }

    fn take_to_el1(&self, context: &mut GuestRegisters, offset: u64, esr: u64, back: u64) {
        self.set(SystemRegister::SPSR_EL1, context.spsr);
        self.set(SystemRegister::ELR_EL1, back);
        self.set(SystemRegister::ESR_EL1, esr);
        context.elr = self.get(SystemRegister::VBAR_EL1) + 0x200 + offset;
        context.spsr = Pstate::EL1H_MASKED.0;
    }

    fn trap(context: &mut GuestRegisters, class: u64, iss: u64) -> Done {
        context.esr = class << 26 | 1 << 25 | iss;
        Done::Exit(Vector::Synchronous)
    }

    fn execute(&self, context: &mut GuestRegisters, word: u32) -> Result<Done, Done> {
        let (rd, rn) = ((word & 0x1f) as u8, (word >> 5 & 0x1f) as u8);
        let imm12 = u64::from(word >> 10 & 0xfff);
        let mut next = context.elr + 4;
        match word {
            0xd503_201f | 0xe320_f000 => {} // NOP of A64 and A32
            _ if word == TRAPPED || is_by_address(word) => {
                context.esr = self.state.borrow().syndrome;
                context.far = context.kept(rd);
                context.hpfar = context.far >> 12 << 4;
                return Err(Done::Exit(Vector::Synchronous));
            }
            // WFI and WFIT. QEMU's syndrome is the same of both.
            _ if is_wait(word) && self.state.borrow().traps_waits => {
                return Err(Self::trap(context, 0x01, 0));
            }
            _ if is_wait(word) => {} // It does not wait.
            0xd400_0001 => {
                // SVC: SPSR_EL1.SS is what PSTATE.SS was, as the CPU leaves it.
                self.take_to_el1(context, 0, 0x15 << 26 | 1 << 25, next);
                return Ok(Done::Executed);
            }
            0xd400_0002 => {
                context.elr = next;
                return Err(Self::trap(context, 0x16, 0));
            }
            0xd400_0003 => return Err(Self::trap(context, 0x17, 0)), // SMC
            0xd69f_03e0 => {
                next = self.get(SystemRegister::ELR_EL1);
                context.spsr = self.get(SystemRegister::SPSR_EL1) & !(1 << 21);
                self.state.borrow_mut().monitor = None;
            }
            0xd503_42ff => context.spsr &= !Pstate::I, // MSR DAIFClr, #2
            0xd503_44ff => context.spsr &= !Pstate::A, // MSR DAIFClr, #4
            // ESB of A64 and A32 defers what is pending and masked.
            0xd503_221f | 0xe320_f010 if context.spsr & Pstate::A != 0 => {
                self.state.borrow_mut().virtual_error = None;
            }
            0xd518_cce0 => {} // MSR ICC_IGRPEN1_EL1, X0
            _ if word & 0xffe0_001f == 0xd420_0000 => {
                let iss = u64::from(word >> 5 & 0xffff);
                if self.state.borrow().traps & mdcr_el2::TDE != 0 {
                    return Err(Self::trap(context, 0x3c, iss));
                }
                let back = context.elr;
                self.take_to_el1(context, 0, 0x3c << 26 | 1 << 25 | iss, back);
                return Ok(Done::Executed);
            }
            _ if word >> 22 == 0x91 << 2 => {
                context.keep(rd, context.kept(rn).wrapping_add(imm12));
            }
            _ if word >> 22 == 0xd1 << 2 => {
                context.keep(rd, context.kept(rn).wrapping_sub(imm12));
            }
            CLREX => self.state.borrow_mut().monitor = None,
            _ => match branch(word, context.elr, |n| context.kept(n)) {
                Some((target, is_call)) => {
                    context.keep(if is_call { 30 } else { 31 }, next);
                    next = target;
                }
                None => return self.execute_access(context, word),
            },
        }
        context.elr = next;
        Ok(Done::Executed)
    }

    fn execute_access(&self, context: &mut GuestRegisters, word: u32) -> Result<Done, Done> {
        let (rd, rn) = ((word & 0x1f) as u8, (word >> 5 & 0x1f) as u8);
        let mut done = Done::Executed;
        match word {
            _ if word >> 10 == 0xf940_0000 >> 10 => {
                let pa = self.access(context, context.kept(rn), rd, false)?;
                context.keep(rd, self.ram.load_unaligned(pa, 8));
            }
            _ if word >> 10 == 0xf900_0000 >> 10 => {
                let pa = self.access(context, context.kept(rn), rd, true)?;
                self.ram.store_unaligned(pa, 8, context.kept(rd));
            }
            _ if word >> 10 == 0xc85f_7c00 >> 10 => {
                let va = context.kept(rn);
                if self.stage2(va).is_none() {
                    return Err(self.withheld(context, word));
                }
                let pa = self.access(context, va, rd, false)?;
                context.keep(rd, self.ram.load_unaligned(pa, 8));
                self.state.borrow_mut().monitor = Some(va);
                done = Done::LoadExclusive;
            }
            _ if word & 0xffe0_fc00 == 0xc800_7c00 => {
                let va = context.kept(rn);
                let passes = self.state.borrow_mut().monitor.take() == Some(va);
                if passes {
                    let pa = self.access(context, va, rd, true)?;
                    self.ram.store(pa, 8, context.kept(rd));
                }
                context.keep((word >> 16 & 0x1f) as u8, u64::from(!passes));
            }
            _ => return Err(self.withheld(context, word)),
        }
        context.elr += 4;
        Ok(done)
    }

    /// What this CPU does not know: undefined, and trapped, unless it is kept from where it loads or
    /// stores. Then its syndrome says no more than that, and so does that of an exclusive.
    fn withheld(&self, context: &mut GuestRegisters, word: u32) -> Done {
        // LD1W of SVE, with its base in Xn.
        let is_sve = word >> 24 == 0xa5;
        let base = context.kept((word >> 5 & 0x1f) as u8);
        let found = LoadStore::decode(word);
        let address = found
            .and_then(|what| what.address(context.elr, |n| context.kept(n), |n| context.kept(n)))
            .or(is_sve.then_some(base));
        let is_store = found.is_some_and(|what| what.direction == Direction::Store);
        match address {
            Some(va) if self.stage2(va).is_none() => {
                Self::abort(context, 0x24, va, false, is_store)
            }
            _ => Self::trap(context, 0, 0),
        }
    }

    /// The breakpoint registers, where debug exceptions go to EL2.
    fn has_breakpoint(&self, pc: u64) -> bool {
        let state = self.state.borrow();
        let is_on = self.get(SystemRegister::MDSCR_EL1) & mdscr_el1::MDE != 0;
        let [values, controls, ..] = &state.debug;
        is_on
            && values.iter().zip(controls).any(|(&value, &control)| control & 1 != 0 && value == pc)
    }

    fn takes_virtual_interrupt(&self, context: &GuestRegisters) -> bool {
        if Pstate(context.spsr).irq_masked() {
            return false;
        }
        let mut state = self.state.borrow_mut();
        let Some(interface) = &mut state.interface else { return false };
        interface.hcr & 1 != 0 && interface.signal().is_some()
    }

    /// Takes the SError or the interrupt that is pending for the guest, if any.
    fn takes_virtual_exception(&self, context: &mut GuestRegisters, ss: bool) -> bool {
        let is_masked = context.spsr & Pstate::A != 0;
        let error = self.state.borrow_mut().virtual_error.take_if(|_| !is_masked);
        let (offset, esr) = match error {
            Some(iss) => (0x180, SERROR | u64::from(iss)),
            None if self.takes_virtual_interrupt(context) => (0x80, 0),
            None => return false,
        };
        let back = context.elr;
        context.spsr |= u64::from(ss) << 21;
        self.take_to_el1(context, offset, esr, back);
        self.note(back);
        true
    }

    /// Tells whether an SError comes here, with a step exception pending or not; `last` has executed.
    fn has_error(&self, pc: u64, is_pending: bool, last: Option<u64>) -> bool {
        let comes = |&mut (at, when): &mut (u64, Asynchronous)| match when {
            Asynchronous::Before => !is_pending && at == pc,
            Asynchronous::After => is_pending && last == Some(at),
        };
        self.state.borrow_mut().error.take_if(comes).is_some()
    }

    /// What the assembly's fast path does at EL2.
    fn goes_fast(&self, context: &mut FakeContext, esr: u64) -> bool {
        let is_plain_step = esr == 0x32 << 26 | 1 << 25 | 1 << 24 | 0x22;
        let Some((pa, _)) = self.stage2(context.elr) else { return false };
        let word = self.ram.load(pa, 4) as u32;
        let is_plain = word == 0xd503_201f || word >> 22 == 0x91 << 2;
        let pc = context.elr;
        if !is_plain_step || !is_plain || context.budget == 0 {
            return false;
        }
        if context.run.next != 0 {
            if context.run.next != pc {
                return false;
            }
            context.run.next += 4;
        }
        context.budget -= 1;
        true
    }

    fn note(&self, pc: u64) {
        self.state.borrow_mut().executed.push(pc);
    }

    /// Counts an instruction that has trapped, if that is counted; tells whether it has executed.
    fn count_trapped(&self, esr: u64) -> bool {
        // HVC has executed, whatever else traps has not; that an SMC or a BRK has not is not taken back.
        let is_hvc = esr >> 26 == 0x16;
        let is_counted = is_hvc || matches!(esr >> 26, 0x01 | 0x17 | 0x3c);
        self.state.borrow_mut().counted += u64::from(is_counted);
        is_hvc
    }

    /// QEMU looks at what is virtual between two blocks, and at its timers where the count is over.
    fn take_before_timer(&self, context: &mut GuestRegisters, is_over: bool) {
        if is_over && self.takes_virtual_interrupt(context) {
            let back = context.elr;
            self.take_to_el1(context, 0x80, 0, back);
            self.note(back);
        }
    }

    /// Exception return clears the monitor.
    fn return_to_guest(&self) {
        let mut state = self.state.borrow_mut();
        (state.monitor, state.counted) = (None, 0);
    }

    /// The instruction at `pc` has executed. Tells whether what is to happen behind it interrupts.
    fn is_interrupted_behind(&self, pc: u64) -> bool {
        self.state.borrow_mut().counted += 1;
        self.pass_time(1);
        self.note(pc);
        let happens = self.after.borrow_mut().take_if(|(after, _)| *after == pc);
        happens.map(|(_, happens)| happens()).is_some()
    }

    fn fetch_and_execute(&self, context: &mut GuestRegisters, ss: bool) -> Result<Done, Done> {
        let word = self.fetch(context)?;
        if word == 0xd400_0001 {
            context.spsr |= u64::from(ss) << 21;
        }
        self.execute(context, word)
    }

    /// Runs from ERET to the exit, without the fast path.
    ///
    /// `limit`: instructions after which EL2's timer interrupts it. Those that it has executed, or that
    /// have trapped once they were counted, go to `counted`.
    fn run(
        &self,
        context: &mut GuestRegisters,
        interference: Option<Asynchronous>,
        limit: Option<u64>,
    ) -> Vector {
        let steps = self.get(SystemRegister::MDSCR_EL1) & mdscr_el1::SS != 0
            && self.state.borrow().traps & mdcr_el2::TDE != 0;
        let mut ss = steps && context.spsr >> 21 & 1 != 0;
        context.spsr &= !(1 << 21);
        let (mut kind, mut left) = (None, limit.unwrap_or(RUN_MAX));
        let mut last = None;
        self.return_to_guest();
        loop {
            let is_pending = steps && !ss;
            self.take_before_timer(context, limit.is_some() && left == 0 && kind.is_some());
            if self.has_error(context.elr, is_pending, last) {
                context.esr = SERROR | ERROR_ISS;
                context.spsr |= u64::from(ss) << 21;
                return Vector::SError;
            }
            let comes = match interference {
                Some(Asynchronous::Before) => true,
                Some(Asynchronous::After) => is_pending && kind.is_some(),
                None => self.kicks.load(Ordering::SeqCst) >> self.number & 1 != 0 || left == 0,
            };
            if comes {
                if left == 0 && limit.is_none() {
                    self.state.borrow_mut().pending.push_back(Interrupt::El2Timer);
                }
                context.spsr |= u64::from(ss) << 21;
                return Vector::Irq;
            }
            if is_pending {
                let (isv, ex) = kind.map_or((0, 0), |ex| (1_u64, u64::from(ex)));
                context.esr = 0x32 << 26 | 1 << 25 | isv << 24 | ex << 6 | 0x22;
                self.state.borrow_mut().stepped += 1;
                return Vector::Synchronous;
            }
            if self.takes_virtual_exception(context, ss) {
                (ss, kind) = (false, Some(false));
                continue;
            }
            let pc = context.elr;
            if self.has_breakpoint(pc) {
                context.esr = 0x30 << 26 | 1 << 25 | 0x22;
                context.spsr |= u64::from(ss) << 21;
                return Vector::Synchronous;
            }
            match self.fetch_and_execute(context, ss) {
                Ok(Done::Exit(vector)) | Err(Done::Exit(vector)) => {
                    let is_hvc = self.count_trapped(context.esr);
                    context.spsr |= u64::from(ss && !is_hvc) << 21;
                    return vector;
                }
                Ok(done) => {
                    (kind, ss) = (Some(matches!(done, Done::LoadExclusive)), false);
                    last = Some(pc);
                    left -= 1;
                    if self.is_interrupted_behind(pc) {
                        context.spsr |= u64::from(ss) << 21;
                        return Vector::Irq;
                    }
                }
                Err(_) => unreachable!("errors are exits"),
            }
        }
    }
}

impl<const COPIES: bool> Cpu for FakeCpu<COPIES> {
    type Context = FakeContext;
    type Memory = Ram;
    type Ring = FakeRing;
    const CAN: Abilities = Abilities { copies: COPIES, ..Abilities::ALL };

    fn number(&self) -> usize {
        self.number
    }
    fn facts(&self) -> CpuFacts {
        CpuFacts {
            breakpoints: 6,
            watchpoints: 4,
            context_breakpoints: 2,
            pa_range: 2,
            list_registers: 4,
        }
    }
    fn prepare(&self, _: u64, tables: Vttbr) {
        self.set_stage2(tables);
    }
    fn change_vcpu(&self, _: u64, tables: Vttbr, keeps_tlb: bool) {
        self.state.borrow_mut().kept_tlb.push(keeps_tlb);
        self.set_stage2(tables);
    }
    fn read(&self, register: SystemRegister) -> u64 {
        self.get(register)
    }
    fn write(&self, register: SystemRegister, value: u64) {
        self.set(register, value);
    }
    fn guest_feature_id(&self, register: SystemRegister) -> u64 {
        // FEAT_LSE2.
        if register == SystemRegister::ID_AA64MMFR2_EL1 { 1 << 32 } else { self.get(register) }
    }
    fn read_debug(&self, bank: DebugBank, n: usize) -> u64 {
        self.state.borrow().debug[bank as usize][n]
    }
    fn write_debug(&self, bank: DebugBank, n: usize, value: u64) {
        self.state.borrow_mut().debug[bank as usize][n] = value;
    }
    fn access_debug(&self, _: SystemRegister, _: u64, _: bool) -> Option<u64> {
        None
    }
    fn set_debug_traps(&self, traps: u64) {
        self.state.borrow_mut().traps = traps;
    }
    fn set_debug_masked(&self, is_masked: bool) {
        assert!(is_masked, "EL2 would step itself");
    }
    fn synchronize(&self) {}
    fn reset(&self) {}
    fn save_private(&self, _: &mut PrivateRegisters) {}
    fn load_private(&self, _: &PrivateRegisters) {}
    fn save(&self, into: &mut Snapshot) {
        into.fill(KEPT.iter().map(|&register| (register, self.get(register))));
    }
    fn load(&self, from: &Snapshot) {
        from.iter().for_each(|(register, value)| self.set(register, value));
    }
    fn save_simd(&self, _: &mut SimdRegisters) {}
    fn load_simd(&self, _: &mut SimdRegisters) {}
    fn stop_virtual_timer(&self) {
        self.set(SystemRegister::CNTV_CTL_EL0, 0);
    }

    fn enter(&self, context: &mut FakeContext) -> Vector {
        loop {
            let interference = {
                let mut state = self.state.borrow_mut();
                state.script.pop_front().flatten()
            };
            let vector = self.run(&mut context.registers, interference, None);
            let esr = context.esr;
            if vector == Vector::Synchronous && self.goes_fast(context, esr) {
                context.registers.spsr |= 1 << 21;
                continue;
            }
            return vector;
        }
    }

    fn enter_counted(&self, context: &mut FakeContext, clock: u64, until: u64) -> (Vector, u64) {
        let limit = until.checked_sub(clock).expect("what is due has not passed");
        let vector = self.run(&mut context.registers, None, Some(limit));
        (vector, clock + self.state.borrow().counted)
    }

    fn to_ipa(&self, va: Va, _: bool, _: Purpose) -> Result<Ipa, TranslationFailed> {
        let is_mapped = self.state.borrow().unmapped != Some(va.0);
        is_mapped.then_some(Ipa(va.0)).ok_or(TranslationFailed { status: 7, stage2: false })
    }
    fn invalidate_guest_stage1(&self) {}
    fn trap_waits(&self, trap: bool) {
        self.state.borrow_mut().traps_waits = trap;
    }
    fn trap_invalidations(&self, _: bool) {}
    fn trap_translation_changes(&self, _: bool) {}
    fn set_stage2(&self, tables: Vttbr) {
        self.state.borrow_mut().tables = Some(tables);
    }
    fn load_interface(&self, interface: &CpuInterface) {
        let mut state = self.state.borrow_mut();
        state.counter += state.ticks_at_el2;
        state.interface = Some(interface.clone());
    }
    fn save_interface(&self, interface: &mut CpuInterface) {
        if let Some(kept) = &mut self.state.borrow_mut().interface {
            *interface = kept.clone();
            kept.hcr = 0;
        }
    }
    fn raise_serror(&self, iss: u32) {
        self.state.borrow_mut().virtual_error = Some(iss);
    }
    fn take_serror_back(&self) -> bool {
        self.state.borrow_mut().virtual_error.take().is_none()
    }
    fn take_interrupt(&self) -> Option<Interrupt> {
        let mine = 1 << self.number;
        if self.kicks.fetch_and(!mine, Ordering::SeqCst) & mine != 0 {
            return Some(Interrupt::Kick);
        }
        self.state.borrow_mut().pending.pop_front()
    }
    fn enable_virtual_timer(&self, _: bool) {}
    fn wait_for_interrupt(&self) {
        if std::mem::take(&mut self.state.borrow_mut().alarm) {
            self.pass_time(ALARM);
        }
        std::thread::yield_now();
    }
    fn enable_link(&self, _: bool) {}
    fn kick(&self, cpus: u8) {
        self.kicks.fetch_or(cpus, Ordering::SeqCst);
    }
    fn frequency_hz(&self) -> u64 {
        62_500_000
    }
    fn counter(&self) -> u64 {
        self.state.borrow().counter
    }
    fn counter_at_reset(&self) -> u64 {
        0
    }
    fn set_offset(&self, offset: u64) {
        self.state.borrow_mut().offset = offset;
    }
    fn offset(&self) -> u64 {
        self.state.borrow().offset
    }
    fn interrupt_in(&self, _: u64) {
        self.state.borrow_mut().alarm = true;
    }
    fn cancel_interrupt(&self) {
        self.state.borrow_mut().alarm = false;
    }
    fn power_off(&self) {
        self.state.borrow_mut().is_off = true;
    }
    fn log(&self, line: fmt::Arguments<'_>) {
        println!("{line}");
    }
}
