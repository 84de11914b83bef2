//! A CPU of the host's, by way of KVM, as the vCPU loop's [`Cpu`].
//!
//! One value belongs to one thread, which runs one vCPU. Whoever serves the link has one without a vCPU:
//! it calls the others, reads the clock, and knows what all vCPUs have in common.

use super::context::KvmContext;
use super::interface::{Answered, Interface};
use super::machine_code;
use super::ram::GuestRam;
use super::ring::TraceRing;
use super::vcpu::{Left, Vcpu, Wanted};
use super::vm::Vm;
use super::withheld::{self, Entry};
use crate::calls::AllCalls;
use crate::straight;
use crate::syndrome::{self, Syndrome};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW, kvm_guest_debug,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use stepwell_arch::debug::{mdcr_el2, mdscr_el1};
use stepwell_arch::load_store::Direction;
use stepwell_arch::stage1::{Access, AccessKind, Regime, WalkError, translate};
use stepwell_arch::{Instruction, Ipa, LoadStore, Pa, Pstate, SystemRegister, Va};
use stepwell_engine::attention::needs_attention;
use stepwell_vm::cpu::{
    Abilities, Context as _, Cpu, CpuFacts, DebugBank, Interrupt, Purpose, TranslationFailed,
    Vector,
};
use stepwell_vm::device::psci::PsciCall;
use stepwell_vm::memory::{GuestMemory, Physical};
use stepwell_vm::registers::{PrivateRegisters, Snapshot};
use stepwell_vm::simd::SimdRegisters;
use stepwell_vm::stage2::Vttbr;
use stepwell_vm::vgic::CpuInterface;

/// The number of who serves the link: no vCPU has it.
pub const NO_VCPU: usize = usize::MAX;
/// PSCI's calls of the same, which the loop carries out.
const CPU_OFF: u64 = 0x8400_0002;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
/// SCTLR_EL1.nTWI: EL0 may wait.
const NTWI: u64 = 1 << 16;
const NS_PER_SECOND: u128 = 1_000_000_000;
const PAGE: u64 = 4096;

/// The system registers that are copied for a stop.
pub const KEPT: [SystemRegister; 24] = [
    SystemRegister::SCTLR_EL1,
    SystemRegister::CPACR_EL1,
    SystemRegister::TTBR0_EL1,
    SystemRegister::TTBR1_EL1,
    SystemRegister::TCR_EL1,
    SystemRegister::MAIR_EL1,
    SystemRegister::AMAIR_EL1,
    SystemRegister::VBAR_EL1,
    SystemRegister::ESR_EL1,
    SystemRegister::FAR_EL1,
    SystemRegister::AFSR0_EL1,
    SystemRegister::AFSR1_EL1,
    SystemRegister::ELR_EL1,
    SystemRegister::SPSR_EL1,
    SystemRegister::SP_EL1,
    SystemRegister::TPIDR_EL0,
    SystemRegister::TPIDRRO_EL0,
    SystemRegister::TPIDR_EL1,
    SystemRegister::CONTEXTIDR_EL1,
    SystemRegister::PAR_EL1,
    SystemRegister::CSSELR_EL1,
    SystemRegister::CNTKCTL_EL1,
    SystemRegister::CNTV_CVAL_EL0,
    SystemRegister::CNTV_CTL_EL0,
];

/// What the loop has set, and KVM is told at the next entry.
#[derive(Default)]
struct Controls {
    /// MDSCR_EL1 as EL2 would have it.
    mdscr: Cell<u64>,
    traps: Cell<u64>,
    banks: RefCell<[[u64; 16]; 4]>,
    traps_waits: Cell<bool>,
    takes_virtual_timer: Cell<bool>,
    offset: Cell<u64>,
    /// Where the tables begin by which pages are withheld.
    root: Cell<Pa>,
    interface: Interface,
}

/// The CPU.
pub struct KvmCpu {
    number: usize,
    vm: Arc<Vm>,
    vcpu: Option<RefCell<Vcpu>>,
    controls: Controls,
}

