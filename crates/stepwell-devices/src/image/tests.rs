//! Images: their formats, their locks, and what a snapshot leaves alone.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

fn options(words: &str) -> DiskOptions {
    words.parse().unwrap()
}

fn image(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("disk.img");
    fs::write(&path, bytes).unwrap();
    path
}

fn opened(words: &str) -> Result<Box<dyn Image>, String> {
    options(words).open().map_err(|error| error.to_string())
}

#[test]
fn words_are_read() {
    let disk = options("a,,b.img,readonly");
    assert_eq!(
        (disk.path.to_str(), disk.is_read_only, disk.is_snapshot),
        (Some("a,b.img"), true, false)
    );
    assert!(options("a,snapshot").is_snapshot && !options("a,snapshot").writes());
    assert_eq!("".parse::<DiskOptions>(), Err(DiskOptionsError::NoFile));
    assert_eq!(",readonly".parse::<DiskOptions>(), Err(DiskOptionsError::NoFile));
    let word = DiskOptionsError::Word("ro".into());
    assert_eq!("a,ro".parse::<DiskOptions>(), Err(word));
}

#[test]
fn what_cannot_be_a_disk_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = opened(missing.to_str().unwrap()).err().unwrap();
    assert!(error.contains("missing: No such file"), "{error}");
    let error = opened(folder.path().to_str().unwrap()).err().unwrap();
    assert!(error.ends_with("is neither a file nor a block device"), "{error}");
    let short = image(folder.path(), b"short");
    let error = opened(short.to_str().unwrap()).err().unwrap();
    assert!(error.contains("has less than a sector"), "{error}");
    let vmdk = image(folder.path(), b"KDMV\x01\0\0\0rest");
    let error = opened(vmdk.to_str().unwrap()).err().unwrap();
    assert!(error.contains("is a VMDK image, and disks are raw or qcow2"), "{error}");
    let damaged = image(folder.path(), &[b"QFI\xfb".as_slice(), &[0xff; 2000]].concat());
    let error = opened(damaged.to_str().unwrap()).err().unwrap();
    assert!(error.contains("is no qcow2 image that can be used"), "{error}");
}

#[test]
fn an_image_is_written_by_one_or_read_by_many() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), &[7; 4096]);
    let path = path.to_str().unwrap();
    let writer = opened(path).unwrap();
    let error = opened(path).err().unwrap();
    assert!(error.contains("is in use by another process"), "{error}");
    assert!(opened(&format!("{path},readonly")).is_err());
    drop(writer);
    let _readers = [opened(&format!("{path},readonly")), opened(&format!("{path},snapshot"))]
        .map(|opened| opened.unwrap());
    assert!(opened(path).is_err());
}

#[test]
fn a_raw_image_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), &[7; 4096]);
    let mut disk = opened(path.to_str().unwrap()).unwrap();
    disk.write(1000, b"abc").unwrap();
    disk.flush().unwrap();
    assert!(disk.read(4000, &mut [0; 97]).is_err(), "beyond its end");
    let bytes = fs::read(&path).unwrap();
    assert_eq!((&bytes[1000..1003], bytes[999], bytes[1003]), (&b"abc"[..], 7, 7));
}

