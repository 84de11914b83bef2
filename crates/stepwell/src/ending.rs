//! How a guest ended, as a sentence and as an exit status.

use crate::names::Names;
use std::fmt::Display;
use stepwell_arch::EsrEl2;
use stepwell_debuggee::DomainEnding;

/// Exit status of a clean power-off.
pub const CLEAN: u8 = 0;
/// Exit status where the user or we are to blame.
pub const FAILED: u8 = 1;
/// Exit status where the guest crashed.
pub const CRASHED: u8 = 2;
/// Exit status where the guest wanted to be reset.
pub const RESET: u8 = 3;
/// Exit status where the user left.
pub const LEFT: u8 = 130;

/// Returns the exit status, and what to tell where it isn't clean.
#[must_use]
pub fn describe(ending: DomainEnding, names: &Names) -> (u8, Option<String>) {
    match ending {
        DomainEnding::PoweredOff => (CLEAN, None),
        DomainEnding::Reset => {
            (RESET, Some("the guest asked to be reset, which ends it here: start it again".into()))
        }
        DomainEnding::Fault(fault) => {
            let place = names.guess(fault.pc).map(|name| format!(" <{name}>"));
            let text = format!(
                "the guest crashed: vcpu{} {}; pc {:#x}{}, esr {}, address {:#x}",
                fault.vcpu,
                fault.kind,
                fault.pc,
                place.unwrap_or_default(),
                EsrEl2(fault.esr),
                fault.address,
            );
            (CRASHED, Some(text))
        }
    }
}

/// As [`describe`], of a guest that ended before it came to a place that was waited for: that is no
/// success, however it ended.
#[must_use]
pub fn describe_early(ending: DomainEnding, names: &Names, place: &dyn Display) -> (u8, String) {
    let (status, text) = describe(ending, names);
    let how = text.unwrap_or_else(|| "the guest powered off".into());
    let status = if status == CLEAN { FAILED } else { status };
    (status, format!("{how}; it never came to {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_arch::Va;
    use stepwell_debuggee::{FaultKind, GuestFault};

    #[test]
    fn a_crash_names_everything() {
        let kind = FaultKind::UnmappedAccess;
        let fault =
            GuestFault { vcpu: 1, pc: Va(0x4008_0000), esr: 0x9600_0046, address: 0x1000, kind };
        let (status, text) = describe(DomainEnding::Fault(fault), &Names::none());
        let text = text.unwrap();
        assert_eq!(status, CRASHED);
        for part in ["vcpu1", "0x40080000", "0x96000046", "address 0x1000", "nothing"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_place_that_was_never_met_is_no_success() {
        let early = |ending| describe_early(ending, &Names::none(), &"hello_init");
        let (status, text) = early(DomainEnding::PoweredOff);
        assert_eq!(status, FAILED);
        assert_eq!(text, "the guest powered off; it never came to hello_init");
        let (status, text) = early(DomainEnding::Reset);
        assert_eq!(status, RESET);
        assert!(text.ends_with("never came to hello_init"), "{text}");
    }
}
