//! What a guest reads and writes: compared with values read from QEMU 7.2's `virt`.

use super::*;

#[test]
fn identification_is_that_of_the_virt_board() {
    let mut vgic = Vgic::new(2);
    let mut read = |address| vgic.mmio_read(0, address, 4);
    assert_eq!(read(gicd(0x0)), 0x50);
    assert_eq!(read(gicd(0x4)), 0x037a_0007);
    assert_eq!(read(gicd(0x8)), 0x43b);
    let pidr: Vec<u64> = (0..12).map(|n| read(gicd(0xffd0 + 4 * n))).collect();
    assert_eq!(pidr, [0x44, 0, 0, 0, 0x92, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1]);
    assert_eq!(read(gicr(0, 0x0)), 2);
    assert_eq!(read(gicr(0, 0x8)), 0x0100_0001);
    assert_eq!(read(gicr(1, 0x8)), 0x0100_0111);
    assert_eq!(read(gicr(1, 0xc)), 1);
    assert_eq!(read(gicr(1, 0x14)), 6);
    assert_eq!(read(gicr(1, 0xffe0)), 0x93);
    assert_eq!(read(gicr(0, 0x1_0c00)), 0xaaaa_aaaa);
    assert_eq!(vgic.mmio_read(0, gicr(1, 0x8), 8), 0x1_0100_0111);
}

#[test]
fn only_the_frames_of_this_domain_are_claimed() {
    let vgic = Vgic::new(2);
    let claimed = |address| vgic.contains(Ipa(address));
    assert!(claimed(0x0800_0000) && claimed(0x0800_ffff));
    assert!(!claimed(0x07ff_ffff) && !claimed(0x0801_0000) && !claimed(0x0808_0000));
    assert!(claimed(0x080a_0000) && claimed(0x080d_ffff) && !claimed(0x080e_0000));
}

#[test]
fn control_keeps_affinity_routing_and_one_security_state() {
    let mut vgic = Vgic::new(1);
    vgic.mmio_write(0, gicd(0), 4, 0xffff_ffff);
    assert_eq!(vgic.mmio_read(0, gicd(0), 4), 0x53);
    vgic.mmio_write(0, gicd(0), 4, 0);
    assert_eq!(vgic.mmio_read(0, gicd(0), 4), 0x50);
}

#[test]
fn set_and_clear_registers_work_on_the_bits_given() {
    let mut vgic = Vgic::new(1);
    for (set, clear) in [(0x100, 0x180), (0x200, 0x280), (0x300, 0x380)] {
        for frame in [gicd(4), gicr(0, 0x1_0000)] {
            vgic.mmio_write(0, frame.offset(set), 4, 0x8000_00f1);
            vgic.mmio_write(0, frame.offset(clear), 4, 0x8000_0001);
            assert_eq!(vgic.mmio_read(0, frame.offset(set), 4), 0xf0);
            assert_eq!(vgic.mmio_read(0, frame.offset(clear), 4), 0xf0);
        }
    }
}

#[test]
fn words_of_private_interrupts_are_reserved_in_the_distributor() {
    let mut vgic = Vgic::new(1);
    for offset in [0x80, 0x100, 0x200, 0x300, 0x400, 0x41c, 0xc00, 0xc04, 0x6000, 0x60f8] {
        vgic.mmio_write(0, gicd(offset), 4, 0xffff_ffff);
        assert_eq!(vgic.mmio_read(0, gicd(offset), 4), 0, "{offset:#x}");
    }
}

#[test]
fn priorities_are_bytes_and_words() {
    let mut vgic = Vgic::new(1);
    for base in [gicd(0x424), gicr(0, 0x1_0404)] {
        vgic.mmio_write(0, base, 4, 0x8877_6655);
        vgic.mmio_write(0, base.offset(1), 1, 0x12);
        assert_eq!(vgic.mmio_read(0, base, 4), 0x8877_1255);
        assert_eq!(vgic.mmio_read(0, base.offset(3), 1), 0x88);
    }
}

#[test]
fn routes_are_one_register_or_two_halves() {
    let mut vgic = Vgic::new(1);
    vgic.mmio_write(0, gicd(0x6108), 8, 0x00ab_0000_8001_0203);
    assert_eq!(vgic.mmio_read(0, gicd(0x610c), 4), 0x00ab_0000);
    vgic.mmio_write(0, gicd(0x6108), 4, 5);
    vgic.mmio_write(0, gicd(0x610c), 4, 6);
    assert_eq!(vgic.mmio_read(0, gicd(0x6108), 8), 6 << 32 | 5);
}

#[test]
fn sgis_stay_edge_triggered() {
    let mut vgic = Vgic::new(1);
    vgic.mmio_write(0, gicr(0, 0x1_0c00), 4, 0);
    vgic.mmio_write(0, gicr(0, 0x1_0c04), 4, 0xffff_ffff);
    assert_eq!(vgic.mmio_read(0, gicr(0, 0x1_0c00), 4), 0xaaaa_aaaa);
    assert_eq!(vgic.mmio_read(0, gicr(0, 0x1_0c04), 4), 0xaaaa_aaaa);
}

#[test]
fn a_redistributor_wakes_at_once() {
    let mut vgic = Vgic::new(2);
    vgic.mmio_write(1, gicr(1, 0x14), 4, 0);
    assert_eq!(vgic.mmio_read(1, gicr(1, 0x14), 4), 0);
    assert_eq!(vgic.mmio_read(1, gicr(0, 0x14), 4), 6);
}

#[test]
fn table_addresses_are_kept() {
    let mut vgic = Vgic::new(1);
    vgic.mmio_write(0, gicr(0, 0x70), 8, 0x1234_5678_9abc_def0);
    vgic.mmio_write(0, gicr(0, 0x7c), 4, 0x42);
    assert_eq!(vgic.mmio_read(0, gicr(0, 0x74), 4), 0x1234_5678);
    assert_eq!(vgic.mmio_read(0, gicr(0, 0x78), 8), 0x42_0000_0000);
}

/// No address, size or value may do harm; the guest is free to try them all.
#[test]
fn every_access_is_survived() {
    let mut vgic = Vgic::new(8);
    for address in (0x0800_0000u64..0x0801_0000).chain(0x080a_0000..0x081a_0000).step_by(1) {
        for bytes in [1, 2, 4, 8] {
            vgic.mmio_write(9, Ipa(address), bytes, u64::MAX);
            let _ = vgic.mmio_read(9, Ipa(address), bytes);
        }
    }
    for intid in [0, 15, 16, 31, 32, 287, 288, 1019, 1020, 8192, u32::MAX] {
        for vcpu in [None, Some(0), Some(7), Some(8), Some(usize::MAX)] {
            vgic.set_line(intid, vcpu, true);
            vgic.pulse(intid, vcpu);
        }
    }
    for value in [0, u64::MAX, 1 << 40, 0xff_ffff] {
        vgic.write_sgi1r(usize::MAX, value);
        vgic.write_sgi0r(0, value);
        vgic.write_dir(0, value);
    }
    let mut interface = CpuInterface::new(usize::MAX);
    interface.vmcr = u64::MAX;
    vgic.flush(usize::MAX, false, &mut interface);
    vgic.flush(0, false, &mut interface);
    interface.hcr = u64::MAX;
    interface.lr = [u64::MAX; 16];
    interface.ap1r0 = u64::MAX;
    vgic.sync(usize::MAX, &interface);
    vgic.sync(0, &interface);
    let _ = (vgic.has_pending(99, &interface), interface.signal());
}
