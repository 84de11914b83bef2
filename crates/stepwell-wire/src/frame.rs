//! Framing: postcard, then CRC-32, then COBS, then a zero byte.
//!
//! A zero never occurs inside a frame, so a reader that lost its place finds it again at the next
//! one, and a damaged frame costs itself only. The link may be a UART on a board: nothing here
//! trusts it.

use cobs::{DestBufTooSmallError, decode_in_place};
use crc::{CRC_32_ISO_HDLC, Crc};
use serde::{Serialize, de::DeserializeOwned};

/// Longest frame, its closing zero included.
pub const MAX_FRAME: usize = 2048;

const CHECKSUM: Crc<u32, crc::Table<16>> = Crc::<u32, crc::Table<16>>::new(&CRC_32_ISO_HDLC);
const CHECKSUM_BYTES: usize = 4;

/// What can be wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("frame longer than {MAX_FRAME} bytes")]
    TooLong,
    /// Not COBS, or too short for a checksum.
    #[error("frame is not well formed")]
    Malformed,
    /// The checksum does not match.
    #[error("frame's checksum is wrong")]
    Checksum,
    /// The bytes arrived whole but are no message of this version.
    #[error("frame holds no message of this version")]
    Message,
}

/// Encodes one message as a frame into `out` and returns the bytes to send.
///
/// # Errors
///
/// [`FrameError::TooLong`] where the message does not fit; every message of this crate does.
pub fn encode<'a, M: Serialize>(
    message: &M,
    out: &'a mut [u8; MAX_FRAME],
) -> Result<&'a [u8], FrameError> {
    let mut plain = [0; MAX_FRAME];
    let body = postcard::to_slice(message, &mut plain).map_err(|_| FrameError::TooLong)?.len();
    let checksum = CHECKSUM.checksum(plain.get(..body).ok_or(FrameError::TooLong)?);
    let whole = body.saturating_add(CHECKSUM_BYTES);
    plain.get_mut(body..whole).ok_or(FrameError::TooLong)?.copy_from_slice(&checksum.to_le_bytes());
    let plain = plain.get(..whole).ok_or(FrameError::TooLong)?;
    let end = const { MAX_FRAME - 1 };
    let coded = cobs::try_encode(plain, out.get_mut(..end).ok_or(FrameError::TooLong)?)
        .map_err(|DestBufTooSmallError| FrameError::TooLong)?;
    *out.get_mut(coded).ok_or(FrameError::TooLong)? = 0;
    out.get(..=coded).ok_or(FrameError::TooLong)
}

/// Gathers bytes into frames and frames into messages.
pub struct FrameDecoder {
    buffer: [u8; MAX_FRAME],
    used: usize,
    overlong: bool,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// Makes a decoder that waits for the first byte of a frame.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: [0; MAX_FRAME], used: 0, overlong: false }
    }

    /// Takes one byte. Returns a message, or what was wrong with the frame, where it ended one.
    ///
    /// After an error the decoder is at the start of the next frame.
    pub fn push<M: DeserializeOwned>(&mut self, byte: u8) -> Option<Result<M, FrameError>> {
        if byte != 0 {
            match self.buffer.get_mut(self.used) {
                Some(slot) => {
                    *slot = byte;
                    self.used = self.used.saturating_add(1);
                }
                None => self.overlong = true,
            }
            return None;
        }
        let used = core::mem::take(&mut self.used);
        if core::mem::take(&mut self.overlong) {
            return Some(Err(FrameError::TooLong));
        }
        if used == 0 {
            return None;
        }
        Some(decode(self.buffer.get_mut(..used).unwrap_or_default()))
    }
}

fn decode<M: DeserializeOwned>(coded: &mut [u8]) -> Result<M, FrameError> {
    let length = decode_in_place(coded).map_err(|_| FrameError::Malformed)?;
    let plain = coded.get(..length).ok_or(FrameError::Malformed)?;
    let (body, checksum) =
        plain.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FrameError::Malformed)?;
    if CHECKSUM.checksum(body) != u32::from_le_bytes(*checksum) {
        return Err(FrameError::Checksum);
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Request};
    use proptest::prelude::*;
    use stepwell_arch::Va;
    use stepwell_protocol::Place;

    fn request() -> Request {
        let place = Place::Va(Va(0xffff_8000_0000_0000));
        Request { id: 7, command: Command::SetBreakpoint { domain: 0, place } }
    }

    fn feed(decoder: &mut FrameDecoder, bytes: &[u8]) -> Vec<Result<Request, FrameError>> {
        bytes.iter().filter_map(|&byte| decoder.push(byte)).collect()
    }

    #[test]
    fn golden_bytes_of_a_request() {
        let mut out = [0; MAX_FRAME];
        let frame = encode(&Request { id: 1, command: Command::PowerOff }, &mut out).unwrap();
        assert_eq!(frame, [7, 1, 19, 0x60, 0x62, 0x7c, 0xdc, 0], "{frame:02x?}");
    }

    #[test]
    fn a_damaged_frame_costs_itself_only() {
        let mut out = [0; MAX_FRAME];
        let frame = encode(&request(), &mut out).unwrap().to_vec();
        let mut damaged = frame.clone();
        damaged[3] ^= 0x40;
        let mut decoder = FrameDecoder::new();
        let got = feed(&mut decoder, &[damaged, frame].concat());
        assert_eq!(got.len(), 2);
        assert!(got[0].is_err());
        assert_eq!(got[1], Ok(request()));
    }

    #[test]
    fn an_overlong_frame_is_refused_and_the_next_is_read() {
        let mut out = [0; MAX_FRAME];
        let frame = encode(&request(), &mut out).unwrap().to_vec();
        let mut bytes = vec![0x55; MAX_FRAME * 3];
        bytes.push(0);
        bytes.extend(frame);
        let got = feed(&mut FrameDecoder::new(), &bytes);
        assert_eq!(got, [Err(FrameError::TooLong), Ok(request())]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            feed(&mut FrameDecoder::new(), &bytes);
        }

        #[test]
        fn memory_comes_back_as_sent(bytes in proptest::collection::vec(any::<u8>(), 0..=1024)) {
            let bytes = heapless::Vec::from_slice(&bytes).unwrap();
            let request = Request { id: u32::MAX, command: Command::ConsoleInput { domain: 0, bytes } };
            let mut out = [0; MAX_FRAME];
            let frame = encode(&request, &mut out).unwrap();
            prop_assert_eq!(feed(&mut FrameDecoder::new(), frame), vec![Ok(request)]);
        }
    }
}
