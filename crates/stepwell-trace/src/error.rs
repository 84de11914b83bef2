//! What can go wrong with a recording, by who is to blame: the file or the disk.

use std::io;

/// A recording could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file begins with something else.
    #[error("not a Stepwell recording: none begins at byte 0")]
    NotARecording,
    /// A newer Stepwell wrote the file, in a layout that this one cannot know.
    #[error(
        "recording has format version {found} (at byte 8), this Stepwell reads up to {ours}: use a \
         newer one"
    )]
    FutureVersion {
        /// Major version of the file.
        found: u16,
        /// Newest major version that is read here.
        ours: u16,
    },
    /// The file ends inside a chunk; everything before `offset` has been read.
    #[error("recording is cut off at byte {offset}, inside a chunk")]
    Truncated {
        /// Where the incomplete chunk begins, in bytes from the start of the file.
        offset: u64,
    },
    /// A chunk is not what was written; everything before `offset` has been read.
    #[error("recording is damaged at byte {offset}: {what}")]
    Corrupt {
        /// Where the damaged chunk begins, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The disk, or whatever else the bytes come from or go to.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// Tells whether a part of the file is damaged, of which others may be readable.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::Corrupt { .. })
    }

    /// Tells whether the recording could not grow because the disk, a quota or a size limit is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io(error)
            if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }
}
