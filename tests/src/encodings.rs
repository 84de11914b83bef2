//! Runs the guest `encodings` and compares what each system instruction did.
//!
//! Plain QEMU is the judge, with the CPU that the guest of Stepwell has: no PMU, and pointer
//! authentication as it is there. What differs nevertheless is named in [`expected`], by register,
//! with the reason; everything else is to be equal, exception syndromes and values.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use stepwell::machine::{MachineError, QemuMachine};
use stepwell_arch::aarch32::{Transfer, timer_of_pair};
use stepwell_arch::{SystemRegister, Va};
use stepwell_debuggee::{
    Debuggee, DomainEnding, Event, InterruptPolicy, Place, StepRequest, StopReason, VcpuId,
};
use stepwell_link::Link;

use crate::guest::Guest;
use crate::machine::launch;
use crate::plain::{self, Setup};
use crate::stepwell::run_guest;

const LIMIT: Duration = Duration::from_secs(300);
/// Many times what the guest executes in its loop.
const STEPS_MAX: u64 = 50_000_000;
const V0: VcpuId = VcpuId { domain: 0, vcpu: 0 };

/// Where a system instruction was executed: the pass of the guest, and the encoding in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pass: char,
    encoding: u32,
}

/// What it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// ESR_EL1 of its exception, or 0.
    pub esr: u64,
    /// X0 behind it, or PSTATE with SVCR above it.
    pub value: u64,
}

/// What a coprocessor transfer of A32 names.
enum Operands {
    /// MRC and MCR.
    One(Transfer),
    /// MRRC and MCRR.
    Pair { opc1: u8, crm: u8 },
}

impl Effect {
    /// An undefined instruction, which the guest does not print.
    const UNDEFINED: Self = Self { esr: 0x0200_0000, value: 0 };
}

/// What the guest printed.
pub type Effects = BTreeMap<Slot, Effect>;

impl Slot {
    /// A32 passes have the last names.
    const fn is_a32(self) -> bool {
        self.pass >= 'i'
    }

    /// Of MSR (immediate), hints and barriers, of which none is a register's.
    const fn is_immediate(self) -> bool {
        self.pass.is_ascii_uppercase()
    }

    const fn is_read(self) -> bool {
        matches!(self.pass, 'a' | 'c' | 'e' | 'g' | 'i' | 'D')
    }

    const fn is_el1(self) -> bool {
        matches!(self.pass, 'a' | 'b' | 'e' | 'f' | 'A' | 'C' | 'D')
    }

    /// The register of AArch64 that it names, whichever instruction set does; of A32 only counters
    /// and timers.
    #[must_use]
    pub fn register(self) -> Option<SystemRegister> {
        let Self { encoding, .. } = self;
        if self.is_immediate() {
            return None;
        }
        if !self.is_a32() {
            return Some(SystemRegister(encoding as u16));
        }
        match self.transfer()? {
            (15, Operands::One(transfer)) => transfer.timer(),
            (15, Operands::Pair { opc1, crm }) => timer_of_pair(opc1, crm),
            _ => None,
        }
    }

    /// Coprocessor and operands; none for A64.
    fn transfer(self) -> Option<(u8, Operands)> {
        let field = |shift: u32, bits: u32| (self.encoding >> shift & ((1 << bits) - 1)) as u8;
        if !self.is_a32() {
            return None;
        }
        if self.encoding >= 1 << 15 {
            let operands = Operands::Pair { opc1: field(4, 4), crm: field(0, 4) };
            return Some((14 + field(8, 1), operands));
        }
        let (opc1, crn, crm, opc2) = (field(11, 3), field(7, 4), field(3, 4), field(0, 3));
        Some((14 + field(14, 1), Operands::One(Transfer { opc1, crn, crm, opc2 })))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.is_el1() { "EL1" } else { "EL0" };
        let direction = if self.is_read() { "read" } else { "write" };
        write!(f, "pass {} ({direction} at {level}) of ", self.pass)?;
        match self.transfer() {
            None => write!(f, "{}", SystemRegister(self.encoding as u16)),
            Some((coprocessor, Operands::One(Transfer { opc1, crn, crm, opc2 }))) => {
                write!(f, "p{coprocessor}, {opc1}, c{crn}, c{crm}, {opc2}")
            }
            Some((coprocessor, Operands::Pair { opc1, crm })) => {
                write!(f, "p{coprocessor}, {opc1}, c{crm}")
            }
        }
    }
}

/// Reads the guest's lines.
///
/// # Panics
/// Where it did not come to its end, or printed what is no line of it.
#[must_use]
pub fn parse(guest: &Guest, console: &str) -> Effects {
    assert!(guest.succeeded(console), "{}", console.lines().last().unwrap_or_default());
    let lines = console.lines().filter(|line| !line.starts_with("encodings"));
    let effects: Effects = lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [pass, encoding, esr, value] = words[..] else { panic!("no line of it: {line}") };
            let number = |word: &str| {
                u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("it is a number")
            };
            let pass = pass.chars().next().expect("a word has a letter");
            let slot = Slot { pass, encoding: number(encoding) as u32 };
            (slot, Effect { esr: number(esr), value: number(value) })
        })
        .collect();
    assert!(effects.len() > 500, "it printed {} lines only", effects.len());
    effects
}

/// What Stepwell's guest is to see where plain QEMU's sees `plain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The same.
    Equal,
    /// The same exception or none; the value changes from read to read.
    AnyValue,
    /// The same, less these bits of the value.
    Without(u64),
    /// An undefined instruction.
    Undefined,
}

/// RMR_EL1, Reset Management Register.
const RMR_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 0, 2);

