//! Values that many states have in common, kept once.
//!
//! A state of the exploration has the values of the real loop in it, some of them of kilobytes, and
//! there are millions of states; but of each kind there are few that differ. So a state has a
//! reference, and two that are equal are the same: comparing and hashing them costs nothing.

use ahash::AHasher;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, RwLock};

/// Equal values are one.
pub struct Pool<T> {
    all: RwLock<HashMap<Arc<T>, u32, BuildHasherDefault<AHasher>>>,
}

/// A value of a pool.
pub struct Pooled<T> {
    value: Arc<T>,
    number: u32,
}

impl<T> Pool<T> {
    /// Makes an empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { all: RwLock::new(HashMap::with_hasher(BuildHasherDefault::new())) }
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> Pool<T> {
    /// The one that is equal to `value`.
    ///
    /// # Panics
    ///
    /// Where a thread has panicked within.
    #[must_use]
    pub fn put(&self, value: &T) -> Pooled<T> {
        let known = self.all.read().expect("nobody panics with it");
        if let Some((value, &number)) = known.get_key_value(value) {
            return Pooled { value: Arc::clone(value), number };
        }
        drop(known);
        let mut all = self.all.write().expect("nobody panics with it");
        let next = u32::try_from(all.len()).expect("there are not that many");
        let value = Arc::new(value.clone());
        let number = *all.entry(Arc::clone(&value)).or_insert(next);
        let value = all.get_key_value(&value).map_or(value.clone(), |(value, _)| value.clone());
        Pooled { value, number }
    }
}

impl<T> std::ops::Deref for Pooled<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Pooled<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), number: self.number }
    }
}

impl<T> PartialEq for Pooled<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Pooled<T> {}

impl<T> Hash for Pooled<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl<T> fmt::Debug for Pooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number)
    }
}

/// A value whose kind has one pool for all of the program.
pub trait Kind: Clone + Eq + Hash + Sized + 'static {
    /// The pool.
    fn pool() -> &'static Pool<Self>;
}

impl<T: Kind> Pooled<T> {
    /// The one that is equal to `value`.
    #[must_use]
    pub fn of(value: &T) -> Self {
        T::pool().put(value)
    }

    /// The one that is equal to `value`, which is often `old`.
    #[must_use]
    pub fn of_beside(old: Option<&Self>, value: &T) -> Self {
        match old {
            Some(old) if **old == *value => old.clone(),
            _ => Self::of(value),
        }
    }
}
