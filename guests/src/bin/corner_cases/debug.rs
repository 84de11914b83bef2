//! The registers of debug, Illegal Execution state before what generates exceptions, and halting.

use crate::cases::at_el1;
use crate::{cases, show};
use stepwell_guests::{read_register, write_register};

cases! { CASES:
    d_brk "brk #0x1234"
    d_brk_max "brk #0xffff"
    d_hlt "hlt #0x77"
    d_dcps "dcps1 #1; dcps2 #2; dcps3 #3"
    d_drps ".inst 0xd6bf03e0"
    d_smc "smc #1"
    d_udf "udf #7"
    // X3: where to, and X0 has what is there.
    d_illegal_brk "adr x4, 1f; mov x5, #0x3c9; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: brk #5"
    d_illegal_svc "adr x4, 1f; mov x5, #0x3c9; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: svc #5"
    d_illegal_undefined "adr x4, 1f; mov x5, #0x3c9; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: udf #5"
    d_illegal_exclusive "ldxr x6, [x0]; adr x4, 1f; mov x5, #0x3c9; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: stxr w10, xzr, [x0]"
    d_illegal_device "adr x4, 1f; mov x5, #0x3c9; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: ldr w10, [x2]"
    d_illegal_el2 "adr x4, 1f; mov x5, #0x3c8; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: nop"
    d_illegal_reserved "adr x4, 1f; mov x5, #0x3c2; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: nop"
    d_illegal_32 "adr x4, 1f; mov x5, #0x1d3; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: nop"
    d_illegal_system "adr x4, 1f; mov x5, #0x1df; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: nop"
    d_set_illegal "adr x4, 1f; mov x5, #0x3c5; orr x5, x5, #1 << 20; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: nop"
    d_set_step "adr x4, 1f; mov x5, #0x3c5; orr x5, x5, #1 << 21; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: nop"
    d_spsr "mov x4, #-1; msr spsr_el1, x4; mrs x10, spsr_el1; msr elr_el1, x4; mrs x11, elr_el1"
    d_nzcv "mov x4, #-1; msr nzcv, x4; mrs x10, nzcv"
    d_daif "mrs x5, daif; mov x4, #-1; msr daif, x4; mrs x10, daif; msr daif, x5"
    d_odd_pc "mov x14, x30; orr x4, x14, #2; adr x30, 1f; br x4; 1: mov x30, x14"
    d_odd_return "mov x14, x30; adr x30, 1f; orr x4, x30, #1; mov x5, #0x3c5; msr elr_el1, x4; msr spsr_el1, x5; isb; eret; 1: mov x30, x14"
    // A watchpoint on a device's register, for loads, stores and both.
    d_watched_load_loads "msr dbgwvr0_el1, x2; mov x4, #0x1fef; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldr w10, [x2]; msr daifset, #8"
    d_watched_load_stores "msr dbgwvr0_el1, x2; mov x4, #0x1ff7; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldr w10, [x2]; msr daifset, #8"
    d_watched_load_both "msr dbgwvr0_el1, x2; mov x4, #0x1fff; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldr w10, [x2]; msr daifset, #8"
    d_watched_store_loads "msr dbgwvr0_el1, x2; mov x4, #0x1fef; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; str wzr, [x2]; msr daifset, #8"
    d_watched_store_stores "msr dbgwvr0_el1, x2; mov x4, #0x1ff7; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; str wzr, [x2]; msr daifset, #8"
    d_watched_store_both "msr dbgwvr0_el1, x2; mov x4, #0x1fff; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; str wzr, [x2]; msr daifset, #8"
    d_watched_add_loads "msr dbgwvr0_el1, x2; mov x4, #0x1fef; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; mov w5, wzr; ldadd w5, w10, [x2]; msr daifset, #8"
    d_watched_add_stores "msr dbgwvr0_el1, x2; mov x4, #0x1ff7; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; mov w5, wzr; ldadd w5, w10, [x2]; msr daifset, #8"
    d_watched_add_both "msr dbgwvr0_el1, x2; mov x4, #0x1fff; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; mov w5, wzr; ldadd w5, w10, [x2]; msr daifset, #8"
    d_watched_swap_loads "msr dbgwvr0_el1, x2; mov x4, #0x1fef; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; swp wzr, w10, [x2]; msr daifset, #8"
    d_watched_swap_stores "msr dbgwvr0_el1, x2; mov x4, #0x1ff7; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; swp wzr, w10, [x2]; msr daifset, #8"
    d_watched_swap_both "msr dbgwvr0_el1, x2; mov x4, #0x1fff; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; swp wzr, w10, [x2]; msr daifset, #8"
    d_watched_compare_loads "msr dbgwvr0_el1, x2; mov x4, #0x1fef; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; mov w5, wzr; cas w5, wzr, [x2]; msr daifset, #8"
    d_watched_compare_stores "msr dbgwvr0_el1, x2; mov x4, #0x1ff7; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; mov w5, wzr; cas w5, wzr, [x2]; msr daifset, #8"
    d_watched_compare_both "msr dbgwvr0_el1, x2; mov x4, #0x1fff; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; mov w5, wzr; cas w5, wzr, [x2]; msr daifset, #8"
    d_watched_exclusive_loads "msr dbgwvr0_el1, x2; mov x4, #0x1fef; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldxr w5, [x2]; msr daifset, #8"
    d_watched_exclusive_stores "msr dbgwvr0_el1, x2; mov x4, #0x1ff7; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldxr w5, [x2]; msr daifset, #8"
    d_watched_exclusive_both "msr dbgwvr0_el1, x2; mov x4, #0x1fff; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldxr w5, [x2]; msr daifset, #8"
    d_watched_pair_loads "msr dbgwvr0_el1, x2; mov x4, #0x1fef; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldp w10, w11, [x2]; msr daifset, #8"
    d_watched_pair_stores "msr dbgwvr0_el1, x2; mov x4, #0x1ff7; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldp w10, w11, [x2]; msr daifset, #8"
    d_watched_pair_both "msr dbgwvr0_el1, x2; mov x4, #0x1fff; msr dbgwcr0_el1, x4; mov x4, #0xa000; msr mdscr_el1, x4; isb; msr daifclr, #8; .arch_extension lse; ldp w10, w11, [x2]; msr daifset, #8"
}

