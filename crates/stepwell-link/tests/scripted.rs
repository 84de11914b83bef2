//! The link against a scripted hypervisor: one that answers by the script and misbehaves by it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::{
    Console, Debuggee, Event, Place, Refusal, Registers, Stop, StopReason, VcpuId,
};
use stepwell_link::{Link, LinkError, Patience};
use stepwell_wire as wire;
use wire::{Answer, Command, FrameDecoder, FromHypervisor, MAX_FRAME, Request};

const PATIENCE: Patience =
    Patience { boot: Duration::from_secs(20), answer: Duration::from_secs(1) };

struct Peer(UnixStream);

impl Peer {
    fn request(&mut self) -> Request {
        let (mut decoder, mut byte) = (FrameDecoder::new(), [0]);
        loop {
            self.0.read_exact(&mut byte).unwrap();
            if let Some(request) = decoder.push(byte[0]) {
                return request.unwrap();
            }
        }
    }

    fn send(&mut self, message: &FromHypervisor) {
        self.0.write_all(wire::encode(message, &mut [0; MAX_FRAME]).unwrap()).unwrap();
    }

    fn answer(&mut self, id: u32, result: Result<Answer, Refusal>) {
        self.send(&FromHypervisor::Response { id, result });
    }

    /// vCPU 1 has stopped.
    fn stopped(&mut self, pc: u64) {
        let registers = Registers { pc, ..Registers::default() };
        let reason = StopReason::Paused;
        let event = wire::Event::Stopped { domain: 0, vcpu: 1, reason, steps: 9, registers };
        self.send(&FromHypervisor::Event(event));
    }

    fn greet(&mut self, version: u16) {
        let Request { id, command } = self.request();
        assert_eq!(command, Command::Hello { version: wire::VERSION });
        let vcpus = [2].into_iter().collect();
        let (cpus, domains, frequency_hz, ring_bytes) = (2, 1, 62_500_000, 0);
        self.answer(
            id,
            Ok(Answer::Hello {
                version,
                cpus,
                domains,
                vcpus,
                frequency_hz,
                ring_bytes,
                mailbox: false,
            }),
        );
    }
}

fn connect(
    script: impl FnOnce(&mut Peer) + Send + 'static,
) -> (Result<Link, LinkError>, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = std::thread::spawn(move || script(&mut Peer(theirs)));
    (Link::open(ours, PATIENCE), peer)
}

