//! A disk behind its queue: what a driver asks for, and what one does that means harm.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use std::io;
use stepwell_devices::{Answer, Broken, Device, Disk, Entropy, Image, Source, serve};
use stepwell_wire::devices::{QueueRequest, Served};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const BASE: u64 = 0x4000_0000;
const RAM: u64 = 0x4_0000;
const TABLE: u64 = BASE + 0x1000;
const DRIVER: u64 = BASE + 0x2000;
const DEVICE: u64 = BASE + 0x3000;
const HEADER: u64 = BASE + 0x4000;
const DATA: u64 = BASE + 0x1_0000;
const STATUS: u64 = BASE + 0x5000;
const SIZE: u16 = 8;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

/// Sixteen sectors, each full of its number.
struct Sectors(Vec<u8>);

impl Image for Sectors {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if offset == 15 * 512 {
            return Err(io::Error::other("a bad sector"));
        }
        into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
        Ok(())
    }
    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.0[offset as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn disk(is_read_only: bool) -> Disk {
    let bytes = (0..16_u8).flat_map(|sector| [sector; 512]).collect();
    Disk::new(Box::new(Sectors(bytes)), is_read_only, "disk".into())
}

/// What a device writes, into a copy of the memory.
#[derive(Default)]
struct Writes(Vec<(u64, Vec<u8>)>);

impl Answer for Writes {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Broken> {
        self.0.push((address, bytes.to_vec()));
        Ok(())
    }
}

impl Writes {
    /// What was written to an address, and nothing behind it.
    fn at(&self, address: u64) -> Vec<u8> {
        let written = self.0.iter().filter(|(at, _)| *at == address);
        written.map(|(_, bytes)| bytes.clone()).next_back().unwrap_or_default()
    }
}

struct Guest {
    memory: GuestMemoryMmap,
    available: u16,
}

impl Guest {
    fn new() -> Self {
        let ranges = [(GuestAddress(BASE), RAM as usize)];
        Self { memory: GuestMemoryMmap::from_ranges(&ranges).unwrap(), available: 0 }
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn descriptor(&self, table: u64, n: u16, (address, length): (u64, u32), flags: u16, next: u16) {
        let bytes = [
            &address.to_le_bytes()[..],
            &length.to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ];
        self.put(table + 16 * u64::from(n), &bytes.concat());
    }

    fn offer(&mut self, head: u16) {
        let place = u64::from(self.available % SIZE);
        self.put(DRIVER + 4 + 2 * place, &head.to_le_bytes());
        self.available += 1;
        self.put(DRIVER + 2, &self.available.to_le_bytes());
    }

    fn header(&self, kind: u32, sector: u64) {
        self.put(HEADER, &[kind.to_le_bytes(), [0; 4]].concat());
        self.put(HEADER + 8, &sector.to_le_bytes());
    }

    /// Header, data in two pieces, status.
    fn ask(&mut self, kind: u32, sector: u64, bytes: u32) {
        self.header(kind, sector);
        let data = if kind == OUT { 0 } else { WRITE };
        self.descriptor(TABLE, 0, (HEADER, 16), NEXT, 3);
        self.descriptor(TABLE, 3, (DATA, 100), NEXT | data, 1);
        self.descriptor(TABLE, 1, (DATA + 0x1000, bytes - 100), NEXT | data, 2);
        self.descriptor(TABLE, 2, (STATUS, 1), WRITE, 0);
        self.offer(0);
    }

    fn serve(&self, device: &mut dyn Device) -> (Served, Writes) {
        self.serve_as(device, REQUEST)
    }

    fn serve_as(&self, device: &mut dyn Device, request: QueueRequest) -> (Served, Writes) {
        let mut writes = Writes::default();
        let served = serve(&request, &self.memory, device, &mut writes);
        (served, writes)
    }
}

const REQUEST: QueueRequest = QueueRequest {
    domain: 0,
    slot: 31,
    queue: 0,
    size: SIZE,
    descriptors: TABLE,
    driver: DRIVER,
    device: DEVICE,
    next_available: 0,
    next_used: 0,
    features: 1 << 32,
    ram: 0,
    ram_bytes: RAM,
};

const ONE: Served = Served::Done { next_available: 1, next_used: 1 };

fn used(head: u32, bytes: u32) -> Vec<u8> {
    [head.to_le_bytes(), bytes.to_le_bytes()].concat()
}

#[test]
fn sectors_are_read_into_the_pieces_that_were_offered() {
    let mut guest = Guest::new();
    guest.ask(IN, 2, 1024);
    let (served, writes) = guest.serve(&mut disk(false));
    assert_eq!(served, ONE);
    assert_eq!(writes.at(DATA), [2; 100]);
    assert_eq!(writes.at(DATA + 0x1000), [[2; 412].as_slice(), &[3; 512]].concat());
    assert_eq!(writes.at(STATUS), [0]);
    assert_eq!(writes.at(DEVICE + 4), used(0, 1025));
    let (last, _) = writes.0.last().unwrap();
    assert_eq!((*last, writes.at(DEVICE + 2)), (DEVICE + 2, vec![1, 0]), "told of at the end");
}

#[test]
fn sectors_are_written_unless_they_may_not_be() {
    let mut guest = Guest::new();
    guest.put(DATA, &[9; 100]);
    guest.put(DATA + 0x1000, &[8; 412]);
    guest.ask(OUT, 4, 512);
    let mut writable = disk(false);
    let (served, writes) = guest.serve(&mut writable);
    assert_eq!((served, writes.at(STATUS)), (ONE, vec![0]));
    assert_eq!(writes.at(DEVICE + 4), used(0, 1));
    let (_, writes) = guest.serve(&mut disk(true));
    assert_eq!(writes.at(STATUS), [1]);
    assert_ne!(disk(true).identity().features, disk(false).identity().features);
    let mut reader = Guest::new();
    reader.ask(IN, 4, 512);
    let (_, writes) = reader.serve(&mut writable);
    assert_eq!((writes.at(DATA), writes.at(DATA + 0x1000)), (vec![9; 100], vec![8; 412]));
}

#[test]
fn what_is_not_on_the_disk_is_an_error() {
    for (kind, sector, bytes) in [
        (IN, 16, 512),
        (IN, u64::MAX, 512),
        (IN, u64::MAX / 512, 512),
        (IN, 15, 1024),
        (IN, 0, 500),
        (OUT, 16, 512),
        (OUT, 0, 511),
        (IN, 15, 512),
    ] {
        let mut guest = Guest::new();
        guest.ask(kind, sector, bytes);
        let (served, writes) = guest.serve(&mut disk(false));
        assert_eq!((served, writes.at(STATUS)), (ONE, vec![1]), "{kind} {sector} {bytes}");
        assert_eq!(writes.at(DEVICE + 4), used(0, 1));
    }
}

#[test]
fn other_requests_are_answered() {
    let ask = |kind| {
        let mut guest = Guest::new();
        guest.ask(kind, 0, 512);
        let (served, writes) = guest.serve(&mut disk(false));
        assert_eq!(served, ONE);
        (writes.at(STATUS), writes.at(DATA), writes.at(DEVICE + 4))
    };
    assert_eq!(ask(FLUSH), (vec![0], vec![], used(0, 1)));
    assert_eq!(ask(GET_ID), (vec![0], vec![0; 20], used(0, 21)));
    assert_eq!(ask(11), (vec![2], vec![], used(0, 1)), "a discard, which is not offered");
}

#[test]
fn an_indirect_table_is_followed() {
    let mut guest = Guest::new();
    guest.header(IN, 1);
    let table = BASE + 0x8000;
    guest.descriptor(table, 0, (HEADER, 16), NEXT, 1);
    guest.descriptor(table, 1, (DATA, 512), NEXT | WRITE, 2);
    guest.descriptor(table, 2, (STATUS, 1), WRITE, 0);
    guest.descriptor(TABLE, 5, (table, 48), INDIRECT, 0);
    guest.offer(5);
    let (served, writes) = guest.serve(&mut disk(false));
    assert_eq!((served, writes.at(DATA)), (ONE, vec![1; 512]));
    assert_eq!(writes.at(DEVICE + 4), used(5, 513));
}

#[test]
fn the_rings_wrap_around() {
    let mut guest = Guest::new();
    guest.available = 0xffff;
    guest.header(FLUSH, 0);
    guest.descriptor(TABLE, 0, (HEADER, 16), NEXT, 2);
    guest.descriptor(TABLE, 2, (STATUS, 1), WRITE, 0);
    guest.put(DRIVER + 4 + 14, &[0, 0]);
    guest.put(DRIVER + 4, &[0, 0]);
    guest.put(DRIVER + 2, &[1, 0]);
    let request = QueueRequest { next_available: 0xffff, next_used: 0xffff, ..REQUEST };
    let (served, writes) = guest.serve_as(&mut disk(false), request);
    let expected = Served::Done { next_available: 1, next_used: 1 };
    assert_eq!(served, expected);
    assert_eq!(writes.at(DEVICE + 4 + 56), used(0, 1), "the last element");
    assert_eq!(writes.at(DEVICE + 4), used(0, 1), "the first");
    let nothing = QueueRequest { next_available: 1, next_used: 1, ..REQUEST };
    let (served, writes) = guest.serve_as(&mut disk(false), nothing);
    assert_eq!(served, expected);
    assert!(writes.0.is_empty());
}

#[test]
fn random_bytes_fill_what_is_offered() {
    let bytes = |source, length: u32| {
        let mut guest = Guest::new();
        guest.descriptor(TABLE, 0, (DATA, 100), NEXT | WRITE, 1);
        guest.descriptor(TABLE, 1, (DATA + 0x1000, length - 100), WRITE, 0);
        guest.offer(0);
        let (served, writes) = guest.serve(&mut Entropy::new(source));
        assert_eq!(served, ONE);
        assert_eq!(writes.at(DEVICE + 4), used(0, length.min(4096)));
        [writes.at(DATA), writes.at(DATA + 0x1000)].concat()
    };
    let first = bytes(Source::Seed(1), 1000);
    assert_eq!((first.len(), &first), (1000, &bytes(Source::Seed(1), 1000)));
    assert_ne!(first, bytes(Source::Seed(2), 1000));
    assert_eq!(bytes(Source::Host, 9000).len(), 4096, "a driver asks again");
}

type Spoil = fn(&mut Guest);

/// Each makes something of a good request that is none.
#[test]
fn what_is_no_queue_breaks_it() {
    let spoilers: [(&str, Spoil); 11] = [
        ("a loop", |guest| guest.descriptor(TABLE, 1, (DATA, 512), NEXT | WRITE, 3)),
        ("a loop of one", |guest| guest.descriptor(TABLE, 0, (HEADER, 16), NEXT, 0)),
        ("4 GiB", |guest| guest.descriptor(TABLE, 3, (DATA, u32::MAX), NEXT | WRITE, 1)),
        ("out of RAM", |guest| guest.descriptor(TABLE, 3, (BASE + RAM, 1), NEXT | WRITE, 1)),
        ("half out of RAM", |guest| {
            guest.descriptor(TABLE, 3, (BASE + RAM - 1, 2), NEXT | WRITE, 1);
        }),
        ("around the end", |guest| guest.descriptor(TABLE, 3, (u64::MAX, 2), NEXT | WRITE, 1)),
        ("nothing", |guest| guest.descriptor(TABLE, 3, (DATA, 0), NEXT | WRITE, 1)),
        ("the wrong order", |guest| guest.descriptor(TABLE, 1, (DATA, 16), NEXT, 2)),
        ("no such descriptor", |guest| guest.descriptor(TABLE, 0, (HEADER, 16), NEXT, SIZE)),
        ("no status", |guest| guest.descriptor(TABLE, 0, (HEADER, 16), 0, 0)),
        ("a table in a table", |guest| {
            guest.descriptor(BASE + 0x8000, 0, (BASE + 0x8000, 16), INDIRECT, 0);
            guest.descriptor(TABLE, 0, (BASE + 0x8000, 16), INDIRECT, 0);
        }),
    ];
    for (what, spoil) in spoilers {
        let mut guest = Guest::new();
        guest.ask(IN, 2, 1024);
        spoil(&mut guest);
        let (served, writes) = guest.serve(&mut disk(false));
        assert_eq!(served, Served::Broken, "{what}");
        assert!(writes.at(DEVICE + 2).is_empty(), "{what}");
    }
    let mut guest = Guest::new();
    guest.ask(IN, 2, 1024);
    for request in [
        QueueRequest { size: 0, ..REQUEST },
        QueueRequest { size: 7, ..REQUEST },
        QueueRequest { size: 512, ..REQUEST },
        QueueRequest { queue: 1, ..REQUEST },
        QueueRequest { descriptors: TABLE + 8, ..REQUEST },
        QueueRequest { descriptors: BASE + RAM - 16, ..REQUEST },
        QueueRequest { driver: 0, ..REQUEST },
        QueueRequest { device: u64::MAX - 3, ..REQUEST },
        QueueRequest { device: BASE + RAM - 8, ..REQUEST },
        QueueRequest { next_available: 100, ..REQUEST },
    ] {
        let (served, writes) = guest.serve_as(&mut disk(false), request);
        assert_eq!(served, Served::Broken, "{request:?}");
        assert!(writes.0.is_empty(), "{request:?}");
    }
}

proptest! {
    /// Descriptors that may be good ones, in any order, in the ring or in a table.
    #[test]
    fn no_driver_has_anything_written_but_what_it_offered(
        descriptors in prop::collection::vec(
            (0_u64..RAM + 0x100, prop_oneof![1_u32..2000, any::<u32>()], 0_u16..8, 0_u16..10), 16),
        heads in prop::collection::vec(0_u16..10, 1..8),
        kind in prop_oneof![Just(IN), Just(OUT), Just(FLUSH), Just(GET_ID), any::<u32>()],
        sector in prop_oneof![0_u64..20, any::<u64>()],
    ) {
        let mut guest = Guest::new();
        let mut offered = vec![(DEVICE, DEVICE + 6 + 8 * u64::from(SIZE))];
        for (n, (offset, length, flags, next)) in (0..).zip(descriptors) {
            // Half of them are the ring's, half a table's behind it, and the rings are not written.
            let address = if flags & INDIRECT != 0 { TABLE + 16 * 8 } else { BASE + offset };
            let (address, length) = if n == 0 { (HEADER, 16) } else { (address, length) };
            let length = if flags & INDIRECT != 0 { 128 } else { length };
            guest.descriptor(TABLE, n, (address, length), flags, next);
            if flags & WRITE != 0 {
                offered.push((address, address.saturating_add(length.into())));
            }
        }
        guest.header(kind, sector);
        for head in &heads {
            guest.offer(*head);
        }
        let mut before = vec![0; RAM as usize];
        guest.memory.read_slice(&mut before, GuestAddress(BASE)).unwrap();
        let (_, writes) = guest.serve(&mut disk(false));
        let mut after = vec![0; RAM as usize];
        guest.memory.read_slice(&mut after, GuestAddress(BASE)).unwrap();
        prop_assert!(before == after, "it is EL2 that writes");
        for (address, bytes) in writes.0 {
            let end = address + bytes.len() as u64;
            let is_offered = offered.iter().any(|&(start, behind)| start <= address && end <= behind);
            prop_assert!(is_offered, "{address:#x}, {} bytes", bytes.len());
            prop_assert!(BASE <= address && end <= BASE + RAM);
        }
    }

    #[test]
    fn no_request_is_too_strange(
        words in any::<(u8, u16, u64, u64, u64, u16, u16)>(),
        in_ram in any::<bool>(),
    ) {
        let (queue, size, descriptors, driver, device, next_available, next_used) = words;
        let place = |address: u64| if in_ram { BASE + address % RAM / 16 * 16 } else { address };
        let [descriptors, driver, device] = [descriptors, driver, device].map(place);
        let size = if in_ram { 1 << (size % 9) } else { size };
        let queue = if in_ram { 0 } else { queue };
        let request = QueueRequest {
            queue, size, descriptors, driver, device, next_available, next_used, ..REQUEST
        };
        let mut guest = Guest::new();
        guest.ask(IN, 2, 1024);
        let (_, writes) = guest.serve_as(&mut disk(false), request);
        for (address, bytes) in writes.0 {
            prop_assert!(BASE <= address && address + bytes.len() as u64 <= BASE + RAM);
        }
    }
}
