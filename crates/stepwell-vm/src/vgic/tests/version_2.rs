//! The GICv2: its own registers, and interrupts taken through the CPU interface in memory.

use super::*;

const GROUPS: u64 = 0b11;
const IAR: u64 = 0x0c;
const EOIR: u64 = 0x10;
const SPURIOUS: u64 = 1023;

/// A vCPU, by its accesses to memory.
struct Guest {
    number: usize,
    interface: CpuInterface,
}

impl Guest {
    /// One whose CPU interface Linux has set up: Group 0 alone, signalled as IRQ.
    fn new(number: usize, vgic: &mut Vgic) -> Self {
        let mut guest = Self { number, interface: CpuInterface::new(16) };
        // Out of reset Group 0 is a FIQ for a guest that has hardware's registers.
        guest.write(vgic, 0, 1);
        guest.write(vgic, 4, 0xf0);
        guest
    }

    fn read(&mut self, vgic: &mut Vgic, offset: u64) -> u64 {
        vgic.read_gicc(self.number, &mut self.interface, offset, 4)
    }

    fn write(&mut self, vgic: &mut Vgic, offset: u64, value: u64) {
        vgic.write_gicc(self.number, &mut self.interface, offset, 4, value);
    }

    /// What its interrupt line does.
    fn line(&mut self, vgic: &mut Vgic) -> Option<Signal> {
        vgic.flush(self.number, false, &mut self.interface);
        let signal = self.interface.signal();
        vgic.sync(self.number, &self.interface);
        signal
    }
}

fn set_up(vcpus: usize) -> Vgic {
    let mut vgic = Vgic::version_2(vcpus);
    vgic.mmio_write(0, gicd(0), 4, GROUPS);
    for word in 1..9 {
        vgic.mmio_write(0, gicd(0x100 + 4 * word), 4, 0xffff_ffff);
    }
    for intid in (32..288).step_by(4) {
        vgic.mmio_write(0, gicd(0x400 + intid), 4, 0xa0a0_a0a0);
        vgic.mmio_write(0, gicd(0x800 + intid), 4, 0x0101_0101);
    }
    for vcpu in 0..vcpus {
        vgic.mmio_write(vcpu, gicd(0x100), 4, 0xffff_0000);
        for intid in (0..32).step_by(4) {
            vgic.mmio_write(vcpu, gicd(0x400 + intid), 4, 0xa0a0_a0a0);
        }
    }
    vgic.take_kicks();
    vgic
}

#[test]
fn an_interrupt_is_acknowledged_and_ended_in_memory() {
    let mut vgic = set_up(1);
    let mut guest = Guest::new(0, &mut vgic);
    assert_eq!(guest.read(&mut vgic, IAR), SPURIOUS);
    vgic.set_line(SPI, None, true);
    assert_eq!(guest.line(&mut vgic), Some(Signal::Irq));
    assert_eq!(guest.read(&mut vgic, 0x18), u64::from(SPI), "GICC_HPPIR takes nothing");
    assert_eq!(guest.read(&mut vgic, IAR), u64::from(SPI));
    assert_eq!(guest.read(&mut vgic, 0x14), 0xa0, "GICC_RPR");
    assert_eq!(guest.line(&mut vgic), None, "it is active");
    vgic.set_line(SPI, None, false);
    guest.write(&mut vgic, EOIR, u64::from(SPI));
    assert_eq!(guest.read(&mut vgic, 0x14), 0xff);
    assert_eq!(guest.read(&mut vgic, IAR), SPURIOUS);
}

#[test]
fn a_line_that_falls_before_it_is_asked_for_is_spurious() {
    let mut vgic = set_up(1);
    let mut guest = Guest::new(0, &mut vgic);
    vgic.set_line(VIRTUAL_TIMER, Some(0), true);
    assert_eq!(guest.line(&mut vgic), Some(Signal::Irq));
    vgic.set_line(VIRTUAL_TIMER, Some(0), false);
    assert_eq!(guest.read(&mut vgic, IAR), SPURIOUS);
}

