//! virtio's file system device: a folder of the host's in the guest.
//!
//! See "File System Device" in the virtio specification, version 1.2. Its driver speaks FUSE, the protocol
//! by which Linux has its file systems in user space, and `fuse-backend-rs` serves that. What is asked for
//! is looked at before it gets there ([`fuse`]): the guest may be of another architecture, may only read,
//! and may mean harm. Absent on purpose: a window into the host's page cache (DAX), notifications.

mod fuse;

use crate::queue::{Answer, Broken, Buffers, Device, Identity};
use fuse::{Errno, Request};
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::passthrough::{Config, PassthroughFs};
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, Writer};
use rustix::fs::MemfdFlags;
use rustix::process::{Resource, Rlimit};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

/// Descriptors of each queue, as QEMU's has.
const QUEUE_SIZE: u16 = 128;
/// Bytes of the tag in the device's configuration.
const TAG_BYTES: usize = 36;
/// How long a guest may go by what it knows of a file, which the host may change.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// A folder that a guest is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareOptions {
    /// Which one.
    pub path: PathBuf,
    /// The guest may write in it.
    pub is_writable: bool,
    /// The name by which the guest mounts it.
    pub tag: String,
}

/// Words that describe no shared folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareOptionsError {
    /// No folder.
    #[error("no folder: write FOLDER, FOLDER,write or FOLDER,tag=NAME")]
    NoFolder,
    /// A name that the device cannot have.
    #[error("a tag has 1 to {TAG_BYTES} bytes, none of them zero")]
    Tag,
    /// Something else behind a comma.
    #[error(
        "`{0}` is nothing that a shared folder can be: write or tag=NAME (a comma in a name is `,,`)"
    )]
    Word(String),
}

impl FromStr for ShareOptions {
    type Err = ShareOptionsError;

    fn from_str(words: &str) -> Result<Self, ShareOptionsError> {
        let words = words.replace(",,", "\0");
        let mut words = words.split(',').map(|word| word.replace('\0', ","));
        let path = words.next().filter(|path| !path.is_empty());
        let path = path.ok_or(ShareOptionsError::NoFolder)?.into();
        let mut options = Self { path, is_writable: false, tag: "share".into() };
        for word in words {
            match (word.as_str(), word.strip_prefix("tag=")) {
                ("write", _) => options.is_writable = true,
                (_, Some(tag)) if (1..=TAG_BYTES).contains(&tag.len()) && !tag.contains('\0') => {
                    options.tag = tag.into();
                }
                (_, Some(_)) => return Err(ShareOptionsError::Tag),
                _ => return Err(ShareOptionsError::Word(word)),
            }
        }
        Ok(options)
    }
}

/// A folder that cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There is none, or none that may be read.
    #[error("{}: {error}", .path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is something else.
    #[error("{} is no folder, which --share takes: --disk is for images", .0.display())]
    NotAFolder(PathBuf),
    /// The path is not what the server of files takes.
    #[error("{}: a shared folder's path is UTF-8", .0.display())]
    Name(PathBuf),
}

/// The device.
pub struct Share {
    tag: String,
    is_writable: bool,
    /// None where it has failed in a way that nobody thought of.
    server: Option<Server<PassthroughFs>>,
    /// Where the server writes its answers: a file in memory.
    answer: File,
    /// Files that may be open, of this whole process.
    files_max: u64,
}

impl Share {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// [`ShareError`].
    pub fn open(options: &ShareOptions) -> Result<Self, ShareError> {
        let failed = |error| ShareError::Folder { path: options.path.clone(), error };
        let path = options.path.canonicalize().map_err(failed)?;
        if !path.is_dir() {
            return Err(ShareError::NotAFolder(options.path.clone()));
        }
        let root_dir = path.to_str().ok_or_else(|| ShareError::Name(path.clone()))?;
        Self::of(root_dir, options).map_err(failed)
    }

