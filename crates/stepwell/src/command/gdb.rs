//! `stepwell gdb`: serves a debugger.

use super::arrive::{At, Start};
use super::checkpoints::CheckpointsWord;
use super::options::{GuestOptions, OF_THE_RUN};
use super::policies::StepPolicies;
use super::replayed::{Recorded, Replayed, forget_log};
use crate::ending;
use crate::follow::{Follower, Outcome};
use crate::gdb::{Recordings, SocketFolder, Tool, init_file};
use crate::interruption;
use crate::names::Names;
use crate::output;
use crate::terminal::notice;
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use stepwell_debuggee::{Debuggee, Schedule};
use stepwell_gdb::{Address, Left, OnDisconnect, Policies, Server};
use stepwell_trace::Header;

/// Serves GDB or LLDB
///
/// Boots the guest, its console on this terminal, and listens for a debugger at a socket in a
/// private folder: `target remote PATH` in GDB, `process connect --plugin gdb-remote
/// unix-connect://PATH` in LLDB. The guest runs until one attaches, or is stopped at reset with
/// --wait. Ctrl-C leaves.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  stepwell gdb --kernel vmlinuz --initrd initrd.cpio.gz --smp 4 \
    --append 'console=ttyAMA0' \\\n    --write-symbols kernel.elf --init-file kernel.gdb\n  gdb-multiarch -x kernel.gdb\n  \
    stepwell gdb --replay boot.replay --at end\n  \
    stepwell gdb --kernel vmlinuz --smp 4 --record run.replay"
)]
#[command(mut_arg("kernel", |kernel| kernel.required_unless_present_any(["replay", "firmware"])))]
pub(super) struct Gdb {
    #[command(flatten)]
    guest: GuestOptions,
    /// Serves a run that was recorded (stepwell record), to go forwards and backwards in
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_THE_RUN)]
    replay: Option<PathBuf>,
    /// Records the run while it is debugged, into this log: it can be gone back in, and had again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["replay", "cpus", "irq", "others", "time"])]
    record: Option<PathBuf>,
    /// Who executes when, in a run that is recorded: turns[=N], N instructions each, or random[=SEED]
    #[arg(
        long,
        value_name = "HOW",
        requires = "record",
        default_value = "turns=50000",
        hide_default_value = true
    )]
    schedule: Schedule,
    /// What is taken down of the state of a run that is recorded: none, or hashes[=N], those of
    /// registers and memory every N instructions
    #[arg(
        long,
        value_name = "WHAT",
        requires = "record",
        default_value = "hashes",
        hide_default_value = true
    )]
    checkpoints: CheckpointsWord,
    /// Where to begin in a replay: a position, start, end, or SYMBOL, where that is first executed
    #[arg(
        long,
        value_name = "WHERE",
        requires = "replay",
        default_value = "reset",
        hide_default_value = true
    )]
    at: At,
    /// Where to listen: unix:PATH, or HOST:PORT, which asks nobody for a password. Port 0 takes a
    /// free one [default: a socket in a new private folder]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Address>,
    /// Holds the guest at reset until a debugger lets it go
    #[arg(long)]
    wait: bool,
    /// What becomes of the guest when a debugger is gone without a word: pause or continue
    #[arg(long, value_name = "WHAT", default_value = "pause")]
    on_disconnect: OnDisconnect,
    #[command(flatten)]
    policies: StepPolicies,
    /// Lets the debugger make recordings in this folder (monitor trace start NAME)
    #[arg(long, value_name = "FOLDER")]
    recordings: Option<PathBuf>,
    /// Writes a file of commands for gdb -x
    #[arg(long, value_name = "FILE")]
    init_file: Option<PathBuf>,
    /// Writes an ELF with the kernel's own symbols, for a debugger that has no vmlinux
    #[arg(long, value_name = "FILE", conflicts_with = "symbols")]
    write_symbols: Option<PathBuf>,
}

/// How a guest that is served begins.
enum Begin {
    Fresh,
    /// It is recorded meanwhile.
    Recorded,
    /// It was recorded, and is to be here first.
    Replayed(Start),
}

impl Begin {
    /// Where it is to be come to, where its reset is not told of by itself.
    fn start(self) -> Option<Start> {
        match self {
            Self::Fresh => None,
            Self::Recorded => Some(Start::Reset),
            Self::Replayed(start) => Some(start),
        }
    }
}

