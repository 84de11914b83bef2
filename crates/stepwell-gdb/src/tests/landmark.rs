//! A place that the guest passes for the tool and not for the client.

use super::Client;
use crate::{Error, Policies, RegisterSet, Services, Session};
use stepwell_arch::Ipa;
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{Debuggee, Place, VcpuId, contract};

const LANDMARK: u64 = contract::CALL.0;

/// Looks out for one place, and is content when it was seen there.
struct LooksOut {
    landmark: Option<Ipa>,
}

impl Services for LooksOut {
    fn landmark(&self) -> Option<Ipa> {
        self.landmark
    }

    fn stopped(
        &mut self,
        debuggee: &mut dyn Debuggee,
        vcpu: VcpuId,
    ) -> Result<(), stepwell_debuggee::Error> {
        if debuggee.read_registers(vcpu)?.pc == LANDMARK {
            self.landmark = None;
        }
        Ok(())
    }
}

/// Runs a conversation, and returns whether the tool's breakpoint is still in the guest after it.
fn with(test: impl FnOnce(&mut Client<'_>)) -> Result<bool, Error> {
    let mut fake = Fake::new(&contract::guest_bytes());
    contract::wait_for_stop(&mut fake);
    let place = Place::Ipa(Ipa(LANDMARK));
    fake.set_breakpoint(0, place)?;
    let registers = RegisterSet::probe(&mut fake, VcpuId::default())?;
    let mut services = LooksOut { landmark: Some(Ipa(LANDMARK)) };
    let mut policies = Policies::default();
    let session =
        Session::new(&mut fake, &mut services, &registers, &mut policies, VcpuId::default())?;
    let mut client = Client { session, left: None };
    test(&mut client);
    client.session.leave(false)?;
    Ok(fake.clear_breakpoint(0, place).is_ok())
}

#[test]
fn the_client_hears_nothing_of_it() {
    let stays = with(|client| {
        client.answer(&format!("Z0,{:x},4", contract::FUNCTION.0));
        assert!(client.answer("vCont;c").contains("swbreak:;"));
        assert_eq!(client.pc(), contract::FUNCTION.0, "it went by");
    });
    assert!(!stays.unwrap(), "it is out once it was met");
}

#[test]
fn the_client_may_have_one_there_too() {
    let stays = with(|client| {
        let at = format!("0,{LANDMARK:x},4");
        assert_eq!(client.answer(&format!("Z{at}")), "OK");
        assert!(client.answer("vCont;c").contains("swbreak:;"));
        assert_eq!(client.pc(), LANDMARK);
        assert_eq!(client.answer(&format!("z{at}")), "OK");
    });
    assert!(!stays.unwrap(), "the client's own was the last");
}

#[test]
fn what_the_client_takes_out_is_its_own() {
    let at = format!("0,{LANDMARK:x},4");
    let stays = with(|client| {
        assert_eq!(client.answer(&format!("Z{at}")), "OK");
        assert_eq!(client.answer(&format!("z{at}")), "OK");
    });
    assert!(stays.unwrap(), "deleted");
    let stays = with(|client| {
        assert_eq!(client.answer(&format!("Z{at}")), "OK");
    });
    assert!(stays.unwrap(), "gone with the client");
}

#[test]
fn a_step_onto_it_is_a_step() {
    let stays = with(|client| {
        for n in 0..14 {
            client.answer("vCont;s:1");
            let met = client.pc() == LANDMARK;
            assert_eq!(met, n == 13, "step {n} at {:#x}", client.pc());
        }
    });
    assert!(!stays.unwrap(), "it was seen there");
}
