//! Who gets which interrupt when.

use super::*;

#[test]
fn a_pending_interrupt_is_taken_and_ended_once() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    assert!(vgic.has_pending(0, &cpu.interface));
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    cpu.trip(&mut vgic);
    assert!(is_active(&mut vgic, 70));
    assert_eq!(cpu.acknowledge(), None);
    cpu.end(70);
    cpu.trip(&mut vgic);
    assert!(!is_active(&mut vgic, 70));
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn the_most_urgent_comes_first_then_the_lowest_intid() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 2);
    for (spi, priority) in [(70, 0xa0), (71, 0x40), (72, 0x80), (73, 0x40)] {
        set_priority(&mut vgic, spi, priority);
        vgic.pulse(spi, None);
    }
    cpu.enter(&mut vgic);
    for expected in [71, 73, 72, 70] {
        let taken = cpu.acknowledge();
        assert_eq!(taken, Some(expected));
        cpu.end(expected);
        if cpu.wants_maintenance() {
            cpu.trip(&mut vgic);
        }
    }
}

#[test]
fn a_more_urgent_interrupt_preempts_and_an_equal_one_waits() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    set_priority(&mut vgic, 71, 0x40);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    vgic.pulse(72, None);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
    vgic.pulse(71, None);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(71));
    cpu.end(71);
    assert_eq!(cpu.acknowledge(), None);
    cpu.end(70);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(72));
}

/// The CPU interface goes by the list register: its end would find another interrupt there.
#[test]
fn an_active_interrupt_ends_as_it_was_acknowledged_whatever_it_has_become() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    // Both groups.
    vgic.mmio_write(0, gicd(0), 4, 0x13);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    cpu.exit(&mut vgic);
    set_priority(&mut vgic, 70, 0x40);
    vgic.mmio_write(0, gicd(0x80 + 8), 4, 0);
    // It is an edge that comes again, of Group 0 now.
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
    cpu.end(70);
    assert!(cpu.wants_maintenance(), "to be signalled as what it has become");
    cpu.trip(&mut vgic);
    assert!(!is_active(&mut vgic, 70));
    let register = cpu.interface.list_registers().next().unwrap_or_default();
    assert_eq!((register.intid(), register.priority(), register.is_group1()), (70, 0x40, false));
}

#[test]
fn preemption_works_with_a_single_list_register() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 1);
    set_priority(&mut vgic, 71, 0x40);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    vgic.pulse(71, None);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(71));
    cpu.end(71);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
    cpu.end(70);
    cpu.trip(&mut vgic);
    assert!(!is_active(&mut vgic, 70) && !is_active(&mut vgic, 71));
}

#[test]
fn an_end_without_list_register_is_counted_and_noticed() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 1);
    set_priority(&mut vgic, 71, 0xc0);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    vgic.pulse(71, None);
    // The list register goes to the pending one, in case it preempts.
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
    cpu.end(70);
    assert!(cpu.wants_maintenance());
    cpu.trip(&mut vgic);
    assert!(!is_active(&mut vgic, 70));
    assert_eq!(cpu.acknowledge(), Some(71));
}

#[test]
fn split_eoi_drops_priority_first_and_deactivates_later() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4).split_eoi();
    vgic.pulse(70, None);
    vgic.pulse(71, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    cpu.end(70);
    cpu.trip(&mut vgic);
    assert!(is_active(&mut vgic, 70));
    assert_eq!(cpu.acknowledge(), Some(71));
    cpu.end(71);
    cpu.deactivate(70);
    cpu.trip(&mut vgic);
    assert!(!is_active(&mut vgic, 70) && is_active(&mut vgic, 71));
}

/// As QEMU counts it, too, where the priority alone is dropped.
#[test]
fn with_split_eoi_a_count_deactivates_nothing() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 1).split_eoi();
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    cpu.trip(&mut vgic);
    cpu.end(70);
    cpu.interface.hcr += 1 << hcr::EOICOUNT_SHIFT;
    cpu.trip(&mut vgic);
    assert!(is_active(&mut vgic, 70));
}

