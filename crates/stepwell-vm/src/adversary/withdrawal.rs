//! Pages that stage 2 does not allow for the moment.

use super::Interference;
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::memory::GuestMemory;
use crate::stage2::{PAGE_BYTES, Permissions};
use stepwell_arch::Ipa;

/// A page that stage 2 does not allow for the moment, and what it allowed before.
#[derive(Clone, Copy, Debug)]
pub struct Withdrawn {
    page: Ipa,
    permissions: Permissions,
}

/// Takes a page of RAM away from instruction fetch, or from data accesses.
pub fn withdraw<C: Cpu>(domain: &Domain<C>, place: Ipa, what: Interference) -> Option<Withdrawn> {
    let page = place.align_down(PAGE_BYTES);
    domain.ram.locate(page, PAGE_BYTES).ok()?;
    let mut views = domain.views.lock();
    let mut own = domain.stage2.lock();
    // What is in force while it steps.
    let stage2 = views.guarded().unwrap_or(&mut own);
    let permissions = stage2.walk(&domain.ram.tables(), page)?.permissions;
    let less = match what {
        Interference::CodePage => Permissions { execute: false, ..permissions },
        _ => Permissions { read: false, write: false, ..permissions },
    };
    stage2.protect(&mut domain.ram.tables(), page, PAGE_BYTES, less).ok()?;
    Some(Withdrawn { page, permissions })
}

/// Gives it back.
pub fn give_back<C: Cpu>(domain: &Domain<C>, withdrawn: Withdrawn) {
    let Withdrawn { page, permissions } = withdrawn;
    let mut views = domain.views.lock();
    let mut own = domain.stage2.lock();
    let stage2 = views.guarded().unwrap_or(&mut own);
    let given = stage2.protect(&mut domain.ram.tables(), page, PAGE_BYTES, permissions);
    assert!(given.is_ok(), "what was withdrawn can be given back");
}
