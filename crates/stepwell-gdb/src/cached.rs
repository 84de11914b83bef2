//! What a stopped guest is known to hold.
//!
//! While it is stopped nothing changes in it but what the client changes, and a client asks for the
//! same few words again and again: GDB reads the instruction at the PC six times for a `stepi`.
//! Each question that goes to the guest's machine is a round trip of some hundred microseconds. So
//! what was read is kept, in blocks, until the guest is set going or something in it is written.

use std::collections::HashMap;
use std::time::Duration;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Console, Debuggee, Error, Event, Interrupts, Monitors, Others, Place, Registers, Reverse, Simd,
    StepRequest, Sve, SystemRegisters, Time, TimeTravel, Trace, VcpuId, VcpuState, VcpuStatus,
    Watchpoints,
};

/// What memory is read by: a part of a page, which is mapped or not as a whole.
const BLOCK: usize = 256;
/// Most blocks that are kept.
const BLOCKS_MAX: usize = 1024;

/// A debuggee, and what it has told since it stopped.
pub(crate) struct CachedDebuggee<'d> {
    debuggee: &'d mut dyn Debuggee,
    status: HashMap<u8, Vec<VcpuStatus>>,
    registers: HashMap<VcpuId, Registers>,
    memory: HashMap<(VcpuId, Place), [u8; BLOCK]>,
}

impl<'d> CachedDebuggee<'d> {
    pub(crate) fn new(debuggee: &'d mut dyn Debuggee) -> Self {
        Self { debuggee, status: HashMap::new(), registers: HashMap::new(), memory: HashMap::new() }
    }

    /// It is set going, or something is written: nothing is known any more.
    fn forget(&mut self) -> &mut dyn Debuggee {
        self.status.clear();
        self.registers.clear();
        self.memory.clear();
        self.debuggee
    }

    /// The block at a place, if there is one.
    fn block(&mut self, vcpu: VcpuId, place: Place) -> Result<Option<&[u8; BLOCK]>, Error> {
        if !self.memory.contains_key(&(vcpu, place)) {
            let mut block = [0; BLOCK];
            match self.debuggee.read_memory(vcpu, place, &mut block) {
                Ok(()) => {}
                Err(Error::Refused(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
            if self.memory.len() >= BLOCKS_MAX {
                self.memory.clear();
            }
            self.memory.insert((vcpu, place), block);
        }
        Ok(self.memory.get(&(vcpu, place)))
    }
}

/// The place where the block of another begins, and how far into it that one is.
const fn split(place: Place) -> (Place, usize) {
    let offset = BLOCK as u64 - 1;
    match place {
        Place::Va(Va(va)) => (Place::Va(Va(va & !offset)), (va & offset) as usize),
        Place::Ipa(Ipa(ipa)) => (Place::Ipa(Ipa(ipa & !offset)), (ipa & offset) as usize),
    }
}

impl Debuggee for CachedDebuggee<'_> {
    fn vcpu_counts(&self) -> &[u8] {
        self.debuggee.vcpu_counts()
    }

    fn status(&mut self, domain: u8) -> Result<Vec<VcpuStatus>, Error> {
        if let Some(known) = self.status.get(&domain) {
            return Ok(known.clone());
        }
        let status = self.debuggee.status(domain)?;
        if status.iter().all(|vcpu| matches!(vcpu.state, VcpuState::Stopped | VcpuState::Off)) {
            self.status.insert(domain, status.clone());
        }
        Ok(status)
    }

    fn pause(&mut self, domain: u8) -> Result<(), Error> {
        self.forget().pause(domain)
    }

    fn resume(&mut self, domain: u8) -> Result<(), Error> {
        self.forget().resume(domain)
    }

    fn resume_only(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        self.forget().resume_only(vcpu)
    }

    fn step(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<(), Error> {
        self.forget().step(vcpu, request)
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let event = self.debuggee.wait(timeout)?;
        if !matches!(event, None | Some(Event::Console { .. })) {
            self.forget();
        }
        Ok(event)
    }

    fn read_registers(&mut self, vcpu: VcpuId) -> Result<Registers, Error> {
        if let Some(known) = self.registers.get(&vcpu) {
            return Ok(known.clone());
        }
        let registers = self.debuggee.read_registers(vcpu)?;
        self.registers.insert(vcpu, registers.clone());
        Ok(registers)
    }

    fn write_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<(), Error> {
        self.forget().write_registers(vcpu, registers)
    }

    fn read_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &mut [u8]) -> Result<(), Error> {
        let (start, offset) = split(place);
        let within = offset..offset + bytes.len();
        if within.end <= BLOCK
            && let Some(known) = self.block(vcpu, start)?.and_then(|block| block.get(within))
        {
            bytes.copy_from_slice(known);
            return Ok(());
        }
        self.debuggee.read_memory(vcpu, place, bytes)
    }

    fn write_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &[u8]) -> Result<(), Error> {
        self.forget().write_memory(vcpu, place, bytes)
    }

    fn translate(&mut self, vcpu: VcpuId, va: Va) -> Result<Ipa, Error> {
        self.debuggee.translate(vcpu, va)
    }

    // Breakpoints are hidden: setting one changes nothing that can be read.
    fn set_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.debuggee.set_breakpoint(domain, place)
    }

