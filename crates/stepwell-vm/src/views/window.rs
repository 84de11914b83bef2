//! What has been executed since a load-exclusive, as far as the code tells.
//!
//! After an exit of EL2's in an exclusive sequence the monitor may be armed as if there had been none, but
//! only if the load has executed, and nothing since that opens the monitor. Code tells what may have been:
//! who came to the PC straight from the load, or by a subroutine that is there to be seen. It does not tell
//! who has jumped in, but for branches in the same page; what the registers say of the load is asked besides
//! ([`stepwell_engine::retrace`]).
//!
//! Source: Arm ARM, DDI 0487 L.b, "Exclusive access instructions and Non-shareable memory locations".

use super::sequence::{PAGE, last_load};
use heapless::Vec;
use stepwell_arch::load_store::Direction;
use stepwell_arch::{DirectBranch, Instruction, LoadStore, Operands};

/// Instructions of a subroutine that are looked at.
const SUBROUTINE_MAX: usize = 16;
/// Most instructions that are taken down.
const WORDS_MAX: usize = 128;

/// The instructions from behind a load-exclusive to before the PC.
#[derive(Clone, Debug)]
pub struct Window {
    /// Index of the load in its page.
    pub load: usize,
    /// Index of what comes behind it in a row.
    at: usize,
    /// They are as executed, subroutines where they were called.
    pub words: Vec<u32, WORDS_MAX>,
    /// All of them are there once, one behind the other.
    pub is_straight: bool,
    /// What was called is there, and no branch of this page leads in from elsewhere.
    pub is_whole: bool,
    /// Where the subroutines are that were called: first and behind the last.
    subroutines: Vec<(usize, usize), 4>,
}

impl Window {
    /// Finds the one that leads to the instruction with index `at` in a page, which may lie in what was
    /// called and is to return to index `link`. `word` reads an instruction of the page.
    pub fn before(at: usize, link: Option<usize>, word: impl Fn(usize) -> u32) -> Option<Self> {
        if let Some(window) = Self::straight(at, &word) {
            return Some(window);
        }
        let call = link?.checked_sub(1)?;
        let this = word(call);
        let Instruction::Bl { .. } = Instruction::decode(this) else { return None };
        let Called::Plain(first, end) = subroutine(target(call, this)?, &word) else { return None };
        if !(first..=end).contains(&at) {
            return None;
        }
        let mut window = Self::straight(call, &word)?;
        window.push(this);
        (first..at).for_each(|index| window.push(word(index)));
        let known = window.subroutines.push((first, at + 1));
        let is_led_into =
            |source| target(source, word(source)).is_some_and(|to| to > first && to <= at);
        window.is_whole &= known.is_ok() && !(0..PAGE).any(is_led_into);
        Some(window)
    }

    /// The one around an instruction that lies in a row with the load.
    fn straight(at: usize, word: &impl Fn(usize) -> u32) -> Option<Self> {
        let load = last_load(at, word, |word| opens(word) || leaves(word))?;
        let inside = load + 1..at;
        let (words, subroutines) = (Vec::new(), Vec::new());
        let mut window = Self { load, at, words, is_straight: true, is_whole: true, subroutines };
        for index in inside.clone() {
            window.take(index, word)?;
        }
        let targets = load + 1..=at;
        for source in 0..PAGE {
            let Some(target) = target(source, word(source)) else { continue };
            if inside.contains(&source) {
                window.is_straight &= !targets.contains(&target);
            } else {
                window.is_whole &= !targets.contains(&target);
            }
        }
        Some(window)
    }

    /// Takes an instruction in. Nothing if the monitor is open behind it.
    fn take(&mut self, index: usize, word: &impl Fn(usize) -> u32) -> Option<()> {
        let this = word(index);
        self.push(this);
        match Instruction::decode(this) {
            Instruction::Bl { .. } => match target(index, this).map(|to| subroutine(to, word)) {
                Some(Called::Plain(first, end)) => {
                    let known = self.subroutines.push((first, end));
                    self.is_whole &= known.is_ok();
                    (first..end).for_each(|index| self.push(word(index)));
                }
                Some(Called::Opens) => return None,
                Some(Called::Unseen) | None => self.is_whole = false,
            },
            Instruction::Blr { .. } => self.is_whole = false,
            // What has returned is not known behind it.
            _ if is_msr_elr(this) => self.is_whole = false,
            _ => {}
        }
        Some(())
    }

