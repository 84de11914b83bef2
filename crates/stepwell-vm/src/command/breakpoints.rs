//! Breakpoints and watchpoints of the debugger's.

use super::{Result, stopped};
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::memory::GuestMemory;
use crate::vcpu::shadow::RESERVED_BREAKPOINTS;
use crate::vcpu::{guest_view, watch};
use crate::views::ViewError;
use stepwell_arch::{Ipa, Va};
use stepwell_wire::{Answer, Place, Refusal, Watchpoint};

pub(super) fn set_breakpoint<C: Cpu>(cpu: &C, domain: &Domain<C>, place: Place) -> Result {
    let mut control = stopped(domain)?;
    match place {
        Place::Va(va) if control.breakpoints.contains(&va) => return Err(Refusal::Breakpoint),
        Place::Va(va) => {
            let usable = cpu.facts().breakpoints.saturating_sub(RESERVED_BREAKPOINTS);
            if control.breakpoints.len() >= usize::from(usable) {
                return Err(Refusal::NoBreakpointLeft(usable));
            }
            control.breakpoints.push(va).map_err(|_| Refusal::NoBreakpointLeft(usable))?;
        }
        Place::Ipa(ipa) if !Ipa(ipa).is_aligned(4) => return Err(Refusal::Range),
        Place::Ipa(ipa) => {
            domain.ram.locate(Ipa(ipa), 4).map_err(|_| Refusal::NotMapped(ipa))?;
            domain.views.lock().set(&mut domain.ram.tables(), Ipa(ipa)).map_err(refusal)?;
            domain.use_views();
        }
    }
    Ok(Answer::Done)
}

const fn refusal(error: ViewError) -> Refusal {
    match error {
        ViewError::Already => Refusal::Breakpoint,
        ViewError::NoMemory => Refusal::NoMemory,
    }
}

pub(super) fn clear_breakpoint<C: Cpu>(domain: &Domain<C>, place: Place) -> Result {
    let mut control = stopped(domain)?;
    match place {
        Place::Va(va) => {
            let known = control.breakpoints.iter().position(|&known| known == va);
            control.breakpoints.remove(known.ok_or(Refusal::Breakpoint)?);
        }
        Place::Ipa(ipa) => {
            domain.views.lock().clear(&mut domain.ram.tables(), Ipa(ipa)).map_err(refusal)?;
            domain.use_views();
        }
    }
    Ok(Answer::Done)
}

pub(super) fn set_watchpoint<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    vcpu: u8,
    watchpoint: Watchpoint,
) -> Result {
    let mut control = stopped(domain)?;
    let core = domain.vcpus.get(usize::from(vcpu)).ok_or(Refusal::NoSuchVcpu)?.core.lock();
    watch::set(cpu, domain, &mut control, watchpoint, |va| {
        guest_view::translate(cpu, domain, &core, Va(va))
    })?;
    Ok(Answer::Done)
}

pub(super) fn clear_watchpoint<C: Cpu>(domain: &Domain<C>, watchpoint: Watchpoint) -> Result {
    let mut control = stopped(domain)?;
    watch::clear(domain, &mut control, watchpoint)?;
    Ok(Answer::Done)
}
