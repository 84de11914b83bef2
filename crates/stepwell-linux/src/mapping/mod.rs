//! What a process has mapped: addresses, rights, and files.
//!
//! Since Linux 6.1 a process's areas are in a maple tree, before that in a list. A tree is followed
//! by what its nodes hold, and an area is believed if it says that it belongs to this process: a
//! node's unused slots may hold anything.

mod file;
mod special;

use crate::btf::{Field, Kind, field};
use crate::{Btf, Error, Kernel, Memory};
use file::Files;
pub use file::Identity;
use special::Special;

/// Most areas that are read.
const AREAS_MAX: usize = 1 << 16;
/// Most nodes of a tree that are read.
const NODES_MAX: usize = 1 << 14;

/// An area of a process's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The first behind it.
    pub end: u64,
    /// `VM_READ`, `VM_WRITE`, `VM_EXEC`, `VM_SHARED`: bits 0 to 3; `VM_MAYSHARE`: bit 7; and more.
    pub flags: u64,
    /// Which file it shows, as the guest's own root has it.
    pub file: Option<String>,
    /// What else it is known as: `[heap]`, `[stack]`, `[vdso]`.
    pub special: Option<String>,
    /// How far into the file it begins, in bytes.
    pub offset: u64,
    /// Which file it is, where it is one.
    pub identity: Identity,
}

impl Mapping {
    /// Returns its rights as `/proc/PID/maps` has them.
    #[must_use]
    pub fn rights(&self) -> String {
        let letter = |bit: u32, yes, no| if self.flags >> bit & 1 == 1 { yes } else { no };
        [letter(0, 'r', '-'), letter(1, 'w', '-'), letter(2, 'x', '-'), letter(7, 's', 'p')]
            .iter()
            .collect()
    }

    /// Returns its line of `/proc/PID/maps`.
    #[must_use]
    pub fn line(&self) -> String {
        /// All names begin in one column (`show_vma_header_prefix` in `fs/proc/task_mmu.c`).
        const NAME_COLUMN: usize = 73;
        let Identity { device: (major, minor), inode, is_deleted } = self.identity;
        let (start, end, offset, rights) = (self.start, self.end, self.offset, self.rights());
        let line =
            format!("{start:08x}-{end:08x} {rights} {offset:08x} {major:02x}:{minor:02x} {inode}");
        let Some(name) = self.file.as_ref().or(self.special.as_ref()) else { return line };
        let deleted = if is_deleted { " (deleted)" } else { "" };
        format!("{line:<NAME_COLUMN$}{name}{deleted}")
    }
}

/// Where the members are that are asked for here.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    areas: Areas,
    start: Field,
    end: Field,
    mm: Field,
    flags: Field,
    file: Field,
    page_offset: Field,
    files: Files,
    special: Special,
}

/// How the areas of a process are kept.
#[derive(Clone, Debug)]
enum Areas {
    List { first: Field, next: Field },
    Tree { root: Field, range: Node, allocation: Node },
}

/// The slots of a kind of node: where they begin, and how many there are.
#[derive(Clone, Copy, Debug)]
struct Node {
    slots: u64,
    count: u64,
}

impl Layout {
    pub(crate) fn new(btf: &Btf, version: &str) -> Result<Self, Error> {
        let area = |path: &str| field(btf, "vm_area_struct", &[path]);
        Ok(Self {
            areas: Areas::new(btf)?,
            start: area("vm_start")?,
            end: area("vm_end")?,
            mm: area("vm_mm")?,
            flags: area("vm_flags")?,
            file: area("vm_file")?,
            page_offset: area("vm_pgoff")?,
            files: Files::new(btf)?,
            special: Special::new(btf, version),
        })
    }
}

impl Areas {
    fn new(btf: &Btf) -> Result<Self, Error> {
        if let Ok(first) = field(btf, "mm_struct", &["mmap"]) {
            return Ok(Self::List { first, next: field(btf, "vm_area_struct", &["vm_next"])? });
        }
        Ok(Self::Tree {
            root: field(btf, "mm_struct", &["mm_mt.ma_root"])?,
            range: Node::new(btf, "maple_range_64")?,
            allocation: Node::new(btf, "maple_arange_64")?,
        })
    }
}

