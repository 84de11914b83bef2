//! What can be wrong with a tree.

use crate::devicetree::bus::{Place, RegisterError};
use crate::devicetree::range::Range;
use thiserror::Error;

/// What is wrong with the tree: the tool's fault, or the firmware's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HostTreeError {
    /// It does not begin with a header, is cut short or is damaged.
    #[error("the machine's device tree is damaged: hand one over that dtc can read")]
    NotATree,
    /// A node is missing.
    #[error("the machine's device tree has no {0} node: hand over the board's complete tree")]
    NodeMissing(&'static str),
    /// A property is missing.
    #[error("the machine's device tree lacks {property} in {node}: add it")]
    PropertyMissing {
        /// The node.
        node: &'static str,
        /// The property.
        property: &'static str,
    },
    /// A property has a wrong length or an impossible value.
    #[error("the machine's device tree has a bad {property} in {node}: correct it")]
    PropertyBad {
        /// The node.
        node: &'static str,
        /// The property.
        property: &'static str,
    },
    /// The interrupt controller is another one.
    #[error(
        "the machine has no GICv3 but {found}, and no other interrupt controller will do: take \
         another board (QEMU's virt: -machine virt,gic-version=3)"
    )]
    NoGicV3 {
        /// What it has.
        found: &'static str,
    },
    /// There are more of something than we have room for.
    #[error("the machine's device tree has more than {max} {what}: leave some out")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are too few for it.
        max: usize,
    },
}

/// Returns one of the ranges of a node's `reg`, where the CPU finds it.
pub(super) fn region(
    place: &Place<'_>,
    index: usize,
    node: &'static str,
) -> Result<Range, HostTreeError> {
    place.registers(index).map_err(|error| match error {
        RegisterError::Missing => HostTreeError::PropertyMissing { node, property: "reg" },
        RegisterError::Bad => HostTreeError::PropertyBad { node, property: "reg" },
    })
}
