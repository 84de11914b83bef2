//! Loads and stores of what is not RAM, carried out at EL2 as the CPU would have.
//!
//! Stage 2 maps RAM alone, so these come here before they have done anything. Simple ones are
//! described by ESR_EL2; of all others the instruction is read ([`Form`]). Pieces of one access may lie
//! in different pages: each is translated, and may as well be RAM. Where nobody answers, the guest gets
//! the external abort that the board gives it; so does an instruction that nothing here knows (SVE,
//! AArch32's structures of SIMD registers), for which a device makes no promise.
//!
//! A load-exclusive marks what it has read, and from there on the sequence is stepped: the store is
//! performed here, too, if the device still reads the same.

use super::byte_order::is_big_endian;
use super::{bus, operand, pages};
use crate::cpu::Context as _;
use crate::cpu::{Cpu, Purpose};
use crate::device::board::{Region, region};
use crate::device::form::{Action, Extension, Form, Moved, Operation, Piece, Place};
use crate::device::mmio::MmioAccess;
use crate::memory::GuestMemory;
use crate::stage2::PAGE_BYTES;
use crate::vcpu::debug::origin;
use crate::vcpu::handled::{Handled, advance, fault};
use crate::vcpu::inject;
use crate::vcpu::running::Running;
use heapless::Vec;
use stepwell_arch::esr::{EsrEl1, EsrEl2, FaultStatus};
use stepwell_arch::load_store::{Address, Direction};
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_engine::{Image, LoadExclusive};
use stepwell_protocol::FaultKind;

/// Top byte of an address, which may be a tag.
const TAG_BITS: u32 = 8;

/// The data abort that an access comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    status: FaultStatus,
    address: u64,
    is_write: bool,
}

impl Abort {
    const fn external(address: u64, is_write: bool) -> Self {
        Self { status: FaultStatus::EXTERNAL, address, is_write }
    }

    /// Enters it in the guest.
    pub fn inject<C: Cpu>(self, running: &mut Running<'_, C>) -> Handled {
        if self.status == FaultStatus::EXTERNAL && !has_vectors(running) {
            return fault(running, FaultKind::UnmappedAccess, self.address);
        }
        let syndrome = EsrEl1::data_abort(origin(running), self.status, false, self.is_write);
        inject::synchronous(running, syndrome, Some(Va(self.address)))
    }
}

/// Carries out the access that stage 2 has caught at `at`.
pub fn carry_out<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2, at: Ipa) -> Handled {
    match MmioAccess::decode(esr.0) {
        Some(access) if load_register(running, access, at) => {
            advance(running);
            Handled::Emulated
        }
        _ => carry_out_other(running, esr, at),
    }
}

/// Loads one register from one device, as most that is caught does: in one piece, which nothing else
/// is to be asked for. Tells whether it was that.
fn load_register<C: Cpu>(running: &mut Running<'_, C>, access: MmioAccess, at: Ipa) -> bool {
    let bytes = access.bytes;
    let is_ram =
        || running.domain.ram.locate(at, bytes.into()).is_ok() && !running.domain.is_flash(at);
    let far = running.core.context.far;
    // Asked of those only that may begin in the page before.
    let begins_before = || {
        far.is_multiple_of(PAGE_BYTES) && operand::first_byte(running, bytes.into()) != Some(far)
    };
    if access.write || !at.is_aligned(bytes.into()) || is_ram() || begins_before() {
        return false;
    }
    let Ok(value) = bus::read(running, at, bytes) else { return false };
    let big_endian = is_big_endian(running.cpu, running.core.pstate());
    let value = access.load_result(ordered(value, bytes, big_endian));
    running.core.context.set_register(access.register, value);
    true
}

