//! Text that somebody else wrote, as a terminal may be given it.
//!
//! A guest's console, the names in a recording, the words of a damaged file: any of them may hold
//! escape sequences, with which a terminal is renamed, overwritten, or made to type. So whatever of
//! them reaches a terminal goes through here, and what a terminal would obey is shown instead. The
//! one exception is the console of `stepwell run`, which is a terminal of the guest's.
//!
//! Control characters are shown as terminals show them when they are typed (`^[` for escape); what
//! has no such form, among it the characters that turn a line around or hide in it, as `\u{202e}`.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns `text` with every character made visible that a terminal would obey or hide. Only tabs
/// stay what they are.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        push(&mut visible, character);
    }
    Cow::Owned(visible)
}

/// Appends a character, made visible.
pub fn push(text: &mut String, character: char) {
    let code = u32::from(character);
    match code {
        _ if !is_hidden(character) => text.push(character),
        0..0x20 | 0x7f => {
            // Caret notation flips the bit that tells a control character from a letter.
            let letter = char::from_u32(code ^ 0x40).unwrap_or('?');
            text.extend(['^', letter]);
        }
        // Writing into a string does not fail.
        _ => drop(write!(text, "\\u{{{code:x}}}")),
    }
}

/// Tells whether a terminal would obey the character, or show nothing of it.
#[must_use]
pub const fn is_hidden(character: char) -> bool {
    match character {
        '\t' => false,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' => true,
        // Formatting: what turns the direction of writing, or ends a line.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{fff9}'..='\u{fffb}' => true,
        // What has no width: Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt).
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => true,
        '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{206f}' => true,
        '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' => true,
        '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' => true,
        '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(printable("\x1b]0;title\x07"), "^[]0;title^G");
        assert_eq!(printable("a\rb\nc\x7f"), "a^Mb^Jc^?");
        assert_eq!(printable("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(printable("\u{202e}gnp.exe\u{200b}"), "\\u{202e}gnp.exe\\u{200b}");
        assert_eq!(
            printable("\x1b]8;;http://x\x1b\\y\x1b]52;c;ZQ=="),
            "^[]8;;http://x^[\\y^[]52;c;ZQ=="
        );
        for hidden in ['\u{fe0f}', '\u{34f}', '\u{3164}', '\u{2066}', '\u{e0041}', '\u{e01ef}'] {
            let shown = format!("\\u{{{:x}}}", u32::from(hidden));
            assert_eq!(printable(&hidden.to_string()), shown);
        }
    }

    #[test]
    fn other_text_is_left_alone() {
        for text in ["", "do_sys_openat2+0x10", "a\tb", "größer ×2 …", "日本"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }
}
