//! Breakpoints, the debugger's and the guest's own, and the guest's debug registers.
//!
//! The guest reads and writes a [`super::shadow`] of its debug registers; what the machine holds is
//! made from that at each entry. Where nobody debugs, that is what the guest has, and its debug
//! exceptions go to its EL1 without EL2. While it is stepped, steps itself, or has a breakpoint of
//! the debugger's, they come to EL2, and the machine holds the debugger's beside the guest's
//! ([`stepwell_arch::debug::placement`]).

use super::{count, inject, operand, pages, watch};
use crate::cpu::{Cpu, Purpose};
use crate::mutation::{self, LoopMutant};
use crate::vcpu::handled::Handled;
use crate::vcpu::operand::Operand;
use crate::vcpu::running::Running;
use crate::views::Whose;
use heapless::Vec;
use stepwell_arch::SystemRegister;
use stepwell_arch::debug::placement::BANK;
use stepwell_arch::debug::{DataAccess, mdcr_el2, mdscr_el1};
use stepwell_arch::esr::{EsrEl1, EsrEl2, Origin};
use stepwell_arch::{Ipa, Va};
use stepwell_engine::DebugControls;
use stepwell_engine::precedence::may_hit;
use stepwell_protocol::{Place, StopReason};

fn ours<C: Cpu>(running: &Running<'_, C>) -> Vec<u64, BANK> {
    let control = running.domain.control.lock();
    let all = running.core.debug.wanted.iter().chain(control.breakpoints.iter());
    all.copied().take(BANK).collect()
}

/// Whether nobody wants anything of a guest that runs. A hidden breakpoint is a BRK, which comes to EL2
/// by MDCR_EL2.TDE.
fn has_nothing<C: Cpu>(running: &Running<'_, C>) -> bool {
    let control = running.domain.control.lock();
    running.core.debug.wanted.is_empty()
        && control.breakpoints.is_empty()
        && control.watchpoints.is_empty()
        && !running.domain.has_views()
}

/// Accesses of the guest to its debug registers come to EL2.
const TRAPS: u64 = mdcr_el2::TDA | mdcr_el2::TDOSA | mdcr_el2::TDRA;

/// Before an entry without stepping. The guest does not step itself: else it is stepped.
pub fn load<C: Cpu>(running: &mut Running<'_, C>) {
    if has_nothing(running) {
        let shadow = &mut running.core.debug;
        shadow.program(&[], &[]);
        shadow.hide_ours(false, false);
        shadow.control(running.cpu, shadow.mdscr_alone(), TRAPS);
        return;
    }
    let (ours, watched) = (ours(running), watch::in_registers(running));
    let shadow = &mut running.core.debug;
    shadow.program(&ours, &watched);
    shadow.hide_ours(false, false);
    // Debug exceptions at its EL1 would come to EL2 whether it wants them or not.
    let mdscr = shadow.mdscr() & !mdscr_el1::KDE | mdscr_el1::MDE;
    shadow.control(running.cpu, mdscr, TRAPS | mdcr_el2::TDE);
}

/// Tells whether the guest is stepped though nobody has asked for it.
///
/// It steps itself: that is done by the engine, for the manual's steps and nobody's else, and because
/// the debugger may need the registers. Or its own breakpoints and the debugger's are more than the CPU
/// has registers for: under a step the debugger's need none.
#[must_use]
pub fn must_step_for_guest<C: Cpu>(running: &Running<'_, C>) -> bool {
    running.core.debug.mdscr() & mdscr_el1::SS != 0 || lacks_breakpoints(running)
}

fn lacks_breakpoints<C: Cpu>(running: &Running<'_, C>) -> bool {
    let own = running.core.debug.breakpoints_that_may_hit();
    own > 0 && own + ours(running).len() > usize::from(running.cpu.facts().breakpoints)
}

/// Before steps, and where what is wanted has changed: takes down which breakpoints there are. Where the
/// guest needs all of the CPU's, the debugger's are met at the boundaries between steps alone.
pub fn program_for_step<C: Cpu>(running: &mut Running<'_, C>) {
    let ours = if lacks_breakpoints(running) { Vec::new() } else { ours(running) };
    let watched = watch::in_registers(running);
    running.core.debug.program(&ours, &watched);
}

