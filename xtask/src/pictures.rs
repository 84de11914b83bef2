//! `cargo xtask pictures`: the README's pictures, from a real boot.
//!
//! Records the first hundred million instructions of Debian's kernel, reports them, and takes
//! pictures of the report and of the flame graph with a headless browser. Each command of the tool
//! is shown before it runs, so that the pictures can be made of any other recording by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::guests::{self, DebianGuest};
use crate::{build, layout, process, setup};

const RECORD_LIMIT: Duration = Duration::from_secs(60 * 60);
const SHOW_LIMIT: Duration = Duration::from_secs(10 * 60);
const PICTURE_LIMIT: Duration = Duration::from_secs(2 * 60);

/// As much of the boot as the README talks about: up to the first program.
const STEPS: &str = "100000000";
/// A README is no place for more.
const PICTURE_BYTES_MAX: u64 = 400_000;

/// Records Debian's boot and makes the README's pictures of it, in docs/images
#[derive(clap::Args)]
pub struct Pictures {
    /// A recording to use instead of making one, which takes some minutes
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
}

impl Pictures {
    /// Makes the pictures.
    ///
    /// # Errors
    /// When something is missing, a command fails, or a picture is too large.
    pub fn run(self) -> Result<()> {
        setup::ensure(setup::PICTURES)?;
        build::everything()?;
        let folder = layout::target_dir().join("pictures");
        fs::create_dir_all(&folder).context("making the folder for the pages")?;
        let recording = match self.recording {
            Some(recording) => recording,
            None => record(&folder.join("boot.stepwell"))?,
        };
        let (report, graph) = (folder.join("report.html"), folder.join("flamegraph.svg"));
        let title = ["--title", "Debian 12 boots"];
        let mut command = stepwell("report");
        process::show_and_run(
            command.arg(&recording).args(title).arg("-o").arg(&report),
            SHOW_LIMIT,
        )?;
        let mut command = stepwell("show");
        let format = ["--format", "flamegraph", "-o"];
        process::show_and_run(command.arg(&recording).args(format).arg(&graph), SHOW_LIMIT)?;
        let images = layout::root().join("docs").join("images");
        fs::create_dir_all(&images).context("making docs/images")?;
        picture(&report, &images.join("report-light.png"), "1280,1560", false)?;
        picture(&report, &images.join("report-dark.png"), "1280,1560", true)?;
        picture(&graph, &images.join("flamegraph.png"), "1200,526", false)
    }
}

fn stepwell(subcommand: &str) -> std::process::Command {
    let mut command = process::command(layout::stepwell_binary());
    command.arg(subcommand);
    command
}

fn record(file: &Path) -> Result<PathBuf> {
    guests::everything()?;
    let guest = DebianGuest::here();
    let mut command = stepwell("trace");
    command.arg("--kernel").arg(guest.kernel()).arg("--initrd").arg(guest.initramfs());
    command.args(["--append", "console=ttyAMA0 quiet", "--irq", "into", "--steps", STEPS, "-o"]);
    command.arg(file).env("STEPWELL_QEMU", setup::qemu());
    process::show_and_run(&mut command, RECORD_LIMIT)?;
    Ok(file.to_owned())
}

/// Takes a picture of what a browser shows of a file.
fn picture(page: &Path, image: &Path, size: &str, dark: bool) -> Result<()> {
    let installed = setup::BROWSERS.into_iter().find(|name| process::is_installed(name));
    let mut browser = process::command(installed.unwrap_or(setup::BROWSERS[0]));
    browser.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
    // 0 is dark, 1 is light.
    browser.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    browser.arg(format!("--window-size={size}"));
    browser.arg(format!("--screenshot={}", image.display()));
    browser.arg(format!("file://{}", page.display()));
    process::run(&mut browser, PICTURE_LIMIT)?;
    let bytes = fs::metadata(image).context("the browser made no picture")?.len();
    println!("{}: {bytes} bytes", layout::shown(image));
    if bytes > PICTURE_BYTES_MAX {
        bail!("{} is larger than {PICTURE_BYTES_MAX} bytes", layout::shown(image));
    }
    Ok(())
}
