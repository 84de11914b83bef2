// The arm64 Image header and the way from the boot loader to Rust, for the boot CPU and for the
// others. See Linux's "Booting AArch64 Linux" for the header's fields.
//
// Register contract: x0 holds the device tree (boot CPU) or the PSCI context, which is the CPU's
// number (others), until Rust is called with it as the first argument.

    .section .text.image, "ax"
    .balign 4096
    .global image_start
image_start:
    b       primary_start               // code0
    .word   0                           // code1
    .quad   0                           // text_offset
    .quad   image_bytes                 // image_size
    .quad   0xa                         // flags: little-endian, 4 KiB pages, anywhere in RAM
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .word   0

primary_start:
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    .Lnot_el2
    // The image is linked to run where it is loaded: refuse to run elsewhere.
    adr     x1, image_start
    ldr     x2, =image_base
    cmp     x1, x2
    b.ne    .Lpark
    ldr     x1, =bss_start
    ldr     x2, =bss_end
.Lclear_bss:
    stp     xzr, xzr, [x1], #16
    cmp     x1, x2
    b.lo    .Lclear_bss
    ldr     x1, =vectors                // a bug of ours from here on has a vector to die in
    msr     vbar_el2, x1
    // The first table: 1 GiB blocks, identity. Block 0 holds the devices of the board, the rest
    // is RAM. Rust replaces it by one that knows the sections.
    ldr     x1, =boot_table
    ldr     x2, =0x401                  // block, AttrIndx 0 (device), AF, no execute
    orr     x2, x2, #(1 << 54)
    str     x2, [x1]
    mov     x3, #1
    ldr     x4, =0x705                  // block, AttrIndx 1 (normal), inner shareable, AF
.Lfill_table:
    orr     x5, x4, x3, lsl #30
    str     x5, [x1, x3, lsl #3]
    add     x3, x3, #1
    cmp     x3, #512
    b.lo    .Lfill_table
    dsb     sy
    bl      enable_mmu
    ldr     x1, =boot_stack_end
    mov     sp, x1
    bl      primary_main
    b       .Lpark

    .global secondary_start
secondary_start:
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    .Lpark
    ldr     x1, =boot_table
    bl      enable_mmu
    ldr     x1, =secondary_stacks
    ldr     x2, =SECONDARY_STACK_BYTES
    madd    x1, x0, x2, x1              // stack of CPU n ends where that of CPU n + 1 begins
    mov     sp, x1
    bl      secondary_main
    b       .Lpark

.Lnot_el2:
    // Nothing of ours works below EL2, and nothing is up to say so but a PL011, if this is `virt`.
    mov     x1, #0x09000000
    adr     x2, .Lnot_el2_text
1:  ldrb    w3, [x2], #1
    cbz     w3, .Lpark
    strb    w3, [x1]
    b       1b
.Lpark:
    wfe
    b       .Lpark
.Lnot_el2_text:
    .asciz  "stepwell: must be started at EL2 (QEMU: -machine virt,virtualization=on)\r\n"
    .balign 4

// Turns the EL2 MMU and caches on. x1: table. Keeps x0. Clobbers x2, x3.
enable_mmu:
    ldr     x2, =0xff04                 // MAIR: 0 device nGnRE, 1 normal write-back
    msr     mair_el2, x2
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf                // PARange
    cmp     x2, #5                      // 48 bits is all that 4 KiB pages take without LPA
    mov     x3, #5
    csel    x2, x3, x2, hi
    lsl     x2, x2, #16                 // TCR_EL2.PS
    ldr     x3, =0x80803519             // RES1, inner shareable, write-back walks, T0SZ 25
    orr     x2, x2, x3
    msr     tcr_el2, x2
    msr     ttbr0_el2, x1
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    ldr     x2, =0x30c5183d             // RES1, I, SA, C, M
    msr     sctlr_el2, x2
    isb
    ret

    .ltorg

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_table
boot_table:
    .skip   4096
    .balign 16
    .skip   0x200000                    // domains are built, and moved, on this one
boot_stack_end:
    .global secondary_stacks
    // CPU 0 has the boot stack; 1 to 7 are here.
secondary_stacks:
    .skip   SECONDARY_STACK_BYTES * 8
