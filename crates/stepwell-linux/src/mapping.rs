//! What a process has mapped: addresses, rights, and files.
//!
//! Since Linux 6.1 a process's areas are in a maple tree, before that in a list. A tree is followed
//! by what its nodes hold, and an area is believed if it says that it belongs to this process: a
//! node's unused slots may hold anything.

use crate::btf::{Field, Kind, text};
use crate::kernel::field;
use crate::{Btf, Error, Kernel, Memory};

/// Most areas that are read.
const AREAS_MAX: usize = 1 << 16;
/// Most nodes of a tree that are read.
const NODES_MAX: usize = 1 << 14;
/// Longest path, in names.
const NAMES_MAX: usize = 128;
/// Longest name of a file (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// An area of a process's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The first behind it.
    pub end: u64,
    /// `VM_READ`, `VM_WRITE`, `VM_EXEC`, `VM_SHARED`: bits 0 to 3; and more.
    pub flags: u64,
    /// Which file it shows, as the guest's own root has it.
    pub file: Option<String>,
    /// How far into the file it begins, in bytes.
    pub offset: u64,
}

impl Mapping {
    /// Returns its rights as `/proc/PID/maps` has them.
    #[must_use]
    pub fn rights(&self) -> String {
        let letter = |bit: u32, yes, no| if self.flags >> bit & 1 == 1 { yes } else { no };
        [letter(0, 'r', '-'), letter(1, 'w', '-'), letter(2, 'x', '-'), letter(3, 's', 'p')]
            .iter()
            .collect()
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
    path: Path,
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

#[derive(Clone, Debug)]
struct Path {
    dentry: Field,
    mount: Field,
    name: Field,
    parent: Field,
    mount_root: Field,
    /// `struct mount` has the part that files know, and where that lies on the one below.
    known_part: Field,
    mount_parent: Field,
    mount_point: Field,
}

impl Layout {
    pub(crate) fn new(btf: &Btf) -> Result<Self, Error> {
        let area = |path: &str| field(btf, "vm_area_struct", &[path]);
        Ok(Self {
            areas: Areas::new(btf)?,
            start: area("vm_start")?,
            end: area("vm_end")?,
            mm: area("vm_mm")?,
            flags: area("vm_flags")?,
            file: area("vm_file")?,
            page_offset: area("vm_pgoff")?,
            path: Path::new(btf)?,
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

impl Path {
    fn new(btf: &Btf) -> Result<Self, Error> {
        Ok(Self {
            dentry: field(btf, "file", &["f_path.dentry"])?,
            mount: field(btf, "file", &["f_path.mnt"])?,
            name: field(btf, "dentry", &["d_name.name"])?,
            parent: field(btf, "dentry", &["d_parent"])?,
            mount_root: field(btf, "vfsmount", &["mnt_root"])?,
            known_part: field(btf, "mount", &["mnt"])?,
            mount_parent: field(btf, "mount", &["mnt_parent"])?,
            mount_point: field(btf, "mount", &["mnt_mountpoint"])?,
        })
    }

    /// Makes a file's path, up to the root of all file systems.
    fn read(&self, memory: &mut dyn Memory, file: u64) -> Result<String, Error> {
        let mut dentry = self.dentry.read(memory, file)?;
        let mut mount = self.mount.read(memory, file)?;
        let mut names = Vec::new();
        for _ in 0..NAMES_MAX {
            if dentry == self.mount_root.read(memory, mount)? {
                let below = mount.wrapping_sub(self.known_part.offset);
                let parent = self.mount_parent.read(memory, below)?;
                if parent == below {
                    break;
                }
                dentry = self.mount_point.read(memory, below)?;
                mount = parent.wrapping_add(self.known_part.offset);
                continue;
            }
            let parent = self.parent.read(memory, dentry)?;
            names.push(self.name(memory, dentry)?);
            if parent == dentry {
                break;
            }
            dentry = parent;
        }
        names.reverse();
        Ok(format!("/{}", names.join("/")))
    }

    fn name(&self, memory: &mut dyn Memory, dentry: u64) -> Result<String, Error> {
        let at = self.name.read(memory, dentry)?;
        let mut bytes = Vec::new();
        while bytes.len() < NAME_MAX && bytes.last() != Some(&0) {
            let mut byte = [0];
            memory.read(at.wrapping_add(bytes.len() as u64), &mut byte)?;
            bytes.extend(byte);
        }
        Ok(text(&bytes))
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
            Ok(of) if of == mm => mappings.push(read(layout, memory, area, kernel.page_bytes())?),
            Err(error) if error.is_fatal() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    mappings.sort_by_key(|mapping| mapping.start);
    Ok(mappings)
}

fn read(
    layout: &Layout,
    memory: &mut dyn Memory,
    area: u64,
    page_bytes: u64,
) -> Result<Mapping, Error> {
    let mut field = |field: &Field| field.read(memory, area);
    let (start, end, flags) = (field(&layout.start)?, field(&layout.end)?, field(&layout.flags)?);
    let (file, pages) = (field(&layout.file)?, field(&layout.page_offset)?);
    let path = match file {
        0 => None,
        file => match layout.path.read(memory, file) {
            Ok(path) => Some(path),
            Err(error) if error.is_fatal() => return Err(error),
            Err(_) => Some("?".to_owned()),
        },
    };
    let offset = if file == 0 { 0 } else { pages.wrapping_mul(page_bytes) };
    Ok(Mapping { start, end, flags, file: path, offset })
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
        let mapping = |flags| Mapping { start: 0, end: 1, flags, file: None, offset: 0 };
        assert_eq!(mapping(0b101).rights(), "r-xp");
        assert_eq!(mapping(0b1011).rights(), "rw-s");
    }
}
