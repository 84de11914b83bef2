//! Machines of the host's own, by KVM, in an emulated host: the contract, the streams of bare-metal guests,
//! which are those under QEMU, several vCPUs, Debian as a guest, and what goes wrong.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use stepwell_debuggee::{
    Debuggee, Event, InterruptPolicy, StepRequest, TraceRecord, VcpuId, contract,
};
use stepwell_tests::debian::TROUBLE;
use stepwell_tests::debugger::{self, Served};
use stepwell_tests::emulated_host::{Done, Host, Setup};
use stepwell_tests::guest::{Guest, LOAD, folder};
use stepwell_tests::machine::launch;
use stepwell_tests::process::run;
use stepwell_tests::stream::without_interrupts;

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
const LIMIT: Duration = Duration::from_secs(60);
/// What a host may take for all of it, on a busy machine.
const HOST_LIMIT: Duration = Duration::from_secs(900);
const MATRIX_LIMIT: Duration = Duration::from_secs(1800);
/// Instructions in a turn of the guests' counting loops.
const TURN: usize = 3;
/// A CPU with VHE, where KVM's entries cost a fraction.
const VHE: &str = "cortex-a76";
/// A place in a system call that the guest's start script makes.
const PLACE: &str = "__arm64_sys_newuname";
const DEBIAN: &str = "--kernel /guests/debian/vmlinuz --initrd /guests/debian/initramfs.cpio.gz \
    --append 'console=ttyAMA0 quiet stepwell.poweroff'";

/// What the emulated host tells of streams: a guest, how many instructions, and their hash.
fn told(said: &str) -> Vec<(String, u64, u64)> {
    let line = |line: &str| {
        let (_, words) = line.split_once("stream ")?;
        let mut words = words.split_whitespace();
        let (name, count, hash) = (words.next()?, words.next()?, words.next()?);
        let hash = u64::from_str_radix(hash.trim_start_matches("0x"), 16).ok()?;
        Some((name.to_owned(), count.parse().ok()?, hash))
    };
    said.lines().filter_map(line).collect()
}

/// The hash of as many instructions of the guest under QEMU.
fn hash_under_qemu(name: &str, count: u64) -> (u64, u64) {
    let image = std::fs::read(folder().join(format!("{name}.bin"))).unwrap();
    let (_machine, mut link) = launch(&image, "cortex-a57", 1).unwrap();
    contract::wait_for_stop(&mut link);
    let interrupts = link.support_interrupts().unwrap();
    interrupts.set_interrupt_policy(0, InterruptPolicy::Hold).unwrap();
    link.step(V0, StepRequest { record: true, ..StepRequest::steps(count) }).unwrap();
    while !matches!(link.wait(LIMIT).unwrap().unwrap(), Event::Stopped(_) | Event::Ended { .. }) {}
    let mut records = Vec::new();
    link.support_trace().unwrap().drain(&mut records).unwrap();
    let (mut found, mut hash) = (0, 0xcbf2_9ce4_8422_2325_u64);
    for record in records {
        let TraceRecord::Run { pc, length, .. } = record else { continue };
        for n in 0..u64::from(length) {
            found += 1;
            hash = (hash ^ (pc.0 + 4 * n)).wrapping_mul(0x100_0000_01b3);
        }
    }
    (found, hash)
}

/// The contract, and guests that need no interrupt controller.
fn contract_and_streams(host: &mut Host) {
    let done = host.sh("STEPWELL_GUESTS=/guests kvm-tests --nocapture --test-threads 1");
    println!("{}", done.text);
    assert_eq!(done.status, 0, "a test failed in the emulated host: {}", done.text);
    let streams = told(&done.text);
    assert!(streams.len() >= 4, "{streams:?}");
    for (name, count, hash) in streams {
        assert_eq!(hash_under_qemu(&name, count), (count, hash), "{name}");
    }
}

