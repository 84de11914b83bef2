//! What a step costs: EL2 instructions, counted exactly, and steps a second.
//!
//! Instructions come from QEMU's instruction counting: its counter then advances by one for each,
//! whatever the machine is doing besides, so that counts are the same in every run. The bench
//! prints them, and a test holds them to their limits.

pub mod bare;
pub mod stepped;

use anyhow::Result;
use std::path::PathBuf;

use bare::Bare;
use stepped::{Loop, Stepped};

/// Where the programs are that are measured.
#[derive(Clone, Debug)]
pub struct Programs {
    /// QEMU.
    pub qemu: PathBuf,
    /// The embedded one where it is not named.
    pub hypervisor: Option<PathBuf>,
}

/// EL2 instructions of one kind of step, silent and traced. Whole numbers but for what a run costs beside its steps.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What kind.
    pub title: &'static str,
    /// Without recording.
    pub silent: f64,
    /// Recorded.
    pub traced: f64,
}

/// Counts a step of the bare loop, and each kind of step: a plain one first, what a taken branch
/// adds second, then all others without the plain steps and the branch of the loop that they are
/// in.
///
/// # Errors
/// When a machine does not start or does not do as it should.
pub fn count(programs: &Programs) -> Result<(f64, Vec<Cost>)> {
    let bare = Bare::counted(programs)?.ticks_per_step() - 1.0;
    let mut stepped = Stepped::counted(programs)?;
    let silent = costs(&mut stepped, false)?;
    let traced = costs(&mut stepped, true)?;
    let pairs = silent.into_iter().zip(traced);
    let costs = pairs.map(|((title, silent), (_, traced))| Cost { title, silent, traced });
    Ok((bare, costs.collect()))
}

fn costs(stepped: &mut Stepped, record: bool) -> Result<Vec<(&'static str, f64)>> {
    let (basic, run) = (&Loop::BASIC, &Loop::RUN);
    let basic_turn = stepped.el2_per_turn(basic, record)?;
    let run_turn = stepped.el2_per_turn(run, record)?;
    // Both have one taken branch a turn, so that the difference is plain steps alone.
    let plain = (run_turn - basic_turn) / (run.plain_steps - basic.plain_steps) as f64;
    let mut costs = vec![(run.title, plain)];
    // A plain step is a whole number of instructions. What is over is the look, once in thousands of
    // steps, whether they get anywhere: in the long run there are some, in the others none or one.
    let plain = plain.round();
    let branch = basic_turn - plain * basic.plain_steps as f64;
    costs.push(("what a taken branch adds", branch));
    for kind in &Loop::OTHERS {
        let turn = stepped.el2_per_turn(kind, record)?;
        costs.push((kind.title, turn - branch - plain * kind.plain_steps as f64));
    }
    Ok(costs)
}
