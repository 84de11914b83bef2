//! The hypervisor's end of the link: takes the tool's requests, sends answers and events.
//!
//! Requests are served by whatever CPU finds them, which is the boot CPU: the link's interrupt is
//! routed there. A request about a vCPU is served only while that vCPU is stopped, so no request
//! ever waits for a guest.
//!
//! The conversation begins on the link's stream and goes on in the [`mailbox`], where the tool has
//! one. Then whatever CPU lingers serves as well.

pub mod devices;
pub mod mailbox;
mod unattended;

use crate::hw::link;
use crate::loop_cpu::LoopCpu;
use spin::Mutex;
use stepwell_protocol::StopReason;
use stepwell_vm::command;
use stepwell_vm::domain::PendingStop;
use stepwell_vm::link::{Link, Queues};
use stepwell_wire::{Command, Event, FrameDecoder, FromHypervisor, MAX_FRAME, Request, encode};

/// This machine.
type Machine = stepwell_vm::machine::Machine<LoopCpu>;

/// The hypervisor's end.
pub struct Server;

impl Link<LoopCpu> for Server {
    fn send(&self, event: &Event) {
        if !link::is_up() {
            unattended::show(event);
            return;
        }
        transmit(&FromHypervisor::Event(event.clone()));
    }

    fn serve(&self, cpu: &LoopCpu, machine: &Machine) {
        poll_stream(cpu, machine);
        poll_mailbox(cpu, machine);
    }

    /// A mailbox makes that cheap: the stream has nothing but its doorbell then.
    fn pass_by(&self, cpu: &LoopCpu, machine: &Machine) {
        match mailbox::is_in_use() {
            true => drop(poll_mailbox(cpu, machine)),
            false => poll_stream(cpu, machine),
        }
    }

    fn linger(&self, cpu: &LoopCpu, machine: &Machine, is_over: &dyn Fn() -> bool) -> bool {
        mailbox::linger(|| poll_mailbox(cpu, machine), is_over)
    }

    fn serve_queues(&self, queues: &mut dyn Queues, leaving: bool) -> bool {
        devices::serve(queues, leaving)
    }

    fn has_mailbox(&self) -> bool {
        mailbox::exists()
    }
}

static DECODER: Mutex<FrameDecoder> = Mutex::new(FrameDecoder::new());

/// Returns whether there was anything.
fn poll_mailbox(cpu: &LoopCpu, machine: &Machine) -> bool {
    let mut has_served = false;
    while let Some(request) = mailbox::take() {
        serve(cpu, machine, request);
        has_served = true;
    }
    has_served
}

fn poll_stream(cpu: &LoopCpu, machine: &Machine) {
    let mut bytes = [0; 256];
    loop {
        let count = link::receive(&mut bytes);
        if count == 0 {
            return;
        }
        for &byte in bytes.iter().take(count) {
            let message = DECODER.lock().push::<Request>(byte);
            // A damaged frame has no id to answer to; the tool's time-out reports it.
            if let Some(Ok(request)) = message {
                serve(cpu, machine, request);
            }
        }
    }
}

fn serve(cpu: &LoopCpu, machine: &Machine, request: Request) {
    let is_hello = matches!(request.command, Command::Hello { .. });
    let result = command::serve(cpu, machine, request.command);
    let is_welcome = is_hello && result.is_ok();
    transmit(&FromHypervisor::Response { id: request.id, result });
    if is_welcome {
        mailbox::use_from_now_on();
        emit_stopped_domains(machine);
    }
}

/// Tells a tool that has just come which domains are stopped, and where.
fn emit_stopped_domains(machine: &Machine) {
    for domain in &machine.domains {
        let control = domain.control.lock();
        let is_stopped = control.running == 0 && control.ending.is_none();
        drop(control);
        if is_stopped {
            machine.emit_stop(domain, PendingStop { vcpu: 0, reason: StopReason::Reset }, 0);
        }
    }
}

fn transmit(message: &FromHypervisor) {
    let mut frame = [0; MAX_FRAME];
    // Every message of the wire fits into a frame.
    if let Ok(frame) = encode(message, &mut frame)
        && !mailbox::send(frame)
    {
        link::send(frame);
    }
}
