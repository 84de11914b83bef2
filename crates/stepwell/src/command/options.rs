//! The options that all commands with a guest have.

use super::session::Session;
use crate::interruption;
use crate::machine::{
    Guest, Handed, Layout, Machine, MachineKind, MachineOptions, Memory, TimeOfDay,
};
use crate::names::Names;
use crate::relocation::{Sample, is_edk2};
use crate::terminal::notice;
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use stepwell_arch::Ipa;
use stepwell_debuggee::{Schedule, TimePolicy};
use stepwell_devices::{
    Device, Devices, Disk, DiskOptions, Entropy, Network, NetworkOptions, Share, ShareOptions,
    Source, demand_names_differ,
};
use stepwell_trace::Symbols;
use stepwell_trace::kernel_image::{KernelImage, LoadPlan, RawPolicy};
use stepwell_trace::symbols::{elf, identity};

/// What a replay's log says of its run, and no option can.
pub(super) const OF_THE_RUN: [&str; 14] = [
    "append",
    "firmware",
    "firmware_variables",
    "smp",
    "cpus",
    "memory",
    "cpu",
    "raw",
    "entropy",
    "net",
    "shares",
    "irq",
    "others",
    "time",
];

/// The guest and its machine.
#[derive(Clone, Debug, Args)]
pub(super) struct GuestOptions {
    /// Kernel: Image, Image.gz, EFI zboot, ELF, or Debian's vmlinuz. Beside --firmware it is handed to
    /// that, which starts it
    #[arg(long, value_name = "FILE", required_unless_present = "firmware", help_heading = "Guest")]
    pub(super) kernel: Option<PathBuf>,
    /// Firmware in flash, where the guest begins: EDK2 (Debian's AAVMF_CODE.fd), U-Boot (u-boot.bin)
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub(super) firmware: Option<PathBuf>,
    /// Where the firmware's variables are kept; made from the template beside the firmware if it is
    /// not there. Without it they are forgotten at the end
    #[arg(long, value_name = "FILE", requires = "firmware", help_heading = "Guest")]
    pub(super) firmware_variables: Option<PathBuf>,
    /// Initial ramdisk
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub(super) initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", help_heading = "Guest")]
    pub(super) append: String,
    /// Number of vCPUs, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Guest",
        value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(super) smp: u8,
    /// What the guest runs on: qemu, or kvm on an arm64 host, which is chosen by itself where it can do
    /// what is asked for
    #[arg(long, value_name = "KIND", help_heading = "Machine")]
    pub(super) machine: Option<MachineKind>,
    /// CPUs of the machine, where the vCPUs are to share fewer, in turns
    #[arg(long, value_name = "N", help_heading = "Machine",
        value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(super) cpus: Option<u8>,
    /// Memory, with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "512M", help_heading = "Guest")]
    pub(super) memory: Memory,
    /// CPU model, as QEMU names it
    #[arg(long, value_name = "MODEL", default_value = "cortex-a57", help_heading = "Guest")]
    pub(super) cpu: String,
    /// Device tree for the guest, used as it is
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub(super) dtb: Option<PathBuf>,
    /// Takes a kernel without any header for bare-metal code, loaded at 0x40080000
    #[arg(long, help_heading = "Guest")]
    pub(super) raw: bool,
    /// Disk: a raw or qcow2 image, with `,readonly` for one that the guest may not write, or with
    /// `,snapshot` to forget what it writes. May be given several times
    #[arg(long = "disk", value_name = "FILE", help_heading = "Guest")]
    pub(super) disks: Vec<DiskOptions>,
    /// Source of random bytes for the guest (virtio's entropy device): host, or seed=N for the same
    /// bytes in each run
    #[arg(long, value_name = "SOURCE", help_heading = "Guest")]
    pub(super) entropy: Option<Source>,
    /// Network for the guest: user, the host's by the program passt, or tap=NAME, a TAP device
    #[arg(long, value_name = "NETWORK", help_heading = "Guest")]
    pub(super) net: Option<NetworkOptions>,
    /// Folder that the guest has, too (`mount -t virtiofs share /mnt`): only to be read, or with `,write`,
    /// and with `,tag=NAME` by another name than share. May be given several times
    #[arg(long = "share", value_name = "FOLDER", help_heading = "Guest")]
    pub(super) shares: Vec<ShareOptions>,
    /// ELF with the kernel's symbols, where it carries none itself; with the firmware's own, where that
    /// is U-Boot, or those of what EDK2 loads: an ELF, or a kernel that carries them
    #[arg(long, value_name = "ELF", help_heading = "Guest")]
    pub(super) symbols: Option<PathBuf>,
    /// Folder with the guest's files as the guest has them: for the symbols of its programs, and
    /// PROGRAM!SYMBOL
    #[arg(long, value_name = "DIR", help_heading = "Guest")]
    pub(super) sysroot: Option<PathBuf>,
    /// Hypervisor image in place of the built-in one
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub(super) hypervisor: Option<PathBuf>,
    /// QEMU
    #[arg(
        long,
        value_name = "PATH",
        default_value = "qemu-system-aarch64",
        env = "STEPWELL_QEMU",
        help_heading = "Machine"
    )]
    pub(super) qemu: PathBuf,
    /// Shows QEMU's command line and messages, and the hypervisor's log
    #[arg(long, short, help_heading = "Machine")]
    pub(super) verbose: bool,
    /// What a hypervisor that was built for tests does to the vCPU
    #[arg(long, value_name = "WORDS", hide = true)]
    pub(super) test_mode: Option<String>,
}