#[test]
fn many_can_stay_active_with_split_eoi_and_end_in_any_order() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 2).split_eoi();
    for spi in 70..76 {
        vgic.pulse(spi, None);
        cpu.trip(&mut vgic);
        assert_eq!(cpu.acknowledge(), Some(spi));
        cpu.end(spi);
    }
    cpu.trip(&mut vgic);
    for spi in [75, 70, 73, 71, 74, 72] {
        assert!(is_active(&mut vgic, spi));
        // ICC_DIR_EL1 traps.
        assert_ne!(cpu.interface.hcr & hcr::TDIR, 0);
        cpu.exit(&mut vgic);
        vgic.write_dir(0, spi.into());
        cpu.enter(&mut vgic);
        assert!(!is_active(&mut vgic, spi));
    }
}

#[test]
fn an_edge_while_active_makes_it_pending_again() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    vgic.pulse(70, None);
    assert_eq!(vgic.take_kicks(), 1);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
    cpu.end(70);
    // Hardware goes from active and pending to pending without our help.
    assert_eq!(cpu.acknowledge(), Some(70));
    cpu.end(70);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn a_level_is_sampled_again_when_its_interrupt_ends() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.set_line(VIRTUAL_TIMER, Some(0), true);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(VIRTUAL_TIMER));
    assert!(!cpu.wants_maintenance());
    cpu.end(VIRTUAL_TIMER);
    assert!(cpu.wants_maintenance());
    assert_eq!(cpu.exit(&mut vgic), 1 << VIRTUAL_TIMER);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(VIRTUAL_TIMER));
    cpu.exit(&mut vgic);
    vgic.set_line(VIRTUAL_TIMER, Some(0), false);
    cpu.enter(&mut vgic);
    cpu.end(VIRTUAL_TIMER);
    assert_eq!(cpu.exit(&mut vgic), 1 << VIRTUAL_TIMER);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn a_level_that_falls_is_pending_no_more() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.set_line(SPI, None, true);
    cpu.enter(&mut vgic);
    assert!(cpu.interface.deliverable());
    vgic.take_kicks();
    vgic.set_line(SPI, None, false);
    assert_eq!(vgic.take_kicks(), 1, "it is in a list register");
    cpu.trip(&mut vgic);
    assert!(!cpu.interface.deliverable());
}

#[test]
fn a_level_made_pending_by_a_write_ends_with_its_acknowledge() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.mmio_write(0, gicd(0x204), 4, 1 << (SPI - 32));
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(SPI));
    cpu.end(SPI);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn a_held_interrupt_is_not_delivered_until_let_go() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.set_line(SPI, None, true);
    vgic.pulse(70, None);
    cpu.hold = true;
    for _ in 0..3 {
        cpu.trip(&mut vgic);
        assert!(!cpu.interface.deliverable());
        assert!(!cpu.wants_maintenance());
    }
    cpu.hold = false;
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(SPI));
}

#[test]
fn holding_lets_a_running_handler_end() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
    vgic.pulse(70, None);
    cpu.hold = true;
    cpu.trip(&mut vgic);
    cpu.end(70);
    assert_eq!(cpu.acknowledge(), None);
    cpu.trip(&mut vgic);
    assert!(!is_active(&mut vgic, 70));
    cpu.hold = false;
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn disabling_takes_a_pending_interrupt_away_and_keeps_it_pending() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    cpu.exit(&mut vgic);
    vgic.mmio_write(0, gicd(0x188), 4, 1 << 6);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
    assert_eq!(vgic.mmio_read(0, gicd(0x208), 4), 1 << 6);
    cpu.exit(&mut vgic);
    vgic.mmio_write(0, gicd(0x108), 4, 1 << 6);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn clearing_pending_on_another_vcpu_wins() {
    let mut vgic = set_up(2);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    vgic.take_kicks();
    vgic.mmio_write(1, gicd(0x288), 4, 1 << 6);
    assert_eq!(vgic.take_kicks(), 1);
    cpu.trip(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn a_disabled_group_delivers_nothing() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    vgic.mmio_write(0, gicd(0), 4, 1);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.interface.signal(), None);
    cpu.exit(&mut vgic);
    assert!(!vgic.has_pending(0, &cpu.interface));
    vgic.mmio_write(0, gicd(0), 4, 2);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn group_0_interrupts_do_not_crowd_out_those_the_guest_takes() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 2);
    vgic.mmio_write(0, gicd(0), 4, 3);
    vgic.mmio_write(0, gicd(0x88), 4, !0xf);
    for spi in [64, 65, 66, 70, 71] {
        vgic.pulse(spi, None);
    }
    cpu.enter(&mut vgic);
    assert_ne!(cpu.interface.hcr & hcr::VGRP0EIE, 0);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn the_priority_mask_hides_and_shows() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    cpu.set_mask(0xa0);
    assert!(!vgic.has_pending(0, &cpu.interface));
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), None);
    // The guest unmasks without an exit.
    cpu.set_mask(0xa8);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn more_pending_than_list_registers_all_arrive() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    for spi in 64..114 {
        vgic.pulse(spi, None);
    }
    cpu.enter(&mut vgic);
    for spi in 64..114 {
        assert_eq!(cpu.acknowledge(), Some(spi));
        cpu.end(spi);
        if cpu.wants_maintenance() {
            cpu.trip(&mut vgic);
        }
    }
    cpu.trip(&mut vgic);
    assert_eq!(cpu.interface.hcr & hcr::NPIE, 0);
    assert_eq!(cpu.acknowledge(), None);
}

