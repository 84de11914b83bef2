//! Positions of a Debian boot on four vCPUs, come to in every way: `cargo xtask soak --time-travel N`.
//!
//! One machine after the other, each for its own positions: a thousand, in clusters all over the boot.
//!
//! With `--programs P`: of random programs, which have more exceptions, devices and registers that trap
//! in a thousand instructions than Linux has in a million.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use stepwell_tests::debian::debian;
use stepwell_tests::machine::{launch_counted, launch_counted_setup};
use stepwell_tests::positions::{KEPT_MAX, Random, Tally, straight, walk};
use stepwell_tests::random::case::Case;

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

/// A program's positions. Each executes more.
const PROGRAM_END: u64 = 25_000;
const PROGRAM_KNOWN: usize = 200;
/// Short turns, which end within whatever there is.
const PROGRAM_TURN: u32 = 300;

/// Comes to positions of programs, of each as often, `count` times.
pub fn in_programs(cases: Vec<Case>, count: u64) -> ExitCode {
    let each = count.div_ceil(cases.len().max(1) as u64);
    let mut all = Tally::default();
    for case in cases {
        match in_program(&case, each) {
            Ok(tally) => {
                println!("program {} on {}: {tally}", case.seed, case.cpu);
                all += tally;
            }
            Err(error) => {
                eprintln!("soak: program {} on {}: {error:#}", case.seed, case.cpu);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} states, each as it was: {all}", all.count());
    ExitCode::SUCCESS
}

fn in_program(case: &Case, count: u64) -> anyhow::Result<Tally> {
    println!("program {} on {}", case.seed, case.cpu);
    let file = tempfile::NamedTempFile::new()?;
    case.write(file.path()).map_err(|failure| anyhow::anyhow!(failure.text))?;
    let code = fs::read(file.path())?;
    let positions = Random::new(case.seed + 1).positions(PROGRAM_KNOWN, PROGRAM_END);
    let (machine, mut link) = launch_counted(&code, case.cpu, 1, PROGRAM_TURN)?;
    let known = straight(&mut link, &positions)?;
    drop((machine, link));
    let (_machine, mut link) = launch_counted(&code, case.cpu, 1, PROGRAM_TURN)?;
    Ok(walk(&mut link, &known, &[], count, case.seed + 1)?)
}

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
