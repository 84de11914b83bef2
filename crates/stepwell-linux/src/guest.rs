//! A stopped guest, and the way into its kernel's memory from wherever that is.
//!
//! A vCPU in the kernel translates the kernel's addresses. One in a program may not: where the
//! kernel hides itself (`CONFIG_UNMAP_KERNEL_AT_EL0`, KPTI), TTBR1_EL1 then holds a table with
//! nothing but the exception vectors, and the kernel's own tables are known to lie two pages behind
//! it (`TRAMP_SWAPPER_OFFSET`). Whether that holds is not believed but tried: an address in the
//! kernel's image has to lead to where it was loaded.

use crate::{Error, Memory};
use std::cell::RefCell;
use std::collections::HashMap;
use stepwell_arch::stage1::{self, Access, Granule, PhysicalMemory, Regime};
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_debuggee::{Debuggee, Place, VcpuId};

/// How many pages the tables that a program runs with lie before the kernel's own.
const TRAMPOLINE_PAGES: u64 = 2;
/// Every translation is of pages this large, or larger.
const PAGE: u64 = 4096;

/// A stopped guest.
pub struct Guest<'a> {
    debuggee: &'a mut dyn Debuggee,
    vcpu: VcpuId,
    /// The tables to walk, where the vCPU's own do not show the kernel.
    tables: Option<Regime>,
    /// Where pages lead to, by the tables that they were found with.
    pages: HashMap<(u64, u64), u64>,
}

impl<'a> Guest<'a> {
    /// Finds the way into the kernel that has at `known` what was loaded at `loaded`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] where there is none; [`Error::Debuggee`].
    pub fn new(
        debuggee: &'a mut dyn Debuggee,
        vcpu: VcpuId,
        known: Va,
        loaded: Ipa,
    ) -> Result<Self, Error> {
        let mut guest = Self { debuggee, vcpu, tables: None, pages: HashMap::new() };
        if guest.leads_to(known, loaded)? {
            return Ok(guest);
        }
        let regime = guest.regime()?;
        let ttbr1 = regime.ttbr1.wrapping_add(TRAMPOLINE_PAGES * page_bytes(regime.tcr));
        guest.tables = Some(Regime { ttbr1, ..regime });
        if guest.leads_to(known, loaded)? { Ok(guest) } else { Err(Error::NotRunning) }
    }

    /// Returns the debuggee.
    pub fn debuggee(&mut self) -> &mut dyn Debuggee {
        &mut *self.debuggee
    }

    fn leads_to(&mut self, va: Va, ipa: Ipa) -> Result<bool, Error> {
        let found = match self.tables {
            Some(regime) => self.walk(&regime, va),
            None => self.debuggee.translate(self.vcpu, va).map_err(Error::from),
        };
        match found {
            Ok(found) => Ok(found == ipa),
            Err(error) if error.is_fatal() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Reads what the vCPU translates with.
    fn regime(&mut self) -> Result<Regime, Error> {
        let vcpu = self.vcpu;
        let Some(system) = self.debuggee.support_system_registers() else {
            return Err(Error::NotRunning);
        };
        let mut read = |register: SystemRegister| system.read_system_register(vcpu, register.0);
        Ok(Regime {
            sctlr: read(SystemRegister::SCTLR_EL1)?,
            tcr: read(SystemRegister::TCR_EL1)?,
            ttbr0: read(SystemRegister::TTBR0_EL1)?,
            ttbr1: read(SystemRegister::TTBR1_EL1)?,
            mair: read(SystemRegister::MAIR_EL1)?,
            pa_bits: Regime::pa_bits_of(read(SystemRegister::ID_AA64MMFR0_EL1)?),
        })
    }

    fn walk(&mut self, regime: &Regime, va: Va) -> Result<Ipa, Error> {
        let key = (if va.0 >> 63 != 0 { regime.ttbr1 } else { regime.ttbr0 }, va.0 / PAGE);
        if let Some(page) = self.pages.get(&key) {
            return Ok(Ipa(page + va.0 % PAGE));
        }
        let memory = Tables { debuggee: RefCell::new(&mut *self.debuggee), vcpu: self.vcpu };
        match stage1::walk(regime, va, Access::PRIVILEGED_READ, &memory).outcome {
            Ok(mapping) => {
                self.pages.insert(key, mapping.ipa.align_down(PAGE).0);
                Ok(mapping.ipa)
            }
            Err(stage1::WalkError::Memory { error, .. }) if error.is_fatal() => Err(error.into()),
            Err(_) => Err(Error::NotMapped(va.0)),
        }
    }

    /// Reads by the tables of `regime`, page by page.
    fn read_walked(&mut self, regime: &Regime, va: Va, bytes: &mut [u8]) -> Result<(), Error> {
        let (mut at, mut rest) = (va, bytes);
        while !rest.is_empty() {
            let room = (PAGE - at.0 % PAGE) as usize;
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            let ipa = self.walk(regime, at)?;
            let read = self.debuggee.read_memory(self.vcpu, Place::Ipa(ipa), now);
            read.map_err(|error| refused_at(error, at.0))?;
            (at, rest) = (at.offset(now.len() as u64), later);
        }
        Ok(())
    }
}

impl Memory for Guest<'_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        match self.tables {
            Some(regime) => self.read_walked(&regime, Va(address), bytes),
            None => {
                let place = Place::Va(Va(address));
                let read = self.debuggee.read_memory(self.vcpu, place, bytes);
                read.map_err(|error| refused_at(error, address))
            }
        }
    }
}

fn refused_at(error: stepwell_debuggee::Error, address: u64) -> Error {
    if error.is_fatal() { error.into() } else { Error::NotMapped(address) }
}

/// Returns how large the pages of the upper range are (TCR_EL1.TG1).
const fn page_bytes(tcr: u64) -> u64 {
    let granule = match tcr >> 30 & 3 {
        1 => Granule::Kib16,
        3 => Granule::Kib64,
        _ => Granule::Kib4,
    };
    1 << granule.page_bits()
}

/// The guest's tables, as the walk wants them.
struct Tables<'a> {
    debuggee: RefCell<&'a mut dyn Debuggee>,
    vcpu: VcpuId,
}

impl PhysicalMemory for Tables<'_> {
    type Error = stepwell_debuggee::Error;

    fn read_u64(&self, ipa: Ipa) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.debuggee.borrow_mut().read_memory(self.vcpu, Place::Ipa(ipa), &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
