//! The virtual CPU interface of the GIC on this CPU.

use super::registers::{mrs, msr};
use stepwell_vm::vgic::CpuInterface;

/// Loads it.
pub fn write(interface: &CpuInterface) {
    for (n, &value) in interface.lr.iter().enumerate().take(interface.lr_count) {
        write_list_register(n, value);
    }
    msr!("ich_vmcr_el2", interface.vmcr);
    msr!("ich_ap0r0_el2", interface.ap0r0);
    msr!("ich_ap1r0_el2", interface.ap1r0);
    msr!("ich_hcr_el2", interface.hcr);
}

/// Takes it back.
pub fn read(interface: &mut CpuInterface) {
    for (n, value) in interface.lr.iter_mut().enumerate().take(interface.lr_count) {
        *value = read_list_register(n);
    }
    interface.vmcr = mrs!("ich_vmcr_el2");
    interface.ap0r0 = mrs!("ich_ap0r0_el2");
    interface.ap1r0 = mrs!("ich_ap1r0_el2");
    interface.hcr = mrs!("ich_hcr_el2");
    // Off, En = 0. The maintenance interrupt stays up until the list registers are written anew; EL2
    // must not take it over and over until then. Nor is a guest that is stepped to have what they hold.
    msr!("ich_hcr_el2", 0);
}

macro_rules! list_registers {
    ($($n:literal $name:literal),*) => {
        fn write_list_register(n: usize, value: u64) {
            match n {
                $($n => msr!($name, value),)*
                _ => {}
            }
        }

        fn read_list_register(n: usize) -> u64 {
            match n {
                $($n => mrs!($name),)*
                _ => 0,
            }
        }
    };
}

list_registers! {
    0 "ich_lr0_el2", 1 "ich_lr1_el2", 2 "ich_lr2_el2", 3 "ich_lr3_el2",
    4 "ich_lr4_el2", 5 "ich_lr5_el2", 6 "ich_lr6_el2", 7 "ich_lr7_el2",
    8 "ich_lr8_el2", 9 "ich_lr9_el2", 10 "ich_lr10_el2", 11 "ich_lr11_el2",
    12 "ich_lr12_el2", 13 "ich_lr13_el2", 14 "ich_lr14_el2", 15 "ich_lr15_el2"
}