#[test]
fn sgis_reach_self_others_and_all_but_self() {
    let mut vgic = set_up(3);
    let mut cpus = [0, 1, 2].map(|n| Cpu::new(n, 4));
    let mut taken = |vgic: &mut Vgic| {
        [0, 1, 2].map(|n: usize| {
            let cpu = &mut cpus[n];
            cpu.trip(vgic);
            let intid = cpu.acknowledge();
            intid.into_iter().for_each(|intid| cpu.end(intid));
            intid
        })
    };
    vgic.write_sgi1r(1, 5 << 24 | 0b010);
    assert_eq!(vgic.take_kicks(), 0, "a vCPU needs no kick from itself");
    assert_eq!(taken(&mut vgic), [None, Some(5), None]);
    vgic.write_sgi1r(1, 6 << 24 | 0b101);
    assert_eq!(vgic.take_kicks(), 0b101);
    assert_eq!(taken(&mut vgic), [Some(6), None, Some(6)]);
    vgic.write_sgi1r(0, 7 << 24 | 1 << 40);
    assert_eq!(vgic.take_kicks(), 0b110);
    assert_eq!(taken(&mut vgic), [None, Some(7), Some(7)]);
}

#[test]
fn sgis_are_for_the_group_they_are_sent_to() {
    let mut vgic = set_up(2);
    vgic.write_sgi0r(0, 5 << 24 | 0b10);
    assert_eq!(vgic.take_kicks(), 0);
    vgic.mmio_write(1, gicr(1, 0x1_0080), 4, 0);
    vgic.write_sgi1r(0, 5 << 24 | 0b10);
    assert_eq!(vgic.mmio_read(1, gicr(1, 0x1_0200), 4), 0);
    vgic.write_sgi0r(0, 5 << 24 | 0b10);
    assert_eq!(vgic.mmio_read(1, gicr(1, 0x1_0200), 4), 1 << 5);
}

#[test]
fn an_spi_goes_where_its_route_says() {
    let mut vgic = set_up(2);
    let mut cpus = [0, 1].map(|n| Cpu::new(n, 4));
    route(&mut vgic, 70, 1);
    vgic.pulse(70, None);
    assert_eq!(vgic.take_kicks(), 0b10);
    let taken = cpus.each_mut().map(|cpu| {
        cpu.enter(&mut vgic);
        cpu.acknowledge()
    });
    assert_eq!(taken, [None, Some(70)]);
}

