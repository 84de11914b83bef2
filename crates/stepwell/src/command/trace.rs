//! `stepwell trace`: steps a guest and records what it executes.
//!
//! The guest goes in slices, and is stopped in between: its code is fetched then, and Ctrl-C
//! served.

mod replayed;

use super::arrive::{At, Start};
use super::only::{Only, Sieve};
use super::options::{GuestOptions, OF_THE_RUN};
use super::policies::StepPolicies;
use super::pursuit::{Caught, Pursuit};
use crate::console::MarkedLines;
use crate::ending;
use crate::follow::{Follower, Outcome};
use crate::interruption::{self, Interruption};
use crate::losses::{Lookout, Loss};
use crate::names::{NameError, Names, Target};
use crate::output;
use crate::recorder::Recorder;
use crate::terminal::notice;
use crate::waits::WaitWatch;
use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{Stdout, stderr, stdout};
use std::path::PathBuf;
use std::time::Instant;
use stepwell_arch::Va;
use stepwell_debuggee::{
    Debuggee, DomainEnding, Error, OthersPolicy, Place, Refusal, StepRequest, Stop, StopReason,
    TraceDetail, TraceRecord, VcpuId,
};
use stepwell_trace::export::pc::PcLines;
use stepwell_trace::{Event, Header};

/// Records what a guest executes, instruction by instruction
///
/// Steps the guest from where --at says on, and writes a recording for `stepwell show`. Ctrl-C
/// ends it with what was taken so far.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    stepwell trace --kernel vmlinuz --steps 200000 --irq hold -o boot.stepwell\n  \
    stepwell trace --kernel vmlinuz --at start_kernel --until rest_init\n  \
    stepwell trace --replay boot.replay --from 500000000 --to 500100000")]
// A recording is of what happened, handlers included.
#[command(mut_arg("irq", |irq| irq.default_value("into")))]
#[command(mut_arg("kernel", |kernel| kernel.required_unless_present_any(["replay", "firmware"])))]
pub(super) struct Trace {
    #[command(flatten)]
    guest: GuestOptions,
    /// Where to begin: reset, smc (the first one), SYMBOL, SYMBOL+0xOFFSET, 0xADDRESS,
    /// MODULE:SYMBOL of a Linux module once it is loaded, or PROGRAM!SYMBOL of a program (--sysroot)
    #[arg(long, value_name = "WHERE", default_value = "reset")]
    at: At,
    /// Records a part of a run that was recorded before (stepwell record)
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_THE_RUN,
        conflicts_with_all = ["at", "steps", "until", "follow"])]
    replay: Option<PathBuf>,
    /// Where the part of a replay begins: a position
    #[arg(
        long,
        value_name = "N",
        requires = "replay",
        default_value_t = 0,
        hide_default_value = true
    )]
    from: u64,
    /// Where it ends: a position [default: where the recording does]
    #[arg(long, value_name = "N", requires = "replay")]
    to: Option<u64>,
    /// How many steps at most [default: 100000, or no limit with --until]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Where to end: SYMBOL, SYMBOL+0xOFFSET or 0xADDRESS
    #[arg(long, value_name = "WHERE")]
    until: Option<String>,
    #[command(flatten)]
    policies: StepPolicies,
    /// What is recorded of each step: pc; regs, the registers that it changed; mem, what it loaded
    /// and stored. All but pc is slow
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',', default_value = "pc")]
    record: Vec<What>,
    #[command(flatten)]
    only: Only,
    /// Prints each step as it comes, as `show --format pc` does; the guest's console goes to
    /// standard error then
    #[arg(long)]
    print: bool,
    /// The recording
    #[arg(long, short, value_name = "FILE", default_value = "trace.stepwell")]
    output: PathBuf,
    /// Shows no progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// What is recorded of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum What {
    /// Its PC
    Pc,
    /// The registers that it changed
    Regs,
    /// What it loaded and stored
    Mem,
}

