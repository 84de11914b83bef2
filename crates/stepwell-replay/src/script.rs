//! A whole replay log, for whoever wants to go both ways in it.

use crate::log::{Entry, Header, LogError, Reader, typed};
use std::io::BufRead;
use stepwell_debuggee::{Moment, StateHash};

/// What happens at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// These bytes are typed on the guest's console.
    Input(Vec<u8>),
    /// This is its state.
    State(StateHash),
}

/// A run, from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it begins with.
    pub header: Header,
    /// What happens, in order.
    pub happenings: Vec<(Moment, Happening)>,
    /// Its last moment that can be visited: where its recorder ended, or before the guest's last
    /// instruction. A machine is gone once its guest has ended.
    pub end: Moment,
    /// Where the guest ended, and how, in words; nothing where its recorder did before.
    pub ending: Option<(Moment, String)>,
    /// The files that the run begins with are in the log.
    pub is_packed: bool,
}

impl Script {
    /// Begins one of which nothing has happened yet.
    #[must_use]
    pub fn begin(header: Header) -> Self {
        let (happenings, end) = (Vec::new(), Moment::default());
        Self { header, happenings, end, ending: None, is_packed: false }
    }

    /// Reads all of a log.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub fn read<R: BufRead>(mut log: Reader<R>) -> Result<Self, LogError> {
        let mut script = Self::begin(log.header().clone());
        while let Some(entry) = log.next_entry()? {
            script.add(entry);
        }
        Ok(script)
    }

    /// Adds what comes next.
    fn add(&mut self, entry: Entry) {
        let moment = entry.moment();
        match entry {
            Entry::Packed(_) => self.is_packed = true,
            Entry::Input { bytes, .. } => {
                let bytes = typed(&bytes).unwrap_or_default();
                self.happenings.push((moment, Happening::Input(bytes)));
            }
            Entry::State { registers, memory, .. } => {
                let number = |word: &str| u64::from_str_radix(word, 16).unwrap_or_default();
                let hash = StateHash { registers: number(&registers), memory: number(&memory) };
                self.happenings.push((moment, Happening::State(hash)));
            }
            Entry::Passed { .. } | Entry::Left { .. } => {}
            Entry::Ended { position, how, .. } => {
                self.end = self.end.max(Moment::at(position.saturating_sub(1)));
                self.ending = Some((moment, how));
                return;
            }
        }
        self.end = self.end.max(moment);
    }

    /// Returns the last position that the log has something to say of.
    #[must_use]
    pub fn last_position(&self) -> u64 {
        let ended = self.ending.as_ref().map_or(0, |(moment, _)| moment.position);
        self.end.position.max(ended)
    }
}
