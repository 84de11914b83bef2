//! TCP and Unix sockets: the ends of a conversation, and where they are accepted.

use super::Address;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a client may take to read what it asked for.
const WRITING: Duration = Duration::from_secs(10);

/// One end of a connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                // Packets are small, and each is waited for.
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITING))
            }
            Self::Unix(stream) => stream.set_write_timeout(Some(WRITING)),
        }
    }

    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    pub(super) fn close(&self) {
        // It fails only where the other end has closed.
        let _closed = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

/// Where connections are accepted.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens; a socket that has a name comes with it.
    pub(super) fn bind(address: &Address) -> io::Result<(Self, Option<SocketFile>)> {
        match address {
            Address::Tcp(address) => Ok((Self::Tcp(TcpListener::bind(address)?), None)),
            Address::Unix(path) => {
                make_room(path)?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile::new(path)?;
                // Who may connect may do with the guest, and in it, whatever the user may.
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                Ok((Self::Unix(listener), Some(file)))
            }
        }
    }

    /// Returns where it listens, if that is a place in a network.
    pub(super) fn network_address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    pub(super) fn accept(&self) -> io::Result<(Socket, String)> {
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

/// The name of a socket that we have bound. Dropping it takes the name away, if it is still ours.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        // An absolute one means the same to a debugger that was started elsewhere.
        let path = std::path::absolute(path)?;
        Ok(Self { identity: identity(&path)?, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.identity) {
            // It may have been removed in between.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

/// Takes a socket away at which nobody listens: a process that was killed has left it. Whatever else
/// is there is somebody's, and stays.
fn make_room(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        // Where it cannot be looked at, binding says why.
        Err(_) => return Ok(()),
    };
    if !there.file_type().is_socket() {
        let text = "there is a file already, which is no socket: name another path";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "somebody listens there already")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn bind(path: &Path) -> io::Result<(Listener, Option<SocketFile>)> {
        Listener::bind(&Address::Unix(path.to_owned()))
    }

    #[test]
    fn only_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "precious").unwrap();
        symlink(path("file"), path("link")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        for name in ["file", "link", "folder"] {
            assert!(bind(&path(name)).is_err(), "{name}");
            assert!(fs::symlink_metadata(path(name)).is_ok(), "{name} is still there");
        }
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "precious");

        // As a killed process leaves it.
        drop(UnixListener::bind(path("socket")).unwrap());
        let first = bind(&path("socket")).unwrap();
        let mode = fs::metadata(path("socket")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(bind(&path("socket")).err().map(|it| it.kind()), Some(ErrorKind::AddrInUse));
        drop(first);
        assert!(!path("socket").exists());
    }

    #[test]
    fn a_name_that_has_become_anothers_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(listener);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
