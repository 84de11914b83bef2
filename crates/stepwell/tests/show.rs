//! `stepwell show` and `stepwell diff` on a small recording: each format arrives where it was sent,
//! and what is wrong is told in one line. What is in each format is tested in `stepwell-trace`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use assert_cmd::Command;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use stepwell_arch::Va;
use stepwell_trace::format::{ChunkHeader, ChunkKind};
use stepwell_trace::{Event, Header, Symbol, SymbolKind, Symbols, Writer};
use tempfile::TempDir;

const BASE: u64 = 0xffff_8000_0800_0000;

/// A directory with recordings.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.record("a", 1, &[(0, 0, 40), (0, 0x100, 10), (0, 0x10, 1)]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a recording of runs: vCPU, offset, length; each a chunk of its own.
    fn record(&self, name: &str, vcpus: u8, runs: &[(u8, u64, u32)]) {
        let header = Header { vcpus, recorded: "pc".into(), ..Header::default() };
        let mut writer = Writer::create(self.path(name), &header).unwrap();
        let kind = SymbolKind::Function;
        let symbol = |name: &str, offset| Symbol {
            address: BASE + offset,
            size: 0x100,
            kind,
            name: name.into(),
        };
        let list = [symbol("start", 0), symbol("work", 0x100), symbol("idle", 0x200)];
        writer.symbols(&Symbols::new(list, None)).unwrap();
        writer.code(Va(BASE), &0xd503_201f_u32.to_le_bytes().repeat(1024)).unwrap();
        for &(vcpu, offset, length) in runs {
            writer.run(vcpu, Va(BASE + offset), length).unwrap();
            writer.flush_chunk().unwrap();
        }
        writer.finish().unwrap();
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::cargo_bin("stepwell").unwrap();
        command.current_dir(self.0.path()).args(words).output().unwrap()
    }

    /// Runs a command that must succeed, and returns what it wrote.
    fn shown(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), told.as_ref()), (Some(0), ""), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail, and returns the one line that says why.
    fn refused(&self, words: &[&str], status: i32) -> String {
        let output = self.run(words);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        told
    }
}

#[test]
fn each_text_format_goes_to_standard_output_or_a_file() {
    let place = Place::new();
    for (format, line) in [
        ("pc", "0 ffff800008000000"),
        ("disasm", "0 ffff800008000000 start+0x0 d503201f nop"),
        ("calls", "vcpu 0: 51 instructions"),
        ("tarmac", "0 clk cpu0 IT (0) ffff800008000000 d503201f O EL1h_n : NOP"),
    ] {
        let text = place.shown(&["show", "a", "--format", format]);
        assert_eq!(text.lines().next(), Some(line), "{format}");
        let nothing = place.shown(&["show", "a", "--format", format, "-o", "out"]);
        assert_eq!((nothing.as_str(), fs::read_to_string(place.path("out")).unwrap()), ("", text));
    }
    let json = place.shown(&["show", "a", "--format", "json"]);
    assert!(
        json.starts_with("{\"type\":\"header\",\"format\":\"stepwell\",\"version\":1,"),
        "{json}"
    );
    assert_eq!(json.lines().count(), 4);
}

