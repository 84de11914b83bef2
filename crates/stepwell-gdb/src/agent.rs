//! GDB's agent expressions: a condition as a small program for a machine with a stack.
//!
//! GDB compiles `break … if` to this bytecode and sends it along with the breakpoint, so that a hit
//! that does not count costs no round trip to GDB: it is decided here, beside the guest.
//!
//! What is here is the whole of the arithmetic, of the stack, of memory and of registers. What
//! needs more than a stopped guest (floating point, tracepoints and their variables, `printf`) is a
//! [`Fault`], as is everything that makes no sense. A program is not trusted: it ends after
//! [`STEPS_MAX`] operations, and its stack has [`STACK_MAX`] places.
//!
//! The operations and their numbers are those of the GDB manual, appendix "The GDB Agent Expression
//! Mechanism", section "Bytecode Descriptions".

/// Most operations of one evaluation: loops are possible, and each may ask the guest for memory.
const STEPS_MAX: usize = 1 << 12;
/// Most values on the stack.
const STACK_MAX: usize = 100;

/// What an expression can ask of the guest.
pub(crate) trait AgentContext {
    /// Returns a register by its number in the target description, where it has 64 bits at most.
    fn register(&mut self, number: u16) -> Option<u64>;

    /// Fills `bytes` from memory, or returns nothing where any of it cannot be read.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Option<()>;
}

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It goes on where there is no code.
    #[error("runs out of its code")]
    Code,
    /// It takes more from the stack than there is.
    #[error("takes a value from an empty stack")]
    StackEmpty,
    /// It puts more than [`STACK_MAX`] values on the stack.
    #[error("overflows the stack")]
    StackFull,
    /// It takes longer than [`STEPS_MAX`] operations.
    #[error("does not end")]
    TooLong,
    /// There is no such operation, or it is one that is not served.
    #[error("has the operation {0:#04x}, which is not served")]
    Operation(u8),
    /// It divides by zero.
    #[error("divides by zero")]
    Division,
    /// There is no such register, or it is too wide.
    #[error("reads register {0}, which cannot be")]
    Register(u16),
    /// Memory cannot be read there.
    #[error("reads memory at {0:#x}, which cannot be")]
    Memory(u64),
}

/// Returns what an expression comes to.
pub(crate) fn evaluate(code: &[u8], machine: &mut dyn AgentContext) -> Result<u64, Fault> {
    let mut run = Run { code, at: 0, stack: Vec::new() };
    for _ in 0..STEPS_MAX {
        if let Some(value) = run.operation(machine)? {
            return Ok(value);
        }
    }
    Err(Fault::TooLong)
}

struct Run<'c> {
    code: &'c [u8],
    /// Where the next operation is.
    at: usize,
    stack: Vec<u64>,
}

