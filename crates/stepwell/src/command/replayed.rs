//! Runs on machines that count instructions, to be gone through forwards and backwards: one that was
//! recorded, and one that is being recorded. The machine is started anew where it keeps no moments to go
//! back to.

use super::beginning::{self, Sources};
use super::options::{GuestOptions, Prepared};
use super::packing::{self, Unpacked};
use super::session::Session;
use crate::interruption;
use crate::names::Names;
use anyhow::Context;
use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use stepwell_debuggee::{Debuggee, Error, Schedule};
use stepwell_replay::log::{Header, Reader, Writer};
use stepwell_replay::{Keeping, Machine, Navigator, Script};

/// What a log says, and a guest that is ready to be started as it does.
pub(super) struct Replayed {
    pub(super) script: Script,
    pub(super) guest: GuestOptions,
    prepared: Prepared,
    /// What was packed, for as long as a machine may be started.
    _unpacked: Unpacked,
}

impl Replayed {
    /// Reads a log; what the run began with is where it was, or where `given` says.
    pub(super) fn open(log: &Path, given: &GuestOptions) -> anyhow::Result<Self> {
        Self::open_with(log, Sources::given(given), |guest| {
            guest.symbols.clone_from(&given.symbols);
            guest.sysroot.clone_from(&given.sysroot);
        })
    }

    /// As [`Replayed::open`]; `add` adds what is no matter of the run.
    pub(super) fn open_with(
        log: &Path,
        sources: Sources,
        add: impl FnOnce(&mut GuestOptions),
    ) -> anyhow::Result<Self> {
        let file = || log.display().to_string();
        let opened = File::open(log).with_context(file)?;
        // All of it: what is damaged is to be told now, not when a machine gets there.
        let script = Reader::new(BufReader::new(opened)).and_then(Script::read);
        let script = script.with_context(file)?;
        let schedule = script.header.schedule.parse().with_context(file)?;
        let unpacked = match script.is_packed {
            true => Unpacked::of(log).with_context(file)?,
            false => Unpacked::none(),
        };
        let sources = sources.or_packed(&script.header, &unpacked);
        let mut guest = beginning::options(&script.header, sources).with_context(file)?;
        add(&mut guest);
        let prepared = guest.prepare()?.with_schedule(schedule);
        beginning::compare(&script.header, &beginning::describe(&guest, &prepared)?)?;
        Ok(Self { script, guest, prepared, _unpacked: unpacked })
    }

    /// The names of its kernel.
    pub(super) const fn names(&mut self) -> &mut Names {
        &mut self.prepared.names
    }

    /// Starts its machine, for who goes forwards only.
    pub(super) fn start(&self) -> anyhow::Result<Session> {
        interruption::install().context("cannot handle signals")?;
        self.prepared.start()
    }

    /// Starts it, and does something with it.
    pub(super) fn with<T>(
        self,
        work: impl FnOnce(&mut Navigator<'_>, Names) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        interruption::install().context("cannot handle signals")?;
        let names = self.prepared.names.clone();
        let mut machine = Restarted::start(self.guest, self.prepared)?;
        let mut navigator = Navigator::new(&mut machine, self.script, Keeping::default());
        let result = work(&mut navigator, names);
        drop(navigator);
        result.map_err(|error| machine.session.explain(error))
    }

    /// Starts it, for who handles signals himself and ends when he likes.
    pub(super) fn into_navigator(self) -> anyhow::Result<(Navigator<'static>, Names)> {
        let names = self.prepared.names.clone();
        let machine = Restarted::start(self.guest, self.prepared)?;
        Ok((Navigator::new(machine, self.script, Keeping::default()), names))
    }
}

/// A guest that is ready to be started, and to be recorded while it is debugged.
pub(super) struct Recorded {
    guest: GuestOptions,
    prepared: Prepared,
    header: Header,
    log: Writer<File>,
    path: PathBuf,
}

impl Recorded {
    /// Begins a log.
    pub(super) fn begin(
        guest: &GuestOptions,
        schedule: Schedule,
        path: &Path,
    ) -> anyhow::Result<Self> {
        guest.demand_repeatable()?;
        let prepared = guest.prepare()?.with_schedule(schedule);
        let (header, log) = begin_log(guest, &prepared, path, false)?;
        Ok(Self { guest: guest.clone(), prepared, header, log, path: path.to_owned() })
    }

