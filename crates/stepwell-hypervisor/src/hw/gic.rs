//! The physical GICv3: what interrupts EL2.
//!
//! EL2 takes all physical interrupts (HCR_EL2.IMO). It wants five: the SGI by which CPUs call each
//! other, the GIC's own maintenance interrupt, the two timers, and the link's. CPUs are told apart
//! by their affinity, and by a number of ours from 0 on.

use super::registers::{mrs, msr};
use crate::devicetree::host::{Gic, Intids};
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicDistributor, GicRedistributor};
use arm_gic::{IntId, InterruptGroup, UniqueMmioPointer};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use stepwell_vm::cpu::Interrupt;

/// A CPU asks another to come out of its guest.
const KICK: IntId = IntId::sgi(1);
/// CPUs that have a redistributor of ours.
const MAX_CPUS: usize = 8;

/// Which of the interrupts that EL2 takes has which number.
#[derive(Clone, Copy, Debug)]
struct Known {
    intids: Intids,
    /// The link's SPI.
    link: Option<u32>,
}

static KNOWN: spin::Once<Known> = spin::Once::new();
/// The distributor, and whether the link's SPI is enabled there.
static DISTRIBUTOR: Mutex<Option<(GicDistributor<'static>, bool)>> = Mutex::new(None);
static REGIONS: spin::Once<Gic> = spin::Once::new();
static REDISTRIBUTORS: [Mutex<Option<GicRedistributor<'static>>>; MAX_CPUS] =
    [const { Mutex::new(None) }; MAX_CPUS];
/// Affinity of each CPU that is set up, by its number.
static AFFINITIES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Why the GIC could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GicSetupError {
    /// The device tree gives no usable address.
    #[error("the device tree places the GIC at address 0: correct it")]
    Address,
    /// What is there is not one.
    #[error(
        "at {0:#x}, where the device tree has the GIC's distributor, is something else: correct it"
    )]
    NoDistributor(u64),
    /// The CPU has no system registers for it.
    #[error(
        "the CPU has no system registers for a GICv3 (ID_AA64PFR0_EL1.GIC is 0): have the firmware \
         enable them, or take another CPU"
    )]
    NoSystemRegisters,
    /// The driver refused.
    #[error("the GIC has no interrupt {0}: correct the device tree")]
    Interrupt(u32),
    /// No redistributor says that it is this CPU's.
    #[error(
        "none of the GIC's redistributors in the device tree is that of CPU {0:#x}: correct it"
    )]
    NoRedistributor(u64),
}

/// An interrupt by its number, if it is one of a GICv3 without extended ranges.
fn intid(number: u32) -> Result<IntId, GicSetupError> {
    match number {
        16..32 => Ok(IntId::ppi(number - 16)),
        32..1020 => Ok(IntId::spi(number - 32)),
        _ => Err(GicSetupError::Interrupt(number)),
    }
}

/// Sets the distributor up. Once, on the boot CPU.
///
/// # Errors
///
/// [`GicSetupError`].
///
/// # Safety
///
/// The addresses must be those of a GICv3, mapped at EL2 as device memory, and used by nothing else.
pub unsafe fn setup_distributor(
    gic: &Gic,
    intids: Intids,
    link: Option<u32>,
) -> Result<(), GicSetupError> {
    if mrs!("id_aa64pfr0_el1") >> 24 & 0xf == 0 {
        return Err(GicSetupError::NoSystemRegisters);
    }
    let base = gic.distributor.base.0;
    let gicd = NonNull::new(base as *mut Gicd).ok_or(GicSetupError::Address)?;
    // SAFETY: the caller's promise.
    let mut distributor = GicDistributor::new(unsafe { UniqueMmioPointer::new(gicd) });
    if !matches!(distributor.pidr2().arch_rev(), 3 | 4) {
        return Err(GicSetupError::NoDistributor(base));
    }
    distributor.configure_default_settings();
    if let Some(number) = link {
        let (link, error) = (intid(number)?, GicSetupError::Interrupt(number));
        let here = Some(super::registers::affinity());
        distributor.set_routing(link, here).map_err(|_| error)?;
        distributor.enable_interrupt(link, true).map_err(|_| error)?;
    }
    *DISTRIBUTOR.lock() = Some((distributor, link.is_some()));
    REGIONS.call_once(|| gic.clone());
    KNOWN.call_once(|| Known { intids, link });
    Ok(())
}

/// Finds the redistributor of the CPU with this affinity (Arm IHI 0069, "Discovery of
/// Redistributors"): they lie in any order, each with its CPU's affinity in GICR_TYPER.
fn find_redistributor(affinity: u64) -> Option<GicRedistributor<'static>> {
    let gic = REGIONS.get()?;
    for region in &gic.redistributors {
        let mut at = region.base.0;
        while at.checked_add(FRAMES_BYTES).is_some_and(|end| end <= region.end()) {
            let frames = NonNull::new(at as *mut GicrSgi)?;
            // SAFETY: `setup_distributor`'s caller has promised that redistributors are there. What
            // another CPU has taken is only read here, a register that never changes.
            let redistributor = GicRedistributor::new(unsafe { UniqueMmioPointer::new(frames) });
            let typer = redistributor.typer();
            if typer.core_mpidr() == affinity {
                return Some(redistributor);
            }
            if typer.last_redistributor() {
                break;
            }
            let stride = if typer.virtual_lpis_supported() { 2 } else { 1 } * FRAMES_BYTES;
            at = at.checked_add(gic.stride.unwrap_or(stride))?;
        }
    }
    None
}

