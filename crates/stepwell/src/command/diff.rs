//! `stepwell diff`: where two recordings part.

use super::selection::{Selection, report_damages};
use crate::progress::{self, Watched};
use crate::terminal::notice;
use anyhow::Context;
use clap::Args;
use std::io::{self, BufWriter, ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};
use stepwell_trace::diff::{self, Comparison, DiffError, FunctionChange, Instruction, Parting};
use stepwell_trace::{CodePages, Disassembler, Source, Symbols};

/// Tells where two recordings part, and which functions they executed how often
///
/// Compares each vCPU of A with the same one of B, instruction by instruction. How the vCPUs took
/// turns does not count.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Diff {
    /// A recording
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Another one
    #[arg(value_name = "B")]
    second: PathBuf,
    /// Compares by function and offset instead of by address, for a kernel that was moved (KASLR)
    #[arg(long)]
    by_symbol: bool,
    /// Shows N instructions before and after the place where they part
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    context: u16,
    /// Shows at most N functions, those that changed most
    #[arg(long, value_name = "N", default_value_t = 20)]
    functions: usize,
    #[command(flatten)]
    selection: Selection,
}

const AFTER_HELP: &str = "\
Examples:
  stepwell diff good.stepwell bad.stepwell
  stepwell diff monday.stepwell tuesday.stepwell --by-symbol --kernel --functions 50

Exit status: 0 the same instructions, 1 different ones, 2 an error or, with --salvage, damage.";

const EQUAL: u8 = 0;
const DIFFERENT: u8 = 1;
/// As diff and cmp have it.
pub(super) const FAILED: u8 = 2;

/// A recording that is open.
struct Side<'a> {
    file: &'a Path,
    source: Watched,
    code: CodePages,
    symbols: Symbols,
}

impl Diff {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        match self.compare() {
            Ok(status) => Ok(status),
            Err(error) => {
                notice(&format!("{error:#}"));
                Ok(FAILED)
            }
        }
    }

    fn compare(&self) -> anyhow::Result<u8> {
        let (mut first, mut second) = (self.open(&self.first)?, self.open(&self.second)?);
        let options =
            diff::Options { by_symbol: self.by_symbol, context: usize::from(self.context) };
        let compared = diff::compare(self.side(&mut first)?, self.side(&mut second)?, options);
        first.source.finish();
        second.source.finish();
        let comparison = compared.map_err(|error| match error {
            DiffError::First(error) => anyhow::Error::new(error).context(named(first.file)),
            DiffError::Second(error) => anyhow::Error::new(error).context(named(second.file)),
        })?;
        self.print(&comparison, &first, &second)?;
        let sides = [&first, &second];
        let damaged = sides.map(|side| report_damages(side.file, side.source.reader().damages()));
        Ok(match (damaged, comparison.is_equal()) {
            ([false, false], true) => EQUAL,
            ([false, false], false) => DIFFERENT,
            _ => FAILED,
        })
    }

    fn open<'a>(&self, file: &'a Path) -> anyhow::Result<Side<'a>> {
        let mut source = self.selection.open_whole(file, progress::stdout_is_file())?;
        let code = source.code_pages().with_context(|| named(file))?;
        let symbols = source.symbols().with_context(|| named(file))?;
        Ok(Side { file, source, code, symbols })
    }

    fn side<'s>(&self, side: &'s mut Side<'_>) -> anyhow::Result<diff::Side<'s, Watched>> {
        let filter = self.selection.filter_with(&side.symbols).with_context(|| named(side.file))?;
        Ok(diff::Side { source: &mut side.source, symbols: &side.symbols, filter })
    }

    fn print(
        &self,
        comparison: &Comparison,
        first: &Side<'_>,
        second: &Side<'_>,
    ) -> anyhow::Result<()> {
        let mut page = Page {
            out: BufWriter::new(stdout().lock()),
            disassembler: Disassembler::new()?,
            first,
            second,
        };
        let written = page.comparison(comparison, self.functions).and_then(|()| page.out.flush());
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write the output"),
        }
    }
}

fn named(file: &Path) -> String {
    file.display().to_string()
}

/// What is printed.
struct Page<'a, W> {
    out: W,
    disassembler: Disassembler,
    first: &'a Side<'a>,
    second: &'a Side<'a>,
}

impl<W: Write> Page<'_, W> {
    fn comparison(&mut self, comparison: &Comparison, functions_max: usize) -> io::Result<()> {
        for vcpu in &comparison.vcpus {
            let (number, same) = (vcpu.vcpu, vcpu.same);
            match &vcpu.parting {
                None => writeln!(self.out, "vcpu {number}: the same {same} instructions")?,
                Some(parting) => {
                    writeln!(self.out, "vcpu {number}: {same} instructions are the same, then")?;
                    self.parting(parting)?;
                }
            }
        }
        self.functions(&comparison.functions, functions_max)
    }

    fn parting(&mut self, parting: &Parting) -> io::Result<()> {
        let (first, second) = (self.first, self.second);
        for instruction in &parting.before {
            self.line(' ', first, instruction)?;
        }
        for (sign, side, after) in [('A', first, &parting.first), ('B', second, &parting.second)] {
            for instruction in after {
                self.line(sign, side, instruction)?;
            }
            if after.is_empty() {
                writeln!(self.out, "{sign} {:>12}  ends here", "")?;
            }
        }
        Ok(())
    }

    fn line(&mut self, sign: char, side: &Side<'_>, instruction: &Instruction) -> io::Result<()> {
        let Instruction { at, pc } = *instruction;
        let place = match side.symbols.lookup(pc) {
            Some((name, offset)) => format!("{name}+{offset:#x}"),
            None => "-".into(),
        };
        let text = match side.code.word(pc) {
            Some(word) => self.disassembler.text(word, pc),
            None => "(code not recorded)".into(),
        };
        writeln!(self.out, "{sign} {at:>12}  {pc:x}  {place:<32}  {text}")
    }

    fn functions(&mut self, changes: &[FunctionChange], most: usize) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let shown = changes.len().min(most);
        writeln!(self.out, "\n{} functions differ in their counts, {shown} shown:", changes.len())?;
        writeln!(
            self.out,
            "{:>14} {:>14} {:>14} {:>10} {:>10}  function",
            "change", "instr. in A", "instr. in B", "calls in A", "calls in B"
        )?;
        for change in &changes[..shown] {
            let (first, second) = (change.first, change.second);
            writeln!(
                self.out,
                "{:>+14} {:>14} {:>14} {:>10} {:>10}  {}",
                change.change(),
                first.instructions,
                second.instructions,
                first.calls,
                second.calls,
                change.name
            )?;
        }
        Ok(())
    }
}
