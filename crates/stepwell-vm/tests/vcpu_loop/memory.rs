//! RAM and stage-2 tables in one array of words, at addresses as a machine would have them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use stepwell_arch::{Ipa, Pa, Va};
use stepwell_engine::Image;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::device::flash::FLASH_BYTES;
use stepwell_vm::memory::{GuestMemory, OutsideRam};
use stepwell_vm::stage2::{PageUse, TableMemory};
use stepwell_vm::views::CodeMemory;

/// Where the RAM is, physically.
pub const BASE: Pa = Pa(0x8000_0000);
/// Bytes of RAM.
pub const BYTES: u64 = 0x20_0000;
/// Bytes of all memory: pages behind the RAM are for tables.
const ALL: u64 = BYTES + 0x10_0000;
const PAGE: u64 = 0x1000;

/// Where flash is, physically, if there is any.
pub const FLASH: Pa = Pa(0x1_0000_0000);

/// The machine's memory.
#[derive(Clone)]
pub struct Ram {
    words: Arc<Vec<AtomicU64>>,
    next_table: Arc<AtomicU64>,
    /// What is not zero in flash, by doublewords.
    flash: Option<Arc<Mutex<HashMap<u64, u64>>>>,
}

impl Ram {
    pub fn new() -> Self {
        let words = (0..ALL / 8).map(|_| AtomicU64::new(0)).collect();
        let next_table = Arc::new(AtomicU64::new(BASE.0 + BYTES));
        Self { words: Arc::new(words), next_table, flash: None }
    }

    /// With flash.
    pub fn with_flash(mut self) -> Self {
        self.flash = Some(Arc::default());
        self
    }

    /// What flash has at the doubleword of an address, and what it is to have.
    fn flash(&self, pa: Pa, change: impl FnOnce(u64) -> u64) -> Option<u64> {
        let at = pa.0.checked_sub(FLASH.0)? / 8;
        let mut words = self.flash.as_ref()?.lock().expect("no test panics with it");
        let word = words.entry(at).or_default();
        *word = change(*word);
        Some(*word)
    }

    fn word(&self, pa: Pa) -> Option<&AtomicU64> {
        self.words.get(usize::try_from(pa.0.checked_sub(BASE.0)? / 8).ok()?)
    }

    /// Reads an aligned value of up to 8 bytes, of RAM or of a table.
    pub fn load(&self, pa: Pa, bytes: u64) -> u64 {
        let flash = self.flash(pa, |word| word);
        let word = self.word(pa).map_or(0, |word| word.load(Ordering::SeqCst));
        let word = flash.unwrap_or(word);
        let unused = 64 - 8 * bytes as u32;
        (word >> (pa.0 % 8 * 8)) << unused >> unused
    }

    /// Reads up to 8 bytes, aligned or not.
    pub fn load_unaligned(&self, pa: Pa, bytes: u64) -> u64 {
        (0..bytes).map(|n| self.load(pa.offset(n), 1) << (8 * n)).sum()
    }

    /// Writes up to 8 bytes, aligned or not.
    pub fn store_unaligned(&self, pa: Pa, bytes: u64, value: u64) {
        (0..bytes).for_each(|n| self.store(pa.offset(n), 1, value >> (8 * n) & 0xff));
    }

    /// Stage 2: where a guest-physical address is by these tables, and its S2AP and XN bits.
    pub fn stage2(&self, root: Pa, ipa: u64) -> Option<(Pa, u64)> {
        let mut table = root;
        for level in 1..=3 {
            let shift = 39 - 9 * level;
            let entry = self.load(table.offset((ipa >> shift & 0x1ff) * 8), 8);
            if entry & 1 == 0 {
                return None;
            }
            let output = entry & 0x0000_ffff_ffff_f000;
            if level == 3 || entry & 2 == 0 {
                let inside = ipa & ((1 << shift) - 1);
                return Some((Pa(output & !((1 << shift) - 1) | inside), entry));
            }
            table = Pa(output);
        }
        None
    }

    pub fn store(&self, pa: Pa, bytes: u64, value: u64) {
        let shift = pa.0 % 8 * 8;
        let mask = u64::MAX >> (64 - 8 * bytes as u32) << shift;
        let change = |old| old & !mask | value << shift & mask;
        if self.flash(pa, change).is_some() {
            return;
        }
        let Some(word) = self.word(pa) else { return };
        word.store(change(word.load(Ordering::SeqCst)), Ordering::SeqCst);
    }
}

