//! Breakpoints, the debugger's and the guest's own, and the guest's debug registers.
//!
//! As long as nobody debugs, the guest's debug registers are in the machine and nothing traps.
//! While it is stepped, or has a breakpoint of the debugger's, they are here: the guest reads and
//! writes the shadow, and the machine holds the debugger's breakpoints first and as many of the
//! guest's as are left after that.

use super::exit::Handled;
use super::{Running, inject, pages, watch};
use crate::hw::registers::{isb, mrs, msr};
use crate::hw::setup::{CpuFacts, base_mdcr};
use crate::hw::system_registers::{DebugBank, read_debug, write_debug};
use crate::hw::translate;
use core::iter;
use heapless::Vec;
use stepwell_arch::debug::{HardwareBreakpoint, mdcr_el2, mdscr_el1, os_lock};
use stepwell_arch::esr::{EsrEl1, EsrEl2, Origin};
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_engine::own_step::{self, GuestDebug};
use stepwell_wire::{Place, StopReason};

/// Breakpoints of the CPU that are kept back: `until`, and the return from a handler.
pub const RESERVED_BREAKPOINTS: u8 = 2;

const BANK: usize = 16;
/// The claim tags of DBGCLAIMSET_EL1.
const CLAIM_TAGS: u64 = 0xff;

/// Whether breakpoints are to be heeded at the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakpoints {
    /// What stands at the PC has been reported: not this once.
    PastFirst,
    /// Yes.
    On,
}

/// The guest's debug registers while they are not in the machine.
#[derive(Clone, Debug)]
pub struct DebugShadow {
    held: bool,
    values: [[u64; BANK]; 4],
    mdscr: u64,
    mdccint: u64,
    /// The claim tags that the guest set while they trapped. (QEMU 7.2 has none to read at EL2.)
    claim: u64,
    os_lock: bool,
    os_double_lock: u64,
    /// The guest's own step exception is due for an instruction that has just executed: whether that
    /// was a load-exclusive. Nothing where the step became pending otherwise.
    pub own_stepped: Option<bool>,
    /// Where `until` and a handler's return are caught.
    pub wanted: Vec<u64, { RESERVED_BREAKPOINTS as usize }>,
    /// MDSCR_EL1 and MDCR_EL2 as they are in the machine, if they are ours.
    loaded: Option<(u64, u64)>,
    /// The debugger's breakpoints that are to be in the machine.
    programmed: Vec<u64, BANK>,
    /// The debugger's watchpoints that are to be in the machine: value and control.
    watched: Vec<(u64, u64), BANK>,
    /// The machine's breakpoints and watchpoints are not what they should be.
    is_stale: bool,
    /// The debugger's breakpoints are left out of the machine, so that only the guest's may hit.
    is_hiding_ours: bool,
    /// And its watchpoints.
    is_hiding_watched: bool,
    /// The watchpoint that the instruction at this PC hits has been reported.
    pub reported_watch: Option<u64>,
    /// The next instruction is let past the debugger's watchpoints.
    pub is_past_watch: bool,
}

/// Which breakpoints and watchpoints may hit during a stepped entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heeded {
    /// All.
    All,
    /// The guest's own, and the debugger's watchpoints: its breakpoint at the PC has been reported.
    PastOurs,
    /// None: what hits is not wanted where the guest is.
    Nothing,
}

const BANKS: [DebugBank; 4] = [
    DebugBank::BreakpointValue,
    DebugBank::BreakpointControl,
    DebugBank::WatchpointValue,
    DebugBank::WatchpointControl,
];

fn registers_of(bank: DebugBank) -> usize {
    let facts = CpuFacts::read();
    usize::from(match bank {
        DebugBank::BreakpointValue | DebugBank::BreakpointControl => facts.breakpoints,
        DebugBank::WatchpointValue | DebugBank::WatchpointControl => facts.watchpoints,
    })
}

