//! Devices, and where none is, answer as on the board: whatever form an access has, and whoever looks.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stepwell_tests::guest::Guest;
use stepwell_tests::plain::{Setup, console};
use stepwell_tests::process::run;
use stepwell_tests::stepwell::{command, run_guest};

const LIMIT: Duration = Duration::from_secs(300);

/// The guest's own lines, without what the tool puts before them.
fn lines(console: &str) -> Vec<String> {
    let lines = console.lines().map(|line| {
        let line = line.trim_end_matches('\r');
        line.trim_start().strip_prefix("guest| ").unwrap_or(line).to_owned()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn demand_same(what: &str, plain: &[String], found: &[String]) {
    for (n, line) in plain.iter().enumerate() {
        let other = found.get(n).map_or("nothing", String::as_str);
        assert_eq!(line, other, "{what}, line {n}, behind {:?}", plain.get(n.wrapping_sub(1)));
    }
}

/// The guest `devices` tells what loads, stores, fetches and table walks come to.
#[test]
fn every_access_comes_to_what_it_does_on_the_board() {
    let guest = Guest::named("devices");
    for cpu in ["cortex-a57", "max"] {
        let setup = Setup { cpu, ..Setup::new(&guest.path) };
        let said = console(&setup, LIMIT).unwrap();
        assert!(guest.succeeded(&said.stdout), "plain on {cpu}: {}", said.output());
        let plain = lines(&said.stdout);
        assert!(plain.len() > 200, "plain on {cpu}: {}", said.output());
        let said = run_guest(&setup, LIMIT).unwrap();
        demand_same(&format!("unstepped on {cpu}"), &plain, &lines(&said.stdout));
        let folder = tempfile::tempdir().unwrap();
        let mut trace = command("trace", &setup);
        trace.args(["--steps", "1000000000", "--quiet", "-o"]).arg(folder.path().join("r"));
        let said = run(&mut trace, LIMIT).unwrap();
        demand_same(&format!("stepped on {cpu}"), &plain, &lines(&said.stdout));
    }
}
