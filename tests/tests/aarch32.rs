//! AArch32 at EL0, stepped: A32 and T32 under a 64-bit kernel.
//!
//! The guest `aarch32` checks its own results and what each exception says; here the instructions
//! that it executes are compared with what QEMU reports of them without Stepwell, and it is stepped
//! under every policy.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::{Guest, LOAD};
use stepwell_tests::plain::{Setup, console, dump_device_tree, witness};
use stepwell_tests::process::run;
use stepwell_tests::stepwell::{
    Recording, binary, command, record, run_guest, show, type_at_stepper,
};
use stepwell_tests::stream::demand_equal;

const LIMIT: Duration = Duration::from_secs(180);
/// The guest executes less than that before `exact_end`.
const STEPS: usize = 20_000;

fn setup(guest: &Guest, cpu: &'static str) -> Setup {
    Setup { cpu, ..Setup::new(&guest.path) }
}

/// Compares all instructions up to `exact_end`.
fn is_exact(cpu: &'static str) {
    let guest = Guest::named("aarch32");
    let setup = setup(&guest, cpu);
    let folder = tempfile::tempdir().unwrap();
    let dtb = folder.path().join("plain.dtb");
    dump_device_tree(&setup, &dtb).unwrap();
    let seen = witness(&setup, LOAD, STEPS, LIMIT).unwrap().swap_remove(0);
    let wanted = Recording { at: "reset", steps: STEPS, irq: "hold", dtb: Some(&dtb) };
    let taken = record(&setup, wanted, LIMIT).unwrap();
    let end = guest.exact_end.unwrap();
    assert!(seen.contains(&end) && taken.contains(&end), "neither ends before");
    // Fetches that abort: a stepper stops at the address, QEMU never reports it.
    let is_memory = |pc: &u64| *pc >= 0x4000_0000;
    let [witnessed, recorded] = [&seen, &taken].map(|stream| {
        let exact = guest.exact_part(stream);
        exact.into_iter().filter(is_memory).collect::<Vec<_>>()
    });
    let halves = recorded.iter().filter(|pc| *pc & 3 == 2).count();
    assert!(halves > 100, "T32 executes: {halves} of its instructions are no multiple of 4");
    let length = witnessed.len();
    if let Err(text) = demand_equal(length, ("witness", &witnessed), ("stepwell", &recorded)) {
        panic!("{cpu}: {text}");
    }
}

#[test]
fn every_instruction_is_the_witness_s_on_a_cortex_a57() {
    is_exact("cortex-a57");
}

#[test]
fn every_instruction_is_the_witness_s_on_the_newest_cpu() {
    is_exact("max");
}

/// What the guest prints on plain QEMU, where it is known to be right.
fn expected_line(setup: &Setup) -> String {
    let console = console(setup, LIMIT).unwrap().stdout;
    console.lines().find(|line| line.starts_with("aarch32: ok ")).unwrap().trim().to_owned()
}

#[test]
fn unstepped_and_stepped_to_its_end_it_says_the_same() {
    let guest = Guest::named("aarch32");
    let setup = setup(&guest, "cortex-a57");
    let line = expected_line(&setup);
    let free = run_guest(&setup, LIMIT).unwrap();
    assert!(free.stdout.contains(&line), "{}", free.output());
    for (irq, time) in [("into", "stopped"), ("into", "per-step=100")] {
        let folder = tempfile::tempdir().unwrap();
        let mut trace = command("trace", &setup);
        trace.args(["--at", "reset", "--steps", "100000000", "--irq", irq, "--time", time]);
        let finished = run(trace.arg("-o").arg(folder.path().join("a")), LIMIT).unwrap();
        assert!(finished.output().contains(&line), "{irq} {time}: {}", finished.output());
    }
}

/// EL0 has its code in an alias of RAM.
const EL0_ALIAS: u64 = 0x8000_0000;
/// That is so far from where EL1 has it.
const EL0_ALIAS_OFFSET: u64 = 0x4000_0000;

