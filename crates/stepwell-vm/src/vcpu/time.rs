//! The guest's timers and counters.
//!
//! Running freely, the guest uses the CPU's own virtual timer, with CNTVOFF_EL2 between its clock
//! and the machine's. Its physical timer and counter are emulated on the same clock, so that both
//! show one time. While it is stepped under a virtual clock, reads and writes of either come here
//! before they execute, because the CPU's counter does not stop.

use super::count;
use super::interrupt::VIRTUAL_TIMER_INTID;
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::vcpu::running::Running;
use crate::vcpu::state::VcpuCore;
use crate::vcpu::timers::PhysicalTimer;
use core::sync::atomic::Ordering;
use stepwell_arch::{SystemRegister, generic_timer};
use stepwell_engine::clock::COUNTER_AT_RESET;
use stepwell_engine::{TimePolicy, VirtualClock};

/// PPI 14: the guest's physical timer.
const PHYSICAL_TIMER_INTID: u32 = 30;

const ENABLE: u64 = 1 << 0;
const IMASK: u64 = 1 << 1;
const ISTATUS: u64 = 1 << 2;
const NS_PER_SECOND: u128 = 1_000_000_000;
/// What an instruction takes that a vCPU which runs freely is stepped through.
const FREE_STEP_NS: u32 = 1;
/// How far a clock that began ahead of the machine's is to stay so.
const AHEAD_MIN: i64 = (COUNTER_AT_RESET / 2).cast_signed();
/// EL2's timer is set anew after that long: far deadlines would overflow the counter.
const LONGEST_WAIT_NS: u64 = 1_000_000_000;
/// A deadline from here on never comes.
const NEVER: u64 = i64::MAX as u64;

/// The timer's interrupt line.
const fn line(control: u64, compare: u64, now: u64) -> bool {
    control & ENABLE != 0 && control & IMASK == 0 && now >= compare
}

/// CNT<x>_CTL_EL0 as the guest reads it.
const fn control_value(control: u64, compare: u64, now: u64) -> u64 {
    let control = control & (ENABLE | IMASK);
    if control & ENABLE != 0 && now >= compare { control | ISTATUS } else { control }
}

/// How far the guest's counter has come since reset. Where instructions are counted it begins at 0.
#[must_use]
pub fn since_reset<C: Cpu>(running: &Running<'_, C>) -> u64 {
    let counted = count::clock(running);
    counted.unwrap_or_else(|| now(running).saturating_sub(running.cpu.counter_at_reset()))
}

/// The guest's counter.
#[must_use]
pub fn now<C: Cpu>(running: &Running<'_, C>) -> u64 {
    if let Some(clock) = count::clock(running) {
        return clock;
    }
    if running.core.virtual_clock {
        return running.domain.clock.lock().now();
    }
    let stopped_at = running.core.left_at.filter(|_| running.core.is_hidden);
    let counter = stopped_at.unwrap_or_else(|| running.cpu.counter());
    counter.wrapping_sub(running.cpu.offset())
}

/// Reads a counter or timer register for the guest.
#[must_use]
pub fn read<C: Cpu>(running: &Running<'_, C>, register: SystemRegister) -> u64 {
    let virtual_timer = (
        running.cpu.read(SystemRegister::CNTV_CTL_EL0),
        running.cpu.read(SystemRegister::CNTV_CVAL_EL0),
    );
    value_of(register, now(running), running.core.physical_timer, virtual_timer)
}

/// Reads a counter or timer register of a stopped vCPU.
#[must_use]
pub fn read_standing<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    core: &VcpuCore<C>,
    register: SystemRegister,
) -> Option<u64> {
    if !generic_timer::is_access(register, true) {
        return None;
    }
    let kept = |register| core.snapshot.read(register).unwrap_or(0);
    let virtual_timer = (kept(SystemRegister::CNTV_CTL_EL0), kept(SystemRegister::CNTV_CVAL_EL0));
    let now = now_stopped(cpu, domain);
    Some(value_of(register, now, core.physical_timer, virtual_timer))
}

/// The counter of a domain whose vCPUs are all stopped.
fn now_stopped<C: Cpu>(cpu: &C, domain: &Domain<C>) -> u64 {
    if let Some(timeline) = &domain.timeline {
        timeline.lock().clock()
    } else if domain.real_time.load(Ordering::Acquire) {
        cpu.counter().wrapping_sub(domain.clock_offset.load(Ordering::Acquire))
    } else {
        domain.clock.lock().now()
    }
}