impl KvmCpu {
    /// The one that runs vCPU `number`, on this thread.
    #[must_use]
    pub fn of_vcpu(number: usize, vm: Arc<Vm>, mut vcpu: Vcpu) -> Self {
        vm.join(number, &mut vcpu);
        Self { number, vm, vcpu: Some(RefCell::new(vcpu)), controls: Controls::default() }
    }

    /// The one of who serves the link.
    #[must_use]
    pub fn of_nobody(vm: Arc<Vm>) -> Self {
        Self { number: NO_VCPU, vm, vcpu: None, controls: Controls::default() }
    }

    fn calls(&self) -> &AllCalls {
        &self.vm.calls
    }

    fn is_stepping(&self) -> bool {
        self.controls.mdscr.get() & mdscr_el1::SS != 0
            && self.controls.traps.get() & mdcr_el2::TDE != 0
    }

    /// What KVM is to debug: nothing, where the guest's debug exceptions are its own.
    fn wanted_debug(&self) -> kvm_guest_debug {
        let mut wanted = kvm_guest_debug::default();
        if self.controls.traps.get() & mdcr_el2::TDE == 0 {
            return wanted;
        }
        wanted.control = KVM_GUESTDBG_ENABLE;
        if self.is_stepping() {
            wanted.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        if self.controls.mdscr.get() & mdscr_el1::MDE != 0 {
            let [bvr, bcr, wvr, wcr] = *self.controls.banks.borrow();
            wanted.control |= KVM_GUESTDBG_USE_HW;
            (wanted.arch.dbg_bvr, wanted.arch.dbg_bcr) = (bvr, bcr);
            (wanted.arch.dbg_wvr, wanted.arch.dbg_wcr) = (wvr, wcr);
        }
        wanted
    }

    /// What says where an address leads, and only that: each register that is read costs a system call.
    fn regime(&self, va: Va) -> Regime {
        let is_upper = va.0 >> 55 & 1 == 1;
        let read_if = |is_wanted, register| if is_wanted { self.read(register) } else { 0 };
        Regime {
            sctlr: self.read(SystemRegister::SCTLR_EL1),
            tcr: self.read(SystemRegister::TCR_EL1),
            ttbr0: read_if(!is_upper, SystemRegister::TTBR0_EL1),
            ttbr1: read_if(is_upper, SystemRegister::TTBR1_EL1),
            // Memory attributes are nobody's question here.
            mair: 0,
            pa_bits: Regime::pa_bits_of(
                self.guest_feature_id(SystemRegister::ID_AA64MMFR0_EL1) & 0xf,
            ),
        }
    }

    fn walk(&self, va: Va, el0: bool, purpose: Purpose) -> Result<Ipa, TranslationFailed> {
        let kind = match purpose {
            Purpose::Read => AccessKind::Read,
            Purpose::Write => AccessKind::Write,
        };
        let access = Access { kind, el0, pan: false };
        match translate(&self.regime(va), va, access, &Physical(&self.vm.ram)) {
            Ok(found) => Ok(found.ipa),
            Err(error) => {
                let stage2 = matches!(error, WalkError::Memory { .. });
                Err(TranslationFailed { status: error.fsc().0, stage2 })
            }
        }
    }

    /// What the instruction at the PC accesses, and at which virtual address, if that can be told.
    fn accessed(&self, context: &KvmContext) -> Option<(LoadStore, Va)> {
        let pstate = Pstate(context.spsr);
        if pstate.is_aarch32() {
            return None;
        }
        let mut bytes = [0; 4];
        let ipa = self.walk(Va(context.elr), false, Purpose::Read).ok()?;
        self.vm.ram.read(ipa, &mut bytes).ok()?;
        let what = LoadStore::decode(u32::from_le_bytes(bytes))?;
        let base = |n| match (n, pstate.uses_sp_elx()) {
            (31, true) => self.read(SystemRegister::SP_EL1),
            (31, false) => context.sp_el0,
            _ => context.register(n),
        };
        let first = what.address(context.elr, base, |n| context.register(n))?;
        Some((what, Va(first)))
    }

    /// The pages that the instruction at the PC wants, each with the address and how much of it: its own, and
    /// those that it accesses. As far as that can be told.
    fn wanted(&self, context: &KvmContext) -> Vec<(Wanted, Ipa, withheld::Left)> {
        let pc = Va(context.elr);
        let ipa = |va| self.walk(va, false, Purpose::Read).ok();
        let fetch = ipa(pc).map(|ipa| (Wanted::Fetch, ipa, withheld::Left::NoStores));
        let Some((what, first)) = self.accessed(context) else {
            return fetch.into_iter().collect();
        };
        let is_store = what.direction != Direction::Load;
        let left = if is_store { withheld::Left::All } else { withheld::Left::NoStores };
        let (first, bytes) = match what.bytes {
            0 => (first.align_down(zeroed_bytes()), zeroed_bytes()),
            bytes => (first, u64::from(bytes) * u64::from(what.count)),
        };
        let second = first.offset(bytes - 1).align_down(PAGE);
        let pieces = [Some(first), (second.0 > first.0).then_some(second)].into_iter().flatten();
        let accesses = pieces.filter_map(|va| Some((Wanted::Access(va, is_store), ipa(va)?, left)));
        fetch.into_iter().chain(accesses).collect()
    }

    /// Enters the guest once. Nothing where the entry ended for KVM's own reasons.
    fn enter_once(&self, vcpu: &mut Vcpu) -> Option<Left> {
        if !self.calls().may_enter(self.number) {
            self.finish(vcpu);
            return Some(Left::Interrupted);
        }
        let left = vcpu.run();
        self.calls().left(self.number);
        self.note_virtual_timer(vcpu);
        if left == Left::SecureCall {
            vcpu.answer_secure_call();
        }
        if self.is_stepping() && matches!(left, Left::Call | Left::SecureCall) {
            vcpu.forget_pending_step();
        }
        if left == Left::SecureCall {
            return self.is_stepping().then_some(Left::Debug(syndrome::PLAIN_STEP, 0));
        }
        if left != Left::Interrupted {
            return Some(left);
        }
        if !self.vm.features.forwards_calls && vcpu.is_off() {
            return Some(Left::Off);
        }
        self.calls().is_called(self.number).then_some(left)
    }

    /// Has KVM complete what it is to complete, and not enter the guest.
    fn finish(&self, vcpu: &mut Vcpu) {
        vcpu.finish();
        self.note_virtual_timer(vcpu);
    }

    /// After whatever may have been an exit of KVM's: it tells of a change once, with the first that comes.
    fn note_virtual_timer(&self, vcpu: &mut Vcpu) {
        if self.controls.takes_virtual_timer.get() && vcpu.virtual_timer_level() {
            self.calls().note_virtual_timer(self.number);
        }
    }

    /// Whether KVM would carry out by itself, and tell nobody, what the instruction in hand calls for: a
    /// call that switches something on or off, or asks about that.
    fn is_call_of_ours(&self, context: &KvmContext) -> bool {
        let pstate = Pstate(context.spsr);
        if self.vm.features.forwards_calls || pstate.is_aarch32() || pstate.el() == 0 {
            return false;
        }
        let word = self.word_at_pc(context).map(Instruction::decode);
        if !matches!(word, Some(Instruction::Hvc { .. })) {
            return false;
        }
        matches!(
            called(context),
            PsciCall::CpuOn { .. }
                | PsciCall::CpuOff
                | PsciCall::AffinityInfo { .. }
                | PsciCall::SystemOff
                | PsciCall::SystemReset
        )
    }

    fn word_at_pc(&self, context: &KvmContext) -> Option<u32> {
        let pc = Va(context.elr);
        let page = match context.known_page(pc) {
            Some(page) => page,
            None => {
                let ipa = self.walk(pc, false, Purpose::Read).ok()?;
                self.vm.ram.code_page(self.vm.ram.locate(ipa, 4).ok()?)?
            }
        };
        self.vm.ram.instruction(page, pc)
    }

    /// In a vCPU that is off, where KVM switches on by itself: waits for that, or for a call. Tells where it
    /// is to start, and with what.
    pub fn wait_until_on(&self) -> Option<(u64, u64)> {
        let vcpu = self.vcpu.as_ref()?;
        if !self.calls().may_enter(self.number) {
            return None;
        }
        let entry = vcpu.borrow_mut().wait_until_on();
        self.calls().left(self.number);
        entry
    }

    /// Whether KVM switches vCPUs on by itself.
    pub fn is_switched_by_kvm(&self) -> bool {
        !self.vm.features.forwards_calls
    }

    /// Whether what would trap at EL2 is what the loop asks about, and KVM would wait in it.
    fn traps_wait(&self, context: &KvmContext) -> bool {
        let may_wait =
            || Pstate(context.spsr).el() > 0 || self.read(SystemRegister::SCTLR_EL1) & NTWI != 0;
        self.controls.traps_waits.get() && self.is_stepping() && may_wait()
    }

    /// Makes of an exit of KVM's what EL2 would have seen.
    fn exited(&self, context: &mut KvmContext, left: Left) -> Vector {
        let found = match left {
            Left::Debug(hsr, far) => syndrome::debug(hsr, far),
            Left::Device(at, is_write) => {
                let address = self.accessed(context).map(|(_, address)| address);
                syndrome::data_abort(at, address, is_write)
            }
            Left::SwitchedOff | Left::Reset => {
                let is_reset = left == Left::Reset;
                context.set_register(0, if is_reset { SYSTEM_RESET } else { SYSTEM_OFF });
                syndrome::hypervisor_call()
            }
            Left::Off => {
                context.set_register(0, CPU_OFF);
                syndrome::hypervisor_call()
            }
            Left::Call => syndrome::hypervisor_call(),
            Left::Withheld(Wanted::Fetch) => syndrome::fetch_withheld(Va(context.elr)),
            Left::Withheld(Wanted::Access(va, is_write)) => syndrome::access_withheld(va, is_write),
            Left::Withheld(Wanted::Walk) => syndrome::walk_withheld(),
            // It was answered: [`Self::enter_once`].
            Left::SecureCall | Left::Interrupted => return Vector::Irq,
            Left::Failed(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                self.log(format_args!("KVM_RUN of vCPU {} failed: {error}", self.number));
                let Syndrome { esr, .. } = syndrome::machine_error();
                context.esr = esr;
                return Vector::SError;
            }
        };
        (context.esr, context.far, context.hpfar) = (found.esr, found.far, found.hpfar);
        Vector::Synchronous
    }

    /// Tells whether the guest, after a plain step, goes on by itself.
    fn goes_on(&self, context: &mut KvmContext, vcpu: &mut Vcpu, left: Left) -> bool {
        let Left::Debug(hsr, _) = left else { return false };
        if !syndrome::is_plain_step(hsr) || !context.has_budget() {
            return false;
        }
        let word_at = |context: &KvmContext, pc| {
            let page = context.known_page(pc)?;
            self.vm.ram.instruction(page, pc)
        };
        let (at, is_straight) = context.stepped();
        let stepped = word_at(context, at);
        // Beside others what is executed may change, and the page go.
        let led_to = stepped.filter(|_| is_straight && self.vm.is_alone);
        let led_to = led_to.and_then(|word| straight::behind(at, word));
        let pc = led_to.unwrap_or_else(|| vcpu.pc());
        let is_straight =
            led_to.is_some() || stepped.is_some_and(|word| straight::is_followed(at, word, pc));
        let is_plain = |word| !needs_attention(word) && !is_hypervisor_call(word);
        word_at(context, pc).is_some_and(is_plain) && context.goes_on(pc, is_straight)
    }

    /// Until when the guest's virtual timer has not gone off, if it is to call the vCPU.
    fn until_virtual_timer(&self) -> Option<Duration> {
        if !self.controls.takes_virtual_timer.get() {
            return None;
        }
        let control = self.read(SystemRegister::CNTV_CTL_EL0);
        if control & 0b11 != 0b01 {
            return None;
        }
        let now = self.counter().wrapping_sub(self.offset());
        let ticks = self.read(SystemRegister::CNTV_CVAL_EL0).saturating_sub(now);
        let ns = u128::from(ticks) * NS_PER_SECOND / u128::from(self.frequency_hz().max(1));
        Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }
}

impl Cpu for KvmCpu {
    type Context = KvmContext;
    type Memory = GuestRam;
    type Ring = TraceRing;
    const CAN: Abilities = Abilities {
        copies: false,
        list_registers: false,
        translation_traps: false,
        privileged_calls: false,
        debug_traps: false,
    };

