//! The guest's RAM: a file without a name, mapped here and in the guest.
//!
//! It is mapped twice: KVM's mapping is protected where something is withheld from the guest
//! ([`super::withheld`]), ours never is.
//!
//! "Physical" addresses are the guest's own, since stage 2 is KVM's. Its vCPUs write what is read here
//! at any time: every access is atomic by itself, and a longer one may be torn, as a bus master's.
//!
//! A guest whose caches are off reads and writes past the ones that we work through; so what is written
//! here is cleaned to memory, and what is read is dropped from the caches before (Arm ARM, "Mismatched
//! memory attributes"), as far as the kernel lets a program do that.

#![expect(unsafe_code, reason = "atomics in memory that is shared with a guest")]

use super::machine_code::{clean_data_cache, drop_instructions};
use super::tables::Tables;
use super::withheld::Withheld;
use crate::KvmError;
use memmap2::{MmapOptions, MmapRaw};
use portable_atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicU128, Ordering};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use stepwell_arch::{Ipa, Pa, Va};
use stepwell_engine::Image;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::memory::{GuestMemory, OutsideRam};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A domain's RAM.
#[derive(Clone)]
pub struct GuestRam {
    map: Arc<MmapRaw>,
    for_guest: Arc<MmapRaw>,
    file: Arc<File>,
    bytes: u64,
    tables: Tables,
    withheld: Arc<Withheld>,
}

impl GuestRam {
    /// Makes `bytes` bytes of zeros.
    ///
    /// # Errors
    ///
    /// [`KvmError::NoMemory`].
    pub fn new(bytes: u64) -> Result<Self, KvmError> {
        let failed = |error| KvmError::NoMemory { mib: bytes / MIB, error };
        let file = unnamed(c"stepwell-guest", bytes).map_err(failed)?;
        let size = usize::try_from(bytes).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let map = || MmapOptions::new().len(size).map_raw(&file).map(Arc::new).map_err(failed);
        let (map, for_guest) = (map()?, map()?);
        let withheld = Arc::new(Withheld::new(for_guest.clone()));
        let tables = Tables::new(withheld.clone());
        Ok(Self { map, for_guest, file: Arc::new(file), bytes, tables, withheld })
    }

    /// Where this process has it for KVM.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.for_guest.as_mut_ptr() as u64
    }

    /// Its file, the first byte of which is where the RAM begins.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What of it is withheld from the guest.
    #[must_use]
    pub fn withheld(&self) -> &Withheld {
        &self.withheld
    }

    /// Loads a piece of a guest that has not run yet.
    ///
    /// # Errors
    ///
    /// [`KvmError`] where it does not fit, or the file cannot be written.
    pub fn load(&self, at: Ipa, bytes: &[u8]) -> Result<(), KvmError> {
        let mib = self.bytes / MIB;
        let length = bytes.len() as u64;
        self.locate(at, length).map_err(|OutsideRam| KvmError::DoesNotFit { mib })?;
        let written = self.file.write_all_at(bytes, at.0 - RAM_BASE.0);
        written.map_err(|error| KvmError::NoMemory { mib, error })?;
        self.clean(Pa(at.0), length);
        Ok(())
    }

    fn clean(&self, at: Pa, length: u64) {
        if let Some(pointer) = self.pointer::<u8>(at, length) {
            clean_data_cache(pointer as u64, length);
        }
    }

    /// The place of `length` bytes, if they lie in the RAM and are aligned for a `T`.
    fn pointer<T>(&self, at: Pa, length: u64) -> Option<*mut T> {
        let offset = at.0.checked_sub(RAM_BASE.0)?;
        let end = offset.checked_add(length).filter(|&end| end <= self.bytes)?;
        debug_assert!(end >= offset);
        if !at.0.is_multiple_of(align_of::<T>() as u64) {
            return None;
        }
        // SAFETY: `length` bytes from `offset` on lie in the mapping, which has `bytes` of them.
        Some(unsafe { self.map.as_mut_ptr().add(offset as usize).cast() })
    }

    fn read_piece(&self, at: Pa, bytes: u8) -> Option<u64> {
        self.clean(at, u64::from(bytes));
        // SAFETY: each pointer is to as many bytes of the mapping, aligned, which live as long as
        // `self`; all accesses to them are atomic, the guest's too.
        unsafe {
            Some(match bytes {
                1 => (*self.pointer::<AtomicU8>(at, 1)?).load(Ordering::Acquire).into(),
                2 => (*self.pointer::<AtomicU16>(at, 2)?).load(Ordering::Acquire).into(),
                4 => (*self.pointer::<AtomicU32>(at, 4)?).load(Ordering::Acquire).into(),
                8 => (*self.pointer::<AtomicU64>(at, 8)?).load(Ordering::Acquire),
                _ => return None,
            })
        }
    }

    fn write_piece(&self, at: Pa, bytes: u8, value: u64) -> Option<()> {
        // SAFETY: as in `read_piece`.
        unsafe {
            match bytes {
                1 => (*self.pointer::<AtomicU8>(at, 1)?).store(value as u8, Ordering::Release),
                2 => (*self.pointer::<AtomicU16>(at, 2)?).store(value as u16, Ordering::Release),
                4 => (*self.pointer::<AtomicU32>(at, 4)?).store(value as u32, Ordering::Release),
                8 => (*self.pointer::<AtomicU64>(at, 8)?).store(value, Ordering::Release),
                _ => return None,
            }
        }
        self.clean(at, u64::from(bytes));
        Some(())
    }

    /// Stores `new` if `old` is there.
    fn swap(&self, at: Pa, old: Image, new: Image) -> Option<bool> {
        const SUCCESS: Ordering = Ordering::AcqRel;
        const FAILURE: Ordering = Ordering::Acquire;
        let (old, new, bytes) = (old.value, new.value, new.bytes);
        self.clean(at, u64::from(bytes));
        macro_rules! swap {
            ($atomic:ty, $value:ty, $bytes:literal) => {{
                let place = self.pointer::<$atomic>(at, $bytes)?;
                (*place).compare_exchange(old as $value, new as $value, SUCCESS, FAILURE).is_ok()
            }};
        }
        // SAFETY: as in `read_piece`.
        let stored = unsafe {
            match bytes {
                1 => swap!(AtomicU8, u8, 1),
                2 => swap!(AtomicU16, u16, 2),
                4 => swap!(AtomicU32, u32, 4),
                8 => swap!(AtomicU64, u64, 8),
                16 => swap!(AtomicU128, u128, 16),
                _ => return None,
            }
        };
        self.clean(at, u64::from(bytes));
        Some(stored)
    }
}