#[test]
fn other_formats_write_their_files() {
    let place = Place::new();
    place.shown(&["show", "a", "--format", "perfetto", "--fold", "1", "-o", "a.perfetto"]);
    let timeline = fs::read(place.path("a.perfetto")).unwrap();
    assert!(timeline.windows(4).any(|bytes| bytes == b"work"));
    place.shown(&["show", "a", "--format", "flamegraph", "-o", "a.svg"]);
    let graph = fs::read_to_string(place.path("a.svg")).unwrap();
    assert!(graph.contains("<svg") && graph.contains("work"), "{graph}");
    let output = place.run(&["show", "a", "--format", "lcov", "-o", "a.info"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stepwell: 2 of 3 functions\n");
    let list = place.path("a.functions").canonicalize().unwrap();
    let info = fs::read_to_string(place.path("a.info")).unwrap();
    assert!(info.contains(&format!("SF:{}\n", list.display())), "{info}");
    assert_eq!(fs::read_to_string(list).unwrap().lines().count(), 3);
    let parquet = ["show", "a", "--format", "parquet", "-o", "a.parquet"];
    if cfg!(feature = "parquet") {
        place.shown(&parquet);
        assert!(fs::read(place.path("a.parquet")).unwrap().starts_with(b"PAR1"));
    } else {
        let told = place.refused(&parquet, 1);
        assert!(told.contains("make") && told.contains("--features parquet"), "{told}");
    }
}

#[test]
fn every_vcpu_has_its_tarmac_file() {
    let place = Place::new();
    place.record("smp", 2, &[(0, 0, 2), (1, 0, 3), (0, 8, 1)]);
    place.shown(&["show", "smp", "--format", "tarmac", "-o", "out"]);
    let lines = |name: &str| fs::read_to_string(place.path(name)).unwrap().lines().count();
    assert_eq!((lines("out/cpu0.tarmac"), lines("out/cpu1.tarmac")), (3, 3));
}

#[test]
fn filters_compose() {
    let place = Place::new();
    let count = |words: &[&str]| {
        let all = [&["show", "a", "--format", "pc"], words].concat();
        place.shown(&all).lines().count()
    };
    assert_eq!(count(&[]), 51);
    assert_eq!(count(&["--symbol", "work"]), 10);
    assert_eq!(count(&["--symbol", "start..idle"]), 51);
    assert_eq!(
        count(&["--symbol", "work", "--address", "0xffff800008000000..0xffff800008000010"]),
        14
    );
    assert_eq!(count(&["--from", "38", "--to", "45"]), 7);
    assert_eq!(count(&["--from", "38", "--to", "45", "--symbol", "work"]), 5);
    assert_eq!(count(&["--from", "1000"]), 0);
    assert_eq!(count(&["--user"]), 0);
    assert_eq!(count(&["--kernel", "--vcpu", "0", "--vcpu", "3"]), 51);
    assert_eq!(count(&["--vcpu", "1"]), 0);
    assert_eq!(count(&["--el", "1"]), 51);
}

#[test]
fn what_cannot_be_shown_is_told_in_a_line() {
    let place = Place::new();
    for (words, reason) in [
        (vec!["--symbol", "wrok"], "unknown symbol wrok; close to it: work"),
        (vec!["--symbol", "work..start"], "nothing is between"),
        (vec!["--from", "9", "--to", "9"], "nothing is from instruction 9 on and before 9"),
        (vec!["-o", "a"], "a is the recording itself"),
        (vec!["-o", "/nonexistent/out"], "/nonexistent/out: No such file"),
        (vec!["--symbols", "a"], "--symbols goes with --format lcov"),
        (vec!["--format", "lcov", "--symbols", "a"], "a: not an ELF"),
    ] {
        let told = place.refused(&[vec!["show", "a"], words].concat(), 1);
        assert!(told.contains(reason), "{told}");
    }
    for words in [["--address", "12"], ["--address", "x..y"], ["--address", "8..8"], ["--el", "2"]]
    {
        assert_eq!(place.run(&[vec!["show", "a"], words.to_vec()].concat()).status.code(), Some(1));
    }
}

#[test]
fn the_file_is_named_that_is_to_blame() {
    use object::write::{Symbol, SymbolSection};
    use object::{
        Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    };
    let place = Place::new();
    let mut elf =
        object::write::Object::new(BinaryFormat::Elf, Architecture::Aarch64, Endianness::Little);
    let line = elf.add_section(Vec::new(), b".debug_line".to_vec(), SectionKind::Debug);
    elf.append_section_data(line, &[0xff; 64], 1);
    elf.add_symbol(Symbol {
        name: b"work".to_vec(),
        value: 0x4008_0000,
        size: 4,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Absolute,
        flags: SymbolFlags::None,
    });
    let mut elf = elf.write().unwrap();
    // An executable, not an object file.
    elf[16] = 2;
    fs::write(place.path("elf"), elf).unwrap();
    let told = place.refused(&["show", "a", "--format", "lcov", "--symbols", "elf"], 1);
    assert!(told.contains("elf: its debug information makes no sense"), "{told}");
    let told = place.refused(&["show", "a", "-o", "/dev/full"], 1);
    assert!(told.contains("/dev/full: cannot write the output"), "{told}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    place.record("long", 1, &(0..200).map(|_| (0, 0, 1000)).collect::<Vec<_>>());
    let stepwell = assert_cmd::cargo::cargo_bin("stepwell");
    for format in ["pc", "disasm", "json", "tarmac", "calls", "lcov"] {
        // The shell's status is that of stepwell, not of head.
        let script = format!(
            "{} show long --quiet --format {format} 2>told | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}",
            stepwell.display()
        );
        let mut bash = std::process::Command::new("bash");
        let status = bash.current_dir(place.0.path()).args(["-c", &script]).status().unwrap();
        let told = fs::read_to_string(place.path("told")).unwrap();
        assert!(status.success() && told.is_empty(), "{format}: {status} {told}");
    }
}

#[test]
fn damage_is_an_error_and_with_salvage_the_rest_is_shown() {
    let place = Place::new();
    let mut bytes = fs::read(place.path("a")).unwrap();
    let chunks: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| &bytes[*at..at + 4] == b"SWCK").collect();
    // Header, symbols, code and the first records before it.
    let damaged = chunks[chunks.len() - 3];
    bytes[damaged + 45] ^= 1;
    fs::write(place.path("bad"), bytes).unwrap();
    let output = place.run(&["show", "bad", "--format", "pc"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains(&format!("bad: recording is damaged at byte {damaged}")), "{told}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 40);
    let output = place.run(&["show", "bad", "--format", "pc", "--salvage"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains(&format!("damaged at byte {damaged}")), "{told}");
    assert!(told.contains("10 instructions are missing"), "{told}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 41);
    place.refused(&["diff", "bad", "a", "--quiet"], 2);
}

#[test]
fn diff_has_a_status_for_each_outcome() {
    let place = Place::new();
    place.record("same", 1, &[(0, 0, 20), (0, 0x50, 20), (0, 0x100, 10), (0, 0x10, 1)]);
    place.record("other", 1, &[(0, 0, 40), (0, 0x100, 9), (0, 0x200, 2)]);
    assert_eq!(place.shown(&["diff", "a", "same"]), "vcpu 0: the same 51 instructions\n");
    let output = place.run(&["diff", "a", "other", "--context", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = "\
vcpu 0: 49 instructions are the same, then
            47  ffff80000800011c  work+0x1c                         nop
            48  ffff800008000120  work+0x20                         nop
A           49  ffff800008000124  work+0x24                         nop
A           50  ffff800008000010  start+0x10                        nop
B           49  ffff800008000200  idle+0x0                          nop
B           50  ffff800008000204  idle+0x4                          nop

3 functions differ in their counts, 3 shown:
        change    instr. in A    instr. in B calls in A calls in B  function
            +2              0              2          0          1  idle
            -1             41             40          1          1  start
            -1             10              9          1          1  work
";
    assert_eq!(text, expected);
    assert_eq!(place.run(&["diff", "a", "other", "--to", "49"]).status.code(), Some(0));
    let told = place.refused(&["diff", "a", "nothing"], 2);
    assert!(told.contains("nothing: No such file"), "{told}");
    assert_eq!(place.run(&["diff", "a"]).status.code(), Some(2));
    assert_eq!(place.run(&["show"]).status.code(), Some(1));
}

/// A few kilobytes that tell of very many instructions: nobody works for them.
#[test]
fn a_recording_that_tells_of_more_than_any_does_is_damaged() {
    const VAST: u64 = 0xffff_ffff;
    let place = Place::new();
    let formats = ["pc", "disasm", "calls", "flamegraph", "tarmac", "perfetto", "lcov", "json"];
    for (name, length, instructions, reason) in [
        ("vast", VAST, 100 * VAST, "the chunk tells of more instructions than any"),
        ("long", VAST, 1 << 20, "a run is longer than any"),
        ("untrue", 0xffff, 1 << 20, "another number of instructions than it says"),
    ] {
        fs::write(place.path(name), bomb(length, 100, instructions)).unwrap();
        for format in formats {
            let told = place.run(&["show", name, "--format", format, "-o", "out"]);
            let text = String::from_utf8(told.stderr).unwrap();
            assert_eq!(told.status.code(), Some(1), "{format}: {text}");
            assert!(text.contains(reason), "{name} as {format}: {text}");
        }
        let told = place.refused(&["report", name], 1);
        assert!(told.contains(reason), "{told}");
        let told = place.refused(&["diff", name, name], 2);
        assert!(told.contains(reason), "{told}");
    }
}

/// A recording with one chunk of `runs` runs of `length` instructions each.
fn bomb(length: u64, runs: u64, instructions: u64) -> Vec<u8> {
    let integer = |out: &mut Vec<u8>, mut value: u64| {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    };
    let mut file = Vec::new();
    drop(Writer::new(&mut file, &Header::default()).unwrap());
    let mut payload = Vec::new();
    for n in 0..runs {
        integer(&mut payload, length << 1);
        integer(&mut payload, 2 * n);
    }
    let header = ChunkHeader {
        kind: ChunkKind::Records,
        flags: 0,
        packed_length: payload.len() as u32,
        unpacked_length: payload.len() as u32,
        first_instruction: 0,
        instructions,
        payload_checksum: crc32fast::hash(&payload),
    };
    [file, header.encode().to_vec(), payload].concat()
}

#[test]
fn nothing_in_a_recording_reaches_a_terminal_as_an_escape() {
    let place = Place::new();
    let header = Header { cpu_model: "\x1b[2J".into(), ..Header::default() };
    let mut writer = Writer::create(place.path("evil"), &header).unwrap();
    let symbol = Symbol {
        address: BASE,
        size: 0x100,
        kind: SymbolKind::Function,
        name: "evil\x1b]0;title\x07\u{9b}2J".into(),
    };
    writer.symbols(&Symbols::new([symbol], None)).unwrap();
    writer.run(0, Va(BASE), 4).unwrap();
    writer.event(&Event::Note("a note\x1b[1A\u{9b}2J\r".into())).unwrap();
    writer.finish().unwrap();
    let seen = |words: &[&str]| {
        let Output { stdout, stderr, .. } = place.run(words);
        let text = String::from_utf8([stdout, stderr].concat()).unwrap();
        let lines = text.replace('\n', "");
        assert!(!lines.contains(char::is_control), "{words:?}: {lines:?}");
        text
    };
    for format in ["pc", "disasm", "calls", "flamegraph", "tarmac", "lcov", "json"] {
        seen(&["show", "evil", "--format", format]);
    }
    assert!(seen(&["show", "evil"]).contains("evil^[]0;title^G\\u{9b}2J+0x0"));
    seen(&["diff", "evil", "a"]);
    seen(&["show", "evil", "--symbol", "evi"]);
}
