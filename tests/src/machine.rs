//! A machine with its link, for tests that speak to the hypervisor as the tool does.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use stepwell::machine::{Guest, MachineError, MachineOptions, Memory, QemuMachine};
use stepwell_debuggee::Schedule;
use stepwell_link::Link;
use stepwell_trace::RawPolicy;

use crate::plain::Setup;
use crate::process::{configured, qemu};
use crate::stepwell::binary;

/// QEMU's clock counts instructions.
pub const ICOUNT: [&str; 2] = ["-icount", "shift=4,sleep=off"];
/// Memory of a guest that is a handful of instructions.
const MEMORY: Memory = Memory { bytes: 64 << 20 };

/// The hypervisor under test: `$STEPWELL_HYPERVISOR`, or the one built with the command.
#[must_use]
pub fn hypervisor() -> PathBuf {
    let built = binary().parent().and_then(|release| release.parent()).map(PathBuf::from);
    let built = built.unwrap_or_default().join("el2/stepwell-hypervisor.bin");
    configured("STEPWELL_HYPERVISOR", &built.to_string_lossy())
}

/// The image that was built for tests, which lies beside the one under test.
#[must_use]
pub fn hypervisor_for_tests() -> PathBuf {
    hypervisor().with_file_name("stepwell-hypervisor-test-mode.bin")
}

/// Starts a machine whose guest is bare code, loaded at 0x4008_0000; it is stopped at reset.
///
/// QEMU ends when the machine is dropped, or with the calling thread.
///
/// # Errors
/// When the machine cannot be started.
///
/// # Panics
/// When the code cannot be written to a file.
pub fn launch(code: &[u8], cpu: &str, smp: u8) -> Result<(QemuMachine, Link), MachineError> {
    launch_in(None, code, cpu, smp)
}

/// Writes a script into a folder that starts this QEMU with a clock that counts instructions, 16 ns
/// each: one tick of its counter.
///
/// # Errors
/// When the script cannot be written.
pub fn counting_qemu(qemu: &Path, folder: &Path) -> io::Result<PathBuf> {
    let script = folder.join("qemu-counting-instructions");
    let text = format!("#!/bin/sh\nexec '{}' \"$@\" {}\n", qemu.display(), ICOUNT.join(" "));
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// As [`launch`], where the machine's clock counts instructions, those of EL2 too.
///
/// # Errors
/// As [`launch`].
///
/// # Panics
/// As [`launch`].
pub fn launch_counting(code: &[u8], cpu: &str) -> Result<(QemuMachine, Link), MachineError> {
    let folder = tempfile::tempdir().expect("tests need a place for temporary files");
    let qemu = counting_qemu(&qemu(), folder.path()).expect("the temporary file can be written");
    start(code, MachineOptions { qemu, cpu: cpu.to_owned(), ..options(1) })
}

/// As [`launch`], in the test mode that is told, if any.
///
/// # Errors
/// As [`launch`].
///
/// # Panics
/// As [`launch`].
pub fn launch_in(
    test_mode: Option<&str>,
    code: &[u8],
    cpu: &str,
    smp: u8,
) -> Result<(QemuMachine, Link), MachineError> {
    let hypervisor = if test_mode.is_some() { hypervisor_for_tests() } else { hypervisor() };
    let options = MachineOptions {
        cpu: cpu.to_owned(),
        hypervisor: Some(hypervisor),
        test_mode: test_mode.map(str::to_owned),
        ..options(smp)
    };
    start(code, options)
}

/// As [`launch`], on a machine that counts instructions; the vCPUs take turns of so many.
///
/// # Errors
/// As [`launch`].
///
/// # Panics
/// As [`launch`].
pub fn launch_counted(
    code: &[u8],
    cpu: &str,
    smp: u8,
    turn: u32,
) -> Result<(QemuMachine, Link), MachineError> {
    let schedule = Some(Schedule::Turns { instructions: turn });
    start(code, MachineOptions { cpu: cpu.to_owned(), schedule, ..options(smp) })
}

/// Starts the machine of a setup, which counts instructions; it is stopped at reset.
///
/// # Errors
/// As [`launch`].
pub fn launch_counted_setup(setup: &Setup, turn: u32) -> Result<(QemuMachine, Link), MachineError> {
    launch_counted_setup_on(qemu(), setup, turn)
}

/// As [`launch_counted_setup`], on this QEMU.
///
/// # Errors
/// As [`launch`].
pub fn launch_counted_setup_on(
    qemu: PathBuf,
    setup: &Setup,
    turn: u32,
) -> Result<(QemuMachine, Link), MachineError> {
    let mut guest = Guest::read(&setup.kernel, RawPolicy::Accept)?;
    if let Some(initrd) = &setup.initrd {
        guest = guest.with_initrd(initrd)?;
    }
    guest.command_line = setup.append.clone().unwrap_or_default();
    let memory = Memory { bytes: u64::from(setup.memory_mib) << 20 };
    let options = MachineOptions {
        cpu: setup.cpu.to_owned(),
        schedule: Some(Schedule::Turns { instructions: turn }),
        memory,
        qemu,
        ..options(setup.smp)
    };
    QemuMachine::launch(&options, &guest)
}

fn options(smp: u8) -> MachineOptions {
    MachineOptions {
        smp,
        memory: MEMORY,
        hypervisor: Some(hypervisor()),
        qemu: qemu(),
        ..MachineOptions::default()
    }
}

fn start(code: &[u8], options: MachineOptions) -> Result<(QemuMachine, Link), MachineError> {
    let file = tempfile::NamedTempFile::new().expect("tests need a place for temporary files");
    fs::write(file.path(), code).expect("the temporary file can be written");
    let guest = Guest::read(file.path(), RawPolicy::Accept)?;
    QemuMachine::launch(&options, &guest)
}
