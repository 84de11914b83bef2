//! Recordings: that they are what was printed live, whatever becomes of the tool, and that what
//! they tell beside PCs is what the guest has.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use stepwell_arch::Va;
use stepwell_debuggee::{
    Debuggee, InterruptPolicy, Place, Registers, StepRequest, TraceDetail, TraceRecord, VcpuId,
    contract,
};
use stepwell_link::Link;
use stepwell_tests::guest::{Guest, folder};
use stepwell_tests::machine::launch;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::{Running, kill_one, run};
use stepwell_tests::stepwell::{binary, command};
use stepwell_trace::{Ending, ExceptionCause, MemoryAccess, MemoryAccessKind, Reader, Record};

const LIMIT: Duration = Duration::from_secs(300);
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };

fn debian(smp: u8) -> Setup {
    Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some("console=ttyAMA0".to_owned()),
        smp,
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    }
}

/// What `show --format pc` says of a recording.
fn shown(file: &Path) -> String {
    let mut show = std::process::Command::new(binary());
    show.arg("show").arg(file).args(["--format", "pc"]);
    let finished = run(&mut show, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    finished.stdout
}

fn records(file: &Path) -> (Vec<Record>, Option<Ending>) {
    let mut reader = Reader::open(file).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        records.push(record);
    }
    (records, reader.ending())
}

/// Records with `--print`, and returns what was printed and what is shown.
fn printed_and_shown(setup: &Setup, options: &[&str]) -> (String, String, Vec<Record>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.stw");
    let mut trace = command("trace", setup);
    trace.args(["--print", "-o"]).arg(&file).args(options);
    let finished = run(&mut trace, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    assert!(finished.left_behind.is_empty(), "{:?}", finished.left_behind);
    let (records, ending) = records(&file);
    assert!(matches!(ending, Some(Ending::Finished(_))), "{ending:?}");
    (finished.stdout, shown(&file), records)
}

fn first_difference(a: &str, b: &str) -> Option<usize> {
    (a != b).then(|| a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count())
}

#[test]
fn a_recording_is_what_was_printed() {
    let options = ["--steps", "3000000", "--irq", "into"];
    let (printed, shown, records) = printed_and_shown(&debian(1), &options);
    assert_eq!(printed.lines().count(), 3_000_000);
    assert_eq!(first_difference(&printed, &shown), None);
    // Exceptions come in pairs with what they lead to, and the clock only goes on.
    let times: Vec<u64> = records
        .iter()
        .filter_map(|record| if let Record::Time { ns } = record { Some(*ns) } else { None })
        .collect();
    assert!(times.len() > 10 && times.is_sorted(), "{} times", times.len());
    let exclusives =
        records.iter().filter(|record| matches!(record, Record::Exclusive { .. })).count();
    assert!(exclusives > 10, "the boot takes locks: {exclusives}");
}

#[test]
fn several_vcpus_in_turn_are_what_was_printed() {
    // Where the second CPU is started.
    let setup = debian(2);
    let options = ["--at", "secondary_start_kernel", "--others", "step=777", "--steps", "200000"];
    let (printed, shown, _) = printed_and_shown(&setup, &options);
    assert_eq!(first_difference(&printed, &shown), None);
    for vcpu in ["0 ", "1 "] {
        let count = printed.lines().filter(|line| line.starts_with(vcpu)).count();
        assert!(count > 10_000, "vCPU {vcpu}has {count}");
    }
}

#[test]
fn a_killed_tool_leaves_a_recording_and_no_machine() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.stw");
    let mut trace = command("trace", &debian(1));
    trace.args(["--print", "--steps", "100000000", "--irq", "into", "-o"]).arg(&file);
    trace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut tool = Running::start(&mut trace).unwrap();
    tool.kill_after(LIMIT);
    let mut lines = tool.lines().unwrap();
    // Until some chunks are on the disk; then in the middle of whatever it does.
    let mut printed = Vec::new();
    for _ in 0..400_000 {
        assert!(lines.read_until(b'\n', &mut printed).unwrap() > 0, "it ended by itself");
    }
    kill_one(tool.pid());
    lines.read_to_end(&mut printed).unwrap();
    let gone = Instant::now() + Duration::from_secs(20);
    while tool.family().iter().any(|(pid, _)| *pid != tool.pid()) {
        assert!(Instant::now() < gone, "left behind: {:?}", tool.family());
        std::thread::sleep(Duration::from_millis(50));
    }
    tool.kill();

    let mut reader = Reader::open(&file).unwrap();
    while let Ok(Some(_)) = reader.next_record() {}
    assert!(!matches!(reader.ending(), Some(Ending::Finished(_))));
    let instructions = reader.position() as usize;
    assert!(instructions > 100_000, "{instructions}");
    let mut shown = Vec::new();
    let mut reader = Reader::open(&file).unwrap();
    // A chunk that was cut off is told, behind everything before it.
    let _ = stepwell_trace::export::pc::write(&mut reader, &mut shown);
    assert!(printed.starts_with(&shown), "the recording is the beginning of what was printed");
    assert_eq!(shown.iter().filter(|byte| **byte == b'\n').count(), instructions);
}

