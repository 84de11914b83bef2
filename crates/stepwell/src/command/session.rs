//! A machine and its link, as a command holds them.

use crate::machine::Machine;
use anyhow::anyhow;
use stepwell_debuggee::Error;
use stepwell_link::{Link, LinkError};

/// A machine with its link, which are dropped in the right order: the machine first.
pub(super) struct Session {
    pub(super) machine: Machine,
    pub(super) link: Link,
}

impl Session {
    /// Says what became of the machine, where the link only says that it closed.
    pub(super) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let lost = match error.downcast_ref::<Error>() {
            Some(Error::Lost(lost)) => lost.downcast_ref::<LinkError>().cloned(),
            _ => None,
        };
        match lost {
            Some(lost) => anyhow!(self.machine.explain(lost)),
            None => error,
        }
    }

    /// Does something with the link, and explains its errors.
    pub(super) fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Link) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        work(&mut self.link).map_err(|error| self.explain(error))
    }
}
