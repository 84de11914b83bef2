//! `cargo xtask coverage`: the lines that host tests execute of the crates that run on a guest's say-so.
//!
//! Done with the compiler's own instrumentation and LLVM's two tools, which packages bring, rather
//! than with cargo-llvm-cov, which has to be compiled: so it can be part of `cargo xtask test` on a
//! bare machine. Only the workspace's crates are compiled for it, their dependencies come from the
//! tests' own build. It counts what `cargo llvm-cov` counts: all lines of `src/` that became code, those
//! of a file's own unit tests too, but no file named `tests.rs`.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{apt, layout, metadata, process};

/// The crates that are measured, and how many of a hundred of their lines must be executed.
const PACKAGES: [(&str, usize); 3] =
    [("stepwell-arch", 100), ("stepwell-engine", 100), ("stepwell-vm", 90)];

const TEST_LIMIT: Duration = Duration::from_secs(5 * 60);
const RUSTUP_LIMIT: Duration = Duration::from_secs(3 * 60);

/// Measures line coverage of Arm's facts and of the step engine (100 %), and of the guest's machine
/// with its vCPU loop (90 %)
#[derive(clap::Args)]
pub struct Coverage {
    /// Prints each line that no test executes, also where enough are
    #[arg(long)]
    lines: bool,
}

impl Coverage {
    /// Measures, and prints the lines that no test executes where these are too many.
    ///
    /// # Errors
    /// When they are, a test fails, or LLVM's tools cannot be found.
    pub fn run(self) -> Result<()> {
        match Tools::find() {
            Some(tools) => measure(&tools, self.lines),
            None => bail!("{}", how_to_install()),
        }
    }
}

/// As [`Coverage::run`], but leaves the measurement out where there are no tools, and says so;
/// `may_install` lets it try to install them before.
///
/// # Errors
/// When a line is not covered or a test fails.
pub fn measure_if_possible(may_install: bool) -> Result<()> {
    let mut tools = Tools::find();
    if tools.is_none() && may_install {
        install();
        tools = Tools::find();
    }
    match tools {
        Some(tools) => measure(&tools, false),
        None => {
            println!("left out: {}", how_to_install());
            Ok(())
        }
    }
}

/// LLVM's tools, of the version that the compiler's instrumentation is of.
struct Tools {
    cov: PathBuf,
    profdata: PathBuf,
}

impl Tools {
    /// Looks at `$LLVM_COV` and `$LLVM_PROFDATA` (as cargo-llvm-cov does), then into the
    /// toolchain (rustup's component), then for Debian's names.
    fn find() -> Option<Self> {
        if let (Some(cov), Some(profdata)) = (env::var_os("LLVM_COV"), env::var_os("LLVM_PROFDATA"))
        {
            return Some(Self { cov: cov.into(), profdata: profdata.into() });
        }
        let libdir = process::answer(process::host_rustc().args(["--print", "target-libdir"]))?;
        let own = Path::new(&libdir).with_file_name("bin");
        if own.join("llvm-cov").is_file() && own.join("llvm-profdata").is_file() {
            return Some(Self { cov: own.join("llvm-cov"), profdata: own.join("llvm-profdata") });
        }
        let version = llvm_version()?;
        let (cov, profdata) = (format!("llvm-cov-{version}"), format!("llvm-profdata-{version}"));
        let both = process::is_installed(&cov) && process::is_installed(&profdata);
        both.then(|| Self { cov: cov.into(), profdata: profdata.into() })
    }
}

/// LLVM's major version in the compiler: the format of profiles changes with it.
fn llvm_version() -> Option<String> {
    let about = process::answer(process::host_rustc().arg("-vV"))?;
    let version = about.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next().map(str::to_owned)
}

fn how_to_install() -> String {
    let version = llvm_version().unwrap_or_else(|| "NN".to_owned());
    format!(
        "line coverage takes llvm-cov and llvm-profdata of LLVM {version}, the compiler's own. \
         Any of these provides them:\n  rustup:  rustup component add llvm-tools\n  \
         Debian:  apt-get install llvm-{version}   (as root)\n  \
         elsewhere: name them in LLVM_COV and LLVM_PROFDATA"
    )
}

