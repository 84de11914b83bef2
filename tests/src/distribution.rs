//! A distribution on a disk, as its users have it: through firmware and boot loader to its login, over
//! its network, and back from a reboot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::console::Console;
use crate::debian::{TROUBLE, without_figures};
use crate::guest::folder;
use crate::http;
use crate::plain::Setup;
use crate::process::{configured, run};
use crate::stepwell::{binary, with_machine};

/// For all that one guest does: an emulated board on a busy host.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// Where `cargo xtask images` puts the root file system on its disks.
const ROOT_AT: u64 = 49 << 20;
/// Of the file that is written and read back.
const FILE_BYTES: usize = 200_000_000;
/// Packages of the archive that is served: its list has some megabytes.
const PACKAGES: usize = 10_000;
const DOWNLOAD_BYTES: usize = 16 << 20;

/// A guest with a distribution.
#[derive(Clone, Copy, Debug)]
pub struct Distribution {
    /// Its image's name: debian12 or debian13.
    pub name: &'static str,
    /// QEMU's name of the CPU.
    pub cpu: &'static str,
    /// vCPUs.
    pub smp: u8,
}

impl Distribution {
    /// The disk that `cargo xtask images` has made.
    fn image(self) -> PathBuf {
        configured("STEPWELL_IMAGES", "target/images").join(self.name).join("disk.img")
    }

    /// A copy of the disk that may be written to.
    fn disk(self, folder: &Path) -> Result<PathBuf> {
        let copy = folder.join("disk.img");
        let mut cp = Command::new("cp");
        must(cp.args(["--sparse=always", "--reflink=auto"]).arg(self.image()).arg(&copy))?;
        Ok(copy)
    }

    /// `stepwell run` of EDK2 with this disk and the user's network.
    fn command(self, disk: &Path) -> Command {
        let mut command = self.firmware("run");
        command.arg("--disk").arg(disk).args(["--net", "user"]);
        command
    }

    /// `stepwell SUBCOMMAND` of EDK2.
    fn firmware(self, subcommand: &str) -> Command {
        let mut command = Command::new(binary());
        command.arg(subcommand).arg("--firmware").arg(folder().join("debian/AAVMF_CODE.fd"));
        let setup =
            Setup { cpu: self.cpu, smp: self.smp, memory_mib: 1024, ..Setup::new(Path::new("")) };
        with_machine(&mut command, &setup);
        command
    }

    /// Logs in, gets lists of packages and a file from this machine, writes a large file and reads it
    /// back, reboots, finds it again, and powers off. The file system is whole then, and has the file.
    ///
    /// # Errors
    /// With what was otherwise, and the console's last lines.
    pub fn comes_through(self) -> Result<()> {
        let scratch = tempfile::tempdir_in(self.image().parent().context("its folder")?)?;
        let disk = self.disk(scratch.path())?;
        let port = http::serve(served)?;
        let mut console = Console::start(&mut self.command(&disk), LIMIT)?;
        console.hear("UEFI firmware")?;
        log_in(&mut console)?;
        ensure!(console.shell("nproc")?.contains(&format!("\n{}\r", self.smp)), "its CPUs");
        fetch(&mut console, port)?;
        let sum = write_and_read(&mut console)?;
        console.say("reboot\n")?;
        console.hear("reboot: Restarting system")?;
        console.hear("UEFI firmware")?;
        log_in(&mut console)?;
        let again = sum_of(&console.shell("md5sum /big")?)?;
        ensure!(again == sum, "after a reboot /big has {again}, and had {sum}");
        console.say("poweroff\n")?;
        let said = console.finish(LIMIT)?;
        ensure!(said.status.success(), "{}", said.output());
        ensure!(said.left_behind.is_empty(), "left behind: {:?}", said.left_behind);
        for trouble in TROUBLE {
            ensure!(!said.stdout.contains(trouble), "{trouble}: {}", said.output());
        }
        ensure!(said.stdout.contains("reboot: Power down"), "{}", said.output());
        is_clean(&disk)?;
        let on_host = sum_on_host(&disk, scratch.path())?;
        ensure!(on_host == sum, "on the disk /big has {on_host}, and had {sum}");
        Ok(())
    }
}

/// What a boot does once it is up, before it powers off.
const WORK: &str = "#!/bin/sh
exec >/dev/console 2>&1
seq 1 6000000 >/many
sync
echo 3 >/proc/sys/vm/drop_caches
echo sum-of-many $(md5sum </many)
echo sum-of-files $(find /boot /etc /root /usr/bin /usr/sbin -xdev -type f -print0 | sort -z | \
    xargs -0 md5sum | md5sum)
