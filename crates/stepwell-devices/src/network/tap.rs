//! A TAP device of the host's: each read and each write is a frame.

#![expect(unsafe_code, reason = "asks the kernel, by ioctl, for the TAP device of a name")]

use super::{FRAME_MAX, Source, Wire};
use rustix::ioctl::{Opcode, Setter, ioctl};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

/// `TUNSETIFF`, and the flags `IFF_TAP` and `IFF_NO_PI`, as <linux/if_tun.h> has them.
const TUNSETIFF: Opcode = 0x4004_54ca;
const TAP_WITHOUT_HEADER: u16 = 0x1002;

/// "struct ifreq": a name that ends with a zero, flags, and room for what else it may be.
#[repr(C)]
#[derive(Clone, Copy)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens the device of a name, of less than 16 bytes.
pub(super) fn open(name: &str) -> io::Result<(Tap, Source)> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = InterfaceRequest { name: [0; 16], flags: TAP_WITHOUT_HEADER, rest: [0; 22] };
    for (to, from) in request.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads a `struct ifreq` for this opcode, which the request is laid out as, and
    // writes no more than one back into its copy.
    unsafe { ioctl(&device, Setter::<TUNSETIFF, InterfaceRequest>::new(request))? };
    let mut reader = device.try_clone()?;
    let source = move || {
        let mut frame = vec![0; FRAME_MAX + 1];
        let length = reader.read(&mut frame)?;
        frame.truncate(length);
        Ok(frame)
    };
    Ok((Tap(device), Box::new(source)))
}

/// The device.
pub(super) struct Tap(File);

impl Wire for Tap {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write_all(frame)
    }
}
