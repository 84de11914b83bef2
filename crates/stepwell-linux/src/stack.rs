//! Call stacks: where a task is in the kernel, and how it came there.
//!
//! Arm64 kernels keep frame records (X29 points to the caller's X29 and the return address), across
//! exceptions and from a CPU's stack for interrupts to a task's own. The last record of a task that
//! came from a program lies in the registers that were saved at its entry (`struct pt_regs`).
//!
//! Source: Arm, Procedure Call Standard for the Arm 64-bit Architecture, "The Frame Pointer".

use crate::btf::{Field, field};
use crate::{Btf, Error, Kernel, Memory};
use std::collections::HashSet;

/// Most frames that are followed.
const FRAMES_MAX: usize = 128;
/// The bit of an address that tells the kernel's half, also of one that carries a signature.
const UPPER_HALF: u64 = 1 << 55;
/// What is signature in a signed return address, or all ones. The kernel and its modules lie where
/// 48 bits lead, however many it uses for data.
const SIGNATURE: u64 = 0xffff << 48;

/// Where a task's saved registers are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    fp: Field,
    pc: Field,
    /// The record and the program counter within `struct pt_regs`.
    record: Field,
    user_pc: Field,
    user_pstate: Field,
}

impl Layout {
    pub(crate) fn new(btf: &Btf) -> Result<Self, Error> {
        Ok(Self {
            fp: field(btf, "task_struct", &["thread.cpu_context.fp"])?,
            pc: field(btf, "task_struct", &["thread.cpu_context.pc"])?,
            record: field(btf, "pt_regs", &["stackframe"])?,
            user_pc: field(btf, "pt_regs", &["pc"])?,
            user_pstate: field(btf, "pt_regs", &["pstate"])?,
        })
    }
}

/// A task's way through the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// Where each function goes on once what it called returns, the innermost first. The first is
    /// where the task is.
    pub frames: Vec<u64>,
    /// Where its program is, for one that came from a program.
    pub program: Option<u64>,
    /// Whether there was more, or it could not be followed.
    pub is_cut: bool,
}

/// Where a stack begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// The next instruction.
    pub pc: u64,
    /// X30, where it may be the way back of a function that has no record.
    pub lr: Option<u64>,
    /// X29.
    pub fp: u64,
}

impl Top {
    /// Reads that of a task that is on no CPU.
    ///
    /// # Errors
    ///
    /// [`Error::NoMember`], and those of `memory`.
    pub fn of_sleeper(kernel: &Kernel, memory: &mut dyn Memory, task: u64) -> Result<Self, Error> {
        let layout = kernel.stack_layout()?;
        let (pc, fp) = (layout.pc.read(memory, task)?, layout.fp.read(memory, task)?);
        Ok(Self { pc, lr: None, fp })
    }
}

/// Follows a stack from its top.
///
/// # Errors
///
/// [`Error::NoMember`]; [`Error::Debuggee`] where the debuggee is lost. What cannot be followed is
/// cut.
pub fn follow(kernel: &Kernel, memory: &mut dyn Memory, top: Top) -> Result<Stack, Error> {
    let layout = kernel.stack_layout()?;
    let mut stack = Stack { frames: vec![top.pc], ..Stack::default() };
    stack.frames.extend(top.lr.map(unsigned));
    let (mut fp, mut seen) = (top.fp, HashSet::new());
    loop {
        let is_sound = fp & UPPER_HALF != 0 && fp % 8 == 0 && seen.insert(fp);
        if !is_sound || stack.frames.len() >= FRAMES_MAX {
            stack.is_cut = true;
            return Ok(stack);
        }
        match record(memory, fp) {
            Ok((0, 0)) => {
                let registers = fp.wrapping_sub(layout.record.offset);
                stack.program = program(layout, memory, registers)?;
                return Ok(stack);
            }
            Ok((next, back)) => {
                stack.frames.push(unsigned(back));
                fp = next;
            }
            Err(error) if error.is_fatal() => return Err(error),
            Err(_) => {
                stack.is_cut = true;
                return Ok(stack);
            }
        }
    }
}

fn record(memory: &mut dyn Memory, fp: u64) -> Result<(u64, u64), Error> {
    Ok((memory.read_u64(fp)?, memory.read_u64(fp.wrapping_add(8))?))
}

/// Returns where the program is whose registers are saved there; nothing for a thread of the
/// kernel's, whose first record lies elsewhere.
fn program(layout: &Layout, memory: &mut dyn Memory, registers: u64) -> Result<Option<u64>, Error> {
    let mut read = |field: &Field| field.read(memory, registers);
    let found = read(&layout.user_pc).and_then(|pc| Ok((pc, read(&layout.user_pstate)?)));
    match found {
        // EL0, and an address of its half.
        Ok((pc, pstate)) if pstate & 0xf == 0 && pc & UPPER_HALF == 0 && pc != 0 => Ok(Some(pc)),
        Err(error) if error.is_fatal() => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Takes the signature off a return address.
const fn unsigned(address: u64) -> u64 {
    if address & UPPER_HALF != 0 { address | SIGNATURE } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{HEAP, Sparse, kernel, memory};

    const CODE: u64 = 0xffff_8000_0800_1000;

    fn stack(memory: &mut Sparse, fp: u64) -> Stack {
        follow(&kernel(), memory, Top { pc: CODE, lr: None, fp }).unwrap()
    }

    #[test]
    fn records_lead_to_the_program() {
        let (fp, mut memory) = (HEAP + 0x9000, memory());
        memory.write_u64(fp, fp + 0x100);
        memory.write_u64(fp + 8, 0x00aa_8000_0800_2000 | UPPER_HALF);
        // The saved registers: pc, pstate, and the record behind them.
        memory.write(fp + 0xf0, &[0; 0x20]);
        memory.write_u64(fp + 0xf0, 0x40_1234);
        let found = stack(&mut memory, fp);
        assert_eq!(found.frames, [CODE, 0xffff_8000_0800_2000]);
        assert_eq!((found.program, found.is_cut), (Some(0x40_1234), false));
        // A thread of the kernel's has no program.
        memory.write_u64(fp + 0xf0, CODE);
        assert_eq!(stack(&mut memory, fp).program, None);
    }

    #[test]
    fn circles_garbage_and_depth_end() {
        let (fp, mut memory) = (HEAP + 0x9000, memory());
        memory.write_u64(fp, fp);
        memory.write_u64(fp + 8, CODE);
        assert_eq!(stack(&mut memory, fp).frames, [CODE, CODE]);
        assert!(stack(&mut memory, 0x1000).is_cut && stack(&mut memory, u64::MAX).is_cut);
        for number in 0..1000 {
            let record = fp + 0x1000 + 16 * number;
            memory.write_u64(record, record + 16);
            memory.write_u64(record + 8, CODE);
        }
        let deep = stack(&mut memory, fp + 0x1000);
        assert_eq!((deep.frames.len(), deep.is_cut), (FRAMES_MAX, true));
    }

    #[test]
    fn a_sleeper_stands_where_it_was_switched_away_from() {
        let mut memory = memory();
        memory.write_u64(HEAP + 112, HEAP + 0x9000);
        memory.write_u64(HEAP + 120, CODE);
        let top = Top::of_sleeper(&kernel(), &mut memory, HEAP).unwrap();
        assert_eq!(top, Top { pc: CODE, lr: None, fp: HEAP + 0x9000 });
    }
}
