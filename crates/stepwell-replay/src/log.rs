//! The replay log: a line for each thing that happened, in order.
//!
//! A line is the CRC-32 of what follows it, eight hexadecimal digits, a space, and a JSON object. The
//! first one is a [`Header`], each other one an [`Entry`]. A line is written whole and at once, so that
//! a log is readable up to its last whole line, whatever ended its recorder; only what follows the last
//! newline may be damaged without being an error. docs/replay-format.md has all of it.
//!
//! JSON, because a log has few lines, and somebody may want to know what is in it ten years from now.

mod entry;
mod packed;

pub use entry::{DiskIdentity, Entry, FileIdentity, Header, VERSION, typed};
pub use packed::{PART_BYTES, Part, parts};

use serde::Serialize;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use stepwell_debuggee::Moment;

/// Longest line that is believed: a part of a file that is packed is the longest.
const LINE_MAX: u64 = 1 << 20;

/// Longest stretch without a line that is believed, in instructions: recorders write one each five million.
/// So what a log has a replay do is bounded by its length.
const GAP_MAX: u64 = 100_000_000;

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be read.
    #[error("cannot read the log: {0}")]
    Read(#[source] io::Error),
    /// It cannot be written.
    #[error("cannot write the log: {0}: make room, or name another file")]
    Write(#[source] io::Error),
    /// It is not one.
    #[error("not a replay log: `stepwell record` writes them")]
    NotALog,
    /// It is of another version.
    #[error(
        "a replay log of version {0}, and this tool reads version {VERSION}: replay it with the build \
         that recorded it"
    )]
    Version(u64),
    /// A line has been changed.
    #[error("line {line} is damaged: `head -n {} FILE` is the log of what came before it", .line - 1)]
    Damaged {
        /// Which, from 1 on.
        line: u64,
    },
    /// The first line has a right checksum, and is no beginning of a run.
    #[error("its first line lacks something, or has it otherwise: record the run anew")]
    Header,
    /// Time goes backwards.
    #[error(
        "line {line} comes before the one before it: `head -n {} FILE` is the log up to there", .line - 1
    )]
    Order {
        /// Which, from 1 on.
        line: u64,
    },
    /// Nothing is said of so many instructions that no recorder can have written it.
    #[error(
        "line {line} is too far behind the one before it: `head -n {} FILE` is the log up to there", .line - 1
    )]
    Gap {
        /// Which, from 1 on.
        line: u64,
    },
}

/// Writes a log, a line at a time.
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Begins a log.
    ///
    /// # Errors
    ///
    /// [`LogError::Write`].
    pub fn new(to: W, header: &Header) -> Result<Self, LogError> {
        let mut writer = Self { to };
        writer.line(header)?;
        Ok(writer)
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`LogError::Write`].
    pub fn add(&mut self, entry: &Entry) -> Result<(), LogError> {
        self.line(entry)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), LogError> {
        let json =
            serde_json::to_string(value).map_err(io::Error::from).map_err(LogError::Write)?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        self.to.write_all(line.as_bytes()).and_then(|()| self.to.flush()).map_err(LogError::Write)
    }
}

/// Reads a log.
pub struct Reader<R> {
    from: R,
    header: Header,
    line: u64,
    last: Moment,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read one.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub fn new(mut from: R) -> Result<Self, LogError> {
        let Line::Whole(line) = next_line(&mut from)? else { return Err(LogError::NotALog) };
        let json = checked(&line).ok_or(LogError::NotALog)?;
        let value: serde_json::Value = serde_json::from_str(json).map_err(|_| LogError::NotALog)?;
        let version = value.get("stepwell_replay").and_then(serde_json::Value::as_u64);
        match version.ok_or(LogError::NotALog)? {
            version if version == u64::from(VERSION) => {}
            version => return Err(LogError::Version(version)),
        }
        let header = serde_json::from_value(value).map_err(|_| LogError::Header)?;
        Ok(Self { from, header, line: 1, last: Moment::default() })
    }

    /// Returns where the run begins.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the next entry; nothing at its end, and where its recorder was killed within a line.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, LogError> {
        let line = match next_line(&mut self.from)? {
            Line::Whole(line) => line,
            Line::Cut | Line::End => return Ok(None),
        };
        self.line += 1;
        let damaged = LogError::Damaged { line: self.line };
        let Some(json) = checked(&line) else { return Err(damaged) };
        let Ok(entry) = serde_json::from_str::<Entry>(json) else { return Err(damaged) };
        if !entry.is_sound() {
            return Err(damaged);
        }
        let moment = entry.moment();
        if moment < self.last || moment.clock < self.last.clock {
            return Err(LogError::Order { line: self.line });
        }
        if moment.position - self.last.position > GAP_MAX {
            return Err(LogError::Gap { line: self.line });
        }
        self.last = moment;
        Ok(Some(entry))
    }
}

enum Line {
    Whole(Vec<u8>),
    /// Without its end.
    Cut,
    End,
}

