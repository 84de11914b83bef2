//! System registers of EL1: what is read is plausible, what is written reads back.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::report::{Failure, Outcome, check, require};
use stepwell_guests::{instruction, read_register, write_register};

/// Writes each register with each pattern under its mask, checks, and restores it.
macro_rules! read_back {
    ($($name:literal, $mask:expr;)*) => {$({
        let before = read_register!($name);
        for pattern in [0x5555_5555_5555_5555_u64, 0xaaaa_aaaa_aaaa_aaaa, u64::MAX, 0] {
            write_register!($name, pattern & $mask);
            check($name, read_register!($name) & $mask, pattern & $mask)?;
        }
        write_register!($name, before);
    })*};
}

fn identification() -> Outcome {
    let mut sum = 0u64;
    macro_rules! sum {
        ($($name:literal)*) => {$(
            sum = sum.rotate_left(7) ^ read_register!($name);
        )*};
    }
    sum!("midr_el1" "mpidr_el1" "revidr_el1" "id_aa64pfr1_el1" "id_aa64isar0_el1"
        "id_aa64isar1_el1" "id_aa64mmfr0_el1" "id_aa64mmfr1_el1" "ctr_el0" "dczid_el0"
        "clidr_el1" "aidr_el1" "id_pfr0_el1" "id_mmfr0_el1" "id_isar0_el1" "mvfr0_el1");
    // Read, not summed: what the architecture lets a hypervisor hide differs.
    let profile = read_register!("id_aa64pfr0_el1");
    check("EL1 in AArch64 or both", u64::from((1..=2).contains(&(profile >> 4 & 15))), 1)?;
    let debug = read_register!("id_aa64dfr0_el1");
    require("debug architecture", debug & 15 >= 6)?;
    for selector in [0, 1, 2] {
        write_register!("csselr_el1", selector);
        sum = sum.rotate_left(7) ^ read_register!("ccsidr_el1");
    }
    check("CurrentEL", read_register!("currentel"), 4)?;
    check("MPIDR affinity", read_register!("mpidr_el1") & 0xff_ffff, 0)?;
    Ok(sum)
}

fn general() -> Result<(), Failure> {
    let all = u64::MAX;
    let address = 0x0000_ffff_ffff_f000;
    read_back! {
        "tpidr_el0", all;
        "tpidrro_el0", all;
        "tpidr_el1", all;
        "contextidr_el1", 0xffff_ffff;
        "mair_el1", 0x0f0f_0f0f_0f0f_0f0f;
        "far_el1", all;
        "par_el1", 1;
        "esr_el1", 0xffff_ffff;
        "elr_el1", all & !3;
        "spsr_el1", 0xf000_03c0;
        "sp_el0", all;
        "ttbr0_el1", 0x00ff_0fff_ffff_f000;
        "ttbr1_el1", 0x00ff_0fff_ffff_f000;
        "tcr_el1", 0x0000_0007_bfbf_3f3f;
        "csselr_el1", 0xf;
        "cntkctl_el1", 0x3ff;
    }
    let vectors = read_register!("vbar_el1");
    write_register!("vbar_el1", address & !0x7ff);
    let read = read_register!("vbar_el1");
    write_register!("vbar_el1", vectors);
    check("vbar_el1", read, address & !0x7ff)?;
    let fp = read_register!("cpacr_el1");
    write_register!("cpacr_el1", 3 << 20);
    check("cpacr_el1", read_register!("cpacr_el1") & (3 << 20), 3 << 20)?;
    write_register!("cpacr_el1", fp & !(3 << 20));
    check("cpacr_el1 off", read_register!("cpacr_el1") & (3 << 20), 0)?;
    let control = read_register!("sctlr_el1");
    // nTWE, nTWI, UCT, DZE, UMA.
    let bits = 0x0005_c200;
    write_register!("sctlr_el1", control | bits);
    check("sctlr_el1 set", read_register!("sctlr_el1"), control | bits)?;
    write_register!("sctlr_el1", control & !bits);
    check("sctlr_el1 clear", read_register!("sctlr_el1"), control & !bits)?;
    write_register!("sctlr_el1", control);
    check("sctlr_el1 restored", read_register!("sctlr_el1"), control)
}

fn pstate() -> Result<(), Failure> {
    // Without I: nothing is enabled in the GIC, but nothing shall depend on that.
    for mask in [0x3c0_u64, 0x2c0, 0x380, 0x0c0, 0x240, 0x3c0] {
        write_register!("daif", mask | 0x80);
        check("DAIF", read_register!("daif"), mask | 0x80)?;
    }
    instruction!("msr daifclr, #8");
    check("DAIFClr D", read_register!("daif"), 0x1c0)?;
    instruction!("msr daifset, #8");
    check("DAIFSet D", read_register!("daif"), 0x3c0)?;
    check("SPSel", read_register!("spsel"), 1)?;
    let flags: u64;
    // SAFETY: declares what it changes.
    unsafe {
        core::arch::asm!("msr nzcv, {v}", "mrs {r}, nzcv", v = in(reg) 0xa000_0000_u64,
            r = lateout(reg) flags);
    }
    check("NZCV", flags, 0xa000_0000)
}

fn debug() -> Result<(), Failure> {
    write_register!("oslar_el1", 1);
    check("OS lock", read_register!("oslsr_el1") & 2, 2)?;
    write_register!("oslar_el1", 0);
    check("OS unlock", read_register!("oslsr_el1") & 2, 0)?;
    let before = read_register!("mdscr_el1");
    check("MDSCR at reset", before & 0xa001, 0)?;
    // PSTATE.D is set, so none of these does anything at EL1.
    for value in [0x8000, 0x2000, 0x1000, 0x0001, 0xb001, 0] {
        write_register!("mdscr_el1", value);
        check("mdscr_el1", read_register!("mdscr_el1") & 0xb001, value)?;
    }
    write_register!("mdscr_el1", before);
    let address = 0x0000_7fff_ffff_fffc;
    read_back! {
        "dbgbvr0_el1", address;
        "dbgbvr1_el1", address;
        "dbgbvr5_el1", address;
        "dbgwvr0_el1", address;
        "dbgwvr3_el1", address;
    }
    write_register!("dbgbcr0_el1", 0x1e4);
    check("dbgbcr0_el1", read_register!("dbgbcr0_el1"), 0x1e4)?;
    write_register!("dbgbcr0_el1", 0);
    write_register!("dbgwcr0_el1", 0x1ffc);
    check("dbgwcr0_el1", read_register!("dbgwcr0_el1"), 0x1ffc)?;
    write_register!("dbgwcr0_el1", 0);
    check("dbgbcr0_el1 clear", read_register!("dbgbcr0_el1") & 1, 0)
}

fn run() -> Outcome {
    let sum = identification()?;
    check("again", identification()?, sum)?;
    general()?;
    pstate()?;
    debug()?;
    Ok(0)
}

stepwell_guests::guest!("sysregs", run);
