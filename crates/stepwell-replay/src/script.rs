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
    /// Its last moment: where its recorder ended, or before the guest's last instruction. A machine is
    /// gone once its guest has ended.
    pub end: Moment,
}

impl Script {
    /// Reads all of a log.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub fn read<R: BufRead>(mut log: Reader<R>) -> Result<Self, LogError> {
        let header = log.header().clone();
        let (mut happenings, mut end) = (Vec::new(), Moment::default());
        while let Some(entry) = log.next_entry()? {
            let moment = entry.moment();
            match entry {
                Entry::Input { bytes, .. } => {
                    let bytes = typed(&bytes).unwrap_or_default();
                    happenings.push((moment, Happening::Input(bytes)));
                }
                Entry::State { registers, memory, .. } => {
                    let number = |word: &str| u64::from_str_radix(word, 16).unwrap_or_default();
                    let hash = StateHash { registers: number(&registers), memory: number(&memory) };
                    happenings.push((moment, Happening::State(hash)));
                }
                Entry::Left { .. } => {}
                Entry::Ended { position, .. } => {
                    end = end.max(Moment::at(position.saturating_sub(1)));
                    continue;
                }
            }
            end = end.max(moment);
        }
        Ok(Self { header, happenings, end })
    }
}