const STEPS_DEFAULT: u64 = 100_000;
/// Small: if the guest ends in it, its code cannot be fetched any more.
const SLICE_FIRST: u64 = 1 << 8;
/// Under a second at the rates that are usual: what is recorded is taken from memory after it.
const SLICE_LAST: u64 = 1 << 18;
/// With registers or memory there are several records for each step to be kept at a time.
const SLICE_LAST_IN_DETAIL: u64 = 1 << 16;
/// What is recorded reaches the disk after so many steps, twice as many the next time, and so on up
/// to the last, whatever happens to us then. Not in seconds: two recordings of the same run are the
/// same file.
const FLUSH_STEPS_FIRST: u64 = 1 << 16;
const FLUSH_STEPS_LAST: u64 = 1 << 20;

impl Trace {
    pub(super) fn execute(&self) -> anyhow::Result<u8> {
        output::refuse_inputs(&self.output, self.guest.inputs())?;
        if let Some(log) = &self.replay {
            return self.execute_replayed(log);
        }
        let mut prepared = self.guest.prepare()?.by_clock(self.policies.time);
        let start = self.at.resolve(&mut prepared.names)?;
        let until = match self.until.as_deref().map(|word| prepared.names.resolve_instruction(word))
        {
            // It has none before the firmware has loaded what has the name.
            None | Some(Err(NameError::NotPlaced(_))) => None,
            Some(until) => Some(until?),
        };
        let mut job = self.job(&self.guest, prepared.names.clone())?;
        job.until = until;
        let (mut session, names) = prepared.launch()?;
        job.names = names;
        let result = session.with(|link| job.run(self, link, start));
        drop(session);
        job.conclude(self, result)
    }

    /// Makes the recording, and what is to be done for it.
    fn job(&self, guest: &GuestOptions, names: Names) -> anyhow::Result<Job> {
        let header = Header {
            stepwell_version: env!("CARGO_PKG_VERSION").into(),
            cpu_model: guest.cpu().into(),
            command_line: guest.append().into(),
            interrupt_policy: self.policies.irq.to_string(),
            time_policy: self.policies.time.to_string(),
            recorded: self.recorded(),
            vcpus: guest.smp(),
        };
        let sieve = Sieve::new(&self.only, &names)?;
        let pursuit = self.only.follow().map(|who| Pursuit::new(who, &names)).transpose()?;
        let file = || self.output.display().to_string();
        let recorder = Recorder::create(&self.output, &header).with_context(file)?;
        Ok(Job {
            recorder,
            sieve,
            waits: (self.policies.others == OthersPolicy::Stop && guest.smp() > 1)
                .then(WaitWatch::default),
            pursuit,
            names,
            until: None,
            lookout: Lookout::default(),
            steps: self.limit(),
            done: 0,
            bar: self.progress_bar(),
            lines: MarkedLines::default(),
            printer: self.print.then(|| PcLines::new(stdout())),
            started: Instant::now(),
            flushed: 0,
            flush_steps: FLUSH_STEPS_FIRST,
        })
    }

    /// Has the guest stepped and recorded as the options say.
    fn choose_policies(&self, debuggee: &mut dyn Debuggee) -> anyhow::Result<()> {
        if self.replay.is_none() {
            self.policies.choose(debuggee)?;
        }
        if let Some(trace) = debuggee.support_trace() {
            let registers = self.records(What::Regs);
            trace.set_detail(0, TraceDetail { registers, memory: self.records(What::Mem) })?;
        }
        Ok(())
    }

    fn records(&self, what: What) -> bool {
        self.record.contains(&what)
    }

    /// The longest slice.
    fn slice_last(&self) -> u64 {
        match self.records(What::Regs) || self.records(What::Mem) {
            true => SLICE_LAST_IN_DETAIL,
            false => SLICE_LAST,
        }
    }

    /// As the recording's header says it.
    fn recorded(&self) -> String {
        match (self.records(What::Regs), self.records(What::Mem)) {
            (false, false) => "pc".into(),
            (true, false) => "regs".into(),
            (false, true) => "mem".into(),
            (true, true) => "regs,mem".into(),
        }
    }

