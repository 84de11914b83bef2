//! The page: tables and a drawing, made here, so that it shows without any script.
//!
//! What a guest or a log has chosen (its command line, names of files, what was typed) is only ever put in
//! as text. A content security policy forbids the page any request.

use super::{Bin, Samples};
use std::fmt::Write;
use stepwell_debuggee::{Moment, StateHash};
use stepwell_replay::Script;
use stepwell_replay::script::Happening;

/// Nanoseconds of a tick of the guest's clock: an instruction is worth one.
const TICK_NS: f64 = 16.0;
/// Of the drawing.
const WIDTH: f64 = 1600.0;
const LEFT: f64 = 90.0;
const LANE: f64 = 26.0;
const BAR: f64 = 18.0;
/// Most rows of a table.
const ROWS_MAX: usize = 1000;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What there is to be shown.
pub struct Page<'a> {
    /// Its title.
    pub title: &'a str,
    /// The log.
    pub script: &'a Script,
    /// What was seen of the run.
    pub samples: &'a Samples,
    /// The report of a part of it, as a page.
    pub part: Option<&'a str>,
}

impl Page<'_> {
    /// Returns it as HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let mut html =
            String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
        add(
            &mut html,
            format_args!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n"),
        );
        let title = escaped(self.title);
        add(
            &mut html,
            format_args!("<title>{title} · Stepwell</title>\n<style>\n{STYLE}</style>\n</head>\n"),
        );
        add(&mut html, format_args!("<body>\n<main>\n<h1>{title}</h1>\n{}", self.facts()));
        add(&mut html, format_args!("<h2 id=\"timeline\">The run</h2>\n{}", self.timeline()));
        add(&mut html, format_args!("{}{}", self.inputs(), self.states()));
        if let Some(part) = self.part {
            html.push_str("<h2 id=\"part\">A part of it, instruction by instruction</h2>\n");
            add(
                &mut html,
                format_args!("<iframe title=\"The part\" srcdoc=\"{}\"></iframe>\n", escaped(part)),
            );
        }
        add(&mut html, format_args!("</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"));
        html
    }

    fn facts(&self) -> String {
        let header = &self.script.header;
        let end = match &self.script.ending {
            Some((moment, how)) => format!("{}: the guest {how}", place(*moment)),
            None => format!("{}: its recorder ended there", place(self.script.end)),
        };
        let disks: Vec<&str> = header.disks.iter().map(|disk| disk.path.as_str()).collect();
        let mut rows = vec![
            ("Ends at", end),
            (
                "vCPUs",
                format!(
                    "{} of {}, in turns on one CPU: {}",
                    header.vcpus, header.cpu, header.schedule
                ),
            ),
            ("Kernel", header.kernel.path.clone()),
            ("Command line", header.command_line.clone()),
            ("Disks", disks.join(", ")),
            ("Recorded with", header.qemu.clone()),
        ];
        rows.retain(|(_, value)| !value.is_empty());
        let mut html = String::from("<dl>\n");
        for (name, value) in rows {
            add(&mut html, format_args!("<dt>{name}</dt><dd>{}</dd>\n", escaped(&value)));
        }
        html.push_str("</dl>\n");
        html
    }

    /// A lane for each vCPU, one for waiting, one for what came in, and one for the states.
    fn timeline(&self) -> String {
        let vcpus = usize::from(self.script.header.vcpus);
        let end = self.samples.end().clock.max(1);
        let x = |clock: u64| LEFT + (WIDTH - LEFT) * clock.min(end) as f64 / end as f64;
        let height = LANE * (vcpus + 4) as f64;
        let mut svg = format!(
            "<p>Over the guest's time, {:.3} s. Drag to zoom in; Escape shows the whole again.</p>\n<svg id=\"run\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"What each vCPU was at\">\n",
            seconds(end)
        );
        for vcpu in 0..vcpus {
            let ran = |bin: &Bin| bin.ran.get(vcpu).copied().unwrap_or(false);
            lane(&mut svg, vcpu, &format!("vcpu{vcpu}"));
            for (from, to) in joined(&self.samples.bins, ran) {
                bar(&mut svg, vcpu, "ran", (x(from.clock), x(to.clock)), &between(from, to));
            }
        }
        lane(&mut svg, vcpus, "all wait");
        for bin in self.samples.bins.iter().filter(|bin| bin.waited() > 20) {
            let text =
                format!("{}, {} % of it waiting", between(bin.from, bin.to), bin.waited() / 10);
            bar(&mut svg, vcpus, "waited", (x(bin.from.clock), x(bin.to.clock)), &text);
        }
        lane(&mut svg, vcpus + 1, "typed");
        lane(&mut svg, vcpus + 2, "states");
        for (moment, what) in &self.script.happenings {
            let (at, class, text) = match what {
                Happening::Input(bytes) => (vcpus + 1, "typed", shown(bytes)),
                Happening::State(hash) => (vcpus + 2, "state", hash.to_string()),
            };
            let from = x(moment.clock);
            let text = format!("{}: {text}", place(*moment));
            bar(&mut svg, at, class, (from, from + 2.0), &text);
        }
        axis(&mut svg, vcpus + 3, end, x);
        svg.push_str("</svg>\n<p id=\"at\" role=\"status\"></p>\n");
        svg
    }

    fn inputs(&self) -> String {
        let typed = self.script.happenings.iter().filter_map(|(moment, what)| match what {
            Happening::Input(bytes) => Some((*moment, shown(bytes))),
            Happening::State(_) => None,
        });
        table("typed", "What was typed", "On the console", typed)
    }

    fn states(&self) -> String {
        let states = self.script.happenings.iter().filter_map(|(moment, what)| match what {
            Happening::State(StateHash { registers, memory }) => {
                Some((*moment, format!("{registers:016x}-{memory:016x}")))
            }
            Happening::Input(_) => None,
        });
        table("states", "States that were taken down", "Registers and memory", states)
    }
}

