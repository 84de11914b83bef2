//! The device tree that a guest gets: QEMU's `virt`, less what we do not emulate.
//!
//! Nodes, properties, their order and the phandles are those that QEMU 7.2 writes, so that a
//! kernel walks this tree as it walks QEMU's, and what it prints can be compared. Absent on
//! purpose: `kaslr-seed` and `rng-seed`, which would make each boot another; the PMU, the ITS, PCIe and
//! the platform bus, which are not there or have nothing on them; flash and fw-cfg where there is no
//! firmware.

use alloc::format;

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use stepwell_arch::Ipa;
use thiserror::Error;

use crate::device::board::{
    PL011_BASE, PL011_BYTES, PL011_INTID, PL031_BASE, PL031_INTID, PL061_BASE, PL061_INTID,
    PRIMECELL_BYTES, RAM_BASE,
};
use crate::device::flash::BANK_BYTES;
use crate::device::fw_cfg::{FW_CFG_BASE, FW_CFG_BYTES};
use crate::device::virtio::{FIRST_INTID, SLOT_BYTES, SLOTS, VIRTIO_BASE};
use crate::vgic::{GICC_BASE, GICC_BYTES, GICD_BASE, GICD_BYTES, GICR_BASE, VCPUS_MAX};

/// What QEMU leaves room for: 123 redistributors, however many vCPUs there are.
const REDISTRIBUTORS_BYTES: u64 = 0xf6_0000;
const CLOCK_HZ: u32 = 24_000_000;
const CLOCK_PHANDLE: u32 = 0x8000;
/// vCPUs have the phandles after the clock's, the last vCPU the first; the GIC's is the next.
const FIRST_CPU_PHANDLE: u32 = 0x8001;

/// The GPIO line of the power key, and Linux's number of such a key.
const POWER_LINE: u32 = 3;
const KEY_POWER: u32 = 116;

/// First cell of an interrupt specifier.
const SPI: u32 = 0;
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;
/// Where a PPI's specifier has the CPUs, for a GICv2.
const PPI_CPUS_SHIFT: u32 = 8;

/// What differs between guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestTree<'a> {
    /// Number of vCPUs; vCPU n has affinity n.
    pub vcpus: usize,
    /// `compatible` of the vCPUs.
    pub cpu_compatible: &'a str,
    /// Bytes of RAM.
    pub memory_bytes: u64,
    /// The kernel's command line; none if empty.
    pub bootargs: &'a str,
    /// The initial ramdisk: where, and how many bytes.
    pub initrd: Option<(Ipa, u64)>,
    /// It has a GICv2 in place of a GICv3.
    pub has_gicv2: bool,
    /// It has flash and fw_cfg, for firmware.
    pub has_firmware: bool,
}

/// Why no tree was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GuestTreeError {
    /// Ours: what we set apart for it is too small.
    #[error("the guest's device tree has {needed} bytes and does not fit into {room}")]
    TooSmall {
        /// Bytes of the tree.
        needed: usize,
        /// Bytes of the buffer.
        room: usize,
    },
}

