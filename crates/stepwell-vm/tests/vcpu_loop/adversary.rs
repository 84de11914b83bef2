//! The loop comes to the same with an adversary around its CPU.

use crate::board::{Board, DATA, ENTRY, SVC, Stop, add, b, cbnz, ldr, ldxr, step, str, stxr, sub};
use crate::cpu::FakeCpu;
use crate::memory::BASE;
use stepwell_arch::Pa;
use stepwell_protocol::StopReason;
use stepwell_vm::adversary::{Adversary, Config};
use stepwell_wire::Command;

/// Everything often.
const ADVERSITY: &str = "pending=30,before=30,stage2=20,pause=20,serror=0";

/// Twenty turns of an exclusive increment, a store and a load.
const PROGRAM: [u32; 10] = [
    add(5, 31, 20),
    ldxr(1, 3),
    add(1, 1, 1),
    stxr(2, 1, 3),
    cbnz(2, -3),
    str(1, 4),
    ldr(6, 4),
    sub(5, 5, 1),
    cbnz(5, -7),
    b(0),
];

struct Came {
    stop: Stop,
    recorded: Vec<u64>,
    /// What the CPU says of itself.
    executed: Vec<u64>,
    stored: u64,
}

fn came(program: &[u32], config: Option<&str>, command: Command) -> Came {
    let board: &'static Board<Adversary<FakeCpu>> = Box::leak(Box::new(Board::around(1, program)));
    let config = config.map(|words| Config::parse(words).expect("they are right"));
    let cpu = Adversary::new(board.cpu(0), &board.machine, config.as_ref());
    board.machine.domains[0].vcpus[0].core.lock().context.x[3] = DATA;
    board.machine.domains[0].vcpus[0].core.lock().context.x[4] = DATA + 8;
    let stop = board.go(&cpu, command);
    let stored = board.ram.load(Pa(BASE.0 + 0x1_0000), 8);
    Came { stop, recorded: board.recorded(), executed: cpu.inside().executed(), stored }
}

#[test]
fn whatever_happens_each_step_is_one_instruction_told_once() {
    let steps = 1 + 20 * 8;
    let plain = came(&PROGRAM, None, step(steps, true));
    assert_eq!((plain.stop.steps, plain.stored), (steps, 20));
    for seed in 1..60 {
        let words = format!("seed={seed},{ADVERSITY}");
        let met = came(&PROGRAM, Some(&words), step(steps, true));
        assert_eq!(met.stop, plain.stop, "{words}");
        assert_eq!(met.recorded, plain.recorded, "{words}");
        assert_eq!(met.stored, plain.stored, "{words}");
        // Store-exclusives are carried out at EL2.
        let executed = met.executed.iter().filter(|&&pc| pc != ENTRY + 12).count();
        assert_eq!(executed as u64, steps - 20, "{words}");
    }
}

#[test]
fn an_exception_is_entered_once() {
    let program = [add(1, 31, 1), SVC, add(1, 1, 1)];
    for seed in 1..60 {
        let words = format!("seed={seed},{ADVERSITY}");
        let [plain, met] =
            [None, Some(&words[..])].map(|config| came(&program, config, step(2, true)));
        assert_eq!((met.stop, met.recorded), (plain.stop, plain.recorded), "{words}");
    }
}

#[test]
fn calls_for_nothing_are_no_stops() {
    for until in [ENTRY + 8, ENTRY + 32] {
        let command = Command::Step {
            domain: 0,
            vcpu: 0,
            count: 1000,
            until: Some(until),
            record: true,
            all: false,
            within: None,
        };
        let plain = came(&PROGRAM, None, command.clone());
        assert_eq!((plain.stop.reason, plain.stop.registers.pc), (StopReason::Until, until));
        let met = came(&PROGRAM, Some("seed=1,pause=100"), command);
        assert_eq!((met.stop, met.recorded), (plain.stop, plain.recorded));
    }
}
