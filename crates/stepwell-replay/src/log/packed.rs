//! Files that a run begins with, packed into its log: in parts, each a line, compressed.
//!
//! What is all zero is left out, so that a disk takes no more room than what is on it. A part is no longer
//! than a line may be, whatever is in it.

use super::Entry;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Bytes of a file in a part, at most.
pub const PART_BYTES: usize = 512 << 10;
/// zstd's default: what is packed is compressed already, mostly.
const LEVEL: i32 = 3;

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which: `kernel`, `initrd`, `devicetree`, or `disk0` and so on.
    pub file: String,
    /// Where in the file it is.
    pub offset: u64,
    /// A zstd frame, in base64.
    pub zstd: String,
}

impl Part {
    pub(super) fn pack(file: &str, offset: u64, bytes: &[u8]) -> Self {
        // It fails for want of memory only.
        let frame = zstd::bulk::compress(bytes, LEVEL).unwrap_or_default();
        Self { file: file.into(), offset, zstd: STANDARD.encode(frame) }
    }

    /// Returns its bytes; nothing where it is not sound.
    #[must_use]
    pub fn unpack(&self) -> Option<Vec<u8>> {
        let frame = STANDARD.decode(&self.zstd).ok()?;
        zstd::bulk::decompress(&frame, PART_BYTES).ok()
    }
}

/// Packs what lies at `offset` of a file, part by part. The last part of a file is packed whatever is in
/// it: it says how long the file is.
pub fn parts(file: &str, offset: u64, bytes: &[u8], has_more: bool) -> impl Iterator<Item = Entry> {
    let mut rest = bytes.chunks(PART_BYTES).zip((offset..).step_by(PART_BYTES)).peekable();
    std::iter::from_fn(move || {
        loop {
            let (part, at) = rest.next()?;
            let is_last = !has_more && rest.peek().is_none();
            if is_last || part.iter().any(|&byte| byte != 0) {
                return Some(Entry::part(file, at, part));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_zeros_take_no_room() {
        let mut file = vec![0; 3 * PART_BYTES];
        file[PART_BYTES + 7] = 1;
        file.extend([2; 5]);
        let last = parts("disk0", 0, &[0; 5], false).count();
        assert_eq!((parts("disk0", 0, &[0; 5], true).count(), last), (0, 1), "it has the length");
        let parts: Vec<Entry> = parts("disk0", 4096, &file, true).collect();
        let [Entry::Packed(one), Entry::Packed(last)] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!(one.offset, 4096 + PART_BYTES as u64);
        assert_eq!(one.unpack().unwrap(), file[PART_BYTES..2 * PART_BYTES]);
        assert_eq!(
            (last.offset, last.unpack().unwrap()),
            (4096 + 3 * PART_BYTES as u64, vec![2; 5])
        );
    }

    #[test]
    fn what_is_no_part_of_a_file_is_none() {
        let part = |zstd: &str| Part { file: "kernel".into(), offset: 0, zstd: zstd.into() };
        assert_eq!(part("!").unpack(), None);
        assert_eq!(part("aGVsbG8=").unpack(), None);
        let more = zstd::bulk::compress(&vec![0; PART_BYTES + 1], LEVEL).unwrap();
        assert_eq!(part(&STANDARD.encode(more)).unpack(), None, "more than a part has");
    }
}
