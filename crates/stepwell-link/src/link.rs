//! The conversation: requests, their answers, and the events that fall between.

use crate::receiver::{self, DeviceThread, FromStream, Incoming};
use crate::wait::Wait;
use crate::{GuestRam, KeptDevices, LinkError, Mailbox, Ring};
use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::Thread;
use std::time::{Duration, Instant};
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Checkpoint, Checkpoints, Console, Debuggee, Error, Event, InterruptPolicy, Interrupts, Moment,
    Monitor, Monitors, Others, OthersPolicy, Place, Refusal, Registers, Simd, StateHash,
    StepRequest, Stop, StopReason, Sve, SystemRegisters, Time, TimePolicy, TimeTravel, Trace,
    TraceDetail, TraceRecord, VcpuId, VcpuStatus, Watchpoint, Watchpoints,
};
use stepwell_wire::message::MAX_BYTES;
use stepwell_wire::{Answer, Command, FromHypervisor, MAX_FRAME, Request, VERSION, encode};

/// An empty frame, which calls for a look into the mailbox.
const DOORBELL: [u8; 1] = [0];

/// Console bytes in one command: the hypervisor takes all of them or none, and its room is small.
const TYPED_AT_ONCE: usize = 16;

/// How long to wait for the hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For its first word: it has to boot.
    pub boot: Duration,
    /// For any other answer.
    pub answer: Duration,
}

impl Default for Patience {
    /// Half a minute: emulated machines on busy hosts are slow, and a time-out is final.
    fn default() -> Self {
        Self { boot: Duration::from_secs(30), answer: Duration::from_secs(30) }
    }
}

/// What the hypervisor told about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Physical CPUs that came up.
    pub cpus: u8,
    /// vCPUs of each domain.
    pub vcpus: Vec<u8>,
    /// Counter frequency in Hz.
    pub frequency_hz: u64,
    /// Size of the trace ring in bytes; 0 where there is none.
    pub ring_bytes: u64,
    /// Everything else will go through the mailbox.
    pub mailbox: bool,
}

/// Keeps the bank of flash that the variables of a guest's firmware are in.
pub trait FlashKeeper: Send {
    /// These bytes are at an offset now.
    fn programmed(&mut self, offset: u64, bytes: &[u8]);
    /// So many bytes from an offset on are all ones now.
    fn erased(&mut self, offset: u64, bytes: u64);
}

/// A hypervisor at the other end of a stream.
pub struct Link {
    stream: UnixStream,
    incoming: Receiver<Incoming>,
    patience: Patience,
    hello: Hello,
    next_id: u32,
    events: VecDeque<Event>,
    /// Registers that came with the last stop, until something may have changed them.
    stopped: Option<(VcpuId, Registers)>,
    /// Where the domain ended, if its machine counts instructions.
    ended: Option<Moment>,
    /// Set once: why nothing works any more.
    lost: Option<LinkError>,
    ring: Option<Ring>,
    mailbox: Option<Mailbox>,
    ram: Option<GuestRam>,
    devices: DeviceThread,
    /// Who keeps what the guest's firmware stores in its flash.
    flash: Option<Box<dyn FlashKeeper>>,
    /// What goes to kept moments together with the guest.
    kept_devices: Option<Box<dyn KeptDevices>>,
    /// Tells whether somebody wants to leave.
    is_interrupted: fn() -> bool,
}

impl Link {
    /// Opens the conversation over a stream that leads to a hypervisor, booted or about to be.
    ///
    /// # Errors
    ///
    /// [`LinkError`], in particular [`LinkError::Version`].
    pub fn open(stream: UnixStream, patience: Patience) -> Result<Self, LinkError> {
        stream.set_write_timeout(Some(patience.answer))?;
        let devices = DeviceThread::default();
        let incoming = receiver::start(stream.try_clone()?, devices.clone())?;
        let hello =
            Hello { cpus: 0, vcpus: Vec::new(), frequency_hz: 0, ring_bytes: 0, mailbox: false };
        let mut link = Self {
            stream,
            incoming,
            patience,
            hello,
            next_id: 0,
            events: VecDeque::new(),
            stopped: None,
            ended: None,
            lost: None,
            ring: None,
            mailbox: None,
            ram: None,
            devices,
            flash: None,
            kept_devices: None,
            is_interrupted: || false,
        };
        link.hello = link.greet()?;
        Ok(link)
    }

