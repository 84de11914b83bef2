//! The walk itself: from a virtual address through the tables to a page, every step recorded.

use super::descriptor::{Descriptor, Hierarchy};
use super::regime::{AddressFormat, Range};
use super::{
    Access, AccessKind, FaultKind, MemoryType, Permissions, PhysicalMemory, Regime, Shareability,
    TranslationFault, WalkError,
};
use crate::bit_field::{field, mask};
use crate::{Ipa, Va};

/// Levels -1 to 3: no walk has more descriptors.
const STEPS_MAX: usize = 5;

/// What a descriptor is, at the level where it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DescriptorKind {
    /// Not valid, or a block where none is allowed.
    #[default]
    Invalid,
    /// Points to the table of the next level.
    Table,
    /// Maps a block.
    Block,
    /// Maps a page.
    Page,
}

/// One descriptor on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkStep {
    /// Level of the table, -1 to 3.
    pub level: i8,
    /// Address of the descriptor.
    pub descriptor_ipa: Ipa,
    /// The descriptor, in host order.
    pub descriptor: u64,
    /// What it is.
    pub kind: DescriptorKind,
}

/// Where the tables lead to, before it is asked whether the access may go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The guest-physical address.
    pub ipa: Ipa,
    /// Memory type and attributes.
    pub memory_type: MemoryType,
    /// Shareability.
    pub shareability: Shareability,
    /// What may be done there, before PAN.
    pub permissions: Permissions,
    /// Whether the access flag is set, or hardware would set it.
    pub accessed: bool,
    /// Size in bytes of the page or block.
    pub page_bytes: u64,
    /// Level of the descriptor that maps it; 0 with the MMU off.
    pub level: i8,
}

/// A finished walk: its steps and where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk<E> {
    steps: Steps,
    /// The mapping found, or why there is none.
    pub outcome: Result<Mapping, WalkError<E>>,
}

