//! The stepper's command language: a letter and its arguments.

use super::breakpoints::Condition;
use crate::names::number;
use stepwell_debuggee::{InterruptPolicy, OthersPolicy, TimePolicy, WatchAccess};

/// What `h` prints.
pub const HELP: &str = "\
s [N]          step N instructions (1)
n              step, but over a call as a whole
c              continue; Ctrl-C pauses
u WHERE        run until WHERE; Ctrl-C pauses
break [WHERE [if pid=N,comm=NAME]]  a breakpoint that stays; without WHERE, list them
delete N       take breakpoint N away
b [N]          back: the last N executed PCs (16)
In a replay (stepwell step --replay FILE):
rs [N]         step back N instructions of this vCPU (1)
rn             step back, but over a call as a whole
rc             continue back, to the last stop before this one
ru WHERE       back to where WHERE was executed last
goto N         to a position: N, +N, -N, start, end
when           the position, and the guest's time
last WHERE [N] to the instruction that wrote any of N bytes (8) last
snapshot NAME  gives this moment a name
restore NAME   to the moment that has this name
snapshots      those that have names
fork           leave what was recorded: writes are taken from here on
r [NAME]       registers: core, PSTATE, system; or one, such as x0 or ESR_EL1
m WHERE [N]    N bytes of memory (64)
d [WHERE] [N]  disassemble N instructions (8), from the PC
i POLICY       interrupts while stepping: hold, over, into
time POLICY    the guest's clock: stopped, natural[=SEED], real, per-step=NS
others POLICY  the other vCPUs while stepping: stop, run, step[=N], freeze
smc on|off     stop at SMC instructions
watch WHERE [N] [KIND]    stop before N bytes (8) are accessed: r, w (default), rw
unwatch WHERE [N] [KIND]  no longer
t [TEXT]       type a line on the guest's console; it reads it once it runs
vcpu [N]       the vCPUs; choose one
ps             the tasks of a Linux guest
bt [PID]       how a task came to where it is; without PID, that of this vCPU
maps [PID]     what a process has mapped
lsmod          the modules
p EXPRESSION   a value, by the kernel's own types: current->comm, task(1)->mm,
               module(NAME)->state, *(struct NAME *)x0, runqueues.nr_running
x              end
Enter repeats. WHERE is SYMBOL, SYMBOL+0xOFFSET, 0xADDRESS or MODULE:SYMBOL;
for m, d and watch also a register (sp, x0, pc).
";

/// The commands' names, for completion.
pub const NAMES: [&str; 36] = [
    "rs",
    "rn",
    "rc",
    "ru",
    "goto",
    "when",
    "last",
    "snapshot",
    "restore",
    "snapshots",
    "fork",
    "s",
    "n",
    "c",
    "u",
    "break",
    "delete",
    "b",
    "r",
    "m",
    "d",
    "i",
    "time",
    "others",
    "smc",
    "watch",
    "unwatch",
    "t",
    "vcpu",
    "ps",
    "bt",
    "maps",
    "lsmod",
    "p",
    "h",
    "x",
];

const MEMORY_DEFAULT: u64 = 64;
const MEMORY_MAX: u64 = 1 << 16;
const INSTRUCTIONS_DEFAULT: u64 = 8;
const INSTRUCTIONS_MAX: u64 = 4096;
const BACK_DEFAULT: u64 = 16;
const WATCH_DEFAULT: u64 = 8;

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `s`
    Step(u64),
    /// `n`
    Next,
    /// `c`
    Continue,
    /// `u`
    Until(String),
    /// `b`
    Back(usize),
    /// `rs`
    StepBack(u64),
    /// `rn`
    NextBack,
    /// `rc`
    ContinueBack,
    /// `ru`
    UntilBack(String),
    /// `goto`
    GoTo(Position),
    /// `when`
    When,
    /// `last`: where, and how many bytes.
    Last(String, u64),
    /// `snapshot`
    TakeSnapshot(String),
    /// `restore`
    GoToSnapshot(String),
    /// `snapshots`
    Snapshots,
    /// `fork`
    Fork,
    /// `r`
    Registers(Option<String>),
    /// `m`
    Memory(String, u64),
    /// `d`
    Disassemble(Option<String>, u64),
    /// `i`
    Interrupts(InterruptPolicy),
    /// `time`
    Time(TimePolicy),
    /// `others`
    Others(OthersPolicy),
    /// `smc`
    Smc(bool),
    /// `watch` and `unwatch`: on or off, where, how many bytes, for what.
    Watch(bool, String, u64, WatchAccess),
    /// `t`
    Type(String),
    /// `vcpu`
    Vcpu(Option<u8>),
    /// `break`: where, and for which tasks.
    Break(String, Condition),
    /// `break` alone
    Breakpoints,
    /// `delete`
    Delete(u32),
    /// `ps`
    Processes,
    /// `bt`
    Stack(Option<u32>),
    /// `maps`
    Mappings(Option<u32>),
    /// `p`
    Print(String),
    /// `lsmod`
    Modules,
    /// `h`
    Help,
    /// `x`
    Leave,
}

