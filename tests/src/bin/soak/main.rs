//! Random programs, for as long as one likes: `cargo xtask soak`.
//!
//! Each program has its own seed, counted up from the first; two are under way at a time. At the end
//! the log says what was covered. A divergence ends it, shrunk as far as dropping blocks shrinks it.
//!
//! With `--time-travel N` it is positions of a counted boot instead, or of so many programs, with `--replays N` such a boot,
//! replayed so often. With `--interrupts 1` it is interrupts between vCPUs, with their threads suspended;
//! with `--detector 1` the guest that looks for a debugger, under every policy with every other one, or
//! as many as there is time for.

mod replays;
mod time_travel;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use signal_hook::consts::SIGINT;
use stepwell_tests::cross_calls::{Calls, cross_calls};
use stepwell_tests::detector::{detect, product};
use stepwell_tests::random::case::{Case, Failure, Options, Outcome};

/// Programs at a time: QEMU takes one CPU for each.
const JOBS: u64 = 2;
/// Each kind of instruction is to meet each event as often as that.
const LEAST: u64 = 100;
/// An interrupt that comes later, by the running time of the vCPU that it is for, is a failure.
const LATE: Duration = Duration::from_millis(10);
/// A run as long as that has to.
const LONG: Duration = Duration::from_secs(3600);
const PROGRESS_EVERY: Duration = Duration::from_secs(30);
/// Where the detector runs.
const DETECTOR_CPUS: [&str; 2] = ["cortex-a57", "max"];

struct Arguments {
    time: Duration,
    first_seed: u64,
    programs: u64,
    jobs: u64,
    /// These blocks of the program alone.
    only: Option<Vec<u32>>,
    /// Write the program's image there, and do no more.
    image: Option<PathBuf>,
    options: Options,
    /// Interrupts between vCPUs instead of programs.
    interrupts: bool,
    /// So many positions of a counted boot instead, on this CPU.
    time_travel: u64,
    /// So many replays of one instead.
    replays: u64,
    cpu: &'static str,
    /// The detector instead of programs.
    detector: bool,
}

/// What all jobs share.
struct Soak {
    arguments: Arguments,
    started: Instant,
    next: AtomicU64,
    stop: Arc<AtomicBool>,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    outcome: Outcome,
    programs: u64,
    failure: Option<(Case, Failure)>,
    shown: Duration,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("soak: {text}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.time_travel > 0 && arguments.programs < u64::MAX {
        let cases = (0..arguments.programs).map(|n| arguments.case(n)).collect();
        return time_travel::in_programs(cases, arguments.time_travel);
    }
    if arguments.time_travel > 0 {
        return time_travel::run(arguments.cpu, arguments.time_travel, arguments.first_seed);
    }
    if arguments.replays > 0 {
        return replays::run(arguments.cpu, arguments.replays);
    }
    if arguments.interrupts {
        return interrupts(arguments.time);
    }
    if arguments.detector {
        return detector(arguments.time, arguments.first_seed);
    }
    if let Some(image) = &arguments.image {
        return match arguments.case(0).write(image) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("soak: {}", failure.text);
                ExitCode::FAILURE
            }
        };
    }
    let stop = Arc::new(AtomicBool::new(false));
    // A second Ctrl-C does not wait for the programs that are under way.
    let is_handled =
        signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&stop)));
    if let Err(error) = is_handled {
        eprintln!("soak: Ctrl-C cannot be handled: {error}");
    }
    println!("soak from seed {}", arguments.first_seed);
    let jobs = arguments.jobs;
    let soak = Soak {
        arguments,
        started: Instant::now(),
        next: AtomicU64::new(0),
        stop,
        sum: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| soak.work());
        }
    });
    soak.conclude()
}

