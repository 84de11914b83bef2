//! The `monitor` commands: what a guest under Stepwell can do that GDB has no command for.
//!
//! Each takes a line and returns text. What is refused or misspelt is text, too: nothing that
//! somebody types ends a session.

mod memory;
mod mmu;
mod time;

use crate::breakpoints::{Sort, Tally};
use crate::guest::Guest;
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd};
use std::fmt::Write;
use stepwell_arch::{Pstate, SystemRegister, Va};
use stepwell_debuggee::{Debuggee, Error, Monitor, Place, Refusal, VcpuId, VcpuState};

const HELP: &str = "\
irq [hold|over|into]         interrupts while stepping
others [stop|run|step[=N]|freeze]  the other vCPUs while one is stepped
time [stopped|natural[=SEED]|real|per-step=NS]  the guest's clock while it is stopped or steps
smc on|off                   stop at SMC instructions
phys ADDRESS [BYTES]         memory by guest-physical address
phys ADDRESS = HEX           write it
regs sys [NAME]              system registers, all or those with this in their name
mmu ADDRESS                  how the current thread translates it, level by level
break-in [any|current|PID|NAME] [ADDRESS]  the processes in which breakpoints in programs hold
breakpoints                  those that are set, and how often they were met
where                        where every vCPU is
when                         the position, in a replay
goto N|start|end             to a position of a replay
last ADDRESS [BYTES]         to the instruction that wrote there last, in a replay
snapshot NAME                gives this moment of a replay a name
restore NAME                 to the moment that has this name
snapshots                    those that have names
fork                         leave what was recorded: writes are taken from here on
symbols                      the command that loads the guest's symbols where they are
trace start NAME             record every step from now on; `continue` steps, too
trace stop                   complete the recording
";
const HELP_OF_HELP: &str = "help                         this\n";

impl MonitorCmd for Guest<'_> {
    fn handle_monitor_cmd(
        &mut self,
        line: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), crate::Error> {
        let text = execute(self, &String::from_utf8_lossy(line))?;
        out.write_raw(text.as_bytes());
        Ok(())
    }
}

/// Executes a line and returns what to show.
fn execute(guest: &mut Guest<'_>, line: &str) -> Result<String, Error> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let result = match words.as_slice() {
        [] | ["help" | "h" | "?"] => Ok(help(guest)),
        ["irq"] => Ok(format!("{}\n", guest.policies.interrupts)),
        ["irq", policy] => interrupts(guest, policy),
        ["others"] => Ok(format!("{}\n", guest.policies.others)),
        ["others", policy] => others(guest, policy),
        ["time"] => Ok(format!("{}\n", guest.policies.time)),
        ["time", policy] => choose_time(guest, policy),
        ["smc", state @ ("on" | "off")] => smc(guest, *state == "on"),
        ["smc"] => Ok(if guest.policies.smc { "on\n" } else { "off\n" }.to_owned()),
        ["phys", address] => memory::show(guest, address, None),
        ["phys", address, "=", bytes @ ..] => memory::write(guest, address, &bytes.concat()),
        ["phys", address, length] => memory::show(guest, address, Some(length)),
        ["regs", "sys"] => registers(guest, ""),
        ["regs", "sys", name] => registers(guest, name),
        ["mmu", address] => mmu::show(guest, address),
        ["break-in"] => guest.break_in(None, None),
        ["break-in", choice] => guest.break_in(Some(choice), None),
        ["break-in", choice, place] => guest.break_in(Some(choice), Some(place)),
        ["breakpoints"] => Ok(breakpoints(guest)),
        ["where"] => places(guest),
        ["when"] => time::when(guest),
        ["goto", position] => time::go_to(guest, position),
        ["last", address] => time::last(guest, address, None),
        ["last", address, length] => time::last(guest, address, Some(length)),
        ["snapshot", name] => time::take_snapshot(guest, name),
        ["restore", name] => time::go_to_snapshot(guest, name),
        ["snapshots"] => Ok(time::snapshots(guest)),
        ["fork"] => time::fork(guest),
        ["symbols"] => Ok(symbols(guest)),
        ["trace", "start", name] => trace_start(guest, name),
        ["trace", "stop"] => Ok(told(guest.services.stop_trace())),
        ["trace"] => {
            Ok(if guest.services.is_tracing() { "recording\n" } else { "not recording\n" }.into())
        }
        _ => tools_command(guest, &words),
    };
    match result {
        Err(Error::Refused(refusal)) => Ok(format!("{refusal}\n")),
        result => result,
    }
}

