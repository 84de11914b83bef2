//! Registers through no bus, one and several, and through those that lead nowhere.

use super::*;
use dtoolkit::ToPropertyValue;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

fn node(name: &str, properties: &[(&str, &[u32])]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, cells) in properties {
        let value: std::vec::Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        add(&mut node, name, value.as_slice());
    }
    node
}

fn add(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new(name, value).unwrap());
}

fn uart(base: u32) -> DeviceTreeNode {
    let mut uart = node("serial@40", &[("reg", &[base, 0x40])]);
    add(&mut uart, "compatible", "a,uart");
    uart
}

/// A board with a UART below two buses, the upper one as the Raspberry Pi's.
fn board(upper: &[u32], lower: &[u32]) -> std::vec::Vec<u8> {
    let one_cell: [(&str, &[u32]); 2] = [("#address-cells", &[1]), ("#size-cells", &[1])];
    let mut tree = DeviceTree::new();
    let mut soc = node("soc", &one_cell);
    add(&mut soc, "ranges", cells(upper).as_slice());
    let mut bus = node("bus@215000", &one_cell);
    add(&mut bus, "ranges", cells(lower).as_slice());
    bus.add_child(uart(0x40));
    soc.add_child(bus);
    tree.root = node("", &[("#address-cells", &[2]), ("#size-cells", &[1])]);
    tree.root.add_child(soc);
    tree.root.add_child(node("sibling@1", &[("reg", &[0, 1, 2])]));
    tree.to_dtb()
}

fn cells(cells: &[u32]) -> std::vec::Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

const RASPBERRY: &[u32] =
    &[0x7c00_0000, 0, 0xfc00_0000, 0x200_0000, 0x7e00_0000, 0, 0xfe00_0000, 0x180_0000];

fn registers(dtb: &[u8]) -> Result<Range, RegisterError> {
    find(Fdt::new(dtb).unwrap().root(), &["a,uart"]).expect("it is in use").registers(0)
}

#[test]
fn registers_are_found_through_every_bus() {
    let range = registers(&board(RASPBERRY, &[0, 0x7e21_5000, 0x1000])).unwrap();
    assert_eq!(range, Range { base: Pa(0xfe21_5040), bytes: 0x40 });
    // An empty `ranges`: the addresses are those of the bus above.
    let range = registers(&board(&[], &[0, 0x7e21_5000, 0x1000])).unwrap();
    assert_eq!(range.base, Pa(0x7e21_5040));
}

#[test]
fn registers_beyond_a_window_are_nowhere() {
    for lower in
        [&[0, 0x7e21_5000, 0x7f][..], &[0x41, 0x7e21_5000, 0x1000], &[0, 0x7800_0000, 0x1000]]
    {
        assert_eq!(registers(&board(RASPBERRY, lower)), Err(RegisterError::Bad), "{lower:x?}");
    }
}

#[test]
fn a_bus_without_ranges_leads_nowhere() {
    let mut tree = DeviceTree::new();
    let mut bus = node("i2c", &[("#address-cells", &[1]), ("#size-cells", &[1])]);
    bus.add_child(uart(0x40));
    tree.root.add_child(bus);
    assert_eq!(registers(&tree.to_dtb()), Err(RegisterError::Bad));
}

#[test]
fn nothing_below_a_bus_that_is_off_is_in_use() {
    let dtb = board(RASPBERRY, &[0, 0x7e21_5000, 0x1000]);
    let mut tree = DeviceTree::from_fdt(&Fdt::new(&dtb).unwrap());
    add(tree.find_node_mut("/soc").unwrap(), "status", "disabled");
    let dtb = tree.to_dtb();
    let root = Fdt::new(&dtb).unwrap().root();
    assert!(find(root, &["a,uart"]).is_none());
    let place = Place::at(root, "/soc/bus@215000/serial@40").unwrap();
    assert!(!place.is_in_use());
}

#[test]
fn a_path_is_followed_with_and_without_options() {
    let dtb = board(RASPBERRY, &[0, 0x7e21_5000, 0x1000]);
    let root = Fdt::new(&dtb).unwrap().root();
    for path in ["/soc/bus@215000/serial@40", "/soc/bus/serial:115200n8", "/soc//bus/serial/"] {
        let place = Place::at(root, path).unwrap();
        assert_eq!(place.registers(0).unwrap().base, Pa(0xfe21_5040), "{path}");
    }
    for path in ["soc", "/soc/nothing", "/soc@1"] {
        assert!(Place::at(root, path).is_none(), "{path}");
    }
}

#[test]
fn every_node_comes_once_and_after_the_one_above() {
    let dtb = board(RASPBERRY, &[]);
    let names: std::vec::Vec<_> =
        nodes(Fdt::new(&dtb).unwrap().root()).map(|place| place.node.name()).collect();
    assert_eq!(names, ["soc", "bus@215000", "serial@40", "sibling@1"]);
}

#[test]
fn a_tree_as_deep_as_one_likes_is_survived() {
    let mut deep = uart(0x40);
    for _ in 0..100 {
        let mut bus = node("bus", &[]);
        add(&mut bus, "ranges", [].as_slice() as &[u8]);
        bus.add_child(deep);
        deep = bus;
    }
    let mut tree = DeviceTree::new();
    tree.root.add_child(deep);
    let dtb = tree.to_dtb();
    assert!(nodes(Fdt::new(&dtb).unwrap().root()).count() < 100);
}
