//! The bare EL2 loop, run in QEMU without anything of Stepwell's.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Programs;
use super::stepped::CPU;
use crate::guest::Guest;
use crate::machine::ICOUNT;
use crate::process::run;

const LIMIT: Duration = Duration::from_secs(120);

/// What the bare loop said of itself.
#[derive(Clone, Copy, Debug)]
pub struct Bare {
    steps: u64,
    ticks: u64,
    ticks_per_second: u64,
}

impl Bare {
    /// Runs it with the counter going by the wall clock.
    ///
    /// # Errors
    /// When it cannot be run, or says nothing.
    pub fn timed(programs: &Programs) -> Result<Self> {
        Self::run(programs, &[])
    }

    /// Runs it with the counter going by instructions.
    ///
    /// # Errors
    /// As [`Bare::timed`].
    pub fn counted(programs: &Programs) -> Result<Self> {
        Self::run(programs, &ICOUNT)
    }

    /// Counter ticks for each step, the guest's own instruction included; when counted, those are instructions.
    #[must_use]
    pub fn ticks_per_step(&self) -> f64 {
        self.ticks as f64 / self.steps as f64
    }

    /// Steps for each second of the counter.
    #[must_use]
    pub fn steps_per_second(&self) -> f64 {
        self.ticks_per_second as f64 / self.ticks_per_step()
    }

    fn run(programs: &Programs, more: &[&str]) -> Result<Self> {
        let mut qemu = Command::new(&programs.qemu);
        qemu.args(["-machine", "virt,virtualization=on,gic-version=3", "-cpu", CPU, "-m", "64"])
            .args(["-nic", "none", "-display", "none", "-monitor", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(Guest::named("bare_loop").path)
            .args(more);
        let finished = run(&mut qemu, LIMIT)?;
        Self::parse(&finished.stdout)
            .with_context(|| format!("the bare loop: {}", finished.output()))
    }

    fn parse(console: &str) -> Result<Self> {
        let numbers = console.lines().filter_map(|line| {
            u64::from_str_radix(line.trim().strip_prefix("0x")?, 16).ok().filter(|n| *n > 0)
        });
        match numbers.collect::<Vec<_>>()[..] {
            [steps, ticks, ticks_per_second] => Ok(Self { steps, ticks, ticks_per_second }),
            _ => bail!("it did not tell steps, ticks and frequency"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read() {
        let bare = Bare::parse("bare_loop: …\r\n0x64\r\n0x5dc\r\n0x3e8\r\n").unwrap();
        assert_eq!(bare.ticks_per_step(), 15.0);
        assert!((bare.steps_per_second() - 66.67).abs() < 0.01);
        assert!(Bare::parse("bare_loop: FAIL unexpected exception\r\n").is_err());
    }
}
