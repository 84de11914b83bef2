//! Files and folders that are to go when we do.
//!
//! Values clean up after themselves when dropped. A process that leaves by `exit` drops nothing: it
//! calls [`remove_leftovers`].

use std::path::{Path, PathBuf};
use std::sync::Mutex;

static LEFTOVERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes every file and folder of this process that is registered, best as it can.
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
