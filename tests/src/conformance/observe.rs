//! Runs the guest `conform` in one view, and brings back what was seen.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use stepwell::machine::{MachineError, QemuMachine};
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, Event, InterruptPolicy, Place, StepRequest, Stop, StopReason, VcpuId,
};
use stepwell_link::Link;

use super::{Places, View, cut, expected, runs};
use crate::guest::{Guest, LOAD};
use crate::machine::{hypervisor_for_tests, launch_in};
use crate::plain::{self, Setup};
use crate::process::run;
use crate::stepwell::{command, show};
use crate::stream::Stream;

/// Many times what the slowest view takes on two cores, which is 15 s.
const LIMIT: Duration = Duration::from_secs(300);
/// Many times what the guest executes.
const STEPS_MAX: usize = 4_000_000;
/// Stops of one run: many more than the longest declares.
const STOPS_MAX: usize = 400;
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };

/// Under which circumstances the guest runs.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The CPU.
    pub cpu: &'static str,
    /// What the hypervisor's test mode does; none for the image that is released.
    pub test_mode: Option<&'a str>,
    /// How long one view may take.
    pub limit: Duration,
    /// How many steps a recording may have.
    pub steps_max: usize,
}

impl Circumstances<'_> {
    /// Nothing but the CPU.
    #[must_use]
    pub const fn plain(cpu: &'static str) -> Self {
        Self { cpu, test_mode: None, limit: LIMIT, steps_max: STEPS_MAX }
    }

    fn command(&self, subcommand: &str, setup: &Setup) -> Command {
        let mut command = command(subcommand, setup);
        if let Some(words) = self.test_mode {
            command.arg("--hypervisor").arg(hypervisor_for_tests()).args(["--test-mode", words]);
        }
        command
    }
}

/// What was seen of the whole guest.
#[derive(Debug, Default)]
pub struct Observation {
    /// The stream of each run; none where the view has no stream.
    pub streams: Option<Vec<Stream>>,
    /// What the guest printed.
    pub console: String,
}

/// The guest and its places.
///
/// # Panics
/// Where it was not built.
#[must_use]
pub fn guest() -> (Guest, Places) {
    let guest = Guest::named("conform");
    let elf = guest.path.with_extension("elf");
    let file = fs::read(&elf).unwrap_or_else(|error| panic!("{}: {error}", elf.display()));
    (guest, Places::read(&file).unwrap_or_else(|error| panic!("{}: {error}", elf.display())))
}

/// Runs the guest and tells what was seen.
///
/// # Errors
/// A text, when it does not come to its end.
pub fn observe(view: View, circumstances: Circumstances<'_>) -> Result<Observation, String> {
    let (guest, places) = guest();
    let setup = Setup { cpu: circumstances.cpu, ..Setup::new(&guest.path) };
    match view {
        View::Plain => plain(&setup, &places),
        View::Unstepped => {
            let mut command = circumstances.command("run", &setup);
            let finished =
                run(&mut command, circumstances.limit).map_err(|error| error.to_string())?;
            Ok(Observation { streams: None, console: finished.stdout })
        }
        View::Recorded(policy) => recorded(&setup, policy, &places, circumstances),
        View::Stops => stops(&setup, &places, circumstances),
    }
}

fn plain(setup: &Setup, places: &Places) -> Result<Observation, String> {
    let text = |error: crate::process::Error| error.to_string();
    let console = plain::console(setup, LIMIT).map_err(text)?.stdout;
    let stream = plain::witness(setup, LOAD, STEPS_MAX, LIMIT).map_err(text)?.swap_remove(0);
    Ok(Observation { streams: Some(cut(&stream, places)), console })
}

fn recorded(
    setup: &Setup,
    policy: InterruptPolicy,
    places: &Places,
    circumstances: Circumstances<'_>,
) -> Result<Observation, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("conform.stw");
    let mut trace = circumstances.command("trace", setup);
    let steps = circumstances.steps_max.to_string();
    trace.args(["--quiet", "--irq", &policy.to_string(), "--steps", &steps]);
    trace.arg("-o").arg(&file);
    let finished = run(&mut trace, circumstances.limit).map_err(|error| error.to_string())?;
    if !finished.status.success() {
        return Err(format!("trace: {}", finished.output()));
    }
    Ok(Observation { streams: Some(cut(&show(&file)?, places)), console: finished.stdout })
}

