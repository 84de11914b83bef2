//! Views against what each kind of vCPU must see of a page.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const RAM: Ipa = Ipa(0x4000_0000);
const PHYSICAL: Pa = Pa(0x8000_0000);
const RAM_BYTES: u64 = 8 << 20;

/// Memory of tables and copies, and a guest's RAM.
#[derive(Default)]
struct Memory {
    pages: BTreeMap<u64, Vec<u64>>,
    next: u64,
    limit: Option<usize>,
    published: usize,
    permitted: BTreeMap<(Pa, Ipa), Permissions>,
    guest: BTreeMap<u64, u64>,
}

impl TableMemory for Memory {
    fn allocate(&mut self, _: PageUse) -> Option<Pa> {
        if self.limit.is_some_and(|limit| self.pages.len() >= limit) {
            return None;
        }
        self.next += PAGE_BYTES;
        self.pages.insert(self.next, vec![0; DOUBLEWORDS]);
        Some(Pa(self.next))
    }

    fn may_map(&self, pa: Pa, bytes: u64) -> bool {
        let is_ram = pa.0 >= PHYSICAL.0 && pa.0 + bytes <= PHYSICAL.0 + RAM_BYTES;
        is_ram || self.pages.contains_key(&pa.0) && bytes == PAGE_BYTES
    }

    fn free(&mut self, table: Pa) {
        self.pages.remove(&table.0).expect("what is freed was allocated");
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.pages[&table.0][index]
    }

    fn write(&mut self, table: Pa, index: usize, value: u64) {
        self.pages.get_mut(&table.0).expect("it was allocated")[index] = value;
    }

    fn invalidate(&mut self, _: Ipa, _: u64) {}
}

impl CodeMemory for Memory {
    fn read_guest(&self, page: Pa, index: usize) -> u64 {
        let at = page.offset(8 * index as u64).0;
        assert!((PHYSICAL.0..PHYSICAL.0 + RAM_BYTES).contains(&at), "{at:#x} is no RAM");
        self.guest.get(&at).copied().unwrap_or(at)
    }

    fn publish(&mut self, copy: Pa) {
        assert!(self.pages.contains_key(&copy.0));
        self.published += 1;
    }

    fn permits(&mut self, root: Pa, page: Ipa, permissions: Permissions) {
        self.permitted.insert((root, page), permissions);
    }
}

fn new() -> (Memory, Views) {
    (Memory::default(), Views::new(RAM, PHYSICAL, RAM_BYTES))
}

fn physical(ipa: Ipa) -> Pa {
    Pa(ipa.0 - RAM.0 + PHYSICAL.0)
}

/// What is executed at an address by a vCPU that runs freely.
fn executed(memory: &Memory, views: &Views, ipa: Ipa) -> u32 {
    let (running, _) = views.tables.as_ref().expect("there are tables");
    let found = running.walk(memory, ipa).expect("RAM is mapped");
    assert!(found.permissions.execute);
    let page = found.pa.align_down(PAGE_BYTES);
    let index = (found.pa.0 % PAGE_BYTES / 8) as usize;
    let value = if page == physical(ipa).align_down(PAGE_BYTES) {
        memory.read_guest(page, index)
    } else {
        memory.read(page, index)
    };
    (value >> (8 * (ipa.0 & 4))) as u32
}

fn original(memory: &Memory, ipa: Ipa) -> u32 {
    let page = physical(ipa).align_down(PAGE_BYTES);
    let value = memory.read_guest(page, (ipa.0 % PAGE_BYTES / 8) as usize);
    (value >> (8 * (ipa.0 & 4))) as u32
}

const NONE: Permissions = Permissions { read: false, write: false, execute: true };

fn permissions(memory: &Memory, views: &Views, ipa: Ipa) -> (Permissions, Permissions) {
    let (running, guarded) = views.tables.as_ref().expect("there are tables");
    let of = |tables: &Stage2| tables.walk(memory, ipa).expect("RAM is mapped").permissions;
    (of(running), of(guarded))
}

