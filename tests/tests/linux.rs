//! A stripped Debian kernel tells what it has: tasks and modules, against the guest's own `/proc`,
//! and a module's code by the module's symbols.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use stepwell_arch::Va;
use stepwell_tests::debian::debian_doing;
use stepwell_tests::kernel_module::{self, FILE, NAME, SAYS, TURNS};
use stepwell_tests::kexec;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::run;
use stepwell_tests::stepwell::{binary, command, type_at_stepper};
use stepwell_tests::swapped;
use stepwell_tests::wanderer;
use stepwell_trace::{CodePages, Event, Reader, Record, Register};

const LIMIT: Duration = Duration::from_secs(300);

/// A machine whose shell finds the module in its file system.
fn with_module(folder: &tempfile::TempDir, script: &str, smp: u8) -> Setup {
    let initrd = kernel_module::initramfs(folder.path()).unwrap();
    let script = format!("mount -t proc proc /proc; {script}; poweroff -f");
    Setup { initrd: Some(initrd), ..debian_doing(&script, "cortex-a57", smp) }
}

/// What `/proc/PID/stat` and `ps` say of a task.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    comm: String,
    state: char,
}

/// Reads `PID (comm) S …` lines of the guest's.
fn of_proc(said: &str) -> BTreeMap<u32, Said> {
    let task = |line: &str| {
        let line = line.trim_start_matches("  guest| ").trim();
        let (pid, rest) = line.split_once(" (")?;
        let (comm, rest) = rest.rsplit_once(") ")?;
        Some((pid.parse().ok()?, Said { comm: comm.to_owned(), state: rest.chars().next()? }))
    };
    said.lines().filter_map(task).collect()
}

/// Reads the stepper's `PID TGID S CPU NAME` lines.
fn of_ps(said: &str) -> BTreeMap<u32, Said> {
    let task = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [pid, _, state, _, name] = words[..] else { return None };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let state = state.chars().next().filter(|_| state.len() == 1)?;
        Some((pid.parse().ok()?, Said { comm: name.to_owned(), state }))
    };
    let listed = said.lines().skip_while(|line| !line.contains("PID    TGID"));
    listed.skip(1).take_while(|line| !line.starts_with("(stepwell)")).filter_map(task).collect()
}

