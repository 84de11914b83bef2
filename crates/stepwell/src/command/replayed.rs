//! A replay that other commands than `stepwell replay` work in: forwards and backwards, on a machine that
//! is started anew where it keeps no moments to go back to.

use super::beginning::{self, Sources};
use super::options::{GuestOptions, Prepared};
use super::session::Session;
use crate::interruption;
use crate::names::Names;
use anyhow::Context;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use stepwell_debuggee::{Debuggee, Error};
use stepwell_replay::log::Reader;
use stepwell_replay::{Keeping, Machine, Navigator, Script};

/// What a log says, and a guest that is ready to be started as it does.
pub(super) struct Replayed {
    pub(super) script: Script,
    pub(super) guest: GuestOptions,
    prepared: Prepared,
}

impl Replayed {
    /// Reads a log; what the run began with is where it was, or where `given` says.
    pub(super) fn open(log: &Path, given: &GuestOptions) -> anyhow::Result<Self> {
        let file = || log.display().to_string();
        let opened = File::open(log).with_context(file)?;
        let script = Reader::new(BufReader::new(opened)).and_then(Script::read);
        let script = script.with_context(file)?;
        let sources = Sources {
            kernel: given.kernel.clone(),
            initrd: given.initrd.clone(),
            devicetree: given.dtb.clone(),
            hypervisor: given.hypervisor.clone(),
            qemu: given.qemu.clone(),
            verbose: given.verbose,
        };
        let mut guest = beginning::options(&script.header, sources);
        guest.symbols.clone_from(&given.symbols);
        guest.sysroot.clone_from(&given.sysroot);
        let schedule = script.header.schedule.parse().with_context(file)?;
        let prepared = guest.prepare()?.with_schedule(schedule);
        beginning::compare(&script.header, &beginning::describe(&guest, &prepared)?)?;
        Ok(Self { script, guest, prepared })
    }

    /// The names of its kernel.
    pub(super) const fn names(&mut self) -> &mut Names {
        &mut self.prepared.names
    }

    /// Starts it, and does something with it.
    pub(super) fn with<T>(
        self,
        work: impl FnOnce(&mut Navigator<'_>, Names) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        interruption::install().context("cannot handle signals")?;
        let names = self.prepared.names.clone();
        let session = self.prepared.start()?;
        let mut machine = Restarted { prepared: self.prepared, session };
        let mut navigator = Navigator::new(&mut machine, self.script, Keeping::default());
        let result = work(&mut navigator, names);
        drop(navigator);
        result.map_err(|error| machine.session.explain(error))
    }
}

/// A machine that is started again whenever it has to be at its beginning.
struct Restarted {
    prepared: Prepared,
    session: Session,
}

impl Machine for Restarted {
    fn debuggee(&mut self) -> &mut dyn Debuggee {
        &mut self.session.link
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.session = self.prepared.start().map_err(|error| Error::Lost(error.into()))?;
        Ok(())
    }
}
