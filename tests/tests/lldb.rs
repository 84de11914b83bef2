//! LLDB on Debian's kernel with four busy CPUs.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use stepwell_tests::debugger::{Served, debian};
use stepwell_tests::process::run;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn lldb_on_debian() {
    let symbols = tempfile::tempdir().unwrap();
    let file = symbols.path().join("kernel.elf");
    let mut served = Served::start(&debian(), &["--write-symbols", file.to_str().unwrap()]);
    served.make_busy();
    let connect = format!("gdb-remote unix-connect://{}", served.socket().display());
    let connect = connect.replace("gdb-remote", "process connect --plugin gdb-remote");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("gdb/kernel.lldb");
    let mut lldb = Command::new("lldb");
    lldb.args(["-b", "--no-lldbinit", "-o"]);
    lldb.arg(format!("target create --arch aarch64 {}", file.display()));
    lldb.args(["-o", &connect, "-s"]).arg(script);
    let said =
        run(&mut lldb, LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", served.console()));
    for words in [
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
    ] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
    // It runs on, as if nobody had been there.
    served.type_text("echo still a-live | sed s/-//\r");
    served.wait_until("the guest answers", |served| served.console().contains("still alive"));
}