fn next_line(from: &mut impl BufRead) -> Result<Line, LogError> {
    let mut line = Vec::new();
    let read = from.take(LINE_MAX).read_until(b'\n', &mut line);
    match read {
        Ok(0) => Ok(Line::End),
        Ok(_) if line.last() == Some(&b'\n') => {
            line.pop();
            Ok(Line::Whole(line))
        }
        Ok(length) if length as u64 == LINE_MAX => Err(LogError::NotALog),
        Ok(_) => Ok(Line::Cut),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Line::Cut),
        Err(error) => Err(LogError::Read(error)),
    }
}

/// Returns the JSON of a line, if its checksum is right.
fn checked(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?;
    let (checksum, json) = line.split_once(' ')?;
    (checksum == format!("{:08x}", crc32fast::hash(json.as_bytes()))).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stepwell_debuggee::StateHash;

    fn header() -> Header {
        let file = |path: &str| FileIdentity { path: path.into(), sha256: "00".into() };
        Header {
            stepwell_replay: VERSION,
            cpu: "cortex-a57".into(),
            vcpus: 4,
            memory_bytes: 512 << 20,
            schedule: "turns=50000".into(),
            command_line: "console=ttyAMA0".into(),
            raw: false,
            kernel: file("vmlinuz"),
            initrd: Some(file("initrd")),
            devicetree: None,
            disks: vec![DiskIdentity {
                path: "disk.img".into(),
                sha256: "22".into(),
                is_read_only: false,
            }],
            entropy: Some(7),
            hypervisor: "11".into(),
            qemu: "QEMU 7.2".into(),
        }
    }

    fn entries() -> Vec<Entry> {
        let at = |position, clock| Moment { position, clock };
        vec![
            Entry::part("kernel", 0, &[7; 5000]),
            Entry::input(at(10, 12), b"ls\n"),
            Entry::passed(at(10, 13)),
            Entry::state(at(10, 40), StateHash { registers: 1, memory: u64::MAX }),
            Entry::Left { position: 50, clock: 80 },
            Entry::Ended { position: 50, clock: 80, how: "powered off".into() },
        ]
    }

    fn log() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        entries().iter().for_each(|entry| writer.add(entry).unwrap());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Entry>, LogError> {
        let mut reader = Reader::new(bytes)?;
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            all.push(entry);
        }
        Ok(all)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = log();
        assert_eq!(Reader::new(bytes.as_slice()).unwrap().header(), &header());
        assert_eq!(read(&bytes).unwrap(), entries());
        let Entry::Input { bytes, .. } = &entries()[1] else { panic!("the first one is") };
        assert_eq!(typed(bytes).unwrap(), b"ls\n");
    }

    #[test]
    fn the_bytes_are_these() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        let begin = writer.to.len();
        writer.add(&entries()[1]).unwrap();
        let line = std::str::from_utf8(&bytes[begin..]).unwrap();
        assert_eq!(
            line,
            "9c258de8 {\"input\":{\"position\":10,\"clock\":12,\"bytes\":\"6c730a\"}}\n"
        );
    }

    #[test]
    fn a_log_is_readable_to_its_last_whole_line_wherever_it_is_cut() {
        let bytes = log();
        let header_end = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                Err(LogError::NotALog) => assert!(end < header_end, "{end}"),
                Ok(read) => {
                    let whole = bytes[header_end..end].iter().filter(|&&b| b == b'\n').count();
                    assert_eq!(read, entries()[..whole], "{end}");
                }
                Err(error) => panic!("{end}: {error}"),
            }
        }
    }

    #[test]
    fn what_no_recorder_leaves_out_is_not_believed() {
        let log = |position| {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, &header()).unwrap();
            for (position, clock) in [(10, 10), (position, u64::MAX)] {
                writer.add(&Entry::Left { position, clock }).unwrap();
            }
            read(&bytes)
        };
        assert_eq!(log(10 + GAP_MAX).unwrap().len(), 2);
        assert!(matches!(log(11 + GAP_MAX), Err(LogError::Gap { line: 3 })));
        assert!(matches!(log(1 << 63), Err(LogError::Gap { line: 3 })));
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let bytes = log();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The last newline only makes the last line one that was not finished.
            if let Ok(read) = read(&flipped) {
                assert!(read.len() < entries().len(), "bit {bit}");
            }
        }
    }

    #[test]
    fn other_versions_and_other_files_are_told_apart() {
        let json = "{\"stepwell_replay\":9}";
        let future = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        assert!(matches!(read(future.as_bytes()), Err(LogError::Version(9))));
        for other in [&b""[..], b"\n", b"hello\n", &[0xff; 100], &vec![b'x'; 2 << 20]] {
            assert!(matches!(read(other), Err(LogError::NotALog)));
        }
    }

    #[test]
    fn time_does_not_go_backwards() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        for position in [10, 9] {
            writer.add(&Entry::Left { position, clock: 10 }).unwrap();
        }
        assert!(matches!(read(&bytes), Err(LogError::Order { line: 3 })));
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(bytes: Vec<u8>) {
            drop(read(&bytes));
            let mut behind = log();
            behind.extend(&bytes);
            drop(read(&behind));
        }
    }
}
