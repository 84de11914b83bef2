//! A network: Debian gets an address by DHCP, and a file from a server of this test's on the loopback; and
//! it reaches the other end of a TAP device.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use stepwell_tests::debian::{debian_doing, has_no_trouble};
use stepwell_tests::http;
use stepwell_tests::process::run;
use stepwell_tests::stepwell::command;

// Each guest ends its network before itself: Linux 6.1.192 breaks its queues where it powers off, and its
// driver then goes round `virtqueue_enable_cb_delayed` for ever, if a frame is on its way to be sent.
const LIMIT: Duration = Duration::from_secs(300);
const BYTES: usize = 1 << 20;
/// `head -c 1048576 /dev/zero | md5sum`
const SUM: &str = "b6d81b360a5672d80c27430f39153e2c";

#[test]
fn debian_fetches_a_file_by_the_users_network() {
    let port = http::serve(|_| Some(vec![0; BYTES])).unwrap();
    let host = http::HOST;
    let script = format!(
        "b=/bin/busybox; mount -t proc proc /proc; load-modules && \
         echo '#!/bin/sh' >/up; echo '[ $ip ] && /bin/busybox ifconfig $interface $ip' >>/up; \
         chmod 755 /up; $b ifconfig lo 127.0.0.1; $b ifconfig eth0 up; \
         $b udhcpc -q -n -i eth0 -s /up && \
         $b wget -q -O /file http://{host}:{port}/file; $b md5sum /file; $b ifconfig eth0 down; poweroff -f"
    );
    for smp in [1, 2] {
        let setup = debian_doing(&script, "cortex-a57", smp);
        let said = run(command("run", &setup).args(["--net", "user"]), LIMIT).unwrap();
        for words in ["lease of 10.0.2.15 obtained", SUM] {
            assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
        }
        assert!(said.status.success(), "{}", said.output());
        assert!(said.left_behind.is_empty(), "left behind {:?}", said.left_behind);
        has_no_trouble(&said);
    }
}

/// Containers often have no `/dev/net/tun`, or no namespaces.
fn may_make_a_tap_device() -> bool {
    let mut make = Command::new("unshare");
    make.args(["--net", "--map-root-user", "ip", "tuntap", "add", "tap0", "mode", "tap"]);
    make.output().is_ok_and(|made| made.status.success())
}

/// In a network namespace of its own anybody may make a TAP device, whose other end is the kernel's.
#[test]
fn debian_reaches_the_other_end_of_a_tap_device() {
    const SET_UP: &str = "ip tuntap add tap0 mode tap && ip address add 10.0.3.1/24 dev tap0 && \
                          ip link set tap0 up && exec \"$@\"";
    let script = "b=/bin/busybox; mount -t proc proc /proc; load-modules && \
                  $b ifconfig eth0 10.0.3.2 up; $b ping -c 2 10.0.3.1; \
                  $b ping -c 1 -s 1400 10.0.3.1; $b ifconfig eth0 down; poweroff -f";
    let mut stepwell = command("run", &debian_doing(script, "cortex-a57", 1));
    stepwell.args(["--net", "tap=tap0"]);
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--map-root-user", "sh", "-c", SET_UP, "sh"]);
    if !may_make_a_tap_device() {
        println!("not tried: this host lets nobody make a TAP device in a network namespace");
        return;
    }
    let said = run(unshare.arg(stepwell.get_program()).args(stepwell.get_args()), LIMIT).unwrap();
    assert!(said.status.success(), "{}", said.output());
    for words in ["2 packets received", "1408 bytes from 10.0.3.1", "1 packets received"] {
        assert!(said.stdout.contains(words), "no {words:?} in {}", said.output());
    }
    has_no_trouble(&said);
}
