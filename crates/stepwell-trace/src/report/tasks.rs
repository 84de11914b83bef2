//! What each task of the guest's executed, where the recording tells tasks.

use crate::format::Event;
use std::collections::BTreeMap;

/// Most tasks that are told apart; what others execute is counted together.
const TASKS_MAX: usize = 1 << 12;

/// A task: its number, its process's and its name. One that executes another program is another.
pub(super) type Key = (u32, u32, String);

/// What a task executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) instructions: u64,
    /// Of them, in its program.
    pub(super) user: u64,
    /// How often it was made the current one.
    pub(super) times: u64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks {
    numbers: BTreeMap<Key, usize>,
    counts: Vec<Count>,
    /// By vCPU.
    current: BTreeMap<u8, usize>,
    pub(super) others: Count,
}

impl Tasks {
    /// Takes what the recording tells of a task.
    pub(super) fn observe(&mut self, event: &Event) {
        let Event::Task { vcpu, pid, tgid, name } = event else { return };
        let key = (*pid, *tgid, name.clone());
        let new = self.counts.len();
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None if new == TASKS_MAX => {
                self.current.remove(vcpu);
                self.others.times += 1;
                return;
            }
            None => {
                self.numbers.insert(key, new);
                self.counts.push(Count::default());
                new
            }
        };
        self.counts[number].times += 1;
        self.current.insert(*vcpu, number);
    }

    /// Counts what a vCPU executed.
    pub(super) fn add(&mut self, vcpu: u8, instructions: u64, is_user: bool) {
        if self.numbers.is_empty() {
            return;
        }
        let count = match self.current.get(&vcpu) {
            Some(number) => &mut self.counts[*number],
            None => &mut self.others,
        };
        count.instructions += instructions;
        count.user += if is_user { instructions } else { 0 };
    }

    /// Returns them, those that executed most first.
    pub(super) fn sorted(&self) -> Vec<(&Key, Count)> {
        let mut all: Vec<_> =
            self.numbers.iter().map(|(key, number)| (key, self.counts[*number])).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(count.instructions));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(vcpu: u8, pid: u32, name: &str) -> Event {
        Event::Task { vcpu, pid, tgid: pid, name: name.to_owned() }
    }

    #[test]
    fn each_instruction_counts_for_the_task_of_its_vcpu() {
        let mut tasks = Tasks::default();
        tasks.add(0, 5, false);
        assert_eq!(tasks.others, Count::default(), "a recording without tasks has no rows");
        tasks.observe(&task(0, 1, "init"));
        tasks.observe(&task(1, 7, "cat"));
        tasks.add(0, 10, false);
        tasks.add(1, 100, true);
        tasks.add(2, 3, false);
        tasks.observe(&task(1, 1, "init"));
        tasks.add(1, 20, true);
        let sorted = tasks.sorted();
        let cat = Count { instructions: 100, user: 100, times: 1 };
        assert_eq!(sorted[0], (&(7, 7, "cat".to_owned()), cat));
        let init = Count { instructions: 30, user: 20, times: 2 };
        assert_eq!(sorted[1], (&(1, 1, "init".to_owned()), init));
        assert_eq!(tasks.others.instructions, 3);
    }

    #[test]
    fn a_recording_of_nothing_but_tasks_stays_small() {
        let mut tasks = Tasks::default();
        for pid in 0..TASKS_MAX as u32 + 5 {
            tasks.observe(&task(0, pid, "x"));
            tasks.add(0, 1, false);
        }
        assert_eq!(tasks.sorted().len(), TASKS_MAX);
        assert_eq!(tasks.others, Count { instructions: 5, user: 0, times: 5 });
    }
}
