//! The tables against a map of pages, and the rules of break-before-make on the way.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Memory for tables that watches how live entries are changed.
#[derive(Default)]
struct Tables {
    entries: BTreeMap<u64, Vec<u64>>,
    next: u64,
    limit: Option<usize>,
    /// An address that is not the guest's.
    forbidden: Option<u64>,
    /// Entries made invalid since the last invalidation, with what they were.
    broken: BTreeMap<(u64, usize), u64>,
    invalidated: Vec<(Ipa, u64)>,
}

impl TableMemory for Tables {
    fn allocate(&mut self, _: PageUse) -> Option<Pa> {
        if self.limit.is_some_and(|limit| self.entries.len() >= limit) {
            return None;
        }
        self.next += PAGE_BYTES;
        self.entries.insert(self.next, vec![0; ENTRIES]);
        Some(Pa(self.next))
    }

    fn may_map(&self, pa: Pa, bytes: u64) -> bool {
        self.forbidden.is_none_or(|forbidden| !(pa.0..pa.0 + bytes).contains(&forbidden))
    }

    fn free(&mut self, table: Pa) {
        self.entries.remove(&table.0).expect("only tables are freed, once");
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.entries[&table.0][index]
    }

    fn write(&mut self, table: Pa, index: usize, value: u64) {
        let entry = &mut self.entries.get_mut(&table.0).expect("a table")[index];
        let old = core::mem::replace(entry, value);
        if old & VALID != 0 && value & VALID == 0 {
            self.broken.insert((table.0, index), old);
        } else if old & VALID != 0 {
            assert_eq!((old ^ value) & !PERMISSIONS, 0, "only permissions change without a break");
        } else if value & VALID != 0 {
            assert!(!self.broken.contains_key(&(table.0, index)), "made before invalidated");
        }
    }

    fn invalidate(&mut self, ipa: Ipa, bytes: u64) {
        self.broken.clear();
        self.invalidated.push((ipa, bytes));
    }
}

const READ_ONLY: Permissions = Permissions { read: true, write: false, execute: false };
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn with_ram(ipa: u64, pa: u64, bytes: u64) -> (Tables, Stage2) {
    let mut memory = Tables::default();
    let mut tables = Stage2::new(&mut memory).expect("there is memory");
    tables
        .map(&mut memory, Ipa(ipa), Pa(pa), bytes, Permissions::ALL, MemoryKind::Normal)
        .expect("nothing is mapped");
    (memory, tables)
}

#[test]
fn entries_have_the_architected_layout() {
    let (memory, tables) = with_ram(GIB, 0x8000_0000, GIB);
    assert_eq!(memory.read(tables.root, 1), 0x8000_07fd);
    let (mut memory, mut tables) = with_ram(GIB, 0x8020_1000, PAGE_BYTES);
    let device = (Ipa(0x0900_0000), Pa(0x0900_0000));
    tables
        .map(&mut memory, device.0, device.1, PAGE_BYTES, READ_ONLY, MemoryKind::Device)
        .expect("nothing is mapped");
    assert_eq!(tables.leaf(&memory, Ipa(GIB)).entry, 0x8020_17ff);
    assert_eq!(tables.leaf(&memory, device.0).entry, 0x0040_0000_0900_0447);
}

#[test]
fn control_registers_have_the_architected_layout() {
    let tables = Stage2 { root: Pa(0x4567_8000) };
    assert_eq!(tables.vttbr(3).bits(), 0x0003_0000_4567_8000);
    assert_eq!(vtcr(4), 0x8004_3559);
    assert_eq!(vtcr(6), 0x8005_3559);
}

#[test]
fn the_largest_blocks_that_fit_are_used() {
    let (memory, tables) =
        with_ram(GIB - 2 * MIB - PAGE_BYTES, GIB - 2 * MIB - PAGE_BYTES, 2 * GIB);
    let size = |ipa| tables.walk(&memory, Ipa(ipa)).map(|mapping| mapping.size);
    assert_eq!(size(GIB - 2 * MIB - 1), Some(PAGE_BYTES));
    assert_eq!(size(GIB - 1), Some(2 * MIB));
    assert_eq!(size(GIB), Some(GIB));
    assert_eq!(size(3 * GIB - 2 * MIB - PAGE_BYTES), None);
    // The root, two tables of level 2 and two of level 3.
    assert_eq!(memory.entries.len(), 5);
}

#[test]
fn blocks_are_not_used_where_only_one_side_is_aligned() {
    let (memory, tables) = with_ram(GIB, GIB + 2 * MIB, GIB);
    assert_eq!(tables.walk(&memory, Ipa(GIB)).map(|m| m.size), Some(2 * MIB));
}

