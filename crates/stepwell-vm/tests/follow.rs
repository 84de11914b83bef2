//! Breakpoints that follow virtual addresses, against guests that change their tables at random.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use spin::Mutex;
use stepwell_arch::stage1::Regime;
use stepwell_arch::{Ipa, Va};
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::follow::{Follow, PAGES_MAX};
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::views::{ViewError, Views, Watched, Whose};

#[path = "vcpu_loop/memory.rs"]
#[allow(dead_code, reason = "the loop's tests use all of it")]
mod memory;

use memory::{BASE, BYTES, Ram};

const PAGE: u64 = 0x1000;
/// A page of a program, and one of the kernel's.
const PAGES: [u64; 3] = [0x40_0000, 0x40_1000, 0xffff_ff80_0010_0000];
/// Descriptors.
const VALID_TABLE: u64 = 3;
const VALID_PAGE: u64 = 0x403;

/// Tables of three levels at a fixed place for each address space, and what follows them.
struct World {
    ram: Ram,
    views: Mutex<Views>,
    follow: Follow,
}

impl World {
    fn new() -> Self {
        let views = Mutex::new(Views::new(RAM_BASE, BASE, BYTES));
        let world = Self { ram: Ram::new(), views, follow: Follow::default() };
        for space in 0..4 {
            let (root, below) = (root(space), root(space).offset(PAGE));
            // Both halves have their pages in the first gigabyte.
            world.write(root, below.0 | VALID_TABLE);
            let entry = if space == 3 { 0 } else { PAGES[0] >> 21 };
            world.write(below.offset(entry * 8), below.offset(PAGE).0 | VALID_TABLE);
        }
        world
    }

    fn write(&self, ipa: Ipa, value: u64) {
        self.ram.write(ipa, &value.to_le_bytes()).unwrap();
    }

    /// A store of the guest's, as EL2 carries it out.
    fn store(&self, ipa: Ipa, value: u64) {
        self.follow.before_store(ipa, value, &self.ram, &self.views).unwrap();
        self.write(ipa, value);
        self.follow.stored(Some((ipa, 8)), &self.ram, &self.views).unwrap();
    }

    fn enter(&self, vcpu: usize, space: u64) {
        self.follow.enter(vcpu, regime(space), &self.ram, &self.views).unwrap();
    }

    fn add(&self, va: u64, spaces: &[u64]) -> Result<(), ViewError> {
        let spaces = spaces.iter().map(|&space| regime(space)).enumerate();
        self.follow.add(va, spaces, &self.ram, &self.views)
    }

    fn has(&self, ipa: Ipa) -> bool {
        self.views.lock().has_breakpoint(Whose::Followed, ipa)
    }

    fn is_withheld(&self, ipa: Ipa) -> bool {
        self.views.lock().has_page(ipa)
    }
}

/// The first table of an address space: the lower half's in 0 to 2, and the upper half's in 3.
fn root(space: u64) -> Ipa {
    RAM_BASE.offset(0x10_0000 + space * 0x1_0000)
}

fn regime(space: u64) -> Regime {
    Regime {
        sctlr: 1,
        // 39 bits and 4 KiB in both halves.
        tcr: 25 | 25 << 16 | 2 << 30,
        ttbr0: root(space).0 | (space + 5) << 48,
        // The ASID that counts may be here, and changes with the process.
        ttbr1: root(3).0 | (space + 5) << 48 | 1,
        mair: 0xff,
        pa_bits: 40,
    }
}

/// Where the descriptor of a page is.
fn entry(space: u64, page: u64) -> Ipa {
    let space = if page >> 55 & 1 == 1 { 3 } else { space };
    root(space).offset(2 * PAGE + (page >> 12 & 511) * 8)
}

fn frame(n: u64) -> Ipa {
    RAM_BASE.offset(0x8_0000 + n * PAGE)
}

