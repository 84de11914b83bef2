//! A client of the GDB server that sends anything, to a guest of a few instructions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{VcpuId, VectorLength, contract};
use stepwell_gdb::{NoServices, Policies, RegisterSet, Session};
use std::time::Duration;

/// Events that are looked at after each piece of what the client sends.
const EVENTS: usize = 3;

fuzz_target!(|data: &[u8]| {
    let length = VectorLength { longest: 64, current: 32 };
    let mut fake = Fake::with_sve(&contract::guest_bytes(), length);
    contract::wait_for_stop(&mut fake);
    let Ok(registers) = RegisterSet::probe(&mut fake, VcpuId::default()) else { return };
    let (mut services, mut policies) = (NoServices, Policies::default());
    let vcpu = VcpuId::default();
    let session = Session::new(&mut fake, &mut services, &registers, &mut policies, vcpu);
    let Ok(mut session) = session else { return };
    for piece in data.split_inclusive(|&byte| byte == b'\n') {
        // Bodies of packets, one a line, get their frame; what begins otherwise is sent as it is.
        let bytes = match piece {
            [b'$', body @ .., b'\n'] => {
                let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                let mut packet = b"$".to_vec();
                packet.extend_from_slice(body);
                packet.extend_from_slice(format!("#{sum:02x}").as_bytes());
                packet
            }
            other => other.to_vec(),
        };
        match session.receive(&bytes) {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => break,
        }
        for _ in 0..EVENTS {
            if !session.is_running() {
                break;
            }
            let Ok(event) = session.wait(Duration::ZERO) else { return };
            let Some(event) = event else { continue };
            match session.happened(event) {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return,
            }
        }
        drop(session.take_output());
    }
    drop(session.leave(true));
});
