//! Tarmac lines against the grammar of `export::tarmac`, which is that of Fast Models' lines with
//! nothing but 64-bit Arm in it.

use super::sample::{open, records, sample};
use super::{assert_golden, text};
use stepwell_trace::export::streams::{Folder, OneStream};
use stepwell_trace::export::tarmac::write;

fn exported() -> String {
    let mut out = Vec::new();
    write(&mut sample(), &mut OneStream::new(&mut out)).unwrap();
    text(out)
}

#[test]
fn lines_are_the_golden_ones() {
    assert_golden("tarmac.txt", &exported());
}

fn is_hex(word: &str, digits: usize) -> bool {
    word.len() == digits && word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_data(word: &str, digits: usize) -> bool {
    is_hex(word, digits) || word.len() == digits && word.bytes().all(|byte| byte == b'x')
}

/// Checks a line, and returns its time.
fn parse(line: &str) -> Option<u64> {
    let mut words = line.split(' ');
    let time: u64 = words.next()?.parse().ok()?;
    (words.next()? == "clk").then_some(())?;
    words.next()?.strip_prefix("cpu")?.parse::<u8>().ok()?;
    match words.next()? {
        "IT" => {
            let index = words.next()?.strip_prefix('(')?.strip_suffix(')')?;
            let is_counted = index.parse::<u64>().ok()? == time;
            let is_placed = is_hex(words.next()?, 16) && is_hex(words.next()?, 8);
            let is_a64 = words.next()? == "O";
            let is_mode = ["EL0t_n", "EL1t_n", "EL1h_n"].contains(&words.next()?);
            let is_followed = words.next()? == ":";
            // What comes first is a mnemonic: letters, digits and dots.
            let mnemonic = words.next()?;
            let is_text =
                mnemonic.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.');
            (is_counted && is_placed && is_a64 && is_mode && is_followed && is_text).then_some(time)
        }
        "R" => {
            let name = words.next()?;
            let number = name.strip_prefix('X').and_then(|number| number.parse::<u8>().ok());
            let digits = match (name, number) {
                ("cpsr", _) => 8,
                ("SP_EL0" | "SP_EL1", _) | (_, Some(0..=30)) => 16,
                _ => return None,
            };
            (is_hex(words.next()?, digits) && words.next().is_none()).then_some(time)
        }
        "E" => {
            let is_placed = is_hex(words.next()?, 16) && is_hex(words.next()?, 8);
            let is_named = words.next()?.starts_with("CoreEvent_");
            (is_placed && is_named && words.next().is_none()).then_some(time)
        }
        access => {
            let size = access.strip_prefix("MR").or_else(|| access.strip_prefix("MW"))?;
            is_hex(words.next()?, 16).then_some(())?;
            let data = words.next()?;
            let is_right = match size {
                "1" => is_data(data, 2),
                "2" => is_data(data, 4),
                "4" => is_data(data, 8),
                "8" => {
                    let (high, low) = data.split_once('_')?;
                    is_data(high, 8) && is_data(low, 8)
                }
                "16" => is_data(data, 16) && is_data(words.next()?, 16),
                _ => false,
            };
            (is_right && words.next().is_none()).then_some(time)
        }
    }
}

#[test]
fn every_line_fits_the_grammar_and_time_does_not_go_back() {
    let mut last = 0;
    for line in exported().lines() {
        let time = parse(line).unwrap_or_else(|| panic!("no Tarmac line: {line}"));
        assert!(time >= last, "{line}");
        last = time;
    }
}

#[test]
fn every_vcpu_has_its_file_with_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    write(&mut sample(), &mut Folder::create(&path, "tarmac").unwrap()).unwrap();
    let both = exported();
    for vcpu in 0..2 {
        let file = std::fs::read_to_string(path.join(format!("cpu{vcpu}.tarmac"))).unwrap();
        let name = format!(" cpu{vcpu} ");
        let own: Vec<&str> = both.lines().filter(|line| line.contains(&name)).collect();
        assert_eq!(file.lines().collect::<Vec<_>>(), own);
        assert!(!own.is_empty());
    }
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
}

#[test]
fn runs_that_were_joined_or_cut_make_the_same_lines() {
    let single = records().into_iter().flat_map(|record| match record {
        stepwell_trace::Record::Run { vcpu, pc, length } => (0..u64::from(length))
            .map(|n| stepwell_trace::Record::Run { vcpu, pc: pc.offset(4 * n), length: 1 })
            .collect(),
        other => vec![other],
    });
    let mut out = Vec::new();
    write(&mut open(&single.collect::<Vec<_>>()), &mut OneStream::new(&mut out)).unwrap();
    assert_eq!(text(out), exported());
}
