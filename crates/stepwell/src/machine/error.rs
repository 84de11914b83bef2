//! What can go wrong before and while a machine runs.

use std::path::{Path, PathBuf};
use stepwell_link::LinkError;
use stepwell_trace::KernelError;

/// A machine could not be started, or is gone.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the user's cannot be read.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The kernel is none.
    #[error("{} {error}", .path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        error: KernelError,
    },
    /// Firmware, or the file for its variables, is none.
    #[error("{} {reason}", .path.display())]
    Firmware {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// An ELF kernel wants to be where no guest has memory.
    #[error(
        "the kernel wants to be loaded at {address:#x}, and a guest's memory begins at \
         0x40000000: link it for that or above"
    )]
    LoadAddress {
        /// Where it wants to be.
        address: u64,
    },
    /// An ELF kernel is entered too far from its start.
    #[error("the kernel's entry {entry:#x} is not within its {bytes} bytes at {address:#x}")]
    Entry {
        /// Its entry.
        entry: u64,
        /// Its first byte.
        address: u64,
        /// Its length.
        bytes: u64,
    },
    /// The guest's files do not fit its memory.
    #[error(
        "too little memory: this guest needs at least {needed_mib} MiB (--memory {needed_mib}M)"
    )]
    TooLittleMemory {
        /// How much would do.
        needed_mib: u64,
    },
    /// The build has no hypervisor in it.
    #[error(
        "this build of stepwell has no hypervisor in it: build it by `cargo xtask build`, or \
         name an image with --hypervisor FILE"
    )]
    NoHypervisor,
    /// The `--hypervisor` file is none.
    #[error("{} is not a hypervisor: it is no arm64 Image", .0.display())]
    NotAHypervisor(PathBuf),
    /// A scratch file cannot be written or read.
    #[error("cannot use scratch file {}: {error} (TMPDIR names another place)", .path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// There is no room for the machine's RAM.
    #[error("no room for a machine of {mib} MiB: neither /dev/shm nor {} has as much free", .scratch.display())]
    NoRoom {
        /// How much was wanted.
        mib: u64,
        /// Where else it was sought.
        scratch: PathBuf,
    },
    /// QEMU is not there.
    #[error(
        "{} is not installed: on Debian and Ubuntu `apt-get install qemu-system-arm`; or name it \
         with --qemu PATH",
        .0.display()
    )]
    NoQemu(PathBuf),
    /// QEMU does not start.
    #[error("cannot run {}: {error}", .path.display())]
    CannotRun {
        /// The program.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// QEMU has ended, and not because the guest did.
    #[error("QEMU ended ({how}){}", .words.as_deref().map(|words| format!(": {words}")).unwrap_or_default())]
    QemuEnded {
        /// Its exit status.
        how: String,
        /// The last thing it or the hypervisor said.
        words: Option<String>,
    },
    /// QEMU runs, and does not set the machine up.
    #[error("QEMU did not set the machine up within {seconds} s")]
    NoConnection {
        /// For how long it was waited for.
        seconds: u64,
    },
    /// QEMU's device tree is not what it should be.
    #[error("QEMU's device tree cannot be used: {0}")]
    Tree(String),
    /// QEMU's monitor does not do what it is asked for.
    #[error("QEMU's monitor cannot be used: {0}")]
    Monitor(#[source] std::io::Error),
    /// The guest's devices cannot be served.
    #[error("the guest's devices cannot be plugged in: {0}")]
    Devices(#[source] std::io::Error),
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] stepwell_kvm::KvmError),
    /// An option that only QEMU can do something with.
    #[error("{option} is for QEMU: leave it out, or say --machine qemu")]
    OnlyQemu {
        /// Its name.
        option: &'static str,
    },
    /// The user wants to leave.
    #[error("interrupted")]
    Interrupted,
    /// The hypervisor misbehaves, and has said something.
    #[error("{error}; the hypervisor's last words: {words}")]
    Hypervisor {
        /// What is wrong.
        error: LinkError,
        /// The last line of its log.
        words: String,
    },
    /// The link is broken.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl MachineError {
    /// Makes errors about a scratch file.
    pub(super) fn scratch(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Scratch { path, error }
    }
}
