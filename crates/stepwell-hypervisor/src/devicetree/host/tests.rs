//! Trees as QEMU and the tool write them, and damaged ones.

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::prelude::*;
use stepwell_arch::{Ipa, Pa};
use stepwell_vm::devicetree::GuestTree;
use stepwell_vm::image_layout::Linked;

use super::*;

fn property(name: &str, value: impl ToPropertyValue) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).expect("the name is valid")
}

fn node(name: &str, compatible: &[&str]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).expect("the name is valid");
    node.add_property(property("compatible", compatible));
    node
}

fn at(name: &str, compatible: &str, reg: &[u32]) -> DeviceTreeNode {
    let mut node = node(name, &[compatible]);
    node.add_property(property("reg", reg));
    node
}

fn cells(mut node: DeviceTreeNode, address: u32, size: u32) -> DeviceTreeNode {
    node.add_property(property("#address-cells", address));
    node.add_property(property("#size-cells", size));
    node
}

fn domain_node() -> DeviceTreeNode {
    let mut domain = cells(node("domU0", &["xen,domain"]), 2, 2);
    domain.add_property(property("cpus", 2u32));
    domain.add_property(property("memory", 512u64 * 1024));
    let modules = [("kernel", 0x5000_0000), ("ramdisk", 0x5100_0000), ("device-tree", 0x5200_0000)];
    for (kind, base) in modules {
        let name = format!("module@{base:x}");
        let mut module = node(&name, &[&format!("multiboot,{kind}"), "multiboot,module"]);
        module.add_property(property("reg", [0u32, base, 0, 0x1234]));
        if kind == "kernel" {
            module.add_property(property("bootargs", "console=ttyAMA0"));
        }
        domain.add_child(module);
    }
    domain
}

/// A tree like the one of `virt,virtualization=on,gic-version=3`, with a domain in it.
fn machine() -> DeviceTree {
    let mut tree = DeviceTree::new();
    let mut root = cells(node("", &["linux,dummy-virt"]), 2, 2);
    let mut psci = node("psci", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]);
    psci.add_property(property("method", "smc"));
    root.add_child(psci);
    let mut memory = DeviceTreeNode::new("memory@40000000").expect("the name is valid");
    memory.add_property(property("device_type", "memory"));
    memory.add_property(property("reg", [0u32, 0x4000_0000, 0, 0x2000_0000]));
    root.add_child(memory);
    root.add_child(at("pl011@9000000", "arm,pl011", &[0, 0x0900_0000, 0, 0x1000]));
    let gic = [0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0xf6_0000];
    root.add_child(at("intc@8000000", "arm,gic-v3", &gic));
    for slot in [1, 0] {
        let base = 0x0a00_0000 + 0x200 * slot;
        let name = format!("virtio_mmio@{base:x}");
        let mut virtio = at(&name, "virtio,mmio", &[0, base, 0, 0x200]);
        virtio.add_property(property("interrupts", [0, 16 + slot, 1]));
        root.add_child(virtio);
    }
    let mut cpus = cells(DeviceTreeNode::new("cpus").expect("the name is valid"), 1, 0);
    cpus.add_child(DeviceTreeNode::new("cpu-map").expect("the name is valid"));
    cpus.add_child(at("cpu@0", "arm,cortex-a57", &[0]));
    cpus.add_child(at("cpu@1", "arm,cortex-a57", &[1]));
    root.add_child(cpus);
    let mut chosen = cells(DeviceTreeNode::new("chosen").expect("the name is valid"), 2, 2);
    chosen.add_property(property("stepwell,trace-ring", [0u32, 0x5ff0_0000, 0, 0x10_0000]));
    chosen.add_property(property("stepwell,mailbox", [0u32, 0x5fe0_0000, 0, 0x2_1000]));
    chosen.add_property(property("stepwell,device-channel", [0u32, 0x5fc0_0000, 0, 0x10_8000]));
    chosen.add_child(domain_node());
    root.add_child(chosen);
    tree.root = root;
    tree
}

fn child<'a>(tree: &'a mut DeviceTree, path: &str) -> &'a mut DeviceTreeNode {
    tree.find_node_mut(path).expect("the fixture has it")
}

fn range_of(base: u64, bytes: u64) -> Range {
    Range { base: Pa(base), bytes }
}

