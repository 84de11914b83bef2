//! Loads and stores of devices in every form, and of places where nobody answers.
//!
//! The device is the UART: its identification registers tell what was read, its rates keep what is
//! written. What each form does is printed: it is to be what plain QEMU does.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

mod forms32;

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{Frame, class};
use stepwell_guests::hardware::{read32, uart, write32};
use stepwell_guests::report::{self, Outcome};
use stepwell_guests::{instruction, read_register, translation, write_register};

global_asm!(
    r#"
    .arch   armv8.1-a+fp+simd
    .text
    // Each has an address in X0, and returns something of all that it loaded, and its base. No sequence
    // tries again: where its load faults, that would be for ever.
    .macro  form name, instruction
    .globl  \name
\name:
    mov     x2, x0
    mov     x3, #6
    mov     x4, #8
    mov     x5, #3
    mov     x6, #0
    mov     x7, #9
    movi    v0.4s, #1
    movi    v1.4s, #2
    \instruction
    umov    x0, v0.d[0]
    umov    x1, v0.d[1]
    eor     x0, x0, x1, ror #56
    umov    x1, v1.d[0]
    eor     x0, x0, x1, ror #48
    umov    x1, v1.d[1]
    eor     x0, x0, x1, ror #40
    eor     x0, x0, x3, ror #32
    eor     x0, x0, x5, ror #24
    eor     x0, x0, x6, ror #16
    eor     x0, x0, x7, ror #8
    mov     x1, x2
    ret
    .endm

    form    load_post, "ldr w3, [x2], #4"
    form    load_pre, "ldrb w3, [x2, #4]!"
    form    load_signed, "ldrsb x3, [x2, #28]!"
    form    load_indexed, "ldr w3, [x2, x4]"
    form    load_pair, "ldp w3, w5, [x2]"
    form    load_pair_post, "ldp x3, x5, [x2], #16"
    form    load_pair_signed, "ldpsw x3, x5, [x2, #24]"
    form    load_acquire, "ldar w3, [x2]"
    form    load_exclusive, "ldxr w3, [x2]"
    form    load_exclusive_pair, "ldxp w3, w5, [x2]"
    form    load_single, "ldr s0, [x2], #4"
    form    load_quad, "ldr q0, [x2]"
    form    load_vectors, "ldp d0, d1, [x2, #16]!"
    form    load_structure, "ld1 {{v0.4s}}, [x2], #16"
    form    load_interleaved, "ld2 {{v0.4s, v1.4s}}, [x2]"
    form    load_lane, "ld1 {{v0.s}}[2], [x2], x4"
    form    load_replicated, "ld1r {{v0.4h}}, [x2]"
    form    store_post, "str w3, [x2], #4"
    form    store_half, "strh w3, [x2, #4]!"
    form    store_pair, "stp w3, w5, [x2]"
    form    store_release, "stlr w3, [x2]"
    form    store_single, "str s0, [x2], #4"
    form    store_vectors, "stp s0, s1, [x2]"
    form    store_lane, "st1 {{v0.s}}[1], [x2], #4"
    form    store_structure, "st2 {{v0.s, v1.s}}[3], [x2]"
    form    store_exclusive, "ldxr w6, [x2]; stxr w7, w3, [x2]"
    form    store_exclusive_pair, "ldxp w6, w7, [x2]; stxp w6, w3, w5, [x2]"
    form    store_exclusive_alone, "clrex; stxr w7, w3, [x2]"
    form    zero_block, "dc zva, x2"
    form    clean, "dc cvac, x2"
    // DC CVAP and DC CVADP, which not every CPU has.
    form    clean_to_persistence, "sys #3, c7, c12, #1, x2"
    form    clean_to_deep_persistence, "sys #3, c7, c13, #1, x2"
    form    atomic_swap, "swp w5, w3, [x2]"
    form    atomic_add, "ldadd w5, w3, [x2]"
    form    atomic_max, "ldsmax w5, w3, [x2]"
    form    compare_equal, "cas w3, w5, [x2]"
    form    compare_unequal, "cas w7, w5, [x2]"
    form    compare_pair, "casp w6, w7, w4, w5, [x2]"
    form    execute, "mov x8, x30; blr x2; mov x30, x8"
    form    load_across, "ldr x3, [x2]"
    form    load_word_across, "ldrsw x3, [x2]"
    form    store_across, "str x3, [x2]"
    form    store_half_across, "strh w3, [x2]"
    form    translate_read, "at s1e1r, x2; isb; mrs x3, par_el1"
    form    translate_write, "at s1e1w, x2; isb; mrs x3, par_el1"
    form    translate_unprivileged, "at s1e0r, x2; isb; mrs x3, par_el1"
"#
);

