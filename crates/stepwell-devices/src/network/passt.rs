//! The host's network by passt: a process that speaks TCP and UDP for the guest, and needs no rights.
//!
//! Frames go both ways through a socket, each behind its length. passt ends when that is closed,
//! however we end. It gives the guest an address by DHCP, and the host's loopback is the gateway's.

use super::{FRAME_MAX, MTU, NetworkError, Source, Wire};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The network's addresses, as QEMU's `-nic user` has them.
const ADDRESSES: [&str; 6] = ["--address", "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2"];
/// For it to find that it cannot run.
const STARTING: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(10);

/// The guest's end.
pub(super) struct Passt {
    stream: UnixStream,
    child: Child,
}

/// Starts it.
pub(super) fn open() -> Result<(Passt, Source), NetworkError> {
    let (stream, theirs) = UnixStream::pair().map_err(NetworkError::CannotRun)?;
    let mut passt = Command::new("passt");
    passt.args(["--foreground", "--quiet", "--ipv4-only", "--fd", "0", "--mtu"]);
    passt.arg(MTU.to_string()).args(ADDRESSES);
    passt.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = passt.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => NetworkError::NoPasst,
        _ => NetworkError::CannotRun(error),
    })?;
    let mut wire = Passt { stream, child };
    // It holds the other end, and so does the command until here.
    drop(passt);
    wire.is_up()?;
    let reader = wire.stream.try_clone().map_err(NetworkError::CannotRun)?;
    Ok((wire, source(reader)))
}

impl Passt {
    fn is_up(&mut self) -> Result<(), NetworkError> {
        let since = Instant::now();
        while since.elapsed() < STARTING {
            if let Some(status) = self.child.try_wait().map_err(NetworkError::CannotRun)? {
                let mut said = String::new();
                if let Some(stderr) = &mut self.child.stderr {
                    // What there is of it is shown.
                    let _bytes = stderr.read_to_string(&mut said);
                }
                let words = said.lines().map(str::trim).rfind(|line| is_telling(line));
                let words = words.unwrap_or("it says nothing").to_owned();
                return Err(NetworkError::PasstEnded { status: status.to_string(), words });
            }
            std::thread::sleep(POLL);
        }
        // Nobody reads what it says from here on, and it is not to wait for that.
        drop(self.child.stderr.take());
        Ok(())
    }
}

/// What it says where there is no system log is not the reason.
fn is_telling(line: &str) -> bool {
    !line.is_empty() && !line.contains("syslog")
}

impl Drop for Passt {
    fn drop(&mut self) {
        // It fails only where passt is gone already.
        drop(self.stream.shutdown(std::net::Shutdown::Both));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Wire for Passt {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = (frame.len() as u32).to_be_bytes();
        self.stream.write_all(&[&length, frame].concat())
    }
}

/// The frames of a stream.
pub(super) fn source(mut stream: impl Read + Send + 'static) -> Source {
    Box::new(move || {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        let mut frame = Vec::new();
        let read =
            (&mut stream).take(length.into()).take(FRAME_MAX as u64).read_to_end(&mut frame)?;
        // One that is too long is read to its end, and known by its length.
        let rest = u64::from(length) - read as u64;
        let skipped = io::copy(&mut (&mut stream).take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if rest > 0 {
            frame.clear();
        }
        Ok(frame)
    })
}
