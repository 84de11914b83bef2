//! The link's mailbox: where requests are looked for, and answers are put, once the tool has it.
//!
//! See [`stepwell_wire::mailbox`] for the protocol. A CPU that has just had to do with the tool
//! *lingers*: it looks into the mailbox for a while before it sleeps, because a script that steps
//! sends the next command as soon as it has the last stop. One CPU lingers at a time; the others
//! sleep. While none does, the doorbell's interrupt comes to the boot CPU as without a mailbox.

use crate::hw::{link, timer};
use crate::mem::mailbox::MailboxMemory;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::{Mutex, Once};
use stepwell_wire::Request;
use stepwell_wire::mailbox::{AdaptiveSpin, Direction, Receiver, Sender};

/// How long a CPU lingers: some times what a script takes from a stop to its next command, also
/// where the tool was asleep and had to be woken. A shorter one would never be of use to two who
/// have both begun to sleep.
const LINGER_NS: u64 = 300_000;
/// Looks between two at the clock, which can be dear: an emulated one is read under a lock.
const LOOKS: usize = 64;
/// An empty frame.
const DOORBELL: [u8; 1] = [0];

struct Mailbox {
    requests: Mutex<Receiver<MailboxMemory>>,
    outgoing: Mutex<Sender<MailboxMemory>>,
    /// The tool knows of it.
    is_in_use: AtomicBool,
    /// Who holds this lingers.
    lingering: Mutex<AdaptiveSpin>,
    /// When the tool was last heard or told something, by the machine's counter.
    last_exchange: AtomicU64,
}

static MAILBOX: Once<Mailbox> = Once::new();

/// Gives the link a mailbox. The tool learns of it by the answer to its `Hello`.
pub fn setup(memory: MailboxMemory) {
    MAILBOX.call_once(|| Mailbox {
        requests: Mutex::new(Receiver::new(memory, Direction::ToHypervisor)),
        outgoing: Mutex::new(Sender::new(memory, Direction::ToTool)),
        is_in_use: AtomicBool::new(false),
        lingering: Mutex::new(AdaptiveSpin::new()),
        last_exchange: AtomicU64::new(0),
    });
}

/// Tells whether there is a mailbox.
#[must_use]
pub fn exists() -> bool {
    MAILBOX.is_completed()
}

/// From here on everything goes through the mailbox, if there is one: the tool has been told.
pub fn use_from_now_on() {
    if let Some(mailbox) = MAILBOX.get() {
        mailbox.is_in_use.store(true, Ordering::Release);
    }
}

fn in_use() -> Option<&'static Mailbox> {
    MAILBOX.get().filter(|mailbox| mailbox.is_in_use.load(Ordering::Acquire))
}

/// Tells whether the link goes through the mailbox.
#[must_use]
pub fn is_in_use() -> bool {
    in_use().is_some()
}

/// Sends a frame, waiting for room. Returns `false` where the link does not go through the mailbox.
pub fn send(frame: &[u8]) -> bool {
    let Some(mailbox) = in_use() else { return false };
    let mut outgoing = mailbox.outgoing.lock();
    while !outgoing.send(frame) {
        // A tool that sleeps on a full mailbox has been told of each frame in it.
        core::hint::spin_loop();
    }
    let must_ring = outgoing.must_ring();
    drop(outgoing);
    if must_ring {
        link::send(&DOORBELL);
    }
    note_exchange(mailbox);
    true
}

/// Takes the next request. A damaged one is passed over: it has no id to answer to, and the tool's
/// time-out reports it.
#[must_use]
pub fn take() -> Option<Request> {
    let mailbox = in_use()?;
    let mut requests = mailbox.requests.lock();
    loop {
        match requests.take() {
            Ok(None) | Err(_) => return None,
            Ok(Some(Err(_))) => {}
            Ok(Some(Ok(request))) => {
                drop(requests);
                note_exchange(mailbox);
                return Some(request);
            }
        }
    }
}

fn note_exchange(mailbox: &Mailbox) {
    mailbox.last_exchange.store(timer::counter(), Ordering::Relaxed);
}

/// Looks for requests until none has come for a while, or `is_over`; each look is `serve`, which
/// says whether there was one. Returns whether anything was served.
///
/// Whoever sleeps next does so only if not: what was served may have been meant for it.
pub fn linger(mut serve: impl FnMut() -> bool, is_over: impl Fn() -> bool) -> bool {
    let Some(mailbox) = in_use() else { return false };
    let Some(mut spin) = mailbox.lingering.try_lock() else { return false };
    let ticks = timer::frequency_hz() / (1_000_000_000 / LINGER_NS);
    let is_recent = || {
        let last = mailbox.last_exchange.load(Ordering::Relaxed);
        timer::counter().saturating_sub(last) < ticks
    };
    if !is_recent() || !spin.is_worth_it() {
        return false;
    }
    let set_attentive = |yes| mailbox.requests.lock().set_attentive(yes);
    let mut has_served = false;
    set_attentive(true);
    while is_recent() && !is_over() {
        for _ in 0..LOOKS {
            if serve() {
                has_served = true;
                break;
            }
            core::hint::spin_loop();
        }
    }
    if has_served || !is_over() {
        spin.note(has_served);
    }
    set_attentive(false);
    // What came before the tool could know.
    serve() || has_served
}
