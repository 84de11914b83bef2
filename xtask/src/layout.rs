//! Where things are: the workspace's root and what is built below the target directory.
//!
//! One place, because the machine tests, the demo and the host tool's build script must agree on
//! these paths with the commands that make them.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The workspace's root: the folder above this crate's.
///
/// Asked of cargo at run time first, so that a checkout that was moved after its build still works.
pub fn root() -> PathBuf {
    let own_folder = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own_folder.parent().map_or(own_folder.clone(), Path::to_path_buf)
}

/// The target directory, absolute: `$CARGO_TARGET_DIR` or `target/`.
pub fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where QEMU is unpacked if it cannot be installed.
pub fn unpacked_qemu_dir() -> PathBuf {
    target_dir().join("qemu")
}

/// The folder in which the EL2 image is built, apart from the host's so that neither throws the
/// other's work away.
pub fn el2_dir() -> PathBuf {
    target_dir().join("el2")
}

/// The hypervisor as the raw arm64 Image that QEMU's `-kernel` takes.
pub fn hypervisor_image() -> PathBuf {
    el2_dir().join("stepwell-hypervisor.bin")
}

/// The hypervisor with its test mode, for tests alone.
pub fn test_mode_image() -> PathBuf {
    el2_dir().join("stepwell-hypervisor-test-mode.bin")
}

/// The folder of the test guests and of what comes from Debian.
pub fn guests_dir() -> PathBuf {
    target_dir().join("guests")
}

/// The folder of disks with distributions on them.
pub fn images_dir() -> PathBuf {
    target_dir().join("images")
}

/// The `stepwell` command, optimised.
pub fn stepwell_binary() -> PathBuf {
    target_dir().join("release").join("stepwell")
}

/// The folder in which the command for arm64 Linux is built.
pub fn cross_dir() -> PathBuf {
    target_dir().join("cross")
}

/// The initramfs of the emulated host that the tests of KVM run in.
pub fn emulated_host() -> PathBuf {
    cross_dir().join("host.cpio.gz")
}

/// The `stepwell` command for arm64 Linux, optimised.
pub fn arm64_binary() -> PathBuf {
    cross_dir().join("aarch64-unknown-linux-gnu").join("release").join("stepwell")
}

/// The folder in which Debian packages are made.
pub fn package_dir() -> PathBuf {
    target_dir().join("package")
}

/// The names of the whole-machine tests: the files of `tests/tests`.
///
/// # Errors
/// When the folder cannot be read.
pub fn machine_tests() -> Result<Vec<String>> {
    let folder = root().join("tests").join("tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// `path` as it is shown to people: relative to the workspace where it lies inside.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
