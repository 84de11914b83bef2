//! Any bytes as a guest's RAM with a disk's queue in it: whatever a driver makes of it, nothing is
//! written but RAM, and nothing takes more than its buffers can hold.
//!
//! The first bytes are where the rings are and how far they have come, the rest is RAM.

#![no_main]

use std::io;
use stepwell_devices::{Answer, Broken, Disk, Image, serve};
use stepwell_wire::devices::QueueRequest;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const BASE: u64 = 0x4000_0000;
const RAM: u64 = 0x1_0000;
/// A queue has 256 chains at most, each within RAM.
const WRITTEN_MAX: u64 = 256 * 2 * RAM;

/// A disk of 64 KiB that forgets.
struct Forgetful;

impl Image for Forgetful {
    fn bytes(&self) -> u64 {
        RAM
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        assert!(offset + into.len() as u64 <= RAM);
        into.fill(0xd5);
        Ok(())
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        assert!(offset + from.len() as u64 <= RAM);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct InRam(u64);

impl Answer for InRam {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Broken> {
        assert!(BASE <= address && address + bytes.len() as u64 <= BASE + RAM, "{address:#x}");
        self.0 += bytes.len() as u64;
        assert!(self.0 <= WRITTEN_MAX);
        Ok(())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((head, ram)) = bytes.split_at_checked(12) else { return };
    let half = |n: usize| u64::from(u16::from_le_bytes([head[n], head[n + 1]]));
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(BASE), RAM as usize)])
        .expect("there is memory");
    let ram = &ram[..ram.len().min(RAM as usize)];
    memory.write_slice(ram, GuestAddress(BASE)).expect("it is RAM");
    let request = QueueRequest {
        domain: 0,
        slot: 31,
        queue: 0,
        size: 1 << (head[0] % 9),
        descriptors: BASE + half(2),
        driver: BASE + half(4),
        device: BASE + half(6),
        next_available: half(8) as u16,
        next_used: half(10) as u16,
        features: 1 << 32,
        ram: BASE,
        ram_bytes: RAM,
    };
    let mut disk = Disk::new(Box::new(Forgetful), head[1] & 1 != 0, "disk".into());
    let _served = serve(&request, &memory, &mut disk, &mut InRam(0));
});
