//! The controller against an ideal one that has room for everything, on random histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// An interrupt of the ideal controller, which knows nothing of list registers.
#[derive(Clone, Default)]
struct Ideal {
    enabled: bool,
    latch: bool,
    line: bool,
    active: bool,
    priority: u8,
}

#[derive(Clone, Debug)]
enum Step {
    Pulse(u32),
    Line(u32, bool),
    Enable(u32, bool),
    ClearPending(u32),
    Priority(u32, u8),
    Acknowledge,
    End,
}

/// Half of these are level-sensitive.
const SPIS: std::ops::Range<u32> = 60..68;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let spi = SPIS;
    let step = prop_oneof![
        3 => spi.clone().prop_map(Step::Pulse),
        3 => (spi.clone(), any::<bool>()).prop_map(|(n, level)| Step::Line(n, level)),
        1 => (spi.clone(), any::<bool>()).prop_map(|(n, on)| Step::Enable(n, on)),
        1 => spi.clone().prop_map(Step::ClearPending),
        1 => (spi, 0u8..8).prop_map(|(n, priority)| Step::Priority(n, priority << 5)),
        4 => Just(Step::Acknowledge),
        4 => Just(Step::End),
    ];
    proptest::collection::vec(step, 1..80)
}

struct World {
    vgic: Vgic,
    cpu: Cpu,
    ideal: BTreeMap<u32, Ideal>,
    running: Vec<(u8, u32)>,
}

impl World {
    fn new(lr_count: usize) -> Self {
        let interrupt = Ideal { enabled: true, priority: 0xa0, ..Ideal::default() };
        Self {
            vgic: set_up(1),
            cpu: Cpu::new(0, lr_count),
            ideal: SPIS.map(|intid| (intid, interrupt.clone())).collect(),
            running: Vec::new(),
        }
    }

    fn is_edge(intid: u32) -> bool {
        intid >= 64
    }

    /// What the ideal controller would let the guest acknowledge.
    fn expected(&self) -> Option<u32> {
        let pending = self.ideal.iter().filter(|(intid, i)| {
            i.enabled && !i.active && (i.latch || i.line && !Self::is_edge(**intid))
        });
        let best = pending.min_by_key(|(intid, i)| (i.priority, **intid))?;
        let running = self.running.last().map_or(0xff, |&(priority, _)| priority);
        (best.1.priority < running).then_some(*best.0)
    }

    fn write(&mut self, register: u64, intid: u32) {
        let address = gicd(register + 4 * u64::from(intid / 32));
        self.vgic.mmio_write(0, address, 4, 1 << (intid % 32));
    }

    /// Acts on both. The vCPU has exited.
    fn act(&mut self, step: &Step) {
        match *step {
            Step::Pulse(intid) => {
                self.vgic.pulse(intid, None);
                self.ideal.entry(intid).and_modify(|i| i.latch |= Self::is_edge(intid));
            }
            Step::Line(intid, level) => {
                self.vgic.set_line(intid, None, level);
                self.ideal.entry(intid).and_modify(|i| {
                    i.latch |= Self::is_edge(intid) && level && !i.line;
                    i.line = level;
                });
            }
            Step::Enable(intid, on) => {
                self.write(if on { 0x100 } else { 0x180 }, intid);
                self.ideal.entry(intid).and_modify(|i| i.enabled = on);
            }
            Step::ClearPending(intid) => {
                self.write(0x280, intid);
                self.ideal.entry(intid).and_modify(|i| i.latch = false);
            }
            Step::Priority(intid, priority) => {
                set_priority(&mut self.vgic, intid, priority.into());
                self.ideal.entry(intid).and_modify(|i| i.priority = priority);
            }
            Step::Acknowledge | Step::End => {}
        }
    }

    /// The guest's own acts happen while it runs.
    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Acknowledge => {
                let taken = self.cpu.acknowledge();
                prop_assert_eq!(taken, self.expected());
                if let Some((intid, i)) = taken.and_then(|n| Some((n, self.ideal.get_mut(&n)?))) {
                    (i.latch, i.active) = (false, true);
                    self.running.push((i.priority, intid));
                }
            }
            Step::End => {
                if let Some((_, intid)) = self.running.pop() {
                    self.cpu.end(intid);
                    self.ideal.entry(intid).and_modify(|i| i.active = false);
                }
            }
            _ => prop_assert_eq!(self.cpu.interface.deliverable(), self.expected().is_some()),
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn delivers_what_an_ideal_controller_delivers(steps in steps(), lr_count in 1usize..5) {
        let mut world = World::new(lr_count);
        world.cpu.enter(&mut world.vgic);
        for step in &steps {
            world.run(step)?;
            // Runs on as long as nothing asks for an exit, as a guest does.
            let asks = !matches!(step, Step::Acknowledge | Step::End);
            if asks || world.cpu.wants_maintenance() {
                world.cpu.exit(&mut world.vgic);
                world.act(step);
                let signal = world.vgic.signal(0, &world.cpu.interface);
                prop_assert_eq!(signal.is_some(), world.expected().is_some());
                world.cpu.enter(&mut world.vgic);
                prop_assert_eq!(world.cpu.interface.signal(), signal);
            }
        }
    }
}
