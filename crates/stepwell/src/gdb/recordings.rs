//! Where a client of the debugger's server may make recordings.
//!
//! It names the file, and may be somebody else than the user: so it gets no more than a new file in
//! the one folder that the command line named.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The folder.
#[derive(Clone, Debug)]
pub struct Recordings {
    /// Without symbolic links in it.
    folder: PathBuf,
}

impl Recordings {
    /// Allows recordings in a folder.
    ///
    /// # Errors
    ///
    /// Where there is no such folder.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let folder = folder.canonicalize()?;
        if !folder.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { folder })
    }

    /// Returns the path of a recording that a client named: by its name, or by a path that leads
    /// into this folder.
    ///
    /// # Errors
    ///
    /// A text for the client.
    pub fn path_of(&self, word: &str) -> Result<PathBuf, String> {
        let refused = || {
            let folder = self.folder.display();
            format!("{}: recordings are made in {folder}; name a file there", word.escape_debug())
        };
        let path = Path::new(word);
        let Some(Component::Normal(name)) = path.components().next_back() else {
            return Err(refused());
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let is_here = parent == Path::new("")
            || parent.canonicalize().is_ok_and(|parent| parent == self.folder);
        if !is_here || word.ends_with('/') || !is_plain(name) {
            return Err(refused());
        }
        Ok(self.folder.join(name))
    }
}

/// Tells whether a name is one that a user sees, and sees as it is.
fn is_plain(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| !name.starts_with('.') && !name.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_client_may_name_files_in_the_folder_and_nowhere_else() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("recordings");
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(folder.join("inner")).unwrap();
        symlink(place.path(), folder.join("out")).unwrap();
        let recordings = Recordings::new(&folder).unwrap();
        let canonical = folder.canonicalize().unwrap();
        for word in ["a.stepwell", canonical.join("a.stepwell").to_str().unwrap()] {
            assert_eq!(recordings.path_of(word), Ok(canonical.join("a.stepwell")), "{word}");
        }
        let outside = place.path().join("x");
        for word in [
            "",
            ".",
            "..",
            "/",
            "../x",
            "inner/x",
            "out/x",
            ".profile",
            "a/",
            "/tmp/x",
            "a\x1b[2J",
            outside.to_str().unwrap(),
        ] {
            assert!(recordings.path_of(word).is_err(), "{word}");
        }
        assert!(Recordings::new(&outside).is_err());
        std::fs::write(&outside, "").unwrap();
        assert!(Recordings::new(&outside).is_err());
    }
}
