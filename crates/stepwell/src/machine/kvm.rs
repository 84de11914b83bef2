//! Machines of the host's own: KVM with a guest in it, in this process.

use super::{Guest, MachineError, MachineOptions, QemuMachine, plug_in};
use crate::interruption;
use std::fmt;
use std::io;
use std::str::FromStr;
use stepwell_arch::Ipa;
use stepwell_devices::{Devices, GuestRam, Serving};
use stepwell_kvm::{Files, KvmMachine, RAM_BASE};
use stepwell_link::{Link, LinkError, Patience, Ring};
use stepwell_trace::kernel_image::LoadPlan;
use stepwell_vm::image_layout::Linked;

/// What a guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// QEMU with our hypervisor, on any host.
    Qemu,
    /// The host's own CPU, by KVM.
    Kvm,
}

/// What kind of place a name in a loaded image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placing {
    /// A guest-physical address, which holds before the MMU is on, too.
    #[default]
    Physical,
    /// A virtual address, where one by physical address has its price: where the guest has been seen to run,
    /// or else where it is linked. A kernel is not there yet while its MMU is off.
    Virtual,
    /// As [`Placing::Virtual`] where the guest has been seen, and until then, since it may be anywhere, as
    /// [`Placing::Physical`].
    VirtualOnceSeen,
}

/// A word that names no kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are qemu and kvm: `stepwell machines` tells what each can do here")]
pub struct UnknownKind;

impl FromStr for MachineKind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        match word {
            "qemu" => Ok(Self::Qemu),
            "kvm" => Ok(Self::Kvm),
            _ => Err(UnknownKind),
        }
    }
}

impl fmt::Display for MachineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "qemu",
            Self::Kvm => "kvm",
        })
    }
}

/// A running machine. Dropping it ends it.
pub enum Machine {
    /// QEMU.
    Qemu(Box<QemuMachine>),
    /// KVM, and whoever serves the guest's devices, if it has any.
    Kvm(KvmMachine, Option<Serving>),
}

impl Machine {
    /// Starts a machine of this kind and returns it with the link to it; the guest is stopped at reset.
    ///
    /// # Errors
    ///
    /// [`MachineError`] says who is to blame and what to try next. Nothing is left behind.
    pub fn launch(
        kind: MachineKind,
        options: &MachineOptions,
        guest: &Guest,
    ) -> Result<(Self, Link), MachineError> {
        match kind {
            MachineKind::Qemu => {
                let (machine, link) = QemuMachine::launch(options, guest)?;
                Ok((Self::Qemu(Box::new(machine)), link))
            }
            MachineKind::Kvm => {
                let (machine, serving, link) = launch(options, guest)?;
                Ok((Self::Kvm(machine, serving), link))
            }
        }
    }

    /// Says what became of the machine, given the link's error.
    pub fn explain(&mut self, error: LinkError) -> MachineError {
        match self {
            Self::Qemu(machine) => machine.explain(error),
            Self::Kvm(..) => error.into(),
        }
    }
}

impl MachineKind {
    /// The kind for whoever names none: the host's own CPU, where that can do what is asked for.
    #[must_use]
    pub fn choose(options: &MachineOptions, guest: &Guest) -> Self {
        let can = only_qemu(options, guest.firmware.is_some()).is_none()
            && usize::from(options.smp) <= stepwell_kvm::VCPUS_MAX
            && stepwell_kvm::describe().is_ok();
        if can { Self::Kvm } else { Self::Qemu }
    }
}

impl MachineKind {
    /// What kind of place a guest's names are to be: by KVM the pages of those by physical address are
    /// stepped through.
    #[must_use]
    pub fn placing(self, guest: &Guest) -> Placing {
        match self {
            Self::Qemu => Placing::Physical,
            // A tree that is not ours may have a seed.
            Self::Kvm if draws_numbers() || guest.devicetree.is_some() => {
                virtual_unless_moved(&guest.command_line)
            }
            Self::Kvm => Placing::Virtual,
        }
    }
}

