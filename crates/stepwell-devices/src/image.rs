//! Disk images: raw and qcow2, locked while they are used, and what is written to a snapshot.

mod qcow2;
mod raw;
mod snapshot;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::PathBuf;
use std::str::FromStr;

/// What a disk's bytes are kept in.
pub trait Image: Send {
    /// How many there are.
    fn bytes(&self) -> u64;
    /// Where, from `offset` on, the first byte is that may not be zero; nothing where all are zero.
    fn next_data(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
    /// Reads from `offset` on.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes from `offset` on.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()>;
    /// Returns once all that was written is where it outlives the host.
    ///
    /// # Errors
    ///
    /// What the host says.
    fn flush(&mut self) -> io::Result<()>;
    /// Keeps what it has now, under this number. An image that nobody writes to has nothing to keep.
    fn keep(&mut self, _moment: u64) {}
    /// Goes to what it had when that was kept.
    fn go_to(&mut self, _moment: u64) {}
    /// Lets go what was kept.
    fn forget(&mut self, _moment: u64) {}
}

/// A disk that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No such file, or none that may be opened.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It may only be read.
    #[error(
        "{}: {error}: attach it with `,readonly`, or with `,snapshot` to forget what is written",
        .path.display()
    )]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not a file, nor a block device.
    #[error("{} is neither a file nor a block device", .0.display())]
    NotAFile(PathBuf),
    /// Somebody else has it.
    #[error(
        "{} is in use by another process: end that first, or, where both only read it, attach it \
         with `,readonly` or `,snapshot`",
        .0.display()
    )]
    Locked(PathBuf),
    /// A format that is known by its name only.
    #[error(
        "{} is a {format} image, and disks are raw or qcow2: `qemu-img convert -O qcow2` makes one \
         of it",
        .path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is.
        format: &'static str,
    },
    /// It is of a format that is known, and damaged or too new.
    #[error("{} is no qcow2 image that can be used: {error}", .path.display())]
    Qcow2 {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// There is nothing in it.
    #[error("{} has less than a sector of 512 bytes: `truncate -s 1G` makes a disk", .0.display())]
    Empty(PathBuf),
    /// What is written has no place to be kept.
    #[error("no scratch file for what is written to {}: {error} (TMPDIR names another place)", .path.display())]
    Scratch {
        /// The image.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A disk, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Its image.
    pub path: PathBuf,
    /// The guest may not write.
    pub is_read_only: bool,
    /// What the guest writes is forgotten.
    pub is_snapshot: bool,
}

/// Words that describe no disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskOptionsError {
    /// No file.
    #[error("no file: write FILE, FILE,readonly or FILE,snapshot")]
    NoFile,
    /// Something else behind a comma.
    #[error(
        "`{0}` is nothing that a disk can be: readonly or snapshot (a comma in a name is `,,`)"
    )]
    Word(String),
}

impl FromStr for DiskOptions {
    type Err = DiskOptionsError;

    fn from_str(words: &str) -> Result<Self, DiskOptionsError> {
        // As QEMU has it: a doubled comma belongs to the name.
        let words = words.replace(",,", "\0");
        let mut words = words.split(',').map(|word| word.replace('\0', ","));
        let path = words.next().filter(|path| !path.is_empty()).ok_or(DiskOptionsError::NoFile)?;
        let mut options = Self { path: path.into(), is_read_only: false, is_snapshot: false };
        for word in words {
            match word.as_str() {
                "readonly" => options.is_read_only = true,
                "snapshot" => options.is_snapshot = true,
                _ => return Err(DiskOptionsError::Word(word)),
            }
        }
        Ok(options)
    }
}

impl DiskOptions {
    /// The file itself is written to.
    #[must_use]
    pub const fn writes(&self) -> bool {
        !self.is_read_only && !self.is_snapshot
    }

    /// Opens the image, and locks it.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub fn open(&self) -> Result<Box<dyn Image>, DiskError> {
        let file = self.open_file()?;
        let image: Box<dyn Image> = match format(&file).map_err(|error| self.failed(error))? {
            Format::Raw => Box::new(raw::Raw::new(file).map_err(|error| self.failed(error))?),
            Format::Qcow2 => {
                let opened = qcow2::Qcow2Image::open(&self.path, file, self.writes());
                let path = self.path.clone();
                Box::new(opened.map_err(|error| DiskError::Qcow2 { path, error })?)
            }
            Format::Other(format) => {
                return Err(DiskError::Format { path: self.path.clone(), format });
            }
        };
        if image.bytes() < 512 {
            return Err(DiskError::Empty(self.path.clone()));
        }
        if !self.is_snapshot {
            return Ok(image);
        }
        let path = self.path.clone();
        let snapshot = snapshot::Snapshot::over(image);
        Ok(Box::new(snapshot.map_err(|error| DiskError::Scratch { path, error })?))
    }

    /// Reads all that a guest reads from it, whatever its format: `take` gets it in pieces of `piece`
    /// bytes, the last one shorter, each with where it is, and whether there is more. Pieces that are all
    /// zero may be left out, but the last one: a file's holes are not read.
    ///
    /// # Errors
    ///
    /// [`DiskError`], and what `take` returns.
    pub fn read_all<E: From<DiskError>>(
        &self,
        piece: usize,
        mut take: impl FnMut(u64, &[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let readable = Self { is_read_only: true, is_snapshot: false, ..self.clone() };
        let mut image = readable.open()?;
        let (mut at, end) = (0, image.bytes());
        let mut bytes = vec![0; piece];
        let last = end.saturating_sub(1) / piece as u64 * piece as u64;
        while at < end {
            let data = image.next_data(at).unwrap_or(end);
            at = (data - data % piece as u64).clamp(at, last);
            let part = &mut bytes[..(end - at).min(piece as u64) as usize];
            image.read(at, part).map_err(|error| self.failed(error))?;
            let here = at;
            at += part.len() as u64;
            take(here, part, at < end)?;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> DiskError {
        DiskError::File { path: self.path.clone(), error }
    }

    /// Many may read an image, or one write it.
    fn open_file(&self) -> Result<File, DiskError> {
        let path = self.path.clone();
        let kind = std::fs::metadata(&path).map_err(|error| self.failed(error))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotAFile(path));
        }
        let opened = OpenOptions::new().read(true).write(self.writes()).open(&path);
        let file = opened.map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem if self.writes() => {
                DiskError::NotWritable { path: path.clone(), error }
            }
            _ => DiskError::File { path: path.clone(), error },
        })?;
        let locked = if self.writes() { file.try_lock() } else { file.try_lock_shared() };
        match locked {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(DiskError::Locked(path)),
            Err(TryLockError::Error(error)) => Err(DiskError::File { path, error }),
        }
    }
}

enum Format {
    Raw,
    Qcow2,
    Other(&'static str),
}

/// What an image begins with, where it is not raw.
const MAGICS: [(&[u8], Format); 5] = [
    (b"QFI\xfb", Format::Qcow2),
    (b"KDMV", Format::Other("VMDK")),
    (b"conectix", Format::Other("VHD")),
    (b"vhdxfile", Format::Other("VHDX")),
    (b"QED\0", Format::Other("QED")),
];

fn format(file: &File) -> io::Result<Format> {
    let mut first = [0; 8];
    let length = file.read_at(&mut first, 0)?;
    let first = &first[..length];
    let known = MAGICS.into_iter().find(|(magic, _)| first.starts_with(magic));
    Ok(known.map_or(Format::Raw, |(_, format)| format))
}

/// Bytes of a file or of a block device.
fn length(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0))
}

#[cfg(test)]
mod tests;
