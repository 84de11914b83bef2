//! The virtio-mmio transport: 32 slots of registers, and what the tool has put into them.
//!
//! What is behind a device's queues is the tool's. Here is what a driver sees of it without asking:
//! identity, features, the configuration, where its queues lie, and whether it is to be interrupted. So
//! the state of a device that a checkpoint has to have is a value, here.
//!
//! Registers are those of "MMIO Device Register Layout" in the virtio specification, version 1.2, and
//! answers to what a driver must not do are QEMU's: what is not there reads as zero, and whatever is
//! written at the wrong time is ignored. Absent on purpose: the layout of before version 1 (QEMU's
//! default, which its users switch off), shared memory, resetting single queues.

use alloc::boxed::Box;
use heapless::Vec;

/// First address of the slots.
pub const VIRTIO_BASE: u64 = 0x0a00_0000;
/// Bytes of each.
pub const SLOT_BYTES: u64 = 0x200;
/// How many there are.
pub const SLOTS: usize = 32;
/// INTID of the first slot's interrupt: SPI 16.
pub const FIRST_INTID: u32 = 48;
/// Queues of one device.
pub const QUEUES_MAX: usize = 4;
/// Bytes of a device's configuration.
pub const CONFIGURATION_MAX: usize = 64;

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_LEN_LOW: u64 = 0x0b0;
const SHM_BASE_HIGH: u64 = 0x0bc;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

/// "virt".
const MAGIC: u64 = 0x7472_6976;
/// "QEMU", whose board this is.
const VENDOR: u64 = 0x554d_4551;

const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;
const STATUS_NEEDS_RESET: u32 = 64;
const INTERRUPT_USED: u32 = 1; // a queue has something for the driver
const INTERRUPT_CONFIGURATION: u32 = 2; // the configuration or the status has changed
/// The driver knows the registers of version 1, as it has to.
const FEATURE_VERSION_1: u64 = 1 << 32;

/// So many bytes of a word.
const fn lowest(word: u64, bytes: u8) -> u64 {
    match bytes {
        1 => word & 0xff,
        2 => word & 0xffff,
        _ => word,
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its type: 2 is a block device.
    pub id: u32,
    /// What it offers.
    pub features: u64,
    /// The most descriptors that each of its queues has.
    pub queues: Vec<u16, QUEUES_MAX>,
    /// Its configuration, which does not change.
    pub configuration: Vec<u8, CONFIGURATION_MAX>,
}

/// A virtqueue, as its driver has set it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Descriptors.
    pub size: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub driver: u64,
    /// Address of the used ring.
    pub device: u64,
    /// Heads taken from the available ring, modulo 2^16.
    pub next_available: u16,
    /// Heads put into the used ring, modulo 2^16.
    pub next_used: u16,
    is_ready: bool,
    /// The tool is serving it.
    is_busy: bool,
    /// It was notified, and nobody has begun to serve it since.
    is_due: bool,
}

/// What a store asks for, beside what it has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// This queue is to be served.
    Notified(u8),
}

/// A queue that is to be served, and by which features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The device's slot.
    pub slot: usize,
    /// Which of its queues.
    pub number: u8,
    /// The queue.
    pub queue: Queue,
    /// What driver and device have agreed on.
    pub features: u64,
}

/// A device in its slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transport {
    identity: Identity,
    status: u32,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: [Queue; QUEUES_MAX],
    interrupt_status: u32,
}

/// All slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Virtio {
    slots: [Option<Box<Transport>>; SLOTS],
    /// The slot that was served last: the others come first.
    last: usize,
}

impl Virtio {
    /// Slots with nothing in them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device into a slot; `false` where there is no such slot, or something is in it.
    pub fn attach(&mut self, slot: usize, identity: Identity) -> bool {
        match self.slots.get_mut(slot) {
            Some(place @ None) => {
                *place = Some(Box::new(Transport::new(identity)));
                true
            }
            _ => false,
        }
    }

    /// Performs a guest's load.
    #[must_use]
    pub fn read(&self, slot: usize, offset: u64, bytes: u8) -> u64 {
        match self.slots.get(slot) {
            Some(Some(transport)) => transport.read(offset, bytes),
            // Of these QEMU gives the lower bytes, too, where no device is behind.
            _ => match offset {
                MAGIC_VALUE => lowest(MAGIC, bytes),
                VERSION => 2,
                VENDOR_ID => lowest(VENDOR, bytes),
                _ => 0,
            },
        }
    }

