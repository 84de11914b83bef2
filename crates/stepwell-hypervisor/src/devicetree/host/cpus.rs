//! CPUs, and how they are switched on.

use super::error::HostTreeError;
use crate::devicetree::bus;
use crate::devicetree::range::number;
use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};
use heapless::Vec;

/// CPUs of the tree that are read; the rest is left out.
pub(super) const MAX_CPUS: usize = 64;
/// MPIDR_EL1.Aff3 to Aff0.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// How the machine's firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
}

/// Reads each CPU's affinity, and the first one's `compatible`.
///
/// A CPU that is "disabled" only waits to be switched on (Devicetree Specification, "Base Device
/// Node Types: /cpus/cpu* Node Properties"); one that failed says "fail".
pub(super) fn cpus(root: FdtNode<'_>) -> Result<(Vec<u64, MAX_CPUS>, &str), HostTreeError> {
    let node = root.child("cpus").ok_or(HostTreeError::NodeMissing("cpus"))?;
    let bad = HostTreeError::PropertyBad { node: "cpu", property: "reg" };
    let mut found = Vec::new();
    let mut compatible = None;
    for cpu in node.children().filter(|cpu| cpu.name_without_address() == "cpu") {
        if cpu.property("status").is_some_and(|status| status.value().starts_with(b"fail")) {
            continue;
        }
        // A CPU's reg has an address and no size.
        let reg = cpu
            .property("reg")
            .ok_or(HostTreeError::PropertyMissing { node: "cpu", property: "reg" })?;
        let affinity = number(reg.value()).filter(|reg| reg & !AFFINITY == 0).ok_or(bad)?;
        // More than we can use are not an error.
        let _fits = found.push(affinity);
        compatible = compatible.or_else(|| cpu.compatible()?.next());
    }
    if found.is_empty() {
        return Err(HostTreeError::NodeMissing("cpu"));
    }
    let missing = HostTreeError::PropertyMissing { node: "cpu", property: "compatible" };
    Ok((found, compatible.ok_or(missing)?))
}

/// How PSCI is called, where there is one.
///
/// # Errors
///
/// [`HostTreeError`] where the tree has a PSCI node that does not say so.
pub fn conduit(root: FdtNode<'_>) -> Result<Option<Conduit>, HostTreeError> {
    let Some(place) = bus::find(root, &["arm,psci-1.0", "arm,psci-0.2"]) else { return Ok(None) };
    let method = place.node.property("method");
    match method.as_ref().map(Property::value) {
        Some(b"hvc\0") => Ok(Some(Conduit::Hvc)),
        Some(b"smc\0") => Ok(Some(Conduit::Smc)),
        Some(_) => Err(HostTreeError::PropertyBad { node: "psci", property: "method" }),
        None => Err(HostTreeError::PropertyMissing { node: "psci", property: "method" }),
    }
}
