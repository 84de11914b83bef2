//! Every register of the board's devices: its value at reset, and which bits of it keep what is written.
//!
//! Nobody asks for the registers by name: all words of the interrupt controller's frames, of the UART, the
//! clock, the power key's lines, of the slots for virtio and of the bridge to PCIe are tried, in accesses of
//! every size, and what is not zero is printed. It is to be what plain QEMU does. Then the same with the
//! registers of the CPU interface and of the timers, and what the clock and the lines raise.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::asm;

use stepwell_guests::exception::{self, Frame, class};
use stepwell_guests::hardware::gic::{GICD, GICD_CTLR, GICR, GICR_STRIDE};
use stepwell_guests::hardware::{read32, uart, write32};
use stepwell_guests::report::{self, Outcome};
use stepwell_guests::{read_register, write_register};

/// The PL031.
const CLOCK: u64 = 0x0901_0000;
/// The PL061.
const LINES: u64 = 0x0903_0000;
/// Configuration space of the bridge to PCIe.
const PCIE: u64 = 0x40_1000_0000;
/// Frames of devices: first address, bytes.
const FRAMES: [(u64, u64); 10] = [
    (GICD, 0x1_0000),
    (GICR, 0x1_0000),
    (GICR + 0x1_0000, 0x1_0000),
    (GICR + GICR_STRIDE, 0x1_0000),
    (GICR + GICR_STRIDE + 0x1_0000, 0x1_0000),
    (uart::BASE, 0x1000),
    (CLOCK, 0x1000),
    (LINES, 0x1000),
    (0x0a00_0000, 0x4000),
    (PCIE, 0x180),
];
/// Accesses of these sizes are summed up for so many bytes of a frame.
const PAGE: u64 = 0x80;
/// What is written, one after the other.
const PATTERNS: [u64; 3] = [u64::MAX, 0, 0xa5a5_5a5a_3cc3_c33c];

/// Words that are not written. The UART's data register sends, and newer QEMUs loop that back by its
/// control register; of its rates QEMU keeps more bits than there are. The distributor's control is tried
/// by itself, and its type is another in newer QEMUs. The clock goes on, and is set last.
const LEFT_ALONE: [u64; 8] = [
    uart::BASE,
    uart::BASE + 0x24,
    uart::BASE + 0x28,
    uart::BASE + 0x30,
    GICD_CTLR,
    GICD + 4,
    CLOCK,
    CLOCK + 8,
];

fn is_left_alone(address: u64) -> bool {
    LEFT_ALONE.contains(&(address & !3))
}

fn read(address: u64, bytes: u64) -> u64 {
    let mut value: u64 = 0;
    // SAFETY: only device addresses are read, which are no Rust objects; what aborts leaves the register.
    unsafe {
        match bytes {
            1 => asm!("ldrb {v:w}, [{a}]", v = inout(reg) value, a = in(reg) address),
            2 => asm!("ldrh {v:w}, [{a}]", v = inout(reg) value, a = in(reg) address),
            4 => asm!("ldr {v:w}, [{a}]", v = inout(reg) value, a = in(reg) address),
            _ => asm!("ldr {v}, [{a}]", v = inout(reg) value, a = in(reg) address),
        }
    }
    value
}

fn write(address: u64, bytes: u64, value: u64) {
    // SAFETY: only device addresses are written, which are no Rust objects.
    unsafe {
        match bytes {
            1 => asm!("strb {v:w}, [{a}]", v = in(reg) value, a = in(reg) address),
            2 => asm!("strh {v:w}, [{a}]", v = in(reg) value, a = in(reg) address),
            4 => asm!("str {v:w}, [{a}]", v = in(reg) value, a = in(reg) address),
            _ => asm!("str {v}, [{a}]", v = in(reg) value, a = in(reg) address),
        }
    }
}

fn print(name: &str, values: &[u64]) {
    uart::write(name);
    for &value in values {
        uart::write(" ");
        report::number(value);
    }
    report::line("");
}

