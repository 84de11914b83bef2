//! Breakpoints that stay: in the kernel, or in a module whether it is loaded or not, and for the
//! tasks that they are meant for.
//!
//! One in a module is set when the module comes and taken away when it goes: the guest is stopped
//! for a moment where its kernel initializes one and where it frees one. So it holds however often
//! the module is loaded, and wherever. One in a program is looked for in each process that executes
//! the program, where the guest is stopped for a moment as well. What cannot be met any more is told,
//! once ([`crate::losses`]).

use super::Prompt;
use crate::linux::LinuxError;
use crate::losses::{Lookout, Loss, is_freed};
use crate::names::{NameError, Names, Target};
use crate::questions::{self, EXECUTED, INITIALIZED, LOADED, UNLOADED, everywhere_in_program};
use stepwell_debuggee::{Debuggee, Error, Place, Refusal, Stop, StopReason};
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
    /// Its number, or [`AWAITED`].
    pub(super) number: u32,
    word: String,
    condition: Condition,
    /// Where it is: in a program, wherever processes have it; nowhere while its module is not loaded, or
    /// no process has its program.
    set: Vec<Target>,
    /// Why it cannot be met any more.
    lost: Option<Loss>,
    /// That was told.
    is_told: bool,
}

/// The number of a breakpoint that is there until the guest has stopped.
pub(super) const AWAITED: u32 = 0;
/// Places of a breakpoint in a program that may be those of processes that have ended: beyond, it is
/// looked which are.
const PLACES_KEPT: usize = 8;

impl Breakpoint {
    fn is_in_module(&self) -> bool {
        self.word.contains(':') && !self.is_in_program()
    }

    fn is_in_program(&self) -> bool {
        self.word.contains('!')
    }

    /// Tells whether it is at a virtual address, whatever is there.
    fn is_at_address(&self) -> bool {
        self.word.starts_with("0x") || self.word.starts_with("0X")
    }

    /// Tells whether it is about what a process has at its address that executes `program`: one in a
    /// program is, in that program alone.
    fn is_meant_in(&self, program: Option<&str>) -> bool {
        let Some((own, _)) = self.word.split_once('!') else { return true };
        program == own.rsplit('/').next()
    }

    fn is_lost_by(&self, loss: Loss, names: &Names) -> bool {
        match loss {
            Loss::InitFreed => self.set.iter().any(|one| loss.concerns(names, Some(one.place))),
            Loss::Replaced => !self.is_at_address(),
        }
    }

    /// How it is called where it is told of.
    fn title(&self) -> String {
        match self.number {
            AWAITED => self.word.clone(),
            number => format!("breakpoint {number} ({})", self.word),
        }
    }
}

