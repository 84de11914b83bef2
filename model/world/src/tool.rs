//! What the tool does, and what it is told.

use crate::adversary::{Action, Order};
use crate::bits;
use crate::board;
use crate::exploration::Exploration;
use crate::pe;
use crate::world::{World, Wrong};
use stepwell_arch::{Pstate, SystemRegister, Va};
use stepwell_protocol::{Monitor, Place, Registers, StopReason, TraceRecord};
use stepwell_spec::Class;
use stepwell_wire::ring::Decoder;
use stepwell_wire::{Command, Event};

impl World {
    /// What has come into the ring is what was executed, in order.
    pub(crate) fn check_ring(&mut self) {
        let words = pe::with(|place| std::mem::take(&mut place.words));
        let mut decoder = Decoder::default();
        for word in words {
            match decoder.push(word) {
                Ok(Some(TraceRecord::Run { vcpu, pc, length, .. })) => {
                    let Some(vcpu) = self.vcpus.get_mut(usize::from(vcpu)) else { continue };
                    for at in 0..u64::from(length) {
                        let number = pe::number_of(pc.0 + 4 * at);
                        if vcpu.unrecorded.first() == Some(&number) {
                            vcpu.unrecorded.remove(0);
                        } else {
                            self.wrong.get_or_insert(Wrong::Record);
                        }
                    }
                }
                Ok(_) => {}
                Err(_) => {
                    self.wrong.get_or_insert(Wrong::Record);
                }
            }
        }
    }

    /// What the tool is told: one stop for each command, once all are stopped, with everything in the
    /// ring by then.
    pub(crate) fn check_told(&mut self) {
        let told = board::told();
        if told.len() != usize::from(self.is_stopped()) {
            self.is_wrong(Wrong::Told);
        }
        for event in told {
            match event {
                Event::Stopped { vcpu, reason, steps, .. } => {
                    self.check_stop(usize::from(vcpu), reason, steps);
                }
                _ => self.is_wrong(Wrong::Ended),
            }
        }
    }

    fn check_stop(&mut self, n: usize, reason: StopReason, steps: u64) {
        let Some(vcpu) = self.vcpus.get(n) else { return };
        let is_twice = vcpu.told == Some(reason);
        let has_breakpoint = self.shared.control.breakpoints.contains(&vcpu.values.hot.elr);
        let is_told_wrongly = match reason {
            StopReason::Breakpoint => is_twice || !has_breakpoint,
            StopReason::PrivilegedCall { .. } => is_twice,
            _ => false,
        };
        // The command counts the steps of the vCPU that it steps, whoever stops the domain.
        let counted = if self.last == Some(Order::Continue) { n } else { 0 };
        let wanted = self.last.map_or(0, Order::count);
        let is_whole = reason != StopReason::Stepped || steps == wanted;
        if steps != u64::from(self.vcpus[counted].happened) || steps > wanted || !is_whole {
            self.is_wrong(Wrong::Count);
        }
        if is_told_wrongly {
            self.is_wrong(Wrong::Told);
        }
        if self.vcpus.iter().any(|vcpu| !vcpu.unrecorded.is_empty()) {
            self.is_wrong(Wrong::Record);
        }
        self.stop = Some(reason);
        for (index, vcpu) in self.vcpus.iter_mut().enumerate() {
            if index == n {
                vcpu.may_pass = Some(pe::number_of(vcpu.values.hot.elr));
                vcpu.told = Some(reason);
            }
            vcpu.happened = 0;
        }
    }

    /// The tool gives a command, which is not refused.
    pub(crate) fn command(&mut self, exploration: &Exploration, order: Order) {
        let command = match order {
            Order::Continue => Command::Continue { domain: 0, vcpu: None },
            Order::Step | Order::Steps => Command::Step {
                domain: 0,
                vcpu: 0,
                count: order.count(),
                until: None,
                record: true,
                all: false,
                within: None,
            },
        };
        self.last = Some(order);
        if order != Order::Continue {
            // Whoever orders it knows where it is.
            self.vcpus[0].may_pass = Some(pe::number_of(self.vcpus[0].values.hot.elr));
        }
        self.serve(exploration, command);
        if exploration.is_alone() {
            // Nobody can come before it.
            self.begin(exploration, 0);
        }
    }

