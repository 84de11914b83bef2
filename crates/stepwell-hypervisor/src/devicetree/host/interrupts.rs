//! The interrupt controller, and the interrupts that EL2 takes.

use super::error::{HostTreeError, region};
use crate::devicetree::bus::{self, Place};
use crate::devicetree::range::{self, Range};
use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use heapless::Vec;

const GIC: &str = "arm,gic-v3";
const VIRTIO: &str = "virtio,mmio";
/// Regions of redistributors.
const MAX_REGIONS: usize = 8;
/// What else there may be, and what it is called.
const OTHERS: [(&str, &str); 8] = [
    ("arm,gic-400", "a GICv2 (arm,gic-400)"),
    ("arm,cortex-a15-gic", "a GICv2 (arm,cortex-a15-gic)"),
    ("arm,cortex-a9-gic", "a GICv1 (arm,cortex-a9-gic)"),
    ("arm,cortex-a7-gic", "a GICv2 (arm,cortex-a7-gic)"),
    ("arm,pl390", "a GICv1 (arm,pl390)"),
    ("qcom,msm-qgic2", "a GICv2 (qcom,msm-qgic2)"),
    ("arm,gic-v5", "a GICv5"),
    ("apple,aic", "an AIC"),
];

/// First cell of an interrupt specifier (the GIC's binding).
const SPI: u32 = 0;
const PPI: u32 = 1;

/// The GICv3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gic {
    /// The distributor.
    pub distributor: Range,
    /// The regions of redistributors.
    pub redistributors: Vec<Range, MAX_REGIONS>,
    /// From one redistributor to the next, where it is not what the architecture says.
    pub stride: Option<u64>,
}

/// Interrupts that EL2 takes on each CPU, as INTIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intids {
    /// The virtual CPU interface wants its list registers looked at.
    pub maintenance: u32,
    /// EL2's physical timer, CNTHP.
    pub el2_timer: u32,
    /// The guest's virtual timer, CNTV.
    pub virtual_timer: u32,
}

impl Intids {
    /// The numbers of Arm's Base System Architecture ("PPI assignments"), for trees without.
    pub const USUAL: Self = Self { maintenance: 25, el2_timer: 26, virtual_timer: 27 };
}

/// A place where a virtio device may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioSlot {
    /// Its registers.
    pub registers: Range,
    /// Its interrupt.
    pub intid: u32,
}

/// Reads the GIC; returns with it the cells of an interrupt specifier and the maintenance interrupt.
pub(super) fn gic(root: FdtNode<'_>) -> Result<(Gic, usize, Option<u32>), HostTreeError> {
    let place = bus::find(root, &[GIC]).ok_or_else(|| what_else(root))?;
    let bad = |property| HostTreeError::PropertyBad { node: GIC, property };
    let number = |property: &'static str| {
        let found = place.node.property(property);
        found.map(|found| range::number(found.value()).ok_or(bad(property))).transpose()
    };
    let regions = number("#redistributor-regions")?.unwrap_or(1);
    let regions = usize::try_from(regions).ok().filter(|&regions| regions > 0);
    let mut redistributors = Vec::new();
    for index in 0..regions.ok_or(bad("#redistributor-regions"))? {
        let too_many =
            HostTreeError::TooMany { what: "regions of redistributors", max: MAX_REGIONS };
        redistributors.push(region(&place, 1 + index, GIC)?).map_err(|_| too_many)?;
    }
    let cells = number("#interrupt-cells")?.unwrap_or(3);
    let cells = usize::try_from(cells).ok().filter(|cells| (3..=8).contains(cells));
    let cells = cells.ok_or(bad("#interrupt-cells"))?;
    let gic = Gic {
        distributor: region(&place, 0, GIC)?,
        redistributors,
        stride: number("redistributor-stride")?.filter(|&stride| stride > 0),
    };
    Ok((gic, cells, interrupt(&place, 0, cells)))
}

fn what_else(root: FdtNode<'_>) -> HostTreeError {
    let found = OTHERS.iter().find(|(compatible, _)| bus::find(root, &[compatible]).is_some());
    found.map_or(HostTreeError::NodeMissing(GIC), |&(_, found)| HostTreeError::NoGicV3 { found })
}

/// The interrupts of the generic timer's node are secure physical, physical, virtual, EL2's.
pub(super) fn intids(root: FdtNode<'_>, cells: usize, maintenance: Option<u32>) -> Intids {
    let timer = bus::find(root, &["arm,armv8-timer"]);
    let of_timer = |index| timer.as_ref().and_then(|timer| interrupt(timer, index, cells));
    Intids {
        maintenance: maintenance.unwrap_or(Intids::USUAL.maintenance),
        virtual_timer: of_timer(2).unwrap_or(Intids::USUAL.virtual_timer),
        el2_timer: of_timer(3).unwrap_or(Intids::USUAL.el2_timer),
    }
}

/// The INTID of one of a node's interrupts.
fn interrupt(place: &Place<'_>, index: usize, cells: usize) -> Option<u32> {
    let property = place.node.property("interrupts")?;
    let specifier = property.value().chunks_exact(cells * 4).nth(index)?;
    let cell = |n: usize| Some(u32::from_be_bytes(*specifier.get(n * 4..)?.first_chunk()?));
    let number = cell(1)?;
    match cell(0)? {
        SPI => number.checked_add(32).filter(|&intid| intid < 1020),
        PPI => number.checked_add(16).filter(|&intid| intid < 32),
        _ => None,
    }
}

pub(super) fn virtio(
    root: FdtNode<'_>,
    cells: usize,
) -> Result<Vec<VirtioSlot, 32>, HostTreeError> {
    let mut slots = Vec::new();
    for place in bus::nodes(root).filter(|place| place.node.is_compatible(VIRTIO)) {
        let bad = HostTreeError::PropertyBad { node: VIRTIO, property: "interrupts" };
        let intid = interrupt(&place, 0, cells).filter(|&intid| intid >= 32).ok_or(bad)?;
        let slot = VirtioSlot { registers: region(&place, 0, VIRTIO)?, intid };
        let too_many = HostTreeError::TooMany { what: "virtio-mmio slots", max: 32 };
        slots.push(slot).map_err(|_| too_many)?;
    }
    slots.sort_unstable_by_key(|slot| slot.registers.base);
    Ok(slots)
}