echo the work is done
";

/// The unit that does it, and what is booted to: that unit alone. Units of files and not of the kernel's
/// command line, since those are made by a program which systemd ends after a minute and a half: an
/// emulated board on a busy host came to a login instead.
const UNIT: &str = "[Unit]
Description=What a boot is for
SuccessAction=poweroff
FailureAction=poweroff

[Service]
Type=oneshot
ExecStart=/work.sh
TimeoutStartSec=infinity
";
const TARGET: &str = "[Unit]
Description=What is booted to
Requires=work.service
After=work.service
";

/// What is typed at the stepper, at `start_kernel`: a million steps there, and another one from the
/// first request on that the disk has completed.
const STEPS: &str = "s 1000000\nbreak blk_mq_complete_request\nc\ndelete 1\ns 1000000\nc\n";

impl Distribution {
    /// Boots twice from the same disk, through firmware and boot loader, the second time with two million
    /// steps, interrupts and all: what the console says is the same, and so is what is on the disk.
    ///
    /// # Errors
    /// With what differs.
    pub fn is_as_unstepped(self) -> Result<()> {
        let mut said = Vec::new();
        for is_stepped in [false, true] {
            let scratch = tempfile::tempdir_in(self.image().parent().context("its folder")?)?;
            let disk = self.disk(scratch.path())?;
            add_script(&disk, scratch.path())?;
            let mut command = self.boot(&disk, if is_stepped { "step" } else { "run" });
            if is_stepped {
                command.args(["--at", "start_kernel", "--irq", "into"]);
            }
            let mut console = Console::start(&mut command, LIMIT)?;
            if is_stepped {
                console.say(STEPS)?;
            }
            let finished = console.finish(LIMIT)?;
            ensure!(finished.status.success(), "{}", finished.output());
            is_clean(&disk)?;
            let stops = finished.stdout.lines().filter(|line| line.starts_with("vcpu")).count();
            ensure!(stops == if is_stepped { 4 } else { 0 }, "{}", finished.output());
            said.push(console_lines(&finished.stdout, is_stepped));
        }
        let [unstepped, stepped] = said.as_slice() else { return Ok(()) };
        for wanted in ["sum-of-many ", "sum-of-files ", "the work is done"] {
            ensure!(unstepped.iter().any(|line| line.contains(wanted)), "no {wanted}");
        }
        let differ = |here: &[String], there: &[String]| -> Vec<String> {
            here.iter().filter(|line| !there.contains(line)).cloned().collect()
        };
        let (lost, new) = (differ(unstepped, stepped), differ(stepped, unstepped));
        ensure!(lost.is_empty() && new.is_empty(), "unstepped only: {lost:#?}; stepped: {new:#?}");
        Ok(())
    }

    /// A boot from a disk that does [`WORK`]. The names are those of the kernel on it.
    fn boot(self, disk: &Path, subcommand: &str) -> Command {
        let mut command = self.firmware(subcommand);
        command.arg("--symbols").arg(self.image().with_file_name("vmlinuz"));
        command.arg("--disk").arg(disk);
        command
    }
}

/// Puts the script and its units on the disk.
fn add_script(disk: &Path, scratch: &Path) -> Result<()> {
    let folder = "/etc/systemd/system";
    for (name, text, to) in [
        ("work.sh", WORK, "/work.sh".to_owned()),
        ("work.service", UNIT, format!("{folder}/work.service")),
        ("default.target", TARGET, format!("{folder}/default.target")),
    ] {
        let file = scratch.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        let mut debugfs = Command::new("/usr/sbin/debugfs");
        debugfs.args(["-w", "-R"]).arg(format!("write {} {to}", file.display()));
        must(debugfs.arg(partition(disk)))?;
    }
    Ok(())
}

/// What the guest's kernel and those that it starts have said, without times and figures, in the order of
/// the alphabet: units that start at once report in any. What a slow host has systemd tell meanwhile is
/// left out.
fn console_lines(said: &str, is_marked: bool) -> Vec<String> {
    let mark = if is_marked { "  guest| " } else { "" };
    // What a terminal obeys is made visible where lines are marked.
    let obeyed = |line: &str| match is_marked {
        true => line.replace("^[", "\u{1b}").replace("^M", "\r"),
        false => line.to_owned(),
    };
    let lines = said.lines().filter_map(|line| line.strip_prefix(mark));
    let lines = lines.map(|line| without_colours(&obeyed(line)));
    // What firmware shows of its progress depends on the host's time.
    let lines = lines.skip_while(|line| !line.contains("Booting Linux"));
    let mut lines: Vec<String> = unwoven(lines).into_iter().filter_map(told).collect();
    lines.sort();
    lines.dedup();
    lines
}

