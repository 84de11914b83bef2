//! The options that choose a part of a recording, the same for all commands that read one.

use crate::progress::{self, FileReader, Watched};
use crate::terminal::notice;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use stepwell_trace::{Damage, Filter, Filtered, Reader, Symbols};

/// What was chosen of a recording, under a progress bar.
pub(super) type Selected = Filtered<Watched>;

/// Names to suggest for one that is unknown.
const SUGGESTIONS: usize = 3;

/// A part of a recording
#[derive(Clone, Debug, Args)]
pub(super) struct Selection {
    /// Only this vCPU; may be given several times
    #[arg(long, value_name = "N", help_heading = HEADING)]
    vcpu: Vec<u8>,
    /// Only this exception level, 0 or 1; may be given several times
    #[arg(long, value_name = "N", help_heading = HEADING,
        value_parser = clap::value_parser!(u8).range(0..=1))]
    el: Vec<u8>,
    /// Only programs: the same as --el 0
    #[arg(long, help_heading = HEADING, conflicts_with_all = ["kernel", "el"])]
    user: bool,
    /// Only the kernel: the same as --el 1
    #[arg(long, help_heading = HEADING, conflicts_with = "el")]
    kernel: bool,
    /// Only instructions from address LO on and before HI; may be given several times
    #[arg(long, value_name = "LO..HI", help_heading = HEADING)]
    address: Vec<AddressRange>,
    /// Only this function, or from the first of two on and before the second; may be given several
    /// times, and adds to --address
    #[arg(long, value_name = "NAME|A..B", help_heading = HEADING)]
    symbol: Vec<String>,
    /// Only from the instruction with number N on, counted from 0 over all vCPUs
    #[arg(long, value_name = "N", help_heading = HEADING)]
    from: Option<u64>,
    /// Only before the instruction with number N
    #[arg(long, value_name = "N", help_heading = HEADING)]
    to: Option<u64>,
    /// Reads on behind damage; tells what is missing, and ends with status 1 if anything is
    #[arg(long)]
    salvage: bool,
    /// Shows no progress bar
    #[arg(long, short)]
    quiet: bool,
}

const HEADING: &str = "What of the recording";

/// Addresses from one on and before another.
#[derive(Clone, Copy, Debug)]
struct AddressRange {
    first: u64,
    end: u64,
}

impl FromStr for AddressRange {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, end) =
            text.split_once("..").ok_or_else(|| anyhow!("write two addresses, LO..HI"))?;
        let range = Self { first: address(first)?, end: address(end)? };
        if range.first >= range.end {
            bail!("nothing is from {first} on and before {end}");
        }
        Ok(range)
    }
}

fn address(text: &str) -> anyhow::Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| anyhow!("{text} is no hexadecimal address"))
}

impl Selection {
    /// Opens a recording and chooses from it. `output_is_file` tells whether a bar can be shown.
    pub(super) fn open(&self, file: &Path, output_is_file: bool) -> anyhow::Result<Selected> {
        let mut reader = self.reader(file)?;
        let filter = self.filter(&mut reader).with_context(|| file.display().to_string())?;
        Ok(Filtered::new(self.watch(reader, output_is_file), filter))
    }

    /// Opens a recording under a progress bar.
    pub(super) fn open_whole(&self, file: &Path, output_is_file: bool) -> anyhow::Result<Watched> {
        Ok(self.watch(self.reader(file)?, output_is_file))
    }

    fn reader(&self, file: &Path) -> anyhow::Result<FileReader> {
        let opened = if self.salvage { Reader::open_salvaging(file) } else { Reader::open(file) };
        opened.with_context(|| file.display().to_string())
    }

    fn watch(&self, reader: FileReader, output_is_file: bool) -> Watched {
        let bar = progress::bar(output_is_file && !self.quiet);
        Watched::new(reader, bar, self.to.map(|to| (self.from.unwrap_or(0), to)))
    }

