//! FUSE's messages, as far as they are looked at on the way.
//!
//! See `include/uapi/linux/fuse.h` of Linux, version 7.x: a request is a header of 40 bytes and what its
//! opcode has behind it, an answer one of 16 bytes. Numbers are the guest's, so in little-endian order.

/// The longest message: a mebibyte of a file, and what is around it.
pub const MESSAGE_MAX: usize = (1 << 20) + 4096;

const REQUEST_HEADER: usize = 40;
const ANSWER_HEADER: usize = 16;
/// Where the opcode's own words begin: flags of what is opened, the mode of what is made.
const FLAGS: usize = 40;
/// Flags of the file that is read or written.
const FLAGS_OF_FILE: usize = 72;
/// Bytes that are asked for.
const SIZE: usize = 56;
const UID: usize = 24;
const GID: usize = 28;

/// Flags of open(2) that are the same on every architecture and mean something to a server: how it is
/// accessed, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DSYNC and O_SYNC. Those that differ (O_DIRECT,
/// O_DIRECTORY, O_NOFOLLOW, O_LARGEFILE) are for the client's kernel.
const FLAGS_KEPT: u32 = 0o3 | 0o100 | 0o200 | 0o1000 | 0o2000 | 0o10000 | 0o4_000_000;
/// Opening a FIFO would otherwise wait for whoever has the other end.
const O_NONBLOCK: u32 = 0o4000;
/// What opening may ask for where nothing may be written: nothing of these.
const FLAGS_OF_WRITERS: u32 = 0o3 | 0o100 | 0o1000;
/// Set-user-ID and set-group-ID: a program of the guest's is nobody's on the host.
const SET_IDS: u32 = 0o6000;
const TYPE_OF_FILE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// An error number of Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const PERMISSION: Self = Self(1);
    pub const IO: Self = Self(5);
    pub const INVALID: Self = Self(22);
    pub const NFILE: Self = Self(23);
    pub const READ_ONLY: Self = Self(30);
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode(u32);

impl Opcode {
    const LOOKUP: Self = Self(1);
    const FORGET: Self = Self(2);
    const SETATTR: Self = Self(4);
    const SYMLINK: Self = Self(6);
    const MKNOD: Self = Self(8);
    const MKDIR: Self = Self(9);
    const LINK: Self = Self(13);
    const OPEN: Self = Self(14);
    const READ: Self = Self(15);
    const WRITE: Self = Self(16);
    const OPENDIR: Self = Self(27);
    const READDIR: Self = Self(28);
    const CREATE: Self = Self(35);
    const INTERRUPT: Self = Self(36);
    const DESTROY: Self = Self(38);
    const IOCTL: Self = Self(39);
    const BATCH_FORGET: Self = Self(42);
    const READDIRPLUS: Self = Self(44);

    /// Tells whether there is an answer to it.
    pub fn is_answered(self) -> bool {
        let none = [Self::FORGET, Self::BATCH_FORGET, Self::INTERRUPT, Self::DESTROY];
        !none.contains(&self)
    }

    /// Tells whether the server has a file more afterwards.
    pub fn opens(self) -> bool {
        let openers = [
            Self::LOOKUP,
            Self::SYMLINK,
            Self::MKNOD,
            Self::MKDIR,
            Self::LINK,
            Self::OPEN,
            Self::OPENDIR,
            Self::CREATE,
            Self::READDIRPLUS,
        ];
        openers.contains(&self)
    }

    /// Tells whether it is for those who only read: LOOKUP, FORGET, GETATTR, READLINK, OPEN, READ, STATFS,
    /// RELEASE, FSYNC, GETXATTR, LISTXATTR, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, ACCESS,
    /// INTERRUPT, DESTROY, BATCH_FORGET, READDIRPLUS, LSEEK.
    const fn is_for_readers(self) -> bool {
        matches!(
            self.0,
            1..=3 | 5 | 14 | 15 | 17 | 18 | 20 | 22 | 23 | 25..=30 | 34 | 36 | 38 | 42 | 44 | 46
        )
    }
}

