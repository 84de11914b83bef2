//! The device channel: queues that the tool serves. See [`stepwell_wire::devices`] for the protocol.
//!
//! One queue is served at a time. Who waits for it does so by looking: the tool is another process, and
//! answers in less time than it would take to sleep and be woken.

use crate::hw::link;
use crate::mem::mailbox::DeviceChannelMemory;
use spin::{Mutex, Once};
use stepwell_arch::Ipa;
use stepwell_wire::devices::{Client, QueueRequest, Served};

/// An empty frame.
const DOORBELL: [u8; 1] = [0];

static CHANNEL: Once<Mutex<Client<DeviceChannelMemory>>> = Once::new();

/// Gives the machine a channel.
pub fn setup(memory: DeviceChannelMemory) {
    CHANNEL.call_once(|| Mutex::new(Client::new(memory)));
}

/// Has a queue served; it is broken where there is no channel.
pub(super) fn serve(request: QueueRequest, write: &mut dyn FnMut(Ipa, &[u8])) -> Served {
    let Some(channel) = CHANNEL.get() else { return Served::Broken };
    let mut channel = channel.lock();
    let mut must_ring = channel.ask(request);
    loop {
        if must_ring {
            link::send(&DOORBELL);
        }
        while !channel.is_answered() {
            core::hint::spin_loop();
        }
        match channel.take(|address, bytes| write(Ipa(address), bytes)) {
            Ok(served) => return served,
            Err(partial) => must_ring = partial.ring,
        }
    }
}
