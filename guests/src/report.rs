//! The one line that a guest prints, and its checks.

use crate::hardware::{psci, uart};

/// A check that failed.
#[derive(Clone, Copy)]
pub struct Failure {
    what: &'static str,
    got: u64,
    want: u64,
}

impl Failure {
    /// Names the check and both values.
    #[must_use]
    pub const fn new(what: &'static str, got: u64, want: u64) -> Self {
        Self { what, got, want }
    }

    /// Prints it, without a line's end.
    pub fn print(&self) {
        uart::write(self.what);
        uart::write(": got ");
        number(self.got);
        uart::write(", want ");
        number(self.want);
    }
}

/// What a guest's work ends with: a number to print, or the first check that failed.
pub type Outcome = Result<u64, Failure>;

/// Compares two values.
///
/// # Errors
/// Where they differ.
#[inline(never)]
pub fn check(what: &'static str, got: u64, want: u64) -> Result<(), Failure> {
    if got == want { Ok(()) } else { Err(Failure::new(what, got, want)) }
}

/// Checks that something is true.
///
/// # Errors
/// Where it is not.
pub fn require(what: &'static str, holds: bool) -> Result<(), Failure> {
    check(what, u64::from(holds), 1)
}

/// Prints text and a line's end.
pub fn line(text: &str) {
    uart::write(text);
    uart::write("\r\n");
}

/// Prints a number in hexadecimal.
pub fn number(value: u64) {
    uart::write("0x");
    let digits = (67 - (value | 1).leading_zeros()) / 4;
    for place in (0..digits).rev() {
        let nibble = ((value >> (4 * place)) & 15) as u8;
        uart::put(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}

/// Prints the result and powers off.
pub fn finish(name: &str, outcome: Outcome) -> ! {
    uart::write(name);
    match outcome {
        Ok(value) => {
            uart::write(": ok ");
            number(value);
        }
        Err(failure) => {
            uart::write(": FAIL ");
            failure.print();
        }
    }
    line("");
    psci::system_off()
}

unsafe extern "C" {
    safe fn guest_panicked() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    guest_panicked()
}
