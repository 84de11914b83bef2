//! The guest's FP/SIMD and SVE registers as values.
//!
//! With SVE, V0 to V31 are the low 128 bits of Z0 to Z31, and both are kept alike. What lies beyond
//! the length that the guest's EL1 has chosen is not the guest's to see, and not the debugger's. In
//! Streaming SVE mode (SME), where other lengths hold and FFR may be missing, the copies are old.
//!
//! Source: Arm ARM, DDI 0487 L.b, "SVE vector length" and ZCR_EL1, SVE Control Register (EL1).

use alloc::boxed::Box;
use alloc::vec;

/// Bytes of the longest vector that the architecture has.
pub const Z_MAX: usize = 256;
/// Bytes of the longest predicate: a bit for each byte of a vector.
pub const P_MAX: usize = Z_MAX / 8;
/// Values of ZCR_EL1.LEN and ZCR_EL2.LEN: a vector's length in quadwords, less one.
pub const LENGTHS: usize = 16;

/// V0 to V31, FPCR and FPSR, and what SVE adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SimdRegisters {
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPCR.
    pub fpcr: u64,
    /// FPSR.
    pub fpsr: u64,
    /// Where the CPU has it.
    pub sve: Option<Box<Sve>>,
    /// They differ from what is in the machine.
    pub is_written: bool,
}

/// The registers of SVE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sve {
    /// Z0 to Z31.
    pub z: Box<[[u8; Z_MAX]; 32]>,
    /// P0 to P15.
    pub p: [[u8; P_MAX]; 16],
    /// FFR.
    pub ffr: [u8; P_MAX],
    /// ZCR_EL1.
    pub zcr: u64,
    /// What a reset puts there.
    zcr_at_reset: u64,
    /// The vCPU is in Streaming SVE mode, and the copies are old.
    pub is_streaming: bool,
    /// Bytes of a vector for each value of LEN.
    lengths: [u16; LENGTHS],
}

impl SimdRegisters {
    /// Makes those of a vCPU that has never run: zeros, which it will find. `sve`: ZCR_EL1, and the
    /// bytes of a vector for each value of its LEN, where the CPU has SVE.
    #[must_use]
    pub fn at_reset(sve: Option<(u64, [u16; LENGTHS])>) -> Self {
        let sve = sve.and_then(|(zcr, lengths)| Sve::new(zcr, lengths)).map(Box::new);
        Self { sve, is_written: true, ..Self::default() }
    }

    /// Makes them those of a vCPU that was reset.
    pub fn reset(&mut self) {
        (self.v, self.fpcr, self.fpsr) = ([0; 32], 0, 0);
        if let Some(sve) = &mut self.sve {
            sve.z.iter_mut().for_each(|z| z.fill(0));
            (sve.p, sve.ffr) = ([[0; P_MAX]; 16], [0; P_MAX]);
            (sve.zcr, sve.is_streaming) = (sve.zcr_at_reset, false);
        }
        self.is_written = true;
    }

    /// V`n`.
    #[must_use]
    pub fn vector(&self, n: u8) -> u128 {
        self.v.get(usize::from(n)).copied().unwrap_or(0)
    }

    /// Writes V`n` as an instruction does, which clears what is beyond it of Z`n`.
    pub fn set_vector(&mut self, n: u8, value: u128) {
        if let Some(v) = self.v.get_mut(usize::from(n)) {
            *v = value;
        }
        if let Some(z) = self.sve.as_mut().and_then(|sve| sve.z.get_mut(usize::from(n))) {
            z.fill(0);
            if let Some(low) = z.first_chunk_mut() {
                *low = value.to_le_bytes();
            }
        }
    }

    /// Copies V0 to V31 into Z0 to Z31, whose higher parts stay.
    pub fn take_over_v(&mut self) {
        let Some(sve) = &mut self.sve else { return };
        for (z, v) in sve.z.iter_mut().zip(&self.v) {
            if let Some(low) = z.first_chunk_mut() {
                *low = v.to_le_bytes();
            }
        }
    }

    /// Copies the low parts of Z0 to Z31 into V0 to V31.
    pub fn take_over_z(&mut self) {
        let Some(sve) = &self.sve else { return };
        for (v, z) in self.v.iter_mut().zip(sve.z.iter()) {
            *v = z.first_chunk().map_or(0, |low| u128::from_le_bytes(*low));
        }
    }
}

impl Sve {
    /// Bytes that one takes.
    pub const BYTES: usize = size_of::<Self>() + size_of::<[[u8; Z_MAX]; 32]>();

    fn new(zcr: u64, lengths: [u16; LENGTHS]) -> Option<Self> {
        // On the heap at once: a stack has no room for them. There are 32.
        let z = vec![[0; Z_MAX]; 32].into_boxed_slice().try_into().ok()?;
        let (p, ffr) = ([[0; P_MAX]; 16], [0; P_MAX]);
        Some(Self { z, p, ffr, zcr, zcr_at_reset: zcr, is_streaming: false, lengths })
    }

    fn length_for(&self, len: usize) -> usize {
        self.lengths.get(len % LENGTHS).copied().map_or(0, usize::from)
    }

    /// Bytes of a vector as the guest's EL1 and EL0 have them now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.length_for(self.zcr as usize)
    }

    /// Bytes of the longest vector that the CPU has.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.length_for(LENGTHS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v_and_z_are_the_same_registers() {
        let mut lengths = [64; LENGTHS];
        (lengths[0], lengths[1]) = (16, 32);
        let mut simd = SimdRegisters::at_reset(Some((0x11, lengths)));
        assert!(simd.is_written);
        simd.v[3] = 0x1234;
        simd.take_over_v();
        let sve = simd.sve.as_mut().expect("the CPU has it");
        assert_eq!((sve.z[3][0], sve.z[3][1]), (0x34, 0x12));
        assert_eq!((sve.bytes(), sve.longest()), (32, 64));
        sve.z[4][1] = 1;
        simd.take_over_z();
        assert_eq!(simd.v[4], 0x100);
    }

    #[test]
    fn a_written_vector_is_all_of_its_z() {
        let mut simd = SimdRegisters::at_reset(Some((1, [32; LENGTHS])));
        simd.sve.as_mut().expect("the CPU has it").z[3].fill(7);
        simd.set_vector(3, 0x0102);
        let z = simd.sve.as_ref().expect("the CPU has it").z[3];
        assert_eq!((z[0], z[1], z[16], simd.vector(3)), (2, 1, 0, 0x0102));
        simd.set_vector(99, 1);
        assert_eq!(simd.vector(99), 0);
    }

    #[test]
    fn a_reset_leaves_nothing() {
        let mut simd = SimdRegisters::at_reset(Some((1, [32; LENGTHS])));
        (simd.v[1], simd.is_written) = (7, false);
        simd.take_over_v();
        simd.sve.as_mut().expect("the CPU has it").zcr = 0;
        simd.reset();
        let sve = simd.sve.as_ref().expect("the CPU has it");
        assert_eq!((simd.v[1], sve.z[1][0], sve.zcr), (0, 0, 1));
        assert!(simd.is_written);
    }

    #[test]
    fn without_sve_there_is_nothing_to_take_over() {
        let mut simd = SimdRegisters::at_reset(None);
        simd.v[0] = 1;
        simd.take_over_v();
        simd.take_over_z();
        assert_eq!(simd.v[0], 1);
    }
}
