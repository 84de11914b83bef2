//! Drivers that mean harm, drawn from a seed: rings and chains that are right but for some words, for
//! every kind of device.
//!
//! A few thousand requests in an ordinary run; `STEPWELL_HOSTILE_MINUTES` makes it as many as there is
//! time for. A failure names its seed, and `STEPWELL_HOSTILE_SEED` begins there.

use crate::network::Network;
use crate::queue::{Answer, Broken, Device, serve};
use crate::{Disk, Entropy, Image, Source};
use std::env;
use std::io;
use std::time::{Duration, Instant};
use stepwell_wire::devices::{QueueRequest, Served};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const BASE: u64 = 0x4000_0000;
const RAM: u64 = 0x1_0000;
const TABLE: u64 = 0x1000;
const DRIVER: u64 = 0x3000;
const DEVICE: u64 = 0x4000;
/// Of no more than this a chain's device can write: each of its descriptors once, wherever they are.
const WRITTEN_MAX: u64 = 256 * 256 * RAM;
const REQUESTS: u64 = 3000;

/// SplitMix64.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of these, or, one time in eight, anything.
    fn mostly(&mut self, choices: &[u64]) -> u64 {
        match self.below(8) {
            0 => self.next() >> self.below(64),
            _ => choices[self.below(choices.len() as u64) as usize],
        }
    }
}

/// A disk of 64 KiB that forgets, and fails at times.
struct Forgetful(u64);

impl Forgetful {
    fn is_fine(&mut self, offset: u64, bytes: usize) -> io::Result<()> {
        assert!(offset + bytes as u64 <= RAM);
        self.0 += 1;
        if self.0.is_multiple_of(11) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Image for Forgetful {
    fn bytes(&self) -> u64 {
        RAM
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0xd5);
        self.is_fine(offset, into.len())
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.is_fine(offset, from.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.is_fine(0, 0)
    }
}

/// The guest's RAM, and what it has offered to be written.
struct Guest {
    memory: GuestMemoryMmap,
    /// Bytes of RAM that a device may write: rings that it uses, and buffers.
    offered: Vec<bool>,
    written: u64,
}

impl Guest {
    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(BASE + at)).expect("it is RAM");
    }

    fn offer(&mut self, address: u64, bytes: u64) {
        let Some(from) = address.checked_sub(BASE) else { return };
        let end = from.saturating_add(bytes).min(RAM);
        for at in from.min(end)..end {
            self.offered[at as usize] = true;
        }
    }

    /// Draws a descriptor and writes it.
    fn descriptor(&mut self, draws: &mut Draws, place: u64) {
        let address = draws.mostly(&[BASE + 0x5000, BASE + 0x6000, BASE + 0x8010, BASE + 0xf000]);
        let length = draws.mostly(&[1, 12, 16, 26, 512, 513, 1526, 4096]) as u32;
        let flags = draws.mostly(&[0, 1, 1, 1, 2, 3, 3, 4]) as u16;
        let next = draws.mostly(&[0, 1, 2, 3, 4, 5, 6, 7]) as u16;
        if flags & 2 != 0 {
            self.offer(address, length.into());
        }
        let words = [
            &address.to_le_bytes()[..],
            &length.to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ];
        self.put(place, &words.concat());
    }
}

impl Answer for Guest {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Broken> {
        let from = address.checked_sub(BASE).expect("below RAM") as usize;
        let offered = self.offered.get(from..from + bytes.len()).expect("above RAM");
        assert!(offered.iter().all(|&is_offered| is_offered), "{address:#x} was not offered");
        self.written += bytes.len() as u64;
        assert!(self.written <= WRITTEN_MAX);
        Ok(())
    }
}

fn devices() -> Vec<Box<dyn Device>> {
    let disk = |is_read_only| Disk::new(Box::new(Forgetful(0)), is_read_only, "disk".into());
    vec![
        Box::new(disk(false)),
        Box::new(disk(true)),
        Box::new(Entropy::new(Source::Seed(1))),
        Box::new(Network::of_test()),
    ]
}

/// One request of a driver that is drawn.
fn request(draws: &mut Draws, device: &mut dyn Device) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), RAM as usize)]);
    let memory = memory.expect("there is memory");
    let mut guest = Guest { memory, offered: vec![false; RAM as usize], written: 0 };
    let size = 1 << draws.below(9);
    // Descriptors, and tables that indirect ones may lead to.
    for place in (TABLE..TABLE + 16 * 16).chain(0x5000..0x5080).chain(0x8010..0x8050).step_by(16) {
        guest.descriptor(draws, place);
    }
    for place in [0x6000, 0x8000] {
        let kind = draws.mostly(&[0, 1, 4, 8]) as u32;
        let sector = draws.mostly(&[0, 1, 127, 128]);
        guest.put(place, &[kind.to_le_bytes(), [0; 4]].concat());
        guest.put(place + 8, &sector.to_le_bytes());
    }
    let next_available = draws.mostly(&[0, 0xffff]) as u16;
    let offers = draws.mostly(&[1, 2, 3]) as u16;
    for n in 0..offers.min(300) {
        let place = u64::from(next_available.wrapping_add(n) % size);
        let head = draws.mostly(&[0, 1, 2, 3]) as u16;
        guest.put(DRIVER + 4 + 2 * place, &head.to_le_bytes());
    }
    guest.put(DRIVER + 2, &next_available.wrapping_add(offers).to_le_bytes());
    let ring = |draws: &mut Draws, at| draws.mostly(&[BASE + at; 15]);
    let request = QueueRequest {
        domain: 0,
        slot: 31,
        queue: draws.mostly(&[0, 0, 1]) as u8,
        size,
        descriptors: ring(draws, TABLE),
        driver: ring(draws, DRIVER),
        device: ring(draws, DEVICE),
        next_available,
        next_used: draws.next() as u16,
        features: 1 << 32,
        ram: BASE,
        ram_bytes: RAM,
    };
    guest.offer(request.device, 4 + 8 * u64::from(size));
    let served = serve(&request, &guest.memory.clone(), device, &mut guest);
    if let Served::Done { next_available, .. } = served {
        assert!(next_available.wrapping_sub(request.next_available) <= size);
    }
}

fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn hostile_drivers_hurt_their_guest_alone() {
    let minutes = from_environment("STEPWELL_HOSTILE_MINUTES");
    let first = from_environment("STEPWELL_HOSTILE_SEED").unwrap_or(0);
    let until = Instant::now() + Duration::from_secs(60 * minutes.unwrap_or(0));
    let mut devices = devices();
    let (mut seed, mut served) = (first, 0_u64);
    while served < REQUESTS || Instant::now() < until {
        for device in &mut devices {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                request(&mut Draws(seed), device.as_mut());
            }));
            assert!(outcome.is_ok(), "STEPWELL_HOSTILE_SEED={seed} comes there again");
        }
        seed += 1;
        served += devices.len() as u64;
    }
    println!("{served} requests of hostile drivers, seeds {first} to {seed}");
}