/// What is legitimately different, by name and with its reason.
#[must_use]
pub fn expected(slot: Slot) -> Expected {
    const UNALLOCATED: Transfer = Transfer { opc1: 3, crn: 0, crm: 5, opc2: 0 };
    // QEMU 10 has A64's DBGDTRRX_EL0 and DBGDTRTX_EL0 there.
    if let Some((14, Operands::One(UNALLOCATED))) = slot.transfer() {
        return Expected::Undefined;
    }
    match slot.register() {
        // Time, and what is meant to be random.
        Some(
            SystemRegister::CNTPCT_EL0
            | SystemRegister::CNTVCT_EL0
            | SystemRegister::CNTPCTSS_EL0
            | SystemRegister::CNTVCTSS_EL0
            | SystemRegister::CNTP_TVAL_EL0
            | SystemRegister::CNTV_TVAL_EL0
            | SystemRegister::RNDR
            | SystemRegister::RNDRRS,
        ) => Expected::AnyValue,
        // These exist where EL1 is the highest exception level, or may be written only there. Below
        // an EL2 they are undefined, and nothing traps them to it.
        Some(SystemRegister::RVBAR_EL1 | RMR_EL1) if slot.is_el1() => Expected::Undefined,
        Some(SystemRegister::CNTFRQ_EL0) if slot.is_el1() && !slot.is_read() => Expected::Undefined,
        // NMI: the virtual GIC has no superpriority.
        Some(SystemRegister::ID_AA64PFR1_EL1) => Expected::Without(0xf << 36),
        _ => Expected::Equal,
    }
}

/// Tells what of `seen` is not what it should be, given what plain QEMU did: one line each.
#[must_use]
pub fn differences(plain: &Effects, seen: &Effects) -> Vec<String> {
    let slots = plain.keys().chain(seen.keys().filter(|slot| !plain.contains_key(slot)));
    let of =
        |effects: &Effects, slot: Slot| effects.get(&slot).copied().unwrap_or(Effect::UNDEFINED);
    slots
        .filter_map(|&slot| {
            let (plain, seen) = (of(plain, slot), of(seen, slot));
            let is_right = match expected(slot) {
                Expected::Equal => seen == plain,
                Expected::AnyValue => seen.esr == plain.esr,
                Expected::Without(bits) => seen == Effect { value: plain.value & !bits, ..plain },
                Expected::Undefined => seen == Effect::UNDEFINED,
            };
            (!is_right).then(|| format!("{slot}: plain {plain:x?}, seen {seen:x?}"))
        })
        .collect()
}

/// Runs it on plain QEMU.
///
/// # Panics
/// Where it does not come to its end.
#[must_use]
pub fn on_plain(guest: &Guest, cpu: &'static str) -> Effects {
    let setup = Setup { cpu, memory_mib: 64, ..Setup::new(&guest.path) };
    let finished = plain::console(&setup, LIMIT).expect("QEMU runs");
    parse(guest, &finished.stdout)
}

/// Runs it under Stepwell, unstepped.
///
/// # Panics
/// Where it does not come to its end.
#[must_use]
pub fn unstepped(guest: &Guest, cpu: &'static str) -> Effects {
    let setup = Setup { cpu, memory_mib: 64, ..Setup::new(&guest.path) };
    let finished = run_guest(&setup, LIMIT).expect("stepwell runs");
    parse(guest, &finished.stdout)
}

/// Runs it with each system instruction stepped.
///
/// # Panics
/// Where it does not come to its end.
#[must_use]
pub fn stepped(guest: &Guest, cpu: &'static str) -> Effects {
    let console = step(guest, cpu).unwrap_or_else(|error| panic!("{error:#}"));
    parse(guest, &console)
}

fn start(guest: &Guest, cpu: &str) -> Result<(QemuMachine, Link), MachineError> {
    let image = std::fs::read(&guest.path).unwrap_or_default();
    launch(&image, cpu, 1)
}

fn step(guest: &Guest, cpu: &str) -> anyhow::Result<String> {
    let (_machine, mut link) = start(guest, cpu)?;
    let scan = guest.counting_loop.clone().expect("the guest has a loop");
    let mut session = Session { link: &mut link, console: Vec::new() };
    session.stop()?;
    if let Some(interrupts) = session.link.support_interrupts() {
        interrupts.set_interrupt_policy(0, InterruptPolicy::Hold)?;
    }
    let place = Place::Va(Va(scan.start));
    session.link.set_breakpoint(0, place)?;
    session.link.resume(0)?;
    anyhow::ensure!(session.stop()? == Some(StopReason::Breakpoint), "the loop is come to");
    session.link.clear_breakpoint(0, place)?;
    let request = StepRequest { until: Some(Va(scan.end)), ..StepRequest::steps(STEPS_MAX) };
    session.link.step(V0, request)?;
    let reason = session.stop()?;
    anyhow::ensure!(reason == Some(StopReason::Until), "{reason:?} before the loop's end");
    session.link.resume(0)?;
    anyhow::ensure!(session.stop()?.is_none(), "it powers off");
    Ok(String::from_utf8_lossy(&session.console).into_owned())
}

struct Session<'a> {
    link: &'a mut Link,
    console: Vec<u8>,
}

impl Session<'_> {
    /// Why it stopped; nothing where it ended.
    fn stop(&mut self) -> anyhow::Result<Option<StopReason>> {
        let end = Instant::now() + LIMIT;
        loop {
            match self.link.wait(end.saturating_duration_since(Instant::now()))? {
                Some(Event::Console { bytes, .. }) => self.console.extend(bytes),
                Some(Event::Stopped(stop)) => return Ok(Some(stop.reason)),
                Some(Event::Ended { ending: DomainEnding::PoweredOff, .. }) => return Ok(None),
                other => anyhow::bail!("{other:?}"),
            }
        }
    }
}
