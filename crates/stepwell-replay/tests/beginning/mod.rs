//! What the tests of logs begin with.

use stepwell_replay::log::{FileIdentity, Header, VERSION};

/// The beginning of a log that no machine is needed for.
pub fn header() -> Header {
    let kernel = FileIdentity { path: "kernel".into(), sha256: String::new() };
    Header {
        stepwell_replay: VERSION,
        cpu: "none".into(),
        vcpus: 1,
        memory_bytes: 0,
        schedule: "turns".into(),
        command_line: String::new(),
        raw: true,
        kernel,
        initrd: None,
        devicetree: None,
        disks: Vec::new(),
        entropy: None,
        hypervisor: String::new(),
        qemu: String::new(),
    }
}
