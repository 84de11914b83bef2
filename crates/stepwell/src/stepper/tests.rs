//! The stepper on the fake, as transcripts.

use super::*;
use stepwell_debuggee::{contract, fake::Fake};
use stepwell_replay::log::{Entry, FileIdentity, Reader, VERSION, Writer};
use stepwell_replay::{Keeping, Navigator, Script};

/// Feeds lines to a stepper that is stopped at reset; returns what it wrote and the last flow.
fn session(lines: &[&str]) -> (String, Flow) {
    let mut fake = Fake::new(&contract::guest_bytes());
    let stop = contract::wait_for_stop(&mut fake).0;
    let (mut output, mut flow) = (Vec::new(), Flow::More);
    let mut stepper = Prompt::new(&mut fake, Names::none(), stop, &mut output).unwrap();
    for line in lines {
        flow = stepper.execute(line).unwrap();
    }
    drop(stepper);
    (String::from_utf8(output).unwrap(), flow)
}

fn pcs(output: &str) -> Vec<u64> {
    let pc = |line: &str| {
        let word = line.strip_prefix("vcpu0  0x")?.split(' ').next()?.to_owned();
        Some(u64::from_str_radix(&word, 16).unwrap() - contract::ENTRY.0)
    };
    output.lines().filter_map(pc).collect()
}

#[test]
fn each_step_is_shown_and_enter_repeats() {
    let (output, flow) = session(&["s", "", "s 2"]);
    assert_eq!(pcs(&output), [0, 4, 8, 0xc, 0x10]);
    assert!(output.contains("(reset)") && output.contains("mov x1, #0x68"), "{output}");
    assert!(output.contains("  guest| h\n"), "{output}");
    assert_eq!(flow, Flow::More);
}

#[test]
fn a_call_is_stepped_over_as_a_whole() {
    let (output, _) = session(&["u 0x40080018", "n", "n"]);
    assert_eq!(pcs(&output), [0, 0x18, 0x1c, 0x20]);
}

#[test]
fn many_steps_show_the_last_and_back_shows_the_rest() {
    let (output, flow) = session(&["s 12", "b 3", "s 1000"]);
    assert_eq!(pcs(&output)[13..], [0x14, 0x10, 0x14]);
    assert_eq!(flow, Flow::Ended(DomainEnding::PoweredOff));
}

