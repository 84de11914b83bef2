//! Breakpoints that stay: in the kernel, or in a module whether it is loaded or not, and for the
//! tasks that they are meant for.
//!
//! One in a module is set when the module comes and taken away when it goes: the guest is stopped
//! for a moment where its kernel initializes one and where it frees one. So it holds however often
//! the module is loaded, and wherever.

use super::{Flow, Prompt};
use crate::follow::Outcome;
use crate::linux::LinuxError;
use crate::names::{NameError, Target};
use crate::questions::{self, LOADED, UNLOADED};
use stepwell_arch::Va;
use stepwell_debuggee::{Error, Place, Refusal, Stop, StopReason};
use stepwell_linux::Task;

/// Which tasks a breakpoint is meant for; all, where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The number of the task, or of its process.
    pub pid: Option<u32>,
    /// The task's name.
    pub comm: Option<String>,
}

impl Condition {
    /// Reads `pid=N`, `comm=NAME`, or both with a comma between.
    pub(super) fn parse(words: &[&str]) -> Option<Self> {
        let mut condition = Self::default();
        for word in words.iter().flat_map(|words| words.split(',')).filter(|word| !word.is_empty())
        {
            match word.split_once('=')? {
                ("pid", pid) => condition.pid = Some(pid.parse().ok()?),
                ("comm", comm) => condition.comm = Some(comm.to_owned()),
                _ => return None,
            }
        }
        (condition != Self::default()).then_some(condition)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn holds(&self, task: &Task) -> bool {
        let pid = self.pid.is_none_or(|pid| task.pid == pid || task.tgid == pid);
        pid && self.comm.as_ref().is_none_or(|comm| task.comm == *comm)
    }
}

/// A breakpoint.
#[derive(Clone, Debug)]
pub(super) struct Breakpoint {
    number: u32,
    word: String,
    condition: Condition,
    /// Where it is; nothing while its module is not loaded.
    set: Option<Target>,
}

impl Breakpoint {
    fn is_in_module(&self) -> bool {
        self.word.contains(':') && !self.word.contains('!')
    }

    /// Tells whether it is about what a process has at its address that executes `program`: one in a
    /// program is, in that program alone.
    fn is_meant_in(&self, program: Option<&str>) -> bool {
        let Some((own, _)) = self.word.split_once('!') else { return true };
        program == own.rsplit('/').next()
    }
}

impl Prompt<'_> {
    /// Sets a breakpoint.
    pub(super) fn add_breakpoint(
        &mut self,
        word: &str,
        condition: &Condition,
    ) -> anyhow::Result<()> {
        let target = match self.target_of(word) {
            Ok(target) => Some(target),
            Err(error) => match error.downcast_ref() {
                Some(NameError::NotLoaded(_) | NameError::NotPlaced(_)) => None,
                _ => return Err(error),
            },
        };
        let number = self.breakpoints.iter().map(|one| one.number).max().unwrap_or_default() + 1;
        let (word, condition) = (word.to_owned(), condition.clone());
        let mut breakpoint = Breakpoint { number, word, condition, set: None };
        if breakpoint.is_in_module() {
            self.watch_modules()?;
        }
        if let Some(target) = target {
            self.set_quietly(target.place)?;
            breakpoint.set = Some(target);
        }
        self.breakpoints.push(breakpoint);
        self.list_breakpoints()
    }

    /// Takes a breakpoint away.
    pub(super) fn delete_breakpoint(&mut self, number: u32) -> anyhow::Result<()> {
        let Some(at) = self.breakpoints.iter().position(|one| one.number == number) else {
            return Ok(writeln!(self.output, "there is no breakpoint {number}: break lists them")?);
        };
        let breakpoint = self.breakpoints.remove(at);
        if let Some(target) = breakpoint.set {
            self.clear_unless_used(target.place)?;
        }
        if !self.breakpoints.iter().any(Breakpoint::is_in_module) {
            for target in std::mem::take(&mut self.landmarks) {
                self.clear_unless_used(target.place)?;
            }
        }
        Ok(())
    }

