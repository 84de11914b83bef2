//! Linux's doubly linked lists (`struct list_head`), followed with care.

use crate::{Error, Memory};

/// Where `prev` is in a `struct list_head`; `next` comes first.
const PREV: u64 = 8;

/// Returns the addresses of the entries of the list that begins at `head`, as many as `most`.
///
/// Each entry has to point back to the one before it: a list that loops into itself, or a pointer
/// that leads elsewhere, is noticed at once. One entry further back will do: the guest may stop
/// amid `list_add` or `list_del`, which write one of the two pointers first.
///
/// # Errors
///
/// [`Error::Damaged`], [`Error::Endless`], and those of `memory`.
pub fn entries(
    memory: &mut dyn Memory,
    head: u64,
    what: &'static str,
    most: usize,
) -> Result<Vec<u64>, Error> {
    let (mut entries, mut entry) = (Vec::new(), memory.read_u64(head)?);
    let (mut before, mut earlier) = (head, head);
    while entry != head {
        let back = memory.read_u64(entry.wrapping_add(PREV));
        if !matches!(back, Ok(back) if back == before || back == earlier) {
            return Err(match back {
                Err(error) if error.is_fatal() => error,
                _ => Error::Damaged { what, at: before },
            });
        }
        if entries.len() == most {
            return Err(Error::Endless { what, most });
        }
        entries.push(entry);
        (earlier, before, entry) = (before, entry, memory.read_u64(entry)?);
    }
    Ok(entries)
}

/// Tells whether a list may begin at `head`: what it points to points back.
pub fn is_head(memory: &mut dyn Memory, head: u64) -> Result<bool, Error> {
    let next = memory.read_u64(head)?;
    match memory.read_u64(next.wrapping_add(PREV)) {
        Ok(back) => Ok(back == head),
        Err(error) if error.is_fatal() => Err(error),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sparse;

    const HEAD: u64 = 0xffff_8000_0100_0000;

    fn entry(number: u64) -> u64 {
        HEAD + 0x1000 * number
    }

    /// A list of `count` entries.
    fn list(count: u64) -> Sparse {
        let mut memory = Sparse::default();
        for number in 0..=count {
            let next = if number == count { HEAD } else { entry(number + 1) };
            let before = if number == 0 { entry(count) } else { entry(number - 1) };
            memory.write_u64(entry(number), next);
            memory.write_u64(entry(number) + PREV, before);
        }
        memory
    }

    fn read(memory: &mut Sparse) -> Result<Vec<u64>, Error> {
        entries(memory, HEAD, "things", 10)
    }

    #[test]
    fn entries_come_in_their_order() {
        assert!(read(&mut list(0)).unwrap().is_empty());
        assert_eq!(read(&mut list(3)).unwrap(), [entry(1), entry(2), entry(3)]);
        assert!(is_head(&mut list(3), HEAD).unwrap());
        assert!(!is_head(&mut list(3), HEAD + 0x1008).unwrap());
    }

    #[test]
    fn what_is_amid_a_change_is_read_all_the_same() {
        let mut memory = list(3);
        // list_del of 2: 3 points back to 1 already.
        memory.write_u64(entry(3) + PREV, entry(1));
        assert_eq!(read(&mut memory).unwrap().len(), 3);
        // list_add behind 3: 3 points to it, the head does not point back yet.
        let mut memory = list(3);
        memory.write_u64(entry(3), entry(4));
        memory.write_u64(entry(4), HEAD);
        memory.write_u64(entry(4) + PREV, entry(3));
        assert_eq!(read(&mut memory).unwrap().len(), 4);
    }

    #[test]
    fn loops_garbage_and_huge_lists_end() {
        let mut memory = list(3);
        memory.write_u64(entry(3), entry(1));
        assert!(matches!(read(&mut memory), Err(Error::Damaged { at, .. }) if at == entry(3)));
        // One that leads to itself passes for a change that is under way, once.
        let mut memory = list(2);
        memory.write_u64(entry(1), entry(1));
        assert!(matches!(read(&mut memory), Err(Error::Damaged { at, .. }) if at == entry(1)));
        let mut memory = list(3);
        memory.write_u64(entry(2), 0xdead_0000_0000_0100);
        assert!(matches!(read(&mut memory), Err(Error::Damaged { at, .. }) if at == entry(2)));
        assert!(matches!(read(&mut list(11)), Err(Error::Endless { most: 10, .. })));
    }
}
