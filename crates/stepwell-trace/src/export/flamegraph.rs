//! `flamegraph`: who called whom, as an SVG that zooms in a browser.
//!
//! The width of a frame is how many instructions it and what it called executed. Interrupts have a
//! frame of their own beside what they interrupted, and with `by_vcpu` so has each vCPU. Drawn by
//! the `inferno` crate, with colours that depend on names alone, so that two graphs compare.

use super::{ExportError, end_at_broken_pipe};
use crate::call_stack::CallStacks;
use crate::flame_tree::{FlameLabel, FlameTree};
use crate::printable::printable;
use crate::source::Source;
use inferno::flamegraph::{self, Options};
use std::io::Write;

/// Frames narrower than this part of the whole count for their callers: they would be a tenth of
/// a pixel wide.
const NARROWEST: u64 = 20_000;
/// Most frames. The narrowest are left out until so many are left.
const FRAMES_MAX: usize = 30_000;
/// Most names in all lines that are drawn from, each of which has those of all its callers.
const NAMES_MAX: usize = 2_000_000;
/// Longest name, in characters; what is longer does not fit a frame.
const NAME_MAX: usize = 200;

/// Draws what is left of a recording.
///
/// # Errors
///
/// [`ExportError`] if the recording is damaged (after the graph of what precedes the damage) or
/// the output fails; a broken pipe is none.
pub fn write(
    source: &mut impl Source,
    by_vcpu: bool,
    output: impl Write,
) -> Result<(), ExportError> {
    let (code, symbols) = (source.code_pages()?, source.symbols()?);
    let mut stacks = CallStacks::new(&code, &symbols);
    let mut tree = FlameTree::new(by_vcpu);
    let read = loop {
        match source.next_record() {
            Ok(Some(record)) => stacks.record(&record, &mut tree),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    stacks.finish(&mut tree);
    let subtitle = subtitle(source.header().cpu_model.as_str());
    let drawn = draw(&mut tree, &stacks, &subtitle, output);
    read.and(end_at_broken_pipe(drawn))
}

fn subtitle(cpu: &str) -> String {
    let cpu = printable(cpu);
    if cpu.is_empty() { String::new() } else { format!("{cpu}, every instruction stepped") }
}

fn draw(
    tree: &mut FlameTree,
    stacks: &CallStacks<'_>,
    subtitle: &str,
    output: impl Write,
) -> Result<(), ExportError> {
    tree.finish();
    let mut lines = folded(tree, stacks);
    if lines.is_empty() {
        // It refuses to draw nothing.
        lines.push("(nothing was executed) 1".into());
    }
    let mut options = Options::default();
    options.title = "Stepwell".into();
    options.subtitle = Some(subtitle.to_owned()).filter(|text| !text.is_empty());
    options.count_name = "instructions".into();
    options.deterministic = true;
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), output)
        .map_err(ExportError::from)
}

/// Returns a line for each way that executed something itself: names from the outermost call to
/// the innermost, and how many instructions.
fn folded(tree: &FlameTree, stacks: &CallStacks<'_>) -> Vec<String> {
    let nodes = tree.nodes();
    let mut totals: Vec<u64> = nodes.iter().map(|node| node.total).collect();
    totals.sort_unstable_by_key(|&total| std::cmp::Reverse(total));
    let fits = totals.get(FRAMES_MAX).map_or(0, |total| total + 1);
    let mut least = fits.max(totals[0] / NARROWEST).max(1);
    let mut own: Vec<u64> = nodes.iter().map(|node| node.own).collect();
    loop {
        for index in (1..nodes.len()).rev().filter(|&index| nodes[index].total < least) {
            own[nodes[index].parent as usize] += std::mem::take(&mut own[index]);
        }
        let drawn = nodes.iter().zip(&own).filter(|(_, own)| **own > 0);
        if drawn.map(|(node, _)| node.depth as usize).sum::<usize>() <= NAMES_MAX {
            break;
        }
        least = least.saturating_mul(2);
    }
    let line = |index: usize| {
        let mut names = Vec::new();
        let mut at = index;
        while at != 0 {
            names.push(frame_name(nodes[at].label, stacks));
            at = nodes[at].parent as usize;
        }
        names.reverse();
        format!("{} {}", names.join(";"), own[index])
    };
    (1..nodes.len()).filter(|&index| own[index] > 0).map(line).collect()
}

fn frame_name(label: FlameLabel, stacks: &CallStacks<'_>) -> String {
    match label {
        FlameLabel::All => "all".into(),
        FlameLabel::Vcpu(vcpu) => format!("vCPU {vcpu}"),
        FlameLabel::Interrupts => "[interrupts]".into(),
        FlameLabel::Exception => "[exception]".into(),
        FlameLabel::Function(function) => plain(stacks.name(function)),
    }
}

/// Returns a name as the format of the lines can hold it: a semicolon would be two frames, and a
/// number at the end a count.
fn plain(name: &str) -> String {
    let word = |character: char| match character {
        ';' => ':',
        character if character.is_control() => '?',
        character => character,
    };
    let name: String = name.chars().take(NAME_MAX).map(word).collect();
    match name.rsplit_once(' ') {
        Some((head, tail)) if tail.parse::<f64>().is_ok() => format!("{head}_{tail}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodePages;
    use crate::format::Record;
    use crate::symbols::{Symbol, SymbolKind, Symbols};
    use stepwell_arch::address::Va;

    fn svg(names: [&str; 2], records: &[Record], by_vcpu: bool) -> String {
        let kind = SymbolKind::Function;
        let symbol =
            |(name, address): (&str, u64)| Symbol { address, size: 0x100, kind, name: name.into() };
        let symbols = Symbols::new([(names[0], 0x1000), (names[1], 0x2000)].map(symbol), None);
        let mut code = CodePages::default();
        code.insert(Va(0x1004), &0x9400_03ff_u32.to_le_bytes());
        let (mut stacks, mut tree) = (CallStacks::new(&code, &symbols), FlameTree::new(by_vcpu));
        records.iter().for_each(|record| stacks.record(record, &mut tree));
        stacks.finish(&mut tree);
        let mut out = Vec::new();
        draw(&mut tree, &stacks, "a test", &mut out).expect("memory can be written to");
        String::from_utf8(out).expect("an SVG is text")
    }

    fn records() -> [Record; 3] {
        [
            Record::Run { vcpu: 0, pc: Va(0x1000), length: 2 },
            Record::Run { vcpu: 0, pc: Va(0x2000), length: 6 },
            Record::Run { vcpu: 1, pc: Va(0x2000), length: 2 },
        ]
    }

    #[test]
    fn frames_have_their_instructions() {
        let svg = svg(["caller", "callee"], &records(), true);
        for title in [
            "all (10 instructions, 100%)",
            "vCPU 0 (8 instructions, 80.00%)",
            "caller (8 instructions, 80.00%)",
            "callee (6 instructions, 60.00%)",
            "vCPU 1 (2 instructions, 20.00%)",
        ] {
            assert!(svg.contains(&format!("<title>{title}</title>")), "{title}");
        }
    }

    #[test]
    fn names_of_a_guest_stay_text() {
        let svg = svg(["<script>alert(1)</script>", "a;b c 9"], &records(), false);
        assert!(svg.contains("&lt;script&gt;alert(1)&lt;/script&gt; (8 instructions"));
        assert!(svg.contains("a:b c_9 (6 instructions"));
    }

    #[test]
    fn nothing_is_drawn_as_nothing() {
        assert!(svg(["a", "b"], &[], false).contains("(nothing was executed)"));
    }
}
