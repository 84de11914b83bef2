//! The PL031: the board's real-time clock, which counts seconds.
//!
//! It goes with the guest's own clock from the time of day that the guest begins at, so that it does not
//! advance while the guest is stopped, and two runs with the same beginning read the same. Deliberately
//! absent: an interrupt at the moment of a match that is yet to come. That match shows when somebody looks.
//!
//! A match comes once: writing the match or the load register sets it up again, and where the clock shows
//! that second already, it comes at once. QEMU's model does the same.
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

const NS_PER_SECOND: u64 = 1_000_000_000;

/// The clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pl031 {
    /// What it shows at second 0 of the guest's clock.
    offset: u32,
    /// How far it is within that second when the guest's clock begins.
    begins_ns: u32,
    matches: u32,
    loaded: u32,
    is_unmasked: bool,
    is_raised: bool,
    /// What it showed when the match that is yet to come was set up.
    awaits_since: Option<u32>,
}

impl Pl031 {
    /// Makes one that shows this when the guest's clock begins: seconds since 1970, and nanoseconds of
    /// the next one that have passed.
    #[must_use]
    pub const fn new(time_of_day: u32, nanoseconds: u32) -> Self {
        Self {
            offset: time_of_day,
            begins_ns: nanoseconds,
            matches: 0,
            loaded: 0,
            is_unmasked: false,
            is_raised: false,
            awaits_since: None,
        }
    }

    /// The second of the guest's clock, for its readers here, so many ticks after that began.
    #[must_use]
    pub fn second(&self, ticks: u64, frequency_hz: u64) -> u32 {
        let begins = u64::from(self.begins_ns).saturating_mul(frequency_hz) / NS_PER_SECOND;
        ticks.saturating_add(begins).checked_div(frequency_hz).unwrap_or(0) as u32
    }

    /// Reads a register, at a second of the guest's clock. But for the identity, an access within a word
    /// reaches none.
    pub fn read(&mut self, offset: u64, second: u32) -> u64 {
        self.look(second);
        match offset {
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
        self.look(second);
        let value = value as u32;
        match offset {
            RTCMR => {
                self.matches = value;
                self.awaits_since = Some(self.shows(second));
            }
            RTCLR => {
                self.offset = value.wrapping_sub(second);
                self.loaded = value;
                self.awaits_since = Some(value);
            }
            RTCIMSC => self.is_unmasked = value & 1 != 0,
            RTCICR if value & 1 != 0 => self.is_raised = false,
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

    /// Takes note of a match that has come.
    const fn look(&mut self, second: u32) {
        let Some(since) = self.awaits_since else { return };
        let passed = self.shows(second).wrapping_sub(since);
        if self.matches.wrapping_sub(since) <= passed {
            self.is_raised = true;
            self.awaits_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_seconds_from_where_it_began() {
        let mut clock = Pl031::new(1000, 0);
        assert_eq!(clock.read(RTCDR, 0), 1000);
        assert_eq!(clock.read(RTCDR, 61), 1061);
        clock.write(RTCLR, 5000, 61);
        assert_eq!((clock.read(RTCDR, 62), clock.read(RTCLR, 62)), (5001, 5000));
        assert_eq!(clock.read(RTCCR, 0), 1, "it cannot be stopped");
    }

    #[test]
    fn a_match_shows_once_it_has_come_and_until_it_is_cleared() {
        let mut clock = Pl031::new(1000, 0);
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
    fn a_match_with_what_it_shows_comes_at_once() {
        let mut clock = Pl031::new(1000, 0);
        assert_eq!(clock.read(RTCRIS, 5), 0);
        clock.write(RTCMR, 1005, 5);
        assert_eq!(clock.read(RTCRIS, 5), 1);
        clock.write(RTCICR, 2, 5);
        assert_eq!(clock.read(RTCRIS, 5), 1, "bit 0 alone clears it");
        clock.write(RTCICR, 1, 5);
        assert_eq!((clock.read(RTCRIS, 5), clock.read(RTCRIS, 9)), (0, 0), "it comes once");
        clock.write(RTCMR, 5000, 9);
        clock.write(RTCIMSC, 1, 9);
        clock.write(RTCLR, 5000, 9);
        assert_eq!((clock.read(RTCMIS, 9), clock.line()), (1, true));
    }

    #[test]
    fn nothing_matches_before_a_match_is_set_up() {
        let mut clock = Pl031::new(u32::MAX, 0);
        assert_eq!((clock.read(RTCDR, 1), clock.read(RTCRIS, 1)), (0, 0));
        clock.write(RTCMR, 3, 1);
        assert_eq!((clock.read(RTCRIS, 3), clock.read(RTCRIS, 4)), (0, 1));
    }

    #[test]
    fn a_second_ends_where_that_of_the_beginning_does() {
        let clock = Pl031::new(1000, 250_000_000);
        assert_eq!((clock.second(0, 1000), clock.second(749, 1000)), (0, 0));
        assert_eq!((clock.second(750, 1000), clock.second(1750, 1000)), (1, 2));
        assert_eq!(Pl031::new(1000, 0).second(999, 1000), 0);
        assert_eq!(clock.second(5, 0), 0, "a clock that is stopped");
        let _any = clock.second(u64::MAX, u64::MAX);
    }

    #[test]
    fn an_access_within_a_word_reaches_the_identity_alone() {
        let mut clock = Pl031::default();
        clock.write(RTCMR, 0x11, 0);
        for within in 1..4 {
            clock.write(RTCMR + within, 0x22, 0);
            assert_eq!((clock.read(RTCMR + within, 0), clock.read(RTCMR, 0)), (0, 0x11));
            assert_eq!(clock.read(IDENTITY + within, 0), 0x31);
        }
    }

    #[test]
    fn it_says_that_it_is_a_pl031() {
        let mut clock = Pl031::default();
        let identity: Vec<u64> = (0..8).map(|n| clock.read(0xfe0 + n * 4, 0)).collect();
        assert_eq!(identity, [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        assert_eq!(clock.read(0x20, 0), 0);
    }
}