/// The guest lists its tasks and modules, then syncs, where the stepper lists them.
#[test]
fn tasks_and_modules_are_those_of_proc() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "load-modules; busybox insmod {FILE}; cat /proc/modules; cat /proc/[0-9]*/stat; \
         cat /proc/1/maps; busybox sync"
    );
    let setup = with_module(&folder, &script, 2);
    let typed = "ps\nlsmod\nbt\nbt 2\nmaps 1\np current->comm\np &current->pid\n\
                 p task(2)->comm\np &((struct virtio_blk *)0)->index\nc\n";
    let options = ["--at", "__arm64_sys_sync", "--others", "run"];
    let finished = type_at_stepper(&setup, &options, typed, LIMIT).unwrap();
    let said = &finished.stdout;
    let (proc, ps) = (of_proc(said), of_ps(said));
    assert!(proc.len() > 30, "{} tasks in /proc: {}", proc.len(), finished.output());
    // `cat` has ended since, and `sync` was not there yet.
    let reader: Vec<u32> =
        proc.iter().filter(|(_, task)| task.comm == "cat").map(|(pid, _)| *pid).collect();
    for (pid, task) in proc.iter().filter(|(pid, _)| !reader.contains(pid)) {
        let found = ps.get(pid).unwrap_or_else(|| panic!("no {pid} {task:?} in {ps:?}"));
        // /proc adds to a worker's name what it works on.
        assert!(task.comm.starts_with(&found.comm), "{pid}: {task:?}, {found:?}");
        let waits = |state: char| matches!(state, 'S' | 'I');
        if waits(task.state) && !task.comm.starts_with("kworker") && *pid != 1 {
            assert!(waits(found.state) || found.state == 'R', "{pid}: {task:?}, {found:?}");
        }
    }
    let more = ps.keys().filter(|pid| !proc.contains_key(pid)).count();
    assert!(more <= 3, "{more} tasks that /proc did not have: {ps:?}");
    // NAME SIZE USED - STATE BASE, and NAME SIZE USED STATE BASE.
    let line = |end: &str| {
        let found = said.lines().map(|line| line.trim_start_matches("  guest| "));
        let found = found.filter(|line| line.starts_with(NAME)).find(|line| line.contains(end));
        let words = found.unwrap_or_else(|| panic!("no {NAME} {end} in {said}")).split_whitespace();
        words.map(|word| word.trim_start_matches("0x").to_owned()).collect::<Vec<_>>()
    };
    let (theirs, ours) = (line(" - Live"), line("  Live"));
    assert_eq!(theirs[..3], ours[..3], "name, size, users");
    assert_eq!(theirs[5].trim_end_matches("(O)"), ours[4], "base");
    let between = |from: &str, to: &str| {
        let lines = said.lines().skip_while(|line| *line != format!("(stepwell) {from}")).skip(1);
        lines.take_while(|line| *line != format!("(stepwell) {to}")).collect::<Vec<_>>()
    };
    let current = between("bt", "bt 2").join("\n");
    for part in ["busybox (R)\n#0 ", "__arm64_sys_sync\n#1 ", " el0t_64_sync", "(program)"] {
        assert!(current.contains(part), "{part} in {current}");
    }
    let sleeps = between("bt 2", "maps 1").join("\n");
    for part in ["2 [kthreadd] (S)\n#0 ", "__switch_to", " schedule+", " kthreadd+"] {
        assert!(sleeps.contains(part), "{part} in {sleeps}");
    }
    assert_eq!(between("p current->comm", "p &current->pid"), ["\"busybox\""]);
    let index = "p &((struct virtio_blk *)0)->index";
    assert_eq!(between("p task(2)->comm", index), ["\"kthreadd\""]);
    // By the types that the module carries itself: the kernel has no such structure.
    let shown = between(index, "c").join("\n");
    let offset = shown.split_whitespace().find_map(|word| word.strip_prefix("0x"));
    let offset = offset.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    assert!(offset.is_some_and(|offset| (8..4096).contains(&offset)), "{shown}");
    // ADDRESSES RIGHTS OFFSET DEVICE INODE FILE.
    let theirs = said.lines().filter_map(|line| {
        let line = line.strip_prefix("  guest| ")?.trim_end();
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, rights, _, device, ..] = words[..] else { return None };
        (device.contains(':') && rights.len() == 4).then(|| line.to_owned())
    });
    let theirs: Vec<String> = theirs.collect();
    assert!(theirs.len() > 5, "{said}");
    assert_eq!(between("maps 1", "p current->comm"), theirs);
}

/// The scenario that Stepwell comes from, in a kernel: a module's init is stepped, with the timer's
/// interrupts live, counts right, and is met again when the module is loaded again.
#[test]
fn a_module_is_stepped_from_its_first_instruction_each_time_that_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "busybox insmod {FILE}; busybox rmmod {NAME}; busybox insmod {FILE}; busybox dmesg -c"
    );
    let setup = with_module(&folder, &script, 1);
    let at = format!("{NAME}:init_module");
    let steps = 3 * TURNS / 2;
    let typed = format!(
        "break {at} if comm=busybox\ntime per-step=20000\ns 4\ns {steps}\nr x1\nlsmod\ntime stopped\n\
         c\np module({NAME})->state\ns 7\nm {at} 4\ndelete 1\nc\n"
    );
    let finished = type_at_stepper(&setup, &["--at", &at], &typed, LIMIT).unwrap();
    let said = &finished.stdout;
    let stops: Vec<&str> = said.lines().filter(|line| line.starts_with("vcpu0")).collect();
    let at_init = |offset: &str| format!("  {NAME}:init_module{offset} ");
    let wanted = ["", "+0x4", "+0x8", "+0xc", "+0x10"];
    assert!(stops.len() > wanted.len(), "{}", finished.output());
    for (stop, offset) in stops.iter().zip(wanted) {
        assert!(stop.contains(&at_init(offset)), "{offset}: {stop} of {said}");
    }
    // Interrupts came and were stepped over: the loop is where as many instructions bring it.
    assert!(stops[5].contains(&at_init("+0x10")), "{} of {said}", stops[5]);
    assert!(said.contains(&format!("x1 {:016x}", steps / 3)), "{said}");
    assert!(said.contains("Loading"), "{said}");
    assert!(said.contains("MODULE_STATE_COMING"), "{said}");
    let again: Vec<_> = stops.iter().filter(|stop| stop.contains(&at_init(""))).collect();
    assert_eq!(again.len(), 2, "{said}");
    assert!(said.contains("fd 7b bf a9"), "{said}");
    let counted = said.lines().filter(|line| line.contains(SAYS)).count();
    assert_eq!(counted, 2, "{said}");
    assert!(said.contains("the guest powered off"), "{said}");
}

