//! Any bytes as a replay log, and as what follows a first line that is one.

#![no_main]

use stepwell_replay::{FileIdentity, Header, Reader, Script, Writer, log::VERSION};

fn begun() -> Vec<u8> {
    let kernel = FileIdentity { path: "kernel".into(), sha256: String::new() };
    let header = Header {
        stepwell_replay: VERSION,
        cpu: "cortex-a57".into(),
        vcpus: 4,
        memory_bytes: 512 << 20,
        schedule: "turns=50000".into(),
        command_line: String::new(),
        raw: false,
        kernel,
        initrd: None,
        devicetree: None,
        disks: Vec::new(),
        entropy: None,
        hypervisor: String::new(),
        qemu: String::new(),
    };
    let mut bytes = Vec::new();
    let written = Writer::new(&mut bytes, &header);
    drop(written.map_err(|error| panic!("memory takes it: {error}")));
    bytes
}

/// Each line with a checksum that is right, so that what is behind it is reached.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let mut log = begun();
    for line in bytes.split(|&byte| byte == b'\n') {
        log.extend(format!("{:08x} ", crc32fast::hash(line)).bytes());
        log.extend(line);
        log.push(b'\n');
    }
    log
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for log in [bytes.to_vec(), [begun(), bytes.to_vec()].concat(), checked(bytes)] {
        drop(Reader::new(log.as_slice()).and_then(Script::read));
    }
});