#[test]
fn a_level_that_stays_comes_again_and_an_urgent_one_preempts() {
    let mut vgic = set_up(1);
    let mut guest = Guest::new(0, &mut vgic);
    vgic.set_line(SPI, None, true);
    assert_eq!(guest.read(&mut vgic, IAR), u64::from(SPI));
    set_priority(&mut vgic, 40, 0x40);
    vgic.set_line(40, None, true);
    assert_eq!(guest.line(&mut vgic), Some(Signal::Irq));
    assert_eq!(guest.read(&mut vgic, IAR), 40);
    vgic.set_line(40, None, false);
    guest.write(&mut vgic, EOIR, 40);
    assert_eq!(guest.read(&mut vgic, IAR), SPURIOUS, "the first one is still active");
    guest.write(&mut vgic, EOIR, u64::from(SPI));
    assert_eq!(guest.read(&mut vgic, IAR), u64::from(SPI));
}

#[test]
fn what_is_active_and_off_the_running_priority_ends_by_dir() {
    let mut vgic = set_up(1);
    let mut guest = Guest::new(0, &mut vgic);
    guest.write(&mut vgic, 0, 1 | 1 << 9);
    vgic.set_line(SPI, None, true);
    assert_eq!(guest.read(&mut vgic, IAR), u64::from(SPI));
    vgic.set_line(SPI, None, false);
    guest.write(&mut vgic, EOIR, u64::from(SPI));
    assert!(is_active(&mut vgic, SPI) && guest.read(&mut vgic, 0x14) == 0xff);
    guest.write(&mut vgic, 0x1000, u64::from(SPI));
    assert!(!is_active(&mut vgic, SPI));
}

#[test]
fn group_0_is_a_fiq_where_the_guest_says_so_and_group_1_has_its_own_register() {
    let mut vgic = set_up(1);
    let mut guest = Guest::new(0, &mut vgic);
    vgic.set_line(SPI, None, true);
    guest.write(&mut vgic, 0, 1 | 1 << 3);
    assert_eq!(guest.line(&mut vgic), Some(Signal::Fiq));
    vgic.mmio_write(0, gicd(0x84), 4, 0xffff_ffff);
    guest.write(&mut vgic, 0, 0b11);
    assert_eq!(guest.line(&mut vgic), Some(Signal::Irq));
    assert_eq!(guest.read(&mut vgic, IAR), 1022, "it is of Group 1");
    assert_eq!(guest.read(&mut vgic, 0x20), u64::from(SPI), "GICC_AIAR");
}

#[test]
fn sgis_tell_their_senders_one_after_the_other() {
    let mut vgic = set_up(3);
    let mut guest = Guest::new(2, &mut vgic);
    vgic.mmio_write(0, gicd(0xf00), 4, 0b100 << 16 | 5);
    assert_eq!(vgic.take_kicks(), 0b100);
    vgic.mmio_write(1, gicd(0xf00), 4, 1 << 24 | 5);
    assert_eq!(vgic.mmio_read(2, gicd(0xf25), 1), 0b011, "GICD_SPENDSGIR");
    assert_eq!(guest.read(&mut vgic, IAR), 5);
    guest.write(&mut vgic, EOIR, 5);
    assert_eq!(guest.read(&mut vgic, IAR), 1 << 10 | 5);
    guest.write(&mut vgic, EOIR, 1 << 10 | 5);
    assert_eq!(guest.read(&mut vgic, IAR), SPURIOUS);
    let mut first = Guest::new(0, &mut vgic);
    assert_eq!(first.read(&mut vgic, IAR), 1 << 10 | 5, "all but the sender");
}

/// Takes what the filled list registers have, as GICC_IAR tells, with the timer's line as it is said to be.
fn take_loaded(guest: &mut Guest, is_up: bool) -> Option<u64> {
    guest.interface.load_by_itself(IAR, 4, |intid| {
        assert_eq!(intid, VIRTUAL_TIMER);
        is_up
    })
}

