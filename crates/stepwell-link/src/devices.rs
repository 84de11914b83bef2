//! The tool's end of the device channel; layout and protocol are [`stepwell_wire::devices`]'s.

use crate::LinkError;
use crate::shared::SharedMemory;
use std::fs::File;
use std::sync::Arc;
use stepwell_wire::devices::{BYTES, Server, Words};

/// Maps the channel that lies `offset` bytes into `ram`. Who serves it is to be
/// [woken](crate::Link::wake_for_devices) by the doorbell.
///
/// # Errors
///
/// [`LinkError::Ram`] where it cannot be mapped.
pub fn device_channel(
    ram: &File,
    offset: u64,
) -> Result<Server<impl Words + Send + use<>>, LinkError> {
    let memory = SharedMemory::map(ram, offset, BYTES);
    Ok(Server::new(memory.map_err(|error| LinkError::Ram(Arc::new(error)))?))
}

/// Devices of a guest that go to kept moments together with it: what is behind their queues is not the
/// hypervisor's to keep.
pub trait KeptDevices: Send {
    /// Keeps what they have now, under a moment's number. The guest is stopped.
    fn keep(&self, moment: u64);
    /// Takes them to what they had at a moment that is kept.
    fn go_to(&self, moment: u64);
    /// Lets go what was kept.
    fn forget(&self, moment: u64);
}
