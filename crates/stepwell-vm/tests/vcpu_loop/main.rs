//! The vCPU loop on a CPU that is a value: what it counts, records, stops at and leaves behind is
//! compared with what that CPU has executed.

mod adversary;
mod board;
mod breakpoints;
mod checkpoints;
mod counted_timers;
mod cpu;
mod crossings;
mod detail;
mod devices;
mod exclusives;
mod exits;
mod flash;
mod inspect;
mod interrupts;
mod kept;
mod memory;
mod power;
mod several;
mod sharing;
mod steps;
mod system_errors;
mod time;
mod trapped;
mod virtio;
mod words;
