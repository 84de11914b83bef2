//! Timelines, taken apart by a decoder of protocol buffers that knows nothing of the writer.

use super::assert_golden;
use super::sample::{open, records, sample};
use std::collections::BTreeMap;
use std::fmt::Write;
use stepwell_arch::address::Va;
use stepwell_trace::Record;
use stepwell_trace::export::perfetto::{Clock, Options, write};

/// A field's number and value.
enum Field<'a> {
    Number(u32, u64),
    Bytes(u32, &'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().expect("an integer ends");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let number = (key >> 3) as u32;
        match key & 7 {
            0 => fields.push(Field::Number(number, varint(&mut bytes))),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                fields.push(Field::Bytes(number, value));
            }
            kind => panic!("wire type {kind}"),
        }
    }
    fields
}

fn number(bytes: &[u8], wanted: u32) -> Option<u64> {
    fields(bytes).into_iter().find_map(|field| match field {
        Field::Number(number, value) if number == wanted => Some(value),
        _ => None,
    })
}

fn all(bytes: &[u8], wanted: u32) -> Vec<&[u8]> {
    let bytes = fields(bytes).into_iter().filter_map(|field| match field {
        Field::Bytes(number, value) if number == wanted => Some(value),
        _ => None,
    });
    bytes.collect()
}

fn message(bytes: &[u8], wanted: u32) -> Option<&[u8]> {
    all(bytes, wanted).first().copied()
}

fn string(bytes: &[u8], wanted: u32) -> String {
    String::from_utf8(message(bytes, wanted).expect("a text").to_vec()).unwrap()
}

/// Names by the sequence and their number in it.
type Names = BTreeMap<(u64, u64), String>;

/// Turns a timeline into lines, and checks that slices nest and time does not go back.
fn told(trace: &[u8]) -> String {
    let (mut names, mut out) = (Names::new(), String::new());
    let mut open: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
    let mut cleared = Vec::new();
    for packet in all(trace, 1) {
        let sequence = number(packet, 10).expect("every packet has a sequence");
        if let Some(track) = message(packet, 60) {
            let uuid = number(track, 1).unwrap();
            let name = if let Some(process) = message(track, 3) {
                format!("process {}", string(process, 6))
            } else if let Some(thread) = message(track, 4) {
                format!("thread {}", string(thread, 5))
            } else {
                format!("track {}", string(track, 2))
            };
            writeln!(out, "{uuid:#x}: {name}").unwrap();
            open.insert(uuid, (0, Vec::new()));
        }
        let flags = number(packet, 13).unwrap_or(0);
        if flags & 1 != 0 {
            names.retain(|key, _| key.0 != sequence);
            cleared.push(sequence);
        }
        assert!(flags & 2 == 0 || cleared.contains(&sequence), "names before a first set of them");
        for interned in all(packet, 12) {
            for name in all(interned, 2) {
                names.insert((sequence, number(name, 1).unwrap()), string(name, 2));
            }
        }
        let Some(event) = message(packet, 11) else { continue };
        let ns = number(packet, 8).expect("an event has a time");
        let uuid = number(event, 11).expect("an event has a track");
        let (last, stack) = open.get_mut(&uuid).expect("a track that was told of");
        assert!(ns >= *last, "time goes back on a track");
        *last = ns;
        let depth = stack.len();
        match number(event, 9) {
            Some(1) => {
                let name = names[&(sequence, number(event, 10).unwrap())].clone();
                writeln!(out, "{uuid:#x} {ns:>6} {}{name}", "  ".repeat(depth)).unwrap();
                stack.push(name);
            }
            Some(2) => {
                let name = stack.pop().expect("what ends began");
                writeln!(out, "{uuid:#x} {ns:>6} {}end of {name}", "  ".repeat(depth - 1)).unwrap();
            }
            other => panic!("event type {other:?}"),
        }
    }
    assert!(open.values().all(|(_, stack)| stack.is_empty()), "a slice does not end");
    out
}

fn exported(options: Options) -> String {
    let mut out = Vec::new();
    write(&mut sample(), options, &mut out).unwrap();
    told(&out)
}

#[test]
fn everything_is_told_without_folding() {
    let text = exported(Options { fold: 1, clock: Clock::Instructions });
    assert_golden("perfetto.txt", &text);
}

#[test]
fn short_calls_are_folded_and_interrupts_are_not() {
    let text = exported(Options { fold: 8, clock: Clock::Instructions });
    assert!(text.contains(" main\n") && !text.contains(" handler\n"), "{text}");
    assert_eq!(text.matches("IRQ 27\n").count(), 2, "{text}");
}

#[test]
fn the_guests_clock_goes_by_what_the_recording_tells() {
    let text = exported(Options { fold: 1, clock: Clock::GuestTime });
    assert!(text.contains("0x100   5000 main"), "{text}");
    assert!(text.contains("  9010 "), "{text}");
}

#[test]
fn a_long_trace_makes_a_small_timeline() {
    let mut long = Vec::new();
    for _ in 0..20_000 {
        long.extend(records());
        long.push(Record::Run { vcpu: 1, pc: Va(super::sample::MAIN), length: 1 });
    }
    let mut out = Vec::new();
    write(&mut open(&long), Options::default(), &mut out).unwrap();
    let slices = told(&out).matches("end of").count();
    // An interrupt, a system call, and now and then something longer.
    assert!(slices < 20_000 * 6, "{slices}");
}