impl GuestTree<'_> {
    /// Writes the tree to the start of a buffer; returns its length.
    ///
    /// # Errors
    ///
    /// [`GuestTreeError::TooSmall`]; the buffer is as it was.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, GuestTreeError> {
        let tree = self.tree().to_dtb();
        let room = buffer.len();
        let too_small = GuestTreeError::TooSmall { needed: tree.len(), room };
        buffer.get_mut(..tree.len()).ok_or(too_small)?.copy_from_slice(&tree);
        Ok(tree.len())
    }

    fn tree(&self) -> DeviceTree {
        let mut tree = DeviceTree::new();
        let mut root = node("")
            .with("interrupt-parent", self.gic_phandle())
            .with("model", "linux,dummy-virt")
            .with("#size-cells", 2u32)
            .with("#address-cells", 2u32)
            .with("compatible", "linux,dummy-virt");
        let of_firmware = |node: fn() -> DeviceTreeNode| self.has_firmware.then(node);
        let first = [Some(psci()), Some(self.memory()), of_firmware(fw_cfg)];
        first.into_iter().flatten().for_each(|child| root.add_child(child));
        for slot in (0..).take(SLOTS) {
            root.add_child(virtio(slot));
        }
        let rest = [
            Some(self.power_key()),
            Some(self.gpio()),
            Some(rtc()),
            Some(uart()),
            Some(self.interrupt_controller()),
            of_firmware(flash),
            Some(self.cpus()),
            Some(self.timer()),
            Some(clock()),
            Some(self.chosen()),
        ];
        rest.into_iter().flatten().for_each(|child| root.add_child(child));
        tree.root = root;
        tree
    }

    fn vcpus(&self) -> u32 {
        u32::try_from(self.vcpus.clamp(1, VCPUS_MAX)).unwrap_or(1)
    }

    fn cpu_phandle(&self, vcpu: u32) -> u32 {
        FIRST_CPU_PHANDLE + self.vcpus().saturating_sub(vcpu + 1)
    }

    fn gic_phandle(&self) -> u32 {
        FIRST_CPU_PHANDLE + self.vcpus()
    }

    /// QEMU gives the ITS the phandle between these, and ours is the next all the same.
    fn gpio_phandle(&self) -> u32 {
        self.gic_phandle() + 2
    }

    fn gpio(&self) -> DeviceTreeNode {
        node(&format!("pl061@{PL061_BASE:x}"))
            .with("phandle", self.gpio_phandle())
            .with("clock-names", "apb_pclk")
            .with("clocks", CLOCK_PHANDLE)
            .with("interrupts", [SPI, PL061_INTID - 32, LEVEL_HIGH])
            .with("gpio-controller", EMPTY)
            .with("#gpio-cells", 2u32)
            .with("compatible", ["arm,pl061", "arm,primecell"].as_slice())
            .with("reg", reg(&[(PL061_BASE, PRIMECELL_BYTES)]).as_slice())
    }

    fn power_key(&self) -> DeviceTreeNode {
        let mut keys = node("gpio-keys").with("compatible", "gpio-keys");
        keys.add_child(
            node("poweroff")
                .with("gpios", [self.gpio_phandle(), POWER_LINE, 0])
                .with("linux,code", KEY_POWER)
                .with("label", "GPIO Key Poweroff"),
        );
        keys
    }

    fn memory(&self) -> DeviceTreeNode {
        node(&format!("memory@{:x}", RAM_BASE.0))
            .with("reg", reg(&[(RAM_BASE.0, self.memory_bytes)]).as_slice())
            .with("device_type", "memory")
    }

    fn interrupt_controller(&self) -> DeviceTreeNode {
        let controller =
            node(&format!("intc@{:x}", GICD_BASE.0)).with("phandle", self.gic_phandle());
        let controller = if self.has_gicv2 {
            let frames = [(GICD_BASE.0, GICD_BYTES), (GICC_BASE.0, GICC_BYTES)];
            controller.with("reg", reg(&frames).as_slice()).with("compatible", "arm,cortex-a15-gic")
        } else {
            let frames = [(GICD_BASE.0, GICD_BYTES), (GICR_BASE.0, REDISTRIBUTORS_BYTES)];
            controller
                .with("reg", reg(&frames).as_slice())
                .with("#redistributor-regions", 1u32)
                .with("compatible", "arm,gic-v3")
        };
        controller
            .with("ranges", EMPTY)
            .with("#size-cells", 2u32)
            .with("#address-cells", 2u32)
            .with("interrupt-controller", EMPTY)
            .with("#interrupt-cells", 3u32)
    }

    /// The generic timer's PPIs: secure physical, physical, virtual, hypervisor, INTID 16 and up. For a
    /// GICv2 each tells which vCPUs have it.
    fn timer(&self) -> DeviceTreeNode {
        let vcpus = if self.has_gicv2 { ((1 << self.vcpus()) - 1) << PPI_CPUS_SHIFT } else { 0 };
        let interrupts = [13, 14, 11, 10].map(|ppi| [PPI, ppi, vcpus | LEVEL_HIGH]);
        node("timer")
            .with("interrupts", interrupts.as_flattened())
            .with("always-on", EMPTY)
            .with("compatible", ["arm,armv8-timer", "arm,armv7-timer"].as_slice())
    }

    fn cpus(&self) -> DeviceTreeNode {
        let mut cluster = node("cluster0");
        for n in 0..self.vcpus() {
            cluster.add_child(node(&format!("core{n}")).with("cpu", self.cpu_phandle(n)));
        }
        let mut socket = node("socket0");
        socket.add_child(cluster);
        let mut map = node("cpu-map");
        map.add_child(socket);
        let mut cpus = node("cpus").with("#size-cells", 0u32).with("#address-cells", 1u32);
        cpus.add_child(map);
        for n in 0..self.vcpus() {
            let mut cpu =
                node(&format!("cpu@{n:x}")).with("phandle", self.cpu_phandle(n)).with("reg", n);
            if self.vcpus() > 1 {
                cpu = cpu.with("enable-method", "psci");
            }
            cpus.add_child(cpu.with("compatible", self.cpu_compatible).with("device_type", "cpu"));
        }
        cpus
    }

    fn chosen(&self) -> DeviceTreeNode {
        let mut chosen = node("chosen");
        if let Some((start, bytes)) = self.initrd {
            chosen = with_address(chosen, "linux,initrd-end", start.offset(bytes));
            chosen = with_address(chosen, "linux,initrd-start", start);
        }
        if !self.bootargs.is_empty() {
            chosen = chosen.with("bootargs", self.bootargs);
        }
        chosen.with("stdout-path", format!("/pl011@{:x}", PL011_BASE.0).as_str())
    }
}

