// What both sides of `cargo xtask bench` step through: eight instructions a turn, x9 turns.
//
// Loads, stores and arithmetic in about the proportion of compiled code, one taken branch, and
// nothing that a stepper has to look at twice. x1: a word of RAM.
    .macro  stepped_loop
1:  ldr     x2, [x1]
    add     x2, x2, x9
    str     x2, [x1]
    eor     x3, x3, x2
    lsr     x4, x3, #7
    and     x5, x4, #0xff
    subs    x9, x9, #1
    b.ne    1b
    .endm
