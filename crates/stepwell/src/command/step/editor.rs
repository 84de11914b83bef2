//! Where the stepper's lines come from: a line editor, or whatever standard input is.

use crate::names::Names;
use crate::stepper::NAMES;
use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use std::io::{BufRead, IsTerminal, Write, stdin, stdout};
use std::path::PathBuf;

const PROMPT: &str = "(stepwell) ";
const HISTORY_LINES: usize = 1000;
/// Completions shown; a kernel has a hundred thousand names.
const COMPLETIONS_MAX: usize = 200;

/// A source of lines.
pub(super) enum Lines {
    Edited(Box<Editor<Completion, FileHistory>>),
    Piped,
}

impl Lines {
    pub(super) fn new(names: &Names) -> anyhow::Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self::Piped);
        }
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)?
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config).context("cannot use this terminal")?;
        editor.set_helper(Some(Completion { names: names.clone() }));
        if let Some(path) = history_file() {
            // There is none the first time.
            drop(editor.load_history(&path));
        }
        Ok(Self::Edited(Box::new(editor)))
    }

    /// Returns the next line; `None` where there are no more.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<String>> {
        let editor = match self {
            Self::Edited(editor) => editor,
            Self::Piped => return piped(),
        };
        loop {
            match editor.readline(PROMPT) {
                Ok(line) => {
                    editor.add_history_entry(line.as_str())?;
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) => println!("x ends, h helps"),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(error).context("cannot read from this terminal"),
            }
        }
    }

    /// Saves the history.
    pub(super) fn keep(&mut self) {
        if let (Self::Edited(editor), Some(path)) = (self, history_file()) {
            let parent = path.parent().map(std::fs::create_dir_all);
            // A history that cannot be kept is no reason to complain on the way out.
            drop((parent, editor.save_history(&path)));
        }
    }
}

/// Reads a line from a pipe or file, and shows it as if it had been typed.
fn piped() -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    let length = stdin().lock().read_line(&mut line).context("cannot read standard input")?;
    if length == 0 {
        return Ok(None);
    }
    writeln!(stdout(), "{PROMPT}{}", line.trim_end())?;
    Ok(Some(line))
}

fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    Some(state.or_else(home)?.join("stepwell").join("history"))
}

/// Completes commands first, then symbols.
pub(super) struct Completion {
    names: Names,
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..position).unwrap_or(line);
        let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = before.get(start..).unwrap_or_default();
        if before.get(..start).is_none_or(|rest| rest.trim().is_empty()) {
            let found = NAMES.iter().filter(|name| name.starts_with(word));
            return Ok((start, found.map(|&name| name.to_owned()).collect()));
        }
        let found = self.names.beginning_with(word).take(COMPLETIONS_MAX);
        Ok((start, found.map(str::to_owned).collect()))
    }
}

impl Hinter for Completion {
    type Hint = String;
}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Helper for Completion {}
