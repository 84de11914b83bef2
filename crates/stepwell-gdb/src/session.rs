//! One conversation with one client: bytes in, bytes out.
//!
//! `gdbstub` does the protocol. Around it are the few things that it leaves to others or gives up
//! at: damaged packets ([`crate::framing`]); the packets `?`, `qC`, `k` and `vKill`, which it
//! answers without asking which thread is meant or whether it can be done; `c` and `s` of old
//! clients; `qHostInfo`, where it does not know of all that there is to say; and its own errors.
//! Where it ends a session because a packet makes no sense to it, the packet is answered with an
//! error and a fresh `gdbstub` is brought to where the old one was.

use crate::conditions::Conditions;
use crate::description::RegisterSet;
use crate::framing::{Framer, Incoming, PACKET_MAX, framed, hex};
use crate::going::Going;
use crate::guest::Guest;
use crate::output::Output;
use crate::policies::Policies;
use crate::services::Services;
use crate::stops::Report;
use crate::{Error, arch::RegisterNumber};
use gdbstub::arch::Registers as _;
use gdbstub::common::Tid;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub};
use std::time::Duration;
use stepwell_debuggee::{Debuggee, DomainEnding, Event, VcpuId};

type Stub<'d> = GdbStubStateMachine<'static, Guest<'d>, Output>;

/// EINVAL: what a packet is answered with that makes no sense.
const NO_SENSE: &[u8] = b"E16";
/// The error that a packet gets which is too long (E2BIG).
const TOO_LONG: &[u8] = b"E07";
/// What we can and `gdbstub` does not know of.
const FEATURES: &[u8] = b";ConditionalBreakpoints+";
/// Longest memory that one packet may ask for: its reply is a packet too.
const READ_MAX: usize = PACKET_MAX / 2;
/// Bytes of a register in hexadecimal, for the registers that go along with a stop.
const DOUBLEWORD: usize = 8;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The client detached: the guest is to run on.
    Detached,
    /// The client killed the guest.
    Killed,
    /// The guest ended.
    Ended(DomainEnding),
}

/// One conversation.
pub struct Session<'d> {
    guest: Guest<'d>,
    /// There is always one between calls.
    stub: Option<Stub<'d>>,
    output: Output,
    framer: Framer,
    has_no_acks: bool,
    has_processes: bool,
    /// A thread was chosen for what goes on, and not any of them.
    has_chosen: bool,
    /// The last reply, in case that it has to be said again.
    last: Vec<u8>,
    ending: Option<DomainEnding>,
}

impl<'d> Session<'d> {
    /// Begins, with a stopped guest; `vcpu` is the one that the client sees first.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost.
    pub fn new(
        debuggee: &'d mut dyn Debuggee,
        services: &'d mut dyn Services,
        registers: &'d RegisterSet,
        policies: &'d mut Policies,
        vcpu: VcpuId,
    ) -> Result<Self, Error> {
        let mut guest = Guest::new(debuggee, services, registers, policies, vcpu);
        guest.learn(vcpu)?;
        let output = Output::default();
        let stub = Some(start(&mut guest, &output)?);
        Ok(Self {
            guest,
            stub,
            output,
            framer: Framer::default(),
            has_no_acks: false,
            has_processes: false,
            has_chosen: false,
            last: Vec::new(),
            ending: None,
        })
    }