/// A program's first instruction is met once in each process that executes it, though its page is not
/// mapped there until its kernel has taken the abort of that instruction's fetch.
#[test]
fn a_programs_first_instruction_is_met_once_each_time_that_it_is_executed() {
    let root = tempfile::tempdir().unwrap();
    let initrd = wanderer::install(root.path()).unwrap();
    let script = "/bin/wanderer; /bin/wanderer; /bin/wanderer; poweroff -f";
    let setup = Setup { initrd: Some(initrd), ..debian_doing(script, "cortex-a57", 1) };
    let options = ["--at", "wanderer!_start", "--sysroot", root.path().to_str().unwrap()];
    let typed = "break wanderer!_start\nc\nc\nc\n";
    let finished = type_at_stepper(&setup, &options, typed, LIMIT).unwrap();
    let stops = finished.stdout.lines().filter(|line| line.starts_with("vcpu0"));
    let met = stops.filter(|line| line.contains("  wanderer!_start ")).count();
    assert_eq!(met, 3, "{}", finished.output());
    assert!(finished.stdout.contains("the guest powered off"), "{}", finished.output());
}

/// A program that its kernel puts elsewhere each time is met each time, by a breakpoint that was set
/// before anybody executed it.
#[test]
fn a_program_that_is_elsewhere_each_time_is_met_each_time() {
    let root = tempfile::tempdir().unwrap();
    let initrd = wanderer::install_movable(root.path()).unwrap();
    let script = "/bin/wanderer; /bin/wanderer; /bin/wanderer; poweroff -f";
    let setup = Setup { initrd: Some(initrd), ..debian_doing(script, "cortex-a57", 1) };
    let options = ["--at", "start_kernel", "--sysroot", root.path().to_str().unwrap()];
    let typed = "break wanderer!_start\nc\nc\nbreak\nc\nc\n";
    let finished = type_at_stepper(&setup, &options, typed, LIMIT).unwrap();
    let said = finished.output();
    let stops = finished.stdout.lines().filter(|line| line.starts_with("vcpu0"));
    let met: Vec<_> = stops.filter(|line| line.contains("  wanderer!_start ")).collect();
    assert_eq!(met.len(), 3, "{said}");
    let addresses: BTreeSet<_> = met.iter().map(|line| &line[..25]).collect();
    assert!(addresses.len() > 1, "they were at the same address: {said}");
    assert!(said.contains("  1  not loaded yet      wanderer!_start"), "{said}");
    assert!(said.contains("the guest powered off"), "{said}");
}

/// A page of a program's own is written to a disk and read back, elsewhere perhaps: a breakpoint in it
/// holds each time.
#[test]
fn a_breakpoint_in_a_page_that_is_swapped_out_holds() {
    let root = tempfile::tempdir().unwrap();
    let initrd = swapped::install(root.path()).unwrap();
    let disk = root.path().join("swap");
    File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let script = format!(
        "mount -t proc proc /proc; mount -t devtmpfs dev /dev; load-modules; mkswap /dev/vda; \
         swapon /dev/vda; {}; grep pswpin /proc/vmstat; poweroff -f",
        swapped::FILE
    );
    let setup = Setup { initrd: Some(initrd), ..debian_doing(&script, "cortex-a57", 1) };
    // Where the page is there, and its program is current.
    let options = ["--disk", disk.to_str().unwrap(), "--at", "__arm64_sys_madvise"];
    let typed = format!("break {:#x}\n{}", swapped::PAGE, "c\n".repeat(swapped::CALLS + 1));
    let finished = type_at_stepper(&setup, &options, &typed, LIMIT).unwrap();
    let said = finished.output();
    let here = format!("vcpu0  {:#018x}  ", swapped::PAGE);
    let met = finished.stdout.lines().filter(|line| line.starts_with(&here)).count();
    assert_eq!(met, swapped::CALLS, "{said}");
    let read = finished.stdout.lines().find_map(|line| line.split_once("pswpin "));
    let read: usize = read.unwrap().1.trim().parse().unwrap();
    // One that is still in the swap cache is not read.
    assert!(2 * read > swapped::CALLS, "{read} pages were swapped in: {said}");
}