    /// Returns what the hypervisor told about itself.
    #[must_use]
    pub const fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Gives the link the ring that recorded steps are drained from.
    pub fn attach_ring(&mut self, ring: Ring) {
        self.ring = Some(ring);
    }

    /// Gives the link the guest's RAM, which states are compared by.
    pub fn attach_ram(&mut self, ram: GuestRam) {
        self.ram = Some(ram);
    }

    /// Gives the link the mailbox that the hypervisor has [spoken of](Hello::mailbox). Before
    /// anything is asked of it: from its greeting on it looks and speaks nowhere else.
    pub fn attach_mailbox(&mut self, mailbox: Mailbox) {
        self.mailbox = Some(mailbox);
    }

    /// Takes devices to kept moments together with the guest.
    pub fn keep_devices(&mut self, devices: Box<dyn KeptDevices>) {
        self.kept_devices = Some(devices);
    }

    /// Wakes a thread by the doorbell, which may ring for the devices that it serves. There is one.
    pub fn wake_for_devices(&mut self, thread: &Thread) {
        // A second one is nobody's.
        let _is_set = self.devices.set(thread.clone());
    }

    /// Has what the guest's firmware stores in its flash kept, in the order in which it did.
    pub fn attach_flash(&mut self, keeper: Box<dyn FlashKeeper>) {
        self.flash = Some(keeper);
    }

    /// What rings the hypervisor's doorbell: for whom nobody waits here. For a link with a
    /// [mailbox](Hello::mailbox), whose stream has nothing but doorbells.
    ///
    /// # Errors
    ///
    /// Where the stream's descriptor cannot be duplicated.
    pub fn doorbell(&self) -> std::io::Result<impl Fn() + Send + use<>> {
        let stream = self.stream.try_clone()?;
        // It fails where the machine is gone, which is somebody else's to tell.
        Ok(move || drop((&stream).write_all(&DOORBELL)))
    }

    /// Puts a device into a virtio-mmio slot of a stopped domain: its type, what it offers, how long
    /// its queues are, and its configuration.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooLong`], or what the hypervisor says.
    pub fn attach_device(
        &mut self,
        domain: u8,
        slot: u8,
        (device, features): (u32, u64),
        queues: &[u16],
        configuration: &[u8],
    ) -> Result<(), Error> {
        let too_long = |_| Error::Refused(Refusal::TooLong(configuration.len() as u16));
        let queues = heapless::Vec::from_slice(queues).map_err(too_long)?;
        let configuration = heapless::Vec::from_slice(configuration).map_err(too_long)?;
        let command =
            Command::AttachDevice { domain, slot, device, features, queues, configuration };
        self.done(command)
    }

    /// Asks `is_interrupted` while an answer is waited for: whoever wants to leave is not made to
    /// wait for a machine that hangs.
    pub const fn interrupt_when(&mut self, is_interrupted: fn() -> bool) {
        self.is_interrupted = is_interrupted;
    }

    /// Powers the whole machine off. The link closes in consequence.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] where the machine is gone already.
    pub fn power_off(&mut self) -> Result<(), Error> {
        self.done(Command::PowerOff)
    }