fn lost(error: stepwell_debuggee::Error) -> LinkError {
    assert!(error.is_fatal(), "{error}");
    match error {
        stepwell_debuggee::Error::Lost(error) => error.downcast_ref::<LinkError>().unwrap().clone(),
        stepwell_debuggee::Error::Refused(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn events_between_a_request_and_its_answer_are_kept_in_order() {
    let (link, peer) = connect(|peer| {
        peer.greet(wire::VERSION);
        let Request { id, command } = peer.request();
        assert_eq!(command, Command::Pause { domain: 0 });
        let bytes = wire::Bytes::from_slice(b"hi").unwrap();
        peer.send(&FromHypervisor::Event(wire::Event::Console { domain: 0, bytes }));
        peer.answer(id, Ok(Answer::Done));
        peer.stopped(0x1000);
    });
    let mut link = link.unwrap();
    assert_eq!(link.vcpu_counts(), [2]);
    link.pause(0).unwrap();
    let event = link.wait(PATIENCE.answer).unwrap();
    assert_eq!(event, Some(Event::Console { domain: 0, bytes: b"hi".to_vec() }));
    let vcpu = VcpuId { domain: 0, vcpu: 1 };
    let stop = Stop { vcpu, reason: StopReason::Paused, pc: Va(0x1000), steps: 9 };
    assert_eq!(link.wait(PATIENCE.answer).unwrap(), Some(Event::Stopped(stop)));
    peer.join().unwrap();
    assert!(matches!(lost(link.pause(0).unwrap_err()), LinkError::MachineGone));
    assert!(matches!(lost(link.wait(PATIENCE.answer).unwrap_err()), LinkError::MachineGone));
}

#[test]
fn registers_that_came_with_a_stop_are_not_asked_for() {
    let (link, peer) = connect(|peer| {
        peer.greet(wire::VERSION);
        peer.stopped(0x1000);
        let Request { id, command } = peer.request();
        assert_eq!(command, Command::Translate { domain: 0, vcpu: 1, va: 8 });
        peer.answer(id, Ok(Answer::Value(16)));
        // A stop that was on its way when the guest was set going again.
        let Request { id, command } = peer.request();
        assert_eq!(command, Command::Continue { domain: 0, vcpu: None });
        peer.stopped(0x2000);
        peer.answer(id, Ok(Answer::Done));
        let Request { id, command } = peer.request();
        assert_eq!(command, Command::ReadRegisters { domain: 0, vcpu: 1 });
        peer.answer(id, Err(Refusal::NotStopped));
        peer.stopped(0x3000);
        // Another vCPU's are another's.
        let Request { id, command } = peer.request();
        assert_eq!(command, Command::ReadRegisters { domain: 0, vcpu: 0 });
        peer.answer(id, Ok(Answer::Registers(Registers::default())));
    });
    let mut link = link.unwrap();
    let (first, vcpu) = (VcpuId { domain: 0, vcpu: 0 }, VcpuId { domain: 0, vcpu: 1 });
    link.wait(PATIENCE.answer).unwrap();
    assert_eq!(link.read_registers(vcpu).unwrap().pc, 0x1000);
    assert_eq!(link.translate(vcpu, Va(8)).unwrap(), Ipa(16));
    assert_eq!(link.read_registers(vcpu).unwrap().pc, 0x1000);
    link.resume(0).unwrap();
    let running = link.read_registers(vcpu).unwrap_err();
    assert_eq!(running.refusal(), Some(Refusal::NotStopped));
    link.wait(PATIENCE.answer).unwrap();
    link.wait(PATIENCE.answer).unwrap();
    assert_eq!(link.read_registers(vcpu).unwrap().pc, 0x3000);
    assert_eq!(link.read_registers(first).unwrap().pc, 0);
    peer.join().unwrap();
    assert!(link.wait(PATIENCE.answer).is_err());
    lost(link.read_registers(vcpu).unwrap_err());
}

#[test]
fn a_refusal_is_not_the_end() {
    let (link, peer) = connect(|peer| {
        peer.greet(wire::VERSION);
        let id = peer.request().id;
        peer.answer(id, Err(Refusal::NotStopped));
        let id = peer.request().id;
        peer.answer(id, Ok(Answer::Done));
    });
    let mut link = link.unwrap();
    assert_eq!(link.resume(0).unwrap_err().refusal(), Some(Refusal::NotStopped));
    link.resume(0).unwrap();
    peer.join().unwrap();
}

#[test]
fn another_version_is_told_apart() {
    let (link, _) = connect(|peer| peer.greet(wire::VERSION + 1));
    assert!(matches!(link, Err(LinkError::Version { .. })));
    let (link, _) = connect(|peer| {
        let id = peer.request().id;
        peer.answer(id, Err(Refusal::Version(99)));
    });
    assert!(matches!(link, Err(LinkError::Version { theirs: 99, .. })));
}

#[test]
fn garbage_is_given_up_with_a_name() {
    let (link, _) = connect(|peer| {
        let noise: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(n) % 253) as u8).collect();
        // The other side may hang up before it has heard everything.
        drop(peer.0.write_all(&noise));
    });
    assert!(matches!(link, Err(LinkError::Garbage { .. })), "{:?}", link.err());
}

#[test]
fn silence_is_given_up_with_a_name() {
    let (link, peer) = connect(|peer| {
        peer.greet(wire::VERSION);
        peer.request();
        std::thread::sleep(PATIENCE.answer * 2);
    });
    let error = link.unwrap().resume(0).unwrap_err();
    assert_eq!(error.to_string(), "the hypervisor did not answer continue within 1 s");
    peer.join().unwrap();
}

#[test]
fn a_wrong_answer_is_the_end() {
    let (link, peer) = connect(|peer| {
        peer.greet(wire::VERSION);
        let id = peer.request().id;
        peer.answer(id, Ok(Answer::Value(1)));
    });
    let error = lost(link.unwrap().resume(0).unwrap_err());
    assert!(matches!(error, LinkError::WrongAnswer { command: "continue" }), "{error}");
    peer.join().unwrap();
}

#[test]
fn typing_stops_where_the_guest_has_no_room() {
    let (link, peer) = connect(|peer| {
        peer.greet(wire::VERSION);
        let Request { id, command } = peer.request();
        assert!(matches!(command, Command::ConsoleInput { domain: 0, .. }));
        peer.answer(id, Ok(Answer::Done));
        let id = peer.request().id;
        peer.answer(id, Err(Refusal::Busy));
    });
    assert_eq!(link.unwrap().type_bytes(0, &[b'x'; 40]).unwrap(), 16);
    peer.join().unwrap();
}

#[test]
fn long_memory_is_read_in_pieces() {
    let (link, peer) = connect(|peer| {
        peer.greet(wire::VERSION);
        for (place, length) in [(0x1000, 1024), (0x1400, 476)] {
            let Request { id, command } = peer.request();
            let place = Place::Ipa(stepwell_arch::Ipa(place));
            assert_eq!(command, Command::ReadMemory { domain: 0, vcpu: 0, place, length });
            let bytes = (0..length).map(|n| n as u8).collect();
            peer.answer(id, Ok(Answer::Memory(bytes)));
        }
    });
    let mut bytes = [0; 1500];
    let place = Place::Ipa(stepwell_arch::Ipa(0x1000));
    link.unwrap().read_memory(VcpuId::default(), place, &mut bytes).unwrap();
    assert_eq!((bytes[1023], bytes[1024], bytes[1499]), (255, 0, 219));
    peer.join().unwrap();
}