#[test]
fn exceptions_are_told_with_their_causes() {
    let exceptions = Setup::new(&Guest::named("exceptions").path);
    let (_, _, records) = printed_and_shown(&exceptions, &["--steps", "1000000"]);
    let entries = |records: &[Record], wanted: ExceptionCause| {
        let entries = records.iter().filter_map(|record| match record {
            Record::ExceptionEntry(entry) if entry.cause == wanted => Some(*entry),
            _ => None,
        });
        entries.collect::<Vec<_>>()
    };
    let synchronous = entries(&records, ExceptionCause::Synchronous);
    let returns =
        records.iter().filter(|record| matches!(record, Record::ExceptionReturn { .. })).count();
    assert!(synchronous.len() > 10 && returns > 10, "{} {returns}", synchronous.len());
    // SVC #0x1234 at EL1: EC 0x15.
    assert!(synchronous.iter().any(|entry| entry.syndrome == 0x5600_1234));
    let vector = Guest::named("exceptions").synchronous_vector();
    assert!(synchronous.iter().any(|entry| entry.vector == Va(vector)));

    let timer = Setup::new(&Guest::named("timer").path);
    let (_, _, records) = printed_and_shown(&timer, &["--steps", "3000000", "--irq", "into"]);
    let interrupts = entries(&records, ExceptionCause::Irq);
    assert!(interrupts.iter().any(|entry| entry.intid == Some(27)), "{interrupts:?}");
    let interrupted =
        records.iter().filter(|record| matches!(record, Record::Interrupt { .. })).count();
    assert_eq!(interrupted, interrupts.len());
}

/// Steps once, recording, and returns what was recorded and the registers after it.
fn step(link: &mut Link) -> (Vec<TraceRecord>, Registers) {
    link.step(V0, StepRequest { record: true, ..StepRequest::steps(1) }).unwrap();
    contract::wait_for_stop(link);
    let mut records = Vec::new();
    link.support_trace().unwrap().drain(&mut records).unwrap();
    (records, link.read_registers(V0).unwrap())
}

/// The beginning of a guest is one loop that clears memory: goes on until there is more.
fn past_the_beginning(link: &mut Link) {
    loop {
        link.step(V0, StepRequest { record: true, ..StepRequest::steps(100) }).unwrap();
        contract::wait_for_stop(link);
        let mut records = Vec::new();
        link.support_trace().unwrap().drain(&mut records).unwrap();
        let starts = records.iter().filter_map(|record| match record {
            TraceRecord::Run { pc, .. } => Some(pc.0),
            _ => None,
        });
        if starts.collect::<std::collections::BTreeSet<_>>().len() > 6 {
            return;
        }
    }
}

/// Steps a guest one by one with everything recorded, and asks for the same by other ways: the
/// registers as the debugger reads them, memory likewise.
fn details_are_true(name: &str, steps: usize) {
    let code = fs::read(Guest::named(name).path).unwrap();
    let (_machine, mut link) = launch(&code, "cortex-a57", 1).unwrap();
    contract::wait_for_stop(&mut link);
    link.support_interrupts().unwrap().set_interrupt_policy(0, InterruptPolicy::Into).unwrap();
    past_the_beginning(&mut link);
    let everything = TraceDetail { registers: true, memory: true };
    link.support_trace().unwrap().set_detail(0, everything).unwrap();
    let mut told = [0; 33];
    let (mut loads, mut stores) = (0, 0);
    for turn in 0..steps {
        let (records, registers) = step(&mut link);
        for record in &records {
            match *record {
                TraceRecord::Register { register, value, found, .. } => {
                    assert!(turn == 0 || !found, "{record:?}");
                    told[usize::from(register.number())] = value;
                }
                TraceRecord::Memory(MemoryAccess { access, address, size, value, .. }) => {
                    let is_load = access == MemoryAccessKind::Load;
                    *if is_load { &mut loads } else { &mut stores } += 1;
                    let mut bytes = vec![0; usize::from(size)];
                    // Devices cannot be read, and were told from the register.
                    if link.read_memory(V0, Place::Va(address), &mut bytes).is_err() {
                        assert!(value.is_some(), "{record:?}");
                        continue;
                    }
                    let mut wide = [0; 16];
                    wide[..bytes.len().min(16)].copy_from_slice(&bytes[..bytes.len().min(16)]);
                    // An atomic has loaded what it has overwritten since.
                    let is_overwritten = records.iter().any(|other| {
                        matches!(other, TraceRecord::Memory(other)
                            if is_load
                                && other.access == MemoryAccessKind::Store
                                && other.address == address)
                    });
                    if !is_overwritten {
                        assert_eq!(value, Some(u128::from_le_bytes(wide)), "{record:?}");
                    }
                }
                _ => {}
            }
        }
        let mut expected = [0; 33];
        expected[..31].copy_from_slice(&registers.x);
        (expected[31], expected[32]) = (registers.sp, registers.pstate);
        assert_eq!(told, expected, "{name}, step {turn}, at {:#x}", registers.pc);
    }
    assert!(loads + stores > 10, "{name}: {loads} loads, {stores} stores");
}

#[test]
fn registers_and_memory_are_those_of_the_guest() {
    for (name, steps) in [("exclusives", 800), ("exceptions", 800), ("simd", 800), ("uart", 250)] {
        details_are_true(name, steps);
    }
}
