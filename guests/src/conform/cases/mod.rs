//! All cases, in four groups.

pub mod debugging;
pub mod exceptions;
pub mod exclusives;
pub mod instructions;

use super::{Case, Run};

/// The groups, in the order in which they run.
pub const GROUPS: [(&str, &[Case]); 4] = [
    ("instructions", instructions::CASES),
    ("exceptions", exceptions::CASES),
    ("exclusives", exclusives::CASES),
    ("the guest's own debugger", debugging::CASES),
];

/// Where the code of each group's cases is.
#[cfg(all(feature = "bare", target_os = "none"))]
pub const CODE: [&[unsafe extern "C" fn()]; 4] =
    [instructions::CODE, exceptions::CODE, exclusives::CODE, debugging::CODE];

/// Every run of every case, in order.
pub fn runs() -> impl Iterator<Item = (&'static Case, Run)> {
    GROUPS
        .iter()
        .flat_map(|(_, cases)| cases.iter())
        .flat_map(|case| case.runs().map(move |run| (case, run)))
}