    fn greet(&mut self) -> Result<Hello, LinkError> {
        let command = Command::Hello { version: VERSION };
        match self.exchange(command, self.patience.boot)? {
            Ok(Answer::Hello {
                version: VERSION,
                cpus,
                vcpus,
                frequency_hz,
                ring_bytes,
                mailbox,
                ..
            }) => Ok(Hello { cpus, vcpus: vcpus.to_vec(), frequency_hz, ring_bytes, mailbox }),
            Ok(Answer::Hello { version: theirs, .. }) | Err(Refusal::Version(theirs)) => {
                Err(LinkError::Version { theirs, ours: VERSION })
            }
            _ => Err(LinkError::WrongAnswer { command: "hello" }),
        }
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer, Error> {
        let answer = self.exchange(command, self.patience.answer)?;
        Ok(answer?)
    }

    pub(crate) fn done(&mut self, command: Command) -> Result<(), Error> {
        let name = command.name();
        match self.ask(command)? {
            Answer::Done => Ok(()),
            _ => Err(self.fail(LinkError::WrongAnswer { command: name }).into()),
        }
    }

    fn exchange(
        &mut self,
        command: Command,
        patience: Duration,
    ) -> Result<Result<Answer, Refusal>, LinkError> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let (name, changes_nothing) = (command.name(), command.changes_nothing());
        self.send(&Request { id, command })?;
        let mut wait = Wait::new(patience, self.is_interrupted);
        loop {
            match self.receive(wait.slice())? {
                Some(FromHypervisor::Response { id: answered, result }) if answered == id => {
                    // A stop that was told of before this was carried out is a former one.
                    if !changes_nothing {
                        self.stopped = None;
                    }
                    return Ok(result);
                }
                // The answer to a request that was given up is nobody's any more.
                Some(FromHypervisor::Response { .. }) => {}
                Some(FromHypervisor::Event(event)) => {
                    let event = self.happened(event);
                    self.events.extend(event);
                }
                None if wait.is_over() => {
                    let waited = wait.waited();
                    return Err(self.fail(LinkError::NoAnswer { command: name, waited }));
                }
                None => {}
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), LinkError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let mut frame = [0; MAX_FRAME];
        let frame = encode(request, &mut frame).expect("every request fits a frame");
        let patience = self.patience.answer;
        let sent = match self.mailbox.as_mut().map(|mailbox| mailbox.send(frame, patience)) {
            None => self.stream.write_all(frame),
            Some(Some(false)) => Ok(()),
            Some(Some(true)) => self.stream.write_all(&DOORBELL),
            Some(None) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let Err(error) = sent else { return Ok(()) };
        let error = match error.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
                self.last_word()
            }
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                let command = request.command.name();
                LinkError::NoAnswer { command, waited: self.patience.answer }
            }
            _ => error.into(),
        };
        Err(self.fail(error))
    }

    /// Takes what had arrived when the other end hung up: it may say why, and its events count.
    fn last_word(&mut self) -> LinkError {
        let error = loop {
            match self.incoming.recv_timeout(self.patience.answer) {
                Ok(Ok(FromStream::Message(message))) => self.keep(*message),
                Ok(Ok(FromStream::Doorbell)) => {}
                Ok(Err(error)) => break error,
                Err(_) => break LinkError::MachineGone,
            }
        };
        while let Some(Ok(Some(message))) = self.mailbox.as_mut().map(Mailbox::take) {
            self.keep(message);
        }
        error
    }

    /// Keeps an event for who asks for it, and forgets an answer that nobody waits for.
    fn keep(&mut self, message: FromHypervisor) {
        if let FromHypervisor::Event(event) = message {
            let event = self.happened(event);
            self.events.extend(event);
        }
    }

    /// Returns the next message, or `None` where none comes in time.
    fn receive(&mut self, timeout: Duration) -> Result<Option<FromHypervisor>, LinkError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let received = self.receive_until(Instant::now() + timeout);
        received.map_err(|error| self.fail(error))
    }

    fn receive_until(&mut self, deadline: Instant) -> Result<Option<FromHypervisor>, LinkError> {
        loop {
            if let Some(mailbox) = &mut self.mailbox
                && let Some(message) = mailbox.look(deadline)?
            {
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let received = self.incoming.recv_timeout(left);
            // What the other end put there before it hung up comes before that.
            if let Some(mailbox) = &mut self.mailbox
                && let Some(message) = mailbox.wake_up()?
            {
                return Ok(Some(message));
            }
            match received {
                Ok(Ok(FromStream::Message(message))) => return Ok(Some(*message)),
                Ok(Ok(FromStream::Doorbell)) => {}
                Ok(Err(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(LinkError::MachineGone),
            }
        }
    }

    /// Takes note of an event, and returns it where it is for whoever debugs.
    fn happened(&mut self, event: stepwell_wire::Event) -> Option<Event> {
        if let stepwell_wire::Event::Stopped { domain, vcpu, reason, registers, .. } = &event
            // That one has none to be asked for.
            && *reason != StopReason::SwitchedOff
        {
            let vcpu = VcpuId { domain: *domain, vcpu: *vcpu };
            self.stopped = Some((vcpu, registers.clone()));
        }
        if let stepwell_wire::Event::DomainEnded { moment: Some((position, clock)), .. } = event {
            self.ended = Some(Moment { position, clock });
        }
        if let Some(flash) = &mut self.flash {
            match &event {
                stepwell_wire::Event::FlashProgrammed { offset, bytes, .. } => {
                    flash.programmed(*offset, bytes);
                }
                stepwell_wire::Event::FlashErased { offset, bytes, .. } => {
                    flash.erased(*offset, *bytes);
                }
                _ => {}
            }
        }
        event_of(event)
    }

    pub(crate) fn fail(&mut self, error: LinkError) -> LinkError {
        self.lost.get_or_insert(error).clone()
    }

    fn value(&mut self, command: Command) -> Result<u64, Error> {
        let name = command.name();
        match self.ask(command)? {
            Answer::Value(value) => Ok(value),
            _ => Err(self.fail(LinkError::WrongAnswer { command: name }).into()),
        }
    }
}

/// What the debuggee's event is of the hypervisor's.
fn event_of(event: stepwell_wire::Event) -> Option<Event> {
    Some(match event {
        stepwell_wire::Event::Stopped { domain, vcpu, reason, steps, registers } => {
            let (vcpu, pc) = (VcpuId { domain, vcpu }, Va(registers.pc));
            Event::Stopped(Stop { vcpu, reason, pc, steps })
        }
        stepwell_wire::Event::Console { domain, bytes } => {
            Event::Console { domain, bytes: bytes.to_vec() }
        }
        stepwell_wire::Event::DomainEnded { domain, ending, .. } => Event::Ended { domain, ending },
        stepwell_wire::Event::FlashProgrammed { .. } | stepwell_wire::Event::FlashErased { .. } => {
            return None;
        }
    })
}

impl Drop for Link {
    fn drop(&mut self) {
        // Ends the reading thread. It fails only where the stream is closed already.
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

impl Debuggee for Link {
    fn vcpu_counts(&self) -> &[u8] {
        &self.hello.vcpus
    }

    fn status(&mut self, domain: u8) -> Result<Vec<VcpuStatus>, Error> {
        match self.ask(Command::Status { domain })? {
            Answer::Vcpus(vcpus) => {
                Ok(vcpus.iter().map(|&(state, pc)| VcpuStatus { state, pc: Va(pc) }).collect())
            }
            _ => Err(self.fail(LinkError::WrongAnswer { command: "status" }).into()),
        }
    }

    fn pause(&mut self, domain: u8) -> Result<(), Error> {
        self.done(Command::Pause { domain })
    }

    fn resume(&mut self, domain: u8) -> Result<(), Error> {
        self.done(Command::Continue { domain, vcpu: None })
    }

    fn resume_only(&mut self, vcpu: VcpuId) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        self.done(Command::Continue { domain, vcpu: Some(vcpu) })
    }

    fn step(&mut self, vcpu: VcpuId, request: StepRequest) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        let StepRequest { count, until, record, all, within } = request;
        let until = until.map(|until| until.0);
        let within = within.map(|range| (range.start.0, range.end.0));
        self.done(Command::Step { domain, vcpu, count, until, record, all, within })
    }

    fn wait(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)? {
                Some(FromHypervisor::Event(event)) => {
                    if let Some(event) = self.happened(event) {
                        return Ok(Some(event));
                    }
                }
                Some(FromHypervisor::Response { .. }) => {}
                None => return Ok(None),
            }
        }
    }

    fn read_registers(&mut self, vcpu: VcpuId) -> Result<Registers, Error> {
        match &self.stopped {
            Some((stopped, registers)) if *stopped == vcpu && self.lost.is_none() => {
                return Ok(registers.clone());
            }
            _ => {}
        }
        let VcpuId { domain, vcpu } = vcpu;
        match self.ask(Command::ReadRegisters { domain, vcpu })? {
            Answer::Registers(registers) => Ok(registers),
            _ => Err(self.fail(LinkError::WrongAnswer { command: "read-registers" }).into()),
        }
    }

    fn write_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        let registers = registers.clone();
        self.done(Command::WriteRegisters { domain, vcpu, registers })
    }

    fn read_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &mut [u8]) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        let mut done = 0;
        for chunk in bytes.chunks_mut(MAX_BYTES) {
            let place = place.offset(done);
            done += chunk.len() as u64;
            let length = chunk.len() as u16;
            match self.ask(Command::ReadMemory { domain, vcpu, place, length })? {
                Answer::Memory(memory) if memory.len() == chunk.len() => {
                    chunk.copy_from_slice(&memory);
                }
                _ => {
                    return Err(self
                        .fail(LinkError::WrongAnswer { command: "read-memory" })
                        .into());
                }
            }
        }
        Ok(())
    }

    fn write_memory(&mut self, vcpu: VcpuId, place: Place, bytes: &[u8]) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        let mut done = 0;
        for chunk in bytes.chunks(MAX_BYTES) {
            let place = place.offset(done);
            done += chunk.len() as u64;
            let bytes = heapless::Vec::from_slice(chunk).expect("a chunk is MAX_BYTES at most");
            self.done(Command::WriteMemory { domain, vcpu, place, bytes })?;
        }
        Ok(())
    }

    fn translate(&mut self, vcpu: VcpuId, va: Va) -> Result<Ipa, Error> {
        let VcpuId { domain, vcpu } = vcpu;
        self.value(Command::Translate { domain, vcpu, va: va.0 }).map(Ipa)
    }

    fn set_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.done(Command::SetBreakpoint { domain, place })
    }

    fn clear_breakpoint(&mut self, domain: u8, place: Place) -> Result<(), Error> {
        self.done(Command::ClearBreakpoint { domain, place })
    }

    fn support_system_registers(&mut self) -> Option<&mut dyn SystemRegisters> {
        Some(self)
    }

    fn support_simd(&mut self) -> Option<&mut dyn Simd> {
        Some(self)
    }

    fn support_sve(&mut self) -> Option<&mut dyn Sve> {
        Some(self)
    }

    fn support_monitors(&mut self) -> Option<&mut dyn Monitors> {
        Some(self)
    }

    fn support_interrupts(&mut self) -> Option<&mut dyn Interrupts> {
        Some(self)
    }

    fn support_time(&mut self) -> Option<&mut dyn Time> {
        Some(self)
    }

    fn support_others(&mut self) -> Option<&mut dyn Others> {
        Some(self)
    }

    fn support_trace(&mut self) -> Option<&mut dyn Trace> {
        self.ring.is_some().then_some(self as &mut dyn Trace)
    }

    fn support_watchpoints(&mut self) -> Option<&mut dyn Watchpoints> {
        Some(self)
    }

    fn support_time_travel(&mut self) -> Option<&mut dyn TimeTravel> {
        self.ram.is_some().then_some(self as &mut dyn TimeTravel)
    }

    fn support_console(&mut self) -> Option<&mut dyn Console> {
        Some(self)
    }
}

