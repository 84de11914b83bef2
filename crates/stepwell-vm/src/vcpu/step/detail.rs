//! What the trace tells beside PCs: exceptions, exclusives, address spaces, time, and, if asked
//! for, the registers that a step changed and what it loaded and stored.
//!
//! The first four come about at instructions that leave the fast path anyway, and cost only a
//! recording that is made. Registers and memory are looked at around every instruction: then no
//! step takes the fast path.
//!
//! Memory is read after the instruction, through the guest's own translation, and not caught on
//! its way: that is what was loaded and stored as long as nobody else writes there. What cannot
//! be read, a device, is taken from the general register that was transferred. Where an atomic
//! compares, a store of what was there already is not told.

use crate::cpu::Context as _;
use crate::cpu::{Cpu, Purpose};
use crate::memory::GuestMemory;
use crate::recorder::{AddressSpace, REGISTERS};
use crate::vcpu::advance::VcpuLoop;
use crate::vcpu::hand::{Before, Next, Operands};
use crate::vcpu::{operand, time};
use stepwell_arch::SystemRegister;
use stepwell_arch::load_store::Direction;
use stepwell_arch::{LoadStore, Va};
use stepwell_engine::Plan;
use stepwell_protocol::{
    Context, ExceptionCause, ExceptionEntry, MemoryAccess, MemoryAccessKind, Register, TraceRecord,
};

/// At least so often the clock is told, in steps.
pub(super) const STEPS_PER_TIME: u64 = 16384;

const NS_PER_SECOND: u128 = 1_000_000_000;
/// TCR_EL1.A1: the ASID is TTBR1_EL1's.
const TCR_A1: u64 = 1 << 22;
/// TTBRn_EL1.BADDR, without CnP.
const TTBR_ADDRESS: u64 = 0x0000_ffff_ffff_fffe;

impl<C: Cpu> VcpuLoop<'_, '_, C> {
    fn vcpu(&self) -> u8 {
        self.running.index as u8
    }

    /// Ends the run, so that what is told comes behind it.
    #[inline(never)]
    fn emit(&mut self, record: TraceRecord) {
        self.finish_recording();
        self.write(record);
    }

    /// Where recording begins, or goes on after something else: what holds here.
    pub(super) fn emit_state(&mut self) {
        if !self.flow.rules.record {
            return;
        }
        self.emit_time();
        self.emit_context();
        if self.flow.rules.detail.registers {
            self.emit_registers(true);
        }
    }

    /// Every so often.
    pub(super) fn emit_time_if_due(&mut self) {
        if self.flow.rules.record && self.flow.tally.steps >= self.flow.tally.time_due {
            self.emit_time();
        }
    }

    fn emit_time(&mut self) {
        self.flow.tally.time_due = self.flow.tally.steps.saturating_add(STEPS_PER_TIME);
        let ticks = u128::from(time::since_reset(self.running));
        let ns = ticks * NS_PER_SECOND / u128::from(self.running.cpu.frequency_hz().max(1));
        if let Some(ns) = self.running.core.recorder.has_passed(ns as u64) {
            self.emit(TraceRecord::Time { ns });
        }
    }

    /// Tells the address space, if it is another than was told last.
    pub(super) fn emit_context(&mut self) {
        if !self.flow.rules.record {
            return;
        }
        let (ttbr0, ttbr1) = (
            self.running.cpu.read(SystemRegister::TTBR0_EL1),
            self.running.cpu.read(SystemRegister::TTBR1_EL1),
        );
        let with_asid = if self.running.cpu.read(SystemRegister::TCR_EL1) & TCR_A1 == 0 {
            ttbr0
        } else {
            ttbr1
        };
        let space = AddressSpace {
            vmid: self.running.domain.vttbr.vmid(),
            asid: (with_asid >> 48) as u16,
            ttbr0: ttbr0 & TTBR_ADDRESS,
        };
        let core = &mut *self.running.core;
        let el = core.pstate().el();
        if core.recorder.is_new_space(space) {
            let AddressSpace { vmid, asid, ttbr0 } = space;
            let vcpu = self.vcpu();
            self.emit(TraceRecord::Context(Context { vcpu, el, vmid, asid, ttbr0 }));
        }
    }