#[test]
fn a_page_that_comes_later_has_its_breakpoint_before_it_is_mapped() {
    let world = World::new();
    let va = PAGES[0] + 0x18;
    world.add(va, &[0]).unwrap();
    let at = entry(0, PAGES[0]);
    assert!(world.is_withheld(at), "stores to the table come to EL2");
    let after = frame(1).0 | VALID_PAGE;
    world.follow.before_store(at, after, &world.ram, &world.views).unwrap();
    assert!(world.has(frame(1).offset(0x18)), "before anybody can execute there");
    world.store(at, after);
    // A copy on write, and the old page goes.
    world.store(at, frame(2).0 | VALID_PAGE);
    assert!(world.has(frame(2).offset(0x18)) && !world.is_withheld(frame(1)));
    world.store(at, 0);
    assert!(!world.is_withheld(frame(2)));
    assert!(world.follow.contains(va) && world.follow.has_page(Va(PAGES[0] + 4)));
    assert!(world.follow.remove(va, &world.ram, &world.views));
    assert!(!world.follow.is_used() && !world.is_withheld(at));
}

#[test]
fn it_is_there_in_an_address_space_that_did_not_exist() {
    let world = World::new();
    let va = PAGES[1] + 4;
    world.add(va, &[0]).unwrap();
    // Another process, which nobody is in: its tables are its own business.
    world.store(entry(1, PAGES[1]), frame(3).0 | VALID_PAGE);
    assert!(!world.has(frame(3).offset(4)) && !world.is_withheld(entry(1, PAGES[1])));
    world.enter(0, 1);
    assert!(world.has(frame(3).offset(4)));
    // Back again, and the tables of the other are freed and used for something else.
    world.enter(0, 0);
    assert!(world.is_withheld(entry(1, PAGES[1])));
    world.store(entry(1, PAGES[1]), 0x1234);
    assert!(!world.is_withheld(entry(1, PAGES[1])) && !world.is_withheld(frame(3)));
}

#[test]
fn the_kernels_half_is_the_same_in_all() {
    let world = World::new();
    let va = PAGES[2] + 8;
    world.store(entry(0, PAGES[2]), frame(4).0 | VALID_PAGE);
    world.add(va, &[0]).unwrap();
    assert!(world.has(frame(4).offset(8)));
    world.enter(0, 1);
    // A module is unloaded, and another loaded elsewhere.
    world.store(entry(1, PAGES[2]), 0);
    assert!(!world.has(frame(4).offset(8)));
    world.store(entry(1, PAGES[2]), frame(5).0 | VALID_PAGE);
    assert!(world.has(frame(5).offset(8)));
}

#[test]
fn watched_bytes_are_where_their_addresses_lead() {
    let world = World::new();
    let at = entry(0, PAGES[0]);
    world.store(at, frame(1).0 | VALID_PAGE);
    let spaces = || [(0, regime(0)), (1, regime(1))].into_iter();
    let both = [Watched { read: true, write: true }, Watched { read: false, write: true }];
    for what in both {
        world.follow.watch(PAGES[0], what, spaces(), &world.ram, &world.views).unwrap();
    }
    world.add(PAGES[0] + 4, &[0, 1]).unwrap();
    assert!(world.is_withheld(frame(1)));
    // Copied for its first store, and in another process somewhere else.
    world.store(at, frame(2).0 | VALID_PAGE);
    assert!(world.is_withheld(frame(2)) && !world.is_withheld(frame(1)));
    world.store(entry(1, PAGES[0]), frame(3).0 | VALID_PAGE);
    assert!(world.is_withheld(frame(3)) && world.is_withheld(frame(2)));
    assert!(world.follow.remove(PAGES[0] + 4, &world.ram, &world.views));
    world.follow.unwatch(PAGES[0], both[0], &world.ram, &world.views);
    assert!(world.is_withheld(frame(2)), "by the other watchpoint");
    world.follow.unwatch(PAGES[0], both[1], &world.ram, &world.views);
    assert!(!world.is_withheld(frame(2)) && !world.is_withheld(frame(3)));
    assert!(!world.is_withheld(at) && !world.follow.is_used());
}

