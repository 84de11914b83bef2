//! Interrupts: the physical ones that EL2 takes, and the virtual CPU interface.

use super::{Running, time};
use crate::concurrency::counted::Count;
use crate::domain::{Domain, bit};
use crate::hw::gic::{self, Interrupt};
use crate::hw::registers::{mrs, msr};
use crate::hw::{setup, timer};
use crate::machine::Machine;
use crate::server;
use crate::vgic::{CpuInterface, Signal};
use stepwell_arch::Pstate;

/// PPI 11: the virtual timer, for the guest as for us.
pub const VIRTUAL_TIMER_INTID: u32 = 27;

/// Takes all that is pending while a guest's exit is in hand.
pub fn take_all(running: &mut Running<'_>) {
    while let Some(interrupt) = gic::take_interrupt() {
        match interrupt {
            Interrupt::VirtualTimer => time::virtual_timer_fired(running),
            other => take(running.machine, other),
        }
    }
}

/// Takes all that is pending while this CPU has no guest in hand.
pub fn take_all_at_el2(machine: &Machine, cpu: usize) {
    while let Some(interrupt) = gic::take_interrupt() {
        match interrupt {
            // Its vCPU stands: it is looked at again when that goes on.
            Interrupt::VirtualTimer => gic::enable_virtual_timer(cpu, false),
            other => take(machine, other),
        }
    }
    if cpu == 0 {
        server::pass_by(machine);
    }
}

fn take(machine: &Machine, interrupt: Interrupt) {
    match interrupt {
        Interrupt::Link => server::poll(machine),
        Interrupt::El2Timer => {
            timer::cancel_interrupt();
            for domain in &machine.domains {
                server::flush_console(domain);
            }
        }
        // The exit itself was the point.
        Interrupt::Kick | Interrupt::Maintenance | Interrupt::VirtualTimer => {}
        Interrupt::Unknown(_) => {}
    }
}

/// Calls out the other vCPUs for which the GIC has something new.
pub fn kick_others(running: &Running<'_>) {
    call_out(running.domain, !bit(running.index));
}

/// Calls out those of `vcpus` for which the GIC has something new.
pub fn call_out(domain: &Domain, vcpus: u8) {
    let vcpus = domain.vgic.lock().take_kicks() & vcpus;
    if vcpus == 0 {
        return;
    }
    // It may have come about by taking list registers back, which does not count as a change.
    domain.vgic.tell();
    // Those that wait for an interrupt under a step get a turn to look.
    let _has_turn = domain.turns.lock().wake(vcpus);
    let cpus = domain.vcpus.iter().enumerate();
    let mask = cpus.filter(|(n, _)| vcpus & bit(*n) != 0).fold(0, |m, (_, v)| m | bit(v.cpu));
    gic::kick(mask);
}

/// Whether the virtual CPU interface can be left alone between steps: nothing was pending or active
/// when it was loaded last, and nothing has happened since.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuietInterface {
    is_quiet: bool,
    seen: Count,
}

/// Tells whether nothing can be delivered to a stepped vCPU, without asking the GIC.
#[must_use]
pub fn is_quiet(running: &Running<'_>) -> bool {
    let QuietInterface { is_quiet, seen } = running.core.quiet;
    is_quiet && seen == running.domain.vgic.count() && running.core.serror.is_none()
}

/// An asynchronous exception that is pending for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asynchronous {
    /// What the GIC signals, and the INTID that it signals it for.
    Interrupt(Signal, u32),
    /// An SError.
    SError,
}

/// Tells what would be taken next if the guest went on now, by its PSTATE.
///
/// Which of an SError and an interrupt comes first is the implementation's to choose ("Prioritization
/// and recognition of interrupts"). The error does here: what it spoiled may matter to the handler.
#[must_use]
pub fn to_be_taken(running: &Running<'_>) -> Option<Asynchronous> {
    let pstate = running.core.pstate();
    if running.core.serror.is_some() && !pstate.serror_masked() {
        return Some(Asynchronous::SError);
    }
    if pstate.irq_masked() && pstate.fiq_masked() {
        return None;
    }
    let vgic = running.domain.vgic.lock();
    let (signal, intid) = vgic.signalled(running.index, &running.core.interface)?;
    let is_masked = match signal {
        Signal::Irq => pstate.irq_masked(),
        Signal::Fiq => pstate.fiq_masked(),
    };
    (!is_masked).then_some(Asynchronous::Interrupt(signal, intid))
}

