//! Pages that are withheld from the guest.
//!
//! Stage 2 is KVM's, and follows what this process may do with the guest's RAM where KVM has it mapped:
//! what is protected there is withheld from the guest, and KVM_RUN fails with EFAULT, with the PC at the
//! instruction. So the loop's tables ([`stepwell_vm::views`]) are in force where they are carried over to
//! that mapping. At EL2 each CPU has tables of its own choice; here all vCPUs have one mapping, and so
//! those of one choice have the guest at a time: whoever comes with another one has them called out, and
//! they wait until it has left.
//!
//! What comes to be withheld is protected before anybody enters. What is given, only once the guest has met
//! it: a vCPU that is stepped through one page need not be given all others.
//!
//! A page that cannot be read cannot be executed either ([`stepwell_vm::cpu::Abilities::copies`]).

#![expect(unsafe_code, reason = "protects pages of the guest's RAM, which only KVM uses there")]

use crate::calls::AllCalls;
use memmap2::MmapRaw;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use stepwell_arch::{Ipa, Pa};
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::stage2::Permissions;

const PAGE: u64 = 4096;
/// How long those who have the guest keep it at least while somebody waits: an entry takes its time, and
/// they are to get somewhere in it.
const TIME_SLICE: Duration = Duration::from_micros(500);

/// What is left of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// All but stores.
    NoStores,
    /// Everything.
    All,
}

impl Left {
    /// What there is in a host's mapping for these permissions: no more than that.
    const fn by(permissions: Permissions) -> Self {
        match permissions {
            Permissions { read: false, .. } => Self::Nothing,
            Permissions { write: false, .. } => Self::NoStores,
            _ => Self::All,
        }
    }

