//! QEMU unpacked below the target directory: a newer one beside the installed one (`cargo xtask
//! qemu`), or the release's own where installing it would remove something of the user's.
//!
//! The tests are held to two of them: the one that Debian 12 has, and the one of its backports. The
//! packages are unpacked with the libraries that this machine lacks, and a wrapper tells QEMU where
//! its own files are.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::Archive;
use crate::{layout, process};

const PACKAGE: &str = "qemu-system-arm";

/// Fetches a newer QEMU than the installed one and unpacks it below the target directory
#[derive(clap::Args)]
pub struct Qemu {
    /// Fetches it again, for a newer version
    #[arg(long)]
    refresh: bool,
}

impl Qemu {
    /// Fetches it if it is not there, and prints how to run it.
    ///
    /// # Errors
    /// When this is not the release that it was ported to, or the network is missing.
    pub fn run(self) -> Result<()> {
        if self.refresh && folder().exists() {
            fs::remove_dir_all(folder()).context("removing the one that was fetched before")?;
        }
        let path = newer()?;
        println!("{}\nSTEPWELL_QEMU={}", version(&path.display().to_string())?, path.display());
        Ok(())
    }
}

fn folder() -> PathBuf {
    layout::target_dir().join("newer-qemu")
}

/// The path of the newer QEMU, where it was fetched.
#[must_use]
pub fn fetched() -> Option<PathBuf> {
    // Written last, so its presence says that all is there.
    Some(folder().join(process::QEMU)).filter(|wrapper| wrapper.is_file())
}

/// The path of the newer QEMU, which is fetched the first time.
///
/// # Errors
/// As [`Qemu::run`].
pub fn newer() -> Result<PathBuf> {
    if let Some(wrapper) = fetched() {
        return Ok(wrapper);
    }
    let folder = folder();
    unpack(&Archive::backports(&folder.join("apt"))?, &folder).context(
        "Debian's backports have no newer QEMU than the one that is installed: is the network \
         there?",
    )
}

/// Unpacks the QEMU that apt would install, where it cannot be installed.
///
/// # Errors
/// When there is no apt, or the network is missing.
pub fn unpack_own() -> Result<PathBuf> {
    let folder = layout::unpacked_qemu_dir();
    unpack(&Archive::own(&folder.join("apt"))?, &folder)
}

fn unpack(archive: &Archive, folder: &Path) -> Result<PathBuf> {
    let packages = archive.needed_for(PACKAGE)?;
    if !packages.iter().any(|package| package == PACKAGE) {
        bail!("apt would not install {PACKAGE}");
    }
    for package in &packages {
        archive.download(package)?.unpack(folder)?;
    }
    let wrapper = folder.join(process::QEMU);
    fs::write(&wrapper, script(&libraries(folder)?)).context("writing QEMU's wrapper")?;
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755))
        .context("writing QEMU's wrapper")?;
    if let Err(error) = version(&wrapper.display().to_string()) {
        fs::remove_file(&wrapper).context("removing a QEMU that does not run")?;
        return Err(error);
    }
    fs::remove_dir_all(folder.join("apt")).context("removing apt's folders")?;
    Ok(wrapper)
}

/// The folder of libraries in what was unpacked, which is named for the machine's architecture.
fn libraries(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder.join("usr/lib")).context("looking for QEMU's modules")?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = names.find(|name| name.ends_with("-linux-gnu"));
    name.context("QEMU's packages have no folder of libraries")
}

fn script(libraries: &str) -> String {
    format!(
        "\
#!/bin/sh
here=$(dirname \"$(readlink -f \"$0\")\")
export QEMU_MODULE_DIR=\"$here/usr/lib/{libraries}/qemu\"
libraries=\"$here/usr/lib/{libraries}:$here/lib/{libraries}\"
export LD_LIBRARY_PATH=\"$libraries${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"
exec \"$here/usr/bin/{}\" -L \"$here/usr/share/qemu\" \"$@\"
",
        process::QEMU
    )
}

/// The first line of what a QEMU says of its version.
///
/// # Errors
/// When it cannot be run.
pub fn version(qemu: &str) -> Result<String> {
    let text = process::answer(Command::new(qemu).arg("--version"));
    let text =
        text.with_context(|| format!("{qemu} cannot be run: STEPWELL_QEMU names another"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_leads_to_its_own_files() {
        let text = script("x86_64-linux-gnu");
        assert!(text.contains("\"$here/usr/lib/x86_64-linux-gnu/qemu\"\n"), "{text}");
        assert!(text.ends_with("-L \"$here/usr/share/qemu\" \"$@\"\n"), "{text}");
    }
}
