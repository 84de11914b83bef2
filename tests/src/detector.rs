//! Runs the guest `detector` round by round, each under other policies, and judges what it says.
//!
//! Its values are to be those of plain QEMU. What it may tell besides is the table "What the detector may
//! find" of docs/stealth.md: a row has the tell's name and where that is allowed, `always` or a list of
//! conditions like `time=stopped`, of which one has to hold; `irq=over+time=real` are two that have to
//! hold together. `qemu=7` holds on all QEMUs with that number in front.

use std::collections::BTreeMap;
use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use stepwell::machine::QemuMachine;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, Event, InterruptPolicy, OthersPolicy, Place, StepRequest, StopReason,
    TimePolicy, VcpuId,
};
use stepwell_link::Link;

use crate::guest::Guest;
use crate::machine::launch;
use crate::plain::{self, Setup};
use crate::random::chance::Chance;

const LIMIT: Duration = Duration::from_secs(300);
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
/// How often a round by real time is gone at most that tells: what else the host has to do is in its time, and
/// that of Stepwell each time.
const TRIES: u64 = 3;
/// Many times what a round is.
const STEPS_MAX: u64 = 500_000_000;
/// In front of the word with the number of rounds, eight bytes aligned.
const NOTE: &[u8] = b"DETECTNOTE";
/// CPUs of the machine, and its memory in MiB.
const SMP: u8 = 2;
const MEMORY_MIB: u32 = 64;
/// Hidden breakpoints, from behind where rounds begin.
const BREAKPOINTS: u64 = 50;
/// How long the guest runs before each pause, and how long that takes: more than the guest lets pass.
const RUNS: Duration = Duration::from_millis(30);
const PAUSE: Duration = Duration::from_millis(1_500);
const PAUSES: usize = 3;

/// What the debugger does during a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// It runs freely.
    Free {
        /// With hidden breakpoints beside its code, and data in their page.
        breakpoints: bool,
        /// It is stopped now and then.
        pauses: bool,
    },
    /// It is stepped.
    Stepped {
        /// What becomes of interrupts.
        irq: InterruptPolicy,
        /// How time goes.
        time: TimePolicy,
        /// What the other vCPU does.
        others: OthersPolicy,
    },
}

impl Round {
    /// Whether the guest's clock goes with the host's.
    fn is_by_real_time(self) -> bool {
        match self {
            Self::Free { .. } => true,
            // Beside others that run the clock is the machine's.
            Self::Stepped { time, others, .. } => {
                time == TimePolicy::Real || others == OthersPolicy::Run
            }
        }
    }

    /// Its conditions, as docs/stealth.md names them.
    fn conditions(self) -> Vec<String> {
        let mut conditions = self.own_conditions();
        conditions.extend(this_qemu());
        conditions
    }

    fn own_conditions(self) -> Vec<String> {
        match self {
            Self::Free { breakpoints, pauses } => {
                vec![
                    "run=free".into(),
                    format!("breakpoints={breakpoints}"),
                    format!("pauses={pauses}"),
                ]
            }
            Self::Stepped { irq, time, others } => {
                let time = if self.is_by_real_time() { TimePolicy::Real } else { time }.to_string();
                let others = others.to_string();
                let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
                vec![
                    "run=stepped".into(),
                    format!("irq={irq}"),
                    format!("time={}", name(&time)),
                    format!("others={}", name(&others)),
                ]
            }
        }
    }
}

/// Every way in which it can be debugged: running freely, and stepped under each policy with each
/// other one, in an order that is drawn from a seed: there may be no time for all.
#[must_use]
pub fn product(seed: u64) -> Vec<Round> {
    let flags = [(false, false), (true, false), (false, true), (true, true)];
    let mut rounds =
        flags.map(|(breakpoints, pauses)| Round::Free { breakpoints, pauses }).to_vec();
    let per_step = [3, 20, 200].map(|ns| TimePolicy::PerStep { ns });
    let others = [1_000, 10_000].map(|quantum| OthersPolicy::Step { quantum });
    for irq in [InterruptPolicy::Hold, InterruptPolicy::Into, InterruptPolicy::Over] {
        let mut add = |time, others| rounds.push(Round::Stepped { irq, time, others });
        let clocks = [TimePolicy::Stopped, TimePolicy::Real, TimePolicy::Natural { seed: 5 }];
        for time in clocks.into_iter().chain(per_step) {
            add(time, OthersPolicy::Stop);
            others.iter().for_each(|&others| add(time, others));
        }
        // Beside others that run no clock goes by the steps of one.
        add(TimePolicy::Stopped, OthersPolicy::Run);
        add(TimePolicy::Real, OthersPolicy::Run);
    }
    let mut chance = Chance::new(seed);
    rounds.sort_by_cached_key(|_| chance.next());
    rounds
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.own_conditions().join(", "))
    }
}

/// How a condition on the emulator begins.
const QEMU: &str = "qemu=";

/// The condition that holds on this QEMU, if it tells its version.
fn this_qemu() -> Option<String> {
    plain::qemu_version().map(|(major, _)| format!("{QEMU}{major}"))
}

