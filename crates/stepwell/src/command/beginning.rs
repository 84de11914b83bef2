//! What a recorded run begins with: taken down when it is recorded, and compared when it is replayed.

use super::options::{GuestOptions, Prepared};
use super::packing::{self, Unpacked};
use crate::machine::{MachineKind, Memory};
use crate::terminal::notice;
use anyhow::{Context, anyhow, bail};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use stepwell_devices::{DiskOptions, Source};
use stepwell_replay::log::{DiskIdentity, FileIdentity, Header, PART_BYTES, VERSION};

/// Where a replay takes what it begins with, where that is not where it was.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) kernel: Option<PathBuf>,
    pub(super) initrd: Option<PathBuf>,
    pub(super) devicetree: Option<PathBuf>,
    /// All of the disks, or none.
    pub(super) disks: Vec<PathBuf>,
    pub(super) hypervisor: Option<PathBuf>,
    pub(super) qemu: PathBuf,
    pub(super) verbose: bool,
}

impl Sources {
    /// Those that a command with a guest was given.
    pub(super) fn given(guest: &GuestOptions) -> Self {
        Self {
            kernel: guest.kernel.clone(),
            initrd: guest.initrd.clone(),
            devicetree: guest.dtb.clone(),
            disks: guest.disks.iter().map(|disk| disk.path.clone()).collect(),
            hypervisor: guest.hypervisor.clone(),
            qemu: guest.qemu.clone(),
            verbose: guest.verbose,
        }
    }

    /// Takes from a log what it has packed, and was not named.
    pub(super) fn or_packed(mut self, header: &Header, packed: &Unpacked) -> Self {
        self.kernel = self.kernel.or_else(|| packed.path(packing::KERNEL));
        self.initrd = self.initrd.or_else(|| packed.path(packing::INITRD));
        self.devicetree = self.devicetree.or_else(|| packed.path(packing::DEVICETREE));
        if self.disks.is_empty() {
            let paths = (0..header.disks.len()).map(|index| packed.path(&packing::disk(index)));
            self.disks = paths.collect::<Option<Vec<_>>>().unwrap_or_default();
        }
        self
    }
}

/// Describes the beginning of a run.
pub(super) fn describe(options: &GuestOptions, prepared: &Prepared) -> anyhow::Result<Header> {
    let machine = prepared.machine();
    Ok(Header {
        stepwell_replay: VERSION,
        cpu: machine.cpu.clone(),
        vcpus: machine.smp,
        memory_bytes: machine.memory.bytes,
        schedule: machine.schedule.unwrap_or_default().to_string(),
        command_line: options.append().into(),
        raw: options.raw,
        kernel: identity(options.kernel()?)?,
        initrd: options.initrd.as_deref().map(identity).transpose()?,
        devicetree: options.dtb.as_deref().map(identity).transpose()?,
        disks: options.disks.iter().map(disk_identity).collect::<anyhow::Result<_>>()?,
        entropy: match options.entropy {
            Some(Source::Seed(seed)) => Some(seed),
            Some(Source::Host) | None => None,
        },
        hypervisor: digest(&machine.hypervisor_image()?),
        qemu: version(&machine.qemu)?,
    })
}

