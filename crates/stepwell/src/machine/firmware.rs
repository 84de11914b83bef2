//! Firmware: what the guest's flash begins with, and what is kept of it.
//!
//! Flash is a piece of the machine's RAM, filled before the guest starts. What its firmware stores in the
//! bank of variables arrives over the link, in order, and goes to a file at once: so the file is at any
//! time what the flash was at some moment, whatever becomes of us. It outlives the guest's resets, with a
//! file or without.

use super::MachineError;
use crate::terminal::notice;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use stepwell_link::FlashKeeper;
use stepwell_trace::kernel_image::{KernelImage, RawPolicy};
use stepwell_vm::device::flash::BANK_BYTES;
use stepwell_vm::device::fw_cfg::{Items, key};

/// A guest's firmware.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// What is in the second bank, for all that start the guest anew.
    pub variables: Variables,
    /// What fw_cfg hands out, laid out.
    pub fw_cfg: Vec<u8>,
}

/// What fw_cfg hands to firmware.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handed<'a> {
    /// The kernel.
    pub kernel: Option<&'a Path>,
    /// The initial ramdisk.
    pub initrd: Option<&'a Path>,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// vCPUs.
    pub vcpus: u8,
}

impl Firmware {
    /// Reads what firmware at `path` needs beside itself.
    ///
    /// # Errors
    ///
    /// [`MachineError::File`], [`MachineError::Firmware`] and [`MachineError::Kernel`].
    pub fn open(
        path: &Path,
        variables: Option<&Path>,
        handed: Handed<'_>,
    ) -> Result<(Self, Vec<u8>), MachineError> {
        let code = read_code(path)?;
        let variables = match variables {
            Some(file) => Variables::open(file, path)?,
            None => Variables::unnamed(template_of(path).as_deref())?,
        };
        Ok((Self { variables, fw_cfg: handed.laid_out()? }, code))
    }
}

impl Handed<'_> {
    fn laid_out(&self) -> Result<Vec<u8>, MachineError> {
        let mut items = Items::of_board(self.vcpus);
        if let Some(kernel) = self.kernel {
            items.add_sized(key::KERNEL_SIZE, key::KERNEL_DATA, &read_kernel(kernel)?);
            let initrd = self.initrd.map(super::options::read).transpose()?.unwrap_or_default();
            items.add_sized(key::INITRD_SIZE, key::INITRD_DATA, &initrd);
            let command_line = [self.command_line.as_bytes(), &[0]].concat();
            items.add_sized(key::CMDLINE_SIZE, key::CMDLINE_DATA, &command_line);
        }
        Ok(items.to_bytes())
    }
}

/// A kernel as firmware gets it: unpacked where it is gzipped, as by QEMU.
fn read_kernel(path: &Path) -> Result<Vec<u8>, MachineError> {
    let bytes = super::options::read(path)?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    KernelImage::recognise(bytes, RawPolicy::Accept)
        .map(|image| image.bytes)
        .map_err(|error| MachineError::Kernel { path: path.to_owned(), error })
}

fn read_code(path: &Path) -> Result<Vec<u8>, MachineError> {
    let refused = |reason| Err(MachineError::Firmware { path: path.to_owned(), reason });
    let mut code = super::options::read(path)?;
    if code.starts_with(b"\x7fELF") {
        return refused("is an ELF, and flash takes a binary: start it with --kernel");
    }
    if code.starts_with(b"QFI\xfb") {
        return refused("is a qcow2 image: `qemu-img convert -O raw` makes a binary of it");
    }
    if code.len() as u64 > BANK_BYTES {
        return refused("does not fit into a bank of flash, which has 64 MiB: is it a disk?");
    }
    trim(&mut code);
    match code.is_empty() {
        true => refused("is empty"),
        false => Ok(code),
    }
}

/// Cuts what is zero anyway: images are padded to the size of a bank.
fn trim(bytes: &mut Vec<u8>) {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
}

/// What distributions put beside firmware for its variables to begin with.
fn template_of(firmware: &Path) -> Option<PathBuf> {
    // They have links to it elsewhere.
    let firmware = firmware.canonicalize().ok()?;
    let name = firmware.file_name().and_then(OsStr::to_str)?;
    let beside = |name: &str| Some(firmware.with_file_name(name)).filter(|path| path.is_file());
    match name.split_once("CODE") {
        Some((before, _)) => beside(&format!("{before}VARS.fd")),
        None if name.starts_with("QEMU_EFI") => {
            beside("QEMU_VARS.fd").or_else(|| beside("vars-template-pflash.raw"))
        }
        None => None,
    }
}

/// The bank of variables, and the file that it is kept in.
#[derive(Clone, Debug)]
pub struct Variables(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    /// From the bank's beginning to what is not zero.
    bytes: Vec<u8>,
    file: Option<(PathBuf, File)>,
}

impl Variables {
    /// Begins with a template, or blank, and forgets all at the end.
    fn unnamed(template: Option<&Path>) -> Result<Self, MachineError> {
        let mut bytes = template.map(super::options::read).transpose()?.unwrap_or_default();
        trim(&mut bytes);
        Ok(Self(Arc::new(Mutex::new(Kept { bytes, file: None }))))
    }