    fn push(&mut self, word: u32) {
        if self.words.push(word).is_err() {
            self.is_whole = false;
        }
    }

    /// Least instructions that have been executed, the load among them.
    #[must_use]
    pub fn executed(&self) -> u64 {
        self.words.len() as u64 + 1
    }

    /// Tells whether an instruction of the page, which execution has returned to, lies behind the load.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        let is_called = |&(first, end): &(usize, usize)| (first..end).contains(&index);
        (self.load + 1..=self.at).contains(&index) || self.subroutines.iter().any(is_called)
    }

    /// Tells whether something may have been stored.
    #[must_use]
    pub fn stores(&self) -> bool {
        let is_store = |&word: &u32| {
            LoadStore::decode(word)
                .map_or(word >> 25 & 0b101 == 0b100, |what| what.direction != Direction::Load)
        };
        !self.is_whole || self.words.iter().any(is_store)
    }

    /// Tells whether one of these registers may have changed: see [`Operands`].
    #[must_use]
    pub fn writes(&self, registers: u32) -> bool {
        self.words.iter().any(|&word| Operands::decode(word).writes & registers != 0)
    }
}

/// Store-exclusives, CLREX, and what is an exception, or returns from one.
fn opens(word: u32) -> bool {
    match Instruction::decode(word) {
        Instruction::StoreExclusive { .. } | Instruction::ClearExclusive | Instruction::Eret => {
            true
        }
        _ => word >> 24 == 0xd4,
    }
}

/// B, BR and RET: what lies behind is executed by somebody else.
fn leaves(word: u32) -> bool {
    match Instruction::decode(word) {
        Instruction::Blr { .. } | Instruction::Bl { .. } => false,
        _ => word & 0xfc00_0000 == 0x1400_0000 || word & 0xfe00_0000 == 0xd600_0000,
    }
}

/// MSR of ELR_EL1 or SPSR_EL1.
const fn is_msr_elr(word: u32) -> bool {
    word & 0xffff_ffc0 == 0xd518_4000
}

/// Where a direct branch leads within its page.
fn target(index: usize, word: u32) -> Option<usize> {
    let branch = DirectBranch::decode(word)?;
    let target = (index as i64).wrapping_add(branch.instructions);
    usize::try_from(target).ok().filter(|&target| target < PAGE)
}

enum Called {
    /// It is executed from its first instruction to before its RET, and leaves the monitor as it is.
    Plain(usize, usize),
    Opens,
    /// Its end is not to be seen.
    Unseen,
}