#[test]
fn registers_memory_and_code_are_shown() {
    let (output, _) = session(&["s 4", "r", "m 0x40080000 20", "d pc 2", "m x0", "r x2", "r nix"]);
    for part in [
        "x2 0000000000000005",
        "EL1h",
        "0x0000000040080000  00 20 a1 d2",
        "=> 0x0000000040080010",
        "sub x2, x2, #1",
        "address 0x9000000 is not mapped",
        "\nx2 0000000000000005\n",
        "unknown register nix",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
}

#[test]
fn smc_stops_and_what_is_wrong_is_told() {
    let (output, flow) = session(&["smc on", "smc on", "c", "u nowhere", "frob", "time real", "x"]);
    for part in [
        "already enabled",
        "(privileged call smc #0x12)",
        "nowhere is no address",
        "unknown command frob",
        "cannot do that",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
    assert_eq!(flow, Flow::Leave);
}

#[test]
fn a_guest_that_powers_off_ends_the_session() {
    assert_eq!(session(&["c"]).1, Flow::Ended(DomainEnding::PoweredOff));
}

#[test]
fn watched_memory_stops_before_the_access() {
    let lines =
        ["watch 0x41000000", "watch 0x41000000", "c", "unwatch 0x41000000", "unwatch sp", "n"];
    let (output, _) = session(&lines);
    assert_eq!(pcs(&output), [0, 0x38, 0x3c]);
    for part in ["(watchpoint at 0x41000000)", "it is there already"] {
        assert!(output.contains(part), "{part} in {output}");
    }
}

#[test]
fn breakpoints_stay_until_they_are_deleted() {
    let lines =
        ["break", "break 0x40080014", "c", "c", "u 0x40080014", "delete 1", "delete 1", "c"];
    let (output, flow) = session(&lines);
    // The loop's end is met twice, then run to, and no more.
    assert_eq!(pcs(&output), [0, 0x14, 0x14, 0x14]);
    assert_eq!(flow, Flow::Ended(DomainEnding::PoweredOff));
    for part in ["no breakpoint is set", "  1  0x0000000040080014  0x40080014\n", "no breakpoint 1"]
    {
        assert!(output.contains(part), "{part} in {output}");
    }
}

#[test]
fn a_guest_that_is_no_linux_is_told() {
    let lines =
        ["ps", "lsmod", "bt", "maps 1", "p current", "break module:symbol", "u module:symbol"];
    let (output, flow) = session(&lines);
    assert_eq!(output.matches("this guest is no Linux kernel with symbols").count(), 7, "{output}");
    assert_eq!(flow, Flow::More);
}

/// The fake, which goes back to its beginning by a checkpoint.
struct Again(Fake);

impl stepwell_replay::Machine for Again {
    fn debuggee(&mut self) -> &mut dyn Debuggee {
        &mut self.0
    }
    fn restart(&mut self) -> Result<(), Error> {
        panic!("it has a checkpoint of its beginning")
    }
}

/// As [`session`], in a replay of the guest up to its last instruction.
fn replayed(lines: &[&str]) -> String {
    let file = FileIdentity { path: "kernel".into(), sha256: String::new() };
    let header = stepwell_replay::Header {
        stepwell_replay: VERSION,
        cpu: "none".into(),
        vcpus: 1,
        memory_bytes: 0,
        schedule: "turns".into(),
        command_line: String::new(),
        raw: true,
        kernel: file,
        initrd: None,
        devicetree: None,
        disks: Vec::new(),
        entropy: None,
        hypervisor: String::new(),
        qemu: String::new(),
    };
    let mut log = Vec::new();
    let mut writer = Writer::new(&mut log, &header).unwrap();
    let how = "powered off".to_owned();
    writer.add(&Entry::Ended { position: 24, clock: 24, how }).unwrap();
    let script = Script::read(Reader::new(log.as_slice()).unwrap()).unwrap();
    let mut machine = Again(Fake::new(&contract::guest_bytes()));
    let mut navigator = Navigator::new(&mut machine, script, Keeping::default());
    let stop = contract::wait_for_stop(&mut navigator).0;
    let mut output = Vec::new();
    let mut stepper = Prompt::new(&mut navigator, Names::none(), stop, &mut output).unwrap();
    for line in lines {
        stepper.execute(line).unwrap();
    }
    drop(stepper);
    String::from_utf8(output).unwrap()
}

#[test]
fn a_replay_is_gone_back_in() {
    let lines = ["goto 20", "rn", "goto +6", "last 0x41000000", "ru 0x40080014", "rs 3", "rc", "s"];
    // Over the call as a whole; the store; the loop's last turn; and the beginning.
    assert_eq!(pcs(&replayed(&lines)), [0, 0x1c, 0x18, 0x1c, 0x38, 0x14, 0x10, 0, 4]);
}

#[test]
fn a_replay_says_where_it_is_and_where_it_ends() {
    let lines = ["when", "rs", "goto end", "s", "goto 24", "goto -3", "when", "last 0x41000800"];
    let output = replayed(&lines);
    assert_eq!(pcs(&output), [0, 0, 0x28, 0x28, 0x1c, 0]);
    for part in [
        "position 0 of 23, clock 0\n",
        "this is where the run begins",
        "this is where the recording ends",
        "the recording ends at position 23, before 24",
        "position 20 of 23, clock 20\n",
        "nothing has written there since the run began",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
}

#[test]
fn a_replay_is_changed_by_nothing_but_a_fork() {
    let output = replayed(&["t x", "fork", "t x", "goto 1", "t x"]);
    assert_eq!(output.matches("that would make another run").count(), 2, "{output}");
}

#[test]
fn moments_of_a_replay_have_names() {
    let output =
        replayed(&["goto 5", "snapshot here", "goto 20", "snapshots", "restore here", "when"]);
    assert!(output.contains("here  position 5, clock 5\n"), "{output}");
    assert!(output.contains("position 5 of 23"), "{output}");
    let output =
        replayed(&["fork", "s 2", "snapshot b", "goto 9", "snapshots", "restore b", "t x"]);
    assert!(output.contains("b  position 2, clock 2, not of the recorded run\n"), "{output}");
    assert!(!output.contains("another run of this one"), "it is the fork again: {output}");
    assert!(replayed(&["restore c"]).contains("nothing is called c"));
}

#[test]
fn only_a_replay_goes_back() {
    for line in [
        "snapshot a",
        "restore a",
        "snapshots",
        "rs",
        "rn",
        "rc",
        "ru 0x40080000",
        "goto 1",
        "when",
        "last sp",
        "fork",
    ] {
        assert!(session(&[line]).0.contains("only a replay goes back"), "{line}");
    }
}
