//! The generic timer's registers: which encodings there are, and which way they go.
//!
//! The space around them (op0 3, op1 3, CRn 14, CRm 0, 2 and 3) has encodings that are no register,
//! and registers that cannot be written: both are undefined, and whoever carries an access out in the
//! CPU's place has to know them. CNTFRQ_EL0 is a constant, and is left to the CPU.
//!
//! Source: Arm ARM, DDI 0487 L.b, "The Generic Timer in AArch64 state", "Generic Timer registers".

use crate::SystemRegister;

/// Tells whether a register is a timer's: EL1 may read and write it.
#[must_use]
pub const fn is_timer(register: SystemRegister) -> bool {
    matches!(
        register,
        SystemRegister::CNTP_CTL_EL0
            | SystemRegister::CNTP_CVAL_EL0
            | SystemRegister::CNTP_TVAL_EL0
            | SystemRegister::CNTV_CTL_EL0
            | SystemRegister::CNTV_CVAL_EL0
            | SystemRegister::CNTV_TVAL_EL0
    )
}

/// Tells whether a register is a counter, in either view, self-synchronized or not: EL1 may read it.
#[must_use]
pub const fn is_counter(register: SystemRegister) -> bool {
    matches!(
        register,
        SystemRegister::CNTPCT_EL0
            | SystemRegister::CNTVCT_EL0
            | SystemRegister::CNTPCTSS_EL0
            | SystemRegister::CNTVCTSS_EL0
    )
}

/// Tells whether an access in the direction that is told is one to a counter or timer.
#[must_use]
pub const fn is_access(register: SystemRegister, is_read: bool) -> bool {
    is_timer(register) || is_read && is_counter(register)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every encoding that is anything of the generic timer, by CRm and op2, as the manual lists them.
    const COUNTERS: [(u8, u8); 4] = [(0, 1), (0, 2), (0, 5), (0, 6)];
    const TIMERS: [(u8, u8); 6] = [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)];

    #[test]
    fn of_all_encodings_ten_are_counters_and_timers() {
        for register in (0..=u16::MAX).map(SystemRegister) {
            let place = (register.crm(), register.op2());
            let is_near = (register.op0(), register.op1(), register.crn()) == (3, 3, 14);
            let (counter, timer) =
                (is_near && COUNTERS.contains(&place), is_near && TIMERS.contains(&place));
            assert_eq!(is_counter(register), counter, "{register}");
            assert_eq!(is_timer(register), timer, "{register}");
            assert_eq!(is_access(register, true), counter || timer, "{register}");
            assert_eq!(is_access(register, false), timer, "{register}: counters are read-only");
        }
    }
}
