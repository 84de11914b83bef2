//! Tasks: the guest's processes and their threads.

use crate::btf::{Field, field, text};
use crate::{Btf, Error, Kernel, Memory, list};
use std::fmt;

/// Most tasks that are read.
const TASKS_MAX: usize = 1 << 15;
/// What the first task is called in the image, before its CPU's number is added.
const FIRST: &[u8; 16] = b"swapper\0\0\0\0\0\0\0\0\0";
/// Longest name of a thread of the kernel's that is shown.
const FULL_NAME_MAX: usize = 64;
/// PF_WQ_WORKER of `include/linux/sched.h`: /proc shows such a one by `comm`, and adds what it does.
const WORKER: u64 = 0x20;
/// PF_KTHREAD of `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x20_0000;
/// The priority of every task that asked for none (`DEFAULT_PRIO`).
const DEFAULT_PRIORITY: u64 = 120;

/// Where the members of a task are that are asked for here.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pid: Field,
    tgid: Field,
    comm: Field,
    state: Field,
    exit_state: Field,
    flags: Field,
    cpu: Field,
    on_cpu: Option<Field>,
    static_priority: Field,
    mm: Field,
    stack: Field,
    tasks: Field,
    thread_node: Field,
    signal: Field,
    thread_head: Field,
    /// Where a thread of the kernel's has more of itself, and there a name that does not fit into
    /// `comm`; since Linux 5.17.
    full_name: Option<(Field, Field)>,
}

impl Layout {
    pub(crate) fn new(btf: &Btf) -> Result<Self, Error> {
        let task = |paths: &[&str]| field(btf, "task_struct", paths);
        Ok(Self {
            pid: task(&["pid"])?,
            tgid: task(&["tgid"])?,
            comm: task(&["comm"])?,
            state: task(&["__state", "state"])?,
            exit_state: task(&["exit_state"])?,
            flags: task(&["flags"])?,
            cpu: task(&["thread_info.cpu", "cpu"])?,
            on_cpu: task(&["on_cpu"]).ok(),
            static_priority: task(&["static_prio"])?,
            mm: task(&["mm"])?,
            stack: task(&["stack"])?,
            tasks: task(&["tasks"])?,
            thread_node: task(&["thread_node"])?,
            signal: task(&["signal"])?,
            thread_head: field(btf, "signal_struct", &["thread_head"])?,
            full_name: task(&["worker_private"])
                .and_then(|own| Ok((own, field(btf, "kthread", &["full_name"])?)))
                .ok(),
        })
    }

    /// Finds the first task in an image, by what it holds from the start: how far in it is.
    pub(crate) fn find_first(&self, mut image: &[u8]) -> Option<u64> {
        let whole = image;
        let at_rest = |start: usize| {
            let mut memory = Image(whole.get(start..)?);
            let mut holds = |field: &Field, value: u64| matches!(field.read(&mut memory, 0), Ok(read) if read == value);
            let holds = holds(&self.pid, 0)
                && holds(&self.tgid, 0)
                && holds(&self.static_priority, DEFAULT_PRIORITY)
                && holds(&self.mm, 0);
            let flags = self.flags.read(&mut memory, 0).ok()?;
            (holds && flags & KERNEL_THREAD != 0).then_some(start as u64)
        };
        let mut skipped = 0;
        while let Some(at) = image.windows(FIRST.len()).position(|window| window == FIRST) {
            let start = (skipped + at).checked_sub(usize::try_from(self.comm.offset).ok()?);
            if let Some(found) = start.filter(|start| start % 16 == 0).and_then(at_rest) {
                return Some(found);
            }
            image = image.get(at + 1..)?;
            skipped += at + 1;
        }
        None
    }
}

/// An image as memory that begins at 0.
struct Image<'a>(&'a [u8]);

impl Memory for Image<'_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let start = usize::try_from(address).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        bytes.copy_from_slice(self.0.get(start..end).ok_or(Error::NotMapped(address))?);
        Ok(())
    }
}

/// What a task is doing, in the letters of `ps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State(pub char);

