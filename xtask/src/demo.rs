//! `cargo xtask demo`: Debian's kernel, stepped, from a fresh checkout.
//!
//! The visitor sees the tool's real commands, each printed before it runs so that it can be
//! repeated by hand, under headings that say what to look at. The stepper's lines come from a
//! file, which it shows as if they had been typed.

mod time;

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::guests::{self, DebianGuest};
use crate::{build, layout, process, setup};

/// One command takes some ten seconds; more means that the guest hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(2 * 60);

/// A kernel function that the guest's start script leads to, by `uname`, with interrupts on.
const FUNCTION: &str = "__arm64_sys_newuname";

/// Few words on the console: the steps are what there is to see.
const COMMAND_LINE: &str = "console=ttyAMA0 quiet";

/// What is typed at the stepper. At 0.2 ms a step, Debian's tick (250 Hz) comes every 20 steps.
const TYPED: &str = "\
r CNTV_CVAL_EL0
time per-step=200000
s 42
r CNTV_CVAL_EL0
time stopped
t echo \"Stepped, and none the wiser\"; poweroff -f
c
";

const STEPPING: &str = "\
Debian's kernel boots under Stepwell and stops where its first program asks for uname. From there
it is stepped, an instruction a line. Its timer stays live: a step is worth 0.2 ms of the guest's
time here, so it ticks every 20 steps. With --irq over the handlers run and are not stepped; that
they ran shows in CNTV_CVAL_EL0, the time of the next tick. Then the guest goes on to its shell,
where a line waits for it.";

const BY_KVM: &str = "\
This host has KVM: the guest runs by that, at the CPU's speed, and needs neither QEMU nor a hypervisor.";

const RECORDING: &str = "\
The same place again, recorded: with --irq into, what the handlers execute is part of it.";

const OUTLINE: &str = "\
Who called whom, and how many instructions that took. Look for [interrupt at …]: a whole timer tick.";

/// Sets up, builds, and single-steps Debian's kernel on its way to a shell prompt
#[derive(clap::Args)]
pub struct Demo {
    /// Prints what would be installed, fetched and built, and does nothing
    #[arg(long)]
    plan: bool,
    /// Goes back from a panic to its cause instead, in a guest of Stepwell's own
    #[arg(long)]
    time: bool,
    /// Shows with what is built and fetched already: installs, fetches and builds nothing
    #[arg(long, conflicts_with_all = ["plan", "time"])]
    no_build: bool,
}

/// What the guest runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Qemu,
    Kvm,
}

impl By {
    /// What `stepwell` chooses here by itself.
    fn here() -> Self {
        let is_usable = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if cfg!(target_arch = "aarch64") && is_usable() { Self::Kvm } else { Self::Qemu }
    }
}

impl Demo {
    /// Runs the demo.
    ///
    /// # Errors
    /// When something is missing or a command of the demo fails.
    pub fn run(self) -> Result<()> {
        if self.plan {
            return plan();
        }
        let by = By::here();
        let mut phases = Phases::default();
        if self.no_build {
            check_prepared()?;
            phases.time("showing", || show(by))?;
            println!("\n{}", phases.told());
            return Ok(());
        }
        // Only what QEMU runs goes back in time.
        let installed = if by == By::Kvm && !self.time {
            let installed = phases.time("setting up", || setup::ensure_programs(setup::BY_KVM))?;
            phases.time("building", build::for_demo_by_kvm)?;
            installed
        } else {
            let installed = phases.time("setting up", || setup::ensure(setup::MACHINE))?;
            phases.time("building", build::for_demo)?;
            installed
        };
        if self.time {
            phases.time("building the guest", guests::bare)?;
            phases.time("showing", time::show)?;
            println!("\n{}", phases.told());
            return Ok(());
        }
        phases.time("fetching the guest", guests::debian_only)?;
        phases.time("showing", || show(by))?;
        println!("\n{}", phases.told());
        match installed.as_slice() {
            [] => println!("Nothing had to be installed."),
            installed => println!("Installed for it: {}.", installed.join(", ")),
        }
        println!("\nNow you:\n\n$ {}", next_command());
        Ok(())
    }
}

