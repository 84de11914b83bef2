//! `cargo xtask soak`: random programs, stepped and unstepped, for as long as one likes.

use std::time::Duration;

use anyhow::Result;

use crate::{build, guests, process, setup, test};

/// For the build, and for the programs that are under way when the time is over.
const MORE: Duration = Duration::from_secs(30 * 60);
/// For each boot of a machine that counts instructions, or for ten ways to positions of it.
const BOOT_SECONDS: u64 = 300;

/// Compares random programs, stepped and unstepped, and tells what they covered
///
/// Ctrl-C ends it with the log of what was covered so far. See docs/soak.md.
#[derive(clap::Args)]
pub struct Soak {
    /// How long; an hour has to cover everything
    #[arg(long, value_name = "N", default_value_t = 5)]
    minutes: u64,
    /// Seed of the first program; the others count up from it [default: the time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many programs at most
    #[arg(long, value_name = "N")]
    programs: Option<u64>,
    /// Programs at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: u64,
    /// Blocks of the program that a failure was shrunk to
    #[arg(long, value_name = "N,N…")]
    blocks: Option<String>,
    /// Interrupts between four vCPUs instead, one of them stepped beside the others, while threads of
    /// the machine are suspended at random: none may be 10 ms late
    #[arg(long)]
    interrupts: bool,
    /// The guest that looks for a debugger instead, running freely and under every interrupt policy
    /// with every clock and every policy for the other vCPUs, as many as there is time for, in an order
    /// that is drawn from --seed: see docs/stealth.md
    #[arg(long, conflicts_with = "interrupts")]
    detector: bool,
    /// So many times a random position of a Debian boot on four vCPUs instead, whose machine counts
    /// instructions: come to by countdown, by steps, by both, and by going back, each is one state.
    /// With --programs, of so many random programs instead of a boot
    #[arg(long, value_name = "N", conflicts_with_all = ["interrupts", "detector"])]
    time_travel: Option<u64>,
    /// So many replays of such a boot to its end instead: each comes to the same state
    #[arg(long, value_name = "N", conflicts_with_all = ["interrupts", "detector", "time_travel"])]
    replays: Option<u64>,
    /// The CPU of that boot
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Runs with a mistake of the engine's, to see that it is found
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
}

impl Soak {
    /// Builds what it takes and runs it.
    ///
    /// # Errors
    /// When something cannot be built, at a divergence or a tell, or where an hour has not covered everything.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::MACHINE)?;
        build::everything()?;
        match self.time_travel.or(self.replays) {
            None => guests::bare()?,
            Some(_) => guests::everything()?,
        }
        let mut cargo = process::host_cargo();
        cargo.args(["run", "--quiet", "--release", "--package", "stepwell-tests"]);
        cargo.args(["--bin", "soak", "--", "--minutes", &self.minutes.to_string()]);
        cargo.args(["--jobs", &self.jobs.to_string()]);
        let given = [
            ("--seed", self.seed.map(|number| number.to_string())),
            ("--programs", self.programs.map(|number| number.to_string())),
            ("--blocks", self.blocks),
            ("--time-travel", self.time_travel.map(|number| number.to_string())),
            ("--replays", self.replays.map(|number| number.to_string())),
            ("--cpu", self.cpu),
            ("--interrupts", self.interrupts.then(|| "1".to_owned())),
            ("--detector", self.detector.then(|| "1".to_owned())),
            ("--mutant", self.mutant),
        ];
        for (name, value) in given {
            cargo.args(value.iter().flat_map(|value| [name, value.as_str()]));
        }
        test::point_to_machine(&mut cargo);
        // A counted boot takes 20 s, and a busy machine many times that.
        let boots =
            self.time_travel.map_or(0, |ways| ways.div_ceil(10)).max(self.replays.unwrap_or(0));
        let boots = Duration::from_secs(BOOT_SECONDS * boots);
        process::run(&mut cargo, Duration::from_secs(60 * self.minutes) + MORE + boots)
    }
}
