//! Where two recordings part, and what they executed how often.
//!
//! Each vCPU of one is compared with the same vCPU of the other, instruction by instruction; how
//! the vCPUs take turns does not count. Instructions are the same if they have the same address,
//! or, for a kernel that was moved in between, the same place in a function of the same name.
//!
//! A recording is read once for each vCPU, and nothing of it is kept but the last few
//! instructions: two recordings of any length fit.

mod functions;
mod stream;

use crate::error::Error;
use crate::filter::Filter;
use crate::source::Source;
use crate::symbols::Symbols;
pub use functions::{Count, FunctionChange};
use functions::{Functions, Which};
use std::collections::VecDeque;
use stepwell_arch::address::Va;
use stream::{Segment, Stream};

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// By function and offset instead of by address.
    pub by_symbol: bool,
    /// Instructions that are kept before and after the place where the recordings part.
    pub context: usize,
}

/// One of two recordings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The first one.
    #[error(transparent)]
    First(Error),
    /// The second one.
    #[error(transparent)]
    Second(Error),
}

/// An executed instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Instructions of the whole recording before it.
    pub at: u64,
    /// Its address.
    pub pc: Va,
}

/// What a vCPU did in both recordings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuDifference {
    /// The vCPU.
    pub vcpu: u8,
    /// Instructions that are the same, from the beginning on.
    pub same: u64,
    /// What follows on them, unless both recordings end there.
    pub parting: Option<Parting>,
}

/// The place where two recordings part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parting {
    /// The last instructions that are the same, as the first recording has them.
    pub before: Vec<Instruction>,
    /// What the first recording goes on with; nothing if it ends there.
    pub first: Vec<Instruction>,
    /// What the second recording goes on with; nothing if it ends there.
    pub second: Vec<Instruction>,
}

/// What two recordings have in common, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// By vCPU.
    pub vcpus: Vec<VcpuDifference>,
    /// Functions that were not executed equally often, the largest difference first.
    pub functions: Vec<FunctionChange>,
}

impl Comparison {
    /// Tells whether the recordings are the same.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.vcpus.iter().all(|vcpu| vcpu.parting.is_none())
    }
}

/// One of two recordings.
#[derive(Debug)]
pub struct Side<'a, S> {
    /// Its records.
    pub source: &'a mut S,
    /// Its names.
    pub symbols: &'a Symbols,
    /// What of it is compared. The vCPUs are those of the first recording's.
    pub filter: Filter,
}

/// Compares two recordings.
///
/// # Errors
///
/// [`DiffError`] at the first damage in one of them.
pub fn compare<A: Source, B: Source>(
    first: Side<'_, A>,
    second: Side<'_, B>,
    options: Options,
) -> Result<Comparison, DiffError> {
    let mut functions = Functions::new([first.symbols, second.symbols]);
    let count = first.source.header().vcpus.max(second.source.header().vcpus).max(1);
    let mut vcpus = Vec::new();
    for vcpu in (0..count).filter(|vcpu| first.filter.takes_vcpu(*vcpu)) {
        first.source.seek(0).map_err(DiffError::First)?;
        second.source.seek(0).map_err(DiffError::Second)?;
        let (ours, theirs) = (&first.filter, &second.filter);
        let (ours, theirs) = (ours.clone().only_vcpu(vcpu), theirs.clone().only_vcpu(vcpu));
        let mut pair = Pair {
            first: Stream::new(&mut *first.source, ours, Which::First),
            second: Stream::new(&mut *second.source, theirs, Which::Second),
            functions: &mut functions,
            options,
        };
        vcpus.push(pair.compare(vcpu)?);
    }
    Ok(Comparison { vcpus, functions: functions.changes() })
}

/// The same vCPU of both recordings.
struct Pair<'p, 'a, A, B> {
    first: Stream<&'p mut A>,
    second: Stream<&'p mut B>,
    functions: &'p mut Functions<'a>,
    options: Options,
}

impl<A: Source, B: Source> Pair<'_, '_, A, B> {
    fn compare(&mut self, vcpu: u8) -> Result<VcpuDifference, DiffError> {
        let mut same = 0;
        let mut before = Before { segments: VecDeque::new(), wanted: self.options.context as u64 };
        loop {
            let first = self.first.peek(self.functions).map_err(DiffError::First)?;
            let second = self.second.peek(self.functions).map_err(DiffError::Second)?;
            let (Some(first), Some(second)) = (first, second) else {
                let parting = if first.is_none() && second.is_none() {
                    None
                } else {
                    Some(self.part(before)?)
                };
                return Ok(VcpuDifference { vcpu, same, parting });
            };
            if !first.begins_like(&second, self.options.by_symbol) {
                let parting = Some(self.part(before)?);
                return Ok(VcpuDifference { vcpu, same, parting });
            }
            let length = first.length.min(second.length);
            self.first.advance(length);
            self.second.advance(length);
            before.push(Segment { length, ..first });
            same += length;
        }
    }

    /// Collects what follows, and counts the rest.
    fn part(&mut self, before: Before) -> Result<Parting, DiffError> {
        let context = self.options.context;
        let first = self.first.take(context, self.functions).map_err(DiffError::First)?;
        let second = self.second.take(context, self.functions).map_err(DiffError::Second)?;
        self.first.drain(self.functions).map_err(DiffError::First)?;
        self.second.drain(self.functions).map_err(DiffError::Second)?;
        Ok(Parting { before: before.instructions(), first, second })
    }
}

/// The last segments that were the same.
struct Before {
    segments: VecDeque<Segment>,
    /// Instructions that are wanted.
    wanted: u64,
}

impl Before {
    fn push(&mut self, segment: Segment) {
        self.segments.push_back(segment);
        // Each has at least one instruction.
        if self.segments.len() as u64 > self.wanted {
            self.segments.pop_front();
        }
    }

    fn instructions(&self) -> Vec<Instruction> {
        let all: Vec<Instruction> = self
            .segments
            .iter()
            .flat_map(|segment| {
                // Of a long run only the end is wanted.
                segment.instructions(segment.length.saturating_sub(self.wanted))
            })
            .collect();
        all[all.len().saturating_sub(self.wanted as usize)..].to_vec()
    }
}
