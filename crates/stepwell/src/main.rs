//! The `stepwell` command. Everything but this is in the library, where tests reach it.

#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;
use stepwell::command::Arguments;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => stepwell::command::main(arguments),
        Err(error) => {
            // It fails where nobody reads it.
            drop(error.print());
            if error.use_stderr() { stepwell::command::misused() } else { ExitCode::SUCCESS }
        }
    }
}
