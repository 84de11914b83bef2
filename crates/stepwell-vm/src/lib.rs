//! The guest's machine: what a vCPU sees of its board, whatever executes its instructions.
//!
//! Builds and is tested on any host, touches no hardware and has no unsafe code.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`vgic`], [`device`] | what the guest takes for devices |
//! | [`stage2`], [`views`] | stage-2 tables, and pages that a debugger has an interest in |
//! | [`feature_id`], [`implementation_defined`] | which features and registers its CPU has |
//! | [`devicetree`], [`image_layout`] | the guest's device tree, and where its images lie |
//! | [`recorder`] | runs of the trace |
//!
//! What executes guest instructions, and the memory that tables lie in, is deliberately not here.

#![cfg_attr(not(test), no_std)]
#![forbid(missing_docs, unsafe_code)]
// Outside of tests, which may fail loudly: nobody can allow these again. Arithmetic is not among
// them: it wraps at EL2, where overflow checks are off, and nothing divides by what a guest gives.
#![cfg_attr(
    not(test),
    forbid(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

extern crate alloc;

pub mod device;
pub mod devicetree;
pub mod feature_id;
pub mod image_layout;
pub mod implementation_defined;
pub mod recorder;
pub mod stage2;
pub mod vgic;
pub mod views;
