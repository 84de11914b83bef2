//! Debian's kernel under interrupts from all sides, stepped through a busy loop of its own: what
//! `--irq over` and `--irq hold` promise, on four CPUs without atomics.
//!
//! CPU 0 clears memory, page after page. The others sleep and wake a thousand times a second, and
//! ask without end for statistics that each CPU has to bring up to date: that wakes a kernel thread
//! on each by SGIs. Nothing else that has a life at EL0 is on CPU 0: what has been switched away
//! from inside a handler before any step would come back to the rest of that handler, as README
//! says.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use stepwell_tests::debian::debian_doing;
use stepwell_tests::process::run;
use stepwell_tests::stepwell::{binary, command};

const LIMIT: Duration = Duration::from_secs(300);
const LOAD: &str = "cd /; mount -t proc p proc; mount -t devtmpfs d dev; B=/bin/busybox; \
    $B taskset -p e 1; $B mkfifo f; while :; do cat /proc/sys/vm/stat_refresh; done & \
    for c in 2 4 8; do $B taskset $c sh -c 'while :; do read -t 0.001 x; done <>/f' & done; \
    sleep 0.3; $B taskset 1 dd if=/dev/zero of=/dev/null bs=1M";
/// What the read of /dev/zero comes to.
const BUSY: &str = "read_zero";
const STEPS: usize = 100_000;
/// The timer ticks 250 times a second: with this, once in a thousand steps.
const TICKING: [&str; 2] = ["--time", "per-step=4000"];
const INTERRUPTS_MIN: usize = 50;
/// Beside others that run the clock is the machine's, and how many ticks fall into the steps is not
/// ours to say. A host that has time for this steps through the loop at some 2.5 million instructions a
/// second: 40 ms, which are ten ticks. On one that has not, ticks of many milliseconds become one while
/// handlers wait for locks of vCPUs that do not run. Most interrupts are the other CPUs' SGIs.
const INTERRUPTS_MIN_BESIDE_OTHERS: usize = 3;

/// What is executed for interrupts and for nothing else.
const HANDLERS: [&str; 10] = [
    "el1h_64_irq",
    "el1h_64_irq_handler",
    "el1_interrupt",
    "do_interrupt_handler",
    "gic_handle_irq",
    "generic_handle_domain_irq",
    "handle_percpu_devid_irq",
    "arch_timer_handler_virt",
    "hrtimer_interrupt",
    "irq_exit_rcu",
];

/// Records the loop and returns it as `show --format disasm` has it.
fn recorded(options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("busy.stepwell");
    let mut trace = command("trace", &debian_doing(LOAD, "cortex-a57", 4));
    trace.args(["--at", BUSY, "--steps", &STEPS.to_string(), "--quiet"]).args(options);
    let finished = run(trace.arg("-o").arg(&file), LIMIT).unwrap();
    assert!(finished.status.success(), "{options:?}: {}", finished.output());
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
    let shown = run(Command::new(binary()).arg("show").arg(&file), LIMIT).unwrap();
    assert!(shown.status.success(), "{options:?}: {}", shown.output());
    shown.stdout
}

/// A line of a recording: something that happened, or an instruction.
enum Line<'s> {
    Event(&'s str),
    Step { pc: &'s str, function: &'s str, text: &'s str },
}

fn lines(shown: &str) -> impl Iterator<Item = Line<'_>> {
    shown.lines().map(|line| {
        if let Some(event) = line.strip_prefix("# 0 ") {
            return Line::Event(event);
        }
        let mut words = line.splitn(5, ' ');
        assert_eq!(words.next(), Some("0"), "CPU 0 is the one that is stepped: {line}");
        let (pc, place) = (words.next().unwrap(), words.next().unwrap());
        let function = place.split('+').next().unwrap();
        Line::Step { pc, function, text: words.nth(1).unwrap_or_default() }
    })
}

/// Each interrupt that came was followed by what it interrupted, and by nothing in between.
fn no_handler_is_reported(options: &[&str], interrupts_min: usize) {
    let shown = recorded(&[&["--irq", "over"], options].concat());
    let (mut steps, mut interrupts, mut interrupted) = (0, 0, None);
    for line in lines(&shown) {
        match line {
            Line::Event(event) => {
                assert!(!event.contains(" Irq to "), "{options:?}: {event}");
                if event.ends_with(" interrupted here") {
                    interrupted = event.split(' ').next();
                    interrupts += 1;
                }
            }
            Line::Step { pc, function, .. } => {
                if let Some(wanted) = interrupted.take() {
                    assert_eq!(pc, wanted, "{options:?}: step {steps}");
                }
                let irq = function.contains("_64_irq") || HANDLERS.contains(&function);
                assert!(!irq, "{options:?}: step {steps} is in {function}");
                steps += 1;
            }
        }
    }
    assert_eq!(steps, STEPS, "{options:?}");
    assert!(interrupts >= interrupts_min, "{options:?}: {interrupts} interrupts");
}

