//! Stage-2 tables that nothing walks.
//!
//! Stage 2 is KVM's. What the loop keeps in tables of its own says which memory the guest has; what they
//! withhold of it is carried over to where KVM looks ([`super::withheld`]).

use super::withheld::Withheld;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use stepwell_arch::{Ipa, Pa};
use stepwell_vm::stage2::{PageUse, Permissions, TableMemory};
use stepwell_vm::views::CodeMemory;

const ENTRIES: usize = 512;
const PAGE: u64 = 4096;
/// Where tables seem to lie: no guest has memory there.
const FIRST: u64 = 1 << 44;

type Table = Box<[u64; ENTRIES]>;

/// The tables.
#[derive(Clone, Debug)]
pub struct Tables {
    tables: Arc<Mutex<HashMap<u64, Table>>>,
    withheld: Arc<Withheld>,
}

impl Tables {
    /// None yet.
    #[must_use]
    pub fn new(withheld: Arc<Withheld>) -> Self {
        Self { tables: Arc::default(), withheld }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<u64, Table>) -> T) -> T {
        act(&mut self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TableMemory for Tables {
    fn allocate(&mut self, _: PageUse) -> Option<Pa> {
        self.with(|tables| {
            let page = FIRST + tables.len() as u64 * PAGE;
            tables.insert(page, Box::new([0; ENTRIES]));
            Some(Pa(page))
        })
    }

    /// Its number is not given out again, and there are few.
    fn free(&mut self, _: Pa) {}

    fn may_map(&self, _: Pa, _: u64) -> bool {
        true
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.with(|tables| tables.get(&table.0)?.get(index).copied()).unwrap_or(0)
    }

    fn write(&mut self, table: Pa, index: usize, value: u64) {
        self.with(|tables| {
            if let Some(entry) = tables.get_mut(&table.0).and_then(|table| table.get_mut(index)) {
                *entry = value;
            }
        });
    }

    fn invalidate(&mut self, _: Ipa, _: u64) {}
}

impl CodeMemory for Tables {
    fn read_guest(&self, _: Pa, _: usize) -> u64 {
        0
    }

    fn publish(&mut self, _: Pa) {}

    fn permits(&mut self, root: Pa, page: Ipa, permissions: Permissions) {
        self.withheld.permit(root, page, permissions);
    }
}
