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

use crate::median;
use crate::table::Table;

/// Where raw code is loaded and entered, by QEMU's loader as by ours.
const ENTRY: u64 = 0x4008_0000;
/// Instructions of the line that is stepped.
const LINE: u64 = 1000;
const NOP: u32 = 0xd503_201f;
/// The two take turns, so that a machine that is busy, or slow, slows down both.
const ROUNDS: usize = 21;
const STEPS: u32 = 200;
const LINES: u32 = 25;
const START: Duration = Duration::from_secs(30);

/// Prints the rates.
pub fn measure(qemu: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kernel = folder.path().join("line.bin");
    std::fs::write(&kernel, line())?;
    let setup = Setup { memory_mib: 64, ..Setup::new(&kernel) };
    let socket = folder.path().join("ours");
    let mut command = command("gdb", &setup);
    command.args(["--raw", "--wait", "--listen"]).arg(format!("unix:{}", socket.display()));
    let mut ours = Served::start(&mut command, &socket)?;
    let socket = folder.path().join("qemu");
    let mut qemus = Served::start(&mut plain(qemu, &setup, &kernel, &socket), &socket)?;
    let (mut steps, mut lines) = ((Vec::new(), Vec::new()), Vec::new());
    for _ in 0..ROUNDS {
        steps.0.push(ours.steps()?);
        steps.1.push(qemus.steps()?);
        lines.push(ours.lines()?);
    }
    let ratio = median(steps.0.iter().zip(&steps.1).map(|(ours, qemus)| ours / qemus).collect());
    let (ours, qemus, lines) = (median(steps.0), median(steps.1), median(lines));
    let mut table = Table::new(["a debugger's round trips", "ours /s", "QEMU's /s"]);
    table.row("stepi", [Some(ours.round()), Some(qemus.round())]);
    // QEMU's stub has no range steps: each instruction is one of its steps.
    let by_steps = qemus / (LINE + 1) as f64;
    table.row("a line of 1,000 instructions", [Some(lines.round()), Some(by_steps)]);
    println!("{table}");
    println!(
        "A stepi is {ratio:.2} times as fast as with QEMU's own stub (median of {ROUNDS} rounds)."
    );
    let ratio = lines * LINE as f64 / ours;
    println!("A range step of {LINE} instructions is {ratio:.0} times as fast as {LINE} stepi.\n");
    Ok(())
}

fn plain(qemu: &Path, setup: &Setup, kernel: &Path, socket: &Path) -> Command {
    let mut plain = Command::new(qemu);
    plain.args(["-machine", "virt,gic-version=3", "-cpu", setup.cpu, "-m", "64", "-S"]);
    plain.args(["-nic", "none", "-display", "none", "-monitor", "none", "-serial", "none"]);
    plain.arg("-kernel").arg(kernel);
    let socket = socket.display();
    plain.arg("-chardev").arg(format!("socket,path={socket},server=on,wait=off,id=gdb"));
    plain.args(["-gdb", "chardev:gdb"]);
    plain
}

/// A line of NOPs, and a branch back to its beginning.
fn line() -> Vec<u8> {
    let back = 0x1400_0000 | (-(LINE as i64) as u32 & 0x03ff_ffff);
    let words = (0..LINE).map(|_| NOP).chain([back]);
    words.flat_map(u32::to_le_bytes).collect()
}

/// A server with the guest, and a client that has come to the line.
struct Served {
    client: Client,
    _running: Running,
}

impl Served {
    fn start(command: &mut Command, socket: &Path) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running::start(command)?;
        let mut client = Client::connect(socket)?;
        client.ask("qSupported:multiprocess+;vContSupported+")?;
        // QEMU shows its registers to who has read their description.
        client.ask("qXfer:features:read:target.xml:0,ff")?;
        client.ask("Hgp1.1")?;
        client.step_to_entry()?;
        Ok(Self { client, _running: running })
    }

    /// Steps a second.
    fn steps(&mut self) -> Result<f64> {
        rate(STEPS, || self.client.ask("vCont;s:p1.1").map(drop))
    }

    /// Lines a second, where there are range steps.
    fn lines(&mut self) -> Result<f64> {
        self.client.step_to_entry()?;
        let end = ENTRY + 4 * LINE;
        rate(LINES, || {
            self.client.ask(&format!("vCont;r{ENTRY:x},{end:x}:p1.1"))?;
            self.client.ask("vCont;s:p1.1").map(drop)
        })
    }
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
