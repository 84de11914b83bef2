//! Recorded runs, gone back and forth in: with GDB, with the stepper, and in traces of their parts.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stepwell_tests::debian::debian;
use stepwell_tests::debugger::Served;
use stepwell_tests::guest::{Guest, LOAD};
use stepwell_tests::plain::{Setup, dump_device_tree, witness};
use stepwell_tests::process::{Finished, Running, run};
use stepwell_tests::stepwell::{binary, command, show};
use stepwell_tests::stream::{demand_equal, without_ranges};

const LIMIT: Duration = Duration::from_secs(300);
const VCPUS: u8 = 4;

/// Records a guest to where it ends.
fn recorded(setup: &Setup, folder: &Path, options: &[&str]) -> (PathBuf, Finished) {
    let log = folder.join("run.replay");
    let mut record = command("record", setup);
    record.arg("--quiet").args(options).arg("-o").arg(&log);
    let finished = run(&mut record, LIMIT).unwrap();
    (log, finished)
}

/// What the stepper says to these lines, in a replay.
fn stepped(log: &Path, at: &str, lines: &str) -> String {
    let mut step = Command::new(binary());
    step.args(["step", "--at", at, "--replay"]).arg(log);
    step.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut step).unwrap();
    std::io::Write::write_all(&mut running.stdin().unwrap(), lines.as_bytes()).unwrap();
    let finished = running.finish(LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    finished.stdout
}

/// The positions that `when` has said.
fn positions(said: &str) -> Vec<u64> {
    let position = |line: &str| line.strip_prefix("position ")?.split(' ').next()?.parse().ok();
    said.lines().filter_map(position).collect()
}

fn hunt(folder: &Path) -> PathBuf {
    let setup = Setup { smp: VCPUS, ..Setup::new(&Guest::named("hunt").path) };
    let (log, finished) = recorded(&setup, folder, &["--until", "panic"]);
    let said = finished.output();
    assert!(finished.status.success() && said.contains("panic: no parcel"), "{said}");
    log
}

#[test]
fn a_panic_is_followed_back_to_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let log = hunt(folder.path());
    let served = Served::replay(&log, "end");
    served.passes(&Guest::named("hunt").path.with_extension("elf"), "hunt.py", LIMIT);
}

/// A run that is recorded while it is debugged is gone back in, and is a log as any other.
#[test]
fn a_run_is_gone_back_in_while_it_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("live.replay");
    let guest = Guest::named("hunt");
    let setup = Setup { smp: VCPUS, ..Setup::new(&guest.path) };
    let options = ["--wait", "--record", log.to_str().unwrap(), "--checkpoints", "hashes=100000"];
    let served = Served::start(&setup, &options);
    served.passes(&guest.path.with_extension("elf"), "hunt.py", LIMIT);
    drop(served);
    let mut replay = Command::new(binary());
    let again = run(replay.arg("replay").arg(&log).arg("--verify"), LIMIT).unwrap();
    let said = again.output();
    assert!(again.status.success() && said.contains("states compared: all the same"), "{said}");
}

#[test]
fn the_stepper_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let log = hunt(folder.path());
    let symbols = std::fs::read(Guest::named("hunt").path.with_extension("elf")).unwrap();
    let symbols = stepwell_trace::symbols::elf::from_elf(&symbols).unwrap();
    let address = |name: &str| symbols.address_of(name).unwrap().0;
    let (route, note) = (address("DESK") + 128, address("note"));
    let lines = format!(
        "when\nlast {route:#x}\nwhen\nrs 3\nwhen\ns 3\nwhen\ngoto -1\ngoto +1\nwhen\n\
         ru {note:#x}\nwhen\nrc\nwhen\ngoto 99999999999\nt x\nx\n"
    );
    let said = stepped(&log, "end", &lines);
    let at = positions(&said);
    let [end, last, before, again, there, called, begin] = at[..] else { panic!("{said}") };
    assert!(said.contains("watchpoint at"), "{said}");
    assert!(last + 100_000 < end && before < last && called < last, "{said}");
    assert_eq!((again, there, begin), (last, last, 0), "{said}");
    for text in ["vcpu2", "this is where the run begins", "before 99999999999", "another run"] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

/// Steps count as the run did that was recorded, in guests that take exceptions, too: the state at the
/// end, which the log has, is the same.
#[test]
fn steps_of_a_replay_come_to_what_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["exceptions", "exclusives", "gic", "simd", "timer"] {
        let setup = Setup::new(&Guest::named(name).path);
        let (log, finished) = recorded(&setup, folder.path(), &["--until", "13000"]);
        assert!(finished.output().contains("recorded to position 13000"), "{}", finished.output());
        let file = folder.path().join("whole.stw");
        let mut trace = Command::new(binary());
        trace.args(["trace", "--quiet", "--replay"]).arg(&log).arg("-o").arg(&file);
        let finished = run(trace.args(["--from", "0", "--to", "13000"]), LIMIT).unwrap();
        assert!(finished.status.success(), "{name}: {}", finished.output());
        std::fs::remove_file(&file).unwrap();
        std::fs::remove_file(&log).unwrap();
    }
}

