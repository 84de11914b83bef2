//! The link over a mailbox, against a hypervisor that ends or misbehaves there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stepwell_debuggee::{Debuggee, DomainEnding, Error, Event};
use stepwell_link::{Link, LinkError, Mailbox, Patience};
use stepwell_wire as wire;
use wire::mailbox::{self, Direction, Receiver, Sender};
use wire::{Answer, Command, FrameDecoder, FromHypervisor, MAX_FRAME, Request};

const PATIENCE: Patience =
    Patience { boot: Duration::from_secs(20), answer: Duration::from_secs(20) };

#[derive(Clone)]
struct Words(Arc<Vec<AtomicU64>>);

impl mailbox::Memory for Words {
    fn word(&self, offset: u64) -> &AtomicU64 {
        &self.0[offset as usize / 8]
    }
}

/// The hypervisor's side of a link that has got as far as its mailbox.
struct Peer {
    stream: UnixStream,
    words: Words,
    requests: Receiver<Words>,
    outgoing: Sender<Words>,
}

fn connect() -> (Link, Peer) {
    connect_with(PATIENCE)
}

fn connect_with(patience: Patience) -> (Link, Peer) {
    let (ours, mut stream) = UnixStream::pair().unwrap();
    let words = Words(Arc::new((0..mailbox::BYTES / 8).map(|_| AtomicU64::new(0)).collect()));
    let requests = Receiver::new(words.clone(), Direction::ToHypervisor);
    let outgoing = Sender::new(words.clone(), Direction::ToTool);
    let greeting = std::thread::spawn(move || {
        let (mut decoder, mut byte) = (FrameDecoder::new(), [0]);
        let request: Request = loop {
            stream.read_exact(&mut byte).unwrap();
            if let Some(request) = decoder.push(byte[0]) {
                break request.unwrap();
            }
        };
        let hello = Answer::Hello {
            version: wire::VERSION,
            cpus: 1,
            domains: 1,
            vcpus: [1].into_iter().collect(),
            frequency_hz: 62_500_000,
            ring_bytes: 0,
            mailbox: true,
        };
        let response = FromHypervisor::Response { id: request.id, result: Ok(hello) };
        stream.write_all(wire::encode(&response, &mut [0; MAX_FRAME]).unwrap()).unwrap();
        stream
    });
    let mut link = Link::open(ours, patience).unwrap();
    link.attach_mailbox(Mailbox::over(Arc::new(words.clone())));
    let stream = greeting.join().unwrap();
    (link, Peer { stream, words, requests, outgoing })
}

impl Peer {
    fn send(&mut self, message: &FromHypervisor) {
        assert!(self.outgoing.send(wire::encode(message, &mut [0; MAX_FRAME]).unwrap()));
    }

    fn ring_if_asked(&mut self) {
        if self.outgoing.must_ring() {
            self.stream.write_all(&[0]).unwrap();
        }
    }

    fn request(&mut self) -> Request {
        loop {
            match self.requests.take() {
                Ok(Some(request)) => return request.unwrap(),
                Ok(None) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn ended() -> FromHypervisor {
    let ending = stepwell_debuggee::DomainEnding::PoweredOff;
    FromHypervisor::Event(wire::Event::DomainEnded { domain: 0, ending, moment: None })
}

fn lost(error: Error) -> LinkError {
    match error {
        Error::Lost(error) => error.downcast_ref::<LinkError>().unwrap().clone(),
        Error::Refused(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn the_last_event_is_heard_though_the_machine_is_gone() {
    let (mut link, mut peer) = connect();
    peer.send(&ended());
    drop(peer);
    // So that the end of the stream is there before it is looked for anything.
    std::thread::sleep(Duration::from_millis(50));
    let ended = Event::Ended { domain: 0, ending: DomainEnding::PoweredOff };
    assert_eq!(link.wait(PATIENCE.answer).unwrap(), Some(ended));
    assert!(matches!(lost(link.wait(PATIENCE.answer).unwrap_err()), LinkError::MachineGone));
    assert!(matches!(lost(link.pause(0).unwrap_err()), LinkError::MachineGone));
}

#[test]
fn a_sleeper_is_woken() {
    let (mut link, mut peer) = connect();
    let sleeping = std::thread::spawn(move || link.wait(PATIENCE.answer).unwrap());
    while !peer.outgoing.must_ring() {
        std::thread::yield_now();
    }
    peer.send(&ended());
    peer.ring_if_asked();
    assert!(sleeping.join().unwrap().is_some());
}

#[test]
fn who_is_attentive_is_not_rung_for() {
    let (mut link, mut peer) = connect();
    assert!(!peer.outgoing.must_ring(), "it looks when it wants to know");
    peer.requests.set_attentive(true);
    let asking = std::thread::spawn(move || link.pause(0).map(|()| link));
    let Request { id, command } = peer.request();
    assert_eq!(command, Command::Pause { domain: 0 });
    peer.send(&FromHypervisor::Response { id, result: Ok(Answer::Done) });
    peer.ring_if_asked();
    let link = asking.join().unwrap().unwrap();
    drop(link);
    let mut rung = Vec::new();
    peer.stream.read_to_end(&mut rung).unwrap();
    assert_eq!(rung, b"", "the doorbell");
}

#[test]
fn what_no_hypervisor_writes_is_the_end() {
    let (mut link, mut peer) = connect();
    assert!(peer.outgoing.send(b"no frame\0"));
    assert!(matches!(
        lost(link.wait(PATIENCE.answer).unwrap_err()),
        LinkError::Garbage { frames: 1, .. }
    ));
    let (mut link, peer) = connect();
    mailbox::Memory::word(&peer.words, 256).store(u64::MAX, Ordering::Relaxed);
    let error = lost(link.wait(PATIENCE.answer).unwrap_err());
    let text = "the mailbox's header is damaged: 18446744073709551615 words sent, 0 taken";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_mailbox_that_nobody_empties_is_no_hang() {
    let (mut link, peer) = connect_with(Patience { answer: Duration::from_secs(1), ..PATIENCE });
    // A tail that is ahead of everything: there is no room, and never will be.
    mailbox::Memory::word(&peer.words, 64).store(u64::MAX, Ordering::Relaxed);
    let error = lost(link.pause(0).unwrap_err());
    assert_eq!(error.to_string(), "the hypervisor did not answer pause within 1 s");
}
