// The switch between EL2 and the guest, the vectors, and the fast path of a step.
//
// While the guest runs, SP_EL2 points to its GuestContext, whose layout (CTX_*) world.rs pins to
// the Rust structure. EL2 runs with DAIF masked throughout: no exception is ever taken from EL2 to
// EL2 but for a bug of ours.

// Loads all of the guest but X0 to X3. In: X0, its context. SP points to that afterwards.
    .macro  LOAD_GUEST
    stp     x29, x30, [sp, #-96]!
    stp     x27, x28, [sp, #16]
    stp     x25, x26, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x21, x22, [sp, #64]
    stp     x19, x20, [sp, #80]
    mov     x1, sp
    str     x1, [x0, #CTX_HOST_SP]
    mov     sp, x0
    ldp     x1, x2, [sp, #CTX_ELR]      // ELR, SPSR
    msr     elr_el2, x1
    msr     spsr_el2, x2
    ldr     x1, [sp, #CTX_SP_EL0]
    msr     sp_el0, x1
    ldr     x30, [sp, #8 * 30]
    ldp     x28, x29, [sp, #8 * 28]
    ldp     x26, x27, [sp, #8 * 26]
    ldp     x24, x25, [sp, #8 * 24]
    ldp     x22, x23, [sp, #8 * 22]
    ldp     x20, x21, [sp, #8 * 20]
    ldp     x18, x19, [sp, #8 * 18]
    ldp     x16, x17, [sp, #8 * 16]
    ldp     x14, x15, [sp, #8 * 14]
    ldp     x12, x13, [sp, #8 * 12]
    ldp     x10, x11, [sp, #8 * 10]
    ldp     x8, x9, [sp, #8 * 8]
    ldp     x6, x7, [sp, #8 * 6]
    ldp     x4, x5, [sp, #8 * 4]
    .endm

// u64 enter_guest(GuestContext *context)
//
// Loads the guest and runs it up to its next exit that the fast path does not take. Returns which
// vector that was: 0 synchronous, 1 IRQ, 2 FIQ, 3 SError. Keeps what the procedure call standard
// asks for; the guest's FP/SIMD registers are never touched.
    .text
    .balign 64
    .global enter_guest
enter_guest:
    LOAD_GUEST
    ldp     x2, x3, [sp, #8 * 2]
    ldp     x0, x1, [sp]
    eret
    dsb     nsh                         // no speculation past ERET
    isb

// u64 enter_guest_counted(GuestContext *context)
//
// As enter_guest, where the counter counts instructions. CTX_LAG is the ticks of what follows the
// reading of CNTPCT_EL0, less what the guest's counter is to show; so that CNTVOFF_EL2 makes it show
// that when the guest is entered. CTX_UNTIL is what it shows when EL2's own timer is to interrupt it.
    .balign 64
    .global enter_guest_counted
enter_guest_counted:
    LOAD_GUEST
    ldp     x2, x3, [sp, #CTX_LAG]
    mrs     x0, cntpct_el0
    add     x0, x0, x2                  // ENTRY_INSTRUCTIONS: from here to ERET
    add     x1, x0, x3
    msr     cntvoff_el2, x0
    msr     cnthp_cval_el2, x1
    ldp     x2, x3, [sp, #8 * 2]
    ldp     x0, x1, [sp]
    eret
    dsb     nsh
    isb

// What the guest's counter shows, EXIT_INSTRUCTIONS after its last instruction.
leave_guest_counted:
    mrs     x1, cntvct_el0
    str     x1, [sp, #CTX_CLOCK]
// Saves the rest of the guest and returns from enter_guest. x0 to x3 are saved; x0: the vector.
leave_guest:
    stp     x4, x5, [sp, #8 * 4]
    stp     x6, x7, [sp, #8 * 6]
    stp     x8, x9, [sp, #8 * 8]
    stp     x10, x11, [sp, #8 * 10]
    stp     x12, x13, [sp, #8 * 12]
    stp     x14, x15, [sp, #8 * 14]
    stp     x16, x17, [sp, #8 * 16]
    stp     x18, x19, [sp, #8 * 18]
    stp     x20, x21, [sp, #8 * 20]
    stp     x22, x23, [sp, #8 * 22]
    stp     x24, x25, [sp, #8 * 24]
    stp     x26, x27, [sp, #8 * 26]
    stp     x28, x29, [sp, #8 * 28]
    mrs     x1, sp_el0
    stp     x30, x1, [sp, #8 * 30]      // x30, SP_EL0
    mrs     x1, elr_el2
    mrs     x2, spsr_el2
    stp     x1, x2, [sp, #CTX_ELR]
    mrs     x1, esr_el2
    mrs     x2, far_el2
    stp     x1, x2, [sp, #CTX_ESR]
    mrs     x1, hpfar_el2
    str     x1, [sp, #CTX_HPFAR]
    ldr     x1, [sp, #CTX_HOST_SP]
    mov     sp, x1
    ldp     x19, x20, [sp, #80]
    ldp     x21, x22, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #32]
    ldp     x27, x28, [sp, #16]
    ldp     x29, x30, [sp], #96
    ret

// One exit that has no fast path. \vector: what enter_guest returns.
    .macro  EXIT vector, leave=leave_guest
    .balign 0x80
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    mov     x0, #\vector
    b       \leave
    .endm

// An exception from EL2 itself: a bug of ours. \vector: for the message.
    .macro  FAULT vector
    .balign 0x80
    mrs     x0, esr_el2
    mrs     x1, elr_el2
    mrs     x2, far_el2
    mov     x3, #\vector
    b       el2_fault_entry
    .endm

    .balign 0x800
    .global vectors
vectors:
    FAULT 0                             // current EL, SP_EL0
    FAULT 1
    FAULT 2
    FAULT 3
    FAULT 4                             // current EL, SP_EL2
    FAULT 5
    FAULT 6
    FAULT 7
    .balign 0x80                        // lower EL, AArch64: synchronous
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    mrs     x0, esr_el2
    ldr     x1, [sp, #CTX_FAST_ESR]     // a plain step's syndrome, or 0 where none is fast
    cmp     x0, x1
    b.eq    fast_step
    mov     x0, #0
    b       leave_guest
    EXIT 1
    EXIT 2
    EXIT 3
    EXIT 0                              // lower EL, AArch32
    EXIT 1
    EXIT 2
    EXIT 3

// The same where instructions are counted: each exit takes as many, and none is fast.
    .balign 0x800
    .global vectors_counted
vectors_counted:
    .irp    vector, 0, 1, 2, 3, 4, 5, 6, 7
    FAULT   \vector
    .endr
    .irp    vector, 0, 1, 2, 3, 0, 1, 2, 3 // lower EL, AArch64, then AArch32
    EXIT    \vector, leave_guest_counted
    .endr

// The fast path: a plain instruction was stepped, and the next one is plain too, lies in a page
// whose translation is known, and may execute without anybody being asked. Anything else leaves.
    .balign 64
fast_step:
    mrs     x2, elr_el2
    ubfx    x1, x2, #12, #CTX_PAGE_BITS // direct-mapped by the low bits of the page number
    add     x1, sp, x1, lsl #4
    add     x1, x1, #CTX_PAGES
    ldp     x1, x3, [x1]                // page's virtual address, page at EL2
    eor     x1, x1, x2                  // offset in the page, if it is this page
    tst     x1, #0xfffffffffffff003     // another page, or a misaligned PC
    b.ne    .Lslow
    ldr     w3, [x3, x1]                // the next instruction
    ldr     x0, [sp, #CTX_ATTENTION]
    lsr     w1, w3, #24
    ldrb    w1, [x0, x1]
    cbnz    w1, .Lattention
.Lplain:
    ldr     x0, [sp, #CTX_BUDGET]
    cbz     x0, .Lslow                  // the last step that was asked for
    ldr     x1, [sp, #CTX_RUN_NEXT]
    cbnz    x1, .Lrecord
.Lgo:
    sub     x0, x0, #1
    str     x0, [sp, #CTX_BUDGET]
    mrs     x0, spsr_el2
    orr     x0, x0, #(1 << 21)          // SPSR_EL2.SS: execute one more
    msr     spsr_el2, x0
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    eret
    dsb     nsh
    isb
.Lrecord:                               // lengthen the current run of the trace,
    cmp     x1, x2
    b.ne    .Ljump
    add     x1, x1, #4
    str     x1, [sp, #CTX_RUN_NEXT]
    b       .Lgo
.Ljump:                                 // or write it as a near record, and begin the next
    stp     x4, x5, [sp, #8 * 4]
    ldr     x3, [sp, #CTX_RUN_START]
    ldp     x4, x5, [sp, #CTX_RING_BASE] // full PC that near records build on, where to write
    eor     x4, x4, x3
    tst     x4, #RING_FAR_BITS          // too far for a near record
    b.ne    .Lslow_saved
    ldr     x4, [sp, #CTX_RING_END]
    cmp     x5, x4                      // no room, as far as is known
    b.eq    .Lslow_saved
    sub     x1, x1, x3                  // 4 times the run's length
    ubfx    x4, x3, #RING_NEAR_SHIFT, #RING_LENGTH_SHIFT
    orr     x4, x4, x1, lsl #RING_LENGTH_SHIFT - RING_NEAR_SHIFT
    ldr     x1, [sp, #CTX_RING_TAG]
    orr     x4, x4, x1                  // kind and vCPU
    str     x4, [x5], #8
    str     x5, [sp, #CTX_RING_AT]
    add     x1, x2, #4
    stp     x2, x1, [sp, #CTX_RUN_START]
    ldp     x4, x5, [sp, #8 * 4]
    b       .Lgo
.Lslow_saved:
    ldp     x4, x5, [sp, #8 * 4]
    b       .Lslow
.Lattention:                            // always, or system: ask the bitmap, or branch: bit 23
    cmp     w1, #ATTENTION_SYSTEM       // between the others
    b.lo    .Lslow
    b.hi    .Lbranch
    ubfx    w1, w3, #8, #16
    add     x0, x0, #256
    ldrb    w1, [x0, x1]
    ubfx    w3, w3, #5, #3
    lsr     w1, w1, w3
    tbnz    w1, #0, .Lslow
    b       .Lplain
.Lbranch:
    tbz     w3, #23, .Lplain
.Lslow:
    mov     x0, #0
    b       leave_guest

// SP may be the guest's context or the host's stack; the handler never returns, so it gets a
// stack of its own.
el2_fault_entry:
    adrp    x4, fault_stack_end
    add     x4, x4, :lo12:fault_stack_end
    mov     sp, x4
    b       el2_fault

    .ltorg

    .section .bss.fault, "aw", @nobits
    .balign 16
    .skip   0x4000
fault_stack_end:
