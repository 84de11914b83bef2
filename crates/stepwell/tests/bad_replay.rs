//! Replay logs that are none, damaged, of another version or another run, and places that a run does not
//! have: each one clear line that names what to do, status 1, and nothing lost. None of these needs QEMU.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod place;

use place::{Place, image, text};
use std::fs;
use std::path::{Path, PathBuf};
use stepwell_debuggee::{Moment, StateHash};
use stepwell_replay::log::{DiskIdentity, Entry, FileIdentity, Header, VERSION, Writer};

/// The last position of the logs here.
const LAST: u64 = 60;
/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn file(path: &Path) -> FileIdentity {
    FileIdentity { path: text(path).into(), sha256: EMPTY.into() }
}

fn header(kernel: &Path) -> Header {
    Header {
        stepwell_replay: VERSION,
        cpu: "cortex-a57".into(),
        vcpus: 1,
        memory_bytes: 64 << 20,
        schedule: "turns=50000".into(),
        command_line: String::new(),
        raw: true,
        kernel: file(kernel),
        initrd: None,
        devicetree: None,
        disks: Vec::new(),
        entropy: None,
        hypervisor: String::new(),
        qemu: "QEMU of long ago".into(),
    }
}

/// A log with a line of each kind.
fn log(header: &Header) -> Vec<u8> {
    let at = |position| Moment { position, clock: position };
    let state = StateHash { registers: 1, memory: 2 };
    let mut bytes = Vec::new();
    let mut log = Writer::new(&mut bytes, header).unwrap();
    for entry in [
        Entry::part("disk9", 0, b"packed, and asked for by nobody"),
        Entry::input(at(10), b"ls\n"),
        Entry::passed(at(20)),
        Entry::state(at(30), state),
        Entry::Left { position: 40, clock: 40 },
        Entry::Ended { position: LAST, clock: LAST, how: "powered off".into() },
    ] {
        log.add(&entry).unwrap();
    }
    bytes
}

