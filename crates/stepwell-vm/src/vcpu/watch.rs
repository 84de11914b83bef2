//! The debugger's watchpoints.
//!
//! As many as the CPU has registers for, less two that are left to the guest, are in these, on every
//! vCPU; [`super::debug`] says how the guest's own are kept beside them. Those that find no register,
//! or are of a shape that none can hold, have their pages protected in stage 2: [`super::pages`] gets
//! the accesses to these, and asks here. Either kind stops a vCPU before the access, as Arm's
//! watchpoints do.
//!
//! A register watches a virtual address in whatever address space; a protected page watches the bytes
//! that the address led to when it was set, by whatever address they are reached.

use super::pages;
use crate::cpu::Cpu;
use crate::domain::{Control, Domain};
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::running::Running;
use crate::vcpu::watchpoint::{Piece, Watch};
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

/// How many of the CPU's watchpoints are ours to use.
fn usable<C: Cpu>(cpu: &C) -> usize {
    usize::from(cpu.facts().watchpoints.saturating_sub(LEFT_TO_GUEST))
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
        protect(domain, control, what, translate)?;
    }
    control.watchpoints.push(Watch { what, registers });
    Ok(())
}

fn protect<C: Cpu>(
    domain: &Domain<C>,
    control: &mut Control,
    what: Watchpoint,
    translate: impl Fn(u64) -> Option<Ipa>,
) -> Result<(), Refusal> {
    let mut pieces: Vec<Piece, MAX_PAGES> = Vec::new();
    let mut done = 0;
    while done < what.length {
        let va = what.address.0 + done;
        let bytes = (PAGE_BYTES - va % PAGE_BYTES).min(what.length - done);
        let ipa = translate(va).ok_or(Refusal::NotMapped(va))?;
        // A device's registers are carried out at EL2, and no RAM.
        domain.ram.locate(ipa, bytes).map_err(|_| Refusal::NotMapped(va))?;
        pieces.push(Piece { what, va, ipa, bytes }).map_err(|_| Refusal::WatchedRange)?;
        done += bytes;
    }
    control.watched.try_reserve(pieces.len()).map_err(|_| Refusal::NoMemory)?;
    let mut views = domain.views.lock();
    for (n, piece) in pieces.iter().enumerate() {
        if views.watch(&mut domain.ram.tables(), piece.ipa, watched(what.access)).is_err() {
            for piece in pieces.iter().take(n) {
                views.unwatch(&mut domain.ram.tables(), piece.ipa, watched(what.access));
            }
            return Err(Refusal::NoMemory);
        }
    }
    drop(views);
    control.watched.extend(pieces);
    domain.use_views();
    Ok(())
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
    control.watchpoints.remove(place.ok_or(Refusal::Watchpoint)?);
    let mut views = domain.views.lock();
    for piece in control.watched.iter().filter(|piece| piece.what == what) {
        views.unwatch(&mut domain.ram.tables(), piece.ipa, watched(what.access));
    }
    drop(views);
    control.watched.retain(|piece| piece.what != what);
    domain.use_views();
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
    let address = far.clamp(what.address.0, what.address.0.wrapping_add(what.length - 1));
    is_ours.then(|| stop(address, !write, write))
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
    for watch in control.watchpoints.iter().filter(|watch| wanted(watch.what)) {
        let Watchpoint { address: Va(first), length, .. } = watch.what;
        if watch.registers.is_some()
            && let Some(address) = overlap((address, bytes), (first, length))
        {
            return Some(stop(address, read, write));
        }
    }
    let first = (PAGE_BYTES - address % PAGE_BYTES).min(bytes);
    for (va, bytes) in [(address, first), (address.wrapping_add(first), bytes - first)] {
        if bytes == 0 || control.watched.is_empty() {
            continue;
        }
        let to_ipa = || running.cpu.to_ipa(Va(va), false);
        let Ok(ipa) = pages::translated(running, to_ipa) else { continue };
        for piece in control.watched.iter().filter(|piece| wanted(piece.what)) {
            if let Some(hit) = overlap((ipa.0, bytes), (piece.ipa.0, piece.bytes)) {
                return Some(stop(piece.va.wrapping_add(hit - piece.ipa.0), read, write));
            }
        }
    }
    None
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

/// How far an address is from the bytes that are watched.
const fn distance(what: Watchpoint, address: u64) -> u64 {
    let first = what.address.0;
    let last = first.wrapping_add(what.length - 1);
    if address < first { first - address } else { address.saturating_sub(last) }
}
