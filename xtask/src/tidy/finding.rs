//! What a rule finds.

use std::fmt;
use std::path::{Path, PathBuf};

/// A rule broken at a place.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the root.
    pub path: PathBuf,
    /// From 1; 0 stands for the whole file.
    pub line: usize,
    /// What, and what to do about it.
    pub what: String,
}

impl Finding {
    /// Makes one; `line` from 1, 0 for the whole file.
    pub fn new(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.line {
            0 => write!(f, "{path}: {}", self.what),
            line => write!(f, "{path}:{line}: {}", self.what),
        }
    }
}
