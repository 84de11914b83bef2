//! Every call of the firmware that returns, and what it is told of each.

use stepwell_guests::hardware::psci::{AFFINITY_INFO, CPU_ON, FEATURES, call};

use crate::show;

/// SMCCC's calls of the architecture, of the vendor's hypervisor, of TRNG, and of SDEI.
const OTHER_CALLS: [u64; 16] = [
    0x8000_0000,
    0x8000_0001,
    0x8000_0002,
    0x8000_3fff,
    0x8000_7fff,
    0xc000_0002,
    0x8400_0050,
    0x8400_0051,
    0x8400_0052,
    0x8400_0053,
    0xc400_0053,
    0x8600_ff01,
    0x8600_0000,
    0xc600_0001,
    0xc400_0020,
    0xc400_003f,
];
/// Those that do not return.
const ENDINGS: [u64; 5] = [2, 8, 9, 0x95c1_ba5f, 0x12];

fn is_ending(function: u64) -> bool {
    ENDINGS.contains(&(function & 0xffff)) || ENDINGS.contains(&function)
}

pub fn look() {
    for base in [0x8400_0000, 0xc400_0000, 0x95c1_ba58, 0xffff_ffff_8400_0000] {
        for function in (0..0x20).map(|n| base + n) {
            show("features", &[function, call(FEATURES, function, 0, 0)]);
            let number = function.wrapping_sub(base);
            // CPU_SUSPEND waits; CPU_ON has its own below.
            if !is_ending(function) && !matches!(number, 1 | 3 | 6) && base != 0x95c1_ba58 {
                let nothing = call(function, 0, 0, 0);
                let garbage = call(function, u64::MAX, u64::MAX, u64::MAX);
                show("call", &[function, nothing, garbage]);
            }
        }
    }
    for function in OTHER_CALLS {
        show("features", &[function, call(FEATURES, function, 0, 0)]);
        let answers = [0, 0x8000_0000, 0x8000_8000, u64::MAX].map(|x1| call(function, x1, 0, 0));
        show("answers", &answers);
    }
    for function in [CPU_ON, CPU_ON & !(1 << 30), 0x95c1_ba60] {
        for target in [0, 1, 0x100, 0x8000_0000, 1 << 32, 1 << 40, u64::MAX] {
            let entries = [0x4020_0000, 0x4020_0002, 1, u64::MAX & !3];
            show("cpu_on", &[function, target]);
            show("answers", &entries.map(|entry| call(function, target, entry, 0)));
        }
    }
    for function in [AFFINITY_INFO, AFFINITY_INFO & !(1 << 30)] {
        for target in [0, 1, 0x100, 0x8000_0000, 1 << 32, u64::MAX] {
            let levels = [0, 1, 2, 3, 4, 1 << 32, u64::MAX];
            show("affinity", &[function, target]);
            show("answers", &levels.map(|level| call(function, target, level, 0)));
        }
    }
    // Refused, so that nothing waits.
    for state in [1 << 17, 1 << 24, 0xffff_0000, u64::MAX] {
        for function in [0x8400_0001, 0xc400_0001, 0x95c1_ba5e] {
            show("suspend", &[function, state, call(function, state, 0x4020_0000, 0)]);
        }
    }
}
