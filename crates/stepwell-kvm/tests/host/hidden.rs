//! Breakpoints and watchpoints beyond those of the CPU: pages that are withheld from the guest, and given
//! back for as long as it takes.

use super::{V0, contract, guest, launch, launch_with, run_to_its_end, stopped_or_ended};
use stepwell_arch::{Instruction, Ipa, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, OthersPolicy, Place, StepRequest, StopReason, WatchAccess, Watchpoint,
};
use stepwell_link::Link;

/// Where guests are loaded.
const LOAD: u64 = 0x4020_0000;
const PAGE: usize = 4096;

/// A guest that waits for its virtual timer, by WFI and going round, in the page that has its vectors: X8 has
/// how long the former took, X6 what it had to.
const TIMER: [u32; 28] = [
    0xd2a1_0000, // 00  mov  x0, #0x8000000     the distributor
    0x5280_0021, // 04  mov  w1, #1
    0xb900_0001, // 08  str  w1, [x0]
    0x52a1_0002, // 0c  mov  w2, #0x8000000     27
    0xb901_0002, // 10  str  w2, [x0, #0x100]
    0xd2a1_0023, // 14  mov  x3, #0x8010000     the CPU interface
    0x5280_1fe4, // 18  mov  w4, #0xff
    0xb900_0464, // 1c  str  w4, [x3, #4]
    0xb900_0061, // 20  str  w1, [x3]
    0x1000_3ee5, // 24  adr  x5, 0x800
    0xd518_c005, // 28  msr  vbar_el1, x5
    0xd53b_e006, // 2c  mrs  x6, cntfrq_el0
    0xd346_fcc6, // 30  lsr  x6, x6, #6
    0xd53b_e047, // 34  mrs  x7, cntvct_el0
    0xd51b_e306, // 38  msr  cntv_tval_el0, x6
    0xd51b_e321, // 3c  msr  cntv_ctl_el0, x1
    0xd503_207f, // 40  wfi
    0xd53b_e048, // 44  mrs  x8, cntvct_el0
    0xcb07_0108, // 48  sub  x8, x8, x7
    0xd503_42ff, // 4c  msr  daifclr, #2
    0xb400_0009, // 50  cbz  x9, .
    0xd280_0009, // 54  mov  x9, #0
    0xd280_064b, // 58  mov  x11, #50
    0xd51b_e30b, // 5c  msr  cntv_tval_el0, x11
    0xd51b_e321, // 60  msr  cntv_ctl_el0, x1
    0xb400_0009, // 64  cbz  x9, .
    0xd503_201f, // 68  nop
    0x1400_0000, // 6c  b    .
];
/// What interrupts lead to: the vector of those from the same level.
const HANDLER: [u32; 5] = [
    0xd51b_e33f, // 00  msr  cntv_ctl_el0, xzr
    0xb940_0c6a, // 04  ldr  w10, [x3, #0xc]
    0xb900_106a, // 08  str  w10, [x3, #0x10]
    0x9100_0529, // 0c  add  x9, x9, #1
    0xd69f_03e0, // 10  eret
];
const HANDLER_AT: usize = 0x800 + 0x280;
const TIMER_END: u64 = 0x68;

fn timer_image() -> Vec<u8> {
    let mut image = vec![0; PAGE];
    for (at, words) in [(0, TIMER.as_slice()), (HANDLER_AT, &HANDLER)] {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        image[at..].iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    }
    image
}

