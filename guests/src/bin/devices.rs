//! Loads and stores of devices in every form, and of what is not there: data, fetches, table walks.
//!
//! It tells what it finds, line by line, and the test compares that with plain QEMU. Each form is tried
//! with the MMU off, with it on, and at EL0.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use stepwell_guests::exception::{EL0, Frame, class, enter_el0};
use stepwell_guests::hardware::{read32, uart, write32};
use stepwell_guests::report::{self, Outcome};
use stepwell_guests::translation::{self, EL0_ALIAS, READ_ONLY_ALIAS};
use stepwell_guests::{read_register, write_register};

/// UARTPeriphID0.
const IDS: u64 = uart::BASE + 0xfe0;
/// UARTILPR, which keeps 32 bits, and UARTIBRD behind it, of which 16 are kept by all.
const KEEPS: u64 = uart::BASE + 0x20;
/// Added to an address of a device: the same for EL0, too.
const DEVICE_ALIAS: u64 = 0x1_8000_0000;
/// GICv2's CPU interface, which is not there.
const NOWHERE: u64 = 0x0801_0000;

global_asm!(
    r#"
    .arch armv8.1-a+simd
    .text
    // x0: base; x1: where results go: X0, X2, X3, X5, V0 and V1.
    .macro  form text:vararg
    .balign 64
    mov     x2, #0x1241
    movk    x2, #0xa5a5, lsl #48
    mov     x3, #0x3442
    mov     x4, #8
    mov     x5, #0
    dup     v0.2d, x2
    mvn     v1.16b, v0.16b
    \text
    stp     x0, x2, [x1]
    stp     x3, x5, [x1, #16]
    stp     q0, q1, [x1, #32]
    ret
    .endm
    .balign 64
forms_begin:
    form    ldr w2, [x0], #4
    form    ldr x2, [x0, #8]!
    form    ldrsb w2, [x0], #1
    form    ldrh w2, [x0, x4]
    form    ldtr w2, [x0]
    form    ldp w2, w3, [x0]
    form    ldp x2, x3, [x0], #16
    form    ldpsw x2, x3, [x0, #8]!
    form    ldnp x2, x3, [x0]
    form    ldar w2, [x0]
    form    ldxr w2, [x0]
    form    ldaxp w2, w3, [x0]
    form    ldr b0, [x0]
    form    ldr h0, [x0], #2
    form    ldr s0, [x0]
    form    ldr d0, [x0, #8]!
    form    ldr q0, [x0]
    form    ldp s0, s1, [x0]
    form    ldp q0, q1, [x0]
    form    ld1 {{v0.16b, v1.16b}}, [x0]
    form    ld2 {{v0.2s, v1.2s}}, [x0], x4
    form    ld1 {{v0.s}}[2], [x0], #4
    form    ld2r {{v0.4h, v1.4h}}, [x0]
    .balign 64
loads_end:
    form    str w2, [x0], #4
    form    str x2, [x0, #0]!
    form    strb w2, [x0], #1
    form    strh w2, [x0]
    form    sttr w2, [x0]
    form    stp w2, w3, [x0]
    form    stnp w2, w3, [x0]
    form    str b0, [x0]
    form    str s0, [x0], #4
    form    str d0, [x0]
    form    stp s0, s1, [x0]
    form    st1 {{v0.h}}[3], [x0], x4
    form    st2 {{v0.4h, v1.4h}}, [x0]
    form    stlr w2, [x0]
    form    stxr w5, w2, [x0]
    .balign 64
stores_end:
    form    ldadd w2, w3, [x0]
    form    ldset w2, w3, [x0]
    form    swp w2, w3, [x0]
    form    ldsmaxb w2, w3, [x0]
    form    cas w2, w3, [x0]
    form    casp w2, w3, w4, w5, [x0]
    .balign 64
forms_end:
    // Adds 1 to a word by exclusives; returns how often it went round, at most 100 times.
    .balign 64
exclusive_loop:
    mov     x4, #0
1:  add     x4, x4, #1
    ldxr    w2, [x0]
    add     w2, w2, #1
    stxr    w5, w2, [x0]
    cmp     x4, #100
    b.hs    2f
    cbnz    w5, 1b
2:  mov     x3, x4
    stp     x0, x2, [x1]
    stp     x3, x5, [x1, #16]
    stp     q0, q1, [x1, #32]
    ret
    // At EL0: x0 is the address of the form, its base, and where results go.
    .balign 64
from_el0:
    ldp     x9, x10, [x0]
    ldr     x1, [x0, #16]
    mov     x0, x10
    blr     x9
    svc     #0xff
"#
);

unsafe extern "C" {
    fn forms_begin();
    fn loads_end();
    fn stores_end();
    fn forms_end();
    fn exclusive_loop();
    fn from_el0();
}

const FORM_BYTES: u64 = 64;

/// Memory that the code in assembly writes.
#[repr(C, align(4096))]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: one CPU, and what else writes it is called by that.
unsafe impl<T> Sync for Shared<T> {}

static RESULTS: Shared<[u64; 8]> = Shared(UnsafeCell::new([0; 8]));
static CALL: Shared<[u64; 3]> = Shared(UnsafeCell::new([0; 3]));
static LEVEL2: Shared<[u64; 512]> = Shared(UnsafeCell::new([0; 512]));
/// Exceptions that came, and what the last one was.
static ABORTS: Shared<[u64; 3]> = Shared(UnsafeCell::new([0; 3]));

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    MmuOff,
    MmuOn,
    AtEl0,
}

fn print(values: &[u64]) {
    for &value in values {
        uart::put(b' ');
        report::number(value);
    }
}

/// What exceptions there were since the last call.
fn print_aborts() {
    // SAFETY: no exception comes here.
    let aborts = unsafe { &mut *ABORTS.0.get() };
    if aborts[0] != 0 {
        uart::write(" aborts");
        print(aborts);
        *aborts = [0; 3];
    }
    report::line("");
}

/// Has a form act on a base, and tells what comes of it.
fn try_form(way: Way, form: u64, base: u64) {
    let results = RESULTS.0.get();
    // SAFETY: nobody else uses it now.
    unsafe { *results = [0; 8] };
    let base = if way == Way::AtEl0 { base + DEVICE_ALIAS } else { base };
    if way == Way::AtEl0 {
        let call = [form + READ_ONLY_ALIAS, base, results as u64 + EL0_ALIAS];
        // SAFETY: as above.
        unsafe { *CALL.0.get() = call };
        let entry = from_el0 as *const () as u64 + READ_ONLY_ALIAS;
        enter_el0(entry, CALL.0.get() as u64 + EL0_ALIAS, EL0, 0);
    } else {
        // SAFETY: a form, which keeps to the registers that are named.
        unsafe {
            asm!("blr {form}", form = in(reg) form, inout("x0") base => _, in("x1") results,
                out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x30") _);
        }
    }
    // SAFETY: as above.
    let values = unsafe { results.read_volatile() };
    print(&values);
    print_aborts();
}

/// What the registers hold that were stored to.
fn print_kept() {
    print(&[read32(KEEPS).into(), (read32(KEEPS + 4) & 0xffff).into()]);
    report::line("");
}

fn forms(begin: unsafe extern "C" fn(), end: unsafe extern "C" fn()) -> impl Iterator<Item = u64> {
    let address = |of: unsafe extern "C" fn()| of as *const () as u64;
    (address(begin)..address(end)).step_by(FORM_BYTES as usize)
}

fn try_forms(way: Way) {
    for form in forms(forms_begin, loads_end) {
        uart::write("load");
        try_form(way, form, IDS);
    }
    for place in [1, 2, 3, 4] {
        uart::write("not aligned");
        let ldr_x = forms(forms_begin, loads_end).nth(1).unwrap_or(0);
        try_form(way, ldr_x, IDS + place - 8);
    }
    for form in forms(loads_end, stores_end).chain(forms(loads_end, stores_end).take(1)) {
        uart::write("store");
        try_form(way, form, KEEPS);
        uart::write("stored");
        print_kept();
    }
    uart::write("stored, not aligned");
    try_form(way, forms(loads_end, stores_end).nth(1).unwrap_or(0), KEEPS + 4);
    print_kept();
    write32(KEEPS + 4, 0);
    if read_register!("id_aa64isar0_el1") >> 20 & 15 != 0 {
        for form in forms(stores_end, forms_end) {
            uart::write("atomic");
            try_form(way, form, KEEPS);
            print_kept();
        }
    }
    uart::write("exclusive");
    try_form(way, exclusive_loop as *const () as u64, KEEPS);
    for (form, base) in [(0, NOWHERE), (5, uart::BASE + 0xffc), (16, NOWHERE), (19, NOWHERE + 8)] {
        uart::write("nowhere");
        try_form(way, forms(forms_begin, loads_end).nth(form).unwrap_or(0), base);
    }
    for form in [0, 5, 9] {
        uart::write("store nowhere");
        try_form(way, forms(loads_end, stores_end).nth(form).unwrap_or(0), NOWHERE);
    }
}

/// Reads whatever there is on the board in all sizes, but devices that may be plugged in.
fn read_the_board() {
    let places: [u64; 28] = [
        0x0,
        0x200,
        0x400_0000,
        0x7ff_fff8,
        0x800_0000,
        0x800_0004,
        0x800_ffe8,
        NOWHERE,
        0x802_0000,
        0x80a_0008,
        0x80a_ffe8,
        0x80c_0000,
        0x900_0018,
        0x900_0019,
        0x900_001a,
        0x900_0fe4,
        0x900_1000,
        0x904_0000,
        0xa00_4000,
        0xc00_0000,
        0x1000_0000,
        0x3eff_0008,
        0x40_0000_0000,
        0x40_1000_0000,
        0x40_1000_8000,
        0x40_2000_0000,
        0x80_0000_1000,
        0x80_0000_0000_u64 << 4,
    ];
    for place in places {
        print(&[place]);
        let mut values = [0_u64; 4];
        let [byte, half, word, double] = &mut values;
        // SAFETY: no Rust objects are there; what aborts leaves its register alone.
        unsafe {
            asm!("ldrb {v:w}, [{a}]", v = inout(reg) *byte, a = in(reg) place);
            asm!("ldrh {v:w}, [{a}]", v = inout(reg) *half, a = in(reg) place);
            asm!("ldr {v:w}, [{a}]", v = inout(reg) *word, a = in(reg) place);
            asm!("ldr {v}, [{a}]", v = inout(reg) *double, a = in(reg) place);
        }
        print(&values);
        print_aborts();
    }
}

fn fetch(from: u64) {
    uart::write("fetch");
    print(&[from]);
    // SAFETY: none: the handler returns here.
    unsafe { asm!("blr {}", in(reg) from, out("x30") _) };
    print_aborts();
}

fn zero(address: u64) {
    uart::write("zero");
    // SAFETY: no Rust object is there.
    unsafe { asm!("dc zva, {}", in(reg) address) };
    print_aborts();
}

fn walk(address: u64) {
    uart::write("walk");
    // SAFETY: what aborts leaves its register alone.
    unsafe { asm!("ldr xzr, [{a}]", "str xzr, [{a}]", a = in(reg) address) };
    print_aborts();
    fetch(address);
}

/// Maps devices for EL0 too, and two tables that are not in RAM.
fn map() {
    const EL0_DEVICE: u64 = 1 | 1 << 6 | 1 << 10 | 1 << 54;
    const TABLE: u64 = 3;
    // SAFETY: the MMU is off and this is the only CPU.
    let table = unsafe { &mut *LEVEL2.0.get() };
    table[0x08000000 >> 21] = 0x0800_0000 | EL0_DEVICE;
    table[0x09000000 >> 21] = 0x0900_0000 | EL0_DEVICE;
    table[1] = NOWHERE | TABLE;
    table[2] = TABLE; // in flash, which is empty
    translation::add_table(DEVICE_ALIAS, LEVEL2.0.get() as u64);
    translation::start();
    translation::let_el0_read();
}

fn handler(frame: &mut Frame) {
    if frame.wants_to_leave() {
        frame.leave_el0();
        return;
    }
    // SAFETY: exceptions do not nest.
    let aborts = unsafe { &mut *ABORTS.0.get() };
    *aborts = [aborts[0] + 1, frame.esr, frame.far];
    if frame.class() == class::UNKNOWN {
        // What FAR_EL1 holds is from before.
        aborts[2] = 0;
    }
    let is_fetch = matches!(
        frame.class(),
        class::UNKNOWN | class::INSTRUCTION_ABORT | class::INSTRUCTION_ABORT_LOWER
    );
    frame.elr = if is_fetch { frame.x[30] } else { frame.elr + 4 };
}

fn run() -> Outcome {
    write_register!("cpacr_el1", 3 << 20);
    read_the_board();
    try_forms(Way::MmuOff);
    for address in [uart::BASE + 0x44, NOWHERE + 0x44] {
        zero(address);
    }
    for from in [0, NOWHERE, uart::BASE + 0x18, 0xc00_0000, 0x1000_0000, 0x30_0000_0000] {
        fetch(from);
    }
    map();
    try_forms(Way::MmuOn);
    try_forms(Way::AtEl0);
    for entry in [1, 2] {
        walk(DEVICE_ALIAS + (entry << 21) + 0x18);
    }
    translation::stop();
    Ok(0)
}

stepwell_guests::guest!("devices", run, handler);
