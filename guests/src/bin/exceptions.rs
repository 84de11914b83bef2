//! Synchronous exceptions, and what ESR, ELR, SPSR and DAIF say of each.
//!
//! SPSR_EL1.SS must be 0 each time: whoever steps this guest must not let it see that.

#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "a guest is bare-metal code: its topic is what the machine does")]

use core::arch::global_asm;
use core::cell::UnsafeCell;

use stepwell_guests::exception::{EL0, EL1H, Frame, IL, SS, class, enter_el0};
use stepwell_guests::report::{Failure, Outcome, check, require};
use stepwell_guests::{instruction, read_register, translation};

global_asm!(
    r#"
    .text
    .globl do_svc, do_undefined, do_brk, do_load, do_store, do_jump, do_illegal_return, do_hint
    .globl do_svc_twice, do_el1t_load, do_bad_el1_access, do_nested, el0_leave
do_svc:
    svc     #0x1234
    ret
do_svc_twice:
    svc     #1
    svc     #2
    ret
do_undefined:
    udf     #0
    ret
do_brk:
    brk     #0xabc
    ret
do_load:
    ldr     x0, [x0]
    ret
do_store:
    str     x0, [x0]
    ret
do_jump:
    stp     x29, x30, [sp, #-16]!
    blr     x0
    ldp     x29, x30, [sp], #16
    ret
do_nested:
    svc     #0x200
    ret
    // ERET to EL2, which is above: PSTATE.IL is set, and the next instruction faults.
do_illegal_return:
    mov     x1, #0x3c9
    msr     spsr_el1, x1
    adr     x1, 1f
    msr     elr_el1, x1
    isb
    eret
1:  nop
    ret
    // On SP_EL0, misaligned, at EL1.
do_el1t_load:
    msr     spsel, #0
    mov     x1, sp
    mov     sp, x0
    ldr     x0, [sp]
    mov     sp, x1
    msr     spsel, #1
    ret
    // Registers that EL0 has no access to.
do_bad_el1_access:
    mrs     x0, sctlr_el1
    msr     vbar_el1, x0
    ret

    // x0: structure of a function and its argument, run at EL0.
    .globl run_at_el0
run_at_el0:
    ldp     x1, x0, [x0]
    blr     x1
el0_leave:
    svc     #0xff
"#
);

unsafe extern "C" {
    safe fn do_svc(x: u64) -> u64;
    safe fn do_svc_twice(x: u64) -> u64;
    safe fn do_undefined(x: u64) -> u64;
    safe fn do_brk(x: u64) -> u64;
    safe fn do_load(x: u64) -> u64;
    safe fn do_store(x: u64) -> u64;
    safe fn do_jump(x: u64) -> u64;
    safe fn do_nested(x: u64) -> u64;
    safe fn do_illegal_return(x: u64) -> u64;
    safe fn do_el1t_load(x: u64) -> u64;
    safe fn do_bad_el1_access(x: u64) -> u64;
    fn run_at_el0();
}

type Case = extern "C" fn(u64) -> u64;

/// What was caught since the last look.
struct Caught {
    count: usize,
    frames: [Option<Frame>; 4],
    daif: u64,
}

struct Shared(UnsafeCell<Caught>);
// SAFETY: one CPU, and the handler runs only where the code asks for it.
unsafe impl Sync for Shared {}
static CAUGHT: Shared = Shared(UnsafeCell::new(Caught { count: 0, frames: [None; 4], daif: 0 }));

#[repr(C, align(4096))]
struct Stack([u64; 1024]);
static mut EL0_STACK: Stack = Stack([0; 1024]);
static mut CALL: [u64; 2] = [0; 2];

fn handle(frame: &mut Frame) {
    if frame.wants_to_leave() {
        frame.leave_el0();
        return;
    }
    // SAFETY: as for Sync.
    let caught = unsafe { &mut *CAUGHT.0.get() };
    if let Some(slot) = caught.frames.get_mut(caught.count) {
        *slot = Some(*frame);
    }
    caught.count += 1;
    caught.daif = read_register!("daif");
    match frame.class() {
        class::SVC if frame.immediate() == 0x200 => instruction!("svc #0x201"),
        class::SVC => {}
        class::ILLEGAL_STATE => frame.spsr &= !IL,
        class::INSTRUCTION_ABORT | class::INSTRUCTION_ABORT_LOWER | class::PC_ALIGNMENT => {
            frame.elr = frame.x[30];
        }
        class::UNKNOWN
        | 0x18
        | class::BRK
        | class::DATA_ABORT
        | class::DATA_ABORT_LOWER
        | class::SP_ALIGNMENT => frame.elr += 4,
        _ => stepwell_guests::exception::unexpected(frame),
    }
}

/// What one exception should look like.
struct Expected {
    name: &'static str,
    case: Case,
    argument: u64,
    class: u64,
    /// Syndrome bits that are checked, and their value.
    iss: (u64, u64),
    /// ELR, from the start of the function; None where it is the argument.
    elr: Option<u64>,
    far: Option<u64>,
}

fn take() -> (usize, [Option<Frame>; 4], u64) {
    // SAFETY: as for Sync.
    let caught = unsafe { &mut *CAUGHT.0.get() };
    let seen = (caught.count, caught.frames, caught.daif);
    caught.count = 0;
    caught.frames = [None; 4];
    seen
}

fn call_at_el0(case: Case, argument: u64, daif: u64, alias: u64) {
    let call = &raw mut CALL;
    // SAFETY: only this CPU uses it.
    unsafe { *call = [case as usize as u64 + alias, argument] };
    let stack = (&raw mut EL0_STACK) as u64 + 8192 + alias;
    let spsr = (EL0 & !0x3c0) | daif;
    enter_el0(run_at_el0 as *const () as u64 + alias, call as u64 + alias, spsr, stack);
}

fn examine(expected: &Expected, el0: bool, daif: u64, alias: u64) -> Result<(), Failure> {
    if el0 {
        call_at_el0(expected.case, expected.argument, daif, alias);
    } else {
        (expected.case)(expected.argument);
    }
    let (count, frames, handler_daif) = take();
    check(expected.name, count as u64, 1)?;
    let Some(frame) = frames[0] else { return Err(Failure::new(expected.name, 0, 1)) };
    let class = match expected.class {
        class::DATA_ABORT | class::INSTRUCTION_ABORT if el0 => expected.class - 1,
        other => other,
    };
    check(expected.name, frame.class(), class)?;
    check("syndrome", frame.esr & expected.iss.0, expected.iss.1)?;
    let elr =
        expected.elr.map_or(expected.argument, |at| expected.case as usize as u64 + at + alias);
    check("ELR", frame.elr, elr)?;
    if let Some(far) = expected.far {
        check("FAR", frame.far, far)?;
    }
    check("vector", frame.vector, if el0 { 8 } else { 4 })?;
    check("SPSR.SS", frame.spsr & SS, 0)?;
    check("SPSR.IL", frame.spsr & IL, 0)?;
    check("SPSR.M", frame.spsr & 0x1f, if el0 { 0 } else { EL1H & 0x1f })?;
    check("SPSR.DAIF", frame.spsr & 0x3c0, daif)?;
    check("DAIF in the handler", handler_daif, 0x3c0)?;
    check("CurrentEL", read_register!("currentel"), 4)
}

fn mmu_off_cases(el0: bool, daif: u64) -> Result<(), Failure> {
    let none = (0, 0);
    let cases = [
        Expected {
            name: "SVC",
            case: do_svc,
            argument: 0,
            class: class::SVC,
            iss: (0xffff, 0x1234),
            elr: Some(4),
            far: None,
        },
        Expected {
            name: "undefined",
            case: do_undefined,
            argument: 0,
            class: class::UNKNOWN,
            iss: none,
            elr: Some(0),
            far: None,
        },
        Expected {
            name: "BRK",
            case: do_brk,
            argument: 0,
            class: class::BRK,
            iss: (0xffff, 0xabc),
            elr: Some(0),
            far: None,
        },
        Expected {
            name: "PC alignment",
            case: do_jump,
            argument: do_svc as *const () as u64 + 2,
            class: class::PC_ALIGNMENT,
            iss: none,
            elr: None,
            far: Some(do_svc as *const () as u64 + 2),
        },
    ];
    for expected in &cases {
        examine(expected, el0, daif, 0)?;
    }
    Ok(())
}

fn abort(name: &'static str, case: Case, argument: u64, class: u64, iss: (u64, u64)) -> Expected {
    let elr = if class == class::DATA_ABORT { Some(0) } else { None };
    Expected { name, case, argument, class, iss, elr, far: Some(argument) }
}

fn mmu_on_cases() -> Result<(), Failure> {
    translation::start();
    let hole = translation::UNMAPPED;
    let data = class::DATA_ABORT;
    let fetch = class::INSTRUCTION_ABORT;
    let el0 = translation::EL0_ALIAS;
    let read_only = 0x4020_0000 + translation::READ_ONLY_ALIAS;
    let own = 0x4020_0000;
    for (expected, at_el0) in [
        (abort("load, no translation", do_load, hole, data, (0x7f, 0x05)), false),
        (abort("store, no translation", do_store, hole + 64, data, (0x7f, 0x45)), false),
        (abort("fetch, no translation", do_jump, hole, fetch, (0x3f, 0x05)), false),
        (abort("store, read-only", do_store, read_only, data, (0x7f, 0x4d)), false),
        (abort("fetch from a device", do_jump, 0x0900_0000, fetch, (0x3f, 0x0d)), false),
        (abort("beyond 39 bits", do_load, 1 << 40, data, (0x7f, 0x04)), false),
        (abort("EL0 load, no translation", do_load, hole, data, (0x7f, 0x05)), true),
        (abort("EL0 store, EL1's page", do_store, own, data, (0x7f, 0x4d)), true),
        (abort("EL0 fetch, no translation", do_jump, hole, fetch, (0x3f, 0x05)), true),
    ] {
        examine(&expected, at_el0, 0x3c0, if at_el0 { el0 } else { 0 })?;
    }
    translation::stop();
    Ok(())
}

fn sequences() -> Result<(), Failure> {
    do_svc_twice(0);
    check("two SVCs", take().0 as u64, 2)?;
    do_nested(0);
    let (count, frames, _) = take();
    check("nested SVC", count as u64, 2)?;
    if let [Some(outer), Some(inner), ..] = frames {
        check("outer", outer.immediate(), 0x200)?;
        check("inner", inner.immediate(), 0x201)?;
        check("inner SPSR", inner.spsr & (SS | 0x3c0 | 0x1f), EL1H)?;
    }
    do_illegal_return(0);
    let (count, frames, _) = take();
    check("illegal return", count as u64, 1)?;
    if let Some(frame) = frames[0] {
        check("illegal state", frame.class(), class::ILLEGAL_STATE)?;
        check("SPSR.IL", frame.spsr & IL, IL)?;
        check("SPSR.SS", frame.spsr & SS, 0)?;
    }
    call_at_el0(do_bad_el1_access, 0, 0x3c0, 0);
    let (count, frames, _) = take();
    check("EL1 registers at EL0", count as u64, 2)?;
    if let Some(frame) = frames[0] {
        check("undefined at EL0", frame.class(), class::UNKNOWN)?;
        check("SPSR.SS at EL0", frame.spsr & SS, 0)?;
    }
    // Some machines don't check SP alignment; those that do must say so.
    do_el1t_load((&raw mut EL0_STACK) as u64 + 8);
    let (count, frames, _) = take();
    if let Some(frame) = frames[0] {
        check("SP alignment", frame.class(), class::SP_ALIGNMENT)?;
        check("its vector", frame.vector, 0)?;
    }
    require("at most one", count <= 1)
}

fn run() -> Outcome {
    for daif in [0x3c0, 0x3c0 & !0x200, 0] {
        mmu_off_cases(true, daif)?;
    }
    mmu_off_cases(false, read_register!("daif"))?;
    instruction!("msr daifclr, #8");
    mmu_off_cases(false, 0x1c0)?;
    instruction!("msr daifset, #8");
    sequences()?;
    mmu_on_cases()?;
    Ok(0)
}

stepwell_guests::guest!("exceptions", run, handle);
