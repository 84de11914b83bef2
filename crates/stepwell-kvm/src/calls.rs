//! What vCPUs, and who serves the link, tell each other: calls out of the guest, and alarms.
//!
//! A vCPU is called by a bit that it finds before its next entry, by KVM's `immediate_exit`, which has an
//! entry that is just begun return at once, and by a signal, which ends one that has begun. In this
//! order, so that none of them is lost: whoever enters has looked at the bit, and KVM looks at the flag
//! and then for signals.
//!
//! The flag may come when its bit was taken already. So it is cleared before each entry, and before the
//! bits are looked at; one that is left all the same costs an entry that returns at once, and not all of
//! them.

#![expect(unsafe_code, reason = "signals, and a byte that KVM shares with us")]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use stepwell_vm::cpu::Interrupt;
use stepwell_vm::domain::MAX_VCPUS;

/// The bits of [`Calls::pending`].
const KICK: u32 = 1 << 0;
const ALARM: u32 = 1 << 1;
const LINK: u32 = 1 << 2;
const VIRTUAL_TIMER: u32 = 1 << 3;

/// How long nobody sleeps without another look.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What comes for one vCPU.
struct Calls {
    pending: AtomicU32,
    /// The thread's number, once there is one.
    thread: AtomicI32,
    is_in_guest: AtomicBool,
    /// KVM's `immediate_exit` of this vCPU, while its page is mapped.
    immediate_exit: AtomicPtr<u8>,
    sleeps: Mutex<()>,
    wakes: Condvar,
    alarm: Mutex<Option<Instant>>,
}

impl Calls {
    const fn new() -> Self {
        Self {
            pending: AtomicU32::new(0),
            thread: AtomicI32::new(0),
            is_in_guest: AtomicBool::new(false),
            immediate_exit: AtomicPtr::new(ptr::null_mut()),
            sleeps: Mutex::new(()),
            wakes: Condvar::new(),
            alarm: Mutex::new(None),
        }
    }

    fn set_immediate_exit(&self, value: u8) {
        let place = self.immediate_exit.load(SeqCst);
        if !place.is_null() {
            // SAFETY: it is a byte of a page that is mapped as long as the pointer is there: `leave`
            // takes it away before the page goes. KVM and this process access it as single bytes.
            unsafe { AtomicU8::from_ptr(place).store(value, SeqCst) };
        }
    }

    fn call(&self, what: u32) {
        self.pending.fetch_or(what, SeqCst);
        self.set_immediate_exit(1);
        if self.is_in_guest.load(SeqCst) {
            let thread = self.thread.load(SeqCst);
            // SAFETY: the number is of a thread of this process, or of none any more, which is an error
            // without consequence; the signal's handler does nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
        }
        drop(self.sleeps.lock().unwrap_or_else(PoisonError::into_inner));
        self.wakes.notify_all();
    }
}

/// What comes for each vCPU of a machine.
pub struct AllCalls {
    vcpus: [Calls; MAX_VCPUS],
    /// Somebody is to look at the alarms again.
    alarms_changed: Condvar,
    alarms: Mutex<()>,
    is_over: AtomicBool,
}

/// The signal that ends an entry.
fn signal() -> i32 {
    libc::SIGRTMIN() + 3
}

extern "C" fn do_nothing(_: i32) {}

impl Default for AllCalls {
    fn default() -> Self {
        Self::new()
    }
}

