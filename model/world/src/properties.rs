//! What holds in every state, and what must be seen to happen in some.
//!
//! Progress, that a program which ends unstepped ends stepped, is no property of a state; see
//! [`crate::progress`].

use crate::adversary::Order;
use crate::exploration::Exploration;
use crate::world::{VcpuState, World, Wrong};
use stateright::Property;
use std::ops::Deref;
use stepwell_engine::own_step;
use stepwell_protocol::{InterruptPolicy, OthersPolicy, StopReason};
use stepwell_spec::exception::{FROM_LOWER_EL, vector_of};
use stepwell_spec::{Class, El, Mdcr, Mdscr, SpecMachine};
use stepwell_vm::domain::bit;
use stepwell_vm::vcpu::advance::Needs;

type Condition = fn(&Exploration, &World) -> bool;

/// What holds always: its name, the condition, and the witnesses that keep it from being empty.
///
/// A witness fails where the space has silently shrunk.
type Row = (&'static str, Condition, &'static [(&'static str, Condition)]);

/// All properties of an exploration.
#[must_use]
pub fn all(exploration: &Exploration) -> Vec<Property<Exploration>> {
    let several: &[Row] = match (exploration.is_alone(), exploration.others) {
        (true, _) => &[],
        (false, OthersPolicy::Run) if !exploration.shares_cpu => BESIDE,
        (false, OthersPolicy::Run) => ON_ONE_CPU,
        (false, _) => TURNS,
    };
    let rows = REPORTS.iter().chain(GUEST).chain(several);
    rows.flat_map(|&(name, holds, witnesses)| {
        let witnesses = witnesses.iter().map(|&(name, seen)| Property::sometimes(name, seen));
        core::iter::once(Property::always(name, holds)).chain(witnesses)
    })
    .collect()
}

/// One step, one record and one stop for each thing that happens.
const REPORTS: &[Row] = &[
    (
        "a stop tells as many steps as things have happened, and no more than were asked for",
        |_, world| world.wrong != Some(Wrong::Count),
        &[("a stop comes after several steps", |_, world| {
            world.is_stopped() && world.stop == Some(StopReason::Stepped)
        })],
    ),
    (
        "each instruction is in the ring once, and in order",
        |_, world| world.wrong != Some(Wrong::Record),
        &[("something has executed and is not in the ring yet", |_, world| {
            world.vcpus.iter().any(|vcpu| vcpu.unrecorded.len() > 1)
        })],
    ),
    (
        "a command has one stop, of a breakpoint that there is, and no breakpoint or call is told twice",
        |_, world| world.wrong != Some(Wrong::Told),
        &[
            ("a pause comes under a step", |_, world| {
                world.is_stopped() && world.stop == Some(StopReason::Paused)
            }),
            ("a breakpoint stops a guest", |_, world| {
                world.is_stopped() && world.stop == Some(StopReason::Breakpoint)
            }),
        ],
    ),
    (
        "no instruction executes at which a breakpoint is to stop it",
        |_, world| world.wrong != Some(Wrong::Breakpoint),
        &[("an instruction executes at whose breakpoint it was stopped", |_, world| {
            !world.shared.control.breakpoints.is_empty()
                && any(world, |vcpu| vcpu.is_in_guest() && vcpu.may_pass == Some(1))
        })],
    ),
    (
        "an interrupt that is held is not entered under a step",
        |_, world| world.wrong != Some(Wrong::Held),
        &[("an interrupt is held", |_, world| {
            any(world, |vcpu| {
                vcpu.is_stepping()
                    && world.shared.control.interrupts == InterruptPolicy::Hold
                    && vcpu.alone.virq
            })
        })],
    ),
    ("the domain does not end", |_, world| world.wrong != Some(Wrong::Ended), &[]),
    // What is pending is entered with SS = 0, as often as it takes.
    (
        "pending survives any run of asynchronous exits",
        |_, world| {
            all_of(world, |vcpu| {
                let enters_pending = vcpu.is_in_guest() && vcpu.is_pending();
                let machine = vcpu.machine();
                !enters_pending || (!machine.pstate.ss && machine.check_software_step())
            })
        },
        &[("a pending step is entered again", |_, world| {
            any(world, |vcpu| vcpu.is_pending() && vcpu.is_in_guest())
        })],
    ),
    (
        "a vCPU that is stopped has nothing pending, and nobody is quiesced for it",
        |_, world| {
            all_of(world, |vcpu| vcpu.is_running() || !vcpu.is_stepping())
                && (!world.is_stopped() || world.shared.holder.is_none())
        },
        &[
            ("others are quiesced", |_, world| world.shared.holder.is_some()),
            ("it stops within an exclusive sequence", |_, world| {
                world.is_stopped() && any(world, |vcpu| vcpu.values.hot.monitor.armed().is_some())
            }),
        ],
    ),
];

/// The guest cannot tell, and a debugger sees the guest.
const GUEST: &[Row] = &[
    (
        "the guest is where it would be alone",
        |_, world| world.wrong != Some(Wrong::Guest),
        &[
            ("a program ends under a step", |model, world| {
                any(world, |vcpu| {
                    vcpu.is_counting() && usize::from(vcpu.alone.pc) == model.program(world).0.len()
                })
            }),
            ("an interrupt is entered under a step", |_, world| {
                any(world, |vcpu| vcpu.is_counting() && is_at_interrupt(&vcpu.alone))
            }),
            ("an illegal return is stepped", |_, world| {
                any(world, |vcpu| vcpu.is_stepping() && vcpu.alone.pstate.il)
            }),
            ("a handler is stepped over", |_, world| {
                any(world, |vcpu| {
                    let is_free = vcpu.values.flow.as_ref().is_some_and(|flow| flow.is_over());
                    vcpu.values.cold.handler_of.is_some() || is_free
                })
            }),
        ],
    ),
    (
        "a debugger reads the guest's own SS and MDSCR_EL1",
        |_, world| {
            all_of(world, |vcpu| {
                let (guest, debug) = (vcpu.guest(), vcpu.values.cold.debug.guest());
                let alone = &vcpu.alone;
                vcpu.is_running()
                    || guest.pstate.ss == alone.pstate.ss
                        && guest.spsr_el1.ss == alone.spsr_el1.ss
                        && crate::bits::mdscr_of(debug.mdscr) == alone.mdscr
                        && debug.os_lock == (alone.os_lock || alone.os_double_lock)
            })
        },
        &[
            ("a debugger reads an SS of 1", |_, world| {
                world.is_stopped() && any(world, |vcpu| vcpu.guest().pstate.ss)
            }),
            ("the guest has a lock set under a step", |_, world| {
                any(world, |vcpu| vcpu.is_stepping() && vcpu.values.cold.debug.guest().os_lock)
            }),
        ],
    ),
    (
        "stepping that is off leaves nothing behind",
        |_, world| all_of(world, |vcpu| !is_untouched(world, vcpu) || has_nothing_left(vcpu)),
        &[("a guest runs after steps", |_, world| {
            any(world, |vcpu| is_untouched(world, vcpu)) && world.stop.is_some()
        })],
    ),
    (
        "the guest's own step is due exactly where it is alone",
        |_, world| {
            all_of(world, |vcpu| {
                let ignores = vcpu.alone.implementation.ignores_os_lock;
                let debug = vcpu.values.cold.debug.guest();
                let pstate = crate::bits::pstate(vcpu.guest().pstate);
                vcpu.is_running()
                    || ignores
                    || own_step::check_software_step(debug, pstate)
                        == vcpu.alone.check_software_step()
            })
        },
        &[
            ("the guest steps itself under a step", |_, world| {
                any(world, |vcpu| {
                    vcpu.is_counting() && vcpu.alone.esr_el1.class == Class::SoftwareStep
                })
            }),
            ("the guest steps itself and runs", |_, world| {
                any(world, |vcpu| {
                    vcpu.is_stepping()
                        && !vcpu.is_counting()
                        && vcpu.alone.esr_el1.class == Class::SoftwareStep
                })
            }),
        ],
    ),
    (
        "a store-exclusive succeeds only where it could have",
        |_, world| world.wrong != Some(Wrong::Store),
        &[
            ("a store-exclusive succeeds under a step", |_, world| {
                any(world, |vcpu| {
                    vcpu.is_stepping() && vcpu.machine().loaded != vcpu.machine().line
                })
            }),
            ("a store-exclusive fails under a step", |_, world| {
                any(world, |vcpu| vcpu.is_stepping() && vcpu.machine().status)
            }),
        ],
    ),
    (
        "EL2 is never stepped",
        |_, world| {
            all_of(world, |vcpu| {
                let machine = vcpu.machine();
                vcpu.is_in_guest()
                    || !world.is_on_cpu(vcpu.n)
                    || machine.pstate.el == El::El2 && !machine.check_software_step()
            })
        },
        &[],
    ),
];

/// One vCPU is stepped, and another runs beside it.
const BESIDE: &[Row] = &[
    (
        "whoever was quiesced is called when nobody needs that",
        |_, world| {
            all_of(world, |vcpu| {
                let is_quiesced = vcpu.values.flow.as_ref().is_some_and(|flow| flow.is_quiesced());
                let is_needed = world.shared.holder.is_some_and(|holder| holder != vcpu.n);
                !is_quiesced || is_needed || is_called(vcpu)
            })
        },
        &[("a vCPU is quiesced", |_, world| {
            any(world, |vcpu| vcpu.values.flow.as_ref().is_some_and(|flow| flow.is_quiesced()))
        })],
    ),
    (
        "no other vCPU is in its guest within a stepped exclusive sequence",
        |_, world| {
            let is_within = |vcpu: &VcpuState| {
                let plan = vcpu.values.flow.as_ref().map(|flow| flow.plan_in_hand());
                let monitor = &vcpu.values.hot.monitor;
                vcpu.is_counting() && plan.is_some_and(|plan| monitor.needs_others_stopped(plan))
            };
            let stepped = world.vcpus.first().filter(|vcpu| vcpu.is_in_guest());
            let is_armed = stepped.is_some_and(is_within);
            !is_armed || world.vcpus.iter().filter(|vcpu| vcpu.is_in_guest()).count() <= 1
        },
        &[("both are in their guests", |_, world| world.vcpus.iter().all(VcpuState::is_in_guest))],
    ),
];

/// Several vCPUs on one CPU.
const ON_ONE_CPU: &[Row] = &[(
    "one vCPU at a time is in its guest",
    |_, world| world.vcpus.iter().filter(|vcpu| vcpu.is_in_guest()).count() <= 1,
    &[
        ("one runs while another is in the middle of a step", |_, world| {
            let is_free =
                |vcpu: Seen<'_>| vcpu.values.flow.as_ref().is_some_and(|flow| flow.is_free());
            any(world, |vcpu| vcpu.is_in_guest() && is_free(vcpu))
                && any(world, |vcpu| !world.is_on_cpu(vcpu.n) && vcpu.is_counting())
        }),
        ("a turn is over while a step is pending", |_, world| {
            world.turn.as_ref().is_some_and(|turn| turn.is_late)
                && any(world, |vcpu| vcpu.is_pending())
        }),
    ],
)];

/// Several vCPUs, stepped in turns.
const TURNS: &[Row] = &[
    (
        "one vCPU at a time is in its guest under a step",
        |_, world| {
            world.last == Some(Order::Continue)
                || world.vcpus.iter().filter(|vcpu| vcpu.is_in_guest()).count() <= 1
        },
        &[("the other one moves under a step", |_, world| {
            world.vcpus.get(1).is_some_and(|vcpu| vcpu.is_in_guest() && vcpu.is_counting())
        })],
    ),
    (
        "whoever has the turn moves, or is called to",
        |_, world| {
            world.is_stopped()
                || world.turn.is_some()
                || world.last == Some(Order::Continue)
                || world.shared.turns.has_nobody()
                || any(world, |vcpu| match vcpu.needs {
                    Some(Needs::Interrupt) => is_called(vcpu),
                    Some(_) => true,
                    None => vcpu.values.order.is_some(),
                })
        },
        &[],
    ),
];

/// Whether its CPU was called.
fn is_called(vcpu: Seen<'_>) -> bool {
    vcpu.world.kicks & bit(vcpu.world.cpu_of(vcpu.n)) != 0
}

/// A vCPU of a world.
#[derive(Clone, Copy)]
struct Seen<'a> {
    world: &'a World,
    n: usize,
}

impl Deref for Seen<'_> {
    type Target = VcpuState;
    fn deref(&self) -> &VcpuState {
        &self.world.vcpus[self.n]
    }
}

impl<'a> Seen<'a> {
    fn machine(self) -> &'a SpecMachine {
        self.world.machine(self.n)
    }
    fn guest(self) -> SpecMachine {
        self.world.guest(self.n)
    }
    fn is_running(self) -> bool {
        self.world.is_running(self.n)
    }
}