/// A guest that is ready to be started.
pub(super) struct Prepared {
    kind: Option<MachineKind>,
    options: MachineOptions,
    guest: Guest,
    pub(super) names: Names,
}

impl GuestOptions {
    /// Reads and checks everything that needs no machine.
    pub(super) fn prepare(&self) -> anyhow::Result<Prepared> {
        let mut guest = self.read_guest()?;
        let is_elf =
            guest.firmware.is_none() && matches!(guest.kernel.load, LoadPlan::Fixed { .. });
        if let Some(initrd) = self.initrd.as_ref().filter(|_| !is_elf && guest.firmware.is_none()) {
            guest = guest.with_initrd(initrd)?;
        }
        if let Some(dtb) = &self.dtb {
            guest = guest.with_devicetree(dtb)?;
        }
        for warning in self.without_effect(is_elf) {
            notice(&format!("warning: {warning}"));
        }
        guest.command_line.clone_from(&self.append);
        let layout = Layout::new(self.memory, &guest)?;
        let symbols = match self.loaded(&guest)? {
            Some((image, symbols)) => {
                guest.loaded = Some(image);
                Some(Ok(symbols))
            }
            None => self.symbols.as_deref().map(|path| {
                symbols_of(path, &guest, layout.kernel_load)
                    .with_context(|| path.display().to_string())
            }),
        };
        let mut names = Names::new(symbols.transpose()?, &guest, &layout);
        if let Some(root) = &self.sysroot {
            anyhow::ensure!(root.is_dir(), "{}: --sysroot names no folder", root.display());
            names.programs().set_root(root);
        }
        let options = MachineOptions {
            smp: self.smp,
            cpus: self.cpus,
            schedule: None,
            memory: self.memory,
            cpu: self.cpu.clone(),
            hypervisor: self.hypervisor.clone(),
            qemu: self.qemu.clone(),
            verbose: self.verbose,
            test_mode: self.test_mode.clone(),
            devices: self.devices()?,
            time_of_day: TimeOfDay::Real,
        };
        let mut prepared = Prepared { kind: self.machine, options, guest, names };
        prepared.place_breakpoints();
        Ok(prepared)
    }

    fn read_guest(&self) -> anyhow::Result<Guest> {
        let Some(firmware) = &self.firmware else {
            let raw = if self.raw { RawPolicy::Accept } else { RawPolicy::Refuse };
            return Ok(Guest::read(self.kernel()?, raw)?);
        };
        let handed = Handed {
            kernel: self.kernel.as_deref(),
            initrd: self.initrd.as_deref(),
            command_line: &self.append,
            vcpus: self.smp,
        };
        Ok(Guest::with_firmware(firmware, self.firmware_variables.as_deref(), handed)?)
    }

