//! The switch between EL2 and the guest: a safe face for `world.S`.

use core::arch::global_asm;
use core::mem::offset_of;
use stepwell_arch::{Pa, Va};

const PAGE_BITS: usize = 8;
/// Code pages whose translation the fast path knows.
pub const PAGES: usize = 1 << PAGE_BITS;

/// A code page that the fast path may look into.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CodePage {
    /// Its virtual address in the guest; [`CodePage::NONE`]'s matches no PC.
    tag: u64,
    /// Where EL2 reads it.
    host: u64,
}

impl CodePage {
    /// No page: bits 11:0 of a tag are 0 in every other.
    const NONE: Self = Self { tag: 0xfff, host: 0 };
}

/// The trace's current run, and where the fast path may write it: see [`stepwell_wire::ring`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FastRun {
    /// First PC of the run.
    pub start: u64,
    /// The PC that would lengthen it, or 0 where nothing is recorded.
    pub next: u64,
    /// The full PC that near records build on.
    pub base: u64,
    /// Where the next word goes.
    pub at: u64,
    /// Where no word may go.
    pub end: u64,
    /// Kind and vCPU of a near record.
    pub tag: u64,
}

/// The guest's registers outside of the guest, and what the fast path works with.
///
/// `world.S` knows this layout; the constants below are passed to it.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct GuestContext {
    /// X0 to X30.
    pub x: [u64; 31],
    /// SP_EL0.
    pub sp_el0: u64,
    /// ELR_EL2: the guest's PC.
    pub elr: u64,
    /// SPSR_EL2: the guest's PSTATE.
    pub spsr: u64,
    /// ESR_EL2 of the last exit.
    pub esr: u64,
    /// FAR_EL2 of the last exit.
    pub far: u64,
    /// HPFAR_EL2 of the last exit.
    pub hpfar: u64,
    host_sp: u64,
    /// The syndrome that the fast path takes, or 0.
    fast_esr: u64,
    /// Steps that the fast path may still let go by.
    budget: u64,
    /// The trace's current run.
    pub run: FastRun,
    attention: u64,
    pages: [CodePage; PAGES],
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
    ".set CTX_PAGES, {pages}",
    ".set CTX_PAGE_BITS, {page_bits}",
    include_str!("world.S"),
    sp_el0 = const offset_of!(GuestContext, sp_el0),
    elr = const offset_of!(GuestContext, elr),
    esr = const offset_of!(GuestContext, esr),
    hpfar = const offset_of!(GuestContext, hpfar),
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
    pages = const offset_of!(GuestContext, pages),
    page_bits = const PAGE_BITS,
);

// What the assembly takes for granted beyond the offsets that it is given.
const _: () = {
    assert!(offset_of!(GuestContext, x) == 0);
    assert!(offset_of!(GuestContext, sp_el0) == 8 * 31, "stored as a pair with x30");
    assert!(offset_of!(GuestContext, spsr) == offset_of!(GuestContext, elr) + 8);
    assert!(offset_of!(GuestContext, far) == offset_of!(GuestContext, esr) + 8);
    assert!(offset_of!(GuestContext, elr) <= 504, "within reach of LDP and STP");
    assert!(offset_of!(GuestContext, run.next) == offset_of!(GuestContext, run.start) + 8);
    assert!(offset_of!(GuestContext, run.at) == offset_of!(GuestContext, run.base) + 8);
    assert!(offset_of!(GuestContext, run.at) <= 504, "within reach of LDP and STP");
    assert!(size_of::<CodePage>() == 16);
};

unsafe extern "C" {
    fn enter_guest(context: *mut GuestContext) -> u64;
    static vectors: u8;
}

/// Which vector the guest left by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// A synchronous exception.
    Synchronous,
    /// A physical interrupt.
    Irq,
    /// A physical fast interrupt.
    Fiq,
    /// A system error.
    SError,
}

impl GuestContext {
    /// Syndrome of a plain stepped instruction: EC 0x32, IL, ISV, not EX, IFSC 0x22.
    const PLAIN_STEP: u64 = 0xcb00_0022;

    /// Makes a context with all registers 0. `attention` is the table of
    /// [`stepwell_engine::Attention`].
    #[must_use]
    pub fn new(attention: &'static stepwell_engine::Attention) -> Self {
        Self {
            x: [0; 31],
            sp_el0: 0,
            elr: 0,
            spsr: 0,
            esr: 0,
            far: 0,
            hpfar: 0,
            host_sp: 0,
            fast_esr: 0,
            budget: 0,
            run: FastRun::default(),
            attention: core::ptr::from_ref(attention) as u64,
            pages: [CodePage::NONE; PAGES],
        }
    }

    /// Reads Xn, where 31 is XZR.
    #[must_use]
    pub fn register(&self, n: u8) -> u64 {
        self.x.get(usize::from(n)).copied().unwrap_or(0)
    }

    /// Writes Xn, where 31 is XZR.
    pub fn set_register(&mut self, n: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(n)) {
            *register = value;
        }
    }

    /// Lets the fast path take `steps` plain steps before it leaves; 0 switches it off.
    pub fn set_fast_budget(&mut self, steps: u64) {
        self.budget = steps;
        self.fast_esr = if steps == 0 { 0 } else { Self::PLAIN_STEP };
    }

    /// Steps of the budget that are left.
    #[must_use]
    pub fn fast_budget(&self) -> u64 {
        self.budget
    }

    /// Lets the fast path look into the guest's code page at `va`, which EL2 reads at `host`.
    pub fn know_page(&mut self, va: Va, host: Pa) {
        let tag = va.align_down(4096).0;
        let index = (tag >> 12) as usize % PAGES;
        if let Some(page) = self.pages.get_mut(index) {
            *page = CodePage { tag, host: host.0 };
        }
    }

    /// Returns where EL2 reads the code page of `va`, if it is known.
    #[must_use]
    pub fn known_page(&self, va: Va) -> Option<Pa> {
        let tag = va.align_down(4096).0;
        let page = self.pages.get((tag >> 12) as usize % PAGES)?;
        (page.tag == tag).then_some(Pa(page.host))
    }

    /// Forgets every code page: the guest's translation may have changed.
    pub fn forget_pages(&mut self) {
        self.pages = [CodePage::NONE; PAGES];
    }

    /// Runs the guest up to its next exit.
    pub fn enter(&mut self) -> Vector {
        // SAFETY: the context is exclusively ours and its layout is what the assembly was built
        // with. Stage 2 confines the guest to its own memory, and the EL2 registers that make it
        // so were set by `hw::setup` on this CPU. Code pages lie in guest RAM, mapped at EL2.
        match unsafe { enter_guest(self) } {
            0 => Vector::Synchronous,
            1 => Vector::Irq,
            2 => Vector::Fiq,
            _ => Vector::SError,
        }
    }
}

/// Address of the vector table, for VBAR_EL2.
#[must_use]
pub fn vector_base() -> u64 {
    core::ptr::addr_of!(vectors) as u64
}
