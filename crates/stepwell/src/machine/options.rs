//! What a machine is made of: its options, and the guest's files once read.

use super::{Firmware, Handed, MachineError};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;
use stepwell_debuggee::Schedule;
use stepwell_devices::Devices;
use stepwell_trace::kernel_image::{KernelImage, LoadPlan, RawPolicy};

/// `cargo xtask build` puts the hypervisor here; empty where it was not built.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hypervisor.bin"));

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    /// Bytes; a multiple of 2 MiB.
    pub bytes: u64,
}

impl Memory {
    /// What the hypervisor hands out, one block of its stage 2.
    pub const GRANULE: u64 = 2 << 20;
    /// Most that a guest can have: its RAM lies below 512 GiB, and nobody's host has more.
    const MAX: u64 = 255 << 30;

    /// Makes one of a number of bytes.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] where no guest can have so much.
    pub const fn of_bytes(bytes: u64) -> Result<Self, MemoryError> {
        match bytes {
            0 | Self::MAX.. => Err(MemoryError::Range),
            _ if bytes.is_multiple_of(Self::GRANULE) => Ok(Self { bytes }),
            _ => Err(MemoryError::Multiple),
        }
    }
}

/// A word that names no amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Not a number with a unit.
    #[error("not an amount of memory: write 512M, 2G or 65536K")]
    Word,
    /// Not a whole number of blocks.
    #[error("memory comes in multiples of 2 MiB")]
    Multiple,
    /// Nothing, or more than a machine can have.
    #[error("memory must be between 2M and 255G")]
    Range,
}

impl FromStr for Memory {
    type Err = MemoryError;

    fn from_str(word: &str) -> Result<Self, MemoryError> {
        let (digits, shift) = match word.strip_suffix(['K', 'k', 'M', 'm', 'G', 'g']) {
            Some(digits) if word.ends_with(['K', 'k']) => (digits, 10),
            Some(digits) if word.ends_with(['G', 'g']) => (digits, 30),
            Some(digits) => (digits, 20),
            // As QEMU takes it.
            None => (word, 20),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(MemoryError::Word);
        }
        let number: u64 = digits.parse().map_err(|_| MemoryError::Range)?;
        let bytes = number.checked_mul(1 << shift).ok_or(MemoryError::Range)?;
        Self::of_bytes(bytes)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.bytes >> 20)
    }
}

/// What QEMU is told.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// vCPUs of the guest.
    pub smp: u8,
    /// CPUs of the machine, where there is not one for each vCPU: they share these in turns.
    pub cpus: Option<u8>,
    /// How vCPUs take turns, on a machine that counts instructions; it has one CPU.
    pub schedule: Option<Schedule>,
    /// The guest's memory.
    pub memory: Memory,
    /// QEMU's name of the CPU model.
    pub cpu: String,
    /// The hypervisor's image; the embedded one if `None`.
    pub hypervisor: Option<PathBuf>,
    /// QEMU.
    pub qemu: PathBuf,
    /// Whether QEMU's messages and the hypervisor's log are shown as they come.
    pub verbose: bool,
    /// What the hypervisor's test mode is to do; only an image that was built with it takes any.
    pub test_mode: Option<String>,
    /// What is plugged into the guest's board.
    pub devices: Devices,
    /// What the guest's clock begins with; the same in each run where there is a schedule.
    pub time_of_day: TimeOfDay,
}

/// What the guest's real-time clock begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeOfDay {
    /// What time it is.
    #[default]
    Real,
    /// The same in each run.
    Fixed,
}

impl TimeOfDay {
    /// The evening of 14 November 2023.
    const FIXED: u32 = 1_700_000_000;

    /// Seconds since 1970, and nanoseconds of the next one.
    pub(super) fn seconds(self) -> (u32, u32) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        match (self, now) {
            (Self::Real, Ok(now)) => {
                (u32::try_from(now.as_secs()).unwrap_or(u32::MAX), now.subsec_nanos())
            }
            (Self::Fixed, _) | (_, Err(_)) => (Self::FIXED, 0),
        }
    }
}

