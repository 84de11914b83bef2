//! Round trips of a debugger: the server here next to QEMU's own, on the same guest.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use stepwell_tests::plain::Setup;
use stepwell_tests::process::Running;
use stepwell_tests::stepwell::command;

use crate::table::Table;

/// Where raw code is loaded and entered, by QEMU's loader as by ours.
const ENTRY: u64 = 0x4008_0000;
/// Instructions of the line that is stepped.
const LINE: u64 = 1000;
const NOP: u32 = 0xd503_201f;
const STEPS: u32 = 2000;
const LINES: u32 = 500;
/// QEMU's stub has no range steps: it is stepped through a line this often.
const LINES_BY_STEPS: u32 = 3;
const START: Duration = Duration::from_secs(30);

/// Prints the rates.
pub fn measure(qemu: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kernel = folder.path().join("line.bin");
    std::fs::write(&kernel, line())?;
    let setup = Setup { memory_mib: 64, ..Setup::new(&kernel) };
    let socket = folder.path().join("ours");
    let mut ours = command("gdb", &setup);
    ours.args(["--raw", "--wait", "--listen"]).arg(format!("unix:{}", socket.display()));
    let (our_steps, our_lines) = served(&mut ours, &socket, true)?;
    let socket = folder.path().join("qemu");
    let mut plain = Command::new(qemu);
    plain.args(["-machine", "virt,gic-version=3", "-cpu", setup.cpu, "-m", "64", "-S"]);
    plain.args(["-nic", "none", "-display", "none", "-monitor", "none", "-serial", "none"]);
    plain.arg("-kernel").arg(&kernel);
    plain
        .arg("-chardev")
        .arg(format!("socket,path={},server=on,wait=off,id=gdb", socket.display()));
    plain.args(["-gdb", "chardev:gdb"]);
    let (qemus_steps, qemus_lines) = served(&mut plain, &socket, false)?;
    let mut table = Table::new(["a debugger's round trips", "ours /s", "QEMU's /s"]);
    table.row("stepi", [Some(our_steps.round()), Some(qemus_steps.round())]);
    table.row("a line of 1,000 instructions", [Some(our_lines.round()), Some(qemus_lines)]);
    println!("{table}");
    let ratio = our_lines * LINE as f64 / our_steps;
    println!("A range step of {LINE} instructions is {ratio:.0} times as fast as {LINE} stepi.\n");
    Ok(())
}

/// A line of NOPs, and a branch back to its beginning.
fn line() -> Vec<u8> {
    let back = 0x1400_0000 | (-(LINE as i64) as u32 & 0x03ff_ffff);
    let words = (0..LINE).map(|_| NOP).chain([back]);
    words.flat_map(u32::to_le_bytes).collect()
}

/// Steps and lines a second.
fn served(command: &mut Command, socket: &Path, has_ranges: bool) -> Result<(f64, f64)> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running::start(command)?;
    let mut client = Client::connect(socket)?;
    client.ask("qSupported:multiprocess+;vContSupported+")?;
    // QEMU shows its registers to who has read their description.
    client.ask("qXfer:features:read:target.xml:0,ff")?;
    client.ask("Hgp1.1")?;
    client.step_to_entry()?;
    let steps = rate(STEPS, || client.ask("vCont;s:p1.1").map(drop))?;
    client.step_to_entry()?;
    let end = ENTRY + 4 * LINE;
    let lines = if has_ranges {
        rate(LINES, || {
            client.ask(&format!("vCont;r{ENTRY:x},{end:x}:p1.1"))?;
            client.ask("vCont;s:p1.1").map(drop)
        })?
    } else {
        rate(LINES_BY_STEPS, || (0..=LINE).try_for_each(|_| client.ask("vCont;s:p1.1").map(drop)))?
    };
    drop(running);
    Ok((steps, lines))
}

fn rate(count: u32, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    for _ in 0..count {
        once()?;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

/// A debugger that knows a few packets.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn connect(socket: &Path) -> Result<Self> {
        let end = Instant::now() + START;
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(START))?;
                    return Ok(Self { stream });
                }
                Err(error) if Instant::now() > end => {
                    return Err(error).context("nobody listens for a debugger");
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn ask(&mut self, body: &str) -> Result<String> {
        let sum = body.bytes().fold(0_u8, u8::wrapping_add);
        self.stream.write_all(format!("${body}#{sum:02x}").as_bytes())?;
        let mut reply = Vec::new();
        let mut buffer = [0; 4096];
        while !(reply.len() > 3 && reply[reply.len() - 3] == b'#') {
            let length = self.stream.read(&mut buffer)?;
            if length == 0 {
                bail!("the server is gone");
            }
            reply.extend_from_slice(&buffer[..length]);
        }
        // QEMU 7.2 has no mode without.
        self.stream.write_all(b"+")?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// Steps to the first instruction of the line: QEMU begins a little before it.
    fn step_to_entry(&mut self) -> Result<()> {
        for _ in 0..=2 * LINE {
            let pc = self.ask("p20")?;
            if is_entry(&pc) {
                return Ok(());
            }
            self.ask("vCont;s:p1.1")?;
        }
        bail!("it does not come to the line")
    }
}

/// Tells whether a register's value is [`ENTRY`]. It may be run-length encoded: a repeated digit is
/// followed by `*` and a character that is 29 more than how often.
fn is_entry(reply: &str) -> bool {
    let body = reply.trim_start_matches(['+', '$']).split('#').next().unwrap_or_default();
    let mut digits = String::new();
    let mut characters = body.chars();
    while let Some(character) = characters.next() {
        let last = digits.chars().last();
        match (character, last) {
            ('*', Some(last)) => {
                let count =
                    characters.next().map_or(0, |count| (count as usize).saturating_sub(29));
                digits.extend(std::iter::repeat_n(last, count));
            }
            _ => digits.push(character),
        }
    }
    u64::from_str_radix(&digits, 16).is_ok_and(|value| value.swap_bytes() == ENTRY)
}
