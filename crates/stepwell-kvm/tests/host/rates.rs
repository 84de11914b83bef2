//! Steps in a second beside those of a loop that does nothing but enter, in one run on one host.

#![expect(unsafe_code, reason = "a guest's memory is given to KVM")]

use super::{V0, contract, launch, stopped_or_ended};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_REG_ARM_CORE, KVM_REG_ARM64,
    KVM_REG_SIZE_U64, kvm_guest_debug, kvm_regs, kvm_userspace_memory_region, kvm_vcpu_init,
    user_pt_regs,
};
use kvm_ioctls::{Kvm, VcpuExit};
use memmap2::MmapMut;
use std::mem::offset_of;
use std::time::Instant;
use stepwell_debuggee::{Debuggee, StepRequest, StopReason};

/// Some seconds of them, where the host is emulated and busy.
const STEPS: u64 = 2000;
/// Each is measured so often, in turns, and the best is taken: what else the machine does meets all alike.
const ROUNDS: usize = 4;
/// add x0, x0, #1; eor x4, x4, x0; b back to the first.
const LOOP: [u32; 3] = [0x9100_0400, 0xca00_0084, 0x17ff_fffe];
const BASE: u64 = 0x4000_0000;
const PAGE: usize = 4096;

fn per_second(steps: u64, act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    steps as f64 / begun.elapsed().as_secs_f64()
}

fn bytes() -> Vec<u8> {
    LOOP.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// KVM_RUN, and nothing else.
fn bare() -> f64 {
    let kvm = Kvm::new().unwrap();
    let vm = kvm.create_vm().unwrap();
    let mut memory = MmapMut::map_anon(PAGE).unwrap();
    memory[..LOOP.len() * 4].copy_from_slice(&bytes());
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: BASE,
        memory_size: PAGE as u64,
        userspace_addr: memory.as_mut_ptr() as u64,
    };
    // SAFETY: the memory outlives the VM, and nobody looks at it any more.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init).unwrap();
    vcpu.vcpu_init(&init).unwrap();
    let pc = offset_of!(kvm_regs, regs) + offset_of!(user_pt_regs, pc);
    let pc = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | (pc as u64 / 4);
    vcpu.set_one_reg(pc, &BASE.to_le_bytes()).unwrap();
    let control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    vcpu.set_guest_debug(&kvm_guest_debug { control, ..Default::default() }).unwrap();
    per_second(STEPS, || {
        for _ in 0..STEPS {
            assert!(matches!(vcpu.run(), Ok(VcpuExit::Debug(_))));
        }
    })
}

fn ours(record: bool) -> f64 {
    let (_machine, mut link) = launch(&bytes());
    contract::wait_for_stop(&mut link);
    per_second(STEPS, || {
        link.step(V0, StepRequest { record, ..StepRequest::steps(STEPS) }).unwrap();
        assert_eq!(stopped_or_ended(&mut link), Some(StopReason::Stepped));
    })
}

/// Milliseconds from nothing to the guest's first instruction, as the tool has it.
fn start() -> f64 {
    let begun = Instant::now();
    let (_machine, mut link) = launch(&bytes());
    contract::wait_for_stop(&mut link);
    begun.elapsed().as_secs_f64() * 1000.0
}

#[test]
#[ignore = "measures"]
fn rates_are_told() {
    let (mut rates, mut start_ms) = ([0.0_f64; 3], f64::INFINITY);
    for _ in 0..ROUNDS {
        for (best, rate) in rates.iter_mut().zip([bare(), ours(false), ours(true)]) {
            *best = best.max(rate);
        }
        start_ms = start_ms.min(start());
    }
    let [bare, silent, traced] = rates;
    println!("rates {bare:.0} {silent:.0} {traced:.0} {start_ms:.0}");
}
