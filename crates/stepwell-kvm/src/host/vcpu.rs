//! A vCPU of KVM's: its registers, as far as they are not here already, and one entry into the guest.
//!
//! Where KVM forwards no calls it carries out CPU_ON and CPU_OFF by itself, and tells nobody. So a vCPU
//! that is off waits in KVM to be switched on ([`Vcpu::wait_until_on`]), which ends before its first
//! instruction: KVM leaves once more for any change of a timer's level that we do not know of, and we say
//! that we know a wrong one. One that KVM has switched off is asked for whenever it comes out.

#![expect(unsafe_code, reason = "the page that KVM shares with us is a union")]

use super::context::KvmContext;
use super::general::Reader;
use super::registers::{self, FFR, FPCR, FPSR, PC, PSTATE, SP_EL0, VECTOR_LENGTHS, system};
use crate::KvmError;
use kvm_bindings::{
    KVM_ARM_DEV_EL1_PTIMER, KVM_ARM_DEV_EL1_VTIMER, KVM_ARM_VCPU_SVE, KVM_EXIT_ARM_NISV,
    KVM_EXIT_MMIO, KVM_EXIT_UNKNOWN, KVM_HYPERCALL_EXIT_SMC, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_STOPPED, kvm_guest_debug, kvm_mp_state, kvm_vcpu_init,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::collections::HashMap;
use std::io;
use std::mem;
use std::ptr::addr_of_mut;
use std::sync::atomic::{AtomicU8, Ordering};
use stepwell_arch::{Ipa, SystemRegister, Va};
use stepwell_vm::simd::{LENGTHS, SimdRegisters, Z_MAX};

/// What is copied at each exit.
const CORE: [u64; 3] = [SP_EL0, PC, PSTATE];
/// ISS of a data abort, WnR.
const ISS_WNR: u64 = 1 << 6;
/// A PC at which nothing can start.
const NOWHERE: u64 = u64::MAX;
/// SMCCC's NOT_SUPPORTED, which KVM answers an SMC with.
const NOT_SUPPORTED: u64 = u64::MAX;

/// An access to what is no RAM, which has not happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Where.
    pub at: Ipa,
    /// How much: 1, 2, 4 or 8.
    pub bytes: u8,
    /// What is stored; a load has nothing.
    pub stored: Option<u64>,
}

/// How an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A debug exception: its ESR_EL2, and FAR_EL2 where it is a watchpoint's.
    Debug(u64, u64),
    /// An access to what is no RAM, which has not happened.
    Device(Ipa, bool),
    /// The guest asked KVM to be switched off, or to be reset.
    SwitchedOff,
    /// See [`Left::SwitchedOff`].
    Reset,
    /// KVM has switched this vCPU off, as the guest asked.
    Off,
    /// HVC, which KVM has only moved the PC past.
    Call,
    /// SMC, likewise.
    SecureCall,
    /// A signal, or a change of the timer's level.
    Interrupted,
    /// Something is withheld that the instruction at the PC wants.
    Withheld(Wanted),
    /// KVM cannot go on.
    Failed(i32),
}

/// What an instruction wants that is withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// To be fetched.
    Fetch,
    /// Its access, of which this is the first byte that is withheld, and whether it stores.
    Access(Va, bool),
    /// What it does not tell of: a walk of the guest's own tables.
    Walk,
}

/// A vCPU of KVM's.
pub struct Vcpu {
    fd: VcpuFd,
    init: kvm_vcpu_init,
    /// SP_EL0, PC and PSTATE as KVM has them; nothing where that is not known.
    core: Option<[u64; CORE.len()]>,
    /// System registers as KVM has them, since the last entry.
    system: HashMap<SystemRegister, u64>,
    debug: Option<kvm_guest_debug>,
    /// The access that the guest has left for, if KVM can complete it.
    access: Option<DeviceAccess>,
    /// KVM has an access to complete.
    completes: bool,
    /// A register that KVM did not let be read or written, the first one.
    pub refused: Option<(u64, io::Error)>,
}

impl Vcpu {
    /// Takes a vCPU over and resets it. KVM is told if it is off.
    ///
    /// # Errors
    ///
    /// [`KvmError::Refused`].
    pub fn new(fd: VcpuFd, init: kvm_vcpu_init, is_off: bool) -> Result<Self, KvmError> {
        let mut vcpu = Self {
            fd,
            init,
            core: None,
            system: HashMap::new(),
            debug: None,
            access: None,
            completes: false,
            refused: None,
        };
        let what = "make a vCPU";
        let is_ready = vcpu
            .reset()
            .and_then(|()| vcpu.finalize())
            .and_then(|()| if is_off { vcpu.set_off() } else { Ok(()) });
        is_ready.map_err(|error| KvmError::Refused { what, error })?;
        Ok(vcpu)
    }

