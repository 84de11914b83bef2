//! A folder, served to requests as Linux makes them, and to others.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const ROOT: u64 = 1;
const ROOM: usize = 64 * 1024;
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const SETATTR: u32 = 4;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const CREATE: u32 = 35;
const IOCTL: u32 = 39;

/// O_LARGEFILE and O_DIRECTORY as arm64 has them: x86's O_NOFOLLOW and O_DIRECT.
const LARGE_FILE: u32 = 0o400_000;
const DIRECTORY: u32 = 0o40_000;

struct Asked {
    error: i32,
    body: Vec<u8>,
}

impl Asked {
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.body[at..at + 8].try_into().unwrap())
    }
}

fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let length = (40 + body.len()) as u32;
    let words = [length.to_le_bytes(), opcode.to_le_bytes()].concat();
    let unique = [7_u64.to_le_bytes(), node.to_le_bytes()].concat();
    let who = [1000_u32, 1000, 1, 0].map(u32::to_le_bytes).concat();
    [&words[..], &unique, &who, body].concat()
}

fn ask(share: &mut Share, opcode: u32, node: u64, body: &[u8]) -> Asked {
    let answer = share.answer_to(&mut request(opcode, node, body), ROOM);
    assert!(fuse::is_answer(&answer), "{opcode}: {answer:?}");
    assert_eq!(answer[8..16], 7_u64.to_le_bytes(), "whose answer it is");
    let error = i32::from_le_bytes(answer[4..8].try_into().unwrap());
    Asked { error: -error, body: answer[16..].to_vec() }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn opened(folder: &Path, is_writable: bool) -> Share {
    let options = ShareOptions { path: folder.into(), is_writable, tag: "share".into() };
    let mut share = Share::open(&options).unwrap();
    assert_eq!(ask(&mut share, INIT, 0, &words(&[7, 38, 0x20000, 0])).error, 0);
    share
}

/// A folder within a folder, beside what is nobody's to see.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let outside = tempfile::tempdir().unwrap();
    let inside = outside.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(outside.path().join("secret"), "of the host's").unwrap();
    fs::write(inside.join("hello"), "from the host").unwrap();
    symlink("../secret", inside.join("way-out")).unwrap();
    (outside, inside)
}

fn look_up(share: &mut Share, name: &str) -> Asked {
    ask(share, LOOKUP, ROOT, &[name.as_bytes(), &[0]].concat())
}

#[test]
fn a_file_is_found_opened_and_read() {
    let (_outside, inside) = folder();
    let mut share = opened(&inside, false);
    let node = look_up(&mut share, "hello").u64(0);
    let handle = ask(&mut share, OPEN, node, &words(&[LARGE_FILE, 0]));
    assert_eq!(handle.error, 0);
    let read = [&handle.body[..8], &[0; 8], &words(&[4096, 0, 0, 0, LARGE_FILE, 0])].concat();
    assert_eq!(ask(&mut share, READ, node, &read).body, b"from the host");
    let opened = ask(&mut share, OPENDIR, ROOT, &words(&[DIRECTORY | LARGE_FILE, 0]));
    assert_eq!(opened.error, 0, "flags are the guest's architecture's");
    let forget = share.answer_to(&mut request(FORGET, node, &[1, 0, 0, 0, 0, 0, 0, 0]), 0);
    assert_eq!(forget, [], "nobody waits for an answer");
}

#[test]
fn a_folder_that_is_read_only_stays_as_it_is() {
    let (_outside, inside) = folder();
    let mut share = opened(&inside, false);
    let node = look_up(&mut share, "hello").u64(0);
    for flags in [1, 2, 0o1000, 0o100] {
        assert_eq!(ask(&mut share, OPEN, node, &words(&[flags, 0])).error, 30, "{flags:#o}");
    }
    for opcode in (0..64).chain([4096, u32::MAX]) {
        let is_for_readers = matches!(
            opcode,
            1..=3 | 5 | 14 | 15 | 17 | 18 | 20 | 22 | 23 | 25..=30 | 34 | 36 | 38 | 42 | 44 | 46
        );
        if !is_for_readers {
            assert_eq!(ask(&mut share, opcode, ROOT, b"hello\0").error, 30, "{opcode}");
        }
    }
    assert_eq!(fs::read_to_string(inside.join("hello")).unwrap(), "from the host");
}

