//! Layout of a recording, version 1.3.
//!
//! A recording is a preamble and a sequence of chunks. Each chunk is complete: it can be checked,
//! unpacked and decoded without its neighbours, so a reader may skip, seek or stop at any chunk,
//! and a writer that dies costs no more than the chunk that it was collecting.
//!
//! All integers are little-endian. The preamble is 16 bytes:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 2 | major version: a reader refuses one newer than its own |
//! | 10 | 2 | minor version: additions that an older reader can skip |
//! | 12 | 4 | CRC-32 (IEEE) of the bytes before |
//!
//! A chunk is a header of 40 bytes and a payload:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | [`CHUNK_MAGIC`] |
//! | 4 | 2 | [`ChunkKind`]; unknown kinds are skipped |
//! | 6 | 2 | flags; bit 0: the payload is a zstd frame |
//! | 8 | 4 | payload length in bytes, at most [`MAX_PAYLOAD`] |
//! | 12 | 4 | length once unpacked, at most [`MAX_PAYLOAD`], of records [`RECORDS_MAX_PAYLOAD`] |
//! | 16 | 8 | instructions in the recording before this chunk |
//! | 24 | 8 | instructions in this chunk, at most [`CHUNK_INSTRUCTIONS_MAX`] |
//! | 32 | 4 | CRC-32 of the payload as it lies in the file |
//! | 36 | 4 | CRC-32 of the 36 bytes before |
//!
//! The first chunk is the [`Header`]. `Records` chunks hold the trace in order, `Code` chunks
//! pages of executed code, `Symbols` chunks names, and an `End` chunk the [`Totals`]. A recording
//! without `End` is unfinished and otherwise whole.
//!
//! | version | brought |
//! | --- | --- |
//! | 1.0 | runs, interrupts, events |
//! | 1.1 | exceptions, exclusives, contexts, time, registers, memory; state repeated in each chunk |
//! | 1.2 | turns of other vCPUs, instruction sets |
//! | 1.3 | tasks |

mod chunk;
mod details;
mod fields;
mod known;
mod record;
mod records;
mod tables;
mod varint;

pub use chunk::{ChunkHeader, ChunkKind};
pub(crate) use chunk::{FLAG_ZSTD, preamble};
pub(crate) use known::Known;
pub use record::{Event, Record};
pub(crate) use records::{Decoded, RecordDecoder, RecordEncoder};
pub use stepwell_protocol::{
    Context, ExceptionCause, ExceptionEntry, MemoryAccess, MemoryAccessKind, Register, Waiting,
};
pub(crate) use tables::{code_page, decode_code, decode_symbols, encode_symbols};

/// First bytes of a recording.
pub const MAGIC: [u8; 8] = *b"STEPREC\n";
/// First bytes of a chunk.
pub const CHUNK_MAGIC: [u8; 4] = *b"SWCK";
/// Newest major version that is read, and the one that is written.
pub const MAJOR: u16 = 1;
/// Minor version that is written.
pub const MINOR: u16 = 3;
/// Length of the preamble in bytes.
pub const PREAMBLE_LENGTH: usize = 16;
/// Length of a chunk's header in bytes.
pub const CHUNK_HEADER_LENGTH: usize = 40;
/// Longest payload of a chunk, packed or unpacked: a reader never needs more memory than this.
pub const MAX_PAYLOAD: u32 = 16 << 20;
/// Longest payload of a chunk of records, unpacked, as few bytes may tell many of them: four times what
/// writers put into one.
pub const RECORDS_MAX_PAYLOAD: u32 = 2 << 20;
/// Longest run: 256 KiB of code without a jump. Few bytes may tell a long run, so who reads a file
/// that he was given needs a bound for what he does for a byte of it.
pub const RUN_MAX: u32 = 1 << 16;
/// Most instructions of a chunk, for the same reason; writers begin a new one after half of it.
pub const CHUNK_INSTRUCTIONS_MAX: u64 = 1 << 21;

/// What a recording tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Version of the Stepwell that recorded.
    pub stepwell_version: String,
    /// CPU model that the machine was given, as in `--cpu`.
    pub cpu_model: String,
    /// The guest's command line.
    pub command_line: String,
    /// Interrupt policy: `hold`, `over` or `into`.
    pub interrupt_policy: String,
    /// Time policy: `stopped`, `natural=SEED`, `per-step=NS` or `real`.
    pub time_policy: String,
    /// What was recorded of each step: `pc`, `regs` (the registers that it changed, too) or `mem`
    /// (what it loaded and stored, too).
    pub recorded: String,
    /// Number of vCPUs of the guest.
    pub vcpus: u8,
}

/// What a recording holds, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Executed instructions.
    pub instructions: u64,
    /// Runs of consecutive instructions, after joining.
    pub runs: u64,
    /// Interrupts entered.
    pub interrupts: u64,
    /// Events.
    pub events: u64,
    /// Other records.
    pub details: u64,
    /// Bytes of the file, without the `End` chunk.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::{MAJOR, MINOR};

    /// The page for people, and the two module docs beside the code.
    const PAGE: &str = include_str!("../../../../docs/recording-format.md");
    const LAYOUT: &str = include_str!("mod.rs");
    const RECORDS: &str = include_str!("records.rs");

    #[test]
    fn the_texts_of_the_format_agree() {
        let version = format!("version {MAJOR}.{MINOR}");
        assert!(PAGE.starts_with(&format!("# The recording format, {version}\n")));
        assert!(LAYOUT.starts_with(&format!("//! Layout of a recording, {version}.\n")));
        for minor in 0..=MINOR {
            assert!(PAGE.contains(&format!("\n| {MAJOR}.{minor} | ")), "1.{minor}");
            assert!(LAYOUT.contains(&format!("\n//! | {MAJOR}.{minor} | ")), "1.{minor}");
        }
        for number in (1..super::details::FIRST_UNKNOWN).step_by(2) {
            assert!(PAGE.contains(&format!("\n| {number} | ")), "{number}");
            assert!(RECORDS.contains(&format!("\n//! | {number} | ")), "{number}");
        }
        let unknown = format!("| {} and up, odd |", super::details::FIRST_UNKNOWN);
        assert!(PAGE.contains(&unknown) && RECORDS.contains(&unknown), "{unknown}");
    }
}