impl GuestMemory for Ram {
    type Page = Pa;
    type Tables = Self;

    fn tables(&self) -> Self {
        self.clone()
    }

    fn base(&self) -> Pa {
        BASE
    }

    fn bytes(&self) -> u64 {
        BYTES
    }

    fn locate(&self, ipa: Ipa, length: u64) -> Result<Pa, OutsideRam> {
        if self.flash.is_some() && ipa.0.saturating_add(length) <= FLASH_BYTES {
            return Ok(FLASH.offset(ipa.0));
        }
        let offset = ipa.0.checked_sub(RAM_BASE.0).ok_or(OutsideRam)?;
        let end = offset.checked_add(length).filter(|&end| end <= BYTES);
        end.map(|_| BASE.offset(offset)).ok_or(OutsideRam)
    }

    fn read(&self, ipa: Ipa, into: &mut [u8]) -> Result<(), OutsideRam> {
        let from = self.locate(ipa, into.len() as u64)?;
        for (n, byte) in (0..).zip(into) {
            *byte = self.load(from.offset(n), 1) as u8;
        }
        Ok(())
    }

    fn write(&self, ipa: Ipa, from: &[u8]) -> Result<(), OutsideRam> {
        let to = self.locate(ipa, from.len() as u64)?;
        for (n, &byte) in (0..).zip(from) {
            self.store(to.offset(n), 1, byte.into());
        }
        Ok(())
    }

    fn code_page(&self, pa: Pa) -> Option<Pa> {
        let is_code = |pa: &Pa| pa.0 >= FLASH.0 || (BASE.0..BASE.0 + BYTES).contains(&pa.0);
        Some(pa.align_down(PAGE)).filter(is_code)
    }

    fn instruction(&self, page: Pa, va: Va) -> Option<u32> {
        va.is_aligned(4).then(|| self.load(page.offset(va.0 & 0xfff), 4) as u32)
    }

    fn halfword(&self, page: Pa, va: Va) -> Option<u16> {
        va.is_aligned(2).then(|| self.load(page.offset(va.0 & 0xfff), 2) as u16)
    }

    fn compare_and_store(&self, pa: Pa, old: Image, new: Image) -> Result<bool, OutsideRam> {
        assert!(pa.is_aligned(new.bytes.into()) && new.bytes >= 8, "no program has others");
        if new.bytes == 16 {
            let has_old = self.image(pa, 16)? == old;
            if has_old {
                self.store(pa, 8, new.value as u64);
                self.store(pa.offset(8), 8, (new.value >> 64) as u64);
            }
            return Ok(has_old);
        }
        let (word, order) = (self.word(pa).ok_or(OutsideRam)?, Ordering::SeqCst);
        let stored = word.compare_exchange(old.value as u64, new.value as u64, order, order);
        Ok(stored.is_ok())
    }

    fn image(&self, pa: Pa, bytes: u8) -> Result<Image, OutsideRam> {
        let low = self.load(pa, bytes.min(8).into());
        let high = if bytes == 16 { self.load(pa.offset(8), 8) } else { 0 };
        Ok(Image { value: u128::from(high) << 64 | u128::from(low), bytes })
    }

    fn poke(&self, pa: Pa, bytes: u8, value: u64) -> Result<(), OutsideRam> {
        self.store_unaligned(pa, bytes.into(), value);
        Ok(())
    }

    fn peek(&self, pa: Pa, bytes: u8, _: bool) -> Result<[u64; 2], OutsideRam> {
        Ok([self.load_unaligned(pa, bytes.into()), 0])
    }
}

impl TableMemory for Ram {
    fn allocate(&mut self, _: PageUse) -> Option<Pa> {
        let table = Pa(self.next_table.fetch_add(PAGE, Ordering::SeqCst));
        (table.0 < BASE.0 + ALL).then_some(table)
    }

    fn free(&mut self, _: Pa) {}

    fn may_map(&self, _: Pa, _: u64) -> bool {
        true
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.load(table.offset(index as u64 * 8), 8)
    }

    fn write(&mut self, table: Pa, index: usize, value: u64) {
        self.store(table.offset(index as u64 * 8), 8, value);
    }

    fn invalidate(&mut self, _: Ipa, _: u64) {}
}

impl CodeMemory for Ram {
    fn read_guest(&self, page: Pa, index: usize) -> u64 {
        self.load(page.offset(index as u64 * 8), 8)
    }

    fn publish(&mut self, _: Pa) {}
}
