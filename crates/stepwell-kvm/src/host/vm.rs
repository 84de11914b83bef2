//! What the vCPUs of a machine share: KVM's VM, the guest's RAM, the calls, and what is known of the CPU.

#![expect(unsafe_code, reason = "ioctls that kvm-ioctls has no function for, and promises to it")]

use super::machine_code;
use super::ram::GuestRam;
use super::vcpu::Vcpu;
use crate::KvmError;
use crate::calls::AllCalls;
use kvm_bindings::{
    KVM_ARM_IRQ_CPU_FIQ, KVM_ARM_IRQ_CPU_IRQ, KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_SVE,
    KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, KVM_CAP_ARM_NISV_TO_USER, KVM_CAP_ARM_SVE,
    KVM_CAP_ARM_USER_IRQ, KVM_CAP_COUNTER_OFFSET, KVM_CAP_GUEST_DEBUG_HW_BPS,
    KVM_CAP_GUEST_DEBUG_HW_WPS, kvm_arm_counter_offset, kvm_device_attr, kvm_enable_cap,
    kvm_smccc_filter, kvm_smccc_filter_action_KVM_SMCCC_FILTER_FWD_TO_USER,
    kvm_userspace_memory_region, kvm_vcpu_init,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use stepwell_arch::SystemRegister;
use stepwell_vm::cpu::CpuFacts;
use stepwell_vm::device::board::RAM_BASE;
use stepwell_vm::memory::GuestMemory;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

const DEVICE: &str = "/dev/kvm";
/// KVM_ARM_IRQ_TYPE_CPU: a line of a vCPU, which has its number from bit 16 on.
const LINE_VCPU_SHIFT: u32 = 16;
/// KVMIO.
const KVMIO: u32 = 0xae;
/// First function and number of those whose calls KVM can be asked to forward: all but the ones by which
/// a guest asks about the conventions themselves, which it keeps for itself.
const FORWARDED: [(u32, u32); 3] =
    [(0, 0x8000_0000), (0x8001_0000, 0x3fff_0000), (0xc001_0000, 0x3fff_0000)];

ioctl_iow_nr!(KVM_ARM_SET_COUNTER_OFFSET, KVMIO, 0xb5, kvm_arm_counter_offset);

/// What KVM has here, beside what cannot be done without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The counter's offset can be set exactly, and once for all vCPUs.
    pub counter_offset: bool,
    /// Calls of PSCI come to us before anything is done about them.
    pub forwards_calls: bool,
    /// Breakpoints of the CPU.
    pub breakpoints: u8,
    /// Watchpoints of the CPU.
    pub watchpoints: u8,
    /// Guests have SVE.
    pub sve: bool,
}

/// KVM, opened.
pub struct Opened {
    fd: VmFd,
    init: kvm_vcpu_init,
    /// What it has.
    pub features: Features,
}

impl Opened {
    /// Opens KVM, and looks at what it can do.
    ///
    /// # Errors
    ///
    /// [`KvmError`]: why it cannot be used.
    pub fn open() -> Result<Self, KvmError> {
        let kvm =
            Kvm::new().map_err(|error| why_not(io::Error::from_raw_os_error(error.errno())))?;
        let fd = kvm.create_vm().map_err(refused("make a machine"))?;
        for (cap, what) in [
            (Cap::ImmediateExit, "be told to return at once"),
            (Cap::SetGuestDebug, "step a guest"),
            (Cap::OneReg, "hand out registers one by one"),
        ] {
            if !fd.check_extension(cap) {
                return Err(KvmError::Lacks(what));
            }
        }
        let number = |cap: u32| fd.check_extension_raw(cap.into());
        if number(KVM_CAP_ARM_USER_IRQ) <= 0 {
            return Err(KvmError::Lacks("do without an interrupt controller of its own"));
        }
        if number(KVM_CAP_ARM_NISV_TO_USER) > 0 {
            let cap = kvm_enable_cap { cap: KVM_CAP_ARM_NISV_TO_USER, ..Default::default() };
            fd.enable_cap(&cap)
                .map_err(refused("hand out accesses that the CPU has not described"))?;
        }
        let mut init = kvm_vcpu_init::default();
        fd.get_preferred_target(&mut init).map_err(refused("choose a CPU"))?;
        init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
        let sve = number(KVM_CAP_ARM_SVE) > 0;
        init.features[0] |= u32::from(sve) << KVM_ARM_VCPU_SVE;
        let count = |cap: u32| u8::try_from(number(cap)).unwrap_or(0).min(16);
        let features = Features {
            counter_offset: number(KVM_CAP_COUNTER_OFFSET) > 0,
            forwards_calls: forward_calls(&fd),
            breakpoints: count(KVM_CAP_GUEST_DEBUG_HW_BPS),
            watchpoints: count(KVM_CAP_GUEST_DEBUG_HW_WPS),
            sve,
        };
        Ok(Self { fd, init, features })
    }

