//! `stepwell show`: a recording as text, as a picture, or for other programs.

use super::selection::{Selected, Selection, report_damages};
use crate::ending;
use crate::output::{self, Outputs};
use crate::progress;
use crate::terminal::notice;
use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::PathBuf;
use stepwell_trace::Source;
use stepwell_trace::export::lcov::{self, Covered, Lines, Listing};
use stepwell_trace::export::perfetto::{self, Clock};
use stepwell_trace::export::streams::{Folder, OneStream};
use stepwell_trace::export::{self, ExportError};

/// Shows a recording, or turns it into what other programs read
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Show {
    /// The recording
    file: PathBuf,
    /// How
    #[arg(long, value_enum, default_value_t = Format::Disasm)]
    format: Format,
    /// Writes to FILE; with tarmac and several vCPUs, one file each in the folder FILE
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    options: FormatOptions,
}

/// What a single format can be told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Of single formats")]
struct FormatOptions {
    /// calls: shows calls at most N deep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    depth: Option<u16>,
    /// flamegraph: gives each vCPU a frame of its own
    #[arg(long)]
    by_vcpu: bool,
    /// perfetto: leaves out calls that take less than N instructions, with what they call;
    /// interrupts are never left out
    #[arg(long, value_name = "N", default_value_t = perfetto::Options::default().fold,
        value_parser = clap::value_parser!(u64).range(1..))]
    fold: u64,
    /// perfetto: what a nanosecond of the timeline is
    #[arg(long, value_enum, default_value_t = ClockName::Instructions)]
    clock: ClockName,
    /// parquet: what a row of the table is
    #[arg(long, value_enum, default_value_t = RowName::Run)]
    rows: RowName,
    /// lcov: covers the source lines of this ELF with debug information, not only functions
    #[arg(long, value_name = "ELF")]
    symbols: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Conditions of one kind are alternatives (--vcpu 0 --vcpu 1), those of different kinds must all
hold. Places (--address, --symbol) are one kind, exception levels (--el, --user, --kernel) another.

Examples:
  stepwell show boot.stepwell --format calls --depth 8 | less
  stepwell show boot.stepwell --symbol memcpy --from 1000000 --to 2000000
  stepwell show boot.stepwell --format flamegraph -o boot.svg
  stepwell show boot.stepwell --format perfetto -o boot.perfetto     # open in ui.perfetto.dev
  stepwell show boot.stepwell --format lcov -o boot.info && genhtml boot.info -o coverage
  stepwell show boot.stepwell --format parquet -o boot.parquet
  stepwell show boot.stepwell --format tarmac -o boot.tarmac

docs/exporters.md describes each format.

