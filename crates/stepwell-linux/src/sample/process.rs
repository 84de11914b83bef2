//! What the kernel made by hand knows of a process: its areas, and the file that one of them shows.

use super::types::Builder;
use super::{HEAP, Sparse, run};

/// Where its address space is.
pub(crate) const MM: u64 = HEAP + 0x6000;
const LEAF: u64 = HEAP + 0x6400;
const AREAS: u64 = HEAP + 0x6800;
const FILE: u64 = HEAP + 0x6a00;
const MOUNT: u64 = HEAP + 0x6b00;
const NAMES: u64 = HEAP + 0x6c00;
const DENTRIES: [u64; 3] = [HEAP + 0x6d00, HEAP + 0x6d80, HEAP + 0x6e00];
const INODE: u64 = HEAP + 0x6e80;
const SPECIAL: u64 = HEAP + 0x6f00;
/// Bytes of an area.
const AREA: u64 = 0x40;

pub(super) fn types(types: &mut Builder, pointer: u32, word: u32) {
    let tree = types.structure("maple_tree", 8, &[("ma_root", pointer, 0)]);
    let mm = [("mm_mt", tree, 0), ("start_brk", pointer, 8), ("brk", pointer, 16)];
    types.structure("mm_struct", 64, &[&mm[..], &[("start_stack", pointer, 24)]].concat());
    let (range, allocation) = (types.array(pointer, 16), types.array(pointer, 10));
    types.structure("maple_range_64", 256, &[("slot", range, 128)]);
    types.structure("maple_arange_64", 256, &[("slot", allocation, 80)]);
    let names = [
        "vm_start",
        "vm_end",
        "vm_mm",
        "vm_flags",
        "vm_file",
        "vm_pgoff",
        "vm_ops",
        "vm_private_data",
    ];
    let area: Vec<_> = (0..).step_by(8).zip(names).map(|(at, name)| (name, pointer, at)).collect();
    types.structure("vm_area_struct", AREA as u32, &area);
    types.structure("vm_operations_struct", 8, &[("name", pointer, 0)]);
    types.structure("vm_special_mapping", 8, &[("name", pointer, 0)]);
    let path = types.structure("path", 16, &[("mnt", pointer, 0), ("dentry", pointer, 8)]);
    types.structure("file", 24, &[("f_path", path, 0), ("f_inode", pointer, 16)]);
    let (name, hash) = (
        types.structure("qstr", 16, &[("name", pointer, 8)]),
        types.structure("hlist_bl_node", 16, &[("next", pointer, 0), ("pprev", pointer, 8)]),
    );
    let dentry = [("d_hash", hash, 0), ("d_parent", pointer, 16), ("d_name", name, 24)];
    types.structure("dentry", 64, &dentry);
    let known = types.structure("vfsmount", 8, &[("mnt_root", pointer, 0)]);
    let mount = [("mnt_parent", pointer, 0), ("mnt_mountpoint", pointer, 8), ("mnt", known, 16)];
    types.structure("mount", 24, &mount);
    types.structure("inode", 16, &[("i_ino", pointer, 0), ("i_sb", pointer, 8)]);
    types.structure("super_block", 4, &[("s_dev", word, 0)]);
    types.structure("kthread", 8, &[("full_name", pointer, 0)]);
}

/// Writes a process with a file, a heap, a stack and a mapping of the kernel's own.
pub(super) fn write(memory: &mut Sparse, mm: u64) {
    memory.write(mm, &[0; 64]);
    memory.write(LEAF, &[0; 256]);
    memory.write_u64(mm, LEAF | 1 << 3 | 2);
    memory.write_u64(mm + 8, 0x60_0000);
    memory.write_u64(mm + 16, 0x60_1000);
    memory.write_u64(mm + 24, 0xffff_f000);
    let areas = [
        (0x40_0000, 0x5b_2000, 0b101, FILE, 0),
        (0x60_0000, 0x62_0000, 0b11, 0, 0),
        (0xffff_0000, 0x1_0000_0000, 0b11, 0, 0),
        (0xfff0_0000, 0xfff0_1000, 0b101, 0, SPECIAL),
    ];
    for (index, (start, end, flags, file, operations)) in (0..).zip(areas) {
        let at = AREAS + AREA * index;
        memory.write_u64(LEAF + 128 + 8 * index, at);
        for (place, value) in (0..).step_by(8).zip([start, end, mm, flags, file, 0, operations]) {
            memory.write_u64(at + place, value);
        }
        memory.write_u64(at + 56, SPECIAL + 8);
    }
    memory.write_u64(SPECIAL, run(0x1400));
    memory.write_u64(SPECIAL + 8, NAMES + 0x20);
    for (place, value) in [(0, MOUNT + 16), (8, DENTRIES[2]), (16, INODE)] {
        memory.write_u64(FILE + place, value);
    }
    for (place, value) in [(0, MOUNT), (8, 0), (16, DENTRIES[0])] {
        memory.write_u64(MOUNT + place, value);
    }
    memory.write(NAMES, b"\0bin\0busybox\0");
    memory.write(NAMES + 0x20, b"[vdso]\0");
    for (index, name) in [0, 1, 5].into_iter().enumerate() {
        let parent = DENTRIES[index.saturating_sub(1)];
        for (place, value) in [(0, 0), (8, HEAP), (16, parent), (24, 0), (32, NAMES + name)] {
            memory.write_u64(DENTRIES[index] + place, value);
        }
    }
    memory.write_u64(INODE, 15);
    memory.write_u64(INODE + 8, INODE + 16);
    memory.write_u64(INODE + 16, 7 << 20 | 2);
}