impl SystemRegisters for Link {
    fn read_system_register(&mut self, vcpu: VcpuId, register: u16) -> Result<u64, Error> {
        let VcpuId { domain, vcpu } = vcpu;
        self.value(Command::ReadSystemRegister { domain, vcpu, register })
    }

    fn write_system_register(
        &mut self,
        vcpu: VcpuId,
        register: u16,
        value: u64,
    ) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        self.done(Command::WriteSystemRegister { domain, vcpu, register, value })
    }
}

impl Monitors for Link {
    fn set_monitor(
        &mut self,
        domain: u8,
        vcpu: Option<u8>,
        monitor: Monitor,
        on: bool,
    ) -> Result<(), Error> {
        self.done(Command::SetMonitor { domain, vcpu, monitor, on })
    }
}

impl Watchpoints for Link {
    fn set_watchpoint(&mut self, vcpu: VcpuId, watchpoint: Watchpoint) -> Result<(), Error> {
        let VcpuId { domain, vcpu } = vcpu;
        self.done(Command::SetWatchpoint { domain, vcpu, watchpoint })
    }

    fn clear_watchpoint(&mut self, domain: u8, watchpoint: Watchpoint) -> Result<(), Error> {
        self.done(Command::ClearWatchpoint { domain, watchpoint })
    }
}

