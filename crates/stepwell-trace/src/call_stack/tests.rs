//! Small schedulers, executed by hand.

use super::*;
use crate::format::{ExceptionCause, ExceptionEntry};
use crate::symbols::{Symbol, SymbolKind};

const BL: u32 = 0x9400_0000;
const RET: u32 = 0xd65f_03c0;
const ERET: u32 = 0xd69f_03e0;
const SVC: u32 = 0xd400_0001;

const SCHEDULE: u64 = 0x1000;
const SWITCH: u64 = 0x2000;
const ALPHA: u64 = 0x3000;
const BETA: u64 = 0x4000;
const FORK: u64 = 0x5000;
const VECTOR: u64 = 0x6000;

/// Writes what it is told, as text.
#[derive(Default)]
struct Log {
    text: String,
    depth: BTreeMap<u8, usize>,
    executed: u64,
}

impl CallVisitor for Log {
    fn enter(&mut self, entry: Entry<'_>) {
        *self.depth.entry(entry.vcpu).or_default() += 1;
        let sign = if entry.resumed { '>' } else { '+' };
        let kind = match entry.kind {
            FrameKind::Function | FrameKind::Found => "",
            FrameKind::TailCall => "tail ",
            FrameKind::Exception => "exception in ",
            FrameKind::Interrupt => "interrupt in ",
        };
        self.text += &format!("{sign}{kind}{}\n", entry.name);
    }

    fn leave(&mut self, exit: Exit) {
        let depth = self.depth.get_mut(&exit.vcpu).expect("it was entered before");
        *depth -= 1;
        self.text += if exit.suspended { "<\n" } else { "-\n" };
    }

    fn execute(&mut self, vcpu: u8, _pc: Va, length: u32) {
        assert!(self.depth[&vcpu] > 0, "nothing runs outside of a frame");
        self.executed += u64::from(length);
    }
}

fn symbols() -> Symbols {
    let list = [
        ("schedule", SCHEDULE),
        ("cpu_switch_to", SWITCH),
        ("alpha", ALPHA),
        ("beta", BETA),
        ("ret_from_fork", FORK),
        ("vector", VECTOR),
    ];
    let kind = SymbolKind::Function;
    Symbols::new(
        list.map(|(name, address)| Symbol { address, size: 0x100, kind, name: name.into() }),
        None,
    )
}

fn code() -> CodePages {
    let mut pages = CodePages::default();
    let mut put = |at: u64, word: u32| pages.insert(Va(at), &word.to_le_bytes());
    put(SCHEDULE, BL);
    put(SCHEDULE + 4, RET);
    put(SWITCH, RET);
    for caller in [ALPHA, BETA, FORK] {
        put(caller, BL);
        put(caller + 4, BL);
        put(caller + 8, SVC);
    }
    put(VECTOR, BL);
    put(VECTOR + 4, ERET);
    pages
}

/// Runs single instructions and returns what was told after the first `skip` of them.
fn told(pcs: &[u64], skip: usize) -> String {
    let (code, symbols, mut log) = (code(), symbols(), Log::default());
    let mut stacks = CallStacks::new(&code, &symbols);
    for (index, &pc) in pcs.iter().enumerate() {
        if index == skip {
            log.text.clear();
        }
        stacks.record(&Record::Run { vcpu: 0, pc: Va(pc), length: 1 }, &mut log);
    }
    let text = log.text.clone();
    stacks.finish(&mut log);
    assert_eq!((log.depth[&0], log.executed), (0, pcs.len() as u64));
    text
}

/// A task calls `schedule`, which switches: five instructions, the last in the new task.
const fn switch(from: u64, to: u64) -> [u64; 4] {
    [from, SCHEDULE, SWITCH, to]
}

#[test]
fn a_task_goes_on_where_it_was() {
    let mut pcs = switch(ALPHA, FORK).to_vec();
    pcs.extend([SCHEDULE, SWITCH, SCHEDULE + 4, ALPHA + 4]);
    let expected = "+schedule\n+cpu_switch_to\n-\n<\n<\n>alpha\n>schedule\n-\n";
    assert_eq!(told(&pcs, 4), expected);
}

#[test]
fn a_wrong_guess_is_found_by_the_first_return_that_contradicts_it() {
    // alpha waits, then beta; a third one switches to alpha, though beta waited shorter.
    let mut pcs = switch(ALPHA, BETA).to_vec();
    pcs.extend([SCHEDULE, SWITCH, FORK, SCHEDULE, SWITCH, SCHEDULE + 4, ALPHA + 4]);
    let wrong = "+schedule\n+cpu_switch_to\n-\n<\n<\n>beta\n>schedule\n";
    assert_eq!(told(&pcs, 7), format!("{wrong}<\n<\n>alpha\n"));
}

#[test]
fn a_task_that_nobody_saw_before_begins_a_stack() {
    // beta waits; where the guess returns to is neither beta nor anything else that waits.
    let mut pcs = switch(BETA, ALPHA).to_vec();
    pcs.extend([SCHEDULE, SWITCH, SCHEDULE + 4, FORK + 4]);
    let wrong = "+schedule\n+cpu_switch_to\n-\n<\n<\n>beta\n>schedule\n";
    assert_eq!(told(&pcs, 4), format!("{wrong}<\n<\n+ret_from_fork\n"));
}

