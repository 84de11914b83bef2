//! A server on this machine's loopback, which a guest's network leads to.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Where a guest with `--net user` finds the host's loopback.
pub const HOST: &str = "10.0.2.2";

/// Answers each request for a path with the bytes that `file` has for it, for as long as the program
/// runs. Returns the port.
///
/// # Errors
/// When no port can be had.
pub fn serve(file: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A guest that goes away is no reason to fail here: it says so itself.
            let _sent = answer(stream, &file);
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream, file: &impl Fn(&str) -> Option<Vec<u8>>) -> io::Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => break,
            count => request.extend_from_slice(&piece[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match file(path) {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_sent_and_what_is_not_is_refused() {
        let port = serve(|path| (path == "/there").then(|| b"bytes".to_vec())).unwrap();
        let ask = |path: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            said
        };
        assert!(ask("/there").ends_with("\r\n\r\nbytes"));
        assert!(ask("/not").starts_with("HTTP/1.1 404 "));
    }
}
