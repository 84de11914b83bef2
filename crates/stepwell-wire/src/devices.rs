//! Layout and protocol of the device channel: virtqueues that the tool serves, in RAM that both sides
//! map.
//!
//! A vCPU that notifies a queue has EL2 *ask*; it goes on once the tool has *answered*. So a request
//! takes a guest no time by a clock that does not go on at EL2, and nothing of it needs a log. The tool
//! reads the guest's RAM where it is. What it has to say goes the other way, as writes that EL2 carries
//! out: an emulator does not see stores of another process's to code that it has translated, EL2
//! bounds them by the guest's RAM, and whatever EL2 knows of its pages stays true.
//!
//! | offset | what | written by |
//! | --- | --- | --- |
//! | 0 | `asked`: how often | EL2 |
//! | 64 | `answered`: how often | the tool |
//! | 128 | 1: the tool looks by itself, the doorbell need not be rung | the tool |
//! | 4096 | the request, in words | EL2 |
//! | 8192 | the answer's head, in words | the tool |
//! | 16384 | its writes: address and bytes of each, in words | the tool |
//! | 32768 | their bytes, each write's from a whole word on | the tool |
//!
//! An answer that has no room for all of its writes is *partial*: EL2 carries them out and asks again,
//! for the rest. All zero is a channel on which nothing was asked.
//!
//! Neither side trusts the other's words: they are numbers that may be anything.

use crate::mailbox::Memory;
use core::sync::atomic::{Ordering, fence};

/// Bytes of the whole channel.
pub const BYTES: u64 = DATA + DATA_BYTES;
/// Writes of one answer.
pub const WRITES_MAX: u64 = 1024;
/// Bytes of one answer's writes.
pub const DATA_BYTES: u64 = 1 << 20;

const ASKED: u64 = 0;
const ANSWERED: u64 = 64;
const ATTENTIVE: u64 = 128;
const REQUEST: u64 = 4096;
const ANSWER: u64 = 8192;
const WRITES: u64 = 16384;
const DATA: u64 = 32768;
/// Bytes that EL2 takes at a time.
const CHUNK: usize = 4096;

const DONE: u64 = 1;
const PARTIAL: u64 = 2;

/// A virtqueue with something in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueRequest {
    /// The domain.
    pub domain: u8,
    /// The device, by its virtio-mmio slot.
    pub slot: u8,
    /// Which of its queues.
    pub queue: u8,
    /// Descriptors of the queue.
    pub size: u16,
    /// Guest-physical address of its descriptor table.
    pub descriptors: u64,
    /// Of its available ring.
    pub driver: u64,
    /// Of its used ring.
    pub device: u64,
    /// Heads taken from the available ring, modulo 2^16.
    pub next_available: u16,
    /// Heads put into the used ring, modulo 2^16.
    pub next_used: u16,
    /// What driver and device have agreed on.
    pub features: u64,
    /// Where the guest's RAM begins, physically.
    pub ram: u64,
    /// Bytes of its RAM.
    pub ram_bytes: u64,
}

const REQUEST_WORDS: usize = 8;

impl QueueRequest {
    fn to_words(self) -> [u64; REQUEST_WORDS] {
        let Self { domain, slot, queue, size, next_available, next_used, .. } = self;
        let which = u64::from(domain) | u64::from(slot) << 8 | u64::from(queue) << 16;
        let places = u64::from(size) << 32 | u64::from(next_available) << 16 | u64::from(next_used);
        let rings = [self.descriptors, self.driver, self.device];
        let [descriptors, driver, device] = rings;
        [which, places, descriptors, driver, device, self.features, self.ram, self.ram_bytes]
    }

    fn of_words(words: [u64; REQUEST_WORDS]) -> Self {
        let [which, places, descriptors, driver, device, features, ram, ram_bytes] = words;
        Self {
            domain: which as u8,
            slot: (which >> 8) as u8,
            queue: (which >> 16) as u8,
            size: (places >> 32) as u16,
            descriptors,
            driver,
            device,
            next_available: (places >> 16) as u16,
            next_used: places as u16,
            features,
            ram,
            ram_bytes,
        }
    }
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The queue is served as far as there was something in it.
    Done {
        /// [`QueueRequest::next_available`] from now on.
        next_available: u16,
        /// [`QueueRequest::next_used`] from now on.
        next_used: u16,
        /// The driver wants to be interrupted.
        interrupt: bool,
    },
    /// The driver has made something of the queue that is none: it has to reset the device.
    Broken,
}

/// EL2's end. There is one.
#[derive(Debug)]
pub struct Client<M> {
    memory: M,
    asked: u64,
}