#[inline(never)]
fn carry_out_other<C: Cpu>(running: &mut Running<'_, C>, esr: EsrEl2, at: Ipa) -> Handled {
    let (far, pstate) = (running.core.context.far, running.core.pstate());
    let big_endian = is_big_endian(running.cpu, pstate);
    let described = MmioAccess::decode(esr.0);
    let bytes = described.map_or(1, |access| u64::from(access.bytes));
    let first = operand::first_byte(running, bytes);
    let is_aligned = first.is_some_and(|first| Va(first).is_aligned(bytes));
    let mut device = Device { running, known: Some((far, at)), big_endian };
    let mut is_load_exclusive = false;
    let done = match described {
        Some(access) if is_aligned || pstate.is_aarch32() => {
            device.described(access, first.unwrap_or(far))
        }
        _ => match device.form() {
            Ok(Some(form)) => {
                is_load_exclusive = matches!(form.action, Action::LoadExclusive);
                device.perform(&form)
            }
            Ok(None) => Err(Abort::external(far, esr.data_abort().wnr())),
            // Where another vCPU has just taken the page away, the guest's own fault comes.
            Err(NoInstruction) => return Handled::Resume,
        },
    };
    match done {
        Ok(()) => {
            advance(running);
            let stepped = &mut running.core.debug.own_stepped;
            *stepped = stepped.map(|_| is_load_exclusive);
            Handled::Emulated
        }
        Err(abort) => abort.inject(running),
    }
}

/// Performs a store-exclusive at `address`, which its load read as `loaded`; tells whether it has
/// stored. As QEMU does, one that fails stores what is there.
///
/// # Errors
///
/// [`Abort`].
pub fn store_exclusive<C: Cpu>(
    running: &mut Running<'_, C>,
    address: u64,
    loaded: Image,
    new: Image,
) -> Result<bool, Abort> {
    let mut device = Device { running, known: None, big_endian: false };
    let bytes = new.bytes.min(8);
    let places = [0, 8].map(|offset| (address.wrapping_add(offset), offset as u32 * 8));
    let places = places.iter().take(usize::from(new.bytes.div_ceil(8)));
    let mut old = Image { value: 0, bytes: new.bytes };
    for &(at, shift) in places.clone() {
        old.value |= u128::from(device.load(at, bytes)?) << shift;
    }
    let has_stored = old.with_part(loaded, 0) == old;
    let image = if has_stored { new } else { old };
    for &(at, shift) in places {
        device.store(at, bytes, (image.value >> shift) as u64)?;
    }
    Ok(has_stored)
}

/// What memory has in its order as a register has it, and the other way round.
fn ordered(value: u64, bytes: u8, big_endian: bool) -> u64 {
    if big_endian { value.swap_bytes() >> (64 - 8 * u32::from(bytes)) } else { value }
}

/// The instruction at the PC cannot be read.
struct NoInstruction;

/// A vCPU at an access to what may be a device.
struct Device<'r, 'a, C: Cpu> {
    running: &'r mut Running<'a, C>,
    /// An address whose translation is known.
    known: Option<(u64, Ipa)>,
    big_endian: bool,
}

impl<C: Cpu> Device<'_, '_, C> {
    /// An access of one register, as the syndrome describes it.
    fn described(&mut self, access: MmioAccess, at: u64) -> Result<(), Abort> {
        let bytes = access.bytes;
        if access.write {
            let value = access.store_value(self.register(access.register));
            return self.store(at, bytes, self.ordered(value, bytes));
        }
        let value = self.load(at, bytes)?;
        let value = access.load_result(self.ordered(value, bytes));
        self.running.core.context.set_register(access.register, value);
        Ok(())
    }

    /// The instruction at the PC, if anything here knows it.
    fn form(&self) -> Result<Option<Form>, NoInstruction> {
        let running = &*self.running;
        if running.core.pstate().is_aarch32() {
            let code = operand::code32(running).ok_or(NoInstruction)?;
            return Ok(operand::form32(running, code));
        }
        let word = operand::instruction(running).ok_or(NoInstruction)?;
        Ok(Form::decode(word, self.big_endian))
    }

