//! virtio's entropy device: random bytes, the host's or from a seed.
//!
//! See "Entropy Device" in the virtio specification, version 1.2. From a seed the bytes are those of
//! SHA-256 over seed and a count of blocks: a run with them can be had again.

use crate::queue::{Answer, Broken, Buffers, Device, Identity};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::str::FromStr;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

/// Descriptors of the queue, as QEMU's has.
const QUEUE_SIZE: u16 = 8;
/// Bytes for one request at most: a driver asks again.
const BYTES_MAX: u64 = 4096;

/// Where the bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host's kernel.
    Host,
    /// A seed.
    Seed(u64),
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let seed = word.strip_prefix("seed=").and_then(|digits| digits.parse().ok());
        match (word, seed) {
            ("host", _) => Ok(Self::Host),
            (_, Some(seed)) => Ok(Self::Seed(seed)),
            _ => Err("neither host nor seed=N, N a number"),
        }
    }
}

/// The device.
#[derive(Debug)]
pub struct Entropy {
    source: Source,
    /// Blocks that were taken of a seed's.
    blocks: u64,
    /// How many these were at the moments that are kept.
    kept: BTreeMap<u64, u64>,
}

impl Entropy {
    /// Makes one of a source.
    #[must_use]
    pub const fn new(source: Source) -> Self {
        Self { source, blocks: 0, kept: BTreeMap::new() }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Errno> {
        match self.source {
            Source::Host => fill_by_host(bytes),
            Source::Seed(seed) => {
                for chunk in bytes.chunks_mut(32) {
                    let block = [seed, self.blocks].map(u64::to_le_bytes);
                    self.blocks = self.blocks.wrapping_add(1);
                    let digest = Sha256::digest(block.as_flattened());
                    chunk.copy_from_slice(&digest[..chunk.len()]);
                }
                Ok(())
            }
        }
    }
}

fn fill_by_host(bytes: &mut [u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = getrandom(&mut *rest, GetRandomFlags::empty())?;
        rest = &mut rest[count..];
    }
    Ok(())
}

impl Device for Entropy {
    fn identity(&self) -> Identity {
        let features = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC;
        Identity {
            id: VIRTIO_ID_RNG,
            features,
            queues: vec![QUEUE_SIZE],
            configuration: Vec::new(),
        }
    }

    fn perform(
        &mut self,
        _: u8,
        buffers: &Buffers<'_>,
        answer: &mut dyn Answer,
    ) -> Result<u32, Broken> {
        let mut bytes = vec![0; buffers.writable_bytes().min(BYTES_MAX) as usize];
        // No bytes are an answer, too.
        if self.fill(&mut bytes).is_err() {
            return Ok(0);
        }
        buffers.write(answer, 0, &bytes)?;
        Ok(bytes.len() as u32)
    }

    fn keep(&mut self, moment: u64) {
        self.kept.insert(moment, self.blocks);
    }

    fn go_to(&mut self, moment: u64) {
        self.blocks = self.kept.get(&moment).copied().unwrap_or(self.blocks);
    }

    fn forget(&mut self, moment: u64) {
        self.kept.remove(&moment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_again_and_no_two_blocks_are_the_same() {
        let bytes = |seed, parts: &[usize]| {
            let mut device = Entropy::new(Source::Seed(seed));
            let mut all = Vec::new();
            for &length in parts {
                let mut bytes = vec![0; length];
                device.fill(&mut bytes).unwrap();
                all.extend(bytes);
            }
            all
        };
        let first = bytes(7, &[64]);
        assert_eq!(first, bytes(7, &[32, 32]));
        assert_ne!(first, bytes(8, &[64]));
        assert_ne!(first[..32], first[32..]);
    }

    #[test]
    fn a_seed_goes_on_from_where_it_was_at_a_kept_moment() {
        let mut device = Entropy::new(Source::Seed(7));
        let next = |device: &mut Entropy| {
            let mut bytes = [0; 32];
            device.fill(&mut bytes).unwrap();
            bytes
        };
        next(&mut device);
        device.keep(3);
        let second = next(&mut device);
        assert_ne!(next(&mut device), second);
        device.go_to(3);
        assert_eq!(next(&mut device), second);
        device.forget(3);
        device.go_to(3);
        assert_ne!(next(&mut device), second, "it is not known any more");
    }

    #[test]
    fn the_host_fills_whatever_is_asked_for() {
        let mut device = Entropy::new(Source::Host);
        let mut bytes = [[0; 600]; 2];
        bytes.iter_mut().for_each(|bytes| device.fill(bytes).unwrap());
        assert_ne!(bytes[0], bytes[1]);
        assert!(bytes[0][500..].iter().any(|&byte| byte != 0));
    }

    #[test]
    fn sources_have_names() {
        assert_eq!("host".parse(), Ok(Source::Host));
        assert_eq!("seed=9".parse(), Ok(Source::Seed(9)));
        for word in ["", "seed", "seed=", "seed=x", "host=1"] {
            assert!(word.parse::<Source>().is_err(), "{word}");
        }
    }
}
