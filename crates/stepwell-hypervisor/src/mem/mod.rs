//! Memory: EL2's own translation and heap, what stage-2 tables lie in, guest RAM, the mailbox, the
//! trace ring, and what is set aside for checkpoints.

#[cfg(feature = "el2")]
#[expect(unsafe_code, reason = "takes memory that was set aside")]
pub mod checkpoints;
pub mod early;
#[cfg(feature = "el2")]
#[expect(unsafe_code, reason = "turns the MMU to tables of ours")]
pub mod el2;
#[cfg(feature = "el2")]
#[expect(unsafe_code, reason = "guest RAM is raw memory")]
pub mod guest;
#[cfg(feature = "el2")]
#[expect(unsafe_code, reason = "hands out raw memory")]
pub mod heap;
#[cfg(feature = "el2")]
#[expect(unsafe_code, reason = "the mailbox is shared with the tool")]
pub mod mailbox;
#[cfg(feature = "el2")]
#[expect(unsafe_code, reason = "the ring is shared with the tool")]
pub mod ring;
#[cfg(feature = "el2")]
pub mod tables;
