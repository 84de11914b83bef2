//! virtio's network device: Ethernet frames between a guest and a process or a device of the host's.
//!
//! See "Network Device" in the virtio specification, version 1.2. A frame from outside waits here, as
//! in a switch, until the guest has a buffer for it; where too many wait, it is lost. Absent on purpose:
//! checksums and segments left to the device, several pairs of queues, a control queue.

mod passt;
mod tap;

use crate::queue::{Answer, Broken, Buffers, Device, Identity};
use crate::server::Wake;
use std::collections::VecDeque;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

/// Descriptors of each queue, as QEMU's has.
const QUEUE_SIZE: u16 = 256;
const RECEIVE: u8 = 0;
/// "struct virtio_net_hdr": all zero but for the number of buffers, 1.
const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// The guest's address, as QEMU gives its first one.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// Bytes of a packet on this network.
const MTU: usize = 1500;
/// Longest frame: a packet, two addresses, a type, and a tag.
const FRAME_MAX: usize = MTU + 18;
/// Frames that wait for buffers of the guest's.
const WAITING_MAX: usize = 1024;

/// What a guest's network device is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkOptions {
    /// The host's network, as any program of the user's reaches it: by `passt`.
    User,
    /// A TAP device of this name.
    Tap(String),
}

impl FromStr for NetworkOptions {
    type Err = &'static str;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        match (words, words.strip_prefix("tap=")) {
            ("user", _) => Ok(Self::User),
            // As the kernel bounds it.
            (_, Some(name)) if (1..16).contains(&name.len()) => Ok(Self::Tap(name.to_owned())),
            (_, Some(_)) => Err("the name of a TAP device has 1 to 15 characters"),
            _ => Err("neither user nor tap=NAME"),
        }
    }
}

/// A network that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no passt.
    #[error(
        "passt is not installed, which --net user runs: `apt-get install passt` on Debian and Ubuntu; \
         --net tap=NAME takes a device of your own"
    )]
    NoPasst,
    /// It does not run.
    #[error("passt cannot be run: {0}")]
    CannotRun(io::Error),
    /// It has ended.
    #[error("passt ended ({status}): {words}")]
    PasstEnded {
        /// How.
        status: String,
        /// The last that it said.
        words: String,
    },
    /// The TAP device cannot be had.
    #[error(
        "no TAP device {name}: {error}; as root, `ip tuntap add {name} mode tap user NAME` makes one for a \
         user"
    )]
    Tap {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
}

/// What takes a guest's frames.
trait Wire: Send {
    /// Sends one.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
}

/// What brings frames: one at a time, for as long as there are any.
type Source = Box<dyn FnMut() -> io::Result<Vec<u8>> + Send>;

/// Frames that wait for the guest.
#[derive(Default)]
struct Inbox {
    frames: Mutex<VecDeque<Vec<u8>>>,
    wake: OnceLock<Wake>,
}

impl Inbox {
    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Vec<u8>>) -> T) -> T {
        act(&mut self.frames.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what comes, for good.
    fn fill(&self, source: &mut Source) {
        while let Ok(frame) = source() {
            let is_welcome = (1..=FRAME_MAX).contains(&frame.len());
            self.with(|frames| {
                if is_welcome && frames.len() < WAITING_MAX {
                    frames.push_back(frame);
                }
            });
            if let Some(wake) = self.wake.get() {
                wake.call();
            }
        }
    }
}

/// The device.
pub struct Network {
    wire: Box<dyn Wire>,
    inbox: Arc<Inbox>,
    /// It was told that the wire fails.
    has_failed: bool,
}

impl Network {
    /// Connects one.
    ///
    /// # Errors
    ///
    /// [`NetworkError`].
    pub fn open(options: &NetworkOptions) -> Result<Self, NetworkError> {
        match options {
            NetworkOptions::User => {
                let (wire, source) = passt::open()?;
                Self::new(Box::new(wire), source).map_err(NetworkError::CannotRun)
            }
            NetworkOptions::Tap(name) => {
                let failed = |error| NetworkError::Tap { name: name.clone(), error };
                let (wire, source) = tap::open(name).map_err(failed)?;
                Self::new(Box::new(wire), source).map_err(failed)
            }
        }
    }

    fn new(wire: Box<dyn Wire>, mut source: Source) -> io::Result<Self> {
        let inbox = Arc::new(Inbox::default());
        let of_thread = Arc::clone(&inbox);
        let builder = std::thread::Builder::new().name("network".into());
        // It ends when the wire does, at the latest with the process.
        let _thread = builder.spawn(move || of_thread.fill(&mut source))?;
        Ok(Self { wire, inbox, has_failed: false })
    }

    /// One that always has a frame or two, of any length, and whose wire takes and forgets.
    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        struct Nowhere;
        impl Wire for Nowhere {
            fn send(&mut self, frame: &[u8]) -> io::Result<()> {
                assert!(frame.len() <= FRAME_MAX);
                Ok(())
            }
        }
        let mut length = 0;
        let source = move || {
            std::thread::sleep(std::time::Duration::from_micros(10));
            length = (length + 61) % (FRAME_MAX + 2);
            Ok(vec![1; length])
        };
        Self::new(Box::new(Nowhere), Box::new(source)).expect("there is a thread left")
    }

    fn send(&mut self, buffers: &Buffers<'_>) -> Result<(), Broken> {
        let header = HEADER.len() as u64;
        let bytes = buffers.readable_bytes().checked_sub(header).ok_or(Broken)?;
        // Longer ones than the network has are lost, as anywhere.
        if bytes > FRAME_MAX as u64 {
            return Ok(());
        }
        let mut frame = vec![0; bytes as usize];
        buffers.read(header, &mut frame)?;
        if let Err(error) = self.wire.send(&frame)
            && !std::mem::replace(&mut self.has_failed, true)
        {
            eprintln!("stepwell: the guest's network is gone: {error}\r");
        }
        Ok(())
    }

    fn receive(&self, buffers: &Buffers<'_>, answer: &mut dyn Answer) -> Result<u32, Broken> {
        let Some(frame) = self.inbox.with(VecDeque::pop_front) else { return Ok(0) };
        let bytes = HEADER.len() + frame.len();
        // A buffer that is too short takes none.
        if buffers.writable_bytes() < bytes as u64 {
            return Ok(0);
        }
        buffers.write(answer, 0, &[&HEADER, &frame[..]].concat())?;
        Ok(bytes as u32)
    }
}

impl Device for Network {
    fn identity(&self) -> Identity {
        let features =
            1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_NET_F_MAC;
        Identity {
            id: VIRTIO_ID_NET,
            features,
            queues: vec![QUEUE_SIZE; 2],
            configuration: [&MAC[..], &[0; 6]].concat(),
        }
    }

    fn is_ready(&mut self, queue: u8) -> bool {
        queue != RECEIVE || self.has_input()
    }

    fn has_input(&self) -> bool {
        self.inbox.with(|frames| !frames.is_empty())
    }

    fn wake(&mut self, wake: Wake) {
        // A second one is the same one's.
        let _is_first = self.inbox.wake.set(wake);
    }

    fn perform(
        &mut self,
        queue: u8,
        buffers: &Buffers<'_>,
        answer: &mut dyn Answer,
    ) -> Result<u32, Broken> {
        if queue == RECEIVE {
            return self.receive(buffers, answer);
        }
        self.send(buffers).map(|()| 0)
    }
}

#[cfg(test)]
mod tests;
