//! SErrors, instruction by instruction: what is reported of each under every policy, and what the guest
//! sees. No guest can make one by itself, so the cases are here and not among those that plain QEMU is
//! the witness of.
//!
//! Source of the paths: Arm ARM (DDI 0487, issue L.b), "Asynchronous exception types", "Asynchronous
//! exception masking", "Prioritization and recognition of interrupts".

use crate::board::{
    Board, CONTINUE, DATA, ENTRY, ERET, HVC, NOP, SVC, WFI, ldr, ldxr, step, str, stxr,
};
use crate::cpu::Asynchronous::{self, After, Before};
use crate::cpu::{ERROR_ISS, FakeCpu};
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_protocol::{InterruptPolicy, Place, StopReason, TimePolicy};
use stepwell_vm::memory::GuestMemory;
use stepwell_wire::Command;

/// MSR DAIFClr, #4
const UNMASK: u32 = 0xd503_44ff;
const ESB: u32 = 0xd503_221f;
/// MSR ICC_IGRPEN1_EL1, X0
const ICC: u32 = 0xd518_cce0;
const MASKS: u64 = Pstate::A | Pstate::I | Pstate::F;
const VECTORS: u64 = 0x4000_8000;
const SYNC: u64 = VECTORS + 0x200;
const ERROR: u64 = VECTORS + 0x380;
/// Of both handlers, which are NOP and ERET.
const HANDLER: u64 = 2;

/// What is to be seen, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Instructions of the case, from the first to the last of these.
    Code(u64, u64),
    /// The handler of what the instruction before has raised.
    Sync,
    /// The handler of the SError.
    Error,
}
use Seen::{Code, Error, Sync};

struct Case {
    what: &'static str,
    program: &'static [u32],
    /// Whether PSTATE.A is set when it begins.
    masked: bool,
    /// Whether PSTATE.I and F are.
    interrupts_masked: bool,
    /// Where the SError comes.
    comes: (u64, Asynchronous),
    /// Under steps. The instruction that was begun when it came is executed first.
    path: &'static [Seen],
    /// Running freely; there is no step exception that it could come before.
    runs: Option<&'static [Seen]>,
    /// X3 in the end.
    leaves: u64,
}

const fn masked(
    what: &'static str,
    program: &'static [u32],
    comes: (u64, Asynchronous),
    path: &'static [Seen],
) -> Case {
    let runs = if let (_, Before) = comes { Some(path) } else { None };
    Case { what, program, masked: true, interrupts_masked: true, comes, path, runs, leaves: 0 }
}

const fn before(
    what: &'static str,
    program: &'static [u32],
    n: u64,
    path: &'static [Seen],
    runs: &'static [Seen],
) -> Case {
    Case { masked: false, runs: Some(runs), ..masked(what, program, (n, Before), path) }
}

const fn after(what: &'static str, program: &'static [u32], n: u64, path: &'static [Seen]) -> Case {
    Case { masked: false, ..masked(what, program, (n, After), path) }
}

const DEFERRED: &[u32] = &[NOP, ESB, UNMASK, NOP];
const SEQUENCE: &[u32] = &[ldxr(2, 1), NOP, stxr(3, 2, 1), NOP];
/// Three instructions, with an SError after the second, or before it.
const SECOND: &[Seen] = &[Code(0, 1), Error, Code(2, 2)];
const FIRST: &[Seen] = &[Code(0, 0), Error, Code(1, 2)];

