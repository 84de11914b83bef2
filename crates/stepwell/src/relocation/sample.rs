//! Pieces of an image, by which it is known again in memory.

use std::ops::Range;
use stepwell_arch::Ipa;
use stepwell_debuggee::{Debuggee, Error, Place, VcpuId};
use stepwell_trace::{SymbolKind, Symbols};

/// Most pieces that are compared.
const PIECES: usize = 32;
const PIECE_BYTES: usize = 16;
/// One in so many may be otherwise: what a loader has relocated.
const OTHER: usize = 4;

/// Pieces of an image, and how far into it each is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pieces: Vec<(u64, [u8; PIECE_BYTES])>,
}

impl Sample {
    /// Takes the beginnings of functions, since code is what loaders leave as it is; or pieces from all
    /// over where there are no functions. `base` is where the image's first byte was linked.
    #[must_use]
    pub fn of(image: &[u8], symbols: &Symbols, base: u64) -> Self {
        let functions = symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Function);
        let functions: Vec<_> = functions
            .filter_map(|symbol| piece(image, symbol.address.checked_sub(base)?))
            .collect();
        if !functions.is_empty() {
            return Self { pieces: spread(&functions) };
        }
        let all: Vec<_> = (0..image.len() as u64)
            .step_by(PIECE_BYTES)
            .filter_map(|at| piece(image, at))
            .collect();
        Self { pieces: spread(&all) }
    }

    /// Tells whether memory has the image at `load`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: where there is no memory there is no image.
    pub fn is_at(
        &self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        load: Ipa,
    ) -> Result<bool, Error> {
        let mut differing = 0;
        for (offset, piece) in &self.pieces {
            let mut found = [0; PIECE_BYTES];
            match debuggee.read_memory(vcpu, Place::Ipa(load.offset(*offset)), &mut found) {
                Ok(()) if found == *piece => {}
                Err(error) if error.is_fatal() => return Err(error),
                Ok(()) | Err(_) => differing += 1,
            }
            if differing * OTHER > self.pieces.len() {
                return Ok(false);
            }
        }
        Ok(!self.pieces.is_empty())
    }

    /// Tells whether other bytes have these pieces: a file that may be of the same image.
    #[must_use]
    pub fn is_in(&self, image: &[u8]) -> bool {
        let differs = |(at, wanted): &&(u64, _)| {
            range(*at)
                .and_then(|range| image.get(range))
                .is_none_or(|found| found != wanted as &[u8; PIECE_BYTES])
        };
        let differing = self.pieces.iter().filter(differs).count();
        !self.pieces.is_empty() && differing * OTHER <= self.pieces.len()
    }
}

fn range(at: u64) -> Option<Range<usize>> {
    let at = usize::try_from(at).ok()?;
    Some(at..at.checked_add(PIECE_BYTES)?)
}

/// A piece that tells something: zeros are everywhere.
fn piece(image: &[u8], at: u64) -> Option<(u64, [u8; PIECE_BYTES])> {
    let bytes = image.get(range(at)?)?;
    let bytes: [u8; PIECE_BYTES] = bytes.try_into().ok()?;
    (bytes != [0; PIECE_BYTES]).then_some((at, bytes))
}

/// As many as are compared, from everywhere.
fn spread<T: Clone>(all: &[T]) -> Vec<T> {
    all.iter().step_by(all.len().div_ceil(PIECES).max(1)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_debuggee::{contract, fake::Fake};
    use stepwell_trace::Symbol;

    #[test]
    fn an_image_is_known_again_where_it_is_and_nowhere_else() {
        let image = contract::guest_bytes();
        let sample = Sample::of(&image, &Symbols::default(), 0);
        let mut fake = Fake::new(&image);
        let mut is_at = |load| sample.is_at(&mut fake, VcpuId::default(), Ipa(load)).unwrap();
        assert!(is_at(contract::ENTRY.0));
        assert!(!is_at(contract::ENTRY.0 + 4));
        assert!(!is_at(1 << 60));
        let mut other = image.clone();
        assert!(sample.is_in(&other));
        other.iter_mut().for_each(|byte| *byte ^= 1);
        assert!(!sample.is_in(&other) && !sample.is_in(&[]));
        assert!(!Sample::default().is_in(&image), "nothing is no image");
    }

    #[test]
    fn functions_are_compared_where_there_are_some() {
        let image: Vec<u8> = (0..=255).collect();
        let symbol =
            |address, kind| Symbol { address, size: 4, kind, name: format!("at{address}") };
        let symbols = [
            symbol(0x1020, SymbolKind::Function),
            symbol(0x1000, SymbolKind::Other),
            symbol(0x10f8, SymbolKind::Function),
            symbol(0x10, SymbolKind::Function),
        ];
        let sample = Sample::of(&image, &Symbols::new(symbols, None), 0x1000);
        let wanted: [u8; 16] = std::array::from_fn(|n| 0x20 + n as u8);
        assert_eq!(sample.pieces, [(0x20, wanted)], "those that are wholly in it");
        assert_eq!(spread(&(0..1000).collect::<Vec<_>>()).len(), 32);
    }
}
