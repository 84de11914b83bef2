//! What the firmware answers, and a CPU that is switched on, off and on again.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use stepwell_guests::hardware::cpus;
use stepwell_guests::hardware::psci::{AFFINITY_INFO, CPU_ON, FEATURES, VERSION, call};
use stepwell_guests::{instruction, read_register, write_register};

use crate::clock::{now, ticks};
use crate::{exclusives, value};

const OFF: u64 = 1;
/// How long another CPU is waited for: by the machine's clock, a stepper may need long to see that this
/// one waits.
const PATIENCE_US: u64 = 60_000_000;

/// How often the other CPU has come to its end.
static ENDS: AtomicU64 = AtomicU64::new(0);
/// The other CPU is to count, and how far it is.
static IS_WANTED: AtomicU64 = AtomicU64::new(0);
static TURNS: AtomicU64 = AtomicU64::new(0);
/// What the other CPU found.
static FOUND: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

extern "C" fn other() -> ! {
    let found = [
        read_register!("mpidr_el1"),
        read_register!("currentel"),
        read_register!("daif"),
        read_register!("spsel"),
        read_register!("sctlr_el1"),
        read_register!("mdscr_el1"),
        read_register!("tpidr_el1"),
        read_register!("cntkctl_el1") << 8 | read_register!("cntv_ctl_el0"),
    ];
    for (place, found) in FOUND.iter().zip(found) {
        place.store(found, SeqCst);
    }
    // Gone once it is off.
    write_register!("tpidr_el1", 0x1234);
    write_register!("cntkctl_el1", 3);
    write_register!("cntv_cval_el0", 1 << 60);
    write_register!("cntv_ctl_el0", 1);
    write_register!("dbgbcr0_el1", 0x1e4);
    ENDS.fetch_add(1, SeqCst);
    cpus::off()
}

/// Counts until it is told to end.
extern "C" fn companion() -> ! {
    while IS_WANTED.load(SeqCst) != 0 {
        TURNS.fetch_add(1, SeqCst);
    }
    ENDS.fetch_add(1, SeqCst);
    cpus::off()
}

/// Does something while the other CPU runs.
fn beside(act: impl FnOnce()) {
    IS_WANTED.store(1, SeqCst);
    TURNS.store(0, SeqCst);
    let ends = ENDS.load(SeqCst);
    value("cpus.companion", cpus::start(1, companion));
    wait_until(|| TURNS.load(SeqCst) > 0);
    act();
    IS_WANTED.store(0, SeqCst);
    wait_until(|| ENDS.load(SeqCst) > ends && is_off());
}

fn wait_until(is_so: impl Fn() -> bool) {
    let start = now();
    while !is_so() && now() - start < ticks(PATIENCE_US) {
        instruction!("isb");
    }
}

fn is_off() -> bool {
    call(AFFINITY_INFO, 1, 0, 0) == OFF
}

pub fn look() {
    for (name, function, argument) in [
        ("cpus.version", VERSION, 0),
        ("cpus.features-of-on", FEATURES, CPU_ON),
        ("cpus.features-of-suspend", FEATURES, 0xc400_0001),
        ("cpus.features-of-1.1", FEATURES, 0xc400_000e),
        ("cpus.unknown", 0x8400_00ff, 0),
        ("cpus.smccc", 0x8000_0000, 0),
        ("cpus.vendor", 0x8600_ff01, 0),
        ("cpus.on-itself", CPU_ON, 0),
        ("cpus.on-nobody", CPU_ON, 77),
        ("cpus.affinity", AFFINITY_INFO, 0),
        ("cpus.affinity-of-nobody", AFFINITY_INFO, 77),
        ("cpus.migrate-of-0.1", 0x95c1_ba61, 0),
    ] {
        value(name, call(function, argument, 0, 0));
    }
    if !is_off() {
        // A machine of one CPU.
        return value("cpus.affinity-of-1", call(AFFINITY_INFO, 1, 0, 0));
    }
    for name in ["cpus.first", "cpus.second"] {
        let ends = ENDS.load(SeqCst);
        value(name, cpus::start(1, other));
        wait_until(|| ENDS.load(SeqCst) > ends && is_off());
        for place in &FOUND {
            value(name, place.swap(u64::MAX, SeqCst));
        }
    }
    beside(exclusives::look_beside);
}