    /// Reads what EDK2 is to load that names are wanted of, and its symbols: what --symbols names, be it
    /// an ELF or a kernel that carries its own, or else the kernel that it is handed.
    fn loaded(&self, guest: &Guest) -> anyhow::Result<Option<(KernelImage, Symbols)>> {
        if guest.firmware.is_none() || !is_edk2(&guest.kernel.bytes) {
            return Ok(None);
        }
        let read = |path: &Path| -> anyhow::Result<KernelImage> {
            Ok(KernelImage::recognise(std::fs::read(path)?, RawPolicy::Refuse)?)
        };
        // What it is handed is any EFI application.
        let kernel = self.kernel.as_deref().and_then(|path| read(path).ok());
        let Some(path) = &self.symbols else {
            let named = |image: KernelImage| image.symbols().map(|symbols| (image, symbols));
            return Ok(kernel.and_then(named));
        };
        let named = read(path).and_then(|image| {
            let symbols = image.symbols().context("has no symbols")?;
            Ok((image, symbols))
        });
        let (image, symbols) = named.with_context(|| path.display().to_string())?;
        // An ELF may have code alone, or none; the kernel itself has all.
        let base = symbols.link_base().unwrap_or_default();
        match kernel {
            Some(kernel) if Sample::of(&kernel.bytes, &symbols, base).is_in(&image.bytes) => {
                Ok(Some((kernel, symbols)))
            }
            _ => Ok(Some((image, symbols))),
        }
    }

    /// Opens what is plugged into the guest's board.
    pub(super) fn devices(&self) -> anyhow::Result<Devices> {
        let mut devices: Vec<Box<dyn Device>> = Vec::new();
        for disk in &self.disks {
            devices.push(Box::new(Disk::open(disk)?));
        }
        if let Some(source) = self.entropy {
            devices.push(Box::new(Entropy::new(source)));
        }
        if let Some(network) = &self.net {
            devices.push(Box::new(Network::open(network)?));
        }
        demand_names_differ(&self.shares).map_err(|name| {
            anyhow::anyhow!(
                "two shared folders are named {name}: give one another name by `,tag=NAME`"
            )
        })?;
        for share in &self.shares {
            devices.push(Box::new(Share::open(share)?));
        }
        let count = devices.len();
        Devices::new(devices).with_context(|| {
            format!("{count} devices are more than the board has slots for, which is 32")
        })
    }

    /// Says which options have no effect beside others.
    fn without_effect(&self, is_elf: bool) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.firmware.is_some() && self.kernel.is_none() {
            if self.initrd.is_some() {
                warnings.push("--initrd has no effect: it is a kernel's, and there is no --kernel");
            }
            if !self.append.is_empty() {
                warnings.push("--append has no effect: it is a kernel's, and there is no --kernel");
            }
        }
        if self.dtb.is_some() && !self.append.is_empty() {
            warnings.push("--append has no effect: the tree of --dtb is used as it is");
        }
        if self.initrd.is_some() && is_elf {
            warnings.push("--initrd has no effect: an ELF is started without one, as by QEMU");
        } else if self.initrd.is_some() && self.dtb.is_some() {
            warnings.push("--initrd is loaded, but the tree of --dtb is used as it is");
        }
        warnings
    }

    /// The files that are read, and what they are.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        let disks = self.disks.iter().map(|disk| (disk.path.as_path(), "a disk"));
        let files = [
            (self.kernel.as_ref(), "the kernel"),
            (self.firmware.as_ref(), "the firmware"),
            (self.firmware_variables.as_ref(), "the firmware's variables"),
            (self.initrd.as_ref(), "the initial ramdisk"),
            (self.dtb.as_ref(), "the device tree"),
            (self.symbols.as_ref(), "the ELF with the symbols"),
            (self.hypervisor.as_ref(), "the hypervisor"),
        ];
        let files = files.into_iter().filter_map(|(path, what)| Some((path?.as_path(), what)));
        files.chain(disks)
    }

    /// Demands that what is plugged in gives the same again in a replay.
    pub(super) fn demand_repeatable(&self) -> anyhow::Result<()> {
        if let Some(disk) = self.disks.iter().find(|disk| disk.writes()) {
            anyhow::bail!(
                "{} would be written to, and a replay could not have it again as it was: attach it with \
                 `,snapshot` or `,readonly`",
                disk.path.display()
            );
        }
        anyhow::ensure!(
            self.entropy != Some(Source::Host),
            "--entropy host gives other bytes each time: use --entropy seed=N for a run that is recorded"
        );
        anyhow::ensure!(
            self.firmware.is_none(),
            "a recording has no firmware: flash would not be in the log; start the kernel by --kernel alone"
        );
        anyhow::ensure!(
            self.net.is_none(),
            "a recording has no network: what arrives by it would not be in the log; leave --net out"
        );
        anyhow::ensure!(
            self.shares.is_empty(),
            "a recording has no shared folder: what is read from it would not be in the log; put the files \
             on a --disk, or into the --initrd"
        );
        Ok(())
    }

    pub(super) fn kernel(&self) -> anyhow::Result<&Path> {
        self.kernel.as_deref().context("which kernel? Write --kernel FILE")
    }

    pub(super) fn cpu(&self) -> &str {
        &self.cpu
    }

    pub(super) fn append(&self) -> &str {
        &self.append
    }

    pub(super) const fn smp(&self) -> u8 {
        self.smp
    }

    pub(super) fn symbols(&self) -> Option<&Path> {
        self.symbols.as_deref()
    }
}