/// A position in a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// From the beginning.
    At(u64),
    /// Behind this one.
    Ahead(u64),
    /// Before this one.
    Back(u64),
    /// The last one.
    End,
}

/// A line that is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No such command.
    #[error("unknown command {0}: h shows all")]
    Unknown(String),
    /// Not its arguments.
    #[error("{reason}; write {usage}")]
    Arguments {
        /// What is wrong.
        reason: String,
        /// How it's done.
        usage: &'static str,
    },
}

impl Command {
    /// Reads a line; `None` for an empty one.
    ///
    /// # Errors
    ///
    /// [`ParseError`] says how to write it.
    pub fn parse(line: &str) -> Result<Option<Self>, ParseError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((&name, arguments)) = words.split_first() else { return Ok(None) };
        let command = match (name, arguments) {
            ("s" | "step", []) => Self::Step(1),
            ("s" | "step", [n]) => Self::Step(count(n, u64::MAX, "s [N]")?),
            ("n" | "next", []) => Self::Next,
            ("c" | "continue", []) => Self::Continue,
            ("u" | "until", [word]) => Self::Until((*word).to_owned()),
            ("b" | "back", []) => Self::Back(BACK_DEFAULT as usize),
            ("b" | "back", [n]) => Self::Back(count(n, 1 << 16, "b [N]")? as usize),
            ("r" | "registers", []) => Self::Registers(None),
            ("r" | "registers", [name]) => Self::Registers(Some((*name).to_owned())),
            ("m" | "memory", [word]) => Self::Memory((*word).to_owned(), MEMORY_DEFAULT),
            ("m" | "memory", [word, n]) => {
                Self::Memory((*word).to_owned(), count(n, MEMORY_MAX, "m WHERE [N]")?)
            }
            ("d" | "disassemble", []) => Self::Disassemble(None, INSTRUCTIONS_DEFAULT),
            ("d" | "disassemble", [word]) => {
                Self::Disassemble(Some((*word).to_owned()), INSTRUCTIONS_DEFAULT)
            }
            ("d" | "disassemble", [word, n]) => {
                let count = count(n, INSTRUCTIONS_MAX, "d [WHERE] [N]")?;
                Self::Disassemble(Some((*word).to_owned()), count)
            }
            ("i" | "irq", [policy]) => {
                Self::Interrupts(policy.parse().map_err(|error| told(&error, "i POLICY"))?)
            }
            ("others", [policy]) => {
                Self::Others(policy.parse().map_err(|error| told(&error, "others POLICY"))?)
            }
            ("time", [policy]) => {
                Self::Time(policy.parse().map_err(|error| told(&error, "time POLICY"))?)
            }
            ("smc", ["on"]) => Self::Smc(true),
            ("smc", ["off"]) => Self::Smc(false),
            ("watch", [word, rest @ ..]) => watch(true, word, rest, "watch WHERE [N] [KIND]")?,
            ("unwatch", [word, rest @ ..]) => watch(false, word, rest, "unwatch WHERE [N] [KIND]")?,
            ("t" | "type", _) => Self::Type(rest(line)),
            ("vcpu", []) => Self::Vcpu(None),
            ("vcpu", [n]) => Self::Vcpu(Some(n.parse().map_err(|error| told(&error, "vcpu [N]"))?)),
            ("break", []) => Self::Breakpoints,
            ("break", [word]) => Self::Break((*word).to_owned(), Condition::default()),
            ("break", [word, "if", rest @ ..]) => {
                let condition = Condition::parse(rest).ok_or_else(|| refuse(name))?;
                Self::Break((*word).to_owned(), condition)
            }
            ("delete", [n]) => Self::Delete(count(n, u64::from(u32::MAX), "delete N")? as u32),
            ("ps", []) => Self::Processes,
            ("bt", []) => Self::Stack(None),
            ("bt", [pid]) => Self::Stack(Some(task(pid, "bt [PID]")?)),
            ("maps", []) => Self::Mappings(None),
            ("maps", [pid]) => Self::Mappings(Some(task(pid, "maps [PID]")?)),
            ("p" | "print", [_, ..]) => Self::Print(rest(line)),
            ("lsmod", []) => Self::Modules,
            ("h" | "help" | "?", _) => Self::Help,
            ("x" | "q" | "quit" | "exit", []) => Self::Leave,
            _ => Self::parse_in_replay(name, arguments)?.ok_or_else(|| refuse(name))?,
        };
        Ok(Some(command))
    }

    /// The commands that a replay has besides; nothing where it is none of them.
    fn parse_in_replay(name: &str, arguments: &[&str]) -> Result<Option<Self>, ParseError> {
        let command = match (name, arguments) {
            ("rs", []) => Self::StepBack(1),
            ("rs", [n]) => Self::StepBack(count(n, u64::MAX, "rs [N]")?),
            ("rn", []) => Self::NextBack,
            ("rc", []) => Self::ContinueBack,
            ("ru", [word]) => Self::UntilBack((*word).to_owned()),
            ("goto", [word]) => Self::GoTo(position(word)?),
            ("when", []) => Self::When,
            ("last", [word]) => Self::Last((*word).to_owned(), WATCH_DEFAULT),
            ("last", [word, n]) => {
                Self::Last((*word).to_owned(), count(n, MEMORY_MAX, "last WHERE [N]")?)
            }
            ("snapshot", [name]) => Self::TakeSnapshot((*name).to_owned()),
            ("restore", [name]) => Self::GoToSnapshot((*name).to_owned()),
            ("snapshots", []) => Self::Snapshots,
            ("fork", []) => Self::Fork,
            _ => return Ok(None),
        };
        Ok(Some(command))
    }
}