impl<E> Walk<E> {
    /// The descriptors read, from the first level on. None with the MMU off.
    pub fn steps(&self) -> &[WalkStep] {
        self.steps.taken.get(..self.steps.length).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Steps {
    taken: [WalkStep; STEPS_MAX],
    length: usize,
}

impl Steps {
    fn push(&mut self, step: WalkStep) {
        if let Some(slot) = self.taken.get_mut(self.length) {
            *slot = step;
            self.length = self.length.wrapping_add(1);
        }
    }
}

/// Walks the tables for `va`. Of `access`, only what decides about the walk itself counts: EL0
/// (TCR_EL1.E0PDx) and instruction fetches (TCR_EL1.TBIDx, and the memory type with the MMU off).
pub fn walk<M: PhysicalMemory>(
    regime: &Regime,
    va: Va,
    access: Access,
    memory: &M,
) -> Walk<M::Error> {
    let mut steps = Steps::default();
    let outcome = if regime.mmu_enabled() {
        walk_tables(regime, va, access, memory, &mut steps)
    } else {
        flat(regime, va, access.kind).map_err(WalkError::Fault)
    };
    Walk { steps, outcome }
}

/// The flat map with the MMU off (HCR_EL2.DC = 0): the address is its own translation.
fn flat(regime: &Regime, va: Va, kind: AccessKind) -> Result<Mapping, TranslationFault> {
    let top = if regime.top_byte_ignored(va, kind) { 55 } else { 63 };
    let bits = u32::from(regime.implemented_bits());
    if field(va.0, top, bits) != 0 {
        return Err(TranslationFault { kind: FaultKind::AddressSize, level: 0 });
    }
    let memory_type = match kind {
        AccessKind::Execute if regime.instruction_cacheable() => MemoryType::NORMAL_WRITE_THROUGH,
        AccessKind::Execute => MemoryType::NORMAL_NON_CACHEABLE,
        AccessKind::Read | AccessKind::Write => MemoryType::DEVICE_NGNRNE,
    };
    Ok(Mapping {
        ipa: Ipa(va.0 & below(bits)),
        memory_type,
        shareability: Shareability::Outer,
        permissions: Permissions::ALL,
        accessed: true,
        page_bytes: 4096,
        level: 0,
    })
}

fn walk_tables<M: PhysicalMemory>(
    regime: &Regime,
    va: Va,
    access: Access,
    memory: &M,
    steps: &mut Steps,
) -> Result<Mapping, WalkError<M::Error>> {
    let range = regime.range_of(va, access)?;
    let mut level = range.start_level();
    let mut table = first_table(&range, level)?;
    let mut hierarchy = Hierarchy::default();
    loop {
        let descriptor_ipa = table.offset(table_index(&range, va, level).wrapping_mul(8));
        let descriptor = read(regime, descriptor_ipa, level, memory)?;
        let kind = kind_of(&range, descriptor, level);
        steps.push(WalkStep { level, descriptor_ipa, descriptor: descriptor.0, kind });
        match kind {
            DescriptorKind::Invalid => {
                return Err(TranslationFault { kind: FaultKind::Translation, level }.into());
            }
            DescriptorKind::Table => {
                table = descriptor.address(range.granule.page_bits(), range.address_format());
                check_output(&range, table, level)?;
                if !range.hierarchy_disabled {
                    hierarchy = hierarchy.and(descriptor.hierarchy());
                }
                // Level 3 has no tables (see `kind_of`), so this ends there.
                level = level.wrapping_add(1);
            }
            DescriptorKind::Block | DescriptorKind::Page => {
                return Ok(leaf(regime, &range, va, descriptor, level, hierarchy)?);
            }
        }
    }
}

/// Table of the first level: TTBR's address, aligned to the size of that table. Of 52 bits, the
/// highest are in bits 5:2, which no table of that kind needs for its alignment.
fn first_table(range: &Range, level: i8) -> Result<Ipa, TranslationFault> {
    let index_bits = range.input_bits().wrapping_sub(range.granule.shift(level));
    let table_bits = u32::from(index_bits).wrapping_add(3);
    let base = match range.address_format() {
        AddressFormat::Bits48 => range.ttbr & mask(47) & !below(table_bits),
        AddressFormat::Lpa | AddressFormat::Lpa2 => {
            range.ttbr & mask(47) & !below(table_bits.max(6)) | field(range.ttbr, 5, 2) << 48
        }
    };
    check_output(range, Ipa(base), 0)?;
    Ok(Ipa(base))
}

fn table_index(range: &Range, va: Va, level: i8) -> u64 {
    let shift = range.granule.shift(level);
    let top = range.input_bits().min(shift.wrapping_add(range.granule.index_bits()));
    field(va.0, u32::from(top).wrapping_sub(1), u32::from(shift))
}

fn read<M: PhysicalMemory>(
    regime: &Regime,
    ipa: Ipa,
    level: i8,
    memory: &M,
) -> Result<Descriptor, WalkError<M::Error>> {
    match memory.read_u64(ipa) {
        Ok(value) if regime.big_endian() => Ok(Descriptor(value.swap_bytes())),
        Ok(value) => Ok(Descriptor(value)),
        Err(error) => Err(WalkError::Memory { descriptor: ipa, level, error }),
    }
}

fn kind_of(range: &Range, descriptor: Descriptor, level: i8) -> DescriptorKind {
    let allows_block = range.granule.allows_block(level, range.is_52_bit);
    match (descriptor.is_valid(), descriptor.is_table_or_page(), level) {
        (true, true, ..=2) => DescriptorKind::Table,
        (true, true, _) => DescriptorKind::Page,
        (true, false, _) if allows_block => DescriptorKind::Block,
        _ => DescriptorKind::Invalid,
    }
}

fn check_output(range: &Range, ipa: Ipa, level: i8) -> Result<(), TranslationFault> {
    if ipa.0 > below(u32::from(range.output_bits)) {
        return Err(TranslationFault { kind: FaultKind::AddressSize, level });
    }
    Ok(())
}

/// The block or page that `descriptor` maps.
fn leaf(
    regime: &Regime,
    range: &Range,
    va: Va,
    descriptor: Descriptor,
    level: i8,
    hierarchy: Hierarchy,
) -> Result<Mapping, TranslationFault> {
    let (shift, format) = (range.granule.shift(level), range.address_format());
    let base = descriptor.address(shift, format);
    check_output(range, base, level)?;
    let shareability = match format {
        AddressFormat::Lpa2 => range.shareability,
        AddressFormat::Bits48 | AddressFormat::Lpa => descriptor.shareability(),
    };
    let bits = hierarchy.restrict(descriptor.permission_bits(regime.hardware_dirty_state()));
    let attributes = regime.mair.wrapping_shr(descriptor.attribute_index().wrapping_mul(8));
    Ok(Mapping {
        ipa: base.offset(va.0 & below(u32::from(shift))),
        memory_type: MemoryType(attributes as u8),
        shareability: Shareability::from_bits(shareability),
        permissions: Permissions::from_bits(bits, regime.wxn()),
        accessed: descriptor.access_flag() || regime.hardware_access_flag(),
        page_bytes: 1_u64.wrapping_shl(u32::from(shift)),
        level,
    })
}

/// Ones in the `bits` lowest bits; `bits` is never 0.
fn below(bits: u32) -> u64 {
    mask(bits.wrapping_sub(1))
}
