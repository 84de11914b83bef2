//! Every conformance case, one after the other; see `stepwell_guests::conform`.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use stepwell_guests::conform::runner;

stepwell_guests::guest!("conform", runner::run);
