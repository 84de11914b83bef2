//! `json`: one JSON object a line and a record, for scripts.
//!
//! ```text
//! {"type":"header","format":"stepwell","version":1,"cpu":"cortex-a57","recorded":"pc",…}
//! {"type":"run","at":0,"vcpu":0,"pc":"0xffff800008000000","length":3,"symbol":"_stext","offset":0}
//! {"type":"interrupt","at":3,"vcpu":0,"pc":"0xffff80000800000c","symbol":"_stext","offset":12}
//! ```
//!
//! The first line is the header. `at` counts the instructions of the whole recording before the
//! record, or, of what is known of an instruction, before what follows it. Addresses and values are
//! strings, because many readers of JSON lose digits of large numbers. A member that is not known
//! is left out. Within `version`, members and types may be added, and none changes its meaning.

use super::{ExportError, end_at_broken_pipe};
use crate::format::{Event, ExceptionCause, Header, MemoryAccessKind, Record};
use crate::printable::is_hidden;
use crate::source::Source;
use crate::symbols::Symbols;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::fmt::{self, Display};
use std::io::{self, BufWriter, Write};
use stepwell_arch::address::Va;

/// Version of the lines.
const VERSION: u32 = 1;

/// Writes what is left of a recording as JSON lines.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged or the output fails; a broken pipe is none.
pub fn write(source: &mut impl Source, output: impl Write) -> Result<(), ExportError> {
    let symbols = source.symbols()?;
    let mut output = BufWriter::with_capacity(1 << 18, output);
    let result = copy(source, &symbols, &mut output);
    let flushed = output.flush().map_err(ExportError::from);
    end_at_broken_pipe(result.and(flushed))
}

fn copy(
    source: &mut impl Source,
    symbols: &Symbols,
    output: &mut impl Write,
) -> Result<(), ExportError> {
    put(&Line::header(source.header()), output)?;
    while let Some(record) = source.next_record()? {
        put(&Line::of(&record, source.position(), symbols), output)?;
    }
    Ok(())
}

fn put(line: &Line<'_>, output: &mut impl Write) -> io::Result<()> {
    line.serialize(&mut Serializer::with_formatter(&mut *output, Visible))?;
    output.write_all(b"\n")
}

/// Compact JSON in which what a terminal would obey or hide is escaped: JSON itself demands that
/// only of the first 32 characters.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hidden) {
            let (plain, hidden) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = hidden.chars();
            let mut units = [0; 2];
            for unit in characters.next().unwrap_or_default().encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// A number as a string of hexadecimal digits.
struct Hex(u128);

impl From<Va> for Hex {
    fn from(va: Va) -> Self {
        Self(va.0.into())
    }
}

impl Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where something is, by name.
#[derive(Serialize)]
struct Place<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl<'a> Place<'a> {
    fn of(symbols: &'a Symbols, pc: Va) -> Self {
        let (symbol, offset) = symbols.lookup(pc).unzip();
        Self { symbol, offset }
    }
}

/// A line.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line<'a> {
    Header {
        format: &'a str,
        version: u32,
        stepwell: &'a str,
        cpu: &'a str,
        command_line: &'a str,
        irq: &'a str,
        time: &'a str,
        recorded: &'a str,
        vcpus: u8,
    },
    Run {
        at: u64,
        vcpu: u8,
        pc: Hex,
        length: u32,
        #[serde(flatten)]
        place: Place<'a>,
    },
    Interrupt {
        at: u64,
        vcpu: u8,
        pc: Hex,
        #[serde(flatten)]
        place: Place<'a>,
    },
    PrivilegedCall {
        at: u64,
        vcpu: u8,
        pc: Hex,
        immediate: u16,
        #[serde(flatten)]
        place: Place<'a>,
    },
    Note {
        at: u64,
        text: &'a str,
    },
    Task {
        at: u64,
        vcpu: u8,
        pid: u32,
        tgid: u32,
        name: &'a str,
    },
    Exception {
        at: u64,
        vcpu: u8,
        cause: &'a str,
        return_address: Hex,
        vector: Hex,
        syndrome: Hex,
        #[serde(skip_serializing_if = "Option::is_none")]
        intid: Option<u32>,
    },
    ExceptionReturn {
        at: u64,
        vcpu: u8,
        to: Hex,
        el: u8,
    },
    Exclusive {
        at: u64,
        vcpu: u8,
        pc: Hex,
        stored: bool,
    },
    Turns {
        at: u64,
        vcpu: u8,
        pc: Hex,
        why: String,
        steps: u64,
        #[serde(flatten)]
        place: Place<'a>,
    },
    InstructionSet {
        at: u64,
        vcpu: u8,
        set: String,
    },
    Context {
        at: u64,
        vcpu: u8,
        el: u8,
        vmid: u16,
        asid: u16,
        ttbr0: Hex,
    },
    Time {
        at: u64,
        ns: u64,
    },
    Register {
        at: u64,
        vcpu: u8,
        register: String,
        value: Hex,
        found: bool,
    },
    Memory {
        at: u64,
        vcpu: u8,
        access: &'a str,
        address: Hex,
        size: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Hex>,
    },
}