    /// An exception has just been entered at EL1.
    pub(super) fn emit_entry(&mut self) {
        self.flow.hand.has_entered = true;
        if !self.flow.rules.record {
            return;
        }
        self.emit_time();
        let vector = self.running.core.pc();
        let table = self.running.cpu.read(SystemRegister::VBAR_EL1) & !0x7ff;
        // Two bits: there is a cause for each.
        let Some(cause) =
            ExceptionCause::from_number((vector.0.wrapping_sub(table) >> 7 & 3) as u8)
        else {
            return;
        };
        let intid = self.flow.hand.intid.take().filter(|_| cause != ExceptionCause::Synchronous);
        let syndrome = match cause {
            ExceptionCause::Synchronous | ExceptionCause::SError => {
                self.running.cpu.read(SystemRegister::ESR_EL1)
            }
            ExceptionCause::Irq | ExceptionCause::Fiq => 0,
        };
        let return_address = Va(self.running.cpu.read(SystemRegister::ELR_EL1));
        let vcpu = self.vcpu();
        self.emit(TraceRecord::ExceptionEntry(ExceptionEntry {
            vcpu,
            cause,
            return_address,
            vector,
            syndrome,
            intid,
        }));
    }

    /// An exception return has just executed.
    pub(super) fn emit_return(&mut self) {
        if self.flow.rules.record {
            let core = &*self.running.core;
            let (to, el) = (core.pc(), core.pstate().el());
            self.emit(TraceRecord::ExceptionReturn { vcpu: self.vcpu(), to, el });
        }
    }

    /// A store-exclusive has just executed.
    #[inline]
    pub(super) fn emit_exclusive(&mut self, pc: Va, stored: bool) {
        self.flow.hand.has_stored = stored;
        if self.flow.rules.record {
            self.emit(TraceRecord::Exclusive { vcpu: self.vcpu(), pc, stored });
        }
    }

    /// Whether something is to be told of every single step.
    pub(super) const fn has_detail(&self) -> bool {
        self.flow.rules.record
            && (self.flow.rules.detail.registers || self.flow.rules.detail.memory)
    }

    /// Before an instruction of which everything is recorded.
    pub(super) fn look_in_detail(&mut self) {
        let next = self.flow.hand.next;
        let operands = if self.flow.rules.detail.memory { self.operands(&next) } else { None };
        let hand = &mut self.flow.hand;
        (hand.has_entered, hand.has_stored) = (false, false);
        hand.detail = Some(Before { operands });
    }

    /// Records what the instruction did, if it has executed.
    #[inline(never)]
    pub(super) fn emit_in_detail(&mut self) {
        let hand = &mut self.flow.hand;
        let Some(Before { operands }) = hand.detail.take() else { return };
        if self.flow.tally.steps == hand.steps_before {
            return;
        }
        if let Some(operands) = operands
            && !hand.has_entered
            && (hand.has_stored || !matches!(hand.next.plan, Plan::StoreExclusive(_)))
        {
            self.emit_memory(operands);
        }
        if self.flow.rules.detail.registers {
            self.emit_registers(false);
        }
    }

    fn emit_registers(&mut self, found: bool) {
        let core = &*self.running.core;
        let mut now = [0; REGISTERS];
        let sp = self.base(31, core.pstate());
        let values = core.context.general().into_iter().chain([sp, core.pstate().0]);
        now.iter_mut().zip(values).for_each(|(now, value)| *now = value);
        for register in (0..REGISTERS as u8).filter_map(Register::new) {
            if let Some(value) = self.running.core.recorder.has_changed(register.number(), &now) {
                let vcpu = self.vcpu();
                self.emit(TraceRecord::Register { vcpu, register, value, found });
            }
        }
    }

