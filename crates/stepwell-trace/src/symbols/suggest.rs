//! Names close to one that does not exist: typing errors and half-remembered names.

/// Longest name that is compared by distance; the work grows with its square.
const COMPARED_MAX: usize = 64;

/// Returns up to `count` of `names`, the closest to `wanted` first.
///
/// A name that contains the other, or the other way round, counts as close; else the edit distance
/// has to be at most a third of the length.
pub(super) fn closest<'a>(
    names: impl Iterator<Item = &'a str>,
    wanted: &str,
    count: usize,
) -> Vec<&'a str> {
    let wanted = wanted.to_ascii_lowercase();
    let mut found: Vec<(usize, &str)> =
        names.filter_map(|name| Some((score(name, &wanted)?, name))).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(count).map(|(_, name)| name).collect()
}

fn score(name: &str, wanted: &str) -> Option<usize> {
    if name.len() > COMPARED_MAX || wanted.len() > COMPARED_MAX || wanted.is_empty() {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let limit = wanted.len() / 3 + 1;
    if wanted.len() >= 3 && lower.contains(wanted) {
        return Some(limit + lower.len() - wanted.len());
    }
    if lower.len().abs_diff(wanted.len()) > limit {
        return None;
    }
    Some(distance(lower.as_bytes(), wanted.as_bytes())).filter(|distance| *distance <= limit)
}

/// Returns how many letters have to be put in, left out or changed.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"abc", b"abc"), 0);
    }
}