#[test]
fn a_qcow2_image_keeps_what_was_written() {
    use imago::file::File as Storage;
    use imago::qcow2::Qcow2;
    use imago::{FormatCreateBuilder, Storage as _, StorageCreateOptions};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let create = StorageCreateOptions::new().filename(&path);
    let storage = Storage::create_open(create).unwrap();
    Qcow2::<Storage>::create_builder(storage).size(10 << 20).create().unwrap();
    let words = path.to_str().unwrap();
    let mut disk = opened(words).unwrap();
    assert_eq!(disk.bytes(), 10 << 20);
    disk.write(5 << 20, &[9; 70_000]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let before = fs::read(&path).unwrap();
    let mut disk = opened(&format!("{words},snapshot")).unwrap();
    let mut bytes = vec![1; 70_001];
    disk.read(5 << 20, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[69_999], bytes[70_000]), (9, 9, 0));
    disk.write(5 << 20, &[3; 512]).unwrap();
    drop(disk);
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// An image in memory.
struct Bytes(Vec<u8>);

impl Image for Bytes {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("nobody writes to what a snapshot is of")
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_snapshot_reads_as_it_was_written(
        writes in prop::collection::vec((0_usize..30_000, 1_usize..9000, any::<u8>()), 0..12),
        reads in prop::collection::vec((0_usize..30_000, 1_usize..9000), 0..12),
    ) {
        let mut expected: Vec<u8> = (0..30_208_u32).map(|n| n as u8).collect();
        let mut disk = snapshot::Snapshot::over(Box::new(Bytes(expected.clone()))).unwrap();
        for (at, length, value) in writes {
            let length = length.min(expected.len() - at);
            expected[at..at + length].fill(value);
            disk.write(at as u64, &vec![value; length]).unwrap();
        }
        for (at, length) in reads {
            let length = length.min(expected.len() - at);
            let mut bytes = vec![0; length];
            disk.read(at as u64, &mut bytes).unwrap();
            prop_assert_eq!(&bytes[..], &expected[at..at + length]);
        }
    }
}

/// What is done to a disk.
#[derive(Clone, Debug)]
enum Act {
    Write(usize, usize, u8),
    Keep(u64),
    GoTo(u64),
    Forget(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_usize..30_000, 1_usize..9000, any::<u8>()).prop_map(|(at, n, v)| Act::Write(at, n, v)),
        2 => (0_u64..4).prop_map(Act::Keep),
        2 => (0_u64..4).prop_map(Act::GoTo),
        1 => (0_u64..4).prop_map(Act::Forget),
    ]
}

proptest! {
    #[test]
    fn a_snapshot_goes_to_what_was_kept(acts in prop::collection::vec(act(), 0..40)) {
        let mut expected: Vec<u8> = (0..30_208_u32).map(|n| n as u8).collect();
        let mut disk = snapshot::Snapshot::over(Box::new(Bytes(expected.clone()))).unwrap();
        disk.reclaim_at(1);
        let mut kept = std::collections::BTreeMap::new();
        for act in acts {
            match act {
                Act::Write(at, length, value) => {
                    let length = length.min(expected.len() - at);
                    expected[at..at + length].fill(value);
                    disk.write(at as u64, &vec![value; length]).unwrap();
                }
                Act::Keep(moment) => {
                    kept.insert(moment, expected.clone());
                    disk.keep(moment);
                }
                Act::GoTo(moment) => {
                    if let Some(was) = kept.get(&moment) {
                        expected.clone_from(was);
                        disk.go_to(moment);
                    }
                }
                Act::Forget(moment) => {
                    kept.remove(&moment);
                    disk.forget(moment);
                }
            }
            let mut bytes = vec![0; expected.len()];
            disk.read(0, &mut bytes).unwrap();
            prop_assert!(bytes == expected);
        }
        // Eight blocks, in no more than four kept moments and this one.
        prop_assert!(disk.slots() <= 2 * 8 * 5, "{} slots", disk.slots());
    }
}

#[test]
fn all_of_a_disk_is_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), &[[1; 1000], [2; 1000]].concat());
    let mut all: Vec<u8> = Vec::new();
    let read =
        options(&format!("{},snapshot", path.display())).read_all(600, |at, bytes, has_more| {
            assert_eq!((at as usize, has_more), (all.len(), all.len() + bytes.len() < 2000));
            all.extend(bytes);
            Ok::<_, DiskError>(())
        });
    read.unwrap();
    assert_eq!(all, fs::read(&path).unwrap());
}

/// A terabyte of nothing, with something in its middle.
#[test]
fn what_is_no_data_of_a_file_is_not_read() {
    const PIECE: u64 = 64 << 10;
    const END: u64 = 1 << 40;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(END).unwrap();
    file.as_file().write_all_at(&[7; 9], END / 2 + 5).unwrap();
    let mut pieces = Vec::new();
    let disk = options(&file.path().display().to_string());
    let read = disk.read_all(PIECE as usize, |at, bytes, has_more| {
        pieces.push((at, bytes.iter().filter(|&&byte| byte == 7).count(), has_more));
        Ok::<_, DiskError>(())
    });
    read.unwrap();
    assert_eq!(pieces, [(END / 2, 9, true), (END - PIECE, 0, false)]);
}
