//! Positions of a Debian boot on four vCPUs, come to in every way: `cargo xtask soak --time-travel N`.

use std::process::ExitCode;
use std::time::Instant;

use stepwell_tests::debian::debian;
use stepwell_tests::machine::launch_counted_setup;
use stepwell_tests::positions::{Random, Tally, straight, walk};

const VCPUS: u8 = 4;
const TURN: u32 = 50_000;
/// Up to its shell.
const END: u64 = 940_000_000;
/// Known states.
const KNOWN: usize = 400;
/// Ways from one machine's start to its end.
const AT_ONCE: u64 = 500;

/// Comes to positions `count` times.
pub fn run(cpu: &'static str, count: u64, seed: u64) -> ExitCode {
    match walks(cpu, count, seed) {
        Ok(tally) => {
            println!("{cpu}: {count} states, each as it was: {tally}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {cpu}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn walks(cpu: &'static str, count: u64, seed: u64) -> anyhow::Result<Tally> {
    let setup = debian(cpu, VCPUS);
    let positions = Random::new(seed).positions(KNOWN, END);
    let begun = Instant::now();
    let (_machine, mut link) = launch_counted_setup(&setup, TURN)?;
    let known = straight(&mut link, &positions)?;
    println!("{cpu}: {} states are known after {:.0?}", known.len(), begun.elapsed());
    drop((_machine, link));
    let mut all = Tally::default();
    while all.count() < count {
        let (_machine, mut link) = launch_counted_setup(&setup, TURN)?;
        let ways = AT_ONCE.min(count - all.count());
        all += walk(&mut link, &known, ways, seed + all.count())?;
        println!("{} of {count} after {:.0?}: {all}", all.count(), begun.elapsed());
    }
    Ok(all)
}
