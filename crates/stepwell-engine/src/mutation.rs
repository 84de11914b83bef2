//! Mistakes that others have made, to be made here on purpose.
//!
//! A model that finds nothing wrong with the engine is worth as much as its ability to find
//! something. So each mistake known to have shipped in a step engine is one line of this crate,
//! behind [`is`], and the model and the guests must tell each from the real engine.
//!
//! Without the feature `mutants` [`is`] is a constant, so that every one of these lines vanishes;
//! release images are built without. With it, the mistake is chosen at run time, so that one build
//! serves them all: that choice is the only state of this crate that is not a value, and it is
//! allowed here because nothing but the choice of a mistake depends on it.

/// A mistake in the engine's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mutant {
    /// SS is set on every entry, though the last exit left an instruction that nobody reported.
    SsOnEveryEntry = 1,
    /// SS is written to the live SPSR_EL2, and on the way out the saved one overwrites it.
    SsWrittenToLiveSpsr,
    /// PSTATE.D is clear at EL2 and MDSCR_EL1.KDE set: ERET discards SS, and EL2 steps itself.
    DebugUnmaskedAtEl2,
    /// Our SS stays in the guest's PSTATE when stepping is switched off.
    SsLeftOnDisable,
    /// Pending is told by the SS of the saved PSTATE, which a debugger may write.
    PendingInSavedPstate,
    /// An SMC, or whatever else trapped, is carried out and the PC left at it.
    TrapNotAdvanced,
    /// An SMC, or whatever else trapped, is carried out, not reported, and entered with SS = 1:
    /// the next instruction is swallowed.
    TrapKeepsSs,
    /// The PSTATE of an exception that EL2 injects keeps our SS.
    InjectedKeepsSs,
    /// Interrupts are held back by the I of the guest's PSTATE: the guest reads it, its own MSR
    /// DAIF is lost, and an exception saves it.
    InterruptsMaskedInDaif,
    /// Exclusives are left to the CPU, where a stepped store-exclusive always fails.
    ExclusivesLeftToCpu,
    /// Other vCPUs run while a line is marked: a compare-and-swap does not see one that was
    /// written back to what it was.
    OthersRunWhileMarked,
    /// The SS that the CPU saved in SPSR_EL1 with an exception to EL1 is ours, and stays there.
    SsLeaksIntoSpsrEl1,
    /// The monitor is kept over a call to EL2, whose return clears the CPU's.
    MonitorKeptOverCall,
    /// The guest's own MDSCR_EL1.SS and KDE are dropped when stepping is switched off.
    MdscrForgotten,
    /// A trapped write of MDSCR_EL1 takes effect before the SSAdvance of the instruction itself.
    MdscrBeforeAdvance,
    /// An SVC advances the guest's own step only where that is enabled, not wherever
    /// MDSCR_EL1.SS is 1.
    SvcAdvancesWhereEnabled,
    /// A trapped instruction is carried out without SSAdvance for the guest's own step.
    TrapKeepsGuestsSs,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::SsOnEveryEntry,
        Self::SsWrittenToLiveSpsr,
        Self::DebugUnmaskedAtEl2,
        Self::SsLeftOnDisable,
        Self::PendingInSavedPstate,
        Self::TrapNotAdvanced,
        Self::TrapKeepsSs,
        Self::InjectedKeepsSs,
        Self::InterruptsMaskedInDaif,
        Self::ExclusivesLeftToCpu,
        Self::OthersRunWhileMarked,
        Self::SsLeaksIntoSpsrEl1,
        Self::MonitorKeptOverCall,
        Self::MdscrForgotten,
        Self::MdscrBeforeAdvance,
        Self::SvcAdvancesWhereEnabled,
        Self::TrapKeepsGuestsSs,
    ];

    /// The name by which a command line chooses it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SsOnEveryEntry => "ss-on-every-entry",
            Self::SsWrittenToLiveSpsr => "ss-written-to-live-spsr",
            Self::DebugUnmaskedAtEl2 => "debug-unmasked-at-el2",
            Self::SsLeftOnDisable => "ss-left-on-disable",
            Self::PendingInSavedPstate => "pending-in-saved-pstate",
            Self::TrapNotAdvanced => "trap-not-advanced",
            Self::TrapKeepsSs => "trap-keeps-ss",
            Self::InjectedKeepsSs => "injected-keeps-ss",
            Self::InterruptsMaskedInDaif => "interrupts-masked-in-daif",
            Self::ExclusivesLeftToCpu => "exclusives-left-to-cpu",
            Self::OthersRunWhileMarked => "others-run-while-marked",
            Self::SsLeaksIntoSpsrEl1 => "ss-leaks-into-spsr-el1",
            Self::MonitorKeptOverCall => "monitor-kept-over-call",
            Self::MdscrForgotten => "mdscr-forgotten",
            Self::MdscrBeforeAdvance => "mdscr-before-advance",
            Self::SvcAdvancesWhereEnabled => "svc-advances-where-enabled",
            Self::TrapKeepsGuestsSs => "trap-keeps-guests-ss",
        }
    }

    /// The mistake with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

#[cfg(feature = "mutants")]
mod chosen {
    use super::Mutant;
    use core::sync::atomic::{AtomicU8, Ordering};

    /// The number of the mistake; 0 is none.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Makes this mistake from now on, everywhere in this program; or none.
    pub fn select(mutant: Option<Mutant>) {
        CHOSEN.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::Relaxed);
    }

    /// Tells whether this mistake is to be made.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == mutant as u8
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{is, select};

/// Tells whether this mistake is to be made: never, in a build without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_names_its_mistake() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::from_name(mutant.name()), Some(mutant));
            let is_kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(mutant.name().chars().all(is_kebab), "{mutant:?}");
        }
        assert_eq!(Mutant::from_name("none"), None);
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn without_the_feature_no_mistake_is_made() {
        const MADE: [bool; 17] = {
            let mut made = [true; 17];
            let mut n = 0;
            while n < made.len() {
                made[n] = is(Mutant::ALL[n]);
                n += 1;
            }
            made
        };
        assert_eq!(MADE, [false; 17], "and the compiler knows");
    }
}
