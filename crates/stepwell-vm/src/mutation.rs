//! Mistakes in the vCPU loop, to be made here on purpose.
//!
//! As [`stepwell_engine::mutation`] has those of a step engine: the model must tell each from the real
//! loop, and says how in `model/COUNTEREXAMPLES.md`. They are apart because the guests that judge the
//! engine's mistakes run on a machine, which comes to few of the moments at which these show.
//!
//! Without the feature `mutants` [`is`] is a constant, so that each of these lines vanishes. Only the
//! model is built with it.

/// A mistake in the loop's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LoopMutant {
    /// An instruction that is entered for again, after an interrupt, is counted each time.
    RetryCounted = 1,
    /// One step more is made than was asked for.
    OneStepTooMany,
    /// The run that is being recorded is dropped where steps end.
    RunDroppedAtStop,
    /// A vCPU that is called out between an instruction and its step exception does not report it.
    CallDropsExecuted,
    /// A vCPU that is called out before an instruction executes leaves it in the recording.
    CallKeepsBegun,
    /// What the CPU was asked about an instruction that EL2 carries out is not put back.
    QuestionNotPutBack,
    /// An interrupt is entered before the guest's own step exception that is pending.
    InterruptBeforeOwnStep,
    /// An interrupt is entered under a step though interrupts are held.
    HeldInterruptEntered,
    /// What a handler executes that is stepped over is counted.
    HandlerCounted,
    /// What a handler executes that is stepped over is recorded.
    HandlerRecorded,
    /// The breakpoint that has waited for a handler's return stays.
    ReturnBreakpointKept,
    /// An SError that the guest has taken stays pending for it.
    SystemErrorKept,
    /// Breakpoints are not taken out for the instruction that a vCPU is to be stepped off.
    BreakpointNotHidden,
    /// A stop is told, and not taken down as told.
    StopNotAcknowledged,
    /// What a debugger was told of an instruction holds for each time that it comes round again.
    AcknowledgedForGood,
    /// Each vCPU tells of the stop, and not the last one that comes to it.
    StopToldByEach,
    /// An exclusive sequence is stepped without the others being waited for.
    OthersNotAwaited,
    /// Vcpus that were quiesced are not called when the others need it no more.
    QuiescedNotCalled,
    /// A vCPU that gets the CPU takes what another has left in its debug registers for its own.
    MachineNotForgotten,
}

impl LoopMutant {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::RetryCounted,
        Self::OneStepTooMany,
        Self::RunDroppedAtStop,
        Self::CallDropsExecuted,
        Self::CallKeepsBegun,
        Self::QuestionNotPutBack,
        Self::InterruptBeforeOwnStep,
        Self::HeldInterruptEntered,
        Self::HandlerCounted,
        Self::HandlerRecorded,
        Self::ReturnBreakpointKept,
        Self::SystemErrorKept,
        Self::BreakpointNotHidden,
        Self::StopNotAcknowledged,
        Self::AcknowledgedForGood,
        Self::StopToldByEach,
        Self::OthersNotAwaited,
        Self::QuiescedNotCalled,
        Self::MachineNotForgotten,
    ];

    /// Its name, as headings have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetryCounted => "retry-counted",
            Self::OneStepTooMany => "one-step-too-many",
            Self::RunDroppedAtStop => "run-dropped-at-stop",
            Self::CallDropsExecuted => "call-drops-executed",
            Self::CallKeepsBegun => "call-keeps-begun",
            Self::QuestionNotPutBack => "question-not-put-back",
            Self::InterruptBeforeOwnStep => "interrupt-before-own-step",
            Self::HeldInterruptEntered => "held-interrupt-entered",
            Self::HandlerCounted => "handler-counted",
            Self::HandlerRecorded => "handler-recorded",
            Self::ReturnBreakpointKept => "return-breakpoint-kept",
            Self::SystemErrorKept => "system-error-kept",
            Self::BreakpointNotHidden => "breakpoint-not-hidden",
            Self::StopNotAcknowledged => "stop-not-acknowledged",
            Self::AcknowledgedForGood => "acknowledged-for-good",
            Self::StopToldByEach => "stop-told-by-each",
            Self::OthersNotAwaited => "others-not-awaited",
            Self::QuiescedNotCalled => "quiesced-not-called",
            Self::MachineNotForgotten => "machine-not-forgotten",
        }
    }
}

#[cfg(feature = "mutants")]
mod chosen {
    use super::LoopMutant;
    use core::sync::atomic::{AtomicU8, Ordering};

    /// The number of the mistake; 0 is none.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Makes this mistake from now on, everywhere in this program; or none.
    pub fn select(mutant: Option<LoopMutant>) {
        CHOSEN.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::Relaxed);
    }

    /// Tells whether this mistake is to be made.
    #[must_use]
    pub fn is(mutant: LoopMutant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == mutant as u8
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{is, select};

/// Tells whether this mistake is to be made: never, in a build without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is(_: LoopMutant) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = LoopMutant::ALL.map(LoopMutant::name).into();
        assert_eq!(names.len(), LoopMutant::ALL.len());
        let is_kebab = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(names.iter().all(|name| name.chars().all(is_kebab)), "{names:?}");
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn without_the_feature_no_mistake_is_made() {
        const MADE: bool = {
            let (mut made, mut n) = (false, 0);
            while n < LoopMutant::ALL.len() {
                made |= is(LoopMutant::ALL[n]);
                n += 1;
            }
            made
        };
        const { assert!(!MADE, "and the compiler knows") };
    }
}
