//! What a Linux guest says of itself in `/proc`, against what is read from its memory while it is
//! stopped: tasks, modules, mappings and symbols.
//!
//! Processes fork, execute programs and load and remove a module all the time. At a random moment
//! process 1 stops them (SIGSTOP), reads `/proc`, executes `sync`, where the guest is stopped and
//! asked, and reads `/proc` a second time. What both readings say has to be what the memory says,
//! and nothing else may be there. In between, the guest is stopped amid all of that, wherever it
//! happens to be: there, every question has to have an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use stepwell::machine::{Guest, Layout, MachineOptions, Memory, QemuMachine};
use stepwell::names::Names;
use stepwell::questions;
use stepwell_debuggee::{Debuggee, Event, Stop, StopReason, VcpuId};
use stepwell_link::Link;
use stepwell_linux::{Error, Module, Task, module_types};
use stepwell_trace::{RawPolicy, Symbol, printable};

use crate::guest::folder;
use crate::kernel_module::{self, FILE, NAME};
use crate::machine::hypervisor;
use crate::process::qemu;

/// The kernels: folders of the guests', and what is in them.
pub const KERNELS: [(&str, &str); 2] =
    [("debian", "Debian 12's kernel"), ("debian13", "Debian 13's kernel")];
/// The CPUs.
pub const CPUS: [&str; 2] = ["cortex-a57", "max"];

/// A structure of the module virtio_blk's own.
const OF_A_MODULE: &str = "virtio_blk";
/// A kernel on a busy machine complains of CPUs that were stopped for long, amid a reading, which that is
/// no part of.
const COMMAND_LINE: &str = "console=ttyAMA0 loglevel=1 nowatchdog rdinit=/bin/sh -- /about";
/// Where the guest is asked.
const MARK: &str = "__arm64_sys_sync";
/// For a reading of `/proc`, however loaded the machine is.
const LIMIT: Duration = Duration::from_secs(1800);
/// At each how manieth stop the modules' symbols are compared: they are thousands of lines.
const SYMBOLS_EVERY: u32 = 4;
/// Longest time that the guest runs freely between two stops.
const PAUSE_MS_MAX: u64 = 200;

/// A kernel on a machine.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The kernel's folder.
    pub kernel: &'static str,
    /// The CPU.
    pub cpu: &'static str,
    /// vCPUs.
    pub smp: u8,
    /// How often the guest is asked.
    pub stops: u32,
    /// Chooses the moments.
    pub seed: u64,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Tasks that were equal.
    pub tasks: usize,
    /// Modules.
    pub modules: usize,
    /// Lines of mappings.
    pub mappings: usize,
    /// Symbols of the kernel and of modules.
    pub symbols: usize,
    /// Stops amid forks, programs and modules.
    pub amid: usize,
    /// Of them, those amid the loading or removing of a module.
    pub amid_module: usize,
}

/// What process 1 does. It says `@done N` behind its Nth reading, and `@begin N` before.
fn script(stops: u32, seed: u64) -> String {
    format!(
        r#"export PATH=/bin:/sbin
exec 2>/dev/null
mount -t proc proc /proc
load-modules
forks() {{ while :; do ( ls / | cat >/dev/null ); busybox true & wait $!; done; }}
execs() {{ while :; do sh -c 'cat /proc/self/maps >/dev/null; exec busybox true'; done; }}
loads() {{ while :; do insmod {FILE}; busybox rmmod {NAME}; done; }}
# Reads /proc/PID/stat: sets pid, state and bytes.
stat() {{
  {{ read -r line <$1; }} 2>/dev/null || return 1
  pid=${{line%% *}}
  set -- ${{line##*) }}
  state=$1 bytes=${{21}}
}}
still() {{
  for file in /proc/[0-9]*/stat; do
    stat $file || continue
    [ $bytes -gt 0 ] && [ $pid != 1 ] || continue
    case $state in T|Z) ;; *) return 1;; esac
  done
}}
reading() {{
  echo "@tasks"
  cat /proc/[0-9]*/task/[0-9]*/stat 2>/dev/null | sed 's/^\([0-9]* (.*) .\) .*/\1/'
  echo "@modules"
  cat /proc/modules
  for file in /proc/[0-9]*/stat; do
    stat $file && [ $bytes -gt 0 ] || continue
    echo "@maps $pid"
    cat /proc/$pid/maps 2>/dev/null
  done
}}
symbols() {{
  sed 's/ . / /' | grep -v ' \(__pi_\|__efistub_\)*[$][xd]' | sort -u >/symbols
  echo $(wc -l </symbols) $(sha256sum </symbols)
}}
RANDOM={seed}
forks & execs & loads &
round=0
while [ $round -lt {stops} ]; do
  busybox usleep $((RANDOM * 10))
  kill -STOP -1
  until still; do busybox usleep 20000; done
  echo "@begin $round"
  reading
  case $round in
  0) echo "@kernel"; grep -v '\[' /proc/kallsyms | symbols;;
  esac
  case $((round % {SYMBOLS_EVERY})) in
  0) echo "@symbols"; grep '\[' /proc/kallsyms | grep -v '\[bpf\]\|\[__builtin\| [$][xd]';;
  esac
  busybox sync
  echo "@again"
  reading
  kill -CONT -1
  echo "@done $round"
  round=$((round + 1))
