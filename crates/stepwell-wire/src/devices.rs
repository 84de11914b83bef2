//! Layout and protocol of the device channel: virtqueues that the tool serves, in RAM that both sides
//! map.
//!
//! A vCPU that notifies a queue has EL2 *ask*. Where a request is to take the guest no time it goes on
//! once the tool has *answered*; where the guest runs in real time it goes on at once, and the tool rings
//! the doorbell of an EL2 that no longer looks. One queue is asked for at a time. The tool reads the
//! guest's RAM where it is. What it has to say goes the other way, as writes that EL2 carries out: an
//! emulator does not see stores of another process's to code that it has translated, EL2 bounds them by
//! the guest's RAM, and whatever EL2 knows of its pages stays true.
//!
//! | offset | what | written by |
//! | --- | --- | --- |
//! | 0 | `asked`: how often | EL2 |
//! | 64 | `answered`: how often | the tool |
//! | 128 | 1: the tool looks by itself, the doorbell need not be rung | the tool |
//! | 192 | 1: EL2 does not, it is to be told of the answer | EL2 |
//! | 256 | slots of the first domain, a bit each: changes where one has something for its first queue by itself | the tool |
//! | 264, 272, 280 | of the other domains | the tool |
//! | 320, 328, 336, 344 | of each domain: the same bits, as far as EL2 has taken note of them | EL2 |
//! | 4096 | the request, in words | EL2 |
//! | 8192 | the answer's head, in words | the tool |
//! | 16384 | its writes: address and bytes of each, in words | the tool |
//! | 32768 | their bytes, each write's from a whole word on | the tool |
//!
//! An answer that has no room for all of its writes is *partial*: EL2 carries them out and asks again,
//! for the rest. All zero is a channel on which nothing was asked.
//!
//! Each word is written by one side alone. Words that both change would need read-modify-write
//! operations, and an emulator of a machine with one CPU carries those out as a load and a store.
//!
//! Neither side trusts the other's words: they are numbers that may be anything.

use crate::mailbox::Memory;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the whole channel.
pub const BYTES: u64 = DATA + DATA_BYTES;
/// Writes of one answer.
pub const WRITES_MAX: u64 = 1024;
/// Bytes of one answer's writes.
pub const DATA_BYTES: u64 = 1 << 20;

const ASKED: u64 = 0;
const ANSWERED: u64 = 64;
const ATTENTIVE: u64 = 128;
const UNATTENDED: u64 = 192;
const WANTED: u64 = 256;
const NOTED: u64 = 320;
/// Domains whose devices may have something by themselves.
const DOMAINS: u8 = 4;
const REQUEST: u64 = 4096;
const ANSWER: u64 = 8192;
const WRITES: u64 = 16384;
const DATA: u64 = 32768;
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
        /// [`QueueRequest::next_used`] from now on. Whether the driver wants to hear of it is for
        /// EL2 to see, once it has written it.
        next_used: u16,
    },
    /// The driver has made something of the queue that is none: it has to reset the device.
    Broken,
}

/// A channel's memory as both ends map it: in one piece.
pub trait Words: Memory {
    /// The words from a byte offset on, which is a multiple of 8: so many, or as many as there are.
    fn words(&self, offset: u64, count: u64) -> &[AtomicU64];
}

/// Bytes of an answer: in words that the tool may change meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    words: &'a [AtomicU64],
    /// The first one in the first word.
    first: usize,
    length: usize,
}

impl<'a> Bytes<'a> {
    /// The first bytes of some words, as many as there are at most.
    #[must_use]
    pub fn new(words: &'a [AtomicU64], length: usize) -> Self {
        Self { words, first: 0, length: length.min(words.len().saturating_mul(8)) }
    }

    /// How many there are.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The words that they are in, where they begin with one.
    #[must_use]
    pub const fn words(&self) -> Option<&'a [AtomicU64]> {
        if self.first == 0 { Some(self.words) } else { None }
    }

    /// The first `count`, and the rest.
    #[must_use]
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let count = count.min(self.length);
        let at = self.first.saturating_add(count);
        let words = self.words.get(at / 8..).unwrap_or_default();
        let rest = Self { words, first: at % 8, length: self.length.saturating_sub(count) };
        (Self { length: count, ..self }, rest)
    }

    /// Copies the first of them out, as many as fit.
    pub fn copy_to(&self, into: &mut [u8]) {
        let words = self.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        for (to, from) in into.iter_mut().zip(words.skip(self.first).take(self.length)) {
            *to = from;
        }
    }
}

