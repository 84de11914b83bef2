//! Virtual interrupts while stepping: held, stepped into, run over.

use crate::board::{Board, CONTINUE, ENTRY, ERET, NOP, Sharing, add, b, cbnz, step, sub};
use crate::cpu::FakeCpu;
use crate::sharing::{go_until, run_until, timeline};
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_protocol::{InterruptPolicy, Place, StopReason, TimePolicy};
use stepwell_vm::cpu::Cpu;
use stepwell_vm::device::board::PL011_INTID;
use stepwell_vm::memory::GuestMemory;
use stepwell_vm::vgic::{GICD_BASE, GICR_BASE};
use stepwell_wire::{Answer, Command};

/// MSR DAIFClr, #2
const DAIF_CLEAR_I: u32 = 0xd503_42ff;
const IRQ_VECTOR: u64 = 0x4000_8000 + 0x280;

/// A guest at an endless row of NOPs, with the UART's interrupt up and nothing masked.
fn interrupted() -> (Board, FakeCpu) {
    interrupted_on(Sharing::None)
}

fn interrupted_on(sharing: Sharing) -> (Board, FakeCpu) {
    let mut program = [NOP; 32];
    program[31] = b(-31);
    let board: Board = Board::with(1, &program, sharing);
    let cpu = board.cpu(0);
    // The handler masks nothing more and goes back.
    for (n, word) in (0..).zip([NOP, NOP, ERET]) {
        let at = Ipa(IRQ_VECTOR + 4 * n);
        board.ram.write(at, &u32::to_le_bytes(word)).expect("it is RAM");
    }
    let domain = &board.machine.domains[0];
    let mut vgic = domain.vgic.change();
    let (register, bit) = (u64::from(PL011_INTID / 32 * 4), 1_u64 << (PL011_INTID % 32));
    vgic.mmio_write(0, Ipa(GICD_BASE.0), 4, 0x13); // ARE, both groups
    vgic.mmio_write(0, Ipa(GICD_BASE.0 + 0x80 + register), 4, bit); // group 1
    vgic.mmio_write(0, Ipa(GICD_BASE.0 + 0x100 + register), 4, bit); // enabled
    vgic.mmio_write(0, Ipa(GICD_BASE.0 + 0x6100 + 8), 8, 0); // to vCPU 0
    vgic.set_line(PL011_INTID, None, true);
    drop(vgic);
    let mut core = domain.vcpus[0].core.lock();
    core.interface.vmcr = 0xff << 24 | 1 << 1; // all priorities, group 1
    core.context.spsr &= !Pstate::I;
    drop(core);
    (board, cpu)
}

/// The CPU takes what an instruction has unmasked before it comes to EL2 for a stop, or for the end of a
/// turn: so do steps.
#[test]
fn where_a_counted_guest_stops_what_was_unmasked_has_come_first() {
    for turn in [4, 1000] {
        for position in 1..40 {
            let (ran, cpu) = interrupted_on(Sharing::Counted(turn));
            ran.machine.domains[0].vcpus[0].core.lock().context.spsr |= Pstate::I;
            ran.ram.write(Ipa(ENTRY + 8), &DAIF_CLEAR_I.to_le_bytes()).expect("it is RAM");
            run_until(&ran, &cpu, position);
            let (stepped, other) = interrupted_on(Sharing::Counted(turn));
            stepped.machine.domains[0].vcpus[0].core.lock().context.spsr |= Pstate::I;
            stepped.ram.write(Ipa(ENTRY + 8), &DAIF_CLEAR_I.to_le_bytes()).expect("it is RAM");
            go_until(&stepped, &other, position, true);
            assert_eq!(timeline(&stepped, &other), timeline(&ran, &cpu), "{position}, {turn}");
        }
    }
}

fn policy(board: &Board, cpu: &FakeCpu, policy: InterruptPolicy) {
    board.serve(cpu, Command::SetInterruptPolicy { domain: 0, policy });
}

#[test]
fn held_interrupts_never_come() {
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Hold);
    let stop = board.go(&cpu, step(10, true));
    assert_eq!((stop.steps, stop.registers.pc), (10, ENTRY + 40));
    assert_eq!(board.recorded(), cpu.executed());
}

