//! The link to the tool, as a machine sees it: somewhere to send events, and something that brings
//! commands; and what serves the queues of the guest's devices.

use crate::cpu::Cpu;
use crate::machine::Machine;
use stepwell_arch::Ipa;
use stepwell_wire::Event;
use stepwell_wire::devices::{Bytes, Client, QueueRequest, Served, Words};

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
    /// Takes what the tool has made of a virtqueue, and asks it for the next one, as long as there is one
    /// and it has answered. Returns whether there is something left that it has not answered:
    /// `leaving` says that nobody looks for that, so that the link's interrupt is to tell of it. Where
    /// nobody serves queues, they are broken.
    fn serve_queues(&self, queues: &mut dyn Queues, leaving: bool) -> bool;
    /// Tells whether there is a mailbox beside the stream.
    fn has_mailbox(&self) -> bool;
}

/// The virtqueues of a machine's guests.
pub trait Queues {
    /// Takes note that devices in these slots of a domain have something for their first queue by
    /// themselves, a bit each. `false`: not now, it is to be said again.
    fn wanted(&mut self, domain: u8, slots: u32) -> bool;
    /// The next one that is to be served.
    fn next(&mut self) -> Option<QueueRequest>;
    /// Writes into a guest's memory for a device.
    fn write(&mut self, domain: u8, ipa: Ipa, bytes: Bytes<'_>);
    /// This is what has become of one.
    fn served(&mut self, request: &QueueRequest, served: Served);
}

/// [`Link::serve_queues`] by a device channel. `ring` rings the tool's doorbell.
pub fn serve_by_channel<M: Words>(
    channel: &mut Client<M>,
    queues: &mut dyn Queues,
    leaving: bool,
    ring: impl Fn(),
) -> bool {
    let ring_if = |must_ring: bool| {
        if must_ring {
            ring();
        }
    };
    loop {
        if !channel.is_asking() {
            channel.take_wanted(|domain, slots| queues.wanted(domain, slots));
            let Some(request) = queues.next() else { return false };
            ring_if(channel.ask(request));
        } else if channel.is_answered() {
            channel.set_attentive(true);
            let taken =
                channel.take(|domain, address, bytes| queues.write(domain, Ipa(address), bytes));
            match taken {
                Ok((request, served)) => queues.served(&request, served),
                Err(partial) => ring_if(partial.ring),
            }
        } else if leaving && channel.is_attentive() {
            // And looks once more.
            channel.set_attentive(false);
        } else {
            return true;
        }
    }
}

/// What becomes of queues that nobody serves: none of them is left.
pub fn break_all(queues: &mut dyn Queues) -> bool {
    while let Some(request) = queues.next() {
        queues.served(&request, Served::Broken);
    }
    false
}
