//! What a guest finds that no instruction set describes: the firmware's answers, what CPU_ON
//! resets, and a timer whose compare value is near the end of what 64 bits hold.
//!
//! Plain QEMU is the board that is to be matched.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use stepwell_arch::SystemRegister;
use stepwell_debuggee::{Debuggee, StepRequest, StopReason, VcpuId, contract};
use stepwell_link::Link;
use stepwell_tests::guest::Guest;
use stepwell_tests::machine::launch;
use stepwell_tests::plain::{Setup, console};
use stepwell_tests::process::run;
use stepwell_tests::stepwell::{command, run_guest};

/// Plain QEMU takes seconds for what writes over its own code all the time, and a busy host many times that.
const LIMIT: Duration = Duration::from_secs(1500);
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };

/// A guest's lines, of which the last is that of its success.
fn lines(guest: &Guest, console: &str) -> Vec<String> {
    assert!(guest.succeeded(console), "{}", console.lines().last().unwrap_or_default());
    let without_prefix = |line: &str| line.trim().trim_start_matches("guest| ").to_owned();
    console.lines().map(without_prefix).filter(|line| line.contains(" 0x")).collect()
}

fn demand_equal(what: &str, plain: &[String], seen: &[String]) {
    let other = |line: &&String| !seen.contains(line);
    let missing: Vec<_> = plain.iter().filter(other).collect();
    assert_eq!(missing, Vec::<&String>::new(), "{what}: plain QEMU says these");
    assert_eq!(plain.len(), seen.len(), "{what}");
}

#[test]
fn the_firmware_answers_as_the_boards_does() {
    let guest = Guest::named("firmware");
    let setup = Setup { memory_mib: 64, ..Setup::new(&guest.path) };
    let plain = lines(&guest, &console(&setup, LIMIT).unwrap().stdout);
    assert!(plain.len() > 1000, "{}", plain.len());
    demand_equal("unstepped", &plain, &lines(&guest, &run_guest(&setup, LIMIT).unwrap().stdout));
    // CPU_SUSPEND waits for an interrupt: under `hold` there is none to wait for.
    let folder = tempfile::tempdir().unwrap();
    let mut trace = command("trace", &setup);
    trace.args(["--at", "reset", "--steps", "100000000", "--irq", "into", "-o"]);
    let finished = run(trace.arg(folder.path().join("x.stw")), LIMIT).unwrap();
    demand_equal("stepped", &plain, &lines(&guest, &finished.stdout));
}

fn a_cpu_is_as_new_after_cpu_on(cpu: &'static str) {
    let guest = Guest::named("cpu_reset");
    let setup = Setup { cpu, smp: 2, memory_mib: 64, ..Setup::new(&guest.path) };
    let plain =
        Setup { cpu: if cpu == "max" { "max,pauth-impdef=on" } else { cpu }, ..setup.clone() };
    let mut plain = lines(&guest, &console(&plain, LIMIT).unwrap().stdout);
    let mut seen = lines(&guest, &run_guest(&setup, LIMIT).unwrap().stdout);
    // RVBAR_EL1 and RMR_EL1 are where EL1 is the highest exception level, and NMI is not offered:
    // see `encodings`. The last line has the number of registers.
    let different = [
        SystemRegister::RVBAR_EL1.0,
        SystemRegister::RVBAR_EL1.0 + 1,
        SystemRegister::ID_AA64PFR1_EL1.0,
    ]
    .map(|register| format!("{register:#x} "));
    let is_same = |line: &String| {
        !line.starts_with("cpu_reset") && !different.iter().any(|start| line.starts_with(start))
    };
    plain.retain(is_same);
    seen.retain(is_same);
    assert!(plain.len() > 150, "{}", plain.len());
    demand_equal(cpu, &plain, &seen);
}

#[test]
fn every_register_of_a_cortex_a57_is_reset_by_cpu_on() {
    a_cpu_is_as_new_after_cpu_on("cortex-a57");
}

#[test]
fn every_register_of_the_newest_cpu_is_reset_by_cpu_on() {
    a_cpu_is_as_new_after_cpu_on("max");
}