impl AllCalls {
    /// Makes it, with nothing to come, and has the signal end system calls.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: the structure is one that zeros are valid for, and the handler does nothing. Without
        // SA_RESTART a system call that it interrupts returns.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = do_nothing as extern "C" fn(i32) as usize;
            libc::sigaction(signal(), &action, ptr::null_mut());
        }
        Self {
            vcpus: [const { Calls::new() }; MAX_VCPUS],
            alarms_changed: Condvar::new(),
            alarms: Mutex::new(()),
            is_over: AtomicBool::new(false),
        }
    }

    /// The machine is over: every thread of it is to end.
    pub fn end(&self) {
        self.is_over.store(true, SeqCst);
        self.kick(u8::MAX);
        drop(self.alarms.lock().unwrap_or_else(PoisonError::into_inner));
        self.alarms_changed.notify_all();
    }

    /// Whether it is.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    /// Calls vCPUs out of their guests: one bit each.
    pub fn kick(&self, vcpus: u8) {
        let called = (0_u8..).zip(&self.vcpus).filter(|(n, _)| vcpus >> n & 1 != 0);
        called.for_each(|(_, calls)| calls.call(KICK));
    }

    /// Calls the first vCPU for what devices have answered, or have by themselves.
    pub fn ring(&self) {
        if let Some(first) = self.vcpus.first() {
            first.call(LINK);
        }
    }

    /// This thread is the vCPU's, whose `immediate_exit` is at `place`.
    ///
    /// # Safety
    ///
    /// The byte must stay mapped until [`AllCalls::leave`], and nobody may access it but by this type
    /// and KVM.
    pub unsafe fn join(&self, vcpu: usize, place: *mut u8) {
        let Some(calls) = self.vcpus.get(vcpu) else { return };
        // SAFETY: it tells the number of this thread.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) };
        calls.thread.store(thread as i32, SeqCst);
        calls.immediate_exit.store(place, SeqCst);
    }

    /// The vCPU's page is about to go.
    pub fn leave(&self, vcpu: usize) {
        if let Some(calls) = self.vcpus.get(vcpu) {
            calls.immediate_exit.store(ptr::null_mut(), SeqCst);
        }
    }

    /// Tells whether something has come for a vCPU that is about to enter. If not it may be in the guest
    /// until [`AllCalls::left`].
    pub fn may_enter(&self, vcpu: usize) -> bool {
        let Some(calls) = self.vcpus.get(vcpu) else { return true };
        calls.is_in_guest.store(true, SeqCst);
        calls.set_immediate_exit(0);
        let is_free = calls.pending.load(SeqCst) == 0;
        if !is_free {
            calls.is_in_guest.store(false, SeqCst);
        }
        is_free
    }

    /// The vCPU has left the guest.
    pub fn left(&self, vcpu: usize) {
        if let Some(calls) = self.vcpus.get(vcpu) {
            calls.is_in_guest.store(false, SeqCst);
        }
    }

    /// Whether another one's call waits, which is not to be put off.
    #[must_use]
    pub fn is_called(&self, vcpu: usize) -> bool {
        self.vcpus.get(vcpu).is_some_and(|calls| calls.pending.load(SeqCst) != 0)
    }

    /// The vCPU's own virtual timer has gone off.
    pub fn note_virtual_timer(&self, vcpu: usize) {
        if let Some(calls) = self.vcpus.get(vcpu) {
            calls.pending.fetch_or(VIRTUAL_TIMER, SeqCst);
        }
    }

    /// Takes the next that has come.
    pub fn take(&self, vcpu: usize) -> Option<Interrupt> {
        let calls = self.vcpus.get(vcpu)?;
        let pending = calls.pending.load(SeqCst);
        let first = pending & pending.wrapping_neg();
        if first == 0 {
            return None;
        }
        calls.pending.fetch_and(!first, SeqCst);
        Some(match first {
            KICK => Interrupt::Kick,
            ALARM => Interrupt::El2Timer,
            LINK => Interrupt::Link,
            _ => Interrupt::VirtualTimer,
        })
    }

    /// Sleeps until something comes, or for so long. Tells whether something has.
    pub fn sleep(&self, vcpu: usize, most: Option<Duration>) -> bool {
        let Some(calls) = self.vcpus.get(vcpu) else { return true };
        let guard = calls.sleeps.lock().unwrap_or_else(PoisonError::into_inner);
        let most = most.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        let waited = calls.wakes.wait_timeout_while(guard, most, |()| {
            calls.pending.load(SeqCst) == 0 && !self.is_over()
        });
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        calls.pending.load(SeqCst) != 0
    }

    /// Has a vCPU called in `ns` nanoseconds, or before if that was asked for.
    pub fn set_alarm(&self, vcpu: usize, ns: u64) {
        let Some(calls) = self.vcpus.get(vcpu) else { return };
        let at = Instant::now() + Duration::from_nanos(ns);
        let mut alarm = calls.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.is_none_or(|known| at < known) {
            *alarm = Some(at);
            drop(alarm);
            drop(self.alarms.lock().unwrap_or_else(PoisonError::into_inner));
            self.alarms_changed.notify_all();
        }
    }

    /// Takes the alarm back.
    pub fn cancel_alarm(&self, vcpu: usize) {
        if let Some(calls) = self.vcpus.get(vcpu) {
            *calls.alarm.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Gives the alarms, until the machine is over: a thread of its own. Where `looks_in`, whoever is in its
    /// guest is called out now and then, beside all alarms, to see what KVM has done with it.
    pub fn give_alarms(&self, looks_in: bool) {
        let mut looked = Instant::now();
        let mut guard = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_over() {
            if looks_in && looked.elapsed() >= LONGEST_SLEEP {
                looked = Instant::now();
                let inside = self.vcpus.iter().filter(|calls| calls.is_in_guest.load(SeqCst));
                inside.for_each(|calls| calls.call(KICK));
            }
            let next = self.vcpus.iter().filter_map(Calls::due).min().unwrap_or(LONGEST_SLEEP);
            let waited = self.alarms_changed.wait_timeout(guard, next.min(LONGEST_SLEEP));
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Calls {
    /// Gives the alarm if it is due; else how long it is until then.
    fn due(&self) -> Option<Duration> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (*alarm)?.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Some(left);
        }
        *alarm = None;
        drop(alarm);
        self.call(ALARM);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG_OF_A_CALL_THAT_WAS_TAKEN: u8 = 1;

    #[test]
    fn a_flag_that_comes_late_does_not_keep_the_guest_from_being_entered() {
        let (calls, mut flag) = (AllCalls::new(), 0);
        // SAFETY: the byte stays where it is, and nobody accesses it but by its pointer.
        unsafe { calls.join(0, &raw mut flag) };
        calls.kick(1);
        assert!(!calls.may_enter(0));
        assert_eq!(calls.take(0), Some(Interrupt::Kick));
        calls.vcpus[0].set_immediate_exit(FLAG_OF_A_CALL_THAT_WAS_TAKEN);
        assert!(calls.may_enter(0));
        calls.leave(0);
        assert_eq!(flag, 0);
    }

    #[test]
    fn what_has_come_is_taken_one_after_the_other() {
        let calls = AllCalls::new();
        calls.ring();
        calls.kick(1);
        calls.note_virtual_timer(0);
        assert!(calls.is_called(0) && !calls.is_called(1) && calls.sleep(0, None));
        let taken: Vec<_> = std::iter::from_fn(|| calls.take(0)).collect();
        assert_eq!(taken, [Interrupt::Kick, Interrupt::Link, Interrupt::VirtualTimer]);
        assert!(calls.may_enter(0));
    }
}
