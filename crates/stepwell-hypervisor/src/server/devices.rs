//! The device channel: queues that the tool serves. See [`stepwell_wire::devices`] for the protocol.
//!
//! One queue is served at a time. Who waits for it looks: the tool is another process, and mostly
//! answers in less time than it would take to sleep and be woken. Who does not wait says so, and the
//! doorbell brings the link's interrupt once there is an answer.

use crate::hw::link;
use crate::mem::mailbox::DeviceChannelMemory;
use spin::{Mutex, Once};
use stepwell_vm::link::{Queues, break_all, serve_by_channel};
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
    serve_by_channel(&mut channel.lock(), queues, leaving, || link::send(&DOORBELL))
}
