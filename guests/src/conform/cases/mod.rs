//! All cases, in five groups.

pub mod debugging;
pub mod exceptions;
pub mod exclusives;
pub mod fast_interrupts;
pub mod instructions;

use super::{Case, Run};

/// The groups, in the order in which they run.
pub const GROUPS: [(&str, &[Case]); 5] = [
    ("instructions", instructions::CASES),
    ("exceptions", exceptions::CASES),
    ("exclusives", exclusives::CASES),
    ("the guest's own debugger", debugging::CASES),
    ("fast interrupts", fast_interrupts::CASES),
];

/// Where the code of each group's cases is.
#[cfg(all(feature = "bare", target_os = "none"))]
pub const CODE: [&[unsafe extern "C" fn()]; 5] = [
    instructions::CODE,
    exceptions::CODE,
    exclusives::CODE,
    debugging::CODE,
    fast_interrupts::CODE,
];

/// Every run of every case, in order.
pub fn runs() -> impl Iterator<Item = (&'static Case, Run)> {
    GROUPS
        .iter()
        .flat_map(|(_, cases)| cases.iter())
        .flat_map(|case| case.runs().map(move |run| (case, run)))
}
