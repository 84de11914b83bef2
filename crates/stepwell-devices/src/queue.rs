//! A virtqueue, served: chains of descriptors taken, their buffers found, the used ring continued.

use crate::server::Wake;
use stepwell_wire::devices::{QueueRequest, Served};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

/// What a device is, as its driver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its type, as virtio numbers them.
    pub id: u32,
    /// What it offers.
    pub features: u64,
    /// The most descriptors that each of its queues has: powers of two.
    pub queues: Vec<u16>,
    /// Its configuration.
    pub configuration: Vec<u8>,
}

/// The driver has made a request that is none; or nobody waits for an answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What a device writes to the guest's memory, in order.
pub trait Answer {
    /// Writes bytes at a guest-physical address, which are RAM.
    ///
    /// # Errors
    ///
    /// [`Broken`], where nobody waits for them any more.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Broken>;
}

/// A device behind its queues.
pub trait Device: Send {
    /// What it is.
    fn identity(&self) -> Identity;
    /// Tells whether it can perform a request of this queue now. What it cannot stays with the driver's
    /// offers until the queue is served again.
    fn is_ready(&mut self, _queue: u8) -> bool {
        true
    }
    /// Tells whether it has something for its first queue by itself.
    fn has_input(&self) -> bool {
        false
    }
    /// Whom to wake when [`has_input`](Self::has_input) becomes true.
    fn wake(&mut self, _wake: Wake) {}
    /// Performs one request. Returns how many bytes it has written.
    ///
    /// # Errors
    ///
    /// [`Broken`].
    fn perform(
        &mut self,
        queue: u8,
        buffers: &Buffers<'_>,
        answer: &mut dyn Answer,
    ) -> Result<u32, Broken>;
    /// Keeps what it has now, under this number, to be gone back to. A device that has nothing but what
    /// its driver knows has nothing to keep.
    fn keep(&mut self, _moment: u64) {}
    /// Goes to what it had when that was kept.
    fn go_to(&mut self, _moment: u64) {}
    /// Lets go what was kept.
    fn forget(&mut self, _moment: u64) {}
}

/// A piece of the guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    address: u64,
    bytes: u64,
}

/// The buffers of a request: what the device may read, and what it may write. Each is one range for who
/// uses it, wherever the driver has put its pieces.
pub struct Buffers<'a> {
    memory: &'a GuestMemoryMmap,
    readable: Vec<Piece>,
    writable: Vec<Piece>,
}

impl<'a> Buffers<'a> {
    /// Follows a chain.
    ///
    /// # Errors
    ///
    /// [`Broken`], where it has no end, leads out of RAM, has empty descriptors or puts what is to be
    /// read behind what is to be written.
    fn of_chain(
        memory: &'a GuestMemoryMmap,
        chain: DescriptorChain<&'a GuestMemoryMmap>,
    ) -> Result<Self, Broken> {
        let mut buffers = Self { memory, readable: Vec::new(), writable: Vec::new() };
        // A chain that cannot be followed just ends, where its last descriptor has a next one.
        let mut goes_on = true;
        for descriptor in chain {
            let piece = Piece { address: descriptor.addr().0, bytes: descriptor.len().into() };
            let length = usize::try_from(piece.bytes).map_err(|_| Broken)?;
            if length == 0 || !memory.check_range(descriptor.addr(), length, Permissions::Read) {
                return Err(Broken);
            }
            if descriptor.is_write_only() {
                buffers.writable.push(piece);
            } else if buffers.writable.is_empty() {
                buffers.readable.push(piece);
            } else {
                return Err(Broken);
            }
            goes_on = descriptor.has_next();
        }
        if goes_on { Err(Broken) } else { Ok(buffers) }
    }

    /// Bytes that may be read.
    #[must_use]
    pub fn readable_bytes(&self) -> u64 {
        self.readable.iter().map(|piece| piece.bytes).sum()
    }

    /// Bytes that may be written.
    #[must_use]
    pub fn writable_bytes(&self) -> u64 {
        self.writable.iter().map(|piece| piece.bytes).sum()
    }

    /// Reads from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Broken`], where there is less.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Broken> {
        let mut rest = into;
        for piece in pieces_of(&self.readable, offset, rest.len() as u64) {
            let (now, later) = rest.split_at_mut_checked(piece.bytes as usize).ok_or(Broken)?;
            self.memory.read_slice(now, GuestAddress(piece.address)).map_err(|_| Broken)?;
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(Broken) }
    }

    /// Writes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Broken`], where there is less room, or [`Answer::write`] says so.
    pub fn write(&self, answer: &mut dyn Answer, offset: u64, bytes: &[u8]) -> Result<(), Broken> {
        let mut rest = bytes;
        for piece in pieces_of(&self.writable, offset, rest.len() as u64) {
            let (now, later) = rest.split_at_checked(piece.bytes as usize).ok_or(Broken)?;
            answer.write(piece.address, now)?;
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(Broken) }
    }
}

/// The parts of `pieces` that hold `bytes` bytes from `offset` on, as far as there are any.
fn pieces_of(pieces: &[Piece], offset: u64, bytes: u64) -> impl Iterator<Item = Piece> {
    let (mut skipped, mut left) = (offset, bytes);
    pieces.iter().filter_map(move |piece| {
        let skip = skipped.min(piece.bytes);
        skipped -= skip;
        let bytes = (piece.bytes - skip).min(left);
        left -= bytes;
        (bytes > 0).then_some(Piece { address: piece.address + skip, bytes })
    })
}

/// Serves a queue: each chain that was there when it was asked for.
pub fn serve(
    request: &QueueRequest,
    memory: &GuestMemoryMmap,
    device: &mut dyn Device,
    answer: &mut dyn Answer,
) -> Served {
    try_to_serve(request, memory, device, answer).unwrap_or(Served::Broken)
}

fn try_to_serve(
    request: &QueueRequest,
    memory: &GuestMemoryMmap,
    device: &mut dyn Device,
    answer: &mut dyn Answer,
) -> Result<Served, Broken> {
    let most = device.identity().queues.get(usize::from(request.queue)).copied();
    let mut queue = Queue::try_from(QueueState {
        max_size: most.ok_or(Broken)?,
        next_avail: request.next_available,
        next_used: request.next_used,
        event_idx_enabled: false,
        size: request.size,
        ready: true,
        desc_table: request.descriptors,
        avail_ring: request.driver,
        used_ring: request.device,
    })
    .map_err(|_| Broken)?;
    if !queue.is_valid(memory) {
        return Err(Broken);
    }
    let mut used = request.next_used;
    let mut next_available = request.next_available;
    let chains: Vec<_> = queue.iter(memory).map_err(|_| Broken)?.collect();
    for chain in chains {
        if !device.is_ready(request.queue) {
            break;
        }
        next_available = next_available.wrapping_add(1);
        let head = chain.head_index();
        let buffers = Buffers::of_chain(memory, chain)?;
        let written = device.perform(request.queue, &buffers, answer)?;
        // "The Virtqueue Used Ring": flags, index, then elements of head and length.
        let place = u64::from(used % request.size);
        let element = [u32::from(head), written].map(u32::to_le_bytes);
        answer.write(request.device + 4 + 8 * place, element.as_flattened())?;
        used = used.wrapping_add(1);
        // Behind what it tells of: EL2 keeps the order.
        answer.write(request.device + 2, &used.to_le_bytes())?;
    }
    Ok(Served::Done { next_available, next_used: used })
}