/// Whether a breakpoint in a register is to be met here, the debugger's or what waits for a handler's return.
#[must_use]
pub fn is_met<C: Cpu>(running: &Running<'_, C>) -> bool {
    running.core.debug.wanted.contains(&running.core.pc().0) || breakpoint_at_pc(running).is_some()
}

/// Before a stepped entry. `is_let_past`: whatever hits is not wanted where the guest is.
#[inline(always)]
pub fn load_for_step<C: Cpu>(running: &mut Running<'_, C>, is_let_past: bool) {
    let pstate = running.core.pstate();
    let core = &mut *running.core;
    let controls = core.engine.on_entry(pstate);
    core.context.spsr = controls.spsr.0;
    if !controls.debug_masked {
        running.cpu.set_debug_masked(false);
    }
    if core.acknowledged.is_none()
        && !is_let_past
        && core.debug.is_right_for(controls.mdscr, controls.mdcr)
    {
        return;
    }
    load_other_controls(running, controls, is_let_past);
}

#[inline(never)]
fn load_other_controls<C: Cpu>(
    running: &mut Running<'_, C>,
    mut controls: DebugControls,
    is_let_past: bool,
) {
    let core = &mut *running.core;
    let acknowledged =
        core.acknowledged_here().filter(|_| !mutation::is(LoopMutant::BreakpointNotHidden));
    let debug = &mut core.debug;
    debug.hide_ours(acknowledged.is_some(), acknowledged.is_some_and(|what| what.act));
    let ours = !debug.programmed.is_empty() && !debug.is_hiding_ours
        || !debug.watched.is_empty() && !debug.is_hiding_watched;
    if is_let_past {
        controls.mdscr &= !mdscr_el1::MDE;
    } else if ours {
        controls.mdscr |= mdscr_el1::MDE;
    }
    core.debug.control(running.cpu, controls.mdscr, controls.mdcr);
}

/// The debugger's breakpoint at the PC, if there is one.
///
/// There is none where the instruction cannot be fetched: the abort of that comes before ("Synchronous
/// exception prioritization for exceptions taken to AArch64 state"). A program's page that is not there
/// yet would else be met twice, before its kernel has fetched it and after.
#[must_use]
pub fn breakpoint_at_pc<C: Cpu>(running: &Running<'_, C>) -> Option<Place> {
    let pc = running.core.pc();
    let in_register = running.domain.control.lock().breakpoints.contains(&pc.0);
    let by_va =
        (in_register || running.domain.follow.contains(pc.0)) && ipa_of_pc(running).is_some();
    by_va.then_some(Place::Va(pc)).or_else(|| hidden_breakpoint_at_pc(running))
}

fn hidden_breakpoint_at_pc<C: Cpu>(running: &Running<'_, C>) -> Option<Place> {
    let ipa = running.domain.has_views().then(|| ipa_of_pc(running))??;
    let has_breakpoint = running.domain.views.lock().has_breakpoint(Whose::Physical, ipa);
    has_breakpoint.then_some(Place::Ipa(ipa))
}

fn ipa_of_pc<C: Cpu>(running: &Running<'_, C>) -> Option<Ipa> {
    // As EL1 may read: what EL0 executes it need not be able to read.
    operand::translated(running, || running.cpu.to_ipa(running.core.pc(), false, Purpose::Read))
        .ok()
}

/// Handles a BRK: a hidden breakpoint of the debugger's, or the guest's own.
#[inline(never)]
pub fn brk<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    if running.core.vttbr == running.domain.roots.of_running()
        && let Some(ipa) = ipa_of_pc(running)
    {
        let views = running.domain.views.lock();
        let is_ours = views.has_breakpoint(Whose::Physical, ipa);
        let is_hidden =
            is_ours || views.has_breakpoint(Whose::Followed, ipa) || views.leads_to_breakpoint(ipa);
        drop(views);
        // What one address leads to, another may lead to as well.
        if is_ours || running.domain.follow.contains(running.core.pc().0) {
            return Handled::Stop(StopReason::Breakpoint);
        }
        // One that another vCPU has just cleared was met, where the guest has none.
        if is_hidden || !pages::is_brk(running) {
            return Handled::Past;
        }
    }
    // It is the guest's own, and executes.
    count::count(running);
    inject::synchronous(running, EsrEl1::brk(esr.call().immediate()), None)
}

