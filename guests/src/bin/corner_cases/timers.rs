//! Both timers: what their registers keep, what ISTATUS and the interrupt controller say, and what EL0
//! may have of them.

use crate::cases;
use crate::cases::at_el0;
use crate::show;
use stepwell_guests::hardware::gic::{GICR_SGI, ISPENDR};
use stepwell_guests::hardware::read32;
use stepwell_guests::{read_register, write_register};

cases! { CASES:
    t_virtual_count "mrs x10, cntvct_el0; mov x10, #0"
    t_physical_count "mrs x10, cntpct_el0; mov x10, #0"
    t_frequency "mrs x10, cntfrq_el0"
    t_virtual_ctl "mrs x10, cntv_ctl_el0; msr cntv_ctl_el0, xzr"
    t_virtual_cval "mrs x11, cntv_cval_el0; msr cntv_cval_el0, x11"
    t_virtual_tval "mrs x11, cntv_tval_el0; msr cntv_tval_el0, x11"
    t_physical_ctl "mrs x10, cntp_ctl_el0; msr cntp_ctl_el0, xzr"
    t_physical_cval "mrs x11, cntp_cval_el0; msr cntp_cval_el0, x11"
    t_physical_tval "mrs x11, cntp_tval_el0; msr cntp_tval_el0, x11"
    t_write_count "msr S3_3_C14_C0_2, x0; msr S3_3_C14_C0_1, x0"
    t_kernel_ctl "mrs x10, cntkctl_el1; msr cntkctl_el1, x10"
    t_self_synchronized "mrs x10, S3_3_C14_C0_5; mrs x11, S3_3_C14_C0_6; mov x10, #0"
}

/// The PPIs of both.
const PENDING: u32 = 1 << 27 | 1 << 30;

fn pending() -> u64 {
    (read32(GICR_SGI + ISPENDR) & PENDING).into()
}

/// A timer's registers.
macro_rules! timer {
    ($name:literal, $count:literal, $ctl:literal, $cval:literal, $tval:literal) => {{
        let compares = |now: u64| {
            [
                0,
                1,
                now - 1,
                now + (1 << 40),
                i64::MAX as u64,
                1 << 63,
                (1 << 63) + now,
                u64::MAX - (1 << 36),
                u64::MAX - now,
                u64::MAX - 1,
                u64::MAX,
            ]
        };
        let now = read_register!($count);
        for (n, compare) in compares(now).into_iter().enumerate() {
            for control in [0, 1, 2, 3, 5, 7, u64::MAX, 1, 0] {
                write_register!($cval, compare);
                write_register!($ctl, control);
                let kept = read_register!($cval).wrapping_sub(compare);
                show($name, &[n as u64, control, read_register!($ctl), kept, pending()]);
            }
            write_register!($ctl, 1);
            let before = [read_register!($ctl), pending()];
            write_register!($cval, u64::MAX);
            let after = [read_register!($ctl), pending()];
            write_register!($ctl, 0);
            show(concat!($name, " moved"), &[before[0], before[1], after[0], after[1]]);
        }
        for tval in [
            0,
            1 << 30,
            0x7fff_0000,
            0xffff_0000,
            0xffff_ffff,
            0xffff_ffff_7fff_0000,
            1 << 32,
            u64::MAX,
        ] {
            let now = read_register!($count);
            write_register!($tval, tval);
            let distance = read_register!($cval).wrapping_sub(now);
            let wanted = tval as u32 as i32 as i64 as u64;
            let is_near = distance.wrapping_sub(wanted) < 1 << 26;
            write_register!($ctl, 1);
            let status = read_register!($ctl);
            let high = read_register!($tval) >> 32;
            show(concat!($name, " tval"), &[tval, is_near.into(), status, high, pending()]);
            write_register!($ctl, 0);
        }
        for compare in compares(read_register!($count)) {
            write_register!($cval, compare);
            let left = compare.wrapping_sub(read_register!($count));
            let passed = (left as u32).wrapping_sub(read_register!($tval) as u32);
            show(concat!($name, " left"), &[(passed < 1 << 26).into()]);
        }
        write_register!($cval, u64::MAX >> 1);
    }};
}

pub fn look() {
    timer!("virtual", "cntvct_el0", "cntv_ctl_el0", "cntv_cval_el0", "cntv_tval_el0");
    timer!("physical", "cntpct_el0", "cntp_ctl_el0", "cntp_cval_el0", "cntp_tval_el0");
    for control in 0..1 << 10 {
        // EL0PCTEN, EL0VCTEN and EL0VTEN, EL0PTEN; the event stream off.
        if control & 0xfc != 0 {
            continue;
        }
        write_register!("cntkctl_el1", control);
        for (name, function) in CASES {
            let found = at_el0(*function as *const () as u64, [0; 4], 0);
            show(name, &[control, found[0]]);
        }
    }
    for control in [1, 1 << 2, 0xf << 4, 1 << 10, 1 << 17, u64::MAX] {
        write_register!("cntkctl_el1", control);
        show("cntkctl", &[control, read_register!("cntkctl_el1")]);
    }
    write_register!("cntkctl_el1", 0);
}