/// EL2's end. There is one.
#[derive(Debug)]
pub struct Client<M> {
    memory: M,
    asked: u64,
    in_hand: Option<QueueRequest>,
    is_attentive: bool,
}

impl<M: Words> Client<M> {
    /// Makes the end of a channel that is all zero.
    #[must_use]
    pub const fn new(memory: M) -> Self {
        Self { memory, asked: 0, in_hand: None, is_attentive: true }
    }

    /// Tells whether something was asked for, and what came of it was not taken.
    #[must_use]
    pub const fn is_asking(&self) -> bool {
        self.in_hand.is_some()
    }

    /// Asks for a queue to be served. Returns whether the doorbell has to be rung.
    #[must_use]
    pub fn ask(&mut self, request: QueueRequest) -> bool {
        self.in_hand = Some(request);
        for (offset, word) in (REQUEST..).step_by(8).zip(request.to_words()) {
            self.memory.word(offset).store(word, Ordering::Relaxed);
        }
        self.ask_on()
    }

    fn ask_on(&mut self) -> bool {
        self.asked = self.asked.wrapping_add(1);
        self.memory.word(ASKED).store(self.asked, Ordering::Release);
        self.memory.full_barrier();
        self.memory.word(ATTENTIVE).load(Ordering::Relaxed) == 0
    }

    /// Tells whether there is an answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.memory.word(ANSWERED).load(Ordering::Acquire) == self.asked
    }

    /// Tells whether this side looks by itself, as the tool knows it.
    #[must_use]
    pub const fn is_attentive(&self) -> bool {
        self.is_attentive
    }

    /// Says whether this side looks by itself from here on. One that no longer does must
    /// [look](Self::is_answered) once more before it leaves.
    pub fn set_attentive(&mut self, is_attentive: bool) {
        if self.is_attentive == is_attentive {
            return;
        }
        self.is_attentive = is_attentive;
        self.memory.word(UNATTENDED).store((!is_attentive).into(), Ordering::Relaxed);
        self.memory.full_barrier();
    }

    /// Hands on which slots of a domain have something for their first queue by themselves, a bit each.
    /// They are forgotten where `take` returns `true`.
    pub fn take_wanted(&self, mut take: impl FnMut(u8, u32) -> bool) {
        for domain in 0..DOMAINS {
            let [wanted, noted] = inputs(&self.memory, domain);
            let wanted = wanted.load(Ordering::Acquire);
            let slots = wanted ^ noted.load(Ordering::Relaxed);
            if slots != 0 && take(domain, slots as u32) {
                // What it is about is asked for after this: a tool that does not see this yet, and has
                // something more, has it before it is asked.
                noted.store(wanted, Ordering::Release);
            }
        }
    }

    /// Takes the answer that is there: hands its writes on, in order, each with the guest's domain and
    /// its guest-physical address.
    ///
    /// # Errors
    ///
    /// [`Partial`]: there is more to it, which was asked for.
    pub fn take(
        &mut self,
        mut write: impl FnMut(u8, u64, Bytes<'_>),
    ) -> Result<(QueueRequest, Served), Partial> {
        let [status, writes, indices] = self.head(ANSWER);
        let domain = self.in_hand.map_or(0, |request| request.domain);
        let mut data = 0_u64;
        for place in (WRITES..).step_by(16).take(writes.min(WRITES_MAX) as usize) {
            let [address, bytes] = self.head(place);
            let room = DATA_BYTES.saturating_sub(data);
            let bytes = bytes.min(room);
            let words = self.memory.words(DATA.wrapping_add(data), bytes.div_ceil(8));
            if bytes > 0 {
                write(domain, address, Bytes::new(words, bytes as usize));
            }
            data = data.wrapping_add(bytes.next_multiple_of(8));
        }
        if status == PARTIAL {
            return Err(Partial { ring: self.ask_on() });
        }
        let (next_available, next_used) = ((indices >> 16) as u16, indices as u16);
        let served = match status {
            DONE => Served::Done { next_available, next_used },
            _ => Served::Broken,
        };
        Ok((self.in_hand.take().unwrap_or_default(), served))
    }

    fn head<const N: usize>(&self, from: u64) -> [u64; N] {
        let mut words = [0; N];
        for (word, offset) in words.iter_mut().zip((from..).step_by(8)) {
            *word = self.memory.word(offset).load(Ordering::Relaxed);
        }
        words
    }
}