fn psci() -> DeviceTreeNode {
    node("psci")
        .with("migrate", 0xc400_0005u32)
        .with("cpu_on", 0xc400_0003u32)
        .with("cpu_off", 0x8400_0002u32)
        .with("cpu_suspend", 0xc400_0001u32)
        .with("method", "hvc")
        .with("compatible", ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"].as_slice())
}

/// A slot of virtio-mmio, whether or not something is in it.
fn virtio(slot: u32) -> DeviceTreeNode {
    let address = VIRTIO_BASE + SLOT_BYTES * u64::from(slot);
    node(&format!("virtio_mmio@{address:x}"))
        .with("dma-coherent", EMPTY)
        .with("interrupts", [SPI, FIRST_INTID - 32 + slot, EDGE_RISING])
        .with("reg", reg(&[(address, SLOT_BYTES)]).as_slice())
        .with("compatible", "virtio,mmio")
}

fn fw_cfg() -> DeviceTreeNode {
    node(&format!("fw-cfg@{FW_CFG_BASE:x}"))
        .with("dma-coherent", EMPTY)
        .with("reg", reg(&[(FW_CFG_BASE, FW_CFG_BYTES)]).as_slice())
        .with("compatible", "qemu,fw-cfg-mmio")
}

fn flash() -> DeviceTreeNode {
    node("flash@0")
        .with("bank-width", 4u32)
        .with("reg", reg(&[(0, BANK_BYTES), (BANK_BYTES, BANK_BYTES)]).as_slice())
        .with("compatible", "cfi-flash")
}

fn rtc() -> DeviceTreeNode {
    node(&format!("pl031@{PL031_BASE:x}"))
        .with("clock-names", "apb_pclk")
        .with("clocks", CLOCK_PHANDLE)
        .with("interrupts", [SPI, PL031_INTID - 32, LEVEL_HIGH])
        .with("reg", reg(&[(PL031_BASE, PRIMECELL_BYTES)]).as_slice())
        .with("compatible", ["arm,pl031", "arm,primecell"].as_slice())
}

fn uart() -> DeviceTreeNode {
    node(&format!("pl011@{:x}", PL011_BASE.0))
        .with("clock-names", ["uartclk", "apb_pclk"].as_slice())
        .with("clocks", [CLOCK_PHANDLE, CLOCK_PHANDLE])
        .with("interrupts", [SPI, PL011_INTID - 32, LEVEL_HIGH])
        .with("reg", reg(&[(PL011_BASE.0, PL011_BYTES)]).as_slice())
        .with("compatible", ["arm,pl011", "arm,primecell"].as_slice())
}

fn clock() -> DeviceTreeNode {
    node("apb-pclk")
        .with("phandle", CLOCK_PHANDLE)
        .with("clock-output-names", "clk24mhz")
        .with("clock-frequency", CLOCK_HZ)
        .with("#clock-cells", 0u32)
        .with("compatible", "fixed-clock")
}

/// Value of a property that says all by being there.
const EMPTY: &[u8] = &[];

fn node(name: &str) -> DeviceTreeNode {
    DeviceTreeNode::new_unchecked(name)
}

trait With {
    fn with(self, name: &str, value: impl ToPropertyValue) -> Self;
}

impl With for DeviceTreeNode {
    fn with(mut self, name: &str, value: impl ToPropertyValue) -> Self {
        self.add_property(DeviceTreeProperty::new_unchecked(name, value));
        self
    }
}

/// Adds an address in one cell if it fits, as QEMU does, else in two.
fn with_address(node: DeviceTreeNode, name: &str, address: Ipa) -> DeviceTreeNode {
    match u32::try_from(address.0) {
        Ok(address) => node.with(name, address),
        Err(_) => node.with(name, address.0),
    }
}

/// Encodes ranges for two cells of address and two of size.
fn reg(ranges: &[(u64, u64)]) -> alloc::vec::Vec<u8> {
    ranges
        .iter()
        .flat_map(|(base, bytes)| [base.to_be_bytes(), bytes.to_be_bytes()])
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use dtoolkit::fdt::Fdt;
    use dtoolkit::{Node, Property};

    use super::*;

    const GUEST: GuestTree<'_> = GuestTree {
        vcpus: 2,
        cpu_compatible: "arm,cortex-a57",
        memory_bytes: 512 << 20,
        bootargs: "console=ttyAMA0 x",
        initrd: Some((Ipa(0x4800_0000), 0x1388)),
        has_gicv2: false,
        has_firmware: false,
    };

    fn written(guest: GuestTree<'_>) -> Vec<u8> {
        let mut buffer = vec![0; 16384];
        let length = guest.write(&mut buffer).expect("it fits");
        buffer.truncate(length);
        buffer
    }

    /// `node property: value` of all of them, in order.
    fn listing(bytes: &[u8]) -> Vec<String> {
        fn list(node: dtoolkit::fdt::FdtNode<'_>, lines: &mut Vec<String>) {
            for property in node.properties() {
                let value: String =
                    property.value().iter().map(|byte| format!("{byte:02x}")).collect();
                lines.push(format!("{} {} {value}", node.name(), property.name()));
            }
            node.children().for_each(|child| list(child, lines));
        }
        let mut lines = Vec::new();
        list(Fdt::new(bytes).expect("it is a tree").root(), &mut lines);
        lines
    }

    #[test]
    fn lines_that_qemu_writes_are_there_in_its_order() {
        let lines = listing(&written(GUEST));
        let expected = [
            " interrupt-parent 00008003",
            "psci method 68766300",
            "memory@40000000 reg 00000000400000000000000020000000",
            "virtio_mmio@a000000 interrupts 000000000000001000000001",
            "virtio_mmio@a003e00 reg 000000000a003e000000000000000200",
            "poweroff gpios 000080050000000300000000",
            "pl061@9030000 phandle 00008005",
            "pl061@9030000 interrupts 000000000000000700000004",
            "pl031@9010000 interrupts 000000000000000200000004",
            "pl011@9000000 interrupts 000000000000000100000004",
            "intc@8000000 phandle 00008003",
            "intc@8000000 ranges ",
            "core0 cpu 00008002",
            "cpu@0 phandle 00008002",
            "cpu@0 enable-method 7073636900",
            "cpu@1 phandle 00008001",
            "timer interrupts 000000010000000d00000004000000010000000e00000004\
             000000010000000b00000004000000010000000a00000004",
            "apb-pclk clock-frequency 016e3600",
            "chosen linux,initrd-end 48001388",
            "chosen linux,initrd-start 48000000",
            "chosen bootargs 636f6e736f6c653d747479414d4130207800",
            "chosen stdout-path 2f706c303131403930303030303000",
        ];
        let mut rest = lines.iter();
        for line in expected {
            assert!(rest.any(|found| found == line), "{line} in {lines:#?}");
        }
    }

    #[test]
    fn a_gicv2_has_its_frames_and_timers_tell_their_vcpus() {
        let lines = listing(&written(GuestTree { has_gicv2: true, ..GUEST }));
        for line in [
            "intc@8000000 compatible 61726d2c636f727465782d6131352d67696300",
            "intc@8000000 reg 00000000080000000000000000010000\
             00000000080100000000000000010000",
            "timer interrupts 000000010000000d00000304000000010000000e00000304\
             000000010000000b00000304000000010000000a00000304",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("redistributor")));
    }

    #[test]
    fn firmware_has_flash_and_fw_cfg() {
        let lines = listing(&written(GuestTree { has_firmware: true, ..GUEST }));
        let plain = listing(&written(GUEST));
        for line in [
            "flash@0 reg 0000000000000000000000000400000000000000040000000000000004000000",
            "flash@0 bank-width 00000004",
            "fw-cfg@9020000 reg 00000000090200000000000000000018",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} in {lines:#?}");
            assert!(!plain.iter().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn a_single_vcpu_is_not_started_by_anybody() {
        let lines = listing(&written(GuestTree { vcpus: 1, ..GUEST }));
        assert!(!lines.iter().any(|line| line.contains("enable-method")));
        assert_eq!(lines[0], " interrupt-parent 00008002");
    }

    #[test]
    fn nothing_is_said_of_what_is_not_given() {
        let lines = listing(&written(GuestTree { bootargs: "", initrd: None, ..GUEST }));
        let chosen = lines.iter().filter(|line| line.starts_with("chosen")).count();
        assert_eq!(chosen, 1);
    }

    #[test]
    fn a_small_buffer_is_left_alone() {
        let mut buffer = [0; 100];
        let result = GUEST.write(&mut buffer);
        assert!(matches!(result, Err(GuestTreeError::TooSmall { room: 100, .. })));
        assert_eq!(buffer, [0; 100]);
    }
}
