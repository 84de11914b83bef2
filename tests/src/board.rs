//! Boards: the unmodified image of the hypervisor, started as a boot loader does, with a guest in
//! the board's device tree and no tool.
//!
//! What is looked at is the board's UART: the first message, the guest's result, or the sentence
//! that says what prevents it.

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dtoolkit::Node;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use crate::guest::Guest;
use crate::machine::hypervisor;
use crate::process::{Running, configured, run};

/// For the emulators of boards, which start slowly on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(120);
/// Where a loader puts the tree where it is not QEMU's own.
const TREE: u64 = 0x4f00_0000;
/// Memory of the guest.
const GUEST_KIB: u64 = 64 << 10;

/// How the image is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By `-kernel`.
    Kernel,
    /// By a boot loader of two instructions, from this address.
    At(u64),
    /// As before, with nothing in X0.
    WithoutTree(u64),
    /// By U-Boot's `booti`, from this address.
    UBoot(u64),
    /// As before, with the tree that U-Boot itself was given, in which there is no domain.
    UBootAlone(u64),
}

/// Where the board's device tree is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// QEMU makes it.
    Qemu,
    /// Debian's kernel package has it.
    Debian(&'static str),
}

/// A guest in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTree {
    /// Its name.
    pub name: &'static str,
    /// Where it is loaded.
    pub at: u64,
    /// Its CPUs.
    pub cpus: u32,
}

/// A board, and what is expected of it.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// QEMU's name of it, with options.
    pub machine: &'static str,
    /// More options of QEMU's, separated by spaces.
    pub options: &'static str,
    /// How the image is started.
    pub start: Start,
    /// Its tree.
    pub tree: Tree,
    /// The guest.
    pub guest: Option<InTree>,
    /// What is on the UART in the end.
    pub expected: &'static str,
}

impl Board {
    /// Whether this QEMU has it.
    ///
    /// # Errors
    /// When QEMU cannot be run.
    pub fn is_known_to(&self, qemu: &Path) -> Result<bool, String> {
        let name = self.machine.split(',').next().unwrap_or(self.machine);
        let listed = run(Command::new(qemu).args(["-machine", "help"]), LIMIT);
        let listed = listed.map_err(|error| error.to_string())?.stdout;
        Ok(listed.lines().any(|line| line.split(' ').next() == Some(name)))
    }