    /// Shows the breakpoints, a line each.
    pub(super) fn list_breakpoints(&mut self) -> anyhow::Result<()> {
        if self.breakpoints.is_empty() {
            return Ok(writeln!(self.output, "no breakpoint is set")?);
        }
        for Breakpoint { number, word, condition, set } in &self.breakpoints {
            let place = match set {
                Some(target) => format!("{:#018x}", target.va),
                None => "not loaded yet    ".to_owned(),
            };
            let pid = condition.pid.map(|pid| format!(" pid={pid}"));
            let comm = condition.comm.as_ref().map(|comm| format!(" comm={comm}"));
            let only = [pid, comm].into_iter().flatten().collect::<String>();
            let only = if only.is_empty() { only } else { format!("  if{only}") };
            writeln!(self.output, "{number:>3}  {place}  {word}{only}")?;
        }
        Ok(())
    }

    /// Tells whether a stop is one that nobody wants to see: at a breakpoint that is meant for
    /// other tasks or another program, or where a module comes or goes.
    pub(super) fn passes(&mut self, stop: Stop) -> anyhow::Result<bool> {
        if self.names.image_moved(self.debuggee, stop)? {
            self.follow_image()?;
            return Ok(!self.has_breakpoint_at(stop.pc));
        }
        if stop.reason != StopReason::Breakpoint || self.breakpoints.is_empty() {
            return Ok(false);
        }
        let is_landmark = self.landmarks.iter().any(|target| target.va == stop.pc);
        if is_landmark {
            self.modules_changed(stop)?;
        }
        if !self.has_breakpoint_at(stop.pc) {
            return Ok(is_landmark);
        }
        self.names.locate(self.debuggee, stop.vcpu, stop.pc)?;
        let place = self.names.programs().describe(stop.pc);
        let program = place.as_ref().and_then(|(name, _)| name.split('!').next());
        let here: Vec<Condition> = self
            .breakpoints
            .iter()
            .filter(|one| one.set.is_some_and(|target| target.va == stop.pc))
            .filter(|one| one.is_meant_in(program))
            .map(|one| one.condition.clone())
            .collect();
        if here.is_empty() {
            return Ok(true);
        }
        if here.iter().any(Condition::is_empty) {
            return Ok(false);
        }
        match questions::current_task(&mut self.names, self.debuggee, stop.vcpu) {
            Ok(task) => Ok(!here.iter().any(|condition| condition.holds(&task))),
            Err(error) if error.is_fatal() => Err(error.into()),
            Err(error) => {
                writeln!(self.output, "cannot tell which task this is: {error}")?;
                Ok(false)
            }
        }
    }

    /// Tells whether the user has a breakpoint at an address.
    pub(super) fn has_breakpoint_at(&self, va: Va) -> bool {
        self.breakpoints.iter().any(|one| one.set.is_some_and(|target| target.va == va))
    }

    /// Takes breakpoints to where the image is now that has their names.
    fn follow_image(&mut self) -> anyhow::Result<()> {
        for index in 0..self.breakpoints.len() {
            let Some(one) = self.breakpoints.get_mut(index) else { continue };
            if one.word.contains([':', '!']) {
                continue;
            }
            let Ok(target) = self.names.resolve_instruction(&one.word) else { continue };
            if let Some(before) = one.set.replace(target)
                && before.place != target.place
            {
                self.clear_unless_used(before.place)?;
            }
            // Also where there was one: the guest is stopped no more where it says where the image is.
            self.set_quietly(target.place)?;
        }
        Ok(())
    }

    /// Runs to a place in an image that may move on the way there: with a breakpoint for as long as
    /// that takes.
    pub(super) fn until_in_image(&mut self, word: &str) -> anyhow::Result<Flow> {
        let target = match self.target_of(word) {
            Ok(target) => Some(target),
            Err(error) => match error.downcast_ref() {
                Some(NameError::NotPlaced(_)) => None,
                _ => return Err(error),
            },
        };
        if let Some(target) = target {
            self.set_quietly(target.place)?;
        }
        let (word, condition) = (word.to_owned(), Condition::default());
        self.breakpoints.push(Breakpoint { number: 0, word, condition, set: target });
        let outcome = self.run_on(None);
        let until = self.breakpoints.iter().position(|one| one.number == 0);
        let set = until.and_then(|at| self.breakpoints.remove(at).set);
        match outcome?.0 {
            Outcome::Ended(ending) => Ok(Flow::Ended(ending)),
            Outcome::Stopped(stop) => {
                if let Some(target) = set {
                    self.clear_unless_used(target.place)?;
                }
                self.arrived(stop)?;
                Ok(Flow::More)
            }
        }
    }

