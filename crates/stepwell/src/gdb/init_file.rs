//! The commands that GDB is given with `gdb -x`.
//!
//! Such a file outlives the guest that it was written for, and whoever listens at its address then
//! answers GDB. So nothing in it executes what the other end says: of the answer to `monitor
//! symbols` it takes one number, and says all else itself.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

const HEAD: &str = "\
# Written by `stepwell gdb`.
set architecture aarch64
# Stepwell's breakpoints cost nothing while they are in place.
set breakpoint always-inserted on
";

/// Returns the commands for a guest that is served at `address`, its symbols in the file `symbols`.
///
/// # Errors
///
/// Where the file's path cannot be written in a line.
pub fn init_file(symbols: Option<&Path>, address: &str) -> io::Result<String> {
    let mut text = HEAD.to_owned();
    let Some(file) = symbols else {
        line(&mut text, format_args!("target remote {address}"));
        return Ok(text);
    };
    let load = symbol_command(file, 0)?;
    line(&mut text, format_args!("{load}"));
    line(&mut text, format_args!("target remote {address}"));
    let load = python_string(&load);
    line(
        &mut text,
        format_args!(
            "\
define stepwell-symbols
  python
import re
told = re.search(r'^symbol-file .* -o 0x([0-9a-f]{{1,16}})$', gdb.execute('monitor symbols', to_string=True), re.M)
if told:
    gdb.execute({load} + ' -o 0x' + told.group(1))
else:
    print('The kernel is where it was linked, or has not turned its MMU on yet.')
  end
end
document stepwell-symbols
Loads the kernel's symbols where the kernel is. Again, once it has turned its MMU on.
end
stepwell-symbols"
        ),
    );
    Ok(text)
}

/// Returns GDB's command that loads `file`, its addresses moved.
///
/// # Errors
///
/// Where the file's path cannot be written in a line.
pub fn symbol_command(file: &Path, moved_by: u64) -> io::Result<String> {
    let file = word(&absolute(file)?)?;
    Ok(match moved_by {
        0 => format!("symbol-file {file}"),
        by => format!("symbol-file {file} -o {by:#x}"),
    })
}

/// An absolute path means the same to a GDB that was started elsewhere.
pub(super) fn absolute(file: &Path) -> io::Result<PathBuf> {
    file.canonicalize().or_else(|_| std::path::absolute(file))
}

/// Writes a path as one word of a command of GDB's.
fn word(path: &Path) -> io::Result<String> {
    let unfit = || {
        let text = "a path with control characters, or not in UTF-8, cannot be named to GDB";
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    let path = path.to_str().ok_or_else(unfit)?;
    let mut word = String::new();
    for character in path.chars() {
        if character.is_control() {
            return Err(unfit());
        }
        // What GDB would take for the word's end, or for a quote.
        if matches!(character, ' ' | '\'' | '"' | '\\') {
            word.push('\\');
        }
        word.push(character);
    }
    Ok(word)
}

/// Writes a text that has no control characters as a string of Python's.
fn python_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    let _infallible = writeln!(text, "{arguments}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_one_word() {
        let command = |path: &str, by| symbol_command(Path::new(path), by).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(command("k.elf", 0), format!("symbol-file {}/k.elf", here.display()));
        assert_eq!(command("/no/ker nel's", 0x20), "symbol-file /no/ker\\ nel\\'s -o 0x20");
        assert!(symbol_command(Path::new("/no/a\npython evil()"), 0).is_err());
    }

    #[test]
    fn nothing_that_the_server_says_is_executed() {
        let text = init_file(Some(Path::new("/no/it's")), "/run/gdb").unwrap();
        assert!(text.contains("\nsymbol-file /no/it\\'s\ntarget remote /run/gdb\n"), "{text}");
        let executed: Vec<&str> =
            text.lines().filter(|line| line.contains("gdb.execute")).map(str::trim).collect();
        let expected = [
            "told = re.search(r'^symbol-file .* -o 0x([0-9a-f]{1,16})$', \
             gdb.execute('monitor symbols', to_string=True), re.M)",
            "gdb.execute('symbol-file /no/it\\\\\\'s' + ' -o 0x' + told.group(1))",
        ];
        assert_eq!(executed, expected);
    }
}