    fn number(&self) -> usize {
        self.number
    }

    fn facts(&self) -> CpuFacts {
        self.vm.facts
    }

    fn prepare(&self, _: u64, tables: Vttbr) {
        self.set_stage2(tables);
    }

    fn change_vcpu(&self, _: u64, tables: Vttbr, _: bool) {
        self.set_stage2(tables);
    }

    fn read(&self, register: SystemRegister) -> u64 {
        match (register, &self.vcpu) {
            (SystemRegister::MDSCR_EL1, _) => self.controls.mdscr.get(),
            (SystemRegister::DCZID_EL0, _) => machine_code::dczid(),
            (_, Some(vcpu)) if !register.is_feature_id() => vcpu.borrow_mut().read(register),
            _ => self.guest_feature_id(register),
        }
    }

    fn write(&self, register: SystemRegister, value: u64) {
        match (register, &self.vcpu) {
            (SystemRegister::MDSCR_EL1, _) => self.controls.mdscr.set(value),
            // Of the guest's debug registers KVM keeps its own.
            (
                SystemRegister::MDCCINT_EL1 | SystemRegister::OSLAR_EL1 | SystemRegister::OSDLR_EL1,
                _,
            ) => {}
            (_, Some(vcpu)) => vcpu.borrow_mut().write(register, value),
            _ => {}
        }
    }