/// What it loaded, and its base.
#[repr(C)]
struct Done(u64, u64);
type Form = unsafe extern "C" fn(u64) -> Done;

macro_rules! forms {
    ($($table:ident: $($name:ident)*;)*) => {
        unsafe extern "C" { $($(fn $name(at: u64) -> Done;)*)* }
        $(static $table: &[(&str, Form)] = &[$((stringify!($name), $name)),*];)*
    };
}

forms! {
    LOADS: load_post load_pre load_signed load_indexed load_pair load_pair_post load_pair_signed
        load_acquire load_exclusive load_exclusive_pair load_single load_quad load_vectors
        load_structure load_interleaved load_lane load_replicated;
    STORES: store_post store_half store_pair store_release store_single store_vectors store_lane
        store_structure store_exclusive store_exclusive_pair store_exclusive_alone zero_block clean
        clean_to_persistence clean_to_deep_persistence;
    ATOMICS: atomic_swap atomic_add atomic_max compare_equal compare_unequal compare_pair;
    FETCH: execute;
    ACROSS: load_across load_word_across store_across store_half_across;
    TRANSLATIONS: translate_read translate_write translate_unprivileged;
}

/// The UART's identification, and two rates: words that keep some of what is written.
const IDS: u64 = 0x0900_0fe0;
const RATES: u64 = 0x0900_0020;
/// No RAM, and nothing else.
const HOLE: u64 = 0x30_0000_0000;
/// The same, of addresses of 32 bits.
const HOLE32: u64 = 0x0b00_0000;
/// A GiB whose first tables of level 3 are in PCIe's window, which reads as ones.
const ONES: u64 = translation::UNMAPPED + 0x4000_0000;
/// The first word behind the UART.
const BEHIND: u64 = 0x0900_1000;
/// PCIe windows and configuration space, GICv2's CPU interface, what lies between devices.
const PLACES: [u64; 14] = [
    0x0801_0000,
    0x080c_0000,
    0x0900_1000,
    0x0904_0000,
    0x0b00_0000,
    0x0c00_0000,
    0x1000_0000,
    0x3eff_0000,
    0x6000_0000,
    HOLE,
    0x40_1000_0000,
    0x40_1000_8000,
    0x80_0000_0000,
    0xff_ffff_ff00,
];

/// The table of level 2 for [`ONES`].
#[repr(C, align(4096))]
struct Table([u64; 512]);
static LEVEL2: Table = {
    let mut table = [0; 512];
    table[0] = 0x1000_0003;
    Table(table)
};

static COUNT: AtomicU64 = AtomicU64::new(0);
static ESR: AtomicU64 = AtomicU64::new(0);
static FAR: AtomicU64 = AtomicU64::new(0);

fn handle(frame: &mut Frame) {
    if frame.vector == forms32::VECTOR {
        return forms32::leave(frame);
    }
    COUNT.store(COUNT.load(Relaxed) + 1, Relaxed);
    ESR.store(frame.esr, Relaxed);
    FAR.store(frame.far, Relaxed);
    frame.elr = match frame.class() {
        class::INSTRUCTION_ABORT | class::UNKNOWN => frame.x[30],
        _ => frame.elr + 4,
    };
}

fn print(name: &str, values: &[u64]) {
    uart::write(name);
    for &value in values {
        uart::write(" ");
        report::number(value);
    }
    report::line("");
}

