//! The guest's RAM, as it is in the machine's RAM file.

use crate::LinkError;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use twox_hash::XxHash3_64;

const PAGE: usize = 4096;
/// Read at a time.
const CHUNK: usize = 256 * PAGE;

/// The file that the machine has for its RAM.
pub struct GuestRam {
    file: File,
    base: u64,
}

impl GuestRam {
    /// Takes a file whose first byte the machine has at `base`.
    ///
    /// # Errors
    ///
    /// [`LinkError::Ram`] where its descriptor cannot be duplicated.
    pub fn new(file: &File, base: u64) -> Result<Self, LinkError> {
        let file = file.try_clone().map_err(failed)?;
        Ok(Self { file, base })
    }

    /// Hashes `bytes` bytes, from where the machine has `address` on. Pages of zeros do not count.
    pub(crate) fn hash(&self, address: u64, bytes: u64) -> Result<u64, LinkError> {
        let start = address
            .checked_sub(self.base)
            .ok_or_else(|| failed(io::Error::other(format!("nothing of it is at {address:#x}"))))?;
        let end = start.saturating_add(bytes);
        if end > self.file.metadata().map_err(failed)?.len() {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut chunk = vec![0; CHUNK];
        let mut hash = 0_u64;
        let mut at = start;
        while let Some((from, to)) = self.data(at, end)? {
            at = from;
            while at < to {
                let length = (to - at).min(CHUNK as u64) as usize;
                let part = &mut chunk[..length];
                self.file.read_exact_at(part, at).map_err(failed)?;
                // By its place, so that pages that change places make a difference.
                let first = (at - start) / PAGE as u64;
                hash = hash.wrapping_add(hash_pages(first, part));
                at += length as u64;
            }
        }
        Ok(hash)
    }

    /// The next piece of whole pages, from `at` up to `end`, of which the file has anything. RAM that
    /// was never touched takes no time.
    fn data(&self, at: u64, end: u64) -> Result<Option<(u64, u64)>, LinkError> {
        if at >= end {
            return Ok(None);
        }
        let from = match seek(&self.file, SeekFrom::Data(at)) {
            Ok(from) => from - from % PAGE as u64,
            Err(Errno::NXIO) => return Ok(None),
            // It knows of no holes.
            Err(Errno::INVAL) => return Ok(Some((at, end))),
            Err(error) => return Err(failed(error.into())),
        };
        let hole = seek(&self.file, SeekFrom::Hole(from)).map_err(|error| failed(error.into()))?;
        let to = hole.next_multiple_of(PAGE as u64).min(end);
        Ok((from < end).then(|| (from.max(at), to)))
    }
}

/// Hashes pages that begin with this one. Pages of zeros do not count.
fn hash_pages(first: u64, pages: &[u8]) -> u64 {
    let pages = (first..).zip(pages.chunks(PAGE));
    let counting = pages.filter(|(_, page)| page.iter().any(|&byte| byte != 0));
    counting.fold(0, |hash: u64, (place, page)| {
        hash.wrapping_add(XxHash3_64::oneshot_with_seed(place, page))
    })
}

fn failed(error: io::Error) -> LinkError {
    LinkError::Ram(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;

    fn hash(pages: &[(u64, u8)]) -> u64 {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * PAGE as u64).unwrap();
        for &(page, value) in pages {
            file.write_all_at(&[value], page * PAGE as u64).unwrap();
        }
        let ram = GuestRam::new(&file, BASE).unwrap();
        ram.hash(BASE + PAGE as u64, 32 * PAGE as u64).unwrap()
    }

    #[test]
    fn each_page_counts_by_its_place_and_only_within_the_ram() {
        let one = hash(&[(3, 7)]);
        assert_ne!(one, hash(&[(3, 8)]));
        assert_ne!(one, hash(&[(4, 7)]));
        assert_ne!(one, hash(&[(3, 7), (4, 7)]));
        assert_eq!(one, hash(&[(3, 7), (0, 1), (33, 1)]), "beside it");
        assert_eq!(one, hash(&[(3, 7), (5, 0)]), "zeros that were written");
        assert_eq!(hash(&[]), 0);
    }

    #[test]
    fn what_the_file_does_not_have_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let ram = GuestRam::new(&file, BASE).unwrap();
        assert!(matches!(ram.hash(0, 4096), Err(LinkError::Ram(_))));
        assert!(matches!(ram.hash(BASE, 4096), Err(LinkError::Ram(_))));
    }
}
