//! Moments of a domain that are kept, to go back to.
//!
//! A moment is the domain's [`values`](Values), and its RAM, of which only what differs between moments
//! is kept ([`versions`]). That a page is written is noticed by stage 2 ([`withheld`]), once for each
//! page between two moments; EL2 says so itself before it writes ([`about_to_store`](crate::domain::Domain::about_to_store)).
//!
//! What a debugger has set is part of no moment. Neither is anything that a guest cannot tell: what a
//! CPU has cached, or where in its turn's work a vCPU's loop is, since all are stopped.
//!
//! Memory is bounded by what was set aside. Where it is full, moments are let go that are closest to
//! others, the earliest last of all, and whoever wants to go to one of these is told that it is not there.

mod moments;
mod values;
pub mod versions;
pub mod withheld;

use crate::device::board::RAM_BASE;
use crate::memory::{GuestMemory, PAGE_WORDS};
use crate::stage2::PAGE_BYTES;
use crate::timeline::Moment;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};
use heapless::Vec;
use spin::Mutex;
use stepwell_arch::Ipa;
use stepwell_protocol::Refusal;
use values::Values;
use versions::{Full, Memory, Pages, Versions};

/// As many as a word has bits.
const KEPT_MAX: usize = u64::BITS as usize;

/// The moments that are kept of a domain.
#[derive(Default)]
pub struct Checkpoints {
    /// Stores are withheld until they have been seen.
    withholds: AtomicBool,
    state: Mutex<Option<State>>,
}

struct State {
    versions: Versions,
    /// By moment.
    kept: Vec<Kept, KEPT_MAX>,
    /// The number of the next one.
    next: u64,
}

/// A moment.
struct Kept {
    number: u64,
    moment: Moment,
    /// Its bit in [`Versions`].
    bit: u64,
    values: Box<Values>,
}

impl Checkpoints {
    /// Makes one that keeps its copies in this memory.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        let state = State { versions: Versions::new(memory), kept: Vec::new(), next: 0 };
        Self { withholds: AtomicBool::new(false), state: Mutex::new(Some(state)) }
    }

    /// Tells whether stores are withheld until they have been seen.
    #[inline]
    #[must_use]
    pub fn withholds(&self) -> bool {
        self.withholds.load(Ordering::Acquire)
    }
}

impl State {
    fn bits(&self) -> u64 {
        self.kept.iter().fold(0, |bits, kept| bits | kept.bit)
    }

    fn find(&self, number: u64) -> Result<&Kept, Refusal> {
        self.kept.iter().find(|kept| kept.number == number).ok_or(Refusal::NoSuchCheckpoint)
    }

    /// Before a page is written. Lets moments go until there is room for its copy.
    fn open<M: GuestMemory>(&mut self, ram: &M, page: usize) {
        while self.versions.open(&Ram(ram), page, self.bits()) == Err(Full) && self.thin_out(None) {
        }
    }

    /// Lets the moment go that is closest to others, `spared` excepted. Tells whether there was one.
    fn thin_out(&mut self, spared: Option<u64>) -> bool {
        let position = |at: usize| self.kept.get(at).map(|kept| kept.moment.position);
        let is_spared = |at: usize| self.kept.get(at).is_none_or(|kept| Some(kept.bit) == spared);
        let gap = |&at: &usize| {
            let before = position(at - 1).unwrap_or(0);
            let behind = position(at + 1).or_else(|| position(at)).unwrap_or(u64::MAX);
            behind.saturating_sub(before)
        };
        let closest = (1..self.kept.len()).filter(|&at| !is_spared(at)).min_by_key(gap);
        let closest = closest.or_else(|| (!is_spared(0)).then_some(0));
        closest.is_some_and(|at| self.forget_at(at))
    }

    fn forget_at(&mut self, at: usize) -> bool {
        if at >= self.kept.len() {
            return false;
        }
        let kept = self.kept.remove(at);
        self.versions.forget(kept.bit);
        true
    }
}

/// A page's first byte.
const fn address(page: usize) -> Ipa {
    RAM_BASE.offset(page as u64 * PAGE_BYTES)
}

/// A domain's RAM, by pages.
struct Ram<'a, M>(&'a M);

impl<M: GuestMemory> Pages for Ram<'_, M> {
    fn save(&self, page: usize, into: &mut [u64; PAGE_WORDS]) {
        self.0.save_page(address(page), into);
    }

    fn restore(&self, page: usize, from: &[u64; PAGE_WORDS]) {
        self.0.restore_page(address(page), from);
    }
}