impl Default for DebugShadow {
    fn default() -> Self {
        Self {
            held: false,
            values: [[0; BANK]; 4],
            mdscr: 0,
            mdccint: 0,
            claim: 0,
            os_lock: true,
            os_double_lock: 0,
            own_stepped: None,
            wanted: Vec::new(),
            loaded: None,
            programmed: Vec::new(),
            watched: Vec::new(),
            is_stale: true,
            is_hiding_ours: false,
            is_hiding_watched: false,
            reported_watch: None,
            is_past_watch: false,
        }
    }
}

impl DebugShadow {
    /// The state of a vCPU that was reset, to be put into the machine when it first runs.
    #[must_use]
    pub fn at_reset() -> Self {
        Self { held: true, ..Self::default() }
    }

    /// MDSCR_EL1 as the guest has it.
    #[must_use]
    pub fn mdscr(&self) -> u64 {
        if self.held { self.mdscr } else { mrs!("mdscr_el1") }
    }

    /// Takes the guest's MDSCR_EL1 back from the engine, which kept it while it stepped.
    pub const fn set_mdscr(&mut self, value: u64) {
        self.mdscr = value;
    }

    /// Takes note that an instruction has executed, and whether the guest steps it itself.
    pub fn note_own_step(&mut self, before: Pstate, after: Pstate, load_exclusive: bool) {
        if before.ss() && !after.ss() {
            self.own_stepped = Some(load_exclusive);
        }
    }

    /// What decides over the guest's own debug exceptions.
    #[must_use]
    pub const fn guest(&self) -> GuestDebug {
        GuestDebug { mdscr: self.mdscr, os_lock: self.os_lock || self.os_double_lock != 0 }
    }

    /// Takes the guest's debug registers out of the machine.
    pub fn take_over(&mut self) {
        if self.held {
            return;
        }
        for (bank, values) in BANKS.into_iter().zip(self.values.iter_mut()) {
            for (n, value) in values.iter_mut().enumerate().take(registers_of(bank)) {
                *value = read_debug(bank, n);
            }
        }
        self.mdscr = mrs!("mdscr_el1");
        self.mdccint = mrs!("mdccint_el1");
        // Nothing steps while the OS Double Lock is set, either.
        self.os_double_lock = mrs!("osdlr_el1") & os_lock::OSDLR_DLK;
        msr!("osdlr_el1", 0);
        self.os_lock = mrs!("oslsr_el1") & os_lock::OSLSR_OSLK != 0;
        // Nothing steps on hardware while the OS Lock is set.
        msr!("oslar_el1", 0);
        isb();
        self.held = true;
        self.loaded = None;
        self.programmed.clear();
        self.watched.clear();
        self.is_stale = true;
    }

    /// Puts the guest's debug registers back into the machine.
    fn give_back(&mut self) {
        if !self.held {
            return;
        }
        self.write_banks(&[], &[]);
        msr!("mdscr_el1", self.mdscr);
        msr!("mdccint_el1", self.mdccint);
        msr!("osdlr_el1", self.os_double_lock);
        msr!("oslar_el1", u64::from(self.os_lock));
        msr!("mdcr_el2", base_mdcr());
        isb();
        self.held = false;
        self.loaded = None;
        self.programmed.clear();
        self.watched.clear();
    }

    fn write_banks(&self, breakpoints: &[(u64, u64)], watchpoints: &[(u64, u64)]) {
        use DebugBank::{BreakpointControl, BreakpointValue, WatchpointControl, WatchpointValue};
        let [bvr, bcr, wvr, wcr] = &self.values;
        write_pairs((BreakpointValue, BreakpointControl), breakpoints, bvr, bcr);
        write_pairs((WatchpointValue, WatchpointControl), watchpoints, wvr, wcr);
    }

    fn program(&mut self, ours: &[u64], watched: &[(u64, u64)]) {
        if self.programmed != *ours || self.watched != *watched {
            self.programmed = Vec::from_slice(ours).unwrap_or_default();
            self.watched = watched.iter().copied().take(BANK).collect();
            self.is_stale = true;
        }
    }

