//! The debugger's watchpoints.
//!
//! As many as the CPU has registers for, less two that are left to the guest, are in these, on every
//! vCPU; [`super::debug`] says how the guest's own are kept beside them. Those that find no register,
//! or are of a shape that none can hold, have their pages protected in stage 2: [`super::pages`] gets
//! the accesses to these, and asks here. Either kind stops a vCPU before the access, as Arm's
//! watchpoints do.
//!
//! Either kind watches a virtual address in whatever address space; where it leads to is followed
//! ([`crate::follow`]).

use super::address_space;
use crate::cpu::Cpu;
use crate::domain::{Control, Domain};
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::running::Running;
use crate::vcpu::watchpoint::Watch;
use crate::views::Watched;
use heapless::Vec;
use stepwell_arch::debug::Watchpoint as Registers;
use stepwell_arch::{Ipa, Va};
use stepwell_protocol::{Refusal, StopReason, WatchAccess, Watchpoint};

/// Most watchpoints that a CPU has registers for.
pub const MAX_REGISTERS: usize = 16;
/// Most pages that a watchpoint without registers may reach into.
const MAX_PAGES: usize = 16;
/// Watchpoints of the CPU that are left to the guest.
const LEFT_TO_GUEST: u8 = 2;
/// A CPU may tell an address so far below the watched bytes that an access touched.
const FAR_REACH: u64 = 64;

/// How many of the CPU's watchpoints are ours to use: all, where the guest cannot share them.
fn usable<C: Cpu>(cpu: &C) -> usize {
    let left = if C::CAN.debug_traps { LEFT_TO_GUEST } else { 0 };
    usize::from(cpu.facts().watchpoints.saturating_sub(left))
}

/// What the CPU's registers have to hold for a watchpoint, if one pair of them can.
fn registers(what: Watchpoint) -> Option<Registers> {
    Registers::new(what.address, what.length, what.access).ok()
}

const fn watched(access: WatchAccess) -> Watched {
    match access {
        WatchAccess::Read => Watched { read: true, write: false },
        WatchAccess::Write => Watched { read: false, write: true },
        WatchAccess::ReadWrite => Watched { read: true, write: true },
    }
}

/// Sets a watchpoint of a stopped domain, whose `control` the caller holds. `translate` finds out
/// where an address leads to now.
///
/// # Errors
///
/// [`Refusal`]; nothing has changed then.
pub fn set<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    control: &mut Control,
    what: Watchpoint,
    translate: impl Fn(u64) -> Option<Ipa>,
) -> Result<(), Refusal> {
    if what.length == 0 || what.address.0.checked_add(what.length - 1).is_none() {
        return Err(Refusal::WatchedRange);
    }
    if control.watchpoints.iter().any(|watch| watch.what == what) {
        return Err(Refusal::Watchpoint);
    }
    control.watchpoints.try_reserve(1).map_err(|_| Refusal::NoMemory)?;
    let used = control.watchpoints.iter().filter(|watch| watch.registers.is_some()).count();
    let registers = registers(what).filter(|_| used < usable(cpu));
    if registers.is_none() {
        if !address_space::can_follow(cpu, domain, control, what.address.0) {
            return Err(Refusal::NoBreakpointLeft(usable(cpu) as u8));
        }
        protect(cpu, domain, control, what, translate)?;
    }
    control.watchpoints.push(Watch { what, registers });
    Ok(())
}

/// The pages of a watchpoint, and how many of its bytes are in each.
fn pages_of(what: Watchpoint) -> impl Iterator<Item = (u64, u64)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let va = what.address.0.wrapping_add(done);
        let bytes = (PAGE_BYTES - va % PAGE_BYTES).min(what.length - done);
        done += bytes;
        (bytes > 0).then_some((va, bytes))
    })
}

/// Has the pages followed that its addresses lead to.
fn protect<C: Cpu>(
    cpu: &C,
    domain: &Domain<C>,
    control: &Control,
    what: Watchpoint,
    translate: impl Fn(u64) -> Option<Ipa>,
) -> Result<(), Refusal> {
    if pages_of(what).nth(MAX_PAGES).is_some() {
        return Err(Refusal::WatchedRange);
    }
    for (va, bytes) in pages_of(what) {
        // Where it leads nowhere now, it is followed to where it will. A device's registers are carried
        // out at EL2, and no RAM.
        if let Some(ipa) = translate(va) {
            domain.ram.locate(ipa, bytes).map_err(|_| Refusal::NotMapped(va))?;
        }
    }
    let access = watched(what.access);
    for (n, (va, _)) in pages_of(what).enumerate() {
        let page = Va(va).align_down(PAGE_BYTES).0;
        let spaces = address_space::of_all_stopped(cpu, domain, control);
        if domain.follow.watch(page, access, spaces, &domain.ram, &domain.views).is_err() {
            unprotect(domain, what, n);
            return Err(Refusal::NoMemory);
        }
    }
    domain.use_views();
    Ok(())
}

/// Takes the first `pages` pages back.
fn unprotect<C: Cpu>(domain: &Domain<C>, what: Watchpoint, pages: usize) {
    for (va, _) in pages_of(what).take(pages) {
        let page = Va(va).align_down(PAGE_BYTES).0;
        domain.follow.unwatch(page, watched(what.access), &domain.ram, &domain.views);
    }
}

/// Removes a watchpoint of a stopped domain.
///
/// # Errors
///
/// [`Refusal::Watchpoint`] where there is none like it.
pub fn clear<C: Cpu>(
    domain: &Domain<C>,
    control: &mut Control,
    what: Watchpoint,
) -> Result<(), Refusal> {
    let place = control.watchpoints.iter().position(|watch| watch.what == what);
    let watch = control.watchpoints.remove(place.ok_or(Refusal::Watchpoint)?);
    if watch.registers.is_none() {
        unprotect(domain, what, MAX_PAGES);
        domain.use_views();
    }
    Ok(())
}

