//! What a run begins with, in its log: packed there while it is recorded, and taken out for a replay.

use super::options::GuestOptions;
use anyhow::{Context, anyhow, bail};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use stepwell_replay::log::{Entry, PART_BYTES, Reader, Writer, parts};

/// The names of the files in a log.
pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRD: &str = "initrd";
pub(super) const DEVICETREE: &str = "devicetree";

/// The name of a disk's contents.
pub(super) fn disk(index: usize) -> String {
    format!("disk{index}")
}

/// Packs all files that a guest begins with.
pub(super) fn pack<W: Write>(log: &mut Writer<W>, guest: &GuestOptions) -> anyhow::Result<()> {
    let files = [(KERNEL, &guest.kernel), (INITRD, &guest.initrd), (DEVICETREE, &guest.dtb)];
    for (name, path) in files {
        let Some(path) = path else { continue };
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        for part in parts(name, 0, &bytes, false) {
            log.add(&part)?;
        }
    }
    for (index, options) in guest.disks.iter().enumerate() {
        let name = disk(index);
        options.read_all(PART_BYTES, |at, bytes, has_more| {
            for part in parts(&name, at, bytes, has_more) {
                log.add(&part)?;
            }
            Ok::<(), anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// The files of a log that has them, taken out of it into files without names.
pub(super) struct Unpacked(BTreeMap<String, File>);

impl Unpacked {
    /// Nothing.
    pub(super) const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Takes them out.
    pub(super) fn of(log: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        let mut reader = Reader::new(BufReader::new(File::open(log)?))?;
        let memory_bytes = reader.header().memory_bytes;
        while let Some(Entry::Packed(part)) = reader.next_entry()? {
            let bytes =
                part.unpack().ok_or_else(|| anyhow!("a part of its {} is damaged", part.file))?;
            // What is loaded has to fit into the guest's memory, wherever its parts say that they are.
            let end = part.offset.saturating_add(bytes.len() as u64);
            let is_loaded = [KERNEL, INITRD, DEVICETREE].contains(&part.file.as_str());
            if is_loaded && end > memory_bytes {
                bail!(
                    "its {} would be larger than the guest's memory: record the run anew",
                    part.file
                );
            }
            let file = match files.remove(&part.file) {
                Some(file) => file,
                None => {
                    tempfile::tempfile().context("no scratch file (TMPDIR names another place)")?
                }
            };
            let written = file.write_all_at(&bytes, part.offset);
            written.with_context(|| {
                format!("cannot unpack its {} (TMPDIR names another place)", part.file)
            })?;
            files.insert(part.file, file);
        }
        Ok(Self(files))
    }

    /// A path that leads to one of them for as long as they are here.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        Some(format!("/proc/self/fd/{}", self.0.get(name)?.as_raw_fd()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::beginning::header;
    use crate::command::beginning::tests::guest;
    use stepwell_devices::DiskOptions;

    #[test]
    fn what_was_packed_is_taken_out_and_leaves_no_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kernel: Vec<u8> = (0..PART_BYTES as u32 + 9).map(|n| (n % 251) as u8).collect();
        // With nothing at its end, and on most of the disk.
        let tree = [b"tree".as_slice(), &[0; 100]].concat();
        let mut contents = vec![0; 3 * PART_BYTES + 512];
        contents[2 * PART_BYTES] = 7;
        for (name, bytes) in [("kernel", &kernel), ("tree", &tree), ("disk", &contents)] {
            std::fs::write(at(name), bytes).unwrap();
        }
        let disk: DiskOptions = format!("{},snapshot", at("disk").display()).parse().unwrap();
        let mut guest = guest(&at("kernel"));
        (guest.dtb, guest.disks) = (Some(at("tree")), vec![disk]);
        let mut bytes = Vec::new();
        let mut log = Writer::new(&mut bytes, &header(&at("kernel"))).unwrap();
        pack(&mut log, &guest).unwrap();
        log.add(&Entry::Left { position: 1, clock: 1 }).unwrap();
        std::fs::write(at("run.replay"), &bytes).unwrap();
        let unpacked = Unpacked::of(&at("run.replay")).unwrap();
        for (name, expected) in [(KERNEL, &kernel), (DEVICETREE, &tree), ("disk0", &contents)] {
            assert!(&std::fs::read(unpacked.path(name).unwrap()).unwrap() == expected, "{name}");
        }
        assert!(unpacked.path(INITRD).is_none());
        assert!(bytes.len() < 2 * PART_BYTES, "zeros take no room: {}", bytes.len());
    }

    #[test]
    fn what_is_larger_than_memory_is_not_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.replay");
        let header = header(&path);
        for (name, is_taken) in
            [(KERNEL, false), (INITRD, false), (DEVICETREE, false), ("disk0", true)]
        {
            let mut bytes = Vec::new();
            let mut log = Writer::new(&mut bytes, &header).unwrap();
            for part in parts(name, header.memory_bytes, b"behind it", false) {
                log.add(&part).unwrap();
            }
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Unpacked::of(&path).is_ok(), is_taken, "{name}");
        }
    }
}
