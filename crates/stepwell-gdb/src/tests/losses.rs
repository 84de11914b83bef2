//! Breakpoints in what the guest frees, or is replaced with another image.

use super::Client;
use crate::{Policies, RegisterSet, Services, Session};
use stepwell_arch::{Ipa, Va};
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{Debuggee, Error, Place, Stop, VcpuId, contract};

/// Where it frees its loop, or all of itself is replaced.
const ENDING: u64 = contract::CALL.0;

#[derive(Default)]
struct Kernel {
    is_replaced: bool,
    is_past: bool,
    notes: Vec<String>,
}

impl Services for Kernel {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn image_place(&self, va: Va) -> Option<Ipa> {
        let is_there = !(self.is_replaced && self.is_past);
        (is_there && va.0 >= contract::ENTRY.0).then_some(Ipa(va.0))
    }

    fn endings(&self, va: Va) -> Vec<Ipa> {
        self.image_place(va).map(|_| Ipa(ENDING)).into_iter().collect()
    }

    fn lost(&mut self, stop: Stop, addresses: &[u64]) -> Vec<(u64, String)> {
        if stop.pc.0 != ENDING || self.is_past {
            return Vec::new();
        }
        self.is_past = true;
        let is_lost = |va: &u64| self.is_replaced || *va < ENDING;
        addresses.iter().copied().filter(is_lost).map(|va| (va, "is lost".to_owned())).collect()
    }

    fn is_lost(
        &mut self,
        _: &mut dyn Debuggee,
        _: VcpuId,
        va: Va,
    ) -> Result<Option<String>, Error> {
        let is_freed = self.is_past && !self.is_replaced && va.0 < ENDING;
        Ok(is_freed.then(|| "is lost".to_owned()))
    }
}

/// Runs a conversation; returns what the user was told, and the guest.
fn with(is_replaced: bool, test: impl FnOnce(&mut Client<'_>)) -> (Vec<String>, Fake) {
    let mut fake = Fake::new(&contract::guest_bytes());
    contract::wait_for_stop(&mut fake);
    let registers = RegisterSet::probe(&mut fake, VcpuId::default()).unwrap();
    let mut services = Kernel { is_replaced, ..Kernel::default() };
    let mut policies = Policies::default();
    let session =
        Session::new(&mut fake, &mut services, &registers, &mut policies, VcpuId::default());
    let mut client = Client { session: session.unwrap(), left: None };
    test(&mut client);
    client.session.leave(false).unwrap();
    (services.notes, fake)
}

#[test]
fn what_is_freed_is_told_of_once_and_taken_away() {
    let (looped, function) = (contract::LOOP.0, contract::FUNCTION.0);
    let (notes, mut fake) = with(false, |client| {
        for va in [looped, function] {
            assert_eq!(client.answer(&format!("Z0,{va:x},4")), "OK");
        }
        for _ in 0..5 {
            client.answer("vCont;c");
            assert_eq!(client.pc(), looped);
        }
        client.answer("vCont;c");
        assert_eq!(client.pc(), function, "nobody hears of the stop in between");
        // As GDB does at each stop.
        for kind in ["z", "Z"] {
            assert_eq!(client.answer(&format!("{kind}0,{looped:x},4")), "OK");
        }
    });
    assert_eq!(notes, [format!("the breakpoint at {looped:#x} is lost")]);
    for va in [looped, function, ENDING] {
        assert!(fake.clear_breakpoint(0, Place::Ipa(Ipa(va))).is_err(), "{va:#x} is left");
    }
}

#[test]
fn what_is_replaced_leaves_an_address() {
    let function = contract::FUNCTION.0;
    let (notes, mut fake) = with(true, |client| {
        assert_eq!(client.answer(&format!("Z0,{function:x},4")), "OK");
        assert!(client.answer("vCont;c").contains("swbreak:;"));
        assert_eq!(client.pc(), function, "what is there now");
    });
    assert_eq!(notes.len(), 1, "{notes:?}");
    for place in [Place::Ipa(Ipa(function)), Place::Va(Va(function)), Place::Ipa(Ipa(ENDING))] {
        assert!(fake.clear_breakpoint(0, place).is_err(), "{place:?} is left");
    }
}
