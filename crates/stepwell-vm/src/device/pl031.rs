//! The PL031: the board's real-time clock, which counts seconds.
//!
//! It goes with the guest's own clock from the time of day that the guest begins at, so that it does not
//! advance while the guest is stopped, and two runs with the same beginning read the same. Deliberately absent: an
//! interrupt at the moment of the match. The match shows when somebody looks.
//!
//! Source: Arm DDI 0224, "PrimeCell Real Time Clock (PL031)", Programmer's model.

const RTCDR: u64 = 0x00;
const RTCMR: u64 = 0x04;
const RTCLR: u64 = 0x08;
const RTCCR: u64 = 0x0c;
const RTCIMSC: u64 = 0x10;
const RTCRIS: u64 = 0x14;
const RTCMIS: u64 = 0x18;
const RTCICR: u64 = 0x1c;
/// RTCPeriphID and RTCPCellID: a byte in each word.
const IDENTITY: u64 = 0xfe0;
const IDENTITIES: [u8; 8] = [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pl031 {
    /// What it shows at second 0 of the guest's clock.
    offset: u32,
    matches: u32,
    loaded: u32,
    is_unmasked: bool,
    /// The match that has been seen last, and what it was cleared at.
    is_raised: bool,
    cleared_at: u32,
}

impl Pl031 {
    /// Makes one that shows this at second 0 of the guest's clock: seconds since 1970.
    #[must_use]
    pub const fn new(time_of_day: u32) -> Self {
        Self {
            offset: time_of_day,
            matches: 0,
            loaded: 0,
            is_unmasked: false,
            is_raised: false,
            cleared_at: 0,
        }
    }

    /// Reads a register, at a second of the guest's clock.
    pub fn read(&mut self, offset: u64, second: u32) -> u64 {
        self.look(second);
        match offset & !3 {
            RTCDR => self.shows(second).into(),
            RTCMR => self.matches.into(),
            RTCLR => self.loaded.into(),
            RTCCR => 1,
            RTCIMSC => self.is_unmasked.into(),
            RTCRIS => self.is_raised.into(),
            RTCMIS => self.line().into(),
            at => {
                let n = at.checked_sub(IDENTITY).map(|beyond| beyond / 4);
                let n = n.and_then(|n| usize::try_from(n).ok());
                n.and_then(|n| IDENTITIES.get(n)).copied().unwrap_or(0).into()
            }
        }
    }

    /// Writes a register, at a second of the guest's clock.
    pub fn write(&mut self, offset: u64, value: u64, second: u32) {
        let value = value as u32;
        match offset & !3 {
            RTCMR => {
                self.matches = value;
                self.cleared_at = self.shows(second);
            }
            RTCLR => {
                self.offset = value.wrapping_sub(second);
                self.loaded = value;
                self.cleared_at = value;
            }
            RTCIMSC => self.is_unmasked = value & 1 != 0,
            RTCICR if value & 1 != 0 => {
                self.is_raised = false;
                self.cleared_at = self.shows(second);
            }
            _ => {}
        }
        self.look(second);
    }

    /// Its interrupt line, as far as somebody has looked.
    #[must_use]
    pub const fn line(&self) -> bool {
        self.is_raised && self.is_unmasked
    }

    const fn shows(&self, second: u32) -> u32 {
        self.offset.wrapping_add(second)
    }

    /// Takes note that the match has come since it was last cleared.
    fn look(&mut self, second: u32) {
        let since = self.shows(second).wrapping_sub(self.cleared_at);
        let until = self.matches.wrapping_sub(self.cleared_at);
        if until > 0 && until <= since {
            self.is_raised = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_seconds_from_where_it_began() {
        let mut clock = Pl031::new(1000);
        assert_eq!(clock.read(RTCDR, 0), 1000);
        assert_eq!(clock.read(RTCDR, 61), 1061);
        clock.write(RTCLR, 5000, 61);
        assert_eq!((clock.read(RTCDR, 62), clock.read(RTCLR, 62)), (5001, 5000));
        assert_eq!(clock.read(RTCCR, 0), 1, "it cannot be stopped");
    }

    #[test]
    fn a_match_shows_once_it_has_come_and_until_it_is_cleared() {
        let mut clock = Pl031::new(1000);
        clock.write(RTCIMSC, 1, 0);
        clock.write(RTCMR, 1010, 0);
        assert_eq!((clock.read(RTCMIS, 9), clock.line()), (0, false));
        assert_eq!((clock.read(RTCMIS, 10), clock.line()), (1, true));
        clock.write(RTCICR, 1, 12);
        assert_eq!((clock.read(RTCRIS, 13), clock.line()), (0, false));
        clock.write(RTCMR, 1020, 13);
        clock.write(RTCIMSC, 0, 13);
        assert_eq!((clock.read(RTCRIS, 25), clock.read(RTCMIS, 25)), (1, 0));
    }

    #[test]
    fn it_says_that_it_is_a_pl031() {
        let mut clock = Pl031::default();
        let identity: Vec<u64> = (0..8).map(|n| clock.read(0xfe0 + n * 4, 0)).collect();
        assert_eq!(identity, [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        assert_eq!(clock.read(0x20, 0), 0);
    }
}
