//! The link to the tool, as a machine sees it: somewhere to send events, and something that brings
//! commands; and what serves the queues of the guest's devices.

use crate::cpu::Cpu;
use crate::machine::Machine;
use stepwell_arch::Ipa;
use stepwell_wire::Event;
use stepwell_wire::devices::{QueueRequest, Served};

/// A machine's end of the link.
pub trait Link<C: Cpu>: Send + Sync {
    /// Sends an event.
    fn send(&self, event: &Event);
    /// Serves what has arrived: the link's interrupt calls for it.
    fn serve(&self, cpu: &C, machine: &Machine<C>);
    /// Serves what has arrived, for who passes by without having been called.
    fn pass_by(&self, cpu: &C, machine: &Machine<C>);
    /// Waits for what may arrive next, for a while, before this CPU sleeps. `is_over` says that it
    /// has something else to do. Returns whether anything was served.
    fn linger(&self, cpu: &C, machine: &Machine<C>, is_over: &dyn Fn() -> bool) -> bool;
    /// Has the tool serve a virtqueue, and waits for it. What it writes to the guest's memory is handed
    /// to `write` piece by piece, at most 4096 bytes each. Where nobody serves queues, they are broken.
    fn serve_queue(&self, request: QueueRequest, write: &mut dyn FnMut(Ipa, &[u8])) -> Served;
    /// Tells whether there is a mailbox beside the stream.
    fn has_mailbox(&self) -> bool;
}