    /// Has the guest stop where modules come and go.
    fn watch_modules(&mut self) -> anyhow::Result<()> {
        if self.landmarks.is_empty() {
            for landmark in [LOADED, UNLOADED] {
                let target = self.names.resolve_instruction(landmark)?;
                self.set_quietly(target.place)?;
                self.landmarks.push(target);
            }
        }
        Ok(())
    }

    /// Follows a module that comes or goes.
    fn modules_changed(&mut self, stop: Stop) -> anyhow::Result<()> {
        match questions::coming(&mut self.names, self.debuggee, stop) {
            Ok(Some(_)) => {}
            Ok(None) => return self.module_goes(stop),
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => return Ok(writeln!(self.output, "a module is being loaded: {error}")?),
        }
        for index in 0..self.breakpoints.len() {
            let Some(one) = self.breakpoints.get(index).filter(|one| one.set.is_none()) else {
                continue;
            };
            let word = one.word.clone();
            match self.names.resolve_instruction(&word) {
                Ok(target) => {
                    self.set_quietly(target.place)?;
                    if let Some(one) = self.breakpoints.get_mut(index) {
                        one.set = Some(target);
                    }
                }
                Err(NameError::NotLoaded(_)) => {}
                Err(error) => writeln!(self.output, "{error}")?,
            }
        }
        Ok(())
    }

    /// Takes the breakpoints out of a module that is freed.
    fn module_goes(&mut self, stop: Stop) -> anyhow::Result<()> {
        let module = match questions::going(&mut self.names, self.debuggee, stop) {
            Ok(Some(module)) => module,
            Ok(None) => return Ok(()),
            Err(LinuxError::Guest(error)) if error.is_fatal() => return Err(error.into()),
            Err(error) => return Ok(writeln!(self.output, "a module is being removed: {error}")?),
        };
        let mut gone = Vec::new();
        for one in self.breakpoints.iter_mut().filter(|one| module.has(&one.word)) {
            gone.extend(one.set.take());
        }
        for target in gone {
            self.clear_unless_used(target.place)?;
        }
        Ok(())
    }

    /// Sets a breakpoint where there may be one already.
    pub(super) fn set_quietly(&mut self, place: Place) -> Result<(), Error> {
        match self.debuggee.set_breakpoint(self.vcpu.domain, place) {
            Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
            result => result,
        }
    }

    /// Clears a breakpoint, unless another has the same place.
    pub(super) fn clear_unless_used(&mut self, place: Place) -> Result<(), Error> {
        let set = self.breakpoints.iter().filter_map(|one| one.set).chain(self.landmarks.clone());
        if set.into_iter().any(|target| target.place == place) {
            return Ok(());
        }
        match self.debuggee.clear_breakpoint(self.vcpu.domain, place) {
            Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_numbers_and_names() {
        let both = Condition { pid: Some(7), comm: Some("sh".into()) };
        assert_eq!(Condition::parse(&["pid=7,comm=sh"]), Some(both.clone()));
        assert_eq!(Condition::parse(&["pid=7,", "comm=sh"]), Some(both));
        for wrong in [&["pid=x"][..], &["uid=0"], &["pid"], &[], &[","]] {
            assert_eq!(Condition::parse(wrong), None, "{wrong:?}");
        }
    }
    #[test]
    fn one_in_a_program_is_about_that_program() {
        let breakpoint = |word: &str| Breakpoint {
            number: 1,
            word: word.to_owned(),
            condition: Condition::default(),
            set: None,
        };
        for one in [breakpoint("prog!main"), breakpoint("/bin/prog!main+0x4")] {
            assert!(one.is_meant_in(Some("prog")));
            assert!(!one.is_meant_in(Some("busybox")), "it has something else at that address");
            assert!(!one.is_meant_in(None));
        }
        assert!(breakpoint("start_kernel").is_meant_in(None));
        assert!(breakpoint("0x400580").is_meant_in(Some("busybox")));
    }
}
