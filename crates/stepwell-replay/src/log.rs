//! The replay log: a line for each thing that happened, in order.
//!
//! A line is the CRC-32 of what follows it, eight hexadecimal digits, a space, and a JSON object. The
//! first one is a [`Header`], each other one an [`Entry`]. A line is written whole and at once, so that
//! a log is readable up to its last whole line, whatever ended its recorder; only what follows the last
//! newline may be damaged without being an error. docs/replay-format.md has all of it.
//!
//! JSON, because a log has few lines, and somebody may want to know what is in it ten years from now.

use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use stepwell_debuggee::{Moment, StateHash};

/// The version of the format, in its header.
pub const VERSION: u32 = 2;
/// Longest line that is believed: an entry has a few hundred bytes of input at most.
const LINE_MAX: u64 = 1 << 20;

/// Where a run begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub stepwell_replay: u32,
    /// QEMU's name of the CPU model.
    pub cpu: String,
    /// vCPUs.
    pub vcpus: u8,
    /// Bytes of the guest's memory.
    pub memory_bytes: u64,
    /// Who executes when: a [`stepwell_debuggee::Schedule`] in words.
    pub schedule: String,
    /// The kernel's command line.
    pub command_line: String,
    /// The kernel was taken without any header.
    pub raw: bool,
    /// The kernel.
    pub kernel: FileIdentity,
    /// The initial ramdisk.
    pub initrd: Option<FileIdentity>,
    /// A device tree that replaces the one that the hypervisor would make.
    pub devicetree: Option<FileIdentity>,
    /// The hypervisor's image: SHA-256.
    pub hypervisor: String,
    /// What QEMU says of its version.
    pub qemu: String,
}

/// A file that a run begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Where it was.
    pub path: String,
    /// SHA-256 of its contents.
    pub sha256: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Bytes were typed on the guest's console.
    Input {
        /// Instructions that were executed before it.
        position: u64,
        /// The guest's counter.
        clock: u64,
        /// Two hexadecimal digits each.
        bytes: String,
    },
    /// The state was looked at.
    State {
        /// Instructions that were executed before it.
        position: u64,
        /// The guest's counter.
        clock: u64,
        /// Of the vCPUs' registers, in hexadecimal.
        registers: String,
        /// Of the RAM, in hexadecimal.
        memory: String,
    },
    /// The recorder ended here, and the guest had not.
    Left {
        /// Instructions that were executed.
        position: u64,
        /// The guest's counter.
        clock: u64,
    },
    /// The guest ended.
    Ended {
        /// Instructions that were executed.
        position: u64,
        /// The guest's counter.
        clock: u64,
        /// How, in words.
        how: String,
    },
}

impl Entry {
    /// Makes an input.
    #[must_use]
    pub fn input(moment: Moment, bytes: &[u8]) -> Self {
        let Moment { position, clock } = moment;
        let bytes = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::Input { position, clock, bytes }
    }

    /// Makes a look at the state.
    #[must_use]
    pub fn state(moment: Moment, hash: StateHash) -> Self {
        let Moment { position, clock } = moment;
        let (registers, memory) =
            (format!("{:016x}", hash.registers), format!("{:016x}", hash.memory));
        Self::State { position, clock, registers, memory }
    }

    /// Returns when it happened.
    #[must_use]
    pub const fn moment(&self) -> Moment {
        match *self {
            Self::Input { position, clock, .. }
            | Self::State { position, clock, .. }
            | Self::Left { position, clock }
            | Self::Ended { position, clock, .. } => Moment { position, clock },
        }
    }

    /// Tells whether its words are what they stand for.
    fn is_sound(&self) -> bool {
        match self {
            Self::Input { bytes, .. } => typed(bytes).is_some(),
            Self::State { registers, memory, .. } => {
                [registers, memory].into_iter().all(|word| u64::from_str_radix(word, 16).is_ok())
            }
            Self::Left { .. } | Self::Ended { .. } => true,
        }
    }
}

/// Returns the bytes of an input.
#[must_use]
pub fn typed(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    };
    pairs.map(byte).collect()
}

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not one.
    #[error("not a replay log: `stepwell record` writes them")]
    NotALog,
    /// It is of another version.
    #[error(
        "a replay log of version {0}, and this tool reads version {VERSION}: use its own build"
    )]
    Version(u32),
    /// A line has been changed.
    #[error("line {0} is damaged: what comes before it can be replayed with --to")]
    Damaged(u64),
    /// Time goes backwards.
    #[error("line {0} comes before the one before it: the log is damaged")]
    Order(u64),
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
    /// [`LogError::Io`].
    pub fn new(to: W, header: &Header) -> Result<Self, LogError> {
        let mut writer = Self { to };
        writer.line(header)?;
        Ok(writer)
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`LogError::Io`].
    pub fn add(&mut self, entry: &Entry) -> Result<(), LogError> {
        self.line(entry)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), LogError> {
        let json = serde_json::to_string(value).map_err(io::Error::from)?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        self.to.write_all(line.as_bytes())?;
        self.to.flush()?;
        Ok(())
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
            version => return Err(LogError::Version(version as u32)),
        }
        let header = serde_json::from_value(value).map_err(|_| LogError::Damaged(1))?;
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
        let damaged = LogError::Damaged(self.line);
        let Some(json) = checked(&line) else { return Err(damaged) };
        let Ok(entry) = serde_json::from_str::<Entry>(json) else { return Err(damaged) };
        if !entry.is_sound() {
            return Err(damaged);
        }
        let moment = entry.moment();
        if moment < self.last || moment.clock < self.last.clock {
            return Err(LogError::Order(self.line));
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
        Err(error) => Err(error.into()),
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
            hypervisor: "11".into(),
            qemu: "QEMU 7.2".into(),
        }
    }

    fn entries() -> Vec<Entry> {
        let at = |position, clock| Moment { position, clock };
        vec![
            Entry::input(at(10, 12), b"ls\n"),
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
        let Entry::Input { bytes, .. } = &entries()[0] else { panic!("the first one is") };
        assert_eq!(typed(bytes).unwrap(), b"ls\n");
    }

    #[test]
    fn the_bytes_are_these() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        let begin = writer.to.len();
        writer.add(&entries()[0]).unwrap();
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
        assert!(matches!(read(&bytes), Err(LogError::Order(3))));
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