    /// Tells of an end before the one that was asked for, if one was. Returns the status.
    fn never_met(&self, why: &str) -> u8 {
        let Some(until) = &self.until else { return ending::CLEAN };
        notice(&format!("{why}, and the guest never came to {until}"));
        ending::FAILED
    }

    fn limit(&self) -> u64 {
        let has_end = self.until.is_some() || self.replay.is_some();
        self.steps.unwrap_or(if has_end { u64::MAX } else { STEPS_DEFAULT })
    }

    fn progress_bar(&self) -> ProgressBar {
        if self.quiet {
            return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        }
        let bar = match self.limit() {
            u64::MAX => ProgressBar::no_length(),
            steps => ProgressBar::new(steps),
        };
        let known = "{wide_bar} {human_pos}/{human_len} steps, {per_sec}, {eta}";
        let unknown = "{spinner} {human_pos} steps, {per_sec}";
        let template = if self.limit() == u64::MAX { unknown } else { known };
        bar.with_style(ProgressStyle::with_template(template).expect("the template is ours"))
    }
}

/// Why a recording ended.
enum End {
    Done,
    /// All steps were made.
    OutOfSteps,
    /// The task that was followed has ended.
    TaskEnded,
    /// The guest cannot come to where recording was to end.
    Lost(Loss),
    /// The guest ended before it came to where recording was to begin.
    NeverMet(DomainEnding),
    /// The user did not wait for that.
    NotWaitedFor,
    Stopped(Stop),
    Guest(DomainEnding),
    Interrupted(Interruption),
}

struct Job {
    recorder: Recorder,
    sieve: Sieve,
    /// Where others are stopped.
    waits: Option<WaitWatch>,
    pursuit: Option<Pursuit>,
    names: Names,
    until: Option<Target>,
    lookout: Lookout,
    steps: u64,
    done: u64,
    bar: ProgressBar,
    lines: MarkedLines,
    printer: Option<PcLines<Stdout>>,
    started: Instant,
    flushed: u64,
    flush_steps: u64,
}

impl Job {
    fn run(
        &mut self,
        options: &Trace,
        debuggee: &mut dyn Debuggee,
        start: Start,
    ) -> anyhow::Result<End> {
        if debuggee.support_trace().is_none() {
            return Err(anyhow!("this hypervisor has no trace ring: use one of the same build"));
        }
        options.choose_policies(debuggee)?;
        let (mut stop, interruption) = match self
            .follow(debuggee, |names, follower, debuggee| start.arrive(debuggee, names, follower))?
        {
            (Outcome::Stopped(stop), interruption) => (stop, interruption),
            (Outcome::Ended(ending), _) => return Ok(End::NeverMet(ending)),
        };
        if interruption.is_some() {
            return Ok(End::NotWaitedFor);
        }
        self.names.follow_image(debuggee, stop.vcpu)?;
        self.place_end(options, debuggee)?;
        self.recorder.want(stop.pc, 1);
        self.advance(debuggee, stop)?;
        if let Some(interruption) = interruption::take() {
            return self.interrupted(interruption);
        }
        self.sieve.begin(&mut self.names, debuggee)?;
        if let Some(pursuit) = &mut self.pursuit {
            pursuit.begin(&mut self.names, debuggee, stop)?;
        }
        (self.done, self.flushed, self.started) = (0, 0, Instant::now());
        let slice_last = options.slice_last();
        let (mut slice, mut vcpu) = (SLICE_FIRST, stop.vcpu);
        while self.done < self.steps {
            match self.catch(debuggee)? {
                None => {}
                Some(Ok(on)) => vcpu = on,
                Some(Err(end)) => return Ok(end),
            }
            self.emit_tasks()?;
            let count = slice.min(self.steps - self.done);
            let all = matches!(options.policies.others, OthersPolicy::Step { .. });
            let request = StepRequest { record: true, all, ..StepRequest::steps(count) };
            debuggee.step(vcpu, request)?;
            let (outcome, interruption) =
                self.follow(debuggee, |_, follower, debuggee| follower.follow(debuggee))?;
            match outcome {
                Outcome::Stopped(next) => stop = next,
                Outcome::Ended(ending) => {
                    self.recorder.take_code_from(&self.names)?;
                    return Ok(End::Guest(ending));
                }
            }
            self.advance(debuggee, stop)?;
            self.say_wait(debuggee, stop)?;
            // It may have come while code was fetched, too.
            if let Some(interruption) = interruption.or_else(interruption::take) {
                return self.interrupted(interruption);
            }
            if let Some(end) = self.end_there(options, debuggee, stop)? {
                return Ok(end);
            }
            slice = (slice * 2).min(slice_last);
        }
        Ok(End::OutOfSteps)
    }