/// Four vCPUs that send each other SGIs and set timers, their threads suspended at random.
fn interrupts(duration: Duration) -> ExitCode {
    let calls = Calls { smp: 4, irq: "into", duration, late: LATE };
    let progress = |suspensions| println!("threads suspended {suspensions} times");
    match cross_calls(&calls, &mut { progress }) {
        Ok(outcome) => {
            println!("{outcome}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("soak: an interrupt was late, or the guest did not end:\n{text}");
            ExitCode::FAILURE
        }
    }
}

/// The detector under all policies, or as many as there is time for, on each CPU for half of it.
fn detector(time: Duration, seed: u64) -> ExitCode {
    let started = Instant::now();
    let rounds = product(seed);
    println!("{} rounds, in the order of seed {seed}", rounds.len());
    let mut is_found = false;
    for (n, cpu) in (1..).zip(DETECTOR_CPUS) {
        let end = started + time * n / DETECTOR_CPUS.len() as u32;
        match detect(cpu, &rounds, Some(end)) {
            Ok(found) => {
                is_found |= !found.faults.is_empty();
                found.faults.iter().for_each(|fault| println!("{fault}"));
                let (gone, all) = (found.rounds, rounds.len());
                let (faults, tells) = (found.faults.len(), found.tells.len());
                println!(
                    "{cpu}: {gone} of {all} rounds: {faults} not listed, {tells} tells that are"
                );
            }
            Err(error) => {
                eprintln!("soak: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    if is_found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn arguments() -> Result<Arguments, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut arguments = Arguments {
        time: Duration::from_secs(60),
        first_seed: now * 1000,
        programs: u64::MAX,
        jobs: JOBS,
        only: None,
        image: None,
        options: Options::default(),
        interrupts: false,
        time_travel: 0,
        replays: 0,
        cpu: "cortex-a57",
        detector: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: not a number: {value}"));
        match name.as_str() {
            "--minutes" => arguments.time = Duration::from_secs(60 * number()?),
            "--seed" => arguments.first_seed = number()?,
            "--programs" => arguments.programs = number()?,
            "--jobs" => arguments.jobs = number()?.clamp(1, 64),
            "--image" => arguments.image = Some(value.into()),
            "--blocks" => {
                let numbers = value.split(',').map(str::parse).collect::<Result<_, _>>();
                arguments.only = Some(numbers.map_err(|_| format!("{name}: no numbers: {value}"))?);
            }
            "--time-travel" => arguments.time_travel = number()?,
            "--replays" => arguments.replays = number()?,
            "--cpu" => arguments.cpu = value.leak(),
            "--interrupts" => arguments.interrupts = number()? != 0,
            "--detector" => arguments.detector = number()? != 0,
            "--over" => arguments.options.over = number()? != 0,
            "--mutant" => arguments.options.mutant = Some(value),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(arguments)
}

impl Arguments {
    fn case(&self, number: u64) -> Case {
        let mut case = Case::new(self.first_seed + number, &self.options);
        if let Some(only) = &self.only {
            case.recipe.blocks.clone_from(only);
        }
        case
    }
}

impl Soak {
    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) && self.started.elapsed() < self.arguments.time {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.arguments.programs {
                return;
            }
            let case = self.arguments.case(number);
            let result = case.run();
            if self.stop.load(Ordering::Relaxed) {
                // Interrupted: what Ctrl-C did to its processes is no divergence.
                return;
            }
            match result {
                Ok(outcome) => self.add(&outcome),
                Err(failure) => {
                    self.stop.store(true, Ordering::Relaxed);
                    eprintln!("\n{}\nshrinking it…", failure.text);
                    let shrunk = case.shrink(failure);
                    self.lock().failure.get_or_insert(shrunk);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sum> {
        self.sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn add(&self, outcome: &Outcome) {
        let mut sum = self.lock();
        sum.programs += 1;
        let all = &mut sum.outcome;
        all.runs += outcome.runs;
        all.steps += outcome.steps;
        all.compared += outcome.compared;
        all.excursions += outcome.excursions;
        all.nested += outcome.nested;
        all.retries += outcome.retries;
        all.restarts += outcome.restarts;
        all.coverage.merge(&outcome.coverage);
        let elapsed = self.started.elapsed();
        if elapsed >= sum.shown + PROGRESS_EVERY {
            sum.shown = elapsed;
            println!("{}", progress(elapsed, &sum));
            // A progress line that cannot be shown is no reason to stop.
            let _shown = std::io::stdout().flush();
        }
    }

    fn conclude(&self) -> ExitCode {
        let sum = self.lock();
        let elapsed = self.started.elapsed();
        println!("\n{}\n\n{}", progress(elapsed, &sum), sum.outcome.coverage.table());
        if let Some((case, failure)) = &sum.failure {
            println!("DIVERGENCE, shrunk to {} blocks\n{}", case.recipe.blocks.len(), failure.text);
            return ExitCode::FAILURE;
        }
        let missing = sum.outcome.coverage.below(LEAST);
        if missing.is_empty() && sum.programs > 0 {
            println!("no divergence; every kind of instruction met every event {LEAST} times");
            return ExitCode::SUCCESS;
        }
        println!("no divergence; met less than {LEAST} times: {}", missing.join(", "));
        if elapsed >= LONG || sum.programs == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn progress(elapsed: Duration, sum: &Sum) -> String {
    let Outcome { runs, steps, compared, excursions, nested, retries, restarts, .. } = sum.outcome;
    format!(
        "{} min {:02} s: {} programs, {runs} runs, {steps} steps, {compared} compared, \
         {excursions} interrupts ({nested} nested), {retries} retries, {restarts} restarts",
        elapsed.as_secs() / 60,
        elapsed.as_secs() % 60,
        sum.programs,
    )
}