/// The options that make the same machine and guest.
///
/// # Errors
///
/// Where there can be no such machine, or a file is not there.
pub(super) fn options(header: &Header, sources: Sources) -> anyhow::Result<GuestOptions> {
    if !(1..=8).contains(&header.vcpus) {
        bail!("its guest has {} vCPUs, and there can be 1 to 8: record the run anew", header.vcpus);
    }
    let memory = Memory::of_bytes(header.memory_bytes)
        .with_context(|| format!("its guest has {} bytes of memory", header.memory_bytes))?;
    let (asked, known) = (sources.disks.len(), header.disks.len());
    if asked > 0 && asked != known {
        bail!(
            "{asked} disks are named, and the run has {known}: name each, in their order, or none"
        );
    }
    let mut disks = Vec::new();
    for (index, disk) in header.disks.iter().enumerate() {
        let path = there("disk", sources.disks.get(index).cloned(), &disk.path, "--disk")?;
        let is_read_only = disk.is_read_only;
        disks.push(DiskOptions { path, is_read_only, is_snapshot: !is_read_only });
    }
    let file = |what, given, file: &FileIdentity, option| there(what, given, &file.path, option);
    let initrd = header.initrd.as_ref();
    let initrd = initrd.map(|of| file("initial ramdisk", sources.initrd, of, "--initrd"));
    let tree = header.devicetree.as_ref();
    let tree = tree.map(|of| file("device tree", sources.devicetree, of, "--dtb"));
    Ok(GuestOptions {
        machine: Some(MachineKind::Qemu),
        kernel: Some(file("kernel", sources.kernel, &header.kernel, "--kernel")?),
        firmware: None,
        firmware_variables: None,
        initrd: initrd.transpose()?,
        append: header.command_line.clone(),
        smp: header.vcpus,
        cpus: None,
        memory,
        cpu: header.cpu.clone(),
        dtb: tree.transpose()?,
        raw: header.raw,
        disks,
        entropy: header.entropy.map(Source::Seed),
        net: None,
        shares: Vec::new(),
        symbols: None,
        sysroot: None,
        hypervisor: sources.hypervisor,
        qemu: sources.qemu,
        verbose: sources.verbose,
        test_mode: None,
    })
}

/// Where a file is, which has to be there.
fn there(
    what: &str,
    given: Option<PathBuf>,
    recorded: &str,
    option: &str,
) -> anyhow::Result<PathBuf> {
    let is_given = given.is_some();
    let path = given.unwrap_or_else(|| recorded.into());
    match File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) if is_given => bail!("{}: {error}", path.display()),
        Err(error) => bail!(
            "the {what} that the run began with cannot be read, name it with {option}: {}: {error}",
            path.display()
        ),
    }
}

/// Holds the beginning of a replay against that of its recording.
///
/// # Errors
///
/// Where the replay would be another run.
pub(super) fn compare(recorded: &Header, own: &Header) -> anyhow::Result<()> {
    same_file("kernel", "--kernel", Some(&recorded.kernel), Some(&own.kernel))?;
    same_file("initial ramdisk", "--initrd", recorded.initrd.as_ref(), own.initrd.as_ref())?;
    same_file("device tree", "--dtb", recorded.devicetree.as_ref(), own.devicetree.as_ref())?;
    for (recorded, own) in recorded.disks.iter().zip(&own.disks) {
        same(("disk", "--disk"), &own.path, &own.sha256, &recorded.sha256)?;
    }
    if recorded.hypervisor != own.hypervisor {
        notice(
            "recorded by another build of Stepwell: the replay may differ, and says so if it does",
        );
    }
    if recorded.qemu != own.qemu {
        notice(&format!(
            "recorded with {}, replayed with {}: the replay may differ, and says so if it does",
            recorded.qemu, own.qemu
        ));
    }
    Ok(())
}

fn same_file(
    what: &str,
    option: &str,
    recorded: Option<&FileIdentity>,
    own: Option<&FileIdentity>,
) -> anyhow::Result<()> {
    match (recorded, own) {
        (Some(recorded), Some(own)) => {
            same((what, option), &own.path, &own.sha256, &recorded.sha256)
        }
        _ => Ok(()),
    }
}

fn same((what, option): (&str, &str), path: &str, own: &str, recorded: &str) -> anyhow::Result<()> {
    if own == recorded {
        return Ok(());
    }
    bail!(
        "{path} is not the {what} that was recorded (SHA-256 {own}, not {recorded}): name that one with \
         {option}"
    )
}

