//! Runs the cases, and checks what the guest itself can see of them.

use core::cell::UnsafeCell;

use super::declaration::{Case, Caught, D, ElrPlace, Handler, Level, Needs, Run, UNMAPPED, class};
use super::{FIQ, IRQ, cases};
use crate::hardware::gic::{self, GICR_SGI, ISPENDR};
use crate::hardware::{read32, timer, uart};
use crate::report::{Failure, Outcome, check, line, require};
use crate::{instruction, read_register, write_register};

const UART: u64 = 0x0900_0000;
/// Words of data that X0 points at.
const DATA_WORDS: usize = 8;
/// Exceptions that are written down: many more than any case raises.
const NOTES_MAX: usize = 256;
/// SPSR_EL1: SS, IL, DAIF and the exception level.
const SPSR_CHECKED: u64 = 1 << 21 | 1 << 20 | 0x3c0 | 0xc;
const SS: u64 = 1 << 21;

unsafe extern "C" {
    fn conform_run(entry: *const Entry);
    fn conform_end();
    fn conform_return();
    fn conform_skip();
    fn conform_link();
    fn conform_legal();
    fn conform_to_el1();
    fn conform_step();
    fn conform_step_skip();
    fn conform_clear();
}

/// What `conform_run` loads. Its layout is that of `machine.rs`.
#[repr(C)]
struct Entry {
    code: u64,
    spsr: u64,
    handler: u64,
    notes: *mut Note,
    interrupts: *mut Interrupt,
    finals: *mut Finals,
    mdscr: u64,
    sp_el0: u64,
    data: *mut u64,
    unmapped: u64,
    uart: u64,
}

/// What a handler writes down.
#[repr(C)]
#[derive(Clone, Copy)]
struct Note {
    esr: u64,
    elr: u64,
    spsr: u64,
    far: u64,
    daif: u64,
    mdscr: u64,
}

/// What the interrupt handler writes down.
#[repr(C)]
#[derive(Clone, Copy)]
struct Interrupt {
    intid: u64,
    spsr: u64,
    elr: u64,
    unused: u64,
}

/// What a case leaves behind.
#[repr(C)]
struct Finals {
    x: [u64; 10],
    notes_end: u64,
    interrupts_end: u64,
}

#[repr(C, align(4096))]
struct Memory {
    data: [u64; DATA_WORDS],
    notes: [Note; NOTES_MAX],
    interrupts: [Interrupt; 16],
    finals: Finals,
    stack: [u128; 32],
}

struct Shared(UnsafeCell<Memory>);
// SAFETY: one CPU, and no handler of the cases runs while this module looks at it.
unsafe impl Sync for Shared {}

const NO_NOTE: Note = Note { esr: 0, elr: 0, spsr: 0, far: 0, daif: 0, mdscr: 0 };
const NO_INTERRUPT: Interrupt = Interrupt { intid: 0, spsr: 0, elr: 0, unused: 0 };

static MEMORY: Shared = Shared(UnsafeCell::new(Memory {
    data: [0; DATA_WORDS],
    notes: [NO_NOTE; NOTES_MAX],
    interrupts: [NO_INTERRUPT; 16],
    finals: Finals { x: [0; 10], notes_end: 0, interrupts_end: 0 },
    stack: [0; 32],
}));

fn address_of(handler: Handler) -> u64 {
    let function = match handler {
        Handler::Return => conform_return,
        Handler::Skip => conform_skip,
        Handler::Link => conform_link,
        Handler::Legal => conform_legal,
        Handler::ToEl1 => conform_to_el1,
        Handler::Step => conform_step,
        Handler::StepSkip => conform_step_skip,
        Handler::Clear => conform_clear,
    };
    function as *const () as u64
}

#[unsafe(no_mangle)]
extern "C" fn conform_unexpected() -> ! {
    crate::report::finish(
        "conform",
        Err(Failure::new("an exception at a vector of nobody", read_register!("esr_el1"), 0)),
    )
}

