//! Guest RAM as EL2 sees it.
//!
//! The one place where EL2 touches a guest's memory. Addresses are the guest's, so every access is
//! checked against the domain's RAM; nothing outside of it can be reached.
//!
//! Two rules follow from what a guest may do meanwhile. Its vCPUs, or a device, may write what EL2
//! reads: so every access is atomic, by itself, and a longer one is a row of them that may be torn,
//! as a bus master's. And its caches may be off: then it reads and writes memory past the caches
//! that EL2 works through, so that what EL2 writes is cleaned to memory, and what it reads is
//! dropped from the caches before (Arm ARM, "Mismatched memory attributes").

use super::tables::HeapTables;
use crate::hw::registers;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use stepwell_arch::{Ipa, Pa, Va};
use stepwell_engine::Image;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::device::flash::FLASH_BYTES;
use stepwell_vm::memory::{GuestMemory, OutsideRam, PAGE_WORDS, write_by_pieces};
use stepwell_wire::devices::Bytes;

const PAGE: u64 = 4096;

/// A page of a guest's RAM that EL2 may read instructions from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodePage(Pa);

impl CodePage {
    /// Takes back a page that [`GuestRam`] handed out before.
    ///
    /// # Safety
    ///
    /// The page must be one that was handed out.
    #[must_use]
    pub const unsafe fn new(page: Pa) -> Self {
        Self(page)
    }

    /// Where EL2 reads it.
    #[must_use]
    pub const fn address(self) -> Pa {
        self.0
    }
}

/// A domain's memory: RAM in one range, at [`RAM_BASE`] for the guest, and flash at 0, if it has any.
#[derive(Clone, Copy, Debug)]
pub struct GuestRam {
    base: Pa,
    bytes: u64,
    flash: Option<Pa>,
}

impl GuestRam {
    /// Takes `bytes` of RAM from `base` on as a domain's.
    ///
    /// # Safety
    ///
    /// The range must be RAM, mapped at EL2 as normal memory at its own address, and used by
    /// nothing of EL2's.
    #[must_use]
    pub const unsafe fn new(base: Pa, bytes: u64) -> Self {
        Self { base, bytes, flash: None }
    }

    /// With [`FLASH_BYTES`] of RAM from `flash` on as the board's flash.
    ///
    /// # Safety
    ///
    /// As for [`GuestRam::new`].
    #[must_use]
    pub const unsafe fn with_flash(mut self, flash: Pa) -> Self {
        self.flash = Some(flash);
        self
    }

    /// Bytes of RAM.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells whether `length` bytes at `pa` lie in this RAM, or flash.
    #[must_use]
    pub fn contains(&self, pa: Pa, length: u64) -> bool {
        let within = |base: Pa, bytes: u64| {
            let offset = pa.0.checked_sub(base.0);
            let end = offset.and_then(|offset| offset.checked_add(length));
            end.is_some_and(|end| end <= bytes)
        };
        within(self.base, self.bytes) || self.flash.is_some_and(|flash| within(flash, FLASH_BYTES))
    }

