//! Breakpoints with conditions.

use super::{Client, ENTRY, with};
use crate::framing::hex;
use stepwell_debuggee::contract;

/// Code for `$xN == value`.
fn register_is(n: u8, value: u8) -> Vec<u8> {
    vec![0x26, 0, n, 0x22, value, 0x13, 0x27]
}

/// The packet that sets a breakpoint at the loop's begin, X2 counting 5, 4, 3, 2, 1 there.
fn at_loop(kind: char, conditions: &[Vec<u8>]) -> String {
    set(kind, contract::LOOP.0, conditions)
}

fn set(kind: char, va: u64, conditions: &[Vec<u8>]) -> String {
    let mut packet = format!("Z{kind},{va:x},4");
    for (n, code) in conditions.iter().enumerate() {
        let begin = if n == 0 { ";" } else { "" };
        packet += &format!("{begin}X{:x},{}", code.len(), hex(code));
    }
    packet
}

/// Goes on and returns where it stopped, with X2 there.
fn next_stop(client: &mut Client<'_>, packet: &str) -> (u64, u64) {
    let stop = client.answer(packet);
    assert!(stop.starts_with("T05"), "{stop}");
    let x2 = client.answer("p2");
    (client.pc(), u64::from_str_radix(&x2, 16).unwrap().swap_bytes())
}

#[test]
fn they_are_announced() {
    with(|client| {
        assert!(client.answer("qSupported:multiprocess+").ends_with(";ConditionalBreakpoints+"));
        assert_eq!(client.answer("QStartNoAckMode"), "OK");
        assert!(client.answer("qSupported:swbreak+").ends_with(";ConditionalBreakpoints+"));
    });
}

#[test]
fn a_hit_counts_where_one_is_true() {
    let at = contract::LOOP.0;
    for kind in ['0', '1'] {
        with(|client| {
            let both = [register_is(2, 4), register_is(2, 2)];
            assert_eq!(client.answer(&at_loop(kind, &both)), "OK");
            assert_eq!(next_stop(client, "vCont;c"), (at, 4));
            assert_eq!(next_stop(client, "vCont;c"), (at, 2));
            let listed = client.monitor("breakpoints");
            assert!(listed.ends_with("  2 conditions  2 hits  2 passed over\n"), "{listed}");
            assert_eq!(client.ask("vCont;c").last().map(String::as_str), Some("W00"));
        });
    }
}

#[test]
fn setting_it_again_replaces_them() {
    let at = contract::LOOP.0;
    with(|client| {
        assert_eq!(client.answer(&at_loop('0', &[register_is(2, 4)])), "OK");
        assert_eq!(next_stop(client, "vCont;c"), (at, 4));
        assert_eq!(client.answer(&at_loop('0', &[register_is(2, 2)])), "OK");
        assert_eq!(next_stop(client, "vCont;c"), (at, 2));
        assert_eq!(client.answer(&at_loop('0', &[])), "OK");
        assert_eq!(next_stop(client, "vCont;c"), (at, 1));
    });
}

#[test]
fn two_sorts_at_one_address_have_their_own() {
    let at = contract::LOOP.0;
    with(|client| {
        assert_eq!(client.answer(&at_loop('0', &[register_is(2, 4)])), "OK");
        assert_eq!(client.answer(&at_loop('1', &[register_is(2, 3)])), "OK");
        assert_eq!(next_stop(client, "vCont;c"), (at, 4));
        assert_eq!(next_stop(client, "vCont;c"), (at, 3));
        assert_eq!(client.answer(&format!("z0,{at:x},4")), "OK");
        assert_eq!(client.answer(&at_loop('1', &[register_is(2, 1)])), "OK");
        assert_eq!(next_stop(client, "vCont;c"), (at, 1));
    });
}

