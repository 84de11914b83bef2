//! Files that the user has written: never over one that is read, and whole or not at all.
//!
//! A file gets its name when everything is in it. Until then it has none, so that nothing is left of
//! it whatever ends us, and what was there before stays. (File systems without unnamed files have it
//! under another name meanwhile.) What is no regular file, such as a pipe, is written to as it comes.

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempPath;

/// What a new file may be used for, less what the user's umask takes away.
const MODE: u32 = 0o666;

/// Refuses to write over a file that is read. `inputs`: what is read, and what it is.
///
/// # Errors
///
/// Where `output` is one of these, by whatever path.
pub fn refuse_inputs<'a>(
    output: &Path,
    inputs: impl IntoIterator<Item = (&'a Path, &'static str)>,
) -> anyhow::Result<()> {
    for (path, what) in inputs {
        if is_same(output, path) {
            bail!("{} is {what}, and would be lost: name another file", output.display());
        }
    }
    Ok(())
}

/// Whether two paths lead to one file. Those that lead to none do not.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|data| (data.dev(), data.ino()));
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

/// The files that a command writes.
#[derive(Debug, Default)]
pub struct Outputs(Vec<Output>);

#[derive(Debug)]
struct Output {
    file: Arc<File>,
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// It has no name yet.
    Unnamed,
    /// It has another name.
    Elsewhere(TempPath),
    /// It is written to as it is.
    Itself,
}

impl Outputs {
    /// Begins a file. It is there after [`Outputs::complete`].
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn create(&mut self, path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
        let output = Output::create(path).with_context(|| path.display().to_string())?;
        let file = Arc::clone(&output.file);
        self.0.push(output);
        Ok(Box::new(file))
    }

    /// Gives the files their names, once everything was written.
    ///
    /// # Errors
    ///
    /// Where that is not possible.
    pub fn complete(self) -> anyhow::Result<()> {
        for output in self.0 {
            let named = output.path.display().to_string();
            output.complete().context(named)?;
        }
        Ok(())
    }
}

/// Writes a file as a whole.
///
/// # Errors
///
/// Where it cannot be written; what was there before is still there.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let output = Output::create(path)?;
    (&*output.file).write_all(contents)?;
    output.complete()
}

impl Output {
    fn create(path: &Path) -> io::Result<Self> {
        // A symbolic link stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let itself = || -> io::Result<Self> {
            let file = Arc::new(File::create(&path)?);
            Ok(Self { file, path: path.clone(), kind: Kind::Itself })
        };
        if path.metadata().is_ok_and(|data| !data.is_file()) {
            return itself();
        }
        let folder = folder_of(&path);
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = openat(CWD, folder, flags, Mode::from_raw_mode(MODE)) {
            let file = Arc::new(File::from(file));
            return Ok(Self { file, path, kind: Kind::Unnamed });
        }
        let mut builder = tempfile::Builder::new();
        let made =
            builder.prefix(".").permissions(Permissions::from_mode(MODE)).tempfile_in(folder);
        // The folder may take no new files, and this file what is in it.
        let Ok(made) = made else { return itself() };
        let (file, name) = made.into_parts();
        Ok(Self { file: Arc::new(file), path, kind: Kind::Elsewhere(name) })
    }

    fn complete(self) -> io::Result<()> {
        match self.kind {
            Kind::Itself => Ok(()),
            Kind::Elsewhere(name) => name.persist(&self.path).map_err(|error| error.error),
            Kind::Unnamed => {
                let link = |to: &Path| -> io::Result<()> {
                    let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                    Ok(linkat(CWD, from.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW)?)
                };
                match link(&self.path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    done => return done,
                }
                // A link replaces nothing: it gets the name of one that is nobody's, and then this.
                let folder =
                    tempfile::Builder::new().prefix(".").tempdir_in(folder_of(&self.path))?;
                let between = folder.path().join("output");
                link(&between)?;
                std::fs::rename(&between, &self.path)
            }
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("out");
        for contents in ["one", "another"] {
            let before = fs::read_to_string(&path).ok();
            let mut outputs = Outputs::default();
            write!(outputs.create(&path).unwrap(), "{contents}").unwrap();
            assert_eq!(fs::read_to_string(&path).ok(), before, "not yet");
            outputs.complete().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
        let mut given_up = Outputs::default();
        write!(given_up.create(&path).unwrap(), "a part").unwrap();
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn links_stay_and_pipes_are_written_to() {
        let place = tempfile::tempdir().unwrap();
        let (path, link) = (place.path().join("out"), place.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        write(Path::new("/dev/null"), b"lost").unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
        assert!(write(&place.path().join("no/such/folder"), b"").is_err());
    }

    #[test]
    fn what_is_read_is_not_written_over() {
        let place = tempfile::tempdir().unwrap();
        let (input, other) = (place.path().join("in"), place.path().join("other"));
        fs::write(&input, "in").unwrap();
        fs::hard_link(&input, &other).unwrap();
        let refused = |output: &Path| refuse_inputs(output, [(input.as_path(), "the kernel")]);
        for output in [&input, &other, &place.path().join("./in")] {
            let error = refused(output).unwrap_err().to_string();
            assert!(error.contains("is the kernel"), "{error}");
        }
        refused(&place.path().join("new")).unwrap();
    }
}
