//! A part of a recording, chosen by vCPU, exception level, place and time.
//!
//! Conditions of one kind are alternatives; different kinds must all hold. A run is cut exactly
//! where it crosses a border, so that what passes is the same whether it came as one run or as
//! many. What is no instruction goes with one:
//!
//! - what is known of an instruction (registers, memory, exclusives, an exception return) passes
//!   if it did;
//! - an interrupt or exception passes if the instruction at its return address would;
//! - an SMC that was monitored passes if it would itself;
//! - contexts, times and notes pass while the range of instructions lasts (contexts, of the vCPUs
//!   that were asked for), because they are about what follows.

use crate::code::CodePages;
use crate::error::Error;
use crate::format::{Event, Header, Record};
use crate::level::Levels;
use crate::source::Source;
use crate::symbols::Symbols;
use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use stepwell_arch::address::Va;

/// What passes. The default lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    vcpus: Vec<u8>,
    levels: Vec<u8>,
    /// Sorted, and apart from each other; `None` for everywhere.
    places: Option<Vec<(u64, u64)>>,
    from: u64,
    to: Option<u64>,
}

impl Filter {
    /// Returns one that lets everything pass.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets this vCPU pass, besides others that were named.
    #[must_use]
    pub fn vcpu(mut self, vcpu: u8) -> Self {
        self.vcpus.push(vcpu);
        self
    }

    /// Lets this exception level pass, besides others that were named.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.levels.push(level);
        self
    }

    /// Lets the instructions that begin at these addresses pass, besides others that were named.
    #[must_use]
    pub fn place(mut self, place: RangeInclusive<u64>) -> Self {
        let mut places = self.places.take().unwrap_or_default();
        if !place.is_empty() {
            places.push((*place.start(), *place.end()));
        }
        places.sort_unstable();
        let mut apart: Vec<(u64, u64)> = Vec::with_capacity(places.len());
        for (first, last) in places {
            match apart.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => apart.push((first, last)),
            }
        }
        self.places = Some(apart);
        self
    }

    /// Lets pass from the instruction that has so many before it in the recording.
    #[must_use]
    pub const fn from(mut self, instruction: u64) -> Self {
        self.from = instruction;
        self
    }

    /// Lets pass up to the instruction that has so many before it, without that one.
    #[must_use]
    pub const fn to(mut self, instruction: u64) -> Self {
        self.to = Some(instruction);
        self
    }

    /// Tells whether everything passes.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.vcpus.is_empty()
            && self.levels.is_empty()
            && self.places.is_none()
            && self.from == 0
            && self.to.is_none()
    }

    /// Lets no other vCPU pass than this one.
    pub(crate) fn only_vcpu(mut self, vcpu: u8) -> Self {
        self.vcpus = vec![vcpu];
        self
    }

    /// Tells whether the vCPU passes.
    pub(crate) fn takes_vcpu(&self, vcpu: u8) -> bool {
        self.vcpus.is_empty() || self.vcpus.contains(&vcpu)
    }

    fn takes(&self, vcpu: u8, level: u8, pc: Va) -> bool {
        let place = |places: &Vec<(u64, u64)>| {
            let after = places.partition_point(|place| place.0 <= pc.0);
            after > 0 && pc.0 <= places[after - 1].1
        };
        self.takes_vcpu(vcpu)
            && (self.levels.is_empty() || self.levels.contains(&level))
            && self.places.as_ref().is_none_or(place)
    }

    /// Calls `take` with each part of a run that passes by its place: how many instructions are
    /// before it, and how many it has.
    fn cut(&self, pc: Va, length: u32, take: &mut dyn FnMut(u32, u32)) {
        let Some(places) = &self.places else {
            return take(0, length);
        };
        let last = pc.0.wrapping_add(4 * u64::from(length - 1));
        if last < pc.0 {
            // Around the end of the addresses: no guest does that, but damaged files may.
            let low = (u64::MAX - pc.0) / 4 + 1;
            let low = u32::try_from(low).unwrap_or(length).min(length);
            self.cut(pc, low, take);
            let rest = pc.offset(4 * u64::from(low));
            if low < length {
                self.cut(rest, length - low, &mut |skip, count| take(low + skip, count));
            }
            return;
        }
        let begin = places.partition_point(|place| place.1 < pc.0);
        for &(first, end) in places[begin..].iter().take_while(|place| place.0 <= last) {
            // The first instruction that begins in the place, and the first one beyond.
            let skip = first.saturating_sub(pc.0).div_ceil(4);
            let stop = ((end - pc.0) / 4).saturating_add(1).min(u64::from(length));
            if skip < stop {
                take(skip as u32, (stop - skip) as u32);
            }
        }
    }
}

