//! The script agent over its real stdio, with a small HTTP server in the MCP server's place.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

struct Agent {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    said: String,
}

impl Agent {
    fn start(cwd: &Path, servers: Value) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_symphony-guest"))
            .arg("script-agent")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("SYMPHONY_ISSUE_TITLE", "Do the thing")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        let mut agent = Self { child, stdin, lines, said: String::new() };
        let about = agent.call(1, "initialize", json!({"protocolVersion": 1}));
        assert_eq!(about["result"]["agentCapabilities"]["mcpCapabilities"]["http"], true);
        let made = agent.call(2, "session/new", json!({"cwd": cwd, "mcpServers": servers}));
        assert_eq!(made["result"]["sessionId"], "script-1");
        agent
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").unwrap();
    }

    fn answer(&mut self, id: u32) -> Value {
        loop {
            let message = self.lines.recv_timeout(LONG).expect("the agent answers");
            if message["id"] == id {
                return message;
            }
            if let Some(text) = message["params"]["update"]["content"]["text"].as_str() {
                self.said.push_str(text);
            }
        }
    }

    fn call(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        self.answer(id)
    }

    fn prompt(&mut self, id: u32, text: &str, meta: Value) -> Value {
        let prompt = json!([{"type": "text", "text": text}]);
        self.call(id, "session/prompt", json!({"sessionId": "script-1", "prompt": prompt, "_meta": meta}))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An MCP server that knows the two tools; yields the `tools/call` parameters and the bearer they came with.
fn mcp_server(fails: bool) -> (Value, Receiver<(Value, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/mcp", listener.local_addr().unwrap());
    let (tell, calls) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut length, mut bearer, mut line) = (0, String::new(), String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                let lower = line.to_lowercase();
                if let Some(n) = lower.strip_prefix("content-length: ") {
                    length = n.trim().parse().unwrap();
                }
                if let Some(value) = lower.strip_prefix("authorization: ") {
                    bearer = value.trim().to_owned();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let message: Value = serde_json::from_slice(&body).unwrap();
            let result = match message["method"].as_str().unwrap() {
                "tools/list" => json!({"tools": [{"name": "mark_done"}, {"name": "request_human_steering"}]}),
                "tools/call" => {
                    let _ = tell.send((message["params"].clone(), bearer));
                    json!({"content": [{"type": "text", "text": "target taken"}], "isError": fails})
                }
                _ => json!({}),
            };
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
            let (a, b) = answer.split_at(5);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            let out = format!("{head}{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len());
            stream.get_mut().write_all(out.as_bytes()).unwrap();
        }
    });
    let header = json!({"name": "Authorization", "value": "Bearer abc"});
    (json!([{"type": "http", "name": "symphony", "url": url, "headers": [header]}]), calls)
}

fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "git init -q . && git config user.name a && git config user.email a@a && git commit -q --allow-empty -m base";
    assert!(Command::new("sh").args(["-c", script]).current_dir(dir.path()).status().unwrap().success());
    dir
}

fn log(dir: &Path) -> String {
    let out = Command::new("git").args(["log", "--format=%s"]).current_dir(dir).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn blocks_run_in_order_are_committed_and_marked_done() {
    let dir = repository();
    let (servers, calls) = mcp_server(false);
    let mut agent = Agent::start(dir.path(), servers);
    let text = "Do it.\n```sh\necho one > a\necho first\n```\nthen\n```sh\ncat a\necho two > b\n```\n";
    assert_eq!(agent.prompt(3, text, Value::Null)["result"]["stopReason"], "end_turn");
    assert_eq!(agent.said, "first\none\n");
    let (call, bearer) = calls.recv_timeout(LONG).unwrap();
    let expected = json!({"name": "mark_done", "arguments": {"title": "Do the thing", "summary": "first\none"}});
    assert_eq!((call, bearer.as_str()), (expected, "bearer abc"));
    assert_eq!(log(dir.path()), "Do the thing\nbase\n");
}

#[test]
fn a_block_that_exits_75_asks_and_is_retried_with_the_answer() {
    let dir = repository();
    let (servers, calls) = mcp_server(false);
    let mut agent = Agent::start(dir.path(), servers);
    let text = "```sh\necho x >> ran\n```\n```sh\nif [ -z \"$SYMPHONY_ANSWER\" ]; then echo Which colour?; exit 75; fi\necho \"$SYMPHONY_ANSWER\" > colour\n```";
    assert_eq!(agent.prompt(3, text, Value::Null)["result"]["stopReason"], "end_turn");
    let (call, _) = calls.recv_timeout(LONG).unwrap();
    assert_eq!(
        (&call["name"], &call["arguments"]["question"]),
        (&json!("request_human_steering"), &json!("Which colour?"))
    );
    let meta = json!({"symphony/answer": "blue $(touch pwned)"});
    assert_eq!(agent.prompt(4, "The human says: blue", meta)["result"]["stopReason"], "end_turn");
    assert_eq!(calls.recv_timeout(LONG).unwrap().0["name"], "mark_done");
    assert_eq!(std::fs::read_to_string(dir.path().join("colour")).unwrap(), "blue $(touch pwned)\n");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("ran")).unwrap(),
        "x\n",
        "a block that succeeded is not run again"
    );
}

#[test]
fn any_other_failure_fails_the_turn_with_the_last_words() {
    let dir = repository();
    let mut agent = Agent::start(dir.path(), json!([]));
    let words = agent.prompt(3, "```sh\ntrue\n```\n```sh\necho oh no >&2\nfalse\necho not reached\n```", Value::Null);
    let words = words["error"]["message"].as_str().unwrap();
    assert_eq!(words, "block 2 of 2 exited with 1:\noh no");
    assert_eq!(agent.call(4, "session/load", json!({}))["error"]["code"], -32601);
}

#[test]
fn a_refused_mark_done_fails_the_turn_in_its_words() {
    let dir = repository();
    let (servers, _calls) = mcp_server(true);
    let mut agent = Agent::start(dir.path(), servers);
    let answer = agent.prompt(3, "```sh\ntrue\n```", Value::Null);
    assert_eq!(answer["error"]["message"], "mark_done: target taken");
}

#[test]
fn cancelling_kills_the_running_block_and_what_it_started() {
    let dir = repository();
    let mut agent = Agent::start(dir.path(), json!([]));
    let text = "```sh\nsleep 1000 & echo $! > pid\nwait\n```";
    let prompt = json!([{"type": "text", "text": text}]);
    let params = json!({"sessionId": "script-1", "prompt": prompt});
    agent.send(&json!({"jsonrpc": "2.0", "id": 3, "method": "session/prompt", "params": params}));
    let pid = (0..600)
        .find_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            std::fs::read_to_string(dir.path().join("pid")).ok().filter(|p| p.ends_with('\n'))
        })
        .expect("the block runs");
    agent.send(&json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "script-1"}}));
    assert_eq!(agent.answer(3)["result"]["stopReason"], "cancelled");
    let stat = format!("/proc/{}/stat", pid.trim());
    let gone = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        !std::fs::read_to_string(&stat).is_ok_and(|s| !s.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
    });
    assert!(gone);
}