/// Handles a Breakpoint exception.
#[inline(never)]
pub fn breakpoint<C: Cpu>(running: &mut Running<'_, C>) -> Handled {
    let pc = running.core.context.elr;
    if !running.core.debug.is_hiding_ours && ours(running).contains(&pc) {
        // QEMU has the abort of the fetch behind this.
        return match ipa_of_pc(running) {
            Some(_) => Handled::Stop(StopReason::Breakpoint),
            None => Handled::Past,
        };
    }
    if may_hit(running.core.debug.guest(), running.core.pstate()) {
        // FAR_EL1 is UNKNOWN then. A guest that looks finds what QEMU's CPU leaves where it runs.
        return inject::synchronous(running, EsrEl1::breakpoint(origin(running)), Some(Va(0)));
    }
    // The guest's own, at a level where the guest does not want it: only routing to EL2 made it.
    Handled::Past
}

/// Handles a Watchpoint exception.
#[inline(never)]
pub fn watchpoint<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2) -> Handled {
    let (iss, pstate) = (esr.watchpoint(), running.core.pstate());
    let debug = &running.core.debug;
    let guest = debug.guest();
    let is_alone = guest.mdscr & mdscr_el1::MDE == 0;
    let wanted = may_hit(guest, pstate);
    let (far, is_ours) = (running.core.context.far, !debug.is_hiding_watched);
    if is_ours && let Some(reason) = watch::hit(running, far, iss.wnr(), is_alone) {
        return not_of_watched_bytes(running).unwrap_or(Handled::Stop(reason));
    }
    if !wanted {
        return Handled::Past;
    }
    let syndrome = EsrEl1::watchpoint(origin(running), iss.cm(), iss.wnr());
    inject::synchronous(running, syndrome, Some(Va(far)))
}

/// What comes of an access at which the CPU has hit a watchpoint of the debugger's without touching
/// what is watched: QEMU 7.2 takes an unaligned store for one of all bytes from where its page begins.
fn not_of_watched_bytes<C: Cpu>(running: &mut Running<'_, C>) -> Option<Handled> {
    let Operand { address, bytes, read, write, .. } = operand::accessed(running)?;
    if watch::accesses(running, address, bytes, read, write).is_some() {
        return None;
    }
    let el0 = operand::has_rights_of_el0(running);
    let own = own_watchpoint(running, DataAccess { address, bytes, read, write, el0 });
    Some(own.unwrap_or(Handled::Past))
}

/// Enters the exception of a watchpoint of the guest's own that an access hits which EL2 is about
/// to carry out: no CPU has seen it.
pub fn own_watchpoint<C: Cpu>(running: &mut Running<'_, C>, access: DataAccess) -> Option<Handled> {
    let core = &*running.core;
    if !may_hit(core.debug.guest(), core.pstate()) {
        return None;
    }
    let context = running.cpu.read(SystemRegister::CONTEXTIDR_EL1);
    let hit = |access| core.debug.watchpoint_hit(running.cpu, access, context);
    let address = hit(access)?;
    // Of an atomic WnR is 0 where its load alone would have hit (ISS of a Watchpoint exception).
    let by_load = access.read && hit(DataAccess { write: false, ..access }).is_some();
    let syndrome = EsrEl1::watchpoint(origin(running), false, access.write && !by_load);
    Some(inject::synchronous(running, syndrome, Some(Va(address))))
}

/// Where an exception to EL1 comes from.
#[must_use]
pub fn origin<C: Cpu>(running: &Running<'_, C>) -> Origin {
    if running.core.pstate().el() == 0 { Origin::LowerEl } else { Origin::SameEl }
}