    fn clear_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.debuggee.clear_breakpoint(domain, place)
    }

    fn support_system_registers(&mut self) -> Option<&mut dyn SystemRegisters> {
        // One that is written may change what is where.
        self.forget().support_system_registers()
    }

    fn support_simd(&mut self) -> Option<&mut dyn Simd> {
        self.debuggee.support_simd()
    }

    fn support_sve(&mut self) -> Option<&mut dyn Sve> {
        self.debuggee.support_sve()
    }

    fn support_monitors(&mut self) -> Option<&mut dyn Monitors> {
        // It pauses a guest that runs.
        self.forget().support_monitors()
    }

    fn support_interrupts(&mut self) -> Option<&mut dyn Interrupts> {
        self.debuggee.support_interrupts()
    }

    fn support_time(&mut self) -> Option<&mut dyn Time> {
        self.debuggee.support_time()
    }

    fn support_others(&mut self) -> Option<&mut dyn Others> {
        self.debuggee.support_others()
    }

    fn support_trace(&mut self) -> Option<&mut dyn Trace> {
        self.debuggee.support_trace()
    }

    fn support_watchpoints(&mut self) -> Option<&mut dyn Watchpoints> {
        self.debuggee.support_watchpoints()
    }

    fn support_time_travel(&mut self) -> Option<&mut dyn TimeTravel> {
        // It moves the guest.
        self.forget().support_time_travel()
    }

    fn support_reverse(&mut self) -> Option<&mut dyn Reverse> {
        // As this does.
        self.forget().support_reverse()
    }

    fn support_console(&mut self) -> Option<&mut dyn Console> {
        self.debuggee.support_console()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_debuggee::contract;
    use stepwell_debuggee::fake::Fake;

    const RAM: Place = Place::Ipa(contract::SCRATCH);

    fn word(debuggee: &mut dyn Debuggee, place: Place) -> u32 {
        let mut bytes = [0; 4];
        debuggee.read_memory(VcpuId::default(), place, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn it_keeps_the_contract() {
        // A debuggee that lives as long as the check that it is given to.
        contract::check(|| {
            let fake: &'static mut Fake = Box::leak(Box::new(Fake::new(&contract::guest_bytes())));
            Box::new(CachedDebuggee::new(fake))
        });
    }

    #[test]
    fn what_is_known_is_asked_for_once() {
        let mut fake = Fake::new(&contract::guest_bytes());
        contract::wait_for_stop(&mut fake);
        let mut cached = CachedDebuggee::new(&mut fake);
        assert_eq!(word(&mut cached, RAM), 0);
        assert_eq!(cached.memory.len(), 1);
        assert_eq!(word(&mut cached, RAM.offset(8)), 0);
        assert_eq!(cached.memory.len(), 1);
        // Over the border of two blocks, and where nothing is.
        assert_eq!(word(&mut cached, RAM.offset(BLOCK as u64 - 2)), 0);
        let vcpu = VcpuId::default();
        assert!(cached.read_memory(vcpu, Place::Ipa(Ipa(0)), &mut [0; 4]).is_err());
        assert_eq!(cached.memory.len(), 1);
        cached.write_memory(vcpu, RAM, &7_u32.to_le_bytes()).unwrap();
        assert_eq!(cached.memory.len(), 0);
        assert_eq!(word(&mut cached, RAM), 7);
        let pc = cached.read_registers(vcpu).unwrap().pc;
        assert_eq!(cached.registers.len(), 1);
        cached.step(vcpu, StepRequest::steps(1)).unwrap();
        while cached.wait(Duration::from_millis(1)).unwrap().is_none() {}
        assert_eq!(cached.registers.len() + cached.memory.len(), 0);
        assert_eq!(cached.read_registers(vcpu).unwrap().pc, pc + 4);
    }
}
