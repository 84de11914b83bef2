//! The canonical form of a stream: what is left when everything that time decides is taken out.
//!
//! Two runs of a random program differ in when interrupts come, and in nothing else. The form takes
//! out exactly this, checking on the way that each thing taken out is what it should be:
//!
//! 1. **Excursions.** From the vector of an IRQ, an FIQ or an SError to the handler's ERET, the
//!    addresses must be those of the handler, each once and in order. A nested excursion may lie only
//!    between the two instructions where the handler of IRQs has these unmasked, and is held to the
//!    same.
//! 2. **Restarts.** An excursion that began inside of the restartable exception return ends at its
//!    start. The part that had executed before is taken out.
//! 3. **Retries.** A turn of an exclusive loop that failed is taken out whole. It may have failed
//!    only if an excursion began between its load and its store: a store-exclusive that fails for no
//!    reason is an error, although the architecture would allow it, because neither QEMU nor
//!    Stepwell has a reason.
//!    A loop may send itself an SGI, once. With interrupts held that breaks nothing, though a
//!    hypervisor carries it out; so what sends it is taken out of the turn that is left.
//! 4. **Fetches that abort** (addresses outside of the guest's memory): QEMU does not report them.
//!
//! What is left, the main line, has to be equal instruction by instruction.

use std::collections::{HashMap, HashSet};

use super::program::{Exclusive, Places};
use crate::stream::Stream;

const INSTRUCTION: u64 = 4;
/// Offsets of the vectors of synchronous exceptions: from EL1 with its own stack pointer, and from
/// EL0. Those of IRQ, FIQ and SError come after them.
const VECTORS: [u64; 2] = [0x200, 0x400];
/// From one vector of a group to the next.
const NEXT_VECTOR: u64 = 0x80;
/// Instructions of the restartable exception return, of which the last is the ERET.
const RETURN_WORDS: u64 = 4;
const MEMORY: std::ops::Range<u64> = 0x4000_0000..0x1_0000_0000;

/// What the form is made with.
pub struct Form<'a> {
    /// The ground's places.
    pub places: &'a Places,
    /// Addresses of the handler's instructions that unmask and mask interrupts.
    pub window: (u64, u64),
    /// The program's exclusive loops.
    pub exclusives: &'a [Exclusive],
    /// Excursions cannot be seen (`over`): then a retry needs no visible reason.
    pub blind: bool,
}

/// A stream in canonical form, and what was taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canonical {
    /// What is to be equal.
    pub main: Stream,
    /// Interrupts that were entered.
    pub excursions: u64,
    /// Of those, the nested ones.
    pub nested: u64,
    /// Exception returns that were started anew.
    pub restarts: u64,
    /// Turns of exclusive loops that failed.
    pub retries: u64,
}

struct Reader<'a> {
    form: &'a Form<'a>,
    starts: HashMap<u64, Exclusive>,
    loads: HashSet<u64>,
    pokes: HashSet<u64>,
    stores: HashMap<u64, Exclusive>,
    /// Where each handler that is in progress is to go on, and its last instruction.
    handlers: Vec<(u64, u64)>,
    /// An excursion ended right before.
    after_excursion: bool,
    /// Index in the main line of the load-exclusive executed last, and whether an excursion came
    /// since then.
    load: Option<usize>,
    is_broken: bool,
    /// The store-exclusive executed last could fail.
    may_fail: bool,
    canonical: Canonical,
}

impl Form<'_> {
    /// Brings a stream into canonical form.
    ///
    /// # Errors
    /// A text that says which rule is broken, and where.
    pub fn of(&self, stream: &[u64]) -> Result<Canonical, String> {
        let by = |key: fn(&Exclusive) -> u64| {
            self.exclusives.iter().map(|exclusive| (key(exclusive), *exclusive)).collect()
        };
        let mut reader = Reader {
            form: self,
            starts: by(|exclusive| exclusive.start),
            loads: self.exclusives.iter().map(|exclusive| exclusive.load).collect(),
            pokes: self.exclusives.iter().flat_map(Exclusive::poke).collect(),
            stores: by(|exclusive| exclusive.store),
            handlers: Vec::new(),
            after_excursion: false,
            load: None,
            is_broken: false,
            may_fail: false,
            canonical: Canonical::default(),
        };
        for (index, &pc) in stream.iter().enumerate() {
            reader.take(pc).map_err(|what| {
                let before = &stream[index.saturating_sub(12)..index];
                format!("step {index}, {pc:#x}: {what}; before it: {before:x?}")
            })?;
        }
        Ok(reader.canonical)
    }
}