#[test]
fn the_virt_board_is_understood() {
    let mut bytes = machine().to_dtb();
    bytes.extend([0xaa; 100]);
    let machine = parse(&bytes).expect("the tree is good");
    assert_eq!(machine.memory, [range_of(0x4000_0000, 0x2000_0000)]);
    assert_eq!(machine.cpus, [0, 1]);
    assert_eq!(machine.cpu_compatible, "arm,cortex-a57");
    assert_eq!(machine.gic.distributor, range_of(0x0800_0000, 0x1_0000));
    assert_eq!(machine.gic.redistributors, [range_of(0x080a_0000, 0xf6_0000)]);
    assert_eq!(machine.console.unwrap().registers, range_of(0x0900_0000, 0x1000));
    assert_eq!(machine.psci, Some(Conduit::Smc));
    assert_eq!(machine.trace_ring, Some(range_of(0x5ff0_0000, 0x10_0000)));
    assert_eq!(machine.mailbox, Some(range_of(0x5fe0_0000, 0x2_1000)));
    assert_eq!(machine.device_channel, Some(range_of(0x5fc0_0000, 0x10_8000)));
    let slots: std::vec::Vec<_> =
        machine.virtio.iter().map(|slot| (slot.registers.base.0, slot.intid)).collect();
    assert_eq!(slots, [(0x0a00_0000, 48), (0x0a00_0200, 49)]);
}

#[test]
fn a_domain_has_its_modules() {
    let bytes = machine().to_dtb();
    let machine = parse(&bytes).expect("the tree is good");
    let expected = DomainConfig {
        name: "domU0",
        cpus: 2,
        schedule: None,
        memory_bytes: 512 << 20,
        kernel: range_of(0x5000_0000, 0x1234),
        has_firmware: false,
        fw_cfg: None,
        time_of_day: (0, 0),
        linked: None,
        bootargs: "console=ttyAMA0",
        ramdisk: Some(range_of(0x5100_0000, 0x1234)),
        devicetree: Some(range_of(0x5200_0000, 0x1234)),
    };
    assert_eq!(machine.domains, [expected]);
}

#[test]
fn an_elf_says_where_it_is_linked() {
    let linked = |value: &[u8]| {
        let mut tree = machine();
        let kernel = child(&mut tree, "/chosen/domU0/module@50000000");
        kernel.add_property(property("stepwell,linked", value));
        parse(&tree.to_dtb()).map(|machine| machine.domains[0].linked)
    };
    let value = [0x4010_0000_u64.to_be_bytes(), 0x4010_0010_u64.to_be_bytes()].concat();
    let expected = Linked { address: Ipa(0x4010_0000), entry: Ipa(0x4010_0010) };
    assert_eq!(linked(&value), Ok(Some(expected)));
    let bad = HostTreeError::PropertyBad { node: "chosen/domU", property: "stepwell,linked" };
    for length in [0, 4, 8, 15] {
        assert_eq!(linked(&value[..length]), Err(bad), "{length} bytes");
    }
}

#[test]
fn firmware_lies_in_flash_of_the_right_size() {
    let with = |reg: [u32; 4]| {
        let mut tree = machine();
        let domain = child(&mut tree, "/chosen/domU0");
        domain.add_property(property("stepwell,time-of-day", 1_700_000_000_u32));
        domain.add_property(property("stepwell,time-of-day-ns", 999_999_999_u32));
        let kernel = child(&mut tree, "/chosen/domU0/module@50000000");
        kernel.add_property(property("stepwell,flash", [0_u8; 0].as_slice()));
        kernel.add_property(property("reg", reg));
        parse(&tree.to_dtb()).map(|machine| {
            let domain = &machine.domains[0];
            (domain.has_firmware, domain.time_of_day)
        })
    };
    assert_eq!(with([0, 0x5000_0000, 0, 0x0800_0000]), Ok((true, (1_700_000_000, 999_999_999))));
    let bad = HostTreeError::PropertyBad { node: "chosen/domU", property: "stepwell,flash" };
    for reg in [[0, 0x5000_0000, 0, 0x0400_0000], [0, 0x5000_1000, 0, 0x0800_0000]] {
        assert_eq!(with(reg), Err(bad));
    }
}

#[test]
fn what_need_not_be_there_need_not_be_there() {
    let mut tree = machine();
    tree.root.remove_child("chosen");
    tree.root.remove_child("pl011@9000000");
    let bytes = tree.to_dtb();
    let machine = parse(&bytes).expect("the tree is good");
    assert_eq!((machine.console, machine.trace_ring, machine.mailbox), (None, None, None));
    assert!(machine.domains.is_empty());
}

