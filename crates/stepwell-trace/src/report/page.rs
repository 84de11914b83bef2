//! The page: a frame of HTML, a style, a few scripts, and the data.
//!
//! Everything that came from a recording goes into one JSON element. A guest chooses its own
//! symbols, so nothing of it is trusted: no `<` of it is in the page at all, and the scripts put
//! it in as text, never as HTML. A content security policy forbids the page any request.

use super::data::Data;
use crate::printable::printable;
use std::io::{self, BufWriter, Write};

const FRAME: &str = include_str!("page/report.html");
const STYLE: &str = include_str!("page/report.css");
/// In this order: each uses what those before it define.
const SCRIPTS: [&str; 6] = [
    include_str!("page/basics.js"),
    include_str!("page/headline.js"),
    include_str!("page/flame.js"),
    include_str!("page/timeline.js"),
    include_str!("page/tables.js"),
    include_str!("page/start.js"),
];

/// Writes the page.
///
/// # Errors
///
/// Where it cannot be written.
pub(super) fn write(data: &Data, output: impl Write) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    let mut rest = FRAME;
    // Placeholders are only looked for in the frame, never in what was put in.
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, behind) = after.split_once("}}").unwrap_or((after, ""));
        output.write_all(before.as_bytes())?;
        match name {
            "title" => output.write_all(html(&data.title).as_bytes())?,
            "style" => output.write_all(STYLE.as_bytes())?,
            "data" => output.write_all(json(data)?.as_bytes())?,
            "scripts" => {
                for script in SCRIPTS {
                    output.write_all(script.as_bytes())?;
                }
            }
            _ => {}
        }
        rest = behind;
    }
    output.write_all(rest.as_bytes())?;
    output.flush()
}

/// Returns `text` so that HTML shows it as it is, and what would be obeyed or hidden.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Returns the data as JSON that cannot end the element that it is in: these characters only
/// occur in strings, where they may be written as escapes.
fn json(data: &Data) -> io::Result<String> {
    let plain = serde_json::to_string(data)?;
    let mut out = String::with_capacity(plain.len() + 64);
    for character in plain.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_need_nothing_from_elsewhere() {
        let all = [&[FRAME, STYLE], &SCRIPTS[..]].concat().concat();
        for word in ["http:", "https:", "src=", "@import", "url(", "eval(", "innerHTML"] {
            assert!(!all.contains(word), "{word}");
        }
        assert_eq!(FRAME.matches("{{").count(), 4);
    }

    #[test]
    fn html_is_text() {
        assert_eq!(html("<a b=\"c\">&'"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
        assert_eq!(
            html("\u{1b}[31m \u{202e}"),
            format!("{} {}", printable("\u{1b}[31m"), printable("\u{202e}"))
        );
        assert!(!html("\u{1b}\u{9b}\u{202e}").contains(['\u{1b}', '\u{9b}', '\u{202e}']));
    }
}