/// Types a script, with `\n` between its lines, at the stepper.
fn step(host: &mut Host, options: &str, script: &str) -> Done {
    host.sh(&format!("printf '{script}' | stepwell step --machine kvm {options} 2>&1"))
}

fn bare(guest: &Guest) -> String {
    format!("--kernel /guests/{}.bin --memory 64M", guest.name)
}

/// What a recording of `steps` steps from `at` on has of vCPU 0.
fn recorded(host: &mut Host, guest: &Guest, options: &str) -> Vec<u64> {
    let trace = format!("stepwell trace --machine kvm {} {options} --quiet", bare(guest));
    let done = host.sh(&format!("{trace} -o /tmp/r && stepwell show --format pc /tmp/r"));
    assert_eq!(done.status, 0, "{options}: {}", done.text);
    let pc = |line: &str| u64::from_str_radix(line.strip_prefix("0 ")?, 16).ok();
    done.text.lines().filter_map(pc).collect()
}

/// Every turn of the loop in order, and nothing else.
fn is_the_loop(stream: &[u64], start: u64) {
    for (step, &pc) in stream.iter().enumerate() {
        let wanted = start + 4 * (step % TURN) as u64;
        assert_eq!(pc, wanted, "step {step} is at {pc:#x} instead of {wanted:#x}");
    }
}

/// MSR DAIFClr, #2.
const UNMASK: [u8; 4] = 0xd503_42ff_u32.to_le_bytes();

/// Where a guest unmasks interrupts: before, none of its timers' has come.
fn unmasks(guest: &Guest) -> u64 {
    let image = std::fs::read(&guest.path).unwrap();
    let places = image.chunks_exact(4).enumerate().filter(|(_, word)| *word == UNMASK);
    let places: Vec<u64> = places.map(|(n, _)| LOAD + 4 * n as u64).collect();
    assert_eq!(places.len(), 1, "{}", guest.name);
    places[0]
}

/// The scenario that Stepwell comes from, and a timer that is pending at every instruction. The former is not
/// let go: an emulated host takes longer for an entry than its timer's 50 us, so that the guest would do
/// nothing but tick.
fn interrupts(host: &mut Host) {
    for (name, policies) in
        [("seed", ["hold", "over", "into"].as_slice()), ("irq_storm", &["hold"])]
    {
        let guest = Guest::named(name);
        let (at, counting) = (unmasks(&guest), guest.counting_loop.clone().unwrap());
        for irq in policies {
            let stream = recorded(host, &guest, &format!("--at {at:#x} --steps 2000 --irq {irq}"));
            // Entering a handler is a step, too.
            let entered = if *irq == "into" { 20 } else { 0 };
            assert!((2000 - entered..=2000).contains(&stream.len()), "{}", stream.len());
            let vectors = guest.interrupt_vectors();
            let entries = stream.iter().filter(|&&pc| pc == vectors[0]).count();
            assert_eq!(entries > 0, *irq == "into", "{name}, {irq}: {entries} entries");
            let main = without_interrupts(&stream, &vectors, guest.interrupt_return());
            let inside: Vec<u64> = main.into_iter().filter(|pc| counting.contains(pc)).collect();
            assert!(inside.len() > 1000, "{name}, {irq}: {} steps in the loop", inside.len());
            is_the_loop(&inside, counting.start);
        }
    }
    // Let go after such steps all of the interrupts come.
    let storm = Guest::named("irq_storm");
    let options = format!("{} --at {:#x} --irq hold", bare(&storm), unmasks(&storm));
    let done = step(host, &options, "s 1000\\nc\\n");
    assert!(storm.succeeded(&done.text), "{}", done.text);
}