impl Gdb {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        self.refuse_inputs()?;
        let recordings = self
            .recordings
            .as_deref()
            .map(|folder| Recordings::new(folder).with_context(|| folder.display().to_string()));
        let recordings = recordings.transpose()?;
        // The folder is kept until the socket in it is closed.
        let (_folder, server) = self.bind()?;
        match (&self.replay, &self.record) {
            (None, None) => {
                let prepared = self.guest.prepare()?.by_clock(self.policies.time);
                self.write_files(&prepared.names, &self.guest, server.address())?;
                let (mut session, names) = prepared.launch()?;
                session.with(|link| {
                    self.policies.choose(link)?;
                    self.serve(link, names, &self.guest, (server, recordings), Begin::Fresh)
                })
            }
            (None, Some(log)) => {
                let recorded = Recorded::begin(&self.guest, self.schedule, log)?;
                let written = self.write_files(recorded.names(), &self.guest, server.address());
                written.inspect_err(|_| forget_log(log))?;
                recorded.with(self.checkpoints.every(), |navigator, names| {
                    let begin = Begin::Recorded;
                    self.serve(navigator, names, &self.guest, (server, recordings), begin)
                })
            }
            (Some(log), _) => {
                let mut replayed = Replayed::open(log, &self.guest)?;
                let (script, guest) = (replayed.script.clone(), replayed.guest.clone());
                let start = self.at.resolve_in_replay(&script, replayed.names())?;
                self.write_files(replayed.names(), &guest, server.address())?;
                replayed.with(|navigator, names| {
                    let begin = Begin::Replayed(start);
                    self.serve(navigator, names, &guest, (server, recordings), begin)
                })
            }
        }
    }

    /// Serves a guest that is at reset; one that is replayed, from where that is to begin.
    fn serve(
        &self,
        debuggee: &mut dyn Debuggee,
        mut names: Names,
        guest: &GuestOptions,
        (mut server, recordings): (Server, Option<Recordings>),
        begin: Begin,
    ) -> anyhow::Result<u8> {
        let StepPolicies { irq: interrupts, others, time } = self.policies;
        server.set_policies(Policies { interrupts, others, time, smc: false });
        let is_replayed = matches!(begin, Begin::Replayed(_));
        if let Some(start) = begin.start() {
            let mut console = |_: &[u8]| Ok(());
            let mut records = Vec::new();
            let mut follower =
                Follower { console: &mut console, records: &mut records, interruption: None };
            let outcome = start.arrive(debuggee, &mut names, &mut follower)?;
            if follower.interruption.is_some() {
                return Ok(ending::LEFT);
            }
            if let Outcome::Ended(ending) = outcome {
                let (status, text) = ending::describe_early(ending, &names, &self.at);
                notice(&text);
                return Ok(status);
            }
        }
        let mut tool = Tool::new(names, self.header(guest))?;
        if let Some(folder) = recordings {
            tool.allow_recordings(folder);
        }
        if let Some(file) = self.symbols(guest) {
            tool.set_symbols(file, self.write_symbols.is_some());
        }
        if !is_replayed {
            tool.look_out(debuggee)?;
            if !self.wait {
                debuggee.resume(0)?;
            }
        }
        notice(&format!("in GDB: target remote {}", server.address()));
        let mut called = || interruption::take().is_some();
        let left = server.serve(debuggee, &mut tool, &mut called).map_err(|error| match error {
            stepwell_gdb::Error::Lost(error) => error.into(),
            error => anyhow::Error::from(error),
        })?;
        Ok(match left {
            Left::Called | Left::Killed => ending::LEFT,
            Left::Ended(ending) => {
                let (status, text) = ending::describe(ending, tool.names());
                text.iter().for_each(|text| notice(text));
                status
            }
        })
    }

    /// The file that a debugger is to load symbols from.
    fn symbols<'a>(&'a self, guest: &'a GuestOptions) -> Option<&'a Path> {
        guest.symbols().or(self.write_symbols.as_deref())
    }

    /// Refuses to write over what is read, or one file over the other.
    fn refuse_inputs(&self) -> anyhow::Result<()> {
        let written = [self.write_symbols.as_deref(), self.init_file.as_deref()];
        for output in written.into_iter().flatten() {
            output::refuse_inputs(output, self.guest.inputs())?;
        }
        if let [Some(symbols), Some(commands)] = written
            && (symbols == commands || output::is_same(symbols, commands))
        {
            anyhow::bail!("{} cannot have both symbols and commands in it", commands.display());
        }
        Ok(())
    }

    /// Listens, and warns of a place that others can reach.
    fn bind(&self) -> anyhow::Result<(Option<SocketFolder>, Server)> {
        let folder = match &self.listen {
            Some(_) => None,
            None => Some(SocketFolder::new().context("cannot make a folder for a socket")?),
        };
        let address = self.listen.clone().or_else(|| folder.as_ref().map(SocketFolder::address));
        let address = address.context("there is no address to listen at")?;
        let server = Server::bind(&address, self.on_disconnect);
        let server = server.with_context(|| format!("cannot listen at {address}"))?;
        if server.is_exposed() {
            notice(&format!(
                "{} can be reached from other computers: whoever reaches it controls the guest",
                server.address()
            ));
        }
        Ok((folder, server))
    }

    /// Writes the files for a debugger.
    fn write_files(
        &self,
        names: &Names,
        guest: &GuestOptions,
        address: &Address,
    ) -> anyhow::Result<()> {
        if let Some(file) = &self.write_symbols {
            if names.is_empty() {
                anyhow::bail!("this kernel carries no symbols to write");
            }
            output::write(file, &names.to_elf()).with_context(|| file.display().to_string())?;
        }
        if let Some(file) = &self.init_file {
            let text = init_file(self.symbols(guest), &address.to_string());
            let written = text.and_then(|text| output::write(file, text.as_bytes()));
            written.with_context(|| file.display().to_string())?;
        }
        Ok(())
    }

    fn header(&self, guest: &GuestOptions) -> Header {
        Header {
            stepwell_version: env!("CARGO_PKG_VERSION").into(),
            cpu_model: guest.cpu().into(),
            command_line: guest.append().into(),
            interrupt_policy: self.policies.irq.to_string(),
            time_policy: self.policies.time.to_string(),
            recorded: "pc".into(),
            vcpus: guest.smp(),
        }
    }
}
