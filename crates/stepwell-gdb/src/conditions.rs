//! Conditions of breakpoints: kept with them, and evaluated where they are hit.
//!
//! A client that is told `ConditionalBreakpoints+` sends them behind a `Z0` or `Z1` packet, as
//! bytecode (GDB manual, "Packets"): `Z0,ADDR,KIND;XLEN,HEX;XLEN,HEX`. `gdbstub` announces nothing
//! of the kind and reads no further than KIND; so the session takes them off such a packet before
//! it hands it on, and [`Guest`] takes them up when the breakpoint is set.
//!
//! They are evaluated here and not at EL2: what a hit costs is the way out of the guest and the way
//! back for all of its vCPUs, beside which it does not matter who computes.

use crate::agent::{self, AgentContext};
use crate::breakpoints::Sort;
use crate::guest::Guest;
use crate::registers::{core_register, is_core};
use std::rc::Rc;
use stepwell_arch::Va;
use stepwell_debuggee::{Debuggee, Error, Refusal, VcpuId};

/// Most bytes of conditions that a client may leave with us.
const BYTES_MAX: usize = 1 << 20;

/// The conditions of one breakpoint. With none, every hit counts; with some, those where any is
/// true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions(Rc<[Box<[u8]>]>);

impl Conditions {
    /// Splits a `Z0` or `Z1` packet before what comes with the breakpoint, if anything does.
    pub(crate) fn split(packet: &[u8]) -> Option<(&[u8], &[u8])> {
        if !packet.starts_with(b"Z0,") && !packet.starts_with(b"Z1,") {
            return None;
        }
        let at = packet.iter().position(|&byte| byte == b';')?;
        packet.split_at_checked(at)
    }

    /// Reads what comes with a breakpoint. Nothing where that is anything but conditions.
    pub(crate) fn parse(tail: &[u8]) -> Option<Self> {
        // The manual has a semicolon between two of them, and GDB writes none.
        let mut parts = tail.split(|&byte| byte == b'X');
        if parts.next() != Some(b";") {
            return None;
        }
        parts.map(condition).collect::<Option<_>>().map(Self)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn size(&self) -> usize {
        self.0.iter().map(|code| code.len()).sum()
    }
}

/// Reads `LEN,HEX`.
fn condition(text: &[u8]) -> Option<Box<[u8]>> {
    let text = std::str::from_utf8(text.strip_suffix(b";").unwrap_or(text)).ok()?;
    let (length, digits) = text.split_once(',')?;
    let length = usize::from_str_radix(length, 16).ok()?;
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let code = pairs.iter().map(|[high, low]| Some((16 * digit(*high)? + digit(*low)?) as u8));
    let code = code.collect::<Option<Box<[u8]>>>()?;
    (rest.is_empty() && code.len() == length).then_some(code)
}

impl Guest<'_> {
    /// Takes up the conditions that came with a packet, for the breakpoint that it sets.
    pub(crate) fn take_conditions(&mut self, va: u64, sort: Sort) -> Result<Conditions, Error> {
        let conditions = std::mem::take(&mut self.breakpoints.arriving);
        let replaced = self.breakpoints.conditions(va, sort).map_or(0, Conditions::size);
        let kept = self.breakpoints.condition_bytes.saturating_sub(replaced);
        if kept + conditions.size() > BYTES_MAX {
            return Err(Refusal::NoMemory.into());
        }
        Ok(conditions)
    }