/// Every lock, counter and list with each width of exclusive, from four vCPUs.
fn several_vcpus(host: &mut Host) {
    let hammer = Guest::named("hammer");
    let options = format!("{} --smp 4 --irq into", bare(&hammer));
    let run = host.sh(&format!("stepwell run --machine kvm {} --smp 4 2>&1", bare(&hammer)));
    assert!(run.text.contains("hammer: ok 0x400"), "run: {}", run.text);
    let script = "s 3000\\nothers step\\ns 3000\\nvcpu 1\\ns 500\\nothers run\\ns 3000\\n\
                  others stop\\ns 500\\nc\\n";
    let done = step(host, &options, script);
    assert!(done.text.contains("hammer: ok 0x400"), "stepped: {}", done.text);
    // From where all of them are in the middle of it.
    let elf = std::fs::read(folder().join("hammer.elf")).unwrap();
    let symbols = stepwell_trace::symbols::elf::from_elf(&elf).unwrap();
    let at = symbols.address_of("hammer_stack").unwrap().0;
    let script =
        "others step\\ns 4000\\nvcpu 2\\nothers run\\ns 2000\\nothers stop\\ns 1000\\nc\\n";
    let done = step(host, &format!("{options} --at {at:#x}"), script);
    assert!(done.text.contains("hammer: ok 0x400"), "from the middle: {}", done.text);
}

/// Demands that Debian came to its shell and powered off, and had nothing to complain of.
fn came_through(done: &Done) {
    for words in ["stepwell-demo: shell is up", "reboot: Power down"] {
        assert!(done.text.contains(words), "no {words:?} in {}", done.text);
    }
    for trouble in TROUBLE {
        assert!(!done.text.contains(trouble), "{trouble}: {}", done.text);
    }
    assert_eq!(done.status, 0, "{}", done.text);
}

/// Debian's kernel as a guest, by itself and stepped.
fn debian(host: &mut Host, vcpus: u8, steps: u32) {
    let options = format!("{DEBIAN} --smp {vcpus} --memory 256M");
    came_through(&host.sh(&format!("stepwell run --machine kvm {options} 2>&1")));
    let script = format!("s {steps}\\nc\\n");
    let done = step(host, &format!("{options} --at {PLACE} --irq over"), &script);
    came_through(&done);
    assert!(done.text.contains("the guest powered off"), "{}", done.text);
    // With its timer live, none of the steps is in the vector of an interrupt, from EL1 or EL0.
    let trace = format!("stepwell trace --machine kvm {options} --at {PLACE} --steps {steps}");
    let vectors = " vectors+0x[24][89a-f]";
    let shown =
        format!("stepwell show /tmp/d >/tmp/s; grep -vc '^#' /tmp/s; grep -c '{vectors}' /tmp/s");
    let done = host.sh(&format!("{trace} --irq over --quiet -o /tmp/d >/tmp/o && {shown}"));
    let counts: Vec<&str> = done.text.lines().collect();
    assert_eq!(counts, [steps.to_string().as_str(), "0"], "{}", host.sh("cat /tmp/o").text);
}

/// In Debian as a guest with a disk of 4 MiB: fills it, and reads back what the cache has let go. Says the sum
/// of what it wrote, and of what it read.
const DISK: &str = "mount -t devtmpfs dev /dev; mount -t proc proc /proc; load-modules; \
                    cat /bin/* | head -c 4194304 >/wrote; \
                    dd if=/wrote of=/dev/vda bs=64k 2>/dev/null; sync; \
                    echo 3 >/proc/sys/vm/drop_caches; \
                    md5sum </wrote; md5sum </dev/vda; poweroff -f";

/// In Debian as a guest with a folder of the host's.
const SHARED: &str = "mount -t devtmpfs dev /dev; mount -t proc proc /proc; load-modules; mkdir -p /mnt; \
                      mount -t virtiofs share /mnt; cat /mnt/old; \
                      echo from the guest >/mnt/new; poweroff -f";

