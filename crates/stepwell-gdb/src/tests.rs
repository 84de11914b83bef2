//! Transcripts of the protocol against the fake: what a client sends, and what it gets.

mod conditions;
mod landmark;
mod scope;
mod tasks;
mod vectors;

use crate::framing::{checksum, framed};
use crate::{Leaving, NoServices, Policies, RegisterSet, Session};
use std::time::Duration;
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{VcpuId, contract};

const ENTRY: u64 = contract::ENTRY.0;

/// Runs a conversation with the contract's guest.
fn with(test: impl FnOnce(&mut Client<'_>)) {
    with_guest(Fake::new(&contract::guest_bytes()), test);
}

fn with_guest(mut fake: Fake, test: impl FnOnce(&mut Client<'_>)) {
    contract::wait_for_stop(&mut fake);
    let registers = RegisterSet::probe(&mut fake, VcpuId::default()).unwrap();
    let (mut services, mut policies) = (NoServices, Policies::default());
    let session =
        Session::new(&mut fake, &mut services, &registers, &mut policies, VcpuId::default());
    test(&mut Client { session: session.unwrap(), left: None });
}

struct Client<'d> {
    session: Session<'d>,
    left: Option<Leaving>,
}

impl Client<'_> {
    /// Sends bytes as they are, and returns what comes back once the guest is stopped.
    fn send(&mut self, bytes: &[u8]) -> String {
        self.left = self.left.or(self.session.receive(bytes).unwrap());
        for _ in 0..100 {
            if !self.session.is_running() || self.left.is_some() {
                break;
            }
            if let Some(event) = self.session.wait(Duration::from_millis(1)).unwrap() {
                self.left = self.left.or(self.session.happened(event).unwrap());
            }
        }
        String::from_utf8(self.session.take_output()).unwrap()
    }

    /// Sends a packet and returns the bodies of the replies, their run-length encoding undone.
    fn ask(&mut self, body: &str) -> Vec<String> {
        let replies = self.send(&framed(body.as_bytes()));
        let replies = replies.trim_start_matches('+');
        let bodies = replies.split('$').filter(|reply| !reply.is_empty()).map(|reply| {
            let (body, sum) = reply.split_once('#').unwrap();
            assert_eq!(format!("{:02x}", checksum(body.as_bytes())), sum, "{reply}");
            expanded(body)
        });
        bodies.collect()
    }

    fn answer(&mut self, body: &str) -> String {
        let mut answers = self.ask(body);
        assert_eq!(answers.len(), 1, "{body}: {answers:?}");
        answers.remove(0)
    }

    /// What `monitor` shows.
    fn monitor(&mut self, line: &str) -> String {
        let replies = self.ask(&format!("qRcmd,{}", crate::framing::hex(line.as_bytes())));
        assert_eq!(replies.last().map(String::as_str), Some("OK"), "{line}");
        replies.iter().filter_map(|reply| reply.strip_prefix('O')).filter_map(text).collect()
    }

    fn pc(&mut self) -> u64 {
        let bytes = self.answer("p20");
        u64::from_str_radix(&bytes, 16).unwrap().swap_bytes()
    }
}

fn text(hex: &str) -> Option<String> {
    let digits: Vec<char> = hex.chars().collect();
    let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).ok());
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

fn expanded(body: &str) -> String {
    let mut out = String::new();
    let mut characters = body.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' => {
                let count = characters.next().unwrap() as usize - 29;
                let last = out.chars().last().unwrap();
                out.extend(std::iter::repeat_n(last, count));
            }
            character => out.push(character),
        }
    }
    out
}

#[test]
fn a_client_is_told_what_there_is() {
    with(|client| {
        let supported = client.answer("qSupported:multiprocess+;swbreak+;hwbreak+");
        for feature in ["PacketSize=4000", "vContSupported+", "qXfer:features:read+"] {
            assert!(supported.contains(feature), "{supported}");
        }
        assert_eq!(client.answer("?"), "T05thread:p1.1;");
        assert_eq!(client.answer("qC"), "QCp1.1");
        assert_eq!(client.answer("qfThreadInfo"), "mp01.01");
        assert_eq!(client.answer("vCont?"), "vCont;c;C;s;S;r");
        let info = client.answer("qThreadExtraInfo,p1.1");
        assert_eq!(text(&info).unwrap(), "domain 0 vCPU 0, stopped in EL1");
        assert_eq!(client.answer("qThreadExtraInfo,p1.9"), "E16");
        let xml = client.answer("qXfer:features:read:target.xml:0,3fff");
        assert!(xml.starts_with("m<?xml") && xml.contains("org.gnu.gdb.aarch64.core"), "{xml}");
        assert_eq!(client.answer("vMustReplyEmpty"), "");
    });
}

