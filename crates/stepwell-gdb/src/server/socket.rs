//! TCP and Unix sockets, their reading threads, and the client that comes second.

use crate::framing::framed;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Chunks that are read ahead of the session.
const READ_AHEAD: usize = 16;
const CHUNK: usize = 4096;
/// How long a client may take to read what it asked for.
const WRITING: Duration = Duration::from_secs(10);
/// How long the second client is listened to before it is refused: what it says first is what the
/// refusal answers.
const LISTENING: Duration = Duration::from_millis(500);
/// How long a client that comes waits for the one before to be gone.
const PARTING: Duration = Duration::from_secs(1);
const BUSY: &str = "E.stepwell: another debugger is attached";

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`; port 0 takes a free one.
    Tcp(String),
    /// A path.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Some(path) = word.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if word.contains('/') {
            return Ok(Self::Unix(word.into()));
        }
        let word = word.strip_prefix("tcp:").unwrap_or(word);
        match word.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                // GDB's way to say "here".
                let host = if host.is_empty() { "127.0.0.1" } else { host };
                Ok(Self::Tcp(format!("{host}:{port}")))
            }
            _ if word.parse::<u16>().is_ok() => Ok(Self::Tcp(format!("127.0.0.1:{word}"))),
            _ => Err(format!("{word:?} is no address: write HOST:PORT or unix:PATH")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What the threads tell.
pub(super) enum FromNetwork {
    Client(Stream),
    Bytes(u64, Vec<u8>),
    Closed(u64),
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                // Packets are small, and each is waited for.
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITING))
            }
            Self::Unix(stream) => stream.set_write_timeout(Some(WRITING)),
        }
    }

    fn duplicate(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn close(&self) {
        // It fails only where the other end has closed.
        let _closed = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Refuses a client that comes while another is served.
    fn refuse(mut self) {
        let mut heard = [0; CHUNK];
        // What goes wrong here is the second client's loss.
        let _heard = self.set_read_timeout(LISTENING).and_then(|()| self.read(&mut heard));
        let mut answer = b"+".to_vec();
        answer.extend(framed(BUSY.as_bytes()));
        let _answered = self.write_all(&answer);
        self.close();
    }
}

/// A client's socket.
pub(super) struct Stream {
    socket: Socket,
    id: u64,
    peer: String,
}

impl Stream {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) fn close(&self) {
        self.socket.close();
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).map(Self::Tcp),
            Address::Unix(path) => {
                remove_stale(path);
                UnixListener::bind(path).map(Self::Unix)
            }
        }
    }

    fn accept(&self) -> io::Result<(Socket, String)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Socket::Tcp(stream), format!("the debugger at {peer}")))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((Socket::Unix(stream), "the debugger".to_owned()))
            }
        }
    }
}

/// A socket that nobody listens at was left by a process that was killed.
fn remove_stale(path: &Path) {
    let refused =
        UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    if refused {
        // Where it cannot be removed, binding says so.
        drop(std::fs::remove_file(path));
    }
}

/// The thread that accepts.
pub(super) struct Acceptor {
    address: String,
    path: Option<PathBuf>,
    is_busy: Arc<AtomicBool>,
    is_closing: Arc<AtomicBool>,
}

impl Acceptor {
    pub(super) fn start(address: &Address) -> io::Result<(Self, Receiver<FromNetwork>)> {
        let listener = Listener::bind(address)?;
        let (text, path) = match (&listener, address) {
            (Listener::Tcp(listener), _) => (listener.local_addr()?.to_string(), None),
            (Listener::Unix(_), Address::Unix(path)) => {
                (path.display().to_string(), Some(path.clone()))
            }
            (Listener::Unix(_), Address::Tcp(_)) => return Err(ErrorKind::InvalidInput.into()),
        };
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let (is_busy, is_closing) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (busy, closing) = (Arc::clone(&is_busy), Arc::clone(&is_closing));
        std::thread::Builder::new().name("gdb-accept".into()).spawn(move || {
            for id in 0.. {
                let accepted = listener.accept();
                if closing.load(Ordering::Acquire) {
                    return;
                }
                match accepted {
                    Ok((socket, peer)) if claim(&busy) => {
                        if welcome(socket, id, peer, &sender).is_err() {
                            busy.store(false, Ordering::Release);
                        }
                    }
                    Ok((socket, _)) => {
                        // Its own thread, so that a slow one is not in the way of the next; and
                        // where there is none to be had, it is hung up on.
                        let name = std::thread::Builder::new().name("gdb-refuse".into());
                        drop(name.spawn(move || socket.refuse()));
                    }
                    // Out of descriptors, or a client that is gone before it was there.
                    Err(_) => std::thread::sleep(LISTENING),
                }
            }
        })?;
        Ok((Self { address: text, path, is_busy, is_closing }, receiver))
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The next client may come.
    pub(super) fn release(&self) {
        self.is_busy.store(false, Ordering::Release);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.is_closing.store(true, Ordering::Release);
        // Wakes the thread. Where nobody answers it has ended.
        match &self.path {
            Some(path) => {
                drop(UnixStream::connect(path));
                drop(std::fs::remove_file(path));
            }
            None => drop(TcpStream::connect(&self.address)),
        }
    }
}

/// Waits a moment for the client before, which may just have left; tells whether it has.
fn claim(is_busy: &AtomicBool) -> bool {
    let end = Instant::now() + PARTING;
    while is_busy.swap(true, Ordering::AcqRel) {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(PARTING / 100);
    }
    true
}

fn welcome(
    socket: Socket,
    id: u64,
    peer: String,
    sender: &SyncSender<FromNetwork>,
) -> io::Result<()> {
    socket.prepare()?;
    let mut reading = socket.duplicate()?;
    let bytes = sender.clone();
    let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
    sender.send(FromNetwork::Client(Stream { socket, id, peer })).map_err(gone)?;
    std::thread::Builder::new().name("gdb-read".into()).spawn(move || {
        let mut buffer = [0; CHUNK];
        while let Ok(length @ 1..) = reading.read(&mut buffer) {
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if bytes.send(FromNetwork::Bytes(id, chunk)).is_err() {
                return;
            }
        }
        // Where nobody listens any more, nobody needs to know.
        drop(bytes.send(FromNetwork::Closed(id)));
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_gdb_writes_them() {
        let tcp = |address: &str| Ok(Address::Tcp(address.to_owned()));
        assert_eq!("127.0.0.1:1234".parse(), tcp("127.0.0.1:1234"));
        assert_eq!(":1234".parse(), tcp("127.0.0.1:1234"));
        assert_eq!("1234".parse(), tcp("127.0.0.1:1234"));
        assert_eq!("tcp::0".parse(), tcp("127.0.0.1:0"));
        assert_eq!("[::1]:9".parse(), tcp("[::1]:9"));
        assert_eq!("unix:gdb".parse(), Ok(Address::Unix("gdb".into())));
        assert_eq!("/tmp/gdb".parse(), Ok(Address::Unix("/tmp/gdb".into())));
        assert!("localhost".parse::<Address>().is_err());
        assert!("localhost:x".parse::<Address>().is_err());
    }
}
