//! Frames between a guest's queues and a wire that is a pair of vectors.

use super::*;
use proptest::prelude::*;
use std::io::Cursor;

#[test]
fn networks_have_names() {
    assert_eq!("user".parse(), Ok(NetworkOptions::User));
    assert_eq!("tap=tap0".parse(), Ok(NetworkOptions::Tap("tap0".into())));
    for words in ["", "tap", "tap=", "none", "tap=a234567890123456", "user,x"] {
        assert!(words.parse::<NetworkOptions>().is_err(), "{words}");
    }
}

#[test]
fn a_stream_is_cut_into_frames() {
    let long = vec![7; FRAME_MAX + 1];
    let mut bytes = Vec::new();
    for frame in [b"one".as_slice(), b"", &long, b"two"] {
        bytes.extend((frame.len() as u32).to_be_bytes());
        bytes.extend(frame);
    }
    bytes.extend([0, 0, 0, 9, 1]);
    let mut source = passt::source(Cursor::new(bytes));
    let mut next = || source().map_err(|error| error.kind());
    assert_eq!(next(), Ok(b"one".to_vec()));
    assert_eq!(next(), Ok(Vec::new()));
    assert_eq!(next(), Ok(Vec::new()), "one that is too long is none");
    assert_eq!(next(), Ok(b"two".to_vec()));
    assert_eq!(next(), Err(io::ErrorKind::UnexpectedEof));
}

#[test]
fn too_many_frames_are_lost_and_too_long_ones() {
    let inbox = Inbox::default();
    let mut left = WAITING_MAX + 10;
    let mut source: Source = Box::new(move || {
        left = left.checked_sub(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(vec![0; if left.is_multiple_of(100) { FRAME_MAX + 1 } else { 60 }])
    });
    inbox.fill(&mut source);
    inbox.with(|frames| {
        assert_eq!(frames.len(), WAITING_MAX - 1);
        assert!(frames.iter().all(|frame| frame.len() == 60));
    });
}

proptest! {
    #[test]
    fn any_stream_ends(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        let mut source = passt::source(Cursor::new(bytes));
        while let Ok(frame) = source() {
            prop_assert!(frame.len() <= FRAME_MAX);
        }
    }
}