    fn perform(&mut self, form: &Form) -> Result<(), Abort> {
        self.big_endian &= !form.is_of_bytes;
        let first = match form.what.address {
            // What authentication makes of the base is the CPU's to know, and is what it accessed.
            Address::Authenticated { .. } => {
                operand::first_byte(self.running, form.what.bytes.into())
            }
            _ => operand::address(self.running, &form.what),
        };
        let first = first.unwrap_or(self.running.core.context.far);
        match form.action {
            Action::Transfer if form.what.direction == Direction::Load => {
                let values = self.load_all(form, first)?;
                self.fill(form, &values);
            }
            Action::Transfer => self.store_all(form, first)?,
            Action::LoadExclusive => self.load_exclusive(form, first)?,
            Action::StoreExclusive(status) => {
                // Nothing is marked where the CPU executes it: it fails.
                self.running.core.monitor.clear();
                self.running.core.context.set_register(status, 1);
            }
            Action::Update(operation, operand) => self.update(form, first, operation, operand)?,
            Action::CompareAndSwap(compared) => self.compare_and_swap(form, first, compared)?,
            Action::Zero => self.zero(first)?,
        }
        self.move_base(form, first);
        Ok(())
    }

    fn load_all(&mut self, form: &Form, first: u64) -> Result<Vec<u64, 64>, Abort> {
        let mut values = Vec::new();
        for piece in &form.pieces {
            let value = self.load(first.wrapping_add(piece.offset), piece.bytes)?;
            // There are as many as pieces.
            let _fits = values.push(self.ordered(value, piece.bytes));
        }
        Ok(values)
    }

    fn store_all(&mut self, form: &Form, first: u64) -> Result<(), Abort> {
        if form.what.simd {
            self.running.cpu.save_simd(&mut self.running.core.simd);
        }
        for piece in &form.pieces {
            let value = match piece.place {
                Place::General(register, _) => self.register(register),
                Place::Vector(register, at) => {
                    (self.running.core.simd.vector(register) >> (u32::from(at) * 8)) as u64
                }
                // Only loads replicate.
                Place::Replicated(_) => 0,
            };
            let value = self.ordered(value, piece.bytes);
            self.store(first.wrapping_add(piece.offset), piece.bytes, value)?;
        }
        Ok(())
    }

    /// Puts what was loaded into registers.
    fn fill(&mut self, form: &Form, values: &[u64]) {
        if form.what.simd {
            self.fill_vectors(form, values);
            return;
        }
        for (piece, &value) in form.pieces.iter().zip(values) {
            if let Place::General(register, extension) = piece.place {
                let value = extension.extend(value, piece.bytes);
                self.running.core.context.set_register(register, value);
            }
        }
    }

    fn fill_vectors(&mut self, form: &Form, values: &[u64]) {
        let simd = &mut self.running.core.simd;
        self.running.cpu.save_simd(simd);
        if form.clears_rest {
            for register in form.pieces.iter().filter_map(vector_of) {
                simd.set_vector(register, 0);
            }
        }
        for (piece, &value) in form.pieces.iter().zip(values) {
            let value = u128::from(Extension::Zero.extend(value, piece.bytes));
            let size = u32::from(piece.bytes) * 8;
            match piece.place {
                Place::Vector(register, at) => {
                    let shift = u32::from(at) * 8;
                    let mask = ((1_u128 << size) - 1) << shift;
                    simd.set_vector(register, simd.vector(register) & !mask | value << shift);
                }
                Place::Replicated(register) => {
                    let times = u32::from(form.vector_bytes / piece.bytes);
                    let all = (0..times).fold(0, |all, n| all | value << (n * size));
                    simd.set_vector(register, all);
                }
                Place::General(..) => {}
            }
        }
        simd.is_written = true;
        self.running.cpu.load_simd(simd);
    }

