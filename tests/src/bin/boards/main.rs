//! Starts the hypervisor's image on every board, on every QEMU that is named, and prints what came
//! of it: the table of docs/boards.md.
//!
//! Run by `cargo xtask boards`, which fetches what it takes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stepwell_tests::board::{Board, DEBIAN, QUICK, Start};
use stepwell_tests::process::qemu;

fn main() -> ExitCode {
    let mut qemus = vec![qemu()];
    qemus.extend(std::env::args_os().skip(1).map(PathBuf::from));
    let names: Vec<String> = qemus.iter().map(version).collect();
    println!("| board | started | {} |", names.join(" | "));
    println!("| --- | --- |{}", " --- |".repeat(names.len()));
    let mut all_good = true;
    for board in QUICK.iter().chain(&DEBIAN) {
        let cells: Vec<String> = qemus
            .iter()
            .map(|qemu| {
                let (good, cell) = outcome(board, qemu);
                all_good &= good;
                cell
            })
            .collect();
        println!("| {} | {} | {} |", title(board), start(board), cells.join(" | "));
    }
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn version(qemu: &PathBuf) -> String {
    let mut command = std::process::Command::new(qemu);
    let text = command.arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let version = text.split_whitespace().nth(3).unwrap_or("of unknown version");
    format!("QEMU {version}")
}

/// The board as QEMU is told, and what of its options matters.
fn title(board: &Board) -> String {
    let machine = board.machine.replace(",dtb-randomness=off", "");
    match board.guest {
        Some(guest) if guest.cpus > 1 => {
            format!("`{machine}`, `{}` on {} CPUs", guest.name, guest.cpus)
        }
        _ => format!("`{machine}`"),
    }
}

fn start(board: &Board) -> String {
    match board.start {
        Start::Kernel => "`-kernel`".to_owned(),
        Start::At(address) => format!("at {address:#x}"),
        Start::WithoutTree(address) => format!("at {address:#x}, X0 = 0"),
        Start::UBoot(address) => format!("U-Boot: `booti {address:#x} - TREE`"),
        Start::UBootAlone(address) => {
            format!("U-Boot: `booti {address:#x} - $fdtcontroladdr`, no domain")
        }
    }
}

/// Whether it went as expected, and how it went.
fn outcome(board: &Board, qemu: &Path) -> (bool, String) {
    match board.is_known_to(qemu) {
        Ok(true) => {}
        Ok(false) => return (true, "(no such board)".to_owned()),
        Err(error) => return (false, error),
    }
    let said = match board.run(qemu) {
        Ok(said) => said,
        Err(error) => return (false, error),
    };
    let Some(last) = said.last() else { return (false, "not a word".to_owned()) };
    let good = last.contains(board.expected) && !said.iter().any(|line| line.contains("FAIL"));
    let name = board.guest.map_or("", |guest| guest.name);
    let result = said.iter().find(|line| line.starts_with(&format!("{name}: ok")));
    (good, result.unwrap_or(last).replace('|', "\\|"))
}
