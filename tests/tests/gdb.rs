//! GDB on Debian's kernel with four busy CPUs, and what clients do that are no GDB.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use stepwell_tests::debugger::{Served, debian};
use stepwell_tests::guest::Guest;
use stepwell_tests::plain::Setup;

const LIMIT: Duration = Duration::from_secs(180);

/// Demands that a script came to its end.
fn passed(served: &Served, script: &str) {
    let finished = served.gdb(&served.folder().join("kernel.elf"), script, LIMIT);
    print!("{}", finished.stdout);
    assert!(finished.stdout.contains("all passed\n"), "{script}: {}", finished.output());
    assert!(finished.stdout.contains("detached]\n"), "{script}: {}", finished.output());
}

#[test]
fn gdb_on_debian() {
    let symbols = tempfile::tempdir().unwrap();
    let file = symbols.path().join("kernel.elf");
    let mut served = Served::start(&debian(), &["--write-symbols", file.to_str().unwrap()]);
    served.make_busy();
    std::fs::copy(&file, served.folder().join("kernel.elf")).unwrap();
    passed(&served, "steps.py");
    // Attached again, and the guest has run on meanwhile.
    passed(&served, "breakpoints.py");
    passed(&served, "conditions.py");
    served.type_text("echo still a-live | sed s/-//\r");
    served.wait_until("the guest answers", |served| served.console().contains("still alive"));
    let console = served.console();
    for trouble in ["Oops", "BUG:", "rcu: INFO", "Kernel panic", "lockup"] {
        assert!(!console.contains(trouble), "{trouble}: {console}");
    }
    served.type_text("poweroff -f\r");
    let finished = served.finish(Duration::from_secs(30));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.output());
    assert!(finished.left_behind.is_empty(), "{:?}", finished.left_behind);
}

#[test]
fn lines_of_source() {
    let guest = Guest::named("hammer");
    let setup = Setup { smp: 4, ..Setup::new(&guest.path) };
    let served = Served::start(&setup, &["--wait"]);
    let finished = served.gdb(&guest.path.with_extension("elf"), "source.py", LIMIT);
    print!("{}", finished.stdout);
    assert!(finished.stdout.contains("all passed\n"), "{}", finished.output());
    // Not a count was lost under the debugger.
    served.wait_until("the guest has ended", |served| served.console().contains("hammer: "));
    assert!(served.console().contains("hammer: ok 0x400"), "{}", served.console());
    let finished = served.finish(Duration::from_secs(20));
    assert_eq!(finished.status.code(), Some(0), "{}", finished.output());
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

fn connect(served: &Served) -> UnixStream {
    let stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[test]
fn broken_clients_are_survived() {
    let served = Served::start(&Setup::new(&Guest::named("irq_storm").path), &["--wait"]);
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
    assert_eq!(ask(&mut client, "vKill;1"), "+$OK#9a");
    let finished = served.finish(Duration::from_secs(20));
    assert_eq!(finished.status.code(), Some(130), "{}", finished.output());
}
