//! virtio's block device: reads, writes and flushes of an [`Image`].
//!
//! See "Block Device" in the virtio specification, version 1.2. Absent on purpose: discards and zeroes
//! (they are offered to nobody), several queues, and a cache that could be switched: what was flushed is
//! on the host's disk.

use crate::image::{DiskError, DiskOptions, Image};
use crate::queue::{Answer, Broken, Buffers, Device, Identity};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

const SECTOR: u64 = 512;
/// Type, nothing, and the sector.
const HEADER_BYTES: u64 = 16;
/// Descriptors of the queue, as QEMU's has.
const QUEUE_SIZE: u16 = 256;
/// Moved at a time.
const CHUNK: u64 = 256 << 10;

/// A disk.
pub struct Disk {
    image: Box<dyn Image>,
    is_read_only: bool,
    name: String,
    /// It was told that the image fails.
    has_failed: bool,
}

impl Disk {
    /// Opens a disk's image, and locks it.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub fn open(options: &DiskOptions) -> Result<Self, DiskError> {
        let image = options.open()?;
        let name = options.path.display().to_string();
        Ok(Self::new(image, options.is_read_only, name))
    }

    /// Makes a disk of an image; `name` is for whom to tell what fails.
    #[must_use]
    pub fn new(image: Box<dyn Image>, is_read_only: bool, name: String) -> Self {
        Self { image, is_read_only, name, has_failed: false }
    }

    /// Bytes that a guest sees: whole sectors.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.image.bytes() / SECTOR * SECTOR
    }

    /// Where on the disk a request of `bytes` bytes is; none where it is not wholly on it.
    fn place(&self, sector: u64, bytes: u64) -> Option<u64> {
        let at = sector.checked_mul(SECTOR)?;
        let is_whole = bytes.is_multiple_of(SECTOR);
        (is_whole && at.checked_add(bytes)? <= self.bytes()).then_some(at)
    }

    fn read(
        &mut self,
        at: u64,
        bytes: u64,
        buffers: &Buffers<'_>,
        answer: &mut dyn Answer,
    ) -> Result<u32, Broken> {
        let mut chunk = vec![0; bytes.min(CHUNK) as usize];
        let mut done = 0;
        while done < bytes {
            let part = &mut chunk[..(bytes - done).min(CHUNK) as usize];
            if let Err(error) = self.image.read(at + done, part) {
                return Ok(self.failed("read", &error));
            }
            buffers.write(answer, done, part)?;
            done += part.len() as u64;
        }
        Ok(VIRTIO_BLK_S_OK)
    }

    fn write(&mut self, at: u64, bytes: u64, buffers: &Buffers<'_>) -> Result<u32, Broken> {
        let mut chunk = vec![0; bytes.min(CHUNK) as usize];
        let mut done = 0;
        while done < bytes {
            let part = &mut chunk[..(bytes - done).min(CHUNK) as usize];
            buffers.read(HEADER_BYTES + done, part)?;
            if let Err(error) = self.image.write(at + done, part) {
                return Ok(self.failed("write", &error));
            }
            done += part.len() as u64;
        }
        Ok(VIRTIO_BLK_S_OK)
    }

    /// The guest gets an I/O error; the first is told to the user, too.
    fn failed(&mut self, what: &str, error: &std::io::Error) -> u32 {
        if !std::mem::replace(&mut self.has_failed, true) {
            eprintln!("stepwell: {}: cannot {what} it for the guest: {error}\r", self.name);
        }
        VIRTIO_BLK_S_IOERR
    }
}

impl Device for Disk {
    fn identity(&self) -> Identity {
        let read_only = if self.is_read_only { 1 << VIRTIO_BLK_F_RO } else { 0 };
        let features = 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
            | read_only;
        let mut configuration = vec![0; 36];
        configuration[..8].copy_from_slice(&(self.bytes() / SECTOR).to_le_bytes());
        // A request has a header and a status beside its segments.
        configuration[12..16].copy_from_slice(&u32::from(QUEUE_SIZE - 2).to_le_bytes());
        configuration[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        Identity { id: VIRTIO_ID_BLOCK, features, queues: vec![QUEUE_SIZE], configuration }
    }

    fn perform(
        &mut self,
        _: u8,
        buffers: &Buffers<'_>,
        answer: &mut dyn Answer,
    ) -> Result<u32, Broken> {
        let mut header = [0; HEADER_BYTES as usize];
        buffers.read(0, &mut header)?;
        let [kind, _, low, high] =
            [0, 4, 8, 12].map(|at| u32::from_le_bytes(std::array::from_fn(|n| header[at + n])));
        let sector = u64::from(high) << 32 | u64::from(low);
        // The last byte to be written is the status.
        let room = buffers.writable_bytes().checked_sub(1).ok_or(Broken)?;
        let (status, written) = match kind {
            VIRTIO_BLK_T_IN => match self.place(sector, room) {
                Some(at) => match self.read(at, room, buffers, answer)? {
                    VIRTIO_BLK_S_OK => (VIRTIO_BLK_S_OK, room),
                    failed => (failed, 0),
                },
                None => (VIRTIO_BLK_S_IOERR, 0),
            },
            VIRTIO_BLK_T_OUT => {
                let bytes = buffers.readable_bytes() - HEADER_BYTES;
                match self.place(sector, bytes) {
                    Some(at) if !self.is_read_only => (self.write(at, bytes, buffers)?, 0),
                    _ => (VIRTIO_BLK_S_IOERR, 0),
                }
            }
            VIRTIO_BLK_T_FLUSH => match self.image.flush() {
                Ok(()) => (VIRTIO_BLK_S_OK, 0),
                Err(error) => (self.failed("flush", &error), 0),
            },
            VIRTIO_BLK_T_GET_ID => {
                // No serial number, as QEMU's has none unless it is given one.
                let bytes = room.min(VIRTIO_BLK_ID_BYTES.into());
                buffers.write(answer, 0, &vec![0; bytes as usize])?;
                (VIRTIO_BLK_S_OK, bytes)
            }
            _ => (VIRTIO_BLK_S_UNSUPP, 0),
        };
        buffers.write(answer, room, &[status as u8])?;
        // No buffer is longer than what fits, as its descriptors say; RAM may be.
        Ok(u32::try_from(written + 1).unwrap_or(u32::MAX))
    }

    fn keep(&mut self, moment: u64) {
        self.image.keep(moment);
    }

    fn go_to(&mut self, moment: u64) {
        self.image.go_to(moment);
    }

    fn forget(&mut self, moment: u64) {
        self.image.forget(moment);
    }
}
