//! The guest's debug registers.
//!
//! They are never in the guest's hands: accesses trap, and what the machine holds is made from this
//! shadow at each entry. So EL2 knows when the guest begins to step itself, on which the engine
//! steps it, whose steps are the manual's; and the debugger's breakpoints find their place.
//!
//! What a register keeps of a write is the CPU's to say: a guest's write goes through the machine's
//! register once, and what reads back is kept. Registers that nothing of ours depends on have no
//! shadow, and the access is carried out on the machine's: that it trapped says that there is one.
//! QEMU has some whose reads leave the destination as it was; it is left so here, too.

use crate::cpu::{Cpu, DebugBank};
use crate::mutation::{self, LoopMutant};
use heapless::Vec;
use stepwell_arch::debug::placement::{BANK, Kind, Pair, linked, place};
use stepwell_arch::debug::{DataAccess, HardwareBreakpoint, Watchpoint, mdscr_el1, os_lock};
use stepwell_arch::{SystemRegister, Va};
use stepwell_engine::own_step::GuestDebug;

/// Breakpoints of the CPU that are kept back: `until`, and the return from a handler.
pub const RESERVED_BREAKPOINTS: u8 = 2;

/// The guest's debug registers, and what the machine holds of these and of the debugger's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DebugShadow {
    values: [[u64; BANK]; 4],
    mdscr: u64,
    os_lock: bool,
    os_double_lock: u64,
    /// What the guest's own step exception would say of the instruction executed last: whether it
    /// was a load-exclusive, or nothing where it was not stepped itself.
    pub own_stepped: Option<bool>,
    /// Where `until` and a handler's return are caught.
    pub wanted: Vec<u64, { RESERVED_BREAKPOINTS as usize }>,
    /// The vCPU was reset: so are to be the machine's registers that have no shadow.
    is_reset: bool,
    /// MDSCR_EL1 and MDCR_EL2 as they are in the machine, if they are ours.
    loaded: Option<(u64, u64)>,
    /// The same, where nothing of the debugger's is to be in the machine, and all that is to be there
    /// is: as before most steps.
    right_for: Option<(u64, u64)>,
    /// The debugger's breakpoints that are to be in the machine.
    pub(super) programmed: Vec<u64, BANK>,
    /// The debugger's watchpoints that are to be in the machine: value and control.
    pub(super) watched: Vec<Pair, BANK>,
    /// The machine's breakpoints and watchpoints are not what they should be.
    is_stale: bool,
    /// The debugger's breakpoints are left out of the machine, so that only the guest's may hit.
    pub(super) is_hiding_ours: bool,
    /// And its watchpoints.
    pub(super) is_hiding_watched: bool,
}

const BANKS: [DebugBank; 4] = [
    DebugBank::BreakpointValue,
    DebugBank::BreakpointControl,
    DebugBank::WatchpointValue,
    DebugBank::WatchpointControl,
];

fn registers_of<C: Cpu>(cpu: &C, bank: DebugBank) -> usize {
    let facts = cpu.facts();
    usize::from(match bank {
        DebugBank::BreakpointValue | DebugBank::BreakpointControl => facts.breakpoints,
        DebugBank::WatchpointValue | DebugBank::WatchpointControl => facts.watchpoints,
    })
}

fn bank_of<C: Cpu>(cpu: &C, register: SystemRegister) -> Option<(usize, usize)> {
    let n = usize::from(register.debug_pair_index()?);
    let bank = usize::from(register.op2().checked_sub(4)?);
    (n < registers_of(cpu, *BANKS.get(bank)?)).then_some((bank, n))
}

fn pairs(values: &[u64; BANK], controls: &[u64; BANK]) -> [Pair; BANK] {
    let mut pairs = [(0, 0); BANK];
    for (pair, (&value, &control)) in pairs.iter_mut().zip(values.iter().zip(controls)) {
        *pair = (value, control);
    }
    pairs
}