impl Interrupts for Link {
    fn set_interrupt_policy(&mut self, domain: u8, policy: InterruptPolicy) -> Result<(), Error> {
        self.done(Command::SetInterruptPolicy { domain, policy })
    }
}

impl Time for Link {
    fn set_time_policy(&mut self, domain: u8, policy: TimePolicy) -> Result<(), Error> {
        self.done(Command::SetTimePolicy { domain, policy })
    }
}

impl Others for Link {
    fn set_others_policy(&mut self, domain: u8, policy: OthersPolicy) -> Result<(), Error> {
        self.done(Command::SetOthersPolicy { domain, policy })
    }
}

impl Trace for Link {
    fn drain(&mut self, records: &mut Vec<TraceRecord>) -> Result<(), Error> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        let result = ring.drain(records);
        result.map_err(|error| self.fail(error.into()).into())
    }

    fn set_detail(&mut self, domain: u8, detail: TraceDetail) -> Result<(), Error> {
        let TraceDetail { registers, memory } = detail;
        self.done(Command::SetDetail { domain, registers, memory })
    }
}

impl Link {
    fn timeline(&mut self, domain: u8) -> Result<stepwell_wire::Timeline, Error> {
        match self.ask(Command::ReadTimeline { domain })? {
            Answer::Timeline(timeline) => Ok(timeline),
            _ => Err(self.fail(LinkError::WrongAnswer { command: "read-timeline" }).into()),
        }
    }
}

