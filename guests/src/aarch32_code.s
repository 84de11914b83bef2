    // A32 and T32 code, which an assembler for A64 does not know: words, with the text that they
    // were assembled from (by `llvm-mc -triple=armv8a` and `-triple=thumbv8a`). Branches name where
    // they lead by the offset in their function. Each ends by `svc #255` with its result in r0: 0,
    // or the number of the case that went wrong, which r11 holds.
    //
    // r0: memory. Its words from 48 on are r7 and r8, addresses that only EL1 may access, r9, one
    // that EL0 may only read, and the stack pointer. r12: bytes of an instruction that faults.

    .text
    .balign 4
    .globl a32_code
a32_code:
    .inst   0xe5907030      // 0: ldr r7, [r0, #48]
    .inst   0xe5908034      // 4: ldr r8, [r0, #52]
    .inst   0xe5909038      // 8: ldr r9, [r0, #56]
    .inst   0xe590d03c      // c: ldr sp, [r0, #60]
    .inst   0xe3a01000      // 10: mov r1, #0
    .inst   0xe5801000      // 14: str r1, [r0]
    .inst   0xe5801004      // 18: str r1, [r0, #4]
    .inst   0xe3a0b001      // 1c: mov r11, #1
    .inst   0xe5d01000      // 20: ldrb r1, [r0]
    // inc1:
    .inst   0xe1d02f9f      // 24: ldrexb r2, [r0]
    .inst   0xe2822001      // 28: add r2, r2, #1
    .inst   0xe1c03f92      // 2c: strexb r3, r2, [r0]
    .inst   0xe3530000      // 30: cmp r3, #0
    .inst   0x1afffffa      // 34: bne 0x24 <inc1>
    .inst   0xe5d04000      // 38: ldrb r4, [r0]
    .inst   0xe0444001      // 3c: sub r4, r4, r1
    .inst   0xe3540001      // 40: cmp r4, #1
    .inst   0x1a00010f      // 44: bne 0x488 <wrong>
    .inst   0xe3a0b002      // 48: mov r11, #2
    .inst   0xe1d010b0      // 4c: ldrh r1, [r0]
    // inc2:
    .inst   0xe1f02f9f      // 50: ldrexh r2, [r0]
    .inst   0xe2822001      // 54: add r2, r2, #1
    .inst   0xe1e03f92      // 58: strexh r3, r2, [r0]
    .inst   0xe3530000      // 5c: cmp r3, #0
    .inst   0x1afffffa      // 60: bne 0x50 <inc2>
    .inst   0xe1d040b0      // 64: ldrh r4, [r0]
    .inst   0xe0444001      // 68: sub r4, r4, r1
    .inst   0xe3540001      // 6c: cmp r4, #1
    .inst   0x1a000104      // 70: bne 0x488 <wrong>
    .inst   0xe3a0b003      // 74: mov r11, #3
    .inst   0xe5901000      // 78: ldr r1, [r0]
    // inc3:
    .inst   0xe1902f9f      // 7c: ldrex r2, [r0]
    .inst   0xe2822001      // 80: add r2, r2, #1
    .inst   0xe1803f92      // 84: strex r3, r2, [r0]
    .inst   0xe3530000      // 88: cmp r3, #0
    .inst   0x1afffffa      // 8c: bne 0x7c <inc3>
    .inst   0xe5904000      // 90: ldr r4, [r0]
    .inst   0xe0444001      // 94: sub r4, r4, r1
    .inst   0xe3540001      // 98: cmp r4, #1
    .inst   0x1a0000f9      // 9c: bne 0x488 <wrong>
    .inst   0xe3a0b004      // a0: mov r11, #4
    .inst   0xe5d01000      // a4: ldrb r1, [r0]
    // inc4:
    .inst   0xe1d02e9f      // a8: ldaexb r2, [r0]
    .inst   0xe2822001      // ac: add r2, r2, #1
    .inst   0xe1c03e92      // b0: stlexb r3, r2, [r0]
    .inst   0xe3530000      // b4: cmp r3, #0
    .inst   0x1afffffa      // b8: bne 0xa8 <inc4>
    .inst   0xe5d04000      // bc: ldrb r4, [r0]
    .inst   0xe0444001      // c0: sub r4, r4, r1
    .inst   0xe3540001      // c4: cmp r4, #1
    .inst   0x1a0000ee      // c8: bne 0x488 <wrong>
    .inst   0xe3a0b005      // cc: mov r11, #5
    .inst   0xe1d010b0      // d0: ldrh r1, [r0]
    // inc5:
    .inst   0xe1f02e9f      // d4: ldaexh r2, [r0]
    .inst   0xe2822001      // d8: add r2, r2, #1
    .inst   0xe1e03e92      // dc: stlexh r3, r2, [r0]
    .inst   0xe3530000      // e0: cmp r3, #0
    .inst   0x1afffffa      // e4: bne 0xd4 <inc5>
    .inst   0xe1d040b0      // e8: ldrh r4, [r0]
    .inst   0xe0444001      // ec: sub r4, r4, r1
    .inst   0xe3540001      // f0: cmp r4, #1
    .inst   0x1a0000e3      // f4: bne 0x488 <wrong>
    .inst   0xe3a0b006      // f8: mov r11, #6
    .inst   0xe5901000      // fc: ldr r1, [r0]
    // inc6:
    .inst   0xe1902e9f      // 100: ldaex r2, [r0]
    .inst   0xe2822001      // 104: add r2, r2, #1
    .inst   0xe1803e92      // 108: stlex r3, r2, [r0]
    .inst   0xe3530000      // 10c: cmp r3, #0
    .inst   0x1afffffa      // 110: bne 0x100 <inc6>
    .inst   0xe5904000      // 114: ldr r4, [r0]
    .inst   0xe0444001      // 118: sub r4, r4, r1
    .inst   0xe3540001      // 11c: cmp r4, #1
    .inst   0x1a0000d8      // 120: bne 0x488 <wrong>
    .inst   0xe3a0b007      // 124: mov r11, #7
    .inst   0xe1c040d0      // 128: ldrd r4, r5, [r0]
    // again7:
    .inst   0xe1b02f9f      // 12c: ldrexd r2, r3, [r0]
    .inst   0xe2922001      // 130: adds r2, r2, #1
    .inst   0xe2a33002      // 134: adc r3, r3, #2
    .inst   0xe1a01f92      // 138: strexd r1, r2, r3, [r0]
    .inst   0xe3510000      // 13c: cmp r1, #0
    .inst   0x1afffff9      // 140: bne 0x12c <again7>
    .inst   0xe5901000      // 144: ldr r1, [r0]
    .inst   0xe0411004      // 148: sub r1, r1, r4
    .inst   0xe3510001      // 14c: cmp r1, #1
    .inst   0x05901004      // 150: ldreq r1, [r0, #4]
    .inst   0x00411005      // 154: subeq r1, r1, r5
    .inst   0x03510002      // 158: cmpeq r1, #2
    .inst   0x1a0000c9      // 15c: bne 0x488 <wrong>
    .inst   0xe3a0b008      // 160: mov r11, #8
    // again8:
    .inst   0xe1b02e9f      // 164: ldaexd r2, r3, [r0]
    .inst   0xe0222003      // 168: eor r2, r2, r3
    .inst   0xe1a01e92      // 16c: stlexd r1, r2, r3, [r0]
    .inst   0xe3510000      // 170: cmp r1, #0
    .inst   0x1afffffa      // 174: bne 0x164 <again8>
    .inst   0xe3a0b009      // 178: mov r11, #9
    .inst   0xe1901f9f      // 17c: ldrex r1, [r0]
    .inst   0xf57ff01f      // 180: clrex
    .inst   0xe1802f91      // 184: strex r2, r1, [r0]
    .inst   0xe3520001      // 188: cmp r2, #1
    .inst   0x1a0000bd      // 18c: bne 0x488 <wrong>
    .inst   0xe3a0b00a      // 190: mov r11, #10
    .inst   0xe1901f9f      // 194: ldrex r1, [r0]
    .inst   0xe1802f91      // 198: strex r2, r1, [r0]
    .inst   0xe1803f91      // 19c: strex r3, r1, [r0]
    .inst   0xe3520000      // 1a0: cmp r2, #0
    .inst   0x03530001      // 1a4: cmpeq r3, #1
    .inst   0x1a0000b6      // 1a8: bne 0x488 <wrong>
    .inst   0xe3a0b00b      // 1ac: mov r11, #11
    .inst   0xe1901f9f      // 1b0: ldrex r1, [r0]
    .inst   0xef000001      // 1b4: svc #1
    .inst   0xe1802f91      // 1b8: strex r2, r1, [r0]
    .inst   0xe3520001      // 1bc: cmp r2, #1
    .inst   0x1a0000b0      // 1c0: bne 0x488 <wrong>
    .inst   0xe3a0b00c      // 1c4: mov r11, #12
    .inst   0xe2805008      // 1c8: add r5, r0, #8
    .inst   0xe1500000      // 1cc: cmp r0, r0
    .inst   0xe1901f9f      // 1d0: ldrex r1, [r0]
    .inst   0x11952f9f      // 1d4: ldrexne r2, [r5]
    .inst   0xe3a03005      // 1d8: mov r3, #5
    .inst   0x11853f92      // 1dc: strexne r3, r2, [r5]
    .inst   0xf57ff01f      // 1e0: clrex
    .inst   0x01804f91      // 1e4: strexeq r4, r1, [r0]
    .inst   0xe3530005      // 1e8: cmp r3, #5
    .inst   0x03540001      // 1ec: cmpeq r4, #1
    .inst   0x1a0000a4      // 1f0: bne 0x488 <wrong>
    .inst   0xe1500000      // 1f4: cmp r0, r0
    .inst   0x01901f9f      // 1f8: ldrexeq r1, [r0]
    .inst   0x11952f9f      // 1fc: ldrexne r2, [r5]
    .inst   0x01804f91      // 200: strexeq r4, r1, [r0]
    .inst   0xe3540000      // 204: cmp r4, #0
    .inst   0x1a00009e      // 208: bne 0x488 <wrong>
    .inst   0xe3a0b00d      // 20c: mov r11, #13
    .inst   0xe1a06000      // 210: mov r6, r0
    .inst   0xe1966f9f      // 214: ldrex r6, [r6]
    .inst   0xe1807f96      // 218: strex r7, r6, [r0]
    .inst   0xe3570000      // 21c: cmp r7, #0
    .inst   0x1a000098      // 220: bne 0x488 <wrong>
    .inst   0xe3a0b00e      // 224: mov r11, #14
    .inst   0xe1a0700d      // 228: mov r7, sp
    .inst   0xe24dd010      // 22c: sub sp, sp, #16
    .inst   0xe3a01028      // 230: mov r1, #40
    .inst   0xe58d1000      // 234: str r1, [sp]
    // again14:
    .inst   0xe19d2e9f      // 238: ldaex r2, [sp]
    .inst   0xe2822002      // 23c: add r2, r2, #2
    .inst   0xe18d3e92      // 240: stlex r3, r2, [sp]
    .inst   0xe3530000      // 244: cmp r3, #0
    .inst   0x1afffffa      // 248: bne 0x238 <again14>
    .inst   0xe59d2000      // 24c: ldr r2, [sp]
    .inst   0xe1a0d007      // 250: mov sp, r7
    .inst   0xe352002a      // 254: cmp r2, #42
    .inst   0x1a00008a      // 258: bne 0x488 <wrong>
    .inst   0xe3a0b00f      // 25c: mov r11, #15
    .inst   0xe3a01000      // 260: mov r1, #0
    .inst   0xe5801008      // 264: str r1, [r0, #8]
    .inst   0xe3a06014      // 268: mov r6, #20
    // outer15:
    .inst   0xe3a01001      // 26c: mov r1, #1
    // take15:
    .inst   0xe1902e9f      // 270: ldaex r2, [r0]
    .inst   0xe2805008      // 274: add r5, r0, #8
    // inner15:
    .inst   0xe1953f9f      // 278: ldrex r3, [r5]
    .inst   0xe2833001      // 27c: add r3, r3, #1
    .inst   0xe1854f93      // 280: strex r4, r3, [r5]
    .inst   0xe3540000      // 284: cmp r4, #0
    .inst   0x1afffffa      // 288: bne 0x278 <inner15>
    .inst   0xe2566001      // 28c: subs r6, r6, #1
    .inst   0x1afffff5      // 290: bne 0x26c <outer15>
    .inst   0xe5901008      // 294: ldr r1, [r0, #8]
    .inst   0xe3510014      // 298: cmp r1, #20
    .inst   0x1a000079      // 29c: bne 0x488 <wrong>
    .inst   0xe3a0b010      // 2a0: mov r11, #16
    .inst   0xf1010200      // 2a4: setend be
    .inst   0xe5901000      // 2a8: ldr r1, [r0]
    // again16:
    .inst   0xe1f02f9f      // 2ac: ldrexh r2, [r0]
    .inst   0xe2822001      // 2b0: add r2, r2, #1
    .inst   0xe1e03f92      // 2b4: strexh r3, r2, [r0]
    .inst   0xe3530000      // 2b8: cmp r3, #0
    .inst   0x1afffffa      // 2bc: bne 0x2ac <again16>
    .inst   0xe1b04f9f      // 2c0: ldrexd r4, r5, [r0]
    .inst   0xe2855003      // 2c4: add r5, r5, #3
    .inst   0xe1a03f94      // 2c8: strexd r3, r4, r5, [r0]
    .inst   0xe5902000      // 2cc: ldr r2, [r0]
    .inst   0xf1010000      // 2d0: setend le
    .inst   0xe0422001      // 2d4: sub r2, r2, r1
    .inst   0xe3520801      // 2d8: cmp r2, #65536
    .inst   0x03530000      // 2dc: cmpeq r3, #0
    .inst   0x1a000068      // 2e0: bne 0x488 <wrong>
    .inst   0xe3a0b011      // 2e4: mov r11, #17
    .inst   0xec532f1e      // 2e8: mrrc p15, #1, r2, r3, c14
    .inst   0xec554f1e      // 2ec: mrrc p15, #1, r4, r5, c14
    .inst   0xe0544002      // 2f0: subs r4, r4, r2
    .inst   0xe0d55003      // 2f4: sbcs r5, r5, r3
    .inst   0x3a000062      // 2f8: blo 0x488 <wrong>
    .inst   0xec532f0e      // 2fc: mrrc p15, #0, r2, r3, c14
    .inst   0xec554f0e      // 300: mrrc p15, #0, r4, r5, c14
    .inst   0xe0544002      // 304: subs r4, r4, r2
    .inst   0xe0d55003      // 308: sbcs r5, r5, r3
    .inst   0x3a00005d      // 30c: blo 0x488 <wrong>
    .inst   0xe1500000      // 310: cmp r0, r0
    .inst   0xe3a0404d      // 314: mov r4, #77
    .inst   0x1c554f1e      // 318: mrrcne p15, #1, r4, r5, c14
    .inst   0xe354004d      // 31c: cmp r4, #77
    .inst   0x1a000058      // 320: bne 0x488 <wrong>
    .inst   0xe3a0b012      // 324: mov r11, #18
    .inst   0xe3e02000      // 328: mvn r2, #0
    .inst   0xe3a03010      // 32c: mov r3, #16
    .inst   0xec432f3e      // 330: mcrr p15, #3, r2, r3, c14
    .inst   0xec554f3e      // 334: mrrc p15, #3, r4, r5, c14
    .inst   0xe1520004      // 338: cmp r2, r4
    .inst   0x01530005      // 33c: cmpeq r3, r5
    .inst   0x1a000050      // 340: bne 0x488 <wrong>
    .inst   0xe3a0b013      // 344: mov r11, #19
    .inst   0xe3a02003      // 348: mov r2, #3
    .inst   0xee0e2f33      // 34c: mcr p15, #0, r2, c14, c3, #1
    .inst   0xee1e3f33      // 350: mrc p15, #0, r3, c14, c3, #1
    .inst   0xe3a04000      // 354: mov r4, #0
    .inst   0xee0e4f33      // 358: mcr p15, #0, r4, c14, c3, #1
    .inst   0xe1520003      // 35c: cmp r2, r3
    .inst   0x1a000048      // 360: bne 0x488 <wrong>
    .inst   0xe3a0b014      // 364: mov r11, #20
    .inst   0xe3a02201      // 368: mov r2, #268435456
    .inst   0xee0e2f13      // 36c: mcr p15, #0, r2, c14, c3, #0
    .inst   0xee1e3f13      // 370: mrc p15, #0, r3, c14, c3, #0
    .inst   0xe1530002      // 374: cmp r3, r2
    .inst   0x8a000042      // 378: bhi 0x488 <wrong>
    .inst   0xee0e2f12      // 37c: mcr p15, #0, r2, c14, c2, #0
    .inst   0xee1e3f12      // 380: mrc p15, #0, r3, c14, c2, #0
    .inst   0xe1530002      // 384: cmp r3, r2
    .inst   0x8a00003e      // 388: bhi 0x488 <wrong>
    .inst   0xec442f2e      // 38c: mcrr p15, #2, r2, r4, c14
    .inst   0xec565f2e      // 390: mrrc p15, #2, r5, r6, c14
    .inst   0xe1520005      // 394: cmp r2, r5
    .inst   0x01540006      // 398: cmpeq r4, r6
    .inst   0x1a000039      // 39c: bne 0x488 <wrong>
    .inst   0xee1e3f32      // 3a0: mrc p15, #0, r3, c14, c2, #1
    .inst   0xe3130001      // 3a4: tst r3, #1
    .inst   0x1a000036      // 3a8: bne 0x488 <wrong>
    .inst   0xe3a0b015      // 3ac: mov r11, #21
    .inst   0xee102e10      // 3b0: mrc p14, #0, r2, c0, c0, #0
    .inst   0xe5802020      // 3b4: str r2, [r0, #32]
    .inst   0xee112e10      // 3b8: mrc p14, #0, r2, c1, c0, #0
    .inst   0xee123e10      // 3bc: mrc p14, #0, r3, c2, c0, #0
    .inst   0xe1922003      // 3c0: orrs r2, r2, r3
    .inst   0x1a00002f      // 3c4: bne 0x488 <wrong>
    .inst   0xec532e01      // 3c8: mrrc p14, #0, r2, r3, c1
    .inst   0xe1922003      // 3cc: orrs r2, r2, r3
    .inst   0x1a00002c      // 3d0: bne 0x488 <wrong>
    .inst   0xe3a0b016      // 3d4: mov r11, #22
    .inst   0x0f000123      // 3d8: svceq #291
    .inst   0x1f000124      // 3dc: svcne #292
    .inst   0xe3a0c004      // 3e0: mov r12, #4
    .inst   0xe7f000f0      // 3e4: udf #0
    .inst   0xe1203271      // 3e8: bkpt #801
    .inst   0xe1243271      // 3ec: bkpt #17185
    .inst   0xe1400070      // 3f0: hvc #0
    .inst   0xe1600070      // 3f4: smc #0
    .inst   0xee012f10      // 3f8: mcr p15, #0, r2, c1, c0, #0
    .inst   0xe5982000      // 3fc: ldr r2, [r8]
    .inst   0xe1803f92      // 400: strex r3, r2, [r0]
    .inst   0xe5882000      // 404: str r2, [r8]
    .inst   0xe2802001      // 408: add r2, r0, #1
    .inst   0xe1923f9f      // 40c: ldrex r3, [r2]
    .inst   0xe1b24f9f      // 410: ldrexd r4, r5, [r2]
    .inst   0x11923f9f      // 414: ldrexne r3, [r2]
    .inst   0xe3a0b017      // 418: mov r11, #23
    .inst   0xe12fff38      // 41c: blx r8
    .inst   0xe3a0b018      // 420: mov r11, #24
    .inst   0xe5991000      // 424: ldr r1, [r9]
    // again24:
    .inst   0xe1991f9f      // 428: ldrex r1, [r9]
    .inst   0xe1892f91      // 42c: strex r2, r1, [r9]
    .inst   0xe1b94f9f      // 430: ldrexd r4, r5, [r9]
    .inst   0xe1a92f94      // 434: strexd r2, r4, r5, [r9]
    .inst   0xe3a0b019      // 438: mov r11, #25
    .inst   0xe92d4007      // 43c: push {r0, r1, r2, lr}
    .inst   0xe28f104c      // 440: add r1, pc, #76
    .inst   0xe3811001      // 444: orr r1, r1, #1
    .inst   0xe12fff31      // 448: blx r1
    .inst   0xe8bd4007      // 44c: pop {r0, r1, r2, lr}
    .inst   0xe3560042      // 450: cmp r6, #66
    .inst   0x1a00000b      // 454: bne 0x488 <wrong>
    .inst   0xe3a0b01a      // 458: mov r11, #26
    .inst   0xe92d001f      // 45c: push {r0, r1, r2, r3, r4}
    .inst   0xe89d000f      // 460: ldm sp, {r0, r1, r2, r3}
    .inst   0xe28dd014      // 464: add sp, sp, #20
    .inst   0xe320f001      // 468: yield
    .inst   0xf57ff05b      // 46c: dmb ish
    .inst   0xee072fba      // 470: mcr p15, #0, r2, c7, c10, #5
    .inst   0xee1d2f70      // 474: mrc p15, #0, r2, c13, c0, #3
    .inst   0xe10f2000      // 478: mrs r2, apsr
    .inst   0xe128f002      // 47c: msr APSR_nzcvq, r2
    .inst   0xe3a00000      // 480: mov r0, #0
    .inst   0xef0000ff      // 484: svc #255
    // wrong:
    .inst   0xe1a0000b      // 488: mov r0, r11
    .inst   0xef0000ff      // 48c: svc #255
    .inst   0xeafffffc      // 490: b 0x488 <wrong>
    // thumb_part:
    .hword  0x2621          // 494: movs r6, #33
    .hword  0x42b6          // 496: cmp r6, r6
    .hword  0xbf08          // 498: it eq
    .hword  0x19b6          // 49a: addeq r6, r6, r6
    .hword  0x4770          // 49c: bx lr
    .hword  0xbf00          // 49e: nop
    .balign 4
    .globl t32_code
