//! The private directory that a machine starts from, and nothing of which outlives that.
//!
//! Values clean up after themselves when dropped. A process that leaves by `exit` drops nothing:
//! it calls [`remove_leftovers`].

use super::MachineError;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempDir;

static LEFTOVERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes every scratch file and directory of this process, best as it can.
pub fn remove_leftovers() {
    let leftovers = LEFTOVERS.lock().map(|mut paths| std::mem::take(&mut *paths));
    for path in leftovers.unwrap_or_default() {
        // Either may have been removed by its owner in the meantime.
        drop(if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        });
    }
}

/// A path in the list of leftovers, for as long as this lives.
#[derive(Debug)]
pub struct Registered(PathBuf);

impl Registered {
    /// Puts a file or folder on the list.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        if let Ok(mut paths) = LEFTOVERS.lock() {
            paths.push(path.to_owned());
        }
        Self(path.to_owned())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Ok(mut paths) = LEFTOVERS.lock() {
            paths.retain(|path| *path != self.0);
        }
    }
}

/// The directory.
pub(super) struct Scratch {
    directory: TempDir,
    _registered: Registered,
}

impl Scratch {
    pub(super) fn new() -> Result<Self, MachineError> {
        let directory = tempfile::Builder::new()
            .prefix("stepwell-")
            .tempdir()
            .map_err(MachineError::scratch(&std::env::temp_dir()))?;
        let registered = Registered::new(directory.path());
        Ok(Self { directory, _registered: registered })
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, MachineError> {
        let path = self.path(name);
        std::fs::write(&path, bytes).map_err(MachineError::scratch(&path))?;
        Ok(path)
    }

    pub(super) fn read(&self, path: &Path) -> Result<Vec<u8>, MachineError> {
        std::fs::read(path).map_err(MachineError::scratch(path))
    }
}
