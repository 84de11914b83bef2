//! The mailbox: its layout, what goes through it, and that nobody sleeps through a message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;
use stepwell_wire::mailbox::{
    AdaptiveSpin, BYTES, BadHeader, CAPACITY, Direction, Memory, Receiver, Sender,
};
use stepwell_wire::{Bytes, Command, MAX_FRAME, Request, encode};

#[derive(Clone)]
struct Ram(Arc<[AtomicU64]>);

impl Ram {
    fn new() -> Self {
        Self((0..BYTES / 8).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Memory for Ram {
    fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        &self.0[usize::try_from(offset / 8).unwrap()]
    }
}

fn ends(ram: &Ram, direction: Direction) -> (Sender<Ram>, Receiver<Ram>) {
    (Sender::new(ram.clone(), direction), Receiver::new(ram.clone(), direction))
}

fn frame(id: u32, length: usize) -> Vec<u8> {
    let bytes = Bytes::from_slice(&vec![id as u8; length]).unwrap();
    let request = Request { id, command: Command::ConsoleInput { domain: 0, bytes } };
    encode(&request, &mut [0; MAX_FRAME]).unwrap().to_vec()
}

fn id(receiver: &mut Receiver<Ram>) -> Option<u32> {
    receiver.take::<Request>().unwrap().map(|request| request.unwrap().id)
}

#[test]
fn the_layout() {
    assert_eq!((CAPACITY, BYTES), (8192, 135_168));
    let directions = [(Direction::ToHypervisor, 0, 4096), (Direction::ToTool, 256, 69_632)];
    for (direction, header, words) in directions {
        let ram = Ram::new();
        let (mut sender, mut receiver) = ends(&ram, direction);
        assert!(sender.send(&[0x11, 0x22, 0, 0, 0, 0, 0, 0, 0x33, 0]));
        receiver.set_attentive(true);
        assert!(receiver.take::<Request>().unwrap().unwrap().is_err(), "that is no frame");
        let word = |offset| ram.word(offset).load(Ordering::Relaxed);
        assert_eq!([word(header), word(header + 64), word(header + 128)], [2, 1, 1]);
        assert_eq!([word(words), word(words + 8)], [0x2211, 0x33]);
    }
}

#[test]
fn a_full_mailbox_takes_no_more_until_something_was_taken() {
    let (mut sender, mut receiver) = ends(&Ram::new(), Direction::ToHypervisor);
    let mut sent = 0;
    while sender.send(&frame(sent, 1000)) {
        sent += 1;
    }
    assert_eq!(sent, 8192 / (1000 / 8 + 2));
    assert!(!sender.send(&frame(sent, 1000)), "still");
    assert_eq!(id(&mut receiver), Some(0));
    assert!(sender.send(&frame(sent, 1000)));
    let rest: Vec<u32> = std::iter::from_fn(|| id(&mut receiver)).collect();
    assert_eq!(rest, (1..=sent).collect::<Vec<_>>());
}

#[test]
fn a_sender_that_claims_too_much_is_found_out() {
    for head in [CAPACITY + 1, u64::MAX] {
        let ram = Ram::new();
        let (_, mut receiver) = ends(&ram, Direction::ToTool);
        ram.word(256).store(head, Ordering::Relaxed);
        assert_eq!(receiver.take::<Request>().unwrap_err(), BadHeader { head, tail: 0 });
    }
}

#[test]
fn a_receiver_that_claims_too_much_leaves_no_room() {
    for tail in [1, u64::MAX] {
        let ram = Ram::new();
        let (mut sender, _) = ends(&ram, Direction::ToTool);
        ram.word(320).store(tail, Ordering::Relaxed);
        assert!(!sender.send(&frame(1, 1)));
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_taken_in_its_order(lengths in proptest::collection::vec(0..1000_usize, 1..200)) {
        let (mut sender, mut receiver) = ends(&Ram::new(), Direction::ToTool);
        let (mut sent, mut taken) = (0, 0);
        for length in lengths {
            while !sender.send(&frame(sent, length)) {
                prop_assert_eq!(id(&mut receiver), Some(taken));
                taken += 1;
            }
            sent += 1;
        }
        for expected in taken..sent {
            prop_assert_eq!(id(&mut receiver), Some(expected));
        }
        prop_assert_eq!(id(&mut receiver), None);
    }

    #[test]
    fn any_words_are_survived(words in proptest::collection::vec(any::<u64>(), 0..100)) {
        let ram = Ram::new();
        for (offset, word) in (4096..).step_by(8).zip(&words) {
            ram.word(offset).store(*word, Ordering::Relaxed);
        }
        ram.word(0).store(words.len() as u64, Ordering::Relaxed);
        let (_, mut receiver) = ends(&ram, Direction::ToHypervisor);
        while receiver.take::<Request>().unwrap().is_some() {}
    }
}

/// Memory as an emulator shows it that knows of no fence: what is stored and loaded gets to the other
/// side and from it at a barrier only.
#[derive(Clone)]
struct Delayed {
    shared: Ram,
    seen: Ram,
    own: Ram,
}

impl Delayed {
    fn of(shared: &Ram) -> Self {
        Self { shared: shared.clone(), seen: Ram::new(), own: Ram::new() }
    }
}

impl Memory for Delayed {
    fn word(&self, offset: u64) -> &AtomicU64 {
        self.own.word(offset)
    }

    fn full_barrier(&self) {
        for offset in (0..BYTES).step_by(8) {
            let [shared, seen, own] =
                [&self.shared, &self.seen, &self.own].map(|it| it.word(offset));
            let stored = own.load(Ordering::Relaxed);
            if stored != seen.load(Ordering::Relaxed) {
                shared.store(stored, Ordering::Relaxed);
            }
            let now = shared.load(Ordering::Relaxed);
            seen.store(now, Ordering::Relaxed);
            own.store(now, Ordering::Relaxed);
        }
    }
}

/// Whether a message is heard of that comes as its receiver goes to sleep: before it says so, or after.
fn is_heard(
    sending: &(impl Memory + Clone),
    receiving: &(impl Memory + Clone),
    before: bool,
) -> bool {
    let mut sender = Sender::new(sending.clone(), Direction::ToHypervisor);
    let mut receiver = Receiver::new(receiving.clone(), Direction::ToHypervisor);
    receiver.set_attentive(true);
    // Both know that.
    receiving.full_barrier();
    sending.full_barrier();
    let mut send = || {
        assert!(sender.send(&frame(0, 1)));
        sender.must_ring()
    };
    let sent_before = before.then(&mut send);
    receiver.set_attentive(false);
    let is_rung = sent_before.unwrap_or_else(send);
    is_rung || receiver.take::<Request>().unwrap().is_some()
}

#[test]
fn no_message_is_slept_through_where_nothing_but_the_barrier_orders() {
    for before in [true, false] {
        let ram = Ram::new();
        assert!(is_heard(&Delayed::of(&ram), &ram, before), "from an emulated side, {before}");
        let ram = Ram::new();
        assert!(is_heard(&ram, &Delayed::of(&ram), before), "by an emulated side, {before}");
    }
}

/// A receiver that sleeps after each message, at once, hears of every one.
#[test]
fn no_message_is_slept_through() {
    const MESSAGES: u32 = 20_000;
    let (mut sender, mut receiver) = ends(&Ram::new(), Direction::ToTool);
    let (doorbell, wakes) = channel();
    let sending = std::thread::spawn(move || {
        for id in 0..MESSAGES {
            while !sender.send(&frame(id, 1)) {
                std::thread::yield_now();
            }
            if sender.must_ring() {
                doorbell.send(()).unwrap();
            }
        }
        // Until then the receiver must not be told that nobody rings any more.
        doorbell
    });
    let mut expected = 0;
    while expected < MESSAGES {
        match id(&mut receiver) {
            Some(id) => {
                assert_eq!(id, expected);
                expected += 1;
            }
            None => {
                receiver.set_attentive(false);
                if let Some(id) = id(&mut receiver) {
                    assert_eq!(id, expected);
                    expected += 1;
                } else {
                    wakes.recv_timeout(Duration::from_secs(20)).expect("slept through a message");
                }
                receiver.set_attentive(true);
            }
        }
    }
    drop(sending.join().unwrap());
}

#[test]
fn who_looks_in_vain_looks_seldom_until_it_is_of_use() {
    let mut spin = AdaptiveSpin::new();
    for _ in 0..4 {
        assert!(spin.is_worth_it());
        spin.note(false);
    }
    let looks = |spin: &mut AdaptiveSpin| (0..48).filter(|_| spin.is_worth_it()).count();
    assert_eq!(looks(&mut spin), 3);
    spin.note(true);
    assert_eq!(looks(&mut spin), 48);
}