#[test]
fn registers_and_memory_are_read_and_written() {
    with(|client| {
        assert_eq!(client.answer("g").len(), 2 * (33 * 8 + 4));
        assert_eq!(client.pc(), ENTRY);
        assert_eq!(client.answer("P2=efbeadde00000000"), "OK");
        assert_eq!(client.answer("p2"), "efbeadde00000000");
        assert_eq!(client.answer("P21=c5030000"), "OK");
        assert_eq!(client.answer("P21=c503000000000000"), "E16", "cpsr has 32 bits");
        assert_eq!(client.answer("pffff"), "E06");
        assert_eq!(client.answer(&format!("m{ENTRY:x},4")), "0020a1d2");
        assert_eq!(client.answer("M41000000,4:01020304"), "OK");
        assert_eq!(client.answer("m41000000,8"), "0102030400000000");
        assert_eq!(client.answer("m0,4"), "E0e");
        assert_eq!(client.answer("M0,1:00"), "E0e");
        assert_eq!(client.answer("mffffffffffffffff,8"), "E0e");
        assert_eq!(client.answer(&format!("m{ENTRY:x},ffffffffffff")), "E07");
    });
}

#[test]
fn it_steps_and_stops_at_breakpoints() {
    with(|client| {
        client.ask("qSupported:multiprocess+");
        let stop = client.answer("vCont;s:p1.1;c:p1.-1");
        assert!(stop.starts_with("T05thread:p01.01;00:"), "{stop}");
        assert_eq!(client.pc(), ENTRY + 4);
        let address = contract::LOOP.0;
        assert_eq!(client.answer(&format!("Z0,{address:x},4")), "OK");
        assert_eq!(
            client.answer(&format!("Z0,{address:x},4")),
            "OK",
            "saying it twice is no error"
        );
        let function = contract::FUNCTION.0;
        assert_eq!(client.answer(&format!("Z1,{function:x},4")), "OK");
        for _ in 0..5 {
            let stop = client.answer("vCont;c");
            assert!(stop.contains("swbreak:;"), "{stop}");
            assert_eq!(client.pc(), address);
        }
        assert!(client.answer("c").contains("hwbreak:;"));
        assert_eq!(client.pc(), function);
        assert_eq!(client.answer(&format!("z0,{address:x},4")), "OK");
        assert_eq!(client.answer(&format!("z0,{address:x},4")), "E11");
        assert_eq!(client.answer(&format!("z1,{function:x},4")), "OK");
        let end = client.ask("vCont;c");
        assert_eq!(end.last().map(String::as_str), Some("W00"));
        assert!(matches!(client.left, Some(Leaving::Ended(_))));
    });
}

#[test]
fn gdb_steps_over_exclusives_by_breakpoints() {
    with(|client| {
        let (load, store) = (0xc85f_7c65_u32, 0xc806_7c64_u32); // ldxr x5, [x3]; stxr w6, x4, [x3]
        let code: Vec<u8> = [load, store, load].into_iter().flat_map(u32::to_le_bytes).collect();
        let place = contract::FUNCTION.0 + 8;
        let code = crate::framing::hex(&code);
        assert_eq!(client.answer(&format!("M{place:x},c:{code}")), "OK");
        let _stop = client.answer(&format!("Z0,{place:x},4"));
        assert!(client.answer("vCont;c").contains("swbreak:;"));
        assert_eq!(client.answer(&format!("z0,{place:x},4")), "OK");
        assert_eq!(client.pc(), place);
        // A breakpoint behind the store: GDB's way to step. As often as it likes.
        for _ in 0..2 {
            assert_eq!(client.answer(&format!("P20={}", little(place))), "OK");
            assert_eq!(client.answer(&format!("Z0,{:x},4", place + 8)), "OK");
            let stop = client.answer("vCont;c:p1.-1");
            assert!(stop.starts_with("T05") && !stop.contains("swbreak"), "{stop}");
            assert_eq!(client.pc(), place + 4);
            assert_eq!(client.answer(&format!("z0,{:x},4", place + 8)), "OK");
        }
        // One that was there before is the user's, and so is one somewhere else.
        assert_eq!(client.answer(&format!("Z0,{:x},4", place + 8)), "OK");
        client.answer("vCont;s:1");
        assert_eq!(client.pc(), place + 8);
        assert_eq!(client.answer(&format!("P20={}", little(place))), "OK");
        assert!(client.answer("vCont;c").contains("swbreak:;"));
        assert_eq!(client.pc(), place + 8);
    });
}

fn little(value: u64) -> String {
    crate::framing::hex(&value.to_le_bytes())
}

