//! The device channel: queues that the tool serves. See [`stepwell_wire::devices`] for the protocol.
//!
//! One queue is served at a time. Who waits for it looks: the tool is another process, and mostly
//! answers in less time than it would take to sleep and be woken. Who does not wait says so, and the
//! doorbell brings the link's interrupt once there is an answer.

use crate::hw::link;
use crate::mem::mailbox::DeviceChannelMemory;
use spin::{Mutex, Once};
use stepwell_arch::Ipa;
use stepwell_vm::link::{Queues, break_all};
use stepwell_wire::devices::Client;

/// An empty frame.
const DOORBELL: [u8; 1] = [0];

static CHANNEL: Once<Mutex<Client<DeviceChannelMemory>>> = Once::new();

/// Gives the machine a channel.
pub fn setup(memory: DeviceChannelMemory) {
    CHANNEL.call_once(|| Mutex::new(Client::new(memory)));
}

/// Takes what has been answered and asks for what is next, as far as that goes at once. Returns whether
/// there is something that the tool has not answered. Queues are broken where there is no channel.
pub(super) fn serve(queues: &mut dyn Queues, leaving: bool) -> bool {
    let Some(channel) = CHANNEL.get() else { return break_all(queues) };
    let mut channel = channel.lock();
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

fn ring_if(must_ring: bool) {
    if must_ring {
        link::send(&DOORBELL);
    }
}
