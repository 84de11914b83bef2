//! The PL061: eight lines of general-purpose input and output.
//!
//! Line 3 is the board's power key, which nobody presses; nothing else is connected. So nothing from
//! outside changes a line. What a guest has written of an output stays on the line when it becomes an
//! input, as in QEMU's model, which takes that for an edge.
//!
//! Source: Arm DDI 0190, "PrimeCell General Purpose Input/Output (PL061)", Programmer's model.

/// GPIODATA: which lines are meant is in bits 9 to 2 of the address.
const DATA_END: u64 = 0x400;
const DIR: u64 = 0x400;
const IS: u64 = 0x404;
const IBE: u64 = 0x408;
const IEV: u64 = 0x40c;
const IE: u64 = 0x410;
const RIS: u64 = 0x414;
const MIS: u64 = 0x418;
const IC: u64 = 0x41c;
const AFSEL: u64 = 0x420;
/// GPIOPeriphID and GPIOPCellID: a byte in each word.
const IDENTITY: u64 = 0xfe0;
const IDENTITIES: [u8; 8] = [0x61, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pl061 {
    data: u8,
    /// What the lines were when edges were last looked for.
    seen: u8,
    /// Outputs.
    dir: u8,
    /// GPIOIS: interrupts by level, not by edge.
    by_level: u8,
    /// GPIOIBE: interrupts by either edge.
    by_both_edges: u8,
    /// GPIOIEV: interrupts by the high level or the rising edge.
    by_high: u8,
    /// GPIOIE: interrupts that are not masked.
    enabled: u8,
    /// GPIORIS.
    raised: u8,
    afsel: u8,
}

impl Pl061 {
    /// Reads a register. But for data and identity, an access within a word reaches none.
    #[must_use]
    pub fn read(&self, offset: u64) -> u64 {
        let value = match offset {
            at if at < DATA_END => self.data & (at >> 2) as u8,
            DIR => self.dir,
            IS => self.by_level,
            IBE => self.by_both_edges,
            IEV => self.by_high,
            IE => self.enabled,
            RIS => self.raised,
            MIS => self.raised & self.enabled,
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
        match offset {
            at if at < DATA_END => {
                let meant = (at >> 2) as u8 & self.dir;
                self.data = self.data & !meant | value & meant;
            }
            DIR => self.dir = value,
            IS => self.by_level = value,
            IBE => self.by_both_edges = value,
            IEV => self.by_high = value,
            IE => self.enabled = value,
            IC => self.raised &= !value,
            AFSEL => self.afsel = value,
            _ => return,
        }
        self.look();
    }

    /// The level of GPIOINTR.
    #[must_use]
    pub const fn line(&self) -> bool {
        self.raised & self.enabled != 0
    }

    /// Raises what edges and levels raise. Levels are those of outputs, too.
    const fn look(&mut self) {
        let at_level = !(self.data ^ self.by_high);
        let changed = (self.seen ^ self.data) & !self.dir;
        if changed != 0 {
            self.seen = self.data;
            self.raised |= changed & !self.by_level & (self.by_both_edges | at_level);
        }
        self.raised |= at_level & self.by_level;
    }
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
        assert_eq!(lines.read(0xfe0), 0x61);
        assert_eq!(lines.read(0xffc), 0xb1);
    }

    #[test]
    fn a_level_raises_its_interrupt_again_and_again() {
        let mut lines = Pl061::default();
        lines.write(IS, 0xff);
        assert_eq!((lines.read(RIS), lines.line()), (0xff, false), "all are low, and masked");
        lines.write(IE, 0xf0);
        assert_eq!((lines.read(MIS), lines.line()), (0xf0, true));
        lines.write(IC, 0xff);
        assert_eq!(lines.read(RIS), 0xff, "they are still low");
        lines.write(IEV, 0xff);
        assert_eq!(lines.read(RIS), 0xff, "what is raised stays");
        lines.write(IC, 0xff);
        assert_eq!((lines.read(RIS), lines.line()), (0, false));
    }

    #[test]
    fn an_output_that_becomes_an_input_stays_as_it_is_and_is_an_edge() {
        let becomes_input = |both: u64, event: u64| {
            let mut lines = Pl061::default();
            lines.write(IBE, both);
            lines.write(IEV, event);
            lines.write(DIR, 0xff);
            lines.write(0x3fc, 0xa5);
            assert_eq!((lines.read(0x3fc), lines.read(RIS)), (0xa5, 0), "outputs have no edges");
            lines.write(DIR, 0x0f);
            assert_eq!(lines.read(0x3fc), 0xa5);
            lines.read(RIS)
        };
        assert_eq!(becomes_input(0, 0xff), 0xa0, "they have risen");
        assert_eq!(becomes_input(0, 0), 0, "they have not fallen");
        assert_eq!(becomes_input(0xff, 0), 0xa0);
    }

    #[test]
    fn an_access_within_a_word_reaches_data_and_identity_alone() {
        let mut lines = Pl061::default();
        lines.write(IBE, 0xff);
        for within in 1..4 {
            lines.write(IBE + within, 0x33);
            assert_eq!((lines.read(IBE + within), lines.read(IBE)), (0, 0xff));
            assert_eq!(lines.read(0xfe0 + within), 0x61);
        }
        lines.write(DIR, 0xff);
        lines.write(0x3fd, 0xa5);
        assert_eq!(lines.read(0x3fe), 0xa5);
    }
}