/// The two frames of a redistributor; GICv4 has two more.
const FRAMES_BYTES: u64 = 0x2_0000;

/// Sets up the redistributor and the CPU interface of this CPU, whose number is `cpu`.
///
/// # Errors
///
/// [`GicSetupError`].
pub fn setup_cpu(cpu: usize) -> Result<(), GicSetupError> {
    let affinity = super::registers::affinity();
    let error = GicSetupError::NoRedistributor(affinity);
    let mut redistributor = find_redistributor(affinity).ok_or(error)?;
    // Already awake is fine: firmware may have been here.
    let _already_awake = redistributor.mark_core_awake();
    redistributor.configure_default_settings();
    let intids = KNOWN.get().map_or(Intids::USUAL, |known| known.intids);
    let numbers = [intids.maintenance, intids.el2_timer, intids.virtual_timer];
    for (number, intid) in numbers.map(|number| (number, intid(number))) {
        let enabled = redistributor.enable_interrupt(intid?, true);
        enabled.map_err(|_| GicSetupError::Interrupt(number))?;
    }
    redistributor.enable_interrupt(KICK, true).map_err(|_| error)?;
    *REDISTRIBUTORS.get(cpu).ok_or(error)?.lock() = Some(redistributor);
    AFFINITIES.get(cpu).ok_or(error)?.store(affinity, Ordering::Release);
    // The guest's interface is off until it is loaded, whatever firmware left.
    super::registers::msr!("ich_hcr_el2", 0);
    GicCpuInterface::enable_system_register_el2(true);
    super::registers::isb();
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
    super::registers::isb();
    Ok(())
}

/// Lets the virtual timer's interrupt through to this CPU, or not.
pub fn enable_virtual_timer(cpu: usize, enable: bool) {
    let Some(Ok(timer)) = KNOWN.get().map(|known| intid(known.intids.virtual_timer)) else {
        return;
    };
    let Some(redistributor) = REDISTRIBUTORS.get(cpu) else { return };
    if let Some(redistributor) = redistributor.lock().as_mut() {
        let _known_ppi = redistributor.enable_interrupt(timer, enable);
    }
}

/// Lets the link's interrupt through, or not.
pub fn enable_link(enable: bool) {
    let Some(link) = KNOWN.get().and_then(|known| known.link) else { return };
    if let Some((distributor, is_enabled)) = DISTRIBUTOR.lock().as_mut()
        && *is_enabled != enable
        && let Ok(link) = intid(link)
    {
        let _known_spi = distributor.enable_interrupt(link, enable);
        *is_enabled = enable;
    }
}

/// Takes the next pending interrupt of this CPU and ends it for the GIC.
///
/// The level-sensitive ones come again unless their cause is dealt with before the next entry.
#[must_use]
pub fn take_interrupt() -> Option<Interrupt> {
    let intid = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1)?;
    GicCpuInterface::end_interrupt(intid, InterruptGroup::Group1);
    let number = u32::from(intid);
    let Some(known) = KNOWN.get() else { return Some(Interrupt::Unknown(number)) };
    Some(match number {
        _ if intid == KICK => Interrupt::Kick,
        _ if number == known.intids.maintenance => Interrupt::Maintenance,
        _ if number == known.intids.el2_timer => Interrupt::El2Timer,
        _ if number == known.intids.virtual_timer => Interrupt::VirtualTimer,
        _ if Some(number) == known.link => Interrupt::Link,
        _ => Interrupt::Unknown(number),
    })
}

/// Calls other CPUs out of their guests. `cpus`: one bit each, by their numbers.
pub fn kick(cpus: u8) {
    if cpus == 0 {
        return;
    }
    super::registers::dsb();
    for (cpu, affinity) in AFFINITIES.iter().enumerate() {
        if cpus >> cpu & 1 != 0 {
            // One at a time: CPUs need not share a cluster, and what is to be done there takes
            // longer than this register's write.
            msr!("icc_sgi1r_el1", sgi(affinity.load(Ordering::Acquire)));
        }
    }
    super::registers::isb();
}

/// ICC_SGI1R_EL1 for [`KICK`] to one CPU (Arm IHI 0069, "ICC_SGI1R_EL1"). Written here since the
/// driver's lists have no range selector, which CPUs with an Aff0 of 16 and more need.
const fn sgi(affinity: u64) -> u64 {
    let aff0 = affinity & 0xff;
    let intid = 1_u64;
    (affinity >> 32 & 0xff) << 48
        | (aff0 >> 4) << 44
        | (affinity >> 16 & 0xff) << 32
        | intid << 24
        | (affinity >> 8 & 0xff) << 16
        | 1 << (aff0 & 0xf)
}
