//! EDK2, which keeps a table of the images that it has loaded for debuggers.
//!
//! The way there is the one of the UEFI specification, section "EFI_DEBUG_IMAGE_INFO_TABLE" of the
//! chapter "EFI System Table" and its neighbours: an EFI_SYSTEM_TABLE_POINTER, which lies at a multiple
//! of 4 MiB, has the system table's address; that has a list of configuration tables; and one of those
//! the images. Each is watched for stores until the next can be found. A stop comes before its store:
//! each part is written last in an order that has another store behind it (a CRC, or the table's
//! status), at which it is whole.
//!
//! A boot loader may load a kernel by itself, and a kernel's EFI stub copy it to yet another place (where
//! it has random numbers for one, or the kernel is not at a multiple of 2 MiB). So the guest is stopped
//! once more where it leaves firmware, by ExitBootServices(), and at the entry of each copy of the kernel
//! that RAM has then: the one that is executed is the kernel.

use super::{Notice, Sample};
use std::collections::HashMap;
use std::ops::Range;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Debuggee, Error, Place, Refusal, Stop, StopReason, VcpuId, WatchAccess, Watchpoint,
};

/// EFI_SYSTEM_TABLE_POINTER: where it may lie, its signature, its length.
const POINTER_ALIGNMENT: u64 = 4 << 20;
const POINTER_SIGNATURE: u64 = u64::from_le_bytes(*b"IBI SYST");
const POINTER_BYTES: u64 = 24;
/// Most places at which it is expected: firmware allocates from the end of RAM downwards. The hypervisor
/// watches 64 pages at most, of which the user is left some.
const POINTERS_MAX: usize = 40;
/// EFI_SYSTEM_TABLE: from its header's CRC to its last field, and the list of configuration tables.
const SYSTEM_TABLE: Range<u64> = 16..120;
const TABLE_COUNT: u64 = 104;
const TABLES: u64 = 112;
const TABLES_MAX: u64 = 256;
const TABLE_BYTES: u64 = 24;
/// EFI_SYSTEM_TABLE's EFI_BOOT_SERVICES, and its ExitBootServices().
const BOOT_SERVICES: u64 = 96;
const EXIT_BOOT_SERVICES: u64 = 232;
/// EFI_DEBUG_IMAGE_INFO_TABLE_GUID, 49152e77-1ada-4764-b7a2-7afefed95e8b, as it is in memory.
const IMAGES: [u8; 16] = [
    0x77, 0x2e, 0x15, 0x49, 0xda, 0x1a, 0x64, 0x47, 0xb7, 0xa2, 0x7a, 0xfe, 0xfe, 0xd9, 0x5e, 0x8b,
];
/// EFI_DEBUG_IMAGE_INFO_TABLE_HEADER: status, number of images, their list.
const HEADER_BYTES: u64 = 16;
const IMAGES_MAX: u64 = 4096;
/// EFI_DEBUG_IMAGE_INFO_NORMAL: its type, and the image's EFI_LOADED_IMAGE_PROTOCOL.
const NORMAL: u32 = 1;
const LOADED_IMAGE: u64 = 8;
/// EFI_LOADED_IMAGE_PROTOCOL.
const IMAGE_BASE: u64 = 64;
const IMAGE_SIZE: u64 = 72;

/// The arm64 kernel's image header (Linux, "Booting AArch64 Linux"): its second instruction branches to the
/// kernel's entry, and the magic number is `ARM\x64`.
const HEADER_BRANCH: u64 = 4;
const HEADER_MAGIC: u64 = 56;
const MAGIC: [u8; 4] = *b"ARMd";
/// Where a stub puts a copy: at a multiple of this.
const COPY_ALIGNMENT: u64 = 64 << 10;
/// Most copies that are watched.
const COPIES_MAX: usize = 8;

