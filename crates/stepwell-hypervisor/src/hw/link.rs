//! The link's transport: a virtio console in one of the board's virtio-mmio slots.

use crate::mem::heap::Pages;
use core::ptr::NonNull;
use spin::Mutex;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

struct Identity;

// SAFETY: EL2 is identity-mapped, coherent and single-address-space: a page of its heap is at its
// own physical address, aligned, zeroed and nobody else's until it is given back.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match Pages::new(pages).map(Pages::into_raw) {
            Some(page) => (page.as_ptr() as PhysAddr, page),
            // The driver takes address 0 for "out of memory".
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, page: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the driver gives back what `dma_alloc` gave it, once.
        drop(unsafe { Pages::from_raw(page, pages) });
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

type Console = VirtIOConsole<Identity, MmioTransport<'static>>;

static CONSOLE: Mutex<Option<Console>> = Mutex::new(None);

/// Looks for a virtio console in the slot at `address`, `bytes` long, and takes it as the link.
///
/// Returns whether there was one.
///
/// # Safety
///
/// The range must be a slot of virtio's MMIO transport, mapped at EL2 as device memory, and used by
/// nothing else.
#[must_use]
pub unsafe fn try_slot(address: u64, bytes: usize) -> bool {
    let Some(header) = NonNull::new(address as *mut VirtIOHeader) else { return false };
    // SAFETY: the caller's promise; the driver, if one is made, owns it for good.
    let Ok(transport) = (unsafe { MmioTransport::new(header, bytes) }) else { return false };
    if transport.device_type() != DeviceType::Console {
        return false;
    }
    let Ok(console) = Console::new(transport) else { return false };
    *CONSOLE.lock() = Some(console);
    true
}

/// Whether there is a link.
#[must_use]
pub fn is_up() -> bool {
    CONSOLE.lock().is_some()
}

/// Sends bytes, waiting for the device. Without a link they are dropped.
pub fn send(bytes: &[u8]) {
    if let Some(console) = CONSOLE.lock().as_mut() {
        let _machine_without_tool = console.send_bytes(bytes);
    }
}

/// Takes what has arrived, as far as it fits, and quiets the link's interrupt.
pub fn receive(into: &mut [u8]) -> usize {
    let mut guard = CONSOLE.lock();
    let Some(console) = guard.as_mut() else { return 0 };
    let _already_taken = console.ack_interrupt();
    let mut count = 0;
    while let Some(slot) = into.get_mut(count) {
        let Ok(Some(byte)) = console.recv(true) else { break };
        *slot = byte;
        count += 1;
    }
    count
}
