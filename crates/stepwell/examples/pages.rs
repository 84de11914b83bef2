//! Writes the manual pages and the shells' completions, which are what `--help` is, into a folder:
//! `cargo run --package stepwell --example pages FOLDER`. Packages have them.

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use std::path::PathBuf;
use std::process::ExitCode;
use stepwell::command::Arguments;

fn write(folder: PathBuf) -> std::io::Result<()> {
    std::fs::create_dir_all(&folder)?;
    let mut command = Arguments::command();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command, "stepwell", &folder)?;
    }
    clap_mangen::generate_to(command, folder)
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: pages FOLDER");
        return ExitCode::FAILURE;
    };
    match write(folder.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
