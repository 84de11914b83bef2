//! The machine's end of the link: takes the tool's requests, sends answers and events.
//!
//! A thread of its own serves them, for which no vCPU has to be called.

use super::cpu::KvmCpu;
use crate::ChannelWords;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use stepwell_protocol::StopReason;
use stepwell_vm::command;
use stepwell_vm::domain::PendingStop;
use stepwell_vm::link::{Link, Queues, break_all, serve_by_channel};
use stepwell_vm::machine::Machine;
use stepwell_wire::devices::{Client, Server};
use stepwell_wire::{Command, Event, FrameDecoder, FromHypervisor, MAX_FRAME, Request, encode};

const CHUNK: usize = 4096;

/// Where answers and events go.
pub struct Sender(Mutex<UnixStream>);

impl Sender {
    /// The sender into a stream.
    #[must_use]
    pub const fn new(stream: UnixStream) -> Self {
        Self(Mutex::new(stream))
    }

    fn transmit(&self, message: &FromHypervisor) {
        let mut frame = [0; MAX_FRAME];
        // Every message of the wire fits into a frame.
        if let Ok(frame) = encode(message, &mut frame) {
            let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // A tool that has gone hears nothing any more.
            drop(stream.write_all(frame));
        }
    }
}

/// The machine's link.
pub struct ToTool {
    sender: Arc<Sender>,
    devices: Arc<DeviceChannel>,
}

impl ToTool {
    /// The link by which `sender` sends, with the devices behind `devices`.
    #[must_use]
    pub const fn new(sender: Arc<Sender>, devices: Arc<DeviceChannel>) -> Self {
        Self { sender, devices }
    }
}

/// The machine's end of the device channel.
pub struct DeviceChannel {
    words: ChannelWords,
    client: Mutex<Client<ChannelWords>>,
    /// Who serves the devices, where there are any.
    thread: OnceLock<Thread>,
}

impl Default for DeviceChannel {
    /// The end of a channel that is all zero.
    fn default() -> Self {
        let words = ChannelWords::new();
        let client = Mutex::new(Client::new(words.clone()));
        Self { words, client, thread: OnceLock::new() }
    }
}

impl DeviceChannel {
    /// The other end. There is one.
    #[must_use]
    pub fn server(&self) -> Server<ChannelWords> {
        Server::new(self.words.clone())
    }

    /// This thread serves the devices. There is one.
    pub fn wake(&self, thread: &Thread) {
        // A second one is nobody's.
        let _is_set = self.thread.set(thread.clone());
    }
}

impl Link<KvmCpu> for ToTool {
    fn send(&self, event: &Event) {
        self.sender.transmit(&FromHypervisor::Event(event.clone()));
    }

    fn serve(&self, _: &KvmCpu, _: &Machine<KvmCpu>) {}

    fn pass_by(&self, _: &KvmCpu, _: &Machine<KvmCpu>) {}

    fn linger(&self, _: &KvmCpu, _: &Machine<KvmCpu>, _: &dyn Fn() -> bool) -> bool {
        false
    }

    fn serve_queues(&self, queues: &mut dyn Queues, leaving: bool) -> bool {
        let Some(thread) = self.devices.thread.get() else { return break_all(queues) };
        let mut client = self.devices.client.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left = serve_by_channel(&mut client, queues, leaving, || thread.unpark());
        drop(client);
        if is_left && !leaving {
            // Whoever serves may want this CPU for it.
            std::thread::yield_now();
        }
        is_left
    }

    fn has_mailbox(&self) -> bool {
        false
    }
}

/// Serves requests until the tool has gone.
pub fn serve(cpu: &KvmCpu, machine: &Machine<KvmCpu>, sender: &Sender, mut stream: UnixStream) {
    let mut decoder = FrameDecoder::new();
    let mut bytes = [0; CHUNK];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        for &byte in bytes.iter().take(count) {
            // A damaged frame has no id to answer to; the tool's time-out reports it.
            if let Some(Ok(request)) = decoder.push::<Request>(byte) {
                answer(cpu, machine, sender, request);
            }
        }
    }
}

fn answer(cpu: &KvmCpu, machine: &Machine<KvmCpu>, sender: &Sender, request: Request) {
    let is_hello = matches!(request.command, Command::Hello { .. });
    let result = command::serve(cpu, machine, request.command);
    let is_welcome = is_hello && result.is_ok();
    sender.transmit(&FromHypervisor::Response { id: request.id, result });
    if is_welcome {
        for domain in &machine.domains {
            machine.emit_stop(domain, PendingStop { vcpu: 0, reason: StopReason::Reset }, 0);
        }
    }
}
