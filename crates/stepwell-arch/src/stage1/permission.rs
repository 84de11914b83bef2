//! Access permissions of a page: what the descriptors and SCTLR_EL1.WXN leave of it.

use core::fmt;

use super::{Access, AccessKind};

/// What EL1 and EL0 may do with a page, PSTATE.PAN aside.
///
/// Source: Arm ARM, DDI 0487 L.b, Direct permissions, and Hierarchical control of data access
/// permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// EL1 may write (it may always read).
    pub el1_write: bool,
    /// EL1 may execute.
    pub el1_execute: bool,
    /// EL0 may read.
    pub el0_read: bool,
    /// EL0 may write.
    pub el0_write: bool,
    /// EL0 may execute.
    pub el0_execute: bool,
}

/// The descriptor bits that permissions are made of, the tables' restrictions included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PermissionBits {
    /// AP\[2\].
    pub(super) read_only: bool,
    /// AP\[1\].
    pub(super) el0: bool,
    /// PXN.
    pub(super) pxn: bool,
    /// UXN.
    pub(super) uxn: bool,
}

impl Permissions {
    /// Everything: the MMU is off.
    pub const ALL: Self = Self {
        el1_write: true,
        el1_execute: true,
        el0_read: true,
        el0_write: true,
        el0_execute: true,
    };

    /// Works the permissions out, with SCTLR_EL1.WXN. What EL0 can write, EL1 never executes.
    pub(super) const fn from_bits(bits: PermissionBits, wxn: bool) -> Self {
        let el1_write = !bits.read_only;
        let el0_write = el1_write && bits.el0;
        Self {
            el1_write,
            el1_execute: !(bits.pxn || el0_write || wxn && el1_write),
            el0_read: bits.el0,
            el0_write,
            el0_execute: !(bits.uxn || wxn && el0_write),
        }
    }

    /// Tells whether `access` may be made; `epan` is SCTLR_EL1.EPAN.
    #[must_use]
    pub const fn allow(self, access: Access, epan: bool) -> bool {
        let pan = access.pan && (self.el0_read || epan && self.el0_execute);
        match (access.kind, access.el0) {
            (AccessKind::Read, true) => self.el0_read,
            (AccessKind::Write, true) => self.el0_write,
            (AccessKind::Execute, true) => self.el0_execute,
            (AccessKind::Read, false) => !pan,
            (AccessKind::Write, false) => self.el1_write && !pan,
            (AccessKind::Execute, false) => self.el1_execute,
        }
    }
}

/// Writes `EL1 rw- EL0 r-x`.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |set: bool, name: &'static str| if set { name } else { "-" };
        write!(
            f,
            "EL1 r{}{} EL0 {}{}{}",
            letter(self.el1_write, "w"),
            letter(self.el1_execute, "x"),
            letter(self.el0_read, "r"),
            letter(self.el0_write, "w"),
            letter(self.el0_execute, "x"),
        )
    }
}