/// Passes on what a [`Filter`] lets pass.
#[derive(Debug)]
pub struct Filtered<S> {
    source: S,
    filter: Filter,
    levels: Levels,
    /// Parts of a run, with the position behind each.
    parts: VecDeque<(u64, Record)>,
    /// Position behind what was returned last.
    position: u64,
    /// Whether the last instruction of a vCPU passed.
    passed: HashMap<u8, bool>,
    started: bool,
}

impl<S: Source> Filtered<S> {
    /// Chooses from `source`, which should be at its beginning.
    pub fn new(source: S, filter: Filter) -> Self {
        Self {
            source,
            filter,
            levels: Levels::default(),
            parts: VecDeque::new(),
            position: 0,
            passed: HashMap::new(),
            started: false,
        }
    }

    /// Returns what it chooses from.
    pub const fn inner(&self) -> &S {
        &self.source
    }

    fn start(&mut self) -> Result<(), Error> {
        self.started = true;
        if self.filter.from > 0 {
            self.source.seek(self.filter.from)?;
        }
        self.position = self.source.position();
        Ok(())
    }

    fn is_over(&self, position: u64) -> bool {
        self.filter.to.is_some_and(|to| position >= to)
    }

    /// Puts the parts of a run that pass into the queue.
    fn cut(&mut self, vcpu: u8, pc: Va, length: u32) {
        let end = self.source.position();
        let start = end.saturating_sub(u64::from(length));
        let skip = u32::try_from(self.filter.from.saturating_sub(start)).unwrap_or(length);
        let beyond = self.filter.to.map_or(0, |to| end.saturating_sub(to));
        let stop = length.saturating_sub(u32::try_from(beyond).unwrap_or(length));
        let level = self.levels.level(vcpu, pc);
        let level_passes = self.filter.levels.is_empty() || self.filter.levels.contains(&level);
        let mut last = 0;
        if skip < stop && self.filter.takes_vcpu(vcpu) && level_passes {
            let (parts, first) = (&mut self.parts, pc.offset(4 * u64::from(skip)));
            self.filter.cut(first, stop - skip, &mut |more, count| {
                let before = skip + more;
                let pc = pc.offset(4 * u64::from(before));
                last = before + count;
                let position = start + u64::from(last);
                parts.push_back((position, Record::Run { vcpu, pc, length: count }));
            });
        }
        self.passed.insert(vcpu, last == length);
    }

    /// Tells whether something that is no run passes.
    fn passes(&self, record: &Record, over: bool) -> bool {
        let last = |vcpu: u8| self.passed.get(&vcpu).copied().unwrap_or(false);
        let filter = &self.filter;
        let instead = |vcpu, pc: Va| !over && filter.takes(vcpu, self.levels.level(vcpu, pc), pc);
        match record {
            Record::Run { .. } => false,
            Record::Interrupt { vcpu, pc }
            | Record::Turns { vcpu, pc, .. }
            | Record::Event(Event::PrivilegedCall { vcpu, pc, .. }) => instead(*vcpu, *pc),
            Record::ExceptionEntry(entry) => instead(entry.vcpu, entry.return_address),
            Record::Event(Event::Note(_)) | Record::Time { .. } => !over,
            Record::Context(context) => !over && filter.takes_vcpu(context.vcpu),
            Record::InstructionSet { vcpu, .. } | Record::Event(Event::Task { vcpu, .. }) => {
                filter.takes_vcpu(*vcpu)
            }
            Record::Register { vcpu, found: true, .. } => !over && filter.takes_vcpu(*vcpu),
            Record::Register { vcpu, .. }
            | Record::Exclusive { vcpu, .. }
            | Record::ExceptionReturn { vcpu, .. } => last(*vcpu),
            Record::Memory(access) => last(access.vcpu),
        }
    }
}

impl<S: Source> Source for Filtered<S> {
    fn header(&self) -> &Header {
        self.source.header()
    }

    fn code_pages(&mut self) -> Result<CodePages, Error> {
        self.source.code_pages()
    }

    fn symbols(&mut self) -> Result<Symbols, Error> {
        self.source.symbols()
    }

    fn next_record(&mut self) -> Result<Option<Record>, Error> {
        if !self.started {
            self.start()?;
        }
        loop {
            if let Some((position, part)) = self.parts.pop_front() {
                self.position = position;
                return Ok(Some(part));
            }
            let Some(record) = self.source.next_record()? else { return Ok(None) };
            if let Record::Run { vcpu, pc, length } = record {
                if self.is_over(self.source.position().saturating_sub(u64::from(length))) {
                    return Ok(None);
                }
                self.levels.observe(&record);
                self.cut(vcpu, pc, length);
                continue;
            }
            let position = self.source.position();
            let passes = self.passes(&record, self.is_over(position));
            self.levels.observe(&record);
            if passes {
                self.position = position;
                return Ok(Some(record));
            }
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn seek(&mut self, instruction: u64) -> Result<bool, Error> {
        self.started = true;
        self.parts.clear();
        let found = self.source.seek(instruction.max(self.filter.from))?;
        self.position = self.source.position();
        Ok(found)
    }
}