done
poweroff -f
"#
    )
}

/// A guest that runs, with its names and what it has said.
struct Live {
    /// Dropped first: the machine ends by it.
    link: Link,
    _machine: QemuMachine,
    names: Names,
    /// Whether the kernel's own symbols have one for its first byte.
    names_its_start: bool,
    said: Vec<u8>,
}

/// One reading of `/proc`.
#[derive(Debug, Default)]
struct Reading {
    /// Name and state of each task.
    tasks: BTreeMap<u32, (String, char)>,
    modules: Vec<String>,
    maps: BTreeMap<u32, Vec<String>>,
    /// How many symbols the kernel has, and their digest, where that was asked for.
    kernel: Option<(usize, String)>,
    /// The modules' symbols, where these were asked for: address, name and module.
    symbols: BTreeSet<String>,
}

/// What the memory says.
struct Asked {
    tasks: Vec<Task>,
    modules: Vec<Module>,
    maps: BTreeMap<u32, Vec<String>>,
    /// The task that executes `sync`.
    current: u32,
    idle: BTreeSet<u32>,
    /// The modules' symbols, as lines of [`Reading::symbols`].
    symbols: BTreeSet<String>,
}

/// Boots a guest and compares it at random moments.
///
/// # Errors
/// Where the machine cannot be started, a question has no answer, or an answer is not the guest's.
pub fn compare(case: Case) -> Result<Compared> {
    let folder = tempfile::tempdir()?;
    let script = script(case.stops, case.seed);
    let programs = [("about", script.as_bytes())];
    let initrd = kernel_module::initramfs_of(case.kernel, folder.path(), &programs)?;
    let mut live = Live::launch(case, &initrd)?;
    let mark = live.names.resolve_instruction(MARK)?;
    live.until_stop()?.context("it ended before it began")?;
    live.link.set_breakpoint(0, mark.place)?;
    let (mut compared, mut random) = (Compared::default(), case.seed | 1);
    let mut early = None;
    for round in 0..case.stops {
        let stop = match early.take() {
            Some(stop) => stop,
            None => live.next_stop()?,
        };
        ensure!(stop.reason == StopReason::Breakpoint, "stopped by {}", stop.reason);
        let before = live.reading(&format!("@begin {round}"))?;
        let asked = live.ask(stop.vcpu)?;
        live.knows_types(stop.vcpu)?;
        live.link.resume(0)?;
        live.until_said(&format!("@done {round}\r"))?;
        let after = live.reading("@again")?;
        same(&before, &after, &asked, &mut compared)
            .with_context(|| format!("at stop {round} of {case:?}"))?;
        if let Some(theirs) = &before.kernel {
            let ours = live.symbols();
            ensure!(
                *theirs == ours,
                "/proc/kallsyms has the symbols {theirs:?}, ours are {ours:?}"
            );
            compared.symbols += ours.0;
        }
        live.said.clear();
        if round + 1 < case.stops {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_millis((random >> 33) % PAUSE_MS_MAX));
            let amid = live.amid(&mut compared);
            early = amid.with_context(|| format!("amid all after stop {round}"))?;
        }
    }
    Ok(compared)
}

