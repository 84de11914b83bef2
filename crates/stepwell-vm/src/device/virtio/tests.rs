//! What drivers do to the transport, right or wrong.

use super::*;
use proptest::prelude::*;

const FEATURES: u64 = FEATURE_VERSION_1 | 1 << 6;

fn board() -> Virtio {
    let mut virtio = Virtio::new();
    let identity = Identity {
        id: 2,
        features: FEATURES,
        queues: Vec::from_slice(&[256, 8]).expect("two"),
        configuration: Vec::from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).expect("short"),
    };
    assert!(virtio.attach(31, identity.clone()));
    assert!(!virtio.attach(31, identity.clone()), "something is in it");
    assert!(!virtio.attach(32, identity), "there is none");
    virtio
}

fn store(virtio: &mut Virtio, offset: u64, value: u32) {
    assert_eq!(virtio.write(31, offset, 4, value.into()), Effect::None);
}

/// As Linux does it.
fn drive(virtio: &mut Virtio) {
    for status in [0, 1, 3] {
        store(virtio, STATUS, status);
    }
    for (select, word) in [(1, (FEATURES >> 32) as u32), (0, FEATURES as u32)] {
        store(virtio, DRIVER_FEATURES_SEL, select);
        store(virtio, DRIVER_FEATURES, word);
    }
    store(virtio, STATUS, 11);
    assert_eq!(virtio.read(31, STATUS, 4), 11);
    store(virtio, QUEUE_SEL, 0);
    assert_eq!(virtio.read(31, QUEUE_READY, 4), 0);
    assert_eq!(virtio.read(31, QUEUE_NUM_MAX, 4), 256);
    store(virtio, QUEUE_NUM, 128);
    for (n, offset) in (1..).zip([QUEUE_DESC_LOW, QUEUE_DRIVER_LOW, QUEUE_DEVICE_LOW]) {
        store(virtio, offset, n << 12);
        store(virtio, offset + 4, n);
    }
    store(virtio, QUEUE_READY, 1);
    store(virtio, STATUS, 15);
}

#[test]
fn an_empty_slot_is_a_transport_without_a_device() {
    let virtio = board();
    let words: std::vec::Vec<u64> = (0..4).map(|n| virtio.read(3, 4 * n, 4)).collect();
    assert_eq!(words, [MAGIC, 2, 0, VENDOR]);
    assert_eq!(
        [virtio.read(3, 0, 1), virtio.read(3, 0, 2), virtio.read(3, 1, 1)],
        [0x76, 0x6976, 0]
    );
    assert_eq!(virtio.read(3, CONFIG, 4), 0);
}

#[test]
fn a_driver_finds_what_was_attached() {
    let mut virtio = board();
    assert_eq!(virtio.read(31, DEVICE_ID, 4), 2);
    assert_eq!(virtio.read(31, DEVICE_FEATURES, 4), 1 << 6);
    store(&mut virtio, DEVICE_FEATURES_SEL, 1);
    assert_eq!(virtio.read(31, DEVICE_FEATURES, 4), 1);
    store(&mut virtio, DEVICE_FEATURES_SEL, 2);
    assert_eq!(virtio.read(31, DEVICE_FEATURES, 4), 0);
    assert_eq!(virtio.read(31, CONFIG, 4), 0x0403_0201);
    assert_eq!(virtio.read(31, CONFIG + 5, 2), 0x0706);
    assert_eq!(virtio.read(31, CONFIG + 8, 1), 9);
    assert_eq!(virtio.read(31, CONFIG + 8, 2), u64::MAX, "there is no more");
    assert_eq!(virtio.read(31, SHM_LEN_LOW, 4), 0xffff_ffff);
}

#[test]
fn a_queue_is_served_as_it_was_set_up() {
    let mut virtio = board();
    drive(&mut virtio);
    assert_eq!(virtio.write(31, QUEUE_NOTIFY, 4, 0), Effect::Notified(0));
    assert_eq!(virtio.begin(), None, "nobody has taken note");
    virtio.notify(31, 0);
    let work = virtio.begin().expect("it is ready");
    assert_eq!((work.slot, work.number, work.features), (31, 0, FEATURES));
    let Queue { size, descriptors, driver, device, .. } = work.queue;
    assert_eq!(
        (size, descriptors, driver, device),
        (128, 0x1_0000_1000, 0x2_0000_2000, 0x3_0000_3000)
    );
    assert!(virtio.must_wait(31, STATUS) && !virtio.must_wait(31, INTERRUPT_ACK));
    virtio.notify(31, 0);
    assert_eq!(virtio.begin(), None, "somebody is at it");
    let outcome = Outcome::Served { next_available: 5, next_used: 4, interrupt: true };
    virtio.finish(31, 0, outcome);
    assert!(virtio.line(31) && !virtio.must_wait(31, STATUS));
    let again = virtio.begin().expect("it was notified meanwhile");
    assert_eq!((again.queue.next_available, again.queue.next_used), (5, 4));
    let outcome = Outcome::Served { next_available: 5, next_used: 5, interrupt: false };
    virtio.finish(31, 0, outcome);
    assert!(virtio.begin().is_none() && !virtio.has_work());
    assert_eq!(virtio.read(31, INTERRUPT_STATUS, 4), 1);
    store(&mut virtio, INTERRUPT_ACK, 1);
    assert!(!virtio.line(31));
}

