//! U-Boot, which copies itself from where it begins to the end of RAM.
//!
//! `_main` (arch/arm/lib/crt0_64.S) loads the two places that board_init_f has chosen, `gd->reloc_off`
//! to X9 for its return address and `gd->relocaddr` to X0, and goes to `relocate_code`. The data it
//! reads moves from version to version, the registers have been these for as long as there is U-Boot
//! for arm64. So the guest is stopped at that branch.

use super::Notice;
use std::ops::Range;
use stepwell_arch::Ipa;
use stepwell_debuggee::{Debuggee, Error, Place, Refusal, Stop, StopReason, VcpuId};

/// Instructions, the bits of them that are compared, in their order: `ldr x9, [x18, #…]`,
/// `add x30, x30, x9`, `ldr x0, [x18, #…]`, `b …`. X18 is `gd`.
const MOVE: [(u32, u32); 4] = [
    (0xf940_0249, 0xffc0_03ff),
    (0x8b09_03de, 0xffff_ffff),
    (0xf940_0240, 0xffc0_03ff),
    (0x1400_0000, 0xfc00_0000),
];

/// Returns how far into an image the branch is that U-Boot moves itself by, if that is U-Boot's.
#[must_use]
pub fn move_of(image: &[u8]) -> Option<u64> {
    let words: Vec<u32> = image
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let is_move = |window: &[u32]| {
        window.iter().zip(MOVE).all(|(word, (wanted, mask))| word & mask == wanted)
    };
    let mut found = words.windows(MOVE.len()).enumerate().filter(|(_, window)| is_move(window));
    let (index, _) = found.next()?;
    found.next().is_none().then_some((index + MOVE.len() - 1) as u64 * 4)
}

/// U-Boot that is about to move.
#[derive(Clone, Debug)]
pub(super) struct UBoot {
    /// The branch.
    pub at: Ipa,
    /// Where it can move to.
    pub ram: Range<u64>,
}

impl UBoot {
    pub fn arm(&self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<(), Error> {
        match debuggee.set_breakpoint(vcpu.domain, Place::Ipa(self.at)) {
            Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
            result => result,
        }
    }

    pub fn notice(&self, debuggee: &mut dyn Debuggee, stop: Stop) -> Result<Notice, Error> {
        // Addresses are what the guest takes for physical as long as it has not moved.
        if stop.reason != StopReason::Breakpoint || stop.pc.0 != self.at.0 {
            return Ok(Notice::Foreign);
        }
        let [to, ..] = debuggee.read_registers(stop.vcpu)?.x;
        if !self.ram.contains(&to) {
            return Ok(Notice::Passed);
        }
        debuggee.clear_breakpoint(stop.vcpu.domain, Place::Ipa(self.at))?;
        Ok(Notice::Placed(Ipa(to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: Range<u64> = 0x4000_0000..0x6000_0000;

    #[test]
    fn the_branch_is_found_where_there_is_one() {
        let code = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        // As in Debian's 2023.01, from `ldr x9, [x18, #152]` on.
        let whole = [0xd503_201f, 0xf940_4e49, 0x8b09_03de, 0xf940_3a40, 0x1400_0041, 0xd65f_03c0];
        assert_eq!(move_of(&code(&whole)), Some(16));
        assert_eq!(move_of(&code(&whole[2..])), None);
        assert_eq!(move_of(&code(&[whole, whole].concat())), None, "which of them?");
        assert_eq!(move_of(b"abc"), None);
    }

    #[test]
    fn it_moves_to_where_x0_says_if_that_is_ram() {
        use stepwell_debuggee::{contract, fake::Fake};
        let notice = |to| {
            let mut fake = Fake::new(&contract::guest_bytes());
            let u_boot = UBoot { at: Ipa(contract::ENTRY.0), ram: RAM };
            u_boot.arm(&mut fake, VcpuId::default()).unwrap();
            u_boot.arm(&mut fake, VcpuId::default()).unwrap();
            let mut registers = fake.read_registers(VcpuId::default()).unwrap();
            registers.x[0] = to;
            fake.write_registers(VcpuId::default(), &registers).unwrap();
            let stop = Stop {
                vcpu: VcpuId::default(),
                reason: StopReason::Breakpoint,
                pc: contract::ENTRY,
                steps: 0,
            };
            let foreign = Stop { pc: contract::CALL, ..stop };
            assert_eq!(u_boot.notice(&mut fake, foreign).unwrap(), Notice::Foreign);
            u_boot.notice(&mut fake, stop).unwrap()
        };
        assert_eq!(notice(0x5ff0_0000), Notice::Placed(Ipa(0x5ff0_0000)));
        assert_eq!(notice(0x7ff0_0000), Notice::Passed);
    }
}
