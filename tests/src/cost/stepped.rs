//! The same loop and its relatives, as a guest that Stepwell steps.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use stepwell::machine::{self, MachineOptions, Memory, QemuMachine};
use stepwell_arch::Va;
use stepwell_debuggee::{
    Debuggee, Event, InterruptPolicy, StepRequest, Stop, StopReason, TimePolicy, TraceRecord,
    VcpuId,
};
use stepwell_link::Link;
use stepwell_trace::kernel_image::RawPolicy;

use super::Programs;
use crate::guest::Guest;
use crate::machine::counting_qemu;

/// Title of the kind of step that most are.
pub const PLAIN_STEP: &str = "a plain step";
/// Title of the pair that EL2 carries out.
pub const EXCLUSIVE_PAIR: &str = "a load- and store-exclusive pair";
/// The guest's CPU, on both sides.
pub const CPU: &str = "cortex-a57";

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
const PAGE: u64 = 4096;
/// X9: turns that are left. X10 and X11: the clock before and after.
const TURNS: usize = 9;
const CLOCK: [usize; 2] = [10, 11];
/// The steps around a loop's turns: two reads of the clock, and a few in the loop at the end.
const AROUND: u64 = 8;
/// Turns of the run that warms up, and of the two whose difference is counted.
const TURNS_COUNTED: [u64; 3] = [10, 50, 250];
/// Each is run so often, and the least counts.
const REPEATED: usize = 9;
/// Steps of the two runs whose difference is timed, before calibration.
const STEPS_FIRST: u64 = 50_000;
/// What a timed run should take: more than a scheduler's whims, less than one's patience.
const TIMED_SECONDS: f64 = 1.5;
const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(120);

/// A loop of `step_loop`.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// What of it is told.
    pub title: &'static str,
    /// Its page, counted from the first loop.
    page: u64,
    /// Steps of a turn that are what the loop is about.
    own_steps: u64,
    /// Steps of a turn that are plain and only make the loop.
    pub plain_steps: u64,
    /// Interrupts are delivered. Entering one is a step in which the guest executes nothing.
    interrupts: u64,
}

impl Loop {
    /// The loop that `bare_loop` has, too.
    pub const BASIC: Self = Self::new(PLAIN_STEP, 0, 0, 8);
    /// A run of plain instructions, likewise with one taken branch.
    pub const RUN: Self = Self::new(PLAIN_STEP, 1, 0, 128);
    /// Loops about something else.
    pub const OTHERS: [Self; 8] = [
        Self::new("an MMIO read (UART)", 2, 1, 18),
        Self::new(EXCLUSIVE_PAIR, 3, 2, 18),
        Self::new("an SVC and its ERET", 4, 2, 18),
        Self::new("an identification register read", 5, 1, 18),
        Self::new("a call and return across pages", 6, 2, 18),
        Self::new("a hypervisor call (HVC)", 7, 1, 19),
        Self::new("an ISB", 8, 1, 18),
        // Unmasking it, its entry, the branch from its vector, and its ERET.
        Self { interrupts: 1, ..Self::new("an interrupt and its ERET", 9, 4, 21) },
    ];

    const fn new(title: &'static str, page: u64, own_steps: u64, plain_steps: u64) -> Self {
        Self { title, page, own_steps, plain_steps, interrupts: 0 }
    }

    /// Steps of a turn.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.own_steps + self.plain_steps
    }
}

/// A machine with the guest in it, stopped at its first loop.
pub struct Stepped {
    link: Link,
    _machine: QemuMachine,
    _wrapper: Option<TempDir>,
    loop_start: u64,
    records: Vec<TraceRecord>,
}

impl Stepped {
    /// One whose clock is the host's.
    ///
    /// # Errors
    /// When there is no machine, or it does not do as it should.
    pub fn timed(programs: &Programs) -> Result<Self> {
        Self::launch(programs, &programs.qemu, None)
    }

