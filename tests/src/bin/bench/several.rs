//! Several vCPUs: how fast they are stepped beside each other, and how soon they stop.
//!
//! All of them execute the loop that the bare EL2 steps. A rate is of all steps that were taken:
//! with the others stopped or running, those of the one vCPU that is stepped.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use stepwell::machine::{self, MachineOptions, Memory, QemuMachine};
use stepwell_debuggee::{Debuggee, Event, OthersPolicy, StepRequest, Stop, VcpuId, VcpuState};
use stepwell_link::Link;
use stepwell_tests::cost::bare::Bare;
use stepwell_tests::cost::{Programs, stepped};
use stepwell_tests::guest::Guest;
use stepwell_trace::kernel_image::RawPolicy;

use crate::table::Table;

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
const VCPUS: [u8; 4] = [1, 2, 4, 8];
const MODES: [(&str, OthersPolicy); 3] =
    [("stop", OthersPolicy::Stop), ("run", OthersPolicy::Run), ("step", OthersPolicy::STEP)];
/// Steps before all vCPUs are in their loops.
const UNTIL_ALL_ARE_ON: u64 = 20_000;
const STEPS: u64 = 500_000;
/// Stops whose times are taken.
const PAUSES: usize = 200;
/// How long a guest runs between two.
const RUN_TIME: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints rates for each number of vCPUs and each mode, and how long a stop takes.
///
/// # Errors
/// When a machine does not start or does not do as it should.
pub fn measure(programs: &Programs) -> Result<()> {
    let bare = Bare::timed(programs)?.steps_per_second();
    println!("The bare loop, in the same run: {bare:.0} steps/s. Of all vCPUs that step:");
    let mut rates = Table::new(["vCPUs, --others", "steps/s", "ratio"]);
    let mut pauses = Table::new(["from a pause to all stopped, as bare steps", "p50", "p99"]);
    for vcpus in VCPUS {
        let mut crowd = Crowd::start(programs, vcpus)?;
        for (name, policy) in MODES {
            let rate = crowd.steps_per_second(policy)?;
            rates.row(format!("{vcpus}, {name}"), [Some(rate.round()), Some(rate / bare)]);
        }
        let [p50, p99] = crowd.pauses()?.map(|time| Some((time.as_secs_f64() * bare).round()));
        pauses.row(format!("{vcpus}"), [p50, p99]);
    }
    println!("{rates}\n{pauses}");
    Ok(())
}

struct Crowd {
    link: Link,
    _machine: QemuMachine,
}

impl Crowd {
    fn start(programs: &Programs, vcpus: u8) -> Result<Self> {
        let options = MachineOptions {
            smp: vcpus,
            memory: Memory { bytes: 64 << 20 },
            cpu: stepped::CPU.to_owned(),
            hypervisor: programs.hypervisor.clone(),
            qemu: programs.qemu.clone(),
            ..MachineOptions::default()
        };
        let files = machine::Guest::read(&Guest::named("crowd").path, RawPolicy::Refuse)?;
        let (machine, link) = QemuMachine::launch(&options, &files)?;
        let mut crowd = Self { link, _machine: machine };
        crowd.wait()?;
        crowd.link.step(V0, StepRequest::steps(UNTIL_ALL_ARE_ON))?;
        crowd.wait()?;
        let on = |state| state != VcpuState::Off;
        let status = crowd.link.status(0)?;
        if status.len() != usize::from(vcpus) || !status.iter().all(|vcpu| on(vcpu.state)) {
            bail!("not all of {vcpus} vCPUs are on: {status:?}");
        }
        Ok(crowd)
    }

    /// From the difference of a short command and a long one, so that the way to the hypervisor
    /// and back is not counted.
    fn steps_per_second(&mut self, policy: OthersPolicy) -> Result<f64> {
        let others = self.link.support_others().context("one vCPU at a time")?;
        others.set_others_policy(0, policy)?;
        let mut taken = [0.0; 2];
        for (taken, count) in taken.iter_mut().zip([STEPS / 10, STEPS / 10 + STEPS]) {
            let all = policy == OthersPolicy::STEP;
            let started = Instant::now();
            self.link.step(V0, StepRequest { all, ..StepRequest::steps(count) })?;
            self.wait()?;
            *taken = started.elapsed().as_secs_f64();
        }
        Ok(STEPS as f64 / (taken[1] - taken[0]).max(1e-6))
    }

    /// The median and the 99th of a hundred of the times from a request until all vCPUs are
    /// stopped.
    fn pauses(&mut self) -> Result<[Duration; 2]> {
        let mut times = Vec::new();
        for _ in 0..PAUSES {
            self.link.resume(0)?;
            std::thread::sleep(RUN_TIME);
            let started = Instant::now();
            self.link.pause(0)?;
            self.wait()?;
            times.push(started.elapsed());
        }
        times.sort();
        Ok([times[PAUSES / 2], times[PAUSES * 99 / 100]])
    }

    fn wait(&mut self) -> Result<Stop> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.link.wait(end.saturating_duration_since(Instant::now()))? {
                Some(Event::Stopped(stop)) => return Ok(stop),
                Some(Event::Ended { ending, .. }) => bail!("the guest ended: {ending:?}"),
                Some(Event::Console { .. }) => {}
                None => bail!("no stop within {} s", PATIENCE.as_secs()),
            }
        }
    }
}
