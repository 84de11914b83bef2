//! The guest's registers as values.

use heapless::Vec;
use stepwell_arch::SystemRegister;

/// Most system registers that a vCPU has copies of.
const SYSTEM_REGISTERS_MAX: usize = 128;

/// Most registers that only their guest uses.
pub const PRIVATE_REGISTERS_MAX: usize = 32;

/// A copy of the registers that only a vCPU's guest uses and nobody else looks at, in the CPU's order.
/// Needed where several vCPUs share a CPU.
pub type PrivateRegisters = Vec<u64, PRIVATE_REGISTERS_MAX>;

/// The registers that an exit saves, and its syndrome.
#[repr(C)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuestRegisters {
    /// X0 to X30, where a [`Context`](crate::cpu::Context) keeps them here: the loop asks that.
    pub x: [u64; 31],
    /// SP_EL0.
    pub sp_el0: u64,
    /// ELR_EL2: the guest's PC.
    pub elr: u64,
    /// SPSR_EL2: the guest's PSTATE.
    pub spsr: u64,
    /// ESR_EL2 of the last exit.
    pub esr: u64,
    /// FAR_EL2 of the last exit.
    pub far: u64,
    /// HPFAR_EL2 of the last exit.
    pub hpfar: u64,
}

impl GuestRegisters {
    /// Reads Xn of those that are here, where 31 is XZR.
    #[inline(always)]
    #[must_use]
    pub fn kept(&self, n: u8) -> u64 {
        self.x.get(usize::from(n)).copied().unwrap_or(0)
    }

    /// Writes Xn of those that are here, where 31 is XZR.
    #[inline(always)]
    pub fn keep(&mut self, n: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(n)) {
            *register = value;
        }
    }
}

/// ENABLE and IMASK of CNTV_CTL_EL0. ISTATUS is read-only, and not the guest's doing.
const CNTV_CTL_WRITABLE: u64 = 0b11;

/// A copy of the guest's system registers: those that stay in the machine while its vCPU is on its
/// CPU. Which these are the CPU says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Snapshot {
    values: Vec<(SystemRegister, u64), SYSTEM_REGISTERS_MAX>,
}

impl Snapshot {
    /// Takes new values, in place of all that there were.
    pub fn fill(&mut self, values: impl Iterator<Item = (SystemRegister, u64)>) {
        self.values.clear();
        self.values.extend(values.take(SYSTEM_REGISTERS_MAX));
    }

    /// The registers and their values, in the CPU's order.
    pub fn iter(&self) -> impl Iterator<Item = (SystemRegister, u64)> + '_ {
        self.values.iter().copied()
    }

    /// Reads a register of the copy.
    #[must_use]
    pub fn read(&self, register: SystemRegister) -> Option<u64> {
        self.iter().find(|&(known, _)| known == register).map(|(_, value)| value)
    }

    /// Writes a register of the copy; tells whether there is one.
    pub fn write(&mut self, register: SystemRegister, value: u64) -> bool {
        let found = self.values.iter_mut().find(|(known, _)| *known == register);
        let Some((_, slot)) = found else { return false };
        *slot = match register {
            SystemRegister::CNTV_CTL_EL0 => value & CNTV_CTL_WRITABLE,
            _ => value,
        };
        true
    }

    /// Tells whether two copies are the same, apart from what only the CPU changes.
    #[must_use]
    pub fn is_same_guest(&self, other: &Self) -> bool {
        self.values.len() == other.values.len()
            && self.iter().zip(other.iter()).all(|((register, a), (_, b))| match register {
                SystemRegister::CNTV_CTL_EL0 => (a ^ b) & CNTV_CTL_WRITABLE == 0,
                _ => a == b,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_the_registers_that_they_were_filled_with() {
        let mut copy = Snapshot::default();
        copy.fill([(SystemRegister::VBAR_EL1, 1), (SystemRegister::CNTV_CTL_EL0, 5)].into_iter());
        assert_eq!(copy.read(SystemRegister::VBAR_EL1), Some(1));
        assert_eq!(copy.read(SystemRegister::TCR_EL1), None);
        assert!(!copy.write(SystemRegister::TCR_EL1, 3));
        let mut other = copy.clone();
        assert!(other.write(SystemRegister::CNTV_CTL_EL0, 1));
        assert!(copy.is_same_guest(&other), "ISTATUS is not the guest's doing");
        assert!(other.write(SystemRegister::VBAR_EL1, 2));
        assert!(!copy.is_same_guest(&other));
    }

    #[test]
    fn register_31_is_the_zero_register() {
        let mut registers = GuestRegisters::default();
        registers.keep(31, 7);
        registers.keep(30, 7);
        assert_eq!((registers.kept(31), registers.kept(30)), (0, 7));
    }
}
