//! Every CPU sends the others SGIs and sets its own timers, one after the other: is any of them late?
//!
//! Late by the running time of whom it is for. A host may suspend a CPU for as long as it likes, and
//! the counters go on; so each CPU adds up the time between two looks at its counter, but of each no
//! more than [`LOOKS`] times what the fastest took. An interrupt that is pending while its CPU goes on
//! looking is late. A timer's interrupt is late from when the timer has said that its condition is met: a
//! busy emulator may have its timers go off many milliseconds behind their counter (QEMU's main loop is
//! a thread like others), which is nobody's fault here. It is asked once per limit only, a turn before the
//! limit, for a hypervisor that is asked also looks.
//!
//! How long it goes on and what is late are words in the image, behind `CALLNOTE`.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use stepwell_guests::exception::{self, Frame};
use stepwell_guests::hardware::cpus::{self, CPUS_MAX};
use stepwell_guests::hardware::psci::{AFFINITY_INFO, call};
use stepwell_guests::hardware::{gic, timer};
use stepwell_guests::report::{self, Outcome, check, require};
use stepwell_guests::{instruction, read_register, translation, write_register};

/// A turn of the loop takes no longer than so many of the fastest, unless somebody keeps the CPU.
const LOOKS: u64 = 4;
/// Turns in which no running time is added up, to find out first what the fastest takes.
const TRIALS: u32 = 200;
const PHYSICAL_TIMER: u32 = 30;
const OFF: u64 = 1;
/// CNTV_CTL_EL0 and CNTP_CTL_EL0: the condition is met.
const ISTATUS: u64 = 1 << 2;

global_asm!(
    r#"
    .section .rodata.call_notes, "a"
    .balign 8
    .globl call_notes
call_notes:
    .ascii  "CALLNOTE"
    .quad   2                    // seconds
    .quad   100000               // microseconds: what is later is late
    .text
"#
);

unsafe extern "C" {
    static call_notes: [u64; 3];
}

/// A call of one CPU to another.
struct Call {
    /// Sent so often.
    sent: AtomicU64,
    /// Taken so often, as far as the receiver saw.
    taken: AtomicU64,
    /// The receiver's running time when it was taken.
    taken_at: AtomicU64,
}

const NO_CALL: Call =
    Call { sent: AtomicU64::new(0), taken: AtomicU64::new(0), taken_at: AtomicU64::new(0) };

#[allow(clippy::declare_interior_mutable_const, reason = "only to fill the tables below")]
const NO_CALLS: [Call; CPUS_MAX] = [NO_CALL; CPUS_MAX];
#[allow(clippy::declare_interior_mutable_const, reason = "as above")]
const ZERO: AtomicU64 = AtomicU64::new(0);

/// By sender, then by receiver.
static CALLS: [[Call; CPUS_MAX]; CPUS_MAX] = [NO_CALLS; CPUS_MAX];
/// Running time of each CPU, in ticks.
static RAN: [AtomicU64; CPUS_MAX] = [ZERO; CPUS_MAX];
/// Timers that went off on each CPU, and its running time at the last of them.
static FIRED: [AtomicU64; CPUS_MAX] = [ZERO; CPUS_MAX];
static FIRED_AT: [AtomicU64; CPUS_MAX] = [ZERO; CPUS_MAX];
/// The latest of all, in ticks, and how many there were.
static WORST_CALL: AtomicU64 = AtomicU64::new(0);
static WORST_TIMER: AtomicU64 = AtomicU64::new(0);
static DELIVERED: AtomicU64 = AtomicU64::new(0);
/// What is late, in ticks, and how often the board's own timer was.
static LATE: AtomicU64 = AtomicU64::new(u64::MAX);
static BOARD_LATE: AtomicU64 = AtomicU64::new(0);
static CPUS: AtomicU64 = AtomicU64::new(1);
/// CPUs whose part of the GIC is set up: an SGI for another would be dropped.
static READY: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicU64 = AtomicU64::new(0);