#[test]
fn what_a_guest_makes_is_a_plain_file_of_the_users() {
    let (_outside, inside) = folder();
    let mut share = opened(&inside, true);
    let create = [&words(&[2 | LARGE_FILE, 0o104_755, 0, 0])[..], b"made\0"].concat();
    let made = ask(&mut share, CREATE, ROOT, &create);
    assert_eq!(made.error, 0);
    let (node, handle) = (made.u64(0), &made.body[128..136].to_vec());
    let header = [&handle[..], &[0; 8], &words(&[4, 0, 0, 0, 2 | LARGE_FILE, 0])].concat();
    assert_eq!(ask(&mut share, WRITE, node, &[&header[..], b"text"].concat()).error, 0);
    let path = inside.join("made");
    assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path) & 0o6000, 0, "runs as nobody else");
    // FATTR_MODE, FATTR_UID and FATTR_GID.
    let mut attributes = words(&[0b111, 0]);
    attributes.resize(88, 0);
    attributes[68..72].copy_from_slice(&0o106_711_u32.to_le_bytes());
    attributes[76..84].copy_from_slice(&[1; 8]);
    assert_eq!(ask(&mut share, SETATTR, node, &attributes).error, 0);
    assert_eq!(mode(&path), 0o711);
    let device = [&words(&[0o020_666, 0x103, 0, 0])[..], b"null\0"].concat();
    assert_eq!(ask(&mut share, MKNOD, ROOT, &device).error, 1);
    assert_eq!(ask(&mut share, IOCTL, node, &[0; 32]).error, 1);
    assert_eq!(ask(&mut share, UNLINK, ROOT, b"made\0").error, 0);
    assert!(!path.exists());
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let (outside, inside) = folder();
    let mut share = opened(&inside, true);
    for name in ["../secret", "/etc/passwd", "inside/hello", "./hello"] {
        assert_ne!(look_up(&mut share, name).error, 0, "{name}");
    }
    let up = look_up(&mut share, "..");
    assert!(up.error != 0 || up.u64(0) == ROOT, "above the folder is the folder");
    let link = look_up(&mut share, "way-out").u64(0);
    assert_ne!(
        ask(&mut share, OPEN, link, &words(&[0, 0])).error,
        0,
        "a link is the guest's to follow"
    );
    assert_ne!(ask(&mut share, LOOKUP, link, b"secret\0").error, 0);
    let make = [&words(&[0o755, 0])[..], b"../made\0"].concat();
    assert_ne!(ask(&mut share, MKDIR, ROOT, &make).error, 0);
    let create = [&words(&[2, 0o644, 0, 0])[..], b"../made\0"].concat();
    assert_ne!(ask(&mut share, CREATE, ROOT, &create).error, 0);
    assert!(!outside.path().join("made").exists());
}

/// Nobody has its other end, and nobody is waited for.
#[test]
fn a_fifo_keeps_nobody_waiting() {
    let (_outside, inside) = folder();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        inside.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o644.into(),
        0,
    )
    .unwrap();
    let mut share = opened(&inside, true);
    let node = look_up(&mut share, "fifo").u64(0);
    for flags in [0, 1, 2] {
        drop(ask(&mut share, OPEN, node, &words(&[flags, 0])));
    }
}

#[test]
fn a_request_that_is_none_is_refused() {
    let (_outside, inside) = folder();
    let mut share = opened(&inside, true);
    for length in 0..40 {
        let mut bytes = request(LOOKUP, ROOT, &[])[..length].to_vec();
        let answer = share.answer_to(&mut bytes, ROOM);
        assert_eq!(answer.len(), 16, "{length} bytes");
    }
    let mut longer = request(LOOKUP, ROOT, b"hello\0");
    longer.push(0);
    assert_eq!(share.answer_to(&mut longer, ROOM)[4..8], (-22_i32).to_le_bytes());
    assert_eq!(share.answer_to(&mut longer, 15), [], "no room for any");
    let read = [&[0; 16][..], &words(&[ROOM as u32 + 1, 0, 0, 0, 0, 0])].concat();
    assert_eq!(ask(&mut share, READ, ROOT, &read).error, 22);
}

#[test]
fn options_have_words() {
    let parsed = |words: &str| words.parse::<ShareOptions>();
    let share = |path: &str, is_writable, tag: &str| {
        Ok(ShareOptions { path: path.into(), is_writable, tag: tag.into() })
    };
    assert_eq!(parsed("a/b"), share("a/b", false, "share"));
    assert_eq!(parsed("a,,b,write,tag=x"), share("a,b", true, "x"));
    assert_eq!(parsed(""), Err(ShareOptionsError::NoFolder));
    assert_eq!(parsed("a,tag="), Err(ShareOptionsError::Tag));
    assert_eq!(parsed(&format!("a,tag={}", "x".repeat(37))), Err(ShareOptionsError::Tag));
    assert_eq!(parsed("a,readonly"), Err(ShareOptionsError::Word("readonly".into())));
    let shares = ["a", "b,tag=b", "c"].map(|words| parsed(words).unwrap());
    assert_eq!(demand_names_differ(&shares), Err("share"));
    assert_eq!(demand_names_differ(&shares[..2]), Ok(()));
}

#[test]
fn what_is_no_folder_is_named() {
    let (_outside, inside) = folder();
    let open = |path: PathBuf| {
        let options = ShareOptions { path, is_writable: false, tag: "share".into() };
        Share::open(&options).map(drop).unwrap_err().to_string()
    };
    assert!(open(inside.join("hello")).contains("hello is no folder"));
    assert!(open(inside.join("nothing")).contains("nothing: No such file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever is asked for, what lies around the folder is neither read nor changed.
    #[test]
    fn a_driver_that_means_harm_has_the_folder_alone(
        requests in proptest::collection::vec(
            (0..52_u32, 0..6_u64, proptest::collection::vec(any::<u8>(), 0..120), 0..4_usize),
            1..40,
        ),
        is_writable: bool,
    ) {
        let (outside, inside) = folder();
        let mut share = opened(&inside, is_writable);
        for (opcode, node, mut body, name) in requests {
            body.extend([&b"hello\0"[..], b"../secret\0", b"way-out\0", b""][name]);
            let answer = share.answer_to(&mut request(opcode, node, &body), ROOM);
            prop_assert!(answer.len() <= ROOM);
            let has_secret = answer.windows(13).any(|part| part == b"of the host's");
            prop_assert!(!has_secret, "opcode {opcode}");
        }
        let secret = fs::read_to_string(outside.path().join("secret")).unwrap();
        prop_assert_eq!(secret, "of the host's");
        prop_assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    }
}
