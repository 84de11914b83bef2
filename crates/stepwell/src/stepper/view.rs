//! What the stepper shows: stops, registers, memory, code, history.

use super::Prompt;
use crate::names::NameError;
use stepwell_arch::{InstructionSet, Pstate, SystemRegister, Va};
use stepwell_debuggee::{Error, Place, Registers, Stop, StopReason, TraceRecord};
use stepwell_trace::branch_target;
use stepwell_trace::disassemble::instruction_bytes;

/// What a kernel person wants to see.
const SYSTEM_REGISTERS: [&str; 20] = [
    "SCTLR_EL1",
    "TCR_EL1",
    "TTBR0_EL1",
    "TTBR1_EL1",
    "MAIR_EL1",
    "CONTEXTIDR_EL1",
    "VBAR_EL1",
    "ELR_EL1",
    "SPSR_EL1",
    "ESR_EL1",
    "FAR_EL1",
    "SP_EL0",
    "TPIDR_EL0",
    "TPIDRRO_EL0",
    "TPIDR_EL1",
    "CPACR_EL1",
    "CNTKCTL_EL1",
    "CNTV_CTL_EL0",
    "CNTV_CVAL_EL0",
    "MDSCR_EL1",
];

impl Prompt<'_> {
    pub(super) fn name(&self, va: Va) -> String {
        self.names.describe(va).unwrap_or_else(|| "?".to_owned())
    }

    /// Returns the instruction at `va`, where there is one.
    pub(super) fn word(&mut self, va: Va) -> anyhow::Result<Option<u32>> {
        let mut bytes = [0; 4];
        match self.debuggee.read_memory(self.vcpu, Place::Va(va), &mut bytes) {
            Ok(()) => Ok(Some(u32::from_le_bytes(bytes))),
            Err(Error::Refused(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns what the instruction set that the vCPU executes finds at `va`, and its length.
    fn instruction(&mut self, va: Va, set: InstructionSet) -> anyhow::Result<(String, u64)> {
        let Some(word) = self.word(va)? else { return Ok(("(not mapped)".into(), 4)) };
        let text = self.disassembler.text_in(set, word, va);
        if set != InstructionSet::A64 {
            return Ok((text, instruction_bytes(set, word)));
        }
        let target = branch_target(word, va).and_then(|to| self.names.describe(to));
        Ok((target.map_or_else(|| text.clone(), |name| format!("{text} <{name}>")), 4))
    }

    fn text(&mut self, va: Va) -> anyhow::Result<String> {
        let set = self.instruction_set()?;
        Ok(self.instruction(va, set)?.0)
    }

    /// Returns the instruction set that the vCPU executes.
    pub(super) fn instruction_set(&mut self) -> anyhow::Result<InstructionSet> {
        let registers = self.debuggee.read_registers(self.vcpu)?;
        Ok(InstructionSet::of(Pstate(registers.pstate)))
    }

    pub(super) fn show_stop(&mut self, stop: Stop) -> anyhow::Result<()> {
        let (name, text) = (self.name(stop.pc), self.text(stop.pc)?);
        let reason = match stop.reason {
            StopReason::Stepped if self.entered => "  (interrupt)".to_owned(),
            StopReason::Stepped => String::new(),
            reason => format!("  ({reason})"),
        };
        writeln!(self.output, "{}  {:#018x}  {name:<32}  {text}{reason}", stop.vcpu, stop.pc)?;
        Ok(())
    }

    pub(super) fn registers(&mut self) -> anyhow::Result<()> {
        let registers = self.debuggee.read_registers(self.vcpu)?;
        for (row, four) in registers.x.chunks(4).enumerate() {
            for (column, value) in four.iter().enumerate() {
                let name = format!("x{}", 4 * row + column);
                write!(self.output, "{name:>5} {value:016x}")?;
            }
            writeln!(self.output)?;
        }
        let Registers { sp, pc, pstate, .. } = registers;
        let name = self.name(Va(pc));
        writeln!(self.output, "   sp {sp:016x}   pc {pc:016x}  {name}")?;
        writeln!(self.output, "pstate {pstate:#010x}  {}", Pstate(pstate))?;
        let Some(system) = self.debuggee.support_system_registers() else { return Ok(()) };
        let mut column = 0;
        for name in SYSTEM_REGISTERS {
            let Some(register) = SystemRegister::from_name(name) else { continue };
            match system.read_system_register(self.vcpu, register.0) {
                Ok(value) => {
                    let end = if column % 2 == 1 { "\n" } else { "  " };
                    write!(self.output, "{name:>14} {value:016x}{end}")?;
                    column += 1;
                }
                Err(Error::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if column % 2 == 1 {
            writeln!(self.output)?;
        }
        Ok(())
    }

    /// Shows one register, whatever its kind.
    pub(super) fn register(&mut self, name: &str) -> anyhow::Result<()> {
        let registers = self.debuggee.read_registers(self.vcpu)?;
        if let Some(value) = registers.named(name) {
            return Ok(writeln!(self.output, "{name} {value:016x}")?);
        }
        let upper = name.to_uppercase();
        let system = self.debuggee.support_system_registers();
        let value = match (SystemRegister::from_name(&upper), system) {
            (Some(register), Some(system)) => {
                Some(system.read_system_register(self.vcpu, register.0)?)
            }
            _ => None,
        };
        match value {
            Some(value) => writeln!(self.output, "{upper} {value:016x}")?,
            None => writeln!(self.output, "unknown register {name}")?,
        }
        Ok(())
    }

    /// Reads a place that may also be a register's contents.
    pub(super) fn place(&mut self, word: &str) -> anyhow::Result<Va> {
        let registers = self.debuggee.read_registers(self.vcpu)?;
        if let Some(value) = registers.named(word) {
            return Ok(Va(value));
        }
        self.value_of(word)
    }

    pub(super) fn memory(&mut self, word: &str, length: u64) -> anyhow::Result<()> {
        let va = self.place(word)?;
        let mut bytes =
            vec![0; usize::try_from(length).map_err(|_| NameError::Number(word.into()))?];
        self.debuggee.read_memory(self.vcpu, Place::Va(va), &mut bytes)?;
        for (row, line) in (0_u64..).zip(bytes.chunks(16)) {
            write!(self.output, "{:#018x} ", va.offset(16 * row))?;
            for byte in line {
                write!(self.output, " {byte:02x}")?;
            }
            let printable = |&byte: &u8| match byte {
                b' '..=b'~' => char::from(byte),
                _ => '.',
            };
            let text: String = line.iter().map(printable).collect();
            writeln!(self.output, "{:width$}  {text}", "", width = 3 * (16 - line.len()))?;
        }
        Ok(())
    }

    pub(super) fn disassemble(&mut self, word: Option<&str>, count: u64) -> anyhow::Result<()> {
        let start = match word {
            Some(word) => self.place(word)?,
            None => Va(self.debuggee.read_registers(self.vcpu)?.pc),
        };
        let (set, mut next) = (self.instruction_set()?, start);
        for _ in 0..count {
            let va = next;
            let mark = if va == self.stop.pc { "=>" } else { "  " };
            let (name, (text, bytes)) = (self.name(va), self.instruction(va, set)?);
            next = va.offset(bytes);
            writeln!(self.output, "{mark} {va:#018x}  {name:<32}  {text}")?;
        }
        Ok(())
    }

    /// Shows the last `count` executed PCs, the newest last.
    pub(super) fn back(&mut self, count: usize) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        'records: for record in self.history.iter().rev().copied().collect::<Vec<_>>() {
            let (vcpu, pcs) = match record {
                TraceRecord::Interrupt { vcpu, pc } => {
                    lines.push(format!("vcpu{vcpu}  -- interrupted at {pc:#x} --"));
                    continue;
                }
                TraceRecord::Run { vcpu, pc, length } => {
                    (vcpu, (0..u64::from(length)).rev().map(move |n| pc.offset(4 * n)))
                }
                // Not kept.
                _ => continue,
            };
            for pc in pcs {
                if lines.len() >= count {
                    break 'records;
                }
                let (name, text) = (self.name(pc), self.text(pc)?);
                lines.push(format!("vcpu{vcpu}  {pc:#018x}  {name:<32}  {text}"));
            }
        }
        if lines.is_empty() {
            writeln!(self.output, "nothing was stepped yet")?;
        }
        for line in lines.iter().rev() {
            writeln!(self.output, "{line}")?;
        }
        Ok(())
    }
}
