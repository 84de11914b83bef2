//! Steps that GDB hides from us: its own way over exclusive sequences.
//!
//! GDB knows that a load-exclusive whose store-exclusive comes a step later never makes progress
//! under a debugger, and no server can tell it otherwise. So at a load-exclusive, and at LDAR,
//! which it takes for one, it does not say "step": it sets a breakpoint behind the next store of
//! that kind and says "continue". Where the code leaves the sequence on the way (the loops of a
//! queued spin lock do), the thread runs off, and comes back who knows where.
//!
//! Here a store-exclusive that is stepped to succeeds, so a step is what such a `continue` is
//! taken for: one of a thread that is stopped at a load of that class, with a breakpoint behind the
//! store which was not there when the guest went last. GDB finds its thread one instruction on,
//! which is what it wanted.

use crate::Error;
use crate::guest::Guest;
use stepwell_arch::Va;
use stepwell_debuggee::{Debuggee, Place, Refusal, VcpuId};

/// Instructions behind the load among which GDB looks for the store.
const LONGEST: usize = 16;
const BYTES: usize = 4;

/// Tells whether an instruction is of the class "load/store exclusive" and ordered, but for the
/// compare-and-swaps in it, and whether it loads (DDI 0487 L.b, "Load/store exclusive register",
/// "Load/store exclusive pair", "Load/store ordered").
const fn loads(word: u32) -> Option<bool> {
    let is_class = word >> 24 & 0x3f == 0b00_1000;
    let is_pair = word >> 21 & 1 == 1;
    let is_swap = is_pair && (word >> 23 & 1 == 1 || word >> 31 == 0);
    if is_class && !is_swap { Some(word >> 22 & 1 == 1) } else { None }
}

/// How far behind a load of the class the instruction after its store is, in bytes.
fn length(words: impl IntoIterator<Item = u32>) -> Option<u64> {
    let mut words = words.into_iter();
    if loads(words.next()?) != Some(true) {
        return None;
    }
    let store = words.take(LONGEST).position(|word| loads(word) == Some(false))?;
    Some((store as u64 + 2) * BYTES as u64)
}

impl Guest<'_> {
    /// The vCPU that a `continue` of `threads` is to step.
    pub(crate) fn stepped_by_breakpoint(
        &mut self,
        threads: &[u8],
    ) -> Result<Option<VcpuId>, Error> {
        let found = self.find_stepped(threads)?;
        self.breakpoints.going(found.map(|(_, mark)| mark));
        Ok(found.map(|(vcpu, _)| vcpu))
    }

    fn find_stepped(&mut self, threads: &[u8]) -> Result<Option<(VcpuId, u64)>, Error> {
        if !self.breakpoints.has_new() {
            return Ok(None);
        }
        // GDB reads the sequence as the thread that it steps: others may be stopped at the same load,
        // or at one whose breakpoint is where GDB has set one for this thread.
        let vcpu = VcpuId { domain: self.domain, vcpu: self.looked_at };
        if !threads.contains(&vcpu.vcpu) {
            return Ok(None);
        }
        match self.mark_of(vcpu) {
            Ok(found) => Ok(found.map(|mark| (vcpu, mark))),
            Err(stepwell_debuggee::Error::Refused(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where GDB would have set a breakpoint to step a vCPU, if it just has.
    fn mark_of(&mut self, vcpu: VcpuId) -> Result<Option<u64>, stepwell_debuggee::Error> {
        let registers = self.debuggee.read_registers(vcpu)?;
        if stepwell_arch::Pstate(registers.pstate).is_aarch32() {
            return Err(Refusal::AArch32.into());
        }
        let mut bytes = [0; (LONGEST + 1) * BYTES];
        let read = self.read(vcpu, Place::Va(Va(registers.pc)), &mut bytes)?;
        let words = bytes.get(..read).unwrap_or_default().chunks_exact(BYTES);
        let words = words.filter_map(|word| word.first_chunk().copied().map(u32::from_le_bytes));
        let mark = length(words).map(|length| registers.pc.wrapping_add(length));
        Ok(mark.filter(|&mark| self.breakpoints.is_new(mark)))
    }
}

#[cfg(test)]
mod tests {
    use super::{length, loads};

    const LDXR: u32 = 0xc85f_7c20; // ldxr x0, [x1]
    const STXR: u32 = 0xc802_7c20; // stxr w2, x0, [x1]
    const NOP: u32 = 0xd503_201f;

    #[test]
    fn what_gdb_takes_for_a_sequence() {
        let (ldar, stlr, ldaxp, stlxp) = (0x88df_fc20, 0x889f_fc20, 0xc87f_8420, 0xc822_8420);
        assert_eq!([LDXR, ldar, ldaxp].map(loads), [Some(true); 3]);
        assert_eq!([STXR, stlr, stlxp].map(loads), [Some(false); 3]);
        let (cas, casp, casal, ldr) = (0xc8a0_7c41, 0x4820_7c82, 0x88e0_fc41, 0xf940_0020);
        assert_eq!([cas, casp, casal, ldr, NOP].map(loads), [None; 5]);
    }

    #[test]
    fn the_store_is_looked_for_as_far_as_gdb_does() {
        let with = |nops: usize| {
            let nops = std::iter::repeat_n(NOP, nops);
            length(std::iter::once(LDXR).chain(nops).chain([STXR]))
        };
        assert_eq!(with(0), Some(8));
        assert_eq!(with(15), Some(4 * 17));
        assert_eq!(with(16), None);
        assert_eq!(length([NOP, LDXR, STXR]), None);
        assert_eq!(length([LDXR, NOP]), None);
        assert_eq!(length([LDXR, LDXR, STXR]), Some(12));
        assert_eq!(length([]), None);
    }
}
