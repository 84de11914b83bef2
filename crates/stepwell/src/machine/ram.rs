//! The machine's RAM as a file that QEMU maps, and the trace ring too.
//!
//! It lies in `/dev/shm` where that has the room, so that no disk is written, and is sparse. It never
//! has a name, so that nothing of it is left behind, whatever ends us: QEMU inherits the descriptor.

use super::MachineError;
use super::layout::Piece;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SHARED_MEMORY: &str = "/dev/shm";
/// First bytes of a device tree.
const TREE_MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];
/// QEMU puts the device tree at a multiple of this.
const TREE_ALIGN: u64 = 2 << 20;
/// Largest device tree that is believed: QEMU makes room of half of it.
const TREE_BYTES_MAX: usize = 2 << 20;

pub(super) struct Ram {
    file: File,
    /// Where it lies, for errors.
    place: PathBuf,
}

impl Ram {
    pub(super) fn new(bytes: u64) -> Result<Self, MachineError> {
        let scratch = std::env::temp_dir();
        let places = [Path::new(SHARED_MEMORY), &scratch];
        let Some(place) = places.into_iter().find(|place| has_room(place, bytes)) else {
            return Err(MachineError::NoRoom { mib: bytes >> 20, scratch });
        };
        let file = tempfile::tempfile_in(place).map_err(MachineError::scratch(place))?;
        file.set_len(bytes).map_err(MachineError::scratch(place))?;
        Ok(Self { file, place: place.to_owned() })
    }

    pub(super) fn write(&self, piece: Piece, bytes: &[u8]) -> Result<(), MachineError> {
        self.write_at(piece.offset(), bytes)
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), MachineError> {
        self.file.write_all_at(bytes, offset).map_err(MachineError::scratch(&self.place))
    }

    /// Finds the device tree that QEMU has put into the first `bytes` of RAM, and returns where that
    /// is.
    pub(super) fn find_tree(&self, bytes: u64) -> Result<(u64, Vec<u8>), MachineError> {
        let failed = |error| MachineError::scratch(&self.place)(error);
        for offset in (0..bytes / TREE_ALIGN).map(|n| n * TREE_ALIGN) {
            let mut head = [0; 8];
            self.file.read_exact_at(&mut head, offset).map_err(failed)?;
            let [magic @ .., a, b, c, d] = head;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if magic == TREE_MAGIC && length <= TREE_BYTES_MAX {
                let mut tree = vec![0; length];
                self.file.read_exact_at(&mut tree, offset).map_err(failed)?;
                return Ok((offset, tree));
            }
        }
        Err(MachineError::Tree("it is not in the machine's RAM".into()))
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

/// Makes a file in memory that has no name.
pub(super) fn unnamed(bytes: &[u8]) -> Result<File, MachineError> {
    let made = memfd_create("stepwell-hypervisor", MemfdFlags::CLOEXEC).map(File::from);
    let written = made.map_err(std::io::Error::from).and_then(|mut file| {
        file.write_all(bytes)?;
        Ok(file)
    });
    written.map_err(MachineError::scratch(Path::new("in memory")))
}

fn has_room(place: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) > bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_found_where_qemu_may_have_put_it() {
        let ram = Ram::new(64 << 20).unwrap();
        assert!(matches!(ram.find_tree(64 << 20), Err(MachineError::Tree(_))));
        let tree = [TREE_MAGIC.as_slice(), &16_u32.to_be_bytes(), &[7; 8]].concat();
        ram.write_at(32 << 20, &tree).unwrap();
        assert_eq!(ram.find_tree(64 << 20).unwrap(), (32 << 20, tree));
        assert!(ram.find_tree(32 << 20).is_err(), "only in front of our own pieces");
        ram.write_at(0, &[TREE_MAGIC, [0xff; 4]].concat()).unwrap();
        assert_eq!(ram.find_tree(64 << 20).unwrap().0, 32 << 20, "larger than any");
    }
}