/// Sets both timers, again and again, to compare values from all ones downwards.
fn late_deadlines() -> Vec<u8> {
    let set = |register: SystemRegister, rt| register.msr(rt);
    let words = [
        0x9280_0000, // movn x0, #0
        0xd280_0021, // mov  x1, #1
        set(SystemRegister::CNTV_CVAL_EL0, 0),
        set(SystemRegister::CNTV_CTL_EL0, 1),
        set(SystemRegister::CNTP_CVAL_EL0, 0),
        set(SystemRegister::CNTP_CTL_EL0, 1),
        0xd100_0400, // sub  x0, x0, #1
        0x17ff_fffb, // b    to the first MSR
    ];
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// QEMU 7.2 hangs for good where a compare value and CNTVOFF_EL2 add up to more than 64 bits.
#[test]
fn a_deadline_near_the_end_of_time_survives_stops() {
    let (_machine, mut link) = launch(&late_deadlines(), "cortex-a57", 1).unwrap();
    contract::wait_for_stop(&mut link);
    let mut before = u64::MAX;
    let mut stops = 0;
    let started = Instant::now();
    while stops < 5 {
        assert!(started.elapsed() < LIMIT, "it went on {stops} times");
        link.resume(0).unwrap();
        thread::sleep(Duration::from_millis(50));
        link.pause(0).unwrap();
        assert_eq!(contract::wait_for_stop(&mut link).0.reason, StopReason::Paused);
        // What was taken out of the guest's time meanwhile is what would make the sum wrap.
        thread::sleep(Duration::from_millis(50));
        let x0 = link.read_registers(V0).unwrap().x[0];
        // On a busy host it may not have come to its first deadline, or to its next.
        if x0 >> 63 == 0 || x0 == before {
            continue;
        }
        stops += 1;
        let system = link.support_system_registers().unwrap();
        for register in [SystemRegister::CNTV_CVAL_EL0, SystemRegister::CNTP_CVAL_EL0] {
            let value = system.read_system_register(V0, register.0).unwrap();
            assert!(value == x0 || value == x0 + 1, "{register}: {value:#x}, written {x0:#x}");
        }
        assert!(x0 < before, "it went on");
        before = x0;
    }
}

/// Calls CPU_SUSPEND where nothing ever wakes the CPU, then counts in X19.
fn sleeper() -> Vec<u8> {
    let words: [u32; 7] = [
        0x52b0_8000, // mov  w0, #0x84000000
        0x2a00_03e0, // mov  w0, w0
        0x9100_0400, // add  x0, x0, #1
        0xd280_0001, // mov  x1, #0
        0xd400_0002, // hvc  #0
        0x9100_0673, // add  x19, x19, #1
        0x17ff_ffff, // b    to the addition
    ];
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Neither a stop nor a step is what CPU_SUSPEND waits for; a debugger that moves the PC ends it.
#[test]
fn a_suspended_cpu_stays_so_over_stops_and_steps() {
    let (_machine, mut link) = launch(&sleeper(), "cortex-a57", 1).unwrap();
    let entry = contract::wait_for_stop(&mut link).0.pc;
    let stop = |link: &mut Link| {
        let started = Instant::now();
        let stop = loop {
            thread::sleep(Duration::from_millis(50));
            link.pause(0).unwrap();
            let stop = contract::wait_for_stop(link).0;
            // On a busy host it may not have come there.
            if stop.pc.0 >= entry.offset(20).0 || started.elapsed() > LIMIT {
                break stop;
            }
            link.resume(0).unwrap();
        };
        assert_eq!((stop.reason, stop.pc), (StopReason::Paused, entry.offset(20)));
        let registers = link.read_registers(V0).unwrap();
        assert_eq!((registers.x[0], registers.x[19]), (0, 0), "SUCCESS, and nothing counted");
        registers
    };
    for _ in 0..2 {
        link.resume(0).unwrap();
        stop(&mut link);
        link.step(V0, StepRequest::steps(1)).unwrap();
        stop(&mut link);
    }
    let mut registers = link.read_registers(V0).unwrap();
    registers.pc = entry.offset(20).0;
    registers.x[19] = 7;
    link.write_registers(V0, &registers).unwrap();
    link.step(V0, StepRequest::steps(3)).unwrap();
    // It is still within the call: the PC is what it was.
    link.pause(0).unwrap();
    assert_eq!(contract::wait_for_stop(&mut link).0.steps, 0);
    registers.pc = entry.offset(24).0;
    link.write_registers(V0, &registers).unwrap();
    link.step(V0, StepRequest::steps(2)).unwrap();
    assert_eq!(contract::wait_for_stop(&mut link).0.reason, StopReason::Stepped);
    assert_eq!(link.read_registers(V0).unwrap().x[19], 8);
}