impl Live {
    fn launch(case: Case, initrd: &std::path::Path) -> Result<Self> {
        let kernel = folder().join(case.kernel).join("vmlinuz");
        let mut guest = Guest::read(&kernel, RawPolicy::Refuse)?.with_initrd(initrd)?;
        guest.command_line = COMMAND_LINE.to_owned();
        let memory = Memory { bytes: 512 << 20 };
        let layout = Layout::new(memory, &guest)?;
        let names = Names::new(None, &guest, &layout);
        let own = guest.kernel.symbols().context("the kernel has no symbols")?;
        let names_its_start = own.address_of("_text").is_some();
        let options = MachineOptions {
            smp: case.smp,
            cpu: case.cpu.to_owned(),
            memory,
            hypervisor: Some(hypervisor()),
            qemu: qemu(),
            ..MachineOptions::default()
        };
        let (machine, link) = QemuMachine::launch(&options, &guest)?;
        Ok(Self { link, _machine: machine, names, names_its_start, said: Vec::new() })
    }

    /// Waits for the guest to stop; nothing if it ended.
    fn until_stop(&mut self) -> Result<Option<Stop>> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            match self.link.wait(Duration::from_millis(200))? {
                Some(Event::Stopped(stop)) => {
                    self.names.locate(&mut self.link, stop.vcpu, stop.pc)?;
                    return Ok(Some(stop));
                }
                Some(Event::Ended { .. }) => return Ok(None),
                Some(Event::Console { bytes, .. }) => self.said.extend(bytes),
                None => {}
            }
        }
        bail!("it did not stop in {} s; it said {}", LIMIT.as_secs(), self.text());
    }

    /// Waits for the guest to say something.
    fn until_said(&mut self, words: &str) -> Result<()> {
        let end = Instant::now() + LIMIT;
        let words = words.as_bytes();
        let mut looked_at = 0;
        while !self.said[looked_at..].windows(words.len()).any(|part| part == words) {
            // Thousands of lines come in pieces of a few bytes.
            looked_at = self.said.len().saturating_sub(words.len());
            let wanted = String::from_utf8_lossy(words);
            ensure!(Instant::now() < end, "it did not say {wanted:?}: {}", self.text());
            match self.link.wait(Duration::from_millis(200))? {
                Some(Event::Console { bytes, .. }) => self.said.extend(bytes),
                Some(Event::Stopped(stop)) => bail!("stopped by {}", stop.reason),
                Some(Event::Ended { .. }) => bail!("it ended: {}", self.text()),
                None => {}
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// Takes the reading apart that begins behind a line.
    fn reading(&mut self, begin: &str) -> Result<Reading> {
        let said = self.text();
        let (_, said) = said.split_once(begin).with_context(|| format!("no {begin} in {said}"))?;
        let (mut reading, mut part) = (Reading::default(), "");
        for line in said.lines().map(|line| line.trim_end_matches('\r')) {
            if line.starts_with('@') {
                part = line;
            } else if part == "@tasks" {
                let (pid, comm, state) =
                    task_line(line).with_context(|| format!("no task: {line:?}"))?;
                reading.tasks.insert(pid, (comm.to_owned(), state));
            } else if part == "@modules" {
                reading.modules.push(line.to_owned());
            } else if let Some(pid) = part.strip_prefix("@maps ") {
                let maps = reading.maps.entry(pid.parse()?).or_default();
                maps.push(line.trim_end().to_owned());
            } else if part == "@kernel" {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [count, digest, ..] = words[..] else { bail!("no digest: {line}") };
                reading.kernel = Some((count.parse()?, digest.to_owned()));
            } else if part == "@symbols" {
                let symbol = symbol_line(line);
                reading.symbols.insert(symbol.with_context(|| format!("no symbol: {line:?}"))?);
            }
        }
        Ok(reading)
    }

    /// Asks the guest's memory everything.
    fn ask(&mut self, vcpu: VcpuId) -> Result<Asked> {
        let (names, link) = (&mut self.names, &mut self.link);
        let tasks = questions::tasks(names, link, vcpu).context("tasks")?;
        let modules = questions::modules(names, link, vcpu).context("modules")?;
        names.find_modules(link, vcpu).context("the modules' symbols")?;
        let mut maps = BTreeMap::new();
        for task in tasks.iter().filter(|task| task.mm != 0 && task.pid == task.tgid) {
            let mappings = questions::mappings(names, link, vcpu, task);
            let mappings = mappings.with_context(|| format!("mappings of {task:?}"))?;
            maps.insert(task.pid, mappings.iter().map(|one| one.line()).collect());
        }
        let mut symbols = BTreeSet::new();
        for module in &modules {
            let found =
                names.kernel()?.ask(link, vcpu, |kernel, memory| module.symbols(kernel, memory));
            let found = found.with_context(|| format!("symbols of {}", module.name))?;
            let line =
                |one: &Symbol| format!("{:016x} {} [{}]", one.address, one.name, module.name);
            symbols.extend(found.iter().map(line));
        }
        let current = questions::current_task(names, link, vcpu).context("the current task")?;
        let idle = tasks.iter().filter(|task| task.pid == 0).map(|task| task.pid).collect();
        Ok(Asked { tasks, modules, maps, current: current.pid, idle, symbols })
    }

    /// How many symbols the kernel has, and their digest. The name of its first byte is ours where it
    /// keeps the names of functions only.
    fn symbols(&self) -> (usize, String) {
        let seen = self.names.as_seen();
        let is_its = |one: &&Symbol| self.names_its_start || one.name != "_text";
        let high = seen.iter().filter(|one| one.address >> 63 == 1).filter(is_its);
        digest(high.map(|one| format!("{:016x} {}", one.address, one.name)).collect())
    }

    /// Looks for a structure that only a module's own types have.
    fn knows_types(&mut self, vcpu: VcpuId) -> Result<()> {
        let kernel = self.names.kernel()?;
        let tables = kernel.ask(&mut self.link, vcpu, |kernel, memory| {
            let known = kernel.btf().structure(OF_A_MODULE);
            let tables = module_types::all(kernel, memory)?;
            Ok::<_, Error>((known, tables))
        });
        let (known, tables) = tables.context("the modules' types")?;
        let found = tables.iter().find_map(|table| table.structure(OF_A_MODULE));
        let count = tables.len();
        ensure!(known.is_none() && found.is_some(), "no {OF_A_MODULE} in {count} modules' types");
        Ok(())
    }

    /// Lets the guest go on to the next reading.
    fn next_stop(&mut self) -> Result<Stop> {
        self.link.resume(0)?;
        self.until_stop()?.context("the guest ended")
    }

    /// Stops the guest wherever it is. Everything that is asked has an answer, and what is always
    /// there is in it. Returns the stop of the next reading, if the guest came there first.
    fn amid(&mut self, compared: &mut Compared) -> Result<Option<Stop>> {
        self.link.pause(0)?;
        let stop = self.until_stop()?.context("the guest ended")?;
        if stop.reason == StopReason::Breakpoint {
            return Ok(Some(stop));
        }
        let vcpu = stop.vcpu;
        let asked = self.ask(vcpu)?;
        for (pid, comm) in [(1, "sh"), (2, "kthreadd")] {
            let found = asked.tasks.iter().find(|task| task.pid == pid);
            let found = found.with_context(|| format!("no task {pid} in {:?}", asked.tasks))?;
            ensure!(found.comm == comm || pid == 1, "{found:?}");
        }
        let unique: BTreeSet<u32> = asked.tasks.iter().map(|task| task.pid).collect();
        ensure!(unique.len() == asked.tasks.len(), "a task is listed twice: {:?}", asked.tasks);
        compared.amid += 1;
        let is_fleeting = |module: &&Module| module.name == NAME && module.state.word() != "Live";
        compared.amid_module += usize::from(asked.modules.iter().any(|one| is_fleeting(&one)));
        Ok(None)
    }
}

/// Number, name and state of a line `1 (init) S`.
fn task_line(line: &str) -> Option<(u32, &str, char)> {
    let (pid, rest) = line.split_once(" (")?;
    let (comm, state) = rest.rsplit_once(") ")?;
    Some((pid.parse().ok()?, comm, state.chars().next()?))
}

/// How many lines there are, and their digest, as `sha256sum` has it.
fn digest(lines: BTreeSet<String>) -> (usize, String) {
    let mut hash = Sha256::new();
    for line in &lines {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (lines.len(), digest)
}

fn same(before: &Reading, after: &Reading, asked: &Asked, compared: &mut Compared) -> Result<()> {
    ensure!(before.tasks.len() > 30, "only {} tasks in /proc", before.tasks.len());
    let ours: BTreeMap<u32, &Task> = asked.tasks.iter().map(|task| (task.pid, task)).collect();
    for (pid, (comm, state)) in &before.tasks {
        // What has ended or changed its name meanwhile may be either.
        if after.tasks.get(pid).is_none_or(|(later, _)| later != comm) {
            continue;
        }
        let task = ours.get(pid).with_context(|| format!("no {pid} {comm} in {ours:?}"))?;
        // /proc adds to a worker's name what it works on.
        let is_worker = comm.starts_with("kworker/") && comm.starts_with(&task.comm);
        ensure!(task.name() == comm || is_worker, "{comm}: {task:?}");
        // Threads of the kernel's go on meanwhile, and process 1 reads.
        let frozen = matches!(state, 'T' | 'Z');
        ensure!(!frozen || task.state.0 == *state, "{state}: {task:?}");
        ensure!(frozen || !matches!(task.state.0, 'T' | 'Z' | 'X'), "{state}: {task:?}");
        compared.tasks += 1;
    }
    for (pid, task) in &ours {
        let known = before.tasks.contains_key(pid) || after.tasks.contains_key(pid);
        let passing = *pid == asked.current || asked.idle.contains(pid);
        ensure!(known || passing || task.comm.starts_with("kworker/"), "/proc has no {task:?}");
    }
    let modules: Vec<String> = asked.modules.iter().map(module_line).collect();
    let theirs = before.modules.iter().map(|line| without_users(line)).collect::<Vec<_>>();
    ensure!(theirs == modules, "modules: {theirs:?}, ours {modules:?}");
    compared.modules += modules.len();
    for (pid, maps) in &before.maps {
        if after.maps.get(pid) != Some(maps) {
            continue;
        }
        let ours = asked.maps.get(pid).with_context(|| format!("no mappings of {pid}"))?;
        ensure!(ours == maps, "mappings of {pid}: {maps:#?}, ours {ours:#?}");
        compared.mappings += maps.len();
    }
    same_symbols(&before.symbols, &asked.symbols).context("modules' symbols")?;
    compared.symbols += before.symbols.len();
    Ok(())
}

/// Compares the modules' symbols, where the guest listed them.
fn same_symbols(theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> Result<()> {
    const SHOWN: usize = 8;
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
        one.difference(other).take(SHOWN).cloned().collect::<Vec<_>>()
    };
    let (missing, more) = (only(theirs, ours), only(ours, theirs));
    let are_equal = theirs.is_empty() || missing.is_empty() && more.is_empty();
    ensure!(are_equal, "only in /proc/kallsyms: {missing:#?}, only here: {more:#?}");
    Ok(())
}

/// `ADDRESS NAME [MODULE]` of a line of `/proc/kallsyms`, which has a letter and a tab in between. Some
/// names are labels of the compiler's with control characters in them, which are shown as `^B` here.
fn symbol_line(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [address, _, name, module] = words[..] else { return None };
    Some(format!("{address} {} {module}", printable(name)))
}

/// `NAME SIZE USED STATE BASE` of a line of `/proc/modules`, which tells by whom a module is used
/// and how it taints, too.
fn without_users(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, size, used, _, state, base, ..] = words[..] else { return line.to_owned() };
    format!("{name} {size} {used} {state} {base}")
}

fn module_line(module: &Module) -> String {
    let Module { name, references, state, .. } = module;
    format!("{name} {} {references} {} {:#018x}", module.size(), state.word(), module.base())
}