/// Executes it there, and prints what it did.
fn show(&(name, form): &(&str, Form), at: u64) {
    COUNT.store(0, Relaxed);
    ESR.store(0, Relaxed);
    FAR.store(0, Relaxed);
    write32(RATES + 4, 5);
    write32(RATES + 8, 7);
    // SAFETY: it accesses what is no Rust object, and keeps to the calling convention.
    let Done(value, base) = unsafe { form(at) };
    let rates = [read32(RATES), read32(RATES + 4), read32(RATES + 8)].map(u64::from);
    let exception = [COUNT.load(Relaxed), ESR.load(Relaxed), FAR.load(Relaxed)];
    // One that faults may have loaded some registers.
    let value = if COUNT.load(Relaxed) == 0 { value } else { 0 };
    print(name, &[at, value, base.wrapping_sub(at)]);
    print("  kept", &rates);
    print("  exceptions", &exception);
}

/// Where RAM ends, whose size is a power of two.
fn ram_end() -> u64 {
    const BASE: u64 = 0x4000_0000;
    COUNT.store(0, Relaxed);
    let mut ends = (26..30).map(|shift| BASE + (1 << shift));
    let is_end = |&at: &u64| {
        let _whatever = read32(at);
        COUNT.load(Relaxed) > 0
    };
    ends.find(is_end).unwrap_or(2 * BASE)
}

/// As [`show`], so many bytes before the end of RAM; and what is left in the last of it.
fn show_end(form: &(&str, Form), end: u64, before: u64) {
    let last = (end - 8) as *mut u64;
    // SAFETY: nothing of the guest's is there.
    unsafe { last.write_volatile(0x1122_3344_5566_7788) };
    show(form, end - before);
    // SAFETY: as above.
    print("  left", &[unsafe { last.read_volatile() }]);
}

/// Has addresses be as large as TCR_EL1.IPS says, or as the CPU has them, and memory type 7, which ones mean,
/// be Normal memory.
fn set_output_size(size: u64) {
    write_register!("mair_el1", 0xff << 56 | 0xff00);
    let size = size.min(read_register!("id_aa64mmfr0_el1") & 0xf);
    let tcr = read_register!("tcr_el1") & !(7 << 32);
    write_register!("tcr_el1", tcr | size << 32);
    instruction!("isb");
    instruction!("tlbi vmalle1");
    instruction!("dsb ish");
    instruction!("isb");
}

fn run() -> Outcome {
    write_register!("cpacr_el1", 3 << 20);
    let has_atomics = read_register!("id_aa64isar0_el1") >> 20 & 0xf != 0;
    LOADS.iter().for_each(|form| show(form, IDS));
    STORES.iter().for_each(|form| show(form, RATES + 4));
    show(&("store_exclusive_pair", store_exclusive_pair), RATES);
    if has_atomics {
        ATOMICS.iter().for_each(|form| show(form, RATES + 4));
        show(&("compare_pair", compare_pair), RATES);
    }
    for form in LOADS.iter().chain(STORES).chain(FETCH) {
        show(form, HOLE);
        show(form, BEHIND - 4);
    }
    for place in PLACES {
        show(&LOADS[0], place);
        show(&LOADS[5], place);
    }
    // Flash, which has nothing in it.
    show(&FETCH[0], 0);
    show(&LOADS[11], 0x0400_0000);
    // Tables of the guest's that nobody answers for: of data, and of code.
    translation::add_table(translation::UNMAPPED, HOLE);
    translation::add_table(ONES, LEVEL2.0.as_ptr() as u64);
    translation::start();
    show(&LOADS[0], translation::UNMAPPED);
    show(&STORES[0], translation::UNMAPPED + 0x1234_0000);
    show(&FETCH[0], translation::UNMAPPED);
    let (end, others) = (ram_end(), [LOADS[0], LOADS[4], STORES[0], STORES[2]]);
    for form in ACROSS.iter().chain(&others) {
        (1..8).step_by(2).for_each(|before| show_end(form, end, before));
    }
    for size in [2, 5] {
        set_output_size(size);
        for form in LOADS.iter().chain(STORES).chain(TRANSLATIONS).chain(FETCH) {
            show(form, ONES + 0x1120);
        }
    }
    translation::stop();
    forms32::look();
    Ok(LOADS.len() as u64)
}

stepwell_guests::guest!("device_forms", run, handle);
