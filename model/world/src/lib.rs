//! The world of the step engine: Arm's rules, the engine that runs at EL2, and an adversary who
//! may do something between any two events.
//!
//! Two machines execute the same guest. One is stepped: [`stepwell_engine`], the very code of the
//! hypervisor, decides what it enters with and what its exits mean. The other runs *alone*: nobody
//! steps it, and it does one thing each time that the first did one. What the engine promises then
//! can be read off any state of the pair ([`properties`]), and `stateright` visits all of them.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`programs`] | the guests |
//! | [`world`] | the state, and how it goes on |
//! | [`adversary`] | what may happen between two events |
//! | [`el2`] | what a hypervisor does around the engine |
//! | [`over`] | interrupts while stepping: held, stepped into, run over |
//! | [`properties`] | what holds always, and what must be seen to happen |
//! | [`progress`] | whether a guest that ends unstepped ends stepped |
//! | [`counterexample`] | the shortest way to a violation, for people |
//!
//! [`el2`] is not the loop itself,
//! but a second writing of `stepwell-vm`'s `vcpu/step`. What is proved here is the engine,
//! with a caller that does what the engine's documentation asks of it.

#![forbid(unsafe_code)]

pub mod adversary;
pub mod bits;
#[cfg(feature = "mutants")]
pub mod counterexample;
pub mod el2;
pub mod over;
pub mod programs;
pub mod progress;
pub mod properties;
pub mod world;

pub use adversary::Action;
pub use world::{Exploration, World};
