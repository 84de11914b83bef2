//! Streams of executed PCs, and where two of them part.

use std::fmt::Write as _;
use std::ops::Range;

/// The PCs that one CPU executed, in order.
pub type Stream = Vec<u64>;

/// How many instructions are shown on either side of a divergence.
const CONTEXT: usize = 12;

/// Where two streams first differ: the index, or none where one is no more than the other's start
/// or equal to it.
#[must_use]
pub fn first_divergence(a: &[u64], b: &[u64]) -> Option<usize> {
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// Shows both streams around an index, the first one's name first.
#[must_use]
pub fn around(index: usize, a: (&str, &[u64]), b: (&str, &[u64])) -> String {
    let mut text = format!("    {:>10}  {:<22} {:<22}\n", "step", a.0, b.0);
    let at = |stream: &[u64], place: usize| {
        stream.get(place).map_or_else(|| "-".to_owned(), |pc| format!("{pc:#018x}"))
    };
    for place in index.saturating_sub(CONTEXT)..index + CONTEXT {
        let (left, right) = (at(a.1, place), at(b.1, place));
        if left == "-" && right == "-" {
            break;
        }
        let mark = if left == right { ' ' } else { '*' };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {mark} {place:>10}  {left:<22} {right:<22}");
    }
    text
}

/// Demands that the first `length` instructions of both are equal.
///
/// # Errors
/// A text that shows both streams where they part, or where one ends too soon.
pub fn demand_equal(length: usize, a: (&str, &[u64]), b: (&str, &[u64])) -> Result<(), String> {
    let (left, right) = (&a.1[..a.1.len().min(length)], &b.1[..b.1.len().min(length)]);
    let parted = first_divergence(left, right);
    if let Some(index) = parted {
        return Err(format!("the streams part at step {index}:\n{}", around(index, a, b)));
    }
    if left.len() != right.len() {
        let index = left.len().min(right.len());
        return Err(format!(
            "one stream ends early: {} has {} instructions, {} has {}\n{}",
            a.0,
            left.len(),
            b.0,
            right.len(),
            around(index, a, b)
        ));
    }
    Ok(())
}

/// Leaves out the interrupts: everything from the vector's first instruction to the return.
///
/// Nested ones count. `vectors` are the addresses of the IRQ vectors, `end` is that of the one ERET
/// by which interrupts (and nothing else) return.
#[must_use]
pub fn without_interrupts(stream: &[u64], vectors: &[u64], end: u64) -> Stream {
    let mut depth = 0_usize;
    let mut kept = Vec::with_capacity(stream.len());
    for &pc in stream {
        if vectors.contains(&pc) {
            depth += 1;
        }
        if depth == 0 {
            kept.push(pc);
        } else if pc == end {
            depth -= 1;
        }
    }
    kept
}

/// Leaves out what lies in any of the ranges.
#[must_use]
pub fn without_ranges(stream: &[u64], ranges: &[Range<u64>]) -> Stream {
    stream.iter().copied().filter(|pc| !ranges.iter().any(|range| range.contains(pc))).collect()
}

/// The start of a stream, up to the first time that `pc` is about to execute.
#[must_use]
pub fn until(stream: &[u64], pc: u64) -> &[u64] {
    stream.iter().position(|at| *at == pc).map_or(stream, |end| &stream[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_and_a_doubled_instruction_are_found() {
        let good = [0, 4, 8, 12, 16];
        assert_eq!(first_divergence(&good, &[0, 4, 12, 16]), Some(2));
        assert_eq!(first_divergence(&good, &[0, 4, 8, 8, 12, 16]), Some(3));
        assert_eq!(first_divergence(&good, &good), None);
        let text = demand_equal(5, ("witness", &good), ("ours", &[0, 4, 8, 8])).unwrap_err();
        assert!(text.contains("part at step 3"), "{text}");
        assert!(text.contains("*          3"), "{text}");
    }

    #[test]
    fn a_stream_that_ends_early_is_found() {
        let text = demand_equal(3, ("witness", &[0, 4, 8]), ("ours", &[0, 4])).unwrap_err();
        assert!(text.contains("ends early"), "{text}");
        assert!(demand_equal(2, ("witness", &[0, 4, 8]), ("ours", &[0, 4])).is_ok());
    }

    #[test]
    fn nested_interrupts_are_left_out_whole() {
        let stream = [0, 100, 104, 100, 104, 200, 108, 200, 4];
        assert_eq!(without_interrupts(&stream, &[100], 200), [0, 4]);
    }

    #[test]
    fn ranges_and_ends() {
        assert_eq!(without_ranges(&[0, 4, 8, 12], std::slice::from_ref(&(4..12))), [0, 12]);
        assert_eq!(until(&[0, 4, 8, 4], 4), [0]);
        assert_eq!(until(&[0, 8], 4), [0, 8]);
    }
}