const CASES: &[Case] = &[
    before("before NOP", &[NOP; 3], 1, SECOND, FIRST),
    after("after NOP", &[NOP; 3], 1, SECOND),
    before("before LDR", &[NOP, ldr(2, 1), NOP], 1, SECOND, FIRST),
    after("after LDR", &[NOP, ldr(2, 1), NOP], 1, SECOND),
    before("before STR", &[NOP, str(2, 1), NOP], 1, SECOND, FIRST),
    after("after STR", &[NOP, str(2, 1), NOP], 1, SECOND),
    before(
        "before SVC",
        &[NOP, SVC, NOP],
        1,
        &[Code(0, 1), Sync, Error, Code(2, 2)],
        &[Code(0, 0), Error, Code(1, 1), Sync, Code(2, 2)],
    ),
    after("after SVC", &[NOP, SVC, NOP], 1, &[Code(0, 1), Sync, Error, Code(2, 2)]),
    before("before HVC", &[NOP, HVC, NOP], 1, SECOND, FIRST),
    masked("masked", &[NOP; 4], (1, Before), &[Code(0, 3)]),
    masked("unmasked", &[NOP, UNMASK, NOP], (0, Before), SECOND),
    masked("after what unmasks", &[NOP, UNMASK, NOP], (1, After), SECOND),
    masked(
        "pending through SVC",
        &[NOP, SVC, UNMASK, NOP],
        (0, Before),
        &[Code(0, 1), Sync, Code(2, 2), Error, Code(3, 3)],
    ),
    masked("pending through HVC", &[HVC, UNMASK, NOP], (0, Before), SECOND),
    masked(
        "pending through an access of the GIC's interface",
        &[ICC, UNMASK, NOP],
        (0, Before),
        SECOND,
    ),
    masked("WFI ends", &[WFI, UNMASK, NOP], (0, Before), SECOND),
    masked("deferred by ESB", DEFERRED, (0, Before), &[Code(0, 3)]),
    Case {
        interrupts_masked: false,
        ..masked("deferred by ESB, interrupts unmasked", DEFERRED, (0, Before), &[Code(0, 3)])
    },
    Case {
        leaves: 1,
        ..before(
            "between exclusives",
            SEQUENCE,
            1,
            &[Code(0, 1), Error, Code(2, 3)],
            &[Code(0, 2), Error, Code(3, 3)],
        )
    },
    Case {
        leaves: 1,
        ..after("after a load-exclusive", SEQUENCE, 0, &[Code(0, 0), Error, Code(1, 3)])
    },
    masked("between exclusives, masked", SEQUENCE, (1, Before), &[Code(0, 3)]),
];

/// A guest at its first instruction.
fn board(case: &Case) -> (Board, FakeCpu) {
    let mut program = case.program.to_vec();
    // What the tests stop at.
    program.push(NOP);
    let board = Board::new(1, &program);
    let cpu = board.cpu(0);
    for vector in [SYNC, ERROR] {
        for (n, word) in (0..).zip([NOP, ERET]) {
            board.ram.write(Ipa(vector + 4 * n), &u32::to_le_bytes(word)).expect("it is RAM");
        }
    }
    let mut core = board.machine.domains[0].vcpus[0].core.lock();
    core.context.x[1] = DATA;
    if !case.masked {
        core.context.spsr &= !Pstate::A;
    }
    if !case.interrupts_masked {
        core.context.spsr &= !(Pstate::I | Pstate::F);
    }
    drop(core);
    let (n, when) = case.comes;
    cpu.error_at(ENTRY + 4 * n, when);
    (board, cpu)
}

/// The addresses of a path. `entry`: what an SError's entry adds, by where it comes back to.
fn addresses(path: &[Seen], entry: impl Fn(u64) -> Option<u64>, shows_errors: bool) -> Vec<u64> {
    let handler = |vector| (0..HANDLER).map(move |n| vector + 4 * n);
    let mut found = Vec::new();
    let mut next = ENTRY;
    for seen in path {
        match *seen {
            Code(first, last) => {
                found.extend((first..=last).map(|n| ENTRY + 4 * n));
                next = ENTRY + 4 * (last + 1);
            }
            Sync => found.extend(handler(SYNC)),
            Error if shows_errors => found.extend(entry(next).into_iter().chain(handler(ERROR))),
            Error => {}
        }
    }
    found
}

/// What the guest's handler saw, where the SError was taken last.
fn check_syndrome(case: &Case, path: &[Seen], cpu: &FakeCpu) {
    use stepwell_vm::cpu::Cpu as _;
    let Some(at) = path.iter().position(|seen| *seen == Error) else { return };
    let [Code(next, _), rest @ ..] = &path[at + 1..] else { panic!("code follows") };
    if rest.contains(&Sync) {
        return;
    }
    let what = case.what;
    let esr = cpu.read(SystemRegister::ESR_EL1);
    assert_eq!(esr, 0x2f << 26 | 1 << 25 | ERROR_ISS, "{what}: ESR_EL1");
    assert_eq!(cpu.read(SystemRegister::ELR_EL1), ENTRY + 4 * next, "{what}: ELR_EL1");
    let spsr = cpu.read(SystemRegister::SPSR_EL1);
    assert_eq!(spsr & (Pstate::SS | Pstate::A), 0, "{what}: SPSR_EL1");
}

fn check_result(case: &Case, policy: &str, stop: &crate::board::Stop, is_taken: bool) {
    let end = ENTRY + 4 * case.program.len() as u64;
    assert_eq!(stop.registers.pc, end, "{}, {policy}", case.what);
    // Nothing comes between the exclusives where it is not taken.
    let leaves = if is_taken { case.leaves } else { 0 };
    assert_eq!(stop.registers.x[3], leaves, "{}, {policy}: X3", case.what);
}

