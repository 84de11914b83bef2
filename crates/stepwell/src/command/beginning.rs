//! What a recorded run begins with: taken down when it is recorded, and compared when it is replayed.

use super::options::{GuestOptions, Prepared};
use crate::machine::{MachineKind, Memory};
use crate::terminal::notice;
use anyhow::{Context, anyhow, bail};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use stepwell_replay::log::{FileIdentity, Header, VERSION};

/// Where a replay takes what it begins with.
pub(super) struct Sources {
    pub(super) kernel: Option<PathBuf>,
    pub(super) initrd: Option<PathBuf>,
    pub(super) devicetree: Option<PathBuf>,
    pub(super) hypervisor: Option<PathBuf>,
    pub(super) qemu: PathBuf,
    pub(super) verbose: bool,
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
        hypervisor: digest(&machine.hypervisor_image()?),
        qemu: version(&machine.qemu)?,
    })
}

/// The options that make the same machine and guest.
pub(super) fn options(header: &Header, sources: Sources) -> GuestOptions {
    let path =
        |given: Option<PathBuf>, file: &FileIdentity| given.unwrap_or(file.path.clone().into());
    GuestOptions {
        machine: Some(MachineKind::Qemu),
        kernel: Some(path(sources.kernel, &header.kernel)),
        firmware: None,
        firmware_variables: None,
        initrd: header.initrd.as_ref().map(|file| path(sources.initrd, file)),
        append: header.command_line.clone(),
        smp: header.vcpus,
        cpus: None,
        memory: Memory { bytes: header.memory_bytes },
        cpu: header.cpu.clone(),
        dtb: header.devicetree.as_ref().map(|file| path(sources.devicetree, file)),
        raw: header.raw,
        disks: Vec::new(),
        entropy: None,
        symbols: None,
        sysroot: None,
        hypervisor: sources.hypervisor,
        qemu: sources.qemu,
        verbose: sources.verbose,
        test_mode: None,
    }
}

/// Holds the beginning of a replay against that of its recording.
///
/// # Errors
///
/// Where the replay would be another run.
pub(super) fn compare(recorded: &Header, own: &Header) -> anyhow::Result<()> {
    same_file("kernel", Some(&recorded.kernel), Some(&own.kernel))?;
    same_file("initial ramdisk", recorded.initrd.as_ref(), own.initrd.as_ref())?;
    same_file("device tree", recorded.devicetree.as_ref(), own.devicetree.as_ref())?;
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
    recorded: Option<&FileIdentity>,
    own: Option<&FileIdentity>,
) -> anyhow::Result<()> {
    match (recorded, own) {
        (Some(recorded), Some(own)) if recorded.sha256 != own.sha256 => bail!(
            "{} is not the {what} that was recorded (SHA-256 {}, not {}): name that one",
            own.path,
            own.sha256,
            recorded.sha256
        ),
        _ => Ok(()),
    }
}

fn identity(path: &Path) -> anyhow::Result<FileIdentity> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let path = absolute.to_str().ok_or_else(|| {
        anyhow!("{}: a replay log takes only names in UTF-8: rename it", path.display())
    })?;
    Ok(FileIdentity { path: path.into(), sha256: digest(&bytes) })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first line of what QEMU says of its version.
fn version(qemu: &Path) -> anyhow::Result<String> {
    let output = Command::new(qemu).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", qemu.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