    fn guest_feature_id(&self, register: SystemRegister) -> u64 {
        self.vm.ids.get(&register).copied().unwrap_or(0)
    }

    fn read_debug(&self, bank: DebugBank, n: usize) -> u64 {
        let banks = self.controls.banks.borrow();
        banks.get(bank as usize).and_then(|bank| bank.get(n)).copied().unwrap_or(0)
    }

    fn write_debug(&self, bank: DebugBank, n: usize, value: u64) {
        let mut banks = self.controls.banks.borrow_mut();
        if let Some(place) = banks.get_mut(bank as usize).and_then(|bank| bank.get_mut(n)) {
            *place = value;
        }
    }

    /// KVM carries these out.
    fn access_debug(&self, _: SystemRegister, _: u64, _: bool) -> Option<u64> {
        None
    }

    fn set_debug_traps(&self, traps: u64) {
        self.controls.traps.set(traps);
    }

    fn set_debug_masked(&self, _: bool) {}

    fn synchronize(&self) {}

    fn reset(&self) {
        let Some(vcpu) = &self.vcpu else { return };
        // KVM lowers its lines.
        self.controls.interface.lowered();
        if let Err(error) = vcpu.borrow_mut().reset() {
            self.log(format_args!("vCPU {} cannot be reset: {error}", self.number));
        }
    }

