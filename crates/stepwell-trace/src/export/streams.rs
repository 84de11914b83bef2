//! Where an exporter writes to: one stream for all vCPUs, or a file for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Bytes that are collected before they are written, for each stream.
const BUFFER: usize = 128 << 10;

/// Something that has a stream for each vCPU.
pub trait Streams {
    /// Returns the stream of a vCPU.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened.
    fn of(&mut self, vcpu: u8) -> io::Result<&mut dyn Write>;

    /// Writes what was collected.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    fn flush(&mut self) -> io::Result<()>;
}

/// One stream for all.
#[derive(Debug)]
pub struct OneStream<W: Write>(BufWriter<W>);

impl<W: Write> OneStream<W> {
    /// Writes to `output`, in large pieces.
    pub fn new(output: W) -> Self {
        Self(BufWriter::with_capacity(BUFFER, output))
    }
}

impl<W: Write> Streams for OneStream<W> {
    fn of(&mut self, _vcpu: u8) -> io::Result<&mut dyn Write> {
        Ok(&mut self.0)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A file for each vCPU in one folder, called `cpuN` and the format's ending.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    ending: &'static str,
    files: BTreeMap<u8, BufWriter<File>>,
}

impl Folder {
    /// Makes the folder, unless it is there.
    ///
    /// # Errors
    ///
    /// Where that is not possible.
    pub fn create(path: impl Into<PathBuf>, ending: &'static str) -> io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, ending, files: BTreeMap::new() })
    }
}

impl Streams for Folder {
    fn of(&mut self, vcpu: u8) -> io::Result<&mut dyn Write> {
        use std::collections::btree_map::Entry;
        Ok(match self.files.entry(vcpu) {
            Entry::Occupied(file) => file.into_mut(),
            Entry::Vacant(place) => {
                let file = File::create(self.path.join(format!("cpu{vcpu}.{}", self.ending)))?;
                place.insert(BufWriter::with_capacity(BUFFER, file))
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.files.values_mut().try_for_each(BufWriter::flush)
    }
}