#[test]
fn over_reports_no_handler_while_others_stand() {
    no_handler_is_reported(&[&["--others", "stop"], &TICKING[..]].concat(), INTERRUPTS_MIN);
}

#[test]
fn over_reports_no_handler_while_others_run() {
    no_handler_is_reported(&["--others", "run"], INTERRUPTS_MIN_BESIDE_OTHERS);
}

/// The tests above look for functions that there are.
#[test]
fn into_reports_handlers() {
    let shown = recorded(&["--irq", "into", "--time", "per-step=200"]);
    for handler in HANDLERS {
        let is_in = |line| matches!(line, Line::Step { function, .. } if function == handler);
        assert!(lines(&shown).any(is_in), "{handler} was not executed");
    }
}

/// DAIF's place in PSTATE, in DAIF and in SPSR_EL1.
const DAIF: u64 = 0xf << 6;

/// The guest's DAIF, as its own instructions and its exceptions make it.
#[derive(Default)]
struct Masks {
    x: [u64; 32],
    /// Unknown until it is told.
    daif: Option<u64>,
    /// Of SPSR_EL1.
    saved: Option<u64>,
    /// The register that DAIF was just read into.
    read_into: Option<usize>,
    reads: usize,
    changes: usize,
}

fn number(text: &str) -> u64 {
    let text = text.trim().trim_start_matches('#');
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

/// `x30` is 30, `xzr` is 31.
fn register(name: &str) -> usize {
    name.trim().trim_start_matches('x').parse().unwrap_or(31)
}

impl Masks {
    fn set(&mut self, daif: Option<u64>) {
        self.changes += usize::from(self.daif != daif);
        self.daif = daif.map(|daif| daif & DAIF);
    }

    fn step(&mut self, text: &str) {
        if let Some(register) = self.read_into.take() {
            let daif = self.daif.expect("it was told at the beginning");
            assert_eq!(self.x[register] & DAIF, daif, "read {}, before {text}", self.reads);
            self.reads += 1;
        }
        let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
        let (to, from) = operands.split_once(", ").unwrap_or((operands, ""));
        match (name, to, from) {
            ("mrs", to, "daif") => self.read_into = Some(register(to)),
            ("msr", "daifset", bits) => self.set(self.daif.map(|daif| daif | number(bits) << 6)),
            ("msr", "daifclr", bits) => self.set(self.daif.map(|daif| daif & !(number(bits) << 6))),
            ("msr", "daif", from) => self.set(Some(self.x[register(from)])),
            ("msr", "spsr_el1", from) => self.saved = Some(self.x[register(from)] & DAIF),
            ("eret", ..) => self.set(self.saved),
            _ => {}
        }
    }

    fn event(&mut self, event: &str) {
        if event.contains(" Synchronous to ") {
            self.saved = self.daif;
            self.set(Some(DAIF));
        }
        let mut words = event.split(' ');
        let (name, value) = (words.next().unwrap(), words.next().unwrap_or_default());
        let Ok(value) = u64::from_str_radix(value, 16) else { return };
        if name == "PSTATE" {
            let daif = *self.daif.get_or_insert(value & DAIF);
            assert_eq!(value & DAIF, daif, "PSTATE, after {} changes", self.changes);
        } else if let Some(number) = name.strip_prefix('X').and_then(|x| x.parse::<usize>().ok()) {
            self.x[number] = value;
        }
    }
}

/// The timer wants to interrupt all the time, and DAIF is what the guest itself made of it.
#[test]
fn hold_leaves_daif_to_the_guest() {
    let options = ["--irq", "hold", "--record", "regs"];
    let shown = recorded(&[&options[..], &TICKING[..]].concat());
    let mut masks = Masks::default();
    for line in lines(&shown) {
        match line {
            Line::Event(event) => {
                let came = event.contains(" Irq to ") || event.ends_with(" interrupted here");
                assert!(!came, "{event}");
                masks.event(event);
            }
            Line::Step { text, .. } => masks.step(text),
        }
    }
    assert!(masks.reads >= 10 && masks.changes >= 50, "{} {}", masks.reads, masks.changes);
}
