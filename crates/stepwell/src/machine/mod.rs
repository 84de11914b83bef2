//! Machines: QEMU with our hypervisor and a guest in it, or the host's own CPU by KVM ([`Machine`]).
//!
//! [`QemuMachine::launch`] does what a boot loader would: it lays the guest's files out in the
//! machine's RAM (a file that we share with QEMU), starts QEMU, which sets the machine up and
//! waits, tells the hypervisor about the files in the device tree that QEMU has put into that RAM,
//! lets the machine go, and opens the link. What QEMU gets from us it inherits, and none of it has
//! a name on any disk; and QEMU dies with us, however we die. So nothing is left behind, ever.

mod error;
mod firmware;
mod hosttree;
mod kvm;
mod layout;
mod monitor;
mod options;
mod process;
mod ram;

pub use error::MachineError;
pub use firmware::{Firmware, Handed};
pub use kvm::{Machine, MachineKind, Placing, UnknownKind};
pub use layout::{GUEST_RAM, Layout};
pub use options::{Guest, MachineOptions, Memory, TimeOfDay};

use crate::interruption;
use process::Qemu;
use ram::Ram;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use stepwell_devices::{Devices, Identity, Serving};
use stepwell_link::{
    GuestRam, KeptDevices, Link, LinkError, Mailbox, Patience, Ring, device_channel,
};

/// How long QEMU may take to set the machine up, before it runs anything.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running machine. Dropping it ends QEMU.
pub struct QemuMachine {
    qemu: Qemu,
    layout: Layout,
    /// Whoever serves the guest's devices, if it has any.
    _serving: Option<Serving>,
}

impl QemuMachine {
    /// Starts a machine and returns it with the link to its hypervisor; the guest is stopped at
    /// reset.
    ///
    /// QEMU is tied to the calling thread: it is killed when that ends.
    ///
    /// # Errors
    ///
    /// [`MachineError`] says who is to blame and what to try next. Nothing is left behind.
    pub fn launch(options: &MachineOptions, guest: &Guest) -> Result<(Self, Link), MachineError> {
        let hypervisor = options.hypervisor_image()?;
        let layout = match options.schedule {
            None => Layout::new(options.memory, guest)?,
            Some(_) => Layout::with_checkpoints(options.memory, guest)?,
        };
        let ram = Ram::new(layout.ram_bytes)?;
        for (address, bytes) in layout.pieces(guest) {
            ram.write(address, bytes)?;
        }
        if let Some(firmware) = &guest.firmware {
            ram.write(layout.variables(), &firmware.variables.bytes())?;
        }
        let image = ram::unnamed(&hypervisor)?;
        let (stream, link) = UnixStream::pair().map_err(LinkError::from)?;
        let (monitor, control) = UnixStream::pair().map_err(LinkError::from)?;
        let inherited = Inherited {
            ram: ram.file().as_raw_fd(),
            image: image.as_raw_fd(),
            link: link.as_raw_fd(),
            control: control.as_raw_fd(),
        };
        let arguments = arguments(options, &layout, &inherited);
        let started = Qemu::start(options, &arguments, &inherited.all(), monitor);
        // QEMU has its own: where it ends, our ends shall know.
        drop((link, control));
        let mut qemu = started?;
        qemu.wait_until_set_up(SETUP_TIMEOUT)?;
        let (address, tree) = ram.find_tree(layout.kernel.offset())?;
        ram.write_at(address, &hosttree::edit(&tree, &layout, guest, options)?)?;
        qemu.go(SETUP_TIMEOUT)?;
        let link = Link::open(stream, Patience::default());
        let mut link = link.map_err(|error| explain(&mut qemu, error))?;
        if link.hello().mailbox {
            let mailbox = Mailbox::map(ram.file(), layout.mailbox.offset());
            link.attach_mailbox(mailbox?);
        }
        if options.schedule.is_some() {
            link.attach_ram(GuestRam::new(ram.file(), Layout::RAM.0)?);
        }
        link.interrupt_when(interruption::is_recent);
        if link.hello().ring_bytes > 0 {
            let ring = Ring::map(ram.file(), layout.ring.offset(), layout.ring.bytes);
            link.attach_ring(ring.map_err(|error| MachineError::Link(error.into()))?);
        }
        if let Some(firmware) = &guest.firmware {
            link.attach_flash(Box::new(firmware.variables.clone()));
        }
        let serving = serve_devices(options, &layout, &ram, &mut link)?;
        Ok((Self { qemu, layout, _serving: serving }, link))
    }

    /// Returns where everything lies.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns QEMU's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.qemu.process_id()
    }

    /// Says what became of the machine, given the link's error.
    pub fn explain(&mut self, error: LinkError) -> MachineError {
        explain(&mut self.qemu, error)
    }
}