t32_code:
    .hword  0x6b07          // 0: ldr r7, [r0, #48]
    .hword  0xf8d0, 0x8034  // 2: ldr.w r8, [r0, #52]
    .hword  0xf8d0, 0x9038  // 6: ldr.w r9, [r0, #56]
    .hword  0xf8d0, 0xd03c  // a: ldr.w sp, [r0, #60]
    .hword  0x2100          // e: movs r1, #0
    .hword  0x6001          // 10: str r1, [r0]
    .hword  0x6041          // 12: str r1, [r0, #4]
    .hword  0xf04f, 0x0b01  // 14: mov.w r11, #1
    .hword  0x7801          // 18: ldrb r1, [r0]
    // inc1:
    .hword  0xe8d0, 0x2f4f  // 1a: ldrexb r2, [r0]
    .hword  0x3201          // 1e: adds r2, #1
    .hword  0xe8c0, 0x2f43  // 20: strexb r3, r2, [r0]
    .hword  0x2b00          // 24: cmp r3, #0
    .hword  0xd1f8          // 26: bne 0x1a <inc1>
    .hword  0x7804          // 28: ldrb r4, [r0]
    .hword  0x1a64          // 2a: subs r4, r4, r1
    .hword  0x2c01          // 2c: cmp r4, #1
    .hword  0xf040, 0x8124  // 2e: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b02  // 32: mov.w r11, #2
    .hword  0x8801          // 36: ldrh r1, [r0]
    // inc2:
    .hword  0xe8d0, 0x2f5f  // 38: ldrexh r2, [r0]
    .hword  0x3201          // 3c: adds r2, #1
    .hword  0xe8c0, 0x2f53  // 3e: strexh r3, r2, [r0]
    .hword  0x2b00          // 42: cmp r3, #0
    .hword  0xd1f8          // 44: bne 0x38 <inc2>
    .hword  0x8804          // 46: ldrh r4, [r0]
    .hword  0x1a64          // 48: subs r4, r4, r1
    .hword  0x2c01          // 4a: cmp r4, #1
    .hword  0xf040, 0x8115  // 4c: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b03  // 50: mov.w r11, #3
    .hword  0x6801          // 54: ldr r1, [r0]
    // inc3:
    .hword  0xe850, 0x2f00  // 56: ldrex r2, [r0]
    .hword  0x3201          // 5a: adds r2, #1
    .hword  0xe840, 0x2300  // 5c: strex r3, r2, [r0]
    .hword  0x2b00          // 60: cmp r3, #0
    .hword  0xd1f8          // 62: bne 0x56 <inc3>
    .hword  0x6804          // 64: ldr r4, [r0]
    .hword  0x1a64          // 66: subs r4, r4, r1
    .hword  0x2c01          // 68: cmp r4, #1
    .hword  0xf040, 0x8106  // 6a: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b04  // 6e: mov.w r11, #4
    .hword  0x7801          // 72: ldrb r1, [r0]
    // inc4:
    .hword  0xe8d0, 0x2fcf  // 74: ldaexb r2, [r0]
    .hword  0x3201          // 78: adds r2, #1
    .hword  0xe8c0, 0x2fc3  // 7a: stlexb r3, r2, [r0]
    .hword  0x2b00          // 7e: cmp r3, #0
    .hword  0xd1f8          // 80: bne 0x74 <inc4>
    .hword  0x7804          // 82: ldrb r4, [r0]
    .hword  0x1a64          // 84: subs r4, r4, r1
    .hword  0x2c01          // 86: cmp r4, #1
    .hword  0xf040, 0x80f7  // 88: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b05  // 8c: mov.w r11, #5
    .hword  0x8801          // 90: ldrh r1, [r0]
    // inc5:
    .hword  0xe8d0, 0x2fdf  // 92: ldaexh r2, [r0]
    .hword  0x3201          // 96: adds r2, #1
    .hword  0xe8c0, 0x2fd3  // 98: stlexh r3, r2, [r0]
    .hword  0x2b00          // 9c: cmp r3, #0
    .hword  0xd1f8          // 9e: bne 0x92 <inc5>
    .hword  0x8804          // a0: ldrh r4, [r0]
    .hword  0x1a64          // a2: subs r4, r4, r1
    .hword  0x2c01          // a4: cmp r4, #1
    .hword  0xf040, 0x80e8  // a6: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b06  // aa: mov.w r11, #6
    .hword  0x6801          // ae: ldr r1, [r0]
    // inc6:
    .hword  0xe8d0, 0x2fef  // b0: ldaex r2, [r0]
    .hword  0x3201          // b4: adds r2, #1
    .hword  0xe8c0, 0x2fe3  // b6: stlex r3, r2, [r0]
    .hword  0x2b00          // ba: cmp r3, #0
    .hword  0xd1f8          // bc: bne 0xb0 <inc6>
    .hword  0x6804          // be: ldr r4, [r0]
    .hword  0x1a64          // c0: subs r4, r4, r1
    .hword  0x2c01          // c2: cmp r4, #1
    .hword  0xf040, 0x80d9  // c4: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b07  // c8: mov.w r11, #7
    .hword  0xe9d0, 0x4500  // cc: ldrd r4, r5, [r0]
    // again7:
    .hword  0xe8d0, 0x267f  // d0: ldrexd r2, r6, [r0]
    .hword  0x3201          // d4: adds r2, #1
    .hword  0xf146, 0x0602  // d6: adc r6, r6, #2
    .hword  0xe8c0, 0x2671  // da: strexd r1, r2, r6, [r0]
    .hword  0x2900          // de: cmp r1, #0
    .hword  0xd1f6          // e0: bne 0xd0 <again7>
    .hword  0x6801          // e2: ldr r1, [r0]
    .hword  0x1b09          // e4: subs r1, r1, r4
    .hword  0x2901          // e6: cmp r1, #1
    .hword  0xbf02          // e8: ittt eq
    .hword  0x6841          // ea: ldreq r1, [r0, #4]
    .hword  0x1b49          // ec: subeq r1, r1, r5
    .hword  0x2902          // ee: cmpeq r1, #2
    .hword  0xf040, 0x80c3  // f0: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b08  // f4: mov.w r11, #8
    // again8:
    .hword  0xe8d0, 0x63ff  // f8: ldaexd r6, r3, [r0]
    .hword  0x405e          // fc: eors r6, r3
    .hword  0xe8c0, 0x63f1  // fe: stlexd r1, r6, r3, [r0]
    .hword  0x2900          // 102: cmp r1, #0
    .hword  0xd1f8          // 104: bne 0xf8 <again8>
    .hword  0xf04f, 0x0b09  // 106: mov.w r11, #9
    .hword  0x2100          // 10a: movs r1, #0
    .hword  0x6401          // 10c: str r1, [r0, #64]
    .hword  0x2500          // 10e: movs r5, #0
    .hword  0x2600          // 110: movs r6, #0
    // again9:
    .hword  0x4280          // 112: cmp r0, r0
    .hword  0xbf01          // 114: itttt eq
    .hword  0xe850, 0x1f10  // 116: ldrexeq r1, [r0, #64]
    .hword  0x3101          // 11a: addeq r1, #1
    .hword  0xe840, 0x1210  // 11c: strexeq r2, r1, [r0, #64]
    .hword  0x2507          // 120: moveq r5, #7
    .hword  0x2a00          // 122: cmp r2, #0
    .hword  0xd1f5          // 124: bne 0x112 <again9>
    .hword  0x4280          // 126: cmp r0, r0
    .hword  0xbf0b          // 128: itete eq
    .hword  0xe850, 0x1f10  // 12a: ldrexeq r1, [r0, #64]
    .hword  0x2601          // 12e: movne r6, #1
    .hword  0xe840, 0x1210  // 130: strexeq r2, r1, [r0, #64]
    .hword  0x2602          // 134: movne r6, #2
    .hword  0x6c01          // 136: ldr r1, [r0, #64]
    .hword  0x2901          // 138: cmp r1, #1
    .hword  0xbf04          // 13a: itt eq
    .hword  0x2d07          // 13c: cmpeq r5, #7
    .hword  0x2e00          // 13e: cmpeq r6, #0
    .hword  0xf040, 0x809b  // 140: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b0a  // 144: mov.w r11, #10
    .hword  0x4280          // 148: cmp r0, r0
    .hword  0xbf15          // 14a: itete ne
    .hword  0xe850, 0x2f10  // 14c: ldrexne r2, [r0, #64]
    .hword  0xe850, 0x1f00  // 150: ldrexeq r1, [r0]
    .hword  0xe850, 0x2f10  // 154: ldrexne r2, [r0, #64]
    .hword  0xe840, 0x1300  // 158: strexeq r3, r1, [r0]
    .hword  0x2b00          // 15c: cmp r3, #0
    .hword  0xf040, 0x808c  // 15e: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b0b  // 162: mov.w r11, #11
    .hword  0xe850, 0x1f00  // 166: ldrex r1, [r0]
    .hword  0xf3bf, 0x8f2f  // 16a: clrex
    .hword  0xe840, 0x1200  // 16e: strex r2, r1, [r0]
    .hword  0x2a01          // 172: cmp r2, #1
    .hword  0xf040, 0x8081  // 174: bne.w 0x27a <wrong>
    .hword  0xf04f, 0x0b0c  // 178: mov.w r11, #12
    .hword  0xe850, 0x1f00  // 17c: ldrex r1, [r0]
    .hword  0xdf01          // 180: svc #1
    .hword  0xe840, 0x1200  // 182: strex r2, r1, [r0]
    .hword  0x2a01          // 186: cmp r2, #1
    .hword  0xd177          // 188: bne 0x27a <wrong>
    .hword  0xf04f, 0x0b0d  // 18a: mov.w r11, #13
    .hword  0x2500          // 18e: movs r5, #0
    .hword  0x4280          // 190: cmp r0, r0
    .hword  0xbf0b          // 192: itete eq
    .hword  0xdf02          // 194: svceq #2
    .hword  0xdf03          // 196: svcne #3
    .hword  0x2509          // 198: moveq r5, #9
    .hword  0x2508          // 19a: movne r5, #8
    .hword  0x2d09          // 19c: cmp r5, #9
    .hword  0xd16c          // 19e: bne 0x27a <wrong>
    .hword  0xf04f, 0x0b0e  // 1a0: mov.w r11, #14
    .hword  0xec53, 0x2f1e  // 1a4: mrrc p15, #1, r2, r3, c14
    .hword  0xec56, 0x4f1e  // 1a8: mrrc p15, #1, r4, r6, c14
    .hword  0x1aa4          // 1ac: subs r4, r4, r2
    .hword  0x419e          // 1ae: sbcs r6, r3
    .hword  0xd363          // 1b0: blo 0x27a <wrong>
    .hword  0xec53, 0x2f0e  // 1b2: mrrc p15, #0, r2, r3, c14
    .hword  0x2203          // 1b6: movs r2, #3
    .hword  0xee0e, 0x2f33  // 1b8: mcr p15, #0, r2, c14, c3, #1
    .hword  0xee1e, 0x3f33  // 1bc: mrc p15, #0, r3, c14, c3, #1
    .hword  0x2400          // 1c0: movs r4, #0
    .hword  0xee0e, 0x4f33  // 1c2: mcr p15, #0, r4, c14, c3, #1
    .hword  0x429a          // 1c6: cmp r2, r3
    .hword  0xd157          // 1c8: bne 0x27a <wrong>
    .hword  0xf04f, 0x0b0f  // 1ca: mov.w r11, #15
    .hword  0xee10, 0x2e10  // 1ce: mrc p14, #0, r2, c0, c0, #0
    .hword  0x6a03          // 1d2: ldr r3, [r0, #32]
    .hword  0x6202          // 1d4: str r2, [r0, #32]
    .hword  0xf04f, 0x0b10  // 1d6: mov.w r11, #16
    .hword  0xf04f, 0x0c02  // 1da: mov.w r12, #2
    .hword  0xde00          // 1de: udf #0
    .hword  0xbe55          // 1e0: bkpt #85
    .hword  0x4280          // 1e2: cmp r0, r0
    .hword  0xbf04          // 1e4: itt eq
    .hword  0xbe56          // 1e6: bkpt #86
    .hword  0x2501          // 1e8: moveq r5, #1
    .hword  0xf04f, 0x0c04  // 1ea: mov.w r12, #4
    .hword  0xf7f0, 0xa000  // 1ee: udf.w #0
    .hword  0xf7e0, 0x8000  // 1f2: hvc.w #0
    .hword  0xf7f0, 0x8000  // 1f6: smc #0
    .hword  0xf8d8, 0x2000  // 1fa: ldr.w r2, [r8]
    .hword  0xf04f, 0x0c02  // 1fe: mov.w r12, #2
    .hword  0x683a          // 202: ldr r2, [r7]
    .hword  0x4280          // 204: cmp r0, r0
    .hword  0xbf06          // 206: itte eq
    .hword  0x683a          // 208: ldreq r2, [r7]
    .hword  0x2502          // 20a: moveq r5, #2
    .hword  0x2503          // 20c: movne r5, #3
    .hword  0x1c42          // 20e: adds r2, r0, #1
    .hword  0xf04f, 0x0c04  // 210: mov.w r12, #4
    .hword  0xe852, 0x3f00  // 214: ldrex r3, [r2]
    .hword  0x4280          // 218: cmp r0, r0
    .hword  0xbf0c          // 21a: ite eq
    .hword  0xe8d2, 0x467f  // 21c: ldrexdeq r4, r6, [r2]
    .hword  0x2503          // 220: movne r5, #3
    .hword  0x2d02          // 222: cmp r5, #2
    .hword  0xd129          // 224: bne 0x27a <wrong>
    .hword  0xf04f, 0x0b11  // 226: mov.w r11, #17
    .hword  0x47c0          // 22a: blx r8
    .hword  0xf04f, 0x0b12  // 22c: mov.w r11, #18
    .hword  0xe859, 0x1f00  // 230: ldrex r1, [r9]
    .hword  0x4280          // 234: cmp r0, r0
    .hword  0xbf04          // 236: itt eq
    .hword  0xe849, 0x1200  // 238: strexeq r2, r1, [r9]
    .hword  0x2504          // 23c: moveq r5, #4
    .hword  0x2d04          // 23e: cmp r5, #4
    .hword  0xd11b          // 240: bne 0x27a <wrong>
    .hword  0xf04f, 0x0b13  // 242: mov.w r11, #19
    .hword  0xf000, 0xf81b  // 246: bl 0x280 <subroutine>
    .hword  0x2e05          // 24a: cmp r6, #5
    .hword  0xd115          // 24c: bne 0x27a <wrong>
    .hword  0xa10e          // 24e: adr r1, #56 <table>
    .hword  0x4788          // 250: blx r1
    .hword  0x2e06          // 252: cmp r6, #6
    .hword  0xd111          // 254: bne 0x27a <wrong>
    .hword  0xf20f, 0x0108  // 256: adr.w r1, #8
    .hword  0x2201          // 25a: movs r2, #1
    .hword  0xe8df, 0xf002  // 25c: tbb [pc, r2]
    // table:
    .hword  0x0201          // 260: .byte 1, 2
    .hword  0xe00a          // 262: b 0x27a <wrong>
    .hword  0xb14a          // 264: cbz r2, 0x27a <wrong>
    .hword  0xf3af, 0x8000  // 266: nop.w
    .hword  0xbf10          // 26a: yield
    .hword  0xbf40          // 26c: sev
    .hword  0xf3bf, 0x8f5b  // 26e: dmb ish
    .hword  0xf3ef, 0x8200  // 272: mrs r2, apsr
    .hword  0x2000          // 276: movs r0, #0
    .hword  0xdfff          // 278: svc #255
    // wrong:
    .hword  0x4658          // 27a: mov r0, r11
    .hword  0xdfff          // 27c: svc #255
    .hword  0xe7fc          // 27e: b 0x27a <wrong>
    // subroutine:
    .hword  0xb510          // 280: push {r4, lr}
    .hword  0x2605          // 282: movs r6, #5
    .hword  0xbd10          // 284: pop {r4, pc}
    .hword  0xbf00          // 286: nop
    // arm_part:
    .inst   0xe3a06006      // 288: mov r6, #6
    .inst   0xe12fff1e      // 28c: bx lr
    .balign 4
    .globl a32_contended
