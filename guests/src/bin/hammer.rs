//! Every CPU hammers the same memory: counters of each width, a ticket lock, a queued lock, a
//! lock-free stack and a sequence lock, all of them made of exclusives.
//!
//! What comes out is known, however the CPUs' instructions fall between each other: every increment
//! counts once, and every node of the stack is there once. The stack is the hard case. A pop reads
//! the next node between its load- and its store-exclusive; where another CPU pops the first node,
//! pops the second and pushes the first again meanwhile, the head is what it was and the store must
//! fail all the same.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use stepwell_guests::hardware::cpus::{self, CPUS_MAX};
use stepwell_guests::hardware::psci::{AFFINITY_INFO, call};
use stepwell_guests::report::{Outcome, check};
use stepwell_guests::{instruction, translation};

/// Rounds of each CPU: divisible by what the byte counter wraps at.
const ROUNDS: u64 = 256;

/// What all CPUs write. The assembly knows the layout.
#[repr(C, align(64))]
struct Shared {
    /// Incremented as byte, half-word, word, double word, pair of words, pair of double words.
    counters: [[u64; 2]; 6],
    /// Ticket lock: next ticket (low half), now serving (high half).
    ticket: u64,
    /// Under the ticket lock.
    under_ticket: u64,
    /// Tail of the queued lock.
    tail: u64,
    /// Under the queued lock.
    under_queue: u64,
    /// Top of the stack of nodes.
    top: u64,
    /// Sequence lock: its count, and two words that are always equal.
    sequence: u64,
    halves: [u64; 2],
}

/// A node of the queued lock and of the stack.
#[repr(C, align(64))]
struct Node {
    next: u64,
    waits: u64,
}

struct Memory<T>(UnsafeCell<T>);

// SAFETY: what the CPUs do to it at the same time is this guest's topic; it goes through assembly.
unsafe impl<T> Sync for Memory<T> {}

static SHARED: Memory<Shared> = Memory(UnsafeCell::new(Shared {
    counters: [[0; 2]; 6],
    ticket: 0,
    under_ticket: 0,
    tail: 0,
    under_queue: 0,
    top: 0,
    sequence: 0,
    halves: [0; 2],
}));
static NODES: Memory<[Node; CPUS_MAX]> =
    Memory(UnsafeCell::new([const { Node { next: 0, waits: 0 } }; CPUS_MAX]));
static QUEUE: Memory<[Node; CPUS_MAX]> =
    Memory(UnsafeCell::new([const { Node { next: 0, waits: 0 } }; CPUS_MAX]));

static READY: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);
static TORN: AtomicU64 = AtomicU64::new(0);