    fn hide_ours(&mut self, breakpoints: bool, watchpoints: bool) {
        if self.is_hiding_ours != breakpoints {
            self.is_hiding_ours = breakpoints;
            self.is_stale |= !self.programmed.is_empty();
        }
        if self.is_hiding_watched != watchpoints {
            self.is_hiding_watched = watchpoints;
            self.is_stale |= !self.watched.is_empty();
        }
    }

    #[inline]
    fn control(&mut self, mdscr: u64, mdcr: u64) {
        if self.is_stale || self.loaded != Some((mdscr, mdcr)) {
            self.write_control(mdscr, mdcr);
        }
    }

    fn write_control(&mut self, mdscr: u64, mdcr: u64) {
        if core::mem::take(&mut self.is_stale) {
            let breakpoints: Vec<(u64, u64), BANK> = self
                .programmed
                .iter()
                .filter(|_| !self.is_hiding_ours)
                .map(|&va| HardwareBreakpoint::execute(Va(va)))
                .map(|breakpoint| (breakpoint.value, breakpoint.control))
                .collect();
            let watchpoints = if self.is_hiding_watched { &[] } else { self.watched.as_slice() };
            self.write_banks(&breakpoints, watchpoints);
        }
        if self.loaded == Some((mdscr, mdcr)) {
            return;
        }
        msr!("mdscr_el1", mdscr);
        msr!("mdcr_el2", mdcr);
        // What ERET does to PSTATE.SS goes by MDSCR_EL1 before the ERET synchronizes anything.
        isb();
        self.loaded = Some((mdscr, mdcr));
    }
}

/// Writes pairs of registers: ours first, and the guest's where they are or, if ours are in their
/// way, those of them that are enabled in what is left.
fn write_pairs(
    (values, controls): (DebugBank, DebugBank),
    ours: &[(u64, u64)],
    guest_values: &[u64; BANK],
    guest_controls: &[u64; BANK],
) {
    let guests = guest_values.iter().copied().zip(guest_controls.iter().copied());
    let is_kept = |&(_, control): &(u64, u64)| ours.is_empty() || control & 1 != 0;
    let all = ours.iter().copied().chain(guests.filter(is_kept)).chain(iter::repeat((0, 0)));
    for (n, (value, control)) in all.enumerate().take(registers_of(values)) {
        write_debug(values, n, value);
        write_debug(controls, n, control);
    }
}

fn ours(running: &Running<'_>) -> Vec<u64, BANK> {
    let control = running.domain.control.lock();
    let all = running.core.debug.wanted.iter().chain(control.breakpoints.iter());
    all.copied().take(BANK).collect()
}

/// Before an entry without stepping: takes over if the debugger has breakpoints.
pub fn load(running: &mut Running<'_>) {
    let (ours, watched) = (ours(running), watch::in_registers(running));
    let shadow = &mut running.core.debug;
    // A hidden breakpoint is a BRK, which comes to EL2 by MDCR_EL2.TDE.
    if ours.is_empty() && watched.is_empty() && !running.domain.has_views() {
        shadow.give_back();
        return;
    }
    shadow.take_over();
    shadow.program(&ours, &watched);
    shadow.hide_ours(false, false);
    let traps = mdcr_el2::TDE | mdcr_el2::TDA | mdcr_el2::TDOSA | mdcr_el2::TDRA;
    // Its own step, and debug exceptions at its EL1, would come to EL2 now.
    let mdscr = shadow.mdscr & !(mdscr_el1::SS | mdscr_el1::KDE) | mdscr_el1::MDE;
    shadow.control(mdscr, base_mdcr() | traps);
}

/// Tells whether the guest steps itself while the debugger's breakpoints need the debug registers.
#[must_use]
pub fn must_step_for_guest(running: &Running<'_>) -> bool {
    let needs_registers = || {
        running.domain.has_views()
            || !ours(running).is_empty()
            || !watch::in_registers(running).is_empty()
    };
    running.core.debug.mdscr() & mdscr_el1::SS != 0 && needs_registers()
}

