//! What is known to hold at a place of a recording: clock, address spaces, tasks and registers.
//!
//! Records tell changes. Who begins in the middle, after a seek or behind damage, needs what they
//! change: the writer repeats it at the beginning of each chunk, and the reader hands it out where
//! somebody begins, and keeps it to itself where one chunk follows another.

use super::{Context, Event, Record, Register};
use std::collections::BTreeMap;
use stepwell_arch::InstructionSet;

/// The state at one place of a recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    time: Option<u64>,
    vcpus: BTreeMap<u8, KnownVcpu>,
}

#[derive(Clone, Debug)]
struct KnownVcpu {
    context: Option<Context>,
    set: Option<InstructionSet>,
    /// The task that is executed: number, process, name.
    task: Option<(u32, u32, String)>,
    registers: [Option<u64>; Register::COUNT],
}

impl Known {
    /// Takes a record into account.
    pub(crate) fn observe(&mut self, record: &Record) {
        match record {
            Record::Time { ns } => self.time = Some(*ns),
            Record::Context(context) => self.of(context.vcpu).context = Some(*context),
            Record::InstructionSet { vcpu, set } => self.of(*vcpu).set = Some(*set),
            Record::ExceptionEntry(entry) => self.set_el(entry.vcpu, 1),
            Record::ExceptionReturn { vcpu, el, .. } => self.set_el(*vcpu, *el),
            Record::Register { vcpu, register, value, .. } => {
                self.of(*vcpu).registers[usize::from(register.number())] = Some(*value);
            }
            Record::Event(Event::Task { vcpu, pid, tgid, name }) => {
                self.of(*vcpu).task = Some((*pid, *tgid, name.clone()));
            }
            Record::Run { .. }
            | Record::Interrupt { .. }
            | Record::Event(Event::PrivilegedCall { .. } | Event::Note(_))
            | Record::Exclusive { .. }
            | Record::Turns { .. }
            | Record::Memory(_) => {}
        }
    }

    /// Tells the state as records.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        let time = self.time.map(|ns| Record::Time { ns });
        let vcpus = self.vcpus.iter().flat_map(|(&vcpu, known)| {
            let registers = (0..).zip(known.registers).filter_map(move |(number, value)| {
                let (register, value) = (Register::new(number)?, value?);
                Some(Record::Register { vcpu, register, value, found: true })
            });
            let set = known.set.map(|set| Record::InstructionSet { vcpu, set });
            let task = known
                .task
                .clone()
                .map(|(pid, tgid, name)| Record::Event(Event::Task { vcpu, pid, tgid, name }));
            known.context.map(Record::Context).into_iter().chain(set).chain(task).chain(registers)
        });
        time.into_iter().chain(vcpus)
    }

    fn of(&mut self, vcpu: u8) -> &mut KnownVcpu {
        let registers = [None; Register::COUNT];
        let nothing = KnownVcpu { context: None, set: None, task: None, registers };
        self.vcpus.entry(vcpu).or_insert(nothing)
    }

    fn set_el(&mut self, vcpu: u8, el: u8) {
        if let Some(context) = self.vcpus.get_mut(&vcpu).and_then(|known| known.context.as_mut()) {
            context.el = el;
        }
    }
}
