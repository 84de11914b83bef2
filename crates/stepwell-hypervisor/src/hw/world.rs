//! The switch between EL2 and the guest: a safe face for `world.S`.

use super::el2::El2;
use super::registers::msr_unsafe;
use crate::mem::guest::CodePage;
use crate::mem::ring::RingLease;
use core::arch::global_asm;
use core::mem::offset_of;
use core::ops::{Deref, DerefMut};
use stepwell_arch::{Pa, Va};
use stepwell_engine::attention::{self, Attention};
use stepwell_vm::cpu::{Context, Near, Run, Vector};
use stepwell_vm::registers::GuestRegisters;
use stepwell_wire::ring;

const PAGE_BITS: usize = 8;
/// Code pages whose translation the fast path knows.
pub const PAGES: usize = 1 << PAGE_BITS;

/// A code page that the fast path may look into.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct KnownPage {
    /// Its virtual address in the guest; [`KnownPage::NONE`]'s matches no PC.
    tag: u64,
    /// Where EL2 reads it.
    host: u64,
}

impl KnownPage {
    /// No page: bits 11:0 of a tag are 0 in every other.
    const NONE: Self = Self { tag: 0xfff, host: 0 };
}

/// The trace's current run, and where the fast path may write it: see [`stepwell_wire::ring`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct FastRun {
    /// First PC of the run.
    start: u64,
    /// The PC that would lengthen it, or 0 where nothing is recorded.
    next: u64,
    /// The full PC that near records build on.
    base: u64,
    /// Where the next word goes.
    at: u64,
    /// Where no word may go.
    end: u64,
    /// Kind and vCPU of a near record.
    tag: u64,
    /// Where the first word went.
    first: u64,
}

/// The guest's counter, where it counts instructions.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Counted {
    /// What CNTVOFF_EL2 is to be, less CNTPCT_EL0 where that is read.
    lag: u64,
    /// What the guest's counter shows when EL2's timer interrupts.
    until: u64,
    /// What it showed when it was read after the exit.
    clock: u64,
}

/// The guest's registers outside of the guest, and what the fast path works with.
///
/// `world.S` knows this layout; the constants below are passed to it.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct GuestContext {
    registers: GuestRegisters,
    host_sp: u64,
    /// The syndrome that the fast path takes, or 0.
    fast_esr: u64,
    /// Steps that the fast path may still let go by.
    budget: u64,
    /// The trace's current run.
    run: FastRun,
    attention: u64,
    counted: Counted,
    pages: [KnownPage; PAGES],
}

impl Deref for GuestContext {
    type Target = GuestRegisters;

    #[inline(always)]
    fn deref(&self) -> &GuestRegisters {
        &self.registers
    }
}

impl DerefMut for GuestContext {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut GuestRegisters {
        &mut self.registers
    }
}

