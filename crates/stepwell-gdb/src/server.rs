//! Sockets around sessions: one client at a time, and what happens when it leaves.
//!
//! A thread accepts and one for each connection reads, so that the thread that has the debuggee can
//! wait for a packet and for the guest in turns. What they hand over is bounded: a client that
//! sends faster than we work is made to wait by its own socket, and one that does not read is hung
//! up on. Who is no debugger does not get as far as here (`acceptor`).

mod acceptor;
mod address;
mod socket;

pub use address::Address;

use crate::Error;
use crate::breakpoints::learn;
use crate::description::RegisterSet;
use crate::policies::Policies;
use crate::services::Services;
use crate::session::{Leaving, Session};
use acceptor::{Acceptor, FromNetwork, Stream};
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use stepwell_debuggee::{Debuggee, DomainEnding, Event, StopReason, VcpuId, VcpuState};

/// Between two looks at the socket while the guest runs: Ctrl-C is felt at once.
const RUNNING_POLL: Duration = Duration::from_millis(1);
/// Between two looks at the guest while it is stopped: it only has its console to tell of.
const STANDING_POLL: Duration = Duration::from_millis(20);
/// How long a guest may take to stop for a client that attaches.
const STOPPING: Duration = Duration::from_secs(30);

/// What becomes of the guest when a client is gone without having detached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is stopped until the next client comes.
    #[default]
    Pause,
    /// It runs on, as after `detach`.
    Continue,
}

impl FromStr for OnDisconnect {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "pause" => Ok(Self::Pause),
            "continue" => Ok(Self::Continue),
            _ => Err(format!("{word:?} is none of pause, continue")),
        }
    }
}

impl OnDisconnect {
    /// Whether the guest is to run, what to say, and that the server goes on.
    fn parting(self, text: &str) -> (bool, String, Option<Left>) {
        match self {
            Self::Pause => (false, format!("{text}; the guest is stopped"), None),
            Self::Continue => (true, format!("{text}; the guest runs on"), None),
        }
    }
}

/// Why the server came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The guest ended.
    Ended(DomainEnding),
    /// A client killed it.
    Killed,
    /// The caller wanted to leave.
    Called,
}

/// A server that listens.
pub struct Server {
    acceptor: Acceptor,
    network: Receiver<FromNetwork>,
    on_disconnect: OnDisconnect,
    policies: Policies,
    domain: u8,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    ///
    /// Where nobody can listen there, and [`io::ErrorKind::AddrInUse`] where somebody does.
    pub fn bind(address: &Address, on_disconnect: OnDisconnect) -> io::Result<Self> {
        let (acceptor, network) = Acceptor::start(address)?;
        Ok(Self { acceptor, network, on_disconnect, policies: Policies::default(), domain: 0 })
    }

    /// Says which policies the domain has.
    pub fn set_policies(&mut self, policies: Policies) {
        self.policies = policies;
    }

    /// Returns where it listens. Written out, it is what GDB's `target remote` takes.
    #[must_use]
    pub const fn address(&self) -> &Address {
        self.acceptor.address()
    }

    /// Tells whether it can be reached from other computers.
    #[must_use]
    pub const fn is_exposed(&self) -> bool {
        self.acceptor.is_exposed()
    }

    /// Serves one client after the other, until the guest ends or `called` says so.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; a broken client ends its session only.
    pub fn serve(
        &mut self,
        debuggee: &mut dyn Debuggee,
        services: &mut dyn Services,
        called: &mut dyn FnMut() -> bool,
    ) -> Result<Left, Error> {
        let mut registers = None;
        loop {
            let mut stream = match self.idle(debuggee, services, called)? {
                Idle::Client(stream) => stream,
                Idle::Left(left) => return Ok(left),
            };
            let vcpu = match self.stop(debuggee, services)? {
                Stopping::Stopped(vcpu) => vcpu,
                Stopping::Ended(ending) => return Ok(Left::Ended(ending)),
            };
            if registers.is_none() {
                registers = Some(RegisterSet::probe(debuggee, vcpu)?);
            }
            let Some(registers) = &registers else { continue };
            services.note(&format!("{} is attached", stream.peer()));
            let mut session =
                Session::new(debuggee, services, registers, &mut self.policies, vcpu)?;
            let outcome = converse(&mut session, &mut stream, &self.network, called);
            stream.close();
            self.acceptor.release();
            let (run, text, left) = match outcome {
                Ok(Parting::Leaving(Leaving::Detached)) => (true, "has detached".to_owned(), None),
                Ok(Parting::Leaving(Leaving::Killed)) => {
                    (false, "has killed the guest".to_owned(), Some(Left::Killed))
                }
                Ok(Parting::Leaving(Leaving::Ended(ending))) => (
                    false,
                    "was told that the guest has ended".to_owned(),
                    Some(Left::Ended(ending)),
                ),
                Ok(Parting::Called) => (false, "is hung up on".to_owned(), Some(Left::Called)),
                Ok(Parting::Gone) => self.on_disconnect.parting("is gone"),
                Err(Error::Client(error)) => {
                    self.on_disconnect.parting(&format!("is hung up on: {error}"))
                }
                Err(error) => return Err(error),
            };
            if left.is_none() {
                session.leave(run)?;
            } else {
                drop(session);
            }
            services.note(&format!("{} {text}", stream.peer()));
            if let Some(left) = left {
                return Ok(left);
            }
        }
    }