    /// Says whether this stop is the end, or was made on the way there only.
    fn end_there(
        &mut self,
        options: &Trace,
        debuggee: &mut dyn Debuggee,
        stop: Stop,
    ) -> anyhow::Result<Option<End>> {
        let mut is_there = self.is_at_end(debuggee, stop)?;
        if self.names.image_moved(debuggee, stop)? {
            self.place_end(options, debuggee)?;
            is_there = is_there || self.is_at_end(debuggee, stop)?;
            if !is_there {
                return Ok(None);
            }
        }
        let until = self.until.map(|until| until.place);
        if let Some(loss) = Lookout::begins(&self.names, stop)
            && until.is_some_and(|until| loss.concerns(&self.names, Some(until)))
        {
            return Ok(Some(End::Lost(loss)));
        }
        let passes = self.sieve.stopped(&mut self.names, debuggee, stop, until)?;
        let passes = passes | self.is_switch(debuggee, stop)?;
        // Whatever else leads to the memory of a breakpoint of ours is no end.
        let is_other = stop.reason == StopReason::Breakpoint && until.is_some() && !is_there;
        if passes || is_other { Ok(None) } else { self.end(stop) }
    }

    /// Tells whether a stop is where recording ends.
    fn is_at_end(&mut self, debuggee: &mut dyn Debuggee, stop: Stop) -> anyhow::Result<bool> {
        match self.until {
            Some(Target { place, .. }) if stop.reason == StopReason::Breakpoint => {
                Ok(self.names.is_met(debuggee, stop.vcpu, place, stop.pc)?)
            }
            _ => Ok(false),
        }
    }

    /// Has the guest stop where recording ends, wherever that is now.
    fn place_end(&mut self, options: &Trace, debuggee: &mut dyn Debuggee) -> anyhow::Result<()> {
        let Some(word) = &options.until else { return Ok(()) };
        self.until = self.names.resolve_instruction(word).ok();
        if let Some(Target { place: place @ Place::Ipa(_), .. }) = self.until {
            self.lookout.arm(&self.names, debuggee, 0, Some(place))?;
        }
        match self.until.map(|until| debuggee.set_breakpoint(0, until.place)) {
            None | Some(Err(Error::Refused(Refusal::Breakpoint))) => Ok(()),
            Some(result) => Ok(result?),
        }
    }

    /// Has the recording tell which task is executed from here on.
    fn emit_tasks(&mut self) -> anyhow::Result<()> {
        for event in self.sieve.take_news() {
            self.recorder.event(&event)?;
        }
        if let Some(pursuit) = &mut self.pursuit {
            for event in pursuit.take_news() {
                self.recorder.event(&event)?;
            }
        }
        Ok(())
    }

    /// Waits for the task that is followed, if any, and says which vCPU executes it.
    fn catch(
        &mut self,
        debuggee: &mut dyn Debuggee,
    ) -> anyhow::Result<Option<Result<VcpuId, End>>> {
        let Some(mut pursuit) = self.pursuit.take() else { return Ok(None) };
        let mut caught = None;
        let followed = self.follow(debuggee, |names, follower, debuggee| {
            let found = pursuit.catch(names, debuggee, follower)?;
            let outcome = match &found {
                Caught::Not(outcome) => *outcome,
                // Nothing that the caller asks about.
                Caught::On(_) | Caught::TaskEnded => Outcome::Ended(DomainEnding::PoweredOff),
            };
            caught = Some(found);
            Ok(outcome)
        });
        self.pursuit = Some(pursuit);
        let (_, interruption) = followed?;
        if let Some(interruption) = interruption {
            return self.interrupted(interruption).map(|end| Some(Err(end)));
        }
        Ok(caught.map(|caught| match caught {
            Caught::On(vcpu) => Ok(vcpu),
            Caught::TaskEnded => Err(End::TaskEnded),
            Caught::Not(Outcome::Stopped(stop)) => Err(End::Stopped(stop)),
            Caught::Not(Outcome::Ended(ending)) => Err(End::Guest(ending)),
        }))
    }