/// Plugs the devices in, before the guest runs, and has them served.
fn serve_devices(
    options: &MachineOptions,
    layout: &Layout,
    ram: &Ram,
    link: &mut Link,
) -> Result<Option<Serving>, MachineError> {
    if options.devices.is_empty() {
        return Ok(None);
    }
    let channel = device_channel(ram.file(), layout.device_channel.offset())?;
    let guest_ram = stepwell_devices::GuestRam::new(ram.file(), Layout::RAM.0);
    let guest_ram = guest_ram.map_err(MachineError::Devices)?;
    let doorbell = link.doorbell().map_err(MachineError::Devices)?;
    let serving = Serving::start(channel, guest_ram, options.devices.clone(), doorbell);
    let serving = serving.map_err(MachineError::Devices)?;
    link.keep_devices(Box::new(Kept(options.devices.clone())));
    if let Some(thread) = serving.thread() {
        link.wake_for_devices(thread);
    }
    plug_in(&options.devices, link)?;
    Ok(Some(serving))
}

/// Plugs devices in that are served, before the guest runs.
fn plug_in(devices: &Devices, link: &mut Link) -> Result<(), MachineError> {
    for (slot, identity) in devices.identities() {
        let Identity { id, features, queues, configuration } = identity;
        link.attach_device(0, slot, (id, features), &queues, &configuration)
            .map_err(|error| MachineError::Devices(std::io::Error::other(error)))?;
    }
    Ok(())
}

/// The devices, as what goes to kept moments together with its guest.
struct Kept(Devices);

impl KeptDevices for Kept {
    fn keep(&self, moment: u64) {
        self.0.keep(moment);
    }

    fn go_to(&self, moment: u64) {
        self.0.go_to(moment);
    }

    fn forget(&self, moment: u64) {
        self.0.forget(moment);
    }
}

/// Where the link only says that it closed, QEMU's own end says more.
fn explain(qemu: &mut Qemu, error: LinkError) -> MachineError {
    match error {
        LinkError::MachineGone => qemu.obituary(),
        LinkError::NoAnswer { .. } | LinkError::Garbage { .. } | LinkError::MailboxHeader(_) => {
            match qemu.last_words() {
                Some(words) => MachineError::Hypervisor { error, words },
                None => error.into(),
            }
        }
        error => error.into(),
    }
}

/// The descriptors that QEMU inherits.
struct Inherited {
    ram: RawFd,
    image: RawFd,
    link: RawFd,
    control: RawFd,
}

impl Inherited {
    const fn all(&self) -> [RawFd; 4] {
        let Self { ram, image, link, control } = *self;
        [ram, image, link, control]
    }
}

fn arguments(options: &MachineOptions, layout: &Layout, inherited: &Inherited) -> Vec<String> {
    let board = "virt,virtualization=on,gic-version=3,dtb-randomness=off,memory-backend=ram";
    let bytes = layout.ram_bytes;
    let Inherited { ram, image, link, control } = inherited;
    // It waits for `cont` (-S), and is not reset under our hands.
    let mut arguments = ["-nodefaults", "-no-reboot", "-S"].map(str::to_owned).to_vec();
    let more = [
        ("-machine", board.to_owned()),
        ("-cpu", options.cpu_model()),
        ("-smp", options.machine_cpus().to_string()),
        ("-m", format!("{}k", bytes / 1024)),
        ("-nic", "none".to_owned()),
        ("-display", "none".to_owned()),
        ("-monitor", "none".to_owned()),
        (
            "-object",
            format!("memory-backend-file,id=ram,mem-path={},size={bytes},share=on", named(*ram)),
        ),
        ("-kernel", named(*image)),
        ("-chardev", format!("socket,id=control,fd={control}")),
        ("-mon", "chardev=control,mode=control".to_owned()),
        ("-chardev", format!("socket,id=link,fd={link}")),
        // QEMU's virtio-mmio speaks the draft of 2011 unless told otherwise.
        ("-global", "virtio-mmio.force-legacy=false".to_owned()),
        ("-device", "virtio-serial-device".to_owned()),
        ("-device", "virtconsole,chardev=link".to_owned()),
        // The hypervisor's log: standard output is a pipe to us.
        ("-serial", "file:/dev/stdout".to_owned()),
    ];
    if options.schedule.is_some() {
        // 16 ns an instruction, and no pause where every CPU waits.
        // With a seed: RNDR is to read the same each time.
        arguments.extend(["-icount", "shift=4,sleep=off", "-seed", "1"].map(str::to_owned));
    }
    arguments.extend(more.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    arguments
}

/// The name by which a process opens a file that it has inherited.
fn named(descriptor: RawFd) -> String {
    format!("/proc/self/fd/{descriptor}")
}