    /// Starts it, and returns what the hypervisor and the guest said up to what is expected, or to
    /// the end.
    ///
    /// # Errors
    /// When something is missing or QEMU cannot be run.
    pub fn run(&self, qemu: &Path) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let tree = folder.path().join("board.dtb");
        fs::write(&tree, self.tree(qemu, folder.path())?).map_err(|error| error.to_string())?;
        let mut command = self.command(qemu, "");
        command.args(["-monitor", "none"]);
        if let Some(guest) = self.guest {
            load(&mut command, &Guest::named(guest.name).path, guest.at);
        }
        self.start(&mut command, &tree, folder.path())?;
        self.watch(&mut command)
    }

    fn command(&self, qemu: &Path, more: &str) -> Command {
        let mut command = Command::new(qemu);
        command.args(["-machine", &format!("{}{more}", self.machine)]);
        command.args(self.options.split(' ')).args(["-display", "none"]);
        // Boards with sound look for a sound card of the host's.
        command.env("QEMU_AUDIO_DRV", "none");
        command
    }

    /// The board's tree with the guest in it.
    fn tree(&self, qemu: &Path, folder: &Path) -> Result<Vec<u8>, String> {
        let path = match self.tree {
            Tree::Debian(name) => {
                configured("STEPWELL_BOARD_TREES", "target/guests/boards").join(name)
            }
            Tree::Qemu => {
                let path = folder.join("dumped.dtb");
                let dump = format!(",dumpdtb={}", path.display());
                // Some boards make a tree only for a kernel.
                let mut command = self.command(qemu, &dump);
                command.arg("-kernel").arg(hypervisor());
                run(&mut command, LIMIT).map_err(|error| error.to_string())?;
                path
            }
        };
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // Boards have names that are longer than the specification, and `Fdt::new`, allow.
        let mut tree = DeviceTree::from_fdt(&Fdt::new_unchecked(&bytes));
        if let Some(guest) = self.guest {
            add_domain(&mut tree, guest);
        }
        Ok(tree.to_dtb())
    }

    fn start(&self, command: &mut Command, tree: &Path, folder: &Path) -> Result<(), String> {
        let image = hypervisor();
        match self.start {
            Start::Kernel => {
                command.arg("-kernel").arg(image).arg("-dtb").arg(tree);
            }
            Start::At(address) | Start::WithoutTree(address) => {
                let file = folder.join("loader");
                let loses_tree = matches!(self.start, Start::WithoutTree(_));
                fs::write(&file, jump(address, loses_tree)).map_err(|error| error.to_string())?;
                command.arg("-kernel").arg(file).arg("-dtb").arg(tree);
                load(command, &image, address);
            }
            Start::UBoot(address) | Start::UBootAlone(address) => {
                let u_boot =
                    configured("STEPWELL_GUESTS", "target/guests").join("debian/u-boot.bin");
                command.arg("-bios").arg(u_boot);
                load(command, &image, address);
                load(command, tree, TREE);
            }
        }
        Ok(())
    }

    fn watch(&self, command: &mut Command) -> Result<Vec<String>, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut qemu = Running::start(command).map_err(|error| error.to_string())?;
        qemu.kill_after(LIMIT);
        let (mut keyboard, pipe) = (qemu.stdin(), qemu.lines());
        let mut pipe = pipe.ok_or("QEMU has no standard output")?;
        let mut text = Vec::new();
        let mut typed = 0;
        loop {
            let chunk = pipe.fill_buf().map_err(|error| error.to_string())?;
            let length = chunk.len();
            text.extend_from_slice(chunk);
            pipe.consume(length);
            let shown = String::from_utf8_lossy(&text);
            let said = self.said(&shown);
            if length == 0 || said.last().is_some_and(|line| line.contains(self.expected)) {
                return Ok(said);
            }
            if let Some((_, words)) =
                self.typing().get(typed).filter(|(cue, _)| shown.contains(cue))
                && let Some(keyboard) = &mut keyboard
            {
                keyboard.write_all(words.as_bytes()).map_err(|error| error.to_string())?;
                typed += 1;
            }
        }
    }

    /// What is typed, each after what is to be on the UART before.
    fn typing(&self) -> Vec<(&'static str, String)> {
        let booti = match self.start {
            Start::UBoot(address) => format!("booti {address:#x} - {TREE:#x}\r"),
            Start::UBootAlone(address) => format!("booti {address:#x} - $fdtcontroladdr\r"),
            _ => return Vec::new(),
        };
        // Any key ends the countdown before U-Boot would boot something else.
        vec![("stop autoboot", "\r".to_owned()), ("=> ", booti)]
    }

    /// The whole lines of the hypervisor's and the guest's.
    fn said(&self, shown: &str) -> Vec<String> {
        let guest = self.guest.map(|guest| format!("{}: ", guest.name));
        let is_wanted = |line: &&str| {
            line.starts_with("stepwell: ")
                || guest.as_ref().is_some_and(|guest| line.starts_with(guest))
        };
        let whole = shown.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::trim).filter(is_wanted).map(str::to_owned).collect()
    }
}

/// Has QEMU load a file to an address.
fn load(command: &mut Command, file: &Path, address: u64) {
    let file = file.display().to_string().replace(',', ",,");
    command.args(["-device", &format!("loader,file={file},addr={address:#x},force-raw=on")]);
}

/// Code that goes on at an address, with X0 as it is or 0.
fn jump(address: u64, loses_tree: bool) -> Vec<u8> {
    let quarter = |n: u32| (address >> (16 * n) & 0xffff) as u32;
    let movz = |n: u32| 0xd280_0010 | n << 21 | quarter(n) << 5;
    let movk = |n: u32| 0xf280_0010 | n << 21 | quarter(n) << 5;
    let (mov_x0_0, nop, br_x16) = (0xd280_0000, 0xd503_201f, 0xd61f_0200);
    let first = if loses_tree { mov_x0_0 } else { nop };
    let code = [first, movz(0), movk(1), movk(2), br_x16];
    code.map(u32::to_le_bytes).as_flattened().to_vec()
}

/// Adds a domain, as docs/boards.md shows.
fn add_domain(tree: &mut DeviceTree, guest: InTree) {
    if tree.root.child("chosen").is_none() {
        tree.root.add_child(node("chosen", &[]));
    }
    let bytes = fs::metadata(Guest::named(guest.name).path).map_or(0, |file| file.len());
    let mut module = node(
        &format!("module@{:x}", guest.at),
        &[("compatible", b"multiboot,kernel\0multiboot,module\0")],
    );
    module.add_property(property("reg", [guest.at, bytes].map(u64::to_be_bytes).as_flattened()));
    let mut domain = node("domU0", &[("compatible", b"xen,domain\0")]);
    cells(&mut domain);
    domain.add_property(property("cpus", &guest.cpus.to_be_bytes()));
    domain.add_property(property("memory", &GUEST_KIB.to_be_bytes()));
    domain.add_child(module);
    if let Some(chosen) = tree.root.child_mut("chosen") {
        cells(chosen);
        chosen.add_child(domain);
    }
}

