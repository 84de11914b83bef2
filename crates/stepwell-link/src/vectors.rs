//! FP/SIMD and SVE registers over the wire.

use crate::error::LinkError;
use crate::link::Link;
use stepwell_debuggee::{
    Error, Refusal, Simd, SimdRegisters, Sve, SveRegister, VcpuId, VectorLength,
};
use stepwell_wire::message::MAX_BYTES;
use stepwell_wire::{Answer, Command};

impl Simd for Link {
    fn read_simd(&mut self, vcpu: VcpuId) -> Result<SimdRegisters, Error> {
        let VcpuId { domain, vcpu } = vcpu;
        match self.ask(Command::ReadSimd { domain, vcpu })? {
            Answer::Simd(registers) => Ok(registers),
            _ => Err(self.fail(LinkError::WrongAnswer { command: "read-simd" }).into()),
        }
    }

    fn write_simd(&mut self, vcpu: VcpuId, registers: &SimdRegisters) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        let registers = registers.clone();
        self.done(Command::WriteSimd { domain, vcpu, registers })
    }
}

impl Sve for Link {
    fn vector_length(&mut self, vcpu: VcpuId) -> Result<VectorLength, Error> {
        let VcpuId { domain, vcpu } = vcpu;
        match self.ask(Command::VectorLength { domain, vcpu })? {
            Answer::VectorLength(length) => Ok(length),
            _ => Err(self.fail(LinkError::WrongAnswer { command: "vector-length" }).into()),
        }
    }

    fn read_sve(&mut self, vcpu: VcpuId, register: SveRegister) -> Result<Vec<u8>, Error> {
        let VcpuId { domain, vcpu } = vcpu;
        match self.ask(Command::ReadSve { domain, vcpu, register })? {
            Answer::Memory(bytes) => Ok(bytes.to_vec()),
            _ => Err(self.fail(LinkError::WrongAnswer { command: "read-sve" }).into()),
        }
    }

    fn write_sve(
        &mut self,
        vcpu: VcpuId,
        register: SveRegister,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        let bytes =
            heapless::Vec::from_slice(bytes).map_err(|_| Refusal::TooLong(MAX_BYTES as u16))?;
        self.done(Command::WriteSve { domain, vcpu, register, bytes })
    }
}
