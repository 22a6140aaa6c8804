//! A real browser, driven over the WebDriver protocol.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::free_port;
use crate::support::{Connection, Response, eventually};

/// What keeps it from asking anybody but the pages it is sent to.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// One window. Dropped, it ends with its driver.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _home: TempDir,
}

impl Browser {
    /// A window of this size; `is_dark` is what its user prefers.
    pub fn open(width: u32, height: u32, is_dark: bool) -> Self {
        let driver = std::env::var_os("S3DEDUP_TEST_CHROMEDRIVER")
            .expect("S3DEDUP_TEST_CHROMEDRIVER must name a chromedriver: run the tests with `make test`");
        let home = tempfile::tempdir().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(driver);
        command.arg(format!("--port={}", address.port())).env("HOME", home.path()).env("TMPDIR", home.path());
        let driver = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the driver answers", || Connection::open(address).ok());
        let mut browser = Self { driver, address, session: String::new(), _home: home };
        let data = format!("--user-data-dir={}", browser._home.path().join("profile").display());
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.extend([data, format!("--window-size={width},{height}")]);
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" } });
        let session = browser.tell("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        browser.developer(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height,
            "deviceScaleFactor": 1, "mobile": false }),
        );
        let scheme = if is_dark { "dark" } else { "light" };
        browser.developer(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme }] }),
        );
        browser
    }

    fn developer(&self, command: &str, parameters: &Value) -> Value {
        self.tell(
            "POST",
            &format!("{}/goog/cdp/execute", self.session),
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    pub fn go(&self, url: &str) {
        self.tell("POST", &format!("{}/url", self.session), &json!({ "url": url }));
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.tell("POST", &format!("{}/execute/sync", self.session), &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait_for(&self, expression: &str) {
        let what =
            format!("{expression} in the page; it has: {}", self.value("document.body.innerText.slice(0, 2000)"));
        eventually(&what, || (self.value(&format!("Boolean({expression})")) == true).then_some(()));
    }

    /// Presses keys, one after the other, on whatever has the focus.
    pub fn press(&self, keys: &str) {
        let steps: Vec<_> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": steps }] });
        self.tell("POST", &format!("{}/actions", self.session), &actions);
    }

    /// Clicks the first element of a selector as a user does: it must be there, in sight and not covered.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.wait_for(&format!("document.querySelector({})", json!(selector)));
        let found = json!({ "using": "css selector", "value": selector });
        let element = self.tell("POST", &format!("{}/element", self.session), &found);
        let id = element.as_object().and_then(|it| it.values().next()).and_then(Value::as_str).expect("an element");
        self.tell("POST", &format!("{}/element/{id}/click", self.session), &json!({}));
    }

    /// What the page complained of, such as a script that was not let in.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.tell("POST", &format!("{}/se/log", self.session), &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(|line| line["message"].to_string()).collect()
    }

    /// Keeps a picture for people, if they ask for pictures.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("S3DEDUP_TEST_PICTURES") else { return };
        let answer = self.tell("GET", &format!("{}/screenshot", self.session), &Value::Null);
        let bytes = decode_base64(answer.as_str().unwrap());
        fs::create_dir_all(&folder).unwrap();
        fs::write(Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
    }

    #[track_caller]
    fn tell(&self, method: &str, target: &str, body: &Value) -> Value {
        let answer = self.send(method, target, body).unwrap();
        let mut said: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 200, "{target} {body}: {said}");
        said["value"].take()
    }

    /// The driver listens to who calls it by its own name only.
    fn send(&self, method: &str, target: &str, body: &Value) -> std::io::Result<Response> {
        let mut connection = Connection::open(self.address)?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.try_write(head.as_bytes())?;
        connection.try_write(body.as_bytes())?;
        connection.response(false)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The window would outlive its driver.
            let _ = self.send("DELETE", &self.session, &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|known| *known == byte)) {
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}