    /// Tells whether a stop was made for the task that is followed.
    fn is_switch(&mut self, debuggee: &mut dyn Debuggee, stop: Stop) -> anyhow::Result<bool> {
        match &mut self.pursuit {
            Some(pursuit) => pursuit.stopped(&mut self.names, debuggee, stop),
            None => Ok(false),
        }
    }

    /// Ends with what was taken so far.
    fn interrupted(&mut self, interruption: Interruption) -> anyhow::Result<End> {
        self.recorder.take_code_from(&self.names)?;
        Ok(End::Interrupted(interruption))
    }

    /// Follows the guest, and records what it did.
    fn follow(
        &mut self,
        debuggee: &mut dyn Debuggee,
        work: impl FnOnce(&mut Names, &mut Follower<'_>, &mut dyn Debuggee) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<(Outcome, Option<Interruption>)> {
        let (lines, bar, mut records) = (&mut self.lines, &self.bar, Vec::new());
        let aside = self.printer.is_some();
        let mut console = |bytes: &[u8]| {
            bar.suspend(|| match aside {
                true => lines.push(bytes, &mut stderr().lock()),
                false => lines.push(bytes, &mut stdout().lock()),
            })
        };
        let mut follower =
            Follower { console: &mut console, records: &mut records, interruption: None };
        let outcome = work(&mut self.names, &mut follower, debuggee);
        let interruption = follower.interruption;
        if let Some(waits) = &mut self.waits {
            waits.note(&records);
        }
        self.sieve.retain(&self.names, &mut records);
        if let Some(pursuit) = &self.pursuit {
            pursuit.retain(&mut records);
        }
        self.print(&records)?;
        self.recorder.take(&mut records)?;
        if self.done - self.flushed >= self.flush_steps {
            self.recorder.flush()?;
            self.flushed = self.done;
            self.flush_steps = (self.flush_steps * 2).min(FLUSH_STEPS_LAST);
        }
        Ok((outcome?, interruption))
    }

    /// Prints what came in, before anything else is done with it.
    fn print(&mut self, records: &[TraceRecord]) -> anyhow::Result<()> {
        let Some(printer) = &mut self.printer else { return Ok(()) };
        for record in records {
            if let TraceRecord::Run { vcpu, pc, length } = *record {
                printer.run(vcpu, pc, length)?;
            }
        }
        Ok(printer.flush()?)
    }

    /// Takes stock at a stop.
    fn advance(&mut self, debuggee: &mut dyn Debuggee, stop: Stop) -> anyhow::Result<()> {
        self.done += stop.steps;
        self.bar.set_position(self.done);
        self.names.locate(debuggee, stop.vcpu, stop.pc)?;
        self.recorder.notice_modules(&mut self.names, debuggee, stop.vcpu)?;
        self.recorder.fetch_code(debuggee, stop.vcpu)?;
        self.recorder.name(&self.names)?;
        Ok(())
    }

    /// Tells the user where the vCPU waits for others, if it seems to.
    fn say_wait(&mut self, debuggee: &mut dyn Debuggee, stop: Stop) -> anyhow::Result<()> {
        let Some(waits) = &mut self.waits else { return Ok(()) };
        let Some(wait) = waits.assess(self.started.elapsed(), stop.pc) else { return Ok(()) };
        let statuses = debuggee.status(stop.vcpu.domain)?;
        let names = &self.names;
        let name = |va: Va| names.describe(va).unwrap_or_else(|| format!("{:#x}", va.0));
        if let Some(text) = wait.describe(stop.vcpu.vcpu, stop.pc, &statuses, name) {
            self.bar.suspend(|| notice(&text));
        }
        Ok(())
    }

    /// Says whether this stop is the end.
    fn end(&mut self, stop: Stop) -> anyhow::Result<Option<End>> {
        Ok(match stop.reason {
            StopReason::Stepped | StopReason::RingFull | StopReason::Reset => None,
            StopReason::PrivilegedCall { immediate } => {
                let (vcpu, pc) = (stop.vcpu.vcpu, stop.pc);
                self.recorder.event(&Event::PrivilegedCall { vcpu, pc, immediate })?;
                None
            }
            StopReason::Until
            | StopReason::Breakpoint
            | StopReason::Watchpoint { .. }
            | StopReason::Reached
            | StopReason::LeftRange => Some(End::Done),
            StopReason::Paused
            | StopReason::AArch32
            | StopReason::SwitchedOff
            | StopReason::BreakpointLost => Some(End::Stopped(stop)),
        })
    }

    /// Completes the recording, whatever happened, and tells what there is.
    fn conclude(mut self, options: &Trace, result: anyhow::Result<End>) -> anyhow::Result<u8> {
        self.bar.finish_and_clear();
        match self.printer {
            Some(_) => self.lines.flush(&mut stderr().lock())?,
            None => self.lines.flush(&mut stdout().lock())?,
        }
        let file = options.output.display();
        let taken = self.recorder.totals().instructions;
        let seconds = self.started.elapsed().as_secs_f64();
        let finished = self.recorder.finish(&self.names);
        let end = match (result, finished) {
            (Err(error), _) if is_disk_full(&error) => {
                return Err(anyhow!(
                    "no space left on the disk: {file} is readable as far as it goes"
                ));
            }
            (_, Err(error)) if error.is_disk_full() => {
                return Err(anyhow!(
                    "no space left on the disk: {file} is readable as far as it goes"
                ));
            }
            (Err(error), _) => {
                return Err(error.context(format!("{taken} steps were recorded in {file}")));
            }
            (Ok(_), Err(error)) => return Err(error).with_context(|| file.to_string()),
            (Ok(end), Ok(_)) => end,
        };
        let bytes = std::fs::metadata(&options.output).map_or(0, |data| data.len());
        let rate = taken as f64 / seconds.max(0.001);
        let summary = format!("{taken} steps, {bytes} bytes, {rate:.0} steps/s: {file}");
        match self.printer {
            Some(_) => eprintln!("{summary}"),
            None => println!("{summary}"),
        }
        match end {
            End::Done | End::Interrupted(Interruption::Stop) => Ok(ending::CLEAN),
            End::Interrupted(Interruption::Leave) => Ok(ending::LEFT),
            End::OutOfSteps => Ok(options.never_met("all steps were made")),
            End::TaskEnded => Ok(options.never_met("the task ended")),
            End::Lost(loss) => {
                let until = options.until.as_deref().unwrap_or_default();
                Ok(options.never_met(&format!("{until} {loss}")))
            }
            End::Stopped(Stop { vcpu, reason, pc, .. }) => {
                notice(&format!("ended early: {vcpu} {reason} at {:#x}", pc));
                Ok(if options.until.is_some() { ending::FAILED } else { ending::CLEAN })
            }
            End::NotWaitedFor => {
                notice(&format!("interrupted before the guest came to {}", options.at));
                Ok(ending::LEFT)
            }
            End::NeverMet(how) => {
                let (status, text) = ending::describe_early(how, &self.names, &options.at);
                notice(&text);
                Ok(status)
            }
            End::Guest(how) => {
                let (status, text) = ending::describe(how, &self.names);
                text.iter().for_each(|text| notice(text));
                match &options.until {
                    Some(until) if status == ending::CLEAN => {
                        notice(&format!("the guest ended before it came to {until}"));
                        Ok(ending::FAILED)
                    }
                    _ => Ok(status),
                }
            }
        }
    }
}

fn is_disk_full(error: &anyhow::Error) -> bool {
    error.downcast_ref::<stepwell_trace::Error>().is_some_and(stepwell_trace::Error::is_disk_full)
}