a32_contended:
    .inst   0xe5907030      // 0: ldr r7, [r0, #48]
    .inst   0xe5908034      // 4: ldr r8, [r0, #52]
    .inst   0xe5909038      // 8: ldr r9, [r0, #56]
    .inst   0xe590d03c      // c: ldr sp, [r0, #60]
    .inst   0xe3a05c03      // 10: mov r5, #768
    .inst   0xe3a06000      // 14: mov r6, #0
    // again1:
    .inst   0xe1901f9f      // 18: ldrex r1, [r0]
    .inst   0xe2811001      // 1c: add r1, r1, #1
    .inst   0xe1802f91      // 20: strex r2, r1, [r0]
    .inst   0xe3520000      // 24: cmp r2, #0
    .inst   0x1afffffa      // 28: bne 0x18 <again1>
    // again2:
    .inst   0xe1b02f9f      // 2c: ldrexd r2, r3, [r0]
    .inst   0xe2922001      // 30: adds r2, r2, #1
    .inst   0xe2a33000      // 34: adc r3, r3, #0
    .inst   0xe1a01f92      // 38: strexd r1, r2, r3, [r0]
    .inst   0xe3510000      // 3c: cmp r1, #0
    .inst   0x1afffff9      // 40: bne 0x2c <again2>
    .inst   0xe315007f      // 44: tst r5, #127
    .inst   0x0320f003      // 48: wfieq
    .inst   0xe2555001      // 4c: subs r5, r5, #1
    .inst   0x1afffff0      // 50: bne 0x18 <again1>
    .inst   0xe1a00006      // 54: mov r0, r6
    .inst   0xef0000ff      // 58: svc #255
    .balign 4
    .globl t32_contended
