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
use stepwell_wire::devices::{QueueRequest, Served, Server, Words};
use stepwell_wire::mailbox::AdaptiveSpin;

/// How long after an answer it is looked for the next request: some times what a driver takes that has
/// copied a request of its own file system's, on an emulated CPU.
const LOOKING: Duration = Duration::from_millis(2);
/// After so long of it others may have the CPU between two looks.
const ALONE: Duration = Duration::from_micros(200);
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

/// Wakes the thread that serves, for a device that has something by itself.
#[derive(Clone, Debug)]
pub struct Wake {
    is_called: Arc<AtomicBool>,
    thread: Thread,
}

impl Wake {
    /// Wakes it.
    pub fn call(&self) {
        self.is_called.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Serving {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts serving. `ring` tells EL2 of an answer for which it does not look.
    ///
    /// # Errors
    ///
    /// Where the host has no thread left.
    pub fn start<M: Words + Send + 'static>(
        server: Server<M>,
        ram: GuestRam,
        devices: Devices,
        ring: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let is_called = Arc::new(AtomicBool::new(true));
        let mut worker = Worker {
            server,
            ram,
            devices: devices.clone(),
            ring: Box::new(ring),
            is_called: Arc::clone(&is_called),
            is_over: Arc::clone(&is_over),
        };
        let builder = std::thread::Builder::new().name("devices".into());
        let handle = builder.spawn(move || worker.run())?;
        let wake = Wake { is_called, thread: handle.thread().clone() };
        devices.with(|devices| devices.iter_mut().for_each(|(_, it)| it.wake(wake.clone())));
        Ok(Self { is_over, thread: Some(handle) })
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
    ring: Box<dyn Fn() + Send>,
    /// A device has something by itself.
    is_called: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

/// Whose devices these are.
const DOMAIN: u8 = 0;

impl<M: Words> Worker<M> {
    fn run(&mut self) {
        let mut spin = AdaptiveSpin::new();
        while !self.is_over.load(Ordering::SeqCst) {
            self.want();
            if self.look(&mut spin) {
                self.serve();
                continue;
            }
            self.server.set_attentive(false);
            if !self.server.is_asked() && !self.is_over.load(Ordering::SeqCst) {
                // Whoever calls meanwhile ends that at once.
                std::thread::park();
            }
            self.server.set_attentive(true);
        }
    }

    /// Tells EL2 which devices have something by themselves, where one has called.
    fn want(&self) {
        if !self.is_called.swap(false, Ordering::SeqCst) {
            return;
        }
        let have = self.devices.with(|devices| {
            let have = devices.iter().filter(|(_, device)| device.has_input());
            have.map(|&(slot, _)| slot).collect::<Vec<_>>()
        });
        for slot in have {
            if self.server.want(DOMAIN, slot) {
                (self.ring)();
            }
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
        let started = Instant::now();
        loop {
            let elapsed = started.elapsed();
            if elapsed > LOOKING {
                break;
            }
            if elapsed > ALONE {
                std::thread::yield_now();
            }
            for _ in 0..LOOKS {
                if self.server.is_asked() {
                    spin.note(true);
                    return true;
                }
                if self.is_called.load(Ordering::Relaxed) {
                    return false;
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
        if self.server.answer_finally(served) {
            (self.ring)();
        }
    }

    fn served(&mut self, request: &QueueRequest) -> Served {
        let Self { server, ram, devices, ring, is_over, .. } = self;
        let Some(memory) = ram.of_guest(request.ram, request.ram_bytes) else {
            return Served::Broken;
        };
        devices.with(|devices| {
            let Some((_, device)) = devices.iter_mut().find(|(slot, _)| *slot == request.slot)
            else {
                return Served::Broken;
            };
            queue::serve(request, memory, device.as_mut(), &mut Parts { server, ring, is_over })
        })
    }
}

/// An answer, in as many parts as it takes.
struct Parts<'a, M> {
    server: &'a mut Server<M>,
    ring: &'a dyn Fn(),
    is_over: &'a AtomicBool,
}

impl<M: Words> Answer for Parts<'_, M> {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Broken> {
        let mut done = 0;
        while done < bytes.len() {
            let written = self.server.write(address + done as u64, &bytes[done..]);
            done += written;
            if written == 0 {
                if self.server.answer_partially() {
                    (self.ring)();
                }
                // EL2 asks for the rest as soon as it has seen that there is one.
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
