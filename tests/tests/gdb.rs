//! GDB on Debian's kernel with four busy CPUs, and what clients do that are no GDB.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use stepwell_tests::debian::debian_doing;
use stepwell_tests::debugger::{Served, debian};
use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;
use stepwell_tests::process::run;
use stepwell_tests::wanderer;

/// Of what takes half a minute where nobody else is at work.
const LIMIT: Duration = Duration::from_secs(900);
/// GDB asks again after two seconds, and takes the answer to the first question for that to the second.
const PATIENT: &str = "set remotetimeout 600";

#[test]
fn gdb_on_debian() {
    let symbols = tempfile::tempdir().unwrap();
    let file = symbols.path().join("kernel.elf");
    let options = ["--write-symbols", file.to_str().unwrap(), "--on-disconnect", "continue"];
    let mut served = Served::start(&debian(), &options);
    served.make_busy();
    served.passes(&file, "steps.py", LIMIT);
    // Attached again, and the guest has run on meanwhile.
    served.passes(&file, "breakpoints.py", LIMIT);
    served.passes(&file, "conditions.py", LIMIT);
    left_without_a_word(&mut served);
    strangers_are_not_let_in(&mut served);
    let console = served.console();
    for trouble in ["Oops", "BUG:", "rcu: INFO", "Kernel panic", "lockup"] {
        assert!(!console.contains(trouble), "{trouble}: {console}");
    }
    served.type_text("poweroff -f\r");
    let finished = served.finish(LIMIT);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.output());
    assert!(finished.left_behind.is_empty(), "{:?}", finished.left_behind);
}

#[test]
fn lines_of_source() {
    let guest = Guest::named("hammer");
    let setup = Setup { smp: 4, ..Setup::new(&guest.path) };
    let served = Served::start(&setup, &["--wait"]);
    served.passes(&guest.path.with_extension("elf"), "source.py", LIMIT);
    // Not a count was lost under the debugger.
    served.wait_until("the guest has ended", |served| served.console().contains("hammer: "));
    assert!(served.console().contains("hammer: ok 0x400"), "{}", served.console());
    let finished = served.finish(Duration::from_secs(20));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.output());
}

#[test]
fn a_kernel_that_moves_is_followed() {
    let symbols = tempfile::tempdir().unwrap();
    let (elf, init) = (symbols.path().join("vmlinux"), symbols.path().join("init.gdb"));
    let (elf, init) = (elf.to_str().unwrap(), init.to_str().unwrap());
    let setup = Setup { cpu: "max", smp: 1, ..debian() };
    // The second file is written after the first.
    let first = Served::start(&setup, &["--wait", "--write-symbols", elf, "--init-file", init]);
    first.wait_until("the symbols are written", |_| std::path::Path::new(init).exists());
    functions_of_boot_are_functions(init);
    drop(first);
    let mut served = Served::start(&setup, &["--symbols", elf, "--init-file", init]);
    served.wait_until("the shell is up", |served| served.console().contains("shell is up"));
    let mut gdb = initialised(init);
    gdb.args(["-ex", "monitor symbols"]);
    gdb.args(["-ex", "tbreak *do_sys_openat2", "-ex", "continue"]);
    // Its return addresses are signed.
    gdb.args(["-ex", "info symbol $pc", "-ex", "nexti 20", "-ex", "bt", "-ex", "finish"]);
    gdb.args(["-ex", "info symbol $pc", "-ex", "delete"]);
    let call = "print ((unsigned (*)(unsigned long))jiffies_to_msecs)(1000)";
    gdb.args(["-ex", call, "-ex", "info symbol $pc", "-ex", "detach"]);
    // In user space when GDB comes, from where nothing is to be seen of the kernel; in the kernel too
    // soon after.
    served.type_text("(sleep 5; while true; do ls / >/dev/null; done) & while :; do :; done\r");
    std::thread::sleep(Duration::from_secs(2));
    let said = run(&mut gdb, LIMIT).unwrap_or_else(|error| panic!("{error}"));
    // What `monitor` prints goes to the standard error output where GDB is in a batch.
    let said_all = said.output();
    let moved = said_all.lines().find(|line| line.starts_with("symbol-file "));
    assert!(moved.is_some_and(|line| line.contains(" -o 0x")), "{said_all}");
    for words in [
        "do_sys_openat2 in section .text",
        "in el0t_64_sync_handler ()",
        "__arm64_sys_openat + ",
        "$1 = 4000",
    ] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
    assert!(!said_all.contains("corrupt stack"), "{said_all}");
}