#[test]
fn steps_report_each_as_the_policy_says() {
    for case in CASES {
        for time in [TimePolicy::Stopped, TimePolicy::PerStep { ns: 16 }] {
            for policy in [InterruptPolicy::Hold, InterruptPolicy::Into, InterruptPolicy::Over] {
                let (board, cpu) = board(case);
                board.serve(&cpu, Command::SetInterruptPolicy { domain: 0, policy });
                board.serve(&cpu, Command::SetTimePolicy { domain: 0, policy: time });
                let told = addresses(case.path, |_| None, policy == InterruptPolicy::Into);
                // An entry is a step of its own.
                let entries = case.path.iter().filter(|seen| **seen == Error).count() as u64;
                let entries = if policy == InterruptPolicy::Into { entries } else { 0 };
                let stop = board.go(&cpu, step(told.len() as u64 + entries, true));
                let name = format!("{policy:?}, {time:?}");
                assert_eq!(board.recorded(), told, "{}, {name}", case.what);
                let is_taken = policy != InterruptPolicy::Hold;
                check_result(case, &name, &stop, is_taken);
                if is_taken {
                    check_syndrome(case, case.path, &cpu);
                }
            }
        }
    }
}

#[test]
fn steps_one_by_one_are_the_same() {
    for case in CASES {
        let (board, cpu) = board(case);
        let policy = InterruptPolicy::Into;
        board.serve(&cpu, Command::SetInterruptPolicy { domain: 0, policy });
        let told = addresses(case.path, |_| None, true);
        let end = ENTRY + 4 * case.program.len() as u64;
        let mut stop = board.go(&cpu, step(1, true));
        for _ in 0..told.len() {
            if stop.registers.pc == end {
                break;
            }
            stop = board.go(&cpu, step(1, true));
        }
        assert_eq!(board.recorded(), told, "{}", case.what);
        check_result(case, "one by one", &stop, true);
        check_syndrome(case, case.path, &cpu);
    }
}

#[test]
fn a_guest_that_runs_takes_it_at_the_same_place() {
    for case in CASES {
        let Some(path) = case.runs else { continue };
        let (board, cpu) = board(case);
        let end = ENTRY + 4 * case.program.len() as u64;
        let place = Place::Va(Va(end));
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        let stop = board.go(&cpu, CONTINUE);
        assert_eq!(stop.reason, StopReason::Breakpoint, "{}", case.what);
        let executed: Vec<u64> = cpu.executed();
        let carried_out = |pc: &u64| {
            let n = pc.wrapping_sub(ENTRY) / 4;
            case.program.get(n as usize).is_some_and(|&word| matches!(word, HVC | WFI))
        };
        let mut wanted = addresses(path, Some, true);
        // EL2 carries these out, after the CPU has come to them.
        wanted.retain(|pc| !carried_out(pc));
        let executed: Vec<u64> = executed.into_iter().filter(|pc| !carried_out(pc)).collect();
        assert_eq!(executed, wanted, "{}", case.what);
        // A sequence that is begun is ended before, by steps: its store succeeds.
        check_result(case, "running", &stop, false);
        check_syndrome(case, path, &cpu);
    }
}

/// Nothing of AArch32 takes the fast path, and its ESB is another word.
#[test]
fn an_esb_of_a32_defers_it_where_interrupts_are_unmasked() {
    const NOP: u32 = 0xe320_f000;
    const ESB: u32 = 0xe320_f010;
    const USER: u64 = 0x10;
    for (masks, word, is_deferred) in [
        (Pstate::A, ESB, true),
        (Pstate::A | Pstate::I | Pstate::F, ESB, true),
        (Pstate::A, NOP, false),
    ] {
        let case = masked("A32", &[NOP, NOP, NOP], (0, Before), &[Code(0, 2)]);
        let (board, cpu) = board(&case);
        for (n, word) in (0..).zip([NOP, word, NOP, NOP]) {
            board.ram.write(Ipa(ENTRY + 4 * n), &u32::to_le_bytes(word)).expect("it is RAM");
        }
        board.machine.domains[0].vcpus[0].core.lock().context.spsr = USER | masks;
        let policy = InterruptPolicy::Into;
        board.serve(&cpu, Command::SetInterruptPolicy { domain: 0, policy });
        let stop = board.go(&cpu, step(3, true));
        assert_eq!(stop.registers.pc, ENTRY + 12, "{word:#x}");
        assert_eq!(stop.registers.pstate & (MASKS | 0x1f), USER | masks, "{word:#x}");
        let is_pending = board.machine.domains[0].vcpus[0].core.lock().serror.is_some();
        assert_eq!(is_pending, !is_deferred, "{word:#x} with {masks:#x}");
    }
}
