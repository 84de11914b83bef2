//! The debugger's breakpoints and watchpoints beside the guest's own in the CPU's registers.
//!
//! The guest's stay at their numbers, because others of them name these: a linked breakpoint or
//! watchpoint has the number of the breakpoint that it is linked to (LBN), and only the last of the
//! breakpoints can compare contexts. Ours compare addresses and go wherever the guest has none
//! enabled; where that is not enough, they displace the guest's, those that nothing is linked to
//! first. A guest's that is linked to a displaced one is left out with it: it would go by ours.
//!
//! Source: Arm ARM, DDI 0487 L.b, `DBGBCR<n>_EL1` and `DBGWCR<n>_EL1`, LBN, BT and WT.

use crate::bit_field::{bit, field};

/// Most breakpoints or watchpoints of a CPU.
pub const BANK: usize = 16;

/// Value and control of one register pair.
pub type Pair = (u64, u64);

/// What the CPU's registers are to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// By number.
    pub pairs: [Pair; BANK],
    /// The numbers of the guest's enabled ones that are not among them: one bit each.
    pub displaced: u16,
}

/// Which kind of register pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DBGBVR and DBGBCR.
    Breakpoint,
    /// DBGWVR and DBGWCR.
    Watchpoint,
}

const fn is_enabled((_, control): Pair) -> bool {
    bit(control, 0)
}

/// The breakpoint that an enabled pair is linked to: BT 0b0001 and 0b0101, or WT.
const fn linked_to(pair: Pair, kind: Kind) -> Option<u32> {
    let (_, control) = pair;
    let is_linked = match kind {
        Kind::Breakpoint => matches!(field(control, 23, 20), 0b0001 | 0b0101),
        Kind::Watchpoint => bit(control, 20),
    };
    if is_linked && is_enabled(pair) { Some(field(control, 19, 16) as u32) } else { None }
}

/// The numbers that enabled pairs are linked to: one bit each.
#[must_use]
pub fn linked(pairs: &[Pair], kind: Kind) -> u16 {
    pairs.iter().filter_map(|&pair| linked_to(pair, kind)).fold(0, |all, n| all | number(n))
}

const fn number(n: u32) -> u16 {
    1_u16.wrapping_shl(n)
}

fn numbered(pairs: &mut [Pair]) -> impl Iterator<Item = (u16, &mut Pair)> {
    (0..BANK as u32).map(number).zip(pairs)
}