fn handle(frame: &mut Frame) {
    if !frame.is_interrupt() {
        exception::unexpected(frame);
    }
    let (intid, cpu) = (gic::acknowledge(), cpus::number());
    let ran = RAN[cpu].load(Relaxed);
    match intid as usize {
        from @ 0..CPUS_MAX => {
            let call = &CALLS[from][cpu];
            call.taken_at.store(ran, SeqCst);
            call.taken.store(call.sent.load(SeqCst), SeqCst);
        }
        27 | 30 => {
            write_register!("cntv_ctl_el0", 0);
            write_register!("cntp_ctl_el0", 0);
            FIRED_AT[cpu].store(ran, Relaxed);
            FIRED[cpu].store(FIRED[cpu].load(Relaxed) + 1, Relaxed);
        }
        _ => return,
    }
    gic::end(intid);
}

/// What a CPU is waiting for.
struct Member {
    cpu: usize,
    others: usize,
    random: u64,
    last: u64,
    /// What the fastest turn of the loop took, in ticks.
    fastest: u64,
    /// Turns so far, up to [`TRIALS`].
    trials: u32,
    /// Whom it called, and the receiver's running time right after.
    called: Option<(usize, u64)>,
    /// Its timer's deadline, and its own running time when it first saw that it is past.
    deadline: Option<(u64, Option<u64>)>,
    /// Whether that is its virtual timer, not the physical one.
    is_virtual: bool,
    /// Whether it was late and, when it was asked, said that its condition is met.
    has_gone_off: bool,
    timers: u64,
}