#[test]
fn memory_and_every_register_can_be_asked_for() {
    let at = contract::LOOP.0;
    // The word at PC is `sub x2, x2, #1`.
    let word = 0xd100_0442_u32;
    let fetched = [&[0x26, 0, 32, 0x19, 0x24], &word.to_be_bytes()[..], &[0x13, 0x27]].concat();
    // PSTATE.EL is 1, which is bits 3:2 of register 33.
    let level = vec![0x26, 0, 33, 0x22, 2, 0x0b, 0x22, 3, 0x0f, 0x22, 1, 0x13, 0x27];
    for code in [fetched, level] {
        with(|client| {
            let never = [&code[..code.len() - 1], &[0x0e, 0x27]].concat();
            assert_eq!(client.answer(&at_loop('0', &[never])), "OK");
            assert_eq!(client.answer(&at_loop('1', std::slice::from_ref(&code))), "OK");
            assert_eq!(client.answer(&format!("z1,{at:x},4")), "OK");
            assert_eq!(client.ask("vCont;c").last().map(String::as_str), Some("W00"));
        });
        with(|client| {
            assert_eq!(client.answer(&at_loop('0', std::slice::from_ref(&code))), "OK");
            assert_eq!(next_stop(client, "vCont;c"), (at, 5));
        });
    }
}

#[test]
fn one_without_a_value_stops() {
    let at = contract::LOOP.0;
    let unmapped = vec![0x22, 0, 0x1a, 0x27];
    let no_register = vec![0x26, 0xff, 0xff, 0x27];
    for code in [unmapped, no_register, vec![], vec![0x27], vec![0x1b], vec![0x21, 0, 0]] {
        with(|client| {
            assert_eq!(client.answer(&at_loop('0', std::slice::from_ref(&code))), "OK");
            assert_eq!(next_stop(client, "vCont;c"), (at, 5), "{code:x?}");
        });
    }
}

#[test]
fn steps_go_on_past_hits_that_do_not_count() {
    let (at, call) = (contract::LOOP.0, contract::CALL.0);
    with(|client| {
        assert_eq!(client.answer(&at_loop('0', &[register_is(2, 3)])), "OK");
        for _ in 0..4 {
            client.answer("vCont;s:1");
        }
        assert_eq!(client.pc(), at);
        assert_eq!(next_stop(client, "vCont;s:1"), (at + 4, 4));
        assert_eq!(next_stop(client, "vCont;s:1"), (at, 4), "a step ends there all the same");
        let range = format!("vCont;r{ENTRY:x},{call:x}:1");
        assert_eq!(next_stop(client, &range), (at, 3), "within the range, and it counts");
        assert_eq!(next_stop(client, &range), (call, 0), "left, past two that do not");
    });
}

#[test]
fn what_makes_no_sense_sets_no_breakpoint() {
    with(|client| {
        for tail in [";X1", ";X2,27", ";cmds:0,X1,27", ";Xzz,00", ";X"] {
            assert_eq!(client.answer(&format!("{}{tail}", at_loop('0', &[]))), "E16", "{tail}");
        }
        // Conditions of a packet that was refused are not the next one's.
        assert_eq!(client.answer("Z0,40080011,4;X3,220027"), "E16");
        assert_eq!(client.answer("Z0,zz,4;X3,220027"), "E16");
        assert_eq!(client.answer(&at_loop('0', &[])), "OK");
        assert_eq!(next_stop(client, "vCont;c"), (contract::LOOP.0, 5));
    });
}

#[test]
fn what_is_kept_of_them_is_bounded() {
    with(|client| {
        let long = [vec![0x29; 8000]];
        let mut answers: Vec<String> = Vec::new();
        for n in 0..200 {
            answers.push(client.answer(&set('0', ENTRY + 4 * n, &long)));
        }
        let kept = answers.iter().take_while(|answer| *answer == "OK").count();
        assert!((100..150).contains(&kept), "{kept}");
        assert!(answers[kept..].iter().all(|answer| answer == "E0c"), "{answers:?}");
        // Replaced, they count once; taken out, no more.
        for _ in 0..200 {
            assert_eq!(client.answer(&set('0', ENTRY, &long)), "OK");
        }
        assert_eq!(client.answer(&format!("z0,{ENTRY:x},4")), "OK");
        assert_eq!(client.answer(&set('0', ENTRY + 800, &long)), "OK");
        assert_eq!(client.answer(&set('0', ENTRY + 804, &long)), "E0c");
    });
}