global_asm!(
    ".set CTX_SP_EL0, {sp_el0}",
    ".set CTX_ELR, {elr}",
    ".set CTX_ESR, {esr}",
    ".set CTX_HPFAR, {hpfar}",
    ".set CTX_HOST_SP, {host_sp}",
    ".set CTX_FAST_ESR, {fast_esr}",
    ".set CTX_BUDGET, {budget}",
    ".set CTX_RUN_START, {run_start}",
    ".set CTX_RUN_NEXT, {run_next}",
    ".set CTX_RING_BASE, {ring_base}",
    ".set CTX_RING_AT, {ring_at}",
    ".set CTX_RING_END, {ring_end}",
    ".set CTX_RING_TAG, {ring_tag}",
    ".set CTX_ATTENTION, {attention}",
    ".set CTX_LAG, {lag}",
    ".set CTX_CLOCK, {clock}",
    ".set CTX_PAGES, {pages}",
    ".set CTX_PAGE_BITS, {page_bits}",
    ".set RING_FAR_BITS, {far_bits}",
    ".set RING_NEAR_SHIFT, {near_shift}",
    ".set RING_LENGTH_SHIFT, {length_shift}",
    ".set ATTENTION_SYSTEM, {system}",
    include_str!("world.S"),
    sp_el0 = const offset_of!(GuestContext, registers.sp_el0),
    elr = const offset_of!(GuestContext, registers.elr),
    esr = const offset_of!(GuestContext, registers.esr),
    hpfar = const offset_of!(GuestContext, registers.hpfar),
    host_sp = const offset_of!(GuestContext, host_sp),
    fast_esr = const offset_of!(GuestContext, fast_esr),
    budget = const offset_of!(GuestContext, budget),
    run_start = const offset_of!(GuestContext, run.start),
    run_next = const offset_of!(GuestContext, run.next),
    ring_base = const offset_of!(GuestContext, run.base),
    ring_at = const offset_of!(GuestContext, run.at),
    ring_end = const offset_of!(GuestContext, run.end),
    ring_tag = const offset_of!(GuestContext, run.tag),
    attention = const offset_of!(GuestContext, attention),
    lag = const offset_of!(GuestContext, counted.lag),
    clock = const offset_of!(GuestContext, counted.clock),
    pages = const offset_of!(GuestContext, pages),
    page_bits = const PAGE_BITS,
    far_bits = const !ring::NEAR_BITS,
    near_shift = const ring::NEAR_SHIFT,
    length_shift = const ring::LENGTH_SHIFT,
    system = const attention::SYSTEM,
);

// What the assembly takes for granted beyond the offsets that it is given.
const _: () = {
    assert!(offset_of!(GuestContext, registers.x) == 0);
    assert!(offset_of!(GuestContext, registers.sp_el0) == 8 * 31, "stored as a pair with x30");
    assert!(
        offset_of!(GuestContext, registers.spsr) == offset_of!(GuestContext, registers.elr) + 8
    );
    assert!(offset_of!(GuestContext, registers.far) == offset_of!(GuestContext, registers.esr) + 8);
    assert!(offset_of!(GuestContext, registers.elr) <= 504, "within reach of LDP and STP");
    assert!(offset_of!(GuestContext, run.next) == offset_of!(GuestContext, run.start) + 8);
    assert!(offset_of!(GuestContext, run.at) == offset_of!(GuestContext, run.base) + 8);
    assert!(offset_of!(GuestContext, run.at) <= 504, "within reach of LDP and STP");
    assert!(offset_of!(GuestContext, counted.until) == offset_of!(GuestContext, counted.lag) + 8);
    assert!(offset_of!(GuestContext, counted.lag) <= 504, "within reach of LDP");
    assert!(size_of::<KnownPage>() == 16);
    assert!(4 == 1 << ring::NEAR_SHIFT, "a run's bytes are its length, shifted");
    assert!(attention::PLAIN == 0 && attention::ALWAYS < attention::SYSTEM);
    assert!(attention::SYSTEM < attention::BRANCH, "told apart by one comparison");
    assert!(offset_of!(Attention, system) == 256);
};

unsafe extern "C" {
    fn enter_guest(context: *mut GuestContext) -> u64;
    fn enter_guest_counted(context: *mut GuestContext) -> u64;
    static vectors: u8;
    static vectors_counted: u8;
}

/// Instructions from the one that reads CNTPCT_EL0, without it, to the guest's first.
const ENTRY_INSTRUCTIONS: u64 = 7;
/// Instructions from the guest's last to the one that reads CNTVCT_EL0, which is among them.
const EXIT_INSTRUCTIONS: u64 = 5;

impl GuestContext {
    /// Syndrome of a plain stepped instruction: EC 0x32, IL, ISV, not EX, IFSC 0x22.
    const PLAIN_STEP: u64 = 0xcb00_0022;

    /// Makes a context with all registers 0. `attention` is the table of
    /// [`Attention`].
    #[must_use]
    pub fn new(attention: &'static Attention) -> Self {
        Self {
            registers: GuestRegisters::default(),
            host_sp: 0,
            fast_esr: 0,
            budget: 0,
            run: FastRun::default(),
            attention: core::ptr::from_ref(attention) as u64,
            counted: Counted::default(),
            pages: [KnownPage::NONE; PAGES],
        }
    }