/// Where tells are allowed, by name: alternatives of conditions.
pub struct Allowed(BTreeMap<String, Vec<Vec<String>>>);

impl Allowed {
    /// Reads the table of docs/stealth.md.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn of_documentation() -> Self {
        const PAGE: &str = include_str!("../../docs/stealth.md");
        let (_, section) = PAGE.split_once("## What the detector may find").expect("its section");
        let rows = section.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`').to_owned();
            let alternatives = cells.next()?.split(',').map(|alternative| {
                alternative
                    .split('+')
                    .map(|word| word.trim().trim_matches('`').to_owned())
                    .collect()
            });
            Some((name, alternatives.collect()))
        });
        Self(rows.collect())
    }

    fn allows(&self, tell: &str, round: Round) -> bool {
        let conditions = round.conditions();
        let holds = |word: &String| word == "always" || conditions.contains(word);
        self.0.get(tell).is_some_and(|alternatives| {
            alternatives.iter().any(|alternative| alternative.iter().all(holds))
        })
    }

    /// The names that are allowed somewhere on this QEMU.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let here = this_qemu();
        let may_hold = move |alternative: &Vec<String>| {
            let mut qemus = alternative.iter().filter(|word| word.starts_with(QEMU));
            qemus.all(|word| Some(word) == here.as_ref())
        };
        let rows =
            self.0.iter().filter(move |(_, alternatives)| alternatives.iter().any(&may_hold));
        rows.map(|(name, _)| name.as_str())
    }
}

/// What the guest said in a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    values: Vec<String>,
    tells: Vec<String>,
}

impl Said {
    fn of(console: &str) -> Self {
        let lines = || console.lines().map(str::trim);
        let values = lines().filter_map(|line| line.strip_prefix("value "));
        let values = values.filter(|line| !line.starts_with("round ")).map(str::to_owned);
        let tells = lines().filter_map(|line| line.strip_prefix("tell ")).map(str::to_owned);
        Self { values: values.collect(), tells: tells.collect() }
    }

    /// What differs from plain QEMU's, and what is told and not allowed.
    fn faults(&self, plain: &Self, allowed: &Allowed, round: Round) -> Vec<String> {
        let pairs = self.values.iter().zip(&plain.values);
        let differ = pairs
            .filter(|(seen, wanted)| seen != wanted && **seen != as_on_the_guests_board(wanted));
        let mut faults: Vec<_> =
            differ.map(|(seen, wanted)| format!("{seen}, and plain QEMU {wanted}")).collect();
        if self.values.len() != plain.values.len() {
            faults.push(format!("{} values of {}", self.values.len(), plain.values.len()));
        }
        let told = self.tells.iter().filter(|tell| !allowed.allows(tell, round));
        faults.extend(told.map(|tell| format!("tells {tell}")));
        faults
    }
}

/// A value of plain QEMU's as the guest's board has it, which is that of QEMU 7.2 without NMI: a newer one
/// tells of other interrupts in GICD_TYPER (docs/qemu.md).
fn as_on_the_guests_board(line: &str) -> String {
    const NAME: &str = "devices.gicd.typer 0x";
    const IT_LINES_NUMBER: u64 = 0x1f;
    const NMI: u64 = 1 << 9;
    let typer = line.strip_prefix(NAME).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let is_newer = plain::qemu_version().is_some_and(|version| version > (7, 2));
    match typer.filter(|_| is_newer) {
        Some(typer) => format!("{NAME}{:x}", typer & !IT_LINES_NUMBER & !NMI | 7),
        None => line.to_owned(),
    }
}

/// The guest's image, with the number of rounds written into it.
fn image(guest: &Guest, rounds: u64) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(&guest.path)?;
    let note = bytes.windows(NOTE.len()).position(|window| window == NOTE);
    let word = (note.context("the guest has no DETECTNOTE")? + NOTE.len()).next_multiple_of(8);
    bytes.get_mut(word..word + 8).context("it is cut")?.copy_from_slice(&rounds.to_le_bytes());
    Ok(bytes)
}

/// What plain QEMU says, before the first round and in it.
fn plain(guest: &Guest, cpu: &'static str) -> Result<[Said; 2]> {
    let setup = Setup { cpu, smp: SMP, memory_mib: MEMORY_MIB, ..Setup::new(&guest.path) };
    let console = plain::console(&setup, LIMIT)?;
    ensure!(guest.succeeded(&console.stdout), "plain QEMU: {}", console.output());
    let (reset, round) = console.stdout.split_once("value round").context("it has no round")?;
    let [reset, round] = [Said::of(reset), Said::of(round)];
    ensure!(round.tells.is_empty(), "on plain QEMU it finds {:?}", round.tells);
    Ok([reset, round])
}

/// What the guest found on a CPU.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What it should not have.
    pub faults: Vec<String>,
    /// Which tells there were.
    pub tells: Vec<String>,
    /// How many rounds were gone.
    pub rounds: usize,
}

