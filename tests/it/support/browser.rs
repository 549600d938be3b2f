//! A real browser: headless Chromium, driven by ChromeDriver over its WebDriver protocol.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::PATIENCE;

/// Without the browser's own services, updates and network requests.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1180,900",
];

/// Starts ChromeDriver and returns its port.
///
/// It ends now and then before it listens while other tests take ports, so a failed start is repeated.
async fn start_driver() -> (Child, u16) {
    let mut output = String::new();
    for _ in 0..5 {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}; install the Debian package chromium-driver"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, port)) = line.rsplit_once("successfully on port ") {
                    return port.trim_end_matches('.').parse().ok();
                }
                output += &format!("{line}\n");
            }
            None
        };
        if let Some(port) = tokio::time::timeout(PATIENCE, port).await.unwrap() {
            // A process that prints to a closed pipe is killed.
            crate::support::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (driver, port);
        }
    }
    panic!("chromedriver ended before it listened: {output}");
}

/// A browser with one window. It ends with the test.
pub struct Browser {
    client: reqwest::Client,
    port: u16,
    session: String,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let (driver, port) = start_driver().await;

        let profile = tempfile::tempdir().unwrap();
        let mut flags: Vec<_> = FLAGS.map(str::to_owned).into();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let mut browser = Self { client, port, session: String::new(), _driver: driver, _profile: profile };
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.send("POST", "/session", capabilities).await;
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// One command of the protocol; fails the test unless it succeeds.
    #[track_caller]
    fn send(&self, method: &str, path: &str, body: Value) -> impl Future<Output = Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = self.client.request(method.parse().unwrap(), &url);
        let request = if method == "POST" { request.body(body.to_string()) } else { request };
        let what = format!("{method} {path} {body}");
        async move {
            let answer = request.send().await.unwrap();
            let is_success = answer.status().is_success();
            let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert!(is_success, "{what}: {}", answer["value"]);
            answer["value"].clone()
        }
    }

    async fn command(&self, method: &str, path: &str, body: Value) -> Value {
        self.send(method, &format!("/session/{}{path}", self.session), body).await
    }

    /// Opens an address, and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.command("POST", "/url", json!({"url": url})).await;
    }

    /// The value of an expression in the page.
    pub async fn evaluate(&self, expression: &str) -> Value {
        self.command("POST", "/execute/sync", json!({"script": format!("return {expression}"), "args": []})).await
    }

    /// Clicks on the first element that the selector finds.
    pub async fn click(&self, selector: &str) {
        let found = self.command("POST", "/element", json!({"using": "css selector", "value": selector})).await;
        let element = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.command("POST", &format!("/element/{element}/click"), json!({})).await;
    }

    /// The visible text of the first element that the selector finds; nothing if there is none.
    pub async fn text(&self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({})?.innerText ?? ''", json!(selector))).await;
        text.as_str().unwrap().to_owned()
    }

    /// The errors in the page's console, such as violations of its content security policy.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", json!({"type": "browser"})).await;
        entries.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// The colours that the reader prefers: `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// A window of this size, in the page's pixels.
    pub async fn resize(&self, width: u32, height: u32, is_phone: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": if is_phone { 2 } else { 1 }, "mobile": is_phone});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    async fn devtools(&self, command: &str, parameters: Value) {
        self.command("POST", "/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await;
    }

    /// A screenshot of the window, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let image = self.command("GET", "/screenshot", Value::Null).await;
        BASE64_STANDARD.decode(image.as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    /// Also ends the browser, which would outlive its driver.
    fn drop(&mut self) {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let request =
            format!("DELETE /session/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", self.session);
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_end(&mut Vec::new());
    }
}