t32_contended:
    .hword  0x6b07          // 0: ldr r7, [r0, #48]
    .hword  0xf8d0, 0x8034  // 2: ldr.w r8, [r0, #52]
    .hword  0xf8d0, 0x9038  // 6: ldr.w r9, [r0, #56]
    .hword  0xf8d0, 0xd03c  // a: ldr.w sp, [r0, #60]
    .hword  0xf240, 0x3500  // e: movw r5, #768
    // again1:
    .hword  0xe850, 0x1f02  // 12: ldrex r1, [r0, #8]
    .hword  0x3101          // 16: adds r1, #1
    .hword  0x4280          // 18: cmp r0, r0
    .hword  0xbf04          // 1a: itt eq
    .hword  0xe840, 0x1202  // 1c: strexeq r2, r1, [r0, #8]
    .hword  0x2a00          // 20: cmpeq r2, #0
    .hword  0xd1f6          // 22: bne 0x12 <again1>
    // again2:
    .hword  0xe8d0, 0x1f5f  // 24: ldrexh r1, [r0]
    .hword  0x3101          // 28: adds r1, #1
    .hword  0xe8c0, 0x1f52  // 2a: strexh r2, r1, [r0]
    .hword  0x2a00          // 2e: cmp r2, #0
    .hword  0xd1f8          // 30: bne 0x24 <again2>
    .hword  0xf015, 0x0f7f  // 32: tst.w r5, #127
    .hword  0xbf04          // 36: itt eq
    .hword  0xbf30          // 38: wfieq
    .hword  0x3601          // 3a: addeq r6, #1
    .hword  0x3d01          // 3c: subs r5, #1
    .hword  0xd1e8          // 3e: bne 0x12 <again1>
    .hword  0x2000          // 40: movs r0, #0
    .hword  0xdfff          // 42: svc #255
    .balign 4
    .globl stepped_code