/// Lines of which none has one of the kernel's within: that comes in whole where a program has written a
/// part of its own, and the rest follows behind it.
fn unwoven(lines: impl Iterator<Item = String>) -> Vec<String> {
    let (mut all, mut begun) = (Vec::new(), String::new());
    for line in lines {
        match stamp_in(&line).and_then(|at| line.split_at_checked(at)) {
            Some((before, of_kernel)) => {
                begun += before;
                all.push(of_kernel.to_owned());
            }
            None => all.push(std::mem::take(&mut begun) + &line),
        }
    }
    all.extend((!begun.is_empty()).then_some(begun));
    all
}

/// Where a line has a time as the kernel writes it: `[   12.345678] `.
fn stamp_in(line: &str) -> Option<usize> {
    line.match_indices('[').map(|(at, _)| at).find(|&at| {
        let inside = line[at + 1..].split_once("] ").map_or("", |(inside, _)| inside);
        let (seconds, parts) = inside.split_once('.').unwrap_or_default();
        let is_number = |text: &str| text.parse::<u32>().is_ok();
        is_number(seconds.trim_start()) && parts.len() == 6 && is_number(parts)
    })
}

/// A line as it is compared, if it is.
fn told(line: String) -> Option<String> {
    const OF_THE_HOST: [&str; 5] =
        ["running (", "hrtimer: interrupt took", "sched_clock", "stepwell", "CPU time."];
    if OF_THE_HOST.iter().any(|words| line.contains(words)) {
        return None;
    }
    if let Some(sum) = line.split("sum-of-").nth(1) {
        // Its figures are what is compared.
        return Some(format!("sum-of-{}", sum.trim_end()));
    }
    let text = match line.split_once("] ") {
        Some((stamp, text)) if stamp.starts_with('[') && stamp.contains('.') => text,
        _ => &line,
    };
    // Only until the journal is there, whenever that is; what it has done is told on the console as well.
    if text.starts_with("systemd[1]: ") {
        return None;
    }
    Some(without_figures(text.trim()))
}

/// Without what a terminal obeys.
fn without_colours(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.split('\u{1b}');
    out += rest.next().unwrap_or_default();
    for part in rest {
        let end = part.find(|character: char| character.is_ascii_alphabetic());
        out += end.and_then(|end| part.get(end + 1..)).unwrap_or_default();
    }
    out.replace('\r', "")
}

/// What the guest asks this machine for.
fn served(path: &str) -> Option<Vec<u8>> {
    match path {
        "/./Packages" | "/Packages" => Some(packages().into_bytes()),
        "/file" => Some(noise(DOWNLOAD_BYTES)),
        _ => None,
    }
}

/// A list of packages, as apt reads it.
fn packages() -> String {
    let package = |n: usize| {
        format!(
            "Package: stepwell-{n}\nVersion: 1.{n}\nArchitecture: arm64\nSize: 1\n\
             Filename: ./stepwell-{n}.deb\nSHA256: {n:064x}\nMaintainer: nobody\n\
             Description: number {n} of {PACKAGES}\n\n"
        )
    };
    (0..PACKAGES).map(package).collect()
}

