//! The manual's debug exceptions, for the instructions of [`Op`].
//!
//! Functions bear the names of the pseudocode in the Arm ARM, DDI 0487 L.b: "Software Step
//! exceptions", "Breakpoint exceptions", "Watchpoint exceptions".

use super::program::{CODE, DATA, DEVICE, EVENTS_MAX, KDE, MDE, Op, Pair, Program, SS};

/// Instructions after which a program is taken to go on for ever.
const STEPS_MAX: usize = 400;
/// ISS.ISV and EX of a Software Step exception.
const ISV: u64 = 1 << 24;
const EX: u64 = 1 << 6;
/// SPSR: M, D and SS.
const SPSR_SEEN: u64 = 0x1f | 1 << 9 | 1 << 21;

/// An exception, as the guest's handler finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// ESR_EL1.
    pub esr: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// FAR_EL1: these are right. Empty where nothing is said of it.
    pub far: Vec<u64>,
    /// Bits of ESR_EL1 that may be either.
    pub open: u64,
}

impl Event {
    /// Tells whether an exception that the guest has logged is this one.
    #[must_use]
    pub fn allows(&self, logged: &Event) -> bool {
        self.esr & !self.open == logged.esr & !self.open
            && self.elr == logged.elr
            && self.spsr == logged.spsr & SPSR_SEEN
            && (self.far.is_empty() || logged.far.iter().all(|far| self.far.contains(far)))
    }
}

/// What a program comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its exceptions.
    pub events: Vec<Event>,
    /// X1 at its end.
    pub counted: u64,
}

/// What is known of the last instruction when a step exception comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It was not stepped itself: `SoftwareStep_DidNotStep`.
    NotStepped,
    /// It was, and whether it was a load-exclusive: `SoftwareStep_SteppedEX`.
    Stepped(bool),
    /// The manual leaves it open: a stepped ISB or ERET.
    Open,
}

struct Pe<'a> {
    program: &'a Program,
    pc: u64,
    el1: bool,
    d: bool,
    ss: bool,
    mdscr: u64,
    os_lock: bool,
    breakpoints: [Pair; 3],
    watchpoints: [Pair; 2],
    elr: u64,
    spsr: u64,
    x1: u64,
    x9: u64,
    last: Last,
    log: Log,
    has_ended: bool,
}

/// What the manual says that a program comes to; nothing of one that goes on for ever.
#[must_use]
pub fn expected(program: &Program) -> Option<Log> {
    let mut pe = Pe {
        program,
        pc: 0,
        el1: true,
        d: true,
        ss: false,
        mdscr: program.mdscr,
        os_lock: program.os_lock,
        breakpoints: program.breakpoints,
        watchpoints: program.watchpoints,
        elr: program.page + CODE,
        spsr: program.spsr,
        x1: 0,
        x9: 0,
        last: Last::NotStepped,
        log: Log { events: Vec::new(), counted: 0 },
        has_ended: false,
    };
    pe.exception_return();
    pe.last = Last::NotStepped;
    for _ in 0..STEPS_MAX {
        pe.instruction()?;
        if pe.has_ended {
            pe.log.counted = pe.x1;
            return Some(pe.log);
        }
    }
    None
}