stepped_code:
    .hword  0x2102          // 0: movs r1, #2
    // back:
    .hword  0x2901          // 2: cmp r1, #1
    .hword  0xbf0c          // 4: ite eq
    .hword  0x2201          // 6: moveq r2, #1
    .hword  0xf04f, 0x0202  // 8: movne.w r2, #2
    .hword  0xe850, 0x3f01  // c: ldrex r3, [r0, #4]
    .hword  0xbf18          // 10: it ne
    .hword  0xe850, 0x4f02  // 12: ldrexne r4, [r0, #8]
    .hword  0xe840, 0x3601  // 16: strex r6, r3, [r0, #4]
    .hword  0x3901          // 1a: subs r1, #1
    .hword  0xd1f1          // 1c: bne 0x2 <back>
    .hword  0xa402          // 1e: adr r4, #8 <back+0x22>
    .hword  0x47a0          // 20: blx r4
    .hword  0x2000          // 22: movs r0, #0
    .hword  0xdfff          // 24: svc #255
    .hword  0xbf00          // 26: nop
    // arm_part:
    .inst   0xe3500000      // 28: cmp r0, #0
    .inst   0x12822001      // 2c: addne r2, r2, #1
    .inst   0x02822002      // 30: addeq r2, r2, #2
    .inst   0xe12fff1e      // 34: bx lr
    .balign 4