/// What is in the kernel's init section is met while it is there, and told of when it is not.
#[test]
fn a_breakpoint_in_the_init_section_is_told_of_when_that_is_freed() {
    let setup = debian_doing("poweroff -f", "cortex-a57", 1);
    let typed = "break start_kernel\nbreak debug_kernel\nc\nc\n";
    let finished = type_at_stepper(&setup, &["--at", "reset"], typed, LIMIT).unwrap();
    let said = finished.output();
    let met = finished.stdout.lines().filter(|line| line.contains("  start_kernel  "));
    assert_eq!(met.filter(|line| line.starts_with("vcpu0")).count(), 1, "{said}");
    for number in ["breakpoint 1 (start_kernel)", "breakpoint 2 (debug_kernel)"] {
        assert_eq!(said.matches(&format!("{number} cannot be met any more")).count(), 1, "{said}");
    }
    assert!(said.contains("the guest powered off"), "{said}");
    // Afterwards, and before anybody waits for it in vain.
    let typed = "break start_kernel\nbreak\n";
    let options = ["--at", "__arm64_sys_reboot"];
    let finished = type_at_stepper(&setup, &options, typed, LIMIT).unwrap();
    let said = finished.output();
    assert!(said.contains("breakpoint 1 (start_kernel) cannot be met any more"), "{said}");
    assert!(said.contains("  1  freed               start_kernel"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let mut trace = command("trace", &setup);
    trace.args(["--at", "debug_kernel", "-o"]).arg(folder.path().join("x.stepwell"));
    let finished = run(&mut trace, LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{}", finished.output());
    let told = "never came to debug_kernel, which cannot be met any more";
    assert!(finished.stderr.contains(told), "{}", finished.output());
}

/// A kernel is written over by another one: breakpoints in it are told of, and are not met in what is at
/// their places then.
#[test]
fn a_breakpoint_in_a_kernel_that_kexec_replaces_is_told_of() {
    const FUNCTION: &str = "hex_dump_to_buffer";
    let root = tempfile::tempdir().unwrap();
    let initrd = kexec::install(root.path(), FUNCTION).unwrap();
    let script = format!("{}; poweroff -f", kexec::FILE);
    let setup = Setup { initrd: Some(initrd), ..debian_doing(&script, "cortex-a57", 1) };
    let typed = format!("break {FUNCTION}\nbreak kernel_kexec\nc\nc\n");
    let finished = type_at_stepper(&setup, &["--at", "start_kernel"], &typed, LIMIT).unwrap();
    let said = finished.output();
    let stops = finished.stdout.lines().filter(|line| line.starts_with("vcpu0")).count();
    assert_eq!(stops, 2, "at its start, and where it is replaced: {said}");
    for number in [format!("breakpoint 1 ({FUNCTION})"), "breakpoint 2 (kernel_kexec)".to_owned()] {
        assert_eq!(said.matches(&format!("{number} cannot be met any more")).count(), 1, "{said}");
    }
    let new = format!("  guest| {}", kexec::SAYS);
    assert!(said.contains(&new) && said.contains("the guest powered off"), "{said}");
}

/// What a recording says of runs in user space and in the kernel.
#[derive(Debug, Default)]
struct Ran {
    user: u64,
    kernel: u64,
    /// The address spaces that user space ran in.
    spaces: BTreeSet<String>,
}

/// Records a shell that starts programs, with a filter, and reads what was recorded.
fn record(folder: &tempfile::TempDir, only: &[&str]) -> Ran {
    let file = folder.path().join("recording.stepwell");
    let script = "while true; do /bin/busybox true; done";
    let setup = debian_doing(script, "cortex-a57", 1);
    let mut trace = command("trace", &setup);
    trace.args(["--at", "__arm64_sys_clone", "--steps", "1500000", "--irq", "into"]);
    trace.args(only).arg("-o").arg(&file);
    let finished = run(&mut trace, LIMIT).unwrap();
    assert!(finished.status.success(), "{only:?}: {}", finished.output());
    let mut show = Command::new(binary());
    let finished = run(show.arg("show").arg(&file).args(["--format", "json"]), LIMIT).unwrap();
    let (mut ran, mut space) = (Ran::default(), String::new());
    for line in finished.stdout.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        match line["type"].as_str() {
            Some("context") => space = line["ttbr0"].to_string(),
            Some("run") => {
                let length = line["length"].as_u64().unwrap();
                if line["pc"].as_str().unwrap().starts_with("0xffff") {
                    ran.kernel += length;
                } else {
                    ran.user += length;
                    ran.spaces.insert(space.clone());
                }
            }
            _ => {}
        }
    }
    ran
}

/// A shell and its children take turns on one CPU: each has its own translation tables.
#[test]
fn a_recording_is_of_the_task_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let all = record(&folder, &[]);
    assert!(all.spaces.len() > 1 && all.user > 0 && all.kernel > 0, "{all:?}");
    let shell = record(&folder, &["--pid", "1"]);
    assert_eq!(shell.spaces.len(), 1, "{shell:?}");
    assert!(shell.user > 0 && shell.kernel > 0, "{shell:?}");
    assert!(shell.user + shell.kernel < 1_500_000, "{shell:?}");
    let child = record(&folder, &["--comm", "busybox", "--user-mode"]);
    assert!(child.user > 0 && child.kernel == 0, "{child:?}");
    assert!(
        child.spaces.is_disjoint(&shell.spaces) || child.spaces.len() > 1,
        "{child:?} {shell:?}"
    );
}

/// An instruction that was recorded, and the task that its vCPU executed, as far as was told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Executed {
    vcpu: u8,
    pc: u64,
    pid: u32,
    comm: String,
}

