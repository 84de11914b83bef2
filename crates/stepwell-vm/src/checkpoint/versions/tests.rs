//! Against a RAM that is copied whole at each moment.

use super::{Full, Memory, PAIR, Pages, Versions, WORDS_PER_PAGE};
use crate::memory::PAGE_WORDS;
use proptest::prelude::*;
use std::cell::RefCell;

const PAGES: usize = 6;
const MOMENTS: u32 = 5;

/// Each page has one number in all its words.
struct Ram(RefCell<[u64; PAGES]>);

impl Pages for Ram {
    fn save(&self, page: usize, into: &mut [u64; PAGE_WORDS]) {
        *into = [self.0.borrow()[page]; PAGE_WORDS];
    }
    fn restore(&self, page: usize, from: &[u64; PAGE_WORDS]) {
        assert!(from.iter().all(|word| word == &from[0]), "one page's copy");
        self.0.borrow_mut()[page] = from[0];
    }
}

fn versions(copies: usize) -> Versions {
    let words = PAGES * WORDS_PER_PAGE + copies * (PAGE_WORDS + PAIR);
    // What the memory held before does not matter.
    let words = Box::leak(vec![0xdead_beef_dead_beef; words].into_boxed_slice());
    Versions::new(Memory::new(words, PAGES).expect("there is room"))
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(usize),
    Keep(u32),
    GoTo(u32),
    Forget(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let moment = 0..MOMENTS;
    prop_oneof![
        5 => (0..PAGES).prop_map(Act::Write),
        2 => moment.clone().prop_map(Act::Keep),
        2 => moment.clone().prop_map(Act::GoTo),
        1 => moment.prop_map(Act::Forget),
    ]
}

/// The RAM at each moment that is kept, copied whole.
#[derive(Default)]
struct Model {
    kept: [Option<[u64; PAGES]>; MOMENTS as usize],
}

impl Model {
    fn moments(&self) -> u64 {
        let kept = self.kept.iter().enumerate().filter(|(_, kept)| kept.is_some());
        kept.fold(0, |all, (n, _)| all | 1 << n)
    }
}

proptest! {
    #[test]
    fn each_moment_is_as_it_was(acts in prop::collection::vec(act(), 1..120), copies in 1..24_usize) {
        let (ram, mut versions, mut model) = (Ram(RefCell::default()), versions(copies), Model::default());
        // Numbers of the writes, so that each is another one.
        let mut written = 0;
        for act in acts {
            match act {
                Act::Write(page) => {
                    if versions.open(&ram, page, model.moments()) == Ok(()) {
                        written += 1;
                        ram.0.borrow_mut()[page] = written;
                    }
                }
                Act::Keep(moment) if model.kept[moment as usize].is_none() => {
                    versions.keep(1 << moment);
                    model.kept[moment as usize] = Some(*ram.0.borrow());
                }
                Act::GoTo(moment) => {
                    let Some(was) = model.kept[moment as usize] else { continue };
                    let before = *ram.0.borrow();
                    match versions.go_to(&ram, 1 << moment) {
                        Ok(()) => prop_assert_eq!(*ram.0.borrow(), was),
                        Err(Full) => prop_assert_eq!(*ram.0.borrow(), before, "nothing has changed"),
                    }
                }
                Act::Forget(moment) => {
                    versions.forget(1 << moment);
                    model.kept[moment as usize] = None;
                }
                Act::Keep(_) => {}
            }
            for (n, one) in model.kept.iter().enumerate() {
                for (m, other) in model.kept.iter().enumerate() {
                    let (Some(one), Some(other)) = (one, other) else { continue };
                    for page in (0..PAGES).filter(|&page| one[page] != other[page]) {
                        prop_assert!(versions.differs(page, 1 << n, 1 << m), "{page}: {n} and {m}");
                    }
                }
            }
        }
        // Whatever is kept can be gone to once there is room.
        let kept: Vec<_> = (0..MOMENTS).filter(|&n| model.kept[n as usize].is_some()).collect();
        if copies >= PAGES * (MOMENTS as usize + 1) {
            for n in kept {
                prop_assert_eq!(versions.go_to(&ram, 1 << n), Ok(()));
                prop_assert_eq!(*ram.0.borrow(), model.kept[n as usize].unwrap());
            }
        }
        versions.forget(u64::MAX);
        prop_assert_eq!(versions.left, copies, "every copy is given back");
    }
}

#[test]
fn what_was_not_written_does_not_differ() {
    let (ram, mut versions) = (Ram(RefCell::default()), versions(20));
    versions.keep(1);
    versions.open(&ram, 2, 1).unwrap();
    versions.keep(2);
    versions.open(&ram, 3, 3).unwrap();
    versions.keep(4);
    let differs = |one, other| {
        (0..PAGES).filter(|&page| versions.differs(page, one, other)).collect::<Vec<_>>()
    };
    assert_eq!(differs(1, 2), [2]);
    assert_eq!(differs(2, 4), [3]);
    assert_eq!(differs(1, 4), [2, 3]);
}

#[test]
fn a_page_is_copied_once_between_two_moments() {
    let (ram, mut versions) = (Ram(RefCell::default()), versions(2));
    versions.keep(1);
    for _ in 0..3 {
        assert_eq!(versions.open(&ram, 0, 1), Ok(()));
    }
    assert_eq!(versions.open_pages().collect::<Vec<_>>(), [0]);
    versions.keep(2);
    assert_eq!(versions.open_pages().count(), 0);
    assert_eq!(versions.open(&ram, 0, 3), Ok(()));
    assert_eq!(versions.open(&ram, 1, 3), Err(Full), "that would be the third copy");
    versions.forget(1);
    assert_eq!(versions.open(&ram, 1, 2), Ok(()), "page 0 has one less");
}

#[test]
fn too_little_memory_is_none() {
    let words =
        || Box::leak(vec![0; PAGES * WORDS_PER_PAGE + PAGE_WORDS + PAIR].into_boxed_slice());
    assert!(Memory::new(words(), PAGES).is_some());
    assert!(Memory::new(&mut words()[1..], PAGES).is_none());
    assert!(Memory::new(words(), usize::MAX / 2).is_none());
}
