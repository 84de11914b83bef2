//! The call stacks of tasks that wait for their turn.
//!
//! When a scheduler switches tasks, it returns out of one task into another, and by program
//! counters alone nobody can tell which one that is: all of them waited at the same instruction.
//! What tells them apart is where they go on from there. So the task that waited shortest is
//! guessed, and with every return the guess is compared with what happens. The first return that
//! contradicts it names the task that returns so, if there is one. Tasks that never differ have
//! the same stack, and it does not matter which is which.

use super::stack::Frame;
use std::collections::VecDeque;
use stepwell_arch::address::Va;

/// Most tasks that are kept; of more, the one that waited longest is forgotten.
const TASKS_MAX: usize = 1024;

/// A task that waits.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Its frames, without that of the function that switches.
    pub(super) frames: Vec<Frame>,
    /// Where it will go on.
    pub(super) resumes_at: Option<Va>,
}

/// All tasks that wait, the one that waited longest first.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    waiting: VecDeque<Task>,
}

impl Tasks {
    /// Adds a task that begins to wait.
    pub(super) fn park(&mut self, task: Task) {
        if self.waiting.len() >= TASKS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(task);
    }

    /// Puts a task back that was taken by mistake, as one that waits long already.
    pub(super) fn put_back(&mut self, task: Task) {
        if self.waiting.len() < TASKS_MAX {
            self.waiting.push_front(task);
        }
    }

    /// Takes the task that began last to wait to go on at `pc`.
    pub(super) fn guess(&mut self, pc: Va) -> Option<Task> {
        let found = self.waiting.iter().rposition(|task| task.resumes_at == Some(pc))?;
        self.waiting.remove(found)
    }

    /// Takes the task whose innermost calls return to `returns`, in this order, and tells how many
    /// of its frames are left then.
    pub(super) fn returning(&mut self, returns: &[Va]) -> Option<(Task, usize)> {
        self.take(|task| left_after(&task.frames, returns))
    }

    /// Takes the task that was interrupted at `pc`, or by the instruction before, and tells how
    /// many of its frames are left when it goes on there.
    pub(super) fn interrupted_at(&mut self, pc: Va) -> Option<(Task, usize)> {
        self.take(|task| {
            let index = task.frames.iter().rposition(|frame| frame.kind.is_exception())?;
            task.frames[index].resumes_at(pc).then_some(index)
        })
    }

    fn take(&mut self, fits: impl Fn(&Task) -> Option<usize>) -> Option<(Task, usize)> {
        let mut newest_first = self.waiting.iter().enumerate().rev();
        let (found, left) = newest_first.find_map(|(index, task)| Some((index, fits(task)?)))?;
        Some((self.waiting.remove(found)?, left))
    }
}

/// Returns how many frames are left once the innermost calls have returned to `returns`.
fn left_after(frames: &[Frame], returns: &[Va]) -> Option<usize> {
    let mut left = frames.len();
    for &to in returns {
        let top = frames[..left].last()?;
        if top.kind.is_exception() || top.return_to != Some(to) {
            return None;
        }
        left = super::stack::chain_start(&frames[..left])?;
    }
    Some(left)
}