/// Debian with a disk, freely and stepped before: what it wrote is what it reads, and what the image has.
fn disks(host: &mut Host, vcpus: u8) {
    let append = format!("'console=ttyAMA0 quiet rdinit=/bin/sh -- -c \"{DISK}\"'");
    let guest = "--kernel /guests/debian/vmlinuz --initrd /guests/debian/initramfs.cpio.gz";
    let options = format!("{guest} --append {append} --memory 256M --smp {vcpus} --disk /tmp/disk");
    let is_sum = |word: &&str| word.len() == 32 && word.chars().all(|c| c.is_ascii_hexdigit());
    for way in [
        format!("stepwell run --machine kvm {options} 2>&1"),
        format!(
            "printf 's 5000\\nc\\n' | \
             stepwell step --machine kvm {options} --at {PLACE} --irq over 2>&1"
        ),
    ] {
        let new = "dd if=/dev/zero of=/tmp/disk bs=1M count=4 2>/dev/null";
        let done = host.sh(&format!("{new}; {way}; md5sum </tmp/disk"));
        let sums: Vec<&str> = done.text.split_whitespace().filter(is_sum).collect();
        let [written, read, image] = sums[..] else { panic!("{way}: {}", done.text) };
        assert!(written == read && read == image, "{way}: {}", done.text);
    }
    let twice = host.sh(&format!("stepwell run --machine kvm {options} --disk /tmp/disk 2>&1"));
    assert!(twice.status == 1 && twice.text.contains("/tmp/disk"), "{}", twice.text);
}

/// Debian with a folder of the host's, in which it reads and writes.
fn shares(host: &mut Host) {
    let append = format!("'console=ttyAMA0 quiet rdinit=/bin/sh -- -c \"{SHARED}\"'");
    let guest = "--kernel /guests/debian/vmlinuz --initrd /guests/debian/initramfs.cpio.gz";
    let run = format!(
        "stepwell run --machine kvm {guest} --append {append} --memory 256M --share /tmp/shared,write"
    );
    let folder = "mkdir /tmp/shared; echo from the host >/tmp/shared/old";
    let done = host.sh(&format!("{folder}; {run} 2>&1; cat /tmp/shared/new"));
    for words in ["from the host", "from the guest"] {
        assert!(done.text.contains(words), "no {words:?} in {}", done.text);
    }
    assert_eq!(done.status, 0, "{}", done.text);
}