impl<'a> Line<'a> {
    fn header(header: &'a Header) -> Self {
        Self::Header {
            format: "stepwell",
            version: VERSION,
            stepwell: &header.stepwell_version,
            cpu: &header.cpu_model,
            command_line: &header.command_line,
            irq: &header.interrupt_policy,
            time: &header.time_policy,
            recorded: &header.recorded,
            vcpus: header.vcpus,
        }
    }

    fn of(record: &'a Record, at: u64, symbols: &'a Symbols) -> Self {
        match *record {
            Record::Run { vcpu, pc, length } => {
                let (at, place) = (at - u64::from(length), Place::of(symbols, pc));
                Self::Run { at, vcpu, pc: pc.into(), length, place }
            }
            Record::Interrupt { vcpu, pc } => {
                Self::Interrupt { at, vcpu, pc: pc.into(), place: Place::of(symbols, pc) }
            }
            Record::Event(Event::PrivilegedCall { vcpu, pc, immediate }) => {
                let place = Place::of(symbols, pc);
                Self::PrivilegedCall { at, vcpu, pc: pc.into(), immediate, place }
            }
            Record::Event(Event::Note(ref text)) => Self::Note { at, text },
            Record::Event(Event::Task { vcpu, pid, tgid, ref name }) => {
                Self::Task { at, vcpu, pid, tgid, name }
            }
            Record::ExceptionEntry(entry) => Self::Exception {
                at,
                vcpu: entry.vcpu,
                cause: cause(entry.cause),
                return_address: entry.return_address.into(),
                vector: entry.vector.into(),
                syndrome: Hex(entry.syndrome.into()),
                intid: entry.intid,
            },
            Record::ExceptionReturn { vcpu, to, el } => {
                Self::ExceptionReturn { at, vcpu, to: to.into(), el }
            }
            Record::Exclusive { vcpu, pc, stored } => {
                Self::Exclusive { at, vcpu, pc: pc.into(), stored }
            }
            Record::Turns { vcpu, pc, why, steps } => {
                let (why, place) = (why.to_string(), Place::of(symbols, pc));
                Self::Turns { at, vcpu, pc: pc.into(), why, steps, place }
            }
            Record::InstructionSet { vcpu, set } => {
                Self::InstructionSet { at, vcpu, set: format!("{set:?}") }
            }
            Record::Context(context) => Self::Context {
                at,
                vcpu: context.vcpu,
                el: context.el,
                vmid: context.vmid,
                asid: context.asid,
                ttbr0: Hex(context.ttbr0.into()),
            },
            Record::Time { ns } => Self::Time { at, ns },
            Record::Register { vcpu, register, value, found } => {
                let (register, value) = (register.to_string(), Hex(value.into()));
                Self::Register { at, vcpu, register, value, found }
            }
            Record::Memory(memory) => Self::Memory {
                at,
                vcpu: memory.vcpu,
                access: access(memory.access),
                address: memory.address.into(),
                size: memory.size,
                value: memory.value.map(Hex),
            },
        }
    }
}

const fn cause(cause: ExceptionCause) -> &'static str {
    match cause {
        ExceptionCause::Synchronous => "synchronous",
        ExceptionCause::Irq => "irq",
        ExceptionCause::Fiq => "fiq",
        ExceptionCause::SError => "serror",
    }
}

const fn access(access: MemoryAccessKind) -> &'static str {
    match access {
        MemoryAccessKind::Load => "load",
        MemoryAccessKind::Store => "store",
        MemoryAccessKind::Zero => "zero",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_not_lost() {
        let note = "a\x1b[2J \u{9b}2J \u{202e} \u{e0001} ü";
        let line = Line::Note { at: 0, text: note };
        let mut out = Vec::new();
        put(&line, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.trim_end().contains(is_hidden), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["text"], note);
    }
}