/// Writing into a string does not fail.
fn add(html: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _infallible = html.write_fmt(arguments);
}

fn seconds(clock: u64) -> f64 {
    clock as f64 * TICK_NS / 1e9
}

fn place(moment: Moment) -> String {
    format!("position {}, {:.6} s", moment.position, seconds(moment.clock))
}

fn between(from: Moment, to: Moment) -> String {
    format!("positions {} to {}, {:.6} s on", from.position, to.position, seconds(from.clock))
}

/// The stretches of bins that are wanted.
fn joined(bins: &[Bin], is_wanted: impl Fn(&Bin) -> bool) -> Vec<(Moment, Moment)> {
    let mut stretches: Vec<(Moment, Moment)> = Vec::new();
    for bin in bins.iter().filter(|bin| is_wanted(bin)) {
        match stretches.last_mut() {
            Some((_, end)) if *end == bin.from => *end = bin.to,
            _ => stretches.push((bin.from, bin.to)),
        }
    }
    stretches
}

fn lane(svg: &mut String, index: usize, name: &str) {
    let y = LANE * index as f64 + BAR - 4.0;
    add(svg, format_args!("<text x=\"0\" y=\"{y}\">{name}</text>\n"));
}

fn bar(svg: &mut String, lane: usize, class: &str, (from, to): (f64, f64), text: &str) {
    let (y, width) = (LANE * lane as f64, (to - from).max(0.5));
    let text = escaped(text);
    add(
        svg,
        format_args!(
            "<rect class=\"{class}\" x=\"{from:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{BAR}\">\
             <title>{text}</title></rect>\n"
        ),
    );
}

fn axis(svg: &mut String, lane: usize, end: u64, x: impl Fn(u64) -> f64) {
    const MARKS: u64 = 8;
    let y = LANE * lane as f64 + BAR - 4.0;
    for mark in 0..MARKS {
        let clock = end / MARKS * mark;
        let (x, seconds) = (x(clock), seconds(clock));
        add(svg, format_args!("<text x=\"{x:.2}\" y=\"{y}\">{seconds:.3} s</text>\n"));
    }
}

fn table(
    id: &str,
    title: &str,
    column: &str,
    rows: impl Iterator<Item = (Moment, String)>,
) -> String {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut html = format!(
        "<h2 id=\"{id}\">{title}</h2>\n<table><thead><tr><th>Position</th><th>Seconds</th><th>{column}\
         </th></tr></thead><tbody>\n"
    );
    for (moment, text) in rows.by_ref().take(ROWS_MAX) {
        let (position, seconds, text) = (moment.position, seconds(moment.clock), escaped(&text));
        add(
            &mut html,
            format_args!(
                "<tr><td>{position}</td><td>{seconds:.6}</td><td><code>{text}</code></td></tr>\n"
            ),
        );
    }
    html.push_str("</tbody></table>\n");
    let more = rows.count();
    if more > 0 {
        add(&mut html, format_args!("<p>And {more} more.</p>\n"));
    }
    html
}

/// What was typed, as one reads it.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

/// A text so that HTML shows it as it is.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::header_of_a_log;

    fn script() -> Script {
        let mut script = Script::begin(header_of_a_log());
        script.header.command_line = "a=<b> \"c\"".into();
        let at = |position| Moment { position, clock: 2 * position };
        script.happenings = vec![
            (at(10), Happening::Input(b"ls <x>\n".to_vec())),
            (at(20), Happening::State(StateHash { registers: 1, memory: 2 })),
        ];
        script.end = at(30);
        script
    }

    #[test]
    fn what_a_run_has_is_on_the_page() {
        let script = script();
        let mut samples = Samples::default();
        for n in 1..=3 {
            samples.look(Moment { position: 10 * n, clock: 20 * n }, &[10 * n, 10]);
        }
        let page =
            Page { title: "run<1>", script: &script, samples: &samples, part: Some("<p>\"a\"") };
        let html = page.html();
        for text in [
            "<title>run&lt;1&gt; · Stepwell</title>",
            "a=&lt;b&gt; &quot;c&quot;",
            "ls &lt;x&gt;\\n",
            "0000000000000001-0000000000000002",
            "vcpu1",
            "position 30",
            "srcdoc=\"&lt;p&gt;&quot;a&quot;\"",
            "positions 0 to 30, 0.000000 s on",
            "positions 0 to 10, 0.000000 s on",
            "50 % of it waiting",
        ] {
            assert!(html.contains(text), "no {text} in {html}");
        }
        assert_eq!(html.matches("class=\"ran\"").count(), 2, "one stretch for each vCPU");
        assert!(!html.contains("http://") && !html.contains("src=\"http"), "no request");
    }

    #[test]
    fn a_run_of_nothing_is_a_page() {
        let script = Script::begin(header_of_a_log());
        let samples = Samples::default();
        let html = Page { title: "", script: &script, samples: &samples, part: None }.html();
        assert!(html.ends_with("</html>\n") && !html.contains("NaN"), "{html}");
    }
}