/// Puts `ours` beside the guest's `pairs`, of which the CPU has `registers`.
///
/// `linked`: the numbers that others of the guest's are linked to. `gone`: the breakpoints that are
/// displaced already, where this is about what may be linked to them.
#[must_use]
pub fn place(
    kind: Kind,
    guests: &[Pair; BANK],
    registers: usize,
    ours: &[Pair],
    (linked, gone): (u16, u16),
) -> Placement {
    let mut placement = Placement { pairs: *guests, displaced: 0 };
    let Placement { pairs, displaced } = &mut placement;
    let mut taken = 0;
    // Free ones first, then those that nothing depends on, then the others.
    let classes: [fn(Pair, bool) -> bool; 3] =
        [|pair, _| !is_enabled(pair), |_, is_linked| !is_linked, |_, _| true];
    let mut left = ours.iter();
    for may_take in classes {
        for (n, pair) in numbered(pairs).take(registers) {
            if taken & n != 0 || !may_take(*pair, linked & n != 0) {
                continue;
            }
            let Some(&own) = left.next() else { break };
            if is_enabled(*pair) {
                *displaced |= n;
            }
            (*pair, taken) = (own, taken | n);
        }
    }
    let gone = gone | if kind == Kind::Breakpoint { *displaced } else { 0 };
    for (n, pair) in numbered(pairs) {
        let is_broken = linked_to(*pair, kind).is_some_and(|to| gone & number(to) != 0);
        if taken & n == 0 && is_broken {
            pair.1 &= !1;
            *displaced |= n;
        }
    }
    placement
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Pair = (0, 0);
    const ADDRESS: Pair = (0x1000, 0x1e7);
    /// Matches a context, and is linked to.
    const CONTEXT: Pair = (7, 0x1e7 | 3 << 20);
    const OURS: [Pair; 3] = [(0x9000, 0x1e7), (0xa000, 0x1e7), (0xb000, 0x1e7)];

    const fn linked_breakpoint(to: u64) -> Pair {
        (0x2000, 0x1e7 | 1 << 20 | to << 16)
    }

    fn bank(pairs: &[Pair]) -> [Pair; BANK] {
        core::array::from_fn(|n| pairs.get(n).copied().unwrap_or(NONE))
    }

    fn breakpoints(guests: &[Pair], ours: &[Pair]) -> (Vec<Pair>, u16) {
        let guests = bank(guests);
        let links = linked(&guests, Kind::Breakpoint);
        let placed = place(Kind::Breakpoint, &guests, 6, ours, (links, 0));
        assert!(placed.pairs[6..] == guests[6..], "there are no others");
        (placed.pairs[..6].to_vec(), placed.displaced)
    }

    #[test]
    fn the_guests_stay_where_they_are() {
        let guests = [ADDRESS, linked_breakpoint(4), NONE, NONE, CONTEXT, NONE];
        let (pairs, displaced) = breakpoints(&guests, &OURS);
        let expected = [ADDRESS, guests[1], OURS[0], OURS[1], CONTEXT, OURS[2]];
        assert_eq!((pairs, displaced), (expected.to_vec(), 0));
    }

    #[test]
    fn what_nothing_depends_on_is_displaced_first() {
        let guests = [ADDRESS, linked_breakpoint(4), ADDRESS, NONE, CONTEXT, ADDRESS];
        let (pairs, displaced) = breakpoints(&guests, &OURS[..2]);
        let expected = [OURS[1], guests[1], ADDRESS, OURS[0], CONTEXT, ADDRESS];
        assert_eq!((pairs, displaced), (expected.to_vec(), 0b1));
    }

    #[test]
    fn what_is_linked_to_a_displaced_one_does_not_go_by_ours() {
        let guests = [linked_breakpoint(4); 6];
        let mut all = guests;
        all[4] = CONTEXT;
        let ours = [ADDRESS; 6];
        let (pairs, displaced) = breakpoints(&all, &ours);
        assert_eq!((pairs, displaced), (ours.to_vec(), 0b11_1111));
        let ours: Vec<_> = core::iter::repeat_n(ADDRESS, 5).collect();
        let (pairs, displaced) = breakpoints(&all, &ours);
        assert_eq!((pairs[4], displaced), (CONTEXT, 0b10_1111), "it is the last to go");
        let watch = (0x3000, 0x1ff7 | 1 << 20 | 4 << 16);
        let guests = bank(&[watch, (0x3000, 0x1ff7)]);
        assert_eq!(linked(&guests, Kind::Watchpoint), 1 << 4);
        let placed = place(Kind::Watchpoint, &guests, 4, &[], (0, 1 << 4));
        assert_eq!(placed.pairs[0], (watch.0, watch.1 & !1));
        assert_eq!((placed.pairs[1], placed.displaced), (guests[1], 1));
        let placed = place(Kind::Watchpoint, &guests, 4, &[], (0, 1 << 3));
        assert_eq!((placed.pairs, placed.displaced), (guests, 0));
    }

    #[test]
    fn a_disabled_one_is_linked_to_nothing() {
        let off = (0x2000, 0x1e6 | 1 << 20 | 4 << 16);
        assert_eq!(linked(&[off, CONTEXT, ADDRESS], Kind::Breakpoint), 0);
        assert_eq!(
            linked(&[linked_breakpoint(4), (0, 0x1e7 | 5 << 20)], Kind::Breakpoint),
            0b1_0001
        );
    }

    #[test]
    fn what_finds_no_register_is_left_out() {
        let ours = [ADDRESS; BANK];
        let placed = place(Kind::Breakpoint, &bank(&[]), 2, &ours, (0, 0));
        assert_eq!(placed.pairs, bank(&[ADDRESS, ADDRESS]));
    }
}