/// Bytes that no two blocks of are alike.
fn noise(bytes: usize) -> Vec<u8> {
    let words = (0..bytes as u64 / 8).map(|n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(|word| (word ^ word >> 29).to_le_bytes()).collect()
}

fn log_in(console: &mut Console) -> Result<()> {
    console.hear("login: ")?;
    console.say("root\n")?;
    console.hear("# ")?;
    Ok(())
}

/// By apt, and by a plain download.
fn fetch(console: &mut Console, port: u16) -> Result<()> {
    let host = http::HOST;
    console.shell(
        "n=0; until ip -4 address | grep -q 10.0.2.15; do sleep 1; n=$((n+1)); \
         [ $n -lt 300 ] || break; done; [ $n -lt 300 ]",
    )?;
    console.shell(&format!(
        "echo 'deb [trusted=yes] http://{host}:{port} ./' >/etc/apt/sources.list; apt-get update"
    ))?;
    let last = PACKAGES - 1;
    let shown = console.shell(&format!("apt-cache show stepwell-{last}"))?;
    ensure!(shown.contains(&format!("number {last} of {PACKAGES}")), "apt knows {shown}");
    let fetched = format!("busybox wget -q -O /file http://{host}:{port}/file; md5sum /file");
    let (sum, wanted) = (sum_of(&console.shell(&fetched)?)?, md5(&noise(DOWNLOAD_BYTES))?);
    ensure!(sum == wanted, "/file has {sum}, and was sent with {wanted}");
    Ok(())
}

/// Returns the checksum of the file, which is the same once the guest has forgotten what it wrote.
fn write_and_read(console: &mut Console) -> Result<String> {
    let written = format!("head -c {FILE_BYTES} /dev/urandom | tee /big | md5sum");
    let written = sum_of(&console.shell(&written)?)?;
    console.shell("sync; echo 3 >/proc/sys/vm/drop_caches")?;
    let read = sum_of(&console.shell("md5sum /big")?)?;
    ensure!(read == written, "/big has {read}, and was written with {written}");
    Ok(read)
}

/// The checksum among what a shell has said.
fn sum_of(said: &str) -> Result<String> {
    let is_sum =
        |word: &&str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sum = said.split_whitespace().find(is_sum);
    Ok(sum.with_context(|| format!("no checksum in {said}"))?.to_owned())
}

fn md5(bytes: &[u8]) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), bytes)?;
    sum_of(&must(Command::new("md5sum").arg(file.path()))?)
}

/// Demands that the file system has nothing to repair.
fn is_clean(disk: &Path) -> Result<()> {
    let mut check = Command::new("/usr/sbin/e2fsck");
    must(check.args(["-f", "-n"]).arg(partition(disk))).map(drop)
}

/// The large file's checksum, read from the disk by this machine.
fn sum_on_host(disk: &Path, scratch: &Path) -> Result<String> {
    let file = scratch.join("big");
    let mut debugfs = Command::new("/usr/sbin/debugfs");
    debugfs.arg("-R").arg(format!("dump /big {}", file.display()));
    must(debugfs.arg(partition(disk)))?;
    sum_of(&must(Command::new("md5sum").arg(&file))?)
}

fn partition(disk: &Path) -> String {
    format!("{}?offset={ROOT_AT}", disk.display())
}

fn must(command: &mut Command) -> Result<String> {
    let said = run(command, LIMIT)?;
    ensure!(said.status.success(), "{command:?}: {}", said.output());
    Ok(said.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_blocks_are_alike() {
        let bytes = noise(1 << 16);
        let mut blocks: Vec<_> = bytes.chunks(512).collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 128);
    }

    #[test]
    fn lines_are_compared_without_times_and_colours() {
        let said = "BdsDxe: 1\r\n[    0.0] Booting Linux\r\n[    0.2] audit: 17\r\n[\u{1b}[0;32m  OK  \u{1b}[0m] Started x1.\r\n\
                    [**    ] (1 of 2) Job running (22s)\r\nsum-of-many 12ab -\r\n";
        assert_eq!(
            console_lines(said, false),
            ["Booting Linux", "[  OK  ] Started x#.", "audit: #", "sum-of-many 12ab -"]
        );
    }

    #[test]
    fn marked_lines_are_compared_like_others() {
        let said = "vcpu0  0x0  start\n  guest| Booting Linux\n  guest| ^M^[[K[^[[0;32m  OK  ^[[0m] x\n\
                    \x20 guest| systemd[1]: x: Consumed 1.2s CPU time.\n";
        assert_eq!(console_lines(said, true), ["Booting Linux", "[  OK  ] x"]);
    }

    #[test]
    fn what_the_kernel_says_within_a_line_is_a_line_of_its_own() {
        let said = "[    0.000000] Booting Linux\r\n[  OK  ] Finished mod[    2.123456] EXT4: mounted.\r\n\
                    ules.\r\n[  OK  ] Started y.[    3.000001] z\r\n\r\n";
        let wanted = ["Booting Linux", "EXT4: mounted.", "[  OK  ] Finished modules."];
        let lines = console_lines(said, false);
        for line in wanted.into_iter().chain(["[  OK  ] Started y.", "z"]) {
            let figureless = without_figures(line);
            assert!(lines.contains(&figureless), "no {figureless}: {lines:?}");
        }
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn sums_are_found() {
        let said = "md5sum /big\r\n19f42b88cb0f28e36dce9df8268fd7af  /big\r\n";
        assert_eq!(sum_of(said).unwrap(), "19f42b88cb0f28e36dce9df8268fd7af");
        assert!(sum_of("no such file").is_err());
    }
}