    const fn protection(self) -> i32 {
        match self {
            Self::Nothing => libc::PROT_NONE,
            Self::NoStores => libc::PROT_READ,
            Self::All => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// A page of which some tables withhold something.
#[derive(Debug)]
struct Page {
    /// By the tables that do. All others leave everything.
    by: Vec<(Pa, Left)>,
    /// What the mapping leaves.
    now: Left,
}

impl Page {
    fn of(&self, root: Pa) -> Left {
        self.by.iter().find(|(known, _)| *known == root).map_or(Left::All, |&(_, left)| left)
    }
}

#[derive(Debug)]
struct State {
    pages: BTreeMap<u64, Page>,
    /// The tables in force.
    root: Pa,
    /// vCPUs that have the guest: one bit each.
    inside: u8,
    /// Who wants other tables in force, and is the next to have them.
    next: Option<(usize, Pa)>,
    /// A page could not be protected: the host has no memory for it.
    refused: Option<i32>,
}

/// What an entry has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: the tables are in force.
    May,
    /// The vCPU was called meanwhile.
    Called,
    /// The host refuses to protect a page, and says why.
    Refused(i32),
}

/// The pages.
#[derive(Debug)]
pub struct Withheld {
    map: Arc<MmapRaw>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Withheld {
    /// Withholds nothing of what is mapped there for KVM.
    #[must_use]
    pub fn new(map: Arc<MmapRaw>) -> Self {
        let pages = BTreeMap::new();
        let state = State { pages, root: Pa(0), inside: 0, next: None, refused: None };
        Self { map, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables that begin at `root` permit so much of a page from now on. Who is in the guest with them
    /// has it so at once.
    pub fn permit(&self, root: Pa, page: Ipa, permissions: Permissions) {
        let mut state = self.state();
        let in_force = state.root;
        let entry = state.pages.entry(page.0);
        let known = entry.or_insert_with(|| Page { by: Vec::new(), now: Left::All });
        known.by.retain(|(other, _)| *other != root);
        let left = Left::by(permissions);
        if left != Left::All {
            known.by.push((root, left));
        }
        let is_ordinary = known.by.is_empty();
        let wanted = known.of(in_force);
        if is_ordinary || wanted < known.now {
            let done = self.protect(page.0, known, wanted);
            state.note(done);
        }
        if is_ordinary {
            state.pages.remove(&page.0);
        }
    }

    /// Has these tables in force for an entry of a vCPU, until [`Withheld::leave`].
    pub fn enter(&self, vcpu: usize, root: Pa, calls: &AllCalls) -> Entry {
        let mut state = self.state();
        let (begun, mut has_called) = (Instant::now(), false);
        while !state.may_enter(vcpu, root) {
            if calls.is_called(vcpu) {
                state.give_up(vcpu);
                self.changed.notify_all();
                return Entry::Called;
            }
            state.next.get_or_insert((vcpu, root));
            if !has_called && begun.elapsed() >= TIME_SLICE {
                calls.kick(state.inside);
                has_called = true;
            }
            let waited = self.changed.wait_timeout(state, TIME_SLICE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.give_up(vcpu);
        if state.root != root {
            state.root = root;
            self.withhold(&mut state);
        }
        if let Some(error) = state.refused {
            return Entry::Refused(error);
        }
        state.inside |= 1 << vcpu;
        Entry::May
    }

    /// The vCPU is not in the guest any more.
    pub fn leave(&self, vcpu: usize) {
        let mut state = self.state();
        state.inside &= !(1 << vcpu);
        if state.next.is_some() {
            self.changed.notify_all();
        }
    }

    /// Whether these tables leave less than that of an address.
    #[must_use]
    pub fn withholds(&self, root: Pa, at: Ipa, wanted: Left) -> bool {
        let state = self.state();
        let page = state.pages.get(&at.align_down(PAGE).0);
        page.is_some_and(|page| page.of(root) < wanted)
    }

    /// Whether these tables withhold anything.
    #[must_use]
    pub fn withholds_anything(&self, root: Pa) -> bool {
        self.state().pages.values().any(|page| page.of(root) < Left::All)
    }

    /// To a vCPU that has the guest: gives what the tables in force leave of these pages, or of all.
    pub fn give(&self, pages: Option<&[Ipa]>) {
        let mut state = self.state();
        let (root, mut done) = (state.root, Ok(()));
        for (&at, page) in &mut state.pages {
            let is_meant = pages.is_none_or(|pages| pages.contains(&Ipa(at)));
            let wanted = page.of(root);
            if is_meant && wanted > page.now {
                done = done.and(self.protect(at, page, wanted));
            }
        }
        state.note(done);
    }

    /// Protects what the tables in force withhold.
    fn withhold(&self, state: &mut State) {
        let (root, mut done) = (state.root, Ok(()));
        for (&at, page) in &mut state.pages {
            let wanted = page.of(root);
            if wanted < page.now {
                done = done.and(self.protect(at, page, wanted));
            }
        }
        state.note(done);
    }

    fn protect(&self, at: u64, page: &mut Page, wanted: Left) -> Result<(), i32> {
        if page.now == wanted {
            return Ok(());
        }
        let offset = at.wrapping_sub(RAM_BASE.0) as usize;
        if offset >= self.map.len() {
            return Ok(());
        }
        // SAFETY: it is a page of this mapping, in which KVM alone accesses anything.
        let refused = unsafe {
            let place = self.map.as_mut_ptr().add(offset);
            libc::mprotect(place.cast(), PAGE as usize, wanted.protection()) != 0
        };
        if refused {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM));
        }
        page.now = wanted;
        Ok(())
    }
}

impl State {
    /// Whether nobody is in the way: who has the guest has it with the same tables, and nobody else is to
    /// have it next.
    fn may_enter(&self, vcpu: usize, root: Pa) -> bool {
        let is_next = self.next.is_none_or(|(next, wanted)| next == vcpu || wanted == root);
        is_next && (self.inside & !(1 << vcpu) == 0 || self.root == root)
    }

    fn give_up(&mut self, vcpu: usize) {
        self.next = self.next.filter(|&(next, _)| next != vcpu);
    }

    fn note(&mut self, done: Result<(), i32>) {
        if let Err(error) = done {
            self.refused = Some(error);
        }
    }
}