#[test]
fn a_broken_queue_is_told_and_takes_a_reset() {
    let mut virtio = board();
    drive(&mut virtio);
    virtio.notify(31, 0);
    let _work = virtio.begin().expect("it is ready");
    virtio.notify(31, 0);
    virtio.finish(31, 0, Outcome::Broken);
    assert!(!virtio.has_work(), "what was notified is nothing any more");
    assert_eq!((virtio.read(31, STATUS, 4), virtio.read(31, INTERRUPT_STATUS, 4)), (0x4f, 2));
    store(&mut virtio, STATUS, 15);
    virtio.notify(31, 0);
    assert_eq!(virtio.begin(), None, "not before a reset");
    store(&mut virtio, STATUS, 0);
    assert_eq!((virtio.read(31, STATUS, 4), virtio.line(31)), (0, false));
    drive(&mut virtio);
    virtio.notify(31, 0);
    assert!(virtio.begin().is_some());
}

#[test]
fn what_comes_at_the_wrong_time_is_ignored() {
    let mut virtio = board();
    virtio.notify(31, 0);
    assert_eq!(virtio.begin(), None, "nobody drives it");
    store(&mut virtio, DRIVER_FEATURES, 1 << 7);
    store(&mut virtio, STATUS, 11);
    assert_eq!(virtio.read(31, STATUS, 4), 3, "a feature that is not offered");
    drive(&mut virtio);
    virtio.notify(31, 1);
    assert_eq!(virtio.begin(), None, "it is not ready");
    store(&mut virtio, QUEUE_NUM, 16);
    store(&mut virtio, QUEUE_DESC_LOW, 16);
    store(&mut virtio, DRIVER_FEATURES, 0);
    virtio.notify(31, 0);
    let work = virtio.begin().expect("it is ready");
    assert_eq!((work.queue.size, work.queue.descriptors), (128, 0x1_0000_1000));
    store(&mut virtio, QUEUE_SEL, 1);
    store(&mut virtio, QUEUE_NUM, 9);
    assert_eq!(virtio.selected_size(), 0, "more than it has");
    store(&mut virtio, QUEUE_SEL, 2);
    store(&mut virtio, QUEUE_READY, 1);
    assert_eq!((virtio.read(31, QUEUE_READY, 4), virtio.read(31, QUEUE_NUM_MAX, 4)), (0, 0));
    assert_eq!(virtio.write(31, QUEUE_NOTIFY, 2, 0), Effect::None, "half a register");
}

#[test]
fn a_queue_that_is_taken_away_is_not_served() {
    for (offset, value) in [(STATUS, 0), (QUEUE_READY, 0)] {
        let mut virtio = board();
        drive(&mut virtio);
        virtio.notify(31, 0);
        assert!(virtio.has_work());
        store(&mut virtio, offset, value);
        assert!(virtio.begin().is_none() && !virtio.has_work(), "{offset:#x}");
    }
}

#[test]
fn slots_take_turns() {
    let mut virtio = board();
    let identity = virtio.slots[31].as_ref().expect("it is there").identity.clone();
    assert!(virtio.attach(7, identity));
    drive(&mut virtio);
    virtio.slots[7] = virtio.slots[31].clone();
    let mut served = std::vec::Vec::new();
    for _ in 0..4 {
        for slot in [7, 31] {
            virtio.notify(slot, 0);
        }
        let work = virtio.begin().expect("both are due");
        let outcome = Outcome::Served { next_available: 0, next_used: 0, interrupt: false };
        virtio.finish(work.slot, work.number, outcome);
        served.push(work.slot);
    }
    assert_eq!(served, [7, 31, 7, 31]);
}

impl Virtio {
    fn selected_size(&self) -> u16 {
        let transport = self.slots[31].as_ref().expect("it is there");
        transport.selected().map_or(0, |(queue, _)| queue.size)
    }
}

proptest! {
    #[test]
    fn every_access_is_survived(accesses in prop::collection::vec(any::<(u64, u8, u64)>(), 0..200)) {
        let mut virtio = board();
        drive(&mut virtio);
        for (offset, bytes, value) in accesses {
            let (offset, bytes) = ((offset % SLOT_BYTES) & !3, 1 << (bytes % 4));
            if let Effect::Notified(queue) = virtio.write(31, offset, bytes, value) {
                virtio.notify(31, queue);
            }
            if let Some(work) = virtio.begin() {
                prop_assert!(work.queue.size <= 256);
                virtio.finish(31, work.number, Outcome::Broken);
            }
            prop_assert!(!virtio.has_work());
            let _value = virtio.read(31, offset, bytes);
        }
    }
}