    /// Tells whether nobody wants to be told what is not the output.
    pub(super) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Returns what was chosen as it would be typed; nothing if that is everything.
    pub(super) fn in_words(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.vcpu.iter().map(|vcpu| format!("--vcpu {vcpu}")));
        words.extend(self.el.iter().map(|level| format!("--el {level}")));
        words.extend(self.user.then(|| "--user".into()));
        words.extend(self.kernel.then(|| "--kernel".into()));
        let addresses = self.address.iter();
        words.extend(
            addresses.map(|range| format!("--address {:#x}..{:#x}", range.first, range.end)),
        );
        words.extend(self.symbol.iter().map(|symbol| format!("--symbol {symbol}")));
        words.extend(self.from.map(|from| format!("--from {from}")));
        words.extend(self.to.map(|to| format!("--to {to}")));
        words.join(" ")
    }

    /// Makes the filter for a recording, with its symbols where they are needed.
    pub(super) fn filter(&self, reader: &mut FileReader) -> anyhow::Result<Filter> {
        let symbols = if self.symbol.is_empty() { Symbols::default() } else { reader.symbols()? };
        self.filter_with(&symbols)
    }

    /// Makes the filter for a recording with these symbols.
    pub(super) fn filter_with(&self, symbols: &Symbols) -> anyhow::Result<Filter> {
        let mut filter = Filter::new();
        for vcpu in &self.vcpu {
            filter = filter.vcpu(*vcpu);
        }
        for level in &self.el {
            filter = filter.level(*level);
        }
        if self.user {
            filter = filter.level(0);
        }
        if self.kernel {
            filter = filter.level(1);
        }
        for range in &self.address {
            filter = filter.place(range.first..=range.end - 1);
        }
        for word in &self.symbol {
            for place in places(symbols, word)? {
                filter = filter.place(place);
            }
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            bail!("nothing is from instruction {from} on and before {to}");
        }
        filter = filter.from(self.from.unwrap_or(0));
        Ok(self.to.map_or(filter.clone(), |to| filter.to(to)))
    }
}

/// Returns what a name, or two, cover.
fn places(symbols: &Symbols, word: &str) -> anyhow::Result<Vec<RangeInclusive<u64>>> {
    let of = |name: &str| {
        let places = symbols.places_of(name);
        if !places.is_empty() {
            return Ok(places);
        }
        let close = symbols.suggestions(name, SUGGESTIONS).join(", ");
        let hint = if close.is_empty() { close } else { format!("; close to it: {close}") };
        Err(anyhow!("unknown symbol {name}{hint}"))
    };
    let Some((first, end)) = word.split_once("..") else { return of(word) };
    let (first, end) = (of(first)?, of(end)?);
    // A kernel has its symbols twice, where it is loaded and where it runs: in the same order.
    let pairs = first.iter().zip(&end).filter(|(first, end)| first.start() < end.start());
    let places: Vec<_> = pairs.map(|(first, end)| *first.start()..=*end.start() - 1).collect();
    if places.is_empty() {
        Err(anyhow!("nothing is between the two of {word}"))
    } else {
        Ok(places)
    }
}

/// Tells what of a recording was damaged, and whether anything was.
pub(super) fn report_damages(file: &Path, damages: &[Damage]) -> bool {
    for damage in damages {
        let Damage { offset, what, resumed_at, missing_instructions } = damage;
        let missing = match missing_instructions {
            Some(1) => "1 instruction is missing".into(),
            Some(count) => format!("{count} instructions are missing"),
            None => "an unknown number of instructions is missing".into(),
        };
        let went_on = match resumed_at {
            Some(at) => format!("read on from byte {at}"),
            None => "nothing more could be read".into(),
        };
        notice(&format!(
            "{}: damaged at byte {offset}: {what}; {missing}, {went_on}",
            file.display()
        ));
    }
    !damages.is_empty()
}
