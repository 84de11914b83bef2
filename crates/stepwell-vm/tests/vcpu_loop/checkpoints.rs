//! Moments that are kept and gone to: whatever the way, a position is one state.

use crate::board::{
    Board, DATA, ENTRY, HVC, Sharing, add, b, cbnz, checkpoints, ldxr, step, str, stxr, sub,
};
use crate::cpu::FakeCpu;
use crate::sharing::{cpu_of, go_until, run_until, timeline};
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{Place, Refusal, StopReason};
use stepwell_vm::memory::GuestMemory;
use stepwell_wire::{Answer, Command};

const PAGE: u32 = 4096;
/// Pages that the two write, and their shared word before them.
const PAGES: u32 = 5;
const WRITTEN: u64 = DATA;
const END: u64 = 230;

/// Two vCPUs that count in one word by exclusives, and each count also in a page of its own, and in
/// another one the next time.
fn writers() -> (Board, FakeCpu) {
    let count = |again: i32| {
        [
            ldxr(1, 3),
            add(1, 1, 1),
            stxr(2, 1, 3),
            cbnz(2, -3),
            // The next page, by exclusives again, and plainly.
            add(4, 4, PAGE - 1),
            add(4, 4, 1),
            ldxr(1, 4),
            add(1, 1, 1),
            stxr(2, 1, 4),
            cbnz(2, -3),
            str(5, 4),
            sub(6, 6, 1),
            cbnz(6, -12),
            add(6, 6, PAGES),
            HVC,
            b(again),
        ]
    };
    let back = sub(4, 4, PAGE - 1);
    let part = |again| [&count(again)[..15], &[back, sub(4, 4, 1), b(again)]].concat();
    let program = [part(-17), part(-17)].concat();
    let board = Board::with(2, &program, Sharing::Counted(13));
    board.switch_on(1, ENTRY + 4 * 18);
    let cpu = cpu_of(&board);
    for vcpu in 0..2 {
        let mut core = board.machine.domains[0].vcpus[vcpu].core.lock();
        let x = &mut core.context.x;
        (x[3], x[4], x[5]) = (DATA, DATA + vcpu as u64 * u64::from(PAGES * PAGE), 7);
        x[6] = u64::from(PAGES);
    }
    (board, cpu)
}

/// All that a guest could tell: the timeline with its hash of the registers, and the RAM.
fn state(board: &Board, cpu: &FakeCpu) -> (stepwell_wire::Timeline, Vec<u8>) {
    let mut bytes = vec![0; (4 * PAGES * PAGE) as usize];
    board.ram.read(Ipa(WRITTEN), &mut bytes).expect("it is RAM");
    (timeline(board, cpu), bytes)
}

fn state_at(board: &Board, cpu: &FakeCpu, position: u64) -> (stepwell_wire::Timeline, Vec<u8>) {
    assert_eq!(run_until(board, cpu, position).reason, StopReason::Reached);
    state(board, cpu)
}

fn keep(board: &Board, cpu: &FakeCpu) -> u64 {
    match board.serve(cpu, Command::Keep { domain: 0 }) {
        Answer::Value(number) => number,
        other => panic!("a number, not {other:?}"),
    }
}

fn go_to(board: &Board, cpu: &FakeCpu, checkpoint: u64) -> Result<Answer, Refusal> {
    board.try_to(cpu, Command::GoTo { domain: 0, checkpoint })
}

/// The state at each position, come to at once.
fn straight(positions: impl Iterator<Item = u64>) -> Vec<(stepwell_wire::Timeline, Vec<u8>)> {
    let at = |position| {
        let (board, cpu) = writers();
        state_at(&board, &cpu, position)
    };
    positions.map(at).collect()
}

#[test]
fn keeping_a_moment_changes_nothing_that_comes_after_it() {
    let end = straight(std::iter::once(END)).remove(0);
    for position in 0..END {
        let (board, cpu) = writers();
        if position > 0 {
            run_until(&board, &cpu, position);
        }
        let kept = keep(&board, &cpu);
        assert_eq!(state_at(&board, &cpu, END), end, "kept at {position}");
        go_to(&board, &cpu, kept).expect("it is kept");
        assert_eq!(timeline(&board, &cpu).position, position);
        assert_eq!(state_at(&board, &cpu, END), end, "gone to {position}");
    }
}

#[test]
fn a_position_is_one_state_from_any_moment() {
    let expected = straight(1..=END);
    let (board, cpu) = writers();
    let (mut kept, mut seed) = (Vec::new(), 0x1234_5678_9abc_def1_u64);
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for n in 0..1000 {
        let now = timeline(&board, &cpu).position;
        match random(5) {
            0 if kept.len() < 12 => kept.push((now, keep(&board, &cpu))),
            1 if kept.len() > 8 => {
                let (_, checkpoint) = kept.swap_remove(random(kept.len() as u64) as usize);
                board.serve(&cpu, Command::Forget { checkpoint });
                assert_eq!(go_to(&board, &cpu, checkpoint), Err(Refusal::NoSuchCheckpoint));
            }
            _ if now == END || random(3) == 0 => {
                let Some(&(position, checkpoint)) =
                    kept.get(random(kept.len().max(1) as u64) as usize)
                else {
                    continue;
                };
                go_to(&board, &cpu, checkpoint).expect("it is kept");
                assert_eq!(timeline(&board, &cpu).position, position);
                if position > 0 {
                    assert_eq!(state(&board, &cpu), expected[position as usize - 1], "{n}");
                }
            }
            way => {
                let to = now + 1 + random(END - now);
                let stop = go_until(&board, &cpu, to, way == 4);
                assert_eq!(stop.reason, StopReason::Reached);
                board.recorded();
                assert_eq!(state(&board, &cpu), expected[to as usize - 1], "{n}: {now} to {to}");
            }
        }
    }
}