/// Runs the guest on a CPU, round by round, of which none begins after `end`.
///
/// # Errors
/// When it does not come to its end.
pub fn detect(cpu: &'static str, rounds: &[Round], end: Option<Instant>) -> Result<Found> {
    let guest = Guest::named("detector");
    let begin = guest.counting_loop.clone().context("it has a place where rounds begin")?.start;
    let allowed = Allowed::of_documentation();
    let plain_cpu = if cpu == "max" { "max,pauth-impdef=on" } else { cpu };
    let [reset, wanted] = plain(&guest, plain_cpu)?;
    // One more than is let run at most, so that it does not end.
    let image = image(&guest, TRIES * rounds.len() as u64 + 1)?;
    let (machine, link) = launch(&image, cpu, SMP)?;
    let mut session = Session { link, _machine: machine, console: Vec::new(), begin };
    session.stop()?;
    session.link.set_breakpoint(0, Place::Va(Va(begin)))?;
    session.link.resume(0)?;
    session.come_to_round()?;
    let mut all = Found::default();
    let mut note = |said: &Said, found: Vec<String>, what: &str| {
        all.faults.extend(found.into_iter().map(|fault| format!("{cpu}, {what}: {fault}")));
        all.tells.extend(said.tells.iter().cloned());
    };
    let first = Round::Free { breakpoints: false, pauses: false };
    let said = session.said();
    note(&said, said.faults(&reset, &allowed, first), "at reset");
    let mut gone = 0;
    for &round in rounds {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        for tries_left in (0..TRIES).rev() {
            session.go_round(round).with_context(|| format!("{cpu}, {round}"))?;
            let said = session.said();
            let found = said.faults(&wanted, &allowed, round);
            if found.is_empty() || tries_left == 0 || !round.is_by_real_time() {
                note(&said, found, &round.to_string());
                break;
            }
        }
        gone += 1;
    }
    all.rounds = gone;
    Ok(all)
}

/// A machine with the guest in it.
struct Session {
    link: Link,
    _machine: QemuMachine,
    console: Vec<u8>,
    begin: u64,
}

impl Session {
    /// Why it stopped; nothing where the guest ended.
    fn stop(&mut self) -> Result<Option<StopReason>> {
        let end = Instant::now() + LIMIT;
        loop {
            match self.link.wait(end.saturating_duration_since(Instant::now()))? {
                Some(Event::Console { bytes, .. }) => self.console.extend(bytes),
                Some(Event::Stopped(stop)) => return Ok(Some(stop.reason)),
                Some(Event::Ended { ending: DomainEnding::PoweredOff, .. }) => return Ok(None),
                Some(other) => bail!("{other:?}"),
                None => bail!("nothing, after {}", String::from_utf8_lossy(&self.console)),
            }
        }
    }

    /// What the guest has said since the last call.
    fn said(&mut self) -> Said {
        Said::of(&String::from_utf8_lossy(&std::mem::take(&mut self.console)))
    }

    /// Waits for the next round's begin.
    fn come_to_round(&mut self) -> Result<()> {
        match self.stop()? {
            Some(StopReason::Breakpoint) => Ok(()),
            other => bail!("{other:?} in {}", String::from_utf8_lossy(&self.console)),
        }
    }

    fn go_round(&mut self, round: Round) -> Result<()> {
        match round {
            Round::Free { breakpoints, pauses } => self.run(breakpoints, pauses),
            Round::Stepped { irq, time, others } => {
                let link = &mut self.link;
                link.support_interrupts().context("policies")?.set_interrupt_policy(0, irq)?;
                link.support_time().context("clocks")?.set_time_policy(0, time)?;
                link.support_others().context("others")?.set_others_policy(0, others)?;
                link.step(V0, StepRequest::steps(STEPS_MAX))?;
                self.come_to_round()?;
                let time = self.link.support_time().context("clocks")?;
                Ok(time.set_time_policy(0, TimePolicy::Stopped)?)
            }
        }
    }

    fn run(&mut self, breakpoints: bool, pauses: bool) -> Result<()> {
        let places = || (0..BREAKPOINTS).map(|n| Place::Ipa(Ipa(self.begin + 8 + 4 * n)));
        let places: Vec<_> = if breakpoints { places().collect() } else { Vec::new() };
        for &place in &places {
            self.link.set_breakpoint(0, place)?;
        }
        self.link.resume(0)?;
        if pauses {
            self.pause_now_and_then()?;
        } else {
            self.come_to_round()?;
        }
        for &place in &places {
            self.link.clear_breakpoint(0, place)?;
        }
        Ok(())
    }

    /// Stops the guest some times, as long as it is within its round.
    fn pause_now_and_then(&mut self) -> Result<()> {
        for paused in 0..PAUSES {
            sleep(RUNS);
            self.link.pause(0)?;
            let reason = self.stop()?;
            if reason == Some(StopReason::Breakpoint) {
                ensure!(paused > 0, "the round is over before the first pause");
                return Ok(());
            }
            ensure!(reason == Some(StopReason::Paused), "{reason:?}");
            sleep(PAUSE);
            self.link.resume(0)?;
        }
        self.come_to_round()
    }
}