#[test]
fn a_page_with_a_breakpoint_is_executed_from_a_copy() {
    let (mut memory, mut views) = new();
    let place = RAM.offset(0x20_0084);
    assert_eq!(views.roots(1), None);
    views.set(&mut memory, Whose::Physical, place).unwrap();
    assert_ne!(views.roots(1), None);
    assert_eq!(views.set(&mut memory, Whose::Physical, place), Err(ViewError::Already));
    assert_eq!(executed(&memory, &views, place), BRK);
    for offset in [0, 0x80, 0x88, 0xffc] {
        let other = RAM.offset(0x20_0000 + offset);
        assert_eq!(executed(&memory, &views, other), original(&memory, other));
    }
    let guarded = Permissions { read: true, write: false, execute: true };
    assert_eq!(permissions(&memory, &views, place), (NONE, guarded));
    let beside = RAM.offset(0x20_1000);
    assert_eq!(permissions(&memory, &views, beside), (Permissions::ALL, Permissions::ALL));
    let (_, tables) = views.tables.as_ref().unwrap();
    assert_eq!(
        tables.walk(&memory, place).unwrap().pa,
        physical(place),
        "steps are of the original"
    );
    views.clear(&mut memory, Whose::Physical, place).unwrap();
    assert_eq!(views.clear(&mut memory, Whose::Physical, place), Err(ViewError::Already));
    assert_eq!(executed(&memory, &views, place), original(&memory, place));
    assert_eq!(permissions(&memory, &views, place), (Permissions::ALL, Permissions::ALL));
    assert_eq!(views.roots(1), None, "nobody has an interest in any page");
}

#[test]
fn what_the_guest_writes_is_executed_and_breakpoints_stay() {
    let (mut memory, mut views) = new();
    let (first, second) = (RAM.offset(0x3000), RAM.offset(0x3010));
    views.set(&mut memory, Whose::Physical, first).unwrap();
    views.set(&mut memory, Whose::Physical, second).unwrap();
    let published = memory.published;
    memory.guest.insert(physical(first).0, 0x1111_1111_2222_2222);
    memory.guest.insert(physical(first).0 + 8, 0x3333_3333_4444_4444);
    views.sync(&mut memory, first, 4);
    assert_eq!(executed(&memory, &views, first), BRK);
    assert_eq!(executed(&memory, &views, first.offset(4)), 0x1111_1111);
    assert_ne!(executed(&memory, &views, first.offset(8)), 0x4444_4444, "it was not told of");
    views.sync(&mut memory, first.offset(8), 8);
    assert_eq!(executed(&memory, &views, first.offset(8)), 0x4444_4444);
    assert_eq!(memory.published, published + 2);
    views.sync_all(&mut memory);
    assert_eq!(memory.published, published + 2, "nothing has changed");
    views.clear(&mut memory, Whose::Physical, first).unwrap();
    assert_eq!(executed(&memory, &views, first), 0x2222_2222, "what the guest put there");
    assert_eq!(executed(&memory, &views, second), BRK);
}

#[test]
fn watched_pages_are_withheld_as_far_as_they_are_watched() {
    let (mut memory, mut views) = new();
    let place = RAM.offset(0x5000);
    let (reads, writes) =
        (Watched { read: true, write: false }, Watched { read: false, write: true });
    views.watch(&mut memory, place, writes).unwrap();
    let no_stores = Permissions { write: false, ..Permissions::ALL };
    assert_eq!(permissions(&memory, &views, place), (no_stores, no_stores));
    views.watch(&mut memory, place, reads).unwrap();
    views.watch(&mut memory, place, writes).unwrap();
    assert_eq!(permissions(&memory, &views, place), (NONE, NONE));
    views.set(&mut memory, Whose::Physical, place).unwrap();
    views.unwatch(&mut memory, place, reads);
    assert_eq!(permissions(&memory, &views, place), (NONE, no_stores));
    views.clear(&mut memory, Whose::Physical, place).unwrap();
    views.unwatch(&mut memory, place, writes);
    assert_eq!(permissions(&memory, &views, place), (no_stores, no_stores));
    views.unwatch(&mut memory, place, writes);
    assert_eq!(permissions(&memory, &views, place), (Permissions::ALL, Permissions::ALL));
    assert!(!views.has_page(place));
}

