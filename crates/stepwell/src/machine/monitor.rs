//! QEMU's monitor, in the protocol that is meant for programs (QMP): a JSON object a line.
//!
//! Little is asked of it: whether the machine is set up, and to let it go.

use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest line that makes sense.
const LINE_MAX: usize = 1 << 16;

/// Our end of it.
pub(super) struct Monitor {
    stream: UnixStream,
    heard: Vec<u8>,
}

/// What became of waiting for a line.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// A line.
    Line(Value),
    /// Nothing yet.
    Nothing,
    /// QEMU has hung up.
    End,
}

impl Monitor {
    /// Takes a stream that leads to QEMU. `patience` is how long one call of [`Monitor::hear`] waits.
    pub(super) fn new(stream: UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience.max(Duration::from_secs(1))))?;
        Ok(Self { stream, heard: Vec::new() })
    }

    /// Says a command that has no arguments.
    pub(super) fn say(&mut self, command: &str) -> io::Result<()> {
        let line = serde_json::json!({ "execute": command });
        self.stream.write_all(format!("{line}\n").as_bytes())
    }

    /// Waits for the next line.
    pub(super) fn hear(&mut self) -> io::Result<Heard> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(Heard::Line(serde_json::from_slice(&line)?));
            }
            if self.heard.len() > LINE_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Heard::End),
                Ok(length) => self.heard.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) => {
                    return match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(Heard::Nothing),
                        ErrorKind::Interrupted => continue,
                        ErrorKind::ConnectionReset => Ok(Heard::End),
                        _ => Err(error),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    #[test]
    fn lines_come_in_pieces_and_several_at_once() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut monitor = Monitor::new(ours, PATIENCE).unwrap();
        assert_eq!(monitor.hear().unwrap(), Heard::Nothing);
        theirs.write_all(b"{\"QMP\":").unwrap();
        assert_eq!(monitor.hear().unwrap(), Heard::Nothing);
        theirs.write_all(b"1}\r\n{\"return\":{}}\r\n").unwrap();
        assert_eq!(monitor.hear().unwrap(), Heard::Line(serde_json::json!({ "QMP": 1 })));
        assert_eq!(monitor.hear().unwrap(), Heard::Line(serde_json::json!({ "return": {} })));
        monitor.say("cont").unwrap();
        let mut said = [0; 19];
        theirs.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"{\"execute\":\"cont\"}\n");
        drop(theirs);
        assert_eq!(monitor.hear().unwrap(), Heard::End);
    }

    #[test]
    fn garbage_is_an_error_and_no_more() {
        for garbage in [b"not JSON\n".to_vec(), vec![b'x'; 2 * LINE_MAX]] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let writer = std::thread::spawn(move || theirs.write_all(&garbage));
            let mut monitor = Monitor::new(ours, Duration::from_secs(10)).unwrap();
            assert!(monitor.hear().is_err());
            drop(monitor);
            // It may have been hung up on.
            drop(writer.join().unwrap());
        }
    }
}
