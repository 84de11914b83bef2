// The arm64 Image header and the way from the boot loader to Rust, for the boot CPU and for the
// others. See Linux's "Booting AArch64 Linux" for the header's fields and for what a CPU is like
// when it comes here: MMU off, and nothing of the image but what was loaded in order in memory.
//
// The image is linked at 0 and runs wherever it was put: addresses here are relative to the PC, and
// those that the compiler wrote into data are made right first of all.

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

    .macro address register, symbol
    adrp    \register, \symbol
    add     \register, \register, :lo12:\symbol
    .endm

// x0 is the device tree. x19 to x21 hold, until Rust is called for good: tree, exception level,
// early tables.
primary_start:
    msr     daifset, #0xf
    mov     x19, x0
    mrs     x20, CurrentEL
    lsr     x20, x20, #2
    cmp     x20, #2
    b.ne    1f
    bl      prepare_el2
1:
    // Nothing that the loader left in the caches may come over what is written with the MMU off.
    // What it loaded is written back; where it loaded nothing, there is nothing to keep.
    address x0, image_start
    address x1, bss_start
    bl      clean_invalidate
    address x0, bss_start
    address x1, bss_end
    bl      invalidate

    // R_AARCH64_RELATIVE (Arm IHI 0056, "Relocation types"): the linker leaves no others.
    address x0, image_start
    address x1, relocations_start
    address x2, relocations_end
.Lrelocate:
    cmp     x1, x2
    b.hs    .Lrelocated
    ldr     x3, [x1], #16               // where
    ldr     x4, [x1], #8                // what, as if the image lay at 0
    add     x4, x4, x0
    str     x4, [x0, x3]
    b       .Lrelocate
.Lrelocated:
    address x1, early_stack_end
    mov     sp, x1
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x20
    bl      early_main                  // does not return where there is no going on

    address x1, bss_start
    address x2, bss_end
.Lclear_bss:
    stp     xzr, xzr, [x1], #16
    cmp     x1, x2
    b.lo    .Lclear_bss
    address x1, boot_stack_end
    mov     sp, x1
    mov     x0, x19
    bl      early_tables                // nor does this
    mov     x21, x0
    // What was written with the MMU off is in memory; what the caches have of it is older.
    address x0, image_start
    address x1, image_end
    bl      invalidate
    mov     x1, x21
    bl      enable_mmu
    mov     x0, x19
    bl      primary_main
    b       park

// x0 is what PSCI was told: the address of a SecondaryStart, whose fields SECONDARY_* name.
    .global secondary_start
secondary_start:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    park
    mov     x19, x0
    bl      prepare_el2
    ldr     x1, [x19, #SECONDARY_TABLES]
    bl      enable_mmu
    ldr     x1, [x19, #SECONDARY_STACK]
    mov     sp, x1
    mov     x29, xzr
    ldr     x0, [x19, #SECONDARY_CPU]
    bl      secondary_main

park:
    wfe
    b       park

// What a boot loader may have left otherwise: EL2 by itself (HCR_EL2.E2H = 0), its MMU off, and
// vectors for a bug of ours to die in. Clobbers x0.
prepare_el2:
    mov     x0, #(1 << 31)              // HCR_EL2: RW alone
    msr     hcr_el2, x0
    isb
    ldr     x0, =0x30c50830             // SCTLR_EL2: RES1 alone
    msr     sctlr_el2, x0
    address x0, vectors
    msr     vbar_el2, x0
    isb
    ret

// Turns the EL2 MMU and caches on. x1: level 0 table. Clobbers x2, x3.
enable_mmu:
    ldr     x2, =0xff04                 // MAIR: 0 device nGnRE, 1 normal write-back
    msr     mair_el2, x2
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf                // PARange
    cmp     x2, #5                      // 48 bits is all that 4 KiB pages take without LPA
    mov     x3, #5
    csel    x2, x3, x2, hi
    lsl     x2, x2, #16                 // TCR_EL2.PS
    ldr     x3, =0x80803510             // RES1, inner shareable, write-back walks, T0SZ 16
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

// Data cache maintenance to the point of coherency, for the lines of x0 up to x1. Clobbers x0, x2,
// x3.
    .macro by_line operation
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4             // DminLine, log2 of words
    mov     x3, #4
    lsl     x2, x3, x2
    sub     x3, x2, #1
    bic     x0, x0, x3
2:  dc      \operation, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    2b
    dsb     sy
    ret
    .endm

clean_invalidate:
    by_line civac
invalidate:
    by_line ivac

    .ltorg

    // Part of what is loaded: whether there is RAM for the rest is not known yet.
    .section .data.early, "aw"
    .balign 16
    .skip   EARLY_STACK_BYTES
early_stack_end:

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .skip   BOOT_STACK_BYTES            // domains are built, and moved, on this one
    .global boot_stack_end
boot_stack_end:
