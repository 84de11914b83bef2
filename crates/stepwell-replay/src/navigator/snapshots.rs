//! Moments that have names.
//!
//! One of the recorded run is its place in it, to be come to as any other. One of a run that has left
//! that can only be kept as a checkpoint of the debuggee, which stays for as long as it has the name.

use super::{Navigator, Told};
use stepwell_debuggee::{Checkpoint, Error, Moment, Refusal, Snapshot};

/// A moment that has a name.
#[derive(Debug)]
pub(super) struct Named {
    name: String,
    moment: Moment,
    /// How it is kept, and what of the script had happened, where it is of a run that has left the
    /// recorded one.
    fork: Option<(Checkpoint, usize)>,
}

impl Navigator<'_> {
    /// Gives this moment a name.
    pub(super) fn name_moment(&mut self, name: &str) -> Result<(), Error> {
        let fork = match self.is_forked {
            false => None,
            true => {
                let checkpoints = self.travel()?.support_checkpoints();
                let checkpoints = checkpoints.ok_or(Error::Refused(Refusal::Unsupported))?;
                Some((checkpoints.keep(0)?, self.done))
            }
        };
        if let Some(at) = self.named.iter().position(|named| named.name == name)
            && let Some((checkpoint, _)) = self.named.remove(at).fork
        {
            self.forget(checkpoint)?;
        }
        self.named.push(Named { name: name.to_owned(), moment: self.now, fork });
        Ok(())
    }

    /// Goes to a moment that has a name.
    pub(super) fn go_to_named(&mut self, name: &str) -> Result<(), Error> {
        let named = self.named.iter().find(|named| named.name == name);
        let named = named.ok_or(Error::Refused(Refusal::NoSuchCheckpoint))?;
        let moment = named.moment;
        let Some((checkpoint, done)) = named.fork else {
            return self.seek(moment, Told::REACHED);
        };
        let checkpoints = self.travel()?.support_checkpoints();
        checkpoints.ok_or(Error::Refused(Refusal::Unsupported))?.go_to(0, checkpoint)?;
        (self.now, self.done, self.is_forked) = (moment, done, true);
        self.arm()?;
        self.report_arrival(Told::REACHED)
    }

    /// The moments that have names.
    pub(super) fn all_named(&self) -> Vec<Snapshot> {
        let snapshot = |named: &Named| Snapshot {
            name: named.name.clone(),
            moment: named.moment,
            is_of_fork: named.fork.is_some(),
        };
        self.named.iter().map(snapshot).collect()
    }

    /// The machine is made anew: what was kept of runs that have left the recorded one is gone.
    pub(super) fn lose_forks(&mut self) {
        self.named.retain(|named| named.fork.is_none());
    }
}