fn help(guest: &Guest<'_>) -> String {
    format!("{HELP}{}{HELP_OF_HELP}", guest.services.help())
}

/// Executes a command of the tool's, if it has this one.
fn tools_command(guest: &mut Guest<'_>, words: &[&str]) -> Result<String, Error> {
    let vcpu = guest.current();
    let text = guest.services.command(&mut guest.debuggee, vcpu, words)?;
    Ok(text.unwrap_or_else(|| format!("no such command: {}\n{}", words.join(" "), help(guest))))
}

/// Puts back what is not to outlive a session.
pub(crate) fn leave(guest: &mut Guest<'_>) -> Result<(), Error> {
    if guest.services.is_tracing() {
        let text = told(guest.services.stop_trace());
        guest.services.note(text.trim_end());
    }
    if guest.policies.smc {
        match smc(guest, false) {
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn told(result: Result<String, String>) -> String {
    let text = match result {
        Ok(text) | Err(text) => text,
    };
    format!("{text}\n")
}

fn unable() -> String {
    "this debuggee cannot do that\n".to_owned()
}

fn interrupts(guest: &mut Guest<'_>, word: &str) -> Result<String, Error> {
    let policy = match word.parse() {
        Ok(policy) => policy,
        Err(error) => return Ok(format!("{error}\n")),
    };
    let Some(interrupts) = guest.debuggee.support_interrupts() else { return Ok(unable()) };
    interrupts.set_interrupt_policy(guest.domain, policy)?;
    (guest.policies.interrupts, guest.interrupts_now) = (policy, policy);
    Ok(format!("{policy}\n"))
}

fn others(guest: &mut Guest<'_>, word: &str) -> Result<String, Error> {
    let policy = match word.parse() {
        Ok(policy) => policy,
        Err(error) => return Ok(format!("{error}\n")),
    };
    let Some(others) = guest.debuggee.support_others() else { return Ok(unable()) };
    others.set_others_policy(guest.domain, policy)?;
    (guest.policies.others, guest.others_now) = (policy, policy);
    Ok(format!("{policy}\n"))
}

fn choose_time(guest: &mut Guest<'_>, word: &str) -> Result<String, Error> {
    let policy = match word.parse() {
        Ok(policy) => policy,
        Err(error) => return Ok(format!("{error}\n")),
    };
    let Some(time) = guest.debuggee.support_time() else { return Ok(unable()) };
    time.set_time_policy(guest.domain, policy)?;
    guest.policies.time = policy;
    Ok(format!("{policy}\n"))
}

fn smc(guest: &mut Guest<'_>, on: bool) -> Result<String, Error> {
    let domain = guest.domain;
    let Some(monitors) = guest.debuggee.support_monitors() else { return Ok(unable()) };
    monitors.set_monitor(domain, None, Monitor::PrivilegedCall, on)?;
    guest.policies.smc = on;
    Ok(if on { "on\n" } else { "off\n" }.to_owned())
}

fn registers(guest: &mut Guest<'_>, wanted: &str) -> Result<String, Error> {
    let vcpu = guest.current();
    let wanted = wanted.to_uppercase();
    let named = |register: &&SystemRegister| register.to_string().contains(&wanted);
    let matching: Vec<_> = guest.registers.system().iter().filter(named).copied().collect();
    if matching.is_empty() {
        return Ok(format!("no system register has {wanted:?} in its name\n"));
    }
    let Some(system) = guest.debuggee.support_system_registers() else { return Ok(unable()) };
    let mut text = String::new();
    for register in matching {
        let value = match system.read_system_register(vcpu, register.0) {
            Ok(value) => format!("{value:016x}"),
            Err(Error::Refused(refusal)) => refusal.to_string(),
            Err(error) => return Err(error),
        };
        let title = register.title().unwrap_or_default();
        line(&mut text, format_args!("{:<18} {value}  {title}", register.to_string()));
    }
    Ok(text)
}

/// The client's breakpoints, a line each.
fn breakpoints(guest: &Guest<'_>) -> String {
    let mut text = String::new();
    for (va, sort, conditions, tally) in guest.breakpoints.list() {
        let sort = if sort == Sort::Hardware { "hardware" } else { "hidden" };
        let name = guest.services.name(Va(va)).unwrap_or_default();
        let Tally { hits, passed } = tally;
        let _infallible = writeln!(
            text,
            "{va:#018x}  {name:24}  {sort:8}  {conditions} conditions  {hits} hits  {passed} passed over"
        );
    }
    if text.is_empty() { "none is set\n".to_owned() } else { text }
}

fn places(guest: &mut Guest<'_>) -> Result<String, Error> {
    let mut text = String::new();
    let status = guest.debuggee.status(guest.domain)?;
    for (vcpu, status) in (0..).zip(status) {
        let id = VcpuId { domain: guest.domain, vcpu };
        let state = match status.state {
            VcpuState::Off => "off".to_owned(),
            VcpuState::Running => "running".to_owned(),
            VcpuState::Ended => "ended".to_owned(),
            VcpuState::Stopped => place(guest, id, status.pc)?,
        };
        line(&mut text, format_args!("{id}  {state}"));
    }
    Ok(text)
}

fn place(guest: &mut Guest<'_>, id: VcpuId, pc: Va) -> Result<String, Error> {
    let pstate = guest.debuggee.read_registers(id)?.pstate;
    let mut word = [0; 4];
    let text = match guest.debuggee.read_memory(id, Place::Va(pc), &mut word) {
        Ok(()) => {
            let word = u32::from_le_bytes(word);
            guest.services.disassemble(word, pc).unwrap_or_else(|| format!("{word:08x}"))
        }
        Err(Error::Refused(refusal)) => refusal.to_string(),
        Err(error) => return Err(error),
    };
    let name = guest.services.name(pc).unwrap_or_else(|| "?".to_owned());
    Ok(format!("{pc:#018x}  {name:<32}  {text:<32}  {}", Pstate(pstate)))
}

fn symbols(guest: &Guest<'_>) -> String {
    match guest.services.symbol_command() {
        Some(command) => format!("{command}\n"),
        None => {
            "# not known yet: the guest was not seen in the kernel since that turned its MMU on\n"
                .into()
        }
    }
}

fn trace_start(guest: &mut Guest<'_>, name: &str) -> Result<String, Error> {
    if guest.debuggee.support_trace().is_none() {
        return Ok(unable());
    }
    Ok(told(guest.services.start_trace(name)))
}

/// Reads a number, `0x` or decimal, a core register (`$pc`, as GDB leaves it alone here) or a
/// symbol.
fn number(guest: &mut Guest<'_>, word: &str) -> Result<u64, Error> {
    if let Some(name) = word.strip_prefix('$') {
        let vcpu = guest.current();
        let registers = guest.debuggee.read_registers(vcpu)?;
        let numbered = || registers.x.get(name.strip_prefix('x')?.parse::<usize>().ok()?).copied();
        return match name {
            "pc" => Ok(registers.pc),
            "sp" => Ok(registers.sp),
            _ => Ok(numbered().ok_or(Refusal::NoSuchRegister)?),
        };
    }
    let found = guest.services.resolve(word).map(|va| va.0).or_else(|| word.parse().ok());
    Ok(found.ok_or(Refusal::NotANumber)?)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    let _infallible = text.write_fmt(format_args!("{arguments}\n"));
}
