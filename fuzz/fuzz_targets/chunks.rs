//! Any bytes as the payloads of chunks whose checksums are right.
//!
//! A chunk is made of a byte for its kind, one for the instructions that it claims, one for those
//! before it, one for how long its payload is, and the payload.

#![no_main]

use stepwell_trace::format::{ChunkHeader, ChunkKind, Header};
use stepwell_trace::Writer;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut recording = Vec::new();
    let writer = Writer::new(&mut recording, &Header::default()).expect("memory takes everything");
    writer.finish().expect("memory takes everything");
    // Its preamble, and what follows is ours.
    recording.truncate(16);
    let mut rest = bytes;
    while let [kind, instructions, first, length, payload @ ..] = rest {
        let (payload, next) = payload.split_at(payload.len().min(usize::from(*length) * 4));
        recording.extend(chunk(*kind, *instructions, *first, payload));
        rest = next;
    }
    stepwell_fuzz::read(&recording);
});

fn chunk(kind: u8, instructions: u8, first: u8, payload: &[u8]) -> Vec<u8> {
    let kind = match kind & 7 {
        1 => ChunkKind::Header,
        2 | 6 => ChunkKind::Records,
        3 => ChunkKind::Code,
        4 => ChunkKind::Symbols,
        5 => ChunkKind::End,
        _ => ChunkKind::Unknown(u16::from(kind)),
    };
    let length = payload.len() as u32;
    let header = ChunkHeader {
        kind,
        flags: 0,
        packed_length: length,
        unpacked_length: length,
        first_instruction: u64::from(first),
        instructions: u64::from(instructions),
        payload_checksum: crc(payload),
    };
    [&header.encode()[..], payload].concat()
}

/// CRC-32 (IEEE), bit by bit: payloads are short.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 }
        })
    })
}
