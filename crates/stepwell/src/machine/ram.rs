//! The file that is the machine's RAM: QEMU maps it, and so does the trace ring.
//!
//! It lies in `/dev/shm` where that has the room, so that no disk is written; it is sparse, and
//! its name is gone as soon as the machine runs.

use super::MachineError;
use super::layout::Piece;
use super::scratch::{Registered, Scratch};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::NamedTempFile;

const SHARED_MEMORY: &str = "/dev/shm";

pub(super) struct Ram {
    file: NamedTempFile,
    _registered: Registered,
}

impl Ram {
    pub(super) fn new(scratch: &Scratch, bytes: u64) -> Result<Self, MachineError> {
        let places = [Path::new(SHARED_MEMORY), scratch.directory()];
        let place = places.into_iter().find(|place| has_room(place, bytes));
        let place = place.ok_or_else(|| MachineError::NoRoom {
            mib: bytes >> 20,
            scratch: std::env::temp_dir(),
        })?;
        let file = tempfile::Builder::new().prefix("stepwell-ram-").tempfile_in(place);
        let file = file.map_err(MachineError::scratch(place))?;
        file.as_file().set_len(bytes).map_err(MachineError::scratch(file.path()))?;
        let registered = Registered::new(file.path());
        Ok(Self { file, _registered: registered })
    }

    pub(super) fn write(&self, piece: Piece, bytes: &[u8]) -> Result<(), MachineError> {
        let written = self.file().write_all_at(bytes, piece.offset());
        written.map_err(MachineError::scratch(self.path()))
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_file()
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

fn has_room(place: &Path, bytes: u64) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) > bytes)
}
