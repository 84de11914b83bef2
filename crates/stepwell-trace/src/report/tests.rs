//! Small recordings, and what their page is given.

use super::*;
use crate::code::CodePages;
use crate::format::{Event, ExceptionCause, ExceptionEntry, Record, Waiting};
use crate::symbols::{Symbol, SymbolKind, Symbols};
use serde_json::Value;
use stepwell_arch::address::Va;

const MAIN: u64 = 0xffff_8000_0000_1000;
const WORK: u64 = 0xffff_8000_0000_2000;
const LOCK: u64 = 0xffff_8000_0000_3000;
const VECTOR: u64 = 0xffff_8000_0000_4000;
const EVIL: &str = "</script><script>alert(1)</script>";

const RET: u32 = 0xd65f_03c0;
const ERET: u32 = 0xd69f_03e0;
const READ_IAR: u32 = 0xd538_cc00;
const STXR: u32 = 0xc802_7c20;
const CBNZ: u32 = 0x35ff_ffe2;

fn symbols() -> Symbols {
    let list = [(EVIL, MAIN), ("work", WORK), ("osq_lock", LOCK), ("vectors", VECTOR)];
    let kind = SymbolKind::Function;
    let symbol =
        |(name, address): (&str, u64)| Symbol { address, size: 0x1000, kind, name: name.into() };
    Symbols::new(list.map(symbol), None)
}

fn code() -> CodePages {
    let mut pages = CodePages::default();
    let bl = |from: u64, to: u64| 0x9400_0000 | ((to - from) / 4) as u32;
    let mut put = |at: u64, words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        pages.insert(Va(at), &bytes);
    };
    put(MAIN, &[bl(MAIN, WORK), bl(MAIN + 4, LOCK), 0xd503_201f]);
    put(WORK, &[0xd503_201f, 0x9100_0421, RET]);
    put(LOCK, &[STXR, CBNZ, RET]);
    put(VECTOR, &[0xd503_201f, READ_IAR, 0xd503_201f, ERET]);
    pages
}

const fn run(pc: u64, length: u32) -> Record {
    Record::Run { vcpu: 0, pc: Va(pc), length }
}

/// A call, a lock whose store-exclusive fails twice, an interrupt that is acknowledged.
fn records() -> Vec<Record> {
    let entry = ExceptionEntry {
        vcpu: 0,
        cause: ExceptionCause::Irq,
        return_address: Va(MAIN + 8),
        vector: Va(VECTOR),
        syndrome: 0,
        intid: Some(27),
    };
    vec![
        Record::Time { ns: 1_000 },
        run(MAIN, 1),
        run(WORK, 3),
        run(MAIN + 4, 1),
        run(LOCK, 2),
        run(LOCK, 2),
        run(LOCK, 3),
        Record::Interrupt { vcpu: 0, pc: Va(MAIN + 8) },
        Record::ExceptionEntry(entry),
        run(VECTOR, 4),
        run(MAIN + 8, 1),
        Record::Time { ns: 4_500 },
    ]
}

fn page(records: impl IntoIterator<Item = Record>, facts: Facts) -> String {
    let report = of_records(records, &code(), &symbols(), facts).expect("capstone has A64");
    let mut out = Vec::new();
    report.write(&mut out).expect("memory can be written to");
    String::from_utf8(out).expect("a page is text")
}

fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").expect("the page has data");
    let (json, _) = rest.split_once("</script>").expect("the data has an end");
    serde_json::from_str(json).expect("the data is JSON")
}

#[test]
fn what_happened_is_counted() {
    let data = data(&page(records(), Facts::default()));
    let headline = &data["headline"];
    for (name, count) in [("instructions", 17), ("calls", 2), ("interrupts", 1), ("user", 0)] {
        assert_eq!(headline[name], count, "{name}");
    }
    assert_eq!(headline["nanoseconds"], 3_500);
    let exclusives = &data["exclusives"];
    assert_eq!((&exclusives["stores"], &exclusives["failed"]), (&3.into(), &2.into()));
    assert_eq!(exclusives["list"][0], serde_json::json!(["osq_lock", 3, 2]));
    assert_eq!(data["interrupts"]["cost"]["max"], 4);
    assert_eq!(data["interrupts"]["latency"]["max"], 2);
    assert_eq!(data["interrupts"]["handlers"][0]["name"], "(handler unknown), INTID 27");
    assert_eq!((&data["locks"]["total"], &data["locks"]["cost"]["count"]), (&7.into(), &1.into()));
    let mix = data["mix"].as_array().expect("the mix is a list");
    let calls = mix.iter().find(|row| row[0] == "Call, return").expect("there are calls");
    assert_eq!(calls[1], 4);
    let own: u64 =
        data["functions"].as_array().into_iter().flatten().filter_map(|f| f[1].as_u64()).sum();
    assert_eq!(own, 17);
}