impl Default for MachineOptions {
    /// One Cortex-A57 and 512 MiB.
    fn default() -> Self {
        Self {
            smp: 1,
            cpus: None,
            schedule: None,
            memory: Memory { bytes: 512 << 20 },
            cpu: "cortex-a57".into(),
            hypervisor: None,
            qemu: "qemu-system-aarch64".into(),
            verbose: false,
            test_mode: None,
            devices: Devices::default(),
            time_of_day: TimeOfDay::default(),
        }
    }
}

impl MachineOptions {
    /// Returns how many CPUs the machine has.
    pub(super) fn machine_cpus(&self) -> u8 {
        if self.schedule.is_some() { 1 } else { self.cpus.unwrap_or(self.smp).min(self.smp) }
    }

    /// Returns QEMU's name of the CPU with the properties that are chosen for it, where the user has
    /// not.
    pub(super) fn cpu_model(&self) -> String {
        let mut parts = self.cpu.split(',');
        let is_max = parts.next() == Some("max");
        let given: Vec<&str> = parts.filter_map(|part| part.split('=').next()).collect();
        let mut model = self.cpu.clone();
        let mut choose = |property, value| {
            if !given.contains(&property) {
                model.push_str(&format!(",{property}={value}"));
            }
        };
        if is_max {
            // Emulating the architected pointer authentication costs most of the speed.
            choose("pauth-impdef", "on");
        }
        // It would count what EL2 does, too: the guest is not offered one.
        choose("pmu", "off");
        model
    }

    /// Returns the hypervisor's image.
    ///
    /// # Errors
    ///
    /// [`MachineError::NoHypervisor`], [`MachineError::NotAHypervisor`], [`MachineError::File`].
    pub fn hypervisor_image(&self) -> Result<Vec<u8>, MachineError> {
        let Some(path) = &self.hypervisor else {
            if EMBEDDED.is_empty() {
                return Err(MachineError::NoHypervisor);
            }
            return Ok(EMBEDDED.to_vec());
        };
        let image = read(path)?;
        if image.get(0x38..0x3c) != Some(b"ARM\x64") {
            return Err(MachineError::NotAHypervisor(path.clone()));
        }
        Ok(image)
    }
}

/// The guest's files, read and recognised.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What is loaded as the kernel; or the firmware that is executed in flash.
    pub kernel: KernelImage,
    /// What firmware has beside itself, where there is any.
    pub firmware: Option<Firmware>,
    /// The initial ramdisk.
    pub initrd: Option<Vec<u8>>,
    /// A device tree that replaces the one that the hypervisor would make.
    pub devicetree: Option<Vec<u8>>,
    /// The kernel's command line.
    pub command_line: String,
    /// Whether the kernel runs elsewhere than where it was linked.
    pub moves: bool,
    /// What EDK2 is to load that names are wanted of.
    pub loaded: Option<KernelImage>,
}

impl Guest {
    /// Reads a kernel.
    ///
    /// # Errors
    ///
    /// [`MachineError::File`] and [`MachineError::Kernel`].
    pub fn read(kernel: &Path, raw: RawPolicy) -> Result<Self, MachineError> {
        let image = KernelImage::recognise(read(kernel)?, raw)
            .map_err(|error| MachineError::Kernel { path: kernel.to_owned(), error })?;
        let moves = matches!(image.load, LoadPlan::Image { .. });
        Ok(Self {
            kernel: checked(image)?,
            firmware: None,
            initrd: None,
            devicetree: None,
            command_line: String::new(),
            moves,
            loaded: None,
        })
    }

    /// Reads firmware, the file that its variables are in, and what is handed to it.
    ///
    /// # Errors
    ///
    /// As [`Firmware::open`].
    pub fn with_firmware(
        path: &Path,
        variables: Option<&Path>,
        handed: Handed<'_>,
    ) -> Result<Self, MachineError> {
        let (firmware, code) = Firmware::open(path, variables, handed)?;
        Ok(Self {
            kernel: KernelImage::firmware(code),
            firmware: Some(firmware),
            initrd: None,
            devicetree: None,
            command_line: handed.command_line.to_owned(),
            moves: false,
            loaded: None,
        })
    }

