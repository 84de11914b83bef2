//! A domain's RAM, as its machine sees it.
//!
//! Addresses are the guest's, so every access is checked against the RAM; nothing outside of it can
//! be reached. Others may write the same bytes meanwhile: then a copy is torn, as a bus master's
//! would be, and single accesses are atomic.

use crate::views::CodeMemory;
use stepwell_arch::stage1::PhysicalMemory;
use stepwell_arch::{Ipa, Pa, Va};
use stepwell_engine::Image;
use stepwell_wire::devices::Bytes;

/// Doublewords of a page.
pub const PAGE_WORDS: usize = 512;
/// Bytes of a page that are copied at a time, where nothing copies more.
const PIECE: usize = PIECE_WORDS * 8;
const PIECE_WORDS: usize = 32;

/// The address lies outside the domain's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideRam;

/// A domain's memory: RAM in one range, at [`RAM_BASE`](crate::device::board::RAM_BASE) for the guest, and
/// the board's flash in another, at 0, where it has any.
pub trait GuestMemory {
    /// A page of guest code that instructions can be read from.
    type Page: Copy + Eq + core::hash::Hash;
    /// What its stage-2 tables lie in.
    type Tables: CodeMemory;

    /// What its stage-2 tables lie in.
    fn tables(&self) -> Self::Tables;
    /// First byte of RAM, physically.
    fn base(&self) -> Pa;
    /// How many there are.
    fn bytes(&self) -> u64;
    /// Tells whether memory at `pa` is RAM, to which stores go: flash takes them for commands.
    fn is_stored_to(&self, pa: Pa) -> bool {
        pa.0.checked_sub(self.base().0).is_some_and(|offset| offset < self.bytes())
    }
    /// Where `length` bytes of the guest's physical memory are, if all of them are RAM, or flash.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`].
    fn locate(&self, ipa: Ipa, length: u64) -> Result<Pa, OutsideRam>;
    /// Copies guest memory out.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`]; nothing was copied then.
    fn read(&self, ipa: Ipa, into: &mut [u8]) -> Result<(), OutsideRam>;
    /// Copies into guest memory, and makes it visible to instruction fetch.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`]; nothing was copied then.
    fn write(&self, ipa: Ipa, from: &[u8]) -> Result<(), OutsideRam>;
    /// As [`GuestMemory::write`], out of memory that somebody else may change meanwhile.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`]; nothing was copied then.
    fn write_shared(&self, ipa: Ipa, from: Bytes<'_>) -> Result<(), OutsideRam> {
        write_by_pieces(self, ipa, from)
    }
    /// The code page at `pa`.
    fn code_page(&self, pa: Pa) -> Option<Self::Page>;
    /// Reads the instruction at `va`, which lies in this page.
    fn instruction(&self, page: Self::Page, va: Va) -> Option<u32>;
    /// Reads the halfword at `va`, which lies in this page: T32 instructions are one or two of these.
    fn halfword(&self, page: Self::Page, va: Va) -> Option<u16>;
    /// Stores `new` at `pa` if it holds `old`, in one atomic access of as many bytes: 1, 2, 4, 8 or
    /// 16.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`] where the access does not lie in RAM, is misaligned, or of no such size.
    fn compare_and_store(&self, pa: Pa, old: Image, new: Image) -> Result<bool, OutsideRam>;
    /// Reads `bytes` bytes at `pa`: 1, 2, 4, 8, or 16 in two accesses.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`], as [`GuestMemory::compare_and_store`].
    fn image(&self, pa: Pa, bytes: u8) -> Result<Image, OutsideRam>;
    /// Stores `bytes` bytes at `pa` in one atomic access: 1, 2, 4 or 8.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`], as [`GuestMemory::compare_and_store`].
    fn poke(&self, pa: Pa, bytes: u8, value: u64) -> Result<(), OutsideRam>;
    /// Copies a page out, by words.
    fn save_page(&self, page: Ipa, into: &mut [u64; PAGE_WORDS]) {
        for (n, words) in (0..).zip(into.as_chunks_mut::<PIECE_WORDS>().0) {
            let mut bytes = [0; PIECE];
            if self.read(page.offset(n * PIECE as u64), &mut bytes).is_ok() {
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
            }
        }
    }
    /// Copies a page in, by words, and makes it visible to instruction fetch.
    fn restore_page(&self, page: Ipa, from: &[u64; PAGE_WORDS]) {
        for (n, words) in (0..).zip(from.as_chunks::<PIECE_WORDS>().0) {
            let mut bytes = [0; PIECE];
            for (word, bytes) in words.iter().zip(bytes.as_chunks_mut().0) {
                *bytes = word.to_le_bytes();
            }
            // Whoever asks has a page of this RAM.
            let _written = self.write(page.offset(n * PIECE as u64), &bytes);
        }
    }
    /// Reads what a load-exclusive of this size read.
    ///
    /// # Errors
    ///
    /// [`OutsideRam`].
    fn peek(&self, pa: Pa, bytes: u8, pair: bool) -> Result<[u64; 2], OutsideRam>;
}

/// [`GuestMemory::write_shared`] by copies of a few bytes.
///
/// # Errors
///
/// [`OutsideRam`]; nothing was copied then.
pub fn write_by_pieces<M: GuestMemory + ?Sized>(
    memory: &M,
    ipa: Ipa,
    from: Bytes<'_>,
) -> Result<(), OutsideRam> {
    memory.locate(ipa, from.length() as u64)?;
    let (mut at, mut rest) = (ipa, from);
    while rest.length() > 0 {
        let (now, later) = rest.split_at(PIECE);
        let mut bytes = [0; PIECE];
        now.copy_to(&mut bytes);
        memory.write(at, bytes.get(..now.length()).unwrap_or_default())?;
        (at, rest) = (at.offset(now.length() as u64), later);
    }
    Ok(())
}

/// Guest memory as a walk of the guest's own tables reads it.
pub struct Physical<'a, M>(pub &'a M);

impl<M: GuestMemory> PhysicalMemory for Physical<'_, M> {
    type Error = OutsideRam;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, OutsideRam> {
        let mut bytes = [0; 8];
        self.0.read(ipa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
