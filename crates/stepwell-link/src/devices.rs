//! The tool's end of the device channel; layout and protocol are [`stepwell_wire::devices`]'s.

use crate::LinkError;
use crate::shared::SharedMemory;
use std::fs::File;
use std::sync::Arc;
use stepwell_wire::devices::{BYTES, Server};
use stepwell_wire::mailbox::Memory;

/// Maps the channel that lies `offset` bytes into `ram`. Who serves it is to be
/// [woken](crate::Link::wake_for_devices) by the doorbell.
///
/// # Errors
///
/// [`LinkError::Ram`] where it cannot be mapped.
pub fn device_channel(
    ram: &File,
    offset: u64,
) -> Result<Server<impl Memory + Send + use<>>, LinkError> {
    let memory = SharedMemory::map(ram, offset, BYTES);
    Ok(Server::new(memory.map_err(|error| LinkError::Ram(Arc::new(error)))?))
}