    /// Tells whether a breakpoint that was hit counts: whether the client has one at that address
    /// without conditions, or with one that is true. One that cannot be evaluated counts, so that
    /// somebody learns of it.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    pub(crate) fn is_hit(&mut self, vcpu: VcpuId, pc: Va) -> Result<bool, Error> {
        let mut is_hit = false;
        if self.breakpoints.at(pc).is_none() || !self.is_in_scope(vcpu, pc)? {
            return Ok(false);
        }
        for sort in [Sort::Software, Sort::Hardware] {
            let Some(conditions) = self.breakpoints.conditions(pc.0, sort).cloned() else {
                continue;
            };
            let counts = conditions.0.is_empty() || self.is_any_true(&conditions, vcpu, pc);
            self.breakpoints.tally(pc.0, sort, counts);
            is_hit |= counts;
        }
        Ok(is_hit)
    }

    fn is_any_true(&mut self, conditions: &Conditions, vcpu: VcpuId, pc: Va) -> bool {
        let mut machine = StoppedVcpu { guest: self, vcpu, registers: None };
        conditions.0.iter().any(|code| match agent::evaluate(code, &mut machine) {
            Ok(value) => value != 0,
            Err(fault) => {
                let note = format!("the condition of the breakpoint at {:#x} {fault}", pc.0);
                machine.guest.services.note(&note);
                true
            }
        })
    }
}

/// A stopped vCPU, for the evaluation of conditions.
struct StoppedVcpu<'g, 'd> {
    guest: &'g mut Guest<'d>,
    vcpu: VcpuId,
    /// The core registers, once one of them was wanted.
    registers: Option<stepwell_debuggee::Registers>,
}

impl AgentContext for StoppedVcpu<'_, '_> {
    fn register(&mut self, number: u16) -> Option<u64> {
        let kind = self.guest.registers.kind(usize::from(number))?;
        if self.registers.is_none() && is_core(kind) {
            self.registers = self.guest.debuggee.read_registers(self.vcpu).ok();
        }
        let bytes = match &self.registers {
            Some(registers) if is_core(kind) => core_register(registers, kind),
            _ => self.guest.register(self.vcpu, kind).ok()?,
        };
        let mut value = [0; 8];
        value.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(u64::from_le_bytes(value))
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let length = bytes.len();
        let read = self.guest.read_virtual(self.vcpu, address, bytes).ok()?;
        (read == length).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(packet: &str) -> Option<(String, Vec<Vec<u8>>)> {
        let (head, tail) = Conditions::split(packet.as_bytes())?;
        let conditions = Conditions::parse(tail)?;
        let head = String::from_utf8(head.to_vec()).unwrap();
        Some((head, conditions.0.iter().map(|code| code.to_vec()).collect()))
    }

    #[test]
    fn conditions_are_taken_off_their_packet() {
        let two = vec![vec![0x22, 0x01, 0x27], vec![0x22, 0x58]];
        let head = "Z0,ffff800008010000,4".to_owned();
        for tail in [";X3,220127X2,2258", ";X3,220127;X2,2258", ";X3,220127X2,2258;"] {
            assert_eq!(
                parsed(&format!("{head}{tail}")),
                Some((head.clone(), two.clone())),
                "{tail}"
            );
        }
        assert_eq!(parsed("Z1,0,4;X0,"), Some(("Z1,0,4".to_owned(), vec![vec![]])));
    }

    #[test]
    fn what_else_comes_along_is_not_taken_for_conditions() {
        for packet in ["Z0,0,4", "Z2,0,4;X1,27", "z0,0,4;X1,27", "m0,4;X1,27", ""] {
            assert_eq!(Conditions::split(packet.as_bytes()), None, "{packet}");
        }
        for tail in [
            ";X",
            ";X1",
            ";X1,",
            ";X1,2",
            ";X1,2727",
            ";X1,zz",
            ";Xg,27",
            ";Y1,27",
            ";;X1,27",
            ";cmds:0,X1,27",
            ";X1,27;cmds:0,X1,27",
            ";X1,27X",
            ";X1,+7",
            ";X-1,27",
        ] {
            let packet = format!("Z0,0,4{tail}");
            assert!(Conditions::split(packet.as_bytes()).is_some(), "{tail}");
            assert_eq!(parsed(&packet), None, "{tail}");
        }
    }
}
