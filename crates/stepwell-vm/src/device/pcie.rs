//! What is on the board's PCIe bus: the bridge to it, and nothing behind.
//!
//! QEMU's `virt` has a host bridge at 00:00.0 whatever else it is given. Everything else that is asked
//! for is answered with all ones, as on any PCI bus.

/// Configuration space of a conventional device: what lies behind it is not there.
const CONFIGURATION_BYTES: u64 = 256;
/// First bytes of the host bridge's configuration: vendor and device, status and command, class.
const BRIDGE: [u32; 12] = [0x0008_1b36, 0, 0x0600_0000, 0, 0, 0, 0, 0, 0, 0, 0, 0x1100_1af4];

/// Loads from configuration space (ECAM) at `offset`: 1, 2 or 4 bytes, aligned.
#[must_use]
pub fn read_configuration(offset: u64, bytes: u8) -> u64 {
    if offset >= CONFIGURATION_BYTES {
        return u64::MAX;
    }
    let word = usize::try_from(offset / 4).ok().and_then(|n| BRIDGE.get(n)).copied().unwrap_or(0);
    let value = u64::from(word) >> (offset % 4 * 8);
    match bytes {
        1 => value & 0xff,
        2 => value & 0xffff,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_is_alone() {
        assert_eq!(read_configuration(0, 4), 0x0008_1b36);
        assert_eq!(read_configuration(2, 2), 0x0008);
        assert_eq!(read_configuration(11, 1), 0x06);
        assert_eq!(read_configuration(0x2c, 4), 0x1100_1af4);
        assert_eq!(read_configuration(0xfc, 4), 0);
        assert_eq!(read_configuration(0x100, 4), u64::MAX, "no extended configuration");
        assert_eq!(read_configuration(0x8000, 4), u64::MAX, "no other device");
    }
}