/// What goes wrong is told in a line, or ends cleanly; nothing is left behind.
fn bad_days(host: &mut Host) {
    let run = format!("stepwell run --machine kvm {}", bare(&Guest::named("bare_loop")));
    let mut fails = |line: &str, words: &str| {
        let done = host.sh(line);
        assert_eq!((done.status, done.text.lines().count()), (1, 1), "{line}: {}", done.text);
        assert!(done.text.contains(words), "{line}: {}", done.text);
    };
    fails(
        &format!("mv /dev/kvm /dev/k; {run} 2>&1; s=$?; mv /dev/k /dev/kvm; (exit $s)"),
        "no /dev/kvm",
    );
    let users = "echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd; echo kvm:x:104: >/etc/group; \
                 chown 0:104 /dev/kvm; chmod 660 /dev/kvm";
    fails(&format!("{users}; su nobody -c '{run}' 2>&1"), "usermod -aG kvm USER");
    let more = run.replace("64M", "512M");
    fails(&format!("(ulimit -v 300000; {more} 2>&1)"), "give it less");
    fails(&format!("{run} --cpus 1 2>&1"), "--cpus");
    // Ctrl-C while it runs, and after a hundred of the signals by which vCPUs are called.
    let storm =
        "n=0; while [ $n -lt 100 ]; do kill -37 $p; n=$((n+1)); done; kill -INT $p; wait $p";
    let done = host.sh(&format!("{run} </dev/null >/tmp/o 2>&1 & p=$!; sleep 2; {storm}"));
    assert_eq!(done.status, 130, "{}{}", done.text, host.sh("cat /tmp/o").text);
    // Ctrl-C while it is traced: what was taken so far is kept.
    let trace = run.replace(" run ", " trace --steps 100000000 --quiet -o /tmp/r ");
    let done = host.sh(&format!("{trace} >/tmp/o 2>&1 & p=$!; sleep 6; kill -INT $p; wait $p"));
    let said = host.sh("cat /tmp/o").text;
    assert!(done.status == 0 && said.contains(" steps, "), "{}{said}", done.text);
    // Ctrl-C, and other ways to be asked to go, in each state.
    let options = format!("--machine kvm {}", bare(&Guest::named("bare_loop")));
    for (how, signal, status) in [
        ("stepwell gdb OPTIONS --wait >/tmp/o", "INT", 130),
        ("(sleep 30) | stepwell step OPTIONS >/tmp/o", "INT", 130),
        // It stops where it is, and nothing is typed there.
        ("stepwell step OPTIONS --at 0x12345678 </dev/null >/tmp/o", "INT", 0),
        ("stepwell run OPTIONS </dev/null >/tmp/o", "TERM", 130),
        ("stepwell run OPTIONS </dev/null >/tmp/o", "HUP", 130),
    ] {
        let line = how.replace("OPTIONS", &options);
        let done = host.sh(&format!("{line} 2>&1 & p=$!; sleep 6; kill -{signal} $p; wait $p"));
        let said = host.sh("cat /tmp/o").text;
        assert_eq!(done.status, status, "{signal}: {line}: {}{said}", done.text);
        assert!(!said.contains("panicked"), "{signal}: {line}: {said}");
    }
    // A stepped guest is stopped first, and the stepper goes on to take what is typed.
    let stepping = format!("(printf 's 100000000\\n'; sleep 30) | stepwell step {options} >/tmp/o");
    let twice = "sleep 5; kill -INT $p; sleep 2; kill -INT $p; wait $p";
    let done = host.sh(&format!("{stepping} 2>&1 & p=$!; {twice}"));
    let said = host.sh("cat /tmp/o").text;
    assert!(done.status == 130 && said.contains("(paused)"), "{}{said}", done.text);
    // Killed outright.
    let count = "ps | grep -c '[s]tepwell run'";
    let kill = format!("{run} >/tmp/o 2>&1 & p=$!; sleep 2; kill -9 $p; wait $p; {count}");
    assert_eq!(host.sh(&kill).text.lines().last(), Some("0"), "something is left behind");
}

#[test]
fn the_same_loop_runs_under_kvm() {
    let mut host = Host::boot(&Setup::new(1), HOST_LIMIT);
    contract_and_streams(&mut host);
    let machines = host.sh("stepwell machines");
    assert!(machines.text.contains("kvm    /dev/kvm; chosen by itself"), "{}", machines.text);
    assert!(machines.text.contains("qemu   no: "), "{}", machines.text);
    interrupts(&mut host);
    bad_days(&mut host);
    assert!(host.finish(LIMIT).status.success());
}

#[test]
fn several_vcpus_run_under_kvm() {
    let mut host = Host::boot(&Setup { gic: 2, ..Setup::new(4) }, HOST_LIMIT);
    several_vcpus(&mut host);
    assert!(host.finish(LIMIT).status.success());
}

/// The kernel of a host that is newer than Debian 12's: Debian 13's, 6.12.
fn newer() -> PathBuf {
    folder().join("debian13/vmlinuz")
}

/// Debian on one vCPU and on two, on a host with VHE. On two the guest's clock goes on while their registers
/// come and go, so that it wants a machine that is not busy with something else.
fn debian_on(kernel: PathBuf) {
    let mut host = Host::boot(&Setup { cpu: VHE, kernel, gic: 2, ..Setup::new(2) }, MATRIX_LIMIT);
    debian(&mut host, 1, 20_000);
    debian(&mut host, 2, 20_000);
    disks(&mut host, 2);
    assert!(host.finish(LIMIT).status.success());
}

#[test]
#[ignore = "takes minutes: cargo xtask kvm --matrix"]
fn debian_is_a_guest_on_6_1() {
    debian_on(folder().join("debian/vmlinuz"));
}