/// Records the part of a replay that is before its end.
fn part_of(log: &Path, positions: (u64, u64), only: &[&str]) -> Vec<Executed> {
    let file = log.with_extension("part");
    let mut trace = Command::new(binary());
    trace.args(["trace", "--quiet", "--replay"]).arg(log);
    trace.args(["--from", &positions.0.to_string(), "--to", &positions.1.to_string()]);
    let finished = run(trace.args(only).arg("-o").arg(&file), LIMIT).unwrap();
    assert!(finished.status.success(), "{only:?}: {}", finished.output());
    let mut reader = Reader::open(&file).unwrap();
    let (mut tasks, mut executed) = (BTreeMap::new(), Vec::new());
    while let Some(record) = reader.next_record().unwrap() {
        match record {
            Record::Event(Event::Task { vcpu, pid, name, .. }) => {
                tasks.insert(vcpu, (pid, name));
            }
            Record::Run { vcpu, pc, length } => {
                let (pid, comm) = tasks.get(&vcpu).cloned().unwrap_or_default();
                executed.extend((0..u64::from(length)).map(|n| {
                    let pc = pc.0 + 4 * n;
                    Executed { vcpu, pc, pid, comm: comm.clone() }
                }));
            }
            _ => {}
        }
    }
    executed
}

