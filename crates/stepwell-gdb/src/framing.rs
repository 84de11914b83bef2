//! Packets out of bytes.
//!
//! `gdbstub` takes bytes too, but gives a session up at the first one that is out of place: a
//! damaged checksum, a packet that is too long, a NACK. Here such a packet is refused, and the next
//! one is as good as any. What comes out are bodies whose checksum was right.

/// Longest packet that a client may send, with its frame; it is told so.
pub const PACKET_MAX: usize = 1 << 14;

/// What the bytes so far came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A packet's body.
    Packet(Vec<u8>),
    /// A packet whose checksum is wrong.
    Damaged,
    /// A packet that is longer than [`PACKET_MAX`]; none of it was kept.
    TooLong,
    /// Ctrl-C.
    Interrupt,
    /// The client wants the last reply once more.
    Nack,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Between,
    Body,
    Checksum(Option<u8>),
}

/// Takes bytes one by one.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    state: State,
    body: Vec<u8>,
    is_too_long: bool,
}

impl Framer {
    /// Takes a byte, and returns what it completes.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Incoming> {
        match (self.state, byte) {
            (State::Between, b'$') => self.begin(),
            (State::Between, 0x03) => return Some(Incoming::Interrupt),
            (State::Between, b'-') => return Some(Incoming::Nack),
            // Acknowledgements, and noise between packets.
            (State::Between, _) => {}
            (State::Body, b'#') => self.state = State::Checksum(None),
            // A client that gave a packet up begins anew.
            (State::Body, b'$') => self.begin(),
            (State::Body, byte) if self.body.len() < PACKET_MAX - 4 => self.body.push(byte),
            (State::Body, _) => {
                self.is_too_long = true;
                self.body.clear();
            }
            (State::Checksum(None), high) => self.state = State::Checksum(Some(high)),
            (State::Checksum(Some(high)), low) => {
                self.state = State::Between;
                return Some(self.complete(high, low));
            }
        }
        None
    }

    /// Tells whether a packet has begun and not ended.
    pub(crate) fn is_within(&self) -> bool {
        self.state != State::Between
    }

    fn begin(&mut self) {
        self.state = State::Body;
        self.body.clear();
        self.is_too_long = false;
    }

    fn complete(&mut self, high: u8, low: u8) -> Incoming {
        let body = std::mem::take(&mut self.body);
        if self.is_too_long {
            return Incoming::TooLong;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let told = digit(high).zip(digit(low)).map(|(high, low)| (16 * high + low) as u8);
        if told == Some(checksum(&body)) { Incoming::Packet(body) } else { Incoming::Damaged }
    }
}

/// The sum of a packet's body.
pub(crate) fn checksum(body: &[u8]) -> u8 {
    body.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Puts a frame around a body, which must not need escaping.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(body.len() + 4);
    packet.push(b'$');
    packet.extend_from_slice(body);
    packet.extend_from_slice(format!("#{:02x}", checksum(body)).as_bytes());
    packet
}

/// Hexadecimal digits of some bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(bytes: &[u8]) -> Vec<Incoming> {
        let mut framer = Framer::default();
        bytes.iter().filter_map(|&byte| framer.push(byte)).collect()
    }

    #[test]
    fn packets_are_told_from_what_is_between_them() {
        let expected = [
            Incoming::Packet(b"g".to_vec()),
            Incoming::Interrupt,
            Incoming::Nack,
            Incoming::Packet(b"?".to_vec()),
        ];
        assert_eq!(incoming(b"++$g#67\x03zz-$?#3f"), expected);
    }

    #[test]
    fn a_damaged_packet_spoils_no_other() {
        for damaged in ["$g#68", "$g#zz", "$#01"] {
            let bytes = format!("{damaged}$g#67");
            let expected = [Incoming::Damaged, Incoming::Packet(b"g".to_vec())];
            assert_eq!(incoming(bytes.as_bytes()), expected, "{damaged}");
        }
        assert_eq!(incoming(b"$m12$g#67"), [Incoming::Packet(b"g".to_vec())], "begun anew");
    }

    #[test]
    fn a_packet_without_end_is_not_kept() {
        let mut framer = Framer::default();
        assert_eq!(framer.push(b'$'), None);
        for _ in 0..10 * PACKET_MAX {
            assert_eq!(framer.push(b'a'), None);
            assert!(framer.body.len() < PACKET_MAX);
        }
        let end: Vec<Incoming> = b"#00".iter().filter_map(|&byte| framer.push(byte)).collect();
        assert_eq!(end, [Incoming::TooLong]);
    }

    #[test]
    fn what_is_framed_is_read() {
        let body = b"vCont;s:p1.1;c".to_vec();
        assert_eq!(incoming(&framed(&body)), [Incoming::Packet(body)]);
    }
}
