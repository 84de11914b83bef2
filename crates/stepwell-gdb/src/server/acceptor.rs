//! Who is let in: one debugger at a time, and nobody who is none.
//!
//! What listens on a port hears from others than debuggers: port scans, web pages (a browser sends
//! a form to any port of its own computer that a page names), connections that say nothing. So a
//! connection is a client only once it has said a whole packet of the protocol, with nothing before
//! it but acknowledgements and Ctrl-C. Until then the guest does not notice it, and nothing that it
//! said is acted on.

use super::Address;
use super::socket::{Listener, Socket, SocketFile};
use crate::framing::{Framer, Incoming, PACKET_MAX, framed};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Chunks that are read ahead of the session.
const READ_AHEAD: usize = 16;
const CHUNK: usize = 4096;
/// How long a connection may take to say its first packet; debuggers say it at once.
const FIRST_WORDS: Duration = Duration::from_secs(30);
/// Connections that have not said it yet. One more, and the oldest is hung up on.
const WAITING_MAX: usize = 32;
/// After a connection that cannot be accepted: out of descriptors, or gone before it was there.
const RECOVERING: Duration = Duration::from_millis(500);
/// How long a client that comes waits for the one before to be gone.
const PARTING: Duration = Duration::from_secs(1);
const BUSY: &str = "E.stepwell: another debugger is attached";

/// What the threads tell.
pub(super) enum FromNetwork {
    Client(Stream),
    Bytes(u64, Vec<u8>),
    Closed(u64),
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
        self.socket.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What all threads share.
struct Shared {
    is_busy: AtomicBool,
    is_closing: AtomicBool,
    /// Connections that have not said their first packet, the oldest first.
    waiting: Mutex<VecDeque<(u64, Socket)>>,
}

impl Shared {
    /// Notes that a connection waits, and hangs up on the oldest if too many do.
    fn wait(&self, id: u64, socket: Socket) {
        let Ok(mut waiting) = self.waiting.lock() else { return };
        waiting.push_back((id, socket));
        if waiting.len() > WAITING_MAX
            && let Some((_, oldest)) = waiting.pop_front()
        {
            oldest.close();
        }
    }

    fn wait_no_more(&self, id: u64) {
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.retain(|(waits, _)| *waits != id);
        }
    }

    /// Waits a moment for the client before, which may just have left; tells whether it has.
    fn claim(&self) -> bool {
        let end = Instant::now() + PARTING;
        while self.is_busy.swap(true, Ordering::AcqRel) {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(PARTING / 100);
        }
        true
    }
}

/// The thread that accepts.
pub(super) struct Acceptor {
    address: Address,
    is_exposed: bool,
    shared: Arc<Shared>,
    /// Taken away with us.
    _file: Option<SocketFile>,
}

impl Acceptor {
    pub(super) fn start(address: &Address) -> io::Result<(Self, Receiver<FromNetwork>)> {
        let (listener, file) = Listener::bind(address)?;
        let network = listener.network_address()?;
        let address = match (network, &file) {
            (Some(network), _) => Address::Tcp(network.to_string()),
            (None, Some(file)) => Address::Unix(file.path().to_owned()),
            (None, None) => address.clone(),
        };
        let is_exposed = network.is_some_and(|address| !address.ip().is_loopback());
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let shared = Arc::new(Shared {
            is_busy: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            waiting: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("gdb-accept".into());
        thread.spawn(move || accept(&listener, &accepting, &sender))?;
        Ok((Self { address, is_exposed, shared, _file: file }, receiver))
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    pub(super) const fn is_exposed(&self) -> bool {
        self.is_exposed
    }

    /// The next client may come.
    pub(super) fn release(&self) {
        self.shared.is_busy.store(false, Ordering::Release);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Release);
        // Wakes the thread. Where nobody answers it has ended.
        match &self.address {
            Address::Unix(path) => drop(UnixStream::connect(path)),
            Address::Tcp(address) => drop(TcpStream::connect(address)),
        }
    }
}

/// Accepts until the server is closed. Each connection has a thread of its own, so that a slow one
/// is not in the way of the next; where there is none to be had, it is hung up on.
fn accept(listener: &Listener, shared: &Arc<Shared>, sender: &SyncSender<FromNetwork>) {
    for id in 0.. {
        let accepted = listener.accept();
        if shared.is_closing.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((socket, peer)) => {
                let Ok(handle) = socket.duplicate() else { continue };
                shared.wait(id, handle);
                let (shared, sender) = (Arc::clone(shared), sender.clone());
                let thread = std::thread::Builder::new().name("gdb-client".into());
                drop(thread.spawn(move || attend(socket, id, peer, &shared, &sender)));
            }
            Err(_) => std::thread::sleep(RECOVERING),
        }
    }
}

/// Listens to a connection: to its first packet, and to all others if it is let in.
fn attend(
    mut socket: Socket,
    id: u64,
    peer: String,
    shared: &Shared,
    sender: &SyncSender<FromNetwork>,
) {
    let said = first_words(&mut socket);
    shared.wait_no_more(id);
    // What goes wrong from here on is the connection's loss.
    let Ok(said) = said else { return socket.close() };
    if !shared.claim() {
        let mut answer = b"+".to_vec();
        answer.extend(framed(BUSY.as_bytes()));
        let _answered = socket.write_all(&answer);
        return socket.close();
    }
    let Ok(reading) = socket.set_read_timeout(None).and_then(|()| socket.duplicate()) else {
        shared.is_busy.store(false, Ordering::Release);
        return socket.close();
    };
    // Where nobody listens any more, nobody needs to know.
    let _told = sender
        .send(FromNetwork::Client(Stream { socket, id, peer }))
        .and_then(|()| sender.send(FromNetwork::Bytes(id, said)))
        .and_then(|()| forward(reading, id, sender));
}

fn forward(
    mut reading: Socket,
    id: u64,
    sender: &SyncSender<FromNetwork>,
) -> Result<(), std::sync::mpsc::SendError<FromNetwork>> {
    let mut buffer = [0; CHUNK];
    while let Ok(length @ 1..) = reading.read(&mut buffer) {
        let chunk = buffer.get(..length).unwrap_or_default().to_vec();
        sender.send(FromNetwork::Bytes(id, chunk))?;
    }
    sender.send(FromNetwork::Closed(id))
}

/// Returns what a connection said, once that has a packet in it.
fn first_words(socket: &mut Socket) -> io::Result<Vec<u8>> {
    socket.prepare()?;
    let end = Instant::now() + FIRST_WORDS;
    let (mut greeting, mut said) = (Greeting::default(), Vec::new());
    let mut buffer = [0; CHUNK];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // Zero would be for ever.
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = socket.read(&mut buffer)?;
        let chunk = buffer.get(..length).unwrap_or_default();
        if chunk.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        said.extend_from_slice(chunk);
        match greeting.hear(chunk) {
            Heard::Debugger => return Ok(said),
            Heard::Stranger => return Err(ErrorKind::InvalidData.into()),
            Heard::Nothing if Instant::now() >= end => return Err(ErrorKind::TimedOut.into()),
            Heard::Nothing => {}
        }
    }
}