impl Reader<'_> {
    fn take(&mut self, pc: u64) -> Result<(), String> {
        let places = self.form.places;
        if let Some(handler) = handler_of(places, pc) {
            return self.enter(handler);
        }
        if let Some((next, last)) = self.handlers.last_mut() {
            if *next != pc {
                return Err(format!("the handler was to go on at {:#x}", *next));
            }
            *next += INSTRUCTION;
            if pc == *last {
                self.handlers.pop();
                self.after_excursion = self.handlers.is_empty();
            }
            return Ok(());
        }
        if MEMORY.contains(&pc) {
            self.main(pc)?;
        }
        self.after_excursion = false;
        Ok(())
    }

    fn enter(&mut self, handler: (u64, u64)) -> Result<(), String> {
        if let Some(&(next, _)) = self.handlers.last() {
            if handler.0 != self.form.places.interrupt {
                return Err("a nested exception that the handler has masked".into());
            }
            let (unmask, mask) = self.form.window;
            if next <= unmask || next > mask {
                return Err("an interrupt where the handler has them masked".into());
            }
            self.canonical.nested += 1;
        }
        self.canonical.excursions += 1;
        self.is_broken = true;
        self.handlers.push(handler);
        Ok(())
    }

    fn main(&mut self, pc: u64) -> Result<(), String> {
        let main = &mut self.canonical.main;
        let start = self.form.places.exception_return;
        let partial = start..start + INSTRUCTION * (RETURN_WORDS - 1);
        if (self.after_excursion || self.form.blind)
            && pc == start
            && main.last().is_some_and(|last| partial.contains(last))
        {
            while main.last().is_some_and(|last| partial.contains(last)) {
                main.pop();
            }
            self.canonical.restarts += 1;
        }
        if let Some(exclusive) = self.starts.get(&pc)
            && main.last() == Some(&exclusive.end)
        {
            if !self.may_fail && !self.form.blind {
                return Err("a store-exclusive failed for no reason".into());
            }
            let turn = main.iter().rposition(|&at| at == pc).ok_or("half a turn")?;
            main.truncate(turn);
            self.canonical.retries += 1;
        }
        if let Some(exclusive) = self.stores.get(&pc) {
            let load = self.load.is_some_and(|at| main.get(at) == Some(&exclusive.load));
            self.may_fail = self.is_broken || !load;
        }
        if self.pokes.contains(&pc) {
            return Ok(());
        }
        main.push(pc);
        if self.loads.contains(&pc) {
            self.load = Some(main.len() - 1);
            self.is_broken = false;
        }
        Ok(())
    }
}

/// The handler whose vector an address is: its first instruction and its last.
fn handler_of(places: &Places, pc: u64) -> Option<(u64, u64)> {
    let vectors = VECTORS.map(|offset| places.vectors + offset);
    let handlers = [(places.interrupt, places.interrupt_end), places.fast_interrupt, places.error];
    handlers.into_iter().zip(1..).find_map(|(handler, kind)| {
        vectors.iter().any(|vector| vector + kind * NEXT_VECTOR == pc).then_some(handler)
    })
}

#[cfg(test)]
mod tests {
    use super::super::program::test_places;
    use super::*;

    const VECTOR: u64 = 0x4020_1280;
    const LOOP: Exclusive = Exclusive {
        start: 0x4030_0000,
        load: 0x4030_0004,
        store: 0x4030_0008,
        end: 0x4030_000c,
        trap: 0,
        el0: false,
    };

    fn canonical(stream: &[u64]) -> Result<Canonical, String> {
        let places = test_places();
        let window = (places.interrupt + 4, places.interrupt + 12);
        Form { places: &places, window, exclusives: &[LOOP], blind: false }.of(stream)
    }

    fn handler() -> Vec<u64> {
        let places = test_places();
        let body = (places.interrupt..=places.interrupt_end).step_by(4);
        std::iter::once(VECTOR).chain(body).collect()
    }

    fn with(parts: &[&[u64]]) -> Stream {
        parts.concat()
    }

