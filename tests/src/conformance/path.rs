//! From a declared path to the PCs that a view must show, and from a stream to its cases.

use stepwell_guests::conform::{Case, INTERRUPT_INSTRUCTIONS, Level, Run, UNMAPPED};
use stepwell_trace::Symbols;
use stepwell_trace::symbols::elf;

use super::View;
use crate::stream::Stream;

const DEVICE: u64 = 0x0900_0000;
/// Offsets of the vectors: synchronous from EL1 on SP_EL0, from EL1, from EL0; next come those of
/// IRQ and FIQ.
const FROM_SP_EL0: u64 = 0x000;
const FROM_EL1: u64 = 0x200;
const FROM_EL0: u64 = 0x400;
const IRQ: u64 = 0x80;
const FIQ: u64 = 0x100;

/// Where the guest's code is.
#[derive(Debug)]
pub struct Places {
    symbols: Symbols,
}

impl Places {
    /// Reads the guest's symbols.
    ///
    /// # Errors
    /// A text, when the file is no ELF.
    pub fn read(file: &[u8]) -> Result<Self, String> {
        Ok(Self { symbols: elf::from_elf(file).map_err(|error| error.to_string())? })
    }

    /// The address of one symbol.
    ///
    /// # Panics
    /// Where the guest does not have it: then it is another guest.
    #[must_use]
    pub fn of(&self, symbol: &str) -> u64 {
        self.symbols.address_of(symbol).unwrap_or_else(|| panic!("no {symbol} in the guest")).0
    }
}

impl From<Symbols> for Places {
    fn from(symbols: Symbols) -> Self {
        Self { symbols }
    }
}

/// The path that a view has to show, with interrupts as the view takes them.
#[must_use]
pub fn declared(case: &Case, run: Run, view: View) -> String {
    let departure = case.departure.filter(|departure| departure.is_the_cpus || view == View::Plain);
    let uninterrupted = departure.map_or(case.uninterrupted, |departure| departure.path);
    if !run.pending || !view.delivers() {
        return uninterrupted.to_owned();
    }
    match (departure, case.interrupted) {
        (None, Some(path)) => path.to_owned(),
        _ => after_first_instruction(uninterrupted, if case.fast { "fiq" } else { "irq" }),
    }
}

/// Instruction 0 unmasks interrupts, unless the case says otherwise.
fn after_first_instruction(path: &str, interrupt: &str) -> String {
    match path.strip_prefix("0-1") {
        // `0-1` alone, or as the start of a range.
        Some("") => format!("0 {interrupt} 1"),
        Some(rest) if rest.starts_with(' ') => format!("0 {interrupt} 1{rest}"),
        _ => match path.split_once(['-', ' ']) {
            Some(("0", rest)) if path.starts_with("0-") => format!("0 {interrupt} 1-{rest}"),
            Some(("0", rest)) => format!("0 {interrupt} {rest}"),
            _ => panic!("{path}: an interrupted path begins with instruction 0"),
        },
    }
}

/// Whether an interrupt is taken in a run.
#[must_use]
pub fn is_interrupted(case: &Case, run: Run, view: View) -> bool {
    let path = declared(case, run, view);
    path.contains("irq") || path.contains("fiq")
}

/// Whether an exception came before an instruction began.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// No: the instruction raised it.
    No,
    /// Yes.
    Yes,
    /// Yes, and QEMU lists the instruction all the same: it had begun to translate it.
    Listed,
}

/// What one word of a path leads to.
enum Part {
    /// Instructions of the case, or an address that cannot be fetched.
    Main(u64),
    /// A vector, its handler, and whether the exception came before an instruction began.
    Excursion { vector: u64, handler: u64, instructions: u64, before: Before },
}

fn parts(case: &Case, run: Run, view: View, places: &Places) -> Vec<Part> {
    let start = places.of(&format!("conform_case_{}", case.name));
    let vectors = places.of("conform_vectors");
    let own = if run.level == Level::El1 { FROM_EL1 } else { FROM_EL0 };
    let handler = places.of(case.handler.symbol());
    let synchronous = |offset: u64, before: Before| Part::Excursion {
        vector: vectors + offset,
        handler,
        instructions: case.handler.instructions(),
        before,
    };
    let interrupt = |offset: u64, symbol: &str| Part::Excursion {
        vector: vectors + offset,
        handler: places.of(symbol),
        instructions: INTERRUPT_INSTRUCTIONS,
        before: Before::Yes,
    };
    let mut parts = Vec::new();
    for word in declared(case, run, view).split_whitespace() {
        match word {
            "sync" => parts.push(synchronous(own, Before::No)),
            "sync0" => parts.push(synchronous(FROM_EL0, Before::No)),
            "sync1" => parts.push(synchronous(FROM_EL1, Before::No)),
            "synct" => parts.push(synchronous(FROM_SP_EL0, Before::No)),
            "step" | "break" => parts.push(synchronous(own, Before::Yes)),
            "pending" => parts.push(synchronous(own, Before::Listed)),
            "irq" | "irq0" | "fiq" | "fiq0" if !view.reports_handlers() => {}
            "irq" => parts.push(interrupt(own + IRQ, "conform_irq")),
            "irq0" => parts.push(interrupt(FROM_EL0 + IRQ, "conform_irq")),
            "fiq" => parts.push(interrupt(own + FIQ, "conform_fiq")),
            "fiq0" => parts.push(interrupt(FROM_EL0 + FIQ, "conform_fiq")),
            // QEMU reports what it fetched.
            "fetch" | "device" if view == View::Plain => {}
            "fetch" => parts.push(Part::Main(UNMAPPED)),
            "device" => parts.push(Part::Main(DEVICE)),
            numbers => {
                let main = instructions(numbers).map(|offset| Part::Main(start + offset));
                parts.extend(main);
            }
        }
    }
    parts
}

