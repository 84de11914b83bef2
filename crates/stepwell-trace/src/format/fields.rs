//! `Header` and `End` payloads: tagged fields, so that a later version adds some and drops none.
//!
//! Each field is a tag, a length and that many bytes; unknown tags are skipped. Numbers inside a
//! field are variable-length integers.

use super::varint::{self, Cursor};
use super::{Header, Totals};
use crate::printable::printable;

const TEXT_FIELDS: u64 = 6;
const TAG_VCPUS: u64 = 7;

impl Header {
    fn texts(&mut self) -> [&mut String; TEXT_FIELDS as usize] {
        [
            &mut self.stepwell_version,
            &mut self.cpu_model,
            &mut self.command_line,
            &mut self.interrupt_policy,
            &mut self.time_policy,
            &mut self.recorded,
        ]
    }

    /// Returns the payload of a `Header` chunk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, text) in (1..).zip(self.clone().texts()) {
            varint::put(&mut out, tag);
            varint::put_bytes(&mut out, text.as_bytes());
        }
        put_number(&mut out, TAG_VCPUS, u64::from(self.vcpus));
        out
    }

    /// Reads the payload of a `Header` chunk; `None` if it is damaged. Its texts are made [`printable`],
    /// like the names of symbols: whoever shows them, in a terminal or a browser, shows what is there.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut header = Self::default();
        let mut cursor = Cursor::new(payload);
        while !cursor.is_empty() {
            let tag = cursor.take()?;
            let value = cursor.take_bytes()?;
            match tag {
                1..=TEXT_FIELDS => {
                    let text = String::from_utf8_lossy(value);
                    *header.texts()[(tag - 1) as usize] = printable(&text).into_owned();
                }
                TAG_VCPUS => header.vcpus = u8::try_from(Cursor::new(value).take()?).ok()?,
                _ => {}
            }
        }
        Some(header)
    }
}

impl Totals {
    /// Returns the payload of an `End` chunk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Self { instructions, runs, interrupts, events, details, bytes } = *self;
        let numbers = [instructions, runs, interrupts, events, bytes, details];
        for (tag, number) in (1..).zip(numbers) {
            put_number(&mut out, tag, number);
        }
        out
    }

    /// Reads the payload of an `End` chunk; `None` if it is damaged.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut totals = Self::default();
        let mut cursor = Cursor::new(payload);
        while !cursor.is_empty() {
            let tag = cursor.take()?;
            let value = cursor.take_bytes()?;
            let number = || Cursor::new(value).take();
            match tag {
                1 => totals.instructions = number()?,
                2 => totals.runs = number()?,
                3 => totals.interrupts = number()?,
                4 => totals.events = number()?,
                5 => totals.bytes = number()?,
                6 => totals.details = number()?,
                _ => {}
            }
        }
        Some(totals)
    }
}

fn put_number(out: &mut Vec<u8>, tag: u64, number: u64) {
    let mut value = Vec::new();
    varint::put(&mut value, number);
    varint::put(out, tag);
    varint::put_bytes(out, &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            stepwell_version: "0.1.0".into(),
            cpu_model: "cortex-a57".into(),
            command_line: "console=ttyAMA0 née".into(),
            interrupt_policy: "into".into(),
            time_policy: "stopped".into(),
            recorded: "pc".into(),
            vcpus: 4,
        }
    }

    #[test]
    fn header_survives_and_skips_what_it_does_not_know() {
        let mut payload = header().encode();
        assert_eq!(Header::decode(&payload), Some(header()));
        varint::put(&mut payload, 999);
        varint::put_bytes(&mut payload, b"from the future");
        assert_eq!(Header::decode(&payload), Some(header()));
        payload.pop();
        assert_eq!(Header::decode(&payload), None);
    }

    #[test]
    fn totals_survive() {
        let totals = Totals {
            instructions: 1 << 50,
            runs: 3,
            interrupts: 2,
            events: 1,
            details: 7,
            bytes: 99,
        };
        assert_eq!(Totals::decode(&totals.encode()), Some(totals));
    }
}