/// What kind of place the names of a kernel are to be that has something random to choose its addresses by.
fn virtual_unless_moved(command_line: &str) -> Placing {
    if command_line.split_whitespace().any(|word| word == "nokaslr") {
        Placing::Virtual
    } else {
        Placing::VirtualOnceSeen
    }
}

/// Whether this host's CPU, and with it a guest's, draws random numbers (FEAT_RNG).
fn draws_numbers() -> bool {
    #[cfg(target_arch = "aarch64")]
    let draws = std::arch::is_aarch64_feature_detected!("rand");
    #[cfg(not(target_arch = "aarch64"))]
    let draws = false;
    draws
}

/// The option that only QEMU can do something with.
fn only_qemu(options: &MachineOptions, has_firmware: bool) -> Option<&'static str> {
    let default = MachineOptions::default();
    [
        (has_firmware, "--firmware"),
        (options.schedule.is_some(), "counting instructions (record and replay)"),
        (options.cpus.is_some(), "--cpus"),
        (options.hypervisor.is_some(), "--hypervisor"),
        (options.test_mode.is_some(), "--test-mode"),
        (options.cpu != default.cpu, "--cpu"),
    ]
    .into_iter()
    .find_map(|(is_given, name)| is_given.then_some(name))
}

type Launched = (KvmMachine, Option<Serving>, Link);

fn launch(options: &MachineOptions, guest: &Guest) -> Result<Launched, MachineError> {
    if let Some(option) = only_qemu(options, guest.firmware.is_some()) {
        return Err(MachineError::OnlyQemu { option });
    }
    let linked = match guest.kernel.load {
        LoadPlan::Fixed { address, entry } => {
            Some(Linked { address: Ipa(address), entry: Ipa(entry) })
        }
        LoadPlan::Image { .. } | LoadPlan::Anywhere => None,
    };
    let files = Files {
        kernel: &guest.kernel.bytes,
        linked,
        ramdisk: guest.initrd.as_deref(),
        devicetree: guest.devicetree.as_deref(),
        command_line: &guest.command_line,
        vcpus: options.smp.into(),
        memory_bytes: options.memory.bytes,
        verbose: options.verbose,
    };
    let (machine, stream) = KvmMachine::launch(&files)?;
    let mut link = Link::open(stream, Patience::default())?;
    link.interrupt_when(interruption::is_recent);
    let ring = machine.ring();
    let ring = Ring::map(&ring.file, 0, ring.bytes);
    link.attach_ring(ring.map_err(LinkError::from)?);
    let serving = if options.devices.is_empty() {
        None
    } else {
        let serving = serve(&options.devices, &machine).map_err(MachineError::Devices)?;
        if let Some(thread) = serving.thread() {
            machine.wake_for_devices(thread);
        }
        plug_in(&options.devices, &mut link)?;
        Some(serving)
    };
    Ok((machine, serving, link))
}

fn serve(devices: &Devices, machine: &KvmMachine) -> io::Result<Serving> {
    let ram = GuestRam::new(machine.ram(), RAM_BASE)?;
    Serving::start(machine.device_channel(), ram, devices.clone(), machine.doorbell())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_and_read() {
        for kind in [MachineKind::Qemu, MachineKind::Kvm] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("xen".parse::<MachineKind>(), Err(UnknownKind));
    }

    #[test]
    fn what_only_qemu_can_do_is_left_to_it() {
        assert_eq!(only_qemu(&MachineOptions::default(), false), None);
        assert_eq!(only_qemu(&MachineOptions::default(), true), Some("--firmware"));
        let options = MachineOptions { cpus: Some(1), ..MachineOptions::default() };
        assert_eq!(only_qemu(&options, false), Some("--cpus"));
    }

    #[test]
    fn a_kernel_that_may_move_is_found_first() {
        assert_eq!(virtual_unless_moved("quiet"), Placing::VirtualOnceSeen);
        assert_eq!(virtual_unless_moved("quiet nokaslr"), Placing::Virtual);
    }
}