    /// Waits for a client, the guest doing what it does.
    fn idle(
        &mut self,
        debuggee: &mut dyn Debuggee,
        services: &mut dyn Services,
        called: &mut dyn FnMut() -> bool,
    ) -> Result<Idle, Error> {
        loop {
            if called() {
                return Ok(Idle::Left(Left::Called));
            }
            services.poll(debuggee)?;
            match debuggee.wait(STANDING_POLL)? {
                Some(Event::Console { bytes, .. }) => services.console(&bytes),
                Some(Event::Ended { domain, ending }) if domain == self.domain => {
                    return Ok(Idle::Left(Left::Ended(ending)));
                }
                // No client's, as there is none.
                Some(Event::Stopped(stop))
                    if stop.reason == StopReason::Breakpoint && services.landmark().is_some() =>
                {
                    learn(debuggee, services, stop.vcpu, |_| false)?;
                    debuggee.resume(stop.vcpu.domain)?;
                }
                _ => {}
            }
            match self.network.try_recv() {
                Ok(FromNetwork::Client(stream)) => return Ok(Idle::Client(stream)),
                // Of a client that is gone.
                Ok(FromNetwork::Bytes(..) | FromNetwork::Closed(_)) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    return Err(Error::Client("nobody listens any more".to_owned()));
                }
            }
        }
    }

    /// Stops the guest, if it is not stopped.
    fn stop(
        &mut self,
        debuggee: &mut dyn Debuggee,
        services: &mut dyn Services,
    ) -> Result<Stopping, Error> {
        let patience = Instant::now() + STOPPING;
        let mut asked = false;
        loop {
            let status = debuggee.status(self.domain)?;
            let runs = status.iter().any(|status| status.state == VcpuState::Running);
            let first = status.iter().position(|status| status.state == VcpuState::Stopped);
            let vcpu = first.and_then(|first| u8::try_from(first).ok());
            if let (false, Some(vcpu)) = (runs, vcpu) {
                return Ok(Stopping::Stopped(VcpuId { domain: self.domain, vcpu }));
            }
            if !std::mem::replace(&mut asked, true) {
                match debuggee.pause(self.domain) {
                    Ok(()) | Err(stepwell_debuggee::Error::Refused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match debuggee.wait(STANDING_POLL)? {
                Some(Event::Console { bytes, .. }) => services.console(&bytes),
                Some(Event::Ended { domain, ending }) if domain == self.domain => {
                    return Ok(Stopping::Ended(ending));
                }
                _ if Instant::now() > patience => {
                    return Err(Error::Client("the guest does not stop".to_owned()));
                }
                _ => {}
            }
        }
    }
}

enum Idle {
    Client(Stream),
    Left(Left),
}

enum Stopping {
    Stopped(VcpuId),
    Ended(DomainEnding),
}

enum Parting {
    Leaving(Leaving),
    Gone,
    Called,
}

/// Carries packets and events to and fro.
fn converse(
    session: &mut Session<'_>,
    stream: &mut Stream,
    network: &Receiver<FromNetwork>,
    called: &mut dyn FnMut() -> bool,
) -> Result<Parting, Error> {
    loop {
        if called() {
            return Ok(Parting::Called);
        }
        let mut leaving = None;
        let runs = session.is_running();
        let timeout = if runs { RUNNING_POLL } else { Duration::ZERO };
        if let Some(event) = session.wait(timeout)? {
            leaving = session.happened(event)?;
        }
        let timeout = if session.is_running() || leaving.is_some() {
            Duration::ZERO
        } else {
            send(session, stream)?;
            STANDING_POLL
        };
        match network.recv_timeout(timeout) {
            Ok(FromNetwork::Bytes(id, bytes)) if id == stream.id() && leaving.is_none() => {
                leaving = session.receive(&bytes)?;
            }
            Ok(FromNetwork::Closed(id)) if id == stream.id() && leaving.is_none() => {
                return Ok(Parting::Gone);
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(Parting::Gone),
        }
        send(session, stream)?;
        if let Some(leaving) = leaving {
            return Ok(Parting::Leaving(leaving));
        }
    }
}

fn send(session: &mut Session<'_>, stream: &mut Stream) -> Result<(), Error> {
    let output = session.take_output();
    if output.is_empty() {
        return Ok(());
    }
    stream.write_all(&output).map_err(|error| Error::Client(error.to_string()))
}
