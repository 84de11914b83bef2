//! A vCPU on a CPU that it shares: how it gets there, when it leaves, and what it takes with it. Who is
//! next is [`super::sharing`]'s to say.

use super::advance::{Onward, VcpuLoop};
use super::flow::{At, Detour, Mode};
use super::running::{End, Running};
use super::state::{VcpuCore, vmpidr};
use super::{count, interrupt, time};
use crate::cpu::Cpu;
use stepwell_arch::SystemRegister;
use stepwell_protocol::StopReason;

/// How long a turn is, where time is.
const TURN_NS: u64 = 2_000_000;

/// What says where the guest's addresses lead, beside its tables.
const REGIME: [SystemRegister; 5] = [
    SystemRegister::SCTLR_EL1,
    SystemRegister::TTBR0_EL1,
    SystemRegister::TTBR1_EL1,
    SystemRegister::TCR_EL1,
    SystemRegister::MAIR_EL1,
];

/// Whether the TLB has what this vCPU would find, too: the one before it has the same tables.
///
/// By the architecture that is not enough. An ASID may mean one thing on one vCPU and another on the
/// next (TTBR0_EL1.CnP), so that what the first has left under an ASID that neither has now would be
/// the second's one day. QEMU, on which alone instructions are counted, has no ASIDs in its TLB, and
/// empties it where one changes (docs/qemu.md).
fn has_same_regime<C: Cpu>(cpu: &C, core: &VcpuCore<C>) -> bool {
    REGIME.iter().all(|&register| core.snapshot.read(register) == Some(cpu.read(register)))
}

/// Puts a vCPU on a CPU that another may have had. `is_counted`: its instructions are, and this goes
/// on with what it was ordered before.
pub fn take_over<C: Cpu>(cpu: &C, index: usize, core: &mut VcpuCore<C>, is_counted: bool) {
    let keeps_tlb = is_counted && !core.is_reset && has_same_regime(cpu, core);
    cpu.change_vcpu(vmpidr(index), core.vttbr, keeps_tlb);
    core.simd.is_written = true;
    if !core.is_reset {
        cpu.load_private(&core.private);
    }
    cpu.trap_waits(true);
    let turn = u128::from(TURN_NS) * u128::from(cpu.frequency_hz()) / 1_000_000_000;
    core.turn_end = cpu.counter().wrapping_add(turn as u64);
}

/// Takes what others would not keep.
pub fn give_away<C: Cpu>(cpu: &C, core: &mut VcpuCore<C>) {
    cpu.save_private(&mut core.private);
}

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    /// At a boundary, on a shared CPU: whether the vCPU is to leave it, or its domain to stop.
    pub(super) fn at_shared_boundary(&mut self) -> Option<Onward> {
        if self.running.domain.timeline.is_some() {
            return self.at_counted_boundary();
        }
        // What others do between a load-exclusive and its store would not be noticed.
        let has_load = self.running.core.monitor.armed().is_some();
        if has_load || self.flow.turn.has_quiesced_others || !is_turn_over(self.running) {
            return None;
        }
        Some(Onward::GiveWay)
    }

    /// A wait, a stop that is due, or the end of a turn, between which and the next the link is served.
    fn at_counted_boundary(&mut self) -> Option<Onward> {
        if let Some(what) = self.flow.hand.taken_behind.take() {
            self.enter_handler(what);
            if let Some(Detour::Past { .. } | Detour::Sequence { .. }) = self.flow.detour {
                self.end_detour(None);
            }
            return Some(Onward::GoOn);
        }
        if self.running.core.is_suspended {
            if self.running.is_called() {
                return Some(self.ends(End::Asked));
            }
            time::update_lines(self.running);
            if !interrupt::has_waited(self.running) {
                return Some(self.wait_suspended());
            }
            self.running.core.is_suspended = false;
            self.running.core.wakes_at = u64::MAX;
        }
        let (is_reached, is_over) = count::what_is_due(self.running);
        if is_reached {
            return Some(self.ends(End::Stop(StopReason::Reached)));
        }
        if !is_over {
            return None;
        }
        // Part of the run: it clears the monitor each time.
        if self.flow.detour.is_some() {
            self.end_detour(None);
        }
        self.running.core.monitor.clear();
        self.flow.is_armed = false;
        interrupt::take_all(self.running);
        self.running.machine.link.pass_by(self.running.cpu, self.running.machine);
        if self.running.is_called() {
            return Some(self.ends(End::Asked));
        }
        if !is_alone(self.running) {
            return Some(Onward::GiveWay);
        }
        count::begin_turn(self.running);
        let (is_reached, _) = count::what_is_due(self.running);
        is_reached.then(|| self.ends(End::Stop(StopReason::Reached)))
    }

    fn wait_suspended(&mut self) -> Onward {
        if self.flow.mode == Mode::Step {
            return self.wait_for_interrupt(false);
        }
        self.flow.at = At::Suspended;
        Onward::Wait
    }
}

/// No other vCPU has anything to do.
fn is_alone<C: Cpu>(running: &Running<'_, C>) -> bool {
    let others = running.domain.vcpus.iter().enumerate();
    let mut others = others.filter(|(index, _)| *index != running.index);
    others.all(|(_, vcpu)| vcpu.order.lock().is_none())
}

/// Tells whether a turn of some time is over, and has the vCPU interrupted when it will be.
fn is_turn_over<C: Cpu>(running: &Running<'_, C>) -> bool {
    let left = running.core.turn_end.wrapping_sub(running.cpu.counter()).cast_signed();
    match u64::try_from(left) {
        Ok(0) | Err(_) => true,
        Ok(left) => {
            running.cpu.interrupt_in(time::ticks_to_ns(running.cpu, left));
            false
        }
    }
}