#[test]
fn an_spi_routed_to_nobody_stays_pending() {
    let mut vgic = set_up(2);
    route(&mut vgic, 70, 5);
    vgic.pulse(70, None);
    assert_eq!(vgic.take_kicks(), 0);
    assert_eq!(vgic.mmio_read(0, gicd(0x208), 4), 1 << 6);
    // Routing to any participating vCPU is not implemented, and is served all the same.
    route(&mut vgic, 70, 1 << 31 | 5);
    let mut cpu = Cpu::new(0, 4);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn a_pending_spi_moves_with_its_route() {
    let mut vgic = set_up(2);
    let mut cpus = [0, 1].map(|n| Cpu::new(n, 4));
    vgic.pulse(70, None);
    cpus.iter_mut().for_each(|cpu| cpu.enter(&mut vgic));
    vgic.take_kicks();
    cpus[1].exit(&mut vgic);
    vgic.mmio_write(1, gicd(0x6000 + 8 * 70), 8, 1);
    assert_eq!(vgic.take_kicks(), 0b01, "vCPU 0 has it in a list register");
    cpus[1].enter(&mut vgic);
    assert_eq!(cpus[1].acknowledge(), None, "never in two places");
    cpus[0].trip(&mut vgic);
    assert_eq!(vgic.take_kicks(), 0b10);
    assert_eq!(cpus[0].acknowledge(), None);
    cpus[1].trip(&mut vgic);
    assert_eq!(cpus[1].acknowledge(), Some(70));
}

#[test]
fn an_active_spi_stays_with_its_vcpu_and_its_next_edge_moves() {
    let mut vgic = set_up(2);
    let mut cpus = [0, 1].map(|n| Cpu::new(n, 4));
    vgic.pulse(70, None);
    cpus.iter_mut().for_each(|cpu| cpu.enter(&mut vgic));
    assert_eq!(cpus[0].acknowledge(), Some(70));
    cpus[0].exit(&mut vgic);
    route(&mut vgic, 70, 1);
    vgic.pulse(70, None);
    cpus[0].enter(&mut vgic);
    cpus[1].trip(&mut vgic);
    assert_eq!(cpus[1].acknowledge(), None, "it is active elsewhere");
    vgic.take_kicks();
    cpus[0].end(70);
    assert!(cpus[0].wants_maintenance(), "somebody waits for this end");
    cpus[0].trip(&mut vgic);
    assert_eq!(cpus[0].acknowledge(), None);
    assert_eq!(vgic.take_kicks(), 0b10);
    cpus[1].trip(&mut vgic);
    assert_eq!(cpus[1].acknowledge(), Some(70));
}

#[test]
fn an_spi_can_be_deactivated_from_another_vcpu() {
    let mut vgic = set_up(2);
    let mut cpus = [0, 1].map(|n| Cpu::new(n, 4).split_eoi());
    vgic.pulse(70, None);
    cpus[0].enter(&mut vgic);
    assert_eq!(cpus[0].acknowledge(), Some(70));
    cpus[0].end(70);
    cpus[0].trip(&mut vgic);
    cpus[1].enter(&mut vgic);
    assert_ne!(cpus[1].interface.hcr & hcr::TDIR, 0);
    cpus[1].exit(&mut vgic);
    vgic.write_dir(1, 70);
    assert_eq!(vgic.take_kicks(), 1);
    cpus[0].trip(&mut vgic);
    assert!(!is_active(&mut vgic, 70));
    assert!(cpus[0].interface.lr.iter().all(|&value| value == 0));
}

#[test]
fn active_state_can_be_read_and_given_by_writes() {
    let mut vgic = set_up(2);
    let mut cpu = Cpu::new(0, 4);
    vgic.mmio_write(0, gicd(0x308), 4, 1 << 6);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), None, "active, so not signalled");
    cpu.exit(&mut vgic);
    vgic.mmio_write(0, gicd(0x388), 4, 1 << 6);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn a_reader_of_active_state_learns_who_to_wait_for() {
    let mut vgic = set_up(2);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    vgic.take_kicks();
    assert_eq!(vgic.holders(1, gicd(0x308)), 1);
    assert_eq!(vgic.holders(1, gicd(0x30c)), 0);
    assert_eq!(vgic.holders(1, gicd(0x108)), 0);
    assert_eq!(vgic.holders(0, gicd(0x308)), 0);
    assert_eq!([vgic.holder_of(1, 70), vgic.holder_of(1, 71), vgic.holder_of(0, 70)], [1, 0, 0]);
    vgic.wait_for(1, 1);
    assert_eq!(cpu.acknowledge(), Some(70));
    assert_eq!(vgic.awaited_by(1), 1);
    cpu.trip(&mut vgic);
    assert_eq!(vgic.awaited_by(1), 0);
    assert!(is_active(&mut vgic, 70), "as it was acknowledged, before the entry that it is at");
}

