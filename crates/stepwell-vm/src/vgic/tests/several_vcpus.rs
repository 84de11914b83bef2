//! Several vCPUs that run at their own pace: nothing is lost, nothing is in two places, and a kick
//! or a maintenance interrupt is all that anybody ever needs to notice.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const VCPUS: usize = 3;
const SPIS: std::ops::Range<u32> = 64..68;

#[derive(Clone, Debug)]
enum Step {
    Pulse(u32),
    Route { by: usize, spi: u32, to: usize },
    Priority { by: usize, spi: u32, value: u64 },
    Sgi { by: usize, intid: u32, to: usize },
    Take(usize),
    End(usize),
    Trip(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vcpu = 0..VCPUS;
    let step = prop_oneof![
        4 => SPIS.prop_map(Step::Pulse),
        2 => (vcpu.clone(), SPIS, vcpu.clone()).prop_map(|(by, spi, to)| Step::Route { by, spi, to }),
        1 => (vcpu.clone(), SPIS, 0u64..4)
            .prop_map(|(by, spi, n)| Step::Priority { by, spi, value: n << 6 }),
        2 => (vcpu.clone(), 0u32..3, vcpu.clone())
            .prop_map(|(by, intid, to)| Step::Sgi { by, intid, to }),
        4 => vcpu.clone().prop_map(Step::Take),
        4 => vcpu.clone().prop_map(Step::End),
        2 => vcpu.prop_map(Step::Trip),
    ];
    proptest::collection::vec(step, 1..60)
}

struct World {
    vgic: Vgic,
    cpus: Vec<Cpu>,
    running: Vec<Vec<u32>>,
    kicks: u8,
    /// Made pending and not taken since: SPIs, and SGIs of a vCPU.
    owed: BTreeSet<(Option<usize>, u32)>,
}

impl World {
    fn new(lr_count: usize) -> Self {
        let mut vgic = set_up(VCPUS as u64);
        let mut cpus: Vec<Cpu> = (0..VCPUS).map(|n| Cpu::new(n, lr_count)).collect();
        cpus.iter_mut().for_each(|cpu| cpu.enter(&mut vgic));
        Self { vgic, cpus, running: vec![Vec::new(); VCPUS], kicks: 0, owed: BTreeSet::new() }
    }

    /// Exits, does something there, and enters again.
    fn at_el2(&mut self, vcpu: usize, act: impl FnOnce(&mut Vgic)) {
        self.kicks &= !bit_of(vcpu);
        self.cpus[vcpu].exit(&mut self.vgic);
        act(&mut self.vgic);
        self.cpus[vcpu].enter(&mut self.vgic);
    }

    fn take(&mut self, vcpu: usize) -> bool {
        let Some(intid) = self.cpus[vcpu].acknowledge() else { return false };
        self.owed.remove(&((intid < 16).then_some(vcpu), intid));
        self.running[vcpu].push(intid);
        true
    }

    fn end(&mut self, vcpu: usize) {
        if let Some(intid) = self.running[vcpu].pop() {
            self.cpus[vcpu].end(intid);
        }
    }

    fn act(&mut self, step: &Step) {
        match *step {
            Step::Pulse(spi) => {
                self.owed.insert((None, spi));
                self.vgic.pulse(spi, None);
            }
            Step::Route { by, spi, to } => self.at_el2(by, |vgic| {
                vgic.mmio_write(by, gicd(0x6000 + 8 * u64::from(spi)), 8, to as u64);
            }),
            Step::Priority { by, spi, value } => self.at_el2(by, |vgic| {
                vgic.mmio_write(by, gicd(0x400 + u64::from(spi)), 1, value);
            }),
            Step::Sgi { by, intid, to } => {
                self.owed.insert((Some(to), intid));
                self.at_el2(by, |vgic| vgic.write_sgi1r(by, u64::from(intid) << 24 | 1 << to));
            }
            Step::Take(vcpu) => drop(self.take(vcpu)),
            Step::End(vcpu) => self.end(vcpu),
            Step::Trip(vcpu) => self.at_el2(vcpu, |_| {}),
        }
        self.kicks |= self.vgic.take_kicks();
        self.answer_maintenance();
    }

    fn answer_maintenance(&mut self) {
        for vcpu in 0..VCPUS {
            if self.cpus[vcpu].wants_maintenance() {
                self.at_el2(vcpu, |_| {});
                self.kicks |= self.vgic.take_kicks();
            }
        }
    }

    /// Lets everybody finish, exiting only when told to.
    fn settle(&mut self) {
        for _ in 0..100 {
            for vcpu in 0..VCPUS {
                if self.kicks & bit_of(vcpu) != 0 {
                    self.at_el2(vcpu, |_| {});
                    self.kicks |= self.vgic.take_kicks();
                }
                while self.take(vcpu) {}
                self.end(vcpu);
                self.answer_maintenance();
            }
        }
    }

    fn loaded_once(&self) -> bool {
        let spis = self.cpus.iter().flat_map(|cpu| cpu.interface.list_registers());
        let spis = spis.filter(|r| r.intid() >= 32 && (r.is_pending() || r.is_active()));
        let all: Vec<u32> = spis.map(ListRegister::intid).collect();
        all.iter().collect::<BTreeSet<_>>().len() == all.len()
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled(steps in steps(), lr_count in 1usize..5) {
        let mut world = World::new(lr_count);
        for step in &steps {
            world.act(step);
            prop_assert!(world.loaded_once());
        }
        world.settle();
        prop_assert_eq!(&world.owed, &BTreeSet::new());
        for vcpu in 0..VCPUS {
            world.at_el2(vcpu, |_| {});
            prop_assert_eq!(&world.running[vcpu], &Vec::<u32>::new());
            prop_assert!(world.cpus[vcpu].interface.lr.iter().all(|&value| value == 0));
        }
        prop_assert!(SPIS.clone().all(|spi| !is_active(&mut world.vgic, spi)));
    }
}
