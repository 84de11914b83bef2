//! The PL061: eight lines of general-purpose input and output.
//!
//! Line 3 is the board's power key, which nobody presses; nothing else is connected. So no input ever
//! changes, and what a guest writes of outputs it reads back.
//!
//! Source: Arm DDI 0190, "PrimeCell General Purpose Input/Output (PL061)", Programmer's model.

/// GPIODATA: which lines are meant is in bits 9 to 2 of the address.
const DATA_END: u64 = 0x400;
const DIR: u64 = 0x400;
const IS: u64 = 0x404;
const IBE: u64 = 0x408;
const IEV: u64 = 0x40c;
const IE: u64 = 0x410;
const AFSEL: u64 = 0x420;
/// GPIOPeriphID and GPIOPCellID: a byte in each word.
const IDENTITY: u64 = 0xfe0;
const IDENTITIES: [u8; 8] = [0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pl061 {
    data: u8,
    /// Outputs.
    dir: u8,
    /// GPIOIS, GPIOIBE, GPIOIEV, GPIOIE.
    interrupts: [u8; 4],
    afsel: u8,
}

impl Pl061 {
    /// Reads a register.
    #[must_use]
    pub fn read(&self, offset: u64) -> u64 {
        let value = match offset & !3 {
            at if at < DATA_END => self.data & self.dir & (at >> 2) as u8,
            DIR => self.dir,
            at @ (IS | IBE | IEV | IE) => {
                interrupt_register(at).and_then(|n| self.interrupts.get(n)).copied().unwrap_or(0)
            }
            AFSEL => self.afsel,
            at => {
                let n = at.checked_sub(IDENTITY).map(|beyond| beyond / 4);
                let n = n.and_then(|n| usize::try_from(n).ok());
                n.and_then(|n| IDENTITIES.get(n)).copied().unwrap_or(0)
            }
        };
        value.into()
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u64) {
        let value = value as u8;
        match offset & !3 {
            at if at < DATA_END => {
                let meant = (at >> 2) as u8 & self.dir;
                self.data = self.data & !meant | value & meant;
            }
            DIR => self.dir = value,
            at @ (IS | IBE | IEV | IE) => {
                if let Some(register) =
                    interrupt_register(at).and_then(|n| self.interrupts.get_mut(n))
                {
                    *register = value;
                }
            }
            AFSEL => self.afsel = value,
            _ => {}
        }
    }
}

fn interrupt_register(at: u64) -> Option<usize> {
    usize::try_from(at.checked_sub(IS)? / 4).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_keep_what_is_written_and_inputs_are_low() {
        let mut lines = Pl061::default();
        lines.write(DIR, 0x0f);
        lines.write(0x3fc, 0xff);
        assert_eq!(lines.read(0x3fc), 0x0f);
        assert_eq!(lines.read(1 << (3 + 2)), 0x08, "line 3 alone");
        lines.write(1 << 2, 0);
        assert_eq!(lines.read(0x3fc), 0x0e);
    }

    #[test]
    fn its_registers_are_there() {
        let mut lines = Pl061::default();
        for (n, at) in (1..).zip([IS, IBE, IEV, IE, AFSEL]) {
            lines.write(at, n);
            assert_eq!(lines.read(at), n);
        }
        assert_eq!(lines.read(0x414), 0, "no interrupt");
        assert_eq!(lines.read(0xfe0), 0x61);
        assert_eq!(lines.read(0xffc), 0xb1);
    }
}