    fn save_private(&self, _: &mut PrivateRegisters) {}

    fn load_private(&self, _: &PrivateRegisters) {}

    fn save(&self, into: &mut Snapshot) {
        into.fill(KEPT.iter().map(|&register| (register, self.read(register))));
    }

    fn load(&self, from: &Snapshot) {
        from.iter().for_each(|(register, value)| self.write(register, value));
    }

    fn save_simd(&self, into: &mut SimdRegisters) {
        if let Some(vcpu) = &self.vcpu {
            vcpu.borrow_mut().read_simd(into);
        }
    }

    fn load_simd(&self, from: &mut SimdRegisters) {
        if let Some(vcpu) = &self.vcpu
            && std::mem::take(&mut from.is_written)
        {
            vcpu.borrow_mut().write_simd(from);
        }
    }

    /// What it asks for while its vCPU is stopped nobody hears.
    fn stop_virtual_timer(&self) {}

    fn enter(&self, context: &mut KvmContext) -> Vector {
        let Some(own) = &self.vcpu else { return Vector::Irq };
        if self.calls().is_called(self.number) {
            return Vector::Irq;
        }
        if self.traps_wait(context) {
            context.esr = syndrome::wait_for_interrupt().esr;
            return Vector::Synchronous;
        }
        if self.is_stepping() && self.is_call_of_ours(context) {
            if called(context) == PsciCall::CpuOff {
                // Whoever asks KVM from now on is to be told.
                let _refused = own.borrow().set_off();
            }
            context.elr = context.elr.wrapping_add(4);
            context.spsr &= !Pstate::SS;
            context.esr = syndrome::hypervisor_call().esr;
            return Vector::Synchronous;
        }
        let is_stepping = self.is_stepping();
        let left = self.run_given(context, own);
        self.leave(context, left, is_stepping)
    }

