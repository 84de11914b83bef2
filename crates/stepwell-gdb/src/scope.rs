//! In which processes the client's break- and watchpoints in programs hold.
//!
//! A program's addresses are those of every other program, too. GDB does not say which process it
//! means: to it the machine is one. So they hold in all of them, because a hit too many is seen and
//! one that is lost is not, until `monitor break-in` says which one.
//!
//! What is kept is the process, not its tables: it stays the same through `exec`, copies on write,
//! pages that are moved or swapped, and another process being current when GDB sets its breakpoints
//! anew, as it does each time that the guest goes.
//!
//! Addresses in the upper half are the kernel's, and the same whichever process is current.

use crate::guest::Guest;
use std::collections::HashMap;
use std::fmt;
use stepwell_arch::Va;
use stepwell_debuggee::{Error, VcpuId};

/// Most addresses that have a scope of their own.
const OWN_MAX: usize = 1 << 12;

/// The process that a vCPU executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number (`tgid`).
    pub pid: u32,
    /// What the task is called (`comm`).
    pub name: String,
}

/// In which processes a breakpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In all.
    #[default]
    Any,
    /// In that of this number.
    Pid(u32),
    /// In those with a task of this name.
    Name(String),
}

impl Scope {
    fn holds(&self, process: &Process) -> bool {
        match self {
            Self::Any => true,
            Self::Pid(pid) => process.pid == *pid,
            Self::Name(name) => process.name == *name,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any process"),
            Self::Pid(pid) => write!(f, "process {pid}"),
            Self::Name(name) => write!(f, "processes called {name}"),
        }
    }
}

/// The scopes of a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scopes {
    all: Scope,
    own: HashMap<u64, Scope>,
}

impl Scopes {
    fn of(&self, va: Va) -> &Scope {
        self.own.get(&va.0).unwrap_or(&self.all)
    }
}

/// Tells whether an address is one of a program's.
const fn is_of_program(va: Va) -> bool {
    va.0 >> 55 & 1 == 0
}

impl Guest<'_> {
    /// Tells whether what is met at `va` is met in a process that is meant.
    pub(crate) fn is_in_scope(&mut self, vcpu: VcpuId, va: Va) -> Result<bool, Error> {
        if !is_of_program(va) || *self.breakpoints.scopes.of(va) == Scope::Any {
            return Ok(true);
        }
        let process = self.services.process(&mut self.debuggee, vcpu)?;
        // Where nobody knows, it is better seen than lost.
        Ok(process.is_none_or(|process| self.breakpoints.scopes.of(va).holds(&process)))
    }

    /// `monitor break-in`: shows in which processes breakpoints hold, or chooses: for all, or for the
    /// one at `place`.
    pub(crate) fn break_in(
        &mut self,
        choice: Option<&str>,
        place: Option<&str>,
    ) -> Result<String, Error> {
        let Some(choice) = choice else {
            let mut text = format!("{}\n", self.breakpoints.scopes.all);
            let mut own: Vec<_> = self.breakpoints.scopes.own.iter().collect();
            own.sort_unstable_by_key(|(va, _)| **va);
            for (va, scope) in own {
                text.push_str(&format!("{va:#x}: {scope}\n"));
            }
            return Ok(text);
        };
        let place = match place.map(|word| (word, self.services.resolve(word))) {
            None => None,
            Some((_, Some(va))) => Some(va.0),
            Some((word, None)) => {
                return Ok(format!("{word} is no address: write 0x and digits\n"));
            }
        };
        let vcpu = self.current();
        let current = self.services.process(&mut self.debuggee, vcpu)?;
        let scope = match (choice, choice.parse(), current) {
            ("any", ..) => Scope::Any,
            ("current", _, Some(process)) => Scope::Pid(process.pid),
            (_, _, None) => {
                let text =
                    "this guest does not tell its processes: only `break-in any` can be kept\n";
                return Ok(text.to_owned());
            }
            (_, Ok(pid), _) => Scope::Pid(pid),
            (name, ..) => Scope::Name(name.to_owned()),
        };
        let text = format!("breakpoints in programs hold in {scope}\n");
        let scopes = &mut self.breakpoints.scopes;
        match place {
            None => scopes.all = scope,
            Some(_) if scopes.own.len() >= OWN_MAX => {
                return Ok(format!(
                    "{OWN_MAX} addresses have a process of their own: no more do\n"
                ));
            }
            Some(va) => drop(scopes.own.insert(va, scope)),
        }
        Ok(text)
    }
}