fn write_pairs<C: Cpu>(cpu: &C, (values, controls): (DebugBank, DebugBank), pairs: &[Pair; BANK]) {
    for (n, &(value, control)) in pairs.iter().enumerate().take(registers_of(cpu, values)) {
        cpu.write_debug(values, n, value);
        cpu.write_debug(controls, n, control);
    }
}

impl Default for DebugShadow {
    /// The state of a vCPU that was reset, to be put into the machine when it first runs.
    fn default() -> Self {
        Self {
            values: [[0; BANK]; 4],
            mdscr: 0,
            os_lock: true,
            os_double_lock: 0,
            own_stepped: None,
            wanted: Vec::new(),
            is_reset: true,
            loaded: None,
            right_for: None,
            programmed: Vec::new(),
            watched: Vec::new(),
            is_stale: true,
            is_hiding_ours: false,
            is_hiding_watched: false,
        }
    }
}

impl DebugShadow {
    /// MDSCR_EL1 as the guest has it.
    #[must_use]
    pub const fn mdscr(&self) -> u64 {
        self.mdscr
    }

    /// Takes the guest's MDSCR_EL1 back from the engine, which kept it while it stepped.
    pub const fn set_mdscr(&mut self, value: u64) {
        self.mdscr = value;
    }

    /// What decides over the guest's own debug exceptions.
    #[must_use]
    pub const fn guest(&self) -> GuestDebug {
        GuestDebug { mdscr: self.mdscr, os_lock: self.os_lock || self.os_double_lock != 0 }
    }

    /// MDSCR_EL1 for a guest that debugs itself with nobody else's help: with its OS Lock set,
    /// which the machine's is not, none of its debug exceptions but BRK's.
    #[must_use]
    pub const fn mdscr_alone(&self) -> u64 {
        if self.guest().os_lock { self.mdscr & !mdscr_el1::MDE } else { self.mdscr }
    }

    /// How many breakpoints of the guest's own are on, where any may hit.
    #[must_use]
    pub fn breakpoints_that_may_hit(&self) -> usize {
        if self.mdscr_alone() & mdscr_el1::MDE == 0 {
            return 0;
        }
        let [_, controls, ..] = &self.values;
        controls.iter().filter(|&&control| control & 1 != 0).count()
    }

    /// The first byte of an access by which it hits a watchpoint of the guest's own.
    #[must_use]
    pub fn watchpoint_hit<C: Cpu>(
        &self,
        cpu: &C,
        access: DataAccess,
        contextidr: u64,
    ) -> Option<u64> {
        let [bvr, bcr, wvr, wcr] = &self.values;
        let first_aware = cpu.facts().first_context_breakpoint();
        let is_linked_match = |n: usize| {
            let pair = (bvr.get(n), bcr.get(n));
            let (Some(&value), Some(&control)) = pair else { return false };
            n >= first_aware
                && HardwareBreakpoint { value, control }.linked_context_match(contextidr)
        };
        let watchpoints =
            wvr.iter().zip(wcr).map(|(&value, &control)| Watchpoint { value, control });
        watchpoints.filter_map(|watch| watch.first_match(access, is_linked_match)).min()
    }

    /// Takes down which breakpoints and watchpoints the debugger has.
    pub(super) fn program(&mut self, ours: &[u64], watched: &[Pair]) {
        if self.programmed != *ours || self.watched != *watched {
            self.programmed = Vec::from_slice(ours).unwrap_or_default();
            self.watched = watched.iter().copied().take(BANK).collect();
            self.is_stale = true;
            self.right_for = None;
        }
    }

    /// Leaves the debugger's breakpoints, or its watchpoints, out of the machine.
    pub(super) fn hide_ours(&mut self, breakpoints: bool, watchpoints: bool) {
        if self.is_hiding_ours != breakpoints {
            self.is_hiding_ours = breakpoints;
            self.is_stale |= !self.programmed.is_empty();
        }
        if self.is_hiding_watched != watchpoints {
            self.is_hiding_watched = watchpoints;
            self.is_stale |= !self.watched.is_empty();
        }
    }

