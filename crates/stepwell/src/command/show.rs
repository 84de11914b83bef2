//! `stepwell show`: a recording as text.

use anyhow::Context;
use clap::{Args, ValueEnum};
use std::io::stdout;
use std::path::PathBuf;
use stepwell_trace::{Reader, export};

/// Shows a recording as text
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stepwell show boot.stepwell --format calls | less")]
pub(super) struct Show {
    /// The recording
    file: PathBuf,
    /// How
    #[arg(long, value_enum, default_value_t = Format::Disasm)]
    format: Format,
    /// With --format calls: shows calls at most N deep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    depth: Option<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One line an instruction: vCPU and PC
    Pc,
    /// One line an instruction: vCPU, PC, symbol, disassembly
    Disasm,
    /// An indented outline of the calls
    Calls,
}

impl Show {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        let named = || self.file.display().to_string();
        let mut reader = Reader::open(&self.file).with_context(named)?;
        let out = stdout().lock();
        let shown = match self.format {
            Format::Pc => export::pc::write(&mut reader, out),
            Format::Disasm => export::disasm::write(&mut reader, out),
            Format::Calls => export::calls::write(&mut reader, self.depth.map(usize::from), out),
        };
        shown.with_context(named)?;
        Ok(0)
    }
}