    /// The bytes from `at` on, which the caller has found to lie in this RAM: up to the first whole
    /// word, whole words, and what is left.
    fn words(&self, at: Pa, length: u64) -> Words<'_> {
        let head = (at.0.next_multiple_of(8) - at.0).min(length);
        let words = (length - head) / 8;
        let tail = (length - head) % 8;
        let (middle, end) = (at.0 + head, at.0 + head + words * 8);
        // SAFETY: the caller's check, and alignment: `middle` is a multiple of 8 where there are
        // words. The guest accesses it all at the same time, hence atomics.
        unsafe {
            Words {
                head: head as usize,
                head_bytes: core::slice::from_raw_parts(at.0 as *const AtomicU8, head as usize),
                words: match words {
                    0 => &[],
                    _ => core::slice::from_raw_parts(middle as *const AtomicU64, words as usize),
                },
                tail_bytes: core::slice::from_raw_parts(end as *const AtomicU8, tail as usize),
            }
        }
    }

    /// Makes guest memory zero.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`]; nothing was cleared then.
    pub fn clear(&self, pa: Pa, bytes: u64) -> Result<(), OutsideRam> {
        if !self.contains(pa, bytes) {
            return Err(OutsideRam);
        }
        let at = self.words(pa, bytes);
        for byte in at.head_bytes.iter().chain(at.tail_bytes) {
            byte.store(0, Ordering::Relaxed);
        }
        for word in at.words {
            word.store(0, Ordering::Relaxed);
        }
        registers::clean_data_cache(pa.0, bytes);
        Ok(())
    }

    /// Copies a boot module into guest memory.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`]; nothing was copied then.
    ///
    /// # Safety
    ///
    /// The module must be RAM that EL2 maps, outside of every domain's.
    pub unsafe fn load(&self, ipa: Ipa, module: Pa, bytes: u64) -> Result<(), OutsideRam> {
        let length = usize::try_from(bytes).map_err(|_| OutsideRam)?;
        // SAFETY: the caller's promise.
        let from = unsafe { core::slice::from_raw_parts(module.0 as *const u8, length) };
        self.write(ipa, from)
    }
}

/// Words that are copied without a look at how many are left.
const LINE: usize = 8;

#[inline]
fn copy_line(from: &[AtomicU64; LINE], to: &[AtomicU64; LINE]) {
    for (from, to) in from.iter().zip(to) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// A piece of guest RAM as what can be accessed atomically.
struct Words<'a> {
    /// Bytes before the words.
    head: usize,
    head_bytes: &'a [AtomicU8],
    words: &'a [AtomicU64],
    tail_bytes: &'a [AtomicU8],
}

impl GuestMemory for GuestRam {
    type Page = CodePage;
    type Tables = HeapTables;

    fn tables(&self) -> HeapTables {
        HeapTables::of(*self)
    }