    fn operands(&self, next: &Next) -> Option<Operands> {
        let mut what = LoadStore::decode(next.word?)?;
        let base = |n| self.base(n, next.pstate);
        let index = |n| self.running.core.context.register(n);
        let mut address = what.address(next.pc.0, base, index)?;
        if what.bytes == 0 {
            // DCZID_EL0.BS is the logarithm of words.
            let block = 4_u64 << (self.running.cpu.read(SystemRegister::DCZID_EL0) & 0xf);
            (what.bytes, address) = (block.min(128) as u8, address & !(block - 1));
            return Some(Operands {
                what: LoadStore { rt: 32, ..what },
                address,
                before: [None; 2],
            });
        }
        let mut before = [None; 2];
        if what.direction == Direction::Both {
            for (n, before) in (0..what.count).zip(&mut before) {
                *before = self.memory(address_of(what, address, n), what.bytes);
            }
        }
        Some(Operands { what, address, before })
    }

    fn emit_memory(&mut self, Operands { what, address, before }: Operands) {
        if what.rt == 32 {
            self.emit_access(MemoryAccessKind::Zero, what, address, Some(0));
            return;
        }
        if what.direction == Direction::Both {
            for (n, before) in (0..what.count).zip(before) {
                self.emit_access(
                    MemoryAccessKind::Load,
                    what,
                    address_of(what, address, n),
                    before,
                );
            }
        }
        for n in 0..what.count {
            let at = address_of(what, address, n);
            let value = self.memory(at, what.bytes).or_else(|| self.transferred(what));
            let before = before.get(usize::from(n)).copied().flatten();
            match what.direction {
                Direction::Load => self.emit_access(MemoryAccessKind::Load, what, at, value),
                Direction::Both if before == value => {}
                Direction::Store | Direction::Both => {
                    self.emit_access(MemoryAccessKind::Store, what, at, value)
                }
            }
        }
    }

    fn emit_access(
        &mut self,
        access: MemoryAccessKind,
        what: LoadStore,
        address: u64,
        value: Option<u128>,
    ) {
        let (vcpu, size, address) = (self.vcpu(), u16::from(what.bytes), Va(address));
        self.emit(TraceRecord::Memory(MemoryAccess { vcpu, access, address, size, value }));
    }

    /// What a device gave or got: accesses of one general register are all that it takes.
    fn transferred(&self, what: LoadStore) -> Option<u128> {
        let is_lost = what.rt == 31 && what.direction == Direction::Load;
        if what.simd || what.count > 1 || is_lost || what.direction == Direction::Both {
            return None;
        }
        let value = self.running.core.context.register(what.rt);
        let unused = 64_u32.saturating_sub(8 * u32::from(what.bytes));
        Some(u128::from(value << unused >> unused))
    }

    /// Reads up to 16 bytes of the guest's RAM, as the guest translates them.
    fn memory(&self, va: u64, bytes: u8) -> Option<u128> {
        let mut value = [0; 16];
        let into = value.get_mut(..usize::from(bytes))?;
        let first = (4096 - (va & 0xfff) as usize).min(into.len());
        let (here, there) = into.split_at_mut(first);
        self.read_page(Va(va), here)?;
        self.read_page(Va(va.wrapping_add(first as u64)), there)?;
        Some(u128::from_le_bytes(value))
    }

    fn read_page(&self, va: Va, into: &mut [u8]) -> Option<()> {
        if into.is_empty() {
            return Some(());
        }
        // EL1 may read whatever the guest may.
        let ipa =
            operand::translated(self.running, || self.running.cpu.to_ipa(va, false, Purpose::Read))
                .ok()?;
        self.running.domain.ram.read(ipa, into).ok()
    }
}

const fn address_of(what: LoadStore, first: u64, n: u8) -> u64 {
    first.wrapping_add(n as u64 * what.bytes as u64)
}
