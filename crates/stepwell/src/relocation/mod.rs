//! Images that the guest itself puts into their places: firmware that moves, and what firmware loads.
//!
//! U-Boot begins in flash and copies itself to the end of RAM. EDK2 loads EFI images wherever there is
//! room, among them a kernel with its stub, which may copy it once more. Where that is the guest says: U-Boot
//! in a register when it copies itself, EDK2 in the table of images that it keeps for debuggers, a kernel
//! by where it is entered. The guest is stopped for a
//! moment where it says so, before anything there is executed, so that a breakpoint by name is set in
//! time.
//!
//! Not here: a kernel that moves itself once it runs is followed by [`crate::names`].

mod edk2;
mod sample;
mod u_boot;

pub use edk2::is_edk2;
pub use sample::Sample;
pub use u_boot::move_of;

use edk2::Edk2;
use std::ops::Range;
use stepwell_arch::Ipa;
use stepwell_debuggee::{Debuggee, Error, Stop, VcpuId};
use u_boot::UBoot;

/// What a stop has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing: somebody else wanted it.
    Foreign,
    /// It was wanted here, and the image is where it was.
    Passed,
    /// The image's first byte is here from now on.
    Placed(Ipa),
    /// What was loaded has copied itself: its first byte is here from now on.
    Moved(Ipa),
}

/// Follows an image.
#[derive(Clone, Debug)]
pub struct Relocation {
    scheme: Scheme,
    is_armed: bool,
}

#[derive(Clone, Debug)]
enum Scheme {
    UBoot(UBoot),
    Edk2(Edk2),
}

impl Relocation {
    /// Follows U-Boot, which begins at `load` and says `offset` bytes further where it moves to.
    #[must_use]
    pub const fn of_u_boot(load: Ipa, offset: u64, ram: Range<u64>) -> Self {
        let scheme = Scheme::UBoot(UBoot { at: load.offset(offset), ram });
        Self { scheme, is_armed: false }
    }

    /// Follows an image that EDK2 loads, whose first byte was linked at `base`.
    #[must_use]
    pub fn of_edk2(sample: Sample, base: u64, ram: Range<u64>) -> Self {
        Self { scheme: Scheme::Edk2(Edk2::new(sample, base, ram)), is_armed: false }
    }

    /// Has a stopped guest stop where it will say where the image is.
    ///
    /// # Errors
    ///
    /// As for setting breakpoints and watchpoints.
    pub fn arm(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_armed, true) {
            return Ok(());
        }
        match &mut self.scheme {
            Scheme::UBoot(u_boot) => u_boot.arm(debuggee, vcpu),
            Scheme::Edk2(edk2) => edk2.arm(debuggee, vcpu),
        }
    }

    /// Learns from a stop. Once the image has its place the guest is stopped no more.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`], and as for clearing breakpoints and watchpoints.
    pub fn notice(&mut self, debuggee: &mut dyn Debuggee, stop: Stop) -> Result<Notice, Error> {
        if !self.is_armed {
            return Ok(Notice::Foreign);
        }
        let notice = match &mut self.scheme {
            Scheme::UBoot(u_boot) => u_boot.notice(debuggee, stop)?,
            Scheme::Edk2(edk2) => edk2.notice(debuggee, stop)?,
        };
        self.is_armed = match &self.scheme {
            Scheme::UBoot(_) => !matches!(notice, Notice::Placed(_)),
            Scheme::Edk2(edk2) => !edk2.is_settled(),
        };
        Ok(notice)
    }

    /// Tells whether the image stays where it is: a guest that was to stop is not any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        !self.is_armed
    }
}