#[test]
fn a_handler_that_is_run_over_returns_to_between_two_thumb_instructions() {
    let guest = Guest::named("aarch32");
    let setup = setup(&guest, "cortex-a57");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("over");
    let symbols = guest.path.with_extension("elf");
    let mut trace = command("trace", &setup);
    trace.arg("--symbols").arg(&symbols).args(["--at", "t32_contended+0x40000000"]);
    trace.args(["--steps", "3000", "--irq", "over", "-o"]).arg(&file);
    let finished = run(&mut trace, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    let steps = show(&file).unwrap();
    assert_eq!(steps.len(), 3000);
    assert!(steps.iter().all(|pc| *pc >= EL0_ALIAS), "no instruction of the handler's");
    let mut disassembly = std::process::Command::new(binary());
    disassembly.arg("show").arg(&file).args(["--format", "disasm"]);
    let text = run(&mut disassembly, LIMIT).unwrap().stdout;
    assert!(text.contains("interrupted here"), "none came");
    assert!(text.contains(" e8401202 strex r2, r1, [r0, #8]"), "{text}");
    assert!(!text.contains(".inst"), "everything is an instruction");
}

/// Values that the stepper's `r pc` printed.
fn program_counters(said: &str) -> Vec<u64> {
    let values =
        said.lines().filter_map(|line| line.trim_start_matches("(stepwell) ").strip_prefix("pc "));
    values.filter_map(|value| u64::from_str_radix(value.trim(), 16).ok()).collect()
}

#[test]
fn the_stepper_shows_thumb_instructions_and_stops_between_them() {
    let guest = Guest::named("aarch32");
    let setup = setup(&guest, "cortex-a57");
    let symbols = guest.path.with_extension("elf");
    let options = ["--symbols", symbols.to_str().unwrap(), "--at", "reset"];
    // EL0 has the code in an alias. The first instruction has 2 bytes, the next three have 4.
    let places = [("t32_code+0x40000000", 2), ("t32_code+0x4000000a", 4)];
    for (place, bytes) in places {
        let script = format!("u {place}\nr pc\ns\nr pc\nc\n");
        let said = type_at_stepper(&setup, &options, &script, LIMIT).unwrap().output();
        let pcs = program_counters(&said);
        assert_eq!(pcs.len(), 2, "{said}");
        assert_eq!(pcs[1] - pcs[0], bytes, "{said}");
        assert!(said.contains("ldr r7, [r0, #0x30]") || bytes == 4, "{said}");
        assert!(said.contains("aarch32: ok "), "{said}");
    }
}

#[test]
fn from_a_stop_in_aarch32_code_the_guest_runs_to_the_next_one() {
    let guest = Guest::named("aarch32");
    let setup = setup(&guest, "cortex-a57");
    let symbols = guest.path.with_extension("elf");
    let options = ["--symbols", symbols.to_str().unwrap(), "--at", "reset"];
    let words = ["a32_code", "a32_code+0x10", "t32_code", "t32_code+0x10", "t32_code+0x12"];
    let alias = |word: &str| match word.split_once("+0x") {
        None => format!("{word}+{EL0_ALIAS_OFFSET:#x}"),
        Some((name, offset)) => format!("{name}+0x400000{offset}"),
    };
    let script: String = words.iter().map(|word| format!("u {}\nr pc\n", alias(word))).collect();
    // And to EL1 from there.
    let said = type_at_stepper(&setup, &options, &(script + "u exact_end\nr pc\nc\n"), LIMIT);
    let said = said.unwrap().output();
    let pcs = program_counters(&said);
    let [a32, a32_next, t32, next, after, end] = pcs[..] else { panic!("{pcs:x?}: {said}") };
    assert_eq!((a32_next - a32, next - t32, after - t32), (0x10, 0x10, 0x12), "{said}");
    assert_eq!(Some(end), guest.exact_end, "{said}");
    assert!(said.contains("aarch32: ok "), "{said}");
}
