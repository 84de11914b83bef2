//! Runs a guest that prints what it sees in each way of debugging it, and compares what it printed with
//! what it prints on plain QEMU.
//!
//! Such a guest decides nothing: whatever plain QEMU does is right, and what departs from that for a
//! reason the test names.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stepwell_arch::Ipa;
use stepwell_debuggee::{
    Debuggee, DomainEnding, Event, InterruptPolicy, Place, StepRequest, TimePolicy, VcpuId,
};
use stepwell_link::Link;

use crate::guest::Guest;
use crate::machine::launch;
use crate::plain::{self, Setup};

const LIMIT: Duration = Duration::from_secs(300);
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
/// The debugger's breakpoints, where it has some.
const BREAKPOINTS: usize = 50;

/// How a guest is debugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It runs freely.
    Free,
    /// It does so with hidden breakpoints in the guest's loop, where it never comes.
    Breakpoints,
    /// It is stepped from its first instruction to its last.
    Stepped(InterruptPolicy, TimePolicy),
}

/// Freely, with breakpoints, and stepped under clocks and policies that differ most.
pub const EVERY: [Way; 5] = [
    Way::Free,
    Way::Breakpoints,
    Way::Stepped(InterruptPolicy::Hold, TimePolicy::Stopped),
    Way::Stepped(InterruptPolicy::Over, TimePolicy::Stopped),
    Way::Stepped(InterruptPolicy::Into, TimePolicy::PerStep { ns: 20 }),
];

/// What a guest prints on plain QEMU, with the CPU that a guest of Stepwell has.
///
/// # Errors
/// When it does not come to its end.
pub fn on_plain(guest: &Guest, cpu: &'static str, smp: u8) -> Result<String> {
    let cpu = if cpu == "max" { "max,pauth-impdef=on" } else { cpu };
    let setup = Setup { cpu, smp, memory_mib: 64, ..Setup::new(&guest.path) };
    let finished = plain::console(&setup, LIMIT)?;
    ensure!(guest.succeeded(&finished.stdout), "plain QEMU, {cpu}: {}", finished.output());
    Ok(finished.stdout)
}

/// What it prints where it is debugged.
///
/// # Errors
/// When it does not come to its end.
pub fn debugged(guest: &Guest, cpu: &str, smp: u8, way: Way) -> Result<String> {
    let (_machine, mut link) = launch(&std::fs::read(&guest.path)?, cpu, smp)?;
    let mut console = Vec::new();
    listen(&mut link, &mut console)?;
    match way {
        Way::Free => link.resume(0)?,
        Way::Breakpoints => {
            let places = guest.counting_loop.clone().context("the guest has no loop")?;
            for address in places.step_by(4).take(BREAKPOINTS) {
                // None of them takes a register that the guest may want.
                link.set_breakpoint(0, Place::Ipa(Ipa(address)))?;
            }
            link.resume(0)?;
        }
        Way::Stepped(irq, time) => {
            link.support_interrupts().context("policies")?.set_interrupt_policy(0, irq)?;
            link.support_time().context("clocks")?.set_time_policy(0, time)?;
            link.step(V0, StepRequest::steps(u64::MAX))?;
        }
    }
    listen(&mut link, &mut console)?;
    let console = String::from_utf8_lossy(&console).into_owned();
    ensure!(guest.succeeded(&console), "{way:?}, {cpu}: {console}");
    Ok(console)
}

/// Takes what is printed until the guest stops or ends.
fn listen(link: &mut Link, console: &mut Vec<u8>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        match link.wait(end.saturating_duration_since(Instant::now()))? {
            Some(Event::Console { bytes, .. }) => console.extend(bytes),
            Some(Event::Stopped(_) | Event::Ended { ending: DomainEnding::PoweredOff, .. }) => {
                return Ok(());
            }
            other => anyhow::bail!("{other:?} after {}", String::from_utf8_lossy(console)),
        }
    }
}

/// The lines that differ, each with what it is on plain QEMU.
#[must_use]
pub fn differences(plain: &str, seen: &str) -> Vec<String> {
    let (plain_count, seen_count) = (plain.lines().count(), seen.lines().count());
    let pairs = plain.lines().zip(seen.lines()).filter(|(plain, seen)| plain != seen);
    let mut found: Vec<_> =
        pairs.map(|(plain, seen)| format!("{seen}\n  and on plain QEMU {plain}")).collect();
    if plain_count != seen_count {
        found.push(format!("{seen_count} lines, and on plain QEMU {plain_count}"));
    }
    found
}
