//! The user's own apt: what it would do, and installing what was asked for, nothing else.
//!
//! Installing a package may remove another, where their versions do not agree. A build tool has no
//! say over that: it is found out beforehand, told, and left to the user.

use std::io::{self, IsTerminal};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

const UPDATE_LIMIT: Duration = Duration::from_secs(3 * 60);
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What apt would do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Packages that come, with what they depend on, as `name version`.
    pub installed: Vec<String>,
    /// Packages that would go.
    pub removed: Vec<String>,
    /// Bytes to fetch.
    pub bytes: u64,
}

impl Plan {
    /// Asks apt what installing `packages` would do. Changes nothing and takes no root's rights.
    ///
    /// # Errors
    /// When there is no apt-get, or it does not know a package.
    pub fn of(packages: &[&str]) -> Result<Self> {
        if !process::is_installed("apt-get") {
            bail!("there is no apt-get on this machine");
        }
        let mut plan = Self::read(&answer(&install_words(&["--simulate"]), packages)?);
        let addresses = answer(&install_words(&["--print-uris"]), packages)?;
        plan.bytes = addresses.lines().filter_map(bytes_of_address).sum();
        Ok(plan)
    }

    fn read(simulation: &str) -> Self {
        let mut plan = Self::default();
        for line in simulation.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("Inst"), Some(name)) => {
                    // `Inst name [old version] (new version origin [architecture])`
                    let version = line.split_once('(').map_or("", |(_, rest)| rest);
                    let version = version.split_whitespace().next().unwrap_or_default();
                    plan.installed.push(format!("{name} {version}"));
                }
                (Some("Remv"), Some(name)) => plan.removed.push(name.to_owned()),
                _ => {}
            }
        }
        plan
    }
}

/// The size in a line `'address' file size checksum`.
fn bytes_of_address(line: &str) -> Option<u64> {
    line.strip_prefix('\'')?.split_whitespace().nth(2)?.parse().ok()
}

fn install_words(options: &[&'static str]) -> Vec<&'static str> {
    [options, &["install", "-y", "--no-install-recommends"]].concat()
}

fn answer(words: &[&str], packages: &[&str]) -> Result<String> {
    let mut apt = process::command("apt-get");
    let output = process::capture(apt.env("LC_ALL", "C").args(words).args(packages))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().find(|line| line.starts_with("E:")).unwrap_or("E: no reason");
        let hint = match reason.contains("Unable to locate") {
            true => " (`apt-get update`, as root, fetches apt's lists)",
            false => "",
        };
        bail!(
            "apt-get cannot install {}: {}{hint}",
            packages.join(" "),
            reason.trim_start_matches("E: ")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs Debian packages, after a fresh look at what there is, if nothing has to go for it.
///
/// # Errors
/// When there is no apt-get, no root's rights, a package cannot be had, or another is in the way.
pub fn install(packages: &[&str]) -> Result<Plan> {
    let root = prepare()?;
    let plan = Plan::of(packages)?;
    if !plan.removed.is_empty() {
        bail!(in_the_way(packages, &plan.removed));
    }
    println!("Installing ({} to fetch): {}", megabytes(plan.bytes), plan.installed.join(", "));
    let mut install = apt_get(root);
    install.args(install_words(&["--no-remove"])).args(packages);
    process::show_and_run(&mut install, INSTALL_LIMIT)
        .with_context(|| format!("installing {}", packages.join(" ")))?;
    Ok(plan)
}

/// What keeps apt from installing `package`, if anything does that a user would have to decide.
///
/// # Errors
/// When there is no apt-get, or it does not know the package.
pub fn obstacle(package: &str) -> Result<Option<String>> {
    match prepare() {
        Ok(_) => {}
        Err(error) if process::is_installed("apt-get") => return Ok(Some(format!("{error:#}"))),
        Err(error) => return Err(error),
    }
    let removed = Plan::of(&[package])?.removed;
    Ok((!removed.is_empty())
        .then(|| format!("installing {package} would remove {}", removed.join(" "))))
}

/// Brings apt's lists up to date, once a run; returns the program that gives root's rights.
fn prepare() -> Result<Option<&'static str>> {
    static UPDATE: Once = Once::new();
    if !process::is_installed("apt-get") {
        bail!("there is no apt-get on this machine");
    }
    let root = become_root()?;
    UPDATE.call_once(|| {
        // A stale list is no reason to give up: the installation itself decides.
        if let Err(error) = process::show_and_run(apt_get(root).arg("update"), UPDATE_LIMIT) {
            println!("{error:#}; trying with what is known");
        }
    });
    Ok(root)
}

fn in_the_way(packages: &[&str], removed: &[String]) -> String {
    let (wanted, removed) = (packages.join(" "), removed.join(" "));
    format!(
        "installing {wanted} would remove {removed}: nothing was changed. If that may go:\n  \
         apt-get install {wanted}   (as root)"
    )
}

/// A size as people read it.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn apt_get(root: Option<&str>) -> Command {
    let mut words = root.into_iter().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let mut apt = process::command(words.next().unwrap_or("env"));
    apt.args(words);
    apt.args(["-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=2"]);
    apt.args(["-o", "DPkg::Lock::Timeout=120"]);
    apt
}

/// The program that gives root's rights: `None` when we have them.
fn become_root() -> Result<Option<&'static str>> {
    if process::is_root() {
        return Ok(None);
    }
    let sudo_asks_nothing = || process::answer(process::command("sudo").args(["-n", "true"]));
    if process::is_installed("sudo") && (sudo_asks_nothing().is_some() || io::stdin().is_terminal())
    {
        return Ok(Some("sudo"));
    }
    bail!("installing packages takes root's rights, and sudo cannot be used here")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULATION: &str = "\
Reading package lists...
The following packages will be REMOVED:
  qemu-utils
Remv qemu-utils [1:7.2+dfsg-7+deb12u15]
Inst libslirp0 (4.7.0-1 Debian:12.11/oldstable [amd64])
Inst qemu-system-arm [1:7.1] (1:7.2+dfsg-7+deb12u18+b3 Debian:12/oldstable [amd64])
Conf libslirp0 (4.7.0-1 Debian:12.11/oldstable [amd64])
";

    #[test]
    fn a_simulation_tells_what_comes_and_what_goes() {
        let plan = Plan::read(SIMULATION);
        assert_eq!(
            plan.installed,
            ["libslirp0 4.7.0-1", "qemu-system-arm 1:7.2+dfsg-7+deb12u18+b3"]
        );
        assert_eq!(plan.removed, ["qemu-utils"]);
    }

    #[test]
    fn what_is_in_the_way_is_told_with_a_way_out() {
        let text = in_the_way(&["qemu-system-arm"], &["qemu-utils".to_owned()]);
        assert!(text.starts_with("installing qemu-system-arm would remove qemu-utils"), "{text}");
        assert!(text.contains("\n  apt-get install qemu-system-arm   (as root)"), "{text}");
    }

    #[test]
    fn sizes_are_read_from_addresses() {
        let line = "'http://deb.debian.org/a_1%2b2.deb' a_1+2.deb 964384 SHA256:00";
        assert_eq!(bytes_of_address(line), Some(964_384));
        assert_eq!(bytes_of_address("Reading package lists..."), None);
    }
}