/// A line with a checksum that is right.
fn line(json: &str) -> Vec<u8> {
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// The commands that take a log.
const COMMANDS: [&[&str]; 4] =
    [&["replay"], &["step", "--replay"], &["gdb", "--replay"], &["trace", "--replay"]];

/// Demands that every command refuses a log in such words.
fn refused(place: &Place, bytes: &[u8], words: &str) {
    let file = place.file("run.replay", bytes);
    for command in COMMANDS {
        let mut arguments = [command, &[text(&file)]].concat();
        let output = place.path().join("part.stepwell");
        if command[0] == "trace" {
            arguments.extend(["-o", text(&output)]);
        }
        let told = place.refused(&arguments);
        assert!(told.contains(words), "{command:?}: no {words:?} in {told}");
        assert!(!output.exists(), "nothing is recorded of it");
    }
    assert_eq!(fs::read(&file).unwrap(), bytes, "it is as it was");
}

fn gone(place: &Place) -> PathBuf {
    place.path().join("gone.bin")
}

/// What is told of a log that is right, but for its kernel.
const KERNEL_IS_GONE: &str = "name it with --kernel";

#[test]
fn what_is_no_log_is_refused() {
    let place = Place::new();
    let good = log(&header(&gone(&place)));
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    for bytes in [&b""[..], b"hello\n", b"\x89PNG\r\n\x1a\n", &vec![b'x'; 2 << 20], &flipped] {
        refused(&place, bytes, "not a replay log: `stepwell record` writes them");
    }
    for (json, words) in [
        ("{\"stepwell_replay\":9}", "a replay log of version 9, and this tool reads version"),
        ("{\"stepwell_replay\":3,\"cpu\":\"max\"}", "replay it with the build that recorded it"),
        ("{\"stepwell_replay\":18446744073709551615}", "of version 18446744073709551615"),
        ("{\"stepwell_replay\":4,\"cpu\":\"max\"}", "its first line lacks something"),
        ("[3]", "not a replay log"),
    ] {
        refused(&place, &line(json), words);
    }
    let missing = place.path().join("missing.replay");
    for path in [missing.as_path(), place.path()] {
        let told = place.refused(&["step", "--replay", text(path)]);
        assert!(told.contains(text(path)), "{told}");
    }
}

#[test]
fn a_log_is_one_up_to_its_last_whole_line() {
    let place = Place::new();
    let good = log(&header(&gone(&place)));
    let ends: Vec<usize> = (0..good.len()).filter(|&at| good[at] == b'\n').collect();
    for end in &ends {
        // At the end of a line, without it, and in the next one: that is a recorder's that was killed.
        for cut in [end + 1, *end, (end + 12).min(good.len())] {
            let is_begun = cut > ends[0];
            let words = if is_begun { KERNEL_IS_GONE } else { "not a replay log" };
            refused(&place, &good[..cut], words);
        }
    }
}

#[test]
fn a_line_that_is_damaged_is_named_and_so_is_the_way_around_it() {
    let place = Place::new();
    let good = log(&header(&gone(&place)));
    let starts: Vec<usize> =
        (0..good.len()).filter(|&at| at > 0 && good[at - 1] == b'\n').collect();
    for (n, &start) in starts.iter().enumerate() {
        let mut flipped = good.clone();
        flipped[start + 15] ^= 4;
        let whole = n + 1;
        let words = format!("line {} is damaged: `head -n {whole} FILE`", whole + 1);
        refused(&place, &flipped, &words);
        // Which is right.
        refused(&place, &good[..start], KERNEL_IS_GONE);
    }
    // What is whole, and makes no sense.
    for json in [
        "{\"input\":{\"position\":1,\"clock\":1,\"bytes\":\"6x\"}}",
        "{\"state\":{\"position\":1,\"clock\":1,\"registers\":\"\",\"memory\":\"0\"}}",
        "{\"packed\":{\"file\":\"kernel\",\"offset\":0,\"zstd\":\"AAAA\"}}",
        "{\"left\":{\"position\":-1,\"clock\":1}}",
        "{\"unheard_of\":{\"position\":1,\"clock\":1}}",
        "{}",
    ] {
        refused(&place, &[&good[..starts[0]], &line(json)].concat(), "line 2 is damaged");
    }
    let earlier = line("{\"passed\":{\"position\":9,\"clock\":9}}");
    let words = "line 4 comes before the one before it";
    refused(&place, &[&good[..starts[2]], &earlier].concat(), words);
}

#[test]
fn a_machine_that_cannot_be_is_refused() {
    let place = Place::new();
    let kernel = place.file("kernel", b"");
    let good = header(&kernel);
    for (header, words) in [
        (Header { vcpus: 0, ..good.clone() }, "0 vCPUs"),
        (Header { vcpus: 255, ..good.clone() }, "255 vCPUs"),
        (Header { memory_bytes: 0, ..good.clone() }, "memory must be between"),
        (Header { memory_bytes: 4097, ..good.clone() }, "memory comes in multiples"),
        (Header { memory_bytes: u64::MAX, ..good.clone() }, "memory must be between"),
        (Header { schedule: "by dice".into(), ..good.clone() }, "run.replay"),
        (Header { schedule: "turns=0".into(), ..good }, "run.replay"),
    ] {
        refused(&place, &log(&header), words);
    }
}

#[test]
fn what_the_run_began_with_has_to_be_there_and_the_same() {
    let place = Place::new();
    let (kernel, gone) = (place.file("kernel", &image()), gone(&place));
    let good = header(&kernel);
    let disk = |path: &Path| {
        let (path, sha256) = (text(path).into(), EMPTY.into());
        vec![DiskIdentity { path, sha256, is_read_only: false }]
    };
    for (header, words) in [
        (header(&gone), "--kernel: "),
        (Header { initrd: Some(file(&gone)), ..good.clone() }, "--initrd: "),
        (Header { devicetree: Some(file(&gone)), ..good.clone() }, "--dtb: "),
        (Header { disks: disk(&gone), ..good.clone() }, "--disk: "),
    ] {
        refused(&place, &log(&header), words);
        refused(&place, &log(&header), "gone.bin: No such file");
    }
    // There, and another one. Only for this is anything asked of QEMU.
    let (other, el2) = (place.file("other", &[1; 4096]), place.file("el2", &image()));
    let qemu = place.qemu("echo QEMU of long ago");
    let asked = ["--qemu", text(&qemu), "--hypervisor", text(&el2)];
    for (header, words) in [
        (good.clone(), "kernel is not the kernel that was recorded"),
        (Header { disks: disk(&other), ..good.clone() }, "is not the kernel"),
        (Header { initrd: Some(file(&other)), ..good }, "is not the kernel"),
    ] {
        let log = place.file("run.replay", &log(&header));
        let told = place.refused(&[&["replay", text(&log)], &asked[..]].concat());
        assert!(told.contains(words) && told.contains("name that one with --kernel"), "{told}");
    }
    let right = FileIdentity { path: text(&other).into(), sha256: sha256(&[1; 4096]) };
    let good = Header { kernel: right, ..header(&other) };
    for (header, option) in [
        (Header { initrd: Some(file(&other)), ..good.clone() }, "--initrd"),
        (Header { disks: disk(&other), ..good.clone() }, "--disk"),
    ] {
        let log = place.file("run.replay", &log(&header));
        let told = place.refused(&[&["replay", text(&log)], &asked[..]].concat());
        assert!(told.contains(&format!("name that one with {option}")), "{told}");
    }
    let log = place.file("run.replay", &log(&good));
    let more = ["--disk", text(&other)];
    let told = place.refused(&[&["replay", text(&log)], &more[..], &asked].concat());
    assert!(told.contains("1 disks are named, and the run has 0"), "{told}");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Another QEMU and another build may make another run: that is said before anything starts.
#[test]
fn another_qemu_is_told_before_it_starts() {
    let place = Place::new();
    let kernel = place.file("kernel", &[1; 4096]);
    let right = FileIdentity { path: text(&kernel).into(), sha256: sha256(&[1; 4096]) };
    let log = place.file("run.replay", &log(&Header { kernel: right, ..header(&kernel) }));
    let el2 = place.file("el2", &image());
    let script =
        "case $1 in --version) echo QEMU of today;; *) echo unknown CPU >&2; exit 1;; esac";
    let qemu = place.qemu(script);
    let mut command = assert_cmd::Command::cargo_bin("stepwell").unwrap();
    command.args(["replay", text(&log), "--qemu", text(&qemu), "--hypervisor", text(&el2)]);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    let [build, qemu, end] = lines[..] else { panic!("{told}") };
    assert!(build.contains("by another build of Stepwell: the replay may differ"), "{told}");
    assert!(qemu.contains("with QEMU of long ago, replayed with QEMU of today"), "{told}");
    assert!(end.contains("unknown CPU"), "{told}");
}

#[test]
fn a_position_that_the_run_does_not_have_is_told_before_anything_runs() {
    let place = Place::new();
    let kernel = place.file("kernel", &[1; 4096]);
    let right = FileIdentity { path: text(&kernel).into(), sha256: sha256(&[1; 4096]) };
    let log = place.file("run.replay", &log(&Header { kernel: right, ..header(&kernel) }));
    let el2 = place.file("el2", &image());
    let qemu = place.qemu("echo QEMU of long ago");
    let asked = ["--qemu", text(&qemu), "--hypervisor", text(&el2)];
    let output = place.path().join("part.stepwell");
    let (log, output) = (text(&log), text(&output));
    for (arguments, words) in [
        (&["replay", log, "--to", "61"][..], "the recording ends at position 60, before 61"),
        (&["step", "--replay", log, "--at", "60"], "ends at position 59, before 60"),
        (&["gdb", "--replay", log, "--at", "99999999999"], "ends at position 59"),
        (&["trace", "--replay", log, "--to", "60", "-o", output], "ends at position 59"),
        (
            &["trace", "--replay", log, "--from", "50", "--to", "50", "-o", output],
            "nothing to record",
        ),
        (&["trace", "--replay", log, "--from", "70", "-o", output], "nothing to record"),
        (&["step", "--replay", log, "--at", "no_such_place"], "no_such_place"),
    ] {
        let told = place.refused_after_notices(&[arguments, &asked].concat());
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    for word in ["0", "-1", "start", "1e9", ""] {
        let mut command = assert_cmd::Command::cargo_bin("stepwell").unwrap();
        command.args(["replay", log, "--to", word]).assert().code(1);
    }
    assert!(!Path::new(output).exists());
}

#[test]
fn what_cannot_be_recorded_leaves_no_log() {
    let place = Place::new();
    let (kernel, el2) = (place.file("kernel", &image()), place.file("el2", &image()));
    let disk = place.file("disk.img", &[0; 4096]);
    let qemu =
        place.qemu("case $1 in --version) echo QEMU;; *) echo no such CPU >&2; exit 1;; esac");
    let there = place.file("there.replay", b"precious");
    let new = place.path().join("new.replay");
    let nowhere = place.path().join("nowhere/new.replay");
    let snapshot = format!("{},snapshot", text(&disk));
    for (arguments, words) in [
        (&["-o", text(&there)][..], "choose another name, or remove it"),
        (&["-o", text(&nowhere)], "nowhere/new.replay: No such file"),
        (&["-o", "/dev/full"], "No space left on device"),
        (&["-o", text(&new), "--disk", text(&disk)], "attach it with `,snapshot` or `,readonly`"),
        (&["-o", text(&new), "--entropy", "host"], "use --entropy seed=N"),
        (&["-o", text(&new), "--runs", "2"], "--schedule random"),
        (&["-o", text(&new), "--disk", &snapshot], "no such CPU"),
    ] {
        let guest = ["--kernel", text(&kernel), "--qemu", text(&qemu), "--hypervisor", text(&el2)];
        let told = place.refused(&[&["record"], &guest[..], arguments].concat());
        assert!(told.contains(words), "{arguments:?}: {told}");
        assert!(!new.exists(), "{arguments:?}");
        if !arguments.contains(&"--runs") {
            let told = place.refused(&[&["gdb", "--record"], &arguments[1..], &guest].concat());
            assert!(told.contains(words), "{arguments:?}: {told}");
            assert!(!new.exists(), "{arguments:?}");
        }
    }
    assert_eq!(fs::read(&there).unwrap(), b"precious");
}