#[test]
fn a_missing_node_is_named() {
    for (name, expected) in
        [("memory@40000000", "memory"), ("intc@8000000", "arm,gic-v3"), ("cpus", "cpus")]
    {
        let mut tree = machine();
        tree.root.remove_child(name);
        assert_eq!(parse(&tree.to_dtb()), Err(HostTreeError::NodeMissing(expected)));
    }
    let mut tree = machine();
    child(&mut tree, "/chosen/domU0").remove_child("module@50000000");
    assert_eq!(parse(&tree.to_dtb()), Err(HostTreeError::NodeMissing("multiboot,kernel")));
}

#[test]
fn a_missing_or_bad_property_is_named() {
    let parsed_with = |change: &dyn Fn(&mut DeviceTreeNode)| {
        let mut tree = machine();
        change(child(&mut tree, "/chosen/domU0"));
        parse(&tree.to_dtb()).map(|_| ())
    };
    let node = "chosen/domU";
    let missing = |property| Err(HostTreeError::PropertyMissing { node, property });
    let bad = |property| Err(HostTreeError::PropertyBad { node, property });
    let without = |name: &str| parsed_with(&|domain| drop(domain.remove_property(name)));
    assert_eq!(without("cpus"), missing("cpus"));
    assert_eq!(without("memory"), missing("memory"));
    let with_memory =
        |value| parsed_with(&move |domain| domain.add_property(property("memory", value)));
    assert_eq!(with_memory(u64::MAX), bad("memory"));
    let no_cpus = parsed_with(&|domain| domain.add_property(property("cpus", 0u32)));
    assert_eq!(no_cpus, bad("cpus"));
}

#[test]
fn a_range_beyond_the_address_space_is_refused() {
    let mut tree = machine();
    let reg = [0, 0x0800_0000, 0, 0x1_0000, u32::MAX, 0, 1, 0];
    child(&mut tree, "/intc@8000000").add_property(property("reg", reg));
    let bad = HostTreeError::PropertyBad { node: "arm,gic-v3", property: "reg" };
    assert_eq!(parse(&tree.to_dtb()), Err(bad));
}

#[test]
fn a_device_switched_off_is_not_there() {
    let mut tree = machine();
    child(&mut tree, "/pl011@9000000").add_property(property("status", "disabled"));
    assert_eq!(parse(&tree.to_dtb()).expect("the tree is good").console, None);
}

#[test]
fn cpus_are_told_apart_by_their_affinity_and_those_that_failed_left_out() {
    let mut tree = machine();
    let cpus = child(&mut tree, "/cpus");
    for n in [0x100, 0x101] {
        cpus.add_child(at(&format!("cpu@{n:x}"), "arm,cortex-a72", &[n]));
    }
    let mut failed = at("cpu@102", "arm,cortex-a72", &[0x102]);
    failed.add_property(property("status", "fail"));
    cpus.add_child(failed);
    assert_eq!(parse(&tree.to_dtb()).expect("the tree is good").cpus, [0, 1, 0x100, 0x101]);
    let mut tree = machine();
    child(&mut tree, "/cpus").add_child(at("cpu@2", "arm,cortex-a72", &[0x8000_0000]));
    let bad = HostTreeError::PropertyBad { node: "cpu", property: "reg" };
    assert_eq!(parse(&tree.to_dtb()), Err(bad), "not an affinity");
}

#[test]
fn another_interrupt_controller_is_called_by_its_name() {
    let mut tree = machine();
    child(&mut tree, "/intc@8000000").add_property(property("compatible", "arm,gic-400"));
    let error = parse(&tree.to_dtb()).unwrap_err();
    assert_eq!(error, HostTreeError::NoGicV3 { found: "a GICv2 (arm,gic-400)" });
}

#[test]
fn a_machine_without_psci_is_one_all_the_same() {
    let mut tree = machine();
    tree.root.remove_child("psci");
    assert_eq!(parse(&tree.to_dtb()).expect("the tree is good").psci, None);
    let mut tree = machine();
    child(&mut tree, "/psci").add_property(property("method", "telepathy"));
    let bad = HostTreeError::PropertyBad { node: "psci", property: "method" };
    assert_eq!(parse(&tree.to_dtb()), Err(bad));
}

#[test]
fn interrupts_are_those_of_the_tree_or_the_usual_ones() {
    let mut tree = machine();
    assert_eq!(parse(&tree.to_dtb()).expect("the tree is good").intids, Intids::USUAL);
    child(&mut tree, "/intc@8000000").add_property(property("interrupts", [1_u32, 8, 4]));
    let mut timer = node("timer", &["arm,armv8-timer"]);
    let interrupts = [[1_u32, 13, 8], [1, 14, 8], [1, 12, 8], [1, 7, 8]];
    timer.add_property(property("interrupts", interrupts.as_flattened()));
    tree.root.add_child(timer);
    let expected = Intids { maintenance: 24, virtual_timer: 28, el2_timer: 23 };
    assert_eq!(parse(&tree.to_dtb()).expect("the tree is good").intids, expected);
}