/// Tells whether PSTATE keeps every asynchronous exception from being taken.
#[must_use]
pub fn all_masked(pstate: Pstate) -> bool {
    const ALL: u64 = Pstate::A | Pstate::I | Pstate::F;
    pstate.0 & ALL == ALL
}

/// Tells whether WFI ends: whether anything is pending that PSTATE alone can mask.
#[must_use]
pub fn has_pending(running: &Running<'_>) -> bool {
    running.core.serror.is_some()
        || running.domain.vgic.lock().has_pending(running.index, &running.core.interface)
}

/// Makes the next step look at the GIC, whatever it knows.
pub fn disturb(running: &mut Running<'_>) {
    running.core.quiet.is_quiet = false;
}

/// As [`load`], for a step. `all_held`: nothing is to be delivered before stepping ends, so what is
/// pending does not matter.
pub fn load_for_step(running: &mut Running<'_>, hold: bool, all_held: bool) {
    let seen = running.domain.vgic.count();
    load(running, hold);
    let core = &*running.core;
    let is_empty = core.interface.lr.iter().all(|&register| register == 0);
    let is_quiet = is_empty
        && (all_held || !running.domain.vgic.lock().has_pending(running.index, &core.interface));
    running.core.quiet = QuietInterface { is_quiet, seen };
}

/// Before an entry: fills the list registers. With `hold`, nothing is delivered.
pub fn load(running: &mut Running<'_>, hold: bool) {
    let core = &mut *running.core;
    running.domain.vgic.lock().flush(running.index, hold, &mut core.interface);
    write_interface(&core.interface);
    if let Some(iss) = core.serror.filter(|_| !hold) {
        setup::raise_serror(iss);
    }
}

/// After an exit: takes the list registers back.
pub fn sync(running: &mut Running<'_>) {
    read_interface(&mut running.core.interface);
    if running.core.serror.is_some() && setup::take_serror_back() {
        running.core.serror = None;
    }
    running.domain.vgic.lock().sync(running.index, &running.core.interface);
    kick_others(running);
}

fn write_interface(interface: &CpuInterface) {
    for (n, &value) in interface.lr.iter().enumerate().take(interface.lr_count) {
        write_list_register(n, value);
    }
    msr!("ich_vmcr_el2", interface.vmcr);
    msr!("ich_ap0r0_el2", interface.ap0r0);
    msr!("ich_ap1r0_el2", interface.ap1r0);
    msr!("ich_hcr_el2", interface.hcr);
}

fn read_interface(interface: &mut CpuInterface) {
    for (n, value) in interface.lr.iter_mut().enumerate().take(interface.lr_count) {
        *value = read_list_register(n);
    }
    interface.vmcr = mrs!("ich_vmcr_el2");
    interface.ap0r0 = mrs!("ich_ap0r0_el2");
    interface.ap1r0 = mrs!("ich_ap1r0_el2");
    interface.hcr = mrs!("ich_hcr_el2");
    // The maintenance interrupt stays up until the list registers are written anew; EL2 must not
    // take it over and over until then.
    msr!("ich_hcr_el2", 0);
}

macro_rules! list_registers {
    ($($n:literal $name:literal),*) => {
        fn write_list_register(n: usize, value: u64) {
            match n {
                $($n => msr!($name, value),)*
                _ => {}
            }
        }

        fn read_list_register(n: usize) -> u64 {
            match n {
                $($n => mrs!($name),)*
                _ => 0,
            }
        }
    };
}

list_registers! {
    0 "ich_lr0_el2", 1 "ich_lr1_el2", 2 "ich_lr2_el2", 3 "ich_lr3_el2",
    4 "ich_lr4_el2", 5 "ich_lr5_el2", 6 "ich_lr6_el2", 7 "ich_lr7_el2",
    8 "ich_lr8_el2", 9 "ich_lr9_el2", 10 "ich_lr10_el2", 11 "ich_lr11_el2",
    12 "ich_lr12_el2", 13 "ich_lr13_el2", 14 "ich_lr14_el2", 15 "ich_lr15_el2"
}
