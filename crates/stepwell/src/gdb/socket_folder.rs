//! Where a debugger finds the guest if nothing else was said: a socket in a folder of our own.
//!
//! A port of the computer's own is open to every user of it and to every page in its browsers; a
//! folder that only its owner may enter is not. It is made where the system keeps such things for
//! the session (`XDG_RUNTIME_DIR`), or else with the temporary files.

use crate::leftovers::Registered;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use stepwell_gdb::Address;
use tempfile::TempDir;

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
            // A new name, so that nobody has made it before us.
            let mut builder = tempfile::Builder::new();
            let private = Permissions::from_mode(0o700);
            made = builder.prefix("stepwell-gdb-").permissions(private).tempdir_in(place);
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
        Address::Unix(self.path().join("socket"))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn nobody_else_may_enter_and_it_goes_with_us() {
        let folder = SocketFolder::new().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(folder.address(), Address::Unix(path.join("socket")));
        drop(folder);
        assert!(!path.exists());
    }
}