    /// The names of its kernel.
    pub(super) const fn names(&self) -> &Names {
        &self.prepared.names
    }

    /// Starts it, and does something with it; its state is taken down every so many instructions.
    pub(super) fn with<T>(
        self,
        states_every: Option<u64>,
        work: impl FnOnce(&mut Navigator<'_>, Names) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        interruption::install().context("cannot handle signals")?;
        let names = self.prepared.names.clone();
        let started = Restarted::start(self.guest, self.prepared);
        let mut machine = started.inspect_err(|_| forget_log(&self.path))?;
        let log = Box::new(self.log);
        let keeping = Keeping::default();
        let mut navigator =
            Navigator::recording(&mut machine, self.header, keeping, log, states_every);
        let result = work(&mut navigator, names);
        let result = result.and_then(|done| {
            navigator.finish()?;
            Ok(done)
        });
        drop(navigator);
        result
            .map_err(|error| machine.session.explain(error))
            .with_context(|| format!("{} has the run up to there", self.path.display()))
    }

    /// Starts it, for who handles signals himself and ends when he likes: by [`Navigator::finish`].
    pub(super) fn into_navigator(
        self,
        states_every: Option<u64>,
    ) -> anyhow::Result<(Navigator<'static>, Names)> {
        let names = self.prepared.names.clone();
        let started = Restarted::start(self.guest, self.prepared);
        let machine = started.inspect_err(|_| forget_log(&self.path))?;
        let (keeping, log) = (Keeping::default(), Box::new(self.log));
        let navigator = Navigator::recording(machine, self.header, keeping, log, states_every);
        Ok((navigator, names))
    }
}

/// Begins a log, with what the run begins with in it, if that is wanted. One that could not be begun is
/// not left behind.
pub(super) fn begin_log(
    guest: &GuestOptions,
    prepared: &Prepared,
    path: &Path,
    is_packed: bool,
) -> anyhow::Result<(Header, Writer<File>)> {
    let header = beginning::describe(guest, prepared)?;
    let file = create(path)?;
    let begun = Writer::new(file, &header).map_err(anyhow::Error::from).and_then(|mut log| {
        if is_packed {
            packing::pack(&mut log, guest)?;
        }
        Ok(log)
    });
    match begun {
        Ok(log) => Ok((header, log)),
        Err(error) => {
            forget_log(path);
            Err(error.context(path.display().to_string()))
        }
    }
}

/// Removes the log of a run that never began. What is no file, such as a pipe, stays.
pub(super) fn forget_log(path: &Path) {
    if path.is_file() {
        // There is something else to be told, and whoever asks for this log again hears of it.
        drop(std::fs::remove_file(path));
    }
}

/// Makes a log, where there is no file yet; what is no file, such as a pipe, is written to as it is.
fn create(path: &Path) -> anyhow::Result<File> {
    let is_other = path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir());
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(!is_other).open(path);
    made.with_context(|| {
        let there = if path.exists() { ": choose another name, or remove it" } else { "" };
        format!("cannot create {}{there}", path.display())
    })
}

/// A machine that is started again whenever it has to be at its beginning.
struct Restarted {
    guest: GuestOptions,
    prepared: Prepared,
    session: Session,
}

impl Restarted {
    fn start(guest: GuestOptions, prepared: Prepared) -> anyhow::Result<Self> {
        let session = prepared.start()?;
        Ok(Self { guest, prepared, session })
    }
}

impl Machine for Restarted {
    fn debuggee(&mut self) -> &mut dyn Debuggee {
        &mut self.session.link
    }

    fn restart(&mut self) -> Result<(), Error> {
        let started = self.prepared.start_afresh(&self.guest);
        self.session = started.map_err(|error| Error::Lost(error.into()))?;
        Ok(())
    }
}
