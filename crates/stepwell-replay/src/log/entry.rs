//! What the lines of a log say: where the run begins, and what happened in it.

use super::Part;
use serde::{Deserialize, Serialize};
use stepwell_debuggee::{Moment, StateHash};

/// The version of the format, in its header.
pub const VERSION: u32 = 4;

/// Where a run begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub stepwell_replay: u32,
    /// QEMU's name of the CPU model.
    pub cpu: String,
    /// vCPUs.
    pub vcpus: u8,
    /// Bytes of the guest's memory.
    pub memory_bytes: u64,
    /// Who executes when: a [`stepwell_debuggee::Schedule`] in words.
    pub schedule: String,
    /// The kernel's command line.
    pub command_line: String,
    /// The kernel was taken without any header.
    pub raw: bool,
    /// The kernel.
    pub kernel: FileIdentity,
    /// The initial ramdisk.
    pub initrd: Option<FileIdentity>,
    /// A device tree that replaces the one that the hypervisor would make.
    pub devicetree: Option<FileIdentity>,
    /// The disks, in their order.
    pub disks: Vec<DiskIdentity>,
    /// The seed of the entropy device, if there is one.
    pub entropy: Option<u64>,
    /// The hypervisor's image: SHA-256.
    pub hypervisor: String,
    /// What QEMU says of its version.
    pub qemu: String,
}

/// A file that a run begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Where it was.
    pub path: String,
    /// SHA-256 of its contents.
    pub sha256: String,
}

/// A disk that a run begins with. What was written to it was kept elsewhere, and forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskIdentity {
    /// Where its image was.
    pub path: String,
    /// A digest of what the guest reads from it, whatever its image's format: see docs/replay-format.md.
    pub sha256: String,
    /// The guest may not write.
    pub is_read_only: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A part of a file that the run begins with, before anything happens.
    Packed(Part),
    /// Bytes were typed on the guest's console.
    Input {
        /// Instructions that were executed before it.
        position: u64,
        /// The guest's counter.
        clock: u64,
        /// Two hexadecimal digits each.
        bytes: String,
    },
    /// The state was looked at.
    State {
        /// Instructions that were executed before it.
        position: u64,
        /// The guest's counter.
        clock: u64,
        /// Of the vCPUs' registers, in hexadecimal.
        registers: String,
        /// Of the RAM, in hexadecimal.
        memory: String,
    },
    /// The run passed here: whatever became of its recorder, so far it can be had again.
    Passed {
        /// Instructions that were executed before it.
        position: u64,
        /// The guest's counter.
        clock: u64,
    },
    /// The recorder ended here, and the guest had not.
    Left {
        /// Instructions that were executed.
        position: u64,
        /// The guest's counter.
        clock: u64,
    },
    /// The guest ended.
    Ended {
        /// Instructions that were executed.
        position: u64,
        /// The guest's counter.
        clock: u64,
        /// How, in words.
        how: String,
    },
}

impl Entry {
    /// Packs a part of a file, at most [`super::PART_BYTES`] of it.
    #[must_use]
    pub fn part(file: &str, offset: u64, bytes: &[u8]) -> Self {
        Self::Packed(Part::pack(file, offset, bytes))
    }

    /// Makes a moment that was passed.
    #[must_use]
    pub const fn passed(moment: Moment) -> Self {
        let Moment { position, clock } = moment;
        Self::Passed { position, clock }
    }

    /// Makes an input.
    #[must_use]
    pub fn input(moment: Moment, bytes: &[u8]) -> Self {
        let Moment { position, clock } = moment;
        let bytes = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::Input { position, clock, bytes }
    }

    /// Makes a look at the state.
    #[must_use]
    pub fn state(moment: Moment, hash: StateHash) -> Self {
        let Moment { position, clock } = moment;
        let (registers, memory) =
            (format!("{:016x}", hash.registers), format!("{:016x}", hash.memory));
        Self::State { position, clock, registers, memory }
    }

    /// Returns when it happened.
    #[must_use]
    pub const fn moment(&self) -> Moment {
        match *self {
            Self::Packed(_) => Moment::at(0),
            Self::Input { position, clock, .. }
            | Self::State { position, clock, .. }
            | Self::Passed { position, clock }
            | Self::Left { position, clock }
            | Self::Ended { position, clock, .. } => Moment { position, clock },
        }
    }

    /// Tells whether its words are what they stand for.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Packed(part) => part.unpack().is_some(),
            Self::Input { bytes, .. } => typed(bytes).is_some(),
            Self::State { registers, memory, .. } => {
                [registers, memory].into_iter().all(|word| u64::from_str_radix(word, 16).is_ok())
            }
            Self::Passed { .. } | Self::Left { .. } | Self::Ended { .. } => true,
        }
    }
}

/// Returns the bytes of an input.
#[must_use]
pub fn typed(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    pairs.map(byte).collect()
}