impl Pe<'_> {
    /// `AArch64.GenerateDebugExceptionsFrom`.
    fn generate_debug_exceptions_from(&self, el1: bool, d: bool) -> bool {
        if self.os_lock { false } else { !el1 || self.mdscr & KDE != 0 && !d }
    }

    fn generate_debug_exceptions(&self) -> bool {
        self.generate_debug_exceptions_from(self.el1, self.d)
    }

    /// `DebugExceptionReturnSS`, and the rest of `AArch64.ExceptionReturn`.
    fn exception_return(&mut self) {
        let (el1, d) = (self.spsr & 0b0100 != 0, self.spsr & 1 << 9 != 0);
        let from_here = self.generate_debug_exceptions();
        let from_there = self.generate_debug_exceptions_from(el1, d);
        let steps = self.mdscr & SS != 0;
        self.ss = steps && !from_here && from_there && self.spsr & 1 << 21 != 0;
        (self.el1, self.d, self.pc) = (el1, d, self.elr);
    }

    fn spsr_now(&self) -> u64 {
        let level = if self.el1 { 0b0100 } else { 0 };
        level | u64::from(self.d) << 9 | u64::from(self.ss) << 21
    }

    /// An exception to EL1, and what the guest's handler does about it. `class` is that of EL0; the
    /// debug exceptions of EL1 have the next one.
    fn take(&mut self, class: u64, iss: u64, far: Vec<u64>, open: u64) {
        let is_debug = matches!(class, 0x30 | 0x32 | 0x34);
        let class = if is_debug && self.el1 { class + 1 } else { class };
        let esr = class << 26 | 1 << 25 | iss;
        let spsr = self.spsr_now();
        self.log.events.push(Event { esr, elr: self.pc, spsr, far, open });
        let count = self.log.events.len();
        if count == EVENTS_MAX || esr == 0x5600_00ff {
            self.has_ended = true;
            return;
        }
        match class & 0x3e {
            0x30 => self.breakpoints.iter_mut().for_each(|pair| pair.1 = 0),
            0x34 => self.watchpoints.iter_mut().for_each(|pair| pair.1 = 0),
            _ => {}
        }
        let answer = self.program.answers[count - 1];
        let is_skipped = matches!(class, 0x3c | 0x18 | 0);
        self.elr = self.pc + if is_skipped { 4 } else { 0 };
        self.spsr = spsr & !(1 << 21) | u64::from(answer & 1) << 21;
        self.spsr ^= u64::from(answer >> 1 & 1) << 9;
        // In the handler: EL1, all masked.
        (self.el1, self.d, self.ss) = (true, true, false);
        self.mdscr ^= u64::from(answer >> 2 & 1);
        if answer & 8 != 0 {
            self.os_lock = answer & 16 != 0;
        }
        self.exception_return();
        // The handler's ERET was not stepped.
        self.last = Last::NotStepped;
    }

    /// `CheckSoftwareStep`, `AArch64.CheckBreakpoint`, then the instruction. Nothing where it is
    /// none of the program's.
    fn instruction(&mut self) -> Option<()> {
        if self.generate_debug_exceptions() && self.mdscr & SS != 0 && !self.ss {
            let (iss, open) = match self.last {
                Last::NotStepped => (0, 0),
                Last::Stepped(exclusive) => (ISV | if exclusive { EX } else { 0 }, 0),
                Last::Open => (0, ISV | EX),
            };
            self.take(0x32, 0x22 | iss, Vec::new(), open);
            return Some(());
        }
        if self.generate_debug_exceptions() && self.mdscr & MDE != 0 && self.breakpoint_match() {
            self.take(0x30, 0x22, Vec::new(), 0);
            return Some(());
        }
        let index = self.pc.checked_sub(self.program.page + CODE)? / 4;
        let op = *self.program.code.get(usize::try_from(index).ok()?)?;
        if let Some((address, bytes, write)) = self.access(op) {
            let hits = self.watchpoint_hits(address, bytes, write);
            if !hits.is_empty() {
                self.take(0x34, 0x22 | u64::from(write) << 6, hits, 0);
                return Some(());
            }
        }
        self.execute(op);
        Some(())
    }

    fn breakpoint_match(&self) -> bool {
        let privilege = if self.el1 { 1 } else { 2 };
        let mut all = self.breakpoints.iter();
        all.any(|&(at, control)| control & 1 != 0 && control >> 1 & privilege != 0 && at == self.pc)
    }

    fn access(&self, op: Op) -> Option<(u64, u64, bool)> {
        match op {
            Op::Access { write, pair, bytes, offset } => {
                let bytes = u64::from(bytes) * if pair { 2 } else { 1 };
                Some((self.program.page + DATA + u64::from(offset), bytes, write))
            }
            Op::LoadExclusive => Some((self.program.page + DATA, 8, false)),
            Op::Device => Some((DEVICE, 4, false)),
            _ => None,
        }
    }

    /// `AArch64.WatchpointMatch`: for each that matches, the first of its bytes that is accessed.
    fn watchpoint_hits(&self, address: u64, bytes: u64, write: bool) -> Vec<u64> {
        if !self.generate_debug_exceptions() || self.mdscr & MDE == 0 {
            return Vec::new();
        }
        let (privilege, kind) = (if self.el1 { 1 } else { 2 }, if write { 2 } else { 1 });
        let is_about = |&&(_, control): &&Pair| {
            control & 1 != 0 && control >> 1 & privilege != 0 && control >> 3 & kind != 0
        };
        let is_selected = |(at, control): Pair, byte: u64| {
            let (start, select) = if at & 4 != 0 { (at, 3) } else { (at & !7, 7) };
            (start..=start + select).contains(&byte) && control >> 5 >> (byte & select) & 1 != 0
        };
        let hits = self.watchpoints.iter().filter(is_about);
        hits.filter_map(|&pair| (address..address + bytes).find(|&byte| is_selected(pair, byte)))
            .collect()
    }

    /// `SSAdvance`, and what is taken down for a step exception after this instruction.
    fn advance(&mut self, op: Op) {
        let is_active = self.generate_debug_exceptions() && self.mdscr & SS != 0 && self.ss;
        self.last = match op {
            _ if !is_active => Last::NotStepped,
            Op::Isb | Op::Eret => Last::Open,
            op => Last::Stepped(op == Op::LoadExclusive),
        };
        if self.mdscr & SS != 0 {
            self.ss = false;
        }
    }

    fn execute(&mut self, op: Op) {
        match op {
            Op::Undefined => return self.take(0, 0, Vec::new(), 0),
            Op::Brk => return self.take(0x3c, 5, Vec::new(), 0),
            _ => {}
        }
        let constants = self.program.constants;
        self.advance(op);
        let here = self.pc;
        self.pc += 4;
        match op {
            Op::Svc(number) => self.take(0x15, u64::from(number), Vec::new(), 0),
            Op::Count => self.x1 += 1,
            Op::Skip => self.pc += 4,
            Op::SkipIfZero if self.x1 == 0 => self.pc += 4,
            Op::Mask(set) => self.d = set,
            Op::WriteMdscr(rt) => self.mdscr = constants[usize::from(rt) - 11],
            Op::WriteLock(lock) => self.os_lock = lock && constants[2] & 1 != 0,
            Op::Target => self.x9 = here + 24,
            Op::WriteElr => self.elr = self.x9,
            Op::SpsrLow(half) => self.x9 = u64::from(half),
            Op::SpsrHigh(half) => self.x9 = self.x9 & 0xffff | u64::from(half) << 16,
            Op::WriteSpsr => self.spsr = self.x9,
            Op::Eret => self.exception_return(),
            _ => {}
        }
    }
}