    /// Takes what the client sent.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost, or the client asks for more than it reads.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<Leaving>, Error> {
        for &byte in bytes {
            let Some(incoming) = self.framer.push(byte) else { continue };
            let before = self.output.len();
            let leaving = match incoming {
                Incoming::Packet(body) => self.packet(&body)?,
                Incoming::Interrupt => {
                    self.guest.interrupt()?;
                    None
                }
                Incoming::Nack => {
                    let last = self.last.clone();
                    self.send_raw(&last)?;
                    None
                }
                Incoming::Damaged => {
                    self.send_raw(b"-")?;
                    None
                }
                Incoming::TooLong => {
                    self.answer(TOO_LONG)?;
                    None
                }
            };
            self.remember(before);
            if leaving.is_some() {
                return Ok(leaving);
            }
        }
        Ok(None)
    }

    /// Takes what happened to the guest.
    ///
    /// # Errors
    ///
    /// As [`Session::receive`].
    pub fn happened(&mut self, event: Event) -> Result<Option<Leaving>, Error> {
        if let Event::Ended { domain, ending } = event
            && domain == self.guest.domain
        {
            self.ending = Some(ending);
        }
        let before = self.output.len();
        let report = self.guest.happened(event)?;
        let report = report.or_else(|| self.guest.refusal());
        let leaving = self.report(report)?;
        self.remember(before);
        Ok(leaving)
    }

    /// Waits for the next event of the guest, no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.guest.services.poll(&mut self.guest.debuggee)?;
        Ok(self.guest.debuggee.wait(timeout)?)
    }

    /// Tells whether the client waits for the guest to stop.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.guest.going != Going::Stopped
    }

    /// Tells whether the client is in the middle of a packet.
    #[must_use]
    pub fn is_within_packet(&self) -> bool {
        self.framer.is_within()
    }

    /// Returns what is to be sent to the client, and forgets it.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.output.take()
    }

    /// Takes out what the client has set in the guest, and lets it go if it is stopped and `run`.
    ///
    /// # Errors
    ///
    /// Where the debuggee is lost.
    pub fn leave(mut self, run: bool) -> Result<(), Error> {
        self.guest.leave(run)
    }

    /// Keeps a reply for a client that asks for it again.
    fn remember(&mut self, before: usize) {
        if !self.has_no_acks && self.output.len() > before {
            self.last = self.output.since(before);
            let acks = self.last.iter().take_while(|&&byte| byte == b'+').count();
            self.last.drain(..acks);
        }
    }

    fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.push(bytes).map_err(|error| Error::Client(error.to_string()))
    }

    /// Answers a packet.
    fn answer(&mut self, body: &[u8]) -> Result<(), Error> {
        if !self.has_no_acks {
            self.send_raw(b"+")?;
        }
        self.send_raw(&framed(body))
    }

    fn packet(&mut self, body: &[u8]) -> Result<Option<Leaving>, Error> {
        if body.starts_with(b"qSupported") {
            self.output.add_to_next_packet(FEATURES);
        }
        let leaving = match body {
            b"?" => self.answer(format!("T05thread:{};", self.thread()).as_bytes()).map(|()| None),
            b"qC" => self.answer(format!("QC{}", self.thread()).as_bytes()).map(|()| None),
            // LLDB waits for an answer, and GDB for none: it does not read it.
            b"k" => self.answer(b"X09").map(|()| Some(Leaving::Killed)),
            // What they meant before there was vCont: everybody goes.
            b"c" => self.feed(b"vCont;c"),
            b"s" => {
                let step = format!("vCont;s:{};c", self.thread());
                self.feed(step.as_bytes())
            }
            b"bs" if !self.has_chosen => self.step_back(),
            _ if body.starts_with(b"vKill") => self.answer(b"OK").map(|()| Some(Leaving::Killed)),
            b"qHostInfo" => match self.guest.host_info() {
                Ok(info) => self.answer(info.as_bytes()).map(|()| None),
                Err(stepwell_debuggee::Error::Refused(_)) => self.answer(NO_SENSE).map(|()| None),
                Err(error) => Err(error.into()),
            },
            _ if body.starts_with(b"qThreadExtraInfo,") => self.thread_info(body).map(|()| None),
            _ if is_too_much(body) => self.answer(TOO_LONG).map(|()| None),
            _ if has_other_length(body) => self.answer(NO_SENSE).map(|()| None),
            _ => match Conditions::split(body) {
                Some((head, tail)) => self.conditional(head, tail),
                None => self.feed(body),
            },
        }?;
        if body.starts_with(b"qSupported") {
            self.output.add_nothing();
            self.has_processes = body.windows(13).any(|words| words == b"multiprocess+");
        }
        self.has_no_acks |= body == b"QStartNoAckMode";
        if let Some(thread) = body.strip_prefix(b"Hc") {
            self.has_chosen =
                !(thread.ends_with(b"-1") || thread == b"0" || thread.ends_with(b".0"));
        }
        if leaving.is_some() {
            return Ok(leaving);
        }
        let report = self.guest.refusal();
        self.report(report)
    }

    /// Steps the current thread back: GDB, which means that one, has chosen any.
    fn step_back(&mut self) -> Result<Option<Leaving>, Error> {
        let before = self.output.len();
        let thread = format!("Hc{}", self.thread());
        self.feed(thread.as_bytes())?;
        self.output.truncate(before);
        self.feed(b"bs")
    }

    /// Sets a breakpoint with what comes with it.
    fn conditional(&mut self, head: &[u8], tail: &[u8]) -> Result<Option<Leaving>, Error> {
        let Some(conditions) = Conditions::parse(tail) else {
            return self.answer(NO_SENSE).map(|()| None);
        };
        self.guest.breakpoints.arriving = conditions;
        let result = self.feed(head);
        // They are nobody's where the packet was refused.
        self.guest.breakpoints.arriving = Conditions::default();
        result
    }

    /// The current thread as a packet names it.
    fn thread(&self) -> String {
        let process = if self.has_processes { "p1." } else { "" };
        format!("{process}{:x}", self.guest.seats.tid(self.guest.selected))
    }

    /// Says what a thread is. `gdbstub` knows the packet, but asks for the text by a shared
    /// reference, where this debuggee has to be asked first, and gives the session up for a thread
    /// that is not there.
    fn thread_info(&mut self, body: &[u8]) -> Result<(), Error> {
        let id = body.rsplit(|&byte| byte == b',' || byte == b'.').next().unwrap_or_default();
        let tid = std::str::from_utf8(id).ok().and_then(|id| usize::from_str_radix(id, 16).ok());
        let Some(tid) = tid.and_then(Tid::new) else { return self.answer(NO_SENSE) };
        match self.guest.describe_thread(tid) {
            Ok(text) => self.answer(hex(text.as_bytes()).as_bytes()),
            Err(stepwell_debuggee::Error::Refused(_)) => self.answer(NO_SENSE),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a packet to `gdbstub`.
    fn feed(&mut self, body: &[u8]) -> Result<Option<Leaving>, Error> {
        let before = self.output.len();
        let mut stub = self.stub.take().ok_or_else(gone)?;
        for byte in framed(body) {
            let fed = match stub {
                GdbStubStateMachine::Idle(idle) => idle.incoming_data(&mut self.guest, byte),
                GdbStubStateMachine::Running(running) => {
                    running.incoming_data(&mut self.guest, byte)
                }
                other => Ok(other),
            };
            stub = match fed {
                Ok(stub) => stub,
                Err(error) if error.is_target_error() => {
                    return Err(error.into_target_error().unwrap_or_else(gone));
                }
                Err(error) if error.is_connection_error() => {
                    return Err(Error::Client(error.to_string()));
                }
                Err(_) => {
                    self.output.truncate(before);
                    self.answer(NO_SENSE)?;
                    return self.restart().map(|()| None);
                }
            };
        }
        self.settle(stub)
    }

    /// Keeps the stub, unless it says that the session is over.
    fn settle(&mut self, stub: Stub<'d>) -> Result<Option<Leaving>, Error> {
        let leaving = match &stub {
            GdbStubStateMachine::Disconnected(gone) => Some(match gone.get_reason() {
                DisconnectReason::Disconnect => Leaving::Detached,
                DisconnectReason::Kill => Leaving::Killed,
                _ => self.ending.map_or(Leaving::Detached, Leaving::Ended),
            }),
            _ => None,
        };
        self.stub = Some(stub);
        Ok(leaving)
    }

    /// Brings a fresh `gdbstub` to where the last one was.
    fn restart(&mut self) -> Result<(), Error> {
        let mut stub = start(&mut self.guest, &self.output)?;
        let before = self.output.len();
        let thread = format!("Hg{}", self.thread());
        let multiprocess = b"qSupported:multiprocess+".as_slice();
        let mut packets = vec![thread.as_bytes()];
        if self.has_processes {
            packets.insert(0, multiprocess);
        }
        if self.has_no_acks {
            packets.push(b"QStartNoAckMode");
        }
        if self.guest.going != Going::Stopped {
            // It goes already, and this changes nothing.
            packets.push(b"vCont;c");
        }
        for byte in packets.into_iter().flat_map(framed) {
            let fed = match stub {
                GdbStubStateMachine::Idle(idle) => idle.incoming_data(&mut self.guest, byte),
                other => Ok(other),
            };
            stub = fed.map_err(|error| {
                let text = error.to_string();
                error.into_target_error().unwrap_or(Error::Client(text))
            })?;
        }
        self.output.truncate(before);
        self.stub = Some(stub);
        Ok(())
    }

    /// Tells the client of a stop.
    fn report(&mut self, report: Option<Report>) -> Result<Option<Leaving>, Error> {
        let Some(report) = report else { return Ok(None) };
        let stub = self.stub.take().ok_or_else(gone)?;
        let GdbStubStateMachine::Running(running) = stub else {
            // It is stopped already, as far as the client knows.
            self.stub = Some(stub);
            return Ok(None);
        };
        if let Some(text) = &report.text {
            self.send_raw(&framed(format!("O{}", hex(text.as_bytes())).as_bytes()))?;
        }
        let registers = self.registers_of(report.vcpu)?;
        let mut registers =
            registers.iter().map(|(n, bytes)| (RegisterNumber(*n), bytes.as_slice()));
        let told = running.report_stop_with_regs(&mut self.guest, report.reason, &mut registers);
        let stub = told.map_err(|error| {
            let text = error.to_string();
            error.into_target_error().unwrap_or(Error::Client(text))
        })?;
        self.settle(stub)
    }

    /// The registers that GDB asks for after any stop, to spare it the question.
    fn registers_of(&mut self, vcpu: Option<VcpuId>) -> Result<Vec<(usize, Vec<u8>)>, Error> {
        let Some(vcpu) = vcpu else { return Ok(Vec::new()) };
        let registers = match self.guest.debuggee.read_registers(vcpu) {
            Ok(registers) => crate::arch::CoreRegisters(registers),
            Err(stepwell_debuggee::Error::Refused(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        registers.gdb_serialize(|byte| bytes.push(byte.unwrap_or_default()));
        Ok(bytes.chunks(DOUBLEWORD).map(<[u8]>::to_vec).enumerate().collect())
    }
}

fn start<'d>(guest: &mut Guest<'d>, output: &Output) -> Result<Stub<'d>, Error> {
    let builder = GdbStub::builder(output.clone()).packet_buffer_size(PACKET_MAX);
    let stub = builder.build().map_err(|error| Error::Client(error.to_string()))?;
    stub.run_state_machine(guest).map_err(|error| Error::Client(error.to_string()))
}

fn gone() -> Error {
    Error::Client("the session has ended".to_owned())
}

/// Tells whether a packet asks for more memory than goes into a reply.
fn is_too_much(body: &[u8]) -> bool {
    let Some((b'm', rest)) = body.split_first() else { return false };
    let length = rest.rsplit(|&byte| byte == b',').next().unwrap_or_default();
    let length = std::str::from_utf8(length).unwrap_or_default();
    // What is no number `gdbstub` refuses, and what does not fit a number is too much.
    !length.is_empty()
        && length.bytes().all(|byte| byte.is_ascii_hexdigit())
        && usize::from_str_radix(length, 16).ok().is_none_or(|length| length > READ_MAX)
}

/// Tells whether a packet that writes memory has more data than it says, or less. `gdbstub` writes
/// what there is.
fn has_other_length(body: &[u8]) -> bool {
    let Some((kind @ (b'M' | b'X'), rest)) = body.split_first() else { return false };
    let mut parts = rest.splitn(3, |&byte| byte == b',' || byte == b':');
    let [_, Some(length), Some(data)] = [parts.next(), parts.next(), parts.next()] else {
        return false;
    };
    let there = match kind {
        b'M' => data.len().div_ceil(2),
        // `}` and the byte that it escapes are one.
        _ => data.len() - data.split(|&byte| byte == b'}').skip(1).count(),
    };
    let length = std::str::from_utf8(length).ok();
    length.and_then(|length| usize::from_str_radix(length, 16).ok()) != Some(there)
}