    /// Nobody counts instructions here.
    fn enter_counted(&self, context: &mut KvmContext, clock: u64, _: u64) -> (Vector, u64) {
        (self.enter(context), clock)
    }

    fn to_ipa(&self, va: Va, el0: bool, purpose: Purpose) -> Result<Ipa, TranslationFailed> {
        self.walk(va, el0, purpose)
    }

    fn invalidate_guest_stage1(&self) {}

    fn trap_waits(&self, trap: bool) {
        self.controls.traps_waits.set(trap);
    }

    fn trap_invalidations(&self, _: bool) {}

    fn trap_translation_changes(&self, _: bool) {}

    fn set_stage2(&self, tables: Vttbr) {
        self.controls.root.set(tables.root());
    }

    fn load_interface(&self, interface: &CpuInterface) {
        self.controls.interface.load(interface);
    }

    fn save_interface(&self, interface: &mut CpuInterface) {
        self.controls.interface.save(interface);
    }

    fn raise_serror(&self, _: u32) {}

    fn take_serror_back(&self) -> bool {
        false
    }

    fn take_interrupt(&self) -> Option<Interrupt> {
        self.calls().take(self.number)
    }

    fn enable_virtual_timer(&self, enable: bool) {
        self.controls.takes_virtual_timer.set(enable);
        if enable && let Some(vcpu) = &self.vcpu {
            vcpu.borrow_mut().forget_virtual_timer_level();
        }
    }

    fn wait_for_interrupt(&self) {
        let until = self.until_virtual_timer();
        if !self.calls().sleep(self.number, until)
            && self.until_virtual_timer() == Some(Duration::ZERO)
        {
            self.calls().note_virtual_timer(self.number);
        }
    }

    fn enable_link(&self, _: bool) {}

    fn kick(&self, cpus: u8) {
        self.calls().kick(cpus);
    }

    fn frequency_hz(&self) -> u64 {
        machine_code::frequency_hz()
    }

    fn counter(&self) -> u64 {
        self.vm.counter()
    }

    fn counter_at_reset(&self) -> u64 {
        0
    }

    fn set_offset(&self, offset: u64) {
        self.controls.offset.set(offset);
        if let Some(vcpu) = &self.vcpu {
            self.vm.set_counter_offset(offset, &mut vcpu.borrow_mut());
        }
    }

    fn offset(&self) -> u64 {
        self.controls.offset.get()
    }

    fn interrupt_in(&self, ns: u64) {
        self.calls().set_alarm(self.number, ns);
    }

    fn cancel_interrupt(&self) {
        self.calls().cancel_alarm(self.number);
    }