/// Tells debuggers from others by how they begin.
#[derive(Default)]
struct Greeting {
    framer: Framer,
    heard: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing that tells yet.
    Nothing,
    /// A packet.
    Debugger,
    /// What no debugger begins with.
    Stranger,
}

impl Greeting {
    fn hear(&mut self, bytes: &[u8]) -> Heard {
        for &byte in bytes {
            let is_first_of_something = matches!(byte, b'+' | b'-' | b'$' | 0x03);
            if !self.framer.is_within() && !is_first_of_something {
                return Heard::Stranger;
            }
            self.heard += 1;
            match self.framer.push(byte) {
                Some(Incoming::Packet(body)) if is_greeting(&body) => return Heard::Debugger,
                Some(Incoming::Interrupt | Incoming::Nack) | None if self.heard < PACKET_MAX => {}
                _ => return Heard::Stranger,
            }
        }
        Heard::Nothing
    }
}

/// The packets that a conversation can begin with are words; those that carry bytes come later.
fn is_greeting(body: &[u8]) -> bool {
    !body.is_empty() && body.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Heard {
        let mut greeting = Greeting::default();
        // One at a time, as a network may bring them.
        let each = bytes.iter().map(|byte| greeting.hear(&[*byte]));
        each.into_iter().find(|heard| *heard != Heard::Nothing).unwrap_or(Heard::Nothing)
    }

    #[test]
    fn debuggers_are_known_by_their_first_packet() {
        // GDB, LLDB, and one that interrupts first.
        for words in
            ["+$qSupported:multiprocess+#c6", "+$QStartNoAckMode#b0", "\x03$?#3f", "-+$?#3f"]
        {
            assert_eq!(heard(words.as_bytes()), Heard::Debugger, "{words}");
        }
        for words in ["", "+", "\x03", "$qSupported", "$?#3"] {
            assert_eq!(heard(words.as_bytes()), Heard::Nothing, "{words}");
        }
    }

    #[test]
    fn others_are_known_by_their_first_byte() {
        let form = "POST / HTTP/1.1\r\n\r\n\n$qRcmd,7472#00";
        for words in [form, "GET / HTTP/1.1", "\x16\x03\x01", "\n$?#3f", "+ $?#3f", "$?#00", "$#00"]
        {
            assert_eq!(heard(words.as_bytes()), Heard::Stranger, "{words:?}");
        }
        // The preface of HTTP/2, a web socket, a mail and a file server's client, and what may be put before.
        for words in
            ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n$?#3f", "GET /chat HTTP/1.1\r\nUpgrade: websocket"]
        {
            assert_eq!(heard(words.as_bytes()), Heard::Stranger, "{words:?}");
            for before in ["+", "-", "\x03", "++\x03"] {
                let words = format!("{before}{words}");
                assert_eq!(heard(words.as_bytes()), Heard::Stranger, "{words:?}");
            }
        }
        for words in
            ["EHLO x\r\n", "USER x\r\n", "SSH-2.0-x\r\n", "+\r\n$?#3f", "$\x16\x03#19", "ü$?#3f"]
        {
            assert_eq!(heard(words.as_bytes()), Heard::Stranger, "{words:?}");
        }
        let endless = [b"$".as_slice(), &vec![b'a'; 2 * PACKET_MAX]].concat();
        assert_eq!(heard(&endless), Heard::Stranger);
    }
}
