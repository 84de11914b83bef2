//! What comes to a guest while it is recorded, and what becomes of its recorder: typed at, killed, out of
//! room for its log, and interrupted.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use stepwell_tests::debugger;
use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::{Finished, Running, kill_one, run};
use stepwell_tests::stepwell::{binary, command};

const LIMIT: Duration = Duration::from_secs(300);

/// What is typed, and what is waited for after it. The markers are none that an echo of them could be.
const TYPED: [(&str, &str); 4] = [
    (
        "i=0; while [ $i -lt 50 ]; do mkdir -p /tmp/pile/$i; echo $i >/tmp/pile/$i/file; \
         i=$((i+1)); done; echo piled-$((1+1))\n",
        "piled-2",
    ),
    // Without the kernel's own files, of which there are ten thousand.
    ("umount /sys /proc; ls -lR / >/tmp/all; ls -lR /bin; echo listed-$((1+1))\n", "listed-2"),
    (
        "i=0; while [ $i -lt 100 ]; do (true) & i=$((i+1)); done; wait; echo forked-$((1+1))\n",
        "forked-2",
    ),
    ("while true; do (echo again-$((1+1))); done\n", "again-2"),
];

/// A recorder whose console is read.
struct Recorder {
    running: Running,
    stdin: Box<dyn Write>,
    console: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    fn start(record: &mut Command) -> Self {
        record.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(record).unwrap();
        let stdin = Box::new(running.stdin().unwrap());
        let mut lines = running.lines().unwrap();
        let console = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&console);
        thread::spawn(move || {
            while let Ok(bytes @ [_, ..]) = lines.fill_buf() {
                let length = bytes.len();
                heard.lock().unwrap().extend(bytes);
                lines.consume(length);
            }
        });
        Self { running, stdin, console }
    }

    fn wait_for(&mut self, words: &str) {
        let end = Instant::now() + LIMIT;
        while !self.said().contains(words) {
            assert!(Instant::now() < end, "never {words:?}: {}", self.said());
            assert!(self.running.is_running(), "it ended before {words:?}: {}", self.said());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().unwrap()).into_owned()
    }

    /// Kills it as it is, and returns what it has shown.
    fn kill(self) -> Vec<u8> {
        kill_one(self.running.pid());
        let finished = self.running.finish(LIMIT).unwrap();
        assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
        // All that was in the pipe is read by now, or soon.
        thread::sleep(Duration::from_millis(500));
        let console = self.console.lock().unwrap();
        console.clone()
    }
}

fn replay(log: &Path, options: &[&str]) -> Finished {
    let mut replay = Command::new(binary());
    run(replay.arg("replay").arg(log).args(options), LIMIT).unwrap()
}

/// Splits what a replay has said: the guest's console, and its own lines.
fn split(said: &str) -> (&str, &str) {
    let own = said
        .find(" states compared")
        .and_then(|at| said[..at].rfind(|c: char| !c.is_ascii_digit()));
    said.split_at(own.map_or(0, |at| at + 1))
}

fn signal(running: &Running, signal: Signal) {
    let pid = i32::try_from(running.pid()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Somebody works at the shell of four vCPUs, and the recorder is killed in the middle of it.
#[test]
fn what_is_typed_is_replayed_though_the_recorder_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("typed.replay");
    let mut record = command("record", &debugger::debian());
    record.args(["--quiet", "--checkpoints", "hashes=100000000", "-o"]).arg(&log);
    let mut recorder = Recorder::start(&mut record);
    recorder.wait_for("stepwell-demo: shell is up");
    recorder.wait_for("# ");
    for (line, marker) in TYPED {
        recorder.stdin.write_all(line.as_bytes()).unwrap();
        recorder.stdin.flush().unwrap();
        recorder.wait_for(marker);
    }
    let shown = recorder.kill();
    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.matches("{\"input\":").count() >= TYPED.len(), "{} lines", lines.lines().count());
    // All of it, each state compared: to the last moment that was written down.
    let whole = replay(&log, &["--verify"]);
    assert!(whole.status.success(), "{}", whole.output());
    let (console, own) = split(&whole.stdout);
    assert!(own.contains("all the same"), "{}", whole.output());
    assert!(shown.starts_with(console.as_bytes()), "another console: {}", whole.output());
    // What came last may be behind the last part that was written down whole.
    for (_, marker) in &TYPED[..TYPED.len() - 1] {
        assert!(console.contains(marker), "no {marker} in {console}");
    }
    let place = own.lines().last().unwrap().to_owned();
    let again = replay(&log, &["--quiet"]);
    assert_eq!(again.stdout.lines().last(), Some(place.as_str()), "straight on");
    cut_short(folder.path(), lines.as_bytes());
    interrupted(&log);
}

/// A part of the log is a log: whole lines, and within one.
fn cut_short(folder: &Path, bytes: &[u8]) {
    let ends: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] == b'\n').collect();
    let part = folder.join("part.replay");
    for end in [ends[5] + 1, ends[5] + 30] {
        fs::write(&part, &bytes[..end]).unwrap();
        let finished = replay(&part, &["--quiet"]);
        assert!(finished.status.success(), "{}", finished.output());
        let said = finished.stdout.lines().last().unwrap().to_owned();
        assert!(said.starts_with("position ") && !said.starts_with("position 0,"), "{said}");
    }
}

