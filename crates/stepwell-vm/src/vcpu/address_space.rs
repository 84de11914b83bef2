//! Which address space a vCPU is in, for breakpoints that follow virtual addresses: see
//! [`crate::follow`].
//!
//! While there are any, writes of the registers that make an address space trap (HCR_EL2.TVM), and
//! are carried out here.
//!
//! Source: Arm ARM, DDI 0487 L.b, HCR_EL2, TVM: "Trap Virtual Memory controls".

use crate::cpu::Cpu;
use crate::domain::{Control, Domain, PendingStop, bit};
use crate::vcpu::running::Running;
use crate::vcpu::state::VcpuCore;
use crate::views::ViewError;
use stepwell_arch::stage1::Regime;
use stepwell_arch::{Ipa, SystemRegister};
use stepwell_protocol::StopReason;

/// SCTLR_EL1.M: stage 1 is on.
const SCTLR_M: u64 = 1 << 0;
/// The bit of an address that chooses TTBR1_EL1.
const UPPER_RANGE: u64 = 1 << 55;

/// What HCR_EL2.TVM traps writes of.
const TRAPPED: [SystemRegister; 11] = [
    SystemRegister::SCTLR_EL1,
    SystemRegister::TTBR0_EL1,
    SystemRegister::TTBR1_EL1,
    SystemRegister::TCR_EL1,
    SystemRegister::ESR_EL1,
    SystemRegister::FAR_EL1,
    SystemRegister::AFSR0_EL1,
    SystemRegister::AFSR1_EL1,
    SystemRegister::MAIR_EL1,
    SystemRegister::AMAIR_EL1,
    SystemRegister::CONTEXTIDR_EL1,
];

/// Tells whether writes of a register trap while something is followed.
#[must_use]
pub fn is_trapped(register: SystemRegister) -> bool {
    TRAPPED.contains(&register)
}

/// Before a vCPU moves, with its registers in the CPU.
pub fn load<C: Cpu>(running: &Running<'_, C>) {
    let is_used = running.domain.follow.is_used();
    running.cpu.trap_translation_changes(is_used);
    if is_used {
        enter(running);
    }
}

/// After an exit, or a stepped instruction that may have made another address space: where no write of
/// what makes one traps, nobody else tells of it.
#[inline]
pub fn look<C: Cpu>(running: &Running<'_, C>) {
    if !C::CAN.translation_traps && running.domain.follow.is_used() {
        enter(running);
    }
}

/// Whether what a virtual address leads to can be followed. Where no write traps of what makes an address
/// space the guest may go over to another one, of which nobody hears: only what is there in all of a
/// kernel's can, and physical addresses before there is any.
#[must_use]
pub fn can_follow<C: Cpu>(cpu: &C, domain: &Domain<C>, control: &Control, va: u64) -> bool {
    let mut spaces = of_all_stopped(cpu, domain, control);
    let mut any_is_on = || spaces.any(|(_, space)| space.sctlr & SCTLR_M != 0);
    C::CAN.translation_traps || any_is_on() == (va & UPPER_RANGE != 0)
}

/// Carries out a trapped write; tells whether it was one.
pub fn write<C: Cpu>(running: &mut Running<'_, C>, register: SystemRegister, value: u64) -> bool {
    if !is_trapped(register) || !running.domain.follow.is_used() {
        return false;
    }
    running.cpu.write(register, value);
    running.core.forget_pages();
    enter(running);
    true
}

fn enter<C: Cpu>(running: &Running<'_, C>) {
    let Running { domain, cpu, index, .. } = running;
    let regime = of_running(*cpu);
    tell(running, domain.follow.enter(*index, regime, &domain.ram, &domain.views));
}

/// The address space of the guest that is on this CPU.
pub fn of_running<C: Cpu>(cpu: &C) -> Regime {
    regime_of(cpu, |register| cpu.read(register))
}

/// The address space of a stopped vCPU.
#[must_use]
pub fn of_stopped<C: Cpu>(cpu: &C, core: &VcpuCore<C>) -> Regime {
    regime_of(cpu, |register| core.snapshot.read(register).unwrap_or(0))
}

/// The address spaces of all vCPUs that are on, of a stopped domain.
pub fn of_all_stopped<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    control: &Control,
) -> impl Iterator<Item = (usize, Regime)> {
    let stopped = control.stopped();
    let vcpus = domain.vcpus.iter().enumerate().filter(move |&(n, _)| stopped & bit(n) != 0);
    vcpus.map(move |(n, vcpu)| (n, of_stopped(cpu, &vcpu.core.lock())))
}

fn regime_of<C: Cpu>(cpu: &C, read: impl Fn(SystemRegister) -> u64) -> Regime {
    Regime {
        sctlr: read(SystemRegister::SCTLR_EL1),
        tcr: read(SystemRegister::TCR_EL1),
        ttbr0: read(SystemRegister::TTBR0_EL1),
        ttbr1: read(SystemRegister::TTBR1_EL1),
        mair: read(SystemRegister::MAIR_EL1),
        pa_bits: Regime::pa_bits_of(cpu.guest_feature_id(SystemRegister::ID_AA64MMFR0_EL1) & 0xf),
    }
}

/// Before EL2 stores for a guest. Without a doubleword of which all is known, it is seen after the
/// store.
pub fn before_store<C: Cpu>(running: &Running<'_, C>, ipa: Ipa, bytes: u8, value: u64) {
    let domain = running.domain;
    if bytes == 8 && domain.follow.is_used() {
        tell(running, domain.follow.before_store(ipa, value, &domain.ram, &domain.views));
    }
}

/// After `bytes` bytes of guest memory were written.
#[inline]
pub fn stored<C: Cpu>(running: &Running<'_, C>, ipa: Ipa, bytes: u64) {
    if running.domain.follow.is_used() {
        follow_stored(running, ipa, bytes);
    }
}

#[inline(never)]
fn follow_stored<C: Cpu>(running: &Running<'_, C>, ipa: Ipa, bytes: u64) {
    tell(running, running.domain.stored(Some((ipa, bytes))));
}

/// After a device has written so many bytes of guest memory; `vcpu` tells of what has come of it.
#[inline]
pub fn stored_by_device<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpu: usize, written: (Ipa, u64)) {
    if domain.follow.is_used() {
        stop_if_lost(cpu, domain, vcpu, domain.stored(Some(written)));
    }
}

/// After guest memory was written, and nobody knows where.
pub fn stored_anywhere<C: Cpu>(running: &Running<'_, C>) {
    if running.domain.follow.is_used() {
        tell(running, running.domain.stored(None));
    }
}

impl<C: Cpu> Domain<C> {
    /// Has what follows virtual addresses look at the tables again, after guest memory was written.
    ///
    /// # Errors
    ///
    /// [`ViewError::NoMemory`].
    pub fn stored(&self, written: Option<(Ipa, u64)>) -> Result<(), ViewError> {
        self.follow.stored(written, &self.ram, &self.views)
    }
}

/// A breakpoint that cannot be kept is not lost in silence: the domain stops.
fn tell<C: Cpu>(running: &Running<'_, C>, result: Result<(), ViewError>) {
    stop_if_lost(running.cpu, running.domain, running.index, result);
}

fn stop_if_lost<C: Cpu>(cpu: &C, domain: &Domain<C>, vcpu: usize, result: Result<(), ViewError>) {
    if result.is_err() {
        domain.request_stop(cpu, PendingStop { vcpu, reason: StopReason::BreakpointLost });
    }
}