/// Tells whether flash has a firmware volume near its beginning, as EDK2's has behind a page with a
/// branch (Platform Initialization Specification, volume 3, "Firmware Volume Header").
#[must_use]
pub fn is_edk2(flash: &[u8]) -> bool {
    const PAGE: usize = 4096;
    const NEAR: usize = 16;
    const SIGNATURE: std::ops::Range<usize> = 0x28..0x2c;
    flash.chunks(PAGE).take(NEAR).any(|page| page.get(SIGNATURE) == Some(b"_FVH"))
}

/// What of the way is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    SystemTable(u64),
    Images(u64),
    /// Nothing more is to be known.
    All,
}

/// An image that EDK2 is to load.
#[derive(Clone, Debug)]
pub(super) struct Edk2 {
    sample: Sample,
    base: u64,
    ram: Range<u64>,
    known: Known,
    /// Where firmware has loaded the image.
    load: Option<Ipa>,
    watched: Vec<Watchpoint>,
    /// Where the guest leaves firmware, if it is to stop there.
    leaving: Option<Ipa>,
    /// Copies of the kernel, and where each is entered.
    entries: Vec<(Ipa, Ipa)>,
    /// Entries that are others', with their bases.
    others: HashMap<u64, u64>,
}

impl Edk2 {
    pub fn new(sample: Sample, base: u64, ram: Range<u64>) -> Self {
        Self {
            sample,
            base,
            ram,
            known: Known::Nothing,
            load: None,
            watched: Vec::new(),
            leaving: None,
            entries: Vec::new(),
            others: HashMap::new(),
        }
    }