#[test]
fn an_interrupt_that_is_stepped_into_is_one_step() {
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Into);
    let stop = board.go(&cpu, step(1, true));
    assert_eq!((stop.steps, stop.registers.pc), (1, IRQ_VECTOR));
    let stop = board.go(&cpu, step(1, true));
    assert_eq!(stop.registers.pc, IRQ_VECTOR + 4);
}

fn clock(board: &Board, cpu: &FakeCpu) -> u64 {
    let register = SystemRegister::CNTVCT_EL0.0;
    match board.serve(cpu, Command::ReadSystemRegister { domain: 0, vcpu: 0, register }) {
        Answer::Value(value) => value,
        other => panic!("a value, not {other:?}"),
    }
}

/// Its line stays up, so that the handler is entered again as soon as it has returned: what is stepped
/// makes progress all the same. The clock goes in the handler as it does outside.
#[test]
fn a_handler_that_is_stepped_over_is_not_told_and_takes_its_time() {
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Over);
    let time = TimePolicy::PerStep { ns: 16 };
    board.serve(&cpu, Command::SetTimePolicy { domain: 0, policy: time });
    let before = clock(&board, &cpu);
    let stop = board.go(&cpu, step(10, true));
    assert_eq!((stop.reason, stop.steps, stop.registers.pc), (StopReason::Stepped, 10, ENTRY + 40));
    let told: Vec<u64> = (0..10).map(|n| ENTRY + 4 * n).collect();
    assert_eq!(board.recorded(), told);
    // Before each of them: the entry, and three instructions. A tick is 16 ns.
    assert_eq!(clock(&board, &cpu) - before, 10 + 10 * 4);
    let in_handler =
        cpu.executed().into_iter().filter(|pc| (0..12).contains(&pc.wrapping_sub(IRQ_VECTOR)));
    assert_eq!(in_handler.count(), 30);
}

/// Where a step takes a millisecond, a handler of some thousand of them is over before the next tick.
#[test]
fn steps_of_a_handler_take_no_longer_than_a_tenth_of_a_microsecond() {
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Over);
    let time = TimePolicy::PerStep { ns: 1_000_000 };
    board.serve(&cpu, Command::SetTimePolicy { domain: 0, policy: time });
    let before = clock(&board, &cpu);
    board.go(&cpu, step(2, false));
    // Two steps of 62,500 ticks, and twice four of 6.25.
    assert_eq!(clock(&board, &cpu) - before, 2 * 62_500 + 50);
}

/// One step at a time is the same as many at once, and a range does not end in a handler.
#[test]
fn handlers_are_stepped_over_alike_however_many_steps_are_asked_for() {
    let end = |each: u64| {
        let (board, cpu) = interrupted();
        policy(&board, &cpu, InterruptPolicy::Over);
        let mut last = None;
        for _ in 0..12 / each {
            last = Some(board.go(&cpu, step(each, true)).registers);
        }
        (last, board.recorded(), clock(&board, &cpu))
    };
    assert_eq!(end(1), end(12));
    assert_eq!(end(4), end(12));
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Over);
    let within = Some((ENTRY, ENTRY + 20));
    let range = Command::Step {
        domain: 0,
        vcpu: 0,
        count: 1000,
        until: None,
        record: false,
        all: false,
        within,
    };
    let stop = board.go(&cpu, range);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::LeftRange, ENTRY + 20));
}

/// A breakpoint where the debugger stopped is not met again by coming back from a handler; one in the
/// handler is.
#[test]
fn breakpoints_and_handlers_that_are_stepped_over() {
    let (board, cpu) = interrupted();
    policy(&board, &cpu, InterruptPolicy::Over);
    let breakpoint = |at| Command::SetBreakpoint { domain: 0, place: Place::Va(at) };
    board.serve(&cpu, breakpoint(Va(ENTRY + 8)));
    let stop = board.go(&cpu, step(100, false));
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 8));
    let stop = board.go(&cpu, step(2, false));
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Stepped, ENTRY + 16));
    board.serve(&cpu, breakpoint(Va(IRQ_VECTOR + 4)));
    let stop = board.go(&cpu, step(100, false));
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, IRQ_VECTOR + 4));
    // From within it, steps are told.
    let stop = board.go(&cpu, step(1, false));
    assert_eq!((stop.steps, stop.registers.pc), (1, IRQ_VECTOR + 8));
}