/// Parts of one recorded run, two vCPUs with a module that comes, goes and comes again, and programs that
/// come and go: what is filtered while it is recorded is all of it, filtered afterwards, instruction by
/// instruction.
#[test]
fn a_filtered_recording_is_the_whole_one_filtered_afterwards() {
    const PART: u64 = 4_000_000;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("run.replay");
    // Wherever the recording ends, its last part has all that is looked for: each turn takes some
    // two million instructions.
    let script = format!("while true; do insmod {FILE}; echo loaded; busybox rmmod {NAME}; done");
    let setup = with_module(&folder, &script, 2);
    let mut record = command("record", &setup);
    record.args(["--quiet", "--until", "text:loaded", "-o"]).arg(&log);
    let finished = run(&mut record, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    let (_, end) = finished.stdout.split_once("recorded to position ").unwrap();
    let end: u64 = end.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    let part = (end - PART, end);
    let all = part_of(&log, part, &["--tasks"]);
    assert!(all.len() as u64 > PART * 9 / 10, "only {} instructions", all.len());
    type Wanted = fn(&Executed, &BTreeSet<u64>) -> bool;
    // Each brings the guest to the part anew, so that each asks for two things.
    let filters: [(&[&str], Wanted); 3] = [
        (&["--pid", "1", "--kernel-mode"], |one, _| one.pc >> 63 == 1 && one.pid == 1),
        (&["--comm", "insmod", "--user-mode"], |one, _| one.pc >> 63 == 0 && one.comm == "insmod"),
        // Where it was loaded: in pages of its own. (The whole recording has no names of an `init` that
        // was freed before the guest was stopped for a task.)
        (&["--module", NAME], |one, pages| pages.contains(&(one.pc >> 12))),
    ];
    for (only, is_wanted) in filters {
        let place = |one: &Executed| (one.vcpu, one.pc);
        let filtered = part_of(&log, part, only);
        let pages = filtered.iter().map(|one| one.pc >> 12).collect();
        let filtered: Vec<_> = filtered.iter().map(place).collect();
        let wanted: Vec<_> = all.iter().filter(|one| is_wanted(one, &pages)).map(place).collect();
        assert!(wanted.len() > 20, "{only:?}: only {}", wanted.len());
        let at = wanted.iter().zip(&filtered).position(|(one, other)| one != other);
        let lengths = (wanted.len(), filtered.len());
        assert!(at.is_none() && lengths.0 == lengths.1, "{only:?}: {lengths:?}, at {at:?}");
        println!("{only:?}: {} of {} instructions, equal", lengths.0, all.len());
    }
}

/// What a recording of one task's steps, with registers, says of it.
#[derive(Debug, Default)]
struct Followed {
    /// Instructions.
    all: u64,
    /// Those of the program, and the vCPU of each.
    of_program: Vec<(u8, u64)>,
    /// What the program's instructions were translated by (TTBR0_EL1).
    spaces: BTreeSet<u64>,
    /// What the kernel read where it looked at who is current: SP_EL0.
    currents: BTreeSet<u64>,
    /// What the program's own counter came to.
    counted: Vec<u64>,
}

impl Followed {
    fn read(file: &Path) -> Self {
        let mut reader = Reader::open(file).unwrap();
        let code = reader.code_pages().unwrap();
        let mut found = Self::default();
        let mut space = [0; 4];
        let mut registers = [[0; Register::COUNT]; 4];
        // The last instruction, whose changes of registers follow.
        let mut last: Option<(usize, u64)> = None;
        while let Some(record) = reader.next_record().unwrap() {
            match record {
                Record::Run { vcpu, pc, length } => {
                    let vcpu = usize::from(vcpu);
                    for pc in (0..u64::from(length)).map(|n| pc.0 + 4 * n) {
                        found.look_at(last, &code, &registers);
                        last = Some((vcpu, pc));
                        found.all += 1;
                        if pc >> 63 == 0 {
                            found.of_program.push((vcpu as u8, pc));
                            found.spaces.insert(space[vcpu]);
                        }
                    }
                }
                Record::Context(context) => space[usize::from(context.vcpu)] = context.ttbr0,
                Record::Register { vcpu, register, value, found: is_found } => {
                    let number = usize::from(register.number());
                    registers[usize::from(vcpu)][number] = value;
                    let is_turn = last.is_some_and(|(_, pc)| pc == wanderer::TURN);
                    if !is_found && is_turn && register.number() == wanderer::COUNTER {
                        found.counted.push(value);
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Learns who is current from an instruction that reads SP_EL0, once it is known what it has read.
    /// (Where an exception is entered that is still the program's stack pointer.)
    fn look_at(
        &mut self,
        last: Option<(usize, u64)>,
        code: &CodePages,
        registers: &[[u64; Register::COUNT]],
    ) {
        const READS_CURRENT: u32 = 0xd538_4100;
        let Some((vcpu, pc)) = last else { return };
        if let Some(word) = code.word(Va(pc)).filter(|word| word & !0x1f == READS_CURRENT) {
            let value = registers[vcpu][(word & 0x1f) as usize];
            self.currents.extend((value >> 63 == 1).then_some(value));
        }
    }
}

/// A program's place is met in the program, and the task is followed from CPU to CPU: all that is
/// recorded is its own, by its tables and by what its kernel calls the current task, and nothing of it is
/// missing, by its own counter.
#[test]
fn a_task_is_followed_wherever_it_goes() {
    const STEPS: u64 = 100_000;
    let root = tempfile::tempdir().unwrap();
    let initrd = wanderer::install(root.path()).unwrap();
    let script = "(while true; do ls / >/dev/null; done) & /bin/wanderer; poweroff -f";
    let setup = Setup { initrd: Some(initrd), ..debian_doing(script, "cortex-a57", 4) };
    let file = root.path().join("recording.stepwell");
    let mut trace = command("trace", &setup);
    trace.args(["--at", "wanderer!work", "--follow", "current", "--quiet"]);
    trace.args(["--steps", &STEPS.to_string(), "--irq", "into", "--record", "regs"]);
    trace.arg("--sysroot").arg(root.path()).arg("-o").arg(&file);
    let finished = run(&mut trace, LIMIT).unwrap();
    assert!(finished.status.success(), "{}", finished.output());
    let Followed { all, of_program, spaces, currents, counted } = Followed::read(&file);
    // An interrupt's entry is a step, and no instruction.
    assert!((STEPS - 1000..=STEPS).contains(&all), "{all}");
    assert_eq!(of_program.first().unwrap().1, wanderer::TURN, "it begins at its symbol");
    for pair in of_program.windows(2) {
        let ((_, pc), (_, next)) = (pair[0], pair[1]);
        let after = wanderer::follows(pc);
        assert!(after.contains(&Some(next)), "{next:#x} after {pc:#x}");
    }
    assert_eq!(spaces.len(), 1, "its own tables: {spaces:x?}");
    assert_eq!(currents.len(), 1, "one task: {currents:x?}");
    // What its own counter counts: each turn, and each round has all of its turns.
    let turns = |round: &[(u8, u64)]| round.iter().filter(|(_, pc)| *pc == wanderer::TURN).count();
    assert_eq!(counted.len(), turns(&of_program));
    let begun = counted[0];
    let uncounted = counted.iter().zip(begun..).find(|(counted, turn)| *counted != turn);
    assert_eq!((begun, uncounted), (1, None));
    let rounds: Vec<usize> =
        of_program.split(|(_, pc)| *pc == wanderer::TURN - 4).map(turns).collect();
    assert!(rounds.len() > 4, "only {rounds:?}");
    assert!(rounds[..rounds.len() - 1].iter().all(|turns| *turns as u64 == wanderer::TURNS));
    let vcpus: BTreeSet<u8> = of_program.iter().map(|(vcpu, _)| *vcpu).collect();
    assert_eq!(vcpus.len(), 4, "it was moved");
    let symbols = Reader::open(&file).unwrap().symbols().unwrap();
    let (name, offset) = symbols.lookup(Va(wanderer::TURN + 4)).unwrap();
    assert_eq!((name, offset), ("wanderer!work", 4));
}

/// What is misspelt is told before a machine is started.
#[test]
fn a_place_that_no_program_has_is_told_at_once() {
    let root = tempfile::tempdir().unwrap();
    wanderer::install(root.path()).unwrap();
    let setup = debian_doing("true", "cortex-a57", 1);
    let says = |options: &[&str]| {
        let mut trace = command("trace", &setup);
        trace.args(["-o"]).arg(root.path().join("x.stepwell"));
        let finished = run(trace.args(options), LIMIT).unwrap();
        assert_eq!(finished.status.code(), Some(1), "{}", finished.output());
        finished.stderr
    };
    let folder = root.path().to_str().unwrap();
    assert!(says(&["--at", "wanderer!work"]).contains("--sysroot"));
    let close = says(&["--at", "wanderer!wrk", "--sysroot", folder]);
    assert!(close.contains("close to it: wanderer!work"), "{close}");
    assert!(says(&["--at", "wonderer!work", "--sysroot", folder]).contains("no program wonderer"));
    assert!(says(&["--sysroot", "/nowhere"]).contains("/nowhere"));
}