fn any(world: &World, seen: impl Fn(Seen<'_>) -> bool) -> bool {
    (0..world.vcpus.len()).any(|n| seen(Seen { world, n }))
}

fn all_of(world: &World, holds: impl Fn(Seen<'_>) -> bool) -> bool {
    world.wrong.is_some() || (0..world.vcpus.len()).all(|n| holds(Seen { world, n }))
}

/// Whether the interrupt has just been entered.
fn is_at_interrupt(machine: &SpecMachine) -> bool {
    machine.pc & !FROM_LOWER_EL == vector_of(machine.virq_class)
}

/// Whether the guest runs, and nobody has an interest in it.
fn is_untouched(world: &World, vcpu: Seen<'_>) -> bool {
    vcpu.is_in_guest()
        && vcpu.values.flow.as_ref().is_some_and(|flow| flow.is_free() && !flow.is_over())
        && world.shared.control.breakpoints.is_empty()
        && world.shared.control.watchpoints.is_empty()
}

fn has_nothing_left(vcpu: Seen<'_>) -> bool {
    let (machine, alone) = (vcpu.machine(), &vcpu.alone);
    let is_locked = alone.os_lock || alone.os_double_lock;
    let mdscr = Mdscr { mde: alone.mdscr.mde && !is_locked, ..alone.mdscr };
    machine.mdcr == Mdcr { tde: false, tda: true }
        && machine.breakpoints == [None; 4]
        && machine.mdscr == mdscr
        && machine.pstate == alone.pstate
        && !vcpu.is_stepping()
}
