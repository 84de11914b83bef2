//! The few messages of Perfetto's format that a timeline needs, written by hand.
//!
//! A trace is a sequence of packets, each a field of the message around them all, so that it can
//! be written as it comes. Every vCPU is a packet sequence of its own: names are sent once a
//! sequence and then go by number.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

/// Numbers of the fields, by message.
mod field {
    pub(super) const TRACE_PACKET: u32 = 1;

    pub(super) const PACKET_TIMESTAMP: u32 = 8;
    pub(super) const PACKET_SEQUENCE: u32 = 10;
    pub(super) const PACKET_EVENT: u32 = 11;
    pub(super) const PACKET_INTERNED: u32 = 12;
    pub(super) const PACKET_SEQUENCE_FLAGS: u32 = 13;
    pub(super) const PACKET_TRACK: u32 = 60;

    pub(super) const TRACK_UUID: u32 = 1;
    pub(super) const TRACK_NAME: u32 = 2;
    pub(super) const TRACK_PROCESS: u32 = 3;
    pub(super) const TRACK_THREAD: u32 = 4;
    pub(super) const TRACK_PARENT: u32 = 5;

    pub(super) const PROCESS_PID: u32 = 1;
    pub(super) const PROCESS_NAME: u32 = 6;
    pub(super) const THREAD_PID: u32 = 1;
    pub(super) const THREAD_TID: u32 = 2;
    pub(super) const THREAD_NAME: u32 = 5;

    pub(super) const EVENT_TYPE: u32 = 9;
    pub(super) const EVENT_NAME_NUMBER: u32 = 10;
    pub(super) const EVENT_TRACK: u32 = 11;

    pub(super) const INTERNED_EVENT_NAMES: u32 = 2;
    pub(super) const NAME_NUMBER: u32 = 1;
    pub(super) const NAME_TEXT: u32 = 2;
}

const EVENT_BEGIN: u64 = 1;
const EVENT_END: u64 = 2;
/// Names sent before on this sequence are forgotten.
const STATE_CLEARED: u64 = 1;
/// This packet uses names sent before.
const NEEDS_STATE: u64 = 2;
/// The guest is the only process.
const PID: u64 = 1;
const PROCESS_TRACK: u64 = 1;
const PROCESS_SEQUENCE: u64 = 0x1000;
/// Names of a sequence; more of them begin a new set.
const NAMES_MAX: usize = 1 << 16;

/// A message in the making.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, field: u32, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0)
    }
}

/// One end of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) enum EventKind<'a> {
    /// It begins, and is called this.
    Begin(&'a str),
    /// The one that began last ends.
    End,
}

/// The tracks of all vCPUs.
pub(super) struct Tracks<W: Write> {
    output: W,
    names: HashMap<u8, HashMap<String, u64>>,
    /// The vCPUs whose tasks are told.
    with_tasks: HashSet<u8>,
    /// The first error; nothing is written after it.
    failed: Option<io::Error>,
}

impl<W: Write> Tracks<W> {
    pub(super) fn new(command_line: &str, output: W) -> Self {
        let mut tracks =
            Self { output, names: HashMap::new(), with_tasks: HashSet::new(), failed: None };
        let name = format!("guest {command_line}");
        tracks.packet(|packet| {
            packet.number(field::PACKET_SEQUENCE, PROCESS_SEQUENCE);
            packet.message(field::PACKET_TRACK, |track| {
                track.number(field::TRACK_UUID, PROCESS_TRACK);
                track.message(field::TRACK_PROCESS, |process| {
                    process.number(field::PROCESS_PID, PID);
                    process.text(field::PROCESS_NAME, name.trim_end());
                });
            });
        });
        tracks
    }

    /// Puts one end of a slice on the track of a vCPU's calls.
    pub(super) fn call(&mut self, vcpu: u8, kind: EventKind<'_>, ns: u64) {
        self.event(vcpu, call_track(vcpu), kind, ns);
    }

    /// Puts one end of a slice on the track of a vCPU's interrupts and exceptions.
    pub(super) fn interrupt(&mut self, vcpu: u8, kind: EventKind<'_>, ns: u64) {
        self.event(vcpu, interrupt_track(vcpu), kind, ns);
    }

