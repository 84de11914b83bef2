//! The CPU itself, as the vCPU loop's [`Cpu`].
//!
//! Of no size, and inlined: what the loop asks for by Arm's names becomes one instruction. Whoever
//! has an [`El2`] is at EL2 on the CPU that it speaks of, since it never leaves there.

use super::registers::{self, mrs, msr};
use super::world::GuestContext;
use super::{
    gic, interface, log, power, reset_registers, setup, simd, system_registers, timer, translate,
    world,
};
use crate::mem::guest::GuestRam;
use crate::mem::ring::TraceRing;
use core::fmt;
use core::marker::PhantomData;
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_vm::cpu::{Cpu, CpuFacts, DebugBank, Interrupt, Purpose, TranslationFailed, Vector};
use stepwell_vm::registers::{PrivateRegisters, Snapshot};
use stepwell_vm::simd::SimdRegisters;
use stepwell_vm::stage2::Vttbr;
use stepwell_vm::timeline::ticks_per_instruction;
use stepwell_vm::vgic::CpuInterface;

/// The CPU that this is executed on, which [`setup::control_registers`] has set up: nobody else makes
/// one, and none goes to another CPU.
#[derive(Clone, Copy, Debug)]
pub struct El2(PhantomData<*const ()>);

impl El2 {
    /// This CPU, once its control registers are set up.
    pub(super) const fn here() -> Self {
        Self(PhantomData)
    }
}

impl Cpu for El2 {
    type Context = GuestContext;
    type Memory = GuestRam;
    type Ring = TraceRing;

    #[inline(always)]
    fn number(&self) -> usize {
        registers::cpu_number()
    }

    #[inline(always)]
    fn facts(&self) -> CpuFacts {
        setup::facts()
    }

    fn prepare(&self, vmpidr: u64, tables: Vttbr) {
        let _same = setup::control_registers(vmpidr);
        setup::stage2(tables);
    }

    fn change_vcpu(&self, vmpidr: u64, tables: Vttbr, keeps_tlb: bool) {
        msr!("vmpidr_el2", vmpidr);
        if !keeps_tlb || !setup::is_stage2(tables) {
            setup::change_stage2(tables);
        }
    }

    #[inline(always)]
    fn read(&self, register: SystemRegister) -> u64 {
        system_registers::read(register)
    }

    #[inline(always)]
    fn write(&self, register: SystemRegister, value: u64) {
        system_registers::write(register, value);
    }

    fn guest_feature_id(&self, register: SystemRegister) -> u64 {
        setup::guest_feature_id(register)
    }

    #[inline(always)]
    fn read_debug(&self, bank: DebugBank, n: usize) -> u64 {
        system_registers::read_debug(bank, n)
    }

    #[inline(always)]
    fn write_debug(&self, bank: DebugBank, n: usize, value: u64) {
        system_registers::write_debug(bank, n, value);
    }

    fn access_debug(&self, register: SystemRegister, value: u64, write: bool) -> Option<u64> {
        system_registers::access_debug(register, value, write)
    }

    #[inline(always)]
    fn set_debug_traps(&self, traps: u64) {
        msr!("mdcr_el2", setup::base_mdcr() | traps);
    }

    #[inline(always)]
    fn set_debug_masked(&self, is_masked: bool) {
        let daif = mrs!("daif") & !Pstate::D;
        msr!("daif", if is_masked { daif | Pstate::D } else { daif });
    }

    #[inline(always)]
    fn synchronize(&self) {
        registers::isb();
    }

    fn reset(&self) {
        reset_registers::load();
    }

    fn save_private(&self, into: &mut PrivateRegisters) {
        reset_registers::save_private(into);
    }

    fn load_private(&self, from: &PrivateRegisters) {
        reset_registers::load_private(from);
    }

    fn save(&self, into: &mut Snapshot) {
        system_registers::save(into);
    }

    fn load(&self, from: &Snapshot) {
        system_registers::load(from);
    }

    fn save_simd(&self, into: &mut SimdRegisters) {
        simd::save(into);
    }

    fn load_simd(&self, from: &mut SimdRegisters) {
        simd::load(from);
    }

    fn stop_virtual_timer(&self) {
        system_registers::stop_virtual_timer();
    }

    #[inline(always)]
    fn enter(&self, context: &mut GuestContext) -> Vector {
        context.enter(*self)
    }

    fn enter_counted(&self, context: &mut GuestContext, clock: u64, until: u64) -> (Vector, u64) {
        world::use_counted_vectors();
        timer::begin_count();
        let ticks = ticks_per_instruction(timer::frequency_hz());
        let left = context.enter_counted(*self, ticks, clock, until);
        timer::end_count();
        left
    }

    fn to_ipa(&self, va: Va, el0: bool, purpose: Purpose) -> Result<Ipa, TranslationFailed> {
        translate::to_ipa(va, el0, purpose)
    }

    fn invalidate_guest_stage1(&self) {
        registers::invalidate_guests_stage1();
    }

    fn trap_waits(&self, trap: bool) {
        setup::trap_waits(trap);
    }

    fn trap_invalidations(&self, trap: bool) {
        setup::trap_invalidations(trap);
    }

    fn trap_translation_changes(&self, trap: bool) {
        setup::trap_translation_changes(trap);
    }

    #[inline(always)]
    fn set_stage2(&self, tables: Vttbr) {
        setup::change_stage2(tables);
    }

    #[inline(always)]
    fn load_interface(&self, interface: &CpuInterface) {
        interface::write(interface);
    }

    #[inline(always)]
    fn save_interface(&self, interface: &mut CpuInterface) {
        interface::read(interface);
    }

    fn raise_serror(&self, iss: u32) {
        setup::raise_serror(iss);
    }

    fn take_serror_back(&self) -> bool {
        setup::take_serror_back()
    }

    #[inline(always)]
    fn take_interrupt(&self) -> Option<Interrupt> {
        gic::take_interrupt()
    }

    fn enable_virtual_timer(&self, enable: bool) {
        gic::enable_virtual_timer(self.number(), enable);
    }

    #[inline(always)]
    fn wait_for_interrupt(&self) {
        registers::wfi();
    }

    fn enable_link(&self, enable: bool) {
        gic::enable_link(enable);
    }

    #[inline(always)]
    fn kick(&self, cpus: u8) {
        gic::kick(cpus);
    }

    #[inline(always)]
    fn frequency_hz(&self) -> u64 {
        timer::frequency_hz()
    }

    #[inline(always)]
    fn counter(&self) -> u64 {
        timer::counter()
    }

    fn counter_at_reset(&self) -> u64 {
        timer::counter_at_reset()
    }

    #[inline(always)]
    fn set_offset(&self, offset: u64) {
        timer::set_offset(offset);
    }

    #[inline(always)]
    fn offset(&self) -> u64 {
        timer::offset()
    }

    fn interrupt_in(&self, ns: u64) {
        timer::interrupt_in(ns);
    }

    #[inline(always)]
    fn cancel_interrupt(&self) {
        timer::cancel_interrupt();
    }

    fn power_off(&self) {
        power::machine_off();
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        log::line(line);
    }
}
