//! Where a test runs the command on bad input: a directory of its own, and what it puts there.

use assert_cmd::Command;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory for one test, which is also its `TMPDIR`.
pub struct Place(TempDir);

impl Place {
    /// Makes one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file in it.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Something that is called like QEMU, and is a shell script.
    pub fn qemu(&self, script: &str) -> PathBuf {
        let path = self.file("qemu", format!("#!/bin/sh\n{script}\n").as_bytes());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs a command that must fail, and returns the one line that says why.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let text = self.told(arguments);
        assert_eq!(text.lines().count(), 1, "{text}");
        text.strip_prefix("stepwell: ").unwrap().trim_end().to_owned()
    }

    /// As [`Place::refused`], of one that has something to say before.
    #[allow(dead_code, reason = "not every test program has such")]
    pub fn refused_after_notices(&self, arguments: &[&str]) -> String {
        let text = self.told(arguments);
        text.lines().last().unwrap().strip_prefix("stepwell: ").unwrap().to_owned()
    }

    /// Runs a command that must fail, and returns what it says.
    fn told(&self, arguments: &[&str]) -> String {
        let scratch = self.0.path().join("tmp");
        fs::create_dir_all(&scratch).unwrap();
        let mut command = Command::cargo_bin("stepwell").unwrap();
        let output = command.args(arguments).env("TMPDIR", &scratch).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "something was left behind");
        text
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An arm64 Image that is all header.
pub fn image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&(1_u64 << 20).to_le_bytes());
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image
}
