//! Arming the monitor of an exclusive sequence after an exit of EL2's that has broken it.
//!
//! The CPU's monitor is gone, and whether it was armed nothing tells. A store-exclusive may always fail; one
//! that succeeds although its load has not executed, or a handler has returned since, loses what was stored
//! meanwhile. So the monitor is armed only where the code says that the load has executed and nothing has
//! opened the monitor ([`crate::views::window`]), no exception has returned into it, as far as ELR_EL1 tells,
//! and the registers are what the load would make of them now ([`stepwell_engine::retrace`]). Else it stays
//! open: the store fails once, and the next turn of its loop is stepped
//! ([`crate::vcpu::flow::Detour::Sequence`]).
//!
//! Where instructions are counted, a stop is to leave no trace, and a loop that comes to EL2 in each turn is
//! not stepped. There it is known that the load has executed since the guest was entered; handlers that
//! come within a sequence are stepped until they have returned ([`super::broken_sequence`]). So the code is
//! believed where registers do not tell, and registers where the code does not. What is decided depends on
//! the guest alone; so an instruction that EL2 carries out under a step opens the monitor where it would stay
//! open if the guest ran.

use super::emulate::peek;
use crate::cpu::{Context as _, Cpu};
use crate::memory::GuestMemory as _;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::running::Running;
use crate::vcpu::{operand, pages};
use crate::views::window::Window;
use stepwell_arch::{Instruction, SystemRegister, Va};
use stepwell_engine::retrace::{Finding, retrace};
use stepwell_engine::{LoadExclusive, Plan, plan};

/// Arms the monitor as the CPU's was by the load of the sequence around the PC.
pub fn rearm<C: Cpu>(running: &mut Running<'_, C>) {
    let Some((load, window)) = load_of_sequence(running) else { return };
    let core = &*running.core;
    let may_be_open = if running.domain.timeline.is_some() {
        window.executed() > core.executed
    } else {
        let returned_to = running.cpu.read(SystemRegister::ELR_EL1);
        is_in(&window, core.context.elr, core.entered_at)
            || is_in(&window, core.context.elr, returned_to)
    };
    if may_be_open {
        return;
    }
    if let Some((address, value)) = would_read(running, load, &window) {
        running.core.monitor.arm(load, address, value);
    }
}

/// After an instruction that EL2 has carried out under a step: opens the monitor where it would stay open
/// if the guest ran, and instructions are counted.
pub(super) fn keep_as_if_it_ran<C: Cpu>(running: &mut Running<'_, C>) {
    if running.domain.timeline.is_none() || running.core.monitor.armed().is_none() {
        return;
    }
    let found =
        load_of_sequence(running).and_then(|(load, window)| would_read(running, load, &window));
    if found.is_none() {
        running.core.monitor.clear();
    }
}

/// The load-exclusive of the sequence that the A64 instruction at the PC lies in, where its base register
/// is as it was; and what has been executed since.
pub(super) fn load_of_sequence<C: Cpu>(
    running: &Running<'_, C>,
) -> Option<(LoadExclusive, Window)> {
    if running.core.pstate().is_aarch32() {
        return None;
    }
    let (pc, ram) = (running.core.context.elr, &running.domain.ram);
    let page = ram.code_page(ram.locate(operand::to_ipa(running, pc)?, 4).ok()?)?;
    let word = |n| ram.instruction(page, Va(n as u64 * 4)).unwrap_or(0);
    let window =
        Window::before((pc % PAGE_BYTES) as usize / 4, pages::link_in_page(running, Va(pc)), word)?;
    match plan(Instruction::decode(word(window.load))) {
        Plan::LoadExclusive(load) => {
            let is_kept = load.rn != load.rt && !(load.pair && load.rn == load.rt2);
            let base = 1_u32 << (load.rn & 31);
            (is_kept && !window.writes(base)).then_some((load, window))
        }
        _ => None,
    }
}

/// Whether an address lies behind the load of the sequence around the PC.
fn is_in(window: &Window, pc: u64, address: u64) -> bool {
    let index = (address % PAGE_BYTES) as usize / 4;
    address / PAGE_BYTES == pc / PAGE_BYTES && window.contains(index)
}

/// What the load has read, and where, if that is known.
fn would_read<C: Cpu>(
    running: &Running<'_, C>,
    load: LoadExclusive,
    window: &Window,
) -> Option<(Va, [u64; 2])> {
    let address = Va(operand::base(running, load.rn));
    let value = peek(running, load, address, running.core.pstate())?;
    let register = |n| running.core.context.register(n);
    let finding = retrace(load, value, &window.words, window.is_straight, register);
    let is_known = match finding {
        Finding::Same => window.is_whole || running.domain.timeline.is_some(),
        Finding::Unknown => running.domain.timeline.is_some() && !window.stores(),
        Finding::Other => false,
    };
    is_known.then_some((address, value))
}