/// Returns what comes after the command's name, spaces and all.
fn rest(line: &str) -> String {
    line.trim_start().split_once(' ').map_or("", |(_, rest)| rest).trim_end().to_owned()
}

/// Says what is wrong with the arguments, or that there is no such command.
fn refuse(name: &str) -> ParseError {
    let usage = HELP.lines().map(|line| line.split("  ").next().unwrap_or(line));
    let usage = usage.into_iter().find(|usage| usage.split(' ').next() == Some(name));
    match usage {
        Some(usage) => {
            ParseError::Arguments { reason: format!("{name} is not used like that"), usage }
        }
        None => ParseError::Unknown(name.to_owned()),
    }
}

fn watch(on: bool, word: &str, rest: &[&str], usage: &'static str) -> Result<Command, ParseError> {
    let (rest, access) = match rest {
        [rest @ .., "r"] => (rest, WatchAccess::Read),
        [rest @ .., "rw"] => (rest, WatchAccess::ReadWrite),
        [rest @ .., "w"] => (rest, WatchAccess::Write),
        rest => (rest, WatchAccess::Write),
    };
    let length = match rest {
        [] => WATCH_DEFAULT,
        [n] => count(n, MEMORY_MAX, usage)?,
        _ => return Err(ParseError::Arguments { reason: "too many words".to_owned(), usage }),
    };
    Ok(Command::Watch(on, word.to_owned(), length, access))
}