fn words(image: &[u8]) -> Vec<u32> {
    image.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// Withholds every page of an image that has room for a breakpoint which is never met: within zeros, of
/// which nobody executes more than one (UDF). Tells how many.
fn withhold_all(link: &mut Link, image: &[u8]) -> usize {
    let words = words(image);
    let places = words.chunks(PAGE / 4).enumerate().filter_map(|(page, words)| {
        let word = words.windows(2).rposition(|pair| pair == [0; 2])?;
        Some(Ipa(LOAD + (page * PAGE + 4 * word) as u64))
    });
    places.map(|place| link.set_breakpoint(0, Place::Ipa(place)).unwrap()).count()
}

/// Lets a guest run, by breakpoints in registers, to the first of some places: past what it begins with,
/// which clears its memory.
fn run_to(link: &mut Link, places: &[Place]) {
    for &place in places {
        link.set_breakpoint(0, place).unwrap();
    }
    link.resume(0).unwrap();
    assert_eq!(stopped_or_ended(link), Some(StopReason::Breakpoint));
    for &place in places {
        link.clear_breakpoint(0, place).unwrap();
    }
}

/// Where a guest sets its vectors: MSR VBAR_EL1.
fn sets_vectors(image: &[u8]) -> Vec<Place> {
    let words = words(image);
    let places = words.iter().enumerate().filter(|(_, word)| **word & !0x1f == 0xd518_c000);
    places.map(|(at, _)| Place::Va(Va(LOAD + 4 * at as u64))).collect()
}

/// Guests with exceptions, exclusives and vectors: all of their text is in pages that are withheld, and none
/// of them can tell.
#[test]
fn what_is_withheld_is_the_same_to_the_guest() {
    for name in ["exceptions", "exclusives", "simd"] {
        let image = guest(name);
        let (_machine, mut link) = launch(&image);
        contract::wait_for_stop(&mut link);
        run_to(&mut link, &sets_vectors(&image));
        let pages = withhold_all(&mut link, &image);
        let (text, ending) = run_to_its_end(&mut link);
        println!("{name}: {pages} pages withheld: {text}");
        assert!(pages > 0 && ending == DomainEnding::PoweredOff, "{name}: {ending:?}: {text}");
        assert!(text.contains(&format!("{name}: ok")), "{text}");
    }
}

/// It waits as long as it has to in a page that it is stepped through, and its interrupts come.
#[test]
fn what_is_stepped_through_waits_and_is_interrupted() {
    let (_machine, mut link) = launch(&timer_image());
    contract::wait_for_stop(&mut link);
    let end = Ipa(contract::ENTRY.0 + TIMER_END);
    link.set_breakpoint(0, Place::Ipa(end)).unwrap();
    link.resume(0).unwrap();
    assert_eq!(stopped_or_ended(&mut link), Some(StopReason::Breakpoint));
    let registers = link.read_registers(V0).unwrap();
    assert_eq!((registers.pc, registers.x[9]), (end.0, 1), "{registers:x?}");
    assert!((registers.x[6]..100 * registers.x[6]).contains(&registers.x[8]), "{registers:x?}");
}

/// Instructions between the load of an exclusive sequence and its store, and the store itself.
fn within_sequences(image: &[u8]) -> Vec<u64> {
    let words = words(image);
    let is_load = |word| matches!(Instruction::decode(word), Instruction::LoadExclusive { .. });
    let loads = words.iter().enumerate().filter(|&(_, &word)| is_load(word));
    loads.map(|(at, _)| LOAD + 4 * (at as u64 + 1)).collect()
}

/// Breakpoints in every exclusive sequence that four vCPUs execute at the same time.
#[test]
fn sequences_with_breakpoints_get_somewhere() {
    let image = guest("hammer");
    let within = within_sequences(&image);
    let places: Vec<_> = within.iter().map(|&at| Place::Ipa(Ipa(at))).collect();
    assert!(places.len() > 8, "{places:x?}");
    for others in [OthersPolicy::Run, OthersPolicy::STEP] {
        let (_machine, mut link) = launch_with(&image, 4);
        contract::wait_for_stop(&mut link);
        run_to(&mut link, &[Place::Va(Va(within[0]))]);
        for &place in &places {
            link.set_breakpoint(0, place).unwrap();
        }
        link.support_others().unwrap().set_others_policy(0, others).unwrap();
        for _ in 0..30 {
            link.resume(0).unwrap();
            assert_eq!(stopped_or_ended(&mut link), Some(StopReason::Breakpoint));
        }
        link.step(V0, StepRequest::steps(300)).unwrap();
        assert!(stopped_or_ended(&mut link).is_some());
        for &place in &places {
            link.clear_breakpoint(0, place).unwrap();
        }
        let (text, ending) = run_to_its_end(&mut link);
        assert_eq!(ending, DomainEnding::PoweredOff, "{others:?}");
        assert!(text.contains("hammer: ok 0x400"), "{others:?}: {text}");
    }
}

/// Bytes in the very page that is executed are watched, more than registers hold.
#[test]
fn text_is_watched_that_is_executed() {
    let (_machine, mut link) = launch(&contract::guest_bytes());
    contract::wait_for_stop(&mut link);
    let literal = Va(contract::ENTRY.0 + 0x800);
    let watch = Watchpoint { address: literal, length: 24, access: WatchAccess::ReadWrite };
    link.support_watchpoints().unwrap().set_watchpoint(V0, watch).unwrap();
    // ldr x4, 0x808, in place of a move.
    let load = 0x5800_3ea4_u32.to_le_bytes();
    let at = contract::FUNCTION.offset(4);
    link.write_memory(V0, Place::Va(at), &load).unwrap();
    let stop = || StopReason::Watchpoint { address: Va(literal.0 + 8), access: WatchAccess::Read };
    link.resume(0).unwrap();
    assert_eq!(stopped_or_ended(&mut link), Some(stop()));
    assert_eq!(link.read_registers(V0).unwrap().pc, at.0);
    // By steps, too.
    let mut registers = link.read_registers(V0).unwrap();
    registers.pc = contract::FUNCTION.0;
    link.write_registers(V0, &registers).unwrap();
    link.step(V0, StepRequest::steps(100)).unwrap();
    assert_eq!(stopped_or_ended(&mut link), Some(stop()));
    link.support_watchpoints().unwrap().clear_watchpoint(0, watch).unwrap();
    assert_eq!(run_to_its_end(&mut link).1, DomainEnding::PoweredOff);
}