/// Byte offsets of `3`, `1-4` or `3+2`.
fn instructions(word: &str) -> impl Iterator<Item = u64> + use<> {
    let number = |text: &str| -> u64 {
        text.parse().unwrap_or_else(|_| panic!("{word:?} is no word of a path"))
    };
    let (first, last, bytes) = match (word.split_once('-'), word.split_once('+')) {
        (Some((first, last)), _) => (number(first), number(last), 0),
        (_, Some((at, bytes))) => (number(at), number(at), number(bytes)),
        _ => (number(word), number(word), 0),
    };
    (first..=last).map(move |instruction| 4 * instruction + bytes)
}

/// The PCs that a view must show of a run, from the one after `conform_enter` to the one before
/// `conform_end`.
///
/// A recording tells what began to execute. Stops tell where the next instruction is, so an
/// exception that comes before an instruction shows that instruction's PC twice. QEMU lists what it
/// translated: an instruction that was not to execute because a step exception was pending is in
/// its log, too.
#[must_use]
pub fn expected(case: &Case, run: Run, view: View, places: &Places) -> Stream {
    let parts = parts(case, run, view, places);
    let mut stream = Stream::new();
    for (n, part) in parts.iter().enumerate() {
        match *part {
            Part::Main(pc) => stream.push(pc),
            Part::Excursion { vector, handler, instructions, before } => {
                let shows_next = match view {
                    View::Stops => before != Before::No,
                    View::Plain => before == Before::Listed,
                    _ => false,
                };
                if shows_next {
                    let next = parts[n..].iter().find_map(|part| match part {
                        Part::Main(pc) => Some(*pc),
                        Part::Excursion { .. } => None,
                    });
                    // Behind the last instruction the end is next, which is no part of the case.
                    stream.push(next.unwrap_or_else(|| places.of("conform_end")));
                }
                stream.push(vector);
                stream.extend((0..instructions).map(|n| handler + 4 * n));
            }
        }
    }
    stream
}

/// Cuts a whole guest's stream into its runs.
#[must_use]
pub fn cut(stream: &[u64], places: &Places) -> Vec<Stream> {
    let (enter, end) = (places.of("conform_enter"), places.of("conform_end"));
    let mut runs = Vec::new();
    let mut rest = stream;
    while let Some(at) = rest.iter().position(|&pc| pc == enter) {
        rest = &rest[at + 1..];
        let next = |wanted: u64| rest.iter().position(|&pc| pc == wanted);
        // A run that never ends goes on until the next begins.
        let length = next(end).unwrap_or(rest.len()).min(next(enter).unwrap_or(rest.len()));
        runs.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_guests::conform::cases;

    #[test]
    fn words_of_a_path() {
        assert_eq!(instructions("3").collect::<Vec<_>>(), [12]);
        assert_eq!(instructions("1-3").collect::<Vec<_>>(), [4, 8, 12]);
        assert_eq!(instructions("3+2").collect::<Vec<_>>(), [14]);
        assert_eq!(after_first_instruction("0-3 5", "irq"), "0 irq 1-3 5");
        assert_eq!(after_first_instruction("0-1 sync 2", "irq"), "0 irq 1 sync 2");
        assert_eq!(after_first_instruction("0-10", "irq"), "0 irq 1-10");
        assert_eq!(after_first_instruction("0 step 1", "fiq"), "0 fiq step 1");
    }

    #[test]
    fn every_declared_path_can_be_read() {
        for (case, run) in cases::runs() {
            for view in View::ALL {
                for word in declared(case, run, view).split_whitespace() {
                    if word.starts_with(|c: char| c.is_ascii_digit()) {
                        assert!(instructions(word).count() > 0, "{}: {word}", case.name);
                    } else {
                        let known = [
                            "sync", "sync0", "synct", "step", "break", "pending", "irq", "irq0",
                            "fiq", "fiq0", "fetch", "device",
                        ];
                        assert!(known.contains(&word), "{}: {word}", case.name);
                    }
                }
            }
        }
    }
}