#[test]
fn breakpoints_and_what_el2_writes_make_no_difference() {
    let expected = straight(1..=END);
    let (board, cpu) = writers();
    // In a page that is written: the stores there are carried out at EL2.
    let place = Place::Ipa(Ipa(DATA + u64::from(PAGE) + 0x800));
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    let begin = keep(&board, &cpu);
    let mut kept = vec![(0, begin)];
    for position in (40..END).step_by(40) {
        assert_eq!(state_at(&board, &cpu, position), expected[position as usize - 1]);
        kept.push((position, keep(&board, &cpu)));
    }
    // Views come and go.
    board.serve(&cpu, Command::ClearBreakpoint { domain: 0, place });
    for &(position, checkpoint) in kept.iter().rev() {
        go_to(&board, &cpu, checkpoint).expect("it is kept");
        let to = (position + 33).min(END);
        assert_eq!(state_at(&board, &cpu, to), expected[to as usize - 1], "from {position}");
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
        go_to(&board, &cpu, begin).expect("it is kept");
        assert_eq!(state_at(&board, &cpu, 77), expected[76], "with it, from the beginning");
        board.serve(&cpu, Command::ClearBreakpoint { domain: 0, place });
    }
}

/// What is in the place of an instruction is counted by the CPU, and executes nothing.
#[test]
fn a_hidden_breakpoint_is_met_at_its_instructions_position() {
    // `str`, in either program.
    const STORES: [u64; 2] = [ENTRY + 4 * 10, ENTRY + 4 * 28];
    let expected = straight(1..=END);
    let (board, cpu) = writers();
    for store in STORES {
        board.serve(&cpu, Command::SetBreakpoint { domain: 0, place: Place::Ipa(Ipa(store)) });
    }
    let mut met = 0;
    loop {
        let stop = run_until(&board, &cpu, END);
        let now = timeline(&board, &cpu).position;
        assert_eq!(state(&board, &cpu), expected[now as usize - 1], "{:?} at {now}", stop.reason);
        match stop.reason {
            StopReason::Reached => break,
            StopReason::Breakpoint => met += 1,
            reason => panic!("nothing else stops it: {reason:?}"),
        }
    }
    assert!(met > 4, "{met}");
}

#[test]
fn what_devices_keep_is_of_the_moment() {
    let (board, cpu) = writers();
    let registers = || board.machine.domains[0].peripherals.lock().registers;
    let write = |value| {
        let mut devices = board.machine.domains[0].peripherals.lock();
        devices.registers.pcie.write(0x40, 4, value);
        devices.registers.gpio.write(0x410, value);
    };
    let shown = || (registers().pcie.read(0x40, 4), registers().gpio.read(0x410));
    write(1);
    let kept = keep(&board, &cpu);
    write(2);
    assert_eq!(shown(), (2, 2));
    go_to(&board, &cpu, kept).expect("it is kept");
    assert_eq!(shown(), (1, 1));
}

#[test]
fn it_is_known_which_pages_were_written() {
    let (board, cpu) = writers();
    run_until(&board, &cpu, 30);
    let from = keep(&board, &cpu);
    let before = state(&board, &cpu).1;
    run_until(&board, &cpu, 60);
    let to = keep(&board, &cpu);
    let after = state(&board, &cpu).1;
    let wrote = |from, to, at: u64, bytes| {
        let command = Command::Wrote { domain: 0, from, to, ipa: Ipa(at), bytes };
        match board.try_to(&cpu, command) {
            Ok(Answer::Value(wrote)) => Ok(wrote != 0),
            Ok(other) => panic!("a value, not {other:?}"),
            Err(refusal) => Err(refusal),
        }
    };
    let mut differing = 0;
    let pages = before.chunks(PAGE as usize).zip(after.chunks(PAGE as usize));
    for (at, (before, after)) in (WRITTEN..).step_by(PAGE as usize).zip(pages) {
        differing += usize::from(before != after);
        assert_eq!(wrote(from, to, at + 8, 8), Ok(before != after), "{at:#x}");
        assert_eq!(wrote(from, from, at, 4096), Ok(false));
    }
    assert!((2..8).contains(&differing), "{differing}");
    let all = u64::from(4 * PAGES * PAGE);
    assert_eq!(wrote(from, to, WRITTEN, all), Ok(true));
    assert_eq!(wrote(from, to + 256, WRITTEN, 8), Err(Refusal::NoSuchCheckpoint));
    assert_eq!(wrote(from, to, 0x1000, 8), Err(Refusal::NotMapped(0x1000)));
}

