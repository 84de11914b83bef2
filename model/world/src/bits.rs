//! The specification's values as the bits that the engine reads and writes, and back.

use stepwell_arch::Pstate;
use stepwell_arch::debug::{mdcr_el2, mdscr_el1};
use stepwell_spec::{El, Mdcr, Mdscr, ProcState};

/// PSTATE in SPSR_EL2's layout.
#[must_use]
pub fn pstate(state: ProcState) -> Pstate {
    let mode = match state.el {
        El::El0 => Pstate::M_EL0T,
        El::El1 => Pstate::M_EL1H,
        El::El2 => Pstate::M_EL2H,
    };
    Pstate(mode)
        .with_ss(state.ss)
        .with(Pstate::D, state.d)
        .with(Pstate::A, state.a)
        .with(Pstate::I, state.i)
        .with(Pstate::F, state.f)
        .with(Pstate::IL, state.il)
}

/// PSTATE out of SPSR_EL2's layout.
#[must_use]
pub fn proc_state(bits: Pstate) -> ProcState {
    let el = match bits.el() {
        0 => El::El0,
        1 => El::El1,
        _ => El::El2,
    };
    ProcState {
        el,
        ss: bits.ss(),
        d: bits.debug_masked(),
        a: bits.serror_masked(),
        i: bits.irq_masked(),
        f: bits.fiq_masked(),
        il: bits.0 & Pstate::IL != 0,
    }
}

/// MDSCR_EL1's layout.
#[must_use]
pub fn mdscr(value: Mdscr) -> u64 {
    let bit = |set: bool, mask: u64| if set { mask } else { 0 };
    bit(value.ss, mdscr_el1::SS) | bit(value.kde, mdscr_el1::KDE) | bit(value.mde, mdscr_el1::MDE)
}

/// Out of MDSCR_EL1's layout.
#[must_use]
pub const fn mdscr_of(bits: u64) -> Mdscr {
    Mdscr {
        ss: bits & mdscr_el1::SS != 0,
        kde: bits & mdscr_el1::KDE != 0,
        mde: bits & mdscr_el1::MDE != 0,
    }
}

/// Out of MDCR_EL2's layout.
#[must_use]
pub const fn mdcr_of(bits: u64) -> Mdcr {
    Mdcr { tde: bits & mdcr_el2::TDE != 0, tda: bits & mdcr_el2::TDA != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_through_the_bits_comes_back() {
        for el in [El::El0, El::El1, El::El2] {
            for n in 0..64_u8 {
                let bit = |at: u8| n >> at & 1 != 0;
                let state = ProcState {
                    el,
                    ss: bit(0),
                    d: bit(1),
                    a: bit(2),
                    i: bit(3),
                    f: bit(4),
                    il: bit(5),
                };
                assert_eq!(proc_state(pstate(state)), state);
                let value = Mdscr { ss: bit(0), kde: bit(1), mde: bit(2) };
                assert_eq!(mdscr_of(mdscr(value)), value);
            }
        }
    }
}