    /// Performs a guest's store.
    pub fn write(&mut self, slot: usize, offset: u64, bytes: u8, value: u64) -> Effect {
        match self.slots.get_mut(slot) {
            Some(Some(transport)) if bytes == 4 => transport.write(offset, value as u32),
            // No device here has a configuration that a driver may change.
            _ => Effect::None,
        }
    }

    /// Tells whether a store has to wait until the tool has let go of the queues: after a reset, a
    /// device touches memory no more.
    #[must_use]
    pub fn must_wait(&self, slot: usize, offset: u64) -> bool {
        let is_busy = |transport: &Transport| transport.queues.iter().any(|queue| queue.is_busy);
        matches!(offset, STATUS | QUEUE_READY)
            && matches!(self.slots.get(slot), Some(Some(transport)) if is_busy(transport))
    }

    /// The level of a slot's interrupt.
    #[must_use]
    pub fn line(&self, slot: usize) -> bool {
        matches!(self.slots.get(slot), Some(Some(transport)) if transport.interrupt_status != 0)
    }

    /// Takes note that a queue was notified.
    pub fn notify(&mut self, slot: usize, queue: u8) {
        if let Some(Some(transport)) = self.slots.get_mut(slot) {
            transport.notify(queue);
        }
    }

    /// Tells whether a queue is being served, or is to be.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let mut queues = self.slots.iter().flatten().flat_map(|transport| &transport.queues);
        queues.any(|queue| queue.is_busy || queue.is_due)
    }

    /// Begins to serve a queue that was notified, if there is one that nobody serves. Slots take turns.
    pub fn begin(&mut self) -> Option<Work> {
        let first = self.last + 1;
        for slot in (first..first + SLOTS).map(|slot| slot % SLOTS) {
            if let Some(Some(transport)) = self.slots.get_mut(slot)
                && let Some((number, queue, features)) = transport.begin()
            {
                self.last = slot;
                return Some(Work { slot, number, queue, features });
            }
        }
        None
    }

    /// Takes note of what has become of a queue that was [begun](Self::begin).
    pub fn finish(&mut self, slot: usize, queue: u8, outcome: Outcome) {
        let Some(Some(transport)) = self.slots.get_mut(slot) else { return };
        let Some(queue) = transport.queues.get_mut(usize::from(queue)) else { return };
        queue.is_busy = false;
        match outcome {
            Outcome::Served { next_available, next_used, interrupt } => {
                (queue.next_available, queue.next_used) = (next_available, next_used);
                if interrupt {
                    transport.interrupt_status |= INTERRUPT_USED;
                }
            }
            Outcome::Broken => {
                transport.status |= STATUS_NEEDS_RESET;
                transport.interrupt_status |= INTERRUPT_CONFIGURATION;
                for queue in &mut transport.queues {
                    queue.is_due = false;
                }
            }
        }
    }
}

/// What has become of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was served.
    Served {
        /// [`Queue::next_available`] from now on.
        next_available: u16,
        /// [`Queue::next_used`] from now on.
        next_used: u16,
        /// The driver is to be interrupted.
        interrupt: bool,
    },
    /// It is no queue, and the device needs a reset.
    Broken,
}

impl Transport {
    fn new(identity: Identity) -> Self {
        Self {
            identity,
            status: 0,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: [Queue::default(); QUEUES_MAX],
            interrupt_status: 0,
        }
    }

    /// The driver drives it, and has not made it unusable.
    const fn is_driven(&self) -> bool {
        self.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK
    }

    fn notify(&mut self, queue: u8) {
        let is_driven = self.is_driven();
        if let Some(queue) = self.queues.get_mut(usize::from(queue)) {
            queue.is_due = is_driven && queue.is_ready;
        }
    }

    fn begin(&mut self) -> Option<(u8, Queue, u64)> {
        let features = self.driver_features;
        let mut queues = (0..).zip(&mut self.queues);
        let (number, queue) = queues.find(|(_, queue)| queue.is_due && !queue.is_busy)?;
        (queue.is_due, queue.is_busy) = (false, true);
        Some((number, *queue, features))
    }

    fn selected(&self) -> Option<(&Queue, u16)> {
        let n = usize::try_from(self.queue_sel).ok()?;
        Some((self.queues.get(n)?, *self.identity.queues.get(n)?))
    }