    /// Resets it; KVM has it on then.
    ///
    /// # Errors
    ///
    /// As KVM says.
    pub fn reset(&mut self) -> io::Result<()> {
        self.fd.vcpu_init(&self.init).map_err(from_errno)?;
        self.core = None;
        self.system.clear();
        Ok(())
    }

    /// Has KVM take the lengths of its vectors for settled, for good.
    fn finalize(&self) -> io::Result<()> {
        if !self.has_sve() {
            return Ok(());
        }
        let feature = KVM_ARM_VCPU_SVE as i32;
        self.fd.vcpu_finalize(&feature).map_err(from_errno)
    }

    const fn has_sve(&self) -> bool {
        let [first, ..] = self.init.features;
        first & 1 << KVM_ARM_VCPU_SVE != 0
    }

    /// ZCR_EL1, and the bytes of a vector for each value of its LEN, where there is SVE: a length that is
    /// not there becomes the next shorter one.
    pub fn vector_lengths(&mut self) -> Option<(u64, [u16; LENGTHS])> {
        if !self.has_sve() {
            return None;
        }
        let quadwords = self.get::<64>(VECTOR_LENGTHS)?.first_chunk().copied()?;
        let quadwords = u16::from_le_bytes(quadwords);
        let longest = |len: usize| {
            let has = |n: &usize| quadwords >> (n - 1) & 1 != 0;
            (1..=len + 1).rev().find(has).map_or(0, |n| 16 * n as u16)
        };
        Some((self.read(SystemRegister::ZCR_EL1), std::array::from_fn(longest)))
    }

