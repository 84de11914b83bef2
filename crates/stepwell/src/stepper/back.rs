//! Going back, and to any moment, in a replay.

use super::{Command, Position, Prompt};
use crate::follow::Outcome;
use crate::terminal::notice;
use stepwell_arch::aarch32::is_call;
use stepwell_arch::{InstructionSet, Pstate, SystemRegister, Va};
use stepwell_debuggee::{
    Edge, Error, Moment, Reverse, Snapshot, Stop, StopReason, WatchAccess, Watchpoint,
};
use stepwell_trace::disassemble::instruction_bytes;

const NS_PER_SECOND: u128 = 1_000_000_000;

impl Prompt<'_> {
    pub(super) fn go_back(&mut self, command: &Command) -> anyhow::Result<()> {
        if self.debuggee.support_reverse().is_none() {
            let text = "only a replay goes back: stepwell record, then stepwell step --replay FILE";
            return Ok(writeln!(self.output, "{text}")?);
        }
        match command {
            Command::StepBack(count) => self.back_by(*count),
            Command::NextBack => self.next_back(),
            Command::ContinueBack => self.continue_back(None).map(drop),
            Command::UntilBack(word) => self.until_back(word),
            Command::GoTo(position) => self.go_to_position(*position),
            Command::When => self.when(),
            Command::Last(word, length) => self.last_writer(word, *length),
            Command::TakeSnapshot(name) => self.take_snapshot(name),
            Command::GoToSnapshot(name) => self.go_to_snapshot(name),
            Command::Snapshots => self.list_snapshots(),
            Command::Fork => self.fork(),
            _ => Ok(()),
        }
    }

    /// Sets it going back, and waits for it. What was executed up to here is the future then.
    fn travel(
        &mut self,
        go: impl FnOnce(&mut dyn Reverse) -> Result<(), Error>,
    ) -> anyhow::Result<Option<(Stop, bool)>> {
        self.regain()?;
        let Some(reverse) = self.debuggee.support_reverse() else { return Ok(None) };
        go(reverse)?;
        self.history.clear();
        match self.wait()? {
            (Outcome::Stopped(stop), interrupted) => {
                self.names.locate(self.debuggee, stop.vcpu, stop.pc)?;
                self.review()?;
                Ok(Some((stop, interrupted)))
            }
            // It ends behind the last moment that it is taken to.
            (Outcome::Ended(_), _) => Ok(None),
        }
    }

    fn show(&mut self, travelled: Option<(Stop, bool)>) -> anyhow::Result<()> {
        match travelled {
            Some((stop, _)) => self.arrived(stop),
            None => Ok(()),
        }
    }

    fn back_by(&mut self, count: u64) -> anyhow::Result<()> {
        let vcpu = self.vcpu;
        let travelled = self.travel(|reverse| reverse.step_back(vcpu, count))?;
        self.show(travelled)
    }

    /// Steps back; where that is out of a function that was called, to before the call.
    fn next_back(&mut self) -> anyhow::Result<()> {
        let vcpu = self.vcpu;
        let registers = self.debuggee.read_registers(vcpu)?;
        let set = InstructionSet::of(Pstate(registers.pstate));
        let call = match set {
            InstructionSet::A64 => Va(registers.pc.wrapping_sub(4)),
            // How long the one before is cannot be seen from here.
            _ => return self.back_by(1),
        };
        let travelled = self.travel(|reverse| reverse.step_back(vcpu, 1))?;
        let Some((stop, false)) = travelled else { return self.show(travelled) };
        let word = self.word(call)?.filter(|&word| is_call(set, word));
        if word.is_none_or(|word| instruction_bytes(set, word) != 4) || stop.pc == call {
            return self.arrived(stop);
        }
        loop {
            // A recursive call is before it as well, deeper in the stack.
            let Some((stop, interrupted)) = self.back_to(call)? else { return Ok(()) };
            let is_there = stop.pc == call && stop.vcpu == vcpu;
            let is_deeper = is_there && self.debuggee.read_registers(vcpu)?.sp < registers.sp;
            let is_anothers = stop.pc == call && stop.vcpu != vcpu;
            if interrupted || !(is_deeper || is_anothers) {
                return self.arrived(stop);
            }
        }
    }

    /// Goes back to the last stop at an address, or to another that somebody wants to see.
    fn back_to(&mut self, va: Va) -> anyhow::Result<Option<(Stop, bool)>> {
        let place = stepwell_debuggee::Place::Va(va);
        self.set_quietly(place)?;
        let travelled = self.find_back(Some(va));
        self.clear_unless_used(place)?;
        travelled
    }

    fn until_back(&mut self, word: &str) -> anyhow::Result<()> {
        let target = self.target_of(word)?;
        self.set_quietly(target.place)?;
        let travelled = self.find_back(Some(target.va));
        self.clear_unless_used(target.place)?;
        self.show(travelled?)
    }

    fn continue_back(&mut self, va: Option<Va>) -> anyhow::Result<()> {
        let travelled = self.find_back(va)?;
        self.show(travelled)
    }

    /// Goes back to the last stop that somebody wants to see.
    fn find_back(&mut self, va: Option<Va>) -> anyhow::Result<Option<(Stop, bool)>> {
        let domain = self.vcpu.domain;
        loop {
            let travelled = self.travel(|reverse| reverse.continue_back(domain))?;
            let Some((stop, interrupted)) = travelled else { return Ok(None) };
            if interrupted || va == Some(stop.pc) || !self.passes(stop)? {
                return Ok(travelled);
            }
        }
    }

    fn go_to_position(&mut self, position: Position) -> anyhow::Result<()> {
        let domain = self.vcpu.domain;
        let (now, end) = (self.moment()?, self.end());
        let moment = match position {
            Position::At(position) => Moment::at(position),
            Position::Ahead(count) => Moment::at(now.position.saturating_add(count)),
            Position::Back(count) => Moment::at(now.position.saturating_sub(count)),
            Position::End => end,
        };
        if moment > end {
            let (end, wanted) = (end.position, moment.position);
            let text = format!("the recording ends at position {end}, before {wanted}: goto end");
            return Ok(writeln!(self.output, "{text}")?);
        }
        let travelled = self.travel(|reverse| reverse.go_to(domain, moment))?;
        self.show(travelled)
    }

    pub(super) fn moment(&mut self) -> anyhow::Result<Moment> {
        let domain = self.vcpu.domain;
        Ok(match self.debuggee.support_time_travel() {
            Some(travel) => travel.moment(domain)?,
            None => Moment::default(),
        })
    }

    fn end(&mut self) -> Moment {
        self.debuggee.support_reverse().map(|reverse| reverse.end()).unwrap_or_default()
    }

    fn when(&mut self) -> anyhow::Result<()> {
        let (Moment { position, clock }, end) = (self.moment()?, self.end().position);
        let frequency = match (
            self.debuggee.support_system_registers(),
            SystemRegister::from_name("CNTFRQ_EL0"),
        ) {
            (Some(system), Some(register)) => {
                system.read_system_register(self.vcpu, register.0).unwrap_or_default()
            }
            _ => 0,
        };
        let ns = (u128::from(clock) * NS_PER_SECOND).checked_div(frequency.into());
        let time = ns
            .map(|ns| format!(", {}.{:09} s after reset", ns / NS_PER_SECOND, ns % NS_PER_SECOND));
        let time = time.unwrap_or_default();
        Ok(writeln!(self.output, "position {position} of {end}, clock {clock}{time}")?)
    }

    /// Goes to who wrote something last, and shows how it came there.
    fn last_writer(&mut self, word: &str, length: u64) -> anyhow::Result<()> {
        let (address, vcpu) = (self.place(word)?, self.vcpu);
        let watchpoint = Watchpoint { address, length, access: WatchAccess::Write };
        let travelled = self.travel(|reverse| reverse.last_access(vcpu, watchpoint))?;
        let is_found =
            travelled.is_some_and(|(stop, _)| matches!(stop.reason, StopReason::Watchpoint { .. }));
        self.show(travelled)?;
        if !is_found {
            return Ok(writeln!(self.output, "nothing has written there since the run began")?);
        }
        match self.list(|guest| guest.stack(None)) {
            Err(error) if super::is_told(&error) => Ok(()),
            result => result,
        }
    }

    fn take_snapshot(&mut self, name: &str) -> anyhow::Result<()> {
        let domain = self.vcpu.domain;
        if let Some(reverse) = self.debuggee.support_reverse() {
            reverse.take_snapshot(domain, name)?;
        }
        Ok(())
    }

    fn go_to_snapshot(&mut self, name: &str) -> anyhow::Result<()> {
        let domain = self.vcpu.domain;
        let known = self.snapshots();
        if !known.iter().any(|snapshot| snapshot.name == name) {
            return Ok(writeln!(self.output, "nothing is called {name}: snapshots lists what is")?);
        }
        let travelled = self.travel(|reverse| reverse.go_to_snapshot(domain, name))?;
        self.show(travelled)
    }

    fn snapshots(&mut self) -> Vec<Snapshot> {
        self.debuggee.support_reverse().map(|reverse| reverse.snapshots()).unwrap_or_default()
    }

    fn list_snapshots(&mut self) -> anyhow::Result<()> {
        for Snapshot { name, moment, is_of_fork } in self.snapshots() {
            let of_fork = if is_of_fork { ", not of the recorded run" } else { "" };
            writeln!(self.output, "{name}  {moment}{of_fork}")?;
        }
        Ok(())
    }

    fn fork(&mut self) -> anyhow::Result<()> {
        let domain = self.vcpu.domain;
        if let Some(travel) = self.debuggee.support_time_travel() {
            travel.fork(domain)?;
            notice("this is another run from here on; going back leads to the recorded one");
        }
        Ok(())
    }

    /// Says so where a replay has no more to be gone through.
    pub(super) fn show_edge(&mut self, stop: Stop) -> anyhow::Result<()> {
        if stop.reason != StopReason::Reached {
            return Ok(());
        }
        let domain = stop.vcpu.domain;
        let Some(reverse) = self.debuggee.support_reverse() else { return Ok(()) };
        match reverse.edge(domain)? {
            Some(Edge::Begin) => writeln!(self.output, "this is where the run begins")?,
            Some(Edge::End) => writeln!(self.output, "this is where the recording ends")?,
            None => {}
        }
        Ok(())
    }
}