/// Before steps, and where what is wanted has changed: takes down which breakpoints there are.
pub fn program_for_step(running: &mut Running<'_>) {
    let (ours, watched) = (ours(running), watch::in_registers(running));
    running.core.debug.program(&ours, &watched);
}

/// Before a stepped entry.
pub fn load_for_step(running: &mut Running<'_>, heeded: Heeded) {
    let pstate = running.core.pstate();
    let core = &mut *running.core;
    let mut controls = core.engine.on_entry(pstate);
    core.context.spsr = controls.spsr.0;
    if !controls.debug_masked {
        msr!("daif", mrs!("daif") & !Pstate::D);
    }
    let debug = &mut core.debug;
    debug.hide_ours(heeded == Heeded::PastOurs, debug.is_past_watch);
    let ours = !debug.programmed.is_empty() && !debug.is_hiding_ours
        || !debug.watched.is_empty() && !debug.is_hiding_watched;
    match heeded {
        Heeded::Nothing => controls.mdscr &= !mdscr_el1::MDE,
        _ if ours => controls.mdscr |= mdscr_el1::MDE,
        _ => {}
    }
    core.debug.control(controls.mdscr, base_mdcr() | controls.mdcr);
}

/// The debugger's breakpoint at the PC, if there is one.
#[must_use]
pub fn breakpoint_at_pc(running: &Running<'_>) -> Option<Place> {
    let pc = running.core.pc();
    let by_va =
        running.domain.control.lock().breakpoints.contains(&pc.0).then_some(Place::Va(pc.0));
    by_va.or_else(|| hidden_breakpoint_at_pc(running))
}

fn hidden_breakpoint_at_pc(running: &Running<'_>) -> Option<Place> {
    let ipa = running.domain.has_views().then(|| ipa_of_pc(running))??;
    running.domain.views.lock().has_breakpoint(ipa).then_some(Place::Ipa(ipa.0))
}

fn ipa_of_pc(running: &Running<'_>) -> Option<Ipa> {
    // As EL1 may read: what EL0 executes it need not be able to read.
    pages::translated(running, || translate::to_ipa(running.core.pc(), false)).ok()
}

/// Handles a BRK: a hidden breakpoint of the debugger's, or the guest's own.
pub fn brk(running: &mut Running<'_>, esr: EsrEl2) -> Handled {
    if running.core.vttbr == running.domain.roots.of_running()
        && let Some(ipa) = ipa_of_pc(running)
    {
        let views = running.domain.views.lock();
        if views.has_breakpoint(ipa) {
            return Handled::Stop(StopReason::Breakpoint);
        }
        if views.leads_to_breakpoint(ipa) {
            return Handled::Past;
        }
    }
    inject::synchronous(running, EsrEl1::brk(esr.call().immediate()), None)
}

/// Tells whether the vCPU stands at its PC for a breakpoint or watchpoint that has been reported.
#[must_use]
pub fn is_reported_at_pc(running: &Running<'_>) -> bool {
    let is_watch = running.core.debug.reported_watch == Some(running.core.pc().0);
    is_watch || breakpoint_at_pc(running).is_some()
}

/// Handles a Breakpoint exception.
pub fn breakpoint(running: &mut Running<'_>) -> Handled {
    let pc = running.core.context.elr;
    if !running.core.debug.is_hiding_ours && ours(running).contains(&pc) {
        return Handled::Stop(StopReason::Breakpoint);
    }
    let (guest, pstate) = (running.core.debug.guest(), running.core.pstate());
    let wanted = guest.mdscr & mdscr_el1::MDE != 0;
    if wanted && own_step::generate_debug_exceptions_from(guest, pstate) {
        return inject::synchronous(running, EsrEl1::breakpoint(origin(running)), None);
    }
    // The guest's own, at a level where the guest does not want it: only routing to EL2 made it.
    Handled::Past
}

