//! Memory: stage-2 tables, and the frames they are made of.
pub mod stage2;
