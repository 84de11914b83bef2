//! `tarmac`: the text trace of Arm's Fast Models, which many tools for Arm code read.
//!
//! ```text
//! 41 clk cpu0 IT (41) ffff800008010000 d503233f O EL1h_n : PACIASP
//! 41 clk cpu0 R X30 ffff800008012344
//! 41 clk cpu0 MW8 ffff80000a003ff0:ffff80000a003ff0 00000000_0000002a
//! 42 clk cpu0 E ffff800008010004 00000085 CoreEvent_CURRENT_SPx_IRQ
//! ```
//!
//! The dialect, as it is written here:
//!
//! - A line begins with the time, here the instructions of the whole recording before this one,
//!   the unit `clk`, and the CPU. Lines about an instruction follow its own and have its time.
//! - `IT (n) address opcode O mode : text` is an instruction; `n` is the time again, `O` stands for
//!   A64, `mode` for exception level and stack pointer, in the non-secure state. The opcode of
//!   code that was not recorded is 0 and its text `UNKNOWN`.
//! - `R name value` is a register that changed, `cpsr` is PSTATE.
//! - `MR` and `MW` with a size in bytes is a load or store: address, value. One of 16 bytes has two
//!   words, the high one first. Fast Models add a physical address behind a colon, which we do not
//!   know and leave out. What is not known of a value is `x`.
//! - `E address number CoreEvent_kind` is an exception: the preferred return address, and which of
//!   the sixteen vectors, counted from 0x80.

use super::streams::Streams;
use super::{ExportError, end_at_broken_pipe};
use crate::code::CodePages;
use crate::disassemble::{Disassembler, encoding};
use crate::format::{ExceptionEntry, MemoryAccess, MemoryAccessKind, Record, Register};
use crate::instruction_sets::InstructionSets;
use crate::level::Levels;
use crate::source::Source;
use std::collections::HashMap;
use std::io::{self, Write};
use stepwell_arch::InstructionSet;
use stepwell_arch::address::Va;

/// Instructions whose text is kept: some 30 MiB.
const TEXTS_MAX: usize = 1 << 18;
/// Offset of a vector in its table, less what is the same for all of a kind.
const VECTOR_SIZE: u64 = 0x80;
/// Number of the first vector.
const FIRST_VECTOR: u64 = 0x80;

/// Writes a Tarmac trace of what is left of a recording, each vCPU to its stream.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged or the output fails; a broken pipe is none.
pub fn write(source: &mut impl Source, streams: &mut impl Streams) -> Result<(), ExportError> {
    let code = source.code_pages()?;
    let mut tarmac = Tarmac::new(&code)?;
    let result = tarmac.copy(source, streams);
    let flushed = streams.flush().map_err(ExportError::from);
    end_at_broken_pipe(result.and(flushed))
}

/// What has to be remembered of a vCPU.
#[derive(Debug, Default)]
struct Vcpu {
    /// Time of its last instruction.
    time: u64,
    /// PSTATE, where that is recorded.
    pstate: Option<u64>,
    /// An interrupt that was entered, as long as nothing more is known of it.
    interrupted: Option<Va>,
}

struct Tarmac<'a> {
    code: &'a CodePages,
    disassembler: Disassembler,
    levels: Levels,
    sets: InstructionSets,
    vcpus: HashMap<u8, Vcpu>,
    /// By PC: what comes before and after the mode.
    texts: HashMap<(InstructionSet, u64), (Box<str>, Box<str>)>,
}

impl<'a> Tarmac<'a> {
    fn new(code: &'a CodePages) -> Result<Self, ExportError> {
        Ok(Self {
            code,
            disassembler: Disassembler::new()?,
            levels: Levels::default(),
            sets: InstructionSets::default(),
            vcpus: HashMap::new(),
            texts: HashMap::new(),
        })
    }

    fn copy(
        &mut self,
        source: &mut impl Source,
        streams: &mut impl Streams,
    ) -> Result<(), ExportError> {
        while let Some(record) = source.next_record()? {
            let position = source.position();
            match &record {
                Record::Run { vcpu, pc, length } => {
                    self.settle_interrupt(*vcpu, position - u64::from(*length), streams)?;
                    self.levels.observe(&record);
                    let time = position - u64::from(*length);
                    self.run(*vcpu, *pc, *length, time, streams.of(*vcpu)?)?;
                }
                Record::Interrupt { vcpu, pc } => {
                    self.vcpus.entry(*vcpu).or_default().interrupted = Some(*pc);
                }
                Record::ExceptionEntry(entry) => {
                    self.vcpus.entry(entry.vcpu).or_default().interrupted = None;
                    self.exception(entry, position, streams.of(entry.vcpu)?)?;
                }
                Record::Register { vcpu, register, value, .. } => {
                    self.register(*vcpu, *register, *value, streams.of(*vcpu)?)?;
                }
                Record::Memory(access) => self.memory(access, streams.of(access.vcpu)?)?,
                _ => {}
            }
            self.levels.observe(&record);
            self.sets.observe(&record);
        }
        Ok(())
    }

    fn run(
        &mut self,
        vcpu: u8,
        pc: Va,
        length: u32,
        start: u64,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let set = self.sets.of(vcpu);
        let (letter, mode) = match set {
            InstructionSet::A64 => ("O", self.mode(vcpu, pc)),
            InstructionSet::A32 => ("A", "usr_n"),
            InstructionSet::T32 => ("T", "usr_n"),
        };
        for index in 0..u64::from(length) {
            let time = start + index;
            let (word, text) = self.text(set, pc.offset(index * 4));
            writeln!(out, "{time} clk cpu{vcpu} IT ({time}) {word} {letter} {mode} : {text}")?;
        }
        self.vcpus.entry(vcpu).or_default().time = start + u64::from(length) - 1;
        Ok(())
    }

