//! Where to listen, as GDB writes it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

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