/// A request that may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub opcode: Opcode,
    unique: u64,
}

/// A request that may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    request: Request,
    error: Errno,
}

impl Refusal {
    /// What is answered, at most so long.
    pub fn answer(self, room: usize) -> Vec<u8> {
        if !self.request.opcode.is_answered() || room < ANSWER_HEADER {
            return Vec::new();
        }
        let length = (ANSWER_HEADER as u32).to_le_bytes();
        let error = (-self.error.0).to_le_bytes();
        [&length[..], &error, &self.request.unique.to_le_bytes()].concat()
    }
}

impl Request {
    /// Looks at a request, and makes of it what the host may be asked.
    ///
    /// Files that are made belong to who runs this process: whose they are in the guest means nothing
    /// here.
    pub fn admit(bytes: &mut [u8], is_writable: bool, room: usize) -> Result<Self, Refusal> {
        let length = bytes.len();
        let opcode = Opcode(word(bytes, 4).unwrap_or(0));
        let unique = bytes.get(8..16).and_then(|unique| unique.try_into().ok());
        let request = Self { opcode, unique: unique.map_or(0, u64::from_le_bytes) };
        if length < REQUEST_HEADER || word(bytes, 0) != u32::try_from(length).ok() {
            return Err(request.refuse(Errno::INVALID));
        }
        let flags = word(bytes, FLAGS).unwrap_or(0);
        let writes = opcode == Opcode::OPEN && flags & FLAGS_OF_WRITERS != 0;
        if !is_writable && (writes || !opcode.is_for_readers()) {
            return Err(request.refuse(Errno::READ_ONLY));
        }
        set(bytes, UID, |_| 0);
        set(bytes, GID, |_| 0);
        match opcode {
            Opcode::OPEN | Opcode::OPENDIR => set(bytes, FLAGS, host_flags),
            Opcode::CREATE => {
                set(bytes, FLAGS, host_flags);
                set(bytes, FLAGS + 4, |mode| mode & !SET_IDS);
            }
            Opcode::MKDIR => set(bytes, FLAGS, |mode| mode & !SET_IDS),
            Opcode::MKNOD if flags & TYPE_OF_FILE != REGULAR => {
                return Err(request.refuse(Errno::PERMISSION));
            }
            Opcode::MKNOD => set(bytes, FLAGS, |mode| mode & !SET_IDS),
            Opcode::SETATTR => {
                // FATTR_UID and FATTR_GID.
                set(bytes, FLAGS, |valid| valid & !0b110);
                set(bytes, 108, |mode| mode & !SET_IDS);
            }
            Opcode::READ | Opcode::WRITE => set(bytes, FLAGS_OF_FILE, host_flags),
            Opcode::IOCTL => return Err(request.refuse(Errno::PERMISSION)),
            _ => {}
        }
        let is_sized = [Opcode::READ, Opcode::READDIR, Opcode::READDIRPLUS].contains(&opcode);
        if is_sized && word(bytes, SIZE).is_some_and(|size| size as usize > room) {
            return Err(request.refuse(Errno::INVALID));
        }
        Ok(request)
    }

    /// Refuses it all the same.
    pub const fn refuse(self, error: Errno) -> Refusal {
        Refusal { request: self, error }
    }
}

/// Tells whether these bytes are one answer.
pub fn is_answer(bytes: &[u8]) -> bool {
    bytes.len() >= ANSWER_HEADER && word(bytes, 0) == u32::try_from(bytes.len()).ok()
}

const fn host_flags(flags: u32) -> u32 {
    flags & FLAGS_KEPT | O_NONBLOCK
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn set(bytes: &mut [u8], at: usize, change: impl FnOnce(u32) -> u32) {
    if let Some(now) = word(bytes, at)
        && let Some(place) = bytes.get_mut(at..at + 4)
    {
        place.copy_from_slice(&change(now).to_le_bytes());
    }
}
