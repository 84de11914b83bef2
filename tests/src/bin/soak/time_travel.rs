//! Positions of a Debian boot on four vCPUs, come to in every way: `cargo xtask soak --time-travel N`.
//!
//! One machine after the other, each for its own positions: a thousand, in clusters all over the boot.

use std::process::ExitCode;
use std::time::Instant;

use stepwell_tests::debian::debian;
use stepwell_tests::machine::launch_counted_setup;
use stepwell_tests::positions::{KEPT_MAX, Random, Tally, straight, walk};

const VCPUS: u8 = 4;
const TURN: u32 = 50_000;
/// Up to its shell.
const END: u64 = 940_000_000;
/// Places of the boot that one machine goes to and fro between. A moment is kept at each, beside that at
/// the beginning.
const CLUSTERS: usize = KEPT_MAX - 10;
/// Known states at each, within so many instructions.
const KNOWN: usize = 34;
const WIDTH: u64 = 100_000;
/// Ways from one machine's start to its end: about as many as it has known states.
const AT_ONCE: u64 = 1_000;

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
    let begun = Instant::now();
    let (mut all, mut positions) = (Tally::default(), 0);
    while all.count() < count {
        let ways = AT_ONCE.min(count - all.count());
        let seed = seed + all.count();
        let clusters = CLUSTERS.min(ways.div_ceil(KNOWN as u64) as usize);
        let clusters = Random::new(seed).clusters(clusters, KNOWN, WIDTH, END);
        let mut first: Vec<u64> = clusters.iter().map(|cluster| cluster[0] - 1).collect();
        first.sort_unstable();
        let mut wanted: Vec<u64> = clusters.into_iter().flatten().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let (machine, mut link) = launch_counted_setup(&setup, TURN)?;
        let known = straight(&mut link, &wanted)?;
        drop((machine, link));
        positions += known.len();
        println!("seed {seed}: {} states are known after {:.0?}", known.len(), begun.elapsed());
        let (_machine, mut link) = launch_counted_setup(&setup, TURN)?;
        all += walk(&mut link, &known, &first, ways, seed)?;
        let done = all.count();
        println!("{done} of {count} ({positions} positions) after {:.0?}: {all}", begun.elapsed());
    }
    Ok(all)
}