/// What a replay executes to its end, traced in two parts.
fn traced_in_parts(log: &Path) -> Vec<u64> {
    // All of the guests get so far.
    const MIDDLE: &str = "100";
    let file = log.with_extension("stw");
    let mut whole = Vec::new();
    for part in [["--to", MIDDLE], ["--from", MIDDLE]] {
        let mut trace = Command::new(binary());
        trace.args(["trace", "--quiet", "--replay"]).arg(log).arg("-o").arg(&file).args(part);
        let finished = run(&mut trace, LIMIT).unwrap();
        assert!(finished.status.success(), "{}", finished.output());
        whole.extend(show(&file).unwrap());
        std::fs::remove_file(&file).unwrap();
    }
    whole
}

/// Must be what QEMU itself executes: recorded at full speed, traced from the replay. What may differ is
/// said in `exactness`; here the recording takes interrupts as well, at other moments.
fn a_replay_is_traced_exactly(name: &str, steps: u64) {
    let folder = tempfile::tempdir().unwrap();
    let guest = Guest::named(name);
    let setup = Setup::new(&guest.path);
    let dtb = folder.path().join("plain.dtb");
    dump_device_tree(&setup, &dtb).unwrap();
    let seen = witness(&setup, LOAD, 4 * steps as usize, LIMIT).unwrap().swap_remove(0);
    let (end, dtb) = (steps.to_string(), dtb.to_str().unwrap());
    let (log, _finished) = recorded(&setup, folder.path(), &["--until", &end, "--dtb", dtb]);
    let whole = traced_in_parts(&log);
    // A stepper stops where a fetch will abort; QEMU never gets to report that.
    let not_memory = [0..0x4000_0000, 0x1_0000_0000..u64::MAX];
    let exact = |stream: &[u64]| without_ranges(&guest.exact_part(stream), &not_memory);
    let (seen, whole) = (exact(&seen), exact(&whole));
    let length = whole.len().min(seen.len());
    assert!(length > 100, "{name}: only {length} instructions to compare");
    if let Err(text) = demand_equal(length, ("witness", &seen), ("replayed", &whole)) {
        panic!("{name}: {text}");
    }
}

#[test]
fn parts_of_a_replay_are_traced_exactly() {
    for name in ["loop_sum", "plain", "uart", "exclusives", "sysregs", "seed", "simd", "psci"] {
        a_replay_is_traced_exactly(name, 20_000);
    }
}

#[test]
fn parts_with_exceptions_and_interrupts_are_traced_exactly() {
    // That of `precedence` includes a WFI at EL0, which traps unless something is pending.
    for name in ["exceptions", "debug_own", "device_forms", "precedence"] {
        a_replay_is_traced_exactly(name, 20_000);
    }
    for name in ["gic", "irq_storm", "sgi", "timer", "wfx"] {
        a_replay_is_traced_exactly(name, 20_000);
    }
}

#[test]
fn the_first_200_000_instructions_of_a_recorded_kernel() {
    const LENGTH: u64 = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let setup = debian("cortex-a57", 1);
    let dtb = folder.path().join("plain.dtb");
    dump_device_tree(&setup, &dtb).unwrap();
    let seen = witness(&setup, LOAD, LENGTH as usize, LIMIT).unwrap().swap_remove(0);
    let (end, dtb) = (LENGTH.to_string(), dtb.to_str().unwrap());
    let (log, finished) = recorded(&setup, folder.path(), &["--until", &end, "--dtb", dtb]);
    assert!(finished.output().contains("recorded to position"), "{}", finished.output());
    let whole = traced_in_parts(&log);
    let length = LENGTH as usize;
    if let Err(text) = demand_equal(length, ("witness", &seen), ("replayed", &whole)) {
        panic!("{text}");
    }
}

#[test]
fn a_race_is_found_by_its_seed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { smp: VCPUS, ..Setup::new(&Guest::named("race").path) };
    let (log, finished) = recorded(&setup, folder.path(), &[]);
    let said = finished.output();
    assert!(finished.status.success() && !said.contains("panic"), "in long turns: {said}");
    std::fs::remove_file(&log).unwrap();
    for text in ["an update is lost", "used when it was freed"] {
        let until =
            format!("text:panic: {}", if text.starts_with("an") { text } else { "the object" });
        let options = ["--schedule", "random", "--runs", "200", "--until", &until];
        let (log, finished) = recorded(&setup, folder.path(), &options);
        let said = finished.output();
        assert!(finished.status.success() && said.contains("seed "), "{text}: {said}");
        let mut replay = Command::new(binary());
        let again = run(replay.arg("replay").arg(&log).arg("--verify"), LIMIT).unwrap();
        assert!(again.status.success() && again.output().contains(text), "{}", again.output());
        std::fs::remove_file(&log).unwrap();
    }
}