    fn load_exclusive(&mut self, form: &Form, first: u64) -> Result<(), Abort> {
        let values = self.load_all(form, first)?;
        self.fill(form, &values);
        let register = |n: usize| match form.pieces.get(n) {
            Some(Piece { place: Place::General(register, _), .. }) => *register,
            _ => 31,
        };
        let load = LoadExclusive {
            bytes: form.what.bytes,
            pair: form.what.count == 2,
            rn: form.base,
            rt: register(0),
            rt2: register(1),
        };
        let value = |n: usize| values.get(n).copied().unwrap_or(0);
        self.running.core.monitor.arm(load, Va(first), [value(0), value(1)]);
        Ok(())
    }

    fn update(
        &mut self,
        form: &Form,
        first: u64,
        operation: Operation,
        operand: u8,
    ) -> Result<(), Abort> {
        let bytes = form.what.bytes;
        let values = self.load_all(form, first)?;
        let old = values.first().copied().unwrap_or(0);
        let new = operation.apply(old, self.register(operand), bytes);
        self.store(first, bytes, self.ordered(new, bytes))?;
        self.fill(form, &values);
        Ok(())
    }

    /// As QEMU does, one that compares unequal stores what is there.
    fn compare_and_swap(&mut self, form: &Form, first: u64, compared: u8) -> Result<(), Abort> {
        let bytes = form.what.bytes;
        let old = self.load_all(form, first)?;
        let registers = || (0..form.what.count).map(|n| compared + n);
        let is_equal = registers()
            .zip(&old)
            .all(|(register, &old)| old == Extension::Zero.extend(self.register(register), bytes));
        if is_equal {
            self.store_all(form, first)?;
        } else {
            for (piece, &old) in form.pieces.iter().zip(&old) {
                let old = self.ordered(old, bytes);
                self.store(first.wrapping_add(piece.offset), bytes, old)?;
            }
        }
        for (register, &old) in registers().zip(&old) {
            self.running.core.context.set_register(register, old);
        }
        Ok(())
    }

    /// DC ZVA: byte by byte, as the architecture has it for what is no memory.
    fn zero(&mut self, within: u64) -> Result<(), Abort> {
        let bytes = operand::zeroed_bytes(self.running);
        let first = within & !(bytes - 1);
        (0..bytes).try_for_each(|n| self.store(first.wrapping_add(n), 1, 0))
    }

    fn move_base(&mut self, form: &Form, first: u64) {
        let base = operand::base(self.running, form.base);
        let moved = match form.moved {
            Moved::Not => return,
            Moved::By(distance) => base.wrapping_add(distance as u64),
            Moved::ByRegister(register) => base.wrapping_add(self.register(register)),
            Moved::ToAddress => first,
        };
        let is_aarch32 = self.running.core.pstate().is_aarch32();
        let moved = if is_aarch32 { moved & 0xffff_ffff } else { moved };
        operand::set_base(self.running, form.base, moved);
    }

    fn register(&self, register: u8) -> u64 {
        self.running.core.context.register(register)
    }

    fn ordered(&self, value: u64, bytes: u8) -> u64 {
        ordered(value, bytes, self.big_endian)
    }

    /// One that is not aligned comes out of two that are.
    fn load(&mut self, at: u64, bytes: u8) -> Result<u64, Abort> {
        let size = u64::from(bytes);
        let beyond = at % size;
        if beyond == 0 {
            return self.load_aligned(at, bytes);
        }
        let low = self.load_aligned(at.wrapping_sub(beyond), bytes)?;
        let high = self.load_aligned(at.wrapping_sub(beyond).wrapping_add(size), bytes)?;
        let value = low >> (beyond * 8) | high << ((size - beyond) * 8);
        Ok(Extension::Zero.extend(value, bytes))
    }