#[test]
fn protecting_a_page_splits_and_leaves_its_neighbours() {
    let (mut memory, mut tables) = with_ram(GIB, GIB, GIB);
    let page = Ipa(GIB + 5 * MIB);
    tables.protect(&mut memory, page, PAGE_BYTES, READ_ONLY).expect("it is mapped");
    let at = |ipa| tables.walk(&memory, Ipa(ipa)).expect("it is mapped");
    assert_eq!(at(page.0 + 8).permissions, READ_ONLY);
    assert_eq!(at(page.0 + 8).pa, Pa(page.0 + 8));
    for neighbour in [page.0 - 1, page.0 + PAGE_BYTES] {
        assert_eq!(at(neighbour).permissions, Permissions::ALL);
        assert_eq!(at(neighbour).pa, Pa(neighbour));
        assert_eq!(at(neighbour).size, PAGE_BYTES);
    }
    assert_eq!(at(GIB).size, 2 * MIB);
    let expected = [(Ipa(GIB), GIB), (Ipa(GIB + 4 * MIB), 2 * MIB), (page, PAGE_BYTES)];
    assert_eq!(memory.invalidated, expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (mut memory, mut tables) = with_ram(GIB, GIB, GIB);
    let mut map = |ipa, pa, bytes| {
        tables.map(&mut memory, Ipa(ipa), Pa(pa), bytes, READ_ONLY, MemoryKind::Normal)
    };
    assert_eq!(map(1, 0, PAGE_BYTES), Err(Stage2Error::Unaligned(1)));
    assert_eq!(map(0, 0, 8), Err(Stage2Error::Unaligned(8)));
    assert_eq!(map(1 << 39, 0, PAGE_BYTES), Err(Stage2Error::OutOfRange(1 << 39)));
    assert_eq!(map(0, 1 << 48, PAGE_BYTES), Err(Stage2Error::OutOfRange(1 << 48)));
    assert_eq!(map(0, 0, !0xfff), Err(Stage2Error::OutOfRange(0)));
    assert_eq!(map(GIB, 0, PAGE_BYTES), Err(Stage2Error::AlreadyMapped(Ipa(GIB))));
    let hole = Ipa(2 * GIB);
    let protected = tables.protect(&mut memory, Ipa(GIB), 2 * GIB, READ_ONLY);
    assert_eq!(protected, Err(Stage2Error::NotMapped(hole)));
}

#[test]
fn running_out_of_tables_is_an_error_and_changes_nothing_split() {
    let (mut memory, mut tables) = with_ram(GIB, GIB, GIB);
    memory.limit = Some(1);
    let unmapped = tables.unmap(&mut memory, Ipa(GIB), PAGE_BYTES);
    assert_eq!(unmapped, Err(Stage2Error::OutOfTables));
    assert_eq!(tables.walk(&memory, Ipa(GIB)).map(|m| m.size), Some(GIB));
}

#[test]
fn an_emptied_table_makes_room_for_a_block() {
    let (mut memory, mut tables) = with_ram(GIB, GIB, PAGE_BYTES);
    tables.unmap(&mut memory, Ipa(GIB), PAGE_BYTES).expect("it is mapped");
    let kind = MemoryKind::Normal;
    tables
        .map(&mut memory, Ipa(GIB), Pa(GIB), GIB, Permissions::ALL, kind)
        .expect("nothing is mapped any more");
    assert_eq!(tables.walk(&memory, Ipa(GIB)).map(|m| m.size), Some(GIB));
    assert_eq!(memory.entries.len(), 1);
}

#[test]
fn all_tables_are_given_back() {
    let (mut memory, tables) = with_ram(PAGE_BYTES, PAGE_BYTES, 2 * GIB);
    tables.free(&mut memory);
    assert!(memory.entries.is_empty());
}

#[derive(Clone, Debug)]
enum Operation {
    /// To the same addresses, or to some 2 MiB away, where 1 GiB blocks don't fit.
    Map {
        moved: bool,
        permissions: Permissions,
    },
    Protect(Permissions),
    Unmap,
}

/// Ranges around block borders: a few pages either side of multiples of 2 MiB and of 1 GiB.
fn ranges() -> impl Strategy<Value = (u64, u64)> {
    let place =
        (0u64..3, 0u64..3, 0u64..3).prop_map(|(g, m, p)| g * GIB + m * 2 * MIB + p * 0x1000);
    (place.clone(), place).prop_map(|(a, b)| (a.min(b), a.abs_diff(b)))
}

fn operations() -> impl Strategy<Value = Vec<((u64, u64), Operation)>> {
    let permissions = any::<(bool, bool, bool)>().prop_map(|(read, write, execute)| Permissions {
        read,
        write,
        execute,
    });
    let operation = prop_oneof![
        (any::<bool>(), permissions.clone())
            .prop_map(|(moved, permissions)| Operation::Map { moved, permissions }),
        permissions.prop_map(Operation::Protect),
        Just(Operation::Unmap),
    ];
    proptest::collection::vec((ranges(), operation), 1..12)
}

/// The pages at and around everything that `ranges` can begin or end with.
fn probes() -> impl Iterator<Item = u64> {
    let offsets = (0..4u64).flat_map(|m| (0..4).map(move |p| m * 2 * MIB + p * 0x1000));
    (0..4u64).flat_map(move |g| {
        offsets.clone().flat_map(move |o| [g * GIB + o, (g * GIB + o).wrapping_sub(0x1000)])
    })
}

/// A page's output and permissions, remembered at the probes only.
type Model = BTreeMap<u64, (u64, Permissions)>;

fn apply_to_model(model: &mut Model, (base, bytes): (u64, u64), operation: &Operation) -> bool {
    let inside: Vec<u64> = probes().filter(|p| (base..base + bytes).contains(p)).collect();
    let mapped = inside.iter().filter(|page| model.contains_key(page)).count();
    let possible = match operation {
        Operation::Map { .. } => mapped == 0,
        _ => mapped == inside.len(),
    };
    if !possible {
        return false;
    }
    for page in inside {
        match *operation {
            Operation::Map { moved, permissions } => {
                model.insert(page, (page + u64::from(moved) * 2 * MIB, permissions));
            }
            Operation::Protect(permissions) => {
                model.entry(page).and_modify(|entry| entry.1 = permissions);
            }
            Operation::Unmap => {
                model.remove(&page);
            }
        }
    }
    true
}

proptest! {
    #[test]
    fn translates_as_a_map_of_pages_does(operations in operations()) {
        let mut memory = Tables::default();
        let mut tables = Stage2::new(&mut memory).expect("there is memory");
        let mut model = Model::new();
        for ((base, bytes), operation) in &operations {
            let (ipa, bytes) = (Ipa(*base), *bytes);
            let mut expected = model.clone();
            if !apply_to_model(&mut expected, (*base, bytes), operation) {
                // A failure may have done a part: those are tested above.
                continue;
            }
            let result = match *operation {
                Operation::Map { moved, permissions } => {
                    let pa = Pa(base + u64::from(moved) * 2 * MIB);
                    tables.map(&mut memory, ipa, pa, bytes, permissions, MemoryKind::Normal)
                }
                Operation::Protect(permissions) => {
                    tables.protect(&mut memory, ipa, bytes, permissions)
                }
                Operation::Unmap => tables.unmap(&mut memory, ipa, bytes),
            };
            prop_assert_eq!(result, Ok(()));
            model = expected;
            for probe in probes() {
                let found = tables.walk(&memory, Ipa(probe)).map(|m| (m.pa.0, m.permissions));
                prop_assert_eq!(found, model.get(&probe).copied(), "{:#x}", probe);
            }
        }
        prop_assert!(memory.broken.is_empty(), "every unmapping was invalidated");
        tables.free(&mut memory);
        prop_assert!(memory.entries.is_empty());
    }
}

#[test]
fn a_guest_gets_no_memory_that_is_not_its_own() {
    let mut memory = Tables { forbidden: Some(0x4020_1fff), ..Tables::default() };
    let mut tables = Stage2::new(&mut memory).expect("there is memory");
    let all = Permissions::ALL;
    let mut map = |pa, bytes| {
        tables.map(&mut memory, Ipa(0x4000_0000), Pa(pa), bytes, all, MemoryKind::Normal)
    };
    assert_eq!(map(0x4000_0000, 4 << 20), Err(Stage2Error::NotTheGuests(Pa(0x4000_0000))));
    assert_eq!(map(0x4020_2000, 0x1000), Ok(()));
}

#[test]
fn entries_lead_where_their_level_says() {
    let output = 0x4020_3000_u64;
    let attributes = ACCESS_FLAG | EXECUTE_NEVER;
    let memory = |pa, bytes| Target::Memory { pa: Pa(pa), bytes };
    for (level, entry, expected) in [
        (1, output | attributes | 0b11, Target::Table(Pa(output))),
        (2, output | attributes | 0b11, Target::Table(Pa(output))),
        (3, output | attributes | 0b11, memory(output, 0x1000)),
        (1, output | attributes | 0b01, memory(0x4000_0000, 1 << 30)),
        (2, output | attributes | 0b01, memory(0x4020_0000, 2 << 20)),
        // Reserved.
        (3, output | attributes | 0b01, Target::Nothing),
        (2, output | attributes | 0b10, Target::Nothing),
        (0, output | attributes | 0b11, Target::Nothing),
        (4, output | attributes | 0b11, Target::Nothing),
    ] {
        assert_eq!(target(level, entry), expected, "{level} {entry:#x}");
    }
}