impl TimeTravel for Link {
    fn moment(&mut self, domain: u8) -> Result<Moment, Error> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let stepwell_wire::Timeline { position, clock, .. } = self.timeline(domain)?;
        Ok(Moment { position, clock })
    }

    fn run_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        let Moment { position, clock } = moment;
        self.done(Command::RunUntil { domain, position, clock, turn: None, record: false })
    }

    fn run_until_turn(&mut self, vcpu: VcpuId, moment: Moment) -> Result<(), Error> {
        let (Moment { position, clock }, VcpuId { domain, vcpu }) = (moment, vcpu);
        let turn = Some(vcpu);
        self.done(Command::RunUntil { domain, position, clock, turn, record: false })
    }

    fn executed(&mut self, domain: u8) -> Result<Vec<u64>, Error> {
        let vcpus = self.hello.vcpus.get(usize::from(domain)).copied().unwrap_or_default();
        let executed = self.timeline(domain)?.executed;
        Ok(executed.into_iter().take(usize::from(vcpus)).collect())
    }

    fn record_until(&mut self, domain: u8, moment: Moment) -> Result<(), Error> {
        let Moment { position, clock } = moment;
        self.done(Command::RunUntil { domain, position, clock, turn: None, record: true })
    }

    fn state_hash(&mut self, domain: u8) -> Result<StateHash, Error> {
        let timeline = self.timeline(domain)?;
        let Some(ram) = &self.ram else { return Err(Refusal::NotCounted.into()) };
        let memory = ram.hash(timeline.ram, timeline.ram_bytes);
        let memory = memory.map_err(|error| self.fail(error))?;
        Ok(StateHash { registers: timeline.registers, memory })
    }

    fn fork(&mut self, domain: u8) -> Result<(), Error> {
        self.done(Command::Fork { domain })
    }

    fn support_checkpoints(&mut self) -> Option<&mut dyn Checkpoints> {
        Some(self)
    }
}

impl Checkpoints for Link {
    fn keep(&mut self, domain: u8) -> Result<Checkpoint, Error> {
        let kept = self.value(Command::Keep { domain })?;
        if let Some(devices) = &self.kept_devices {
            devices.keep(kept);
        }
        Ok(Checkpoint(kept))
    }

    fn go_to(&mut self, domain: u8, checkpoint: Checkpoint) -> Result<(), Error> {
        let gone = self.done(Command::GoTo { domain, checkpoint: checkpoint.0 });
        if let Some(devices) = &self.kept_devices {
            match &gone {
                Ok(()) => devices.go_to(checkpoint.0),
                Err(error) if error.refusal() == Some(Refusal::NoSuchCheckpoint) => {
                    devices.forget(checkpoint.0);
                }
                Err(_) => {}
            }
        }
        gone
    }

    fn forget(&mut self, checkpoint: Checkpoint) {
        // Whatever is in the way of it, whoever asks for something next is told.
        let _forgotten = self.done(Command::Forget { checkpoint: checkpoint.0 });
        if let Some(devices) = &self.kept_devices {
            devices.forget(checkpoint.0);
        }
    }

    fn wrote(
        &mut self,
        domain: u8,
        from: Checkpoint,
        to: Checkpoint,
        ipa: Ipa,
        bytes: u64,
    ) -> Result<bool, Error> {
        let command = Command::Wrote { domain, from: from.0, to: to.0, ipa, bytes };
        self.value(command).map(|wrote| wrote != 0)
    }
}

impl Console for Link {
    fn type_bytes(&mut self, domain: u8, bytes: &[u8]) -> Result<usize, Error> {
        let mut typed = 0;
        for chunk in bytes.chunks(TYPED_AT_ONCE) {
            let bytes = heapless::Vec::from_slice(chunk).expect("a chunk is MAX_BYTES at most");
            match self.done(Command::ConsoleInput { domain, bytes }) {
                Ok(()) => typed += chunk.len(),
                Err(Error::Refused(Refusal::Busy)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(typed)
    }
}
