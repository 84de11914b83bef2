//! Machines: QEMU with our hypervisor and a guest in it.
//!
//! [`Machine::launch`] does what a boot loader would: it lays the guest's files out in the
//! machine's RAM (a file that we share with QEMU), tells the hypervisor about them in the
//! machine's device tree, starts QEMU, and opens the link. From then on nothing of the machine is
//! left on disk, and QEMU dies with us, however we die.

mod error;
mod hosttree;
mod layout;
mod options;
mod process;
mod ram;
mod scratch;

pub use error::MachineError;
pub use layout::{GUEST_RAM, Layout};
pub use options::{Guest, MachineOptions, Memory};
pub use scratch::{Registered, remove_leftovers};

use process::Qemu;
use ram::Ram;
use scratch::Scratch;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;
use stepwell_link::{Link, LinkError, Mailbox, Patience, Ring};

/// How long QEMU may take to connect; it does so before it runs anything.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A running machine. Dropping it ends QEMU.
pub struct Machine {
    qemu: Qemu,
    layout: Layout,
}

impl Machine {
    /// Starts a machine and returns it with the link to its hypervisor; the guest stands at
    /// reset.
    ///
    /// QEMU is tied to the calling thread: it is killed when that ends.
    ///
    /// # Errors
    ///
    /// [`MachineError`] says who is to blame and what to try next. Nothing is left behind.
    pub fn launch(options: &MachineOptions, guest: &Guest) -> Result<(Self, Link), MachineError> {
        let hypervisor = options.hypervisor_image()?;
        let layout = Layout::new(options.memory, guest)?;
        let scratch = Scratch::new()?;
        let ram = Ram::new(&scratch, layout.ram_bytes)?;
        for (address, bytes) in layout.pieces(guest) {
            ram.write(address, bytes)?;
        }
        let image = scratch.write("hypervisor", &hypervisor)?;
        let dumped = scratch.path("dumped.dtb");
        process::dump_tree(options, layout.ram_bytes, &dumped)?;
        let tree = hosttree::edit(&scratch.read(&dumped)?, &layout, guest, options)?;
        let tree = scratch.write("host.dtb", &tree)?;

        let socket = scratch.path("link");
        let listener = UnixListener::bind(&socket).map_err(MachineError::scratch(&socket))?;
        let arguments = arguments(options, &layout, &image, &tree, ram.path(), &socket);
        let mut qemu = Qemu::start(&options.qemu, &arguments, options.verbose)?;
        let stream = qemu.accept(&listener, CONNECT_TIMEOUT)?;
        let link = Link::open(stream, Patience::default());
        let mut link = link.map_err(|error| explain(&mut qemu, error))?;
        if link.hello().mailbox {
            let mailbox = Mailbox::map(ram.file(), layout.mailbox.offset());
            link.attach_mailbox(mailbox?);
        }
        if link.hello().ring_bytes > 0 {
            let ring = Ring::map(ram.file(), layout.ring.offset(), layout.ring.bytes);
            link.attach_ring(ring.map_err(|error| MachineError::Link(error.into()))?);
        }
        Ok((Self { qemu, layout }, link))
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

/// What every machine of these options has, as QEMU's arguments.
fn board(options: &MachineOptions, ram_bytes: u64, machine: &str) -> Vec<String> {
    let board = "virt,virtualization=on,gic-version=3,dtb-randomness=off";
    [
        ("-machine", format!("{board}{machine}")),
        ("-cpu", options.cpu_model()),
        ("-smp", options.smp.to_string()),
        ("-m", format!("{}k", ram_bytes / 1024)),
        ("-nic", "none".to_owned()),
        ("-display", "none".to_owned()),
        ("-monitor", "none".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

fn arguments(
    options: &MachineOptions,
    layout: &Layout,
    image: &Path,
    tree: &Path,
    ram: &Path,
    socket: &Path,
) -> Vec<String> {
    let mut arguments = vec!["-nodefaults".to_owned(), "-no-reboot".to_owned()];
    arguments.extend(board(options, layout.ram_bytes, ",memory-backend=ram"));
    let (ram, socket) = (in_option(ram), in_option(socket));
    let bytes = layout.ram_bytes;
    let more = [
        ("-object", format!("memory-backend-file,id=ram,mem-path={ram},size={bytes},share=on")),
        ("-kernel", image.display().to_string()),
        ("-dtb", tree.display().to_string()),
        ("-chardev", format!("socket,id=link,path={socket},server=off")),
        // QEMU's virtio-mmio speaks the draft of 2011 unless told otherwise.
        ("-global", "virtio-mmio.force-legacy=false".to_owned()),
        ("-device", "virtio-serial-device".to_owned()),
        ("-device", "virtconsole,chardev=link".to_owned()),
        // The hypervisor's log: standard output is a pipe to us.
        ("-serial", "file:/dev/stdout".to_owned()),
    ];
    arguments.extend(more.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    arguments
}

/// Quotes a path for QEMU's comma-separated options.
fn in_option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
