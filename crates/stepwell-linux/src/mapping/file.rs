//! Files: what they are called, and which they are.

use crate::btf::{Field, field, text};
use crate::{Btf, Error, Memory};

/// Longest path, in names.
const NAMES_MAX: usize = 128;
/// Longest name of a file (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// How many bits of a device's number are its minor one (`MINORBITS`).
const MINOR_BITS: u32 = 20;

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its device: major and minor number.
    pub device: (u32, u32),
    /// Its number there.
    pub inode: u64,
    /// Whether no name leads to it any more.
    pub is_deleted: bool,
}

/// Where the members of a file are that are asked for here.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dentry: Field,
    mount: Field,
    name: Field,
    parent: Field,
    mount_root: Field,
    /// `struct mount` has the part that files know, and where that lies on the one below.
    known_part: Field,
    mount_parent: Field,
    mount_point: Field,
    identity: Option<Identities>,
}

/// Where it says which file it is.
#[derive(Clone, Debug)]
struct Identities {
    inode: Field,
    number: Field,
    super_block: Field,
    device: Field,
    /// Nothing leads to a directory entry from a parent whose table it is not in.
    hashed: Field,
}

impl Files {
    pub(super) fn new(btf: &Btf) -> Result<Self, Error> {
        Ok(Self {
            dentry: field(btf, "file", &["f_path.dentry"])?,
            mount: field(btf, "file", &["f_path.mnt"])?,
            name: field(btf, "dentry", &["d_name.name"])?,
            parent: field(btf, "dentry", &["d_parent"])?,
            mount_root: field(btf, "vfsmount", &["mnt_root"])?,
            known_part: field(btf, "mount", &["mnt"])?,
            mount_parent: field(btf, "mount", &["mnt_parent"])?,
            mount_point: field(btf, "mount", &["mnt_mountpoint"])?,
            identity: Identities::new(btf).ok(),
        })
    }

    /// Makes a file's path, up to the root of all file systems, and tells which one it is.
    ///
    /// # Errors
    ///
    /// Those of `memory`.
    pub(super) fn read(
        &self,
        memory: &mut dyn Memory,
        file: u64,
    ) -> Result<(String, Identity), Error> {
        let dentry = self.dentry.read(memory, file)?;
        let path = self.path(memory, file, dentry)?;
        let identity = match &self.identity {
            Some(identities) => identities.read(memory, file, dentry)?,
            None => Identity::default(),
        };
        Ok((path, identity))
    }

    fn path(&self, memory: &mut dyn Memory, file: u64, mut dentry: u64) -> Result<String, Error> {
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

impl Identities {
    fn new(btf: &Btf) -> Result<Self, Error> {
        Ok(Self {
            inode: field(btf, "file", &["f_inode"])?,
            number: field(btf, "inode", &["i_ino"])?,
            super_block: field(btf, "inode", &["i_sb"])?,
            device: field(btf, "super_block", &["s_dev"])?,
            hashed: field(btf, "dentry", &["d_hash.pprev"])?,
        })
    }

    fn read(&self, memory: &mut dyn Memory, file: u64, dentry: u64) -> Result<Identity, Error> {
        let inode = self.inode.read(memory, file)?;
        let super_block = self.super_block.read(memory, inode)?;
        let device = self.device.read(memory, super_block)? as u32;
        Ok(Identity {
            device: (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1)),
            inode: self.number.read(memory, inode)?,
            // What never had a name (memfd_create, shared memory without a file) is shown so, too.
            is_deleted: self.hashed.read(memory, dentry)? == 0,
        })
    }
}