fn cells(node: &mut DeviceTreeNode) {
    for name in ["#address-cells", "#size-cells"] {
        node.add_property(property(name, &2_u32.to_be_bytes()));
    }
}

fn node(name: &str, properties: &[(&str, &[u8])]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    for (name, value) in properties {
        node.add_property(property(name, value));
    }
    node
}

fn property(name: &str, value: &[u8]) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}

const VIRT: &str = "virt,virtualization=on,gic-version=3,dtb-randomness=off";
const VIRT_OPTIONS: &str = "-cpu cortex-a57 -m 1G -nic none -serial stdio";
const PLAIN: Option<InTree> = Some(InTree { name: "plain", at: 0x6000_0000, cpus: 1 });
const ENDS: &str = "domain 0 switched itself off";

const fn virt(start: Start) -> Board {
    Board {
        machine: VIRT,
        options: VIRT_OPTIONS,
        start,
        tree: Tree::Qemu,
        guest: PLAIN,
        expected: ENDS,
    }
}

/// QEMU's own boards: those that every run of the tests starts.
pub const QUICK: [Board; 14] = [
    virt(Start::Kernel),
    virt(Start::At(0x4100_1000)),
    virt(Start::At(0x7f00_0000)),
    Board { options: "-cpu max -m 4G -nic none -serial stdio", ..virt(Start::At(0x1_2000_0000)) },
    Board {
        options: "-cpu cortex-a57 -smp 4 -m 1G -nic none -serial stdio",
        guest: Some(InTree { name: "psci", at: 0x6000_0000, cpus: 4 }),
        ..virt(Start::Kernel)
    },
    virt(Start::UBoot(0x4020_0000)),
    virt(Start::UBoot(0x4200_0000)),
    virt(Start::UBoot(0x5000_0000)),
    Board { expected: "no domain under /chosen", ..virt(Start::UBootAlone(0x4020_0000)) },
    Board {
        machine: "xlnx-versal-virt",
        options: "-m 2G -serial stdio",
        guest: Some(InTree { name: "plain", at: 0x4000_0000, cpus: 1 }),
        ..virt(Start::Kernel)
    },
    Board {
        machine: "virt,gic-version=3",
        expected: "started at EL1, and a hypervisor needs EL2",
        ..virt(Start::Kernel)
    },
    Board {
        machine: "virt,virtualization=on,gic-version=2",
        expected: "no GICv3 but a GICv2 (arm,cortex-a15-gic)",
        ..virt(Start::Kernel)
    },
    Board { expected: "the device tree has no RAM there", ..virt(Start::At(0x7fe0_0000)) },
    Board {
        expected: "X0 is 0x0, and no device tree is there",
        ..virt(Start::WithoutTree(0x4200_0000))
    },
];

/// Boards with Debian's trees, for which more has to be fetched, some of them from QEMU 10 on.
pub const DEBIAN: [Board; 3] = [
    Board {
        machine: "imx8mp-evk",
        options: "-m 1G -serial null -serial stdio",
        tree: Tree::Debian("imx8mp-evk.dtb"),
        ..virt(Start::Kernel)
    },
    Board {
        machine: "xlnx-zcu102,virtualization=on",
        options: "-m 2G -serial stdio",
        tree: Tree::Debian("zynqmp-zcu102-rev1.0.dtb"),
        guest: Some(InTree { name: "plain", at: 0x4000_0000, cpus: 1 }),
        expected: "no GICv3 but a GICv2 (arm,gic-400)",
        ..virt(Start::Kernel)
    },
    Board {
        machine: "raspi4b",
        options: "-serial null -serial stdio",
        tree: Tree::Debian("bcm2711-rpi-4-b.dtb"),
        guest: Some(InTree { name: "plain", at: 0x2000_0000, cpus: 1 }),
        expected: "no GICv3 but a GICv2 (arm,gic-400)",
        ..virt(Start::Kernel)
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_two_instructions_goes_where_it_is_told() {
        let words: Vec<u32> = jump(0x1_2345_6000, false)
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        // movz x16, #0x6000; movk x16, #0x2345, lsl #16; movk x16, #1, lsl #32; br x16.
        assert_eq!(words[1..], [0xd28c_0010, 0xf2a4_68b0, 0xf2c0_0030, 0xd61f_0200]);
        assert_eq!(jump(0, true)[..4], 0xd280_0000_u32.to_le_bytes());
    }
}
