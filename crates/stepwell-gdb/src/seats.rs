//! Which vCPU each of the client's threads is.
//!
//! Thread N begins as vCPU N - 1. For `finish`, `until`, `advance` and `next` GDB sets a breakpoint
//! for one thread, and passes over whatever comes to it in another. A guest's scheduler may have moved
//! the task to another vCPU by then, and GDB would wait for ever. So the thread goes with its task:
//! where a task comes to a breakpoint on another vCPU than that of the thread which it was in, that
//! thread and the other one change places.
//!
//! GDB does not say when it sets such a breakpoint, but does so before the guest goes. So the tasks are
//! noted whenever the guest goes freely with a breakpoint that it did not have the last time. While
//! GDB passes over what it does not mean, the breakpoints stay the same, and so do the tasks that are
//! known, also of one that sleeps meanwhile.

use gdbstub::common::Tid;
use std::collections::HashSet;
use stepwell_debuggee::{Error, Refusal};

/// Who sits where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats {
    /// The vCPU of each thread, from the first on; beyond, thread N is vCPU N - 1.
    vcpus: Vec<u8>,
    /// The task that each of these threads was in.
    tasks: Vec<Option<u64>>,
    /// The breakpoints that the guest went freely with the last time.
    before: HashSet<u64>,
}

impl Seats {
    /// The vCPU of a thread.
    pub(crate) fn vcpu(&self, tid: Tid) -> Result<u8, Error> {
        let thread = tid.get() - 1;
        match self.vcpus.get(thread) {
            Some(vcpu) => Ok(*vcpu),
            None => u8::try_from(thread).map_err(|_| Refusal::NoSuchVcpu.into()),
        }
    }

    /// The thread of a vCPU.
    pub(crate) fn tid(&self, vcpu: u8) -> Tid {
        Tid::MIN.saturating_add(self.thread(vcpu))
    }

    fn thread(&self, vcpu: u8) -> usize {
        self.vcpus.iter().position(|seat| *seat == vcpu).unwrap_or(usize::from(vcpu))
    }

    /// The guest goes freely with these breakpoints. Tells whether one of them is new: then the tasks
    /// have to be noted.
    pub(crate) fn is_news(&mut self, breakpoints: HashSet<u64>) -> bool {
        let is_new = !breakpoints.is_subset(&self.before);
        self.before = breakpoints;
        is_new
    }

    /// Notes which task each vCPU executes: its thread is in that.
    pub(crate) fn note(&mut self, tasks: &[(u8, Option<u64>)]) {
        let Some(last) = tasks.iter().map(|(vcpu, _)| *vcpu).max() else { return };
        let known = self.vcpus.len();
        self.vcpus.extend((known..=usize::from(last)).filter_map(|n| u8::try_from(n).ok()));
        self.tasks = vec![None; self.vcpus.len()];
        for &(vcpu, task) in tasks {
            let thread = self.thread(vcpu);
            if let Some(place) = self.tasks.get_mut(thread) {
                *place = task;
            }
        }
    }

    /// Tells whether any thread's task is known.
    pub(crate) fn knows_tasks(&self) -> bool {
        self.tasks.iter().any(Option::is_some)
    }

    /// Has a vCPU be the thread that its task was in, if there is one.
    pub(crate) fn follow(&mut self, vcpu: u8, task: u64) {
        let (from, to) = (self.thread(vcpu), self.tasks.iter().position(|one| *one == Some(task)));
        if let Some(to) = to.filter(|_| from < self.vcpus.len()) {
            self.vcpus.swap(from, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_goes_with_its_task() {
        let mut seats = Seats::default();
        let tid = |thread| Tid::new(thread).unwrap();
        assert_eq!((seats.vcpu(tid(3)).unwrap(), seats.tid(2)), (2, tid(3)));
        assert!(seats.vcpu(tid(257)).is_err());
        seats.follow(1, 0xa);
        assert_eq!(seats.tid(1), tid(2), "nothing is known");
        seats.note(&[(0, Some(0xa)), (1, Some(0xb)), (2, None)]);
        assert!(seats.knows_tasks());
        seats.follow(2, 0xa);
        assert_eq!([0, 1, 2].map(|vcpu| seats.tid(vcpu)), [tid(3), tid(2), tid(1)]);
        assert_eq!([1, 2, 3].map(|thread| seats.vcpu(tid(thread)).unwrap()), [2, 1, 0]);
        seats.follow(2, 0xa);
        seats.follow(0, 0xc);
        assert_eq!(seats.tid(2), tid(1), "it is there, and another task changes nothing");
        seats.follow(5, 0xb);
        assert_eq!(seats.tid(1), tid(2), "a vCPU that came later");
        // Where they are now is where they are followed from.
        seats.note(&[(0, Some(0xd)), (2, Some(0xa))]);
        seats.follow(0, 0xa);
        assert_eq!([0, 1, 2].map(|vcpu| seats.tid(vcpu)), [tid(1), tid(2), tid(3)]);
    }

    #[test]
    fn tasks_are_noted_for_a_new_breakpoint() {
        let mut seats = Seats::default();
        let mut goes = |all: &[u64]| seats.is_news(all.iter().copied().collect());
        assert!(!goes(&[]));
        assert!(goes(&[0x10]) && !goes(&[0x10]), "GDB passes over what it does not mean");
        assert!(goes(&[0x10, 0x20]) && !goes(&[0x10]) && goes(&[0x20]));
    }
}