/// Prints what words of a frame hold, if anything.
fn show_reset((base, bytes): (u64, u64)) {
    for address in (base..base + bytes).step_by(4).filter(|&address| address != CLOCK) {
        let value = read(address, 4);
        if value != 0 {
            print("reset", &[address, value]);
        }
    }
}

/// Prints what the words of a frame keep. One that is zero and stays so for all its bits is none.
fn show_kept((base, bytes): (u64, u64)) {
    for address in (base..base + bytes).step_by(4).filter(|&address| !is_left_alone(address)) {
        let before = read(address, 4);
        let mut kept = PATTERNS;
        for (n, value) in kept.iter_mut().enumerate() {
            write(address, 4, *value);
            *value = read(address, 4);
            if n == 0 && before | *value == 0 {
                break;
            }
        }
        if before | kept[0] != 0 {
            write(address, 4, before);
            print("word", &[address, before, kept[0], kept[1], kept[2], read(address, 4)]);
        }
    }
}

/// Prints a sum of what accesses of another size do, page by page: to all that is a register as a word,
/// and to the first word of each page.
fn show_sized((base, bytes): (u64, u64), size: u64) {
    for page in (base..base + bytes).step_by(PAGE as usize) {
        let mut sum = 0_u64;
        let mut note =
            |value: u64| sum = (sum ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
        for word in (page..page + PAGE).step_by(size.max(4) as usize) {
            if is_left_alone(word) {
                continue;
            }
            write(word, 4, u64::MAX);
            if word > page && read(word, 4) == 0 {
                continue;
            }
            for address in (word..word + size.max(4)).step_by(size as usize) {
                if is_left_alone(address + size / 2) {
                    continue;
                }
                note(read(address, size));
                for pattern in PATTERNS {
                    write(address, size, pattern);
                    note(read(address, size));
                    note(read(address & !3, 4));
                }
            }
        }
        if sum != 0 {
            print("sum", &[page, size, sum]);
        }
    }
}

/// Prints what a system register keeps of these.
macro_rules! show_register {
    ($mask:expr; $($name:literal)*) => {$({
        let before = read_register!($name);
        let kept = PATTERNS.map(|pattern| {
            write_register!($name, pattern & $mask);
            read_register!($name)
        });
        write_register!($name, before);
        let after = read_register!($name);
        print($name, &[before, kept[0], kept[1], kept[2], after]);
    })*};
}

fn show_cpu_interface() {
    show_register!(u64::MAX; "icc_sre_el1" "icc_ctlr_el1" "icc_igrpen0_el1" "icc_igrpen1_el1");
    show_register!(u64::from(u32::MAX); "icc_ap0r0_el1" "icc_ap1r0_el1");
    // QEMU does not leave out what is beyond a priority and a binary point.
    show_register!(0xff; "icc_pmr_el1");
    show_register!(7; "icc_bpr0_el1" "icc_bpr1_el1");
    print("icc_rpr_el1", &[read_register!("icc_rpr_el1")]);
    print("icc_hppir0_el1", &[read_register!("icc_hppir0_el1")]);
    print("icc_hppir1_el1", &[read_register!("icc_hppir1_el1")]);
    print("icc_iar0_el1", &[read_register!("icc_iar0_el1")]);
    print("icc_iar1_el1", &[read_register!("icc_iar1_el1")]);
    // What the minimum of a binary point register is, by what 0 becomes while the other one rules.
    for control in [0, 1, 2, 3] {
        write_register!("icc_ctlr_el1", control);
        show_register!(7; "icc_bpr0_el1" "icc_bpr1_el1");
    }
    write_register!("icc_ctlr_el1", 0);
}

/// The compare values keep all, the controls little; a timer that is on and masked tells that it is due.
fn show_timers() {
    show_register!(u64::MAX; "cntv_cval_el0" "cntp_cval_el0" "cntkctl_el1");
    for compare in [0, 1_u64 << 62] {
        write_register!("cntv_cval_el0", compare);
        write_register!("cntp_cval_el0", compare);
        show_register!(u64::MAX; "cntv_ctl_el0" "cntp_ctl_el0");
    }
}

/// What the interrupt controller says is pending of the board's interrupts up to 31.
fn pending() -> u64 {
    read32(GICD + 0x204).into()
}

/// Prints what is raised by a match with what the clock shows. It shows afterwards what is far from any
/// match that is tried here.
fn show_matches() {
    let [shows, matches, load, mask, raised, clear] =
        [0, 4, 8, 0x10, 0x14, 0x1c].map(|at| CLOCK + at);
    write32(clear, 1);
    write32(mask, 1);
    for (set, value) in [(load, 5_000_000), (matches, 5_000_100), (load, 5_000_100), (load, 0)] {
        write32(set, value);
        print("clock", &[read(raised, 4), read(CLOCK + 0x18, 4), pending()]);
        write32(clear, 2);
        print("not cleared", &[read(raised, 4)]);
        write32(clear, 1);
        print("cleared", &[read(raised, 4), pending()]);
    }
    // The second may be over between the two.
    while read(raised, 4) == 0 {
        write32(matches, read32(shows));
    }
    print("matches now", &[read(raised, 4), pending()]);
    write32(load, 0x6000_0000);
    write32(matches, 0);
    write32(mask, 0);
    write32(clear, 1);
    print("cleared", &[read(raised, 4), pending()]);
}

/// Prints what lines raise by their levels, and as outputs that become inputs.
fn show_lines() {
    const DATA: u64 = LINES + 0x3fc;
    let registers = [0x400, 0x404, 0x408, 0x40c, 0x410, 0x414, 0x418].map(|at| LINES + at);
    let [direction, sense, both, event, enable, _, _] = registers;
    let show = |name| {
        print(name, &registers.map(|at| read(at, 4)));
        print(name, &[read(DATA, 4), pending()]);
    };
    let clear = || write32(LINES + 0x41c, 0xff);
    for (senses, events, edges) in [(0xff, 0, 0), (0x3c, 0xff, 0), (0, 0, 0), (0, 0x81, 0x18)] {
        registers[..5].iter().for_each(|&at| write32(at, 0));
        clear();
        write32(event, events);
        write32(both, edges);
        write32(sense, senses);
        write32(enable, 0xf0);
        show("lines");
        write32(direction, 0xff);
        for value in [0xa5, 0x5a] {
            write32(DATA, value);
            show("outputs");
            write32(direction, 0x0f);
            show("inputs");
            clear();
            show("cleared");
            write32(direction, 0xff);
        }
    }
    registers[..5].iter().for_each(|&at| write32(at, 0));
    clear();
}

/// Prints what comes back of a byte that is sent while the UART is to loop back.
fn show_loop_back() {
    const CONTROL: u64 = uart::BASE + 0x30;
    let before = read32(CONTROL);
    write32(CONTROL, before | 1 << 7);
    write32(uart::BASE, u32::from(b'\n'));
    let [flags, raised, data] = [0x18, 0x3c, 0].map(|at| read(uart::BASE + at, 4));
    write32(CONTROL, before);
    print("looped back", &[flags, raised, data]);
}

fn handle(frame: &mut Frame) {
    match frame.class() {
        class::DATA_ABORT | class::UNKNOWN => {
            print("exception", &[frame.esr, frame.far]);
            frame.elr += 4;
        }
        _ => exception::unexpected(frame),
    }
}

fn run() -> Outcome {
    FRAMES.iter().for_each(|&frame| show_reset(frame));
    show_cpu_interface();
    show_timers();
    show_lines();
    show_matches();
    for pattern in [u32::MAX, 0, 0x55, 0xaa, 0x13] {
        write32(GICD_CTLR, pattern);
        print("distributor", &[read32(GICD_CTLR).into()]);
    }
    FRAMES.iter().for_each(|&frame| show_kept(frame));
    for size in [1, 2, 8] {
        FRAMES.iter().for_each(|&frame| show_sized(frame, size));
    }
    show_loop_back();
    Ok(FRAMES.len() as u64)
}

stepwell_guests::guest!("frames", run, handle);