fn subroutine(first: usize, word: &impl Fn(usize) -> u32) -> Called {
    let mut is_straight = true;
    for index in first..(first + SUBROUTINE_MAX).min(PAGE) {
        let word = word(index);
        match Instruction::decode(word) {
            Instruction::Ret { rn: 30 } if is_straight => return Called::Plain(first, index),
            Instruction::Ret { .. } => return Called::Unseen,
            _ if opens(word) && is_straight => return Called::Opens,
            Instruction::LoadExclusive { .. } if is_straight => return Called::Opens,
            _ if DirectBranch::decode(word).is_some() || leaves(word) => is_straight = false,
            Instruction::Blr { .. } => return Called::Unseen,
            _ => is_straight &= Operands::decode(word).writes & 1 << 30 == 0,
        }
    }
    Called::Unseen
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0xd503_201f;
    const LDXR: u32 = 0xc85f_7c20; // ldxr x0, [x1]
    const STXR: u32 = 0xc802_7c20; // stxr w2, x0, [x1]
    const RET: u32 = 0xd65f_03c0;
    const SVC: u32 = 0xd400_0001;

    const fn b(instructions: i32) -> u32 {
        0x1400_0000 | instructions as u32 & 0x03ff_ffff
    }
    const fn bl(instructions: i32) -> u32 {
        0x9400_0000 | instructions as u32 & 0x03ff_ffff
    }
    const fn cbz(instructions: i32) -> u32 {
        0xb400_0000 | (instructions as u32 & 0x7_ffff) << 5
    }

    fn before(at: usize, words: &[u32]) -> Option<Window> {
        Window::before(at, None, |index| words.get(index).copied().unwrap_or(0))
    }

    #[test]
    fn what_is_executed_in_a_row_is_whole() {
        let window = before(4, &[NOP, LDXR, NOP, cbz(9), NOP, STXR, cbz(-5)]).expect("it is one");
        assert_eq!((window.load, window.executed(), &window.words[..]), (1, 3, &[NOP, cbz(9)][..]));
        assert!(window.is_whole && window.is_straight);
        assert!(!window.contains(1) && window.contains(2) && window.contains(4));
        assert!(!window.writes(1 << 1) && !window.stores());
        // mov x1, #0; str x5, [x0]
        let window = before(3, &[LDXR, 0xd280_0001, 0xf900_0005, STXR]).expect("it is one");
        assert!(window.writes(1 << 1) && window.stores());
    }

    #[test]
    fn what_opens_the_monitor_or_leads_elsewhere_ends_it() {
        // With ERET, CLREX, SVC, HVC, BRK, BR and a store-exclusive.
        let ends =
            [RET, b(1), 0xd69f_03e0, 0xd503_3f5f, SVC, 0xd400_0002, 0xd420_0000, 0xd61f_00a0, STXR];
        for end in ends {
            assert!(before(2, &[LDXR, end, NOP]).is_none(), "{end:#x}");
        }
    }

    #[test]
    fn a_branch_in_from_elsewhere_is_seen() {
        // Over the load; and back from code that lies behind.
        for words in [[cbz(2), LDXR, NOP, STXR, NOP, RET], [NOP, LDXR, NOP, STXR, NOP, b(-3)]] {
            let window = before(3, &words).expect("it may be one");
            assert!(!window.is_whole, "{words:x?}");
        }
        // To the load, and out: as loops have it.
        let window = before(3, &[NOP, LDXR, cbz(3), STXR, cbz(-3), RET]).expect("it is one");
        assert!(window.is_whole && window.is_straight);
        // Round in it.
        let window = before(4, &[NOP, LDXR, NOP, cbz(-1), STXR]).expect("it is one");
        assert!(window.is_whole && !window.is_straight);
    }

    #[test]
    fn subroutines_are_looked_into() {
        let called = |words: &[u32]| {
            let all = [&[LDXR, bl(3), NOP, STXR], words].concat();
            before(2, &all)
        };
        let window = called(&[NOP, NOP, RET]).expect("it is one");
        assert_eq!((window.is_whole, &window.words[..]), (true, &[bl(3), NOP, NOP][..]));
        assert!(window.contains(5) && !window.contains(6));
        assert!(called(&[SVC, RET]).is_none());
        assert!(called(&[0xd503_3f5f, RET]).is_none());
        // A branch, a call by register, another link, and no end.
        for words in [[cbz(2), RET], [0xd63f_00a0, RET], [0xd280_001e, RET], [NOP, NOP]] {
            assert!(!called(&words).expect("it may be one").is_whole, "{words:x?}");
        }
        // From within.
        let words = [LDXR, bl(3), NOP, STXR, NOP, 0xd280_0001, RET];
        let within = |at, link| Window::before(at, link, |n| words.get(n).copied().unwrap_or(0));
        let window = within(6, Some(2)).expect("it is one");
        assert_eq!((window.is_whole, &window.words[..]), (true, &[bl(3), NOP, 0xd280_0001][..]));
        assert!(window.contains(6) && !window.contains(3));
        assert!(within(6, None).is_none() && within(6, Some(3)).is_none());
        assert!(within(7, Some(2)).is_none());
        // Out of the page.
        assert!(!before(2, &[LDXR, bl(-2), NOP]).expect("it may be one").is_whole);
    }
}
