//! The redistributors (GICR_*): one frame pair for each vCPU, with its SGIs and PPIs.
//!
//! RD_base says who the vCPU is; SGI_base has the registers that the distributor has for SPIs.
//! As on QEMU's `virt`, LPIs are advertised and their table addresses kept, though nothing can
//! ever make an LPI pending; ProcessorSleep is shown back but holds nothing up.

use super::bank::{Bank, WordRegister};
use super::gicd::{ID_REGISTERS, IIDR_VALUE, id_register};

/// Bytes of address space for each vCPU: RD_base and SGI_base.
pub(super) const FRAMES: u64 = 0x2_0000;

const CTLR: u64 = 0x0000;
const IIDR: u64 = 0x0004;
const TYPER: u64 = 0x0008;
const WAKER: u64 = 0x0014;
const PROPBASER: u64 = 0x0070;
const PENDBASER: u64 = 0x0078;
const SGI_BASE: u64 = 0x1_0000;
const SGI_BASE_END: u64 = 0x2_0000;
const IPRIORITYR: u64 = SGI_BASE + 0x0400;
const IPRIORITYR_END: u64 = SGI_BASE + 0x0420;
const ICFGR0: u64 = SGI_BASE + 0x0c00;
const ICFGR1: u64 = SGI_BASE + 0x0c04;

const CTLR_ENABLE_LPIS: u32 = 1 << 0;
const CTLR_CES: u32 = 1 << 1; // EnableLPIs can be cleared again, fixed
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
const PIDR0: u8 = 0x93;
/// SGIs are edge-triggered.
const SGIS: u32 = 0xffff;

/// GICR of one vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Redistributor {
    /// SGIs and PPIs.
    pub bank: Bank,
    enable_lpis: u32,
    asleep: bool,
    propbaser: u64,
    pendbaser: u64,
}

impl Redistributor {
    pub const fn new() -> Self {
        Self { bank: Bank::new(SGIS), enable_lpis: 0, asleep: true, propbaser: 0, pendbaser: 0 }
    }

    /// A guest's load; `typer` is who this is. `offset` is a multiple of `bytes`.
    pub fn read(&self, offset: u64, bytes: u8, typer: u64) -> u64 {
        match (bytes, offset) {
            (1, IPRIORITYR..IPRIORITYR_END) => u64::from(self.priority(offset)),
            (4, SGI_BASE..SGI_BASE_END) => u64::from(self.read_interrupts(offset)),
            (4, _) => u64::from(self.read_word(offset, typer)),
            (8, TYPER) => typer,
            (8, PROPBASER) => self.propbaser,
            (8, PENDBASER) => self.pendbaser,
            _ => 0,
        }
    }

    fn read_word(&self, offset: u64, typer: u64) -> u32 {
        let half = |value: u64| (value >> (8 * (offset & 4))) as u32;
        match offset & !4 {
            TYPER => return half(typer),
            PROPBASER => return half(self.propbaser),
            PENDBASER => return half(self.pendbaser),
            _ => {}
        }
        match offset {
            CTLR => CTLR_CES | self.enable_lpis,
            IIDR => IIDR_VALUE,
            WAKER if self.asleep => WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP,
            ID_REGISTERS.. => id_register(offset, PIDR0),
            _ => 0,
        }
    }

    fn read_interrupts(&self, offset: u64) -> u32 {
        if let Some((register, 0)) = WordRegister::decode(offset - SGI_BASE) {
            return self.bank.read(register);
        }
        match offset {
            IPRIORITYR..IPRIORITYR_END => {
                u32::from_le_bytes([0, 1, 2, 3].map(|n| self.priority(offset + n)))
            }
            ICFGR0 => self.bank.read_config(0),
            ICFGR1 => self.bank.read_config(16),
            _ => 0,
        }
    }

    /// A guest's store; returns the interrupts it may have changed. `offset` is a multiple of
    /// `bytes`.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> u32 {
        match (bytes, offset) {
            (1, IPRIORITYR..IPRIORITYR_END) => return self.set_priority(offset, value as u8),
            (4, SGI_BASE..SGI_BASE_END) => return self.write_interrupts(offset, value as u32),
            (4, _) => self.write_word(offset, value as u32),
            (8, PROPBASER) => self.propbaser = value,
            (8, PENDBASER) => self.pendbaser = value,
            _ => {}
        }
        0
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let shift = 8 * (offset & 4);
        let deposit =
            |register: u64| register & !(0xffff_ffff << shift) | u64::from(value) << shift;
        match offset & !4 {
            PROPBASER => self.propbaser = deposit(self.propbaser),
            PENDBASER => self.pendbaser = deposit(self.pendbaser),
            CTLR if offset == CTLR => self.enable_lpis = value & CTLR_ENABLE_LPIS,
            _ if offset == WAKER => self.asleep = value & WAKER_PROCESSOR_SLEEP != 0,
            _ => {}
        }
    }

    fn write_interrupts(&mut self, offset: u64, value: u32) -> u32 {
        if let Some((register, 0)) = WordRegister::decode(offset - SGI_BASE) {
            return self.bank.write(register, value);
        }
        match offset {
            IPRIORITYR..IPRIORITYR_END => (0..)
                .zip(value.to_le_bytes())
                .fold(0, |bits, (n, priority)| bits | self.set_priority(offset + n, priority)),
            ICFGR1 => {
                self.bank.write_config(16, value);
                !SGIS
            }
            _ => 0,
        }
    }

    fn priority(&self, offset: u64) -> u8 {
        usize::try_from(offset - IPRIORITYR).map_or(0, |intid| self.bank.priority(intid))
    }

    fn set_priority(&mut self, offset: u64, value: u8) -> u32 {
        let Ok(intid) = usize::try_from(offset - IPRIORITYR) else { return 0 };
        self.bank.set_priority(intid, value);
        super::bank::bit_mask(intid)
    }
}

/// GICR_TYPER: affinity, processor number, Last, and that LPIs are supported.
pub(super) const fn typer(vcpu: usize, vcpus: usize) -> u64 {
    let number = vcpu as u64;
    let last = vcpu + 1 == vcpus;
    number << 32 | 1 << 24 | number << 8 | (last as u64) << 4 | 1
}