/// Handles a Watchpoint exception.
pub fn watchpoint(running: &mut Running<'_>, esr: EsrEl2) -> Handled {
    let (iss, pstate) = (esr.watchpoint(), running.core.pstate());
    let debug = &running.core.debug;
    let guest = debug.guest();
    let is_alone = guest.mdscr & mdscr_el1::MDE == 0;
    let wanted = !is_alone && own_step::generate_debug_exceptions_from(guest, pstate);
    let (far, is_ours) = (running.core.context.far, !debug.is_hiding_watched);
    if is_ours && let Some(reason) = watch::hit(running, far, iss.wnr(), is_alone) {
        running.core.debug.reported_watch = Some(running.core.context.elr);
        return Handled::Stop(reason);
    }
    if !wanted {
        return Handled::Past;
    }
    let syndrome = EsrEl1::watchpoint(origin(running), iss.cm(), iss.wnr());
    inject::synchronous(running, syndrome, Some(Va(far)))
}

/// Where an exception to EL1 comes from.
#[must_use]
pub fn origin(running: &Running<'_>) -> Origin {
    if running.core.pstate().el() == 0 { Origin::LowerEl } else { Origin::SameEl }
}

fn bank_of(register: SystemRegister) -> Option<(usize, usize)> {
    let n = usize::from(register.debug_pair_index()?);
    let bank = usize::from(register.op2().checked_sub(4)?);
    (n < registers_of(*BANKS.get(bank)?)).then_some((bank, n))
}

impl DebugShadow {
    /// Reads a debug register of the guest.
    #[must_use]
    pub fn read(&self, register: SystemRegister) -> Option<u64> {
        if let Some((bank, n)) = bank_of(register) {
            return self.values.get(bank)?.get(n).copied();
        }
        Some(match register {
            SystemRegister::MDSCR_EL1 => self.mdscr,
            SystemRegister::MDCCINT_EL1 => self.mdccint,
            SystemRegister::OSLSR_EL1 => os_lock::oslsr(self.os_lock),
            SystemRegister::OSDLR_EL1 => self.os_double_lock,
            SystemRegister::DBGCLAIMSET_EL1 => CLAIM_TAGS,
            SystemRegister::DBGCLAIMCLR_EL1 => self.claim,
            SystemRegister::MDRAR_EL1
            | SystemRegister::DBGPRCR_EL1
            | SystemRegister::DBGAUTHSTATUS_EL1
            | SystemRegister::OSECCR_EL1
            | SystemRegister::OSDTRRX_EL1
            | SystemRegister::OSDTRTX_EL1
            | SystemRegister::MDCCSR_EL0
            | SystemRegister::DBGDTR_EL0
            | SystemRegister::DBGDTRRX_EL0 => 0,
            _ => return None,
        })
    }

    /// Writes a debug register of the guest. It is in the machine with the next entry.
    pub fn write(&mut self, register: SystemRegister, value: u64) -> Option<()> {
        if let Some((bank, n)) = bank_of(register) {
            *self.values.get_mut(bank)?.get_mut(n)? = value;
            self.is_stale = true;
            return Some(());
        }
        match register {
            SystemRegister::MDSCR_EL1 => self.mdscr = value,
            SystemRegister::MDCCINT_EL1 => self.mdccint = value,
            SystemRegister::OSLAR_EL1 => self.os_lock = value & os_lock::OSLAR_OSLK != 0,
            SystemRegister::OSDLR_EL1 => self.os_double_lock = value & os_lock::OSDLR_DLK,
            SystemRegister::DBGCLAIMSET_EL1 => self.claim |= value & CLAIM_TAGS,
            SystemRegister::DBGCLAIMCLR_EL1 => self.claim &= !value,
            SystemRegister::DBGPRCR_EL1
            | SystemRegister::OSECCR_EL1
            | SystemRegister::OSDTRRX_EL1
            | SystemRegister::OSDTRTX_EL1
            | SystemRegister::DBGDTR_EL0 => {}
            _ => return None,
        }
        Some(())
    }
}