#[test]
fn every_region_of_redistributors_is_known() {
    let mut tree = machine();
    let gic = child(&mut tree, "/intc@8000000");
    gic.add_property(property("#redistributor-regions", 2_u32));
    gic.add_property(property("redistributor-stride", 0x4_0000_u64));
    let missing = HostTreeError::PropertyMissing { node: "arm,gic-v3", property: "reg" };
    assert_eq!(parse(&tree.to_dtb()), Err(missing));
    let reg =
        [0_u32, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0xf6_0000, 0x40, 0, 0, 0x400_0000];
    child(&mut tree, "/intc@8000000").add_property(property("reg", reg));
    let dtb = tree.to_dtb();
    let gic = parse(&dtb).expect("the tree is good").gic;
    let regions = [range_of(0x080a_0000, 0xf6_0000), range_of(0x40_0000_0000, 0x400_0000)];
    assert_eq!((gic.redistributors.as_slice(), gic.stride), (&regions[..], Some(0x4_0000)));
}

#[test]
fn reserved_memory_is_known_and_what_is_off_is_not_reserved() {
    let mut tree = machine();
    tree.memory_reservations
        .push(dtoolkit::memreserve::MemoryReservation::new(0x4000_0000, 0x1000));
    let mut reserved = cells(DeviceTreeNode::new("reserved-memory").expect("it is valid"), 2, 2);
    let region = |name: &str, base: u32, flag: &str, value: &str| {
        let mut region = DeviceTreeNode::new(name).expect("the name is valid");
        region.add_property(property("reg", [0, base, 0, 0x1000]));
        region.add_property(property(flag, value));
        region
    };
    reserved.add_child(region("a@42000000", 0x4200_0000, "no-map", ""));
    reserved.add_child(region("b@43000000", 0x4300_0000, "reusable", ""));
    reserved.add_child(region("c@44000000", 0x4400_0000, "status", "disabled"));
    // To be placed by somebody else.
    reserved.add_child(DeviceTreeNode::new("linux,cma").expect("the name is valid"));
    tree.root.add_child(reserved);
    let found = parse(&tree.to_dtb()).expect("the tree is good").reserved;
    let reserved = |base, is_unmapped| Reserved { range: range_of(base, 0x1000), is_unmapped };
    let expected =
        [reserved(0x4000_0000, false), reserved(0x4200_0000, true), reserved(0x4300_0000, false)];
    assert_eq!(found, expected);
}

#[test]
fn memory_that_a_loader_has_not_filled_in_is_none() {
    let mut tree = machine();
    child(&mut tree, "/memory@40000000").add_property(property("reg", [0_u32, 0, 0, 0]));
    assert_eq!(parse(&tree.to_dtb()), Err(HostTreeError::NodeMissing("memory")));
}

#[test]
fn no_tree_is_no_tree() {
    let good = machine().to_dtb();
    for bytes in [&[][..], &[0; 64], &good[..good.len() - 1], &good[..40], &good[..7]] {
        assert_eq!(parse(bytes), Err(HostTreeError::NotATree));
    }
}

proptest! {
    /// Whatever happens to a tree on its way, it is read or refused.
    #[test]
    fn damage_is_survived(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = machine().to_dtb();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = parse(&bytes);
    }
}

#[test]
fn the_tree_that_a_guest_gets_is_understood() {
    let guest = GuestTree {
        vcpus: 2,
        cpu_compatible: "arm,cortex-a57",
        memory_bytes: 512 << 20,
        bootargs: "",
        initrd: None,
        has_gicv2: false,
        has_firmware: false,
    };
    let mut bytes = vec![0; 8192];
    guest.write(&mut bytes).expect("it fits");
    let machine = parse(&bytes).expect("it is a machine's tree, too");
    assert_eq!(machine.memory[0].bytes, 512 << 20);
    assert_eq!(machine.cpus, [0, 1]);
    assert_eq!(machine.psci, Some(Conduit::Hvc));
    assert_eq!(machine.gic.redistributors[0].base.0, 0x080a_0000);
    assert_eq!(machine.virtio.len(), 32);
    assert_eq!(machine.virtio[0].registers.base.0, 0x0a00_0000);
}
