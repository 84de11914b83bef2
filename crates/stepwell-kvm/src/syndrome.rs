//! What EL2's syndrome registers would say of an exit of KVM's.

use stepwell_arch::esr::ec;
use stepwell_arch::{Ipa, Va};

const EC_SHIFT: u32 = 26;
/// The instruction has four bytes.
const IL: u64 = 1 << 25;
/// ISS of a Software Step exception: it tells of the instruction, which was no load-exclusive.
const PLAIN: u64 = 1 << 24 | 0x22;
/// What a plain step leaves: nothing else has to be looked at.
pub const PLAIN_STEP: u64 = of_class(ec::SOFTWARE_STEP_LOWER) | PLAIN;
/// ISS of a data abort, WnR.
const WNR: u64 = 1 << 6;
/// ISS of a data abort, S1PTW.
const S1PTW: u64 = 1 << 7;
/// Fault status: permission fault of level 3.
const PERMISSION_3: u64 = 0x0f;
/// DFSC: translation fault of level 3.
const TRANSLATION_3: u64 = 0x07;
/// ISS of an SError, AET: uncontainable; DFSC: asynchronous.
const UNCONTAINABLE: u64 = 0x11;
const PAGE_SHIFT: u32 = 12;
const HPFAR_SHIFT: u32 = 4;

/// ESR_EL2, FAR_EL2 and HPFAR_EL2 of an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syndrome {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
}

const fn of_class(class: u8) -> u64 {
    (class as u64) << EC_SHIFT | IL
}

/// Tells whether this is what a plain step leaves: nothing else has to be looked at.
#[must_use]
pub const fn is_plain_step(esr: u64) -> bool {
    esr == PLAIN_STEP
}

/// A debug exception, of which KVM hands out ESR_EL2, and FAR_EL2 where it is a watchpoint's.
#[must_use]
pub const fn debug(hsr: u64, far: u64) -> Syndrome {
    Syndrome { esr: hsr, far, hpfar: 0 }
}

/// An access to what is no RAM. Which register it is about KVM keeps to itself: the loop reads the
/// instruction, as it does for all whose syndrome is not valid. `address` is where the instruction's
/// first byte is, virtually, if that is known.
#[must_use]
pub const fn data_abort(at: Ipa, address: Option<Va>, is_write: bool) -> Syndrome {
    let far = match address {
        // The page is the guest's, the rest the same in both.
        Some(va) => va.0 & !0xfff | at.0 & 0xfff,
        None => at.0,
    };
    let wnr = if is_write { WNR } else { 0 };
    Syndrome {
        esr: of_class(ec::DABT_LOWER) | wnr | TRANSLATION_3,
        far,
        hpfar: at.0 >> PAGE_SHIFT << HPFAR_SHIFT,
    }
}

/// An instruction that cannot be fetched, since its page is withheld.
#[must_use]
pub const fn fetch_withheld(pc: Va) -> Syndrome {
    Syndrome { esr: of_class(ec::IABT_LOWER) | PERMISSION_3, far: pc.0, hpfar: 0 }
}

/// An access to a page that is withheld.
#[must_use]
pub const fn access_withheld(address: Va, is_write: bool) -> Syndrome {
    let wnr = if is_write { WNR } else { 0 };
    Syndrome { esr: of_class(ec::DABT_LOWER) | wnr | PERMISSION_3, far: address.0, hpfar: 0 }
}

/// An access to a page that is withheld which the instruction does not tell of: that of a walk of the
/// guest's own tables.
#[must_use]
pub const fn walk_withheld() -> Syndrome {
    Syndrome { esr: of_class(ec::DABT_LOWER) | S1PTW | PERMISSION_3, far: 0, hpfar: 0 }
}

/// A call of EL2: the PC is past it.
#[must_use]
pub const fn hypervisor_call() -> Syndrome {
    Syndrome { esr: of_class(ec::HVC64), far: 0, hpfar: 0 }
}

/// WFI that traps.
#[must_use]
pub const fn wait_for_interrupt() -> Syndrome {
    Syndrome { esr: of_class(ec::WFX), far: 0, hpfar: 0 }
}

/// The machine failed under the guest: nobody can go on from there.
#[must_use]
pub const fn machine_error() -> Syndrome {
    Syndrome { esr: of_class(ec::SERROR) | UNCONTAINABLE, far: 0, hpfar: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_arch::esr::EsrEl2;

    #[test]
    fn a_data_abort_tells_where_and_in_which_direction() {
        let abort = data_abort(Ipa(0x0900_0018), Some(Va(0xffff_8000_1234_5018)), true);
        let iss = EsrEl2(abort.esr).data_abort();
        assert!(iss.wnr() && iss.dfsc().is_translation() && !iss.s1ptw() && !iss.cm());
        assert_eq!((abort.hpfar, abort.far), (0x0009_0000, 0xffff_8000_1234_5018));
        assert!(!EsrEl2(data_abort(Ipa(0), None, false).esr).data_abort().wnr());
        assert_eq!(data_abort(Ipa(0x0900_0018), None, false).far, 0x0900_0018);
    }

    #[test]
    fn what_is_withheld_is_a_permission_fault() {
        let (fetch, at) = (fetch_withheld(Va(0x4020_0004)), Va(0xffff_8000_1234_5018));
        let iss = EsrEl2(fetch.esr).instruction_abort();
        assert_eq!((EsrEl2(fetch.esr).ec(), fetch.far), (ec::IABT_LOWER, 0x4020_0004));
        assert!(iss.ifsc().is_permission() && !iss.s1ptw());
        for is_write in [false, true] {
            let access = access_withheld(at, is_write);
            let iss = EsrEl2(access.esr).data_abort();
            assert_eq!((iss.wnr(), access.far), (is_write, at.0));
            assert!(iss.dfsc().is_permission() && !iss.s1ptw() && !iss.cm());
        }
        let iss = EsrEl2(walk_withheld().esr).data_abort();
        assert!(iss.dfsc().is_permission() && iss.s1ptw());
    }

    #[test]
    fn the_syndrome_of_no_exit_describes_a_register() {
        // The loop then reads the instruction.
        assert!(
            stepwell_vm::device::mmio::MmioAccess::decode(
                data_abort(Ipa(0x0900_0000), None, true).esr
            )
            .is_none()
        );
    }

    #[test]
    fn classes_are_the_manuals() {
        assert_eq!(EsrEl2(hypervisor_call().esr).ec(), 0x16);
        assert_eq!(EsrEl2(wait_for_interrupt().esr).ec(), 0x01);
        assert!(is_plain_step(0xcb00_0022));
        assert!(!is_plain_step(0xcb00_0062), "a load-exclusive");
        assert!(!is_plain_step(0xca00_0022), "it tells of nothing");
        assert!(EsrEl2(machine_error().esr).serror().is_uncontainable());
    }
}
