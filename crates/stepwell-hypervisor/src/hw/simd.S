// FP/SIMD registers of the guest, in and out of memory. Never called while the compiler keeps
// anything there: it does not at all, by its target.

    .arch_extension fp
    .arch_extension simd

// void save_simd(u128 registers[32]): x0
    .text
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

    .arch_extension nosimd
    .arch_extension nofp
