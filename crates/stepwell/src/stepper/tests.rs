//! The stepper on the fake, as transcripts.

use super::*;
use stepwell_arch::Ipa;
use stepwell_debuggee::{contract, fake::Fake};
use stepwell_replay::log::{Entry, FileIdentity, Reader, VERSION, Writer};
use stepwell_replay::{Keeping, Navigator, Script};

/// Feeds lines to a stepper that is stopped at reset; returns what it wrote and the last flow.
fn session(lines: &[&str]) -> (String, Flow) {
    session_with(Names::none(), lines)
}

/// As [`session`], with names for the guest.
fn session_with(names: Names, lines: &[&str]) -> (String, Flow) {
    let mut fake = Fake::new(&contract::guest_bytes());
    let stop = contract::wait_for_stop(&mut fake).0;
    let (mut output, mut flow) = (Vec::new(), Flow::More);
    let mut stepper = Prompt::new(&mut fake, names, stop, &mut output).unwrap();
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

/// The guest as if it were a kernel: its loop is its init section, which it frees where it calls its
/// function.
fn kernel() -> Names {
    let offset = |va: Va| va.0 - contract::ENTRY.0;
    let symbols = [
        (4, "_sinittext"),
        (4, "early"),
        (offset(contract::LOOP), "setup"),
        (offset(contract::CALL), "_einittext"),
        (offset(contract::CALL), "free_initmem"),
        (offset(contract::FUNCTION), "function"),
    ];
    Names::loaded_at(Ipa(contract::ENTRY.0), 0x44, &symbols)
}

#[test]
fn a_breakpoint_in_what_a_kernel_frees_is_told_of_once() {
    let lines = ["break setup", "break function", "c", "c", "c", "c", "c", "c", "break", "c"];
    let (output, flow) = session_with(kernel(), &lines);
    assert_eq!(pcs(&output), [0, 0x10, 0x10, 0x10, 0x10, 0x10, 0x30]);
    let told = "breakpoint 1 (setup) cannot be met any more: it is in the kernel's init section";
    assert_eq!(output.matches(told).count(), 1, "{output}");
    assert!(output.contains("  1  freed               setup\n"), "{output}");
    assert!(output.contains("  2  0x0000000040080030  function\n"), "{output}");
    assert_eq!(flow, Flow::Ended(DomainEnding::PoweredOff));
}

#[test]
fn a_place_that_is_freed_before_it_is_met_is_waited_for_no_longer() {
    let (output, flow) = session_with(kernel(), &["s 4", "u early", "u function"]);
    assert_eq!(pcs(&output)[4..], [0x10, 0x18, 0x30]);
    assert!(output.contains("early cannot be met any more"), "{output}");
    assert_eq!(flow, Flow::More);
}

#[test]
fn a_kernel_that_executes_another_takes_its_names_with_it() {
    let offset = contract::FUNCTION.0 - contract::ENTRY.0;
    let symbols = [(offset, "machine_kexec"), (offset + 4, "next"), (offset + 12, "late")];
    let names = Names::loaded_at(Ipa(contract::ENTRY.0), 0x44, &symbols);
    let lines = ["break next", "break 0x4008003c", "c", "break", "u late", "r", "c"];
    let (output, flow) = session_with(names, &lines);
    assert_eq!(pcs(&output), [0, 0x3c], "{output}");
    for part in [
        "breakpoint 1 (next) cannot be met any more: it is a name of the kernel that kexec replaces",
        "  1  replaced            next\n",
        "  2  0x000000004008003c  0x4008003c\n",
        "late is a name of the kernel that kexec has replaced",
        "pc 000000004008003c  ?",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
    assert_eq!(flow, Flow::Ended(DomainEnding::PoweredOff));
}

#[test]
fn a_place_that_is_never_met_is_told() {
    let (output, flow) = session(&["u 0x4008002c"]);
    assert!(output.contains("the guest ended before it came to 0x4008002c"), "{output}");
    assert_eq!(flow, Flow::NeverMet(DomainEnding::PoweredOff));
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
    replayed_with(Names::none(), lines)
}

/// As [`replayed`], with names for the guest.
fn replayed_with(names: Names, lines: &[&str]) -> String {
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
    let mut stepper = Prompt::new(&mut navigator, names, stop, &mut output).unwrap();
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
fn what_was_freed_is_there_again_where_a_replay_is_gone_back_in() {
    let lines = ["goto 10", "break setup", "c", "c", "break", "goto 0", "break", "c"];
    let output = replayed_with(kernel(), &lines);
    assert_eq!(pcs(&output), [0, 0x10, 0x10, 0x28, 0, 0x10], "{output}");
    assert_eq!(output.matches("breakpoint 1 (setup) cannot be met").count(), 1, "{output}");
    assert_eq!(output.matches("  1  freed               setup\n").count(), 1, "{output}");
    assert_eq!(output.matches("  1  0x0000000040080010  setup\n").count(), 2, "{output}");
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
