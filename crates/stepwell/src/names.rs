//! Symbols for a guest that moves itself about.
//!
//! A kernel is linked at one address, loaded at another, and runs at a third once it has chosen
//! its KASLR offset. What stays is how far into the image something is. So names are turned into
//! places within the image, and a virtual address into a name by asking the stopped vCPU where it
//! leads to. Where firmware moves the image, or is yet to load it, [`crate::relocation`] says where
//! it is.

use crate::linux::{Image, Linux, LinuxError, Running};
use crate::machine::{GUEST_RAM, Guest, Layout, Placing};
use crate::programs::{self, Programs};
use crate::relocation::{Notice, Relocation, Sample, move_of};
use crate::terminal::notice;
use std::sync::Arc;
use stepwell_arch::{Ipa, Pstate, Va};
use stepwell_debuggee::{Debuggee, Error, Place, Stop, VcpuId};
use stepwell_trace::{KernelImage, LoadPlan, Symbol, SymbolKind, Symbols};

/// Names to suggest for one that is unknown.
const SUGGESTIONS: usize = 3;

/// A word names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No symbol has that name.
    #[error("unknown symbol {name}{}", suggested(.closest))]
    Unknown {
        /// The name.
        name: String,
        /// Names like it.
        closest: Vec<String>,
    },
    /// There are no symbols at all.
    #[error("{0} is no address, and this kernel has no symbols: name an ELF with --symbols")]
    NoSymbols(String),
    /// A program's place, and nobody said where the guest's files are.
    #[error("where is the program {0}? name the folder with the guest's files: --sysroot DIR")]
    NoSysroot(String),
    /// There is no such program.
    #[error("no program {name} with symbols below {}: name its path in the guest", .root.display())]
    NoProgram {
        /// The program.
        name: String,
        /// The folder with the guest's files.
        root: std::path::PathBuf,
    },
    /// No process executes that program now.
    #[error("no process has {0} mapped: ps shows those that there are")]
    NotMapped(String),
    /// Its module is not loaded.
    #[error("module {0} is not loaded: lsmod shows those that are")]
    NotLoaded(String),
    /// The firmware has not loaded what has the name.
    #[error("{0} has no address yet: the firmware has not loaded what has that name")]
    NotPlaced(String),
    /// Its kernel is there no more.
    #[error(
        "{0} is a name of the kernel that kexec has replaced: only 0xADDRESS means something now"
    )]
    Replaced(String),
    /// No instruction begins there.
    #[error("{0} is odd: no instruction begins there")]
    Unaligned(String),
    /// Not a number.
    #[error("{0} is no address: write 0x and hexadecimal digits")]
    Number(String),
}

fn suggested(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; close to it: {}", names.join(", ")) }
}

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to put a breakpoint: holds before and after the guest turns its MMU on.
    pub place: Place,
    /// Where it is in the translation that the guest was last seen with.
    pub va: Va,
}

/// Symbols, and where the guest has been seen to run.
#[derive(Clone, Debug)]
pub struct Names {
    linked: Symbols,
    /// Link address of the image's first byte; `None` where addresses never move.
    base: Option<u64>,
    /// Where the image's first byte was put, one after the other; none while it is not in memory.
    loads: Vec<Ipa>,
    bytes: u64,
    /// Says where the guest puts the image, where it does that itself.
    relocation: Option<Relocation>,
    /// Run address minus link address, once seen.
    delta: Option<u64>,
    /// Whether the guest was last seen at its load address.
    low: bool,
    /// Breakpoints can be at virtual addresses only.
    placing: Placing,
    /// Another kernel has taken the place of the one that has the names.
    is_replaced: bool,
    /// The image, as loaded.
    file: Arc<[u8]>,
    linux: Linux,
    programs: Programs,
}

