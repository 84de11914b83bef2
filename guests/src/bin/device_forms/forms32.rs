//! The same of AArch32 at EL0, which has all of the board while translation is off.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{Frame, enter_el0};
use stepwell_guests::hardware::{read32, write32};
use stepwell_guests::instruction;

use crate::{HOLE32, IDS, RATES, print};

/// Vector of synchronous exceptions from AArch32 EL0.
pub const VECTOR: u64 = 12;
/// SPSR of AArch32 User mode, everything masked; and of T32.
const USER: u64 = 0x1d0;
const T: u64 = 1 << 5;

/// Behind a form, which may leave what it has found in a SIMD register.
const NOP: u32 = 0xe320_f000;
const FROM_SINGLE: u32 = 0xee10_1a10;
const FROM_DOUBLE: u32 = 0xec52_1b10;
const NOP_SVC: u32 = 0xdfff_bf00;

type Form = (&'static str, u32, u32);

const LOADS: [Form; 19] = [
    ("a32 ldr r1, [r0], #4", 0xe490_1004, NOP),
    ("a32 ldr r1, [r0, r4]!", 0xe7b0_1004, NOP),
    ("a32 ldrb r1, [r0], #1", 0xe4d0_1001, NOP),
    ("a32 ldrt r1, [r0]", 0xe4b0_1000, NOP),
    ("a32 ldrh r1, [r0], #2", 0xe0d0_10b2, NOP),
    ("a32 ldrht r1, [r0], #2", 0xe0f0_10b2, NOP),
    ("a32 ldm r0!, {r1, r2}", 0xe8b0_0006, NOP),
    ("a32 ldmdb r0, {r1, r2}", 0xe910_0006, NOP),
    ("a32 ldrd r2, r3, [r0], #8", 0xe0c0_20d8, NOP),
    ("a32 ldrexd r2, r3, [r0]", 0xe1b0_2f9f, NOP),
    ("a32 vldr s0, [r0]", 0xed90_0a00, FROM_SINGLE),
    ("a32 vldr d0, [r0]", 0xed90_0b00, FROM_DOUBLE),
    ("a32 vldmia r0!, {s0, s1}", 0xecb0_0a02, FROM_DOUBLE),
    ("t32 ldr r1, [r0], #4", 0x1b04_f850, NOP_SVC),
    ("t32 ldrt r1, [r0, #4]", 0x1e04_f850, NOP_SVC),
    ("t32 ldrsh r1, [r0], #2", 0x1b02_f930, NOP_SVC),
    ("t32 ldm r0!, {r1, r2}", 0xbf00_c806, NOP_SVC),
    ("t32 ldmdb r0, {r1, r2}", 0x0006_e910, NOP_SVC),
    ("t32 ldrd r2, r3, [r0], #8", 0x2302_e8f0, NOP_SVC),
];

const STORES: [Form; 13] = [
    ("a32 str r1, [r0], #4", 0xe480_1004, NOP),
    ("a32 strh r1, [r0], #2", 0xe0c0_10b2, NOP),
    ("a32 strt r1, [r0], #4", 0xe4a0_1004, NOP),
    ("a32 stmib r0!, {r1, r2}", 0xe9a0_0006, NOP),
    ("a32 strd r2, r3, [r0]", 0xe1c0_20f0, NOP),
    ("a32 ldrex r1, [r0]; strex r2, r3, [r0]", 0xe190_1f9f, 0xe180_2f93),
    ("a32 swp r1, r2, [r0]", 0xe100_1092, NOP),
    ("a32 vstr s0, [r0]", 0xed80_0a00, NOP),
    ("a32 vstmia r0!, {s0, s1}", 0xeca0_0a02, NOP),
    ("t32 str r1, [r0, #4]!", 0x1f04_f840, NOP_SVC),
    ("t32 stm r0!, {r1, r2}", 0xbf00_c006, NOP_SVC),
    ("t32 strd r2, r3, [r0]", 0x2300_e9c0, NOP_SVC),
    ("t32 strex r2, r3, [r0]", 0x3200_e840, NOP_SVC),
];

/// The program, of either set.
static CODE: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];
/// What it left: R0 to R4, ESR_EL1 and FAR_EL1.
static LEFT: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

/// At the exception that it ends by: its SVC, or its fault.
pub fn leave(frame: &mut Frame) {
    const SVC32: u64 = 0x11;
    let far = if frame.class() == SVC32 { 0 } else { frame.far };
    let values = frame.x.iter().take(5).copied().chain([frame.esr, far]);
    LEFT.iter().zip(values).for_each(|(left, value)| left.store(value, Relaxed));
    frame.leave_el0();
}

/// Executes it there, with a few things in R1 to R4, and prints what it did.
fn show((name, form, after): Form, at: u64) {
    let is_t32 = name.starts_with('t');
    // MOV of each, and SVC.
    let program = if is_t32 {
        [0x2222_2111, 0x2404_2333, form, after, 0, 0, 0, 0]
    } else {
        let svc = 0xef00_0000;
        [0xe3a0_1011, 0xe3a0_2022, 0xe3a0_3033, 0xe3a0_4004, form, after, svc, 0]
    };
    CODE.iter().zip(program).for_each(|(word, new)| word.store(new, Relaxed));
    instruction!("dsb ish");
    instruction!("ic iallu");
    instruction!("dsb ish");
    instruction!("isb");
    (0..3).for_each(|n| write32(RATES + 4 * n, 5));
    enter_el0(CODE.as_ptr() as u64, at, if is_t32 { USER | T } else { USER }, 0);
    let [r0, r1, r2, r3, r4, esr, far] = LEFT.each_ref().map(|value| value.load(Relaxed));
    print(name, &[at, r0.wrapping_sub(at), r1, r2, r3, r4]);
    print("  kept", &[0, 4, 8].map(|n| read32(RATES + n).into()));
    print("  left by", &[esr, far]);
}

pub fn look() {
    LOADS.into_iter().for_each(|form| show(form, IDS + 8));
    STORES.into_iter().for_each(|form| show(form, RATES));
    // The last two of a device, and where nobody answers.
    for form in [LOADS[6], LOADS[8], STORES[4]] {
        show(form, HOLE32);
        show(form, HOLE32 + 0xffc);
    }
}
