//! The thread that serves queues.
//!
//! A request of a guest that does I/O is soon followed by another; so the thread looks for one for a
//! while before it sleeps, and is woken by the link's doorbell.

use crate::memory::GuestRam;
use crate::queue::{self, Answer, Broken, Device};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use stepwell_wire::devices::{QueueRequest, Served, Server};
use stepwell_wire::mailbox::{AdaptiveSpin, Memory};

/// How long after an answer it is looked for the next request: some times what a driver takes.
const LOOKING: Duration = Duration::from_micros(200);
/// Looks between two at the clock.
const LOOKS: usize = 64;

/// The devices of a guest, each in its slot, through all of its resets.
#[derive(Clone, Default)]
pub struct Devices(Arc<Mutex<Vec<Plugged>>>);

/// A device and its slot.
type Plugged = (u8, Box<dyn Device>);

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.identities()).finish()
    }
}

/// Slots of the board.
const SLOTS: usize = 32;

impl Devices {
    /// Puts devices into the last slots, the first device into the first of these: a guest finds them
    /// in this order, and a single one where QEMU has its first.
    ///
    /// Returns none where there are more devices than slots.
    #[must_use]
    pub fn new(devices: Vec<Box<dyn Device>>) -> Option<Self> {
        let first = SLOTS.checked_sub(devices.len())? as u8;
        Some(Self(Arc::new(Mutex::new((first..).zip(devices).collect()))))
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.with(|devices| devices.is_empty())
    }

    /// What they are, and in which slots.
    #[must_use]
    pub fn identities(&self) -> Vec<(u8, queue::Identity)> {
        self.with(|devices| devices.iter().map(|(slot, of)| (*slot, of.identity())).collect())
    }

    /// Has each keep what it has now, under this number. Their guest is stopped.
    pub fn keep(&self, moment: u64) {
        self.with(|devices| devices.iter_mut().for_each(|(_, device)| device.keep(moment)));
    }

    /// Takes each to what it had when that was kept.
    pub fn go_to(&self, moment: u64) {
        self.with(|devices| devices.iter_mut().for_each(|(_, device)| device.go_to(moment)));
    }

    /// Lets go what was kept.
    pub fn forget(&self, moment: u64) {
        self.with(|devices| devices.iter_mut().for_each(|(_, device)| device.forget(moment)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Plugged>) -> T) -> T {
        // What a device was doing when a thread panicked is its guest's loss alone.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Serving {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// Where the host has no thread left.
    pub fn start<M: Memory + Send + 'static>(
        server: Server<M>,
        ram: GuestRam,
        devices: Devices,
    ) -> io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut thread = Worker { server, ram, devices, is_over: Arc::clone(&is_over) };
        let builder = std::thread::Builder::new().name("devices".into());
        let thread = builder.spawn(move || thread.run())?;
        Ok(Self { is_over, thread: Some(thread) })
    }

    /// Whom to wake when the doorbell rings.
    #[must_use]
    pub fn thread(&self) -> Option<&Thread> {
        self.thread.as_ref().map(JoinHandle::thread)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

struct Worker<M> {
    server: Server<M>,
    ram: GuestRam,
    devices: Devices,
    is_over: Arc<AtomicBool>,
}

impl<M: Memory> Worker<M> {
    fn run(&mut self) {
        let mut spin = AdaptiveSpin::new();
        while !self.is_over.load(Ordering::SeqCst) {
            if self.look(&mut spin) {
                self.serve();
                continue;
            }
            self.server.set_attentive(false);
            if !self.server.is_asked() && !self.is_over.load(Ordering::SeqCst) {
                std::thread::park();
            }
            self.server.set_attentive(true);
        }
    }

    /// Looks for a request for a while.
    fn look(&self, spin: &mut AdaptiveSpin) -> bool {
        if self.server.is_asked() {
            return true;
        }
        if !spin.is_worth_it() {
            return false;
        }
        let until = Instant::now() + LOOKING;
        while Instant::now() < until {
            for _ in 0..LOOKS {
                if self.server.is_asked() {
                    spin.note(true);
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        spin.note(false);
        false
    }

    fn serve(&mut self) {
        let request = self.server.request();
        let served = self.served(&request);
        self.server.answer_finally(served);
    }

    fn served(&mut self, request: &QueueRequest) -> Served {
        let Self { server, ram, devices, is_over } = self;
        let Some(memory) = ram.of_guest(request.ram, request.ram_bytes) else {
            return Served::Broken;
        };
        devices.with(|devices| {
            let Some((_, device)) = devices.iter_mut().find(|(slot, _)| *slot == request.slot)
            else {
                return Served::Broken;
            };
            queue::serve(request, memory, device.as_mut(), &mut Parts { server, is_over })
        })
    }
}

/// An answer, in as many parts as it takes.
struct Parts<'a, M> {
    server: &'a mut Server<M>,
    is_over: &'a AtomicBool,
}

impl<M: Memory> Answer for Parts<'_, M> {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Broken> {
        let mut done = 0;
        while done < bytes.len() {
            let written = self.server.write(address + done as u64, &bytes[done..]);
            done += written;
            if written == 0 {
                self.server.answer_partially();
                // EL2 waits for nothing but this.
                while !self.server.is_asked() {
                    if self.is_over.load(Ordering::SeqCst) {
                        return Err(Broken);
                    }
                    std::thread::yield_now();
                }
            }
        }
        Ok(())
    }
}