/// A handler that executes the code that it has interrupted has not returned: it has another stack.
#[test]
fn a_handler_that_executes_what_it_interrupted_is_not_told() {
    const SHARED: u64 = ENTRY + 8;
    /// From EL1 with SP_EL0.
    const VECTOR: u64 = IRQ_VECTOR - 0x200;
    let (board, cpu) = interrupted();
    let away = |from: u64, to: u64| to.wrapping_sub(from) as i64 as i32 / 4;
    let code = [
        (SHARED, cbnz(20, away(SHARED, VECTOR + 8))),
        (VECTOR, add(20, 20, 1)),
        (VECTOR + 4, b(away(VECTOR + 4, SHARED))),
        (VECTOR + 8, sub(20, 20, 1)),
        (VECTOR + 12, ERET),
    ];
    for (at, word) in code {
        board.ram.write(Ipa(at), &u32::to_le_bytes(word)).expect("it is RAM");
    }
    board.machine.domains[0].vcpus[0].core.lock().context.spsr &= !1; // SP_EL0
    policy(&board, &cpu, InterruptPolicy::Over);
    let stop = board.go(&cpu, step(6, true));
    assert_eq!((stop.reason, stop.steps, stop.registers.pc), (StopReason::Stepped, 6, ENTRY + 24));
    let told: Vec<u64> = (0..6).map(|n| ENTRY + 4 * n).collect();
    assert_eq!(board.recorded(), told);
    let shared = cpu.executed().into_iter().filter(|&pc| pc == SHARED).count();
    assert_eq!(shared, 7, "in each handler, and by itself");
}

/// A guest whose virtual timer's interrupt is pending and masked from its beginning on. X0: `turns`.
fn masked(program: &[u32], turns: u64) -> (Board, FakeCpu) {
    let board: Board = Board::with(1, program, Sharing::None);
    let cpu = board.cpu(0);
    let domain = &board.machine.domains[0];
    let mut vgic = domain.vgic.change();
    vgic.mmio_write(0, Ipa(GICD_BASE.0), 4, 0x13); // ARE, both groups
    vgic.mmio_write(0, Ipa(GICR_BASE.0 + 0x1_0080), 4, 1 << 27); // group 1
    vgic.mmio_write(0, Ipa(GICR_BASE.0 + 0x1_0100), 4, 1 << 27); // enabled
    drop(vgic);
    let mut core = domain.vcpus[0].core.lock();
    core.interface.vmcr = 0xff << 24 | 1 << 1; // all priorities, group 1
    core.context.x[0] = turns;
    assert!(Pstate(core.context.spsr).irq_masked());
    drop(core);
    for (register, value) in [(SystemRegister::CNTV_CVAL_EL0, 0), (SystemRegister::CNTV_CTL_EL0, 1)]
    {
        let (domain, vcpu, register) = (0, 0, register.0);
        board.serve(&cpu, Command::WriteSystemRegister { domain, vcpu, register, value });
    }
    (board, cpu)
}

/// The virtual timer's interrupt is pending all the while: a few of the instructions that it is masked for
/// are stepped, and it comes once it is unmasked, not before.
#[test]
fn a_timer_that_is_masked_for_long_has_few_instructions_stepped() {
    const TURNS: u64 = 20_000;
    let program = [sub(0, 0, 1), cbnz(0, -1), DAIF_CLEAR_I, NOP, b(-1)];
    let (board, cpu) = masked(&program, TURNS);
    let place = Place::Va(Va(IRQ_VECTOR));
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    let stop = board.go(&cpu, CONTINUE);
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, IRQ_VECTOR));
    let back = cpu.read(SystemRegister::ELR_EL1);
    assert!((ENTRY + 12..=ENTRY + 16).contains(&back), "{back:#x} is behind the unmasking");
    let (executed, stepped) = (cpu.executed().len() as u64, cpu.stepped());
    assert!(executed > 2 * TURNS && stepped * 10 < executed, "{stepped} of {executed} are stepped");
}
