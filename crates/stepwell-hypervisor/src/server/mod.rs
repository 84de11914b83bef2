//! The hypervisor's end of the link: takes the tool's requests, sends answers and events.
//!
//! Requests are served by whatever CPU finds them, which is the boot CPU: the link's interrupt is
//! routed there. A request about a vCPU is served only while that vCPU stands, so no request ever
//! waits for a guest.
//!
//! The conversation begins on the link's stream and goes on in the [`mailbox`], where the tool has
//! one. Then whatever CPU lingers serves as well.

pub mod command;
pub mod mailbox;
mod unattended;

use crate::domain::{Domain, PendingStop};
use crate::hw::link;
use crate::machine::Machine;
use crate::vcpu::guest_view;
use spin::Mutex;
use stepwell_wire::{
    Command, Event, FrameDecoder, FromHypervisor, MAX_FRAME, Request, StopReason, encode,
};

static DECODER: Mutex<FrameDecoder> = Mutex::new(FrameDecoder::new());

/// Serves everything that has arrived: the link's interrupt calls for it.
pub fn poll(machine: &Machine) {
    poll_stream(machine);
    poll_mailbox(machine);
}

/// Serves what has arrived, for who passes by without having been called. A mailbox makes that
/// cheap: the stream has nothing but its doorbell then.
pub fn pass_by(machine: &Machine) {
    match mailbox::is_in_use() {
        true => drop(poll_mailbox(machine)),
        false => poll_stream(machine),
    }
}

/// Waits for what the tool may send next, for a while, before this CPU sleeps. `is_over` says that
/// it has something else to do. Returns whether anything was served.
pub fn linger(machine: &Machine, is_over: impl Fn() -> bool) -> bool {
    mailbox::linger(|| poll_mailbox(machine), is_over)
}

/// Returns whether there was anything.
fn poll_mailbox(machine: &Machine) -> bool {
    let mut has_served = false;
    while let Some(request) = mailbox::take() {
        serve(machine, request);
        has_served = true;
    }
    has_served
}

fn poll_stream(machine: &Machine) {
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
                serve(machine, request);
            }
        }
    }
}

fn serve(machine: &Machine, request: Request) {
    let is_hello = matches!(request.command, Command::Hello { .. });
    let result = command::serve(machine, request.command);
    let is_welcome = is_hello && result.is_ok();
    transmit(&FromHypervisor::Response { id: request.id, result });
    if is_welcome {
        mailbox::use_from_now_on();
        tell_who_stands(machine);
    }
}

/// Tells a tool that has just come which domains stand, and where.
fn tell_who_stands(machine: &Machine) {
    for domain in &machine.domains {
        let control = domain.control.lock();
        let stands = control.running == 0 && control.ending.is_none();
        drop(control);
        if stands {
            tell_of(domain, PendingStop { vcpu: 0, reason: StopReason::Reset, steps: 0 });
        }
    }
}

/// Tells of a stop, once all vCPUs of the domain stand.
pub fn tell_of(domain: &Domain, stop: PendingStop) {
    let PendingStop { vcpu, reason, steps } = stop;
    // There is no vCPU that is not the domain's.
    let Some(stopped) = domain.vcpus.get(vcpu) else { return };
    let registers = guest_view::read(&stopped.core.lock());
    send(Event::Stopped { domain: domain.id, vcpu: vcpu as u8, reason, steps, registers });
}

/// Sends an event, or shows it where there is no link.
pub fn send(event: Event) {
    if !link::is_up() {
        unattended::show(&event);
        return;
    }
    transmit(&FromHypervisor::Event(event));
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

/// Sends what a domain wrote on its console so far.
pub fn flush_console(domain: &Domain) {
    send_console(domain.id, &mut domain.console.lock());
}

/// Sends a console's text while nobody else can add to it, so that it arrives in order.
pub fn send_console<const N: usize>(domain: u8, console: &mut heapless::Vec<u8, N>) {
    if let Ok(bytes) = heapless::Vec::from_slice(console)
        && !bytes.is_empty()
    {
        send(Event::Console { domain, bytes });
    }
    console.clear();
}