/// What took how long.
#[derive(Default)]
struct Phases(Vec<(&'static str, Duration)>);

impl Phases {
    fn time<T>(&mut self, name: &'static str, phase: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let done = phase()?;
        self.0.push((name, start.elapsed()));
        Ok(done)
    }

    fn told(&self) -> String {
        let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
        let phases: Vec<String> =
            self.0.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
        let all = seconds(self.0.iter().map(|(_, time)| *time).sum());
        format!("That took {all}: {}.", phases.join(", "))
    }
}

/// Demands that what the demo shows is there.
fn check_prepared() -> Result<()> {
    let guest = DebianGuest::here();
    for file in [layout::stepwell_binary(), guest.kernel(), guest.initramfs()] {
        ensure!(
            file.is_file(),
            "{} is missing: run the demo once without --no-build",
            layout::shown(&file)
        );
    }
    Ok(())
}

fn plan() -> Result<()> {
    let by = By::here();
    let installed = match by {
        By::Qemu => setup::plan(setup::MACHINE)?,
        By::Kvm => setup::plan_programs(setup::BY_KVM)?,
    };
    println!("To be installed:");
    let nothing = installed.is_empty().then(|| "nothing, all is there".to_owned());
    for line in installed.iter().chain(&nothing) {
        println!("  {line}");
    }
    println!("To be built:");
    if by == By::Qemu {
        println!("  {}", layout::shown(&layout::hypervisor_image()));
    }
    println!("  {}", layout::shown(&layout::stepwell_binary()));
    let guest = DebianGuest::here();
    let state = if guest.is_complete() { "there already" } else { "to be fetched, not installed" };
    println!("Debian's kernel and busybox for arm64 ({state}):");
    for file in [guest.kernel(), guest.initramfs()] {
        println!("  {}", layout::shown(&file));
    }
    Ok(())
}

/// The commands that the visitor sees.
fn show(by: By) -> Result<()> {
    if by == By::Kvm {
        println!("\n{BY_KVM}");
    }
    let folder = layout::target_dir().join("demo");
    fs::create_dir_all(&folder).context("making the demo's folder")?;
    let (typed, recording) = (folder.join("typed"), folder.join("uname.stepwell"));
    fs::write(&typed, TYPED).context("writing the demo's script")?;

    heading("1. Stop in the kernel, step, and let go", STEPPING);
    let step = [guest(), words(&["--at", FUNCTION, "--irq", "over"])].concat();
    run("step", &step, Some(&typed))?;

    heading("2. Record", RECORDING);
    let policy = ["--irq", "into", "--time", "per-step=1000", "--steps", "13400", "-o"];
    let trace = [guest(), words(&["--at", FUNCTION]), words(&policy), path(&recording)].concat();
    run("trace", &trace, None)?;

    heading("3. What it executed", OUTLINE);
    let show = [path(&recording), words(&["--format", "calls", "--depth", "21"])].concat();
    run("show", &show, None)
}

fn next_command() -> String {
    let next = [guest(), words(&["--at", "start_kernel"])].concat();
    let line = typed_line("step", &next, None);
    match process::unpacked_qemu() {
        Some(qemu) => format!("STEPWELL_QEMU={} {line}", layout::shown(&qemu)),
        None => line,
    }
}

/// The options that name the guest.
fn guest() -> Vec<String> {
    let guest = DebianGuest::here();
    [
        words(&["--kernel"]),
        path(&guest.kernel()),
        words(&["--initrd"]),
        path(&guest.initramfs()),
        words(&["--append", COMMAND_LINE]),
    ]
    .concat()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A path as one typed in the workspace's root would write it.
fn path(path: &Path) -> Vec<String> {
    vec![layout::shown(path)]
}

fn heading(title: &str, text: &str) {
    let rule = "─".repeat(100_usize.saturating_sub(4 + title.chars().count()));
    println!("\n── {title} {rule}\n{text}\n");
}

/// Shows a command of the tool as it would be typed, then runs it.
fn run(subcommand: &str, words: &[String], input: Option<&Path>) -> Result<()> {
    println!("$ {}\n", typed_line(subcommand, words, input));
    let mut stepwell = process::command(layout::stepwell_binary());
    stepwell.arg(subcommand).args(words).env("STEPWELL_QEMU", setup::qemu());
    stepwell.stdin(match input {
        Some(file) => File::open(file).context("reading the demo's script")?.into(),
        None => Stdio::null(),
    });
    process::run(&mut stepwell, COMMAND_LIMIT)
}

fn typed_line(subcommand: &str, words: &[String], input: Option<&Path>) -> String {
    let mut line = format!("{} {subcommand}", layout::shown(&layout::stepwell_binary()));
    for word in words {
        // An option on a line of its own, with its value.
        let separator = if word.starts_with('-') { " \\\n      " } else { " " };
        let quote = if word.contains(' ') { "'" } else { "" };
        line.push_str(&format!("{separator}{quote}{word}{quote}"));
    }
    if let Some(file) = input {
        line.push_str(&format!(" \\\n      <{}", layout::shown(file)));
    }
    line
}
