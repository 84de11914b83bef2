//! `parquet`: a table with a row for each run or instruction, for DuckDB, Spark, pandas.
//!
//! Rows by run are few and tell all; rows by instruction are many and convenient. Both have the
//! same first columns. Unsigned integers are marked as such; what is not known is null. The
//! header of the recording is in the file's metadata, as `stepwell.…`.
//!
//! | column | type | by | what |
//! | --- | --- | --- | --- |
//! | `at` | uint64 | both | instructions of the whole recording before this one |
//! | `vcpu` | uint8 | both | the vCPU |
//! | `el` | uint8 | both | exception level, 0 or 1 |
//! | `pc` | uint64 | both | address of the (first) instruction |
//! | `symbol` | string | both | function that it lies in |
//! | `offset` | uint32 | both | bytes from the function's beginning |
//! | `kind` | string | run | `run`, `interrupt` or `exception` |
//! | `length` | uint32 | run | instructions, 0 where the row is no run |
//! | `syndrome` | uint64 | run | ESR_EL1, of an exception |
//! | `opcode` | uint32 | instruction | its encoding |
//! | `mnemonic` | string | instruction | its first word, as disassembled |
//!
//! Memory is bounded by the rows of a group, which are collected before they are written.

use super::{ExportError, end_at_broken_pipe};
use crate::code::CodePages;
use crate::disassemble::Disassembler;
use crate::format::{Header, Record};
use crate::instruction_sets::InstructionSets;
use crate::level::Levels;
use crate::source::Source;
use crate::symbols::Symbols;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use stepwell_arch::InstructionSet;
use stepwell_arch::address::Va;

/// Rows that are collected before they are written.
const GROUP: usize = 1 << 18;
/// Addresses whose names are remembered: some 30 MiB.
const PLACES_MAX: usize = 1 << 18;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A run of instructions, an interrupt or an exception.
    Runs,
    /// An instruction.
    Instructions,
}

/// Writes what is left of a recording as a table.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged (after the table of what precedes the damage) or the
/// output fails; a broken pipe is none.
pub fn write(
    source: &mut impl Source,
    rows: Rows,
    output: impl Write + Send,
) -> Result<(), ExportError> {
    let (code, symbols) = (source.code_pages()?, source.symbols()?);
    let mut table = Table::new(rows, source.header(), &code, &symbols, output)?;
    let read = table.copy(source);
    let written = table.finish();
    end_at_broken_pipe(read.and(written))
}

/// A column in which values may be missing.
#[derive(Debug)]
struct Optional<T> {
    values: Vec<T>,
    levels: Vec<i16>,
}

// Derived, it would ask for `T: Default`.
impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self { values: Vec::new(), levels: Vec::new() }
    }
}

