//! A machine with its link, for tests that speak to the hypervisor as the tool does.

use std::fs;
use std::path::PathBuf;

use stepwell::machine::{Guest, MachineError, MachineOptions, Memory, QemuMachine};
use stepwell_link::Link;
use stepwell_trace::RawPolicy;

use crate::process::configured;
use crate::stepwell::binary;

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
    let file = tempfile::NamedTempFile::new().expect("tests need a place for temporary files");
    fs::write(file.path(), code).expect("the temporary file can be written");
    let guest = Guest::read(file.path(), RawPolicy::Accept)?;
    let options = MachineOptions {
        smp,
        memory: MEMORY,
        cpu: cpu.to_owned(),
        hypervisor: Some(if test_mode.is_some() { hypervisor_for_tests() } else { hypervisor() }),
        qemu: std::env::var_os("STEPWELL_QEMU")
            .map_or_else(|| "qemu-system-aarch64".into(), PathBuf::from),
        verbose: false,
        test_mode: test_mode.map(str::to_owned),
    };
    QemuMachine::launch(&options, &guest)
}