    /// Tells of an interrupt whose exception was not recorded in detail.
    fn settle_interrupt(
        &mut self,
        vcpu: u8,
        time: u64,
        streams: &mut impl Streams,
    ) -> io::Result<()> {
        let known = self.vcpus.entry(vcpu).or_default();
        let Some(pc) = known.interrupted.take() else { return Ok(()) };
        let kind = if self.levels.level(vcpu, pc) == 0 { 9 } else { 5 };
        exception_line(time, vcpu, pc, kind, streams.of(vcpu)?)
    }

    fn exception(&self, entry: &ExceptionEntry, time: u64, out: &mut dyn Write) -> io::Result<()> {
        let kind = (entry.vector.0 & 0x7ff) / VECTOR_SIZE;
        exception_line(time, entry.vcpu, entry.return_address, kind, out)
    }

    fn register(
        &mut self,
        vcpu: u8,
        register: Register,
        value: u64,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let time = self.vcpus.entry(vcpu).or_default().time;
        match register {
            Register::PSTATE => {
                self.vcpus.entry(vcpu).or_default().pstate = Some(value);
                writeln!(out, "{time} clk cpu{vcpu} R cpsr {:08x}", value as u32)
            }
            Register::SP => {
                let level = self.stack_pointer(vcpu);
                writeln!(out, "{time} clk cpu{vcpu} R SP_EL{level} {value:016x}")
            }
            _ => writeln!(out, "{time} clk cpu{vcpu} R {register} {value:016x}"),
        }
    }

    fn memory(&mut self, memory: &MemoryAccess, out: &mut dyn Write) -> io::Result<()> {
        let vcpu = memory.vcpu;
        let time = self.vcpus.entry(vcpu).or_default().time;
        let what = if memory.access == MemoryAccessKind::Load { "MR" } else { "MW" };
        // The format has words of 1, 2, 4, 8 and 16 bytes, and nothing else.
        let mut done = 0;
        while done < memory.size {
            let left = memory.size - done;
            let size = if left >= 16 { 16 } else { 1 << left.ilog2() };
            let address = memory.address.offset(u64::from(done)).0;
            write!(out, "{time} clk cpu{vcpu} {what}{size} {address:016x} ")?;
            let shift = 8 * u32::from(done);
            let value = memory.value.map(|value| value.checked_shr(shift).unwrap_or(0));
            let digits = match value {
                Some(value) => format!("{value:032x}"),
                None => "x".repeat(32),
            };
            let digits = &digits[32 - 2 * usize::from(size)..];
            match size {
                16 => writeln!(out, "{} {}", &digits[..16], &digits[16..])?,
                8 => writeln!(out, "{}_{}", &digits[..8], &digits[8..])?,
                _ => writeln!(out, "{digits}")?,
            }
            done += size;
        }
        Ok(())
    }

    /// Returns exception level and stack pointer as Fast Models name them.
    fn mode(&self, vcpu: u8, pc: Va) -> &'static str {
        match (self.levels.level(vcpu, pc), self.stack_pointer(vcpu)) {
            (0, _) => "EL0t_n",
            (_, 0) => "EL1t_n",
            _ => "EL1h_n",
        }
    }

    /// Returns which level's stack pointer is in use: that of EL1, unless PSTATE tells otherwise.
    fn stack_pointer(&self, vcpu: u8) -> u8 {
        let pstate = self.vcpus.get(&vcpu).and_then(|vcpu| vcpu.pstate);
        pstate.map_or(1, |pstate| (pstate & 1) as u8)
    }

    fn text(&mut self, set: InstructionSet, pc: Va) -> (&str, &str) {
        let key = (set, pc.0);
        if self.texts.len() >= TEXTS_MAX && !self.texts.contains_key(&key) {
            self.texts.clear();
        }
        let (code, disassembler) = (self.code, &self.disassembler);
        let found = code.instruction(set, pc);
        let (word, text) = self.texts.entry(key).or_insert_with(|| match found {
            Some(word) => {
                let text = with_capital_mnemonic(&disassembler.text_in(set, word, pc));
                (format!("{:016x} {}", pc.0, encoding(set, word)).into(), text.into())
            }
            None => (format!("{:016x} 00000000", pc.0).into(), "UNKNOWN (not recorded)".into()),
        });
        (word, text)
    }
}

/// Writes the mnemonic as Fast Models do, and the operands as they are.
fn with_capital_mnemonic(text: &str) -> String {
    match text.split_once(' ') {
        Some((mnemonic, operands)) => format!("{:<8} {operands}", mnemonic.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// Writes of the exception with the number `kind` among the sixteen of a vector table.
fn exception_line(time: u64, vcpu: u8, from: Va, kind: u64, out: &mut dyn Write) -> io::Result<()> {
    const GROUPS: [&str; 4] = ["CURRENT_SP0", "CURRENT_SPx", "LOWER_64", "LOWER_32"];
    const KINDS: [&str; 4] = ["SYNC", "IRQ", "FIQ", "SERROR"];
    let (group, what) = (GROUPS[(kind / 4 % 4) as usize], KINDS[(kind % 4) as usize]);
    let number = FIRST_VECTOR + kind;
    writeln!(out, "{time} clk cpu{vcpu} E {:016x} {number:08x} CoreEvent_{group}_{what}", from.0)
}
