//! When a place in a Linux kernel means its name no more.
//!
//! A breakpoint in the kernel's image holds by guest-physical address, because the image stays where it
//! was loaded. Two things end that. A kernel that has come up frees its init section, and anything may be
//! in that memory from then on; and one that executes another (kexec) is written over, its modules and
//! programs gone. So the guest is stopped for a moment where either begins: whoever has set the breakpoint
//! is told, and it is taken away before it could be met in what comes there next.

use crate::names::{Names, Target};
use std::fmt;
use stepwell_debuggee::{Debuggee, Error, Place, Stop, StopReason, VcpuId};

/// What ends the meaning of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The kernel frees its init section.
    InitFreed,
    /// The kernel executes another one.
    Replaced,
}

impl Loss {
    const ALL: [Self; 2] = [Self::InitFreed, Self::Replaced];

    /// The kernel's function that is called when it begins.
    const fn function(self) -> &'static str {
        match self {
            Self::InitFreed => "free_initmem",
            Self::Replaced => "machine_kexec",
        }
    }

    /// Tells whether a place is lost with it, or one that is nowhere yet.
    #[must_use]
    pub fn concerns(self, names: &Names, place: Option<Place>) -> bool {
        match self {
            Self::InitFreed => place.is_some_and(|place| names.is_init(place)),
            Self::Replaced => true,
        }
    }
}

/// Follows the name of a place in a sentence.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InitFreed => {
                "cannot be met any more: it is in the kernel's init section, which that has freed"
            }
            Self::Replaced => {
                "cannot be met any more: it is a name of the kernel that kexec replaces"
            }
        })
    }
}

/// Where the guest is stopped for a moment because places are lost there.
#[derive(Clone, Debug, Default)]
pub struct Lookout {
    armed: Vec<(Loss, Place)>,
}

impl Lookout {
    /// Has the guest stop where what is at `place`, or nowhere yet, will be lost. Where it has no breakpoint left for
    /// that, it is not told.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] only.
    pub fn arm(
        &mut self,
        names: &Names,
        debuggee: &mut dyn Debuggee,
        domain: u8,
        place: Option<Place>,
    ) -> Result<(), Error> {
        for loss in Loss::ALL {
            let is_armed = self.armed.iter().any(|(armed, _)| *armed == loss);
            if is_armed || !loss.concerns(names, place) {
                continue;
            }
            let Ok(Target { place, .. }) = names.resolve_instruction(loss.function()) else {
                continue;
            };
            match debuggee.set_breakpoint(domain, place) {
                Ok(()) => self.armed.push((loss, place)),
                Err(error) if error.is_fatal() => return Err(error),
                // It is somebody's already, and stops there all the same; or there is none left.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Returns what begins where a vCPU has stopped.
    #[must_use]
    pub fn begins(names: &Names, stop: Stop) -> Option<Loss> {
        let is_there = |loss: &Loss| {
            let target = names.resolve_instruction(loss.function());
            target.is_ok_and(|target| target.va == stop.pc)
        };
        let is_met = stop.reason == StopReason::Breakpoint;
        Loss::ALL.into_iter().find(|loss| is_met && is_there(loss))
    }

    /// Tells whether there is a breakpoint for that at a place.
    #[must_use]
    pub fn is_at(&self, place: Place) -> bool {
        self.armed.iter().any(|(_, armed)| *armed == place)
    }

    /// Stops the guest there no more; returns the places of the breakpoints that are to go.
    pub fn disarm(&mut self) -> impl Iterator<Item = Place> + use<> {
        std::mem::take(&mut self.armed).into_iter().map(|(_, place)| place)
    }
}

/// Tells whether what is at a target was freed before now, as far as the kernel's own tables say: those
/// of a vCPU in user space may not have the kernel in them.
///
/// # Errors
///
/// [`Error::Lost`] only.
pub fn is_freed(
    names: &Names,
    debuggee: &mut dyn Debuggee,
    vcpu: VcpuId,
    target: Target,
) -> Result<bool, Error> {
    if !names.is_init(target.place) {
        return Ok(false);
    }
    let Ok(stays) = names.resolve_instruction(Loss::InitFreed.function()) else {
        return Ok(false);
    };
    for (va, is_wanted) in [(stays.va, true), (target.va, false)] {
        match debuggee.translate(vcpu, va) {
            Err(error) if error.is_fatal() => return Err(error),
            found if found.is_ok() == is_wanted => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