/// Which slots of a domain have something by themselves: where their bits differ.
fn inputs<M: Memory>(memory: &M, domain: u8) -> [&AtomicU64; 2] {
    let of_domain = u64::from(domain % DOMAINS).wrapping_mul(8);
    [WANTED, NOTED].map(|words| memory.word(words.wrapping_add(of_domain)))
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

impl<M: Words> Server<M> {
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
        let count = bytes.len().div_ceil(8) as u64;
        let words = self.memory.words(DATA.wrapping_add(self.data), count);
        let (whole, rest) = bytes.as_chunks();
        for (word, chunk) in words.iter().zip(whole) {
            word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
        if let Some(last) = words.get(whole.len()) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(rest) {
                *to = *from;
            }
            last.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        self.data = self.data.wrapping_add(count.wrapping_mul(8));
        bytes.len()
    }

    /// Says that a slot of a domain has something for its first queue. Returns whether EL2 has to be told.
    #[must_use]
    pub fn want(&self, domain: u8, slot: u8) -> bool {
        let slot = 1_u64.wrapping_shl(u32::from(slot % 32));
        let [wanted, noted] = inputs(&self.memory, domain);
        let slots = wanted.load(Ordering::Relaxed);
        if (slots ^ noted.load(Ordering::Acquire)) & slot != 0 {
            return false;
        }
        wanted.store(slots ^ slot, Ordering::Release);
        true
    }

    /// Answers with the writes so far; there are more to come. Returns whether EL2 has to be told.
    #[must_use]
    pub fn answer_partially(&mut self) -> bool {
        self.answer([PARTIAL, 0])
    }

    /// Answers. Returns whether EL2 has to be told.
    #[must_use]
    pub fn answer_finally(&mut self, served: Served) -> bool {
        self.answer(match served {
            Served::Done { next_available, next_used } => {
                [DONE, u64::from(next_available) << 16 | u64::from(next_used)]
            }
            Served::Broken => [0; 2],
        })
    }

    fn answer(&mut self, [status, indices]: [u64; 2]) -> bool {
        let head = [status, self.writes, indices];
        for (offset, word) in (ANSWER..).step_by(8).zip(head) {
            self.memory.word(offset).store(word, Ordering::Relaxed);
        }
        (self.writes, self.data) = (0, 0);
        self.answered = self.answered.wrapping_add(1);
        self.memory.word(ANSWERED).store(self.answered, Ordering::Release);
        self.memory.full_barrier();
        self.memory.word(UNATTENDED).load(Ordering::Relaxed) != 0
    }

    /// Says whether this side looks by itself from here on. One that no longer does must
    /// [look](Self::is_asked) once more before it sleeps.
    pub fn set_attentive(&self, is_attentive: bool) {
        self.memory.word(ATTENTIVE).store(is_attentive.into(), Ordering::Relaxed);
        self.memory.full_barrier();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone)]
    struct Ram(Arc<Vec<AtomicU64>>);

    impl Ram {
        fn new() -> Self {
            Self(Arc::new((0..BYTES / 8).map(|_| AtomicU64::new(0)).collect()))
        }
    }

    impl Memory for Ram {
        fn word(&self, offset: u64) -> &AtomicU64 {
            &self.0[(offset / 8) as usize]
        }
    }

    impl Words for Ram {
        fn words(&self, offset: u64, count: u64) -> &[AtomicU64] {
            let from = (offset / 8) as usize;
            &self.0[from..from + count as usize]
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
        let words = Ram::new();
        let (mut client, mut server) = (Client::new(words.clone()), Server::new(words));
        assert!(!server.is_asked());
        assert!(client.ask(REQUEST), "nobody looks");
        assert!(server.is_asked() && !client.is_answered());
        assert_eq!(server.request(), REQUEST);
        let long: Vec<u8> = (0..10_001_u32).map(|n| n as u8).collect();
        assert_eq!(server.write(0x1000, &long), long.len());
        assert_eq!(server.write(0x9, b"x"), 1);
        let served = Served::Done { next_available: 7, next_used: 0xffff };
        assert!(!server.answer_finally(served), "it looks");
        assert!(client.is_answered() && !server.is_asked() && client.is_asking());
        let mut got = vec![0; 0x1000 + long.len()];
        let taken = client.take(|domain, address, bytes| {
            assert_eq!(domain, 1);
            // In two parts, the second of which begins within a word.
            let (first, rest) = bytes.split_at(3);
            assert!(first.words().is_some() && (rest.words().is_none() || rest.length() == 0));
            for (part, at) in [(first, address), (rest, address + 3)] {
                let at = (at as usize).min(got.len());
                let end = got.len().min(at + part.length());
                part.copy_to(&mut got[at..end]);
            }
        });
        assert_eq!(taken, Ok((REQUEST, served)));
        assert!(!client.is_asking());
        assert_eq!(&got[0x1000..], &long[..]);
        assert_eq!(got[9], b'x');
        server.set_attentive(true);
        assert!(!client.ask(REQUEST), "it looks");
        client.set_attentive(false);
        assert!(server.answer_finally(Served::Broken), "it does not look");
        let taken = client.take(|_, _, _| panic!("nothing is written"));
        assert_eq!(taken, Ok((REQUEST, Served::Broken)));
    }

    #[test]
    fn what_does_not_fit_goes_into_the_next_answer() {
        let words = Ram::new();
        let (mut client, mut server) = (Client::new(words.clone()), Server::new(words));
        let _ring = client.ask(REQUEST);
        let long = vec![1; DATA_BYTES as usize + 5];
        assert_eq!(server.write(0, &long), DATA_BYTES as usize);
        assert_eq!(server.write(0, b"x"), 0);
        assert!(!server.answer_partially());
        let mut bytes = 0;
        assert_eq!(client.take(|_, _, part| bytes += part.length()), Err(Partial { ring: true }));
        assert_eq!(bytes, DATA_BYTES as usize);
        assert!(server.is_asked());
        for n in 0..WRITES_MAX {
            assert_eq!(server.write(n, b"y"), 1);
        }
        assert_eq!(server.write(0, b"y"), 0);
        let _ring = server.answer_finally(Served::Broken);
        let mut writes = 0;
        assert_eq!(client.take(|_, _, _| writes += 1), Ok((REQUEST, Served::Broken)));
        assert_eq!(writes, WRITES_MAX);
    }

    #[test]
    fn what_is_wanted_is_kept_until_it_is_taken() {
        let words = Ram::new();
        let (client, server) = (Client::new(words.clone()), Server::new(words));
        assert!(server.want(0, 31) && server.want(3, 0));
        assert!(!server.want(0, 31), "it has been told");
        let mut seen = Vec::new();
        client.take_wanted(|domain, slots| {
            seen.push((domain, slots));
            domain == 3
        });
        client.take_wanted(|domain, slots| {
            seen.push((domain, slots));
            true
        });
        assert_eq!(seen, [(0, 1 << 31), (3, 1), (0, 1 << 31)]);
        assert!(server.want(0, 31));
    }

    #[test]
    fn what_comes_while_something_is_taken_is_kept() {
        let words = Ram::new();
        let (client, server) = (Client::new(words.clone()), Server::new(words));
        assert!(server.want(0, 1));
        client.take_wanted(|_, slots| {
            assert_eq!(slots, 1 << 1);
            assert!(server.want(0, 2) && !server.want(0, 1));
            true
        });
        client.take_wanted(|domain, slots| {
            assert_eq!((domain, slots), (0, 1 << 2));
            true
        });
        client.take_wanted(|_, _| panic!("all is taken"));
    }

    #[test]
    fn no_words_make_it_do_more_than_an_answer_can_hold() {
        let words = Ram::new();
        let mut client = Client::new(words.clone());
        let _ring = client.ask(REQUEST);
        words.0.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let mut bytes = 0;
        let taken = client.take(|_, _, part| bytes += part.length() as u64);
        assert_eq!(taken, Ok((REQUEST, Served::Broken)));
        assert_eq!(bytes, DATA_BYTES);
    }
}