    fn of(root_dir: &str, options: &ShareOptions) -> io::Result<Self> {
        let files = PassthroughFs::new(Config {
            root_dir: root_dir.into(),
            attr_timeout: KNOWN_FOR,
            entry_timeout: KNOWN_FOR,
            allow_direct_io: false,
            ..Config::default()
        })?;
        files.import()?;
        let answer = rustix::fs::memfd_create("stepwell-share", MemfdFlags::CLOEXEC)?;
        Ok(Self {
            tag: options.tag.clone(),
            is_writable: options.is_writable,
            server: Some(Server::new(files)),
            answer: answer.into(),
            files_max: allow_files(),
        })
    }

    /// The answer to a request, at most so long; empty where the request has none.
    fn answer_to(&mut self, bytes: &mut [u8], room: usize) -> Vec<u8> {
        let request = match Request::admit(bytes, self.is_writable, room) {
            Ok(request) => request,
            Err(refusal) => return refusal.answer(room),
        };
        if request.opcode.opens() && self.has_few_files_left() {
            return request.refuse(Errno::NFILE).answer(room);
        }
        let answer = self.serve(bytes, room).unwrap_or_default();
        // Whatever it is that has been written, it is one answer, or none was due.
        if request.opcode.is_answered() && !fuse::is_answer(&answer) {
            return request.refuse(Errno::IO).answer(room);
        }
        answer
    }

    fn serve(&mut self, bytes: &mut [u8], room: usize) -> Option<Vec<u8>> {
        let server = self.server.as_ref()?;
        self.answer.set_len(0).ok()?;
        self.answer.rewind().ok()?;
        let mut buffer = vec![0; room];
        let fd = self.answer.as_raw_fd();
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let reader: Reader<'_, ()> = Reader::from_fuse_buffer(FuseBuf::new(bytes)).ok()?;
            let writer: Writer<'_, ()> = FuseDevWriter::new(fd, &mut buffer).ok()?.into();
            server.handle_message(reader, writer, None, None).ok()
        }));
        if handled.is_err() {
            self.server = None;
        }
        let mut answer = vec![0; usize::try_from(self.answer.metadata().ok()?.len()).ok()?];
        self.answer.read_exact_at(&mut answer, 0).ok()?;
        Some(answer)
    }

    /// A guest that has ever more files open, or known, is to leave the tool some.
    fn has_few_files_left(&self) -> bool {
        // The lowest number that is free.
        let next = rustix::io::fcntl_dupfd_cloexec(&self.answer, 0);
        next.map_or(true, |next| next.as_raw_fd() as u64 >= self.files_max / 4 * 3)
    }
}

/// Has this process open as many files as it may. Tells how many that are.
fn allow_files() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let now = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}

impl Device for Share {
    fn identity(&self) -> Identity {
        let features = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC;
        let mut configuration = self.tag.clone().into_bytes();
        configuration.resize(TAG_BYTES, 0);
        // Queues for requests, beside the one for what is urgent.
        configuration.extend(1_u32.to_le_bytes());
        Identity { id: VIRTIO_ID_FS, features, queues: vec![QUEUE_SIZE; 2], configuration }
    }

    fn perform(
        &mut self,
        _: u8,
        buffers: &Buffers<'_>,
        answer: &mut dyn Answer,
    ) -> Result<u32, Broken> {
        let length = buffers.readable_bytes();
        if length > fuse::MESSAGE_MAX as u64 {
            return Err(Broken);
        }
        let mut request = vec![0; length as usize];
        buffers.read(0, &mut request)?;
        let room = buffers.writable_bytes().min(fuse::MESSAGE_MAX as u64) as usize;
        let bytes = self.answer_to(&mut request, room);
        buffers.write(answer, 0, &bytes)?;
        Ok(bytes.len() as u32)
    }
}

/// Demands that no two folders have one name.
///
/// # Errors
///
/// The name.
pub fn demand_names_differ(shares: &[ShareOptions]) -> Result<(), &str> {
    for (n, share) in shares.iter().enumerate() {
        if shares.iter().take(n).any(|other| other.tag == share.tag) {
            return Err(&share.tag);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
