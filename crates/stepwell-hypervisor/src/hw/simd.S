// FP/SIMD and SVE registers of the guest, in and out of memory. Never called while the compiler
// keeps anything there: it does not at all, by its target.
//
// The functions of SVE need a CPU that has it, CPTR_EL2.TZ clear, and PSTATE.SM clear. They go by
// ZCR_EL2's vector length; places are as far apart as the longest one that there is.

    .arch_extension fp
    .arch_extension simd

    .text

// void save_simd(u128 registers[32]): x0
    .balign 16
    .global save_simd
save_simd:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     q\n, [x0, #16 * \n]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    str     q\n, [x0, #16 * \n]
    .endr
    ret

// void load_simd(const u128 registers[32]): x0
    .balign 16
    .global load_simd
load_simd:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    ldr     q\n, [x0, #16 * \n]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    ldr     q\n, [x0, #16 * \n]
    .endr
    ret

    .arch_extension sve

// u64 vector_bytes(): x0
    .balign 16
    .global vector_bytes
vector_bytes:
    rdvl    x0, #1
    ret

// void save_sve(u8 z[32][256], u8 p[16][32], u8 ffr[32]): x0, x1, x2; clobbers x3
    .balign 16
    .global save_sve
save_sve:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     z\n, [x0]
    add     x0, x0, #256
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    str     z\n, [x0]
    add     x0, x0, #256
    .endr
    mov     x3, x1
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     p\n, [x1]
    add     x1, x1, #32
    .endr
    rdffr   p0.b
    str     p0, [x2]
    ldr     p0, [x3]
    ret

// void load_sve(const u8 z[32][256], const u8 p[16][32], const u8 ffr[32]): x0, x1, x2
    .balign 16
    .global load_sve
load_sve:
    ldr     p0, [x2]
    wrffr   p0.b
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    ldr     p\n, [x1]
    add     x1, x1, #32
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    ldr     z\n, [x0]
    add     x0, x0, #256
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    ldr     z\n, [x0]
    add     x0, x0, #256
    .endr
    ret

    .arch_extension nosve
    .arch_extension nosimd
    .arch_extension nofp