/// Each run is come to freely, and left freely: stepping begins and ends with it.
fn stops(
    setup: &Setup,
    places: &Places,
    circumstances: Circumstances<'_>,
) -> Result<Observation, String> {
    let started = start(setup, circumstances.test_mode);
    let (_machine, mut link) = started.map_err(|error| error.to_string())?;
    let end = Instant::now() + circumstances.limit;
    let mut session = Session { link: &mut link, console: Vec::new(), end };
    let streams = session.all(setup.cpu, places).map_err(|error| error.to_string())?;
    let console = String::from_utf8_lossy(&session.console).into_owned();
    Ok(Observation { streams: Some(streams), console })
}

fn start(setup: &Setup, test_mode: Option<&str>) -> Result<(QemuMachine, Link), MachineError> {
    let image = fs::read(&setup.kernel).unwrap_or_default();
    launch_in(test_mode, &image, setup.cpu, 1)
}

struct Session<'a> {
    link: &'a mut Link,
    console: Vec<u8>,
    end: Instant,
}

impl Session<'_> {
    fn all(&mut self, cpu: &str, places: &Places) -> anyhow::Result<Vec<Stream>> {
        let enter = places.of("conform_enter");
        self.stop()?;
        if let Some(interrupts) = self.link.support_interrupts() {
            interrupts.set_interrupt_policy(0, InterruptPolicy::Into)?;
        }
        // By physical address on one of the CPUs: then the page is executed from a copy of it.
        let by_page = cpu.starts_with("max");
        let place = if by_page { Place::Ipa(Ipa(enter)) } else { Place::Va(Va(enter)) };
        self.link.set_breakpoint(0, place)?;
        let mut streams = Vec::new();
        for (case, run) in runs(cpu) {
            match self.resume()? {
                Some(stop) if stop.pc.0 == enter => {}
                other => anyhow::bail!("before {}: {other:?}", case.name),
            }
            let length = expected(case, run, View::Stops, places).len();
            streams.push(self.one(places, length)?);
        }
        while self.resume()?.is_some() {}
        Ok(streams)
    }

    /// Steps through one run, which ends at `conform_end` and not before so many stops: a guest
    /// that steps itself is stopped there first.
    fn one(&mut self, places: &Places, length: usize) -> anyhow::Result<Stream> {
        let (enter, end) = (places.of("conform_enter"), places.of("conform_end"));
        let mut stream = Stream::new();
        for _ in 0..STOPS_MAX {
            self.link.step(V0, StepRequest::steps(1))?;
            let Some(stop) = self.stop()? else { break };
            let pc = stop.pc.0;
            if stop.reason == StopReason::Paused && stop.steps == 0 {
                // It was told to stop, before anything executed.
                continue;
            }
            if pc == enter || (pc == end && stream.len() >= length) {
                break;
            }
            stream.push(pc);
        }
        Ok(stream)
    }

    /// Lets the guest run to the next stop.
    fn resume(&mut self) -> anyhow::Result<Option<Stop>> {
        self.link.resume(0)?;
        self.stop()
    }

    /// The next stop; none where the guest ends.
    fn stop(&mut self) -> anyhow::Result<Option<Stop>> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            match self.link.wait(left)? {
                Some(Event::Console { bytes, .. }) => self.console.extend(bytes),
                Some(Event::Stopped(stop)) => return Ok(Some(stop)),
                Some(Event::Ended { ending: DomainEnding::PoweredOff, .. }) => return Ok(None),
                Some(Event::Ended { ending, .. }) => anyhow::bail!("the guest ended: {ending:?}"),
                None => anyhow::bail!("no stop within the time there is"),
            }
        }
    }
}