/// Makes the timer's interrupt pending, and waits until the GIC knows.
fn make_pending() -> bool {
    write_register!("cntv_cval_el0", 0);
    write_register!("cntv_ctl_el0", 1);
    // Bounded, without a clock: under a stepper that holds interrupts the clock may stop.
    (0..100_000).any(|_| read32(GICR_SGI + ISPENDR) & 1 << timer::INTID != 0)
}

fn prepare_debugging(case: &Case, code: u64, level: Level) {
    // PMC or PAC: 1 is EL1, 2 is EL0.
    let privilege = if level == Level::El1 { 1 } else { 2 };
    if let Some(instruction) = case.breakpoint {
        write_register!("dbgbvr0_el1", code + 4 * instruction);
        write_register!("dbgbcr0_el1", 0xf << 5 | privilege << 1 | 1);
    }
    if let Some(accesses) = case.watchpoint {
        write_register!("dbgwvr0_el1", MEMORY.0.get() as u64);
        write_register!("dbgwcr0_el1", 0xff << 5 | accesses << 3 | privilege << 1 | 1);
    }
    write_register!("oslar_el1", u64::from(case.os_lock));
}

fn put_back() {
    write_register!("oslar_el1", 0);
    write_register!("dbgbcr0_el1", 0);
    write_register!("dbgwcr0_el1", 0);
    timer::stop();
    write_register!("cntp_cval_el0", u64::MAX >> 1);
    instruction!("isb");
}

/// Executes one run of a case and checks it. Tells how many interrupts it took.
fn run_one(case: &Case, code: u64, run: Run) -> Result<u64, Failure> {
    let memory = MEMORY.0.get();
    gic::set_group_1(0, timer::INTID, !case.fast);
    if run.pending {
        require("the timer's interrupt becomes pending", make_pending())?;
    }
    prepare_debugging(case, code, run.level);
    // SAFETY: `memory` is `MEMORY`, which nobody else looks at; the case runs on registers that
    // `conform_run` saves, and writes nowhere else.
    unsafe {
        (*memory).data = [0; DATA_WORDS];
        let entry = Entry {
            code,
            spsr: case.pstate | if run.level == Level::El1 { 5 } else { 0 },
            handler: address_of(case.handler),
            notes: (&raw mut (*memory).notes).cast(),
            interrupts: (&raw mut (*memory).interrupts).cast(),
            finals: &raw mut (*memory).finals,
            mdscr: case.mdscr,
            sp_el0: (&raw mut (*memory).stack).add(1) as u64,
            data: (&raw mut (*memory).data).cast(),
            unmapped: UNMAPPED,
            uart: UART,
        };
        conform_run(&raw const entry);
    }
    put_back();
    // SAFETY: as for Sync.
    examine(case, code, run, unsafe { &*memory })
}

fn examine(case: &Case, code: u64, run: Run, memory: &Memory) -> Result<u64, Failure> {
    let notes_start = memory.notes.as_ptr() as u64;
    let count = (memory.finals.notes_end - notes_start) as usize / size_of::<Note>();
    let notes = memory.notes.get(..count).unwrap_or(&[]);
    require("so many exceptions can be written down", notes.len() == count)?;
    let seen = examine_notes(case, case.catches, code, run, notes);
    match (seen, &case.departure) {
        (Err(_), Some(departure)) => examine_notes(case, departure.catches, code, run, notes)?,
        (seen, _) => seen?,
    }
    for &(register, value) in case.leaves {
        check("a final register", memory.finals.x[register], value)?;
    }
    let interrupts_start = memory.interrupts.as_ptr() as u64;
    let taken = (memory.finals.interrupts_end - interrupts_start) / size_of::<Interrupt>() as u64;
    require("no interrupt but the pending one", taken <= u64::from(run.pending))?;
    if taken == 1 {
        let interrupt = &memory.interrupts[0];
        check("INTID", interrupt.intid, timer::INTID.into())?;
        let ss = if case.interrupted_ss { SS } else { 0 };
        // What masks the interrupt is what the case has unmasked; the other mask is its own
        // business.
        let (mask, other) = if case.fast { (FIQ, IRQ) } else { (IRQ, FIQ) };
        let spsr = case.pstate & !mask & !other & !SS | ss;
        check("SPSR of the interrupt", interrupt.spsr & (SS | 0x3c0) & !other, spsr)?;
    }
    Ok(taken)
}

