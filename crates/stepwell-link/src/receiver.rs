//! The thread that reads the stream and makes messages of it.

use crate::LinkError;
use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use stepwell_wire::{FrameDecoder, FrameError, FromHypervisor, MAX_FRAME};

/// Messages that wait for the caller at most; then the stream is left alone, and the hypervisor
/// waits in turn.
const QUEUE: usize = 256;
/// Bad frames in a row after which nothing good is expected any more.
const BAD_FRAMES_MAX: u32 = 16;
/// Bytes without a good frame after which nothing good is expected any more.
const BAD_BYTES_MAX: usize = 32 * MAX_FRAME;

/// What the stream brings.
#[derive(Debug, PartialEq)]
pub(crate) enum FromStream {
    Message(Box<FromHypervisor>),
    /// An empty frame: there is something in the mailbox.
    Doorbell,
}

pub(crate) type Incoming = Result<FromStream, LinkError>;

/// The thread that serves the guest's devices, if there are any: the doorbell may be for it.
pub(crate) type DeviceThread = Arc<OnceLock<Thread>>;

/// Starts reading. The last thing received is an error, whatever happens.
pub(crate) fn start(
    stream: impl Read + Send + 'static,
    devices: DeviceThread,
) -> std::io::Result<Receiver<Incoming>> {
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::Builder::new().name("link".into()).spawn(move || {
        let error = read(stream, &sender, &devices);
        // Nobody listens any more where this fails, which is as good as told.
        drop(sender.send(Err(error)));
    })?;
    Ok(receiver)
}

fn read(
    mut stream: impl Read,
    sender: &SyncSender<Incoming>,
    devices: &OnceLock<Thread>,
) -> LinkError {
    let mut decoder = FrameDecoder::new();
    let (mut frames, mut bytes, mut last) = (0, 0, FrameError::TooLong);
    let mut buffer = [0; 4096];
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return LinkError::MachineGone,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return LinkError::MachineGone;
            }
            Err(error) => return error.into(),
        };
        for &byte in buffer.get(..length).unwrap_or_default() {
            bytes += 1;
            match decoder.push(byte) {
                // The end of an empty frame. Where the queue is full there is enough to wake for.
                None if byte == 0 => {
                    bytes = 0;
                    if let Some(thread) = devices.get() {
                        thread.unpark();
                    }
                    drop(sender.try_send(Ok(FromStream::Doorbell)));
                }
                None => {}
                Some(Ok(message)) => {
                    (frames, bytes) = (0, 0);
                    if sender.send(Ok(FromStream::Message(Box::new(message)))).is_err() {
                        return LinkError::MachineGone;
                    }
                }
                Some(Err(error)) => (frames, last) = (frames + 1, error),
            }
            if frames >= BAD_FRAMES_MAX || bytes >= BAD_BYTES_MAX {
                return LinkError::Garbage { frames, bytes, last };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_protocol::DomainEnding;
    use stepwell_wire::{Event, encode};

    fn event() -> FromHypervisor {
        let ending = DomainEnding::PoweredOff;
        FromHypervisor::Event(Event::DomainEnded { domain: 0, ending, moment: None })
    }

    fn frame() -> Vec<u8> {
        encode(&event(), &mut [0; MAX_FRAME]).unwrap().to_vec()
    }

    fn receive(bytes: Vec<u8>) -> Vec<Incoming> {
        start(std::io::Cursor::new(bytes), DeviceThread::default()).unwrap().iter().collect()
    }

    #[test]
    fn a_bad_frame_between_good_ones_is_survived() {
        let mut bytes = frame();
        bytes.extend(b"nonsense\0");
        bytes.extend(frame());
        let got = receive(bytes);
        assert!(
            matches!(&got[..], [Ok(a), Ok(b), Err(LinkError::MachineGone)] if a == b),
            "{got:?}"
        );
    }

    #[test]
    fn empty_frames_are_the_doorbell_and_do_not_fill_the_queue() {
        let mut bytes = frame();
        bytes.extend(vec![0; 10 * QUEUE]);
        bytes.extend(frame());
        let got = receive(bytes);
        let is_doorbell = |incoming: &Incoming| matches!(incoming, Ok(FromStream::Doorbell));
        let rung = got.iter().filter(|incoming| is_doorbell(incoming)).count();
        assert!((1..=10 * QUEUE).contains(&rung), "{rung}");
        let rest: Vec<_> = got.iter().filter(|incoming| !is_doorbell(incoming)).collect();
        assert!(
            matches!(
                &rest[..],
                [
                    Ok(FromStream::Message(_)),
                    Ok(FromStream::Message(_)),
                    Err(LinkError::MachineGone)
                ]
            ),
            "{rest:?}"
        );
    }

    #[test]
    fn bad_frames_without_end_are_given_up() {
        let got = receive(b"nonsense\0".repeat(100));
        assert!(
            matches!(&got[..], [Err(LinkError::Garbage { frames: BAD_FRAMES_MAX, .. })]),
            "{got:?}"
        );
    }

    #[test]
    fn bytes_without_a_frame_are_given_up() {
        let got = receive(vec![0x55; 1 << 20]);
        assert!(matches!(&got[..], [Err(LinkError::Garbage { frames: 0, .. })]), "{got:?}");
    }
}