Exit status: 0 shown, 1 an error or, with --salvage, damage.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line an instruction: vCPU and PC
    Pc,
    /// One line an instruction: vCPU, PC, symbol, disassembly
    Disasm,
    /// An indented outline of the calls
    Calls,
    /// Who called whom, as an SVG that zooms in a browser
    Flamegraph,
    /// Arm's text trace, as Fast Models write it
    Tarmac,
    /// A timeline of calls and interrupts for ui.perfetto.dev
    Perfetto,
    /// Coverage of functions, or lines, for genhtml
    Lcov,
    /// A table for DuckDB, Spark and the like
    Parquet,
    /// One JSON object a line and record
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ClockName {
    /// An instruction of the recording
    Instructions,
    /// A nanosecond of the guest's clock
    Guest,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RowName {
    /// A run of consecutive instructions, an interrupt or an exception
    Run,
    /// An instruction
    Instruction,
}

impl Show {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        self.check()?;
        let to_file = self.output.is_some() || progress::stdout_is_file();
        let mut source = self.selection.open(&self.file, to_file)?;
        let mut outputs = Outputs::default();
        let shown = self.export(&mut source, &mut outputs);
        source.inner().finish();
        let is_damaged = report_damages(&self.file, source.inner().reader().damages());
        shown?;
        outputs.complete()?;
        Ok(if is_damaged { ending::FAILED } else { ending::CLEAN })
    }

    /// Refuses what would make no sense, or damage.
    fn check(&self) -> anyhow::Result<()> {
        let is_binary = matches!(self.format, Format::Perfetto | Format::Parquet);
        if is_binary && self.output.is_none() && stdout().is_terminal() {
            bail!("this format is no text: name a file with -o, or send it into one");
        }
        if self.options.symbols.is_some() && self.format != Format::Lcov {
            bail!("--symbols goes with --format lcov; recordings have their symbols in them");
        }
        let Some(path) = &self.output else { return Ok(()) };
        let list = self.list_of_functions().filter(|_| self.format == Format::Lcov);
        [Some(path), list.as_ref()].into_iter().flatten().try_for_each(|path| {
            let symbols = self.options.symbols.as_deref();
            let inputs =
                [(Some(self.file.as_path()), "the recording itself"), (symbols, "the ELF")];
            let inputs = inputs.into_iter().filter_map(|(path, what)| Some((path?, what)));
            output::refuse_inputs(path, inputs)
        })
    }

    /// Where the list of functions goes that are covered.
    fn list_of_functions(&self) -> Option<PathBuf> {
        self.output.as_ref().map(|path| path.with_extension("functions"))
    }

    fn export(&self, source: &mut Selected, outputs: &mut Outputs) -> anyhow::Result<()> {
        let exported = match self.format {
            Format::Pc => export::pc::write(source, self.create(outputs)?),
            Format::Disasm => export::disasm::write(source, self.create(outputs)?),
            Format::Calls => {
                let depth = self.options.depth.map(usize::from);
                export::calls::write(source, depth, self.create(outputs)?)
            }
            Format::Flamegraph => {
                export::flamegraph::write(source, self.options.by_vcpu, self.create(outputs)?)
            }
            Format::Tarmac => self.tarmac(source, outputs)?,
            Format::Perfetto => {
                let clock = match self.options.clock {
                    ClockName::Instructions => Clock::Instructions,
                    ClockName::Guest => Clock::GuestTime,
                };
                let options = perfetto::Options { fold: self.options.fold, clock };
                export::perfetto::write(source, options, self.create(outputs)?)
            }
            Format::Lcov => return self.lcov(source, outputs),
            Format::Parquet => self.parquet(source, outputs)?,
            Format::Json => export::json::write(source, self.create(outputs)?),
        };
        exported.map_err(|error| self.blame(error))
    }

    fn tarmac(
        &self,
        source: &mut Selected,
        outputs: &mut Outputs,
    ) -> anyhow::Result<Result<(), ExportError>> {
        let several = source.header().vcpus > 1;
        Ok(match &self.output {
            Some(path) if path.is_dir() || several => {
                let folder = Folder::create(path, "tarmac");
                let mut folder = folder.with_context(|| path.display().to_string())?;
                export::tarmac::write(source, &mut folder)
            }
            _ => export::tarmac::write(source, &mut OneStream::new(self.create(outputs)?)),
        })
    }

    #[cfg(feature = "parquet")]
    fn parquet(
        &self,
        source: &mut Selected,
        outputs: &mut Outputs,
    ) -> anyhow::Result<Result<(), ExportError>> {
        use stepwell_trace::export::parquet::{Rows, write};
        let rows = match self.options.rows {
            RowName::Run => Rows::Runs,
            RowName::Instruction => Rows::Instructions,
        };
        Ok(write(source, rows, self.create(outputs)?))
    }

    #[cfg(not(feature = "parquet"))]
    #[expect(clippy::unused_self, reason = "the other build needs it")]
    fn parquet(
        &self,
        _source: &mut Selected,
        _outputs: &mut Outputs,
    ) -> anyhow::Result<Result<(), ExportError>> {
        bail!(
            "this stepwell was built without Parquet: the one that `make` builds has it \
             (cargo build --release -p stepwell --features parquet)"
        )
    }

    fn lcov(&self, source: &mut Selected, outputs: &mut Outputs) -> anyhow::Result<()> {
        let covered = match &self.options.symbols {
            Some(elf) => {
                let lines = Lines::open(elf).with_context(|| elf.display().to_string())?;
                lcov::write_lines(source, &lines, self.create(outputs)?)
            }
            None => self.cover_functions(source, outputs)?,
        };
        self.report_covered(covered.map_err(|error| self.blame(error))?);
        Ok(())
    }

    fn cover_functions(
        &self,
        source: &mut Selected,
        outputs: &mut Outputs,
    ) -> anyhow::Result<Result<Covered, ExportError>> {
        let Some(list) = self.list_of_functions() else {
            let listing = Listing { name: "functions", output: None };
            return Ok(lcov::write_functions(source, listing, self.create(outputs)?));
        };
        let output = self.create(outputs)?;
        let named = || list.display().to_string();
        let mut file = BufWriter::new(outputs.create(&list)?);
        let name = std::path::absolute(&list).with_context(named)?;
        let name = name.to_str().ok_or_else(|| anyhow!("{} is no UTF-8", list.display()))?;
        let listing = Listing { name, output: Some(&mut file) };
        let covered = lcov::write_functions(source, listing, output);
        file.flush().with_context(named)?;
        Ok(covered)
    }

    fn report_covered(&self, covered: Covered) {
        if self.selection.is_quiet() {
            return;
        }
        let Covered { functions, functions_hit, lines, lines_hit, uncounted } = covered;
        let mut text = format!("{functions_hit} of {functions} functions");
        if lines > 0 && self.options.symbols.is_some() {
            text += &format!(", {lines_hit} of {lines} lines");
        }
        if uncounted > 0 {
            text += &format!("; {uncounted} instructions were not counted: narrow the recording");
        }
        notice(&text);
    }

    /// Says of which file an export's error tells.
    fn blame(&self, error: ExportError) -> anyhow::Error {
        let path = match &error {
            ExportError::Lines(_) => self.options.symbols.as_ref(),
            ExportError::Output(_) => self.output.as_ref(),
            _ => Some(&self.file),
        };
        let blamed =
            path.map_or_else(|| "standard output".into(), |path| path.display().to_string());
        anyhow::Error::from(error).context(blamed)
    }

    fn create(&self, outputs: &mut Outputs) -> anyhow::Result<Box<dyn Write + Send>> {
        match &self.output {
            None => Ok(Box::new(stdout())),
            Some(path) => outputs.create(path),
        }
    }
}
