//! The image's head, the entry of each CPU and the exception vectors.
//!
//! The head is the 64 bytes of the arm64 Linux boot protocol, then the *notes*: a table of
//! addresses by which a test that has only the image finds the guest's places (`tests/src/guest.rs`
//! reads it). Its order is part of the contract between the two.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .head, "ax"
    .globl _head
_head:
    b       _start
    .long   0
    .quad   0               // text_offset
    .quad   image_size
    .quad   0xa             // little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0
    // The notes.
    .ascii  "GSTNOTES"
    .quad   vectors
    .quad   interrupt_return
    .quad   timed_start
    .quad   timed_end
    .quad   exact_end
    .quad   loop_start
    .quad   loop_end

    .section .text.start, "ax"
    .globl _start
_start:
    adrp    x1, stack_top
    add     x1, x1, :lo12:stack_top
    mov     sp, x1
    adrp    x2, bss_start
    add     x2, x2, :lo12:bss_start
    adrp    x3, bss_end
    add     x3, x3, :lo12:bss_end
1:  cmp     x2, x3
    b.hs    2f
    stp     xzr, xzr, [x2], #16
    b       1b
2:  adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    isb
    bl      guest_main
3:  b       3b

    // A secondary CPU: x0 is the top of its stack, with the function to call right below it.
    .globl secondary_start
secondary_start:
    mov     sp, x0
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    isb
    ldr     x1, [x0, #-8]
    sub     sp, sp, #16
    blr     x1
3:  b       3b

    // Saves a frame (exception.rs, Frame) and leaves it in x0.
    .macro  save_frame kind
    sub     sp, sp, #288
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    mov     x0, #\kind
    .endm

    .section .vectors, "ax"
    .balign 0x800
    .globl vectors
vectors:
    .irp kind, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 0x80
    save_frame \kind
    .if \kind % 4 == 1
    b       interrupt_entry
    .else
    b       exception_entry
    .endif
    .endr

    .macro  call_handler
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, elr_el1
    stp     x30, x1, [sp, #240]
    mrs     x1, spsr_el1
    mrs     x2, esr_el1
    stp     x1, x2, [sp, #256]
    mrs     x1, far_el1
    stp     x1, x0, [sp, #272]
    mov     x0, sp
    bl      guest_exception
    ldp     x30, x1, [sp, #240]
    ldr     x2, [sp, #256]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #288
    .endm

    .balign 0x80
exception_entry:
    call_handler
    eret
    // Apart from other exceptions, so that a reader of a trace can tell the end of an interrupt.
interrupt_entry:
    call_handler
    .globl interrupt_return
interrupt_return:
    eret

    // enter_el0(entry, argument, spsr, stack): returns x0 of the code's `svc #0xff`.
    .section .text.enter_el0, "ax"
    .globl enter_el0
enter_el0:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    msr     elr_el1, x0
    msr     spsr_el1, x2
    msr     sp_el0, x3
    isb
    mov     x0, x1
    eret
    .globl leave_el0
leave_el0:
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #96
    ret
    .text
"#
);