    /// Runs the guest up to its next exit, on the CPU that this is executed on.
    pub fn enter(&mut self, _: El2) -> Vector {
        // SAFETY: the context is exclusively ours and its layout is what the assembly was built
        // with. Stage 2 confines the guest to its own memory: an `El2` says that `hw::setup` has
        // seen to that on this CPU. Code pages lie in guest RAM, mapped at EL2, and the run's words
        // are those of a `RingLease`.
        vector(unsafe { enter_guest(self) })
    }

    /// As [`GuestContext::enter`], where the counter counts instructions, `ticks` each: see
    /// [`stepwell_vm::cpu::Cpu::enter_counted`]. For [`use_counted_vectors`].
    pub fn enter_counted(&mut self, _: El2, ticks: u64, clock: u64, until: u64) -> (Vector, u64) {
        let lag = (ENTRY_INSTRUCTIONS * ticks).wrapping_sub(clock);
        self.counted = Counted { lag, until, clock: 0 };
        // SAFETY: as above.
        let vector = vector(unsafe { enter_guest_counted(self) });
        (vector, self.counted.clock.wrapping_sub(EXIT_INSTRUCTIONS * ticks))
    }
}

const fn vector(number: u64) -> Vector {
    match number {
        0 => Vector::Synchronous,
        1 => Vector::Irq,
        2 => Vector::Fiq,
        _ => Vector::SError,
    }
}

impl Context for GuestContext {
    type Page = CodePage;
    type Lease = RingLease;

    #[inline(always)]
    fn set_fast_budget(&mut self, steps: u64) {
        self.budget = steps;
        self.fast_esr = if steps == 0 { 0 } else { Self::PLAIN_STEP };
    }

    #[inline(always)]
    fn fast_budget(&self) -> u64 {
        self.budget
    }

    fn know_page(&mut self, va: Va, page: CodePage) {
        let tag = va.align_down(4096).0;
        let index = (tag >> 12) as usize % PAGES;
        if let Some(known) = self.pages.get_mut(index) {
            *known = KnownPage { tag, host: page.address().0 };
        }
    }

    #[inline(always)]
    fn known_page(&self, va: Va) -> Option<CodePage> {
        let tag = va.align_down(4096).0;
        let page = self.pages.get((tag >> 12) as usize % PAGES)?;
        // SAFETY: whatever has a tag of a page is what `know_page` was given.
        (page.tag == tag).then(|| unsafe { CodePage::new(Pa(page.host)) })
    }

    fn forget_pages(&mut self) {
        self.pages = [KnownPage::NONE; PAGES];
    }

    #[inline(always)]
    fn lend_run(&mut self, Run { start, next }: Run, near: Option<Near<RingLease>>) {
        self.run = match near {
            None => FastRun { start, next, ..FastRun::default() },
            Some(Near { base, tag, lease }) => {
                let (at, end) = lease.range();
                FastRun { start, next, base, at, end, tag, first: at }
            }
        };
    }

    #[inline(always)]
    fn take_run_back(&mut self) -> (Run, Option<RingLease>) {
        let FastRun { start, next, at, end, first, .. } = self.run;
        (self.run.at, self.run.end, self.run.first) = (0, 0, 0);
        // SAFETY: `lend_run` had `first` and `end` from a lease, and the fast path stores at `at`
        // alone, which it moves up to `end` and no further.
        let lease = (first != 0).then(|| unsafe { RingLease::new(first, at, end) });
        (Run { start, next }, lease)
    }
}

/// Address of the vector table, for VBAR_EL2.
#[must_use]
pub fn vector_base() -> u64 {
    core::ptr::addr_of!(vectors) as u64
}

/// From here on this CPU takes exceptions as one whose counter counts instructions.
pub fn use_counted_vectors() {
    let base = core::ptr::addr_of!(vectors_counted) as u64;
    // SAFETY: it is a whole table, aligned as one, which does with each exception what the other does,
    // but for the fast path; and a guest that is entered by `enter_guest_counted` keeps to it.
    unsafe { msr_unsafe!("vbar_el2", base) }
}