impl Prompt<'_> {
    /// Sets a breakpoint.
    pub(super) fn add_breakpoint(
        &mut self,
        word: &str,
        condition: &Condition,
    ) -> anyhow::Result<()> {
        let number = self.breakpoints.iter().map(|one| one.number).max().unwrap_or_default() + 1;
        self.begin_breakpoint(number, word, condition)?;
        self.list_breakpoints()
    }

    /// Sets a breakpoint, wherever its place is now. Tells whether it can be met.
    pub(super) fn begin_breakpoint(
        &mut self,
        number: u32,
        word: &str,
        condition: &Condition,
    ) -> anyhow::Result<bool> {
        let targets = self.targets_of(word)?;
        let (word, condition) = (word.to_owned(), condition.clone());
        let (set, lost, is_told) = (Vec::new(), None, false);
        self.breakpoints.push(Breakpoint { number, word, condition, set, lost, is_told });
        let index = self.breakpoints.len() - 1;
        match self.arm_breakpoint(index, targets) {
            Ok(()) => Ok(self.breakpoints.last().is_some_and(|one| one.lost.is_none())),
            Err(error) => {
                self.end_breakpoint(index)?;
                Err(error)
            }
        }
    }

    /// Where a breakpoint is to be now.
    fn targets_of(&mut self, word: &str) -> anyhow::Result<Vec<Target>> {
        let found = match word.contains('!') {
            true => everywhere_in_program(&mut self.names, self.debuggee, self.vcpu, word),
            false => self.target_of(word).map(|target| vec![target]),
        };
        match found {
            Err(error) if is_to_come(&error) => Ok(Vec::new()),
            found => found,
        }
    }

    fn arm_breakpoint(&mut self, index: usize, targets: Vec<Target>) -> anyhow::Result<()> {
        let Some(one) = self.breakpoints.get(index) else { return Ok(()) };
        let landmarks: &[&str] = match (one.is_in_module(), one.is_in_program()) {
            (true, _) => &[LOADED, UNLOADED, INITIALIZED],
            (_, true) => &[EXECUTED],
            _ => &[],
        };
        self.watch_for(landmarks)?;
        for target in targets {
            if is_freed(&self.names, self.debuggee, self.vcpu, target)? {
                self.lose(index, Loss::InitFreed)?;
                continue;
            }
            self.place_breakpoint(index, target)?;
        }
        let domain = self.vcpu.domain;
        Ok(self.lookout.arm(&self.names, self.debuggee, domain, None)?)
    }

    /// Sets one of a breakpoint's places.
    fn place_breakpoint(&mut self, index: usize, target: Target) -> anyhow::Result<()> {
        let Some(one) = self.breakpoints.get_mut(index) else { return Ok(()) };
        if one.set.iter().any(|known| known.place == target.place) {
            return Ok(());
        }
        one.set.push(target);
        self.set_quietly(target.place)?;
        let domain = self.vcpu.domain;
        Ok(self.lookout.arm(&self.names, self.debuggee, domain, Some(target.place))?)
    }

    /// Takes a breakpoint away.
    pub(super) fn delete_breakpoint(&mut self, number: u32) -> anyhow::Result<()> {
        match self.breakpoints.iter().position(|one| one.number == number) {
            Some(at) => self.end_breakpoint(at),
            None => Ok(writeln!(self.output, "there is no breakpoint {number}: break lists them")?),
        }
    }

    /// Takes a breakpoint away, and what was there for it alone.
    pub(super) fn end_breakpoint(&mut self, index: usize) -> anyhow::Result<()> {
        let breakpoint = self.breakpoints.remove(index);
        for target in breakpoint.set {
            self.clear_unless_used(target.place)?;
        }
        let needs_modules = self.breakpoints.iter().any(Breakpoint::is_in_module);
        let needs_programs = self.breakpoints.iter().any(Breakpoint::is_in_program);
        let is_needed = |name: &str| if name == EXECUTED { needs_programs } else { needs_modules };
        let (kept, gone) =
            std::mem::take(&mut self.landmarks).into_iter().partition(|(name, _)| is_needed(name));
        self.landmarks = kept;
        let gone: Vec<(&str, Place)> = gone;
        let mut gone: Vec<Place> = gone.into_iter().map(|(_, place)| place).collect();
        if self.breakpoints.is_empty() {
            gone.extend(self.lookout.disarm());
        }
        for place in gone {
            self.clear_unless_used(place)?;
        }
        Ok(())
    }

    /// Shows the breakpoints, a line for each place.
    pub(super) fn list_breakpoints(&mut self) -> anyhow::Result<()> {
        if self.breakpoints.is_empty() {
            return Ok(writeln!(self.output, "no breakpoint is set")?);
        }
        for Breakpoint { number, word, condition, set, lost, .. } in &self.breakpoints {
            let pid = condition.pid.map(|pid| format!(" pid={pid}"));
            let comm = condition.comm.as_ref().map(|comm| format!(" comm={comm}"));
            let only = [pid, comm].into_iter().flatten().collect::<String>();
            let only = if only.is_empty() { only } else { format!("  if{only}") };
            let mut line =
                |place: &str| writeln!(self.output, "{number:>3}  {place:<18}  {word}{only}");
            match lost {
                Some(Loss::InitFreed) => line("freed")?,
                Some(Loss::Replaced) => line("replaced")?,
                None if set.is_empty() => line("not loaded yet")?,
                None => {}
            }
            for target in set {
                // The kernel may have moved since it was set.
                let now = self.names.resolve(word).ok().filter(|now| now.place == target.place);
                line(&format!("{:#018x}", now.unwrap_or(*target).va))?;
            }
        }
        Ok(())
    }

    /// Tells whether a stop is one that nobody wants to see: at a breakpoint that is meant for
    /// other tasks or another program, or where something begins that breakpoints depend on.
    pub(super) fn passes(&mut self, stop: Stop) -> anyhow::Result<bool> {
        if self.names.image_moved(self.debuggee, stop)? {
            self.follow_image()?;
            return Ok(!self.has_breakpoint_at(stop)?);
        }
        if stop.reason != StopReason::Breakpoint || self.breakpoints.is_empty() {
            return Ok(false);
        }
        self.names.locate(self.debuggee, stop.vcpu, stop.pc)?;
        if self.notice(stop)? {
            return Ok(false);
        }
        let place = self.names.programs().describe(stop.pc);
        let program = place.as_ref().and_then(|(name, _)| name.split('!').next());
        let mut here: Vec<Condition> = Vec::new();
        for one in self.breakpoints.iter().filter(|one| one.is_meant_in(program)) {
            if is_met(&self.names, self.debuggee, &one.set, stop)? {
                here.push(one.condition.clone());
            }
        }
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

    /// Tells whether the user has a breakpoint where a vCPU has stopped.
    pub(super) fn has_breakpoint_at(&mut self, stop: Stop) -> anyhow::Result<bool> {
        for one in &self.breakpoints {
            if is_met(&self.names, self.debuggee, &one.set, stop)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Does what is to be done where something begins that breakpoints depend on. Tells whether what
    /// is waited for cannot be met any more.
    fn notice(&mut self, stop: Stop) -> anyhow::Result<bool> {
        let mut begins = None;
        for (name, place) in &self.landmarks {
            if self.names.is_met(self.debuggee, stop.vcpu, *place, stop.pc)? {
                begins = Some(*name);
            }
        }
        match begins {
            Some(LOADED | UNLOADED) => self.modules_changed(stop)?,
            Some(INITIALIZED) => self.module_is_initialized(stop)?,
            Some(EXECUTED) => self.program_begins(stop)?,
            _ => {}
        }
        match Lookout::begins(&self.names, stop) {
            Some(loss) => self.lose_all(loss),
            None => Ok(false),
        }
    }

    /// Takes away what a loss makes meaningless, and tells of it. Tells whether something that is waited
    /// for is among that.
    fn lose_all(&mut self, loss: Loss) -> anyhow::Result<bool> {
        let mut is_awaited = false;
        for index in 0..self.breakpoints.len() {
            let Some(one) = self.breakpoints.get(index) else { break };
            if one.lost.is_none() && one.is_lost_by(loss, &self.names) {
                is_awaited |= one.number == AWAITED;
                self.lose(index, loss)?;
            }
        }
        if loss == Loss::Replaced {
            self.names.replace(true);
            self.replaced_at = match self.replaced_at {
                None => Some(self.moment()?),
                known => known,
            };
        }
        Ok(is_awaited)
    }

    fn lose(&mut self, index: usize, loss: Loss) -> anyhow::Result<()> {
        let Some(one) = self.breakpoints.get_mut(index) else { return Ok(()) };
        one.lost = Some(loss);
        let text = format!("{} {loss}", one.title());
        let is_told = std::mem::replace(&mut one.is_told, true);
        for target in std::mem::take(&mut one.set) {
            self.clear_unless_used(target.place)?;
        }
        if !is_told {
            writeln!(self.output, "{text}")?;
        }
        Ok(())
    }

    /// Before a run is gone back in, or to another moment: what was lost may be there again.
    pub(super) fn regain(&mut self) -> anyhow::Result<()> {
        self.names.replace(false);
        for index in 0..self.breakpoints.len() {
            let Some(one) = self.breakpoints.get_mut(index) else { break };
            if one.lost.take().is_some() {
                let word = one.word.clone();
                for target in self.targets_of(&word)? {
                    self.place_breakpoint(index, target)?;
                }
            }
        }
        Ok(())
    }

    /// Behind that: what is lost there.
    pub(super) fn review(&mut self) -> anyhow::Result<()> {
        let now = self.moment()?;
        if self.replaced_at.is_some_and(|replaced_at| replaced_at <= now) {
            self.lose_all(Loss::Replaced)?;
            return Ok(());
        }
        for index in 0..self.breakpoints.len() {
            let set = self.breakpoints.get(index).map(|one| one.set.clone()).unwrap_or_default();
            for target in set {
                if is_freed(&self.names, self.debuggee, self.vcpu, target)? {
                    self.lose(index, Loss::InitFreed)?;
                }
            }
        }
        Ok(())
    }

    /// Takes breakpoints to where the image is now that has their names.
    fn follow_image(&mut self) -> anyhow::Result<()> {
        for index in 0..self.breakpoints.len() {
            let Some(one) = self.breakpoints.get_mut(index) else { continue };
            if one.word.contains([':', '!']) {
                continue;
            }
            let Ok(target) = self.names.resolve_instruction(&one.word) else { continue };
            for before in std::mem::take(&mut one.set) {
                if before.place != target.place {
                    self.clear_unless_used(before.place)?;
                }
            }
            // Also where there was one: the guest is stopped no more where it says where the image is.
            self.place_breakpoint(index, target)?;
        }
        Ok(())
    }

    /// Has the guest stop at functions of its kernel's; the last of them some kernels do not have.
    fn watch_for(&mut self, functions: &[&'static str]) -> anyhow::Result<()> {
        for &function in functions {
            if self.landmarks.iter().any(|(name, _)| *name == function) {
                continue;
            }
            match self.names.resolve_instruction(function) {
                Ok(target) => {
                    self.set_quietly(target.place)?;
                    self.landmarks.push((function, target.place));
                }
                Err(_) if function == INITIALIZED => {}
                Err(error) => return Err(error.into()),
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
            let is_unset = |one: &&Breakpoint| one.is_in_module() && one.set.is_empty();
            let Some(one) = self.breakpoints.get(index).filter(is_unset) else { continue };
            let word = one.word.clone();
            match self.names.resolve_instruction(&word) {
                Ok(target) => self.place_breakpoint(index, target)?,
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
            gone.append(&mut one.set);
        }
        for target in gone {
            self.clear_unless_used(target.place)?;
        }
        Ok(())
    }

    /// Takes the breakpoints out of what modules had for their initialization, which is freed.
    fn module_is_initialized(&mut self, stop: Stop) -> anyhow::Result<()> {
        match self.names.find_modules(self.debuggee, stop.vcpu) {
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => return Ok(writeln!(self.output, "a module was initialized: {error}")?),
            Ok(()) => {}
        }
        let mut gone = Vec::new();
        for one in self.breakpoints.iter_mut().filter(|one| one.is_in_module()) {
            let module = one.word.split(':').next().unwrap_or_default();
            let names = &self.names;
            if !one.set.iter().all(|target| names.is_in_module(module, target.va)) {
                writeln!(
                    self.output,
                    "{} is in its module's init section, which the kernel has freed: it can be met \
                     when the module is loaded again",
                    one.title()
                )?;
                gone.append(&mut one.set);
            }
        }
        for target in gone {
            self.clear_unless_used(target.place)?;
        }
        Ok(())
    }

    /// Puts breakpoints into a program where the process has it that has just executed it.
    fn program_begins(&mut self, stop: Stop) -> anyhow::Result<()> {
        let task = questions::current_task(&mut self.names, self.debuggee, stop.vcpu);
        let mappings = task
            .and_then(|task| questions::mappings(&mut self.names, self.debuggee, stop.vcpu, &task));
        let mappings = match mappings {
            Ok(mappings) => mappings,
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => {
                return Ok(writeln!(self.output, "a program is being executed: {error}")?);
            }
        };
        for index in 0..self.breakpoints.len() {
            let Some(one) = self.breakpoints.get(index).filter(|one| one.is_in_program()) else {
                continue;
            };
            let (word, places) = (one.word.clone(), one.set.len());
            let Some(va) = self.names.programs().resolve(&word, &mappings)? else { continue };
            if places >= PLACES_KEPT {
                self.forget_ended(index, &word)?;
            }
            self.place_breakpoint(index, Target { place: Place::Va(va), va })?;
        }
        Ok(())
    }

    /// Takes a breakpoint in a program out of where no process has that any more.
    fn forget_ended(&mut self, index: usize, word: &str) -> anyhow::Result<()> {
        let there = everywhere_in_program(&mut self.names, self.debuggee, self.vcpu, word)?;
        let Some(one) = self.breakpoints.get_mut(index) else { return Ok(()) };
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut one.set).into_iter().partition(|target| there.contains(target));
        one.set = kept;
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
        let set = self.breakpoints.iter().flat_map(|one| &one.set).map(|target| target.place);
        let mut used = set.chain(self.landmarks.iter().map(|(_, place)| *place));
        if used.any(|used| used == place) || self.lookout.is_at(place) {
            return Ok(());
        }
        match self.debuggee.clear_breakpoint(self.vcpu.domain, place) {
            Err(Error::Refused(Refusal::Breakpoint)) => Ok(()),
            result => result,
        }
    }
}

/// Tells whether a stop is at one of some places.
fn is_met(
    names: &Names,
    debuggee: &mut dyn Debuggee,
    set: &[Target],
    stop: Stop,
) -> Result<bool, Error> {
    for target in set {
        if names.is_met(debuggee, stop.vcpu, target.place, stop.pc)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tells whether a word has no place yet: its module or its program is nowhere, or the kernel does not
/// run that would have it.
fn is_to_come(error: &anyhow::Error) -> bool {
    let name = matches!(
        error.downcast_ref(),
        Some(NameError::NotLoaded(_) | NameError::NotPlaced(_) | NameError::NotMapped(_))
    );
    let kernel =
        matches!(error.downcast_ref(), Some(LinuxError::Guest(stepwell_linux::Error::NotRunning)));
    name || kernel
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
            set: Vec::new(),
            lost: None,
            is_told: false,
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