/// The timers of a vCPU that is on no CPU, virtual and physical: control and compare value.
fn timers_of<C: Cpu>(core: &VcpuCore<C>) -> [(u64, u64); 2] {
    let kept = |register| core.snapshot.read(register).unwrap_or(0);
    let PhysicalTimer { control, compare } = core.physical_timer;
    [(kept(SystemRegister::CNTV_CTL_EL0), kept(SystemRegister::CNTV_CVAL_EL0)), (control, compare)]
}

/// The counter of a vCPU that is on no CPU while its domain runs.
fn now_of<C: Cpu>(cpu: &C, domain: &Domain<C>) -> u64 {
    match &domain.timeline {
        Some(timeline) => timeline.lock().clock(),
        None => cpu.counter().wrapping_sub(domain.clock_offset.load(Ordering::Acquire)),
    }
}

/// Takes the timers' lines of a vCPU that is on no CPU to the GIC.
///
/// Where instructions are counted its virtual timer's interrupt stays until it runs: see
/// [`count::keeps_interrupt`].
pub fn update_lines_of<C: Cpu>(cpu: &C, domain: &Domain<C>, index: usize, core: &mut VcpuCore<C>) {
    let now = now_of(cpu, domain);
    let timers = timers_of(core);
    let [mut of_virtual, of_physical] = timers.map(|(ctl, compare)| line(ctl, compare, now));
    let lines = &mut core.lines;
    if domain.timeline.is_some() && of_virtual && !lines.virtual_timer {
        let [(_, due), _] = timers;
        lines.virtual_timer_due = due;
    }
    of_virtual |= domain.timeline.is_some()
        && lines.virtual_timer
        && domain.vgic.lock().is_offered(index, VIRTUAL_TIMER_INTID);
    for (known, up, intid) in [
        (&mut lines.virtual_timer, of_virtual, VIRTUAL_TIMER_INTID),
        (&mut lines.physical_timer, of_physical, PHYSICAL_TIMER_INTID),
    ] {
        if core::mem::replace(known, up) != up {
            domain.vgic.change().set_line(intid, Some(index), up);
        }
    }
}

/// As [`next_deadline`], of a vCPU that is on no CPU while its domain runs.
#[must_use]
pub fn next_deadline_of<C: Cpu>(cpu: &C, domain: &Domain<C>, core: &VcpuCore<C>) -> Option<u64> {
    let [of_virtual, of_physical] = timers_of(core);
    first_deadline([of_virtual, of_physical, (ENABLE, core.wakes_at)], now_of(cpu, domain))
}

/// Tells whether the time is up that a WFIT waits for at the longest.
#[must_use]
pub fn is_to_wake<C: Cpu>(running: &Running<'_, C>) -> bool {
    let at = running.core.wakes_at;
    at != u64::MAX && now(running) >= at
}

/// As [`is_to_wake`], of a vCPU that is on no CPU while its domain runs.
#[must_use]
pub fn is_to_wake_at<C: Cpu>(cpu: &C, domain: &Domain<C>, core: &VcpuCore<C>) -> bool {
    core.wakes_at != u64::MAX && now_of(cpu, domain) >= core.wakes_at
}

/// When the physical timer goes off, if it is on and has not yet.
#[must_use]
pub fn physical_deadline<C: Cpu>(running: &Running<'_, C>) -> Option<u64> {
    let PhysicalTimer { control, compare } = running.core.physical_timer;
    first_deadline([(control, compare)], now(running))
}

/// When the condition of the virtual timer is met, if it is on and it is not yet; whether its interrupt
/// is masked or not.
#[must_use]
pub fn virtual_deadline<C: Cpu>(running: &Running<'_, C>) -> Option<u64> {
    let control = running.cpu.read(SystemRegister::CNTV_CTL_EL0) & !IMASK;
    let compare = running.cpu.read(SystemRegister::CNTV_CVAL_EL0);
    first_deadline([(control, compare)], now(running))
}

fn value_of(
    register: SystemRegister,
    now: u64,
    physical: PhysicalTimer,
    (virtual_control, virtual_compare): (u64, u64),
) -> u64 {
    // TVAL is 32 bits, sign-extended.
    let value = |compare: u64| compare.wrapping_sub(now) as u32 as u64;
    match register {
        SystemRegister::CNTP_CTL_EL0 => control_value(physical.control, physical.compare, now),
        SystemRegister::CNTP_CVAL_EL0 => physical.compare,
        SystemRegister::CNTP_TVAL_EL0 => value(physical.compare),
        SystemRegister::CNTV_CTL_EL0 => control_value(virtual_control, virtual_compare, now),
        SystemRegister::CNTV_CVAL_EL0 => virtual_compare,
        SystemRegister::CNTV_TVAL_EL0 => value(virtual_compare),
        _ => now,
    }
}