/// GDB with a file of commands, from elsewhere: all paths in the file are absolute.
fn initialised(init: &str) -> Command {
    let mut gdb = Command::new("gdb-multiarch");
    gdb.current_dir("/").args(["-nx", "-batch", "-ex", PATIENT, "-x", init]);
    gdb
}

/// Sets breakpoints, by both spellings, at functions that a kernel has behind its data, before that
/// has moved; and none is lost when it has.
fn functions_of_boot_are_functions(init: &str) {
    let mut gdb = initialised(init);
    gdb.args(["-ex", "break *start_kernel"]);
    gdb.args(["-ex", "break console_init", "-ex", "info symbol start_kernel"]);
    gdb.args(["-ex", "continue", "-ex", "stepwell-symbols", "-ex", "info symbol $pc"]);
    gdb.args(["-ex", "continue", "-ex", "kill"]);
    let said = run(&mut gdb, LIMIT).unwrap_or_else(|error| panic!("{error}"));
    let output = said.output();
    for words in [
        "Breakpoint 1 at 0x",
        "Breakpoint 2 at 0x",
        "start_kernel in section .text",
        "where the kernel runs now",
        "Breakpoint 2, 0x",
        " in console_init ()",
    ] {
        assert!(output.contains(words), "no {words:?} in {output}");
    }
}

/// A thread goes with its task where GDB waits for it, whichever vCPU that is on.
#[test]
fn a_task_that_moves_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernel.elf");
    let initrd = wanderer::install(folder.path()).unwrap();
    let script = "(while true; do ls / >/dev/null; done) & /bin/wanderer; poweroff -f";
    let setup = Setup { initrd: Some(initrd), ..debian_doing(script, "cortex-a57", 4) };
    let init = folder.path().join("init.gdb");
    let written = ["--write-symbols", file.to_str().unwrap(), "--init-file"];
    let options = [&["--wait"], &written[..], &[init.to_str().unwrap()]].concat();
    let served = Served::start(&setup, &options);
    // The second file is written after the first.
    served.wait_until("the symbols are written", |_| init.exists());
    served.passes(&file, "migrating.py", LIMIT);
    let finished = served.finish(LIMIT);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.output());
}

#[test]
fn gdb_with_long_vectors() {
    let guest = Guest::named("irq_storm");
    let setup = Setup { cpu: "max", ..Setup::new(&guest.path) };
    let served = Served::start(&setup, &["--wait"]);
    served.passes(&guest.path.with_extension("elf"), "vectors.py", LIMIT);
}

/// A client that is gone: the guest goes on, whatever was set in it, and the next one is served.
fn left_without_a_word(served: &mut Served) {
    for (n, runs) in [false, true].into_iter().enumerate() {
        let mut client = connect(served);
        assert!(ask(&mut client, "qSupported:multiprocess+;swbreak+").contains("PacketSize"));
        assert!(ask(&mut client, "?").contains("T05"), "it stands for a client");
        let pc = expanded(ask(&mut client, "p20").trim_start_matches("+$"));
        let pc = u64::from_str_radix(&pc[..16], 16).unwrap().swap_bytes();
        assert_eq!(ask(&mut client, &format!("Z0,{pc:x},4")), "+$OK#9a");
        if runs {
            client.write_all(b"$vCont;c#a8").unwrap();
        }
        drop(client);
        served.type_text(&format!("echo {n} still a-live | sed s/-//\r"));
        let answer = format!("{n} still alive");
        served.wait_until("the guest answers", |served| served.console().contains(&answer));
    }
}