    const TURN: [u64; 4] = [LOOP.start, LOOP.load, LOOP.store, LOOP.end];

    #[test]
    fn excursions_are_taken_out_and_checked() {
        let (main, handler) = ([0x4030_1000, 0x4030_1004], handler());
        let seen = canonical(&with(&[&main[..1], &handler, &main[1..]])).unwrap();
        assert_eq!((seen.main, seen.excursions), (main.to_vec(), 1));
        for lost in 1..handler.len() {
            let mut less = handler.clone();
            less.remove(lost);
            assert!(canonical(&with(&[&main[..1], &less, &main[1..]])).is_err(), "{lost}");
        }
    }

    #[test]
    fn nested_excursions_lie_in_the_window_only() {
        let handler = handler();
        let nested_at = |at: usize| with(&[&handler[..at], &handler, &handler[at..], &[LOOP.end]]);
        // Two instructions have executed, of which the second unmasks.
        assert_eq!(canonical(&nested_at(3)).unwrap().nested, 1);
        assert_eq!(canonical(&nested_at(4)).unwrap().main, [LOOP.end]);
        assert!(canonical(&nested_at(2)).is_err());
        assert!(canonical(&nested_at(5)).is_err());
    }

    #[test]
    fn fast_interrupts_and_errors_are_excursions_of_their_own() {
        let places = test_places();
        for (vector, (first, last)) in [(0x300, places.fast_interrupt), (0x580, places.error)] {
            let body: Vec<u64> =
                std::iter::once(places.vectors + vector).chain((first..=last).step_by(4)).collect();
            let seen = canonical(&with(&[&body, &[LOOP.end]])).unwrap();
            assert_eq!((seen.main, seen.excursions), (vec![LOOP.end], 1));
            let handler = handler();
            let nested = with(&[&handler[..3], &body, &handler[3..]]);
            assert!(canonical(&nested).is_err(), "masked in the handler of interrupts");
            assert!(canonical(&with(&[&body[..2], &body])).is_err(), "half a handler");
        }
    }

    #[test]
    fn a_retry_needs_a_reason() {
        let handler = handler();
        let broken = with(&[&TURN[..2], &handler, &TURN[2..], &TURN]);
        let seen = canonical(&broken).unwrap();
        assert_eq!((seen.main, seen.retries), (TURN.to_vec(), 1));
        assert!(canonical(&with(&[&TURN, &TURN])).is_err(), "nothing came in between");
        let before = with(&[&TURN[..1], &handler, &TURN[1..], &TURN]);
        assert!(canonical(&before).is_err(), "before the load is too early");
        let after = with(&[&TURN[..3], &handler, &TURN[3..], &TURN]);
        assert!(canonical(&after).is_err(), "after the store is too late");
    }

    #[test]
    fn what_sends_the_loops_own_sgi_is_taken_out() {
        let poking = Exclusive { trap: 0x4030_1004, ..LOOP };
        let poke: Vec<_> = poking.poke().collect();
        assert_eq!(poke, (0..5).map(|n| 0x4030_1000 + 4 * n).collect::<Vec<_>>());
        assert_eq!(LOOP.poke().count(), 0);
        let places = test_places();
        let form = Form { places: &places, window: (0, 0), exclusives: &[poking], blind: false };
        let held = form.of(&with(&[&TURN[..2], &poke, &TURN[2..]])).unwrap();
        let taken = form.of(&with(&[&TURN[..2], &poke, &handler(), &TURN[2..], &TURN])).unwrap();
        assert_eq!((held.main, taken.main), (TURN.to_vec(), TURN.to_vec()));
        assert_eq!((held.retries, taken.retries), (0, 1));
    }

    #[test]
    fn a_restarted_return_is_seen_once() {
        let (handler, start) = (handler(), test_places().exception_return);
        let whole: Vec<u64> = (0..4).map(|n| start + 4 * n).collect();
        for executed in 1..4 {
            let seen = canonical(&with(&[&whole[..executed], &handler, &whole])).unwrap();
            assert_eq!((seen.main, seen.restarts), (whole.clone(), 1));
        }
        let twice = canonical(&with(&[&whole[..2], &whole])).unwrap();
        assert_eq!(twice.main.len(), 6, "without an interrupt it is a doubled instruction");
    }
}