impl<M: Memory> Client<M> {
    /// Makes the end of a channel that is all zero.
    #[must_use]
    pub const fn new(memory: M) -> Self {
        Self { memory, asked: 0 }
    }

    /// Asks for a queue to be served. Returns whether the doorbell has to be rung.
    #[must_use]
    pub fn ask(&mut self, request: QueueRequest) -> bool {
        for (offset, word) in (REQUEST..).step_by(8).zip(request.to_words()) {
            self.memory.word(offset).store(word, Ordering::Relaxed);
        }
        self.ask_on()
    }

    fn ask_on(&mut self) -> bool {
        self.asked = self.asked.wrapping_add(1);
        self.memory.word(ASKED).store(self.asked, Ordering::Release);
        fence(Ordering::SeqCst);
        self.memory.word(ATTENTIVE).load(Ordering::Relaxed) == 0
    }

    /// Tells whether there is an answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.memory.word(ANSWERED).load(Ordering::Acquire) == self.asked
    }

    /// Takes the answer that is there: hands its writes on, each with its guest-physical address, in
    /// order and at most 4096 bytes at a time. None where it was partial: then it was asked for the
    /// rest, and `ring` says whether the doorbell has to be rung.
    pub fn take(&mut self, mut write: impl FnMut(u64, &[u8])) -> Result<Served, Partial> {
        let [status, writes, indices, interrupt] = self.words(ANSWER);
        let mut data = 0_u64;
        for place in (WRITES..).step_by(16).take(writes.min(WRITES_MAX) as usize) {
            let [mut address, mut left] = self.words(place);
            while left > 0 && data < DATA_BYTES {
                let mut chunk = [0; CHUNK];
                let bytes = left.min(CHUNK as u64) as usize;
                for word in chunk.chunks_exact_mut(8).take(bytes.div_ceil(8)) {
                    let value = self.memory.word(DATA.wrapping_add(data % DATA_BYTES));
                    word.copy_from_slice(&value.load(Ordering::Relaxed).to_le_bytes());
                    data = data.wrapping_add(8);
                }
                write(address, chunk.get(..bytes).unwrap_or_default());
                address = address.wrapping_add(bytes as u64);
                left = left.saturating_sub(bytes as u64);
            }
        }
        match status {
            DONE => Ok(Served::Done {
                next_available: (indices >> 16) as u16,
                next_used: indices as u16,
                interrupt: interrupt != 0,
            }),
            PARTIAL => Err(Partial { ring: self.ask_on() }),
            _ => Ok(Served::Broken),
        }
    }

    fn words<const N: usize>(&self, from: u64) -> [u64; N] {
        let mut words = [0; N];
        for (word, offset) in words.iter_mut().zip((from..).step_by(8)) {
            *word = self.memory.word(offset).load(Ordering::Relaxed);
        }
        words
    }
}

/// There is more to the answer, and it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The doorbell has to be rung.
    pub ring: bool,
}

/// The tool's end. There is one.
#[derive(Debug)]
pub struct Server<M> {
    memory: M,
    answered: u64,
    writes: u64,
    data: u64,
}

impl<M: Memory> Server<M> {
    /// Makes the end of a channel that is all zero.
    #[must_use]
    pub const fn new(memory: M) -> Self {
        Self { memory, answered: 0, writes: 0, data: 0 }
    }