#[test]
fn where_memory_is_full_moments_go_that_are_close_to_others() {
    let expected = straight(1..=END);
    let (mut board, cpu) = writers();
    board.machine.domains[0].checkpoints = checkpoints(26);
    let mut kept = Vec::new();
    for position in (10..END).step_by(5) {
        assert_eq!(state_at(&board, &cpu, position), expected[position as usize - 1]);
        kept.push((position, keep(&board, &cpu)));
    }
    let mut there = 0;
    for &(position, checkpoint) in kept.iter().rev() {
        match go_to(&board, &cpu, checkpoint) {
            Ok(_) => {
                there += 1;
                assert_eq!(state(&board, &cpu), expected[position as usize - 1]);
            }
            Err(refusal) => assert_eq!(refusal, Refusal::NoSuchCheckpoint, "at {position}"),
        }
    }
    assert_eq!(timeline(&board, &cpu).position, kept[0].0, "the first goes last");
    assert!((2..kept.len()).contains(&there), "{there} of {}", kept.len());
}

#[test]
fn no_more_are_kept_than_can_be() {
    let (board, cpu) = writers();
    let mut kept: Vec<_> = (0..64).map(|_| keep(&board, &cpu)).collect();
    assert_eq!(board.try_to(&cpu, Command::Keep { domain: 0 }), Err(Refusal::NoMemory));
    let checkpoint = kept.remove(20);
    board.serve(&cpu, Command::Forget { checkpoint });
    keep(&board, &cpu);
    let none = Command::Forget { checkpoint };
    assert_eq!(board.try_to(&cpu, none), Err(Refusal::NoSuchCheckpoint));
    for checkpoint in kept {
        go_to(&board, &cpu, checkpoint).expect("it is kept");
    }
}

#[test]
fn what_a_debugger_has_set_is_of_no_moment() {
    let (board, cpu) = writers();
    let kept = keep(&board, &cpu);
    let place = Place::Va(Va(ENTRY + 8));
    board.serve(&cpu, Command::SetBreakpoint { domain: 0, place });
    board.serve(
        &cpu,
        Command::RunUntil { domain: 0, position: 100, clock: 0, turn: None, record: false },
    );
    board.share(&cpu, 60);
    assert_eq!(board.stop().reason, StopReason::Breakpoint);
    go_to(&board, &cpu, kept).expect("it is kept");
    board.serve(
        &cpu,
        Command::RunUntil { domain: 0, position: 100, clock: 0, turn: None, record: false },
    );
    board.share(&cpu, 60);
    let stop = board.stop();
    assert_eq!((stop.reason, stop.registers.pc), (StopReason::Breakpoint, ENTRY + 8));
    assert_eq!(timeline(&board, &cpu).position, 2, "again");
}

#[test]
fn a_machine_that_counts_nothing_or_has_no_memory_for_it_keeps_none() {
    let board = Board::with(1, &[b(0)], Sharing::None);
    let cpu = board.cpu(0);
    let keep = Command::Keep { domain: 0 };
    assert_eq!(board.try_to(&cpu, keep.clone()), Err(Refusal::NotCounted));
    let (mut board, cpu) = writers();
    board.machine.domains[0].checkpoints = Default::default();
    assert_eq!(board.try_to(&cpu, keep), Err(Refusal::Unsupported));
    assert_eq!(go_to(&board, &cpu, 0), Err(Refusal::NoSuchCheckpoint));
}

#[test]
fn what_would_make_another_run_is_refused_until_it_is_forked() {
    let (board, cpu) = writers();
    run_until(&board, &cpu, 50);
    let kept = keep(&board, &cpu);
    let Answer::Registers(registers) =
        board.serve(&cpu, Command::ReadRegisters { domain: 0, vcpu: 0 })
    else {
        panic!("registers")
    };
    let bytes = heapless::Vec::from_slice(&[1, 2, 3, 4]).expect("it is short");
    let place = Place::Ipa(Ipa(DATA + 0x100));
    let refused = [
        Command::WriteRegisters { domain: 0, vcpu: 0, registers },
        Command::WriteMemory { domain: 0, vcpu: 0, place, bytes },
        Command::WriteSystemRegister { domain: 0, vcpu: 0, register: 0xc220, value: 0 },
        Command::Continue { domain: 0, vcpu: Some(0) },
        step(1, false),
    ];
    let before = state(&board, &cpu);
    for command in &refused {
        assert_eq!(board.try_to(&cpu, command.clone()), Err(Refusal::WouldDiverge), "{command:?}");
    }
    assert_eq!(state(&board, &cpu), before, "nothing has changed");
    board.serve(&cpu, Command::Fork { domain: 0 });
    board.serve(&cpu, refused[1].clone());
    assert_ne!(state(&board, &cpu), before);
    // Back in the run that it has left.
    go_to(&board, &cpu, kept).expect("it is kept");
    assert_eq!(state(&board, &cpu), before);
    assert_eq!(board.try_to(&cpu, refused[1].clone()), Err(Refusal::WouldDiverge));
}