/// Writes a timer register for the guest.
pub fn write<C: Cpu>(running: &mut Running<'_, C>, register: SystemRegister, value: u64) {
    let now = now(running);
    let physical = &mut running.core.physical_timer;
    let from_now = now.wrapping_add(value as u32 as i32 as i64 as u64);
    match register {
        SystemRegister::CNTP_CTL_EL0 => physical.control = value & (ENABLE | IMASK),
        SystemRegister::CNTP_CVAL_EL0 => physical.compare = value,
        SystemRegister::CNTP_TVAL_EL0 => physical.compare = from_now,
        SystemRegister::CNTV_CTL_EL0 => {
            running.cpu.write(SystemRegister::CNTV_CTL_EL0, value & (ENABLE | IMASK))
        }
        SystemRegister::CNTV_CVAL_EL0 => running.cpu.write(SystemRegister::CNTV_CVAL_EL0, value),
        SystemRegister::CNTV_TVAL_EL0 => running.cpu.write(SystemRegister::CNTV_CVAL_EL0, from_now),
        _ => {}
    }
    update_lines(running);
}

impl<C: Cpu> Domain<C> {
    /// Lets the domain's clock go on with the machine's.
    ///
    /// A clock that has never gone begins with what the machine's has by now, as that of a board on
    /// which nobody stopped.
    pub fn release_clock(&self, cpu: &C) {
        let mut clock = self.clock.lock();
        self.clock_waits.store(false, Ordering::Release);
        self.release_locked(cpu, &mut clock);
    }

    /// As [`Domain::release_clock`], for whoever enters the guest first.
    fn release_waiting_clock(&self, cpu: &C) {
        let mut clock = self.clock.lock();
        if self.clock_waits.swap(false, Ordering::AcqRel) {
            self.release_locked(cpu, &mut clock);
        }
    }

    fn release_locked(&self, cpu: &C, clock: &mut VirtualClock) {
        let counter = cpu.counter();
        let at_reset = cpu.counter_at_reset();
        if clock.now() == at_reset {
            clock.hold(counter, at_reset.wrapping_neg());
        }
        self.clock_offset.store(clock.release(counter), Ordering::Release);
    }

    /// Stops the domain's clock where the last of its vCPUs came out of the guest.
    pub fn hold_clock(&self, cpu: &C) {
        let left_at = match self.left_at.swap(0, Ordering::AcqRel) {
            0 => cpu.counter(),
            left_at => left_at,
        };
        let offset = self.clock_offset.load(Ordering::Acquire);
        self.clock.lock().hold(left_at, offset);
    }
}

/// Takes down that a vCPU which ran has come to its end.
pub fn ran<C: Cpu>(running: &mut Running<'_, C>) {
    let left_at = running.core.left_at.take().unwrap_or_else(|| running.cpu.counter());
    running.domain.left_at.fetch_max(left_at, Ordering::AcqRel);
}

/// Before a vCPU runs freely.
pub fn begin_run<C: Cpu>(running: &mut Running<'_, C>) {
    running.domain.release_waiting_clock(running.cpu);
    release(running);
    hide_from_now(running);
}

/// What EL2 does from now until the guest is entered is not to be seen, where that can be.
fn hide_from_now<C: Cpu>(running: &mut Running<'_, C>) {
    running.core.left_at = Some(running.cpu.counter());
    running.core.is_hidden = may_hide(running);
}

/// Whether this vCPU's clock may stop while EL2 works: nobody else goes by it, whose clock would go
/// back, and it does not thereby come to show less than the machine's, which QEMU 7.2 does not bear
/// ([`COUNTER_AT_RESET`]): half of what it is ahead is for stops.
fn may_hide<C: Cpu>(running: &Running<'_, C>) -> bool {
    let domain = running.domain;
    let ahead = domain.clock_offset.load(Ordering::Acquire).wrapping_neg();
    // A counted clock does not go while EL2 works.
    domain.timeline.is_none()
        && !running.core.virtual_clock
        && domain.alone.is_one()
        && !domain.real_time.load(Ordering::Acquire)
        && (running.cpu.counter_at_reset() == 0 || ahead.cast_signed() > AHEAD_MIN)
}

