//! The guest's machine, whatever executes its instructions: the vCPU loop, and what a guest sees of
//! its board.
//!
//! Builds and is tested on any host, touches no hardware and has no unsafe code. What executes a
//! vCPU is a [`Cpu`](cpu::Cpu), and a domain's RAM is a [`GuestMemory`](memory::GuestMemory).
//!
//! | module | what it is |
//! | --- | --- |
//! | [`vcpu`] | the loop around a guest: exits, emulation, stepping |
//! | [`domain`], [`machine`] | what there is, and who may run |
//! | [`concurrency`] | what CPUs tell each other without a message |
//! | [`command`] | what each of the tool's commands does |
//! | [`cpu`], [`memory`], [`mod@ring`], [`link`] | what all of it needs of the world below |
//! | [`registers`], [`simd`] | a vCPU's registers as values |
//! | [`vgic`], [`device`] | what the guest takes for devices |
//! | [`stage2`], [`views`] | stage-2 tables, and pages that a debugger has an interest in |
//! | [`follow`] | where virtual addresses with breakpoints lead to, whatever the guest does to its tables |
//! | [`feature_id`], [`implementation_defined`] | which features and registers its CPU has |
//! | [`devicetree`], [`image_layout`] | the guest's device tree, and where its images lie |
//! | [`checkpoint`] | moments of a domain that are kept, to go back to |
//! | [`timeline`] | the time of a machine that counts instructions |
//! | [`recorder`] | runs of the trace |
//! | [`adversary`] | a [`cpu::Cpu`] around another one, to which happens what may happen: the test mode's |

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

pub mod adversary;
pub mod checkpoint;
pub mod command;
pub mod concurrency;
pub mod cpu;
pub mod device;
pub mod devicetree;
pub mod domain;
mod draws;
pub mod feature_id;
pub mod follow;
pub mod image_layout;
pub mod implementation_defined;
pub mod link;
pub mod machine;
pub mod memory;
pub mod mutation;
pub mod queue;
pub mod recorder;
pub mod registers;
pub mod ring;
pub mod simd;
pub mod stage2;
pub mod timeline;
pub mod vcpu;
pub mod vgic;
pub mod views;
