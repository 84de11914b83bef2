//! The bare-metal guests' images: where they are, and the places that each tells of itself.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::process::configured;
use crate::stream::{self, Stream};

/// Where guests are loaded and entered.
pub const LOAD: u64 = 0x4020_0000;
/// The notes' offset in the image, and what they begin with.
const NOTES: usize = 0x40;
const NOTES_MAGIC: &[u8; 8] = b"GSTNOTES";

/// The folder of guests, kernels and initial file systems.
#[must_use]
pub fn folder() -> PathBuf {
    configured("STEPWELL_GUESTS", "target/guests")
}

/// An image and its notes.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The name that its result line begins with.
    pub name: String,
    /// The image.
    pub path: PathBuf,
    vectors: u64,
    interrupt_return: u64,
    /// Code whose loops depend on time: no two runs execute the same number of its instructions.
    pub timed: Range<u64>,
    /// From here on, instructions depend on whether interrupts came.
    pub exact_end: Option<u64>,
    /// The loop that the guest is about, where it has one.
    pub counting_loop: Option<Range<u64>>,
}

impl Guest {
    /// Finds a guest and reads its notes.
    ///
    /// # Panics
    /// Where the image is missing or has no notes: then the tests cannot mean anything.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let path = folder().join(format!("{name}.bin"));
        let image = fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}: build the guests with `cargo xtask guests`", path.display())
        });
        Self::parse(name, &path, &image)
            .unwrap_or_else(|| panic!("{}: no notes in the image", path.display()))
    }

    fn parse(name: &str, path: &Path, image: &[u8]) -> Option<Self> {
        let notes = image.get(NOTES..NOTES + 64)?;
        if &notes[..8] != NOTES_MAGIC {
            return None;
        }
        let word = |place: usize| {
            let bytes = notes[8 * place..8 * place + 8].try_into().expect("eight bytes were cut");
            u64::from_le_bytes(bytes)
        };
        let some = |value: u64| if value == 0 { None } else { Some(value) };
        Some(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            vectors: word(1),
            interrupt_return: word(2),
            timed: word(3)..word(4),
            exact_end: some(word(5)),
            counting_loop: some(word(6)).map(|start| start..word(7)),
        })
    }

    /// The IRQ vectors, of EL1, of EL0 and of AArch32 EL0.
    #[must_use]
    pub fn interrupt_vectors(&self) -> [u64; 3] {
        [self.vectors + 0x280, self.vectors + 0x480, self.vectors + 0x680]
    }

    /// The vector of synchronous exceptions at EL1.
    #[must_use]
    pub fn synchronous_vector(&self) -> u64 {
        self.vectors + 0x200
    }

    /// The ERET by which interrupts return.
    #[must_use]
    pub fn interrupt_return(&self) -> u64 {
        self.interrupt_return
    }

    /// What is left of a stream without interrupts, without what depends on time, up to where the
    /// guest stops being exact.
    #[must_use]
    pub fn exact_part(&self, stream: &[u64]) -> Stream {
        let stream = match self.exact_end {
            Some(end) => stream::until(stream, end),
            None => stream,
        };
        let main =
            stream::without_interrupts(stream, &self.interrupt_vectors(), self.interrupt_return);
        stream::without_ranges(&main, std::slice::from_ref(&self.timed))
    }

    /// Whether a console's text has the guest's line of success.
    #[must_use]
    pub fn succeeded(&self, console: &str) -> bool {
        console.contains(&format!("{}: ok ", self.name)) && !console.contains("FAIL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_and_absent_places_are_none() {
        let mut image = vec![0; NOTES];
        image.extend(NOTES_MAGIC);
        for word in [0x4020_0800_u64, 0x4020_1234, 0x100, 0x200, 0, 0x300, 0x30c] {
            image.extend(word.to_le_bytes());
        }
        let guest = Guest::parse("x", Path::new("x.bin"), &image).unwrap();
        assert_eq!(guest.interrupt_vectors(), [0x4020_0a80, 0x4020_0c80, 0x4020_0e80]);
        assert_eq!(guest.timed, 0x100..0x200);
        assert_eq!(guest.exact_end, None);
        assert_eq!(guest.counting_loop, Some(0x300..0x30c));
        assert!(Guest::parse("x", Path::new("x.bin"), &image[..100]).is_none());
    }
}
