//! The instructions of one vCPU of one recording, by stretches that lie in one function.

use super::Instruction;
use super::functions::{Functions, Place, Which};
use crate::error::Error;
use crate::filter::{Filter, Filtered};
use crate::format::Record;
use crate::source::Source;
use stepwell_arch::address::Va;

/// Some instructions in a row, all in one function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Instructions of the whole recording before it.
    pub(super) at: u64,
    pub(super) pc: Va,
    /// Instructions, at least 1.
    pub(super) length: u64,
    pub(super) place: Place,
}

impl Segment {
    /// Tells whether the first instructions are the same; the next ones are then, too.
    pub(super) fn begins_like(&self, other: &Self, by_symbol: bool) -> bool {
        if !by_symbol || !self.place.is_named() || !other.place.is_named() {
            return self.pc == other.pc;
        }
        self.place.name == other.place.name
            && self.place.offset(self.pc) == other.place.offset(other.pc)
    }

    /// Returns its instructions without the first `skip`.
    pub(super) fn instructions(&self, skip: u64) -> impl Iterator<Item = Instruction> {
        let (at, pc) = (self.at, self.pc);
        (skip..self.length).map(move |n| Instruction { at: at + n, pc: pc.offset(4 * n) })
    }
}

/// What of a recording is still to be compared.
pub(super) struct Stream<S> {
    source: Filtered<S>,
    which: Which,
    /// What is left of a run: position, first PC, instructions.
    run: Option<(u64, Va, u64)>,
    segment: Option<Segment>,
}

impl<S: Source> Stream<S> {
    pub(super) fn new(source: S, filter: Filter, which: Which) -> Self {
        Self { source: Filtered::new(source, filter), which, run: None, segment: None }
    }

    /// Returns the next segment without taking it; `None` at the end. It is counted as executed.
    pub(super) fn peek(&mut self, functions: &mut Functions<'_>) -> Result<Option<Segment>, Error> {
        if self.segment.is_none() {
            self.segment = self.next(functions)?;
        }
        Ok(self.segment)
    }

    /// Takes some instructions of the segment that was peeked at.
    pub(super) fn advance(&mut self, count: u64) {
        let Some(segment) = &mut self.segment else { return };
        if count >= segment.length {
            self.segment = None;
            return;
        }
        segment.at += count;
        segment.pc = segment.pc.offset(4 * count);
        segment.length -= count;
    }

    /// Takes up to `count` instructions.
    pub(super) fn take(
        &mut self,
        count: usize,
        functions: &mut Functions<'_>,
    ) -> Result<Vec<Instruction>, Error> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(segment) = self.peek(functions)? else { break };
            let more = segment.length.min((count - taken.len()) as u64);
            taken.extend(Segment { length: more, ..segment }.instructions(0));
            self.advance(more);
        }
        Ok(taken)
    }

    /// Counts what is left.
    pub(super) fn drain(&mut self, functions: &mut Functions<'_>) -> Result<(), Error> {
        while self.peek(functions)?.is_some() {
            self.segment = None;
        }
        Ok(())
    }

    fn next(&mut self, functions: &mut Functions<'_>) -> Result<Option<Segment>, Error> {
        while self.run.is_none() {
            match self.source.next_record()? {
                Some(Record::Run { pc, length, .. }) => {
                    let length = u64::from(length);
                    self.run = Some((self.source.position().saturating_sub(length), pc, length));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        let Some((at, pc, left)) = self.run.take() else { return Ok(None) };
        let place = functions.at(self.which, pc);
        let length = left.min(place.instructions_from(pc));
        if length < left {
            self.run = Some((at + length, pc.offset(4 * length), left - length));
        }
        functions.count(self.which, place, pc, length);
        Ok(Some(Segment { at, pc, length, place }))
    }
}