    pub fn arm(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<(), Error> {
        let first = self.ram.start.next_multiple_of(POINTER_ALIGNMENT);
        let places: Vec<u64> = (first..self.ram.end).step_by(POINTER_ALIGNMENT as usize).collect();
        for &place in places.iter().rev().take(POINTERS_MAX) {
            self.watch(debuggee, vcpu, place..place + POINTER_BYTES)?;
        }
        Ok(())
    }

    /// Tells whether the guest stops for this no more.
    pub const fn is_settled(&self) -> bool {
        matches!(self.known, Known::All)
    }

    pub fn notice(&mut self, debuggee: &mut dyn Debuggee, stop: Stop) -> Result<Notice, Error> {
        // Addresses are what the guest takes for physical in firmware, and at a kernel's entry.
        let pc = Ipa(stop.pc.0);
        if self.leaving == Some(pc) {
            self.leave(debuggee, stop.vcpu, pc)?;
            return Ok(Notice::Passed);
        }
        if let Some((copy, _)) = self.entries.iter().find(|(_, entry)| *entry == pc).copied() {
            for (_, entry) in self.entries.drain(..) {
                clear(debuggee, stop.vcpu, entry)?;
            }
            self.known = Known::All;
            return Ok(match self.load {
                None => Notice::Placed(copy),
                Some(load) if load == copy => Notice::Passed,
                Some(_) => Notice::Moved(copy),
            });
        }
        let StopReason::Watchpoint { address, .. } = stop.reason else {
            return Ok(Notice::Foreign);
        };
        let has_it = |one: &&Watchpoint| {
            address.0.checked_sub(one.address.0).is_some_and(|offset| offset < one.length)
        };
        let Some(watched) = self.watched.iter().find(has_it).copied() else {
            return Ok(Notice::Foreign);
        };
        let mut memory = Memory { debuggee, vcpu: stop.vcpu };
        if self.known == Known::Nothing
            && let Some(system) = memory.system_table(watched.address.0, &self.ram)?
        {
            self.known = Known::SystemTable(system);
            self.watch_only(
                debuggee,
                stop.vcpu,
                system + SYSTEM_TABLE.start..system + SYSTEM_TABLE.end,
            )?;
        }
        let mut memory = Memory { debuggee, vcpu: stop.vcpu };
        if let Known::SystemTable(system) = self.known
            && let Some(header) = memory.images(system)?
            && self.ram.contains(&header)
        {
            self.known = Known::Images(header);
            let leaving = memory.way_out(system)?.filter(|leaving| self.ram.contains(&leaving.0));
            if let Some(leaving) = leaving {
                set(debuggee, stop.vcpu, leaving)?;
            }
            self.leaving = leaving;
            self.watch_only(debuggee, stop.vcpu, header..header + HEADER_BYTES)?;
        }
        if let (Known::Images(header), None) = (self.known, self.load)
            && let Some(load) = self.find(debuggee, stop.vcpu, header)?
        {
            self.unwatch(debuggee, stop.vcpu)?;
            self.load = Some(load);
            if self.leaving.is_none() {
                self.known = Known::All;
            }
            return Ok(Notice::Placed(load));
        }
        Ok(Notice::Passed)
    }

    /// The guest leaves firmware: it is to stop where it enters a copy of the kernel.
    fn leave(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        leaving: Ipa,
    ) -> Result<(), Error> {
        clear(debuggee, vcpu, leaving)?;
        self.leaving = None;
        self.unwatch(debuggee, vcpu)?;
        let first = self.ram.start.next_multiple_of(COPY_ALIGNMENT);
        let places = (first..self.ram.end).step_by(COPY_ALIGNMENT as usize).map(Ipa);
        let others = places.filter(|place| Some(*place) != self.load);
        for place in self.load.into_iter().chain(others) {
            let Some(entry) = (Memory { debuggee, vcpu }).kernel_at(place)? else { continue };
            if self.entries.len() < COPIES_MAX && self.sample.is_at(debuggee, vcpu, place)? {
                set(debuggee, vcpu, entry)?;
                self.entries.push((place, entry));
            }
        }
        if self.entries.is_empty() {
            self.known = Known::All;
        }
        Ok(())
    }

    /// Looks for the image among those that are loaded.
    fn find(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        header: u64,
    ) -> Result<Option<Ipa>, Error> {
        let mut memory = Memory { debuggee, vcpu };
        for Loaded { entry, base, bytes } in memory.loaded(header)? {
            if self.others.insert(entry, base) == Some(base) {
                continue;
            }
            // A kernel's first byte is its image's; an ELF has its addresses from the image's start on.
            let linked = Some(self.base).filter(|base| *base < bytes);
            for offset in [Some(0), linked].into_iter().flatten() {
                let load = Ipa(base).offset(offset);
                if self.sample.is_at(memory.debuggee, vcpu, load)? {
                    return Ok(Some(load));
                }
            }
        }
        Ok(None)
    }

    fn watch(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        range: Range<u64>,
    ) -> Result<(), Error> {
        let Some(watchpoints) = debuggee.support_watchpoints() else { return Ok(()) };
        let (address, length) = (Va(range.start), range.end - range.start);
        let watchpoint = Watchpoint { address, length, access: WatchAccess::Write };
        match watchpoints.set_watchpoint(vcpu, watchpoint) {
            // The user watches the same.
            Ok(()) | Err(Error::Refused(Refusal::Watchpoint)) => {}
            Err(error) => return Err(error),
        }
        self.watched.push(watchpoint);
        Ok(())
    }

    fn watch_only(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        range: Range<u64>,
    ) -> Result<(), Error> {
        self.unwatch(debuggee, vcpu)?;
        self.watch(debuggee, vcpu, range)
    }

    fn unwatch(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<(), Error> {
        let Some(watchpoints) = debuggee.support_watchpoints() else { return Ok(()) };
        for watchpoint in self.watched.drain(..) {
            watchpoints.clear_watchpoint(vcpu.domain, watchpoint)?;
        }
        Ok(())
    }
}

/// Sets a breakpoint where the user may have one.
fn set(debuggee: &mut dyn Debuggee, vcpu: VcpuId, at: Ipa) -> Result<(), Error> {
    match debuggee.set_breakpoint(vcpu.domain, Place::Ipa(at)) {
        Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
        result => result,
    }
}

/// Clears one, which may be gone.
fn clear(debuggee: &mut dyn Debuggee, vcpu: VcpuId, at: Ipa) -> Result<(), Error> {
    match debuggee.clear_breakpoint(vcpu.domain, Place::Ipa(at)) {
        Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
        result => result,
    }
}

/// An image that is loaded.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    /// Its number in the table.
    entry: u64,
    base: u64,
    bytes: u64,
}

/// What a guest's memory says. EDK2 maps it where it is.
struct Memory<'a> {
    debuggee: &'a mut dyn Debuggee,
    vcpu: VcpuId,
}

