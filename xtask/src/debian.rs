//! Packages out of Debian's archive, without installing them: of another architecture, or of
//! another release.
//!
//! apt does the downloading and the checking of signatures, with lists of its own below the target
//! directory: the user's apt is neither told of another architecture nor updated. On bookworm the
//! machine's own sources are used for arm64, and with them its mirror; on anything else (Ubuntu, or
//! another Debian, whose kernel would be another one), and for backports, a sources file of ours
//! names Debian's archive and its keyring. An archive that cannot be verified is never used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use liblzma::read::XzDecoder;

use crate::process;

/// Where Debian and Ubuntu put Debian's keys (package `debian-archive-keyring`).
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

const RELEASE: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";
/// What is installed on a Debian machine.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
const UPDATE_LIMIT: Duration = Duration::from_secs(3 * 60);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The largest file that is taken out of a package: a kernel is a tenth of it.
const MEMBER_BYTES_MAX: u64 = 512 << 20;

/// An apt of our own for packages of a release of Debian's: bookworm, where no other is named.
pub struct Archive {
    folder: PathBuf,
    release: &'static str,
    /// Of the packages; the machine's own where there is none.
    architecture: Option<&'static str>,
    /// Whose packages are preferred, where it is not what the machine runs.
    preferred: Option<&'static str>,
}

impl Archive {
    /// Opens the archive of arm64 packages, on any machine. Its folders are below `folder`.
    ///
    /// # Errors
    /// When there is no apt, no keyring, or no network.
    pub fn arm64(folder: &Path) -> Result<Self> {
        Self::of_architecture(folder, "arm64")
    }

    /// Opens the archive of another release's arm64 packages.
    ///
    /// # Errors
    /// As [`arm64`](Self::arm64), and where this machine's keyring is older than the release.
    pub fn arm64_of(folder: &Path, release: &'static str) -> Result<Self> {
        let architecture = Some("arm64");
        let archive = Self { folder: folder.to_owned(), release, architecture, preferred: None };
        archive.make_folders()?;
        fs::write(folder.join("state/status"), "").context("creating apt's folders")?;
        archive.write_sources(&[])?;
        archive.update()?;
        Ok(archive)
    }

    /// Opens the archive of an architecture's packages, as if nothing were installed.
    ///
    /// # Errors
    /// As [`arm64`](Self::arm64).
    pub fn of_architecture(folder: &Path, architecture: &'static str) -> Result<Self> {
        let architecture = Some(architecture);
        let release = RELEASE;
        let archive = Self { folder: folder.to_owned(), release, architecture, preferred: None };
        archive.make_folders()?;
        fs::write(folder.join("state/status"), "").context("creating apt's folders")?;
        if !runs_release() {
            archive.write_sources(&[])?;
        }
        archive.update()?;
        Ok(archive)
    }

    /// Opens the archive of what was ported back to the release that this machine runs. It knows
    /// what is installed here.
    ///
    /// # Errors
    /// When this machine runs another release; as [`arm64`](Self::arm64).
    pub fn backports(folder: &Path) -> Result<Self> {
        ensure!(
            runs_release(),
            "backports are for Debian {RELEASE}, which this machine does not run"
        );
        let preferred = Some(BACKPORTS);
        let archive =
            Self { folder: folder.to_owned(), release: RELEASE, architecture: None, preferred };
        archive.make_folders()?;
        archive.write_sources(&[BACKPORTS])?;
        archive.update()?;
        Ok(archive)
    }

    /// Opens what the machine's own apt knows. It knows what is installed here.
    ///
    /// # Errors
    /// When there is no apt.
    pub fn own(folder: &Path) -> Result<Self> {
        let folder = folder.to_owned();
        let archive = Self { folder, release: RELEASE, architecture: None, preferred: None };
        archive.make_folders()?;
        archive.update()?;
        Ok(archive)
    }

    fn make_folders(&self) -> Result<()> {
        ensure!(process::is_installed("apt-get"), "fetching Debian packages needs apt-get");
        for part in ["state/lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(self.folder.join(part)).context("creating apt's folders")?;
        }
        Ok(())
    }