    /// The selected queue while it can be set up.
    fn unready(&mut self) -> Option<&mut Queue> {
        let n = usize::try_from(self.queue_sel).ok()?;
        self.identity.queues.get(n)?;
        self.queues.get_mut(n).filter(|queue| !queue.is_ready)
    }

    fn read(&self, offset: u64, bytes: u8) -> u64 {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.configuration(offset, bytes);
        }
        if bytes != 4 {
            return 0;
        }
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => 2,
            DEVICE_ID => self.identity.id.into(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.identity.features, self.device_features_sel),
            QUEUE_NUM_MAX => self.selected().map_or(0, |(_, most)| most.into()),
            QUEUE_READY => self.selected().map_or(0, |(queue, _)| queue.is_ready.into()),
            INTERRUPT_STATUS => self.interrupt_status.into(),
            STATUS => self.status.into(),
            // No shared memory: its length is -1.
            SHM_LEN_LOW..=SHM_BASE_HIGH => 0xffff_ffff,
            CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    fn configuration(&self, offset: u64, bytes: u8) -> u64 {
        let read = || {
            let from = usize::try_from(offset).ok()?;
            let end = from.checked_add(bytes.into())?;
            self.identity.configuration.get(from..end)
        };
        match read() {
            Some(bytes) => bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)),
            None => u64::MAX,
        }
    }

    fn write(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            DRIVER_FEATURES if self.status & STATUS_FEATURES_OK == 0 => {
                set_half(&mut self.driver_features, self.driver_features_sel, value);
            }
            QUEUE_SEL => self.queue_sel = value,
            QUEUE_NUM => {
                let most = self.selected().map_or(0, |(_, most)| most);
                if let (Some(queue), Ok(size)) = (self.unready(), u16::try_from(value))
                    && size <= most
                {
                    queue.size = size;
                }
            }
            QUEUE_READY => self.set_ready(value & 1 != 0),
            QUEUE_NOTIFY => {
                return u8::try_from(value).map_or(Effect::None, Effect::Notified);
            }
            INTERRUPT_ACK => self.interrupt_status &= !value,
            STATUS => self.set_status(value & 0xff),
            QUEUE_DESC_LOW..=QUEUE_DEVICE_HIGH => self.set_address(offset, value),
            _ => {}
        }
        Effect::None
    }

    fn set_address(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.unready() else { return };
        match offset {
            QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
            QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
            QUEUE_DRIVER_LOW => set_half(&mut queue.driver, 0, value),
            QUEUE_DRIVER_HIGH => set_half(&mut queue.driver, 1, value),
            QUEUE_DEVICE_LOW => set_half(&mut queue.device, 0, value),
            QUEUE_DEVICE_HIGH => set_half(&mut queue.device, 1, value),
            _ => {}
        }
    }

    fn set_ready(&mut self, ready: bool) {
        let Ok(n) = usize::try_from(self.queue_sel) else { return };
        if self.identity.queues.get(n).is_none() {
            return;
        }
        if let Some(queue) = self.queues.get_mut(n)
            && queue.is_ready != ready
        {
            (queue.is_ready, queue.next_available, queue.next_used) = (ready, 0, 0);
            queue.is_due = false;
        }
    }

    fn set_status(&mut self, status: u32) {
        if status == 0 {
            let device = Self::new(self.identity.clone());
            // Selections survive, as they do on QEMU's board.
            let (of_device, of_driver) = (self.device_features_sel, self.driver_features_sel);
            let queue_sel = self.queue_sel;
            *self = device;
            (self.device_features_sel, self.driver_features_sel) = (of_device, of_driver);
            self.queue_sel = queue_sel;
            return;
        }
        let kept = self.status & STATUS_NEEDS_RESET;
        let features = self.driver_features;
        let are_ours = features & !self.identity.features == 0 && features & FEATURE_VERSION_1 != 0;
        let refused = if are_ours { 0 } else { STATUS_FEATURES_OK };
        self.status = status & !refused | kept;
    }
}

/// One of the two words of a value; there are no others.
const fn half(value: u64, select: u32) -> u64 {
    match select {
        0 => value & 0xffff_ffff,
        1 => value >> 32,
        _ => 0,
    }
}

const fn set_half(value: &mut u64, select: u32, word: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | word as u64,
        1 => *value = *value & 0xffff_ffff | (word as u64) << 32,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
