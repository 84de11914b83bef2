//! The fake's FP/SIMD and SVE registers: kept, and touched by no instruction that it knows.

use super::Fake;
use crate::{Error, Refusal, Simd, SimdRegisters, Sve, SveRegister, VcpuId, VectorLength};

/// The registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Vectors {
    simd: SimdRegisters,
    sve: Option<SveFile>,
}

#[derive(Clone, Debug)]
struct SveFile {
    length: VectorLength,
    z: Vec<Vec<u8>>,
    p: Vec<Vec<u8>>,
    ffr: Vec<u8>,
}

impl Vectors {
    pub(super) fn with_sve(length: VectorLength) -> Self {
        let predicate = vec![0; length.longest / 8];
        let (z, p) = (vec![vec![0; length.longest]; 32], vec![predicate.clone(); 16]);
        Self { simd: SimdRegisters::default(), sve: Some(SveFile { length, z, p, ffr: predicate }) }
    }

    fn sve(&mut self) -> Result<&mut SveFile, Refusal> {
        self.sve.as_mut().ok_or(Refusal::NoSuchRegister)
    }
}

impl SveFile {
    fn register(&mut self, register: SveRegister) -> Result<&mut Vec<u8>, Refusal> {
        match register {
            SveRegister::Z(n) => self.z.get_mut(usize::from(n)),
            SveRegister::P(n) => self.p.get_mut(usize::from(n)),
            SveRegister::Ffr => Some(&mut self.ffr),
        }
        .ok_or(Refusal::NoSuchRegister)
    }
}

impl Simd for Fake {
    fn read_simd(&mut self, vcpu: VcpuId) -> Result<SimdRegisters, Error> {
        self.stopped(vcpu)?;
        Ok(self.vectors.simd.clone())
    }

    fn write_simd(&mut self, vcpu: VcpuId, registers: &SimdRegisters) -> Result<(), Error> {
        self.stopped(vcpu)?;
        self.vectors.simd = registers.clone();
        let Some(sve) = &mut self.vectors.sve else { return Ok(()) };
        for (z, v) in sve.z.iter_mut().zip(registers.v) {
            z.splice(..16, v.to_le_bytes());
        }
        Ok(())
    }
}

impl Sve for Fake {
    fn vector_length(&mut self, vcpu: VcpuId) -> Result<VectorLength, Error> {
        self.stopped(vcpu)?;
        Ok(self.vectors.sve()?.length)
    }

    fn read_sve(&mut self, vcpu: VcpuId, register: SveRegister) -> Result<Vec<u8>, Error> {
        self.stopped(vcpu)?;
        Ok(self.vectors.sve()?.register(register)?.clone())
    }

    fn write_sve(
        &mut self,
        vcpu: VcpuId,
        register: SveRegister,
        bytes: &[u8],
    ) -> Result<(), Error> {
        self.stopped(vcpu)?;
        let sve = self.vectors.sve()?;
        let reach = register.bytes(sve.length.current);
        let place = sve.register(register)?;
        if bytes.len() > place.len() {
            return Err(Refusal::TooLong(place.len() as u16).into());
        }
        if bytes.iter().skip(reach).any(|&byte| byte != 0) {
            return Err(Refusal::BadValue.into());
        }
        place.fill(0);
        place.splice(..bytes.len(), bytes.iter().copied());
        if let SveRegister::Z(n) = register {
            let low: Vec<u8> = place.iter().take(16).copied().collect();
            let v = self.vectors.simd.v.get_mut(usize::from(n)).ok_or(Refusal::NoSuchRegister)?;
            *v = low.iter().rfold(0, |v, &byte| v << 8 | u128::from(byte));
        }
        Ok(())
    }
}