/// Another vCPU has acknowledged it, and is still in the guest.
#[test]
fn what_another_vcpu_has_acknowledged_is_deactivated_once_that_has_been_synced() {
    let mut vgic = set_up(2);
    let mut cpu = Cpu::new(0, 4).split_eoi();
    for round in 0..4 {
        vgic.pulse(70, None);
        cpu.enter(&mut vgic);
        assert_eq!(cpu.acknowledge(), Some(70), "{round}");
        cpu.end(70);
        // Called out, and in again before the other has its turn.
        cpu.trip(&mut vgic);
        if round % 2 == 0 {
            vgic.mmio_write(1, gicd(0x388), 4, 1 << 6);
        } else {
            vgic.write_dir(1, 70);
        }
        cpu.exit(&mut vgic);
        assert!(!is_active(&mut vgic, 70), "{round}");
    }
}

/// Those of the end that was counted, and of the list registers, are handlers'.
#[test]
fn what_a_write_made_active_does_not_end_in_place_of_what_was_acknowledged() {
    for actives in 1..8 {
        let mut vgic = set_up(1);
        let mut cpu = Cpu::new(0, 4);
        vgic.mmio_write(0, gicd(0x300 + 8), 4, (1 << actives) - 1);
        (0..actives).for_each(|n| set_priority(&mut vgic, 64 + n, 0x20));
        set_priority(&mut vgic, 80, 0x40);
        for _ in 0..2 {
            vgic.pulse(80, None);
            cpu.enter(&mut vgic);
            assert_eq!(cpu.acknowledge(), Some(80), "{actives}");
            cpu.trip(&mut vgic);
            cpu.end(80);
            cpu.exit(&mut vgic);
            assert!(!is_active(&mut vgic, 80), "{actives}");
            let left = vgic.mmio_read(0, gicd(0x300 + 8), 4);
            assert_eq!(left, (1 << actives) - 1);
        }
    }
}

#[test]
fn the_least_priority_is_never_signalled() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    cpu.set_mask(0xff);
    set_priority(&mut vgic, 70, 0xff);
    vgic.pulse(70, None);
    assert!(!vgic.has_pending(0, &cpu.interface));
    cpu.enter(&mut vgic);
    assert!(cpu.interface.lr.iter().all(|&value| value == 0));
    cpu.exit(&mut vgic);
    set_priority(&mut vgic, 70, 0xfe);
    assert!(vgic.has_pending(0, &cpu.interface));
}

#[test]
fn a_ppi_of_another_vcpu_is_not_ours() {
    let mut vgic = set_up(2);
    vgic.set_line(VIRTUAL_TIMER, Some(1), true);
    assert_eq!(vgic.take_kicks(), 0b10);
    let cpus = [0, 1].map(|n| Cpu::new(n, 4));
    let pending = cpus.each_ref().map(|cpu| vgic.has_pending(cpu.number, &cpu.interface));
    assert_eq!(pending, [false, true]);
}

#[test]
fn other_bits_of_the_control_register_are_the_callers() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    cpu.interface.hcr = 1 << 10 | 0x1f << 27;
    cpu.enter(&mut vgic);
    assert_eq!(cpu.interface.hcr, 1 << 10 | hcr::TDIR | 1);
}

#[test]
fn flushing_twice_loses_nothing() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.pulse(70, None);
    cpu.enter(&mut vgic);
    cpu.enter(&mut vgic);
    assert_eq!(cpu.acknowledge(), Some(70));
}

#[test]
fn what_waits_to_be_acknowledged_is_offered_in_a_list_register_and_out_of_it() {
    let mut vgic = set_up(1);
    let mut cpu = Cpu::new(0, 4);
    vgic.set_line(VIRTUAL_TIMER, Some(0), true);
    assert!(vgic.is_offered(0, VIRTUAL_TIMER));
    cpu.enter(&mut vgic);
    assert!(vgic.is_offered(0, VIRTUAL_TIMER), "loaded");
    assert_eq!(cpu.acknowledge(), Some(VIRTUAL_TIMER));
    cpu.exit(&mut vgic);
    assert!(!vgic.is_offered(0, VIRTUAL_TIMER), "acknowledged");
}
