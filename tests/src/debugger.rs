//! `stepwell gdb` with a guest that is busy, and the debuggers that are let loose on it.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::guest::folder;
use crate::plain::Setup;
use crate::process::{Finished, Running, run};
use crate::stepwell::{binary, command};

/// What the guest's start script says when its shell is up.
const BANNER: &str = "stepwell-demo: shell is up";
const BOOT: Duration = Duration::from_secs(240);
/// Keeps four CPUs forking and reading directories, each its own tasks, because to a debugger a CPU
/// is a thread: a task that moves on is gone from it. Two more wake one another wherever they are.
const WORK: &str = "for c in 1 2 4 8; do (while true; do ls / >/dev/null; done) & \
    busybox taskset -p $c $!; done; (while true; do echo; done) | (while read x; do :; done) &\r";

/// Debian's kernel on four Cortex-A57, which have no atomics but exclusives.
#[must_use]
pub fn debian() -> Setup {
    Setup {
        initrd: Some(folder().join("debian/initramfs.cpio.gz")),
        append: Some("console=ttyAMA0".to_owned()),
        smp: 4,
        memory_mib: 512,
        ..Setup::new(&folder().join("debian/vmlinuz"))
    }
}

/// A served guest. Dropping it kills it.
pub struct Served {
    running: Running,
    input: Box<dyn Write>,
    console: Arc<Mutex<String>>,
    folder: tempfile::TempDir,
}

impl Served {
    /// Starts a guest with these options more.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(setup: &Setup, options: &[&str]) -> Self {
        let mut gdb = command("gdb", setup);
        gdb.args(options);
        Self::serve(gdb)
    }

    /// Starts a replay, from a position.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn replay(log: &Path, at: &str) -> Self {
        let mut gdb = Command::new(binary());
        gdb.args(["gdb", "--at", at, "--replay"]).arg(log);
        Self::serve(gdb)
    }

    fn serve(mut gdb: Command) -> Self {
        let folder = tempfile::tempdir().expect("tests need a place for temporary files");
        gdb.arg("--listen").arg(format!("unix:{}", folder.path().join("socket").display()));
        gdb.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut running = Running::start(&mut gdb).expect("the command is built");
        let input = Box::new(running.stdin().expect("it was piped"));
        let mut lines = running.lines().expect("it was piped");
        let console = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&console);
        thread::spawn(move || {
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if let Ok(mut heard) = heard.lock() {
                    heard.push_str(&String::from_utf8_lossy(&line));
                }
                line.clear();
            }
        });
        let served = Self { running, input, console, folder };
        served.wait_until("the server listens", |served| served.socket().exists());
        served
    }

    /// Waits for the shell, and gives the guest something to do.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn make_busy(&mut self) {
        self.wait_until("the shell is up", |served| served.console().contains(BANNER));
        // The shell's own prompt has no line end to wait for.
        thread::sleep(Duration::from_secs(1));
        self.type_text(WORK);
        thread::sleep(Duration::from_secs(1));
    }

    /// Types on the guest's console.
    ///
    /// # Panics
    /// When the command is gone.
    pub fn type_text(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("the command runs");
        self.input.flush().expect("the command runs");
    }

    /// What the guest wrote so far, in whole lines.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.lock().map(|console| console.clone()).unwrap_or_default()
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn wait_until(&self, what: &str, test: impl Fn(&Self) -> bool) {
        let end = Instant::now() + BOOT;
        while !test(self) {
            assert!(Instant::now() < end, "not until {what}: {}", self.console());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Runs GDB with a script of `tests/gdb`, symbols loaded before it attaches. Prints what passed.
    ///
    /// # Panics
    /// When GDB cannot be started, takes too long or does not come to the script's end; the message
    /// begins with the reason.
    pub fn passes(&self, symbols: &Path, script: &str, limit: Duration) {
        let mut gdb = gdb(Some(symbols), &self.socket(), script);
        let said = run(&mut gdb, limit).unwrap_or_else(|error| panic!("{script}: {error}"));
        for line in said.stdout.lines().filter(|line| line.starts_with("passed: ")) {
            println!("{line}");
        }
        let failed = said.stdout.lines().find(|line| line.starts_with("FAILED: "));
        assert!(failed.is_none(), "{script}: {}\n{}", failed.unwrap_or_default(), said.output());
        let ended = said.stdout.contains("all passed\n") && said.stdout.contains("detached]\n");
        assert!(ended, "{script}: {}", said.output());
    }

    /// Process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits for the command's end.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn finish(self, limit: Duration) -> Finished {
        let Self { running, input, .. } = self;
        drop(input);
        running.finish(limit).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// GDB with a script of `tests/gdb`, for who listens at a socket.
#[must_use]
pub fn gdb(symbols: Option<&Path>, socket: &Path, script: &str) -> Command {
    let mut gdb = Command::new("gdb-multiarch");
    gdb.args(["-nx", "-batch", "-ex", "set pagination off", "-ex", "set confirm off"]);
    gdb.args(["-ex", "set width 0", "-ex", "set breakpoint always-inserted on"]);
    // Two seconds, unless it is told otherwise: a busy machine does not always make that, nor one that is
    // on its way to a position.
    gdb.args(["-ex", "set remotetimeout 600"]);
    match symbols {
        Some(symbols) => gdb.args(["-ex", &format!("symbol-file {}", symbols.display())]),
        None => gdb.args(["-ex", "set architecture aarch64"]),
    };
    gdb.args(["-ex", &format!("target remote {}", socket.display())]);
    gdb.arg("-x").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("gdb").join(script));
    gdb
}