/// Where a page that is not read is not executed either.
#[test]
fn without_copies_a_page_with_a_breakpoint_is_withheld() {
    let mut memory = Memory::default();
    let mut views = Views::new(RAM, PHYSICAL, RAM_BYTES).without_copies();
    let (place, nothing) = (RAM.offset(0x5004), Permissions { execute: false, ..NONE });
    let no_stores = Permissions { write: false, ..Permissions::ALL };
    views.set(&mut memory, Whose::Physical, place).unwrap();
    views.set(&mut memory, Whose::Followed, place.offset(8)).unwrap();
    assert_eq!(permissions(&memory, &views, place), (nothing, Permissions::ALL));
    assert!(views.has_breakpoints(place) && views.is_fetch_withheld(place));
    views.watch(&mut memory, place, Watched { read: false, write: true }).unwrap();
    assert_eq!(permissions(&memory, &views, place), (nothing, no_stores));
    views.clear(&mut memory, Whose::Physical, place).unwrap();
    assert_eq!(permissions(&memory, &views, place), (nothing, no_stores));
    views.clear(&mut memory, Whose::Followed, place.offset(8)).unwrap();
    assert_eq!(permissions(&memory, &views, place), (no_stores, no_stores));
    assert!(!views.is_fetch_withheld(place) && !views.has_breakpoints(place));
    views.unwatch(&mut memory, place, Watched { read: false, write: true });
    let root = |tables: &Stage2| tables.vttbr(0).root();
    let roots = views.tables.as_ref().map(|(running, guarded)| [root(running), root(guarded)]);
    for root in roots.unwrap() {
        assert_eq!(memory.permitted[&(root, RAM.offset(0x5000))], Permissions::ALL);
    }
    assert_eq!(memory.published, 0);
}

#[test]
fn without_memory_nothing_changes() {
    for limit in 0..8 {
        let (mut memory, mut views) = new();
        memory.limit = Some(limit);
        let place = RAM.offset(0x1000);
        let result = views.set(&mut memory, Whose::Physical, place);
        // Two sets of two levels, a table for pages in each, and the copy.
        assert_eq!(result.is_ok(), limit >= 7, "{limit}");
        assert_eq!(views.has_breakpoint(Whose::Physical, place), limit >= 7);
        if limit < 7 {
            assert_eq!((result, views.roots(1)), (Err(ViewError::NoMemory), None));
            memory.limit = None;
            views.set(&mut memory, Whose::Physical, place).unwrap();
            assert_eq!(executed(&memory, &views, place), BRK);
        }
    }
}

proptest! {
    /// Whatever is set and cleared, BRKs are executed where breakpoints are and nowhere else.
    #[test]
    fn breakpoints_are_where_they_were_set(
        places in prop::collection::vec((0_u64..4, 0_u64..1024), 1..60),
    ) {
        let (mut memory, mut views) = new();
        let mut set = std::collections::BTreeSet::new();
        for (page, instruction) in places {
            let place = RAM.offset(page * PAGE_BYTES + 4 * instruction);
            if set.remove(&place.0) {
                views.clear(&mut memory, Whose::Physical, place).unwrap();
            } else {
                views.set(&mut memory, Whose::Physical, place).unwrap();
                set.insert(place.0);
            }
        }
        for at in (0..4 * PAGE_BYTES).step_by(4) {
            let place = RAM.offset(at);
            let is_set = set.contains(&place.0);
            prop_assert_eq!(views.has_breakpoint(Whose::Physical, place), is_set);
            let expected = if is_set { BRK } else { original(&memory, place) };
            prop_assert_eq!(executed(&memory, &views, place), expected);
        }
    }
}
