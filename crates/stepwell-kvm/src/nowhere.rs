//! Hosts on which KVM runs no arm64 guests.

use crate::{ChannelWords, Files, KvmError};
use std::convert::Infallible;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::thread::Thread;
use stepwell_wire::devices::Server;

/// A machine, of which there is none here.
#[derive(Debug)]
pub struct KvmMachine(Infallible);

/// Where recorded steps lie.
#[derive(Debug)]
pub struct Ring {
    /// The file.
    pub file: File,
    /// Its bytes.
    pub bytes: u64,
}

impl KvmMachine {
    /// Says that there is none.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn launch(_: &Files<'_>) -> Result<(Self, UnixStream), KvmError> {
        Err(KvmError::OtherHost)
    }

    /// Where recorded steps lie.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        match self.0 {}
    }

    /// The guest's RAM.
    #[must_use]
    pub const fn ram(&self) -> &File {
        match self.0 {}
    }

    /// The end of the device channel that serves the guest's devices.
    #[must_use]
    pub const fn device_channel(&self) -> Server<ChannelWords> {
        match self.0 {}
    }

    /// What rings the machine's doorbell.
    #[must_use]
    pub const fn doorbell(&self) -> fn() {
        match self.0 {}
    }

    /// Has a thread woken where something is asked of the devices.
    pub const fn wake_for_devices(&self, _: &Thread) {
        match self.0 {}
    }
}

/// Says what KVM can do here.
///
/// # Errors
///
/// [`KvmError`]: why it cannot.
pub fn describe() -> Result<Vec<String>, KvmError> {
    Err(KvmError::OtherHost)
}