    fn power_off(&self) {
        self.vm.close_link();
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        if self.vm.verbose {
            eprintln!("[kvm] {line}\r");
        }
    }
}

impl KvmCpu {
    /// Runs the guest until something is for the loop, and gives it what it wants of pages that the tables in
    /// force do not withhold, and others have.
    fn run_given(&self, context: &mut KvmContext, own: &RefCell<Vcpu>) -> Left {
        let (withheld, root) = (self.vm.ram.withheld(), self.controls.root.get());
        let (mut given, mut at) = (Given::Nothing, context.elr);
        loop {
            let left = self.run(context, &mut own.borrow_mut(), &given);
            if left != Left::Failed(libc::EFAULT) {
                return left;
            }
            let wanted = self.wanted(context);
            let is_withheld = |(_, page, left): &&(Wanted, Ipa, withheld::Left)| {
                withheld.withholds(root, *page, *left)
            };
            if let Some((wanted, ..)) = wanted.iter().find(is_withheld) {
                return Left::Withheld(*wanted);
            }
            if core::mem::replace(&mut at, context.elr) != context.elr {
                given = Given::Nothing;
            }
            given = match given {
                Given::Nothing => {
                    Given::Pages(wanted.iter().map(|(_, page, _)| page.align_down(PAGE)).collect())
                }
                Given::Pages(_) => Given::All,
                Given::All if withheld.withholds_anything(root) => {
                    return Left::Withheld(Wanted::Walk);
                }
                Given::All => return left,
            };
        }
    }

    /// Runs the guest until something is for the loop. `given`: what it has met.
    fn run(&self, context: &mut KvmContext, vcpu: &mut Vcpu, given: &Given) -> Left {
        let begun = machine_code::counter();
        context.begin_straight();
        let withheld = self.vm.ram.withheld();
        match withheld.enter(self.number, self.controls.root.get(), self.calls()) {
            Entry::May => {}
            Entry::Called => return Left::Interrupted,
            Entry::Refused(errno) => return Left::Failed(errno),
        }
        match given {
            Given::Nothing => {}
            Given::Pages(pages) => withheld.give(Some(pages)),
            Given::All => withheld.give(None),
        }
        vcpu.push(context, context.spsr & !Pstate::SS);
        vcpu.set_debug(self.wanted_debug());
        self.controls.interface.set_lines(&self.vm, self.number);
        // A stepped guest's clock is the loop's.
        if !self.is_stepping() {
            self.vm.hide_since(begun);
            self.vm.set_counter_offset(self.controls.offset.get(), vcpu);
        }
        loop {
            let Some(mut left) = self.enter_once(vcpu) else { continue };
            if matches!(left, Left::Device(..)) && !self.is_stepping() {
                match self.controls.interface.answer(vcpu) {
                    Answered::No => {}
                    Answered::Yes => {
                        self.controls.interface.set_lines(&self.vm, self.number);
                        continue;
                    }
                    Answered::ForTheLoop => {
                        self.finish(vcpu);
                        left = Left::Interrupted;
                    }
                }
            }
            if !self.goes_on(context, vcpu, left) {
                withheld.leave(self.number);
                let ended = machine_code::counter();
                vcpu.pull(context);
                self.vm.hide_since(ended);
                return left;
            }
        }
    }

    /// What an entry came to. While stepping, PSTATE.SS tells as at EL2 whether the instruction has
    /// executed that nobody has reported.
    fn leave(&self, context: &mut KvmContext, left: Left, is_stepping: bool) -> Vector {
        let vector = self.exited(context, left);
        if is_stepping {
            let has_executed = match left {
                Left::Debug(hsr, _) => (hsr >> 26) == 0x32,
                Left::Call => true,
                Left::Interrupted => context.elr != context.stepped().0.0,
                _ => false,
            };
            context.spsr = context.spsr & !Pstate::SS | if has_executed { 0 } else { Pstate::SS };
        }
        vector
    }
}

/// What of withheld pages a vCPU has met, and is given.
enum Given {
    Nothing,
    Pages(Vec<Ipa>),
    All,
}

/// Bytes that DC ZVA clears: DCZID_EL0.BS is the logarithm of words.
fn zeroed_bytes() -> u64 {
    4 << (machine_code::dczid() & 0xf)
}

/// What an HVC calls for.
fn called(context: &KvmContext) -> PsciCall {
    PsciCall::decode(std::array::from_fn(|n| context.register(n as u8)))
}

fn is_hypervisor_call(word: u32) -> bool {
    matches!(Instruction::decode(word), Instruction::Hvc { .. })
}

impl Drop for KvmCpu {
    fn drop(&mut self) {
        self.calls().leave(self.number);
    }
}
