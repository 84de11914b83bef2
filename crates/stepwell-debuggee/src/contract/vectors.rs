//! FP/SIMD and SVE registers.

use super::{V0, step, wait_for_stop};
use crate::{Debuggee, Refusal, SimdRegisters, StepRequest, SveRegister};

/// FPCR.RMode, towards zero.
const FPCR: u64 = 0b11 << 22;
/// FPSR.QC.
const FPSR: u64 = 1 << 27;

pub(super) fn are_written(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let Some(simd) = debuggee.support_simd() else { return };
    let v = std::array::from_fn(|n| 0x0123_4567_89ab_cdef_0011_2233_4455_6600 + n as u128);
    let written = SimdRegisters { v, fpcr: FPCR, fpsr: FPSR };
    simd.write_simd(V0, &written).expect("it is stopped");
    assert_eq!(simd.read_simd(V0).expect("it is stopped"), written);
    step(debuggee, StepRequest::steps(3));
    let simd = debuggee.support_simd().expect("it had them");
    assert_eq!(simd.read_simd(V0).expect("it is stopped"), written, "after a few instructions");
}

pub(super) fn of_sve_are_written(debuggee: &mut dyn Debuggee) {
    wait_for_stop(debuggee);
    let Some(sve) = debuggee.support_sve() else { return };
    let length = match sve.vector_length(V0) {
        Ok(length) => length,
        Err(error) => {
            assert_eq!(error.refusal(), Some(Refusal::NoSuchRegister));
            let read = sve.read_sve(V0, SveRegister::Z(0)).expect_err("there is none");
            assert_eq!(read.refusal(), Some(Refusal::NoSuchRegister));
            return;
        }
    };
    assert!((16..=length.longest).contains(&length.current), "{length:?}");
    let all: Vec<SveRegister> = (0..32)
        .map(SveRegister::Z)
        .chain((0..16).map(SveRegister::P))
        .chain([SveRegister::Ffr])
        .collect();
    let pattern = |at: usize| -> Vec<u8> {
        let register = all[at];
        let mut bytes: Vec<u8> =
            (0..register.bytes(length.current)).map(|n| (7 * at + n + 1) as u8).collect();
        if register == SveRegister::Ffr {
            // Any other value need not be one that FFR can have: ones, and zeros behind them.
            bytes = vec![0xff; bytes.len()];
        }
        bytes.resize(register.bytes(length.longest), 0);
        bytes
    };
    for (at, &register) in all.iter().enumerate() {
        sve.write_sve(V0, register, &pattern(at)).expect("it is there");
    }
    let nothing = sve.write_sve(V0, SveRegister::Z(32), &[]).expect_err("there are 32");
    assert_eq!(nothing.refusal(), Some(Refusal::NoSuchRegister));
    let long = sve.write_sve(V0, SveRegister::P(0), &vec![0; length.longest]);
    let most = Refusal::TooLong((length.longest / 8) as u16);
    assert_eq!(long.expect_err("that is a vector").refusal(), Some(most));
    if length.current < length.longest {
        let beyond = sve.write_sve(V0, SveRegister::Z(0), &vec![1; length.longest]);
        assert_eq!(beyond.expect_err("out of reach").refusal(), Some(Refusal::BadValue));
    }
    for steps in [0, 3] {
        if steps > 0 {
            step(debuggee, StepRequest::steps(steps));
        }
        let sve = debuggee.support_sve().expect("it had them");
        for (at, &register) in all.iter().enumerate() {
            let read = sve.read_sve(V0, register).expect("it is there");
            assert_eq!(read, pattern(at), "{register:?} after {steps} steps");
        }
    }
    low_parts_are_the_same(debuggee, &pattern(1));
}

/// V1 is the low part of Z1, whichever is written.
fn low_parts_are_the_same(debuggee: &mut dyn Debuggee, z1: &[u8]) {
    let simd = debuggee.support_simd().expect("who has SVE has this");
    let mut registers = simd.read_simd(V0).expect("it is stopped");
    assert_eq!(registers.v[1].to_le_bytes(), z1[..16]);
    registers.v[1] = 0x55;
    simd.write_simd(V0, &registers).expect("it is stopped");
    let sve = debuggee.support_sve().expect("it had them");
    let read = sve.read_sve(V0, SveRegister::Z(1)).expect("it is there");
    assert_eq!(read[..16], 0x55_u128.to_le_bytes());
    assert_eq!(read[16..], z1[16..], "what is beyond stays");
}