#[test]
fn what_is_too_much_is_refused() {
    let world = World::new();
    for n in 0..PAGES_MAX as u64 {
        world.add(0x80_0000 + n * PAGE, &[0]).unwrap();
    }
    assert_eq!(world.add(0x10_0000, &[0]), Err(ViewError::NoMemory));
    assert_eq!(world.add(0x80_0000, &[0]), Err(ViewError::Already));
    world.add(0x80_0004, &[0]).unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Enter(usize, u64),
    Map(u64, usize, Option<u64>),
    Cut(u64, bool),
    Add(usize, u64),
    Remove(usize, u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..2_usize, 0..3_u64).prop_map(|(vcpu, space)| Act::Enter(vcpu, space)),
        (0..3_u64, 0..3_usize, prop::option::of(0..6_u64))
            .prop_map(|(space, page, to)| Act::Map(space, page, to)),
        (0..3_u64, any::<bool>()).prop_map(|(space, is_in)| Act::Cut(space, is_in)),
        (0..3_usize, 0..4_u64).prop_map(|(page, n)| Act::Add(page, n)),
        (0..3_usize, 0..4_u64).prop_map(|(page, n)| Act::Remove(page, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the guest does, each breakpoint is where its address leads in the spaces that vCPUs
    /// are in; and once all are removed, nothing is left.
    #[test]
    fn they_are_where_their_addresses_lead(acts in prop::collection::vec(act(), 1..60)) {
        let world = World::new();
        let (mut spaces, mut mapped, mut cut) = ([0_u64; 2], [[None; 3]; 3], [false; 3]);
        let mut set = Vec::new();
        for act in acts {
            match act {
                Act::Enter(vcpu, space) => {
                    spaces[vcpu] = space;
                    world.enter(vcpu, space);
                }
                Act::Map(space, page, to) => {
                    let value = to.map_or(0, |to| frame(to).0 | VALID_PAGE);
                    world.store(entry(space, PAGES[page]), value);
                    let all = if page == 2 { 0..3 } else { space as usize..space as usize + 1 };
                    mapped[all].iter_mut().for_each(|space| space[page] = to);
                }
                // The table above is taken out, or put in: everything below goes and comes.
                Act::Cut(space, is_in) => {
                    let low = root(space).offset(PAGE);
                    world.store(root(space), if is_in { low.0 | VALID_TABLE } else { 0 });
                    cut[space as usize] = !is_in;
                }
                Act::Add(page, n) => {
                    let va = PAGES[page] + n * 4;
                    let is_new = !set.contains(&va);
                    prop_assert_eq!(world.add(va, &spaces).is_ok(), is_new);
                    if is_new {
                        set.push(va);
                    }
                }
                Act::Remove(page, n) => {
                    let va = PAGES[page] + n * 4;
                    prop_assert_eq!(world.follow.remove(va, &world.ram, &world.views), set.contains(&va));
                    set.retain(|&known| known != va);
                }
            }
            for (&va, &space) in set.iter().flat_map(|va| spaces.iter().map(move |space| (va, space))) {
                let page = PAGES.iter().position(|&page| page == va & !0xfff).unwrap();
                let is_cut = page < 2 && cut[space as usize];
                if let Some(to) = mapped[space as usize][page].filter(|_| !is_cut) {
                    prop_assert!(world.has(frame(to).offset(va & 0xfff)), "{va:#x} in {space}");
                }
            }
        }
        for va in set {
            world.follow.remove(va, &world.ram, &world.views);
        }
        for page in 0..BYTES / PAGE {
            prop_assert!(!world.is_withheld(RAM_BASE.offset(page * PAGE)), "{page:#x}");
        }
        prop_assert!(world.views.lock().roots(1).is_none());
    }
}