/// What is no debugger: the guest runs on and does not notice.
fn strangers_are_not_let_in(served: &mut Served) {
    let silent = connect(served);
    let packets = "$qRcmd,7472616365207374617274202f746d702f78#00$vKill;1#6e";
    let form = format!("POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\n\n{packets}");
    let mut page = connect(served);
    // It may be hung up on before it has said all.
    let _said = page.write_all(form.as_bytes());
    let mut answer = Vec::new();
    let _heard = page.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{answer:?}");
    let mut state = 0x9e37_79b9_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for _ in 0..10_000 {
        let length = random() % 64;
        let bytes: Vec<u8> = (0..length).map(|_| (random() >> 11) as u8).collect();
        let _said = connect(served).write_all(&bytes);
    }
    served.type_text("echo nobody was he-ard | sed s/-//\r");
    served.wait_until("the guest answers", |served| served.console().contains("nobody was heard"));
    drop(silent);
    // And who is one is let in at once.
    let mut client = connect(served);
    assert!(ask(&mut client, "qSupported:multiprocess+").contains("PacketSize"));
    assert_eq!(ask(&mut client, "D;1"), "+$OK#9a");
}

/// Undoes the protocol's run-length encoding.
fn expanded(reply: &str) -> String {
    let (mut out, mut characters) = (String::new(), reply.chars());
    while let Some(character) = characters.next() {
        if character == '*' {
            let count = characters.next().unwrap() as usize - 29;
            out = out.clone() + &out[out.len() - 1..].repeat(count);
        } else {
            out.push(character);
        }
    }
    out
}

fn ask(stream: &mut UnixStream, body: &str) -> String {
    let sum = body.bytes().fold(0_u8, u8::wrapping_add);
    stream.write_all(format!("${body}#{sum:02x}").as_bytes()).unwrap();
    answer(stream)
}

/// Reads up to the end of a packet.
fn answer(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.iter().rev().skip(2).any(|&byte| byte == b'#') {
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        bytes.extend(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns what GDB shows of a `monitor` command.
fn monitor(client: &mut UnixStream, line: &str) -> String {
    let hex: String = line.bytes().map(|byte| format!("{byte:02x}")).collect();
    let first = ask(client, &format!("qRcmd,{hex}"));
    let shown = expanded(first.trim_start_matches('+').trim_start_matches("$O"));
    let digits: Vec<char> = shown.chars().take_while(|digit| *digit != '#').collect();
    let bytes = digits.chunks(2).map(String::from_iter);
    let bytes = bytes.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect();
    assert_eq!(answer(client), "$OK#9a", "{line}");
    String::from_utf8(bytes).unwrap()
}

fn connect(served: &Served) -> UnixStream {
    let stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[test]
fn broken_clients_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--wait", "--recordings", folder.path().to_str().unwrap()];
    let served = Served::start(&Setup::new(&Guest::named("irq_storm").path), &options);
    {
        let mut half = connect(&served);
        half.write_all(b"$m4020").unwrap();
    }
    {
        let mut noise = connect(&served);
        let bytes: Vec<u8> =
            (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        // It may be hung up on before it has said all.
        let _said = noise.write_all(&bytes);
    }
    let mut client = connect(&served);
    assert!(ask(&mut client, "qSupported:multiprocess+").contains("PacketSize"));
    let mut second = connect(&served);
    let refused = ask(&mut second, "qSupported:multiprocess+");
    assert!(refused.contains("another debugger is attached"), "{refused}");
    client.write_all(b"$g#00").unwrap();
    let mut byte = [0; 1];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"-");
    assert!(ask(&mut client, "m40200000,ffffffff").contains("$E07#"));
    assert!(ask(&mut client, "m40200000,10").starts_with("+$"));
    let stop = ask(&mut client, "vCont;s:p1.1;c");
    assert!(stop.contains("T05thread:p01.01;"), "{stop}");
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    for (line, answer) in [
        ("trace start precious", "exists"),
        ("trace start ../x", "name a file there"),
        ("trace start new.stepwell", "recording to"),
    ] {
        let told = monitor(&mut client, line);
        assert!(told.contains(answer), "{line}: {told}");
    }
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    assert!(folder.path().join("new.stepwell").exists());
    assert_eq!(ask(&mut client, "vKill;1"), "+$OK#9a");
    let finished = served.finish(Duration::from_secs(20));
    assert_eq!(finished.status.code(), Some(130), "{}", finished.output());
}
