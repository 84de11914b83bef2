//! The contract, kept across the wire: a link to a server that has the fake behind it.
//!
//! What the fake does by itself is tested where it is; here every command, answer, event and
//! record makes the way through frames and a mapped ring.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use stepwell_arch::Va;
use stepwell_debuggee as debuggee;
use stepwell_debuggee::{Debuggee, Refusal, VcpuId, contract, fake::Fake};
use stepwell_link::{Link, Mailbox, Patience, Ring};
use stepwell_wire as wire;
use wire::mailbox::{self, Direction, Receiver, Sender};
use wire::ring::{self, Encoder};
use wire::{Answer, Command, FrameDecoder, FromHypervisor, MAX_FRAME, Request};

const RING_WORDS: u64 = 1024;
const RING_BYTES: u64 = ring::HEADER_BYTES + 8 * RING_WORDS;
const POLL: Duration = Duration::from_millis(1);

#[test]
fn the_link_keeps_the_contract() {
    keeps_the_contract(|| Fake::new(&contract::guest_bytes()));
    let length = debuggee::VectorLength { longest: 256, current: 64 };
    keeps_the_contract(|| Fake::with_sve(&contract::guest_bytes(), length));
}

fn keeps_the_contract(fake: impl Fn() -> Fake) {
    for has_mailbox in [false, true] {
        contract::check(|| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let ram = tempfile::tempfile().unwrap();
            ram.set_len(RING_BYTES).unwrap();
            let words = has_mailbox.then(Words::default);
            let mut server = Server::new(theirs, ram.try_clone().unwrap(), fake(), words.as_ref());
            std::thread::spawn(move || server.serve());
            let mut link = Link::open(ours, Patience::default()).unwrap();
            assert_eq!(link.hello().mailbox, has_mailbox);
            if let Some(words) = words {
                link.attach_mailbox(Mailbox::over(Arc::new(words)));
            }
            let bytes = link.hello().ring_bytes;
            link.attach_ring(Ring::map(&ram, 0, bytes).unwrap());
            Box::new(link)
        });
    }
}

/// Memory for a mailbox.
#[derive(Clone)]
struct Words(Arc<Vec<AtomicU64>>);

