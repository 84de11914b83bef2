//! `stepwell machines`: what a guest can run on here.

use crate::machine::MachineOptions;
use clap::Args;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Tells which machines there are here, what each can do, and why one is missing
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stepwell machines")]
pub(super) struct Machines {
    /// QEMU
    #[arg(
        long,
        value_name = "PATH",
        default_value = "qemu-system-aarch64",
        env = "STEPWELL_QEMU",
        help_heading = "Machine"
    )]
    qemu: PathBuf,
}

impl Machines {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let mut text = String::new();
        match self.qemu_version() {
            Ok(version) => {
                text += &format!("qemu   {version}\n       everything, on any host: the default\n");
            }
            Err(reason) => text += &format!("qemu   no: {reason}\n"),
        }
        match stepwell_kvm::describe() {
            Ok(lines) => {
                text += "kvm    /dev/kvm; chosen by itself where it can do what is asked for\n";
                for line in lines {
                    text += &format!("       {line}\n");
                }
            }
            Err(error) => text += &format!("kvm    no: {error}\n"),
        }
        stdout().write_all(text.as_bytes())?;
        Ok(0)
    }

    /// The version of the QEMU that would be run, if one can be.
    fn qemu_version(&self) -> Result<String, String> {
        let options = MachineOptions { qemu: self.qemu.clone(), ..MachineOptions::default() };
        options.hypervisor_image().map_err(|error| error.to_string())?;
        let mut qemu = Command::new(&self.qemu);
        let answer = qemu.arg("--version").stdin(Stdio::null()).output();
        let name = self.qemu.display();
        let answer = answer.map_err(|error| format!("{name}: {error}"))?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let line = text.lines().next().unwrap_or_default();
        Ok(stepwell_trace::printable(line).to_string())
    }
}
