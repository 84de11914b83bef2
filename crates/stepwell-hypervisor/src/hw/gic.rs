//! The physical GICv3: what interrupts EL2.
//!
//! EL2 takes all physical interrupts (HCR_EL2.IMO). It wants five: the SGI by which CPUs call each
//! other, the GIC's own maintenance interrupt, the two timers, and the link's.

use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{
    GicCpuInterface, GicDistributor, GicRedistributor, GicRedistributorIterator, SgiTarget,
    SgiTargetGroup,
};
use arm_gic::{IntId, InterruptGroup, UniqueMmioPointer};
use core::ptr::NonNull;
use spin::Mutex;

/// A CPU asks another to come out of its guest.
const KICK: IntId = IntId::sgi(1);
/// The virtual CPU interface wants its list registers looked at: PPI 9.
const MAINTENANCE: IntId = IntId::ppi(9);
/// EL2's physical timer, CNTHP: PPI 10.
const EL2_TIMER: IntId = IntId::ppi(10);
/// The guest's virtual timer, CNTV: PPI 11.
const VIRTUAL_TIMER: IntId = IntId::ppi(11);

/// Physical interrupts that EL2 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Another CPU's call.
    Kick,
    /// List registers.
    Maintenance,
    /// EL2's own timer.
    El2Timer,
    /// The guest's virtual timer.
    VirtualTimer,
    /// The link has something.
    Link,
    /// Anything else.
    Unknown(u32),
}

/// Where the GIC is, from the host's device tree.
#[derive(Clone, Copy, Debug)]
pub struct GicAddresses {
    /// Distributor.
    pub distributor: u64,
    /// First redistributor.
    pub redistributors: u64,
    /// The link's SPI.
    pub link: Option<u32>,
}

static ADDRESSES: spin::Once<GicAddresses> = spin::Once::new();
static REDISTRIBUTORS: Mutex<heapless::Vec<GicRedistributor<'static>, 8>> =
    Mutex::new(heapless::Vec::new());

/// Why the GIC could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GicSetupError {
    /// The device tree gives no usable address.
    #[error("the host's device tree places the GIC at address 0")]
    Address,
    /// The driver refused.
    #[error("the GIC's driver refused its registers")]
    Driver,
}

/// Sets the distributor up and takes hold of the redistributors. Once, on the boot CPU.
///
/// # Errors
///
/// [`GicSetupError`].
pub fn setup_distributor(addresses: GicAddresses) -> Result<(), GicSetupError> {
    let gicd = NonNull::new(addresses.distributor as *mut Gicd).ok_or(GicSetupError::Address)?;
    let gicr =
        NonNull::new(addresses.redistributors as *mut GicrSgi).ok_or(GicSetupError::Address)?;
    // SAFETY: the device tree says that the distributor is there, EL2 maps it as device memory,
    // and nothing else of ours touches it.
    let mut distributor = GicDistributor::new(unsafe { UniqueMmioPointer::new(gicd) });
    distributor.configure_default_settings();
    if let Some(link) = addresses.link {
        let link = IntId::spi(link);
        distributor.set_routing(link, Some(0)).map_err(|_| GicSetupError::Driver)?;
        distributor.enable_interrupt(link, true).map_err(|_| GicSetupError::Driver)?;
    }
    // SAFETY: as above, for the redistributors.
    let frames =
        unsafe { GicRedistributorIterator::new(gicr) }.map_err(|_| GicSetupError::Driver)?;
    REDISTRIBUTORS.lock().extend(frames.take(8));
    ADDRESSES.call_once(|| addresses);
    Ok(())
}

/// Sets up the redistributor and the CPU interface of this CPU.
///
/// # Errors
///
/// [`GicSetupError::Driver`].
pub fn setup_cpu(cpu: usize) -> Result<(), GicSetupError> {
    let mut redistributors = REDISTRIBUTORS.lock();
    let redistributor = redistributors.get_mut(cpu).ok_or(GicSetupError::Driver)?;
    // Already awake is fine: firmware may have been here.
    let _already_awake = redistributor.mark_core_awake();
    redistributor.configure_default_settings();
    for intid in [KICK, MAINTENANCE, EL2_TIMER, VIRTUAL_TIMER] {
        redistributor.enable_interrupt(intid, true).map_err(|_| GicSetupError::Driver)?;
    }
    GicCpuInterface::enable_system_register_el2(true);
    super::registers::isb();
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
    super::registers::isb();
    Ok(())
}

/// Lets the virtual timer's interrupt through to this CPU, or not.
pub fn enable_virtual_timer(cpu: usize, enable: bool) {
    if let Some(redistributor) = REDISTRIBUTORS.lock().get_mut(cpu) {
        let _known_ppi = redistributor.enable_interrupt(VIRTUAL_TIMER, enable);
    }
}

/// Takes the next pending interrupt of this CPU and ends it for the GIC.
///
/// The level-sensitive ones come again unless their cause is dealt with before the next entry.
#[must_use]
pub fn take_interrupt() -> Option<Interrupt> {
    let intid = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1)?;
    GicCpuInterface::end_interrupt(intid, InterruptGroup::Group1);
    let link = ADDRESSES.get().and_then(|addresses| addresses.link).map(IntId::spi);
    Some(match intid {
        KICK => Interrupt::Kick,
        MAINTENANCE => Interrupt::Maintenance,
        EL2_TIMER => Interrupt::El2Timer,
        VIRTUAL_TIMER => Interrupt::VirtualTimer,
        _ if Some(intid) == link => Interrupt::Link,
        _ => Interrupt::Unknown(u32::from(intid)),
    })
}

/// Calls other CPUs out of their guests. `cpus`: one bit each.
pub fn kick(cpus: u8) {
    if cpus == 0 {
        return;
    }
    super::registers::dsb();
    let target =
        SgiTarget::List { affinity3: 0, affinity2: 0, affinity1: 0, target_list: u16::from(cpus) };
    let _known_sgi = GicCpuInterface::send_sgi(KICK, target, SgiTargetGroup::CurrentGroup1);
}