    /// Makes a machine with this RAM and so many vCPUs.
    ///
    /// # Errors
    ///
    /// [`KvmError`].
    pub fn make(
        self,
        ram: GuestRam,
        vcpus: usize,
        link: UnixStream,
        verbose: bool,
    ) -> Result<(Vm, Vec<Vcpu>), KvmError> {
        let Self { fd, init, features } = self;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: RAM_BASE.0,
            memory_size: ram.bytes(),
            userspace_addr: ram.host_address(),
        };
        // SAFETY: the RAM is mapped as long as the VM is there: both are the `Vm`'s. Rust sees it as raw
        // memory alone.
        unsafe { fd.set_user_memory_region(region) }
            .map_err(refused("give the guest its memory"))?;
        let mut made = Vec::new();
        for number in 0..vcpus {
            let fd = fd.create_vcpu(number as u64).map_err(refused("make a vCPU"))?;
            let is_off = number > 0 && !features.forwards_calls;
            made.push(Vcpu::new(fd, init, is_off)?);
        }
        let ids = made.first_mut().map(read_ids).unwrap_or_default();
        let known = |register| ids.get(&register).copied().unwrap_or(0);
        let facts = CpuFacts {
            breakpoints: features.breakpoints,
            watchpoints: features.watchpoints,
            context_breakpoints: (known(SystemRegister::ID_AA64DFR0_EL1) >> 28 & 0xf) as u8 + 1,
            pa_range: known(SystemRegister::ID_AA64MMFR0_EL1) & 0xf,
            // The guest's CPU interface is ours, and the registers are values.
            list_registers: LIST_REGISTERS,
        };
        let (offset, hidden) = (Mutex::new(None), AtomicU64::new(0));
        let (calls, is_alone) = (AllCalls::new(), vcpus == 1);
        let vm =
            Vm { fd, ram, calls, ids, facts, features, is_alone, offset, hidden, link, verbose };
        Ok((vm, made))
    }
}

/// As many as the architecture has.
pub const LIST_REGISTERS: usize = 16;

/// A machine of KVM's.
pub struct Vm {
    fd: VmFd,
    /// The guest's RAM.
    pub ram: GuestRam,
    /// What vCPUs tell each other.
    pub calls: AllCalls,
    /// The ID registers that the guest reads.
    pub ids: HashMap<SystemRegister, u64>,
    /// What the CPU has.
    pub facts: CpuFacts,
    /// What KVM has here.
    pub features: Features,
    /// There is one vCPU.
    pub is_alone: bool,
    /// What the guest's counter lags behind, on all vCPUs, once it was set.
    offset: Mutex<Option<u64>>,
    /// Ticks of the host's counter that went by while registers came and went: see [`Vm::counter`].
    hidden: AtomicU64,
    link: UnixStream,
    /// What is logged is shown.
    pub verbose: bool,
}

impl Vm {
    /// This thread runs a vCPU.
    pub fn join(&self, number: usize, vcpu: &mut Vcpu) {
        // SAFETY: the page is mapped as long as the vCPU is there, and its owner, who calls this, leaves
        // before; nobody else uses the byte.
        unsafe { self.calls.join(number, vcpu.immediate_exit()) };
    }

    /// Sets a vCPU's interrupt lines, IRQ and FIQ, as far as KVM has them otherwise.
    pub fn set_lines(&self, number: usize, known: (bool, bool), wanted: (bool, bool)) {
        let vcpu = (number as u32) << LINE_VCPU_SHIFT;
        // There are such lines of each vCPU.
        if known.0 != wanted.0 {
            let _irq = self.fd.set_irq_line(vcpu | KVM_ARM_IRQ_CPU_IRQ, wanted.0);
        }
        if known.1 != wanted.1 {
            let _fiq = self.fd.set_irq_line(vcpu | KVM_ARM_IRQ_CPU_FIQ, wanted.1);
        }
    }

