//! Names close to one that does not exist: typing errors and half-remembered names.

/// Longest name that is compared by distance; the work grows with its square.
const COMPARED_MAX: usize = 64;

/// Returns up to `count` of `names`, the closest to `wanted` first.
///
/// A name that begins with what is wanted is as close as one typing error, one that contains it is
/// close too; else the edit distance has to be at most a third of the length.
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
    let more = lower.len().saturating_sub(wanted.len());
    let contained = match wanted.len() {
        0..3 => None,
        _ if lower.starts_with(wanted) => Some(1 + more / 4),
        _ => lower.contains(wanted).then_some(limit + more),
    };
    let comparable = lower.len().abs_diff(wanted.len()) <= limit;
    let near = comparable.then(|| distance(lower.as_bytes(), wanted.as_bytes()));
    [contained, near.filter(|distance| *distance <= limit)].into_iter().flatten().min()
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
    fn what_begins_like_the_name_comes_before_what_is_only_like_it() {
        let names = ["start_tty", "start_show", "restart_kernel", "start_kernel"];
        assert_eq!(closest(names.into_iter(), "start_kern", 1), ["start_kernel"]);
    }

    #[test]
    fn distances() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"abc", b"abc"), 0);
    }
}