/// Right before a vCPU that runs freely enters the guest: has its clock go on from where it stopped.
pub fn enter<C: Cpu>(running: &mut Running<'_, C>) {
    let is_hidden = core::mem::take(&mut running.core.is_hidden);
    let Some(left_at) = running.core.left_at.filter(|_| is_hidden) else { return };
    if may_hide(running) {
        let offset = running.domain.clock_offset.load(Ordering::Acquire);
        let before = running.cpu.counter();
        let taken_out =
            before.wrapping_sub(left_at).wrapping_add(running.core.offset_write.ticks());
        let offset = offset.wrapping_add(taken_out);
        running.cpu.set_offset(offset);
        let took = running.cpu.counter().wrapping_sub(before);
        let too_much = running.core.offset_write.took(took);
        let offset = offset.wrapping_sub(too_much);
        if too_much > 0 {
            running.cpu.set_offset(offset);
        }
        running.domain.clock_offset.store(offset, Ordering::Release);
    }
}

/// Right after the guest has exited, or after a wait that it asked for.
pub fn exit<C: Cpu>(running: &mut Running<'_, C>) {
    hide_from_now(running);
}

/// Before a vCPU that runs freely is stepped past something: has its clock go on by steps from where
/// it stopped, if it did. Tells how it goes.
pub fn go_by_steps<C: Cpu>(running: &mut Running<'_, C>) -> TimePolicy {
    let is_hidden = core::mem::take(&mut running.core.is_hidden);
    let Some(left_at) = running.core.left_at.filter(|_| is_hidden && may_hide(running)) else {
        return TimePolicy::Real;
    };
    let offset = running.domain.clock_offset.load(Ordering::Acquire);
    running.domain.clock.lock().hold(left_at, offset);
    running.core.virtual_clock = true;
    hold(running);
    update_lines(running);
    TimePolicy::PerStep { ns: FREE_STEP_NS }
}

/// After that: lets the clock go on with the machine's from where the steps have left it.
pub fn go_on<C: Cpu>(running: &mut Running<'_, C>) {
    if running.core.virtual_clock {
        running.core.virtual_clock = false;
        running.domain.release_clock(running.cpu);
        release(running);
        hide_from_now(running);
    }
}

/// Lets the guest's clock run with the CPU's.
pub fn release<C: Cpu>(running: &mut Running<'_, C>) {
    let offset = match running.domain.timeline {
        // It is set when the guest is entered. Until then its timers are not to go off.
        Some(_) => running.cpu.counter(),
        None => running.domain.clock_offset.load(Ordering::Acquire),
    };
    running.cpu.set_offset(offset);
    // A counted guest is let go after any stop, which is to make no difference.
    let is_kept = running.domain.timeline.is_some() && is_virtual_timer_offered(running);
    let up = virtual_line(running) || is_kept;
    set_virtual_line(running, up);
    running.cpu.enable_virtual_timer(!up);
    update_lines(running);
}

/// Keeps the CPU's virtual timer quiet: the virtual clock decides when it is due.
pub fn hold<C: Cpu>(running: &mut Running<'_, C>) {
    running.cpu.enable_virtual_timer(false);
}

/// The CPU's virtual timer interrupted. It stays up until the guest deals with it, so its physical
/// interrupt is switched off until then.
pub fn virtual_timer_fired<C: Cpu>(running: &mut Running<'_, C>) {
    if running.domain.timeline.is_some() {
        // It is looked at after each exit. While EL2 works the machine's counter is nobody's time.
        running.cpu.set_offset(running.cpu.counter());
        return;
    }
    running.cpu.enable_virtual_timer(false);
    set_virtual_line(running, true);
}

/// The guest has deactivated the virtual timer's interrupt: whether another one is pending is the
/// timer's to say, also where instructions are counted and one that waits is kept.
pub fn virtual_timer_ended<C: Cpu>(running: &mut Running<'_, C>) {
    if running.domain.timeline.is_some() {
        let up = virtual_line(running);
        set_virtual_line(running, up);
        running.cpu.enable_virtual_timer(!up);
    }
}

/// Takes the timers' lines, as they are now, to the GIC.
#[inline]
pub fn update_lines<C: Cpu>(running: &mut Running<'_, C>) {
    let core = &*running.core;
    // On the machine's clock the virtual timer interrupts when it goes off, and one that has not,
    // beside a physical timer that is off, changes nothing.
    let may_change = core.virtual_clock
        || running.domain.timeline.is_some()
        || core.lines.virtual_timer
        || core.lines.physical_timer
        || core.physical_timer.control & ENABLE != 0
        || core.wakes_at != u64::MAX;
    if may_change {
        update_lines_now(running);
    }
}