impl Node {
    fn new(btf: &Btf, name: &str) -> Result<Self, Error> {
        let slots = field(btf, name, &["slot"])?;
        let count = match btf.get(btf.resolve(slots.id)).map(|one| one.kind) {
            Some(Kind::Array { count, .. }) => u64::from(count),
            _ => return Err(Error::NoMember(format!("{name}.slot"))),
        };
        Ok(Self { slots: slots.offset, count: count.min(64) })
    }
}

/// Returns what the process whose address space is `mm` has mapped, in the order of addresses.
///
/// # Errors
///
/// [`Error::NoMember`], [`Error::Endless`], and those of `memory`.
pub fn all(kernel: &Kernel, memory: &mut dyn Memory, mm: u64) -> Result<Vec<Mapping>, Error> {
    let layout = kernel.mapping_layout()?;
    let mut areas = match &layout.areas {
        Areas::List { first, next } => {
            let first = first.read(memory, mm)?;
            in_list(memory, first, next)?
        }
        Areas::Tree { root, range, allocation } => {
            let root = root.read(memory, mm)?;
            in_tree(memory, root, *range, *allocation)?
        }
    };
    areas.sort_unstable();
    areas.dedup();
    let mut mappings = Vec::new();
    for area in areas {
        match layout.mm.read(memory, area) {
            Ok(of) if of == mm => mappings.push(read(kernel, memory, area)?),
            Err(error) if error.is_fatal() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    mappings.sort_by_key(|mapping| mapping.start);
    Ok(mappings)
}

fn read(kernel: &Kernel, memory: &mut dyn Memory, area: u64) -> Result<Mapping, Error> {
    let layout = kernel.mapping_layout()?;
    let mut field = |field: &Field| field.read(memory, area);
    let (start, end, flags) = (field(&layout.start)?, field(&layout.end)?, field(&layout.flags)?);
    let (at, pages, mm) = (field(&layout.file)?, field(&layout.page_offset)?, field(&layout.mm)?);
    if at == 0 {
        let names_itself = kernel.special_mapping_name();
        let special = layout.special.name(memory, area, mm, start..end, names_itself)?;
        let identity = Identity::default();
        return Ok(Mapping { start, end, flags, file: None, special, offset: 0, identity });
    }
    let (path, identity) = match layout.files.read(memory, at) {
        Ok(found) => found,
        Err(error) if error.is_fatal() => return Err(error),
        Err(_) => ("?".to_owned(), Identity::default()),
    };
    let offset = pages.wrapping_mul(kernel.page_bytes());
    Ok(Mapping { start, end, flags, file: Some(path), special: None, offset, identity })
}

fn in_list(memory: &mut dyn Memory, first: u64, next: &Field) -> Result<Vec<u64>, Error> {
    let (mut areas, mut area) = (Vec::new(), first);
    while area != 0 {
        if areas.len() == AREAS_MAX {
            return Err(Error::Endless { what: "mappings", most: AREAS_MAX });
        }
        areas.push(area);
        area = next.read(memory, area)?;
    }
    Ok(areas)
}

/// What an entry of a maple tree is (`lib/maple_tree.c`, `mt_mk_node`, `xa_is_node`).
fn node(entry: u64) -> Option<(u64, u64)> {
    const IS_NODE: u64 = 2;
    const ALIGNMENT: u64 = 256;
    // The root is marked as one; those below have their kind in the same bits.
    let is_node = entry & IS_NODE != 0 || entry & 4 != 0;
    (is_node && entry > 4096).then_some((entry & !(ALIGNMENT - 1), entry >> 3 & 0xf))
}

/// Returns what may be areas, from the root of a tree on.
fn in_tree(
    memory: &mut dyn Memory,
    root: u64,
    range: Node,
    allocation: Node,
) -> Result<Vec<u64>, Error> {
    /// Kinds of nodes (`enum maple_type`): leaves, and those that lead to others.
    const LEAF: u64 = 1;
    const RANGE: u64 = 2;
    const ALLOCATION: u64 = 3;
    let (mut areas, mut nodes, mut next) = (Vec::new(), vec![root], 0);
    while let Some(entry) = nodes.get(next).copied() {
        next += 1;
        let Some((at, kind)) = node(entry) else {
            areas.extend((entry != 0).then_some(entry));
            continue;
        };
        let Node { slots, count } = match kind {
            LEAF | RANGE => range,
            ALLOCATION => allocation,
            _ => continue,
        };
        for slot in 0..count {
            let entry = match memory.read_u64(at.wrapping_add(slots + 8 * slot)) {
                Ok(0) => continue,
                Ok(entry) => entry,
                Err(error) if error.is_fatal() => return Err(error),
                Err(_) => break,
            };
            if kind == LEAF { areas.push(entry) } else { nodes.push(entry) }
        }
        if nodes.len() > NODES_MAX || areas.len() > AREAS_MAX {
            return Err(Error::Endless { what: "mappings", most: AREAS_MAX });
        }
    }
    Ok(areas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sparse;

    const RANGE_64: Node = Node { slots: 128, count: 16 };
    const ARANGE_64: Node = Node { slots: 80, count: 10 };
    const AT: u64 = 0xffff_0000_0100_0000;

    #[test]
    fn trees_are_followed_to_their_leaves() {
        let mut memory = Sparse::default();
        memory.write(AT, &[0; 0x400]);
        let (root, leaf) = (AT | 3 << 3 | 6, (AT + 0x100) | (1 << 3) | 4);
        memory.write_u64(AT + 80, leaf);
        memory.write_u64(AT + 0x100 + 128, 0xffff_0000_0200_0000);
        memory.write_u64(AT + 0x100 + 136, 0xffff_0000_0200_0080);
        let areas = in_tree(&mut memory, root, RANGE_64, ARANGE_64).unwrap();
        assert_eq!(areas, [0xffff_0000_0200_0000, 0xffff_0000_0200_0080]);
        assert!(in_tree(&mut memory, 0, RANGE_64, ARANGE_64).unwrap().is_empty());
    }

    #[test]
    fn a_tree_that_leads_to_itself_ends() {
        let mut memory = Sparse::default();
        memory.write(AT, &[0; 0x100]);
        let root = AT | 2 << 3 | 6;
        for slot in 0..16 {
            memory.write_u64(AT + 128 + 8 * slot, root);
        }
        let error = in_tree(&mut memory, root, RANGE_64, ARANGE_64).unwrap_err();
        assert!(matches!(error, Error::Endless { what: "mappings", .. }));
    }

    #[test]
    fn rights_are_written_as_in_proc() {
        let identity = Identity { device: (0, 2), inode: 15, is_deleted: false };
        let mapping = |flags| Mapping {
            start: 0x40_0000,
            end: 0x5b_2000,
            flags,
            file: Some("/bin/busybox".into()),
            special: None,
            offset: 0,
            identity,
        };
        assert_eq!(mapping(0b101).rights(), "r-xp");
        // What a file that was opened for reading is shared by can never be written.
        assert_eq!(mapping(0b1000_0001).rights(), "r--s");
        let line =
            "00400000-005b2000 r-xp 00000000 00:02 15                                 /bin/busybox";
        assert_eq!(mapping(0b101).line(), line);
        let heap = Mapping {
            file: None,
            special: Some("[heap]".into()),
            identity: Identity::default(),
            ..mapping(0b11)
        };
        assert!(
            heap.line().ends_with("rw-p 00000000 00:00 0                                  [heap]")
        );
        let nameless = Mapping { special: None, ..heap };
        assert_eq!(nameless.line(), "00400000-005b2000 rw-p 00000000 00:00 0");
    }
}
