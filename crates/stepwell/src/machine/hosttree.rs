//! The machine's device tree: QEMU's own, with the guest written into it.
//!
//! The guest is described by Xen's dom0less binding, which image builders and boot loaders know;
//! the trace ring, the link's mailbox, the device channel and what is set aside for checkpoints are
//! ours alone.

use super::layout::Piece;
use super::{Guest, Layout, MachineError, MachineOptions, TimeOfDay};
use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use stepwell_trace::kernel_image::LoadPlan;

/// Returns `qemu_tree` with the guest in its `/chosen`.
pub(super) fn edit(
    qemu_tree: &[u8],
    layout: &Layout,
    guest: &Guest,
    options: &MachineOptions,
) -> Result<Vec<u8>, MachineError> {
    let fdt = Fdt::new(qemu_tree).map_err(|error| MachineError::Tree(error.to_string()))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    let stdout =
        tree.root.child("chosen").and_then(|chosen| chosen.property("stdout-path").cloned());
    tree.root.remove_child("chosen");
    let mut chosen = node("chosen", &[]);
    cells(&mut chosen);
    // The hypervisor's log goes where QEMU's own console is.
    if let Some(stdout) = stdout {
        chosen.add_property(stdout);
    }
    // The RAM is a new file. Without this the hypervisor would clear what it gives the guest, and
    // a file that takes no room until it is written would take all of it.
    chosen.add_property(property("stepwell,zeroed-memory", Vec::new()));
    chosen.add_property(property("stepwell,trace-ring", range(layout.ring)));
    chosen.add_property(property("stepwell,mailbox", range(layout.mailbox)));
    if let Some(checkpoints) = layout.checkpoints {
        chosen.add_property(property("stepwell,checkpoints", range(checkpoints)));
    }
    chosen.add_property(property("stepwell,device-channel", range(layout.device_channel)));
    if let Some(words) = &options.test_mode {
        chosen.add_property(property("stepwell,test-mode", strings(&[words])));
    }
    chosen.add_child(domain(layout, guest, options));
    tree.root.add_child(chosen);
    Ok(tree.to_dtb())
}

fn domain(layout: &Layout, guest: &Guest, options: &MachineOptions) -> DeviceTreeNode {
    let mut domain = node("domU0", &["xen,domain"]);
    cells(&mut domain);
    domain.add_property(property("cpus", u32::from(options.smp).to_be_bytes().to_vec()));
    if let Some(schedule) = options.schedule {
        domain.add_property(property("stepwell,schedule", strings(&[&schedule.to_string()])));
    }
    let kib = layout.guest_bytes / 1024;
    domain.add_property(property("memory", kib.to_be_bytes().to_vec()));
    // Who counts instructions wants each run to be the same.
    let time_of_day =
        if options.schedule.is_some() { TimeOfDay::Fixed } else { options.time_of_day };
    let (seconds, nanoseconds) = time_of_day.seconds();
    domain.add_property(property("stepwell,time-of-day", seconds.to_be_bytes().to_vec()));
    domain.add_property(property("stepwell,time-of-day-ns", nanoseconds.to_be_bytes().to_vec()));
    let mut kernel = module(layout.kernel, "multiboot,kernel");
    kernel.add_property(property("bootargs", strings(&[&guest.command_line])));
    if guest.firmware.is_some() {
        kernel.add_property(property("stepwell,flash", Vec::new()));
    } else if let LoadPlan::Fixed { address, entry } = guest.kernel.load {
        let places = [address.to_be_bytes(), entry.to_be_bytes()].concat();
        kernel.add_property(property("stepwell,linked", places));
    }
    domain.add_child(kernel);
    if let Some(fw_cfg) = layout.fw_cfg {
        domain.add_child(module(fw_cfg, "stepwell,fw-cfg"));
    }
    if let Some(initrd) = layout.initrd {
        domain.add_child(module(initrd, "multiboot,ramdisk"));
    }
    if let Some(devicetree) = layout.devicetree {
        domain.add_child(module(devicetree, "multiboot,device-tree"));
    }
    domain
}

fn module(piece: Piece, compatible: &str) -> DeviceTreeNode {
    let name = format!("module@{:x}", piece.address);
    let mut module = node(&name, &[compatible, "multiboot,module"]);
    module.add_property(property("reg", range(piece)));
    module
}

fn node(name: &str, compatible: &[&str]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).expect("our names are valid");
    if !compatible.is_empty() {
        node.add_property(property("compatible", strings(compatible)));
    }
    node
}

fn cells(node: &mut DeviceTreeNode) {
    for name in ["#address-cells", "#size-cells"] {
        node.add_property(property(name, 2_u32.to_be_bytes().to_vec()));
    }
}

