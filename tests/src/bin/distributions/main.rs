//! Boots distributions from their disks, on every CPU, and has them do what they are there for.
//!
//! Run by `cargo xtask distributions`, which builds and fetches what it takes. The arguments are words
//! of the table whose rows alone are wanted.

use std::process::ExitCode;
use std::time::Instant;

use stepwell_tests::distribution::Distribution;

/// What is done with a guest.
type Way = fn(Distribution) -> anyhow::Result<()>;

/// Each, and its word.
const WAYS: [(&str, Way); 2] =
    [("used", Distribution::comes_through), ("stepped", Distribution::is_as_unstepped)];

fn main() -> ExitCode {
    let mut only: Vec<String> = std::env::args().skip(1).collect();
    let only_way = WAYS.iter().find_map(|&(way, _)| {
        let at = only.iter().position(|word| word == way)?;
        Some(only.swap_remove(at))
    });
    println!("| distribution | CPU | vCPUs | way | outcome | s |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut all_came = true;
    for name in ["debian12", "debian13"] {
        for cpu in ["cortex-a57", "max"] {
            for smp in [1, 4] {
                let row = [name, cpu, &smp.to_string()].map(str::to_owned);
                if !only.iter().all(|word| row.contains(word)) {
                    continue;
                }
                let guest = Distribution { name, cpu, smp };
                for (way, run) in WAYS {
                    if only_way.as_deref().is_some_and(|only| only != way) {
                        continue;
                    }
                    let started = Instant::now();
                    let outcome = match run(guest) {
                        Ok(()) => "as it should be",
                        Err(error) => {
                            all_came = false;
                            eprintln!("{name}, {cpu}, {smp}, {way}: {error:#}");
                            "**not so**"
                        }
                    };
                    let seconds = started.elapsed().as_secs();
                    println!("| {name} | {cpu} | {smp} | {way} | {outcome} | {seconds} |");
                }
            }
        }
    }
    if all_came { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