    /// The tool gives a command.
    fn serve(&mut self, exploration: &Exploration, command: Command) {
        let board = self.put(exploration);
        let is_refused = board.serve(command).is_err();
        debug_assert!(!is_refused, "every vCPU is on, and stopped where it has to be");
        self.take(&board);
        if !board::told().is_empty() {
            self.is_wrong(Wrong::Told);
        }
    }

    /// The debugger writes the core registers of vCPU 0.
    fn write(&mut self, exploration: &Exploration, change: impl FnOnce(&mut Registers)) {
        let board = self.put(exploration);
        let mut registers = board.with_core(0, |core| core.registers());
        change(&mut registers);
        self.alone_is_at(Pstate(registers.pstate), registers.pc);
        let _done = board.serve(Command::WriteRegisters { domain: 0, vcpu: 0, registers });
        self.take(&board);
    }

    /// Does what costs the adversary something.
    pub(crate) fn act(&mut self, exploration: &Exploration, action: Action) {
        match action {
            Action::Command(order) => self.command(exploration, order),
            Action::Pause => self.serve(exploration, Command::Pause { domain: 0 }),
            Action::SetPolicy(policy) => {
                self.serve(exploration, Command::SetInterruptPolicy { domain: 0, policy });
            }
            Action::ToggleBreakpoint(number) => {
                let place = Place::Va(Va(pe::address_of(number)));
                let is_set = self.shared.control.breakpoints.contains(&pe::address_of(number));
                self.serve(
                    exploration,
                    match is_set {
                        true => Command::ClearBreakpoint { domain: 0, place },
                        false => Command::SetBreakpoint { domain: 0, place },
                    },
                );
            }
            Action::ToggleMonitor => {
                let on = self.shared.control.privileged_call == 0;
                let monitor = Monitor::PrivilegedCall;
                self.serve(exploration, Command::SetMonitor { domain: 0, vcpu: None, monitor, on });
            }
            Action::ToggleInterrupt => self.set_interrupt(exploration, 0, None),
            Action::OtherWrites | Action::OtherRewrites => {
                let line = self.pes[0].machine.line;
                let line = (line + u8::from(action == Action::OtherWrites)) % 4;
                // Where there is a second vCPU, it is that one's store.
                let by = (!exploration.is_alone()).then_some(1);
                self.written(by.map(|by| self.cpu_of(by)), by, line);
            }
            Action::DebuggerWritesSs => self.write(exploration, |registers| {
                registers.pstate ^= Pstate::SS;
            }),
            Action::DebuggerWritesMasks => self.write(exploration, |registers| {
                let mask = match exploration.interrupt {
                    Class::Fiq => Pstate::F,
                    Class::SystemError => Pstate::A,
                    _ => Pstate::I,
                };
                registers.pstate ^= Pstate::D | mask;
            }),
            Action::DebuggerWritesPc => {
                self.write(exploration, |registers| registers.pc = pe::CODE);
            }
            Action::DebuggerWritesMdscr => self.write_mdscr(exploration),
            _ => {}
        }
    }

    fn write_mdscr(&mut self, exploration: &Exploration) {
        let alone = &mut self.vcpus[0].alone;
        alone.mdscr.ss = !alone.mdscr.ss;
        alone.synchronize_context();
        let value = bits::mdscr(alone.mdscr);
        let register = SystemRegister::MDSCR_EL1.0;
        self.serve(
            exploration,
            Command::WriteSystemRegister { domain: 0, vcpu: 0, register, value },
        );
    }
}