#[test]
fn an_exception_return_tells_tasks_apart_too() {
    // Both tasks wait inside an exception, and are found by where they took it.
    let mut pcs = vec![ALPHA + 8];
    pcs.extend(switch(VECTOR, BETA + 8));
    pcs.extend(switch(VECTOR, FORK));
    pcs.extend([SCHEDULE, SWITCH, SCHEDULE + 4, VECTOR + 4, ALPHA + 12]);
    let told = told(&pcs, 13);
    let expected = "<\n<\n>alpha\n";
    assert!(told.ends_with(expected), "{told}");
    assert!(!told.contains("+alpha"), "{told}");
}

#[test]
fn tasks_that_never_end_are_bounded() {
    let mut pcs = Vec::new();
    for _ in 0..3000 {
        pcs.extend(switch(ALPHA, FORK));
    }
    assert!(told(&pcs, pcs.len() - 1).ends_with("+ret_from_fork\n"));
}

#[test]
fn vcpus_have_stacks_of_their_own() {
    let (code, symbols, mut log) = (code(), symbols(), Log::default());
    let mut stacks = CallStacks::new(&code, &symbols);
    for (vcpu, pc) in [(0, ALPHA), (1, BETA), (0, SCHEDULE), (1, SCHEDULE), (0, SCHEDULE + 4)] {
        stacks.record(&Record::Run { vcpu, pc: Va(pc), length: 1 }, &mut log);
    }
    stacks.record(&Record::Interrupt { vcpu: 1, pc: Va(SCHEDULE + 4) }, &mut log);
    let expected = "+alpha\n+beta\n+schedule\n+schedule\n+interrupt in schedule\n";
    assert_eq!(log.text, expected);
    stacks.finish(&mut log);
    assert!(log.depth.values().all(|depth| *depth == 0));
}

#[test]
fn an_interrupt_that_was_run_over_ends_where_it_came() {
    let (code, symbols, mut log) = (code(), symbols(), Log::default());
    let mut stacks = CallStacks::new(&code, &symbols);
    let run = |pc: u64| Record::Run { vcpu: 0, pc: Va(pc), length: 1 };
    let interrupt = |pc: u64| Record::Interrupt { vcpu: 0, pc: Va(pc) };
    // Once in a function's middle, then twice in a row where the call has led.
    let records = [
        run(ALPHA),
        interrupt(ALPHA + 4),
        run(ALPHA + 4),
        interrupt(BETA),
        interrupt(BETA),
        run(BETA),
    ];
    for record in &records {
        stacks.record(record, &mut log);
    }
    let twice = "+interrupt in beta\n-\n+interrupt in beta\n-\n";
    assert_eq!(log.text, format!("+alpha\n+interrupt in alpha\n-\n+beta\n{twice}"));
    assert_eq!(log.executed, 3);
}

#[test]
fn exceptions_that_the_recording_tells_are_frames() {
    let (code, symbols, mut log) = (code(), symbols(), Log::default());
    let mut stacks = CallStacks::new(&code, &symbols);
    let run = |pc: u64| Record::Run { vcpu: 0, pc: Va(pc), length: 1 };
    let entry = |cause, back: u64, syndrome| {
        let (return_address, vector) = (Va(back), Va(VECTOR + 4));
        let intid = None;
        let vcpu = 0;
        Record::ExceptionEntry(ExceptionEntry {
            vcpu,
            cause,
            return_address,
            vector,
            syndrome,
            intid,
        })
    };
    // An SVC, then a fault at a call's target, then an interrupt that is told twice.
    let records = [
        run(ALPHA + 8),
        entry(ExceptionCause::Synchronous, ALPHA + 12, 0x15 << 26),
        run(VECTOR + 4),
        run(ALPHA + 12),
        run(BETA),
        entry(ExceptionCause::Synchronous, SCHEDULE, 0x21 << 26),
        run(VECTOR + 4),
        run(SCHEDULE),
        Record::Interrupt { vcpu: 0, pc: Va(SWITCH) },
        entry(ExceptionCause::Irq, SWITCH, 0),
        run(VECTOR + 4),
        run(SWITCH),
    ];
    for record in &records {
        stacks.record(record, &mut log);
    }
    let svc = "+alpha\n+exception in alpha\n+vector\n-\n-\n";
    let fault = "+exception in schedule\n+vector\n-\n-\n";
    let interrupt = "+cpu_switch_to\n+interrupt in cpu_switch_to\n+vector\n-\n-\n";
    let between = log.text.strip_prefix(svc).expect("the SVC comes first");
    assert!(between.contains(fault), "{between}");
    assert!(between.ends_with(interrupt), "{between}");
    assert!(!log.text.contains("exception in beta"), "{}", log.text);
}

#[test]
fn a_new_task_may_begin_right_behind_the_switch() {
    let (code, symbols, mut log) = (code(), symbols(), Log::default());
    let mut stacks = CallStacks::new(&code, &symbols);
    for (pc, length) in [(ALPHA, 1), (SCHEDULE, 1), (SWITCH, 3)] {
        stacks.record(&Record::Run { vcpu: 0, pc: Va(pc), length }, &mut log);
    }
    assert!(log.text.ends_with("+cpu_switch_to\n-\n<\n<\n+cpu_switch_to\n"), "{}", log.text);
    assert_eq!(log.executed, 5);
}