impl Memory<'_> {
    /// Reads bytes; nothing where there is no memory.
    fn bytes<const N: usize>(&mut self, at: u64) -> Result<Option<[u8; N]>, Error> {
        let mut bytes = [0; N];
        match self.debuggee.read_memory(self.vcpu, Place::Ipa(Ipa(at)), &mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.is_fatal() => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn word(&mut self, at: u64) -> Result<Option<u64>, Error> {
        Ok(self.bytes(at)?.map(u64::from_le_bytes))
    }

    /// Returns where the system table is, if there is a pointer to it here.
    fn system_table(&mut self, pointer: u64, ram: &Range<u64>) -> Result<Option<u64>, Error> {
        if self.word(pointer)? != Some(POINTER_SIGNATURE) {
            return Ok(None);
        }
        let system = self.word(pointer.wrapping_add(8))?;
        Ok(system
            .filter(|system| ram.contains(system) && ram.contains(&(system + SYSTEM_TABLE.end))))
    }

    /// Returns where the table of images is, if the system table has one.
    fn images(&mut self, system: u64) -> Result<Option<u64>, Error> {
        let count =
            self.word(system.wrapping_add(TABLE_COUNT))?.unwrap_or_default().min(TABLES_MAX);
        let Some(tables) = self.word(system.wrapping_add(TABLES))? else { return Ok(None) };
        for index in 0..count {
            let entry = tables.wrapping_add(index * TABLE_BYTES);
            if self.bytes(entry)? == Some(IMAGES) {
                return self.word(entry.wrapping_add(16));
            }
        }
        Ok(None)
    }

    /// Returns where a kernel begins that has its image here.
    fn kernel_at(&mut self, image: Ipa) -> Result<Option<Ipa>, Error> {
        if self.bytes(image.0.wrapping_add(HEADER_MAGIC))? != Some(MAGIC) {
            return Ok(None);
        }
        let branch = image.0.wrapping_add(HEADER_BRANCH);
        let word = self.bytes(branch)?.map_or(0, u32::from_le_bytes);
        // B: words forward or back, 26 bits of them.
        let words = i64::from((word << 6).cast_signed() >> 6);
        let to = branch.wrapping_add((words * 4).cast_unsigned());
        Ok((word >> 26 == 0b000101).then_some(Ipa(to)))
    }

    /// Returns where a guest leaves firmware.
    fn way_out(&mut self, system: u64) -> Result<Option<Ipa>, Error> {
        let Some(services) = self.word(system.wrapping_add(BOOT_SERVICES))? else {
            return Ok(None);
        };
        Ok(self.word(services.wrapping_add(EXIT_BOOT_SERVICES))?.map(Ipa))
    }

    /// Returns the images that are loaded.
    fn loaded(&mut self, header: u64) -> Result<Vec<Loaded>, Error> {
        let count = self.bytes(header.wrapping_add(4))?.map_or(0, u32::from_le_bytes);
        let Some(list) = self.word(header.wrapping_add(8))? else { return Ok(Vec::new()) };
        let mut images = Vec::new();
        for entry in 0..u64::from(count).min(IMAGES_MAX) {
            let Some(info) = self.word(list.wrapping_add(entry * 8))? else { break };
            // What was unloaded has none.
            if self.bytes(info)?.map(u32::from_le_bytes) != Some(NORMAL) {
                continue;
            }
            let Some(image) = self.word(info.wrapping_add(LOADED_IMAGE))? else { continue };
            let base = self.word(image.wrapping_add(IMAGE_BASE))?;
            let bytes = self.word(image.wrapping_add(IMAGE_SIZE))?;
            images.extend(base.zip(bytes).map(|(base, bytes)| Loaded { entry, base, bytes }));
        }
        Ok(images)
    }
}

#[cfg(test)]
mod tests;