#[test]
#[ignore = "takes minutes: cargo xtask kvm --matrix"]
fn debian_is_a_guest_on_6_12() {
    debian_on(newer());
}

/// GDB, on this machine, reaches a guest of the host's by the host's network card.
#[test]
#[ignore = "takes minutes: cargo xtask kvm --matrix"]
fn gdb_on_debian_on_6_1() {
    let symbols = tempfile::tempdir().unwrap();
    let elf = symbols.path().join("vmlinux");
    let by_qemu =
        Served::start(&debugger::debian(), &["--wait", "--write-symbols", elf.to_str().unwrap()]);
    by_qemu.wait_until("the symbols are written", |_| elf.exists());
    drop(by_qemu);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut host = Host::boot(&Setup { cpu: VHE, port: Some(port), ..Setup::new(1) }, MATRIX_LIMIT);
    let network = "for module in /lib/modules/*.ko; do insmod $module; done; ip link set eth0 up; \
                   ip addr add 10.0.2.15/24 dev eth0";
    let up = host.sh(network);
    assert_eq!(up.status, 0, "{}", up.text);
    let listen = format!("--wait --on-disconnect continue --listen {}", Host::FORWARDED);
    host.sh(&format!(
        "stepwell gdb --machine kvm {DEBIAN} --memory 256M {listen} >/tmp/o 2>&1 & p=$!; \
         while ! grep -q 'in GDB' /tmp/o; do sleep 1; done"
    ));
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-batch", "-ex", "set remotetimeout 600", "-ex"]);
    gdb.arg(format!("file {}", elf.display())).args(["-ex", &format!("target remote :{port}")]);
    gdb.args(["-ex", &format!("tbreak *{PLACE}"), "-ex", "continue", "-ex", "stepi"]);
    gdb.args(["-ex", "info symbol $pc", "-ex", "stepi 500"]);
    gdb.args(["-ex", &format!("tbreak *{PLACE}"), "-ex", "continue", "-ex", "next"]);
    gdb.args(["-ex", "info symbol $pc", "-ex", "detach"]);
    let said = run(&mut gdb, MATRIX_LIMIT).unwrap_or_else(|error| panic!("{error}"));
    for words in [&format!("{PLACE} + 4 in"), "until exit from function", "invoke_syscall + "] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
    let done = host.sh("wait $p; s=$?; cat /tmp/o; (exit $s)");
    came_through(&done);
    assert!(host.finish(LIMIT).status.success());
}

/// The demo in a checkout where everything is built, as on any arm64 Linux with KVM.
#[test]
fn the_demo_shows_its_guest_by_kvm() {
    let mut host = Host::boot(&Setup { cpu: VHE, ..Setup::new(1) }, HOST_LIMIT);
    let tree = "mkdir -p /stepwell/xtask /stepwell/target/release; cd /stepwell; \
                ln -s /bin/stepwell target/release/; ln -s /guests target/guests; \
                export CARGO_MANIFEST_DIR=/stepwell/xtask";
    assert_eq!(host.sh(tree).status, 0);
    let plan = host.sh("xtask demo --plan");
    assert!(!plan.text.contains("hypervisor.bin"), "{}", plan.text);
    let done = host.sh("xtask demo --no-build");
    for words in ["This host has KVM", "Stepped, and none the wiser", "[interrupt at"] {
        assert!(done.text.contains(words), "no {words:?} in {}", done.text);
    }
    assert_eq!(done.status, 0, "{}", done.text);
    assert!(host.finish(LIMIT).status.success());
}

#[test]
fn a_guest_has_its_devices_under_kvm() {
    let mut host = Host::boot(&Setup { cpu: VHE, ..Setup::new(1) }, HOST_LIMIT);
    disks(&mut host, 1);
    shares(&mut host);
    assert!(host.finish(LIMIT).status.success());
}