    fn base(&self) -> Pa {
        self.base
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn locate(&self, ipa: Ipa, length: u64) -> Result<Pa, OutsideRam> {
        let (offset, base, bytes) = match (ipa.0.checked_sub(RAM_BASE.0), self.flash) {
            (Some(offset), _) => (offset, self.base, self.bytes),
            (None, Some(flash)) => (ipa.0, flash, FLASH_BYTES),
            (None, None) => return Err(OutsideRam),
        };
        let end = offset.checked_add(length).ok_or(OutsideRam)?;
        if end > bytes {
            return Err(OutsideRam);
        }
        Ok(base.offset(offset))
    }

    fn read(&self, ipa: Ipa, into: &mut [u8]) -> Result<(), OutsideRam> {
        let from = self.locate(ipa, into.len() as u64)?;
        registers::clean_data_cache(from.0, into.len() as u64);
        let at = self.words(from, into.len() as u64);
        let (head, rest) = into.split_at_mut_checked(at.head).ok_or(OutsideRam)?;
        let (words, tail) = rest.as_chunks_mut::<8>();
        for (byte, from) in head.iter_mut().zip(at.head_bytes) {
            *byte = from.load(Ordering::Relaxed);
        }
        for (word, from) in words.iter_mut().zip(at.words) {
            *word = from.load(Ordering::Relaxed).to_le_bytes();
        }
        for (byte, from) in tail.iter_mut().zip(at.tail_bytes) {
            *byte = from.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, ipa: Ipa, from: &[u8]) -> Result<(), OutsideRam> {
        let to = self.locate(ipa, from.len() as u64)?;
        let at = self.words(to, from.len() as u64);
        let (head, rest) = from.split_at_checked(at.head).ok_or(OutsideRam)?;
        let (words, tail) = rest.as_chunks::<8>();
        for (byte, to) in head.iter().zip(at.head_bytes) {
            to.store(*byte, Ordering::Relaxed);
        }
        for (word, to) in words.iter().zip(at.words) {
            to.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
        for (byte, to) in tail.iter().zip(at.tail_bytes) {
            to.store(*byte, Ordering::Relaxed);
        }
        registers::clean_data_cache(to.0, from.len() as u64);
        registers::invalidate_instruction_caches();
        Ok(())
    }

    /// Word by word, where both sides are words: no copy between, since most of a disk's bytes come this
    /// way.
    fn write_shared(&self, ipa: Ipa, from: Bytes<'_>) -> Result<(), OutsideRam> {
        let length = from.length() as u64;
        let to = self.locate(ipa, length)?;
        let Some(words) = from.words().filter(|_| ipa.is_aligned(8) && length.is_multiple_of(8))
        else {
            return write_by_pieces(self, ipa, from);
        };
        let at = self.words(to, length);
        let (sources, last_sources) = words.get(..at.words.len()).unwrap_or(words).as_chunks();
        let (targets, last_targets) = at.words.as_chunks();
        for (from, to) in sources.iter().zip(targets) {
            copy_line(from, to);
        }
        for (from, to) in last_sources.iter().zip(last_targets) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        registers::clean_data_cache(to.0, length);
        registers::invalidate_instruction_caches();
        Ok(())
    }

    fn save_page(&self, page: Ipa, into: &mut [u64; PAGE_WORDS]) {
        let Ok(from) = self.locate(page, PAGE) else { return };
        registers::clean_data_cache(from.0, PAGE);
        for (word, from) in into.iter_mut().zip(self.words(from, PAGE).words) {
            *word = from.load(Ordering::Relaxed);
        }
    }

    fn restore_page(&self, page: Ipa, from: &[u64; PAGE_WORDS]) {
        let Ok(to) = self.locate(page, PAGE) else { return };
        for (word, to) in from.iter().zip(self.words(to, PAGE).words) {
            to.store(*word, Ordering::Relaxed);
        }
        registers::clean_data_cache(to.0, PAGE);
        registers::invalidate_instruction_caches();
    }

    fn code_page(&self, pa: Pa) -> Option<CodePage> {
        let page = pa.align_down(PAGE);
        if !self.contains(page, PAGE) {
            return None;
        }
        registers::clean_data_cache(page.0, PAGE);
        Some(CodePage(page))
    }

    fn instruction(&self, page: CodePage, va: Va) -> Option<u32> {
        let at = page.0.offset(va.0 & 0xfff);
        if !va.is_aligned(4) {
            return None;
        }
        // SAFETY: a `CodePage` is a page of a guest's RAM, and all of the instruction lies in it. The
        // guest may write it meanwhile.
        Some(unsafe { (at.0 as *const u32).read_volatile() })
    }

    fn halfword(&self, page: CodePage, va: Va) -> Option<u16> {
        let at = page.0.offset(va.0 & 0xfff);
        if !va.is_aligned(2) {
            return None;
        }
        // SAFETY: as in `instruction`.
        Some(unsafe { (at.0 as *const u16).read_volatile() })
    }

    fn compare_and_store(&self, pa: Pa, old: Image, new: Image) -> Result<bool, OutsideRam> {
        let size = u64::from(new.bytes);
        if !self.contains(pa, size) || !pa.is_aligned(size) {
            return Err(OutsideRam);
        }
        let (old, bytes, new) = (old.value, new.bytes, new.value);
        let halves = |value: u128| [value as u64, (value >> 64) as u64];
        registers::clean_data_line(pa.0);
        fence(Ordering::SeqCst);
        // SAFETY: the access lies in this RAM and is aligned; guests access it at the same time,
        // hence atomics.
        let stored = unsafe {
            match bytes {
                1 => swap(&*(pa.0 as *const AtomicU8), old as u8, new as u8),
                2 => swap(&*(pa.0 as *const AtomicU16), old as u16, new as u16),
                4 => swap(&*(pa.0 as *const AtomicU32), old as u32, new as u32),
                8 => swap(&*(pa.0 as *const AtomicU64), old as u64, new as u64),
                16 => swap_pair(pa.0 as *mut u64, halves(old), halves(new)),
                _ => return Err(OutsideRam),
            }
        };
        fence(Ordering::SeqCst);
        registers::clean_data_line(pa.0);
        Ok(stored)
    }

    fn image(&self, pa: Pa, bytes: u8) -> Result<Image, OutsideRam> {
        let [first, second] = match bytes {
            16 => self.peek(pa, 8, true)?,
            _ => self.peek(pa, bytes, false)?,
        };
        Ok(Image { value: u128::from(first) | u128::from(second) << 64, bytes })
    }

    fn poke(&self, pa: Pa, bytes: u8, value: u64) -> Result<(), OutsideRam> {
        if !self.contains(pa, u64::from(bytes)) || !pa.is_aligned(u64::from(bytes)) {
            return Err(OutsideRam);
        }
        // SAFETY: as in `compare_and_store`.
        unsafe {
            match bytes {
                1 => (*(pa.0 as *const AtomicU8)).store(value as u8, Ordering::Release),
                2 => (*(pa.0 as *const AtomicU16)).store(value as u16, Ordering::Release),
                4 => (*(pa.0 as *const AtomicU32)).store(value as u32, Ordering::Release),
                8 => (*(pa.0 as *const AtomicU64)).store(value, Ordering::Release),
                _ => return Err(OutsideRam),
            }
        }
        registers::clean_data_cache(pa.0, u64::from(bytes));
        Ok(())
    }

    fn peek(&self, pa: Pa, bytes: u8, pair: bool) -> Result<[u64; 2], OutsideRam> {
        let mut value = [0; 2];
        let count = if pair { 2 } else { 1 };
        for (n, value) in value.iter_mut().enumerate().take(count) {
            let at = pa.offset(n as u64 * u64::from(bytes));
            if !self.contains(at, u64::from(bytes)) || !at.is_aligned(u64::from(bytes)) {
                return Err(OutsideRam);
            }
            registers::clean_data_cache(at.0, u64::from(bytes));
            // SAFETY: as in `compare_and_store`.
            *value = unsafe {
                match bytes {
                    1 => u64::from((*(at.0 as *const AtomicU8)).load(Ordering::Acquire)),
                    2 => u64::from((*(at.0 as *const AtomicU16)).load(Ordering::Acquire)),
                    4 => u64::from((*(at.0 as *const AtomicU32)).load(Ordering::Acquire)),
                    8 => (*(at.0 as *const AtomicU64)).load(Ordering::Acquire),
                    _ => return Err(OutsideRam),
                }
            };
        }
        Ok(value)
    }
}

/// What the integer atomics have in common here.
trait Atomic {
    type Value;
    fn swap_if(&self, old: Self::Value, new: Self::Value) -> bool;
}

macro_rules! atomic {
    ($($atomic:ty: $value:ty),*) => {$(
        impl Atomic for $atomic {
            type Value = $value;
            fn swap_if(&self, old: $value, new: $value) -> bool {
                self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
            }
        }
    )*};
}
atomic!(AtomicU8: u8, AtomicU16: u16, AtomicU32: u32, AtomicU64: u64);

fn swap<A: Atomic>(at: &A, old: A::Value, new: A::Value) -> bool {
    at.swap_if(old, new)
}

/// A 16-byte compare-and-swap: Rust has no stable one.
///
/// # Safety
///
/// `at` must be valid for reads and writes of 16 bytes and aligned to 16.
unsafe fn swap_pair(at: *mut u64, old: [u64; 2], new: [u64; 2]) -> bool {
    let failed: u64;
    // SAFETY: the caller's promise. The loop ends: only a write by another observer makes the
    // store-exclusive fail, and then the comparison decides anew.
    unsafe {
        core::arch::asm!(
            "2:",
            "ldaxp {low}, {high}, [{at}]",
            "cmp {low}, {old_low}",
            "ccmp {high}, {old_high}, #0, eq",
            "b.ne 3f",
            "stlxp {failed:w}, {new_low}, {new_high}, [{at}]",
            "cbnz {failed:w}, 2b",
            "b 4f",
            "3:",
            "clrex",
            "mov {failed}, #1",
            "4:",
            at = in(reg) at,
            old_low = in(reg) old[0],
            old_high = in(reg) old[1],
            new_low = in(reg) new[0],
            new_high = in(reg) new[1],
            low = out(reg) _,
            high = out(reg) _,
            failed = out(reg) failed,
            options(nostack)
        );
    }
    failed == 0
}
