//! Recordings that are the same, and recordings that are not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;
use stepwell_arch::address::Va;
use stepwell_trace::diff::{
    Comparison, Count, FunctionChange, Instruction, Options, Side, compare,
};
use stepwell_trace::{Filter, Header, Reader, Record, Symbol, SymbolKind, Symbols, Writer};

const OPTIONS: Options = Options { by_symbol: false, context: 3 };
const BY_SYMBOL: Options = Options { by_symbol: true, context: 3 };

fn open(records: &[Record]) -> Reader<Cursor<Vec<u8>>> {
    let mut bytes = Vec::new();
    let header = Header { vcpus: 2, ..Header::default() };
    let mut writer = Writer::new(&mut bytes, &header).unwrap();
    for record in records {
        writer.record(record).unwrap();
    }
    writer.finish().unwrap();
    Reader::new(Cursor::new(bytes)).unwrap()
}

fn symbols(moved: u64) -> Symbols {
    let list = [("f", 0x1000, 0x100), ("g", 0x1100, 0x100), ("h", 0x1200, 0)];
    let kind = SymbolKind::Function;
    Symbols::new(
        list.map(|(name, address, size)| Symbol {
            address: address + moved,
            size,
            kind,
            name: name.into(),
        }),
        None,
    )
}

fn run(vcpu: u8, pc: u64, length: u32) -> Record {
    Record::Run { vcpu, pc: Va(pc), length }
}

fn compared(first: &[Record], second: &[Record], moved: u64, options: Options) -> Comparison {
    let (mut first, mut second) = (open(first), open(second));
    let (ours, theirs) = (symbols(0), symbols(moved));
    let first = Side { source: &mut first, symbols: &ours, filter: Filter::new() };
    let second = Side { source: &mut second, symbols: &theirs, filter: Filter::new() };
    compare(first, second, options).unwrap()
}

fn at(list: &[(u64, u64)]) -> Vec<Instruction> {
    list.iter().map(|(at, pc)| Instruction { at: *at, pc: Va(*pc) }).collect()
}

#[test]
fn how_runs_are_cut_and_vcpus_take_turns_makes_no_difference() {
    let first = [run(0, 0x1000, 8), run(1, 0x1100, 2), run(1, 0x1200, 1)];
    let second = [
        run(1, 0x1100, 1),
        run(0, 0x1000, 3),
        run(1, 0x1104, 1),
        run(0, 0x100c, 5),
        run(1, 0x1200, 1),
    ];
    let comparison = compared(&first, &second, 0, OPTIONS);
    assert!(comparison.is_equal(), "{comparison:?}");
    assert_eq!(comparison.vcpus.iter().map(|vcpu| vcpu.same).collect::<Vec<_>>(), [8, 3]);
    assert!(comparison.functions.is_empty());
}

#[test]
fn the_first_difference_comes_with_what_is_around_it() {
    let first = [run(0, 0x1000, 5), run(0, 0x1100, 2), run(0, 0x1200, 9)];
    let second = [run(0, 0x1000, 5), run(0, 0x1100, 1), run(0, 0x1200, 1), run(0, 0x1000, 1)];
    let comparison = compared(&first, &second, 0, OPTIONS);
    assert!(!comparison.is_equal());
    let [vcpu, other] = &comparison.vcpus[..] else { panic!("two vCPUs") };
    assert_eq!((vcpu.same, other.same, &other.parting), (6, 0, &None));
    let parting = vcpu.parting.as_ref().unwrap();
    assert_eq!(parting.before, at(&[(3, 0x100c), (4, 0x1010), (5, 0x1100)]));
    assert_eq!(parting.first, at(&[(6, 0x1104), (7, 0x1200), (8, 0x1204)]));
    assert_eq!(parting.second, at(&[(6, 0x1200), (7, 0x1000)]));
    let change = |name: &str, first: (u64, u64), second: (u64, u64)| FunctionChange {
        name: name.into(),
        first: Count { instructions: first.0, calls: first.1 },
        second: Count { instructions: second.0, calls: second.1 },
    };
    assert_eq!(
        comparison.functions,
        [change("h", (9, 1), (1, 1)), change("f", (5, 1), (6, 2)), change("g", (2, 1), (1, 1)),]
    );
    assert_eq!(comparison.functions[0].change(), -8);
}

#[test]
fn a_recording_that_ends_early_is_different() {
    let (first, second) = ([run(1, 0x1000, 5)], [run(1, 0x1000, 3)]);
    let comparison = compared(&first, &second, 0, OPTIONS);
    let parting = comparison.vcpus[1].parting.as_ref().unwrap();
    assert_eq!((parting.first.len(), parting.second.len(), parting.before.len()), (2, 0, 3));
    assert!(!compared(&[], &first, 0, OPTIONS).is_equal());
    assert!(compared(&[], &[], 0, OPTIONS).is_equal());
}

#[test]
fn a_kernel_that_was_moved_is_compared_by_symbol() {
    let moved = 0x7_0000;
    // The run goes through two functions, and the last is in none.
    let first = [run(0, 0x10f8, 4), run(0, 0x1200, 1), run(0, 0x10, 2)];
    let second = [run(0, 0x10f8 + moved, 4), run(0, 0x1200 + moved, 1), run(0, 0x10, 2)];
    assert!(!compared(&first, &second, moved, OPTIONS).is_equal());
    let comparison = compared(&first, &second, moved, BY_SYMBOL);
    assert!(comparison.is_equal() && comparison.functions.is_empty(), "{comparison:?}");
    let other = [run(0, 0x10f8 + moved, 3), run(0, 0x1200 + moved, 1), run(0, 0x10, 2)];
    let comparison = compared(&first, &other, moved, BY_SYMBOL);
    assert_eq!(comparison.vcpus[0].same, 3);
    let parting = comparison.vcpus[0].parting.as_ref().unwrap();
    assert_eq!(parting.first[0], Instruction { at: 3, pc: Va(0x1104) });
    assert_eq!(parting.second[0], Instruction { at: 3, pc: Va(0x1200 + moved) });
}
