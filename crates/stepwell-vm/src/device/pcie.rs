//! What is on the board's PCIe bus: the bridge to it, and nothing behind.
//!
//! QEMU's `virt` has a host bridge at 00:00.0 whatever else it is given. Everything else that is asked
//! for is answered with all ones, as on any PCI bus. What can be written of the bridge's configuration is
//! kept and does nothing: of its command, what QEMU's lets be; and all that a header of type 0 has no
//! meaning for.
//!
//! Source: PCI Local Bus Specification, "Configuration Space".

/// Configuration space of a conventional device: what lies behind it is not there.
const CONFIGURATION_BYTES: u64 = 256;
const CONFIGURATION_WORDS: usize = 64;
/// The words of the header.
const HEADER_WORDS: usize = 16;
/// First words of the host bridge's configuration at reset: vendor and device, status and command, class.
const BRIDGE: [u32; 12] = [0x0008_1b36, 0, 0x0600_0000, 0, 0, 0, 0, 0, 0, 0, 0, 0x1100_1af4];

const COMMAND: usize = 1;
/// I/O, memory and bus master enable, SERR# enable, interrupt disable.
const COMMAND_WRITABLE: u32 = 0x507;
const CACHE_LINE_SIZE: usize = 3;
const INTERRUPT_LINE: usize = 15;
/// Either is the lowest byte of its word.
const LOWEST_BYTE: u32 = 0xff;

/// The host bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pcie {
    configuration: [u32; CONFIGURATION_WORDS],
}

impl Default for Pcie {
    fn default() -> Self {
        let mut configuration = [0; CONFIGURATION_WORDS];
        for (word, &at_reset) in configuration.iter_mut().zip(&BRIDGE) {
            *word = at_reset;
        }
        Self { configuration }
    }
}

impl Pcie {
    /// Loads from configuration space (ECAM) at `offset`: 1, 2 or 4 bytes, aligned.
    #[must_use]
    pub fn read(&self, offset: u64, bytes: u8) -> u64 {
        let Some((n, shift)) = place(offset) else { return u64::MAX };
        let word = self.configuration.get(n).copied().unwrap_or(0);
        u64::from(word >> shift & lowest(bytes))
    }

    /// Stores into configuration space at `offset`: 1, 2 or 4 bytes, aligned.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) {
        let Some((n, shift)) = place(offset) else { return };
        let Some(word) = self.configuration.get_mut(n) else { return };
        let meant = writable(n) & lowest(bytes) << shift;
        *word = *word & !meant | (value as u32) << shift & meant;
    }
}

/// The word of the bridge's configuration at an offset, and the first bit that is meant.
fn place(offset: u64) -> Option<(usize, u32)> {
    let word = (offset < CONFIGURATION_BYTES).then_some(offset / 4)?;
    Some((usize::try_from(word).ok()?, (offset % 4 * 8) as u32))
}

const fn lowest(bytes: u8) -> u32 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

/// The bits of a word that keep what is written.
const fn writable(word: usize) -> u32 {
    match word {
        COMMAND => COMMAND_WRITABLE,
        CACHE_LINE_SIZE | INTERRUPT_LINE => LOWEST_BYTE,
        HEADER_WORDS.. => u32::MAX,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_is_alone() {
        let bus = Pcie::default();
        assert_eq!(bus.read(0, 4), 0x0008_1b36);
        assert_eq!(bus.read(2, 2), 0x0008);
        assert_eq!(bus.read(11, 1), 0x06);
        assert_eq!(bus.read(0x2c, 4), 0x1100_1af4);
        assert_eq!(bus.read(0xfc, 4), 0);
        assert_eq!(bus.read(0x100, 4), u64::MAX, "no extended configuration");
        assert_eq!(bus.read(0x8000, 4), u64::MAX, "no other device");
    }

    #[test]
    fn the_bridge_keeps_what_qemus_does() {
        let mut bus = Pcie::default();
        for offset in (0..0x108).step_by(4) {
            bus.write(offset, 4, u64::MAX);
        }
        let kept = |offset| match offset {
            0x04 => 0x507,
            0x0c | 0x3c => 0xff,
            0x00..0x40 => Pcie::default().read(offset, 4),
            0x40..0x100 => 0xffff_ffff,
            _ => u64::MAX,
        };
        for offset in (0..0x108).step_by(4) {
            assert_eq!(bus.read(offset, 4), kept(offset), "{offset:#x}");
        }
    }

    #[test]
    fn a_narrow_store_leaves_the_rest_of_its_word() {
        let mut bus = Pcie::default();
        bus.write(0x40, 4, 0x1122_3344);
        bus.write(0x41, 1, 0x5a);
        bus.write(0x42, 2, 0xabcd);
        assert_eq!(bus.read(0x40, 4), 0xabcd_5a44);
        bus.write(4, 2, 7);
        bus.write(6, 2, 0xffff);
        assert_eq!(bus.read(4, 4), 7, "the status has nothing to clear");
        bus.write(5, 1, 0xff);
        assert_eq!(bus.read(4, 2), 0x507);
    }
}