    /// Tells whether something is asked that was not answered.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.memory.word(ASKED).load(Ordering::Acquire) != self.answered
    }

    /// What is asked.
    #[must_use]
    pub fn request(&self) -> QueueRequest {
        let mut words = [0; REQUEST_WORDS];
        for (word, offset) in words.iter_mut().zip((REQUEST..).step_by(8)) {
            *word = self.memory.word(offset).load(Ordering::Relaxed);
        }
        QueueRequest::of_words(words)
    }

    /// Adds a write to the answer, as far as there is room: returns how many of the bytes.
    #[must_use]
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> usize {
        let room = DATA_BYTES.saturating_sub(self.data) as usize;
        let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        if bytes.is_empty() || self.writes >= WRITES_MAX {
            return 0;
        }
        let place = WRITES.wrapping_add(self.writes.wrapping_mul(16));
        self.memory.word(place).store(address, Ordering::Relaxed);
        self.memory.word(place.wrapping_add(8)).store(bytes.len() as u64, Ordering::Relaxed);
        self.writes = self.writes.wrapping_add(1);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            let place = DATA.wrapping_add(self.data % DATA_BYTES);
            self.memory.word(place).store(u64::from_le_bytes(word), Ordering::Relaxed);
            self.data = self.data.wrapping_add(8);
        }
        bytes.len()
    }

    /// Answers with the writes so far; there are more to come.
    pub fn answer_partially(&mut self) {
        self.answer([PARTIAL, 0, 0]);
    }

    /// Answers.
    pub fn answer_finally(&mut self, served: Served) {
        self.answer(match served {
            Served::Done { next_available, next_used, interrupt } => {
                let indices = u64::from(next_available) << 16 | u64::from(next_used);
                [DONE, indices, interrupt.into()]
            }
            Served::Broken => [0; 3],
        });
    }

    fn answer(&mut self, [status, indices, interrupt]: [u64; 3]) {
        let head = [status, self.writes, indices, interrupt];
        for (offset, word) in (ANSWER..).step_by(8).zip(head) {
            self.memory.word(offset).store(word, Ordering::Relaxed);
        }
        (self.writes, self.data) = (0, 0);
        self.answered = self.answered.wrapping_add(1);
        self.memory.word(ANSWERED).store(self.answered, Ordering::Release);
    }

    /// Says whether this side looks by itself from here on. One that no longer does must
    /// [look](Self::is_asked) once more before it sleeps.
    pub fn set_attentive(&self, is_attentive: bool) {
        self.memory.word(ATTENTIVE).store(is_attentive.into(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;
    use std::sync::Arc;

    #[derive(Clone)]
    struct Words(Arc<Vec<AtomicU64>>);

    impl Words {
        fn new() -> Self {
            Self(Arc::new((0..BYTES / 8).map(|_| AtomicU64::new(0)).collect()))
        }
    }

    impl Memory for Words {
        fn word(&self, offset: u64) -> &AtomicU64 {
            &self.0[(offset / 8) as usize]
        }
    }

    const REQUEST: QueueRequest = QueueRequest {
        domain: 1,
        slot: 31,
        queue: 2,
        size: 0x8000,
        descriptors: u64::MAX,
        driver: 2,
        device: 3,
        next_available: 0xffff,
        next_used: 0xfffe,
        features: 1 << 63,
        ram: 4,
        ram_bytes: 5,
    };

    #[test]
    fn what_is_asked_and_answered_arrives() {
        let words = Words::new();
        let (mut client, mut server) = (Client::new(words.clone()), Server::new(words));
        assert!(!server.is_asked());
        assert!(client.ask(REQUEST), "nobody looks");
        assert!(server.is_asked() && !client.is_answered());
        assert_eq!(server.request(), REQUEST);
        let long: Vec<u8> = (0..10_001_u32).map(|n| n as u8).collect();
        assert_eq!(server.write(0x1000, &long), long.len());
        assert_eq!(server.write(0x9, b"x"), 1);
        let served = Served::Done { next_available: 7, next_used: 0xffff, interrupt: true };
        server.answer_finally(served);
        assert!(client.is_answered() && !server.is_asked());
        let mut got = vec![0; 0x1000 + long.len()];
        let taken = client.take(|address, bytes| {
            let address = address as usize;
            got[address..address + bytes.len()].copy_from_slice(bytes);
        });
        assert_eq!(taken, Ok(served));
        assert_eq!(&got[0x1000..], &long[..]);
        assert_eq!(got[9], b'x');
        server.set_attentive(true);
        assert!(!client.ask(REQUEST), "it looks");
        server.answer_finally(Served::Broken);
        assert_eq!(client.take(|_, _| panic!("nothing is written")), Ok(Served::Broken));
    }

    #[test]
    fn what_does_not_fit_goes_into_the_next_answer() {
        let words = Words::new();
        let (mut client, mut server) = (Client::new(words.clone()), Server::new(words));
        let _ring = client.ask(REQUEST);
        let long = vec![1; DATA_BYTES as usize + 5];
        assert_eq!(server.write(0, &long), DATA_BYTES as usize);
        assert_eq!(server.write(0, b"x"), 0);
        server.answer_partially();
        let mut bytes = 0;
        assert_eq!(client.take(|_, chunk| bytes += chunk.len()), Err(Partial { ring: true }));
        assert_eq!(bytes, DATA_BYTES as usize);
        assert!(server.is_asked());
        for n in 0..WRITES_MAX {
            assert_eq!(server.write(n, b"y"), 1);
        }
        assert_eq!(server.write(0, b"y"), 0);
        server.answer_finally(Served::Broken);
        let mut writes = 0;
        assert_eq!(client.take(|_, _| writes += 1), Ok(Served::Broken));
        assert_eq!(writes, WRITES_MAX);
    }

    #[test]
    fn no_words_make_it_do_more_than_an_answer_can_hold() {
        let words = Words::new();
        let mut client = Client::new(words.clone());
        let _ring = client.ask(REQUEST);
        words.0.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let mut bytes = 0;
        assert_eq!(client.take(|_, chunk| bytes += chunk.len() as u64), Ok(Served::Broken));
        assert_eq!(bytes, DATA_BYTES);
    }
}
