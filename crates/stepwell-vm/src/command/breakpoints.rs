//! Breakpoints and watchpoints of the debugger's.

use super::{Result, stopped};
use crate::cpu::Cpu;
use crate::domain::{Control, Domain};
use crate::memory::GuestMemory;
use crate::vcpu::shadow::RESERVED_BREAKPOINTS;
use crate::vcpu::{address_space, guest_view, watch};
use crate::views::{ViewError, Whose};
use stepwell_arch::Va;
use stepwell_protocol::{Place, Refusal, Watchpoint};
use stepwell_wire::Answer;

pub(super) fn set_breakpoint<C: Cpu>(cpu: &C, domain: &Domain<C>, place: Place) -> Result {
    let mut control = stopped(domain)?;
    match place {
        Place::Va(va) => set_virtual(cpu, domain, &mut control, va.0)?,
        Place::Ipa(ipa) if !ipa.is_aligned(4) => return Err(Refusal::Misaligned(ipa.0)),
        Place::Ipa(ipa) => {
            domain.ram.locate(ipa, 4).map_err(|_| Refusal::NotMapped(ipa.0))?;
            let mut views = domain.views.lock();
            views.set(&mut domain.ram.tables(), Whose::Physical, ipa).map_err(refusal)?;
            drop(views);
            domain.use_views();
        }
    }
    Ok(Answer::Done)
}

/// Sets a breakpoint by virtual address: in a register of the CPU's while there are any, and then as
/// one that follows what the address leads to.
fn set_virtual<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    control: &mut Control,
    va: u64,
) -> core::result::Result<(), Refusal> {
    if control.breakpoints.contains(&va) {
        return Err(Refusal::Breakpoint);
    }
    let usable = cpu.facts().breakpoints.saturating_sub(RESERVED_BREAKPOINTS);
    let is_followed = domain.follow.contains(va);
    if !is_followed
        && control.breakpoints.len() < usize::from(usable)
        && control.breakpoints.push(va).is_ok()
    {
        return Ok(());
    }
    // AArch32 code executes no BRK of A64.
    if !Va(va).is_aligned(4) || !address_space::can_follow(cpu, domain, control, va) {
        return Err(Refusal::NoBreakpointLeft(usable));
    }
    let spaces = address_space::of_all_stopped(cpu, domain, control);
    domain.follow.add(va, spaces, &domain.ram, &domain.views).map_err(refusal)?;
    domain.use_views();
    Ok(())
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
            if let Some(known) = control.breakpoints.iter().position(|&known| known == va.0) {
                control.breakpoints.remove(known);
            } else if domain.follow.remove(va.0, &domain.ram, &domain.views) {
                domain.use_views();
            } else {
                return Err(Refusal::Breakpoint);
            }
        }
        Place::Ipa(ipa) => {
            let mut views = domain.views.lock();
            views.clear(&mut domain.ram.tables(), Whose::Physical, ipa).map_err(refusal)?;
            drop(views);
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
    let vcpu = domain.vcpus.get(usize::from(vcpu)).ok_or(Refusal::NoSuchVcpu)?;
    watch::set(cpu, domain, &mut control, watchpoint, |va| {
        guest_view::translate(cpu, domain, &vcpu.core.lock(), Va(va))
    })?;
    Ok(Answer::Done)
}

pub(super) fn clear_watchpoint<C: Cpu>(domain: &Domain<C>, watchpoint: Watchpoint) -> Result {
    let mut control = stopped(domain)?;
    watch::clear(domain, &mut control, watchpoint)?;
    Ok(Answer::Done)
}