    /// Adds an initial ramdisk.
    ///
    /// # Errors
    ///
    /// [`MachineError::File`].
    pub fn with_initrd(mut self, path: &Path) -> Result<Self, MachineError> {
        self.initrd = Some(read(path)?);
        Ok(self)
    }

    /// Adds a device tree.
    ///
    /// # Errors
    ///
    /// [`MachineError::File`], or [`MachineError::Tree`] where it is none.
    pub fn with_devicetree(mut self, path: &Path) -> Result<Self, MachineError> {
        let bytes = read(path)?;
        dtoolkit::fdt::Fdt::new(&bytes).map_err(|error| {
            let (path, error) = (path.to_owned(), std::io::Error::other(error.to_string()));
            MachineError::File { path, error }
        })?;
        self.devicetree = Some(bytes);
        Ok(self)
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, MachineError> {
    std::fs::read(path).map_err(|error| MachineError::File { path: path.to_owned(), error })
}

/// Refuses an ELF that is linked for where no guest has memory, or is entered outside of itself.
fn checked(image: KernelImage) -> Result<KernelImage, MachineError> {
    let LoadPlan::Fixed { address, entry } = image.load else { return Ok(image) };
    if address < super::GUEST_RAM.0 {
        return Err(MachineError::LoadAddress { address });
    }
    let bytes = image.bytes.len() as u64;
    match entry.checked_sub(address) {
        Some(distance) if distance < bytes => Ok(image),
        _ => Err(MachineError::Entry { entry, address, bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let mib = |word: &str| word.parse::<Memory>().map(|memory| memory.bytes >> 20);
        assert_eq!(mib("512M"), Ok(512));
        assert_eq!(mib("2g"), Ok(2048));
        assert_eq!(mib("65536K"), Ok(64));
        assert_eq!(mib("64"), Ok(64));
        assert_eq!(mib("3M"), Err(MemoryError::Multiple));
        assert_eq!(mib("0"), Err(MemoryError::Range));
        assert_eq!(mib("99999999999999999999G"), Err(MemoryError::Range));
        for word in ["", "M", "-1M", "1.5G", "lots", "+4M"] {
            assert_eq!(mib(word), Err(MemoryError::Word), "{word}");
        }
    }

    #[test]
    fn properties_of_the_cpu_are_chosen_unless_they_are_given() {
        let model =
            |cpu: &str| MachineOptions { cpu: cpu.into(), ..MachineOptions::default() }.cpu_model();
        assert_eq!(model("cortex-a57"), "cortex-a57,pmu=off");
        assert_eq!(model("max"), "max,pauth-impdef=on,pmu=off");
        assert_eq!(model("max,pauth-impdef=off"), "max,pauth-impdef=off,pmu=off");
        assert_eq!(model("max,pmu=on,sve=off"), "max,pmu=on,sve=off,pauth-impdef=on");
    }

    #[test]
    fn an_elf_is_where_a_guest_has_memory() {
        let at = |address, entry| {
            let mut image = KernelImage::recognise(vec![0; 64], RawPolicy::Accept).unwrap();
            image.load = LoadPlan::Fixed { address, entry };
            checked(image)
        };
        assert!(at(0x4000_0000, 0x4000_0000).is_ok());
        assert!(at(0x4008_0000, 0x4008_0010).is_ok());
        assert!(matches!(at(0x3fff_f000, 0x3fff_f000), Err(MachineError::LoadAddress { .. })));
        assert!(matches!(at(0x4008_0000, 0x4008_0040), Err(MachineError::Entry { .. })));
        assert!(matches!(at(0x4008_0000, 0x4000_0000), Err(MachineError::Entry { .. })));
    }
}
