//! The protocols between vCPUs, under every interleaving that loom can think of.
//!
//! These are the files of `src/concurrency` themselves, over loom's locks and atomics.

#[path = "../src/concurrency/alone.rs"]
#[allow(dead_code, reason = "the tests use what each protocol is about")]
mod alone;
#[path = "../src/concurrency/counted.rs"]
#[allow(dead_code, reason = "the tests use what each protocol is about")]
mod counted;
#[path = "../src/concurrency/quiescence.rs"]
#[allow(dead_code, reason = "the tests use what each protocol is about")]
mod quiescence;

/// Loom's locks and atomics, as `src/concurrency/sync.rs` has the machine's.
mod sync {
    pub use loom::sync::MutexGuard;
    pub use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics with it")
        }
    }
}

use alone::Alone;
use counted::{Count, Counted};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;
use quiescence::Quiescence;

/// An interrupt controller of one bit, and how a stepped vCPU looks at it.
struct Looked {
    count: Count,
    is_pending: bool,
}

fn look(pending: &Counted<bool>) -> Looked {
    let count = pending.count();
    Looked { count, is_pending: *pending.lock() }
}

/// Whether the vCPU would go on for ever without the interrupt: it saw none, and takes that to hold
/// after everybody else is done.
fn is_lost(pending: &Counted<bool>, looked: &Looked) -> bool {
    !looked.is_pending && looked.count == pending.count()
}

#[test]
fn a_change_is_never_taken_for_one_that_was_looked_at() {
    loom::model(|| {
        let pending = Arc::new(Counted::new(false));
        let sender = Arc::clone(&pending);
        let other = thread::spawn(move || *sender.change() = true);
        let looked = look(&pending);
        other.join().unwrap();
        assert!(!is_lost(&pending, &looked));
    });
}

#[test]
fn nor_one_of_two_vcpus_that_send_at_once() {
    loom::model(|| {
        let pending = Arc::new(Counted::new(0_u8));
        let senders = [1, 2].map(|bit| {
            let pending = Arc::clone(&pending);
            thread::spawn(move || *pending.change() |= bit)
        });
        let count = pending.count();
        let seen = *pending.lock();
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(seen == 3 || count != pending.count(), "saw {seen} only, and goes by it");
    });
}

/// A list register that is taken back may free an interrupt for somebody else: that shows
/// afterwards only, and is told afterwards.
#[test]
fn a_change_that_is_told_later_is_not_lost_either() {
    loom::model(|| {
        let pending = Arc::new(Counted::new(false));
        let sender = Arc::clone(&pending);
        let other = thread::spawn(move || {
            *sender.lock() = true;
            sender.count_change();
        });
        let looked = look(&pending);
        other.join().unwrap();
        assert!(!is_lost(&pending, &looked));
    });
}

/// The mistake that lost interrupts, to see that loom finds it: the count before the lock.
#[test]
#[should_panic(expected = "is lost")]
fn counting_before_the_change_loses_it() {
    loom::model(|| {
        let pending = Arc::new(Counted::new(false));
        let sender = Arc::clone(&pending);
        let other = thread::spawn(move || {
            sender.count_change();
            *sender.lock() = true;
        });
        let looked = look(&pending);
        other.join().unwrap();
        assert!(!is_lost(&pending, &looked), "is lost");
    });
}

/// vCPU 0 enters the guest while vCPU 1 is given an order, writes, and is done with it.
#[test]
fn who_has_had_company_was_not_alone() {
    loom::model(|| {
        let alone = Arc::new(Alone::new());
        let value = Arc::new(AtomicU64::new(0));
        alone.set_ordered(0b01);
        let other = {
            let (alone, value) = (Arc::clone(&alone), Arc::clone(&value));
            thread::spawn(move || {
                alone.set_ordered(0b11);
                value.store(1, Ordering::SeqCst);
                alone.set_ordered(0b01);
            })
        };
        alone.enter(0);
        let loaded = value.load(Ordering::SeqCst);
        let found = value.load(Ordering::SeqCst);
        if alone.has_been(0) {
            assert_eq!(found, loaded, "somebody has written");
        }
        other.join().unwrap();
        alone.enter(0);
        assert!(alone.has_been(0), "and is, from then on");
    });
}

/// vCPU 0 steps exclusive sequences, which vCPU 1's stores may not come between; a sequence is two
/// accesses here, and what vCPU 1 executes between two looks at the quiescence is one.
#[test]
fn nobody_stores_within_anothers_sequence() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let quiescence = Arc::new(Quiescence::new());
        let value = Arc::new(AtomicU64::new(0));
        let has_parked = Arc::new(AtomicBool::new(false));
        let other = {
            let (quiescence, value) = (Arc::clone(&quiescence), Arc::clone(&value));
            let has_parked = Arc::clone(&has_parked);
            thread::spawn(move || {
                for _ in 0..2 {
                    quiescence.wait_if_quiesced(1, || false, thread::yield_now);
                    value.fetch_add(1, Ordering::SeqCst);
                }
                has_parked.store(true, Ordering::SeqCst);
            })
        };
        for _ in 0..2 {
            assert!(quiescence.take(0), "nobody else wants it");
            while quiescence.missing(0b10) != 0 && !has_parked.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let loaded = value.load(Ordering::SeqCst);
            value.store(loaded + 1, Ordering::SeqCst);
            quiescence.resume();
        }
        other.join().unwrap();
        assert_eq!(value.load(Ordering::SeqCst), 4, "a store was overwritten");
    });
}