    /// Puts one end of a slice on the track of the tasks that a vCPU executes.
    pub(super) fn task(&mut self, vcpu: u8, kind: EventKind<'_>, ns: u64) {
        if self.with_tasks.insert(vcpu) {
            self.describe_track(vcpu, task_track(vcpu), "tasks");
        }
        self.event(vcpu, task_track(vcpu), kind, ns);
    }

    /// Tells whether nothing is written any more.
    pub(super) const fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Writes what was collected, and tells what went wrong.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.output.flush(),
        }
    }

    fn event(&mut self, vcpu: u8, track: u64, kind: EventKind<'_>, ns: u64) {
        if !self.names.contains_key(&vcpu) {
            self.describe(vcpu);
        }
        let names = self.names.entry(vcpu).or_default();
        let begins_set = names.is_empty() || names.len() >= NAMES_MAX;
        let mut news = None;
        let (event_type, name) = match kind {
            EventKind::End => (EVENT_END, None),
            EventKind::Begin(text) => {
                if begins_set {
                    names.clear();
                }
                let number = names.get(text).copied().unwrap_or_else(|| {
                    let number = names.len() as u64 + 1;
                    names.insert(text.to_owned(), number);
                    news = Some((number, text));
                    number
                });
                (EVENT_BEGIN, Some(number))
            }
        };
        let cleared = if begins_set && name.is_some() { STATE_CLEARED } else { 0 };
        self.packet(|packet| {
            packet.number(field::PACKET_TIMESTAMP, ns);
            packet.number(field::PACKET_SEQUENCE, sequence(vcpu));
            packet.number(field::PACKET_SEQUENCE_FLAGS, NEEDS_STATE | cleared);
            if let Some((number, text)) = news {
                packet.message(field::PACKET_INTERNED, |interned| {
                    interned.message(field::INTERNED_EVENT_NAMES, |name| {
                        name.number(field::NAME_NUMBER, number).text(field::NAME_TEXT, text);
                    });
                });
            }
            packet.message(field::PACKET_EVENT, |event| {
                event.number(field::EVENT_TYPE, event_type);
                if let Some(number) = name {
                    event.number(field::EVENT_NAME_NUMBER, number);
                }
                event.number(field::EVENT_TRACK, track);
            });
        });
    }

    /// Tells of a vCPU's tracks.
    fn describe(&mut self, vcpu: u8) {
        self.packet(|packet| {
            packet.number(field::PACKET_SEQUENCE, sequence(vcpu));
            packet.message(field::PACKET_TRACK, |track| {
                track.number(field::TRACK_UUID, call_track(vcpu));
                track.number(field::TRACK_PARENT, PROCESS_TRACK);
                track.message(field::TRACK_THREAD, |thread| {
                    thread.number(field::THREAD_PID, PID);
                    // Perfetto takes 0 for an idle CPU.
                    thread.number(field::THREAD_TID, u64::from(vcpu) + 1);
                    thread.text(field::THREAD_NAME, &format!("vCPU {vcpu}"));
                });
            });
        });
        self.describe_track(vcpu, interrupt_track(vcpu), "interrupts and exceptions");
    }

    fn describe_track(&mut self, vcpu: u8, track: u64, what: &str) {
        self.packet(|packet| {
            packet.number(field::PACKET_SEQUENCE, sequence(vcpu));
            packet.message(field::PACKET_TRACK, |message| {
                message.number(field::TRACK_UUID, track);
                message.number(field::TRACK_PARENT, PROCESS_TRACK);
                message.text(field::TRACK_NAME, &format!("vCPU {vcpu} {what}"));
            });
        });
    }

    fn packet(&mut self, fill: impl FnOnce(&mut Message)) {
        if self.failed.is_some() {
            return;
        }
        let mut trace = Message::default();
        trace.message(field::TRACE_PACKET, fill);
        self.failed = self.output.write_all(&trace.0).err();
    }
}

fn call_track(vcpu: u8) -> u64 {
    0x100 + u64::from(vcpu)
}

fn interrupt_track(vcpu: u8) -> u64 {
    0x200 + u64::from(vcpu)
}

fn task_track(vcpu: u8) -> u64 {
    0x300 + u64::from(vcpu)
}

/// Number 0 is none.
fn sequence(vcpu: u8) -> u64 {
    u64::from(vcpu) + 1
}