/// Makes a file of zeros without a name.
pub(super) fn unnamed(name: &std::ffi::CStr, bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.set_len(bytes)?;
    Ok(file)
}

/// Splits a range into aligned pieces of 8 bytes, and single ones around them.
fn pieces(at: Pa, length: u64) -> impl Iterator<Item = (u64, u8)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let here = done;
        let left = length - done;
        let bytes = if left >= 8 && (at.0 + done).is_multiple_of(8) { 8 } else { 1 };
        done += bytes.min(left);
        (left > 0).then_some((here, bytes as u8))
    })
}

impl GuestMemory for GuestRam {
    type Page = Pa;
    type Tables = Tables;

    fn tables(&self) -> Tables {
        self.tables.clone()
    }

    fn base(&self) -> Pa {
        Pa(RAM_BASE.0)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn locate(&self, ipa: Ipa, length: u64) -> Result<Pa, OutsideRam> {
        let offset = ipa.0.checked_sub(RAM_BASE.0).ok_or(OutsideRam)?;
        let end = offset.checked_add(length).filter(|&end| end <= self.bytes);
        end.map(|_| Pa(ipa.0)).ok_or(OutsideRam)
    }

    fn read(&self, ipa: Ipa, into: &mut [u8]) -> Result<(), OutsideRam> {
        let from = self.locate(ipa, into.len() as u64)?;
        for (at, bytes) in pieces(from, into.len() as u64) {
            let value = self.read_piece(from.offset(at), bytes).ok_or(OutsideRam)?;
            let end = at as usize + usize::from(bytes);
            let part = into.get_mut(at as usize..end).ok_or(OutsideRam)?;
            part.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, value)| *byte = value);
        }
        Ok(())
    }

    fn write(&self, ipa: Ipa, from: &[u8]) -> Result<(), OutsideRam> {
        let to = self.locate(ipa, from.len() as u64)?;
        for (at, bytes) in pieces(to, from.len() as u64) {
            let mut value = [0; 8];
            let end = at as usize + usize::from(bytes);
            let part = from.get(at as usize..end).ok_or(OutsideRam)?;
            value.iter_mut().zip(part).for_each(|(value, byte)| *value = *byte);
            self.write_piece(to.offset(at), bytes, u64::from_le_bytes(value)).ok_or(OutsideRam)?;
        }
        if let Some(pointer) = self.pointer::<u8>(to, from.len() as u64) {
            drop_instructions(pointer as u64, from.len() as u64);
        }
        Ok(())
    }

    fn code_page(&self, pa: Pa) -> Option<Pa> {
        let page = pa.align_down(PAGE);
        self.clean(page, PAGE);
        self.pointer::<u8>(page, PAGE).map(|_| page)
    }

    fn instruction(&self, page: Pa, va: Va) -> Option<u32> {
        let at = page.offset(va.0 & 0xfff);
        // SAFETY: as in `read_piece`.
        let word = unsafe { (*self.pointer::<AtomicU32>(at, 4)?).load(Ordering::Relaxed) };
        Some(word)
    }

    fn halfword(&self, page: Pa, va: Va) -> Option<u16> {
        let at = page.offset(va.0 & 0xfff);
        // SAFETY: as in `read_piece`.
        let word = unsafe { (*self.pointer::<AtomicU16>(at, 2)?).load(Ordering::Relaxed) };
        Some(word)
    }

    fn compare_and_store(&self, pa: Pa, old: Image, new: Image) -> Result<bool, OutsideRam> {
        self.swap(pa, old, new).ok_or(OutsideRam)
    }

    fn image(&self, pa: Pa, bytes: u8) -> Result<Image, OutsideRam> {
        let [first, second] = match bytes {
            16 => self.peek(pa, 8, true)?,
            _ => self.peek(pa, bytes, false)?,
        };
        Ok(Image { value: u128::from(first) | u128::from(second) << 64, bytes })
    }

    fn poke(&self, pa: Pa, bytes: u8, value: u64) -> Result<(), OutsideRam> {
        self.write_piece(pa, bytes, value).ok_or(OutsideRam)
    }

    fn peek(&self, pa: Pa, bytes: u8, pair: bool) -> Result<[u64; 2], OutsideRam> {
        let first = self.read_piece(pa, bytes).ok_or(OutsideRam)?;
        if !pair {
            return Ok([first, 0]);
        }
        let second = self.read_piece(pa.offset(bytes.into()), bytes).ok_or(OutsideRam)?;
        Ok([first, second])
    }
}
