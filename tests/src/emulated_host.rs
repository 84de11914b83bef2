//! An emulated arm64 host with KVM: Debian's kernel in QEMU, and a shell in it that is typed at.
//!
//! `cargo xtask kvm` makes what it has: the cross-built command, the tests of `stepwell-kvm`, the guests.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::guest::folder;
use crate::process::{Finished, Running, configured, qemu};

/// What the host says when it listens.
const UP: &str = "host-up";
/// What it says after each command, before its status.
const DONE: &str = "host-done ";
/// Where the host's one network card forwards a port to.
const FORWARDED_PORT: u16 = 1234;

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// QEMU's name of the CPU.
    pub cpu: &'static str,
    /// CPUs.
    pub cpus: u8,
    /// Version of the host's GIC.
    pub gic: u8,
    /// Its kernel.
    pub kernel: PathBuf,
    /// A port of this machine's that leads to the host's [`Host::FORWARDED`].
    pub port: Option<u16>,
}

impl Setup {
    /// A Cortex-A57 or several, without VHE, with Debian 12's kernel and a GICv3.
    #[must_use]
    pub fn new(cpus: u8) -> Self {
        let kernel = folder().join("debian/vmlinuz");
        Self { cpu: "cortex-a57", cpus, gic: 3, kernel, port: None }
    }
}

/// A running host. Dropping it kills it.
pub struct Host {
    running: Running,
    typed: Box<dyn Write>,
    lines: Box<dyn BufRead>,
    said: String,
}

/// What a command in the host came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What it wrote, both streams, without carriage returns.
    pub text: String,
    /// Its exit status.
    pub status: i32,
}

impl Host {
    /// Where a server in the host listens for who reaches it by [`Setup::port`].
    pub const FORWARDED: &str = "10.0.2.15:1234";

    /// Boots a host; whatever happens, it is killed after `limit`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn boot(setup: &Setup, limit: Duration) -> Self {
        let initrd = configured("STEPWELL_KVM_HOST", "target/cross/host.cpio.gz");
        assert!(initrd.is_file(), "{}: make it by `cargo xtask kvm`", initrd.display());
        let mut command = Command::new(qemu());
        command.args(["-machine", &format!("virt,virtualization=on,gic-version={}", setup.gic)]);
        command.args(["-cpu", setup.cpu, "-smp", &setup.cpus.to_string(), "-m", "2048"]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        match setup.port {
            None => command.args(["-nic", "none"]),
            Some(port) => {
                let forward = format!("hostfwd=tcp:127.0.0.1:{port}-:{FORWARDED_PORT}");
                command.args(["-netdev", &format!("user,id=net,{forward}")]);
                command.args(["-device", "virtio-net-device,netdev=net"])
            }
        };
        command.arg("-kernel").arg(&setup.kernel).arg("-initrd").arg(initrd);
        command.args(["-append", "console=ttyAMA0 quiet panic=-1 run=sh,/dev/console"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut running = Running::start(&mut command).expect("QEMU is installed");
        running.kill_after(limit);
        let typed = Box::new(running.stdin().expect("it was piped"));
        let lines = Box::new(running.lines().expect("it was piped"));
        let mut host = Self { running, typed, lines, said: String::new() };
        host.hear(|line| line == UP);
        let up = host.sh("ls /dev/kvm");
        assert_eq!(up.status, 0, "no KVM in the host: {}", host.said);
        host
    }

    /// Has the host's shell execute a line, and waits for its end. One line in all: what a command reads
    /// from its terminal is what is typed while it runs.
    ///
    /// # Panics
    /// When the host is gone before.
    pub fn sh(&mut self, line: &str) -> Done {
        self.type_text(&format!("{line}; echo {DONE}$?\n"));
        self.done()
    }

    /// Types without waiting for anything: end with [`Host::done`].
    ///
    /// # Panics
    /// When the host is gone.
    pub fn type_text(&mut self, text: &str) {
        let sent = self.typed.write_all(text.as_bytes()).and_then(|()| self.typed.flush());
        assert!(sent.is_ok(), "the host is gone: {}", self.said);
    }

    /// Waits for a line.
    ///
    /// # Panics
    /// When the host is gone before.
    pub fn hear(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let mut bytes = Vec::new();
            let length = self.lines.read_until(b'\n', &mut bytes).unwrap_or_default();
            assert!(length > 0, "the host is gone: {}", self.said);
            let line = String::from_utf8_lossy(&bytes).replace('\r', "");
            self.said.push_str(&line);
            let line = line.trim_end_matches('\n');
            if wanted(line) {
                return line.to_owned();
            }
        }
    }

    /// Waits for the end of what was typed.
    ///
    /// # Panics
    /// When the host is gone before.
    pub fn done(&mut self) -> Done {
        let begun = self.said.len();
        let last = self.hear(|line| line.contains(DONE));
        let text = self.said.get(begun..).unwrap_or_default();
        let (text, _) = text.rsplit_once(DONE).unwrap_or((text, ""));
        let status = last.rsplit(' ').next().and_then(|word| word.parse().ok());
        Done { text: text.to_owned(), status: status.unwrap_or(-1) }
    }

    /// Everything that the host has said.
    #[must_use]
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Leaves the shell, with which the host switches itself off.
    ///
    /// # Panics
    /// When it does not.
    pub fn finish(mut self, limit: Duration) -> Finished {
        self.type_text("exit 0\n");
        drop(self.typed);
        self.running.finish(limit).expect("the host switches itself off")
    }
}
