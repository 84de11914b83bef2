//! The files of the workspace, read once.
//!
//! Found by walking rather than by asking git, so that an unpacked archive can be tested too.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::finding::Finding;

/// Folders with a leading dot that are ours.
const OWN_DOT_FOLDERS: [&str; 3] = [".cargo", ".ci", ".github"];

/// What is text, and so is read.
const TEXT_EXTENSIONS: [&str; 10] =
    ["rs", "md", "toml", "ld", "s", "sh", "py", "yml", "dts", "txt"];
const TEXT_NAMES: [&str; 3] = ["Makefile", "run", ".gitignore"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "misc", "util", "utils", "stuff"];

/// All files and folders below a root.
pub struct Tree {
    root: PathBuf,
    files: Vec<SourceFile>,
    /// Every path, also of files that are not read.
    paths: Vec<PathBuf>,
}

/// A text file of the workspace.
pub struct SourceFile {
    /// Relative to the root.
    pub path: PathBuf,
    /// Its contents.
    pub text: String,
}

impl SourceFile {
    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.extension() == Some(OsStr::new("rs"))
    }

    /// Whether it is Markdown.
    pub fn is_markdown(&self) -> bool {
        self.path.extension() == Some(OsStr::new("md"))
    }
}

impl Tree {
    /// Reads the text files below `root`, except build products and other repositories.
    ///
    /// # Errors
    /// When a folder or file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { root: root.to_owned(), files: Vec::new(), paths: Vec::new() };
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(root.join(&folder))
                .with_context(|| format!("reading the folder {}", folder.display()))?;
            for entry in entries {
                let name = entry.context("reading a folder")?.file_name();
                let path = folder.join(&name);
                let absolute = root.join(&path);
                if absolute.is_dir() {
                    if is_ours(&absolute, &name.to_string_lossy()) {
                        folders.push(path.clone());
                        tree.paths.push(path);
                    }
                } else {
                    tree.add_file(path)?;
                }
            }
        }
        tree.files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(tree)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<()> {
        if is_text(&path) {
            let text = fs::read_to_string(self.root.join(&path))
                .with_context(|| format!("reading {}", path.display()))?;
            self.files.push(SourceFile { path: path.clone(), text });
        }
        self.paths.push(path);
        Ok(())
    }

    /// The root, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The text files, by path.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The text of the file at `path`, if there is one.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<&str> {
        let path = path.as_ref();
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    /// Folders and files whose name says nothing.
    pub fn name_findings(&self) -> Vec<Finding> {
        let says_nothing = |path: &&PathBuf| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
            EMPTY_NAMES.contains(&stem.as_str())
        };
        let found = self.paths.iter().filter(says_nothing);
        found
            .map(|path| Finding::new(path, 0, "a name that says nothing: name its topic"))
            .collect()
    }
}

fn is_ours(folder: &Path, name: &str) -> bool {
    let hidden = name.starts_with('.') && !OWN_DOT_FOLDERS.contains(&name);
    let built = folder.join("CACHEDIR.TAG").exists() || name == "target";
    !hidden && !built && !folder.join(".git").exists()
}

fn is_text(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    TEXT_EXTENSIONS.contains(&extension.as_str()) || TEXT_NAMES.contains(&name.as_ref())
}