    fn update(&self) -> Result<()> {
        println!("Fetching the list of Debian's packages");
        let update = process::run(self.apt("apt-get").arg("update"), UPDATE_LIMIT);
        if let Err(error) = update {
            // One of the user's sources may know nothing of arm64; the packages decide.
            println!("{error:#}; trying with what was fetched");
        }
        Ok(())
    }

    /// The names of the packages that start with `prefix`.
    ///
    /// # Errors
    /// When apt cannot be run.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let output = process::capture(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Downloads the newest version of `package`, which apt checks against the signed lists.
    ///
    /// # Errors
    /// When it is not in the archive, cannot be fetched or fails the check.
    pub fn download(&self, package: &str) -> Result<Package> {
        let packages = self.folder.join("packages");
        let prefix = format!("{package}_");
        for old in files_with_prefix(&packages, &prefix) {
            fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
        }
        println!("Downloading {package} from Debian");
        let mut download = self.apt("apt-get");
        if let Some(release) = self.preferred {
            download.args(["--target-release", release]);
        }
        download.args(["download", package]).current_dir(&packages);
        process::run(&mut download, DOWNLOAD_LIMIT)?;
        let deb = files_with_prefix(&packages, &prefix).pop();
        let deb = deb.with_context(|| format!("apt-get left no package file of {package}"))?;
        Package::of(deb)
    }

    /// `name version` of each of `packages` and of whatever these depend on, in the order in which apt
    /// would unpack them.
    ///
    /// # Errors
    /// When apt does not know one of them.
    pub fn all_for(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut apt = self.apt("apt-get");
        apt.env("LC_ALL", "C").args(["--simulate", "--no-install-recommends", "install"]);
        let output = process::capture(apt.args(packages))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let all: Vec<String> = text.lines().filter_map(title_of_installed).collect();
        ensure!(
            !all.is_empty(),
            "Debian {} does not have all of {}: {}",
            self.release,
            packages.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(all)
    }

    /// Downloads packages that [`all_for`](Self::all_for) has named; apt checks each of them.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn download_all(&self, titles: &[String]) -> Result<Vec<Package>> {
        let packages = self.folder.join("packages");
        for old in files_with_prefix(&packages, "") {
            fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
        }
        println!("Downloading {} packages from Debian", titles.len());
        let names: Vec<_> = titles.iter().filter_map(|title| title.split(' ').next()).collect();
        let mut download = self.apt("apt-get");
        download.args(["--quiet", "--quiet", "download"]).args(&names).current_dir(&packages);
        process::run(&mut download, DOWNLOAD_LIMIT)?;
        let file = |name: &&str| {
            let file = files_with_prefix(&packages, &format!("{name}_")).pop();
            Package::of(file.with_context(|| format!("apt-get left no package file of {name}"))?)
        };
        names.iter().map(file).collect()
    }

