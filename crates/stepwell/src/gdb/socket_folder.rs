//! Where a debugger finds the guest if nothing else was said: a socket in a folder of our own.
//!
//! A port of the computer's own is open to every user of it and to every page in its browsers; a
//! folder that only its owner may enter is not. It is made where the system keeps such things for
//! the session (`XDG_RUNTIME_DIR`), or else with the temporary files. One that a killed process has
//! left is taken away by the next: whoever lives has its folder locked, and a lock dies with its
//! process, whenever that is killed.

use crate::leftovers::Registered;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use stepwell_gdb::Address;
use tempfile::TempDir;

const PREFIX: &str = "stepwell-gdb-";
const PREFIX_BYTES: &[u8] = PREFIX.as_bytes();
const SOCKET: &str = "socket";
/// How long it may take from making a folder to locking it.
const UNLOCKED: Duration = Duration::from_secs(10);

/// A private folder for a socket. Dropping it removes it, and so does leaving by `exit`.
#[derive(Debug)]
pub struct SocketFolder {
    folder: TempDir,
    /// Locked for as long as this is open.
    _lock: OwnedFd,
    _registered: Registered,
}

impl SocketFolder {
    /// Makes the folder.
    ///
    /// # Errors
    ///
    /// Where none can be made.
    pub fn new() -> io::Result<Self> {
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places =
            session.into_iter().chain([std::env::temp_dir()]).filter(|it| it.is_absolute());
        let mut made = Err(io::ErrorKind::NotFound.into());
        for place in places {
            remove_dead(&place);
            // A new name, so that nobody has made it before us.
            let mut builder = tempfile::Builder::new();
            let private = Permissions::from_mode(0o700);
            made = builder.prefix(PREFIX).permissions(private).tempdir_in(place);
            if made.is_ok() {
                break;
            }
        }
        let folder = made?;
        let registered = Registered::new(folder.path());
        let lock = lock(folder.path())?;
        Ok(Self { folder, _lock: lock, _registered: registered })
    }

    /// Returns where to listen.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::Unix(self.path().join(SOCKET))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Locks a folder, if nobody has.
fn lock(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(folder, flags, Mode::empty())?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Takes folders away that are like ours, and ours to remove, which nobody has locked: empty, or with
/// a socket at which nobody listens.
fn remove_dead(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    for entry in entries.flatten().filter(|it| it.file_name().as_bytes().starts_with(PREFIX_BYTES))
    {
        let (folder, socket) = (entry.path(), entry.path().join(SOCKET));
        let is_new = entry.metadata().and_then(|it| it.modified()).is_ok_and(is_new);
        let Ok(_lock) = lock(&folder) else { continue };
        match UnixStream::connect(&socket).map_err(|error| error.kind()) {
            Err(io::ErrorKind::ConnectionRefused) => drop(std::fs::remove_file(&socket)),
            Err(io::ErrorKind::NotFound) if !is_new => {}
            _ => continue,
        }
        // It stays where there is something else in it.
        drop(std::fs::remove_dir(folder));
    }
}

/// Whether something was changed so lately that its owner may be about to lock it.
fn is_new(changed: SystemTime) -> bool {
    changed.elapsed().is_ok_and(|time| time < UNLOCKED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn nobody_else_may_enter_and_it_goes_with_us() {
        let folder = SocketFolder::new().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(folder.address(), Address::Unix(path.join("socket")));
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_taken_away_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = place.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (dead, living) = (folder("stepwell-gdb-dead"), folder("stepwell-gdb-living"));
        let (empty, locked) = (folder("stepwell-gdb-empty"), folder("stepwell-gdb-locked"));
        let (new, full) = (folder("stepwell-gdb-new"), folder("stepwell-gdb-full"));
        let other = folder("other");
        drop(UnixListener::bind(dead.join(SOCKET)).unwrap());
        drop(UnixListener::bind(other.join(SOCKET)).unwrap());
        let _listener = UnixListener::bind(living.join(SOCKET)).unwrap();
        let _lock = lock(&locked).unwrap();
        std::fs::write(full.join("file"), "").unwrap();
        for path in [&living, &empty, &locked, &full] {
            let long_ago = SystemTime::now() - 2 * UNLOCKED;
            std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
        }
        remove_dead(place.path());
        assert!(!dead.exists() && !empty.exists());
        assert!(living.join(SOCKET).exists() && other.join(SOCKET).exists());
        assert!(locked.exists() && new.exists() && full.join("file").exists());
    }
}
