//! The project's own build tool: everything that cargo alone cannot do.
//!
//! Two compilers (host and bare-metal arm64), an image embedded in a host binary, guests that
//! come out of Debian packages, and tests that need QEMU: all of it is ordered here, in Rust, so
//! that the only thing a fresh machine must have is cargo. One file a command; what several of
//! them need has a file of its own.
//!
//! Deliberately absent: configuration. What a command does follows from the workspace and from
//! what the machine has; the environment variables that steer it are named in `help`.

mod apt;
mod bench;
mod boards;
mod build;
mod coverage;
mod cross;
mod debian;
mod demo;
mod distributions;
mod elf_image;
mod failures;
mod fuzz;
mod guests;
mod images;
mod initramfs;
mod kvm;
mod kvm_unit_tests;
mod layout;
mod metadata;
mod modules;
mod package;
mod pictures;
mod proc;
mod process;
mod python;
mod qemu;
mod setup;
mod soak;
mod test;
mod tidy;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, tests and demonstrates Stepwell.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = ENVIRONMENT)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const ENVIRONMENT: &str = "\
Environment:
  STEPWELL_RUSTC         compiler to use for the bare-metal target
  STEPWELL_QEMU          QEMU to run instead of qemu-system-aarch64
  CARGO_TARGET_DIR       where everything is built, instead of target/";

#[derive(Subcommand)]
enum Command {
    Setup(setup::Setup),
    Build(build::Build),
    Cross(cross::Cross),
    Kvm(kvm::Kvm),
    KvmUnitTests(kvm_unit_tests::KvmUnitTests),
    Package(package::Package),
    Guests(guests::Guests),
    Images(images::Images),
    Qemu(qemu::Qemu),
    Demo(demo::Demo),
    Distributions(distributions::Distributions),
    Test(test::Test),
    Bench(bench::Bench),
    Boards(boards::Boards),
    Pictures(pictures::Pictures),
    Proc(proc::Proc),
    Python(python::Python),
    Soak(soak::Soak),
    Coverage(coverage::Coverage),
    Fuzz(fuzz::Fuzz),
    Tidy(tidy::Tidy),
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(command) => command.run(),
        Command::Build(command) => command.run(),
        Command::Cross(command) => command.run(),
        Command::Kvm(command) => command.run(),
        Command::KvmUnitTests(command) => command.run(),
        Command::Package(command) => command.run(),
        Command::Guests(command) => command.run(),
        Command::Images(command) => command.run(),
        Command::Qemu(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Distributions(command) => command.run(),
        Command::Test(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Boards(command) => command.run(),
        Command::Pictures(command) => command.run(),
        Command::Proc(command) => command.run(),
        Command::Python(command) => command.run(),
        Command::Soak(command) => command.run(),
        Command::Coverage(command) => command.run(),
        Command::Fuzz(command) => command.run(),
        Command::Tidy(command) => command.run(),
    }
}