#[test]
fn a_range_is_stepped_until_it_is_left() {
    with(|client| {
        let (start, end) = (ENTRY, contract::CALL.0);
        client.answer(&format!("vCont;r{start:x},{end:x}:1"));
        assert_eq!(client.pc(), end);
        client.answer(&format!("vCont;r{end:x},{end:x}:1"));
        assert_eq!(client.pc(), contract::FUNCTION.0, "an empty range is one step");
    });
}

#[test]
fn a_thread_that_is_not_there_does_not_go() {
    with(|client| {
        for packet in ["vCont;s:63", "vCont;r0,10:63", "vCont;s:p1.7fffffff"] {
            let replies = client.ask(packet);
            assert_eq!(replies.len(), 2, "{replies:?}");
            assert!(text(&replies[0][1..]).unwrap().contains("no such"), "{replies:?}");
            assert!(replies[1].starts_with("T05"), "{replies:?}");
        }
        assert_eq!(client.answer("Hg63"), "OK");
        assert_eq!(client.answer("g"), "E03");
        assert_eq!(client.answer("T63"), "E01");
        assert_eq!(client.answer("Hg1"), "OK");
        assert_eq!(client.pc(), ENTRY);
    });
}

#[test]
fn packets_without_sense_end_no_session() {
    with(|client| {
        assert_eq!(client.answer("QStartNoAckMode"), "OK");
        let nonsense = [
            "G00",
            "Hg-1",
            "T0",
            "vCont;x",
            "vCont;s:-1",
            "vCont;t",
            "P",
            "m",
            "mzz,1",
            "Z0",
            "Z9,0,0",
            "X0,1:\u{7d}",
            "qXfer:features:read:other.xml:0,10",
            "vCont;s;r",
            "",
            "vCont;",
        ];
        for packet in nonsense {
            client.ask(packet);
            assert_eq!(client.answer("vMustReplyEmpty"), "", "after {packet}");
            assert!(!client.session.is_running(), "after {packet}");
        }
        assert_eq!(client.send(b"$g#00"), "-");
        assert_eq!(client.send(&[b'$'; 100]), "");
        let long = vec![b'a'; 3 * crate::PACKET_MAX];
        assert_eq!(client.send(&framed(&long)), "$E07#ac");
        assert!(!client.answer("?").is_empty());
    });
}

#[test]
fn a_write_has_as_much_data_as_it_says() {
    with(|client| {
        assert_eq!(client.answer("QStartNoAckMode"), "OK");
        let read = format!("m{ENTRY:x},4");
        let before = client.answer(&read);
        // `}` and what it escapes are one byte.
        let data = ["M|,4:ff", "M|,1:ffff", "M|,0:ff", "X|,4:a", "X|,1:ab", "X|,2:}]", "M|,:ff"];
        for packet in data {
            let packet = packet.replace('|', &format!("{ENTRY:x}"));
            assert_eq!(client.answer(&packet), "E16", "{packet}");
        }
        assert_eq!(client.answer(&read), before);
        for (packet, now) in [("X|,0:", before.as_str()), ("X|,4:a}]b}\u{3}", "617d6223")] {
            let packet = packet.replace('|', &format!("{ENTRY:x}"));
            assert_eq!(client.answer(&packet), "OK", "{packet}");
            assert_eq!(client.answer(&read), now);
        }
    });
}

#[test]
fn the_last_reply_is_said_again() {
    with(|client| {
        let first = client.send(&framed(b"qC"));
        assert_eq!(first, "+$QC1#c5");
        assert_eq!(client.send(b"-"), "$QC1#c5");
        assert_eq!(client.send(b"+-"), "$QC1#c5");
    });
}

#[test]
fn one_byte_at_a_time_is_as_good_as_all_at_once() {
    with(|client| {
        let mut replies = String::new();
        for byte in framed(format!("m{ENTRY:x},4").as_bytes()) {
            replies += &client.send(&[byte]);
        }
        assert_eq!(replies, "+$0020a1d2#ea");
    });
}

#[test]
fn an_endless_guest_is_interrupted() {
    let mut fake = Fake::new(&0x1400_0000_u32.to_le_bytes());
    contract::wait_for_stop(&mut fake);
    let registers = RegisterSet::probe(&mut fake, VcpuId::default()).unwrap();
    let (mut services, mut policies) = (NoServices, Policies::default());
    let session =
        Session::new(&mut fake, &mut services, &registers, &mut policies, VcpuId::default());
    let mut client = Client { session: session.unwrap(), left: None };
    for packet in ["vCont;c", "vCont;r40080000,40080004:1"] {
        client.session.receive(&framed(packet.as_bytes())).unwrap();
        for _ in 0..20 {
            if let Some(event) = client.session.wait(Duration::ZERO).unwrap() {
                client.session.happened(event).unwrap();
            }
        }
        assert!(client.session.is_running(), "{packet}");
        let stop = client.send(b"\x03");
        assert!(
            stop.contains("T02thread:1;") || stop.contains("T02thread:01;"),
            "{packet}: {stop}"
        );
    }
    assert_eq!(client.send(b"\x03"), "", "it is stopped already");
}