// x0: Shared. x1: a node of this CPU's.
global_asm!(
    r#"
    .text
    .macro  increment offset, load, store, r
    add     x9, x0, #\offset
1:  \load   \r\()2, [x9]
    add     \r\()2, \r\()2, #1
    \store  w3, \r\()2, [x9]
    cbnz    w3, 1b
    .endm

    .macro  increment_pair offset, load, store, r
    add     x9, x0, #\offset
1:  \load   \r\()2, \r\()4, [x9]
    add     \r\()2, \r\()2, #1
    add     \r\()4, \r\()4, #1
    \store  w3, \r\()2, \r\()4, [x9]
    cbnz    w3, 1b
    .endm

    .globl hammer_counters
hammer_counters:
    increment 0, ldxrb, stxrb, w
    increment 16, ldaxrh, stlxrh, w
    increment 32, ldxr, stlxr, w
    increment 48, ldaxr, stxr, x
    increment_pair 64, ldxp, stxp, w
    increment_pair 80, ldaxp, stlxp, x
    ret

    // A ticket lock, waited for by plain loads.
    .globl hammer_ticket
hammer_ticket:
    add     x9, x0, #96
1:  ldaxr   w2, [x9]
    add     w4, w2, #1
    stxr    w3, w4, [x9]
    cbnz    w3, 1b
    add     x5, x9, #4
2:  ldar    w4, [x5]
    cmp     w4, w2
    b.ne    2b
    ldr     x6, [x0, #104]
    add     x6, x6, #1
    str     x6, [x0, #104]
    add     w4, w4, #1
    stlr    w4, [x5]
    ret

    // A queued lock: each waits at its own node, asleep until an event.
    .globl hammer_queue
hammer_queue:
    str     xzr, [x1]
    mov     x2, #1
    str     x2, [x1, #8]
    add     x9, x0, #112
1:  ldaxr   x2, [x9]
    stlxr   w3, x1, [x9]
    cbnz    w3, 1b
    cbz     x2, 3f
    stlr    x1, [x2]                    // the one before is to wake this one
    add     x4, x1, #8
    sevl
2:  wfe
    ldaxr   x5, [x4]
    cbnz    x5, 2b
3:  ldr     x6, [x0, #120]
    add     x6, x6, #1
    str     x6, [x0, #120]
    ldar    x2, [x1]
    cbnz    x2, 5f
4:  ldaxr   x2, [x9]                    // nobody behind, as far as is known
    cmp     x2, x1
    b.ne    6f
    stlxr   w3, xzr, [x9]
    cbnz    w3, 4b
    ret
6:  clrex
7:  ldar    x2, [x1]
    cbz     x2, 7b
5:  add     x2, x2, #8
    stlr    xzr, [x2]
    dsb     ishst
    sev
    ret

    // Pushes the node in x1, pops one and returns it.
    .globl hammer_stack
hammer_stack:
    add     x9, x0, #128
1:  ldaxr   x2, [x9]
    str     x2, [x1]
    stlxr   w3, x1, [x9]
    cbnz    w3, 1b
2:  ldaxr   x2, [x9]
    cbz     x2, 2b
    ldr     x4, [x2]
    stlxr   w3, x4, [x9]
    cbnz    w3, 2b
    mov     x0, x2
    ret

    // Writes both halves under the sequence lock, then reads them: returns 1 where they differ.
    .globl hammer_sequence
hammer_sequence:
    add     x9, x0, #136
1:  ldaxr   x2, [x9]
    tbnz    x2, #0, 1b
    add     x4, x2, #1
    stxr    w3, x4, [x9]
    cbnz    w3, 1b
    dmb     ish
    ldr     x5, [x0, #144]
    add     x5, x5, #1
    str     x5, [x0, #144]
    str     x5, [x0, #152]
    add     x4, x4, #1
    stlr    x4, [x9]
2:  ldar    x2, [x9]
    tbnz    x2, #0, 2b
    ldr     x5, [x0, #144]
    ldr     x6, [x0, #152]
    dmb     ishld
    ldr     x4, [x9]
    cmp     x2, x4
    b.ne    2b
    cmp     x5, x6
    cset    x0, ne
    ret
"#
);

unsafe extern "C" {
    safe fn hammer_counters(shared: *mut Shared);
    safe fn hammer_ticket(shared: *mut Shared);
    safe fn hammer_queue(shared: *mut Shared, node: *mut Node);
    safe fn hammer_stack(shared: *mut Shared, node: *mut Node) -> *mut Node;
    safe fn hammer_sequence(shared: *mut Shared) -> u64;
}

fn node(nodes: &Memory<[Node; CPUS_MAX]>, cpu: usize) -> *mut Node {
    // SAFETY: a place in the array; nothing is read or written.
    unsafe { (*nodes.0.get()).as_mut_ptr().add(cpu % CPUS_MAX) }
}

/// Adds to a count that all CPUs have.
fn bump(count: &AtomicU64, by: u64) {
    // Compiled to exclusives where the CPU has no atomics, and to one atomic where it has.
    count.fetch_add(by, Release);
}

fn hammer(cpu: usize) {
    let shared = SHARED.0.get();
    let mut own = node(&NODES, cpu);
    for _ in 0..ROUNDS {
        hammer_counters(shared);
        hammer_ticket(shared);
        hammer_queue(shared, node(&QUEUE, cpu));
        own = hammer_stack(shared, own);
        bump(&TORN, hammer_sequence(shared));
    }
    // The node that is left is put on the stack, to be counted.
    // SAFETY: a word of `SHARED`, which lives for ever and that all access atomically by now: the
    // CPUs' instructions above are exclusives too.
    let top = unsafe { &*core::ptr::addr_of!((*shared).top).cast::<AtomicU64>() };
    loop {
        let head = top.load(Acquire);
        // SAFETY: the node came off the stack last, so it is this CPU's alone.
        unsafe { (*own).next = head };
        if top.compare_exchange(head, own as u64, Release, Relaxed).is_ok() {
            break;
        }
    }
    bump(&DONE, 1);
    instruction!("sev");
}

extern "C" fn secondary() -> ! {
    translation::join();
    bump(&READY, 1);
    hammer(cpus::number());
    cpus::off()
}

fn counted(pointer: *const u64) -> u64 {
    // SAFETY: part of `SHARED`, which nobody writes any more.
    unsafe { pointer.read_volatile() }
}

fn run() -> Outcome {
    translation::start();
    let mut all = 1;
    while all < CPUS_MAX as u64 && call(AFFINITY_INFO, all, 0, 0) == 1 {
        check("CPU_ON", cpus::start(all as usize, secondary), 0)?;
        all += 1;
    }
    while READY.load(Acquire) < all - 1 {}
    hammer(0);
    while DONE.load(Acquire) < all {
        instruction!("wfe");
    }
    let shared = SHARED.0.get().cast_const();
    let total = all * ROUNDS;
    // SAFETY: places in `SHARED`; nothing is read yet.
    let (counters, under_ticket, under_queue, halves) = unsafe {
        use core::ptr::addr_of;
        (
            addr_of!((*shared).counters).cast::<u64>(),
            addr_of!((*shared).under_ticket),
            addr_of!((*shared).under_queue),
            addr_of!((*shared).halves).cast::<u64>(),
        )
    };
    let at = |n: usize| counted(counters.wrapping_add(n));
    check("bytes", at(0), total % 256)?;
    check("half-words", at(2), total)?;
    check("words", at(4), total)?;
    check("double words", at(6), total)?;
    check("pairs of words", at(8), total | total << 32)?;
    check("pairs of double words", at(10), total)?;
    check("their second halves", at(11), total)?;
    check("under the ticket lock", counted(under_ticket), total)?;
    check("under the queued lock", counted(under_queue), total)?;
    check("under the sequence lock", counted(halves), total)?;
    check("torn reads", TORN.load(Acquire), 0)?;
    let mut nodes = 0;
    // SAFETY: as above.
    let mut next = counted(unsafe { core::ptr::addr_of!((*shared).top) });
    while next != 0 && nodes <= all {
        nodes += 1;
        next = counted(next as *const u64);
    }
    check("nodes on the stack", nodes, all)?;
    Ok(total)
}

stepwell_guests::guest!("hammer", run);
