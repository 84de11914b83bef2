//! The world of the vCPU loop: Arm's rules, the loop that runs at EL2, and an adversary who may do
//! something between any two events.
//!
//! Two machines execute the same guest. Around one of them is `stepwell-vm`'s own vCPU loop, with the
//! domain, the interrupt controller, the recorder and the commands that it has at EL2: the very code of
//! the hypervisor decides what the guest is entered with and what its exits mean. It is stopped before
//! each entry ([`stepwell_vm::vcpu::advance`]), and whatever may come there is tried. The other machine
//! runs *alone*: nobody steps it, and it does one thing each time that the first did one. What the loop
//! promises can be read off any state of the pair ([`properties`]), and `stateright` visits all of
//! them.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`programs`] | the guests |
//! | [`pe`] | the machine below the loop: the specification's PEs as a [`Cpu`](stepwell_vm::cpu::Cpu) |
//! | [`board`] | the real machine around them, and how a state gets into it and out of it |
//! | [`pool`] | values that many states have in common |
//! | [`world`] | the state |
//! | [`exploration`] | where it begins, and what may happen |
//! | `moves` | how it goes on, below EL2 and in the loop |
//! | `tool` | what the tool does, and what it is told |
//! | [`mod@alone`] | the machine that runs alone |
//! | [`adversary`] | what may happen between two events |
//! | [`properties`] | what holds always, and what must be seen to happen |
//! | [`progress`] | whether a guest that ends unstepped ends stepped |
//! | [`counterexample`] | the shortest way to a violation, for people |

#![forbid(unsafe_code)]

pub mod adversary;
pub mod alone;
pub mod bits;
pub mod board;
#[cfg(feature = "mutants")]
pub mod counterexample;
pub mod exploration;
mod moves;
pub mod pe;
pub mod pool;
pub mod programs;
pub mod progress;
pub mod properties;
mod tool;
pub mod world;

pub use adversary::{Action, Order};
pub use exploration::Exploration;
pub use world::World;