impl Default for Words {
    fn default() -> Self {
        Self(Arc::new((0..mailbox::BYTES / 8).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl mailbox::Memory for Words {
    fn word(&self, offset: u64) -> &AtomicU64 {
        &self.0[offset as usize / 8]
    }
}

/// The hypervisor's side, with a fake in place of a guest.
struct Server {
    stream: UnixStream,
    mailbox: Option<(Receiver<Words>, Sender<Words>)>,
    greeted: bool,
    ring: File,
    fake: Fake,
    encoder: Encoder,
    head: u64,
}

impl Server {
    fn new(stream: UnixStream, ring: File, fake: Fake, words: Option<&Words>) -> Self {
        stream.set_read_timeout(Some(POLL)).unwrap();
        let mailbox = words.map(|words| {
            let incoming = Receiver::new(words.clone(), Direction::ToHypervisor);
            (incoming, Sender::new(words.clone(), Direction::ToTool))
        });
        let (encoder, head, greeted) = (Encoder::default(), 0, false);
        let server = Self { stream, mailbox, greeted, ring, fake, encoder, head };
        server.word(ring::OFFSET_MAGIC, ring::MAGIC);
        server.word(ring::OFFSET_VERSION, u64::from(wire::VERSION));
        server.word(ring::OFFSET_CAPACITY, RING_WORDS);
        server
    }

    fn word(&self, offset: u64, word: u64) {
        self.ring.write_all_at(&word.to_le_bytes(), offset).unwrap();
    }

    /// Serves until the link closes.
    fn serve(&mut self) {
        let (mut decoder, mut buffer) = (FrameDecoder::new(), [0; 4096]);
        loop {
            let length = match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_) => return,
            };
            let mut requests: Vec<Request> = Vec::new();
            for &byte in &buffer[..length] {
                requests.extend(decoder.push(byte).map(Result::unwrap));
            }
            if let Some((incoming, _)) = &mut self.mailbox {
                requests
                    .extend(std::iter::from_fn(|| incoming.take().unwrap()).map(Result::unwrap));
            }
            for Request { id, command } in requests {
                let result = self.perform(command);
                self.send(&FromHypervisor::Response { id, result });
                self.greeted = true;
            }
            while let Some(event) = self.fake.wait(Duration::ZERO).unwrap() {
                self.publish();
                let event = self.wire_event(event);
                self.send(&FromHypervisor::Event(event));
            }
        }
    }

    fn send(&mut self, message: &FromHypervisor) {
        let frame = wire::encode(message, &mut [0; MAX_FRAME]).unwrap().to_vec();
        // The tool may hang up at any time.
        let mut write = |bytes: &[u8]| drop(self.stream.write_all(bytes));
        match &mut self.mailbox {
            Some((_, outgoing)) if self.greeted => {
                assert!(outgoing.send(&frame));
                if outgoing.must_ring() {
                    write(&[0]);
                }
            }
            _ => write(&frame),
        }
    }

    /// Puts what the fake recorded into the ring.
    fn publish(&mut self) {
        let mut records = Vec::new();
        self.fake.support_trace().unwrap().drain(&mut records).unwrap();
        for record in records {
            for word in self.encoder.encode(record) {
                self.word(ring::HEADER_BYTES + self.head % RING_WORDS * 8, word);
                self.head += 1;
            }
        }
        self.word(ring::OFFSET_HEAD, self.head);
    }

    fn perform(&mut self, command: Command) -> Result<Answer, Refusal> {
        let fake = &mut self.fake;
        let done =
            |result: Result<(), debuggee::Error>| result.map(|()| Answer::Done).map_err(refusal_of);
        match command {
            Command::Hello { .. } => Ok(Answer::Hello {
                version: wire::VERSION,
                cpus: 1,
                domains: 1,
                vcpus: [1].into_iter().collect(),
                frequency_hz: 62_500_000,
                ring_bytes: RING_BYTES,
                mailbox: self.mailbox.is_some(),
            }),
            Command::Status { domain } => {
                let status = fake.status(domain).map_err(refusal_of)?;
                Ok(Answer::Vcpus(status.iter().map(|s| (s.state, s.pc.0)).collect()))
            }
            Command::Pause { domain } => done(fake.pause(domain)),
            Command::Continue { domain, vcpu: None } => done(fake.resume(domain)),
            Command::Continue { domain, vcpu: Some(vcpu) } => {
                done(fake.resume_only(VcpuId { domain, vcpu }))
            }
            Command::Step { domain, vcpu, count, until, record, all, within } => {
                let within = within
                    .map(|(start, end)| debuggee::CodeRange { start: Va(start), end: Va(end) });
                let until = until.map(Va);
                let request = debuggee::StepRequest { count, until, record, all, within };
                done(fake.step(VcpuId { domain, vcpu }, request))
            }
            other => self.perform_on_stopped(other),
        }
    }

    fn perform_on_stopped(&mut self, command: Command) -> Result<Answer, Refusal> {
        let fake = &mut self.fake;
        let done =
            |result: Result<(), debuggee::Error>| result.map(|()| Answer::Done).map_err(refusal_of);
        match command {
            Command::SetMonitor { domain, vcpu, monitor, on } => {
                let monitors = fake.support_monitors().unwrap();
                done(monitors.set_monitor(domain, vcpu, monitor, on))
            }
            Command::SetWatchpoint { domain, vcpu, watchpoint } => {
                let watchpoints = fake.support_watchpoints().unwrap();
                let vcpu = VcpuId { domain, vcpu };
                done(watchpoints.set_watchpoint(vcpu, watchpoint))
            }
            Command::ClearWatchpoint { domain, watchpoint } => {
                let watchpoints = fake.support_watchpoints().unwrap();
                done(watchpoints.clear_watchpoint(domain, watchpoint))
            }
            // The fake has none.
            Command::ReadSystemRegister { .. } => Err(Refusal::NoSuchRegister),
            Command::SetInterruptPolicy { .. } => Ok(Answer::Done),
            Command::SetBreakpoint { domain, place } => done(fake.set_breakpoint(domain, place)),
            Command::ClearBreakpoint { domain, place } => {
                done(fake.clear_breakpoint(domain, place))
            }
            Command::ReadRegisters { domain, vcpu } => {
                let read = fake.read_registers(VcpuId { domain, vcpu }).map_err(refusal_of)?;
                Ok(Answer::Registers(read))
            }
            Command::WriteRegisters { domain, vcpu, registers } => {
                done(fake.write_registers(VcpuId { domain, vcpu }, &registers))
            }
            Command::ReadMemory { domain, vcpu, place, length } => {
                let mut bytes = vec![0; usize::from(length)];
                let vcpu = VcpuId { domain, vcpu };
                fake.read_memory(vcpu, place, &mut bytes).map_err(refusal_of)?;
                Ok(Answer::Memory(wire::Bytes::from_slice(&bytes).unwrap()))
            }
            Command::WriteMemory { domain, vcpu, place, bytes } => {
                done(fake.write_memory(VcpuId { domain, vcpu }, place, &bytes))
            }
            Command::Translate { domain, vcpu, va } => {
                let ipa = fake.translate(VcpuId { domain, vcpu }, Va(va)).map_err(refusal_of)?;
                Ok(Answer::Value(ipa.0))
            }
            other => self.perform_on_vectors(other),
        }
    }
}

impl Server {
    fn perform_on_vectors(&mut self, command: Command) -> Result<Answer, Refusal> {
        let fake = &mut self.fake;
        let done =
            |result: Result<(), debuggee::Error>| result.map(|()| Answer::Done).map_err(refusal_of);
        match command {
            Command::ReadSimd { domain, vcpu } => {
                let simd = fake.support_simd().unwrap();
                let read = simd.read_simd(VcpuId { domain, vcpu }).map_err(refusal_of)?;
                Ok(Answer::Simd(read))
            }
            Command::WriteSimd { domain, vcpu, registers } => {
                let simd = fake.support_simd().unwrap();
                done(simd.write_simd(VcpuId { domain, vcpu }, &registers))
            }
            Command::VectorLength { domain, vcpu } => {
                let sve = fake.support_sve().unwrap();
                let length = sve.vector_length(VcpuId { domain, vcpu }).map_err(refusal_of)?;
                Ok(Answer::VectorLength(length))
            }
            Command::ReadSve { domain, vcpu, register } => {
                let sve = fake.support_sve().unwrap();
                let read = sve.read_sve(VcpuId { domain, vcpu }, register);
                Ok(Answer::Memory(wire::Bytes::from_slice(&read.map_err(refusal_of)?).unwrap()))
            }
            Command::WriteSve { domain, vcpu, register, bytes } => {
                let sve = fake.support_sve().unwrap();
                done(sve.write_sve(VcpuId { domain, vcpu }, register, &bytes))
            }
            other => panic!("the contract does not need {other:?}"),
        }
    }
}

fn refusal_of(error: debuggee::Error) -> Refusal {
    error.refusal().unwrap()
}

impl Server {
    fn wire_event(&mut self, event: debuggee::Event) -> wire::Event {
        match event {
            debuggee::Event::Console { domain, bytes } => {
                wire::Event::Console { domain, bytes: wire::Bytes::from_slice(&bytes).unwrap() }
            }
            debuggee::Event::Ended { domain, .. } => {
                let ending = debuggee::DomainEnding::PoweredOff;
                wire::Event::DomainEnded { domain, ending, moment: None }
            }
            debuggee::Event::Stopped(stop) => {
                let VcpuId { domain, vcpu } = stop.vcpu;
                let registers = self.fake.read_registers(stop.vcpu).unwrap();
                let debuggee::Stop { reason, steps, .. } = stop;
                wire::Event::Stopped { domain, vcpu, reason, steps, registers }
            }
        }
    }
}