/// Reads the symbols of an ELF, and demands that they are this kernel's.
fn symbols_of(path: &Path, guest: &Guest, load: Ipa) -> anyhow::Result<Symbols> {
    let bytes = std::fs::read(path)?;
    let symbols = elf::from_elf(&bytes)?;
    let base = if guest.moves { symbols.link_base() } else { Some(load.0) };
    let own = guest.kernel.symbols();
    let image = &guest.kernel.bytes;
    identity::check(&bytes, &symbols, image, base, own.as_ref())?;
    if let Some(base) = base
        && identity::lies_elsewhere(&bytes, base, image.len() as u64)
    {
        let path = path.display();
        notice(&format!(
            "{path} lies wholly outside of the kernel's image at {base:#x}: its names are right only \
             if the kernel moves itself there"
        ));
    }
    Ok(symbols)
}

impl Prepared {
    /// Has the machine count instructions, and its vCPUs take turns.
    pub(super) fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.options.schedule = Some(schedule);
        self.place_breakpoints();
        self
    }

    /// Has the guest begin at the same time of day in each run, where its clock is to go the same way in
    /// each.
    pub(super) const fn by_clock(mut self, time: TimePolicy) -> Self {
        if matches!(time, TimePolicy::PerStep { .. } | TimePolicy::Natural { .. }) {
            self.options.time_of_day = TimeOfDay::Fixed;
        }
        self
    }

    /// Has names be places that cost little on the kind of machine.
    fn place_breakpoints(&mut self) {
        self.names.place(self.kind().placing(&self.guest));
    }

    fn kind(&self) -> MachineKind {
        self.kind.unwrap_or_else(|| MachineKind::choose(&self.options, &self.guest))
    }

    pub(super) const fn machine(&self) -> &MachineOptions {
        &self.options
    }

    /// Starts the machine with devices that are as they were at first, whatever an earlier one has done
    /// with them; signals are handled already.
    pub(super) fn start_afresh(&mut self, guest: &GuestOptions) -> anyhow::Result<Session> {
        self.options.devices = guest.devices()?;
        self.start()
    }

    /// Starts the machine; the guest is stopped at reset.
    pub(super) fn launch(self) -> anyhow::Result<(Session, Names)> {
        interruption::install().context("cannot handle signals")?;
        Ok((self.start()?, self.names))
    }

    /// As [`Prepared::launch`], where signals are handled already.
    pub(super) fn start(&self) -> anyhow::Result<Session> {
        let (machine, link) = Machine::launch(self.kind(), &self.options, &self.guest)?;
        Ok(Session { machine, link })
    }
}
