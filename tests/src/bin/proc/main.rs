//! Asks Debian's kernels about themselves, on every CPU, and compares with their own `/proc`.
//!
//! Run by `cargo xtask proc`, which builds and fetches what it takes. The arguments are how often
//! each guest is stopped, the seed, and words of the table whose rows alone are wanted.

use std::process::ExitCode;

use stepwell_tests::proc::{CPUS, Case, KERNELS, compare};

const STOPS: u32 = 20;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mut number = |default: u64| words.next().and_then(|w| w.parse().ok()).unwrap_or(default);
    let (stops, seed) = (number(u64::from(STOPS)), number(1));
    let stops = u32::try_from(stops).unwrap_or(STOPS);
    let only: Vec<String> = words.collect();
    println!("| kernel | CPU | vCPUs | tasks | modules | mappings | symbols | stops amid all |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut all_equal = true;
    for (kernel, name) in KERNELS {
        for cpu in CPUS {
            for smp in [1, 4] {
                let row = [kernel, cpu, &smp.to_string()].map(str::to_owned);
                if !only.iter().all(|word| row.contains(word)) {
                    continue;
                }
                let cells = match compare(Case { kernel, cpu, smp, stops, seed }) {
                    Ok(all) => format!(
                        "{} | {} | {} | {} | {}",
                        all.tasks, all.modules, all.mappings, all.symbols, all.amid
                    ),
                    Err(error) => {
                        all_equal = false;
                        eprintln!("{name}, {cpu}, {smp}: {error:#}");
                        "**not equal** | | | |".to_owned()
                    }
                };
                println!("| {name} | {cpu} | {smp} | {cells} |");
            }
        }
    }
    if all_equal { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
