//! The guest's RAM, as it is in the machine's RAM file.

use crate::LinkError;
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
        let mut chunk = vec![0; CHUNK];
        let mut hash = 0_u64;
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(CHUNK as u64) as usize;
            let part = &mut chunk[..length];
            self.file.read_exact_at(part, start + done).map_err(failed)?;
            for (n, page) in (0..).zip(part.chunks(PAGE)) {
                if page.iter().any(|&byte| byte != 0) {
                    // By its place, so that pages that change places make a difference.
                    let place = done / PAGE as u64 + n;
                    hash = hash.wrapping_add(XxHash3_64::oneshot_with_seed(place, page));
                }
            }
            done += length as u64;
        }
        Ok(hash)
    }
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
