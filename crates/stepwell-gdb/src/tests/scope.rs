//! Breakpoints that hold in one process, or in all.

use super::Client;
use crate::{Policies, Process, RegisterSet, Services, Session};
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{Debuggee, Error, VcpuId, contract};

/// The guest executes this process, and never another.
struct Executes(Option<Process>);

impl Services for Executes {
    fn process(&mut self, _: &mut dyn Debuggee, _: VcpuId) -> Result<Option<Process>, Error> {
        Ok(self.0.clone())
    }
}

fn with(process: Option<Process>, test: impl FnOnce(&mut Client<'_>)) {
    let mut fake = Fake::new(&contract::guest_bytes());
    contract::wait_for_stop(&mut fake);
    let registers = RegisterSet::probe(&mut fake, VcpuId::default()).unwrap();
    let (mut services, mut policies) = (Executes(process), Policies::default());
    let session =
        Session::new(&mut fake, &mut services, &registers, &mut policies, VcpuId::default());
    test(&mut Client { session: session.unwrap(), left: None });
}

fn shell() -> Option<Process> {
    Some(Process { pid: 7, name: "sh".to_owned() })
}

/// Whether a breakpoint at the contract's call stops the guest there.
fn is_hit(client: &mut Client<'_>) -> bool {
    let call = contract::CALL.0;
    assert_eq!(client.answer(&format!("Z0,{call:x},4")), "OK");
    // Where it is not, the guest goes on to its SMC, and to its end.
    client.ask("vCont;c").concat().contains("swbreak")
}

#[test]
fn by_default_they_hold_in_all() {
    with(shell(), |client| {
        assert_eq!(client.monitor("break-in"), "any process\n");
        assert!(is_hit(client));
    });
}

#[test]
fn they_hold_in_the_process_that_is_named() {
    for (choice, shown, expected) in [
        ("current", "process 7", true),
        ("7", "process 7", true),
        ("sh", "processes called sh", true),
        ("8", "process 8", false),
        ("bash", "processes called bash", false),
        ("any", "any process", true),
    ] {
        with(shell(), |client| {
            let told = client.monitor(&format!("break-in {choice}"));
            assert_eq!(told, format!("breakpoints in programs hold in {shown}\n"));
            assert_eq!(client.monitor("break-in"), format!("{shown}\n"));
            assert_eq!(is_hit(client), expected, "{choice}");
        });
    }
}

#[test]
fn one_address_may_have_a_process_of_its_own() {
    with(shell(), |client| {
        let call = contract::CALL.0;
        client.monitor(&format!("break-in 8 {call:#x}"));
        assert_eq!(client.monitor("break-in"), format!("any process\n{call:#x}: process 8\n"));
        assert!(client.monitor("break-in 8 nowhere").contains("nowhere is no address"));
        assert!(!is_hit(client));
    });
}

#[test]
fn a_guest_that_does_not_tell_loses_none() {
    with(None, |client| {
        assert!(client.monitor("break-in 7").contains("does not tell its processes"));
        assert_eq!(client.monitor("break-in any"), "breakpoints in programs hold in any process\n");
        assert!(is_hit(client));
    });
}
