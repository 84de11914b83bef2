//! A network: Debian gets an address by DHCP, and a file from a server of this test's on the loopback.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::debian::{debian_doing, has_no_trouble};
use stepwell_tests::http;
use stepwell_tests::process::run;
use stepwell_tests::stepwell::command;

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
         $b wget -q -O /file http://{host}:{port}/file; $b md5sum /file; poweroff -f"
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