#[test]
fn detaching_takes_everything_out() {
    let mut fake = Fake::new(&contract::guest_bytes());
    contract::wait_for_stop(&mut fake);
    let registers = RegisterSet::probe(&mut fake, VcpuId::default()).unwrap();
    let (mut services, mut policies) = (NoServices, Policies::default());
    let session =
        Session::new(&mut fake, &mut services, &registers, &mut policies, VcpuId::default());
    let mut client = Client { session: session.unwrap(), left: None };
    client.answer(&format!("Z0,{:x},4", contract::LOOP.0));
    assert_eq!(client.monitor("smc on"), "on\n");
    client.answer("D");
    assert_eq!(client.left, Some(Leaving::Detached));
    client.session.leave(true).unwrap();
    let (event, _) = loop {
        use stepwell_debuggee::{Debuggee, Event};
        match fake.wait(Duration::ZERO).unwrap() {
            Some(Event::Console { .. }) | None => {}
            Some(event) => break (event, ()),
        }
    };
    assert!(matches!(event, stepwell_debuggee::Event::Ended { .. }), "{event:?}");
}

#[test]
fn kill_is_told_apart_from_detach() {
    with(|client| {
        assert_eq!(client.answer("vKill;1"), "OK");
        assert_eq!(client.left, Some(Leaving::Killed));
    });
    with(|client| {
        client.ask("k");
        assert_eq!(client.left, Some(Leaving::Killed));
    });
}

#[test]
fn monitor_commands_answer() {
    with(|client| {
        assert!(client.monitor("help").contains("mmu ADDRESS"));
        assert!(client.monitor("").contains("mmu ADDRESS"));
        assert_eq!(client.monitor("irq"), "over\n");
        assert_eq!(client.monitor("irq hold"), "hold\n");
        assert_eq!(client.monitor("irq"), "hold\n");
        assert!(client.monitor("irq no").contains("none of hold, over, into"));
        assert_eq!(client.monitor("smc on"), "on\n");
        assert_eq!(client.monitor("smc on"), "already enabled\n");
        assert_eq!(client.monitor("smc off"), "off\n");
        assert!(client.monitor("phys 0x40080000 8").contains("00 20 a1 d2 01 0d 80 d2"));
        assert_eq!(client.monitor("phys 0x41000000 = 68656c6c6f"), "5 bytes written\n");
        assert!(client.monitor("phys 0x41000000 5").ends_with("hello\n"));
        assert!(client.monitor("phys 0 5").contains("not mapped"));
        assert!(client.monitor("phys 0x41000000 = 6").contains("pairs of hex"));
        assert!(client.monitor("where").contains("vcpu0  0x0000000040080000"));
        assert!(client.monitor("trace stop").contains("nothing is being recorded"));
        assert!(client.monitor("what").starts_with("no such command: what\nirq"));
    });
}

#[test]
fn a_monitored_call_is_told_as_text() {
    with(|client| {
        client.monitor("smc on");
        let replies = client.ask("vCont;c");
        assert_eq!(text(&replies[0][1..]).unwrap(), "vcpu0: privileged call smc #0x12\n");
        assert!(replies[1].starts_with("T05"), "{replies:?}");
        assert_eq!(client.pc(), contract::SMC.0);
    });
}

#[test]
fn watchpoints_tell_kind_and_address() {
    with(|client| {
        let scratch = contract::SCRATCH.0;
        assert_eq!(client.answer(&format!("Z2,{scratch:x},8")), "OK");
        assert_eq!(client.answer(&format!("Z3,{scratch:x},4")), "OK");
        assert_eq!(client.answer("Z4,0,0"), "E16");
        let stop = client.answer("vCont;c");
        assert!(
            stop.contains(&format!("watch:{scratch:x};")) && !stop.contains("rwatch"),
            "{stop}"
        );
        assert_eq!(client.pc(), contract::FUNCTION.0 + 8, "before the store");
        let stop = client.answer("vCont;c");
        assert!(stop.contains(&format!("rwatch:{scratch:x};")), "{stop}");
        assert_eq!(client.answer(&format!("z2,{scratch:x},8")), "OK");
        assert_eq!(client.answer(&format!("z2,{scratch:x},8")), "E11");
        assert_eq!(client.answer(&format!("z3,{scratch:x},4")), "OK");
    });
}
