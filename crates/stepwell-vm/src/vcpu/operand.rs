//! What the instruction at the PC is, and what it accesses.
//!
//! Of what stage 2 has refused, FAR_EL2 and HPFAR_EL2 tell a place, and ESR_EL2 at times a size. Where the
//! access begins, and of what size it is otherwise, the instruction tells, which is read as the guest has it.

use crate::cpu::{Context as _, Cpu, Purpose, TranslationFailed};
use crate::device::form::Form;
use crate::device::form32;
use crate::device::mmio::MmioAccess;
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::running::Running;
use stepwell_arch::SystemRegister;
use stepwell_arch::aarch32::t32::is_wide;
use stepwell_arch::esr::EsrEl2;
use stepwell_arch::load_store::{Address, Direction, is_unprivileged};
use stepwell_arch::{InstructionSet, Ipa, LoadStore, Pstate, Va};

/// Most that an instruction of which nothing else is known is taken to access.
const UNKNOWN_BYTES: u64 = 64;

/// The guest-physical address of an abort: HPFAR_EL2 has its page, FAR_EL2 the rest.
pub(super) fn fault_address<C: Cpu>(running: &Running<'_, C>) -> Ipa {
    let page = running.core.context.hpfar >> 4 << 12;
    Ipa(page & 0x000f_ffff_ffff_f000 | running.core.context.far & 0xfff)
}

/// Does something with the domain's own tables in force, and puts back those that were.
fn in_the_open<T, C: Cpu>(running: &Running<'_, C>, act: impl FnOnce() -> T) -> T {
    running.cpu.set_stage2(running.domain.vttbr);
    let done = act();
    running.cpu.set_stage2(running.core.vttbr);
    done
}

/// Translates, and again with nothing withheld where stage 2 was in the way.
///
/// # Errors
///
/// As `act`.
pub fn translated<T, C: Cpu>(
    running: &Running<'_, C>,
    act: impl Fn() -> Result<T, TranslationFailed>,
) -> Result<T, TranslationFailed> {
    match act() {
        Err(failed) if failed.stage2 && running.domain.has_views() => in_the_open(running, act),
        result => result,
    }
}

/// Translates by stage 1, as EL1 may read.
pub fn to_ipa<C: Cpu>(running: &Running<'_, C>, va: u64) -> Option<Ipa> {
    translated(running, || running.cpu.to_ipa(Va(va), false, Purpose::Read)).ok()
}

/// The A64 instruction at the PC, as the guest has it.
pub fn instruction<C: Cpu>(running: &Running<'_, C>) -> Option<u32> {
    if running.core.pstate().is_aarch32() {
        return None;
    }
    let mut bytes = [0; 4];
    let ipa = to_ipa(running, running.core.context.elr)?;
    running.domain.ram.read(ipa, &mut bytes).ok()?;
    Some(u32::from_le_bytes(bytes))
}

/// The page of guest code at an address.
pub fn code_page<C: Cpu>(
    running: &Running<'_, C>,
    pc: Va,
) -> Option<<C::Memory as GuestMemory>::Page> {
    let ram = &running.domain.ram;
    let pa = to_ipa(running, pc.0).and_then(|ipa| ram.locate(ipa, 2).ok());
    pa.and_then(|pa| ram.code_page(pa))
}

/// Whether a stage-2 abort is one of cache maintenance. The syndrome says so, but for DC CVAP and DC CVADP
/// on QEMU.
pub(super) fn is_maintenance<C: Cpu>(running: &Running<'_, C>, esr: EsrEl2) -> bool {
    const CVAP_OR_CVADP: u32 = 0xd50b_7c20;
    let is_to_persistence = || {
        MmioAccess::decode(esr.0).is_none()
            && instruction(running).is_some_and(|word| word & 0xffff_fee0 == CVAP_OR_CVADP)
    };
    esr.data_abort().cm() || is_to_persistence()
}

/// What an instruction accesses.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    /// Nothing else is accessed.
    pub(super) is_all: bool,
}

impl Operand {
    /// Whether it is all of an access that begins at `first`, and ends in the same page.
    pub(super) const fn is_in_page_from(&self, first: u64) -> bool {
        self.is_all && self.address == first && first % PAGE_BYTES + self.bytes <= PAGE_BYTES
    }
}

pub(super) fn operand<C: Cpu>(running: &Running<'_, C>, esr: EsrEl2) -> Operand {
    let (far, wnr) = (running.core.context.far, esr.data_abort().wnr());
    let (read, write) = (!wnr, wnr);
    let described = MmioAccess::decode(esr.0)
        .map(|access| u64::from(access.bytes))
        .or_else(|| authenticated_bytes(running));
    let unknown = Operand {
        address: far,
        bytes: described.unwrap_or(UNKNOWN_BYTES),
        read,
        write,
        is_all: false,
    };
    let at = |bytes| {
        let address = first_byte(running, bytes)?;
        Some(Operand { address, bytes, read, write, is_all: true })
    };
    described.map_or_else(|| accessed(running), at).unwrap_or(unknown)
}

/// The first byte of the access that a stage-2 abort is about, if it is of so many bytes, one behind the
/// other.
///
/// FAR_EL2 tells it, unless the access comes from the page before the one that stage 2 has refused: then
/// FAR_EL2 tells where that page begins. Where it is such an address, the instruction is asked how far
/// from there its access begins; nothing where that cannot be told.
pub fn first_byte<C: Cpu>(running: &Running<'_, C>, bytes: u64) -> Option<u64> {
    let far = running.core.context.far;
    if bytes <= 1 || !far.is_multiple_of(PAGE_BYTES) {
        return Some(far);
    }
    let computed = computed_address(running)?;
    let distance = far.wrapping_sub(computed) % PAGE_BYTES;
    (distance < bytes).then(|| far.wrapping_sub(distance))
}

