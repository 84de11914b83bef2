//! A headless Chromium, driven by its DevTools protocol.
//!
//! Only what the tests of the report need: one page, evaluated scripts, real mouse and keyboard
//! events, and everything that the page said or asked for. The protocol is JSON over a WebSocket;
//! a client library would bring a hundred thousand generated lines for the dozen commands here.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client};

use crate::process::Running;

/// How long the browser may take to start, on a machine that does much else.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a condition on the page may take to come true.
const WAIT_LIMIT: Duration = Duration::from_secs(15);
/// Names under which the browser is installed.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What a page finds wrong, as text.
pub type Error = String;

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket<TcpStream>,
    session: String,
    next: u64,
    events: Vec<Value>,
    // Dropped last: the browser first, then the folder that it writes to.
    _running: Running,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// When none is installed, or it does not answer.
    pub fn start() -> Result<Self, Error> {
        let profile = tempfile::tempdir().map_err(|error| error.to_string())?;
        let running = launch(profile.path())?;
        let (port, path) = wait_for_port(profile.path())?;
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(|error| error.to_string())?;
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = client(url, stream).map_err(|error| error.to_string())?;
        let (session, events) = (String::new(), Vec::new());
        let mut browser =
            Self { socket, session, next: 0, events, _running: running, _profile: profile };
        let target = browser.send("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.send("Target.attachToTarget", &attach)?;
        browser.session = session["sessionId"].as_str().unwrap_or_default().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.send(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Opens a page in a window of this size, in CSS pixels, and waits until `ready` is true.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn open(&mut self, file: &Path, width: u32, height: u32, ready: &str) -> Result<(), Error> {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.send("Emulation.setDeviceMetricsOverride", &size)?;
        let url = format!("file://{}", file.display());
        self.send("Page.navigate", &json!({ "url": url }))?;
        self.wait(ready)
    }

    /// Returns the value of a script.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, script: &str) -> Result<Value, Error> {
        let asked = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.send("Runtime.evaluate", &asked)?;
        match answer.get("exceptionDetails") {
            Some(details) => Err(format!("{script}: {details}")),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Waits until a script's value is true.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait(&mut self, script: &str) -> Result<(), Error> {
        let end = Instant::now() + WAIT_LIMIT;
        while Instant::now() < end {
            // While a page is being loaded there may be nothing to evaluate it in.
            if self.evaluate(script).is_ok_and(|value| value == json!(true)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(format!("this did not become true: {script}"))
    }

    /// Presses and releases the mouse in the middle of what a script returns.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn click(&mut self, element: &str) -> Result<(), Error> {
        // What was scrolled is hit where it was until the next frames are drawn. On a busy host it may
        // be drawn anew meanwhile, as another element.
        let script = format!(
            "(async () => {{ ({element}).scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const frame = () => new Promise(requestAnimationFrame); \
             const middle = () => {{ const box = ({element}).getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }}; \
             let before = middle(); \
             for (let still = 0, looks = 0; still < 3 && looks < 100; looks += 1) {{ await frame(); \
             const now = middle(); \
             still = now[0] === before[0] && now[1] === before[1] ? still + 1 : 0; before = now; }} \
             return before; }})()"
        );
        let place = self.evaluate(&script)?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.send("Input.dispatchMouseEvent", &event)?;
        }
        Ok(())
    }

    /// Types text into what has the focus.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn type_text(&mut self, text: &str) -> Result<(), Error> {
        self.send("Input.insertText", &json!({ "text": text })).map(|_| ())
    }

    /// Presses and releases a key that is named like this by the browser.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn press(&mut self, key: &str) -> Result<(), Error> {
        for kind in ["keyDown", "keyUp"] {
            self.send("Input.dispatchKeyEvent", &json!({ "type": kind, "key": key }))?;
        }
        Ok(())
    }

    /// Returns what was written to the console, warnings and errors of the browser included, and
    /// everything that was thrown.
    pub fn console(&self) -> Vec<String> {
        let said = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        let said = self
            .events
            .iter()
            .filter(|event| event["method"].as_str().is_some_and(|method| said.contains(&method)));
        said.map(|event| event["params"].to_string()).collect()
    }

    /// Returns the addresses of everything that was asked for.
    pub fn requests(&self) -> Vec<String> {
        let asked = self
            .events
            .iter()
            .filter(|event| event["method"] == json!("Network.requestWillBeSent"));
        let url = |event: &Value| event["params"]["request"]["url"].as_str().map(str::to_owned);
        asked.filter_map(url).collect()
    }

    /// Sends a command and returns its answer; events that come before it are kept.
    fn send(&mut self, method: &str, params: &Value) -> Result<Value, Error> {
        self.next += 1;
        let mut command = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let text = Message::text(command.to_string());
        self.socket.send(text).map_err(|error| format!("{method}: {error}"))?;
        loop {
            let message = self.socket.read().map_err(|error| format!("{method}: {error}"))?;
            let Message::Text(text) = message else { continue };
            let mut value: Value =
                serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if value["id"] != json!(self.next) {
                self.events.push(value);
                continue;
            }
            return match value.get("error") {
                Some(error) => Err(format!("{method}: {error}")),
                None => Ok(value["result"].take()),
            };
        }
    }
}

fn launch(profile: &Path) -> Result<Running, Error> {
    let mut tried = Vec::new();
    for name in NAMES {
        let mut command = Command::new(name);
        command
            .args(["--headless=new", "--remote-debugging-port=0", "--disable-gpu"])
            // Its sandbox refuses to run as root, which containers are; the page is our own.
            .args(["--no-sandbox", "--no-first-run", "--disable-extensions"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .arg("--disable-dev-shm-usage")
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match Running::start(&mut command) {
            Ok(running) => return Ok(running),
            Err(error) => tried.push(error.to_string()),
        }
    }
    Err(format!("no browser is installed, `cargo xtask setup` does that: {}", tried.join("; ")))
}

/// Waits for the file in which the browser tells where it listens.
fn wait_for_port(profile: &Path) -> Result<(u16, String), Error> {
    let end = Instant::now() + START_LIMIT;
    while Instant::now() < end {
        let told = fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = told.split_once('\n')
            && let Ok(port) = port.parse()
            && path.starts_with('/')
        {
            return Ok((port, path.trim().to_owned()));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err("the browser did not say where it listens".into())
}
