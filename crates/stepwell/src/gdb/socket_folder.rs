//! Where a debugger finds the guest if nothing else was said: a socket in a folder of our own.
//!
//! A port of the computer's own is open to every user of it and to every page in its browsers; a
//! folder that only its owner may enter is not. It is made where the system keeps such things for
//! the session (`XDG_RUNTIME_DIR`), or else with the temporary files. One that a killed process has
//! left is taken away by the next.

use crate::leftovers::Registered;
use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use stepwell_gdb::Address;
use tempfile::TempDir;

const PREFIX: &str = "stepwell-gdb-";
const PREFIX_BYTES: &[u8] = PREFIX.as_bytes();
const SOCKET: &str = "socket";

/// A private folder for a socket. Dropping it removes it, and so does leaving by `exit`.
#[derive(Debug)]
pub struct SocketFolder {
    folder: TempDir,
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
        Ok(Self { folder, _registered: registered })
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

/// Takes folders away that are like ours, and ours to remove, with a socket at which nobody listens.
fn remove_dead(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    for entry in entries.flatten().filter(|it| it.file_name().as_bytes().starts_with(PREFIX_BYTES))
    {
        let (folder, socket) = (entry.path(), entry.path().join(SOCKET));
        let refused = UnixStream::connect(&socket).err().map(|error| error.kind());
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && refused == Some(io::ErrorKind::ConnectionRefused)
            && std::fs::remove_file(&socket).is_ok()
        {
            // It stays where there is something else in it.
            drop(std::fs::remove_dir(folder));
        }
    }
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
        let (empty, other) = (folder("stepwell-gdb-empty"), folder("other"));
        drop(UnixListener::bind(dead.join(SOCKET)).unwrap());
        drop(UnixListener::bind(other.join(SOCKET)).unwrap());
        let _listener = UnixListener::bind(living.join(SOCKET)).unwrap();
        remove_dead(place.path());
        assert!(!dead.exists());
        assert!(living.join(SOCKET).exists() && empty.exists() && other.join(SOCKET).exists());
    }
}