#[test]
fn what_is_in_list_registers_is_taken_and_ended_without_the_distributor() {
    let mut vgic = set_up(3);
    let mut guest = Guest::new(2, &mut vgic);
    for sender in [0, 1] {
        vgic.mmio_write(sender, gicd(0xf00), 4, 0b100 << 16 | 5);
    }
    vgic.set_line(VIRTUAL_TIMER, Some(2), true);
    vgic.flush(2, false, &mut guest.interface);
    assert_eq!(take_loaded(&mut guest, true), Some(5), "that of vCPU 0");
    assert_eq!(take_loaded(&mut guest, true), None, "none is more urgent");
    assert!(!guest.interface.store_by_itself(EOIR, 4, 6), "it is not active");
    assert!(guest.interface.store_by_itself(EOIR, 4, 5));
    assert!(!guest.interface.has_ended_for_el2());
    assert_eq!(take_loaded(&mut guest, false), None, "the line has fallen meanwhile");
    assert_eq!(take_loaded(&mut guest, true), Some(27));
    assert!(guest.interface.store_by_itself(EOIR, 4, 27));
    assert!(guest.interface.has_ended_for_el2(), "its line is to be looked at");
    assert_eq!(vgic.sync(2, &guest.interface), 1 << 27);
    vgic.set_line(VIRTUAL_TIMER, Some(2), false);
    assert_eq!(guest.read(&mut vgic, IAR), 1 << 10 | 5, "vCPU 1 has sent it, too");
    guest.write(&mut vgic, EOIR, 5);
    assert_eq!(guest.read(&mut vgic, IAR), SPURIOUS);
}

#[test]
fn what_is_active_in_a_list_register_ends_by_either_way() {
    let mut vgic = set_up(1);
    let mut guest = Guest::new(0, &mut vgic);
    vgic.set_line(SPI, None, true);
    vgic.flush(0, false, &mut guest.interface);
    assert_eq!(take_loaded(&mut guest, true), Some(u64::from(SPI)));
    vgic.sync(0, &guest.interface);
    vgic.set_line(SPI, None, false);
    guest.write(&mut vgic, EOIR, u64::from(SPI));
    assert!(!is_active(&mut vgic, SPI));
    vgic.set_line(SPI, None, true);
    assert_eq!(guest.read(&mut vgic, IAR), u64::from(SPI));
    vgic.set_line(SPI, None, false);
    vgic.flush(0, false, &mut guest.interface);
    assert!(guest.interface.store_by_itself(EOIR, 4, SPI.into()));
    vgic.sync(0, &guest.interface);
    assert!(!is_active(&mut vgic, SPI) && guest.read(&mut vgic, 0x14) == 0xff);
    // Where deactivation is another write, or not all is loaded, that is for the distributor.
    guest.write(&mut vgic, 0, 1 | 1 << 9);
    assert!(!guest.interface.store_by_itself(EOIR, 4, SPI.into()));
}

#[test]
fn an_sgi_that_was_taken_back_does_not_come() {
    let mut vgic = set_up(2);
    let mut guest = Guest::new(1, &mut vgic);
    vgic.mmio_write(0, gicd(0xf00), 4, 0b10 << 16 | 3);
    vgic.mmio_write(1, gicd(0xf13), 1, 0b01);
    assert_eq!(guest.read(&mut vgic, IAR), SPURIOUS);
    vgic.mmio_write(1, gicd(0xf23), 1, 0b01);
    assert_eq!(guest.read(&mut vgic, IAR), 3);
}