fn task(word: &str, usage: &'static str) -> Result<u32, ParseError> {
    word.parse().map_err(|error| told(&error, usage))
}

fn told(error: &dyn std::error::Error, usage: &'static str) -> ParseError {
    ParseError::Arguments { reason: error.to_string(), usage }
}

fn position(word: &str) -> Result<Position, ParseError> {
    let read = |digits: &str| number(digits).map_err(|error| told(&error, "goto N"));
    Ok(match word {
        "start" => Position::At(0),
        "end" => Position::End,
        _ => match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(digits), _) => Position::Ahead(read(digits)?),
            (_, Some(digits)) => Position::Back(read(digits)?),
            _ => Position::At(read(word)?),
        },
    })
}

fn count(word: &str, max: u64, usage: &'static str) -> Result<u64, ParseError> {
    let count = number(word).map_err(|error| told(&error, usage))?;
    if (1..=max).contains(&count) {
        return Ok(count);
    }
    Err(ParseError::Arguments { reason: format!("{word} is not between 1 and {max}"), usage })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Command> {
        Command::parse(line).unwrap()
    }

    #[test]
    fn lines_are_understood() {
        assert_eq!(parse("  "), None);
        assert_eq!(parse("s"), Some(Command::Step(1)));
        assert_eq!(parse("s 0x10"), Some(Command::Step(16)));
        assert_eq!(parse("u start_kernel"), Some(Command::Until("start_kernel".into())));
        assert_eq!(parse("m sp 32"), Some(Command::Memory("sp".into(), 32)));
        assert_eq!(parse("i over"), Some(Command::Interrupts(InterruptPolicy::Over)));
        assert_eq!(parse("time per-step=10"), Some(Command::Time(TimePolicy::PerStep { ns: 10 })));
        assert_eq!(parse("smc on"), Some(Command::Smc(true)));
        let watch = |on, n, access| Some(Command::Watch(on, "x0".into(), n, access));
        assert_eq!(parse("watch x0"), watch(true, 8, WatchAccess::Write));
        assert_eq!(parse("watch x0 4 r"), watch(true, 4, WatchAccess::Read));
        assert_eq!(parse("unwatch x0 rw"), watch(false, 8, WatchAccess::ReadWrite));
        let only = Condition { pid: Some(7), comm: None };
        assert_eq!(parse("break f if pid=7"), Some(Command::Break("f".into(), only)));
        assert_eq!(parse("p current->mm"), Some(Command::Print("current->mm".into())));
        assert_eq!(parse("bt 7"), Some(Command::Stack(Some(7))));
        assert_eq!(parse("rs 3"), Some(Command::StepBack(3)));
        for (word, position) in [
            ("start", Position::At(0)),
            ("end", Position::End),
            ("7", Position::At(7)),
            ("+7", Position::Ahead(7)),
            ("-0x10", Position::Back(16)),
        ] {
            assert_eq!(parse(&format!("goto {word}")), Some(Command::GoTo(position)));
        }
        assert_eq!(parse("snapshot a"), Some(Command::TakeSnapshot("a".into())));
        assert_eq!(parse("restore a"), Some(Command::GoToSnapshot("a".into())));
        assert_eq!(parse("last x0 4"), Some(Command::Last("x0".into(), 4)));
        assert_eq!(parse(" t echo  a\n"), Some(Command::Type("echo  a".into())));
        assert_eq!(parse("t"), Some(Command::Type(String::new())));
    }

    #[test]
    fn what_is_misspelt_is_told_how() {
        let error = |line: &str| Command::parse(line).unwrap_err().to_string();
        assert_eq!(error("jump"), "unknown command jump: h shows all");
        assert_eq!(error("u"), "u is not used like that; write u WHERE");
        let usage = "break [WHERE [if pid=N,comm=NAME]]";
        assert_eq!(
            error("break f if uid=0"),
            format!("break is not used like that; write {usage}")
        );
        assert_eq!(error("s 0"), "0 is not between 1 and 18446744073709551615; write s [N]");
        assert_eq!(error("i never"), "\"never\" is none of hold, over, into; write i POLICY");
    }
}
