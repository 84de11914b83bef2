//! The state machine against a model of the CPU: what the architecture does between an entry and
//! the exit that follows, and whether the engine reports each instruction exactly once.

mod arriving_at_el2;
mod exactness;
mod guest_state;
mod machine;
mod mistakes;
