//! Every form of load- and store-exclusive, those that must succeed and those that must fail.
//!
//! Only what the architecture defines is asked for: no store of the same CPU between the two, no
//! pair of different sizes. The same cases run at EL1 and at EL0.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stepwell_guests::exception::{self, EL0, Frame, class, enter_el0};
use stepwell_guests::report::{Failure, Outcome, check};

// Each function: x0 is 64 bytes of memory, 16-byte aligned; returns 0, or the number of the case
// that went wrong. x9 holds the number. They call nothing, so they run at EL0 as well.
global_asm!(
    r#"
    .text
    .macro  case number
    mov     x9, #\number
    .endm

    // Increments through one form until the store succeeds, then checks the value.
    .macro  increment number, load, store, plain, r
    case    \number
    \plain  \r\()1, [x0]
1:  \load   \r\()2, [x0]
    add     \r\()2, \r\()2, #1
    \store  w3, \r\()2, [x0]
    cbnz    w3, 1b
    \plain  \r\()4, [x0]
    sub     \r\()4, \r\()4, \r\()1
    cmp     \r\()4, #1
    b.ne    exclusives_wrong
    .endm

    .globl sizes
sizes:
    stp     xzr, xzr, [x0]
    increment 1, ldxrb, stxrb, ldrb, w
    increment 2, ldxrh, stxrh, ldrh, w
    increment 3, ldxr, stxr, ldr, w
    increment 4, ldxr, stxr, ldr, x
    increment 5, ldaxrb, stlxrb, ldrb, w
    increment 6, ldaxrh, stlxrh, ldrh, w
    increment 7, ldaxr, stlxr, ldr, w
    increment 8, ldaxr, stlxr, ldr, x
    increment 9, ldaxr, stxr, ldr, x
    increment 10, ldxr, stlxr, ldr, w
    case    11
    ldr     x1, [x0]
    mov     x2, #0x0a0a
    cmp     x1, #10
    b.ne    exclusives_wrong
    mov     x0, #0
    ret

    .globl pairs
pairs:
    case    20
    mov     x1, #0x1111
    mov     x2, #0x2222
    stp     x1, x2, [x0]
1:  ldxp    x3, x4, [x0]
    add     x3, x3, x4
    sub     x4, x3, x4
    stxp    w5, x4, x3, [x0]
    cbnz    w5, 1b
    ldp     x6, x7, [x0]
    cmp     x6, x1
    b.ne    exclusives_wrong
    mov     x8, #0x3333
    cmp     x7, x8
    b.ne    exclusives_wrong
    case    21
1:  ldaxp   x3, x4, [x0]
    stlxp   w5, x4, x3, [x0]
    cbnz    w5, 1b
    ldp     x6, x7, [x0]
    cmp     x7, x1
    b.ne    exclusives_wrong
    case    22
1:  ldxp    w3, w4, [x0]
    add     w4, w3, #1
    stxp    w5, w4, w3, [x0]
    cbnz    w5, 1b
    ldp     w6, w7, [x0]
    sub     w6, w6, w7
    cmp     w6, #1
    b.ne    exclusives_wrong
    case    23
1:  ldaxp   w3, w4, [x0]
    stlxp   w5, w4, w3, [x0]
    cbnz    w5, 1b
    ldp     w6, w7, [x0]
    sub     w6, w7, w6
    cmp     w6, #1
    b.ne    exclusives_wrong
    mov     x0, #0
    ret

    // Stores that must fail, and leave memory as it was.
    .globl failures
failures:
    mov     x1, #5
    mov     x2, #77
    stp     x1, x1, [x0]
    stp     x1, x1, [x0, #16]
    case    30                      // CLREX between
    ldxr    x3, [x0]
    clrex
    stxr    w4, x2, [x0]
    cbz     w4, exclusives_wrong
    case    31                      // a second store-exclusive for one load
    ldxr    x3, [x0]
    stxr    w4, x3, [x0]
    cbnz    w4, exclusives_wrong
    stxr    w4, x2, [x0]
    cbz     w4, exclusives_wrong
    case    32                      // none armed, every size
    clrex
    stxrb   w4, w2, [x0]
    cbz     w4, exclusives_wrong
    stxrh   w4, w2, [x0]
    cbz     w4, exclusives_wrong
    stxr    w4, w2, [x0]
    cbz     w4, exclusives_wrong
    stlxr   w4, x2, [x0]
    cbz     w4, exclusives_wrong
    stxp    w4, w2, w2, [x0]
    cbz     w4, exclusives_wrong
    stlxp   w4, x2, x2, [x0]
    cbz     w4, exclusives_wrong
    case    33                      // armed anew for another address: the first is forgotten
    add     x5, x0, #4096
    ldxr    x3, [x0]
    ldxr    x3, [x5]
    stxr    w4, x2, [x0]
    cbz     w4, exclusives_wrong
    case    34                      // a pair after CLREX
    ldxp    x3, x6, [x0]
    clrex
    stxp    w4, x2, x2, [x0]
    cbz     w4, exclusives_wrong
    case    35                      // memory is as it was
    ldp     x3, x4, [x0]
    cmp     x3, x1
    b.ne    exclusives_wrong
    cmp     x4, x1
    b.ne    exclusives_wrong
    mov     x0, #0
    ret

    // Registers that overlap, the zero register, SP as base, loops in loops.
    .globl oddities
oddities:
    case    40                      // rt is rn
    str     x0, [x0]
    mov     x1, x0
    ldxr    x0, [x0]
    cmp     x0, x1
    b.ne    exclusives_wrong
    stxr    w2, xzr, [x0]
    cbnz    w2, exclusives_wrong
    ldr     x2, [x0]
    cbnz    x2, exclusives_wrong
    case    41                      // one of a pair is rn
    stp     x0, x1, [x0]
    ldxp    x2, x0, [x0]
    stxp    w3, xzr, x2, [x0]
    cbnz    w3, exclusives_wrong
    case    42                      // to the zero register
    ldxr    xzr, [x0]
    stxr    w3, x0, [x0]
    cbnz    w3, exclusives_wrong
    case    43                      // SP as base
    mov     x5, sp
    mov     x6, x0
    sub     sp, sp, #32
    mov     x1, #9
    str     x1, [sp]
1:  ldaxr   x2, [sp]
    add     x2, x2, #1
    stlxr   w3, x2, [sp]
    cbnz    w3, 1b
    ldr     x2, [sp]
    mov     sp, x5
    cmp     x2, #10
    b.ne    exclusives_wrong
    case    44                      // status to the zero register
    str     xzr, [x0]
    ldxr    x1, [x0]
    add     x1, x1, #1
    stxr    wzr, x1, [x0]
    ldr     x1, [x0]
    cmp     x1, #1
    b.ne    exclusives_wrong
    case    45                      // loops in loops, with a lock taken and released
    stp     xzr, xzr, [x0]
    mov     x6, #50
2:  mov     w1, #1
3:  ldaxr   w2, [x0]
    cbnz    w2, 3b
    stxr    w2, w1, [x0]
    cbnz    w2, 3b
    mov     x7, #7
4:  add     x8, x0, #8
5:  ldxr    x2, [x8]
    add     x2, x2, #1
    stxr    w3, x2, [x8]
    cbnz    w3, 5b
    subs    x7, x7, #1
    b.ne    4b
    stlr    wzr, [x0]
    subs    x6, x6, #1
    b.ne    2b
    ldr     x2, [x0, #8]
    cmp     x2, #350
    b.ne    exclusives_wrong
    case    46                      // compare and swap that gives up, with CLREX
    mov     x1, #1
    str     x1, [x0]
    ldxr    x2, [x0]
    cmp     x2, #2
    b.eq    exclusives_wrong
    clrex
    ldr     x2, [x0]
    cmp     x2, #1
    b.ne    exclusives_wrong
    mov     x0, #0
    ret

    // An exception between the two must make the store fail.
    .globl across_svc
across_svc:
    str     xzr, [x0]
    case    50
    ldxr    x1, [x0]
    svc     #1
    stxr    w2, x0, [x0]
    cbz     w2, exclusives_wrong
    case    51
    ldaxp   x1, x3, [x0]
    svc     #1
    stlxp   w2, x0, x0, [x0]
    cbz     w2, exclusives_wrong
    ldr     x1, [x0]
    cbnz    x1, exclusives_wrong
    mov     x0, #0
    ret

    // x0: the last byte of 16, so that FEAT_LSE2 allows none. The handler skips each access and
    // counts it.
    .globl unaligned
unaligned:
    ldxr    x1, [x0]
    ldxr    w1, [x0]
    ldaxrh  w1, [x0]
    ldxp    x1, x2, [x0]
    mov     x0, #0
    ret

exclusives_wrong:
    mov     x0, x9
    ret

    // x0: an address in memory, whose page has at 56 which of the above. Runs it at EL0 and leaves.
    .globl run_at_el0
run_at_el0:
    and     x1, x0, #0xfffffffffffff000
    ldr     x1, [x1, #56]
    blr     x1
    svc     #0xff
"#
);

unsafe extern "C" {
    safe fn sizes(memory: u64) -> u64;
    safe fn pairs(memory: u64) -> u64;
    safe fn failures(memory: u64) -> u64;
    safe fn oddities(memory: u64) -> u64;
    safe fn across_svc(memory: u64) -> u64;
    safe fn unaligned(memory: u64) -> u64;
    fn run_at_el0();
}

/// The memory, and a page away the word of another address.
#[repr(C, align(4096))]
struct Memory([u64; 1024]);

static mut MEMORY: Memory = Memory([0; 1024]);
static mut EL0_STACK: Memory = Memory([0; 1024]);
static ALIGNMENT_FAULTS: AtomicU64 = AtomicU64::new(0);

fn handle(frame: &mut Frame) {
    match frame.class() {
        _ if frame.wants_to_leave() => frame.leave_el0(),
        class::SVC => {}
        class::DATA_ABORT | class::DATA_ABORT_LOWER if frame.esr & 0x3f == 0x21 => {
            ALIGNMENT_FAULTS.store(ALIGNMENT_FAULTS.load(Relaxed) + 1, Relaxed);
            frame.elr += 4;
        }
        _ => exception::unexpected(frame),
    }
}

type Case = extern "C" fn(u64) -> u64;

fn at_el1(case: Case, memory: u64) -> u64 {
    case(memory)
}

fn at_el0(case: Case, memory: u64) -> u64 {
    // SAFETY: the slot lies in MEMORY, which only this CPU uses.
    unsafe { *((memory & !0xfff) as *mut u64).add(7) = case as usize as u64 };
    let stack = (&raw mut EL0_STACK) as u64 + 4096;
    enter_el0(run_at_el0 as *const () as u64, memory, EL0, stack)
}

fn all(run: fn(Case, u64) -> u64) -> Result<(), Failure> {
    let memory = (&raw mut MEMORY) as u64;
    let cases: [(&'static str, Case); 5] = [
        ("sizes: case", sizes),
        ("pairs: case", pairs),
        ("failures: case", failures),
        ("oddities: case", oddities),
        ("across SVC: case", across_svc),
    ];
    for (name, case) in cases {
        check(name, run(case, memory), 0)?;
    }
    ALIGNMENT_FAULTS.store(0, Relaxed);
    run(unaligned, memory + 127);
    check("alignment faults", ALIGNMENT_FAULTS.load(Relaxed), 4)
}

fn run() -> Outcome {
    all(at_el1)?;
    all(at_el0)?;
    Ok(0)
}

stepwell_guests::guest!("exclusives", run, handle);