    /// The packages that a package depends on, directly or not, whose names start with one of
    /// `prefixes`.
    ///
    /// # Errors
    /// When apt cannot be run.
    pub fn depended_on(&self, package: &str, prefixes: &[&str]) -> Result<Vec<String>> {
        let mut found = vec![package.to_owned()];
        let mut next = 0;
        while let Some(name) = found.get(next).cloned() {
            let output = process::capture(self.apt("apt-cache").args(["depends", &name]))?;
            let text = String::from_utf8_lossy(&output.stdout);
            for name in text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")) {
                let is_wanted = prefixes.iter().any(|prefix| name.starts_with(prefix));
                if is_wanted && !found.iter().any(|other| other == name) {
                    found.push(name.to_owned());
                }
            }
            next += 1;
        }
        Ok(found.split_off(1))
    }

    /// What apt would install for `package`: itself, and what it depends on and this machine lacks
    /// or has in another version.
    ///
    /// # Errors
    /// When apt cannot say.
    pub fn needed_for(&self, package: &str) -> Result<Vec<String>> {
        let mut apt = self.apt("apt-get");
        apt.env("LC_ALL", "C").args(["--simulate", "--no-install-recommends", "install", package]);
        if let Some(release) = self.preferred {
            apt.args(["--target-release", release]);
        }
        let output = process::capture(&mut apt)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let name = |line: &str| line.strip_prefix("Inst ")?.split(' ').next().map(str::to_owned);
        Ok(text.lines().filter_map(name).collect())
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = process::command(program);
        let mut set = |name: &str, value: &str| {
            apt.arg("-o").arg(format!("{name}={value}"));
        };
        set("Dir::State", &self.path("state"));
        set("Dir::Cache", &self.path("cache"));
        match self.architecture {
            Some(architecture) => {
                set("Dir::State::status", &self.path("state/status"));
                set("APT::Architecture", architecture);
                set("APT::Architectures::", architecture);
            }
            None => set("Dir::State::status", DPKG_STATUS),
        }
        set("Acquire::Languages", "none");
        set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false");
        set("Acquire::http::Timeout", "30");
        set("Acquire::https::Timeout", "30");
        set("Acquire::Retries", "2");
        if process::is_root() {
            // Otherwise apt becomes a user who may not be able to reach our folders.
            set("APT::Sandbox::User", "root");
        }
        if self.sources().is_file() {
            set("Dir::Etc::SourceList", &self.sources().to_string_lossy());
            set("Dir::Etc::SourceParts", "/dev/null");
        }
        apt
    }

    fn path(&self, part: &str) -> String {
        self.folder.join(part).to_string_lossy().into_owned()
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("debian.list")
    }

    fn write_sources(&self, more: &[&str]) -> Result<()> {
        if !Path::new(KEYRING).exists() {
            bail!(
                "Debian's keys are missing, without which its packages cannot be verified:\n  \
                 apt-get install debian-archive-keyring   (as root)"
            );
        }
        let own = self.release;
        let mut text = format!(
            "deb [signed-by={KEYRING}] http://deb.debian.org/debian {own} main\n\
             deb [signed-by={KEYRING}] http://deb.debian.org/debian-security {own}-security main\n"
        );
        for release in more {
            text +=
                &format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {release} main\n");
        }
        fs::write(self.sources(), text).context("writing apt's sources")
    }
}

/// A package file.
pub struct Package {
    path: PathBuf,
    /// Name and version, as the file is called.
    pub title: String,
}

impl Package {
    fn of(path: PathBuf) -> Result<Self> {
        let stem = path.file_stem().context("a package without a name")?.to_string_lossy();
        let mut words = stem.split('_');
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let title = format!("{name} {}", version.replace("%3a", ":"));
        Ok(Self { path, title })
    }

    /// The contents of the first file whose path in the package starts with `prefix`.
    ///
    /// # Errors
    /// When the package is broken or has no such file.
    pub fn file(&self, prefix: &str) -> Result<Vec<u8>> {
        self.find(prefix).with_context(|| format!("in {}", self.path.display()))
    }

    /// Unpacks everything into `folder`, as it would be installed into the root.
    ///
    /// # Errors
    /// When the package is broken, or `folder` cannot be written.
    pub fn unpack(&self, folder: &Path) -> Result<()> {
        let deb = File::open(&self.path).context("opening the package")?;
        let mut tar = tar::Archive::new(XzDecoder::new(data_member(deb)?));
        tar.unpack(folder).with_context(|| format!("unpacking {}", self.path.display()))
    }