    /// Takes the guest's registers from those of another moment. What the debugger has stays.
    pub(super) fn restore(&mut self, from: &Self) {
        self.values = from.values;
        (self.mdscr, self.os_lock, self.os_double_lock) =
            (from.mdscr, from.os_lock, from.os_double_lock);
        (self.own_stepped, self.is_reset) = (from.own_stepped, from.is_reset);
        self.forget_machine();
    }

    fn forget_machine(&mut self) {
        (self.loaded, self.right_for, self.is_stale) = (None, None, true);
    }

    /// Another vCPU may have had the CPU: what is in the machine is not known, but for the banks if that
    /// one has left them clear.
    pub(super) fn take_over(&mut self, are_clear: bool) {
        if mutation::is(LoopMutant::MachineNotForgotten) {
            return;
        }
        self.forget_machine();
        self.is_stale = !are_clear || !self.wants_clear_banks();
    }

    /// Whether nothing is on in the breakpoint and watchpoint registers of the machine.
    pub(super) fn has_clear_banks(&self) -> bool {
        !self.is_stale && self.wants_clear_banks()
    }

    fn wants_clear_banks(&self) -> bool {
        let [_, bcr, _, wcr] = &self.values;
        let is_off = bcr.iter().chain(wcr).all(|&control| control == 0);
        is_off && self.programmed.is_empty() && self.watched.is_empty()
    }

    /// Puts what is to be there into the machine.
    #[inline]
    pub(super) fn control<C: Cpu>(&mut self, cpu: &C, mdscr: u64, mdcr: u64) {
        if self.is_stale || self.loaded != Some((mdscr, mdcr)) {
            self.write_control(cpu, mdscr, mdcr);
        }
        let has_ours = !self.programmed.is_empty() || !self.watched.is_empty();
        self.right_for = self.loaded.filter(|_| !has_ours && !self.is_hiding());
    }

    const fn is_hiding(&self) -> bool {
        self.is_hiding_ours || self.is_hiding_watched
    }

    /// Tells of controls, with nothing of the debugger's in the machine, that nothing is to be put there.
    #[inline]
    pub(super) fn is_right_for(&self, mdscr: u64, mdcr: u64) -> bool {
        self.right_for == Some((mdscr, mdcr))
    }

    fn write_control<C: Cpu>(&mut self, cpu: &C, mdscr: u64, mdcr: u64) {
        if core::mem::take(&mut self.is_reset) {
            // Of the others only the claim tags keep anything, and these outlive a warm reset.
            cpu.write(SystemRegister::MDCCINT_EL1, 0);
        }
        if core::mem::take(&mut self.is_stale) {
            self.write_banks(cpu);
        }
        if self.loaded == Some((mdscr, mdcr)) {
            return;
        }
        cpu.write(SystemRegister::MDSCR_EL1, mdscr);
        cpu.set_debug_traps(mdcr);
        // What ERET does to PSTATE.SS goes by MDSCR_EL1 before the ERET synchronizes anything.
        cpu.synchronize();
        self.loaded = Some((mdscr, mdcr));
    }

    fn write_banks<C: Cpu>(&self, cpu: &C) {
        use DebugBank::{BreakpointControl, BreakpointValue, WatchpointControl, WatchpointValue};
        let ours = self.programmed.iter().filter(|_| !self.is_hiding_ours);
        let ours: Vec<Pair, BANK> = ours
            .map(|&va| HardwareBreakpoint::execute(Va(va)))
            .map(|breakpoint| (breakpoint.value, breakpoint.control))
            .collect();
        let watched = if self.is_hiding_watched { &[] } else { self.watched.as_slice() };
        let [bvr, bcr, wvr, wcr] = &self.values;
        let (breakpoints, watchpoints) = (pairs(bvr, bcr), pairs(wvr, wcr));
        let links = linked(&breakpoints, Kind::Breakpoint) | linked(&watchpoints, Kind::Watchpoint);
        let count = registers_of(cpu, BreakpointValue);
        let placed = place(Kind::Breakpoint, &breakpoints, count, &ours, (links, 0));
        write_pairs(cpu, (BreakpointValue, BreakpointControl), &placed.pairs);
        let gone = placed.displaced;
        let count = registers_of(cpu, WatchpointValue);
        let placed = place(Kind::Watchpoint, &watchpoints, count, watched, (0, gone));
        write_pairs(cpu, (WatchpointValue, WatchpointControl), &placed.pairs);
    }

