//! What is told of a domain where there is no link to tell it by: its console, and its end.

use crate::hw::log;
use stepwell_protocol::DomainEnding;
use stepwell_wire::Event;

/// Shows what would have been sent.
pub(super) fn show(event: &Event) {
    match event {
        Event::Console { bytes, .. } => log::guest(bytes),
        Event::DomainEnded { domain, ending, .. } => show_ending(*domain, ending),
        // Nobody has asked for any other.
        _ => {}
    }
}

fn show_ending(domain: u8, ending: &DomainEnding) {
    match ending {
        DomainEnding::PoweredOff => log::line(format_args!("domain {domain} switched itself off")),
        DomainEnding::Reset => log::line(format_args!("domain {domain} asked for a reset")),
        DomainEnding::Fault(fault) => log::line(format_args!(
            "domain {domain} ended: its vCPU {} {} (PC {:#x}, ESR {:#x}, address {:#x})",
            fault.vcpu, fault.kind, fault.pc, fault.esr, fault.address,
        )),
    }
}
