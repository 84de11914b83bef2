//! Small programs, executed by hand.

use super::*;
use crate::symbols::{Symbol, SymbolKind};
use stepwell_arch::address::Va;

const MAIN: u64 = 0x1000;
const WORK: u64 = 0x1100;
const TAIL: u64 = 0x1200;
const VECTOR: u64 = 0x2000;

const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const ERET: u32 = 0xd69f_03e0;

fn bl(from: u64, to: u64) -> u32 {
    0x9400_0000 | (to.wrapping_sub(from) / 4) as u32 & 0x03ff_ffff
}

fn b(from: u64, to: u64) -> u32 {
    0x1400_0000 | (to.wrapping_sub(from) / 4) as u32 & 0x03ff_ffff
}

fn symbols() -> Symbols {
    let list = [("main", MAIN), ("work", WORK), ("tail", TAIL), ("vector", VECTOR)];
    Symbols::new(
        list.map(|(name, address)| Symbol {
            address,
            size: 0,
            kind: SymbolKind::Function,
            name: name.into(),
        }),
        None,
    )
}

/// `main` calls `work` three times, the last of which jumps to `tail`.
fn code() -> CodePages {
    let mut pages = CodePages::default();
    let mut put = |at: u64, words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        pages.insert(Va(at), &bytes);
    };
    put(MAIN, &[NOP, bl(MAIN + 4, WORK), bl(MAIN + 8, WORK), bl(MAIN + 12, WORK), NOP, RET]);
    put(WORK, &[NOP, RET, b(WORK + 8, TAIL)]);
    put(TAIL, &[NOP, RET]);
    put(VECTOR, &[NOP, ERET]);
    pages
}

fn run(pc: u64, length: u32) -> Record {
    Record::Run { vcpu: 0, pc: Va(pc), length }
}

fn show(records: Vec<Record>, code: &CodePages) -> String {
    let mut out = Vec::new();
    outline(records, code, &symbols(), &mut out).expect("memory can be written to");
    String::from_utf8(out).expect("an outline is text")
}

fn program() -> Vec<Record> {
    vec![
        run(MAIN, 2),
        run(WORK, 2),
        run(MAIN + 8, 1),
        run(WORK, 2),
        run(MAIN + 12, 1),
        run(WORK + 8, 1),
        run(TAIL, 2),
        run(MAIN + 16, 2),
    ]
}

#[test]
fn calls_tail_calls_and_folding() {
    let expected = "vcpu 0: 13 instructions
          13  main
           4    work ×2
           3    work+0x8
           2      tail
";
    assert_eq!(show(program(), &code()), expected);
}

#[test]
fn interrupts_are_nodes_and_end_where_they_began() {
    let mut records = program();
    records.splice(1..1, [Record::Interrupt { vcpu: 0, pc: Va(WORK) }, run(VECTOR, 2)]);
    let expected = "vcpu 0: 15 instructions
          15  main
           4    work
           2      [interrupt at work+0x0]
           2        vector
           2    work
           3    work+0x8
           2      tail
";
    assert_eq!(show(records, &code()), expected);
}

#[test]
fn exceptions_are_nodes() {
    let records = vec![run(MAIN, 1), run(VECTOR, 2), run(MAIN + 4, 1), run(WORK, 2)];
    let expected = "vcpu 0: 6 instructions
           6  main
           2    [exception at main+0x0]
           2      vector
           2    work
";
    assert_eq!(show(records, &code()), expected);
}

#[test]
fn an_exception_return_can_end_a_call() {
    let mut pages = code();
    pages.insert(Va(WORK + 4), &ERET.to_le_bytes());
    let expected = "vcpu 0: 5 instructions
           5  main
           2    work
";
    assert_eq!(show(vec![run(MAIN, 2), run(WORK, 2), run(MAIN + 8, 1)], &pages), expected);
}

#[test]
fn without_code_symbols_decide() {
    let expected = "vcpu 0: 13 instructions
          13  main
           4    work ×2
           3    work
           2      tail
";
    let mut records = program();
    records[5] = run(WORK, 1);
    assert_eq!(show(records, &CodePages::default()), expected);
}

#[test]
fn a_trace_that_begins_inside_a_call_goes_on_beside_it() {
    let records = vec![run(WORK, 2), run(MAIN + 8, 1), run(WORK, 2), run(MAIN + 12, 1)];
    let expected = "vcpu 0: 6 instructions
           2  work
           4  main
           2    work
";
    assert_eq!(show(records, &code()), expected);
}

#[test]
fn endless_recursion_is_bounded() {
    let mut pages = CodePages::default();
    pages.insert(Va(MAIN), &bl(MAIN, MAIN).to_le_bytes());
    let records: Vec<Record> = (0..5000).map(|_| run(MAIN, 1)).collect();
    let text = show(records, &pages);
    assert!(text.starts_with("vcpu 0: 5000 instructions\n"), "{}", &text[..80]);
    assert!(text.lines().count() < 600);
}

#[test]
fn a_huge_trace_keeps_its_sum() {
    let mut pages = code();
    let words = [bl(MAIN, WORK), bl(MAIN + 4, TAIL), b(MAIN + 8, MAIN)];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    pages.insert(Va(MAIN), &bytes);
    let once = [run(MAIN, 1), run(WORK, 2), run(MAIN + 4, 1), run(TAIL, 2), run(MAIN + 8, 1)];
    let symbols = symbols();
    let mut outline = Outline::new(&pages, &symbols);
    for _ in 0..500_000 {
        once.iter().for_each(|record| outline.record(record));
    }
    let mut out = Vec::new();
    outline.write(None, &mut out).expect("memory can be written to");
    let text = String::from_utf8(out).expect("an outline is text");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("vcpu 0: 3500000 instructions"));
    assert_eq!(lines.next().map(str::trim), Some("3500000  main …"));
}

#[test]
fn what_is_deeper_than_wanted_is_marked() {
    let (pages, symbols) = (code(), symbols());
    let mut outline = Outline::new(&pages, &symbols);
    for record in [run(MAIN, 2), run(WORK, 2), run(MAIN + 8, 1)] {
        outline.record(&record);
    }
    let mut out = Vec::new();
    outline.write(Some(1), &mut out).expect("memory can be written to");
    let text = String::from_utf8(out).expect("an outline is text");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines, ["vcpu 0: 5 instructions", "5  main …"]);
}