    /// Reads a debug register that has a shadow.
    #[must_use]
    pub fn read<C: Cpu>(&self, cpu: &C, register: SystemRegister) -> Option<u64> {
        if let Some((bank, n)) = bank_of(cpu, register) {
            return self.values.get(bank)?.get(n).copied();
        }
        match register {
            SystemRegister::MDSCR_EL1 => Some(self.mdscr),
            SystemRegister::OSLSR_EL1 => Some(os_lock::oslsr(self.os_lock)),
            SystemRegister::OSDLR_EL1 => Some(self.os_double_lock),
            _ => None,
        }
    }

    /// Writes a debug register that has a shadow, as it is. It is in the machine with the next
    /// entry.
    pub fn write<C: Cpu>(&mut self, cpu: &C, register: SystemRegister, value: u64) -> Option<()> {
        if let Some((bank, n)) = bank_of(cpu, register) {
            *self.values.get_mut(bank)?.get_mut(n)? = value;
            (self.is_stale, self.right_for) = (true, None);
            return Some(());
        }
        match register {
            SystemRegister::MDSCR_EL1 => self.mdscr = value,
            SystemRegister::OSLAR_EL1 => self.os_lock = value & os_lock::OSLAR_OSLK != 0,
            SystemRegister::OSDLR_EL1 => self.os_double_lock = value & os_lock::OSDLR_DLK,
            _ => return None,
        }
        Some(())
    }

    /// Carries out a guest's MRS into a register that holds `before`, on this vCPU's own CPU.
    #[must_use]
    pub fn read_for_guest<C: Cpu>(
        &self,
        cpu: &C,
        register: SystemRegister,
        before: u64,
    ) -> Option<u64> {
        match register {
            // The machine's is clear. What reads otherwise is no lock, but the destination.
            SystemRegister::OSDLR_EL1 => match cpu.access_debug(register, before, false)? {
                0 => Some(self.os_double_lock),
                untouched => Some(untouched),
            },
            _ => self.read(cpu, register).or_else(|| cpu.access_debug(register, before, false)),
        }
    }

    /// Carries out a guest's MSR, on this vCPU's own CPU.
    pub fn write_for_guest<C: Cpu>(
        &mut self,
        cpu: &C,
        register: SystemRegister,
        value: u64,
    ) -> Option<()> {
        let kept = if let Some((bank, n)) = bank_of(cpu, register) {
            let bank = *BANKS.get(bank)?;
            cpu.write_debug(bank, n, value);
            cpu.read_debug(bank, n)
        } else {
            match register {
                // Which bits can be written depends on the lock. Nothing at EL2 is stepped.
                SystemRegister::MDSCR_EL1 => {
                    cpu.write(SystemRegister::OSLAR_EL1, u64::from(self.os_lock));
                    cpu.synchronize();
                    cpu.write(SystemRegister::MDSCR_EL1, self.mdscr);
                    cpu.write(SystemRegister::MDSCR_EL1, value);
                    let kept = cpu.read(SystemRegister::MDSCR_EL1);
                    cpu.write(SystemRegister::OSLAR_EL1, 0);
                    cpu.synchronize();
                    (self.loaded, self.right_for) = (None, None);
                    kept
                }
                SystemRegister::OSLAR_EL1 => value,
                SystemRegister::OSDLR_EL1 => {
                    let _none = cpu.access_debug(register, value, true);
                    let kept = cpu.access_debug(register, 0, false)?;
                    // Nothing steps while it is set, either.
                    let _none = cpu.access_debug(register, 0, true);
                    kept
                }
                _ => return cpu.access_debug(register, value, true).map(|_| ()),
            }
        };
        self.write(cpu, register, kept)
    }
}