    /// One whose clock counts instructions.
    ///
    /// # Errors
    /// When there is no machine, or it does not do as it should.
    pub fn counted(programs: &Programs) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let wrapper = counting_qemu(&programs.qemu, folder.path()).context("writing a script")?;
        let mut stepped = Self::launch(programs, &wrapper, Some(folder))?;
        let time = stepped.link.support_time().context("this hypervisor has no clock policies")?;
        time.set_time_policy(0, TimePolicy::Real)?;
        Ok(stepped)
    }

    fn launch(programs: &Programs, qemu: &Path, wrapper: Option<TempDir>) -> Result<Self> {
        let guest = Guest::named("step_loop");
        let options = MachineOptions {
            memory: Memory { bytes: 64 << 20 },
            cpu: CPU.to_owned(),
            hypervisor: programs.hypervisor.clone(),
            qemu: qemu.to_owned(),
            ..MachineOptions::default()
        };
        let files = machine::Guest::read(&guest.path, RawPolicy::Refuse)?;
        let (machine, link) = QemuMachine::launch(&options, &files)?;
        let loop_start = guest.counting_loop.context("the guest names no loop")?.start;
        let mut stepped =
            Self { link, _machine: machine, _wrapper: wrapper, loop_start, records: Vec::new() };
        stepped.wait()?;
        stepped.deliver_interrupts(false)?;
        let until = Some(Va(loop_start));
        let stop = stepped.step(StepRequest { until, ..StepRequest::steps(100_000) })?;
        if stop.reason != StopReason::Until {
            bail!("the guest never came to its loop: {} at {:#x}", stop.reason, stop.pc);
        }
        Ok(stepped)
    }

    fn deliver_interrupts(&mut self, deliver: bool) -> Result<()> {
        let interrupts = self.link.support_interrupts().context("no interrupt policies")?;
        let policy = if deliver { InterruptPolicy::Into } else { InterruptPolicy::Hold };
        Ok(interrupts.set_interrupt_policy(0, policy)?)
    }

    /// Instructions of EL2 for one turn of a loop.
    ///
    /// The difference of two runs, so that what comes before and after the turns is not counted.
    /// The clock policy is the real one: the guest has to read the machine's counter.
    ///
    /// # Errors
    /// When the machine is lost, or the guest does something else than the loop.
    pub fn el2_per_turn(&mut self, of: &Loop, record: bool) -> Result<f64> {
        self.deliver_interrupts(of.interrupts > 0)?;
        let mut ticks = [0; 3];
        for (ticks, turns) in ticks.iter_mut().zip(TURNS_COUNTED) {
            // What the host has come between, such as a look into the mailbox, only adds.
            *ticks = u64::MAX;
            for _ in 0..REPEATED {
                self.begin(of, turns)?;
                self.run(turns * of.steps() + AROUND, record)?;
                let x = self.link.read_registers(V0)?.x;
                if x[TURNS] != 0 {
                    bail!("{}: {} turns are left after {turns}", of.title, x[TURNS]);
                }
                *ticks = x[CLOCK[1]].wrapping_sub(x[CLOCK[0]]).min(*ticks);
            }
        }
        self.deliver_interrupts(false)?;
        let turns = TURNS_COUNTED[2] - TURNS_COUNTED[1];
        let all = (ticks[2].wrapping_sub(ticks[1]) as i64) as f64 / turns as f64;
        Ok(all - (of.steps() - of.interrupts) as f64)
    }

    /// Finds out how many steps are worth timing.
    ///
    /// # Errors
    /// When there is no machine, or it does not do as it should.
    pub fn calibrate(&mut self, record: bool) -> Result<u64> {
        let rate = self.steps_per_second(STEPS_FIRST, record)?;
        Ok((rate * TIMED_SECONDS) as u64)
    }

    /// Steps for each second of wall-clock time, from the difference of a short run and a long
    /// one, so that the command's way to the hypervisor and back is not counted.
    ///
    /// # Errors
    /// As [`Stepped::timed`].
    pub fn steps_per_second(&mut self, steps: u64, record: bool) -> Result<f64> {
        self.begin(&Loop::BASIC, u64::MAX)?;
        let short = (steps / 10).max(1);
        let mut taken = [0.0; 2];
        for (taken, steps) in taken.iter_mut().zip([short, short + steps]) {
            let started = Instant::now();
            self.run(steps, record)?;
            *taken = started.elapsed().as_secs_f64();
        }
        Ok(steps as f64 / (taken[1] - taken[0]).max(1e-6))
    }

    /// Sets the guest up for a loop.
    fn begin(&mut self, of: &Loop, turns: u64) -> Result<()> {
        let mut registers = self.link.read_registers(V0)?;
        registers.pc = self.loop_start + of.page * PAGE;
        registers.x[TURNS] = turns;
        Ok(self.link.write_registers(V0, &registers)?)
    }

    /// Steps, in as many commands as the trace ring makes of it.
    fn run(&mut self, steps: u64, record: bool) -> Result<()> {
        let mut left = steps;
        while left > 0 {
            let stop = self.step(StepRequest { record, ..StepRequest::steps(left) })?;
            left = left.saturating_sub(stop.steps);
            match stop.reason {
                StopReason::Stepped => break,
                StopReason::RingFull => {}
                reason => bail!("the guest stopped at {:#x}: {reason}", stop.pc),
            }
        }
        Ok(())
    }

    fn step(&mut self, request: StepRequest) -> Result<Stop> {
        self.link.step(V0, request)?;
        let stop = self.wait()?;
        // They were read, which is what takes time; nobody wants to see them.
        self.records.clear();
        Ok(stop)
    }

    fn wait(&mut self) -> Result<Stop> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let event = self.link.wait(POLL)?;
            if let Some(trace) = self.link.support_trace() {
                trace.drain(&mut self.records)?;
            }
            match event {
                Some(Event::Stopped(stop)) => return Ok(stop),
                Some(Event::Ended { ending, .. }) => bail!("the guest ended: {ending:?}"),
                Some(Event::Console { .. }) | None => {}
            }
        }
        bail!("no stop within {} s", PATIENCE.as_secs())
    }
}