impl State {
    /// Makes the letter of `__state` and `exit_state`, as the kernel does for `/proc/PID/stat`
    /// (`__task_state_index` in `include/linux/sched.h`).
    #[must_use]
    pub const fn new(state: u64, exit: u64) -> Self {
        const IDLE: u64 = 0x402;
        const REPORTED: u64 = 0x7f;
        const LIKE_UNINTERRUPTIBLE: u64 = 0x1000 | 0x8000;
        let all = state | exit;
        Self(match all & REPORTED {
            _ if state == IDLE => 'I',
            _ if state & LIKE_UNINTERRUPTIBLE != 0 => 'D',
            0 => 'R',
            1 => 'S',
            2..4 => 'D',
            4..8 => 'T',
            8..16 => 't',
            16..32 => 'X',
            32..64 => 'Z',
            _ => 'P',
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A task: a process's thread, or one of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Where its `struct task_struct` is.
    pub address: u64,
    /// Its number; that of the process for the first thread of one.
    pub pid: u32,
    /// Its process's number.
    pub tgid: u32,
    /// Its name.
    pub comm: String,
    /// A name of a thread of the kernel's that is longer than that.
    pub full_name: Option<String>,
    /// What it is doing.
    pub state: State,
    /// The CPU that it runs on, or ran on last.
    pub cpu: u32,
    /// Whether it is on that CPU now.
    pub on_cpu: bool,
    /// Where its address space is; 0 for a thread of the kernel's.
    pub mm: u64,
    /// Where its stack in the kernel begins.
    pub stack: u64,
}

impl Task {
    /// Reads the task at `address`.
    ///
    /// # Errors
    ///
    /// Those of `memory`.
    pub fn read(kernel: &Kernel, memory: &mut dyn Memory, address: u64) -> Result<Self, Error> {
        let layout = &kernel.tasks;
        let mut read = |field: &Field| field.read(memory, address);
        let (state, exit) = (read(&layout.state)?, read(&layout.exit_state)?);
        let on_cpu = layout.on_cpu.as_ref().map(&mut read).transpose()?;
        Ok(Self {
            address,
            pid: read(&layout.pid)? as u32,
            tgid: read(&layout.tgid)? as u32,
            state: State::new(state, exit),
            cpu: read(&layout.cpu)? as u32,
            on_cpu: on_cpu.is_some_and(|on| on != 0),
            mm: read(&layout.mm)?,
            stack: read(&layout.stack)?,
            comm: layout.comm.read_text(memory, address)?,
            full_name: Self::full_name(layout, memory, address)?,
        })
    }

    fn full_name(
        layout: &Layout,
        memory: &mut dyn Memory,
        address: u64,
    ) -> Result<Option<String>, Error> {
        let Some((own, name)) = &layout.full_name else { return Ok(None) };
        if layout.flags.read(memory, address)? & (KERNEL_THREAD | WORKER) != KERNEL_THREAD {
            return Ok(None);
        }
        // A thread that is just being made has none of that yet.
        let mut pointer = |field: &Field, at: u64| match field.read(memory, at) {
            Err(error) if error.is_fatal() => Err(error),
            other => Ok(other.unwrap_or_default()),
        };
        let at = match pointer(own, address)? {
            0 => 0,
            own => pointer(name, own)?,
        };
        if at == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        while bytes.len() < FULL_NAME_MAX && bytes.last() != Some(&0) {
            let mut byte = [0];
            match memory.read(at.wrapping_add(bytes.len() as u64), &mut byte) {
                Ok(()) => bytes.extend(byte),
                Err(error) if error.is_fatal() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Some(text(&bytes)).filter(|name| !name.is_empty()))
    }
}

impl Task {
    /// Returns its whole name, as `/proc/PID/stat` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.full_name.as_deref().unwrap_or(&self.comm)
    }

    /// Returns its name, in brackets for one of the kernel's own, as `ps` has it.
    #[must_use]
    pub fn shown(&self) -> String {
        if self.mm == 0 { format!("[{}]", self.name()) } else { self.comm.clone() }
    }
}

/// Returns all tasks: each process's threads together, in the order in which they were made; the
/// first is the one that CPU 0 is idle with.
///
/// # Errors
///
/// [`Error::Damaged`], [`Error::Endless`], and those of `memory`.
pub fn all(kernel: &Kernel, memory: &mut dyn Memory) -> Result<Vec<Task>, Error> {
    let layout = &kernel.tasks;
    let first = kernel.init_task();
    let head = first.wrapping_add(layout.tasks.offset);
    let mut tasks = vec![Task::read(kernel, memory, first)?];
    for entry in list::entries(memory, head, "tasks", TASKS_MAX)? {
        let leader = entry.wrapping_sub(layout.tasks.offset);
        let signal = layout.signal.read(memory, leader)?;
        let head = signal.wrapping_add(layout.thread_head.offset);
        let left = TASKS_MAX.saturating_sub(tasks.len());
        for entry in list::entries(memory, head, "threads", left)? {
            let address = entry.wrapping_sub(layout.thread_node.offset);
            tasks.push(Task::read(kernel, memory, address)?);
        }
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_letters_of_proc() {
        let letters = [(0, 0), (1, 0), (2, 0), (0x402, 0), (4, 0), (8, 0), (0, 0x10), (0, 0x20)];
        let text: String = letters.iter().map(|(s, e)| State::new(*s, *e).0).collect();
        assert_eq!(text, "RSDITtXZ");
        assert_eq!(State::new(0x40, 0).0, 'P');
        assert_eq!(State::new(0x100 | 2, 0).0, 'D', "killable");
        assert_eq!(State::new(0x8000, 0).0, 'D', "frozen");
        assert_eq!(State::new(u64::MAX, u64::MAX).0, 'D');
    }
}
