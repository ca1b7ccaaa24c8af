//! A real browser, driven over the WebDriver protocol by the tiny HTTP client.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::http::Client;
use crate::rig::until;
use crate::skip::skip;

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys as WebDriver names them.
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const ENTER: char = '\u{e007}';

/// One chromium with an empty profile, ended and forgotten when dropped.
pub(crate) struct Browser {
    driver: Child,
    client: Client,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None`, and a line saying so, where there is no browser.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&json!({}))
    }

    /// Scripts of pages never run in this one.
    pub(crate) fn without_javascript() -> Option<Self> {
        Self::start_with(&json!({"profile.managed_default_content_settings.javascript": 2}))
    }

    fn start_with(prefs: &Value) -> Option<Self> {
        let found = |name: &str| Command::new(name).arg("--version").stderr(Stdio::null()).output().is_ok();
        if !found("chromium") || !found("chromedriver") {
            skip("chromium and chromedriver are not installed");
            return None;
        }
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver starts");
        let said = BufReader::new(driver.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        let port = said
            .filter_map(|line| line.split_once("successfully on port ").map(|(_, port)| port.to_owned()))
            .next()
            .expect("chromedriver says its port");
        let profile = tempfile::tempdir().expect("a profile");
        let client = Client { address: format!("127.0.0.1:{}", port.trim_end_matches('.')), bearer: None };
        let mut browser = Self { driver, client, session: String::new(), _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1200,900",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": flags, "prefs": prefs},
        }}});
        let made = browser.client.post_json("/session", &wanted).json();
        browser.session =
            made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {made}")).to_owned();
        Some(browser)
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        let answer = self.client.post_json(&format!("/session/{}/{command}", self.session), body);
        assert_eq!(answer.status, 200, "{command} {body}: {}", answer.body);
        answer.json()["value"].clone()
    }

    pub(crate) fn open(&self, address: &str) {
        self.post("url", &json!({"url": address}));
    }

    pub(crate) fn address(&self) -> String {
        self.client.get(&format!("/session/{}/url", self.session)).json()["value"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn cookies(&self) -> Vec<Value> {
        let answer = self.client.get(&format!("/session/{}/cookie", self.session)).json();
        answer["value"].as_array().cloned().unwrap_or_default()
    }

    /// The value of a JavaScript expression in the page; works where the page's own scripts do not.
    pub(crate) fn value(&self, expression: &str) -> Value {
        self.post("execute/sync", &json!({"script": format!("return ({expression})"), "args": []}))
    }

    pub(crate) fn text(&self, css: &str) -> String {
        let all = format!("[...document.querySelectorAll({})].map(e => e.innerText).join('\\n')", json!(css));
        self.value(&all).as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn shows(&self, css: &str) -> bool {
        self.value(&format!("!!document.querySelector({})", json!(css))) == json!(true)
    }

    /// Waits until what `css` selects says `text`.
    pub(crate) fn until_says(&self, css: &str, text: &str) {
        until(&format!("`{css}` to say `{text}`"), || self.text(css).contains(text));
    }

    fn element(&self, css: &str) -> String {
        let found = self.post("element", &json!({"using": "css selector", "value": css}));
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("{css}: {found}")).to_owned()
    }

    /// A click as a person's: the element must be there and not covered.
    pub(crate) fn click(&self, css: &str) {
        self.post(&format!("element/{}/click", self.element(css)), &json!({}));
    }

    /// Types into a field, after what it holds.
    pub(crate) fn fill(&self, css: &str, text: &str) {
        self.post(&format!("element/{}/value", self.element(css)), &json!({"text": text}));
    }

    /// Presses keys one by one, wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})])
            .collect();
        self.post("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}));
    }

    /// A command of the browser's own debugging protocol.
    pub(crate) fn devtools(&self, command: &str, params: &Value) -> Value {
        self.post("goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.post("se/log", &json!({"type": kind})).as_array().cloned().unwrap_or_default()
    }

    /// What the console said since the last time: errors, warnings, violations of the content policy.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.log("browser").iter().filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect()
    }

    /// Every address asked for since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.log("performance");
        let events = entries.iter().filter_map(|e| serde_json::from_str::<Value>(e["message"].as_str()?).ok());
        events
            .filter(|e| e["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|e| e["message"]["params"]["request"]["url"].as_str().map(str::to_owned))
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            if std::thread::panicking() {
                eprintln!("the browser stood at {} and showed:\n{}", self.address(), self.text("body"));
            }
            let _ = self.client.send("DELETE", &format!("/session/{}", self.session), &[], "");
        }
        if let Ok(group) = i32::try_from(self.driver.id()).map(rustix::process::Pid::from_raw) {
            let _ = group.map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
        }
        let _ = self.driver.wait();
    }
}