/// A CPU with SVE, which the debugger sees of the guest, and with random numbers, by which the guest's kernel
/// chooses where it is.
#[test]
fn a_guest_has_what_its_hosts_cpu_has() {
    let cpu = "max,pauth-impdef=on";
    let mut host = Host::boot(&Setup { cpu, ..Setup::new(1) }, HOST_LIMIT);
    let machines = host.sh("stepwell machines; grep -qw sve /proc/cpuinfo");
    assert!(machines.status == 0 && !machines.text.contains("no SVE"), "{}", machines.text);
    let done = host.sh("kvm-tests --nocapture --test-threads 1 vectors contract");
    assert!(done.status == 0 && done.text.contains("2 passed"), "{}", done.text);
    let options = format!("{DEBIAN} --memory 256M --at {PLACE} --irq over");
    let done = step(&mut host, &options, "s 2000\\nc\\n");
    came_through(&done);
    assert!(done.text.contains(PLACE), "{}", done.text);
    assert!(host.finish(LIMIT).status.success());
}

/// At least these parts of a bare loop's rate, silent and recorded, and a start in that many milliseconds.
const SILENT_MIN: f64 = 0.5;
const TRACED_MIN: f64 = 0.35;
const START_MAX_MS: f64 = 100.0;

#[test]
#[ignore = "measures: cargo xtask kvm --rates"]
fn rates() {
    let mut host = Host::boot(&Setup::new(1), HOST_LIMIT);
    let done = host.sh("kvm-tests --nocapture --ignored rates");
    let line = done.text.lines().find_map(|line| line.split_once("rates "));
    let words = line.unwrap_or_else(|| panic!("{}", done.text)).1.split_whitespace();
    let numbers: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
    let [bare, silent, traced, start] = numbers[..] else { panic!("{numbers:?}") };
    println!(
        "bare {bare} steps/s; silent {silent} ({:.2}), traced {traced} ({:.2}); start {start} ms",
        silent / bare,
        traced / bare
    );
    assert!(silent / bare >= SILENT_MIN && traced / bare >= TRACED_MIN && start < START_MAX_MS);
    assert!(host.finish(LIMIT).status.success());
}

/// All that bare guests can show, on one kind of host: without VHE where it has one CPU, and with it where
/// it has four.
fn every_bare_guest_on(kernel: PathBuf, gic: u8, cpus: u8) {
    let cpu = if cpus == 1 { "cortex-a57" } else { VHE };
    let setup = Setup { cpu, gic, kernel, ..Setup::new(cpus) };
    println!("== {setup:?}");
    let mut host = Host::boot(&setup, MATRIX_LIMIT);
    println!("{}", host.sh("uname -r; stepwell machines").text);
    contract_and_streams(&mut host);
    interrupts(&mut host);
    several_vcpus(&mut host);
    assert!(host.finish(LIMIT).status.success());
}

macro_rules! hosts {
    ($($name:ident: $kernel:expr, GICv $gic:literal, $cpus:literal;)*) => {
        $(
            #[test]
            #[ignore = "takes long: cargo xtask kvm --matrix"]
            fn $name() {
                every_bare_guest_on($kernel, $gic, $cpus);
            }
        )*
    };
}

hosts! {
    host_6_1_gicv3_1_cpu: folder().join("debian/vmlinuz"), GICv 3, 1;
    host_6_1_gicv3_4_cpus: folder().join("debian/vmlinuz"), GICv 3, 4;
    host_6_1_gicv2_1_cpu: folder().join("debian/vmlinuz"), GICv 2, 1;
    host_6_1_gicv2_4_cpus: folder().join("debian/vmlinuz"), GICv 2, 4;
    host_6_12_gicv3_1_cpu: newer(), GICv 3, 1;
    host_6_12_gicv3_4_cpus: newer(), GICv 3, 4;
    host_6_12_gicv2_1_cpu: newer(), GICv 2, 1;
    host_6_12_gicv2_4_cpus: newer(), GICv 2, 4;
}