/// Tries the ways of [`how_to_install`]; whether one worked is for [`Tools::find`] to say.
fn install() {
    println!("Missing: llvm-cov and llvm-profdata (measure line coverage)");
    if process::is_installed("rustup") {
        let mut rustup = process::command("rustup");
        rustup.args(["component", "add", "llvm-tools"]);
        match process::show_and_run(&mut rustup, RUSTUP_LIMIT) {
            Ok(()) if Tools::find().is_some() => return,
            Ok(()) => println!("rustup has added them to a compiler that is not the one in use."),
            Err(error) => println!("{error:#}"),
        }
    }
    let package = llvm_version().map(|version| format!("llvm-{version}"));
    if let Some(Err(error)) = package.map(|package| apt::install(&[&package])) {
        println!("{error:#}");
    }
}

fn measure(tools: &Tools, lines: bool) -> Result<()> {
    let folder = layout::target_dir().join("coverage");
    let profiles = folder.join("profiles");
    if profiles.exists() {
        fs::remove_dir_all(&profiles).context("removing the profiles of the last run")?;
    }
    fs::create_dir_all(&profiles).context("making the folder for profiles")?;
    let programs = instrumented_tests(&folder)?;
    for program in &programs {
        let mut test = process::command(program);
        test.arg("--quiet").env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
        process::run(&mut test, TEST_LIMIT)?;
    }
    let merged = folder.join("merged.profdata");
    let mut merge = process::command(&tools.profdata);
    merge.args(["merge", "--sparse", "-o"]).arg(&merged).arg(&profiles);
    process::run(&mut merge, TEST_LIMIT)?;
    report(&covered_lines(tools, &merged, &programs)?, lines)
}

