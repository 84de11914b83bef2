//! Rule for every text file: no word that only this house understands.
//!
//! A reader from KVM, Xen or rr should need no glossary to read a message. Each private word here
//! has been replaced by the field's, and does not come back. Prose words are looked for whatever
//! their case; identifiers as they are written.

use std::path::Path;

use super::finding::Finding;
use super::tree::SourceFile;

/// Prose: the forms of a private word, and the field's. Where a form is followed by one of
/// [`ALLOWED_AFTER`], it is another word.
const PROSE: [(&[&str], &str); 6] = [
    (&["errand", "errands"], "plan"),
    (&["heed", "heeds", "heeded", "heeding"], "armed, acknowledged or obeyed"),
    (&["disturb", "disturbs", "disturbed", "undisturbed"], "interrupt or invalidate"),
    (&["get on", "gets on", "got on", "getting on"], "make progress"),
    (&["come by", "comes by", "came by", "coming by"], "pass or reach"),
    (&["stand", "stands", "stood", "standing"], "be stopped; aside: be quiesced"),
];

/// What follows a form that is meant otherwise: `X stands for Y`, a `stand-in`.
const ALLOWED_AFTER: [&str; 2] = [" for", "-in"];

/// Identifiers, as in the source.
const IDENTIFIERS: [(&str, &str); 9] = [
    ("Letter", "InstructionClass"),
    ("Errand", "TurnPlan"),
    ("Heeded", "ArmedBreakpoints"),
    ("Touched", "WriteSet"),
    ("CannotGetOn", "NoProgress"),
    ("Standing", "CachedDebuggee"),
    ("QuietInterface", "IdleInterface"),
    ("Root::Open", "Root::Unrestricted"),
    ("region::Region", "quiescence::Quiescence"),
];

/// Starts of identifiers.
const PREFIXES: [(&str, &str); 2] = [("tell_", "emit_"), ("told_", "emitted_")];

/// This file names them.
const SELF: &str = "xtask/src/tidy/words.rs";

/// Checks one file.
pub fn check(file: &SourceFile) -> Vec<Finding> {
    if file.path == Path::new(SELF) {
        return Vec::new();
    }
    let lines = file.text.lines().enumerate();
    let found = lines.flat_map(|(index, line)| words_of(line).map(move |found| (index, found)));
    found
        .map(|(index, (word, better))| {
            let what = format!("`{word}` is a word of this house only: {better}");
            Finding::new(&file.path, index + 1, what)
        })
        .collect()
}

/// The private words of a line, each with the field's.
fn words_of(line: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lower = line.to_lowercase();
    let prose = PROSE
        .iter()
        .flat_map(|(forms, better)| forms.iter().map(|form| (*form, *better)))
        .filter(move |(form, _)| {
            places_of(&lower, form).any(|(before, after)| {
                let mut rests = ALLOWED_AFTER.iter().filter_map(|other| after.strip_prefix(other));
                let is_other = rests.any(|rest| !starts_word(rest));
                !ends_word(before) && !starts_word(after) && !is_other
            })
        });
    let named = IDENTIFIERS.iter().copied().filter(|(name, _)| {
        places_of(line, name).any(|(before, after)| !ends_word(before) && !starts_word(after))
    });
    let begun = PREFIXES
        .iter()
        .copied()
        .filter(|(start, _)| places_of(line, start).any(|(before, _)| !ends_word(before)));
    prose.chain(named).chain(begun).collect::<Vec<_>>().into_iter()
}

/// What is before and after each place of `word`.
fn places_of<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    line.match_indices(word).map(move |(at, _)| {
        let (before, rest) = line.split_at(at);
        (before, rest.get(word.len()..).unwrap_or_default())
    })
}

fn ends_word(before: &str) -> bool {
    before.ends_with(|character: char| is_of_word(character) || character == '-')
}

fn starts_word(after: &str) -> bool {
    after.starts_with(is_of_word)
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<&'static str> {
        words_of(line).map(|(word, _)| word).collect()
    }

    #[test]
    fn private_words_are_found_in_any_form() {
        assert_eq!(found("// It stands there."), ["stands"]);
        assert_eq!(found("The others Stand aside"), ["stand"]);
        assert_eq!(found("it cannot get on alone"), ["get on"]);
        assert_eq!(found("self.tell_steps(Letter::Plain)"), ["Letter", "tell_"]);
        assert_eq!(found("let root = Root::Open;"), ["Root::Open"]);
    }

    #[test]
    fn ordinary_words_are_not() {
        for line in [
            "31 stands for none",
            "what 31 stands for.",
            "a stand-in for QEMU",
            "standalone, understands, longstanding",
            "there is no apt-get on this machine",
            "for letter in text.chars()",
            "tells whether, foretell_it, --quiet",
            "RootOpen, Root::Opened",
        ] {
            assert_eq!(found(line), [""; 0], "{line}");
        }
    }
}
