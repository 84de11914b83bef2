//! Drivers over registers that are numbers, and the choice of a UART.

use super::*;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use std::cell::Cell;
use std::collections::HashMap;

/// Registers that hold what is written, and one that says "full" for some looks.
#[derive(Default)]
struct Fake {
    held: HashMap<u32, u32>,
    written: Vec<(u32, u32)>,
    status: u32,
    full: u32,
    ready: u32,
    looks_until_ready: Cell<u32>,
}

impl Registers for Fake {
    fn read(&self, offset: u32) -> u32 {
        if offset != self.status {
            return self.held.get(&offset).copied().unwrap_or(0);
        }
        match self.looks_until_ready.get() {
            0 => self.ready,
            looks => {
                self.looks_until_ready.set(looks - 1);
                self.full
            }
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.held.insert(offset, value);
        self.written.push((offset, value));
    }
}

fn driver(compatible: &str) -> &'static dyn Uart {
    *DRIVERS.iter().find(|uart| uart.names().contains(&compatible)).expect("there is one")
}

/// Where each UART has its data, its status, and what that is with and without room.
#[test]
fn a_byte_goes_out_when_there_is_room() {
    for (compatible, data, status, full, ready) in [
        ("arm,pl011", 0x00, 0x18, 1 << 5, 1 << 7),
        ("arm,sbsa-uart", 0x00, 0x18, 1 << 5, 0),
        ("ns16550a", 0, 5, 0, 0x60),
        ("brcm,bcm2835-aux-uart", 0, 5, 0x01, 0x20),
        ("fsl,imx6q-uart", 0x40, 0xb4, 1 << 4, 1 << 6),
        ("cdns,uart-r1p12", 0x30, 0x2c, 1 << 4, 1 << 3),
    ] {
        let mut fake = Fake { status, full, ready, ..Fake::default() };
        fake.looks_until_ready.set(3);
        send(driver(compatible), &mut fake, b'x');
        assert_eq!(fake.written, [(data, u32::from(b'x'))], "{compatible}");
        assert_eq!(fake.looks_until_ready.get(), 0, "{compatible} waits");
    }
}

#[test]
fn a_uart_that_never_has_room_does_not_hold_us() {
    let mut fake = Fake { status: 0x18, full: 1 << 5, ready: 0, ..Fake::default() };
    fake.looks_until_ready.set(u32::MAX);
    send(driver("arm,pl011"), &mut fake, b'x');
    assert!(fake.written.is_empty());
}

#[test]
fn transmitters_that_reset_off_are_switched_on() {
    let mut imx = Fake { status: u32::MAX, ..Fake::default() };
    imx.held.insert(0x84, 0x4000);
    driver("fsl,imx6q-uart").enable(&mut imx);
    assert_eq!(imx.written, [(0x80, 1), (0x84, 0x4004)]);
    let mut cadence = Fake { status: u32::MAX, ..Fake::default() };
    cadence.held.insert(0, 0x128);
    driver("cdns,uart-r1p12").enable(&mut cadence);
    assert_eq!(cadence.written, [(0, 0x118)], "TX_DIS is off, TX_EN on");
}

fn uart(name: &str, compatible: &[&str], base: u32) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    node.add_property(DeviceTreeProperty::new("compatible", compatible).unwrap());
    node.add_property(DeviceTreeProperty::new("reg", [0, base, 0, 0x1000]).unwrap());
    node
}

fn board(stdout: Option<&str>) -> DeviceTree {
    let mut tree = DeviceTree::new();
    for (name, cells) in [("#address-cells", 2_u32), ("#size-cells", 2)] {
        tree.root.add_property(DeviceTreeProperty::new(name, cells).unwrap());
    }
    tree.root.add_child(uart("serial@1000", &["xlnx,zynqmp-uart", "cdns,uart-r1p12"], 0x1000));
    let mut other = uart("serial@2000", &["ns16550a"], 0x2000);
    other.add_property(DeviceTreeProperty::new("reg-shift", 2_u32).unwrap());
    other.add_property(DeviceTreeProperty::new("reg-io-width", 4_u32).unwrap());
    tree.root.add_child(other);
    tree.root.add_child(uart("hvc@3000", &["unheard,of"], 0x3000));
    let mut aliases = DeviceTreeNode::new("aliases").unwrap();
    aliases.add_property(DeviceTreeProperty::new("serial1", "/serial@2000").unwrap());
    tree.root.add_child(aliases);
    let mut chosen = DeviceTreeNode::new("chosen").unwrap();
    if let Some(stdout) = stdout {
        chosen.add_property(DeviceTreeProperty::new("stdout-path", stdout).unwrap());
    }
    tree.root.add_child(chosen);
    tree
}

fn found(tree: &DeviceTree) -> Option<(u64, Spacing)> {
    let dtb = tree.to_dtb();
    let console = find(Fdt::new(&dtb).unwrap().root())?;
    Some((console.registers.base.0, console.spacing))
}

#[test]
fn stdout_path_decides() {
    let words = Spacing { shift: 2, bytes: 4 };
    for path in ["/serial@2000", "/serial@2000:115200n8", "serial1", "serial1:115200n8"] {
        assert_eq!(found(&board(Some(path))), Some((0x2000, words)), "{path}");
    }
}

#[test]
fn without_a_stdout_path_that_can_be_used_it_is_the_first_uart() {
    let usual = Spacing { shift: 0, bytes: 4 };
    for path in [None, Some("/hvc@3000"), Some("serial7"), Some("/nothing"), Some("")] {
        assert_eq!(found(&board(path)), Some((0x1000, usual)), "{path:?}");
    }
}

#[test]
fn a_uart_that_is_switched_off_is_passed_over() {
    let mut tree = board(Some("/serial@1000"));
    let off = DeviceTreeProperty::new("status", "disabled").unwrap();
    tree.find_node_mut("/serial@1000").unwrap().add_property(off.clone());
    assert_eq!(found(&tree).unwrap().0, 0x2000);
    tree.find_node_mut("/serial@2000").unwrap().add_property(off);
    assert_eq!(found(&tree), None);
}