impl<T> Optional<T> {
    fn push(&mut self, value: Option<T>) {
        self.levels.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

/// The rows of a group. Parquet's integers are signed; the schema says how they are meant.
#[derive(Debug, Default)]
struct Group {
    at: Vec<i64>,
    vcpu: Vec<i32>,
    el: Vec<i32>,
    pc: Vec<i64>,
    symbol: Optional<ByteArray>,
    offset: Optional<i32>,
    kind: Vec<ByteArray>,
    length: Vec<i32>,
    syndrome: Optional<i64>,
    opcode: Optional<i32>,
    mnemonic: Optional<ByteArray>,
}

/// What is known of an address.
#[derive(Clone, Debug, Default)]
struct Place {
    symbol: Option<ByteArray>,
    offset: Option<i32>,
    opcode: Option<i32>,
    mnemonic: Option<ByteArray>,
}

struct Table<'a, W: Write + Send> {
    rows: Rows,
    writer: SerializedFileWriter<W>,
    code: &'a CodePages,
    symbols: &'a Symbols,
    disassembler: Disassembler,
    levels: Levels,
    sets: InstructionSets,
    group: Group,
    places: HashMap<(InstructionSet, u64), Place>,
    /// Equal strings share their bytes.
    words: HashMap<String, ByteArray>,
}

impl<'a, W: Write + Send> Table<'a, W> {
    fn new(
        rows: Rows,
        header: &Header,
        code: &'a CodePages,
        symbols: &'a Symbols,
        output: W,
    ) -> Result<Self, ExportError> {
        let schema = Arc::new(parse_message_type(schema(rows))?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_column_dictionary_enabled(ColumnPath::from("at"), false)
            .set_column_encoding(ColumnPath::from("at"), Encoding::DELTA_BINARY_PACKED)
            .set_created_by(format!("stepwell {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(metadata(header)))
            .build();
        Ok(Self {
            rows,
            writer: SerializedFileWriter::new(output, schema, Arc::new(properties))?,
            code,
            symbols,
            disassembler: Disassembler::new()?,
            levels: Levels::default(),
            sets: InstructionSets::default(),
            group: Group::default(),
            places: HashMap::new(),
            words: HashMap::new(),
        })
    }

    fn copy(&mut self, source: &mut impl Source) -> Result<(), ExportError> {
        while let Some(record) = source.next_record()? {
            let position = source.position();
            match (&record, self.rows) {
                (Record::Run { vcpu, pc, length }, Rows::Runs) => {
                    self.levels.observe(&record);
                    let at = position - u64::from(*length);
                    self.event(at, *vcpu, *pc, "run", *length, None);
                }
                (Record::Run { vcpu, pc, length }, Rows::Instructions) => {
                    self.levels.observe(&record);
                    let start = position - u64::from(*length);
                    for index in 0..u64::from(*length) {
                        self.instruction(start + index, *vcpu, pc.offset(4 * index));
                        self.write_if_full()?;
                    }
                }
                (Record::Interrupt { vcpu, pc }, Rows::Runs) => {
                    self.event(position, *vcpu, *pc, "interrupt", 0, None);
                }
                (Record::ExceptionEntry(entry), Rows::Runs) => {
                    let syndrome = Some(entry.syndrome);
                    let from = entry.return_address;
                    self.event(position, entry.vcpu, from, "exception", 0, syndrome);
                }
                _ => {}
            }
            self.levels.observe(&record);
            self.sets.observe(&record);
            self.write_if_full()?;
        }
        Ok(())
    }

    fn event(&mut self, at: u64, vcpu: u8, pc: Va, kind: &str, length: u32, syndrome: Option<u64>) {
        self.row(at, vcpu, pc);
        let kind = word(&mut self.words, kind);
        self.group.kind.push(kind);
        self.group.length.push(length as i32);
        self.group.syndrome.push(syndrome.map(|syndrome| syndrome as i64));
    }

    fn instruction(&mut self, at: u64, vcpu: u8, pc: Va) {
        let place = self.row(at, vcpu, pc);
        self.group.opcode.push(place.opcode);
        self.group.mnemonic.push(place.mnemonic);
    }

    /// Fills the columns that all rows have.
    fn row(&mut self, at: u64, vcpu: u8, pc: Va) -> Place {
        let place = self.place(self.sets.of(vcpu), pc);
        let group = &mut self.group;
        group.at.push(at as i64);
        group.vcpu.push(vcpu.into());
        group.el.push(self.levels.level(vcpu, pc).into());
        group.pc.push(pc.0 as i64);
        group.symbol.push(place.symbol.clone());
        group.offset.push(place.offset);
        place
    }

    fn place(&mut self, set: InstructionSet, pc: Va) -> Place {
        let key = (set, pc.0);
        if let Some(place) = self.places.get(&key) {
            return place.clone();
        }
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        let (symbol, offset) = self.symbols.lookup(pc).unzip();
        let code = self.code.instruction(set, pc);
        let text = code.map(|code| self.disassembler.text_in(set, code, pc));
        let mnemonic = text.as_deref().and_then(|text| text.split(' ').next());
        let place = Place {
            symbol: symbol.map(|name| word(&mut self.words, name)),
            offset: offset.map(|offset| offset as i32),
            opcode: code.map(|code| code as i32),
            mnemonic: mnemonic.map(|text| word(&mut self.words, text)),
        };
        self.places.insert(key, place.clone());
        place
    }

    fn write_if_full(&mut self) -> Result<(), ExportError> {
        if self.group.at.len() < GROUP { Ok(()) } else { self.write_group() }
    }

    fn write_group(&mut self) -> Result<(), ExportError> {
        let group = std::mem::take(&mut self.group);
        let mut out = self.writer.next_row_group()?;
        put::<Int64Type>(&mut out, &group.at, None)?;
        put::<Int32Type>(&mut out, &group.vcpu, None)?;
        put::<Int32Type>(&mut out, &group.el, None)?;
        put::<Int64Type>(&mut out, &group.pc, None)?;
        put_optional::<ByteArrayType>(&mut out, &group.symbol)?;
        put_optional::<Int32Type>(&mut out, &group.offset)?;
        match self.rows {
            Rows::Runs => {
                put::<ByteArrayType>(&mut out, &group.kind, None)?;
                put::<Int32Type>(&mut out, &group.length, None)?;
                put_optional::<Int64Type>(&mut out, &group.syndrome)?;
            }
            Rows::Instructions => {
                put_optional::<Int32Type>(&mut out, &group.opcode)?;
                put_optional::<ByteArrayType>(&mut out, &group.mnemonic)?;
            }
        }
        out.close()?;
        Ok(())
    }

    fn finish(mut self) -> Result<(), ExportError> {
        if !self.group.at.is_empty() {
            self.write_group()?;
        }
        self.writer.close()?;
        Ok(())
    }
}

fn put_optional<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    column: &Optional<T::T>,
) -> Result<(), ParquetError> {
    put::<T>(group, &column.values, Some(&column.levels))
}

/// Writes the next column of a group.
fn put<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let next = group.next_column()?;
    let mut column = next.ok_or_else(|| ParquetError::General("a column too many".into()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

fn word(words: &mut HashMap<String, ByteArray>, text: &str) -> ByteArray {
    if let Some(word) = words.get(text) {
        return word.clone();
    }
    let word = ByteArray::from(text);
    words.insert(text.to_owned(), word.clone());
    word
}

const fn schema(rows: Rows) -> &'static str {
    match rows {
        Rows::Runs => {
            "message stepwell_runs {
                REQUIRED INT64 at (INTEGER(64, false));
                REQUIRED INT32 vcpu (INTEGER(8, false));
                REQUIRED INT32 el (INTEGER(8, false));
                REQUIRED INT64 pc (INTEGER(64, false));
                OPTIONAL BYTE_ARRAY symbol (STRING);
                OPTIONAL INT32 offset (INTEGER(32, false));
                REQUIRED BYTE_ARRAY kind (STRING);
                REQUIRED INT32 length (INTEGER(32, false));
                OPTIONAL INT64 syndrome (INTEGER(64, false));
            }"
        }
        Rows::Instructions => {
            "message stepwell_instructions {
                REQUIRED INT64 at (INTEGER(64, false));
                REQUIRED INT32 vcpu (INTEGER(8, false));
                REQUIRED INT32 el (INTEGER(8, false));
                REQUIRED INT64 pc (INTEGER(64, false));
                OPTIONAL BYTE_ARRAY symbol (STRING);
                OPTIONAL INT32 offset (INTEGER(32, false));
                OPTIONAL INT32 opcode (INTEGER(32, false));
                OPTIONAL BYTE_ARRAY mnemonic (STRING);
            }"
        }
    }
}

fn metadata(header: &Header) -> Vec<KeyValue> {
    let pairs = [
        ("stepwell.version", &header.stepwell_version),
        ("stepwell.cpu", &header.cpu_model),
        ("stepwell.command_line", &header.command_line),
        ("stepwell.irq", &header.interrupt_policy),
        ("stepwell.time", &header.time_policy),
        ("stepwell.recorded", &header.recorded),
    ];
    pairs.map(|(key, value)| KeyValue::new(key.to_owned(), value.clone())).to_vec()
}