/// Writes a register with values, and shows what it keeps.
macro_rules! keeps {
    ($($name:literal)*) => {$(
        let before = read_register!($name);
        for value in [0, u64::MAX, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa] {
            write_register!($name, value);
            show($name, &[value, read_register!($name)]);
        }
        write_register!($name, before);
    )*};
}

pub fn look() {
    for bit in 0..64 {
        // SS, which would step what follows.
        if bit != 0 {
            write_register!("mdscr_el1", 1 << bit);
            show("mdscr", &[bit, read_register!("mdscr_el1")]);
        }
    }
    write_register!("mdscr_el1", 0);
    for value in [0, 1, 2, 3, u64::MAX, 0xc5ac_ce55, 0] {
        write_register!("oslar_el1", value);
        show("oslar", &[value, read_register!("oslsr_el1")]);
    }
    for value in [1, 2, u64::MAX, 0] {
        write_register!("osdlr_el1", value);
        show("osdlr", &[value, read_register!("osdlr_el1")]);
    }
    keeps! {
        "dbgbvr0_el1" "dbgbcr0_el1" "dbgwvr0_el1" "dbgwcr0_el1" "dbgbvr3_el1" "dbgwcr3_el1"
        "oseccr_el1" "dbgclaimset_el1" "dbgclaimclr_el1" "mdccint_el1"
        "contextidr_el1" "tpidrro_el0" "afsr0_el1" "afsr1_el1" "par_el1" "csselr_el1" "cpacr_el1"
    }
    let mut words = [0_u64; 4];
    let given = [(&raw mut words) as u64, 0, 0x0900_0018, 0];
    for (name, function) in CASES {
        let found = at_el1(*function as *const () as u64, given);
        show(name, &found);
        write_register!("dbgwcr0_el1", 0);
        write_register!("mdscr_el1", 0);
    }
}