fn property(name: &str, value: Vec<u8>) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).expect("our names are valid")
}

fn range(piece: Piece) -> Vec<u8> {
    [piece.address.0.to_be_bytes(), piece.bytes.to_be_bytes()].concat()
}

fn strings(strings: &[&str]) -> Vec<u8> {
    strings.iter().flat_map(|string| string.bytes().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Memory;
    use dtoolkit::Property;
    use stepwell_trace::kernel_image::{KernelImage, RawPolicy};

    #[test]
    fn the_guest_stands_in_the_tree() {
        let mut qemu = DeviceTree::new();
        let mut cpus = node("cpus", &[]);
        cpus.add_child(node("cpu@0", &["arm,cortex-a57"]));
        cpus.add_child(node("cpu@1", &["arm,cortex-a57"]));
        qemu.root.add_child(cpus);
        let mut stale = node("chosen", &["stale"]);
        stale.add_property(property("stdout-path", strings(&["/pl011@9000000"])));
        qemu.root.add_child(stale);

        let mut kernel = KernelImage::recognise(vec![1; 100], RawPolicy::Accept).unwrap();
        kernel.load = LoadPlan::Fixed { address: 0x4100_0000, entry: 0x4100_0010 };
        let (initrd, devicetree) = (Some(vec![2; 10]), None);
        let command_line = "quiet a=b".into();
        let firmware = None;
        let guest =
            Guest { kernel, firmware, initrd, devicetree, command_line, moves: true, loaded: None };
        let layout = Layout::with_checkpoints(Memory { bytes: 64 << 20 }, &guest).unwrap();
        let options = MachineOptions {
            smp: 2,
            schedule: Some(stepwell_debuggee::Schedule::Turns { instructions: 500 }),
            test_mode: Some("seed=1".into()),
            ..Default::default()
        };
        let dtb = edit(&qemu.to_dtb(), &layout, &guest, &options).unwrap();

        let tree = DeviceTree::from_fdt(&Fdt::new(&dtb).unwrap());
        let chosen = tree.root.child("chosen").unwrap();
        assert!(chosen.property("compatible").is_none(), "QEMU's own is gone");
        let stdout = chosen.property("stdout-path").unwrap();
        assert_eq!(stdout.value(), b"/pl011@9000000\0");
        assert!(chosen.property("stepwell,zeroed-memory").is_some());
        let ring = chosen.property("stepwell,trace-ring").unwrap();
        assert_eq!(ring.value(), range(layout.ring));
        let mailbox = chosen.property("stepwell,mailbox").unwrap();
        assert_eq!(mailbox.value(), range(layout.mailbox));
        let checkpoints = chosen.property("stepwell,checkpoints").unwrap();
        assert_eq!(checkpoints.value(), range(layout.checkpoints.unwrap()));
        let channel = chosen.property("stepwell,device-channel").unwrap();
        assert_eq!(channel.value(), range(layout.device_channel));
        let test_mode = chosen.property("stepwell,test-mode").unwrap();
        assert_eq!(test_mode.value(), b"seed=1\0");
        let domain = chosen.child("domU0").unwrap();
        assert_eq!(domain.property("cpus").unwrap().value(), 2_u32.to_be_bytes());
        let schedule = domain.property("stepwell,schedule").unwrap();
        assert_eq!(schedule.value(), b"turns=500\0");
        let time_of_day = domain.property("stepwell,time-of-day").unwrap();
        let (fixed, nanoseconds) = TimeOfDay::Fixed.seconds();
        assert_eq!(time_of_day.value(), fixed.to_be_bytes(), "as there is a schedule");
        let begins = domain.property("stepwell,time-of-day-ns").unwrap();
        assert_eq!((begins.value(), nanoseconds), (&[0; 4][..], 0), "on a whole second");
        assert_eq!(domain.property("memory").unwrap().value(), 65536_u64.to_be_bytes());
        assert_eq!(domain.children().count(), 2);
        let module = format!("module@{:x}", layout.kernel.address.0);
        let kernel = domain.child(&module).unwrap();
        assert_eq!(kernel.property("bootargs").unwrap().value(), b"quiet a=b\0");
        let linked = [0x4100_0000_u64.to_be_bytes(), 0x4100_0010_u64.to_be_bytes()].concat();
        assert_eq!(kernel.property("stepwell,linked").unwrap().value(), linked);
        let compatible = b"multiboot,kernel\0multiboot,module\0";
        assert_eq!(kernel.property("compatible").unwrap().value(), compatible);
    }
}
