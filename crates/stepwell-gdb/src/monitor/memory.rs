//! `monitor phys`: memory by guest-physical address.

use super::{line, number};
use crate::guest::Guest;
use stepwell_arch::Ipa;
use stepwell_debuggee::{Debuggee, Error, Place, Refusal};

const BYTES: u64 = 64;
const BYTES_MAX: u64 = 4096;
const ROW: usize = 16;

pub(super) fn show(
    guest: &mut Guest<'_>,
    address: &str,
    length: Option<&str>,
) -> Result<String, Error> {
    let address = number(guest, address)?;
    let length = match length {
        Some(length) => number(guest, length)?.min(BYTES_MAX),
        None => BYTES,
    };
    let mut bytes =
        vec![0; usize::try_from(length).map_err(|_| Refusal::TooLong(BYTES_MAX as u16))?];
    let vcpu = guest.current();
    let read = guest.read(vcpu, Place::Ipa(Ipa(address)), &mut bytes)?;
    bytes.truncate(read);
    let mut text = String::new();
    for (row, chunk) in bytes.chunks(ROW).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable =
            |&byte: &u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
        let characters: String = chunk.iter().map(printable).collect();
        let at = address.wrapping_add((row * ROW) as u64);
        line(&mut text, format_args!("{at:#014x}  {:<47}  {characters}", hex.join(" ")));
    }
    Ok(text)
}

pub(super) fn write(guest: &mut Guest<'_>, address: &str, digits: &str) -> Result<String, Error> {
    let address = number(guest, address)?;
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
        return Ok("bytes are pairs of hexadecimal digits: 68656c6c6f\n".to_owned());
    };
    let vcpu = guest.current();
    guest.debuggee.write_memory(vcpu, Place::Ipa(Ipa(address)), &bytes)?;
    Ok(format!("{} bytes written\n", bytes.len()))
}
