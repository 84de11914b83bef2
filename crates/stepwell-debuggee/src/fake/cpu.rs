//! The fake's vCPU: registers, RAM, a PL011 that only prints, and PSCI SYSTEM_OFF.

use crate::contract::{ENTRY, SCRATCH};
use crate::{DomainEnding, FaultKind, GuestFault, Refusal, Registers};
use stepwell_arch::Va;

const RAM_BASE: u64 = 0x4000_0000;
/// Enough for the image, and for the page that the contract's guest writes.
const RAM_BYTES: usize = (SCRATCH.0 - RAM_BASE) as usize + 0x1_0000;
const PL011: u64 = 0x0900_0000;
const PSCI_SYSTEM_OFF: u64 = 0x8400_0008;
/// EL1h, DAIF masked: how `virt` starts a kernel.
const PSTATE_AT_RESET: u64 = 0x3c5;

/// What came of executing one instruction.
pub(super) enum Outcome {
    Executed,
    Printed(u8),
    Ended(DomainEnding),
}

#[derive(Clone)]
pub(super) struct Cpu {
    pub(super) registers: Registers,
    ram: Vec<u8>,
}

impl Cpu {
    pub(super) fn new(image: &[u8]) -> Self {
        let registers = Registers { pc: ENTRY.0, pstate: PSTATE_AT_RESET, ..Registers::default() };
        let mut cpu = Self { registers, ram: vec![0; RAM_BYTES] };
        if let Ok(room) = cpu.memory(ENTRY.0, image.len()) {
            room.copy_from_slice(image);
        }
        cpu
    }

    pub(super) fn memory(&mut self, address: u64, length: usize) -> Result<&mut [u8], Refusal> {
        let start = address.checked_sub(RAM_BASE).and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        range.and_then(|range| self.ram.get_mut(range)).ok_or(Refusal::NotMapped(address))
    }

    /// Returns all of its RAM.
    pub(super) fn ram(&self) -> &[u8] {
        &self.ram
    }

    /// Returns the immediate of the next instruction, where that is an SMC.
    pub(super) fn next_smc(&self) -> Option<u16> {
        let word = self.word(self.registers.pc)?;
        (word & 0xffe0_001f == 0xd400_0003).then_some((word >> 5 & 0xffff) as u16)
    }

    /// Returns where the next instruction loads or stores 8 bytes, and whether it stores, where it
    /// does either.
    pub(super) fn next_access(&self) -> Option<(u64, bool)> {
        let word = self.word(self.registers.pc)?;
        let is_access = word >> 22 == 0x3e4 || word >> 22 == 0x3e5;
        let offset = 8 * u64::from(word >> 10 & 0xfff);
        let address = self.read(word >> 5 & 0x1f).wrapping_add(offset);
        is_access.then_some((address, word >> 22 & 1 == 0))
    }

    fn word(&self, pc: u64) -> Option<u32> {
        let start = usize::try_from(pc.checked_sub(RAM_BASE)?).ok()?;
        let bytes = self.ram.get(start..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    fn fault(&self, kind: FaultKind, address: u64) -> Outcome {
        let pc = Va(self.registers.pc);
        Outcome::Ended(DomainEnding::Fault(GuestFault { vcpu: 0, pc, esr: 0, address, kind }))
    }

    fn read(&self, n: u32) -> u64 {
        self.registers.x.get(n as usize).copied().unwrap_or(0)
    }

    fn write(&mut self, n: u32, value: u64) {
        if let Some(x) = self.registers.x.get_mut(n as usize) {
            *x = value;
        }
    }

    pub(super) fn execute(&mut self) -> Outcome {
        let pc = self.registers.pc;
        let Some(word) = self.word(pc) else {
            return self.fault(FaultKind::UnmappedFetch, pc);
        };
        let (rd, rn, imm16) = (word & 0x1f, word >> 5 & 0x1f, u64::from(word >> 5 & 0xffff));
        let hw = word >> 21 & 3;
        let imm12 = u64::from(word >> 10 & 0xfff);
        let mut next = pc.wrapping_add(4);
        match word {
            0xd503_201f => {}
            0xd65f_03c0 => next = self.read(30),
            _ if word >> 23 == 0x1a5 => self.write(rd, imm16 << (16 * hw)),
            _ if word >> 23 == 0x1e5 => {
                let kept = self.read(rd) & !(0xffff << (16 * hw));
                self.write(rd, kept | imm16 << (16 * hw));
            }
            _ if word >> 22 == 0x244 => self.write(rd, self.read(rn).wrapping_add(imm12)),
            _ if word >> 22 == 0x344 => self.write(rd, self.read(rn).wrapping_sub(imm12)),
            _ if word >> 26 == 0x05 => next = branch(pc, word, 26, 0),
            _ if word >> 26 == 0x25 => {
                self.write(30, next);
                next = branch(pc, word, 26, 0);
            }
            _ if word >> 25 == 0x5a => {
                let wanted_zero = word >> 24 & 1 == 0;
                if (self.read(rd) == 0) == wanted_zero {
                    next = branch(pc, word, 19, 5);
                }
            }
            _ if word >> 22 == 0x2e4 && self.read(rn) == PL011 => {
                self.registers.pc = next;
                return Outcome::Printed(self.read(rd) as u8);
            }
            _ if word >> 22 == 0x3e4 || word >> 22 == 0x3e5 => {
                let address = self.read(rn).wrapping_add(8 * imm12);
                if let Some(fault) = self.access(word, address) {
                    return fault;
                }
            }
            _ if word & 0xffff_fc00 == 0xc85f_7c00 || word & 0xffe0_fc00 == 0xc800_7c00 => {
                if let Some(fault) = self.access(word, self.read(rn)) {
                    return fault;
                }
                if word >> 22 & 1 == 0 {
                    // The only vCPU that runs: it always stores.
                    self.write(word >> 16 & 0x1f, 0);
                }
            }
            _ if word & 0xffe0_001f == 0xd400_0003 => self.write(0, u64::MAX),
            0xd400_0002 if self.read(0) == PSCI_SYSTEM_OFF => {
                return Outcome::Ended(DomainEnding::PoweredOff);
            }
            _ => return self.fault(FaultKind::UnknownException, 0),
        }
        self.registers.pc = next;
        Outcome::Executed
    }

    /// LDR and STR, LDXR and STXR, of 64 bits.
    fn access(&mut self, word: u32, address: u64) -> Option<Outcome> {
        let (rt, load) = (word & 0x1f, word >> 22 & 1 == 1);
        let value = self.read(rt);
        let Some(bytes) = self.memory(address, 8).ok().and_then(|m| m.first_chunk_mut::<8>())
        else {
            return Some(self.fault(FaultKind::UnmappedAccess, address));
        };
        if load {
            let loaded = u64::from_le_bytes(*bytes);
            self.write(rt, loaded);
        } else {
            *bytes = value.to_le_bytes();
        }
        None
    }
}

/// Returns the target of a branch whose signed word offset is `bits` wide and starts at `low`.
const fn branch(pc: u64, word: u32, bits: u32, low: u32) -> u64 {
    let offset = (word << (32 - bits - low)) as i32 >> (32 - bits);
    pc.wrapping_add_signed(offset as i64 * 4)
}