    /// The contents of all files that `wanted` takes a path's name for, by these names.
    ///
    /// # Errors
    /// When the package is broken.
    pub fn files(
        &self,
        wanted: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, Vec<u8>>> {
        let deb = File::open(&self.path).context("opening the package")?;
        let mut tar = tar::Archive::new(XzDecoder::new(data_member(deb)?));
        let mut files = BTreeMap::new();
        for entry in tar.entries().context("unpacking")? {
            let entry = entry.context("unpacking")?;
            let path = entry.path().context("unpacking")?.to_string_lossy().into_owned();
            if !entry.header().entry_type().is_file() {
                continue;
            }
            if let Some(name) = wanted(&path) {
                ensure!(entry.size() <= MEMBER_BYTES_MAX, "{path} is too large");
                let mut contents = Vec::new();
                entry.take(MEMBER_BYTES_MAX).read_to_end(&mut contents).context("unpacking")?;
                files.insert(name, contents);
            }
        }
        Ok(files)
    }

    fn find(&self, prefix: &str) -> Result<Vec<u8>> {
        let deb = File::open(&self.path).context("opening the package")?;
        let data = XzDecoder::new(data_member(deb)?);
        let mut tar = tar::Archive::new(data);
        for entry in tar.entries().context("unpacking")? {
            let entry = entry.context("unpacking")?;
            let path = entry.path().context("unpacking")?.to_string_lossy().into_owned();
            if entry.header().entry_type().is_file()
                && path.trim_start_matches("./").starts_with(prefix)
            {
                ensure!(entry.size() <= MEMBER_BYTES_MAX, "{path} is too large");
                let mut contents = Vec::new();
                entry.take(MEMBER_BYTES_MAX).read_to_end(&mut contents).context("unpacking")?;
                return Ok(contents);
            }
        }
        bail!("no file {prefix}*")
    }
}

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const AR_HEADER_BYTES: usize = 60;

/// The part of a .deb (an ar archive) that holds the files.
fn data_member(mut deb: impl Read + Seek) -> Result<impl Read> {
    let mut magic = [0; AR_MAGIC.len()];
    deb.read_exact(&mut magic).context("not a Debian package")?;
    ensure!(&magic == AR_MAGIC, "not a Debian package");
    loop {
        let mut header = [0; AR_HEADER_BYTES];
        deb.read_exact(&mut header).context("the package has no data.tar.xz")?;
        let name = String::from_utf8_lossy(&header[..16]).trim().to_owned();
        let size = String::from_utf8_lossy(&header[48..58]).trim().to_owned();
        let size: u32 = size.parse().context("a broken ar header")?;
        if name.trim_end_matches('/') == "data.tar.xz" {
            return Ok(deb.take(u64::from(size)));
        }
        // Members start at even offsets.
        let skipped = i64::from(size) + i64::from(size % 2);
        deb.seek(SeekFrom::Current(skipped)).context("a truncated package")?;
    }
}

/// Of a line `Inst name (version origin)`.
fn title_of_installed(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    Some(format!("{name} {}", rest.trim_start_matches('(').split(' ').next()?))
}

fn files_with_prefix(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    entries.flatten().map(|entry| entry.path()).filter(named).collect()
}

fn runs_release() -> bool {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| text.lines().any(|other| other == line);
    has("ID=debian") && has(&format!("VERSION_CODENAME={RELEASE}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn member(name: &str, contents: &[u8]) -> Vec<u8> {
        let mut bytes =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, contents.len())
                .into_bytes();
        bytes.extend(contents);
        if contents.len() % 2 == 1 {
            bytes.push(b'\n');
        }
        bytes
    }

    #[test]
    fn what_apt_would_install_has_a_title() {
        let line = "Inst libc6 (2.36-9+deb12u10 Debian:12.11/stable [arm64]) []";
        assert_eq!(title_of_installed(line).as_deref(), Some("libc6 2.36-9+deb12u10"));
        assert_eq!(title_of_installed("Conf libc6 (2.36 Debian)"), None);
    }

    #[test]
    fn data_member_is_found_behind_odd_sized_ones() {
        let deb = [
            AR_MAGIC.to_vec(),
            member("debian-binary", b"2.0"),
            member("control.tar.xz", b"control"),
            member("data.tar.xz", b"contents"),
        ]
        .concat();
        let mut data = Vec::new();
        data_member(Cursor::new(deb)).unwrap().read_to_end(&mut data).unwrap();
        assert_eq!(data, b"contents");
    }

    #[test]
    fn other_files_are_refused() {
        assert!(data_member(Cursor::new(b"garbage!".to_vec())).is_err());
        assert!(data_member(Cursor::new(AR_MAGIC.to_vec())).is_err());
    }
}
