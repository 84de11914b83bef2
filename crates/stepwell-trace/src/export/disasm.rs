//! `disasm`: one line an instruction, with its place and text.
//!
//! ```text
//! vcpu pc symbol+offset word text <symbol of a branch's target>
//! ```
//!
//! What is not an instruction is a line that begins with `#`. Programs run in loops, so all of a
//! line but the vCPU is kept by PC; disassembling anew would take a microsecond.

use super::{ExportError, end_at_broken_pipe};
use crate::code::CodePages;
use crate::disassemble::{Disassembler, encoding};
use crate::flow::branch_target;
use crate::format::{Context, Event, ExceptionEntry, MemoryAccess, Record};
use crate::instruction_sets::InstructionSets;
use crate::printable::printable;
use crate::source::Source;
use crate::symbols::Symbols;
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use stepwell_arch::InstructionSet;
use stepwell_arch::address::Va;

/// Lines that are kept: some 30 MiB.
const LINES_MAX: usize = 1 << 18;

/// Writes the disassembly of what is left of a recording, with the code and symbols in it.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged or the output fails; a broken pipe is none.
pub fn write(source: &mut impl Source, output: impl Write) -> Result<(), ExportError> {
    let (code, symbols) = (source.code_pages()?, source.symbols()?);
    let mut lines = Lines::new(&code, &symbols)?;
    let mut output = BufWriter::with_capacity(1 << 18, output);
    let result = copy(source, &mut lines, &mut output);
    let flushed = output.flush().map_err(ExportError::from);
    end_at_broken_pipe(result.and(flushed))
}

fn copy(
    source: &mut impl Source,
    lines: &mut Lines<'_>,
    output: &mut impl Write,
) -> Result<(), ExportError> {
    while let Some(record) = source.next_record()? {
        lines.write(&record, output)?;
    }
    Ok(())
}

/// Turns records into lines.
#[derive(Debug)]
struct Lines<'a> {
    code: &'a CodePages,
    symbols: &'a Symbols,
    disassembler: Disassembler,
    sets: InstructionSets,
    kept: HashMap<(InstructionSet, u64), Box<str>>,
}

impl<'a> Lines<'a> {
    fn new(code: &'a CodePages, symbols: &'a Symbols) -> Result<Self, ExportError> {
        Ok(Self {
            code,
            symbols,
            disassembler: Disassembler::new()?,
            sets: InstructionSets::default(),
            kept: HashMap::new(),
        })
    }

    fn write(&mut self, record: &Record, output: &mut impl Write) -> Result<(), ExportError> {
        self.sets.observe(record);
        match record {
            Record::Run { vcpu, pc, length } => {
                for index in 0..u64::from(*length) {
                    let line = self.line(*vcpu, pc.offset(index * 4));
                    writeln!(output, "{vcpu} {line}")?;
                }
            }
            Record::Interrupt { vcpu, pc } => {
                writeln!(output, "# {vcpu} {pc:x} {} interrupted here", self.place(*pc))?;
            }
            Record::Event(Event::PrivilegedCall { vcpu, pc, immediate }) => {
                let place = self.place(*pc);
                writeln!(output, "# {vcpu} {pc:x} {place} privileged call #{immediate:#x}")?;
            }
            Record::Event(Event::Note(text)) => {
                for line in text.lines() {
                    writeln!(output, "# {}", printable(line))?;
                }
            }
            Record::Event(Event::Task { vcpu, pid, name, .. }) => {
                writeln!(output, "# {vcpu} task {pid} {}", printable(name))?;
            }
            other => self.detail(other, output)?,
        }
        Ok(())
    }

    /// What else is known of the last instruction, or of how the next one came about.
    fn detail(&self, record: &Record, output: &mut impl Write) -> io::Result<()> {
        match record {
            Record::ExceptionEntry(entry) => {
                let ExceptionEntry { vcpu, cause, return_address, vector, syndrome, intid } = entry;
                let from = self.place(*return_address);
                write!(output, "# {vcpu} {return_address:x} {from} {cause:?} to {vector:x}")?;
                match intid {
                    Some(intid) => writeln!(output, " INTID {intid}"),
                    None => writeln!(output, " ESR {syndrome:#x}"),
                }
            }
            Record::ExceptionReturn { vcpu, to, el } => {
                writeln!(output, "# {vcpu} {to:x} {} returned to, EL{el}", self.place(*to))
            }
            Record::Exclusive { vcpu, pc, stored } => {
                let what = if *stored { "stored" } else { "failed to store" };
                writeln!(output, "# {vcpu} {pc:x} {} {what}", self.place(*pc))
            }
            Record::Turns { vcpu, pc, why, steps } => {
                let place = self.place(*pc);
                writeln!(output, "# {vcpu} {pc:x} {place} waited for {why}: others {steps}")
            }
            Record::InstructionSet { vcpu, set } => writeln!(output, "# {vcpu} {set:?}"),
            Record::Context(Context { vcpu, el, vmid, asid, ttbr0 }) => {
                writeln!(output, "# {vcpu} EL{el} VMID {vmid} ASID {asid} TTBR0 {ttbr0:#x}")
            }
            Record::Register { vcpu, register, value, found } => {
                let how = if *found { " found" } else { "" };
                writeln!(output, "# {vcpu} {register} {value:016x}{how}")
            }
            Record::Memory(MemoryAccess { vcpu, access, address, size, value }) => {
                let value = value.map_or_else(|| "?".into(), |value| format!("{value:x}"));
                writeln!(output, "# {vcpu} {access:?} {address:x} {size} {value}")
            }
            Record::Time { .. } | Record::Run { .. } => Ok(()),
            Record::Interrupt { .. } | Record::Event(_) => Ok(()),
        }
    }

    fn line(&mut self, vcpu: u8, pc: Va) -> &str {
        let set = self.sets.of(vcpu);
        let key = (set, pc.0);
        if self.kept.len() >= LINES_MAX && !self.kept.contains_key(&key) {
            self.kept.clear();
        }
        let (code, symbols, disassembler) = (self.code, self.symbols, &self.disassembler);
        self.kept.entry(key).or_insert_with(|| {
            let place = place(symbols, pc);
            let Some(word) = code.instruction(set, pc) else {
                return format!("{pc:x} {place} ........ (code not recorded)").into();
            };
            let text = disassembler.text_in(set, word, pc);
            if set != InstructionSet::A64 {
                return format!("{pc:x} {place} {} {text}", encoding(set, word)).into();
            }
            match branch_target(word, pc).and_then(|to| symbols.lookup(to)) {
                Some((name, 0)) => format!("{pc:x} {place} {word:08x} {text} <{name}>"),
                Some((name, offset)) => {
                    format!("{pc:x} {place} {word:08x} {text} <{name}+{offset:#x}>")
                }
                None => format!("{pc:x} {place} {word:08x} {text}"),
            }
            .into()
        })
    }

    fn place(&self, pc: Va) -> String {
        place(self.symbols, pc)
    }
}

/// Returns `symbol+offset`, or `-` where there is no symbol.
fn place(symbols: &Symbols, pc: Va) -> String {
    symbols.lookup(pc).map_or_else(|| "-".into(), |(name, offset)| format!("{name}+{offset:#x}"))
}