/// Builds the tests with the workspace's own crates instrumented, and tells where they are.
///
/// Cargo runs the workspace's crates alone through a wrapper, and keeps what comes out of it apart.
fn instrumented_tests(folder: &Path) -> Result<Vec<PathBuf>> {
    let wrapper = folder.join("rustc");
    fs::write(&wrapper, "#!/bin/sh\nexec \"$@\" -Cinstrument-coverage\n")
        .context("writing the compiler's wrapper")?;
    process::run(process::command("chmod").arg("+x").arg(&wrapper), TEST_LIMIT)?;
    let mut cargo = process::host_cargo();
    cargo.env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
    // A compiler cache in front of it would take the wrapper for the compiler.
    cargo.env("RUSTC_WRAPPER", "");
    // Build scripts that were instrumented write their profiles here, not into the source.
    cargo.env("LLVM_PROFILE_FILE", folder.join("build-%p.profraw"));
    cargo.args(["test", "--no-run", "--message-format", "json-render-diagnostics", "--quiet"]);
    for (package, _) in PACKAGES {
        cargo.args(["--package", package]);
    }
    let line = process::shown(&cargo);
    let output = cargo.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("`{line}` cannot be started"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<PathBuf> = messages
        .lines()
        .filter_map(|message| serde_json::from_str::<Value>(message).ok())
        .map(|message| metadata::text(&message, "executable").to_owned())
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if programs.is_empty() {
        bail!("`{line}` has built no test");
    }
    Ok(programs)
}

/// How often each line was executed, by file.
type Lines = BTreeMap<PathBuf, BTreeMap<usize, u64>>;

fn covered_lines(tools: &Tools, merged: &Path, programs: &[PathBuf]) -> Result<Lines> {
    let mut export = process::command(&tools.cov);
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(merged);
    for program in programs {
        let mut object = OsString::from("--object=");
        object.push(program);
        export.arg(object);
    }
    let output = process::capture(&mut export)?;
    if !output.status.success() {
        bail!("llvm-cov: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let lines = parse_lcov(&String::from_utf8_lossy(&output.stdout));
    Ok(lines.into_iter().filter(|(path, _)| is_measured(path)).collect())
}

/// Whether a file is one of the crates' own, and not of tests alone.
fn is_measured(path: &Path) -> bool {
    PACKAGES.iter().any(|(package, _)| path.starts_with(source_of(package)))
        && !path.ends_with("tests.rs")
}

fn source_of(package: &str) -> PathBuf {
    layout::root().join("crates").join(package).join("src")
}

/// Reads `SF:file` and `DA:line,count` records; a line that is in several counts them all.
fn parse_lcov(text: &str) -> Lines {
    let mut lines = Lines::new();
    let mut file = PathBuf::new();
    for record in text.lines() {
        if let Some(path) = record.strip_prefix("SF:") {
            file = PathBuf::from(path);
        } else if let Some(data) = record.strip_prefix("DA:") {
            let mut numbers = data.split(',').map(str::parse::<u64>);
            if let (Some(Ok(line)), Some(Ok(count))) = (numbers.next(), numbers.next()) {
                *lines.entry(file.clone()).or_default().entry(line as usize).or_default() += count;
            }
        }
    }
    lines
}

/// Says of each crate how many of its lines are executed, and with `all_lines`, or where these are too
/// few, which are not.
fn report(lines: &Lines, all_lines: bool) -> Result<()> {
    let mut too_few = Vec::new();
    for (package, least) in PACKAGES {
        let source = source_of(package);
        let own = || lines.iter().filter(|(path, _)| path.starts_with(&source));
        let all = own().map(|(_, counts)| counts.len()).sum::<usize>();
        let covered = own().flat_map(|(_, counts)| counts.values()).filter(|&&count| count > 0);
        let covered = covered.count();
        if all == 0 {
            bail!("nothing of {package} was measured");
        }
        let is_enough = covered * 100 >= all * least;
        if all_lines || !is_enough {
            own().for_each(|(path, counts)| print_missed(path, counts));
        }
        let percent = covered as f64 * 100.0 / all as f64;
        println!("{covered} of {all} lines of {package} are covered: {percent:.1} %");
        if !is_enough {
            too_few.push(format!("{percent:.1} % of {package} ({least} % must be)"));
        }
    }
    if !too_few.is_empty() {
        bail!("tests of their crates execute too few lines: {}", too_few.join(", "));
    }
    Ok(())
}

fn print_missed(path: &Path, counts: &BTreeMap<usize, u64>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    for (&line, _) in counts.iter().filter(|&(_, &count)| count == 0) {
        let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
        println!("{}:{line}: no test executes: {source}", layout::shown(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_file_and_line() {
        let text = "SF:/a.rs\nFN:1,f\nDA:1,5\nDA:2,0\nend_of_record\nSF:/b.rs\nDA:1,0\nDA:x\n\
                    end_of_record\nSF:/a.rs\nDA:2,3\nend_of_record\n";
        let lines = parse_lcov(text);
        let of = |path: &str| lines[Path::new(path)].clone();
        assert_eq!(of("/a.rs"), BTreeMap::from([(1, 5), (2, 3)]));
        assert_eq!(of("/b.rs"), BTreeMap::from([(1, 0)]));
    }

    #[test]
    fn what_is_only_for_tests_is_not_measured() {
        let file = |path: &str| layout::root().join("crates").join(path);
        assert!(is_measured(&file("stepwell-engine/src/step.rs")));
        assert!(!is_measured(&file("stepwell-engine/tests/step/main.rs")));
        assert!(!is_measured(&file("stepwell-arch/src/stage1/tests.rs")));
        assert!(!is_measured(&file("stepwell-wire/src/ring.rs")));
    }

    #[test]
    fn too_many_lines_that_nothing_executes_are_an_error() {
        let path = |package: &str| source_of(package).join("lib.rs");
        // Of ten lines each, so many are executed.
        let lines = |executed: [usize; 3]| {
            let counts = |executed| (0..10).map(move |line| (line, u64::from(line < executed)));
            let files = PACKAGES.iter().zip(executed);
            files.map(|((package, _), n)| (path(package), counts(n).collect())).collect::<Lines>()
        };
        let error = |executed| report(&lines(executed), false).unwrap_err().to_string();
        assert!(report(&lines([10, 10, 9]), false).is_ok());
        assert!(error([10, 9, 10]).contains("90.0 % of stepwell-engine (100 % must be)"));
        assert!(error([10, 10, 8]).contains("80.0 % of stepwell-vm (90 % must be)"));
        let half = Lines::from([(path("stepwell-arch"), BTreeMap::from([(1, 1)]))]);
        assert!(
            report(&half, false).unwrap_err().to_string().contains("nothing of stepwell-engine")
        );
    }
}