/// A word that was written, by whom last, and when: stores are counted.
#[derive(Clone, Copy, Debug)]
struct Written {
    word: u64,
    /// The vCPU and the address of its instruction.
    writer: (u64, u64),
    order: u64,
}

/// Who wrote each word last, by a trace of all accesses.
fn writers(log: &Path, part: &[&str]) -> Vec<Written> {
    let file = log.with_extension("stw");
    let mut trace = Command::new(binary());
    trace.args(["trace", "--quiet", "--record", "mem", "--replay"]).arg(log).args(part);
    let finished = run(trace.arg("-o").arg(&file), LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    let mut show = Command::new(binary());
    let finished = run(show.arg("show").arg(&file).args(["--format", "json"]), LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    let number = |value: &serde_json::Value| {
        let digits = value.as_str()?.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    let (mut last, mut writers, mut order) = (BTreeMap::new(), BTreeMap::new(), 0);
    for line in finished.stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let vcpu = line["vcpu"].as_u64().unwrap_or_default();
        match line["type"].as_str() {
            Some("run") => {
                let length = line["length"].as_u64().unwrap();
                last.insert(vcpu, number(&line["pc"]).unwrap() + 4 * (length - 1));
            }
            Some("memory") if line["access"] != "load" => {
                let address = number(&line["address"]).unwrap();
                let writer = (vcpu, last[&vcpu]);
                order += 1;
                for byte in address..address + line["size"].as_u64().unwrap() {
                    let word = byte & !7;
                    writers.insert(word, Written { word, writer, order });
                }
            }
            _ => {}
        }
    }
    writers.into_values().collect()
}

/// Asks at the end of a run who has written a hundred of these words last.
fn ask_who_wrote(log: &Path, mut words: Vec<Written>) {
    assert!(words.len() > 100, "{} words were written", words.len());
    words.sort_by_key(|written| written.word);
    let every = words.len() / 100;
    let asked: Vec<_> = words.into_iter().step_by(every).take(100).collect();
    let lines: String =
        asked.iter().map(|asked| format!("goto end\nlast {:#x}\n", asked.word)).collect();
    let said = stepped(log, "end", &format!("{lines}x\n"));
    let found: Vec<(u64, u64)> = said
        .lines()
        .filter(|line| line.contains("(watchpoint at"))
        .map(|line| {
            let mut words = line.split_whitespace();
            let vcpu = words.next().unwrap().strip_prefix("vcpu").unwrap().parse().unwrap();
            let pc = words.next().unwrap().strip_prefix("0x").unwrap();
            (vcpu, u64::from_str_radix(pc, 16).unwrap())
        })
        .collect();
    assert_eq!(found.len(), asked.len(), "{said}");
    for (asked, found) in asked.iter().zip(found) {
        assert_eq!(found, asked.writer, "who wrote {:#x}", asked.word);
    }
}

#[test]
fn the_last_writer_is_who_a_trace_has() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { smp: VCPUS, ..Setup::new(&Guest::named("hammer").path) };
    let (log, finished) = recorded(&setup, folder.path(), &[]);
    assert!(finished.output().contains("hammer: ok"), "{}", finished.output());
    let mut words = writers(&log, &[]);
    words.retain(|written| written.word >= 0x4000_0000);
    ask_who_wrote(&log, words);
}

/// A page of Linux's has several addresses, and `last` asks for the memory, not for the address. So of all
/// words at one place in their pages the one is asked for that was written last, by whatever address.
#[test]
fn the_last_writer_of_a_kernels_words_is_who_a_trace_has() {
    const END: u64 = 500_000_000;
    const PART: u64 = 500_000;
    let folder = tempfile::tempdir().unwrap();
    let setup = debian("cortex-a57", VCPUS);
    let (log, finished) = recorded(&setup, folder.path(), &["--until", &END.to_string()]);
    assert!(finished.output().contains("recorded to position"), "{}", finished.output());
    let mut newest: BTreeMap<u64, Written> = BTreeMap::new();
    for written in writers(&log, &["--from", &(END - PART).to_string()]) {
        let known = newest.entry(written.word & 0xfff).or_insert(written);
        if written.order > known.order {
            *known = written;
        }
    }
    newest.retain(|_, written| written.word >> 63 == 1);
    ask_who_wrote(&log, newest.into_values().collect());
}