#[test]
fn results_that_the_recording_tells_count() {
    let mut records = records();
    for stored in [false, false, true] {
        let at = Record::Exclusive { vcpu: 0, pc: Va(LOCK), stored };
        records.insert(6, at);
    }
    assert_eq!(data(&page(records, Facts::default()))["exclusives"]["failed"], 2);
}

#[test]
fn what_a_vcpu_waited_for_is_counted_and_marked() {
    let mut records = records();
    let waits = |why, steps| Record::Turns { vcpu: 0, pc: Va(LOCK), why, steps };
    records.insert(6, waits(Waiting::Memory, 10_000));
    records.insert(5, waits(Waiting::Memory, 7));
    records.push(waits(Waiting::Interrupt, 5));
    let data = data(&page(records, Facts::default()));
    let turns = &data["turns"];
    assert_eq!((&turns["times"], &turns["instructions"]), (&3.into(), &10_012.into()));
    assert_eq!(turns["list"][0], serde_json::json!(["osq_lock", "memory", 2, 10_007]));
    assert_eq!(turns["marks"][1][0], "memory");
    let marks = turns["marks"][1][1].as_array().expect("marks are a list");
    let starts: Vec<_> = marks.iter().map(|mark| mark[1].as_u64()).collect();
    assert_eq!(starts, [Some(7), Some(9)], "instructions before them");
    let name = marks[0][4].as_u64().and_then(|name| data["names"].get(name as usize));
    assert_eq!(name, Some(&"osq_lock".into()));
}

#[test]
fn a_task_has_a_row() {
    let task = |pid, name: &str| {
        Record::Event(Event::Task { vcpu: 0, pid, tgid: pid, name: name.to_owned() })
    };
    let mut records = records();
    records.insert(4, task(7, "cat"));
    records.insert(0, task(1, EVIL));
    let page = page(records, Facts::default());
    assert!(!page.contains(EVIL));
    let data = data(&page);
    let rows = data["tasks"].as_array().expect("rows are a list");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows.iter().filter_map(|row| row[3].as_u64()).sum::<u64>(), 17);
    assert!(rows.iter().any(|row| row[2] == EVIL) && rows.iter().any(|row| row[2] == "cat"));
}

#[test]
fn no_name_breaks_out_of_the_page() {
    let facts = Facts { title: format!("{EVIL} & more"), ..Facts::default() };
    let page = page(records(), facts);
    assert!(!page.contains(EVIL));
    assert_eq!(page.matches("</script>").count(), 2, "the data's and the scripts'");
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"));
    let data = data(&page);
    assert!(data["names"].as_array().into_iter().flatten().any(|name| name == EVIL));
}

#[test]
fn placeholders_in_the_data_stay_as_they_are() {
    let facts = Facts { title: "{{scripts}} {{".into(), ..Facts::default() };
    assert_eq!(data(&page(records(), facts))["title"], "{{scripts}} {{");
}

#[test]
fn nothing_is_a_report_too() {
    let data = data(&page([], Facts::default()));
    assert_eq!(data["headline"]["instructions"], 0);
    assert_eq!(data["timeline"]["vcpus"], serde_json::json!([]));
}

#[test]
fn a_page_is_bounded_whatever_was_recorded() {
    // Every vCPU goes through code that nothing names, from ever new addresses, with interrupts.
    let records = (0..300_000_u64).flat_map(|round| {
        let vcpu = (round % 256) as u8;
        let pc = Va(0x1000_0000 + (round.wrapping_mul(0x9e37_79b9) % 0x4000_0000) * 4);
        let interrupt = (round % 3 == 0).then_some(Record::Interrupt { vcpu, pc });
        [Some(Record::Run { vcpu, pc, length: 9 }), interrupt].into_iter().flatten()
    });
    let page = page(records, Facts::default());
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
}
