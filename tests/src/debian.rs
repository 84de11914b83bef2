//! Debian's kernel as a guest: how it is started, and what it says.

use std::time::Duration;

use crate::guest::folder;
use crate::plain::Setup;
use crate::process::Finished;
use crate::stepwell::run_guest;

/// What a kernel writes when it has not run for too long, or its clock went wrong.
pub const TROUBLE: [&str; 9] = [
    "Kernel panic",
    "rcu: INFO",
    "stall",
    "lockup",
    "Oops",
    "BUG:",
    "clocksource: timekeeping",
    "clocksource: Marking",
    "hung",
];

/// A machine that comes to its shell and powers itself off there.
#[must_use]
pub fn debian(cpu: &'static str, smp: u8) -> Setup {
    with_command_line(cpu, smp, "console=ttyAMA0 stepwell.poweroff".to_owned())
}

/// A machine whose process 1 is a shell that executes `script`, which has no double quotes.
#[must_use]
pub fn debian_doing(script: &str, cpu: &'static str, smp: u8) -> Setup {
    debug_assert!(!script.contains('"'), "the kernel's command line quotes by them");
    let line = format!("console=ttyAMA0 quiet rdinit=/bin/sh -- -c \"{script}\"");
    with_command_line(cpu, smp, line)
}

fn with_command_line(cpu: &'static str, smp: u8, append: String) -> Setup {
    Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some(append),
        cpu,
        smp,
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    }
}

/// Demands that the guest came to its shell, powered itself off, and had nothing to complain of.
///
/// # Panics
/// Where it did not.
pub fn came_through(finished: &Finished) {
    let said = finished.output();
    assert!(finished.status.success(), "{said}");
    for words in ["stepwell-demo: shell is up", "reboot: Power down", "the guest powered off"] {
        assert!(finished.stdout.contains(words), "no {words:?} in {said}");
    }
    has_no_trouble(finished);
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
}

/// Demands that the guest had nothing to complain of.
///
/// # Panics
/// Where it had.
pub fn has_no_trouble(finished: &Finished) {
    for trouble in TROUBLE {
        assert!(!finished.stdout.contains(trouble), "{trouble}: {}", finished.output());
    }
}

/// The lines of the kernel's log in what was said, sorted, without the time and with each figure
/// that is measured by it replaced: which CPU is first to say something is nobody's business.
#[must_use]
pub fn kernel_log(said: &str) -> Vec<String> {
    let lines = said.lines().map(|line| line.trim_start_matches("  guest| ").trim());
    let untimed = lines.filter_map(|line| match line.split_once("] ") {
        Some((stamp, text)) if stamp.starts_with('[') => Some(without_figures(text.trim_end())),
        _ => None,
    });
    // A loaded host shows itself where the guest runs freely.
    let mut lines: Vec<String> =
        untimed.filter(|line| !line.starts_with("hrtimer: interrupt took")).collect();
    lines.sort();
    lines
}

/// A text with `#` for each figure, however long.
#[must_use]
pub fn without_figures(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            other if !other.is_ascii_digit() => out.push(other),
            _ if out.ends_with('#') => {}
            _ => out.push('#'),
        }
    }
    out
}

/// How many plain boots are asked whether a difference is one.
const BOOTS: usize = 3;

/// Demands that a kernel's log has the lines of plain boots, and no others. What only some of
/// them say is nobody's fault.
///
/// # Panics
/// Where the log differs in the same way from each of them, or one did not come through.
pub fn says_as_undisturbed(setup: &Setup, said: &str, limit: Duration) {
    let log = kernel_log(said);
    let (mut lost, mut new) = (Vec::new(), Vec::new());
    for boot in 0..BOOTS {
        let alone = run_guest(setup, limit).unwrap_or_else(|error| panic!("plain: {error}"));
        let alone = kernel_log(&alone.stdout);
        assert!(alone.len() > 100, "only {} lines of a plain boot: {alone:#?}", alone.len());
        if boot == 0 {
            (lost, new) = (only_in(&alone, &log), only_in(&log, &alone));
        } else {
            lost.retain(|line| alone.contains(line));
            new.retain(|line| !alone.contains(line));
        }
        if lost.is_empty() && new.is_empty() {
            return;
        }
    }
    panic!("only plain: {lost:#?}, only otherwise: {new:#?}");
}

/// Lines of `one` that `other` does not have.
fn only_in(one: &[String], other: &[String]) -> Vec<String> {
    one.iter().filter(|line| !other.contains(line)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_compared_without_times_and_figures() {
        let said = "  guest| [    0.12] b 7 us\n(stepwell) c\n  guest| [  1.5] a\nshell is up\n\
                    [ 2.0] hrtimer: interrupt took 9 ns\n";
        assert_eq!(kernel_log(said), ["a", "b # us"]);
        assert_eq!(only_in(&kernel_log(said), &kernel_log("[ 9.0] b 12 us\n")), ["a"]);
    }
}