    /// The machine's counter: the host's, which does not go while a vCPU's registers are fetched and put
    /// back. Some forty system calls an exit are little on a CPU; on an emulated one they are longer than
    /// a guest's tick, which then would do nothing but tick.
    ///
    /// Where there are several vCPUs it goes on: the others' clocks do.
    #[must_use]
    pub fn counter(&self) -> u64 {
        machine_code::counter().wrapping_sub(self.hidden.load(Ordering::SeqCst))
    }

    /// Takes what has gone by since `mark`, by the host's counter, out of the machine's.
    pub fn hide_since(&self, mark: u64) {
        if self.is_alone {
            let ticks = machine_code::counter().wrapping_sub(mark);
            self.hidden.fetch_add(ticks, Ordering::SeqCst);
        }
    }

    /// Has the guest's counter lag so far behind the machine's.
    pub fn set_counter_offset(&self, offset: u64, vcpu: &mut Vcpu) {
        let offset = offset.wrapping_add(self.hidden.load(Ordering::SeqCst));
        // It is the VM's either way: whoever is second has nothing to do, which would be refused while the
        // first one runs, or be another offset by what a system call takes. And none enters before.
        let mut known = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == Some(offset) {
            return;
        }
        *known = Some(offset);
        if self.features.counter_offset {
            let wanted = kvm_arm_counter_offset { counter_offset: offset, reserved: 0 };
            // SAFETY: the kernel reads the structure, and nothing else.
            let _refused =
                unsafe { ioctl_with_ref(&self.fd, KVM_ARM_SET_COUNTER_OFFSET(), &wanted) };
        } else {
            // It goes on while this is on its way: the guest's clock loses as much.
            vcpu.set_counter(machine_code::counter().wrapping_sub(offset));
        }
    }

    /// Closes the link: the machine is off.
    pub fn close_link(&self) {
        // It fails where the tool has closed it.
        drop(self.link.shutdown(Shutdown::Both));
    }
}

/// Asks for calls of PSCI to be forwarded. Tells whether they are.
fn forward_calls(vm: &VmFd) -> bool {
    FORWARDED.iter().all(|&(base, nr_functions)| {
        let action = kvm_smccc_filter_action_KVM_SMCCC_FILTER_FWD_TO_USER as u8;
        let filter = kvm_smccc_filter { base, nr_functions, action, pad: [0; 15] };
        let attribute = kvm_device_attr {
            group: KVM_ARM_VM_SMCCC_CTRL,
            attr: KVM_ARM_VM_SMCCC_FILTER.into(),
            addr: &raw const filter as u64,
            flags: 0,
        };
        vm.set_device_attr(&attribute).is_ok()
    })
}

/// Reads the ID registers, those that there are.
fn read_ids(vcpu: &mut Vcpu) -> HashMap<SystemRegister, u64> {
    let identification = [SystemRegister::MIDR_EL1, SystemRegister::ACTLR_EL1];
    let features =
        (1..8).flat_map(|crm| (0..8).map(move |op2| SystemRegister::new(3, 0, 0, crm, op2)));
    let all = identification.into_iter().chain(features);
    all.filter_map(|register| Some((register, vcpu.try_read(register)?))).collect()
}

fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |error| {
        let error = io::Error::from_raw_os_error(error.errno());
        KvmError::Refused { what, error }
    }
}

/// Why the device cannot be opened.
fn why_not(error: io::Error) -> KvmError {
    match error.kind() {
        io::ErrorKind::NotFound => KvmError::NoDevice,
        io::ErrorKind::PermissionDenied => KvmError::NoPermission { group: group() },
        // A node without a driver.
        _ if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => KvmError::NoDevice,
        _ => KvmError::Refused { what: "be opened", error },
    }
}

/// The device's group: its name, or its number where that has none.
fn group() -> String {
    let gid = fs::metadata(DEVICE).map_or(0, |metadata| metadata.gid());
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| gid.to_string())
}
