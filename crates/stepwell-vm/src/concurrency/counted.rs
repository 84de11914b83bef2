//! A value behind a lock, and a count of its changes that is read without it.
//!
//! A stepped vCPU asks before each instruction whether an interrupt can have become deliverable.
//! Taking the interrupt controller's lock for that would cost more than the step. So it takes down
//! the count *before* it looks, and what it saw holds for as long as the count is the same.
//!
//! The count goes up after the change, and before the lock is let go. Counting first, as was done
//! once, loses interrupts: a reader that comes between the count and the change takes the new count
//! for one that it has looked under.

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use core::ops::{Deref, DerefMut};

/// A value whose changes are counted.
#[derive(Debug)]
pub struct Counted<T> {
    value: Mutex<T>,
    changes: AtomicU64,
}

/// How often a value had changed when somebody began to look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Count(u64);

impl<T> Counted<T> {
    /// Makes one that has never changed.
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changes: AtomicU64::new(0) }
    }

    /// How often the value has changed. Taken down before a look at it, this tells whether that
    /// look still holds.
    #[inline]
    pub fn count(&self) -> Count {
        Count(self.changes.load(Ordering::Acquire))
    }

    /// The value, for a look, or for what makes no difference to anybody else's.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock()
    }

    /// The value, for something that may change what others saw of it.
    pub fn change(&self) -> Change<'_, T> {
        Change { value: self.value.lock(), changes: &self.changes }
    }

    /// Counts a change that was made under [`Counted::lock`] and turned out to be one.
    pub fn count_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// A value that is being changed.
pub struct Change<'a, T> {
    value: MutexGuard<'a, T>,
    changes: &'a AtomicU64,
}

impl<T> Deref for Change<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Change<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Change<'_, T> {
    fn drop(&mut self) {
        // The lock goes after this: fields are dropped when this returns.
        self.changes.fetch_add(1, Ordering::Release);
    }
}
