//! Ctrl-C, SIGTERM and SIGHUP, as something to ask for rather than to be struck by.
//!
//! Each command decides what an interruption means to it: leave, pause the guest, end the
//! recording. A signal that nobody takes within a grace period means that the main thread is
//! waiting for a key, or stuck: then the signal's own thread tidies up and ends the process, and
//! the kernel ends QEMU with it.

use crate::{leftovers, terminal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For Ctrl-C: a person presses it again.
const GRACE_STOP: Duration = Duration::from_secs(3);
/// For the others: whoever sends them sends SIGKILL soon, which would leave scratch files.
const GRACE_LEAVE: Duration = Duration::from_millis(700);
const POLL: Duration = Duration::from_millis(50);
const NONE: i32 = 0;

static PENDING: AtomicI32 = AtomicI32::new(NONE);
/// Milliseconds from [`install`] to the last signal, plus one; 0 for none.
static LAST: AtomicU64 = AtomicU64::new(0);
static INSTALLED: OnceLock<Instant> = OnceLock::new();

/// What the user, or the system, wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Ctrl-C: stop what you are doing.
    Stop,
    /// Leave, now.
    Leave,
}

/// Starts taking signals. Without it they do what they do to any process.
///
/// # Errors
///
/// Where the system refuses.
pub fn install() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    INSTALLED.get_or_init(Instant::now);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            LAST.store(elapsed() + 1, Ordering::SeqCst);
            PENDING.store(signal, Ordering::SeqCst);
            let grace = if signal == SIGINT { GRACE_STOP } else { GRACE_LEAVE };
            let since = Instant::now();
            while pending() && since.elapsed() < grace {
                std::thread::sleep(POLL);
            }
            if pending() {
                terminal::restore();
                leftovers::remove_leftovers();
                std::process::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

/// Tells whether an interruption waits to be taken.
#[must_use]
pub fn pending() -> bool {
    PENDING.load(Ordering::SeqCst) != NONE
}

/// Tells whether somebody wanted to interrupt a moment ago, whether that was taken or not: what does
/// not answer now is not waited for.
#[must_use]
pub fn is_recent() -> bool {
    let last = LAST.load(Ordering::SeqCst);
    last != 0 && u128::from(elapsed() + 1 - last.min(elapsed() + 1)) < GRACE_STOP.as_millis()
}

fn elapsed() -> u64 {
    INSTALLED.get().map_or(0, |since| since.elapsed().as_millis() as u64)
}

/// Takes the interruption that is pending, if one is.
pub fn take() -> Option<Interruption> {
    match PENDING.swap(NONE, Ordering::SeqCst) {
        NONE => None,
        SIGINT => Some(Interruption::Stop),
        _ => Some(Interruption::Leave),
    }
}
