//! Registers, one by one.

use crate::description::Kind;
use crate::guest::Guest;
use crate::pauth;
use crate::{arch::RegisterNumber, guest::refused};
use gdbstub::common::Tid;
use gdbstub::target::ext::base::single_register_access::SingleRegisterAccess;
use gdbstub::target::{TargetError, TargetResult};
use stepwell_arch::SystemRegister;
use stepwell_debuggee::{Debuggee, Refusal, Registers, VcpuId};

impl Guest<'_> {
    /// Returns a register's value as it goes over the wire.
    pub(crate) fn register(
        &mut self,
        vcpu: VcpuId,
        kind: Kind,
    ) -> Result<Vec<u8>, TargetError<crate::Error>> {
        if let Kind::V(_) | Kind::Fpsr | Kind::Fpcr = kind {
            let simd = self.debuggee.support_simd().ok_or(TargetError::NonFatal)?;
            let simd = simd.read_simd(vcpu).map_err(refused)?;
            return Ok(match kind {
                Kind::V(n) => simd.v.get(n).copied().unwrap_or_default().to_le_bytes().to_vec(),
                Kind::Fpsr => (simd.fpsr as u32).to_le_bytes().to_vec(),
                _ => (simd.fpcr as u32).to_le_bytes().to_vec(),
            });
        }
        if let Kind::Sve(register) = kind {
            let sve = self.debuggee.support_sve().ok_or(TargetError::NonFatal)?;
            return sve.read_sve(vcpu, register).map_err(refused);
        }
        if kind == Kind::Vg {
            let sve = self.debuggee.support_sve().ok_or(TargetError::NonFatal)?;
            let bytes = sve.vector_length(vcpu).map_err(refused)?.current;
            return Ok((bytes as u64 / 8).to_le_bytes().to_vec());
        }
        if let Kind::System(register) = kind {
            let system = self.debuggee.support_system_registers().ok_or(TargetError::NonFatal)?;
            let value = system.read_system_register(vcpu, register.0).map_err(refused)?;
            return Ok(value.to_le_bytes().to_vec());
        }
        if let Kind::Signature(pointer, half) = kind {
            let tcr = self.system_register(vcpu, SystemRegister::TCR_EL1).map_err(refused)?;
            return Ok(pauth::mask(tcr, pointer, half).to_le_bytes().to_vec());
        }
        let registers = self.debuggee.read_registers(vcpu).map_err(refused)?;
        Ok(core_register(&registers, kind))
    }

    fn set_register(
        &mut self,
        vcpu: VcpuId,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<(), TargetError<crate::Error>> {
        let out_of_range = || refused(Refusal::BadValue.into());
        if let Kind::System(register) = kind {
            let value = bytes.try_into().map(u64::from_le_bytes).map_err(|_| out_of_range())?;
            let system = self.debuggee.support_system_registers().ok_or(TargetError::NonFatal)?;
            return system.write_system_register(vcpu, register.0, value).map_err(refused);
        }
        match kind {
            Kind::V(_) | Kind::Fpsr | Kind::Fpcr => return self.set_simd(vcpu, kind, bytes),
            Kind::Sve(register) => {
                let sve = self.debuggee.support_sve().ok_or(TargetError::NonFatal)?;
                return sve.write_sve(vcpu, register, bytes).map_err(refused);
            }
            // EL1 chooses the length, by ZCR_EL1, and the size of addresses, by TCR_EL1. GDB puts
            // back what it found when a function that it has called returns.
            Kind::Vg | Kind::Signature(..) => {
                let is_unchanged = self.register(vcpu, kind)? == bytes;
                let refusal = || refused(Refusal::NoSuchRegister.into());
                return is_unchanged.then_some(()).ok_or_else(refusal);
            }
            _ => {}
        }
        let mut registers = self.debuggee.read_registers(vcpu).map_err(refused)?;
        if kind == Kind::Pstate {
            let value = bytes.try_into().map(u32::from_le_bytes).map_err(|_| out_of_range())?;
            registers.pstate = with_low_half(registers.pstate, u64::from(value));
        } else {
            let value = bytes.try_into().map(u64::from_le_bytes).map_err(|_| out_of_range())?;
            *place(&mut registers, kind).ok_or_else(out_of_range)? = value;
        }
        self.debuggee.write_registers(vcpu, &registers).map_err(refused)
    }
}

impl Guest<'_> {
    fn set_simd(
        &mut self,
        vcpu: VcpuId,
        kind: Kind,
        bytes: &[u8],
    ) -> Result<(), TargetError<crate::Error>> {
        let out_of_range = |_| refused(Refusal::BadValue.into());
        let simd = self.debuggee.support_simd().ok_or(TargetError::NonFatal)?;
        let mut registers = simd.read_simd(vcpu).map_err(refused)?;
        let word = || bytes.try_into().map(u32::from_le_bytes).map(u64::from);
        match kind {
            Kind::V(n) => {
                let value = bytes.try_into().map(u128::from_le_bytes).map_err(out_of_range)?;
                let place = registers.v.get_mut(n);
                *place.ok_or_else(|| refused(Refusal::NoSuchRegister.into()))? = value;
            }
            Kind::Fpsr => registers.fpsr = word().map_err(out_of_range)?,
            _ => registers.fpcr = word().map_err(out_of_range)?,
        }
        simd.write_simd(vcpu, &registers).map_err(refused)
    }
}

/// Tells whether a register is one of those that are read together.
pub(crate) const fn is_core(kind: Kind) -> bool {
    matches!(kind, Kind::X(_) | Kind::Sp | Kind::Pc | Kind::Pstate)
}

/// Returns a core register's value as it goes over the wire.
pub(crate) fn core_register(registers: &Registers, kind: Kind) -> Vec<u8> {
    match kind {
        Kind::X(n) => registers.x.get(n).copied().unwrap_or_default().to_le_bytes().to_vec(),
        Kind::Sp => registers.sp.to_le_bytes().to_vec(),
        Kind::Pc => registers.pc.to_le_bytes().to_vec(),
        _ => (registers.pstate as u32).to_le_bytes().to_vec(),
    }
}

/// GDB has 32 bits of PSTATE; the rest stays as it is.
pub(crate) const fn with_low_half(pstate: u64, low: u64) -> u64 {
    pstate & !0xffff_ffff | low & 0xffff_ffff
}

fn place(registers: &mut Registers, kind: Kind) -> Option<&mut u64> {
    match kind {
        Kind::X(n) => registers.x.get_mut(n),
        Kind::Sp => Some(&mut registers.sp),
        Kind::Pc => Some(&mut registers.pc),
        _ => None,
    }
}

impl SingleRegisterAccess<Tid> for Guest<'_> {
    fn read_register(
        &mut self,
        tid: Tid,
        number: RegisterNumber,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let unknown = || refused(Refusal::NoSuchRegister.into());
        let vcpu = self.vcpu_of(tid).map_err(refused)?;
        let kind = self.registers.kind(number.0).ok_or_else(unknown)?;
        let bytes = self.register(vcpu, kind)?;
        buffer.get_mut(..bytes.len()).ok_or_else(unknown)?.copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_register(
        &mut self,
        tid: Tid,
        number: RegisterNumber,
        bytes: &[u8],
    ) -> TargetResult<(), Self> {
        let vcpu = self.vcpu_of(tid).map_err(refused)?;
        let kind = self.registers.kind(number.0);
        let kind = kind.ok_or_else(|| refused(Refusal::NoSuchRegister.into()))?;
        self.set_register(vcpu, kind, bytes)
    }
}