#[test]
fn private_registers_are_each_vcpus_own() {
    let mut vgic = set_up(2);
    vgic.mmio_write(1, gicd(0x180), 4, 1 << 27);
    assert_eq!(vgic.mmio_read(1, gicd(0x100), 4), 0xf7ff_ffff, "and SGIs cannot be disabled");
    assert_eq!(vgic.mmio_read(0, gicd(0x100), 4), 0xffff_ffff);
    assert_eq!(vgic.mmio_read(1, gicd(0x800), 4), 0x0202_0202, "GICD_ITARGETSR0");
    vgic.mmio_write(1, gicd(0x41b), 1, 0x20);
    assert_eq!(vgic.mmio_read(0, gicd(0x41b), 1), 0xa0);
}

#[test]
fn an_spi_goes_to_the_first_vcpu_that_it_names() {
    let mut vgic = set_up(2);
    let (mut first, mut second) = (Guest::new(0, &mut vgic), Guest::new(1, &mut vgic));
    vgic.mmio_write(0, gicd(0x821), 1, 0b10);
    vgic.set_line(SPI, None, true);
    assert_eq!(vgic.take_kicks(), 0b10);
    assert_eq!(first.read(&mut vgic, IAR), SPURIOUS);
    assert_eq!(second.read(&mut vgic, IAR), u64::from(SPI));
    vgic.mmio_write(0, gicd(0x820), 4, 0);
    vgic.set_line(32, None, true);
    assert_eq!((first.line(&mut vgic), vgic.take_kicks()), (None, 0), "it names nobody");
}

#[test]
fn a_single_vcpu_has_all_spis_and_nothing_to_choose() {
    let mut vgic = set_up(1);
    let mut guest = Guest::new(0, &mut vgic);
    assert_eq!(vgic.mmio_read(0, gicd(0x820), 4), 0);
    vgic.set_line(SPI, None, true);
    assert_eq!(guest.read(&mut vgic, IAR), u64::from(SPI));
}

#[test]
fn what_is_there_is_a_gicv2_and_no_redistributor() {
    let mut vgic = set_up(4);
    assert_eq!(vgic.mmio_read(0, gicd(4), 4), 8 | 3 << 5, "GICD_TYPER");
    assert_eq!(vgic.mmio_read(0, gicd(0xfe8), 4), 0x2b, "GICD_PIDR2");
    assert_eq!(vgic.mmio_read(0, gicd(0x6100), 8), 0, "no GICD_IROUTER");
    assert_eq!(vgic.mmio_read(0, gicd(0), 4), 3, "GICD_CTLR without ARE");
    assert!(!vgic.contains(gicr(0, 0)) && vgic.contains(gicd(0)));
}

#[test]
fn registers_take_the_sizes_that_they_have() {
    let mut vgic = set_up(2);
    for (offset, bytes) in [(0x101, 1), (0x820, 8), (0xf00, 1), (0x0, 1)] {
        vgic.mmio_write(0, gicd(offset), bytes, 0xff);
    }
    assert_eq!(vgic.mmio_read(0, gicd(0x820), 4), 0x0101_0101);
    assert_eq!(vgic.take_kicks(), 0);
    let mut guest = Guest::new(0, &mut vgic);
    assert_eq!(vgic.read_gicc(0, &mut guest.interface, 4, 1), 0);
    vgic.write_gicc(0, &mut guest.interface, 4, 1, 0);
    assert_eq!(guest.read(&mut vgic, 4), 0xf0);
}

#[test]
fn no_access_of_any_kind_goes_wrong() {
    let mut vgic = set_up(8);
    let mut guest = Guest::new(7, &mut vgic);
    for offset in 0..0x1100 {
        for bytes in [1, 2, 4, 8] {
            vgic.mmio_write(7, gicd(offset), bytes, 0xffff_ffff_ffff_ffff);
            let _value = vgic.mmio_read(7, gicd(offset), bytes);
            vgic.write_gicc(7, &mut guest.interface, offset, bytes, 0xffff_ffff_ffff_ffff);
            let _value = vgic.read_gicc(7, &mut guest.interface, offset, bytes);
        }
    }
}
