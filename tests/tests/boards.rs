//! The image on boards, at many addresses, by several loaders: it runs a guest to its end, or says
//! why not. The rest of the boards is in `cargo xtask boards`.

#![cfg(feature = "machine")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stepwell_tests::board::{Board, QUICK};
use stepwell_tests::process::qemu;

fn behaves(board: &Board) {
    assert!(board.is_known_to(&qemu()).unwrap(), "{board:?}");
    let said = board.run(&qemu()).unwrap();
    let is_expected = said.last().is_some_and(|line| line.contains(board.expected));
    assert!(is_expected, "{board:?} said {said:#?}");
    assert!(!said.iter().any(|line| line.contains("FAIL")), "{board:?} said {said:#?}");
}

#[test]
fn each_board_runs_the_guest_or_says_why_not() {
    for board in &QUICK {
        behaves(board);
    }
}