    fn load_aligned(&mut self, at: u64, bytes: u8) -> Result<u64, Abort> {
        let ipa = self.translate(at, false)?;
        let mut memory = [0; 8];
        let wanted = memory.get_mut(..usize::from(bytes)).unwrap_or_default();
        let is_flash = self.running.domain.is_flash(ipa);
        if !is_flash && self.running.domain.ram.read(ipa, wanted).is_ok() {
            return Ok(u64::from_le_bytes(memory));
        }
        bus::read(self.running, ipa, bytes).map_err(|_| Abort::external(at, false))
    }

    /// One that is not aligned goes byte by byte, once it may go to both of its pages.
    fn store(&mut self, at: u64, bytes: u8, value: u64) -> Result<(), Abort> {
        if at.is_multiple_of(bytes.into()) {
            return self.store_aligned(at, bytes, value);
        }
        let left = PAGE_BYTES - at % PAGE_BYTES;
        if left < bytes.into() {
            self.translate(at.wrapping_add(left), true)?;
        }
        (0..u64::from(bytes))
            .try_for_each(|n| self.store_aligned(at.wrapping_add(n), 1, value >> (n * 8) & 0xff))
    }

    fn store_aligned(&mut self, at: u64, bytes: u8, value: u64) -> Result<(), Abort> {
        let ipa = self.translate(at, true)?;
        let value = Extension::Zero.extend(value, bytes);
        let memory = value.to_le_bytes();
        let memory = memory.get(..usize::from(bytes)).unwrap_or_default();
        self.running.domain.about_to_store(ipa, bytes.into());
        let is_flash = self.running.domain.is_flash(ipa);
        if !is_flash && self.running.domain.ram.write(ipa, memory).is_ok() {
            pages::written(self.running, ipa, bytes.into());
            return Ok(());
        }
        bus::write(self.running, ipa, bytes, value).map_err(|_| Abort::external(at, true))
    }

    fn translate(&self, at: u64, is_write: bool) -> Result<Ipa, Abort> {
        if let Some((va, ipa)) = self.known
            && (va ^ at) << TAG_BITS >> TAG_BITS < PAGE_BYTES
        {
            return Ok(ipa.align_down(PAGE_BYTES).offset(at % PAGE_BYTES));
        }
        let el0 = self.running.core.pstate().el() == 0;
        let purpose = if is_write { Purpose::Write } else { Purpose::Read };
        operand::translated(self.running, || self.running.cpu.to_ipa(Va(at), el0, purpose))
            .map_err(|failed| Abort { status: FaultStatus(failed.status), address: at, is_write })
    }
}

/// The SIMD register that a piece is of.
const fn vector_of(piece: &Piece) -> Option<u8> {
    match piece.place {
        Place::Vector(register, _) | Place::Replicated(register) => Some(register),
        Place::General(..) => None,
    }
}

/// Whether the guest's vectors lie in memory, which they do within one page. A guest without any could
/// but fault for ever: its domain ends instead, with the place.
fn has_vectors<C: Cpu>(running: &Running<'_, C>) -> bool {
    let vectors = Va(running.cpu.read(SystemRegister::VBAR_EL1));
    let ipa = operand::translated(running, || running.cpu.to_ipa(vectors, false, Purpose::Read));
    ipa.is_ok_and(|ipa| running.domain.ram.locate(ipa, 4).is_ok())
}

/// Enters the exception of an instruction fetch from where there is no RAM.
///
/// A device is not read for it, which may have effects: whatever QEMU's devices answer with is hardly
/// an instruction, and dead flash and the PCIe windows have none.
pub fn fetch<C: Cpu>(running: &mut Running<'_, C>, at: Ipa) -> Handled {
    if !has_vectors(running) {
        return fault(running, FaultKind::UnmappedFetch, at.0);
    }
    if region(at, running.domain.vcpus.len()) != Region::Nothing {
        return inject::undefined(running);
    }
    let syndrome = EsrEl1::instruction_abort(origin(running), FaultStatus::EXTERNAL);
    inject::synchronous(running, syndrome, Some(running.core.pc()))
}