/// The address that the instruction at the PC makes of its operands: the offset into its page at least, which
/// authentication of a base leaves alone.
fn computed_address<C: Cpu>(running: &Running<'_, C>) -> Option<u64> {
    if running.core.pstate().is_aarch32() {
        return address(running, &form32(running, code32(running)?)?.what);
    }
    let what = LoadStore::decode(instruction(running)?)?;
    match what.address {
        Address::Authenticated { rn, offset } => {
            Some(base(running, rn).wrapping_add(offset as u64))
        }
        _ => address(running, &what),
    }
}

/// How much is loaded from where only the CPU can tell.
fn authenticated_bytes<C: Cpu>(running: &Running<'_, C>) -> Option<u64> {
    let what = LoadStore::decode(instruction(running)?)?;
    matches!(what.address, Address::Authenticated { .. }).then_some(what.bytes.into())
}

/// Whether the access at the PC is made with EL0's rights: from there, or by LDTR, STTR and
/// relatives, unless PSTATE.UAO makes these like any other.
pub(super) fn has_rights_of_el0<C: Cpu>(running: &Running<'_, C>) -> bool {
    let pstate = running.core.pstate();
    let is_unprivileged = || instruction(running).is_some_and(is_unprivileged);
    pstate.el() == 0 || pstate.0 & Pstate::UAO == 0 && is_unprivileged()
}

/// A base register, of which number 31 is the stack pointer.
pub fn base<C: Cpu>(running: &Running<'_, C>, n: u8) -> u64 {
    let core = &*running.core;
    match (n, core.pstate().uses_sp_elx()) {
        (31, true) => running.cpu.read(SystemRegister::SP_EL1),
        (31, false) => core.context.sp_el0,
        _ => core.context.register(n),
    }
}

/// Writes a base register.
pub fn set_base<C: Cpu>(running: &mut Running<'_, C>, n: u8, value: u64) {
    let core = &mut *running.core;
    match (n, core.pstate().uses_sp_elx()) {
        (31, true) => running.cpu.write(SystemRegister::SP_EL1, value),
        (31, false) => core.context.sp_el0 = value,
        _ => core.context.set_register(n, value),
    }
}

/// The first byte that the instruction at the PC accesses, unless it authenticates its base.
pub fn address<C: Cpu>(running: &Running<'_, C>, what: &LoadStore) -> Option<u64> {
    let context = &running.core.context;
    let address = what.address(context.elr, |n| base(running, n), |n| context.register(n))?;
    let is_aarch32 = running.core.pstate().is_aarch32();
    Some(if is_aarch32 { address & 0xffff_ffff } else { address })
}

/// Bytes that DC ZVA clears: DCZID_EL0.BS is the logarithm of words.
pub fn zeroed_bytes<C: Cpu>(running: &Running<'_, C>) -> u64 {
    4_u64 << (running.cpu.read(SystemRegister::DCZID_EL0) & 0xf)
}

/// The A32 or T32 instruction at the PC: its first halfword is the lower one.
pub fn code32<C: Cpu>(running: &Running<'_, C>) -> Option<u32> {
    let (pc, set) = (running.core.pc(), InstructionSet::of(running.core.pstate()));
    let halfword = |va| running.domain.ram.halfword(code_page(running, va)?, va);
    let first = halfword(pc)?;
    let has_second = set == InstructionSet::A32 || is_wide(first);
    // It may lie in the next page.
    let second = if has_second { halfword(pc.offset(2))? } else { 0 };
    Some(u32::from(first) | u32::from(second) << 16)
}

/// What the A32 or T32 instruction at the PC does, which executes.
pub fn form32<C: Cpu>(running: &Running<'_, C>, code: u32) -> Option<Form> {
    let core = &*running.core;
    let set = InstructionSet::of(core.pstate());
    form32::decode(set, code, core.pc().0 as u32, |n| core.context.register(n) as u32)
}

/// What the instruction at the PC accesses, which executes, where it tells.
pub(super) fn accessed<C: Cpu>(running: &Running<'_, C>) -> Option<Operand> {
    decoded(running).or_else(|| decoded32(running))
}

/// What the A32 or T32 instruction at the PC accesses, which executes, where it tells.
fn decoded32<C: Cpu>(running: &Running<'_, C>) -> Option<Operand> {
    if !running.core.pstate().is_aarch32() {
        return None;
    }
    let form = form32(running, code32(running)?)?;
    Some(Operand {
        address: address(running, &form.what)?,
        bytes: form.pieces.iter().map(|piece| u64::from(piece.bytes)).sum(),
        read: form.what.direction != Direction::Store,
        write: form.what.direction != Direction::Load,
        is_all: true,
    })
}

/// What the instruction at the PC accesses, where it tells. Only A64 is decoded.
pub(super) fn decoded<C: Cpu>(running: &Running<'_, C>) -> Option<Operand> {
    if running.core.pstate().is_aarch32() {
        return None;
    }
    let what = LoadStore::decode(instruction(running)?)?;
    let address = address(running, &what)?;
    let block = zeroed_bytes(running);
    let (address, bytes) = match what.bytes {
        0 => (address & !(block - 1), block),
        bytes => (address, u64::from(bytes) * u64::from(what.count)),
    };
    Some(Operand {
        address,
        bytes,
        read: what.direction != Direction::Store,
        write: what.direction != Direction::Load,
        is_all: true,
    })
}