fn update_lines_now<C: Cpu>(running: &mut Running<'_, C>) {
    let virtual_clock = running.core.virtual_clock;
    let was_up = running.core.lines.virtual_timer;
    // Where instructions are counted, EL2 has taken the CPU's timer back, and the position decides.
    if virtual_clock || was_up || running.domain.timeline.is_some() {
        let mut up = virtual_line(running);
        up |= was_up && !up && count::keeps_interrupt(running) && is_virtual_timer_offered(running);
        set_virtual_line(running, up);
        if up != was_up && !virtual_clock {
            running.cpu.enable_virtual_timer(!up);
        }
    }
    let PhysicalTimer { control, compare } = running.core.physical_timer;
    let wakes_at = running.core.wakes_at;
    if control & ENABLE == 0 && !running.core.lines.physical_timer && wakes_at == u64::MAX {
        return;
    }
    let now = now(running);
    let up = line(control, compare, now);
    if up != running.core.lines.physical_timer {
        running.core.lines.physical_timer = up;
        set_line(running, PHYSICAL_TIMER_INTID, up);
    }
    let next = first_deadline([(control, compare), (ENABLE, wakes_at)], now);
    if let Some(next) = next.filter(|_| !virtual_clock && running.domain.timeline.is_none()) {
        let ns = ticks_to_ns(running.cpu, next.saturating_sub(now));
        running.cpu.interrupt_in(ns.min(LONGEST_WAIT_NS));
    }
}

/// Tells whether the virtual timer's interrupt waits in a list register to be acknowledged.
///
/// The CPU's timer goes down when the guest switches it off, masks or moves it, which does not trap
/// without FEAT_ECV; a list register stays pending. Without list registers the loop is asked for the
/// interrupt, and looks at the timer then.
#[must_use]
pub fn is_virtual_timer_offered<C: Cpu>(running: &Running<'_, C>) -> bool {
    C::CAN.list_registers
        && running.core.lines.virtual_timer
        && running.domain.vgic.lock().is_offered(running.index, VIRTUAL_TIMER_INTID)
}

/// The guest has come to EL2 by itself, and does each time. Where instructions are counted, a virtual
/// timer's interrupt that waits is withdrawn here, too, if the timer is not up any more: see
/// [`count::keeps_interrupt`].
pub fn withdraw<C: Cpu>(running: &mut Running<'_, C>) {
    let waits = running.domain.timeline.is_some() && running.core.lines.virtual_timer;
    if waits && !running.core.virtual_clock && !virtual_line(running) {
        set_virtual_line(running, false);
        running.cpu.enable_virtual_timer(true);
    }
}

fn virtual_line<C: Cpu>(running: &Running<'_, C>) -> bool {
    line(
        running.cpu.read(SystemRegister::CNTV_CTL_EL0),
        running.cpu.read(SystemRegister::CNTV_CVAL_EL0),
        now(running),
    )
}

fn set_virtual_line<C: Cpu>(running: &mut Running<'_, C>, up: bool) {
    if up != running.core.lines.virtual_timer {
        running.core.lines.virtual_timer = up;
        if up && running.domain.timeline.is_some() {
            running.core.lines.virtual_timer_due = running.cpu.read(SystemRegister::CNTV_CVAL_EL0);
        }
        set_line(running, VIRTUAL_TIMER_INTID, up);
    }
}

fn set_line<C: Cpu>(running: &Running<'_, C>, intid: u32, up: bool) {
    running.domain.vgic.change().set_line(intid, Some(running.index), up);
}

/// Nanoseconds that so many ticks of the counter take.
#[must_use]
pub fn ticks_to_ns<C: Cpu>(cpu: &C, ticks: u64) -> u64 {
    let ns = u128::from(ticks) * NS_PER_SECOND / u128::from(cpu.frequency_hz().max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// The next tick of the guest's clock at which a timer of this vCPU goes off, if one is on and has
/// not gone off yet, or a WFIT ends.
#[must_use]
pub fn next_deadline<C: Cpu>(running: &Running<'_, C>) -> Option<u64> {
    let now = now(running);
    let physical = running.core.physical_timer;
    let timers = [
        (
            running.cpu.read(SystemRegister::CNTV_CTL_EL0),
            running.cpu.read(SystemRegister::CNTV_CVAL_EL0),
        ),
        (physical.control, physical.compare),
        (ENABLE, running.core.wakes_at),
    ];
    first_deadline(timers, now)
}

/// The first of some timers, by control and compare value, to go off after `now`.
fn first_deadline<const N: usize>(timers: [(u64, u64); N], now: u64) -> Option<u64> {
    let on = timers.into_iter().filter(|(control, _)| control & (ENABLE | IMASK) == ENABLE);
    on.map(|(_, compare)| compare).filter(|&compare| compare > now && compare < NEVER).min()
}