    /// Opens a file, or makes it of the template that lies beside the firmware.
    fn open(path: &Path, firmware: &Path) -> Result<Self, MachineError> {
        let failed = |error| MachineError::File { path: path.to_owned(), error };
        let refused = |reason| MachineError::Firmware { path: path.to_owned(), reason };
        let open = || OpenOptions::new().read(true).write(true).open(path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(path, template_of(firmware).as_deref())?;
                open()
            }
            opened => opened,
        };
        let file = file.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(refused("is no file, and variables need one: name another"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refused(
                    "is in use by another process: end that first, or copy it for this one",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if file.metadata().map_err(failed)?.len() > BANK_BYTES {
            return Err(refused("does not fit into a bank of flash, which has 64 MiB"));
        }
        let mut bytes = super::options::read(path)?;
        if bytes.starts_with(b"QFI\xfb") {
            return Err(refused(
                "is a qcow2 image: `qemu-img convert -O raw` makes a binary of it",
            ));
        }
        trim(&mut bytes);
        let file = Some((path.to_owned(), file));
        Ok(Self(Arc::new(Mutex::new(Kept { bytes, file }))))
    }

    /// What the bank holds, up to what is zero.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.kept().bytes.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Makes a file of a whole bank, all of it at once: one that is there is complete.
fn make(path: &Path, template: Option<&Path>) -> Result<(), MachineError> {
    let failed = |error| MachineError::File { path: path.to_owned(), error };
    let mut bytes = template.map(super::options::read).transpose()?.unwrap_or_default();
    trim(&mut bytes);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        // As the user's umask has it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    file.as_file().set_len(BANK_BYTES).map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error.error)),
    }
}

impl FlashKeeper for Variables {
    fn programmed(&mut self, offset: u64, bytes: &[u8]) {
        self.kept().store(offset, bytes);
    }

    fn erased(&mut self, offset: u64, bytes: u64) {
        let count = usize::try_from(bytes.min(BANK_BYTES)).unwrap_or(0);
        self.kept().store(offset, &vec![0xff; count]);
    }
}

impl Kept {
    fn store(&mut self, offset: u64, bytes: &[u8]) {
        let Some(room) = BANK_BYTES.checked_sub(offset) else { return };
        let bytes = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        let start = offset as usize;
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        if let Some((path, file)) = &self.file
            && let Err(error) = file.write_all_at(bytes, offset)
        {
            let path = path.display();
            notice(&format!("{path}: {error}; what the firmware stores is not kept from here on"));
            self.file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn variables_begin_with_the_template_and_last() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("X_CODE.fd"), b"code\0\0\0").unwrap();
        std::fs::write(at("X_VARS.fd"), b"template\0\0").unwrap();
        let open = || {
            Firmware::open(
                &at("X_CODE.fd"),
                Some(&at("v")),
                Handed { vcpus: 1, ..Handed::default() },
            )
        };
        let (firmware, code) = open().unwrap();
        assert_eq!(code, b"code");
        assert_eq!(firmware.variables.bytes(), b"template");
        assert_eq!(std::fs::metadata(at("v")).unwrap().len(), BANK_BYTES);
        let mut keeper = firmware.variables.clone();
        keeper.programmed(2, b"XY");
        keeper.erased(0x4_0000, 4);
        keeper.programmed(BANK_BYTES - 1, b"ab");
        keeper.programmed(BANK_BYTES + 1, b"ab");
        let error = open().unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop((firmware, keeper));
        let (again, _) = open().unwrap();
        let bytes = again.variables.bytes();
        assert_eq!(bytes[..8], *b"teXYlate");
        assert_eq!(bytes[0x4_0000..0x4_0005], [0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(bytes[BANK_BYTES as usize - 1], b'a');
        assert_eq!(std::fs::read(at("X_VARS.fd")).unwrap(), b"template\0\0", "never written");
    }

    #[test]
    fn without_a_file_they_outlive_a_reset() {
        let folder = folder();
        let path = folder.path().join("fw.bin");
        std::fs::write(&path, b"code").unwrap();
        let (firmware, _) = Firmware::open(&path, None, Handed::default()).unwrap();
        assert!(firmware.variables.bytes().is_empty(), "blank");
        firmware.variables.clone().programmed(1, b"a");
        assert_eq!(firmware.variables.bytes(), b"\0a");
    }

    #[test]
    fn what_is_no_firmware_is_refused_with_what_to_do() {
        let folder = folder();
        let path = folder.path().join("fw");
        let error = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Firmware::open(&path, None, Handed::default()).unwrap_err().to_string()
        };
        assert!(error(b"\x7fELF1234").ends_with("start it with --kernel"));
        assert!(error(b"QFI\xfb1234").contains("qemu-img convert"));
        assert!(error(&[0; 100]).ends_with("is empty"));
        std::fs::File::create(&path).unwrap().set_len(BANK_BYTES + 1).unwrap();
        let error = Firmware::open(&path, None, Handed::default()).unwrap_err().to_string();
        assert!(error.contains("64 MiB"), "{error}");
    }
}
