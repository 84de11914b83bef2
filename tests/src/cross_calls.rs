//! Interrupts between vCPUs while the host suspends their threads: the guest `cross_calls`.
//!
//! A busy host suspends a vCPU's thread at any instruction of the hypervisor's, for as long as it
//! likes. Whatever one CPU publishes before what it tells of is seen by another then, and an
//! interrupt is lost or comes late. So QEMU's threads are suspended here, one after the other at
//! random, for some hundreds of microseconds each, as a debugger would (ptrace). The guest measures
//! by its own running time, and says what was the latest.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::guest::Guest;
use crate::plain::Setup;
use crate::process::Running;
use crate::random::chance::Chance;
use crate::stepwell::command;

/// In front of the guest's word that says how many seconds it goes on.
const NOTE: &[u8] = b"CALLNOTE";
/// What the guest and the tool need beside that.
const PATIENCE: Duration = Duration::from_secs(180);
/// Steps that nobody gets to.
const STEPS: &str = "1000000000000";
/// How long a thread is suspended, and how long none is: at most, in microseconds.
const SUSPENDED_US: u32 = 900;
const FREE_US: u32 = 800;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// vCPUs, of which one is stepped and the others run.
    pub smp: u8,
    /// The interrupt policy.
    pub irq: &'static str,
    /// How long, by the guest's clock.
    pub duration: Duration,
    /// What is late, by the running time of the vCPU.
    pub late: Duration,
}

/// What it came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calmness {
    /// Interrupts that were sent, or timers set, and taken.
    pub delivered: u64,
    /// The latest SGI, in microseconds of its receiver's running time.
    pub call_us: u64,
    /// The latest timer, from when it said that its condition is met.
    pub timer_us: u64,
    /// Timers that said so too late themselves.
    pub board_late: u64,
    /// How often a thread was suspended.
    pub suspensions: u64,
}

impl fmt::Display for Calmness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivered, call_us, timer_us, board_late, suspensions } = self;
        write!(
            f,
            "{delivered} interrupts, the latest SGI {call_us} us late and the latest timer \
             {timer_us} us, by their vCPU's running time; {board_late} timers went off later than \
             that, by the emulator's own fault; threads suspended {suspensions} times"
        )
    }
}

/// Runs the guest beside suspended threads. `progress` is told now and then how often.
///
/// # Errors
/// A text with what the tool said, where an interrupt was late or it did not come to its end.
pub fn cross_calls(calls: &Calls, progress: &mut dyn FnMut(u64)) -> Result<Calmness, String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    let folder = tempfile::tempdir().map_err(|error| text(&error))?;
    let image = folder.path().join("cross_calls.bin");
    write_image(&image, calls).map_err(|error| text(&error))?;
    let setup = Setup { cpu: "cortex-a57", smp: calls.smp, ..Setup::new(&image) };
    let mut trace = command("trace", &setup);
    trace.args(["--others", "run", "--irq", calls.irq, "--steps", STEPS, "--quiet", "-o"]);
    trace.arg(folder.path().join("calls.stepwell"));
    trace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut trace).map_err(|error| text(&error))?;
    let suspensions = suspend(&mut running, calls, progress);
    let finished = running.finish(PATIENCE).map_err(|error| text(&error))?;
    let said = |what: &str| {
        let hexadecimal = finished.stdout.lines().find_map(|line| line.split_once(what))?.1.trim();
        u64::from_str_radix(hexadecimal.trim_start_matches("0x"), 16).ok()
    };
    let outcome = Calmness {
        delivered: said("cross_calls: ok ").ok_or_else(|| finished.output())?,
        call_us: said("calls, us: ").ok_or_else(|| finished.output())?,
        timer_us: said("timers, us: ").ok_or_else(|| finished.output())?,
        board_late: said("board's that were late: ").ok_or_else(|| finished.output())?,
        suspensions,
    };
    Ok(outcome)
}

/// The guest's image, with how long it is to go on and what is late.
fn write_image(image: &Path, calls: &Calls) -> std::io::Result<()> {
    let mut bytes = fs::read(&Guest::named("cross_calls").path)?;
    let note = bytes.windows(NOTE.len()).position(|window| window == NOTE);
    let words = note.and_then(|at| bytes.get_mut(at + NOTE.len()..at + NOTE.len() + 16));
    let words = words.ok_or_else(|| std::io::Error::other("the guest has no CALLNOTE"))?;
    let (seconds, late_us) = words.split_at_mut(8);
    seconds.copy_from_slice(&calls.duration.as_secs().max(1).to_le_bytes());
    late_us.copy_from_slice(&(calls.late.as_micros() as u64).to_le_bytes());
    fs::write(image, bytes)
}

/// Suspends threads of the tool's QEMU until it ends, or the time is over. Returns how often.
fn suspend(running: &mut Running, calls: &Calls, progress: &mut dyn FnMut(u64)) -> u64 {
    const PROGRESS_EVERY: Duration = Duration::from_secs(30);
    let mut chance = Chance::new(calls.duration.as_secs());
    let (started, mut shown, mut count) = (Instant::now(), Duration::ZERO, 0);
    while started.elapsed() < calls.duration + PATIENCE / 2 && running.is_running() {
        let threads = threads_below(running.pid());
        if threads.len() <= usize::from(calls.smp) {
            // The machine is about to start, or to end. A process that is suspended on its way to
            // become QEMU would stay so.
            sleep(Duration::from_millis(10));
            continue;
        }
        let thread = *chance.pick(&threads);
        let how_long = Duration::from_micros(u64::from(chance.between(50, SUSPENDED_US)));
        count += u64::from(suspend_one(thread, how_long));
        sleep(Duration::from_micros(u64::from(chance.between(0, FREE_US))));
        if started.elapsed() > shown + PROGRESS_EVERY {
            shown = started.elapsed();
            progress(count);
        }
    }
    count
}

/// Suspends one thread for a moment. Tells whether there was one.
fn suspend_one(thread: Pid, how_long: Duration) -> bool {
    // Not PTRACE_ATTACH: its SIGSTOP stops the whole process where another signal comes before it.
    if ptrace::seize(thread, ptrace::Options::empty()).is_err() {
        return false;
    }
    let interrupted = ptrace::interrupt(thread);
    let status = interrupted.and_then(|()| waitpid(thread, Some(WaitPidFlag::__WALL)));
    let signal = match status {
        // On its way to the thread, which is to have it.
        Ok(WaitStatus::Stopped(_, signal)) => Some(signal),
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return false,
        _ => None,
    };
    sleep(how_long);
    let is_let_go = ptrace::detach(thread, signal).is_ok();
    if !is_let_go {
        // It was killed meanwhile. Until its tracer has seen its end, nobody sees its process's.
        let _end = waitpid(thread, Some(WaitPidFlag::__WALL));
    }
    is_let_go
}

/// The threads of a process's children.
fn threads_below(process: u32) -> Vec<Pid> {
    let numbers = |file: String| -> Vec<i32> {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let children = numbers(format!("/proc/{process}/task/{process}/children"));
    let tasks =
        children.iter().filter_map(|child| fs::read_dir(format!("/proc/{child}/task")).ok());
    let names = tasks.flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok().map(Pid::from_raw)).collect()
}
