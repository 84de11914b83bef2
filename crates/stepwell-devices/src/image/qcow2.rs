//! qcow2 images, by the crate `imago`.

use super::Image;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use std::fs::File;
use std::io;
use std::path::Path;

/// An image, opened with what it is based on.
pub(super) struct Qcow2Image {
    image: FormatAccess<Storage>,
    /// It holds the lock, and is dropped after the image, which writes what it has cached then.
    _file: File,
}

impl Qcow2Image {
    pub(super) fn open(path: &Path, file: File, writes: bool) -> io::Result<Self> {
        let builder = Qcow2::<Storage>::builder_path(path).write(writes);
        let image = builder.open(PermissiveImplicitOpenGate::default())?;
        Ok(Self { image: FormatAccess::new(image), _file: file })
    }
}

impl Image for Qcow2Image {
    fn bytes(&self) -> u64 {
        self.image.size()
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.image.read(into, offset)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.image.write(from, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.image.flush()?;
        self.image.sync()
    }
}
