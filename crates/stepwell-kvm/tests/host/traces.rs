//! What stepping leaves behind in the guest: nothing. The guest looks for it itself.

use super::{LIMIT, V0, launch};
use std::collections::BTreeSet;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{Debuggee, Event, Place, StepRequest, StopReason, contract};

/// Compares MDSCR_EL1, DAIF, SPSR_EL1 and its own text with what they were, for ever: X9 has all bits that
/// have ever differed, X10 counts the turns.
const GUEST: [u32; 30] = [
    0x1000_4000, // 00  adr  x0, 0x800
    0xd518_c000, // 04  msr  vbar_el1, x0
    0xd503_3fdf, // 08  isb
    0xd282_0001, // 0c  mov  x1, #0x1000        MDSCR_EL1.TDCC
    0xd510_0241, // 10  msr  mdscr_el1, x1
    0xd503_4fdf, // 14  msr  daifset, #0xf
    0xd53b_4234, // 18  mrs  x20, daif
    0xd280_0009, // 1c  mov  x9, #0
    0xd280_000a, // 20  mov  x10, #0
    0xd530_0242, // 24  mrs  x2, mdscr_el1      a turn
    0xca01_0042, // 28  eor  x2, x2, x1
    0xaa02_0129, // 2c  orr  x9, x9, x2
    0xd53b_4222, // 30  mrs  x2, daif
    0xca14_0042, // 34  eor  x2, x2, x20
    0xaa02_0129, // 38  orr  x9, x9, x2
    0xd400_0001, // 3c  svc  #0
    0x10ff_fe03, // 40  adr  x3, 0x00
    0xd280_0504, // 44  mov  x4, #40
    0xd280_0005, // 48  mov  x5, #0
    0xb840_4466, // 4c  ldr  w6, [x3], #4       its text, summed
    0x93c5_1ca5, // 50  ror  x5, x5, #7
    0x8b06_00a5, // 54  add  x5, x5, x6
    0xf100_0484, // 58  subs x4, x4, #1
    0x54ff_ff81, // 5c  b.ne 0x4c
    0xb500_004a, // 60  cbnz x10, 0x68
    0xaa05_03f5, // 64  mov  x21, x5
    0xca15_00a2, // 68  eor  x2, x5, x21
    0xaa02_0129, // 6c  orr  x9, x9, x2
    0x9100_054a, // 70  add  x10, x10, #1
    0x17ff_ffec, // 74  b    0x24
];
/// What SVC leads to.
const HANDLER: [u32; 10] = [
    0xd538_4002, // 100 mrs  x2, spsr_el1
    0x926b_0043, // 104 and  x3, x2, #0x200000  SS
    0xaa03_0129, // 108 orr  x9, x9, x3
    0x927a_0c42, // 10c and  x2, x2, #0x3c0     D, A, I and F
    0xca14_0042, // 110 eor  x2, x2, x20
    0xaa02_0129, // 114 orr  x9, x9, x2
    0xd530_0242, // 118 mrs  x2, mdscr_el1
    0xca01_0042, // 11c eor  x2, x2, x1
    0xaa02_0129, // 120 orr  x9, x9, x2
    0xd69f_03e0, // 124 eret
];
/// The vector of synchronous exceptions from the same level: b 0x100.
const VECTOR: u32 = 0x17ff_fdc0;
const HANDLER_AT: usize = 0x100;
const VECTOR_AT: usize = 0xa00;
/// Where breakpoints are: before, at and behind the SVC, in the sum, and at the handler's last.
const BREAKPOINTS: [u64; 4] = [0x3c, 0x40, 0x60, 0x124];
/// Where hidden ones are: at the start of a turn, in the handler, and behind the sum.
const HIDDEN: [u64; 3] = [0x24, 0x100, 0x70];
/// Steps from one breakpoint on: no multiple of a turn.
const STEPS: u64 = 137;
const ROUNDS: usize = 8;

fn image() -> Vec<u8> {
    let mut image = vec![0; VECTOR_AT + 4];
    let mut put = |at: usize, words: &[u32]| {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        image[at..].iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    };
    put(0, &GUEST);
    put(HANDLER_AT, &HANDLER);
    put(VECTOR_AT, &[VECTOR]);
    image
}

fn stopped_for(debuggee: &mut dyn Debuggee) -> StopReason {
    loop {
        match debuggee.wait(LIMIT).unwrap() {
            Some(Event::Stopped(stop)) => return stop.reason,
            Some(Event::Console { .. }) => {}
            other => panic!("no stop, but {other:?}"),
        }
    }
}

/// By breakpoints of the CPU and hidden ones, which withhold the page that the guest reads and executes, by
/// steps through and over them, and by pauses.
#[test]
fn stepping_leaves_no_trace() {
    let image = image();
    let (_machine, mut link) = launch(&image);
    contract::wait_for_stop(&mut link);
    let places = BREAKPOINTS.map(|at| Va(contract::ENTRY.0 + at));
    let hidden = HIDDEN.map(|at| Place::Ipa(Ipa(contract::ENTRY.0 + at)));
    for place in places.map(Place::Va).into_iter().chain(hidden) {
        link.set_breakpoint(0, place).unwrap();
    }
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        link.resume(0).unwrap();
        assert_eq!(stopped_for(&mut link), StopReason::Breakpoint);
        seen.insert(link.read_registers(V0).unwrap().pc);
        for steps in [1, STEPS] {
            link.step(V0, StepRequest::steps(steps)).unwrap();
            let reason = stopped_for(&mut link);
            assert!(matches!(reason, StopReason::Stepped | StopReason::Breakpoint), "{reason:?}");
        }
    }
    let is_set = |&pc: &u64| places.contains(&Va(pc)) || hidden.contains(&Place::Ipa(Ipa(pc)));
    assert!(seen.len() > 3 && seen.iter().all(is_set), "{seen:x?}");
    let mut text = vec![0; image.len()];
    link.read_memory(V0, Place::Va(contract::ENTRY), &mut text).unwrap();
    assert!(text == image, "the tool reads another text");
    for place in places.map(Place::Va).into_iter().chain(hidden) {
        link.clear_breakpoint(0, place).unwrap();
    }
    let turns = link.read_registers(V0).unwrap().x[10];
    link.step(V0, StepRequest::steps(2000)).unwrap();
    assert_eq!(stopped_for(&mut link), StopReason::Stepped);
    link.resume(0).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    link.pause(0).unwrap();
    assert_eq!(stopped_for(&mut link), StopReason::Paused);
    let registers = link.read_registers(V0).unwrap();
    assert!(registers.x[10] > turns, "it has not gone on: {registers:x?}");
    assert_eq!(registers.x[9], 0, "it has seen something: {registers:x?}");
}
