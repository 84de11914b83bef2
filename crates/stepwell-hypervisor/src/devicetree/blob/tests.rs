//! Trees that `dtoolkit` takes, those that it does not though boards have them, and damaged ones.

use super::*;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};
use proptest::prelude::*;

fn tree(property: &str) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let mut soc = DeviceTreeNode::new("soc@0").unwrap();
    soc.add_property(DeviceTreeProperty::new_unchecked(property, 1_u32));
    soc.add_child(DeviceTreeNode::new("serial@9000000").unwrap());
    tree.root.add_property(DeviceTreeProperty::new("compatible", "board").unwrap());
    tree.root.add_child(soc);
    tree.root.add_child(DeviceTreeNode::new("chosen").unwrap());
    tree.to_dtb()
}

/// Reads everything that there is, which must not panic.
fn read_all(node: dtoolkit::fdt::FdtNode<'_>) -> usize {
    let properties = node.properties().map(|p| p.name().len() + p.value().len()).sum::<usize>();
    properties + node.name().len() + node.children().map(read_all).sum::<usize>()
}

#[test]
fn names_may_be_longer_than_the_specification_has_them() {
    let long = tree("snps,dis-u2-freeclk-exists-quirk");
    assert!(Fdt::new(&long).is_err(), "then this file is not needed any more");
    let opened = open(&long).unwrap();
    let soc = opened.find_node("/soc@0").unwrap();
    assert_eq!(soc.properties().next().unwrap().name(), "snps,dis-u2-freeclk-exists-quirk");
}

#[test]
fn what_follows_a_tree_does_not_matter() {
    let mut bytes = tree("reg");
    let length = bytes.len();
    bytes.extend([0xaa; 100]);
    assert_eq!(open(&bytes).unwrap().data().len(), length);
}

#[test]
fn a_tree_cut_short_is_refused() {
    let bytes = tree("reg");
    for length in 0..bytes.len() {
        assert!(open(&bytes[..length]).is_none(), "{length}");
        let mut shorter = bytes[..length].to_vec();
        if length >= 8 {
            // The header agrees, and the rest does not: the strings come last.
            shorter[4..8].copy_from_slice(&(length as u32).to_be_bytes());
            assert!(open(&shorter).is_none(), "{length}");
        }
    }
}

#[test]
fn nops_are_passed_over_and_a_property_after_a_child_is_refused() {
    let bytes = tree("reg");
    let at = |pattern: &[u8]| bytes.windows(pattern.len()).position(|w| w == pattern).unwrap();
    // The child's BEGIN_NODE, name and END_NODE.
    let child = at(b"\0\0\0\x01serial@9000000\0\0\0\0\0\x02");
    let mut nops = bytes.clone();
    nops[child..child + 24].copy_from_slice(&[0, 0, 0, 4].repeat(6));
    assert_eq!(open(&nops).unwrap().find_node("/soc@0").unwrap().children().count(), 0);
    let mut late = bytes.clone();
    // END_NODE of the child becomes the PROPERTY of a node that ends never.
    late[child + 20 + 3] = 3;
    assert!(open(&late).is_none());
}

proptest! {
    /// What is opened can be read, whatever happened to it; and what `dtoolkit` takes is opened.
    #[test]
    fn what_is_opened_can_be_read(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
    ) {
        let mut bytes = tree("reg");
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(fdt) = open(&bytes) {
            read_all(fdt.root());
            prop_assert!(fdt.memory_reservations().count() < bytes.len());
        } else if let Some(tree) = total_bytes(&bytes).and_then(|length| bytes.get(..length)) {
            prop_assert!(Fdt::new(tree).is_err());
        }
    }
}