    /// Has KVM know that it is off.
    ///
    /// # Errors
    ///
    /// As KVM says.
    pub fn set_off(&self) -> io::Result<()> {
        self.fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_STOPPED }).map_err(from_errno)
    }

    /// Whether KVM has it off.
    pub fn is_off(&self) -> bool {
        self.fd.get_mp_state().is_ok_and(|state| state.mp_state == KVM_MP_STATE_STOPPED)
    }

    /// In a vCPU that is off: waits until KVM has switched it on, or a signal comes. Tells where it is to
    /// start, and with which X0, if it is on.
    pub fn wait_until_on(&mut self) -> Option<(u64, u64)> {
        // KVM sets it when it resets the vCPU, which it does on the way into the guest, and not always on
        // the one on which it finds that it is on.
        self.set(PC, &NOWHERE.to_le_bytes());
        let wrong = u64::from(KVM_ARM_DEV_EL1_VTIMER | KVM_ARM_DEV_EL1_PTIMER);
        // The timers of one that is off, or was just reset, ask for nothing. Arm64 has no other member of
        // this union.
        self.fd.get_kvm_run().s.regs.device_irq_level = wrong;
        let _interrupted = self.run();
        let state = self.fd.get_mp_state();
        let is_on = state.is_ok_and(|state| state.mp_state == KVM_MP_STATE_RUNNABLE);
        let (entry, argument) = (self.get_u64(PC), self.get_u64(registers::x(0)));
        (is_on && entry != NOWHERE).then_some((entry, argument))
    }

    /// Answers an SMC as KVM does that forwards none.
    pub fn answer_secure_call(&mut self) {
        self.set(registers::x(0), &NOT_SUPPORTED.to_le_bytes());
    }

    /// Where KVM looks whether it is to return at once.
    pub fn immediate_exit(&mut self) -> *mut u8 {
        addr_of_mut!(self.fd.get_kvm_run().immediate_exit)
    }

    /// Tells whether the guest's virtual timer asks for an interrupt, as of the last exit.
    pub fn virtual_timer_level(&mut self) -> bool {
        // SAFETY: of this union arm64 has no other member.
        let level = unsafe { self.fd.get_kvm_run().s.regs.device_irq_level };
        level & u64::from(KVM_ARM_DEV_EL1_VTIMER) != 0
    }

    /// Has KVM tell again if the virtual timer asks for an interrupt: it tells of changes only.
    pub fn forget_virtual_timer_level(&mut self) {
        let run = self.fd.get_kvm_run();
        // SAFETY: as above. It is ours to say what we know.
        unsafe { run.s.regs.device_irq_level &= !u64::from(KVM_ARM_DEV_EL1_VTIMER) };
    }

    fn get<const N: usize>(&mut self, id: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        match self.fd.get_one_reg(id, &mut bytes) {
            Ok(_) => Some(bytes),
            Err(error) => {
                self.refused.get_or_insert((id, from_errno(error)));
                None
            }
        }
    }

    fn get_u64(&mut self, id: u64) -> u64 {
        self.get(id).map_or(0, u64::from_le_bytes)
    }

    fn set(&mut self, id: u64, bytes: &[u8]) {
        if let Err(error) = self.fd.set_one_reg(id, bytes) {
            self.refused.get_or_insert((id, from_errno(error)));
        }
    }

    /// Tells what a register has, if KVM knows it.
    pub fn try_read(&mut self, register: SystemRegister) -> Option<u64> {
        let mut bytes = [0; 8];
        self.fd.get_one_reg(system(register), &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Reads a system register.
    pub fn read(&mut self, register: SystemRegister) -> u64 {
        if let Some(&known) = self.system.get(&register) {
            return known;
        }
        let value = self.get_u64(system(register));
        self.system.insert(register, value);
        value
    }

    /// Writes a system register, where that makes a difference.
    pub fn write(&mut self, register: SystemRegister, value: u64) {
        if self.system.get(&register) != Some(&value) {
            self.set(system(register), &value.to_le_bytes());
            // What KVM keeps of it is KVM's to say.
            self.system.remove(&register);
        }
    }

    /// Moves the guest's counter: it is to show `value` now.
    pub fn set_counter(&mut self, value: u64) {
        self.set(registers::COUNTER, &value.to_le_bytes());
    }

    /// Copies the registers of FP/SIMD and SVE out.
    pub fn read_simd(&mut self, into: &mut SimdRegisters) {
        let mut word = |id| self.get(id).map_or(0, |bytes| u64::from(u32::from_le_bytes(bytes)));
        (into.fpcr, into.fpsr) = (word(FPCR), word(FPSR));
        into.is_written = false;
        let Some(sve) = &mut into.sve else {
            for (n, value) in into.v.iter_mut().enumerate() {
                *value = self.get(registers::v(n)).map_or(0, u128::from_le_bytes);
            }
            return;
        };
        for (n, z) in sve.z.iter_mut().enumerate() {
            *z = self.get(registers::z(n)).unwrap_or([0; Z_MAX]);
        }
        for (n, p) in sve.p.iter_mut().enumerate() {
            *p = self.get(registers::p(n)).unwrap_or_default();
        }
        sve.ffr = self.get(FFR).unwrap_or_default();
        sve.zcr = self.read(SystemRegister::ZCR_EL1);
        into.take_over_z();
    }

    /// Puts them in.
    pub fn write_simd(&mut self, from: &SimdRegisters) {
        self.set(FPCR, &(from.fpcr as u32).to_le_bytes());
        self.set(FPSR, &(from.fpsr as u32).to_le_bytes());
        let Some(sve) = &from.sve else {
            for (n, value) in from.v.iter().enumerate() {
                self.set(registers::v(n), &value.to_le_bytes());
            }
            return;
        };
        self.write(SystemRegister::ZCR_EL1, sve.zcr);
        for (n, z) in sve.z.iter().enumerate() {
            self.set(registers::z(n), z);
        }
        for (n, p) in sve.p.iter().enumerate() {
            self.set(registers::p(n), p);
        }
        self.set(FFR, &sve.ffr);
    }

    /// The PC, as KVM has it.
    pub fn pc(&mut self) -> Va {
        Va(self.get_u64(PC))
    }

    /// Copies SP_EL0, PC and PSTATE out, after an entry: X0 to X30 are for who asks. PSTATE.SS is not the
    /// guest's.
    pub fn pull(&mut self, into: &mut KvmContext) {
        let core = CORE.map(|id| self.get_u64(id));
        [into.sp_el0, into.elr, into.spsr] = core;
        into.general.forget();
        self.core = Some(core);
    }

    /// Puts those in that differ from what KVM has.
    pub fn push(&mut self, from: &mut KvmContext, pstate: u64) {
        for (n, value) in from.general.take_changed() {
            self.set(registers::x(n), &value.to_le_bytes());
        }
        let wanted = [from.sp_el0, from.elr, pstate];
        let known = self.core.take();
        for (n, (id, value)) in CORE.into_iter().zip(wanted).enumerate() {
            if known.and_then(|known| known.get(n).copied()) != Some(value) {
                self.set(id, &value.to_le_bytes());
            }
        }
    }

    /// Who reads its registers from now on.
    ///
    /// # Errors
    ///
    /// [`KvmError::Refused`].
    pub fn reader(&self) -> Result<Reader, KvmError> {
        Reader::of(&self.fd).map_err(|error| KvmError::Refused { what: "make a vCPU", error })
    }

    /// Has KVM forget that an instruction has executed whose Software Step exception is to come: its call
    /// is reported. From 6.1 on KVM keeps PSTATE.SS 0 then, and would leave before the next one; it forgets
    /// that with all that it is to debug, which it is told anew: the next entry may follow at once.
    pub fn forget_pending_step(&mut self) {
        let wanted = self.debug;
        self.set_debug(kvm_guest_debug::default());
        if let Some(wanted) = wanted {
            self.set_debug(wanted);
        }
    }

    /// Sets what KVM is to debug.
    pub fn set_debug(&mut self, wanted: kvm_guest_debug) {
        if self.debug != Some(wanted) {
            self.debug = match self.fd.set_guest_debug(&wanted) {
                Ok(()) => Some(wanted),
                Err(error) => {
                    self.refused.get_or_insert((0, from_errno(error)));
                    None
                }
            };
        }
    }

    /// Enters the guest, until something is for us.
    pub fn run(&mut self) -> Left {
        // From here on nothing is known.
        self.core = None;
        self.system.clear();
        self.completes = false;
        let mut access = None;
        let left = match self.fd.run() {
            Ok(VcpuExit::Debug(exit)) => {
                let hsr = u64::from(exit.hsr) | u64::from(exit.hsr_high) << 32;
                Left::Debug(hsr, exit.far)
            }
            Ok(VcpuExit::MmioRead(at, bytes)) => {
                let bytes = bytes.len() as u8;
                access = Some(DeviceAccess { at: Ipa(at), bytes, stored: None });
                Left::Device(Ipa(at), false)
            }
            Ok(VcpuExit::MmioWrite(at, stored)) => {
                let value =
                    stored.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
                let bytes = stored.len() as u8;
                access = Some(DeviceAccess { at: Ipa(at), bytes, stored: Some(value) });
                Left::Device(Ipa(at), true)
            }
            Ok(VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN, _)) => {
                Left::SwitchedOff
            }
            Ok(VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_RESET, _)) => Left::Reset,
            // What is called `longmode` has arm64's flags.
            Ok(VcpuExit::Hypercall(call)) if call.longmode & KVM_HYPERCALL_EXIT_SMC != 0 => {
                Left::SecureCall
            }
            Ok(VcpuExit::Hypercall(_)) => Left::Call,
            Ok(VcpuExit::Intr) => Left::Interrupted,
            Ok(VcpuExit::Unsupported(KVM_EXIT_ARM_NISV)) => self.without_syndrome(),
            Ok(_) => Left::Failed(0),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Left::Interrupted,
            Err(error) => Left::Failed(error.errno()),
        };
        self.access = access;
        if let Left::Device(..) = left {
            // KVM would carry the access out when it is entered next. The loop does, and moves the PC.
            self.fd.get_kvm_run().exit_reason = KVM_EXIT_UNKNOWN;
        }
        left
    }

    /// What the access is that the guest has left for, where KVM can complete it: see [`Vcpu::complete`].
    #[must_use]
    pub const fn access(&self) -> Option<DeviceAccess> {
        self.access
    }

    /// Has KVM complete the access, a load with this value, and move the PC, at the next entry: before
    /// that, or [`Vcpu::finish`], nobody may look at the registers.
    pub fn complete(&mut self, loaded: u64) {
        let run = self.fd.get_kvm_run();
        run.exit_reason = KVM_EXIT_MMIO;
        run.__bindgen_anon_1.mmio.data = loaded.to_le_bytes();
        self.completes = true;
    }

    /// Has KVM complete what it is to complete, and not enter the guest.
    pub fn finish(&mut self) {
        if mem::take(&mut self.completes) {
            // Whoever calls meanwhile sets it again, or is seen before the next entry.
            self.set_immediate_exit(1);
            let _interrupted = self.fd.run();
            self.set_immediate_exit(0);
        }
    }

    fn set_immediate_exit(&mut self, value: u8) {
        let place = self.immediate_exit();
        // SAFETY: it is a byte of a page that is mapped as long as this is there, which others access as
        // a single byte, too.
        unsafe { AtomicU8::from_ptr(place).store(value, Ordering::SeqCst) };
    }

    /// An access that the CPU has not described.
    fn without_syndrome(&mut self) -> Left {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason says that this is the member.
        let exit = unsafe { run.__bindgen_anon_1.arm_nisv };
        Left::Device(Ipa(exit.fault_ipa), exit.esr_iss & ISS_WNR != 0)
    }
}

fn from_errno(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}