fn examine_notes(
    case: &Case,
    catches: &[Caught],
    code: u64,
    run: Run,
    notes: &[Note],
) -> Result<(), Failure> {
    check("exceptions", notes.len() as u64, catches.len() as u64)?;
    for (note, caught) in notes.iter().zip(catches) {
        examine_note(case, caught, code, run, note)?;
    }
    Ok(())
}

fn examine_note(
    case: &Case,
    caught: &Caught,
    code: u64,
    run: Run,
    note: &Note,
) -> Result<(), Failure> {
    let from = caught.from.unwrap_or(run.level);
    let seen = note.esr >> 26;
    let wanted = match caught.class {
        class::UNKNOWN_OR_TRAP if seen == class::SYSTEM_REGISTER => seen,
        class::UNKNOWN_OR_TRAP => class::UNKNOWN,
        class::INSTRUCTION_ABORT
        | class::DATA_ABORT
        | class::BREAKPOINT
        | class::SOFTWARE_STEP
        | class::WATCHPOINT
            if from == Level::El0 =>
        {
            caught.class - 1
        }
        other => other,
    };
    check("ESR.EC", seen, wanted)?;
    let elr = match caught.elr {
        ElrPlace::Code(instruction) => code + 4 * instruction,
        ElrPlace::Bytes(bytes) => code + bytes,
        ElrPlace::Unmapped => UNMAPPED,
        ElrPlace::Device => UART,
        ElrPlace::End => conform_end as *const () as u64,
    };
    check("ELR", note.elr, elr)?;
    let level = if from == Level::El1 { 4 } else { 0 };
    check("SPSR", note.spsr & SPSR_CHECKED, caught.spsr | level)?;
    if let Some(far) = caught.far {
        check("FAR", note.far, far)?;
    }
    check("DAIF in the handler", note.daif, 0x140 | D | IRQ)?;
    if !case.writes_mdscr {
        check("MDSCR_EL1 in the handler", note.mdscr, case.mdscr)?;
    }
    Ok(())
}

fn has(needs: Needs) -> bool {
    match needs {
        Needs::Nothing => true,
        Needs::Atomics => read_register!("id_aa64isar0_el1") >> 20 & 0xf >= 2,
    }
}

fn report(case: &Case, run: Run, failure: &Failure) {
    uart::write("conform: ");
    uart::write(case.name);
    uart::write(if run.level == Level::El1 { " at EL1" } else { " at EL0" });
    uart::write(if run.pending { ", interrupted: " } else { ", uninterrupted: " });
    failure.print();
    line("");
}

fn digit(value: u64) -> u8 {
    b'0'.saturating_add(value.min(9) as u8)
}

/// Runs all cases. Prints a line for each that fails, and one with how many interrupts each run
/// took: `-` for one that the CPU cannot run, `x` for one that failed.
///
/// # Errors
/// When any failed.
pub fn run() -> Outcome {
    write_register!("oslar_el1", 0);
    // EL0 may read the counters and use the timers (EL0PCTEN, EL0VCTEN, EL0VTEN, EL0PTEN).
    write_register!("cntkctl_el1", 0x303);
    gic::start(0);
    gic::enable_group_0();
    gic::enable(0, timer::INTID);
    super::mapping::start();
    let mut digits = [0_u8; 512];
    let (mut count, mut failed) = (0, 0);
    for (group, code) in cases::GROUPS.iter().zip(cases::CODE) {
        for (case, start) in group.1.iter().zip(code) {
            for run in case.runs() {
                let result = if has(case.needs) {
                    run_one(case, *start as *const () as u64, run).map(digit)
                } else {
                    Ok(b'-')
                };
                if let Err(failure) = &result {
                    failed += 1;
                    report(case, run, failure);
                }
                if let Some(place) = digits.get_mut(count) {
                    *place = result.unwrap_or(b'x');
                }
                count += 1;
            }
        }
    }
    uart::write("conform: interrupts ");
    for digit in digits.iter().take(count) {
        uart::put(*digit);
    }
    line("");
    super::mapping::stop();
    check("failed", failed, 0)?;
    Ok(count as u64)
}
