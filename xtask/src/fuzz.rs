//! `cargo xtask fuzz`: the fuzz targets, for as long as one likes.
//!
//! Built by the compiler that everything else is built by, with libFuzzer's coverage and with
//! overflow checks, and without the address sanitizer, which takes a nightly compiler: what is
//! fuzzed is safe Rust, and looked for are panics, hangs and memory without bounds.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{layout, process};

const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
/// For the input that is under way when the time is over.
const MORE: Duration = Duration::from_secs(60);

/// Where libFuzzer looks for which way a program takes (as `cargo fuzz` sets it).
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Fuzzes one of the targets of fuzz/fuzz_targets
///
/// What it learns stays in target/fuzz/corpus/NAME; an input that fails is written to
/// target/fuzz/failures, and named.
#[derive(clap::Args)]
pub struct Fuzz {
    /// The target
    name: String,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// Longest time for one input
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// Most memory
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u64,
}

impl Fuzz {
    /// Builds the target and runs it.
    ///
    /// # Errors
    /// When there is no such target, it does not build, or an input fails.
    pub fn run(self) -> Result<()> {
        let (fuzz, name) = (layout::root().join("fuzz"), &self.name);
        let source = fuzz.join("fuzz_targets").join(format!("{name}.rs"));
        ensure!(source.is_file(), "no target {name}: fuzz/fuzz_targets has those that there are");
        let folder = layout::target_dir().join("fuzz");
        let target = process::capture(process::host_cargo().args(["-vV"]))?;
        let target = String::from_utf8_lossy(&target.stdout).into_owned();
        let host = target.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let mut cargo = process::host_cargo();
        cargo.args(["build", "--release", "--bin", name, "--target", host, "--manifest-path"]);
        cargo.arg(fuzz.join("Cargo.toml")).arg("--target-dir").arg(&folder);
        cargo.env("RUSTFLAGS", COVERAGE.join(" "));
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
        cargo.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
        process::run(&mut cargo, BUILD_LIMIT)?;
        let (corpus, failures) = (folder.join("corpus").join(name), folder.join("failures"));
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&failures)?;
        let mut program = process::command(folder.join(host).join("release").join(name));
        program.arg(&corpus);
        let kept = fuzz.join("corpus").join(name);
        if kept.is_dir() {
            program.arg(kept);
        }
        program.arg(format!("-artifact_prefix={}/{name}-", failures.display()));
        program.arg(format!("-max_total_time={}", 60 * self.minutes));
        program.arg(format!("-timeout={}", self.timeout));
        program.arg(format!("-rss_limit_mb={}", self.memory));
        program.args(["-print_final_stats=1", "-max_len=65536"]);
        process::run(&mut program, Duration::from_secs(60 * self.minutes + self.timeout) + MORE)
    }
}
