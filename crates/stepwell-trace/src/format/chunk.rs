//! The preamble and the chunk header: the only parts of a recording that have fixed places.

use super::{
    CHUNK_HEADER_LENGTH, CHUNK_INSTRUCTIONS_MAX, CHUNK_MAGIC, MAGIC, MAJOR, MAX_PAYLOAD, MINOR,
    PREAMBLE_LENGTH, RECORDS_MAX_PAYLOAD,
};

/// The payload is a zstd frame.
pub(crate) const FLAG_ZSTD: u16 = 1;

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// What the recording tells about itself.
    Header,
    /// The trace.
    Records,
    /// Pages of executed code.
    Code,
    /// Names for addresses.
    Symbols,
    /// Totals; nothing follows.
    End,
    /// Of a later version: skipped.
    Unknown(u16),
}

impl ChunkKind {
    const fn number(self) -> u16 {
        match self {
            Self::Header => 1,
            Self::Records => 2,
            Self::Code => 3,
            Self::Symbols => 4,
            Self::End => 5,
            Self::Unknown(number) => number,
        }
    }

    const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Header,
            2 => Self::Records,
            3 => Self::Code,
            4 => Self::Symbols,
            5 => Self::End,
            number => Self::Unknown(number),
        }
    }
}

/// What precedes each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// What the payload is.
    pub kind: ChunkKind,
    /// How it is packed: bit 0 is set for zstd.
    pub flags: u16,
    /// Bytes of the payload in the file.
    pub packed_length: u32,
    /// Bytes of the payload once unpacked.
    pub unpacked_length: u32,
    /// Instructions of the recording before this chunk.
    pub first_instruction: u64,
    /// Instructions in this chunk.
    pub instructions: u64,
    /// CRC-32 of the payload in the file.
    pub payload_checksum: u32,
}

impl ChunkHeader {
    /// Returns the header as the file has it.
    #[must_use]
    pub fn encode(&self) -> [u8; CHUNK_HEADER_LENGTH] {
        let mut out = [0; CHUNK_HEADER_LENGTH];
        out[0..4].copy_from_slice(&CHUNK_MAGIC);
        out[4..6].copy_from_slice(&self.kind.number().to_le_bytes());
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..12].copy_from_slice(&self.packed_length.to_le_bytes());
        out[12..16].copy_from_slice(&self.unpacked_length.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_instruction.to_le_bytes());
        out[24..32].copy_from_slice(&self.instructions.to_le_bytes());
        out[32..36].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = crc32fast::hash(&out[..36]);
        out[36..40].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8; CHUNK_HEADER_LENGTH]) -> Result<Self, &'static str> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..4] != CHUNK_MAGIC {
            return Err("no chunk begins here");
        }
        if crc32fast::hash(&bytes[..36]) != u32_at(36) {
            return Err("the chunk header's checksum is wrong");
        }
        let header = Self {
            kind: ChunkKind::from_number(u16_at(4)),
            flags: u16_at(6),
            packed_length: u32_at(8),
            unpacked_length: u32_at(12),
            first_instruction: u64_at(16),
            instructions: u64_at(24),
            payload_checksum: u32_at(32),
        };
        if header.packed_length > MAX_PAYLOAD || header.unpacked_length > MAX_PAYLOAD {
            return Err("the chunk is larger than any that is written");
        }
        if header.kind == ChunkKind::Records && header.unpacked_length > RECORDS_MAX_PAYLOAD {
            return Err("the chunk has more records than any that is written");
        }
        if header.instructions > CHUNK_INSTRUCTIONS_MAX {
            return Err("the chunk tells of more instructions than any that is written");
        }
        Ok(header)
    }
}

/// Returns the first bytes of a recording.
pub(crate) fn preamble() -> [u8; PREAMBLE_LENGTH] {
    let mut out = [0; PREAMBLE_LENGTH];
    out[0..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    out[10..12].copy_from_slice(&MINOR.to_le_bytes());
    let checksum = crc32fast::hash(&out[..12]);
    out[12..16].copy_from_slice(&checksum.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_preamble() {
        assert_eq!(&preamble()[..12], b"STEPREC\n\x01\0\x03\0");
    }

    #[test]
    fn a_header_that_promises_too_much_is_none() {
        let mut header = ChunkHeader {
            kind: ChunkKind::Records,
            flags: 0,
            packed_length: 10,
            unpacked_length: 10,
            first_instruction: 0,
            instructions: CHUNK_INSTRUCTIONS_MAX,
            payload_checksum: 0,
        };
        assert!(ChunkHeader::decode(&header.encode()).is_ok());
        header.instructions += 1;
        assert!(ChunkHeader::decode(&header.encode()).is_err());
        (header.instructions, header.unpacked_length) = (0, RECORDS_MAX_PAYLOAD);
        assert!(ChunkHeader::decode(&header.encode()).is_ok());
        header.unpacked_length += 1;
        assert!(ChunkHeader::decode(&header.encode()).is_err());
        header.kind = ChunkKind::Code;
        assert!(ChunkHeader::decode(&header.encode()).is_ok());
    }

    #[test]
    fn header_survives_and_every_flipped_bit_is_noticed() {
        let header = ChunkHeader {
            kind: ChunkKind::Records,
            flags: FLAG_ZSTD,
            packed_length: 10,
            unpacked_length: 1000,
            first_instruction: 1 << 40,
            instructions: 12345,
            payload_checksum: 0xdead_beef,
        };
        let bytes = header.encode();
        assert_eq!(ChunkHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
