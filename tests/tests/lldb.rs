//! LLDB on Debian's kernel with four busy CPUs.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use stepwell_tests::debugger::{Served, debian};
use stepwell_tests::plain::Setup;
use stepwell_tests::process::run;

const LIMIT: Duration = Duration::from_secs(300);

/// A busy guest.
fn busy(setup: &Setup, symbols: &Path) -> Served {
    let mut served = Served::start(setup, &["--write-symbols", symbols.to_str().unwrap()]);
    served.make_busy();
    served
}

/// LLDB, about to connect.
fn lldb(served: &Served, symbols: &Path) -> Command {
    let mut lldb = Command::new("lldb");
    lldb.args(["-b", "--no-lldbinit", "-o"]);
    lldb.arg(format!("target create --arch aarch64 {}", symbols.display()));
    let socket = served.socket();
    let connect = "process connect --plugin gdb-remote unix-connect://";
    lldb.arg("-o").arg(format!("{connect}{}", socket.display()));
    lldb
}

/// Demands that LLDB says all these words.
fn says(mut lldb: Command, served: &Served, expected: &[&str]) {
    let said =
        run(&mut lldb, LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", served.console()));
    for words in expected {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
}

#[test]
fn lldb_on_debian() {
    let symbols = tempfile::tempdir().unwrap();
    let file = symbols.path().join("kernel.elf");
    let mut served = busy(&debian(), &file);
    let mut lldb = lldb(&served, &file);
    lldb.arg("-s").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("gdb/kernel.lldb"));
    let expected = [
        "thread #4: tid = 0x0004",
        "VBAR_EL1 = 0xffff",
        "stop reason = breakpoint 1.1",
        "kernel.elf`try_to_wake_up\n",
        "stop reason = instruction step into",
        "x5 = 0x0000000000001234",
        "v31 = {0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f 0x10}",
        "stop reason = step out",
        "stop reason = watchpoint 1",
        "Process 1 detached",
        "vcpu3  ",
    ];
    says(lldb, &served, &expected);
    // It runs on, as if nobody had been there.
    served.type_text("echo still a-live | sed s/-//\r");
    served.wait_until("the guest answers", |served| served.console().contains("still alive"));
}

/// A CPU that signs return addresses, and a kernel that moves.
#[test]
fn signatures_are_taken_off() {
    let symbols = tempfile::tempdir().unwrap();
    let file = symbols.path().join("kernel.elf");
    let served = busy(&Setup { cpu: "max", smp: 1, ..debian() }, &file);
    let mut lldb = lldb(&served, &file);
    for command in ["breakpoint set -n vfs_open", "continue", "breakpoint delete -f"] {
        lldb.args(["-o", command]);
    }
    // Beyond PACIASP and the store of what it has signed.
    for _ in 0..8 {
        lldb.args(["-o", "thread step-inst"]);
    }
    lldb.args(["-o", "bt", "-o", "finish", "-o", "detach"]);
    let expected = [
        "frame #1: 0xffff",
        "kernel.elf`path_openat + ",
        "kernel.elf`el0t_64_sync_handler + ",
        "stop reason = step out",
        "Process 1 detached",
    ];
    says(lldb, &served, &expected);
}