/// A digest of what a guest reads from a disk: of each piece that is not all zero, where it is and what is
/// in it, and of the length of all.
fn disk_identity(options: &DiskOptions) -> anyhow::Result<DiskIdentity> {
    let mut hash = Sha256::new();
    options.read_all(PART_BYTES, |at, bytes, has_more| {
        if bytes.iter().any(|&byte| byte != 0) {
            hash.update(at.to_le_bytes());
            hash.update(bytes);
        }
        if !has_more {
            hash.update((at + bytes.len() as u64).to_le_bytes());
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let path = utf8(&options.path)?;
    Ok(DiskIdentity { path, sha256: hex(&hash.finalize()), is_read_only: options.is_read_only })
}

fn identity(path: &Path) -> anyhow::Result<FileIdentity> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(FileIdentity { path: utf8(path)?, sha256: digest(&bytes) })
}

/// A path as a log has it.
fn utf8(path: &Path) -> anyhow::Result<String> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = absolute.to_str().ok_or_else(|| {
        anyhow!("{}: a replay log takes only names in UTF-8: rename it", path.display())
    })?;
    Ok(text.into())
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first line of what QEMU says of its version.
fn version(qemu: &Path) -> anyhow::Result<String> {
    let output = Command::new(qemu).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", qemu.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A log's beginning, for tests.
#[cfg(test)]
pub(super) fn header(kernel: &Path) -> Header {
    let kernel = FileIdentity { path: kernel.display().to_string(), sha256: "00".into() };
    Header {
        stepwell_replay: VERSION,
        cpu: "cortex-a57".into(),
        vcpus: 2,
        memory_bytes: 64 << 20,
        schedule: "turns=50000".into(),
        command_line: "quiet".into(),
        raw: true,
        kernel,
        initrd: None,
        devicetree: None,
        disks: Vec::new(),
        entropy: Some(3),
        hypervisor: String::new(),
        qemu: String::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A guest with nothing but a kernel.
    pub(in crate::command) fn guest(kernel: &Path) -> GuestOptions {
        options(&header(kernel), Sources::default()).unwrap()
    }

    fn refused(header: &Header, sources: Sources) -> String {
        options(header, sources).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_machine_that_cannot_be_is_refused() {
        let kernel = tempfile::NamedTempFile::new().unwrap();
        let good = header(kernel.path());
        assert_eq!(guest(kernel.path()).entropy, Some(Source::Seed(3)));
        for vcpus in [0, 9, 255] {
            let told = refused(&Header { vcpus, ..good.clone() }, Sources::default());
            assert!(told.contains(&format!("{vcpus} vCPUs")), "{told}");
        }
        for memory_bytes in [0, 4096, u64::MAX] {
            let told = refused(&Header { memory_bytes, ..good.clone() }, Sources::default());
            assert!(told.contains(&memory_bytes.to_string()), "{told}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_the_option_that_names_it() {
        let kernel = tempfile::NamedTempFile::new().unwrap();
        let gone = FileIdentity { path: "/nonexistent/file".into(), sha256: String::new() };
        let good = header(kernel.path());
        let disk =
            DiskIdentity { path: gone.path.clone(), sha256: String::new(), is_read_only: true };
        for (header, words) in [
            (header(Path::new("/nonexistent/file")), "--kernel"),
            (Header { initrd: Some(gone.clone()), ..good.clone() }, "--initrd"),
            (Header { devicetree: Some(gone), ..good.clone() }, "--dtb"),
            (Header { disks: vec![disk], ..good.clone() }, "--disk"),
        ] {
            let told = refused(&header, Sources::default());
            assert!(told.contains(words) && told.contains("/nonexistent/file: No such"), "{told}");
        }
        let two = Sources { disks: vec!["a".into(), "b".into()], ..Sources::default() };
        let told = refused(&good, two);
        assert!(told.contains("2 disks are named, and the run has 0"), "{told}");
    }

    #[test]
    fn a_disk_is_the_same_whatever_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let identity = |bytes: &[u8], words: &str| {
            let path = folder.path().join("disk");
            std::fs::write(&path, bytes).unwrap();
            disk_identity(&format!("{}{words}", path.display()).parse().unwrap()).unwrap()
        };
        let mut bytes = vec![0; 2 * PART_BYTES + 512];
        bytes[PART_BYTES] = 1;
        let one = identity(&bytes, ",snapshot");
        assert_eq!(identity(&bytes, ",readonly").sha256, one.sha256);
        assert_ne!(
            identity(&bytes[..2 * PART_BYTES], ",snapshot").sha256,
            one.sha256,
            "its length"
        );
        bytes.swap(PART_BYTES, PART_BYTES + 1);
        assert_ne!(identity(&bytes, ",snapshot").sha256, one.sha256);
    }
}