/// What the CPU's watchpoint registers are to hold of ours: values and controls.
#[must_use]
pub fn in_registers<C: Cpu>(running: &Running<'_, C>) -> Vec<(u64, u64), MAX_REGISTERS> {
    let control = running.domain.control.lock();
    let ours = control.watchpoints.iter().filter_map(|watch| watch.registers);
    ours.map(|registers| (registers.value, registers.control)).take(MAX_REGISTERS).collect()
}

/// Finds which of ours a Watchpoint exception at `far` is about. `is_alone`: the guest has none of
/// its own that it could be about.
#[must_use]
pub fn hit<C: Cpu>(
    running: &Running<'_, C>,
    far: u64,
    write: bool,
    is_alone: bool,
) -> Option<StopReason> {
    let control = running.domain.control.lock();
    let candidates = control.watchpoints.iter().filter(|watch| watch.registers.is_some());
    let (distance, what) = candidates
        .map(|watch| watch.what)
        .filter(|what| is_about(what.access, !write, write))
        .map(|what| (distance(what, far), what))
        .min_by_key(|&(distance, _)| distance)?;
    let is_ours = distance == 0 || (is_alone && distance <= FAR_REACH);
    is_ours.then(|| stop(nearest(what, far), !write, write))
}

/// Finds the watchpoint that an access hits, of whichever kind, in the CPU's place.
#[must_use]
pub fn accesses<C: Cpu>(
    running: &Running<'_, C>,
    address: u64,
    bytes: u64,
    read: bool,
    write: bool,
) -> Option<StopReason> {
    let control = running.domain.control.lock();
    if control.watchpoints.is_empty() {
        return None;
    }
    let wanted = |what: Watchpoint| is_about(what.access, read, write);
    let address = without_tag(address);
    control.watchpoints.iter().filter(|watch| wanted(watch.what)).find_map(|watch| {
        let Watchpoint { address: Va(first), length, .. } = watch.what;
        let hit = overlap((address, bytes), (without_tag(first), length))?;
        Some(stop(first.wrapping_add(hit.wrapping_sub(without_tag(first))), read, write))
    })
}

/// An address without the byte that the CPU may ignore.
const fn without_tag(address: u64) -> u64 {
    ((address << 8) as i64 >> 8) as u64
}

const fn stop(address: u64, read: bool, write: bool) -> StopReason {
    let access = match (read, write) {
        (true, true) => WatchAccess::ReadWrite,
        (_, true) => WatchAccess::Write,
        _ => WatchAccess::Read,
    };
    StopReason::Watchpoint { address: Va(address), access }
}

const fn is_about(access: WatchAccess, read: bool, write: bool) -> bool {
    match access {
        WatchAccess::Read => read,
        WatchAccess::Write => write,
        WatchAccess::ReadWrite => true,
    }
}

/// The first byte that two ranges, of a first byte and a length, have in common.
fn overlap((a, bytes): (u64, u64), (b, length): (u64, u64)) -> Option<u64> {
    let first = a.max(b);
    let is_in = |start: u64, bytes: u64| first.wrapping_sub(start) < bytes;
    (is_in(a, bytes) && is_in(b, length)).then_some(first)
}

/// How far an address is from the bytes that are watched, whatever tags the two have: the CPU compares
/// without them where the guest has it ignore them, and tells the address with its tag.
const fn distance(what: Watchpoint, address: u64) -> u64 {
    let (first, address) = (without_tag(what.address.0), without_tag(address));
    let last = first.wrapping_add(what.length - 1);
    if address < first { first - address } else { address.saturating_sub(last) }
}

/// The watched byte that is nearest to an address, as its debugger has named it.
fn nearest(what: Watchpoint, address: u64) -> u64 {
    let first = without_tag(what.address.0);
    let offset = without_tag(address).saturating_sub(first).min(what.length - 1);
    what.address.0.wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn watchpoint(address: u64, length: u64) -> Watchpoint {
        Watchpoint { address: Va(address), length, access: WatchAccess::Write }
    }

    /// A program's pointer may have a tag (TCR_EL1.TBI0, as Linux has it), and so may what is watched.
    #[test]
    fn an_access_by_a_tagged_pointer_is_about_the_bytes_that_it_touches() {
        for tag in [0, 0x5a << 56, 0xff << 56] {
            for own in [0, 0x3c << 56] {
                let what = watchpoint(own | 0x7fff_0010, 8);
                assert_eq!(distance(what, tag | 0x7fff_0010), 0);
                assert_eq!(distance(what, tag | 0x7fff_0017), 0);
                assert_eq!(distance(what, tag | 0x7fff_0018), 1);
                assert_eq!(distance(what, tag | 0x7fff_000e), 2);
                assert_eq!(nearest(what, tag | 0x7fff_0013), own | 0x7fff_0013);
                assert_eq!(nearest(what, tag | 0x7fff_0000), own | 0x7fff_0010);
                assert_eq!(nearest(what, tag | 0x7fff_0020), own | 0x7fff_0017);
            }
        }
    }

    #[test]
    fn the_upper_half_is_another_place() {
        let what = watchpoint(0xffff_8000_0000_1000, 4);
        assert_eq!(distance(what, 0xffff_8000_0000_1003), 0);
        assert_eq!(distance(what, 0xf4ff_8000_0000_1000), 0, "of a kernel that tags its pointers");
        assert!(distance(what, 0x0000_8000_0000_1000) > FAR_REACH);
    }
}