impl Run<'_> {
    /// Executes one operation. Returns the value of the expression where that ends it.
    fn operation(&mut self, machine: &mut dyn AgentContext) -> Result<Option<u64>, Fault> {
        let [operation] = self.operand()?;
        match operation {
            0x02..=0x09 | 0x0a | 0x0b | 0x0f..=0x11 | 0x13..=0x15 => {
                let right = self.pop()?;
                let left = self.pop()?;
                self.push(arithmetic(operation, left, right)?)?;
            }
            0x0e => self.unary(|value| u64::from(value == 0))?,
            0x12 => self.unary(|value| !value)?,
            0x16 => {
                let [bits] = self.operand()?;
                self.unary(|value| sign_extended(value, bits))?;
            }
            0x2a => {
                let [bits] = self.operand()?;
                self.unary(|value| zero_extended(value, bits))?;
            }
            0x17 => self.refer::<1>(machine)?,
            0x18 => self.refer::<2>(machine)?,
            0x19 => self.refer::<4>(machine)?,
            0x1a => self.refer::<8>(machine)?,
            0x20 => {
                let to = self.operand()?;
                if self.pop()? != 0 {
                    self.at = usize::from(u16::from_be_bytes(to));
                }
            }
            0x21 => self.at = usize::from(u16::from_be_bytes(self.operand()?)),
            0x22 => self.constant::<1>()?,
            0x23 => self.constant::<2>()?,
            0x24 => self.constant::<4>()?,
            0x25 => self.constant::<8>()?,
            0x26 => {
                let number = u16::from_be_bytes(self.operand()?);
                self.push(machine.register(number).ok_or(Fault::Register(number))?)?;
            }
            0x27 => return self.pop().map(Some),
            0x28 => self.pick(0)?,
            0x29 => drop(self.pop()?),
            0x2b => self.rotate(2)?,
            0x32 => {
                let [depth] = self.operand()?;
                self.pick(usize::from(depth))?;
            }
            0x33 => self.rotate(3)?,
            _ => return Err(Fault::Operation(operation)),
        }
        Ok(None)
    }

    /// Takes the next bytes of the code.
    fn operand<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.code.get(self.at..).and_then(<[u8]>::first_chunk).ok_or(Fault::Code)?;
        self.at += N;
        Ok(*bytes)
    }

    fn pop(&mut self) -> Result<u64, Fault> {
        self.stack.pop().ok_or(Fault::StackEmpty)
    }

    fn push(&mut self, value: u64) -> Result<(), Fault> {
        if self.stack.len() >= STACK_MAX {
            return Err(Fault::StackFull);
        }
        self.stack.push(value);
        Ok(())
    }

    fn unary(&mut self, change: impl FnOnce(u64) -> u64) -> Result<(), Fault> {
        let value = self.pop()?;
        self.push(change(value))
    }

    /// Pushes a number from the code: most significant byte first, without a sign.
    fn constant<const N: usize>(&mut self) -> Result<(), Fault> {
        let bytes: [u8; N] = self.operand()?;
        self.push(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Replaces an address by what is there, in the guest's order of bytes.
    fn refer<const N: usize>(&mut self, machine: &mut dyn AgentContext) -> Result<(), Fault> {
        let address = self.pop()?;
        let mut bytes = [0; N];
        machine.read(address, &mut bytes).ok_or(Fault::Memory(address))?;
        self.push(bytes.iter().rfold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Copies the value under `depth` others to the top.
    fn pick(&mut self, depth: usize) -> Result<(), Fault> {
        let value = self.stack.iter().nth_back(depth).copied().ok_or(Fault::StackEmpty)?;
        self.push(value)
    }

    /// Moves the top under the `count - 1` values below it.
    fn rotate(&mut self, count: usize) -> Result<(), Fault> {
        let first = self.stack.len().checked_sub(count).ok_or(Fault::StackEmpty)?;
        self.stack.get_mut(first..).unwrap_or_default().rotate_right(1);
        Ok(())
    }
}

/// The operations that take two values.
fn arithmetic(operation: u8, left: u64, right: u64) -> Result<u64, Fault> {
    let signed = (left.cast_signed(), right.cast_signed());
    let divisor = || if right == 0 { Err(Fault::Division) } else { Ok(right) };
    // A shift by more bits than there are leaves none; a count is never negative.
    let count = u32::try_from(right).unwrap_or(u32::MAX);
    Ok(match operation {
        0x02 => left.wrapping_add(right),
        0x03 => left.wrapping_sub(right),
        0x04 => left.wrapping_mul(right),
        0x05 => signed.0.wrapping_div(divisor()?.cast_signed()).cast_unsigned(),
        0x06 => left / divisor()?,
        0x07 => signed.0.wrapping_rem(divisor()?.cast_signed()).cast_unsigned(),
        0x08 => left % divisor()?,
        0x09 => left.checked_shl(count).unwrap_or_default(),
        0x0a => (signed.0 >> count.min(63)).cast_unsigned(),
        0x0b => left.checked_shr(count).unwrap_or_default(),
        0x0f => left & right,
        0x10 => left | right,
        0x11 => left ^ right,
        0x13 => u64::from(left == right),
        0x14 => u64::from(signed.0 < signed.1),
        0x15 => u64::from(left < right),
        other => return Err(Fault::Operation(other)),
    })
}

/// Takes the low `bits` for a signed number. As wide as the stack or wider changes nothing.
fn sign_extended(value: u64, bits: u8) -> u64 {
    match 64_u32.checked_sub(u32::from(bits)) {
        Some(64) => 0,
        Some(unused) => ((value << unused).cast_signed() >> unused).cast_unsigned(),
        None => value,
    }
}

/// Clears all but the low `bits`.
fn zero_extended(value: u64, bits: u8) -> u64 {
    value & !u64::MAX.checked_shl(u32::from(bits)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
