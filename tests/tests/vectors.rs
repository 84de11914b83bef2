//! FP/SIMD and SVE registers that a debugger writes, as the guest's own instructions see them.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stepwell::machine::QemuMachine;
use stepwell_arch::{Ipa, SystemRegister};
use stepwell_debuggee::contract::{self, wait_for_stop};
use stepwell_debuggee::{
    Debuggee, Place, Simd, StepRequest, Sve, SveRegister, SystemRegisters, VcpuId,
};
use stepwell_link::Link;
use stepwell_tests::machine::launch;

const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };
/// CPACR_EL1.FPEN and ZEN: nothing traps.
const CPACR: u64 = 0b11 << 20 | 0b11 << 16;

/// Starts a guest of these instructions, with FP/SIMD and SVE enabled at EL1.
fn guest(cpu: &str, code: &[u32]) -> (QemuMachine, Link) {
    let (machine, mut link) = launch(&contract::guest_bytes(), cpu, 1).unwrap();
    wait_for_stop(&mut link);
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    link.write_memory(V0, Place::Ipa(Ipa(contract::ENTRY.0)), &bytes).unwrap();
    let cpacr = SystemRegister::from_name("CPACR_EL1").unwrap();
    let system = link.support_system_registers().unwrap();
    system.write_system_register(V0, cpacr.0, CPACR).unwrap();
    (machine, link)
}

fn step(link: &mut Link, count: usize) {
    link.step(V0, StepRequest::steps(count as u64)).unwrap();
    let (stop, _) = wait_for_stop(link);
    assert_eq!(stop.steps, count as u64, "{stop:?}");
}

#[test]
fn the_guest_computes_with_what_was_written() {
    let code = [
        0x4e18_3c00, // mov  x0, v0.d[1]
        0x4e08_1c02, // mov  v2.d[0], x0
        0xd53b_4401, // mrs  x1, fpcr
        0xd53b_4422, // mrs  x2, fpsr
        0x4ee1_8403, // add  v3.2d, v0.2d, v1.2d
        0x1400_0000, // b    .
    ];
    for cpu in ["cortex-a57", "max"] {
        let (_machine, mut link) = guest(cpu, &code);
        let mut registers = link.read_simd(V0).unwrap();
        registers.v[0] = 7 << 64 | 5;
        registers.v[1] = 1 << 64 | 1;
        registers.v[2] = 9 << 64;
        (registers.fpcr, registers.fpsr) = (0b11 << 22, 1 << 27);
        link.write_simd(V0, &registers).unwrap();
        step(&mut link, 5);
        let core = link.read_registers(V0).unwrap();
        assert_eq!(core.x[..3], [7, 0b11 << 22, 1 << 27], "{cpu}");
        let after = link.read_simd(V0).unwrap();
        assert_eq!((after.v[2], after.v[3]), (9 << 64 | 7, 8 << 64 | 6), "{cpu}");
        assert_eq!(after.v[0], registers.v[0], "{cpu}");
        // Once more, where registers are in the machine already, and running freely.
        registers.v[0] = 0xb << 64;
        link.write_simd(V0, &registers).unwrap();
        let mut again = core;
        again.pc = contract::ENTRY.0;
        link.write_registers(V0, &again).unwrap();
        link.resume(0).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        link.pause(0).unwrap();
        wait_for_stop(&mut link);
        assert_eq!(link.read_registers(V0).unwrap().x[0], 0xb, "{cpu}");
    }
}

#[test]
fn the_guest_computes_with_long_vectors() {
    let code = [
        0x04e1_0003, // add   z3.d, z0.d, z1.d
        0x04bf_5022, // rdvl  x2, #1
        0x2581_4422, // mov   p2.b, p1.b
        0x2519_f003, // rdffr p3.b
        0xd518_1200, // msr   zcr_el1, x0
        0xd503_3fdf, // isb
        0x04bf_5025, // rdvl  x5, #1
        0x1400_0000, // b     .
    ];
    let (_machine, mut link) = guest("max", &code);
    let zcr = SystemRegister::from_name("ZCR_EL1").unwrap();
    let longest = link.vector_length(V0).unwrap().longest;
    assert!(longest >= 64, "{longest}");
    let len = longest as u64 / 16 - 1;
    link.write_system_register(V0, zcr.0, len).unwrap();
    assert_eq!(link.vector_length(V0).unwrap().current, longest);
    let ones = [[1, 0, 0, 0, 0, 0, 0, 0]; 32].concat();
    let counted: Vec<u8> = (0..longest).map(|n| (n % 8 * 31 + n / 8) as u8 & 0x7f).collect();
    link.write_sve(V0, SveRegister::Z(0), &counted).unwrap();
    link.write_sve(V0, SveRegister::Z(1), &ones[..longest]).unwrap();
    let predicate: Vec<u8> = (0..longest / 8).map(|n| 0xa5 ^ n as u8).collect();
    let ffr = vec![0xff; longest / 8];
    link.write_sve(V0, SveRegister::P(1), &predicate).unwrap();
    link.write_sve(V0, SveRegister::Ffr, &ffr).unwrap();
    step(&mut link, 4);
    let mut sum = counted.clone();
    sum.iter_mut().step_by(8).for_each(|byte| *byte += 1);
    assert_eq!(link.read_sve(V0, SveRegister::Z(3)).unwrap(), sum);
    assert_eq!(link.read_sve(V0, SveRegister::P(2)).unwrap(), predicate);
    assert_eq!(link.read_sve(V0, SveRegister::P(3)).unwrap(), ffr);
    let mut core = link.read_registers(V0).unwrap();
    assert_eq!(core.x[2], longest as u64);
    // EL1 chooses shorter ones: that is what both see from then on.
    core.x[0] = 1;
    link.write_registers(V0, &core).unwrap();
    step(&mut link, 3);
    assert_eq!(link.read_registers(V0).unwrap().x[5], 32);
    let length = link.vector_length(V0).unwrap();
    assert_eq!((length.longest, length.current), (longest, 32));
    let mut reachable = sum;
    reachable[32..].fill(0);
    assert_eq!(link.read_sve(V0, SveRegister::Z(3)).unwrap(), reachable);
    assert_eq!(link.read_system_register(V0, zcr.0).unwrap() & 0xf, 1);
    assert!(link.write_sve(V0, SveRegister::Z(3), &vec![1; longest]).is_err());
}