impl Member {
    fn new(cpu: usize, others: usize) -> Self {
        gic::start(cpu as u64);
        for sgi in 0..CPUS_MAX as u32 {
            gic::enable(cpu as u64, sgi);
        }
        gic::enable(cpu as u64, timer::INTID);
        gic::enable(cpu as u64, PHYSICAL_TIMER);
        instruction!("msr daifclr, #2");
        READY.fetch_add(1, SeqCst);
        while READY.load(SeqCst) <= others as u64 {}
        let random = 0x9e37_79b9_7f4a_7c15 ^ (cpu as u64) << 40;
        let last = read_register!("cntvct_el0");
        let (fastest, trials, called, deadline) = (u64::MAX, 0, None, None);
        let (is_virtual, has_gone_off, timers) = (false, false, 0);
        Self {
            cpu,
            others,
            random,
            last,
            fastest,
            trials,
            called,
            deadline,
            is_virtual,
            has_gone_off,
            timers,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 8
    }

    /// One turn: looks at the clock, then at what it waits for.
    fn turn(&mut self) -> u64 {
        instruction!("isb");
        let now = read_register!("cntvct_el0");
        let took = now - self.last;
        self.last = now;
        self.fastest = self.fastest.min(took.max(1));
        let is_trial = self.trials < TRIALS;
        self.trials += u32::from(is_trial);
        let counted = if is_trial { 0 } else { took.min(LOOKS * self.fastest) };
        let ran = RAN[self.cpu].load(Relaxed) + counted;
        RAN[self.cpu].store(ran, SeqCst);
        self.mind_call();
        self.mind_timer(now, ran);
        now
    }

    fn mind_call(&mut self) {
        let Some((to, at)) = self.called else { return self.call() };
        let call = &CALLS[self.cpu][to];
        // Before it is asked whether the call was taken: this CPU may be suspended in between, for
        // as long as the host likes, while the receiver takes the call and runs on.
        let ran = RAN[to].load(SeqCst);
        let is_taken = call.taken.load(SeqCst) == call.sent.load(SeqCst);
        let until = if is_taken { call.taken_at.load(SeqCst) } else { ran };
        let late = until.saturating_sub(at);
        WORST_CALL.fetch_max(late, Relaxed);
        if is_taken {
            DELIVERED.fetch_add(1, Relaxed);
            self.called = None;
        }
    }

    fn call(&mut self) {
        if self.others == 0 {
            return;
        }
        let next = 1 + (self.random() % self.others as u64) as usize;
        let to = (self.cpu + next) % (self.others + 1);
        CALLS[self.cpu][to].sent.fetch_add(1, SeqCst);
        gic::send_sgi(self.cpu as u64, 1 << to);
        // After it was sent: what comes between is the sender's own time.
        self.called = Some((to, RAN[to].load(SeqCst)));
    }

    fn mind_timer(&mut self, now: u64, ran: u64) {
        let Some((deadline, seen)) = self.deadline else { return self.set_timer(now) };
        let has_fired = FIRED[self.cpu].load(Relaxed) == self.timers;
        if let Some(since) = seen {
            let until = if has_fired { FIRED_AT[self.cpu].load(Relaxed) } else { ran };
            let late = until.saturating_sub(since);
            if !has_fired && late >= self.asks_at() && !self.has_gone_off {
                BOARD_LATE.fetch_add(1, Relaxed);
                self.has_gone_off = self.condition_is_met();
                self.deadline = Some((deadline, Some(ran)));
            } else {
                WORST_TIMER.fetch_max(late, Relaxed);
            }
        }
        if has_fired {
            DELIVERED.fetch_add(1, Relaxed);
            self.deadline = None;
        } else if now >= deadline && seen.is_none() {
            self.deadline = Some((deadline, Some(ran)));
        }
    }

    /// How late its timer may be before it is asked: none that is not asked gets beyond the limit within
    /// one turn, whose end may be the first to see it.
    fn asks_at(&self) -> u64 {
        let limit = LATE.load(Relaxed);
        limit.saturating_sub(LOOKS * self.fastest).max(limit / 2)
    }

    /// Whether its timer says that its condition is met.
    fn condition_is_met(&self) -> bool {
        let control = if self.is_virtual {
            read_register!("cntv_ctl_el0")
        } else {
            read_register!("cntp_ctl_el0")
        };
        control & ISTATUS != 0
    }

    fn set_timer(&mut self, now: u64) {
        let deadline = now + self.random() % timer::ticks_of_us(1_000);
        self.timers += 1;
        self.deadline = Some((deadline, None));
        self.is_virtual = self.random() & 1 == 0;
        self.has_gone_off = false;
        if self.is_virtual {
            write_register!("cntv_cval_el0", deadline);
            write_register!("cntv_ctl_el0", 1);
        } else {
            write_register!("cntp_cval_el0", deadline);
            write_register!("cntp_ctl_el0", 1);
        }
    }
}

extern "C" fn secondary() -> ! {
    translation::join();
    let others = CPUS.load(SeqCst) as usize - 1;
    let mut member = Member::new(cpus::number(), others);
    while STOP.load(Relaxed) == 0 {
        member.turn();
    }
    instruction!("msr daifset, #2");
    cpus::off()
}

fn us(ticks: u64) -> u64 {
    ticks / timer::ticks_of_us(1).max(1)
}

fn run() -> Outcome {
    translation::start();
    let is_there = |cpu: &u64| call(AFFINITY_INFO, *cpu, 0, 0) == OFF;
    let others = (1..CPUS_MAX as u64).take_while(is_there).count();
    // SAFETY: the table is part of the image, and nobody writes it while the guest runs.
    let [_, seconds, late_us] = unsafe { core::ptr::read_volatile(&raw const call_notes) };
    LATE.store(timer::ticks_of_us(late_us), SeqCst);
    CPUS.store(others as u64 + 1, SeqCst);
    for cpu in 1..=others {
        check("CPU_ON", cpus::start(cpu, secondary), 0)?;
    }
    let mut member = Member::new(0, others);
    let end = read_register!("cntvct_el0") + seconds * read_register!("cntfrq_el0");
    while member.turn() < end && WORST_CALL.load(Relaxed) < timer::ticks_of_us(2 * late_us) {}
    STOP.store(1, Relaxed);
    instruction!("msr daifset, #2");
    for (what, worst) in [("calls, us: ", &WORST_CALL), ("timers, us: ", &WORST_TIMER)] {
        report::line("");
        stepwell_guests::hardware::uart::write(what);
        report::number(us(worst.load(Relaxed)));
    }
    report::line("");
    stepwell_guests::hardware::uart::write("timers of the board's that were late: ");
    report::number(BOARD_LATE.load(Relaxed));
    report::line("");
    require("no call is late", us(WORST_CALL.load(Relaxed)) < late_us)?;
    require("no timer is late", us(WORST_TIMER.load(Relaxed)) < late_us)?;
    Ok(DELIVERED.load(Relaxed))
}

stepwell_guests::guest!("cross_calls", run, handle);