/// Ctrl-C ends a replay, and stops a way through one where it has come.
fn interrupted(log: &Path) {
    let mut command = Command::new(binary());
    command.arg("replay").arg("--quiet").arg(log);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running::start(&mut command).unwrap();
    thread::sleep(Duration::from_secs(3));
    signal(&running, Signal::INT);
    let finished = running.finish(LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(130), "{}", finished.output());
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
    let mut command = Command::new(binary());
    command.arg("step").arg("--replay").arg(log);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(&mut command).unwrap();
    let mut stdin = running.stdin().unwrap();
    stdin.write_all(b"goto end\n").unwrap();
    thread::sleep(Duration::from_secs(4));
    signal(&running, Signal::INT);
    stdin.write_all(b"when\nrs\nwhen\nx\n").unwrap();
    let finished = running.finish(LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    let place = |line: &&str| line.starts_with("position ");
    let places: Vec<&str> = finished.stdout.lines().filter(place).collect();
    let number = |line: &str, at: usize| -> u64 {
        line.split(' ').nth(at).unwrap().trim_end_matches(',').parse().unwrap()
    };
    let [there, before] = places[..] else { panic!("{}", finished.output()) };
    assert!(finished.stdout.contains("(paused)"), "{}", finished.output());
    assert!(number(there, 1) < number(there, 3), "it did not come to the end: {there}");
    assert!(number(before, 1) < number(there, 1), "and goes on from there: {before}");
}

/// No more room for the log: what is in it stays a log, and the user hears of it.
#[test]
fn a_disk_that_is_full_while_it_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("full.replay");
    let setup = Setup { smp: 4, ..Setup::new(&Guest::named("hunt").path) };
    // As where nobody has set a limit that kills: the write fails.
    let record = command("record", &setup);
    let mut sh = Command::new("sh");
    sh.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(record.get_program());
    sh.args(record.get_args()).args(["--quiet", "--checkpoints", "hashes=5000000", "-o"]).arg(&log);
    sh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running::start(&mut sh).unwrap();
    let end = Instant::now() + LIMIT;
    let bytes = || log.metadata().map_or(0, |file| file.len());
    while bytes() < 1500 {
        assert!(Instant::now() < end, "it writes nothing");
        thread::sleep(Duration::from_millis(20));
    }
    let room = Rlimit { current: Some(bytes() + 300), maximum: Some(1 << 40) };
    let pid = i32::try_from(running.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, room).unwrap();
    let finished = running.finish(LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.output());
    assert_eq!(finished.stderr.lines().count(), 1, "one line: {}", finished.output());
    for words in ["full.replay", "cannot write the log: File too large", "make room"] {
        assert!(finished.stderr.contains(words), "no {words:?}: {}", finished.output());
    }
    assert!(finished.left_behind.is_empty(), "left behind {:?}", finished.left_behind);
    let again = replay(&log, &["--quiet", "--verify"]);
    assert!(again.status.success(), "{}", again.output());
    let said = again.stdout.lines().last().unwrap().to_owned();
    assert!(said.starts_with("position ") && !said.starts_with("position 0,"), "{said}");
}

/// A log that has everything in it needs none of the files that it began with, and no other's.
#[test]
fn a_packed_log_needs_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("kernel.bin");
    fs::copy(Guest::named("disk").path, &kernel).unwrap();
    let disk = folder.path().join("disk.img");
    // As many as the guest expects.
    let mut sectors = vec![0; 16 * 512];
    for n in 0..2_u32 {
        let code = [0xd280_0000 | (n + 1) << 5, 0xd65f_03c0].map(u32::to_le_bytes);
        sectors[512 * n as usize..][..8].copy_from_slice(code.as_flattened());
    }
    fs::write(&disk, &sectors).unwrap();
    let log = folder.path().join("packed.replay");
    let mut record = command("record", &Setup::new(&kernel));
    record.args(["--quiet", "--pack", "--disk", &format!("{},snapshot", disk.display()), "-o"]);
    let recorded = run(record.arg(&log), LIMIT).unwrap();
    assert!(recorded.output().contains("disk: ok"), "{}", recorded.output());
    fs::remove_file(&kernel).unwrap();
    fs::remove_file(&disk).unwrap();
    let again = replay(&log, &["--verify"]);
    assert!(again.output().contains("the guest ended, as it did"), "{}", again.output());
    // One that is named has to be the one.
    fs::write(&disk, &sectors[..4096]).unwrap();
    let other = replay(&log, &["--disk", disk.to_str().unwrap()]);
    assert_eq!(other.status.code(), Some(1), "{}", other.output());
    assert!(other.stderr.contains("is not the disk that was recorded"), "{}", other.output());
    let bytes = fs::metadata(&log).unwrap().len();
    assert!(bytes < 100_000, "zeros take no room: {bytes} bytes");
}