impl Names {
    /// Makes names that know nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            linked: Symbols::default(),
            base: None,
            loads: vec![Ipa(0)],
            bytes: 0,
            relocation: None,
            delta: None,
            low: true,
            placing: Placing::Physical,
            is_replaced: false,
            file: Arc::default(),
            linux: Linux::default(),
            programs: Programs::default(),
        }
    }

    /// Has names be such places.
    pub const fn place(&mut self, placing: Placing) {
        self.placing = placing;
    }

    /// Makes names for a guest: from `symbols`, or else its kernel's own.
    #[must_use]
    pub fn new(symbols: Option<Symbols>, guest: &Guest, layout: &Layout) -> Self {
        let image = guest.loaded.as_ref().unwrap_or(&guest.kernel);
        let linked = symbols.or_else(|| image.symbols()).unwrap_or_default();
        let text = || linked.address_of("_text").map(|va| va.0);
        let base = linked.link_base().or_else(text);
        let relocation = relocation(&linked, base, guest, layout);
        let base = base.filter(|_| guest.moves || relocation.is_some());
        let reach = relocation.is_some().then(|| base.map(|base| reach(image, &linked, base)));
        Self {
            base,
            linked: with_start(linked, base),
            loads: guest.loaded.is_none().then_some(layout.kernel_load).into_iter().collect(),
            bytes: reach.flatten().unwrap_or(layout.kernel_bytes),
            relocation,
            delta: None,
            low: true,
            placing: Placing::Physical,
            is_replaced: false,
            file: image.bytes.as_slice().into(),
            linux: Linux::default(),
            programs: Programs::default(),
        }
    }

    /// Has a stopped guest stop where it will say where it has put the image, if that is its doing.
    ///
    /// # Errors
    ///
    /// As [`Relocation::arm`].
    pub fn follow_image(&mut self, debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<(), Error> {
        match &mut self.relocation {
            Some(relocation) => relocation.arm(debuggee, vcpu),
            None => Ok(()),
        }
    }

    /// Tells whether the image may have another address later than now.
    #[must_use]
    pub const fn is_followed(&self) -> bool {
        self.relocation.is_some()
    }

    /// Learns where the image is from a stop. Tells whether it was made for that alone.
    ///
    /// # Errors
    ///
    /// As [`Relocation::notice`].
    pub fn image_moved(&mut self, debuggee: &mut dyn Debuggee, stop: Stop) -> Result<bool, Error> {
        let Some(relocation) = &mut self.relocation else { return Ok(false) };
        let noticed = relocation.notice(debuggee, stop)?;
        if noticed != Notice::Foreign && relocation.is_over() {
            self.relocation = None;
        }
        match noticed {
            Notice::Foreign => return Ok(false),
            Notice::Passed => {}
            Notice::Placed(load) => self.put_at(load),
            Notice::Moved(load) => {
                notice(&format!("the kernel has moved itself to {:#x}", load.0));
                self.loads.push(load);
            }
        }
        Ok(true)
    }

    fn put_at(&mut self, load: Ipa) {
        let by = load.0.wrapping_sub(self.base.unwrap_or_default());
        match self.loads.is_empty() {
            true => notice(&format!("the firmware has put what has the names at {:#x}", load.0)),
            false => {
                // It runs where it takes its memory to be: there is no other address of it.
                self.delta = Some(by);
                notice(&format!(
                    "the firmware moves to {:#x}, {by:#x} from its link address",
                    load.0
                ));
            }
        }
        self.loads.push(load);
    }

    /// In how many places the image has been: changes with [`Names::as_seen`].
    #[must_use]
    pub const fn places(&self) -> usize {
        self.loads.len()
    }

    /// Learns where the guest runs from a vCPU that is stopped at `pc`, if that is at EL1: what EL0
    /// has of the image (a kernel's vDSO, or all of it in another mapping) is not where the kernel
    /// is.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] only; a PC that leads nowhere teaches nothing.
    pub fn locate(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        pc: Va,
    ) -> Result<(), Error> {
        let Some(base) = self.base else { return Ok(()) };
        let low = self.loaded(pc.0).is_some();
        let is_known = low || self.delta.is_some();
        self.notice_module(debuggee, vcpu, pc)?;
        match programs::notice(self, debuggee, vcpu, pc) {
            Err(LinuxError::Guest(stepwell_linux::Error::Debuggee(error))) if error.is_fatal() => {
                return Err(error);
            }
            // What cannot be asked has no name.
            Ok(()) | Err(_) => {}
        }
        if low == self.low && is_known {
            return Ok(());
        }
        if Pstate(debuggee.read_registers(vcpu)?.pstate).el() == 0 {
            return Ok(());
        }
        self.low = low;
        if is_known {
            return Ok(());
        }
        match debuggee.translate(vcpu, pc) {
            Ok(ipa) => {
                let offset = self.loaded(ipa.0);
                self.delta = offset.map(|offset| pc.0.wrapping_sub(base.wrapping_add(offset)));
                Ok(())
            }
            Err(error) if error.is_fatal() => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Learns of the module that `pc` is in, where it is neither in the kernel's image nor in the
    /// half of addresses that programs have.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] only: an address that cannot be asked about has no name.
    pub fn notice_module(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        pc: Va,
    ) -> Result<(), Error> {
        let Some(delta) = self.delta else { return Ok(()) };
        let offset = pc.0.wrapping_sub(delta).wrapping_sub(self.base.unwrap_or_default());
        if pc.0 >> 63 == 0 || offset < self.bytes || self.linked.is_empty() {
            return Ok(());
        }
        let result = self.with_linux(|linux, image| linux.notice(image, debuggee, vcpu, pc));
        match result {
            Err(LinuxError::Guest(stepwell_linux::Error::Debuggee(error))) if error.is_fatal() => {
                Err(error)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Returns the guest's kernel, to be asked.
    ///
    /// # Errors
    ///
    /// [`LinuxError`], with what is missing.
    pub fn kernel(&mut self) -> Result<Running, LinuxError> {
        self.with_linux(Linux::running)
    }

    /// Learns which modules are loaded now.
    ///
    /// # Errors
    ///
    /// [`LinuxError`].
    pub fn find_modules(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<(), LinuxError> {
        self.with_linux(|linux, image| linux.find_modules(image, debuggee, vcpu))
    }

    fn with_linux<R>(
        &mut self,
        work: impl FnOnce(&mut Linux, &Image<'_>) -> Result<R, LinuxError>,
    ) -> Result<R, LinuxError> {
        if self.is_replaced {
            return Err(LinuxError::Kernel("kexec has replaced the kernel that is known".into()));
        }
        let no_kernel = || LinuxError::Kernel("this guest is no Linux kernel with symbols".into());
        let base = self.base.ok_or_else(no_kernel)?;
        let moved_by = self.delta.ok_or(stepwell_linux::Error::NotRunning)?;
        let not_loaded = || LinuxError::Kernel("the firmware has not loaded the kernel yet".into());
        let load = *self.loads.last().ok_or_else(not_loaded)?;
        let (bytes, symbols) = (&*self.file, &self.linked);
        work(&mut self.linux, &Image { bytes, symbols, base, load, moved_by })
    }

    /// Returns how far an address is into the image at its load address.
    fn loaded(&self, address: u64) -> Option<u64> {
        let offset = |load: &Ipa| address.checked_sub(load.0).filter(|offset| *offset < self.bytes);
        self.loads.iter().rev().find_map(offset)
    }

    /// Tells whether it is known where the guest runs.
    #[must_use]
    pub const fn located(&self) -> bool {
        let begins_in_place = self.relocation.is_some() && !self.loads.is_empty();
        self.base.is_none() || self.delta.is_some() || begins_in_place
    }

    /// Returns how far the guest runs from where it was linked, where it moves at all and was seen.
    #[must_use]
    pub const fn moved_by(&self) -> Option<u64> {
        self.delta
    }

    /// Another kernel takes the place of the one that has the names, or, where a run is gone back in,
    /// that one is there again.
    pub const fn replace(&mut self, is_replaced: bool) {
        self.is_replaced = is_replaced;
    }

    /// Tells whether a place is in what a Linux kernel frees once it has come up.
    #[must_use]
    pub fn is_init(&self, place: Place) -> bool {
        let address = match place {
            Place::Va(va) => va,
            Place::Ipa(ipa) => Va(ipa.0),
        };
        let first =
            |names: [&str; 2]| names.into_iter().find_map(|one| self.linked.address_of(one));
        // Without the names of variables there are those of the section's functions only.
        let start = first(["__init_begin", "_sinittext"]);
        let end = first(["__init_end", "_einittext"]);
        match (self.base.and_then(|_| self.to_link(address)), start, end) {
            (Some(link), Some(start), Some(end)) => (start..end).contains(&link),
            _ => false,
        }
    }

    /// Tells whether a breakpoint at a place is met by who executes what is at `va`: one in the image
    /// where the image is executed, and not through whatever else leads to the same memory.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] only.
    pub fn is_met(
        &self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
        place: Place,
        va: Va,
    ) -> Result<bool, Error> {
        let ipa = match place {
            Place::Va(place) => return Ok(place == va),
            Place::Ipa(ipa) => ipa,
        };
        if self.is_replaced || va.0 == ipa.0 || self.place_in_image(va) == Some(ipa) {
            return Ok(!self.is_replaced);
        }
        if self.delta.is_some() {
            return Ok(false);
        }
        match debuggee.translate(vcpu, va) {
            Err(error) if error.is_fatal() => Err(error),
            found => Ok(found.is_ok_and(|found| found == ipa)),
        }
    }

    /// Makes an ELF for debuggers of the symbols as linked.
    #[must_use]
    pub fn to_elf(&self) -> Vec<u8> {
        stepwell_trace::symbols::file::to_elf(&self.linked, &self.file)
    }

    /// Tells whether there are symbols at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.linked.is_empty()
    }

    /// Returns where the image has what the guest will have at `va` once it has an address there:
    /// the one it was seen at, or else the one that it was linked at.
    #[must_use]
    pub fn place_in_image(&self, va: Va) -> Option<Ipa> {
        if self.is_replaced {
            return None;
        }
        let link = va.0.wrapping_sub(self.delta.unwrap_or_default());
        let place = self.loads.last()?.offset(link.wrapping_sub(self.base?));
        self.loaded(place.0).is_some().then_some(place)
    }

    /// Returns at most `length` bytes of the kernel's file, where `va` is in its image.
    #[must_use]
    pub fn file_bytes(&self, va: Va, length: u64) -> Option<&[u8]> {
        let link = || va.0.checked_sub(self.delta?)?.checked_sub(self.base?);
        let start = self.loaded(va.0).or_else(link)?;
        let end = start.saturating_add(length).min(self.file.len() as u64);
        self.file.get(start as usize..end as usize).filter(|bytes| !bytes.is_empty())
    }

    /// Returns `symbol+0xoffset` for an address, or nothing.
    #[must_use]
    pub fn describe(&self, va: Va) -> Option<String> {
        if self.is_replaced {
            return None;
        }
        let of_others = self.linux.describe(va).or_else(|| self.programs.describe(va));
        let (name, offset) = match of_others {
            Some(found) => found,
            None => {
                let (name, offset) = self.linked.lookup(self.to_link(va)?)?;
                (name.to_owned(), offset)
            }
        };
        Some(if offset == 0 { name } else { format!("{name}+{offset:#x}") })
    }

    /// Returns what [`Names::describe`] would if the guest ran where it was linked, marked as a
    /// guess; for guests that ended before anybody asked where they run.
    #[must_use]
    pub fn guess(&self, va: Va) -> Option<String> {
        self.describe(va).or_else(|| {
            let (name, offset) = self.linked.lookup(va).filter(|_| !self.is_replaced)?;
            Some(format!("{name}+{offset:#x}, unless moved by KASLR"))
        })
    }

    fn to_link(&self, va: Va) -> Option<Va> {
        let Some(base) = self.base else { return Some(va) };
        match (self.loaded(va.0), self.delta) {
            (Some(offset), _) => Some(Va(base.wrapping_add(offset))),
            (None, Some(delta)) => Some(Va(va.0.wrapping_sub(delta))),
            (None, None) => None,
        }
    }

    /// Finds out what a word means: `0xADDRESS`, `SYMBOL` or `SYMBOL+0xOFFSET`, and
    /// `MODULE:SYMBOL` of a module that is known.
    ///
    /// # Errors
    ///
    /// [`NameError`], with the closest names.
    pub fn resolve(&self, word: &str) -> Result<Target, NameError> {
        if let Some(va) = hexadecimal(word) {
            let va = Va(va?);
            return Ok(Target { place: Place::Va(va), va });
        }
        if word.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(NameError::Number(word.to_owned()));
        }
        if self.is_replaced {
            return Err(NameError::Replaced(word.to_owned()));
        }
        let (name, offset) = match word.split_once('+') {
            Some((name, offset)) => (name, number(offset)?),
            None => (word, 0),
        };
        if let Some((module, symbol)) = name.split_once(':') {
            let va = self.in_module(module, symbol)?.offset(offset);
            return Ok(Target { place: Place::Va(va), va });
        }
        let link = self.linked.address_of(name).ok_or_else(|| self.unknown(name))?;
        let link = link.0.wrapping_add(offset);
        let Some(base) = self.base else {
            return Ok(Target { place: Place::Va(Va(link)), va: Va(link) });
        };
        let Some(load) = self.loads.last() else {
            return Err(NameError::NotPlaced(word.to_owned()));
        };
        let ipa = load.offset(link.wrapping_sub(base));
        let va = match self.delta {
            Some(delta) if !self.low => Va(link.wrapping_add(delta)),
            _ => Va(ipa.0),
        };
        let is_virtual = match self.placing {
            Placing::Physical => false,
            Placing::Virtual => true,
            Placing::VirtualOnceSeen => self.delta.is_some(),
        };
        let place = match (self.loaded(ipa.0), is_virtual) {
            (Some(_), false) => Place::Ipa(ipa),
            (Some(_), true) => Place::Va(Va(link.wrapping_add(self.delta.unwrap_or(0)))),
            (None, _) => Place::Va(va),
        };
        Ok(Target { place, va })
    }

    /// Finds out where the instruction is that a word means, as [`Names::resolve`] does.
    ///
    /// # Errors
    ///
    /// [`NameError`].
    pub fn resolve_instruction(&self, word: &str) -> Result<Target, NameError> {
        let target = self.resolve(word)?;
        if target.va.is_aligned(2) { Ok(target) } else { Err(NameError::Unaligned(word.into())) }
    }

    fn in_module(&self, module: &str, symbol: &str) -> Result<Va, NameError> {
        match self.linux.resolve(module, symbol) {
            Some(Some(va)) => Ok(va),
            Some(None) => {
                let closest = self.linux.suggestions(module, symbol, SUGGESTIONS);
                Err(NameError::Unknown { name: format!("{module}:{symbol}"), closest })
            }
            None => Err(NameError::NotLoaded(module.to_owned())),
        }
    }

    fn unknown(&self, name: &str) -> NameError {
        if self.linked.is_empty() {
            return NameError::NoSymbols(name.to_owned());
        }
        let closest = self.linked.suggestions(name, SUGGESTIONS);
        let closest = closest.into_iter().map(str::to_owned).collect();
        NameError::Unknown { name: name.to_owned(), closest }
    }

    /// Tells whether an address is in a module of this name, as far as is known.
    #[must_use]
    pub fn is_in_module(&self, module: &str, va: Va) -> bool {
        self.linux.is_in(module, va)
    }

    /// Returns the symbols of all modules and programs that were seen, and a number that changes with
    /// them.
    #[must_use]
    pub fn of_modules(&self) -> (u64, Symbols) {
        let symbols = self.linux.symbols().chain(self.programs.symbols());
        (self.linux.seen() + self.programs.seen(), Symbols::new(symbols, None))
    }

    /// The programs of the guest's.
    pub const fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Returns symbols at the addresses that the guest has been seen to run at.
    #[must_use]
    pub fn as_seen(&self) -> Symbols {
        let Some(base) = self.base else { return self.linked.clone() };
        let loads = self.loads.iter().map(|load| load.0.wrapping_sub(base)).chain(self.delta);
        let seen = loads.map(|delta| self.linked.relocated(delta));
        seen.reduce(|low, high| high.merged(&low)).unwrap_or_default()
    }

    /// Returns names that begin with `prefix`, for completion.
    pub fn beginning_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.linked.iter().map(|symbol| symbol.name.as_str()).filter(move |n| n.starts_with(prefix))
    }
}

/// What says where the guest itself puts its image, where there are names for it.
fn relocation(
    linked: &Symbols,
    base: Option<u64>,
    guest: &Guest,
    layout: &Layout,
) -> Option<Relocation> {
    /// No firmware is larger, and kernels are not looked through.
    const FIRMWARE_MAX: usize = 8 << 20;
    let base = base.filter(|_| !linked.is_empty())?;
    let ram = GUEST_RAM.0..GUEST_RAM.0 + layout.guest_bytes;
    if let Some(image) = &guest.loaded {
        return Some(Relocation::of_edk2(Sample::of(&image.bytes, linked, base), base, ram));
    }
    let bytes = &guest.kernel.bytes;
    let offset = move_of(bytes).filter(|_| bytes.len() <= FIRMWARE_MAX)?;
    Some(Relocation::of_u_boot(layout.kernel_load, offset, ram))
}

/// How many bytes of memory an image takes: with what it has no bytes in its file for.
fn reach(image: &KernelImage, linked: &Symbols, base: u64) -> u64 {
    let bytes = image.bytes.len() as u64;
    let said = match image.load {
        LoadPlan::Image { image_size, .. } => image_size,
        LoadPlan::Fixed { .. } | LoadPlan::Anywhere => 0,
    };
    // Symbols are of anything: those far off are no part of it.
    let ends = linked
        .iter()
        .filter_map(|symbol| symbol.address.checked_sub(base)?.checked_add(symbol.size));
    let end = ends.filter(|end| *end <= bytes.saturating_mul(2)).max().unwrap_or_default();
    bytes.max(said).max(end)
}

/// Names the image's first byte as kernels do: most carry the names of functions only.
fn with_start(symbols: Symbols, base: Option<u64>) -> Symbols {
    const NAME: &str = "_text";
    match base {
        Some(address) if !symbols.is_empty() && symbols.address_of(NAME).is_none() => {
            let start = Symbol { address, size: 0, kind: SymbolKind::Other, name: NAME.into() };
            symbols.merged(&Symbols::new([start], None))
        }
        _ => symbols,
    }
}

/// Reads `0x…`; `None` where it isn't written like that.
fn hexadecimal(word: &str) -> Option<Result<u64, NameError>> {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?;
    Some(u64::from_str_radix(digits, 16).map_err(|_| NameError::Number(word.to_owned())))
}

/// Reads a number, decimal or `0x…`.
///
/// # Errors
///
/// [`NameError::Number`].
pub fn number(word: &str) -> Result<u64, NameError> {
    hexadecimal(word)
        .unwrap_or_else(|| word.parse().map_err(|_| NameError::Number(word.to_owned())))
}

#[cfg(test)]
impl Names {
    /// Names of an image of so many bytes that is where it was loaded, by how far into it each is.
    pub(crate) fn loaded_at(load: Ipa, bytes: u64, symbols: &[(u64, &str)]) -> Self {
        const BASE: u64 = 0xffff_8000_0800_0000;
        let symbol = |&(offset, name): &(u64, &str)| Symbol {
            address: BASE + offset,
            size: 0,
            kind: SymbolKind::Function,
            name: name.into(),
        };
        let linked = Symbols::new(symbols.iter().map(symbol), Some(BASE));
        Self { linked, base: Some(BASE), loads: vec![load], bytes, ..Self::none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_debuggee::fake::Fake;

    const BASE: u64 = 0xffff_8000_0800_0000;

    fn names() -> Names {
        let list = [(0, "_text"), (0x1000, "start_kernel")];
        let names = Names::loaded_at(Ipa(0x4020_0000), 0x10_0000, &list);
        Names { file: vec![0; 0x1000].into_iter().chain(*b"code").collect(), ..names }
    }

    #[test]
    fn the_first_byte_has_a_name_even_if_only_functions_have() {
        let names = names();
        let function = |symbol: &&Symbol| symbol.name == "start_kernel";
        let functions = Symbols::new(names.linked.iter().filter(function).cloned(), Some(BASE));
        assert_eq!(functions.lookup(Va(BASE + 4)), None);
        assert_eq!(with_start(functions, Some(BASE)).lookup(Va(BASE + 4)), Some(("_text", 4)));
    }

    #[test]
    fn the_file_has_code_wherever_it_runs() {
        let mut names = names();
        assert_eq!(names.file_bytes(Va(0x4020_1000), 0x1000), Some(b"code".as_slice()));
        assert_eq!(names.file_bytes(Va(BASE + 0x20_1000), 4), None, "not seen there yet");
        names.delta = Some(0x20_0000);
        assert_eq!(names.file_bytes(Va(BASE + 0x20_1000), 4), Some(b"code".as_slice()));
        assert_eq!(names.file_bytes(Va(BASE + 0x20_2000), 4), None, "beyond the file");
        assert_eq!(names.file_bytes(Va(0x1000), 4), None);
    }

    #[test]
    fn a_symbol_is_a_place_in_the_image_wherever_that_runs() {
        let mut names = names();
        let target = names.resolve("start_kernel+0x10").unwrap();
        assert_eq!(target.place, Place::Ipa(Ipa(0x4020_1010)));
        assert_eq!(target.va, Va(0x4020_1010));
        (names.delta, names.low) = (Some(0x20_0000), false);
        let target = names.resolve("start_kernel").unwrap();
        assert_eq!(target.place, Place::Ipa(Ipa(0x4020_1000)));
        assert_eq!(target.va, Va(BASE + 0x20_1000));
        names.place(Placing::VirtualOnceSeen);
        let target = names.resolve("start_kernel").unwrap();
        assert_eq!(target.place, Place::Va(Va(BASE + 0x20_1000)));
        names.place(Placing::Virtual);
        let target = names.resolve("start_kernel").unwrap();
        assert_eq!(target.place, Place::Va(Va(BASE + 0x20_1000)));
        (names.delta, names.low) = (None, true);
        let target = names.resolve("start_kernel").unwrap();
        assert_eq!(target.place, Place::Va(Va(BASE + 0x1000)), "where it is linked");
        names.place(Placing::VirtualOnceSeen);
        let target = names.resolve("start_kernel").unwrap();
        assert_eq!(target.place, Place::Ipa(Ipa(0x4020_1000)), "wherever it will be");
    }

    #[test]
    fn addresses_get_names_where_the_guest_has_been_seen() {
        let mut names = names();
        assert_eq!(names.describe(Va(0x4020_1004)).as_deref(), Some("start_kernel+0x4"));
        assert_eq!(names.describe(Va(BASE + 0x1000)), None, "not seen there yet");
        let guess = names.guess(Va(BASE + 0x1004)).unwrap();
        assert_eq!(guess, "start_kernel+0x4, unless moved by KASLR");
        names.delta = Some(0);
        assert_eq!(names.describe(Va(BASE + 0x1000)).as_deref(), Some("start_kernel"));
        assert_eq!(names.as_seen().address_of("start_kernel"), Some(Va(0x4020_1000)));
    }

    #[test]
    fn an_image_has_names_once_the_firmware_has_put_it_somewhere() {
        let mut names = names();
        names.loads.clear();
        let error = names.resolve("start_kernel").unwrap_err().to_string();
        assert!(error.contains("has not loaded"), "{error}");
        assert!(matches!(names.resolve("start_kernal"), Err(NameError::Unknown { .. })));
        assert_eq!(names.describe(Va(0x4020_1000)), None);
        assert!(names.as_seen().is_empty());
        names.put_at(Ipa(0x5c00_0000));
        assert_eq!(names.resolve("start_kernel").unwrap().place, Place::Ipa(Ipa(0x5c00_1000)));
        assert_eq!(names.delta, None, "where it runs is its own to choose");
    }

    #[test]
    fn firmware_that_moves_has_names_in_both_places() {
        let mut names = names();
        names.put_at(Ipa(0x5ff0_0000));
        let target = names.resolve("start_kernel").unwrap();
        assert_eq!((target.place, target.va), (Place::Ipa(Ipa(0x5ff0_1000)), Va(0x5ff0_1000)));
        for address in [0x4020_1000, 0x5ff0_1000] {
            assert_eq!(names.describe(Va(address)).as_deref(), Some("start_kernel"));
            assert_eq!(names.as_seen().lookup(Va(address)), Some(("start_kernel", 0)));
        }
        assert_eq!(names.places(), 2);
    }

    #[test]
    fn el0_does_not_tell_where_the_kernel_is() {
        let mut fake = Fake::new(&[]);
        let vcpu = VcpuId::default();
        let mut stop_at = |pstate| {
            let mut names = names();
            let mut registers = fake.read_registers(vcpu).unwrap();
            registers.pstate = pstate;
            fake.write_registers(vcpu, &registers).unwrap();
            names.locate(&mut fake, vcpu, Va(0x8020_1000)).unwrap();
            names.resolve("start_kernel").unwrap().va
        };
        // Where it was last seen at EL1: at reset, that is its load address.
        assert_eq!([stop_at(0), stop_at(0x1d0)], [Va(0x4020_1000); 2], "A64 and A32");
        let mut names = names();
        (names.delta, names.low) = (Some(0x20_0000), false);
        names.locate(&mut fake, vcpu, Va(0x4020_1000)).unwrap();
        assert!(!names.low, "a program at an address like the kernel's first");
    }

    #[test]
    fn unknown_names_come_with_the_closest() {
        let error = names().resolve("start_kernal").unwrap_err();
        let text = "unknown symbol start_kernal; close to it: start_kernel";
        assert_eq!(error.to_string(), text);
        assert!(matches!(names().resolve("0xzz"), Err(NameError::Number(_))));
        assert!(matches!(names().resolve("40200000"), Err(NameError::Number(_))));
        assert!(matches!(Names::none().resolve("x"), Err(NameError::NoSymbols(_))));
        let odd = names().resolve_instruction("start_kernel+1");
        assert!(matches!(odd, Err(NameError::Unaligned(_))));
    }
}
