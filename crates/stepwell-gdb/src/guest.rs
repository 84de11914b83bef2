//! A debuggee as `gdbstub` sees it: threads, registers, memory.
//!
//! Thread N is vCPU N - 1, until a task moves ([`crate::seats`]): thread 0 means "any" in the protocol.
//! Threads are the vCPUs that are on:
//! one that the guest never started has no registers, and GDB gives a whole list up at a thread
//! that it cannot read.

use crate::Error;
use crate::arch::{Aarch64, CoreRegisters};
use crate::breakpoints::Breakpoints;
use crate::cached::CachedDebuggee;
use crate::description::RegisterSet;
use crate::error::errno;
use crate::going::{Going, Wanted};
use crate::pauth;
use crate::policies::Policies;
use crate::registers::with_low_half;
use crate::seats::Seats;
use crate::services::Services;
use gdbstub::common::{Endianness, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::base::single_register_access::SingleRegisterAccessOps;
use gdbstub::target::ext::breakpoints::BreakpointsOps;
use gdbstub::target::ext::monitor_cmd::MonitorCmdOps;
use gdbstub::target::ext::process_info::{ProcessInfo, ProcessInfoOps, ProcessInfoResponse};
use gdbstub::target::ext::section_offsets::{Offsets, SectionOffsets, SectionOffsetsOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use std::collections::BTreeSet;
use stepwell_arch::{Ipa, Pstate, SystemRegister, Va};
use stepwell_debuggee::{
    Debuggee, InterruptPolicy, OthersPolicy, Place, Refusal, VcpuId, VcpuState,
};

/// What is read at once: pages are mapped or not, each by itself.
const PAGE: u64 = 4096;
/// What LLDB calls this machine.
const TRIPLE: &str = "aarch64-unknown-none-elf";

/// A domain of a debuggee, with what the client has set in it.
pub(crate) struct Guest<'d> {
    pub(crate) debuggee: CachedDebuggee<'d>,
    pub(crate) services: &'d mut dyn Services,
    pub(crate) registers: &'d RegisterSet,
    pub(crate) domain: u8,
    /// The vCPU that the client was last told of, or asked about.
    pub(crate) selected: u8,
    /// The vCPU whose memory the client has read last, since it was told of a stop.
    pub(crate) looked_at: u8,
    pub(crate) wanted: Wanted,
    pub(crate) going: Going,
    pub(crate) breakpoints: Breakpoints,
    pub(crate) seats: Seats,
    pub(crate) policies: &'d mut Policies,
    /// What the debuggee was last told of the others.
    pub(crate) others_now: OthersPolicy,
    /// And of interrupts.
    pub(crate) interrupts_now: InterruptPolicy,
    /// The client pressed Ctrl-C, and has not been told of a stop yet.
    pub(crate) is_interrupted: bool,
}

/// Turns a debuggee's error into what `gdbstub` wants: a number for the client, or the end.
pub(crate) fn refused(error: stepwell_debuggee::Error) -> TargetError<Error> {
    match error {
        stepwell_debuggee::Error::Refused(refusal) => TargetError::Errno(errno(refusal)),
        lost @ stepwell_debuggee::Error::Lost(_) => TargetError::Fatal(Error::Lost(lost)),
    }
}

impl<'d> Guest<'d> {
    pub(crate) fn new(
        debuggee: &'d mut dyn Debuggee,
        services: &'d mut dyn Services,
        registers: &'d RegisterSet,
        policies: &'d mut Policies,
        vcpu: VcpuId,
    ) -> Self {
        Self {
            debuggee: CachedDebuggee::new(debuggee),
            services,
            registers,
            domain: vcpu.domain,
            selected: vcpu.vcpu,
            looked_at: vcpu.vcpu,
            wanted: Wanted::default(),
            going: Going::Stopped,
            breakpoints: Breakpoints::default(),
            seats: Seats::default(),
            others_now: policies.others,
            interrupts_now: policies.interrupts,
            policies,
            is_interrupted: false,
        }
    }

    /// The vCPU that a thread is.
    pub(crate) fn vcpu_of(&self, tid: Tid) -> Result<VcpuId, stepwell_debuggee::Error> {
        Ok(VcpuId { domain: self.domain, vcpu: self.seats.vcpu(tid)? })
    }

    /// The vCPU that is meant where a packet names none.
    pub(crate) fn current(&self) -> VcpuId {
        VcpuId { domain: self.domain, vcpu: self.selected }
    }

    /// The vCPUs that are on.
    pub(crate) fn threads(&mut self) -> Result<Vec<u8>, stepwell_debuggee::Error> {
        let status = self.debuggee.status(self.domain)?;
        let on = |state| matches!(state, VcpuState::Running | VcpuState::Stopped);
        Ok((0..).zip(status).filter(|(_, status)| on(status.state)).map(|(vcpu, _)| vcpu).collect())
    }

    /// Says what a thread is, for `info threads`.
    pub(crate) fn describe_thread(&mut self, tid: Tid) -> Result<String, stepwell_debuggee::Error> {
        let vcpu = self.vcpu_of(tid)?;
        let head = format!("domain {} vCPU {}", vcpu.domain, vcpu.vcpu);
        let state = match self.debuggee.read_registers(vcpu) {
            Ok(registers) => {
                let pstate = Pstate(registers.pstate);
                let state = if pstate.is_aarch32() { " AArch32" } else { "" };
                format!("stopped in EL{}{state}", pstate.el())
            }
            Err(stepwell_debuggee::Error::Refused(Refusal::NotStopped)) => "running".to_owned(),
            Err(stepwell_debuggee::Error::Refused(Refusal::Off)) => "off".to_owned(),
            Err(error) => return Err(error),
        };
        let task = match state.starts_with("stopped") {
            true => self.services.task(&mut self.debuggee, vcpu)?,
            false => None,
        };
        Ok(match task {
            Some(task) => format!("{head}, {task}, {state}"),
            None => format!("{head}, {state}"),
        })
    }

    /// Where an address leads that has no translation because the guest has none at all yet: into
    /// the kernel's image, if that will have it.
    fn image_place(&mut self, vcpu: VcpuId, address: u64) -> Option<Place> {
        let place = self.services.image_place(Va(address))?;
        self.is_untranslated(vcpu).then_some(Place::Ipa(place))
    }

    /// Tells whether the vCPU's MMU is off.
    pub(crate) fn is_untranslated(&mut self, vcpu: VcpuId) -> bool {
        let sctlr = self.system_register(vcpu, SystemRegister::SCTLR_EL1);
        sctlr.is_ok_and(|sctlr| sctlr & 1 == 0)
    }

    /// Reads a system register.
    pub(crate) fn system_register(
        &mut self,
        vcpu: VcpuId,
        register: SystemRegister,
    ) -> Result<u64, stepwell_debuggee::Error> {
        let system = self.debuggee.support_system_registers().ok_or(Refusal::NoSuchRegister)?;
        system.read_system_register(vcpu, register.0)
    }

    /// What LLDB asks of the machine.
    pub(crate) fn host_info(&mut self) -> Result<String, stepwell_debuggee::Error> {
        let triple = crate::framing::hex(TRIPLE.as_bytes());
        let mut info = format!("triple:{triple};endian:little;ptrsize:8;");
        if self.registers.has_pauth() {
            let vcpu = self.current();
            let sctlr = self.system_register(vcpu, SystemRegister::SCTLR_EL1)?;
            let tcr = self.system_register(vcpu, SystemRegister::TCR_EL1)?;
            let bits = pauth::significant_bits(sctlr, tcr);
            info.push_str(&format!("addressing_bits:{bits};"));
        }
        Ok(info)
    }

    /// Reads as much as there is, page by page.
    pub(crate) fn read(
        &mut self,
        vcpu: VcpuId,
        place: Place,
        bytes: &mut [u8],
    ) -> Result<usize, stepwell_debuggee::Error> {
        let address = match place {
            Place::Va(Va(address)) | Place::Ipa(Ipa(address)) => address,
        };
        let mut done = 0;
        while done < bytes.len() {
            let here = address.wrapping_add(done as u64);
            let left = bytes.len() - done;
            let length = usize::try_from(PAGE - here % PAGE).unwrap_or(left).min(left);
            let Some(chunk) = bytes.get_mut(done..done + length) else { break };
            match self.debuggee.read_memory(vcpu, place.offset(done as u64), chunk) {
                Ok(()) => done += length,
                Err(stepwell_debuggee::Error::Refused(Refusal::NotMapped(_))) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads as much as there is at a virtual address; before the guest has a translation, of a
    /// kernel's image at the addresses that it will have.
    pub(crate) fn read_virtual(
        &mut self,
        vcpu: VcpuId,
        start: u64,
        bytes: &mut [u8],
    ) -> Result<usize, stepwell_debuggee::Error> {
        match self.read(vcpu, Place::Va(Va(start)), bytes) {
            Err(stepwell_debuggee::Error::Refused(refusal @ Refusal::NotMapped(_))) => {
                let place = self.image_place(vcpu, start).ok_or(refusal)?;
                self.read(vcpu, place, bytes)
            }
            result => result,
        }
    }
}

impl Target for Guest<'_> {
    type Arch = Aarch64;
    type Error = Error;

    fn base_ops(&mut self) -> BaseOps<'_, Aarch64, Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_section_offsets(&mut self) -> Option<SectionOffsetsOps<'_, Self>> {
        self.services
            .moved_by()
            .is_some()
            .then_some(self as &mut dyn SectionOffsets<Arch = _, Error = _>)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }

    fn support_process_info(&mut self) -> Option<ProcessInfoOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest<'_> {
    fn read_registers(
        &mut self,
        registers: &mut CoreRegisters,
        tid: Tid,
    ) -> TargetResult<(), Self> {
        let vcpu = self.vcpu_of(tid).map_err(refused)?;
        registers.0 = self.debuggee.read_registers(vcpu).map_err(refused)?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &CoreRegisters, tid: Tid) -> TargetResult<(), Self> {
        let vcpu = self.vcpu_of(tid).map_err(refused)?;
        let before = self.debuggee.read_registers(vcpu).map_err(refused)?;
        let mut after = registers.0.clone();
        after.pstate = with_low_half(before.pstate, after.pstate);
        self.debuggee.write_registers(vcpu, &after).map_err(refused)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let vcpu = self.vcpu_of(tid).map_err(refused)?;
        self.looked_at = vcpu.vcpu;
        self.read_virtual(vcpu, start, data).map_err(refused)
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let vcpu = self.vcpu_of(tid).map_err(refused)?;
        self.debuggee.write_memory(vcpu, Place::Va(Va(start)), data).map_err(refused)
    }

    fn list_active_threads(&mut self, thread_is_active: &mut dyn FnMut(Tid)) -> Result<(), Error> {
        match self.threads() {
            Ok(vcpus) => {
                let threads: BTreeSet<Tid> =
                    vcpus.into_iter().map(|vcpu| self.seats.tid(vcpu)).collect();
                threads.into_iter().for_each(thread_is_active);
            }
            // The domain has ended, and the client hears of that next.
            Err(stepwell_debuggee::Error::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl TargetDescriptionXmlOverride for Guest<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(refused(Refusal::NotMapped(0).into()));
        }
        let xml = self.registers.xml().as_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(xml.len());
        let rest = xml.get(start..).unwrap_or_default();
        let length = rest.len().min(length).min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }
}

impl SectionOffsets for Guest<'_> {
    fn get_section_offsets(&mut self) -> Result<Offsets<u64>, Error> {
        let by = self.services.moved_by().unwrap_or_default();
        Ok(Offsets::Sections { text: by, data: by, bss: Some(by) })
    }
}

impl ProcessInfo for Guest<'_> {
    fn process_info(
        &self,
        write_item: &mut dyn FnMut(&ProcessInfoResponse<'_>),
    ) -> Result<(), Error> {
        write_item(&ProcessInfoResponse::Pid(gdbstub::common::Pid::MIN));
        write_item(&ProcessInfoResponse::Triple(TRIPLE));
        write_item(&ProcessInfoResponse::Endianness(Endianness::Little));
        write_item(&ProcessInfoResponse::PointerSize(8));
        Ok(())
    }
}
