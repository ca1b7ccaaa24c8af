//! The script agent: an ACP agent without a model. It runs the fenced `sh` blocks of a session's first prompt in order, each
//! once, commits, and reports through MCP like any other agent. Within a session a later prompt goes on where the last
//! stopped; a new session starts with the first block again. It must never run a block that was not in that prompt.

mod blocks;
mod mcp;
mod shell;

use std::collections::HashMap;
use std::future::Future;
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::pin::Pin;

use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Bytes of one message; a prompt holds a whole issue.
const MAX_LINE: u64 = 16 * 1024 * 1024;
/// A block that exits with this asks a human.
const ASK: i32 = 75;
/// Bytes of output in a summary; the tool cuts more.
const SUMMARY: usize = 4000;

/// Serves ACP on stdin and stdout until stdin closes.
pub(crate) fn main() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(serve());
    Ok(())
}

#[derive(Clone)]
struct Session {
    id: String,
    cwd: PathBuf,
    server: Option<mcp::Server>,
    blocks: Option<Vec<String>>,
    next: usize,
    asked: bool,
    log: String,
}

type Turn = Pin<Box<dyn Future<Output = (Session, Result<(), String>)>>>;

struct Running {
    request: Value,
    /// As it was before the turn: what a cancelled one did to it does not count.
    before: Session,
    turn: Turn,
}

async fn serve() {
    let (heard, mut lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match (&mut stdin).take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(1..) if heard.blocking_send(line).is_ok() => {}
                _ => return,
            }
        }
    });
    let mut sessions = HashMap::new();
    let mut count = 0u32;
    let mut running: Option<Running> = None;
    loop {
        let turn = async {
            match &mut running {
                Some(running) => running.turn.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let line = tokio::select! {
            (session, result) = turn => {
                if let Some(ended) = running.take() {
                    match result {
                        Ok(()) => send(&json!({"jsonrpc": "2.0", "id": ended.request, "result": {"stopReason": "end_turn"}})),
                        Err(words) => fail(&ended.request, -32000, &words),
                    }
                }
                sessions.insert(session.id.clone(), Some(session));
                continue;
            }
            line = lines.recv() => line,
        };
        let Some(line) = line else { return };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            fail(&Value::Null, -32700, "this is not JSON");
            continue;
        };
        let (id, params) = (message["id"].clone(), &message["params"]);
        match message["method"].as_str() {
            Some("initialize") => answer(
                &id,
                json!({"protocolVersion": 1, "authMethods": [],
                    "agentInfo": {"name": "script", "version": env!("CARGO_PKG_VERSION")},
                    "agentCapabilities": {"loadSession": false, "promptCapabilities": {},
                        "mcpCapabilities": {"http": true, "sse": false}}}),
            ),
            Some("session/new") => {
                count += 1;
                let session = Session {
                    id: format!("script-{count}"),
                    cwd: params["cwd"].as_str().unwrap_or(".").into(),
                    server: mcp::Server::from_acp(&params["mcpServers"]),
                    blocks: None,
                    next: 0,
                    asked: false,
                    log: String::new(),
                };
                answer(&id, json!({"sessionId": session.id}));
                sessions.insert(session.id.clone(), Some(session));
            }
            Some("session/prompt") => {
                let name = params["sessionId"].as_str().unwrap_or("").to_owned();
                if running.is_some() {
                    fail(&id, -32600, "a turn is already under way");
                    continue;
                }
                let Some(mut session) = sessions.get_mut(&name).and_then(Option::take) else {
                    fail(&id, -32602, "no such session");
                    continue;
                };
                let parts = params["prompt"].as_array().into_iter().flatten().filter_map(|p| p["text"].as_str());
                let text = parts.collect::<Vec<_>>().join("\n");
                let typed = params["_meta"]["symphony/answer"].as_str();
                // An answer may come with the first prompt: then an earlier session asked.
                let asked_before = typed.is_some() && session.blocks.is_none();
                session.asked |= asked_before;
                let reply = typed.unwrap_or(&text).to_owned();
                let before = session.clone();
                let turn = Box::pin(take_turn(session, text, reply));
                running = Some(Running { request: id, before, turn });
            }
            Some("session/cancel") => {
                let named = params["sessionId"].as_str().unwrap_or("");
                if let Some(cancelled) = running.take_if(|r| r.before.id == named) {
                    // Dropping the turn kills the block's process group; the next prompt runs that block again.
                    sessions.insert(cancelled.before.id.clone(), Some(cancelled.before));
                    answer(&cancelled.request, json!({"stopReason": "cancelled"}));
                }
            }
            Some(method) if !id.is_null() => fail(&id, -32601, &format!("`{method}` is not known here")),
            _ => {}
        }
    }
}

async fn take_turn(mut session: Session, text: String, reply: String) -> (Session, Result<(), String>) {
    let result = work(&mut session, &text, &reply).await;
    (session, result)
}

async fn work(session: &mut Session, text: &str, reply: &str) -> Result<(), String> {
    // Which block asked in an earlier session is not known: each of them gets the answer.
    let for_all = session.blocks.is_none();
    let blocks = session.blocks.get_or_insert_with(|| blocks::sh_blocks(text)).clone();
    if blocks.is_empty() {
        session.blocks = None;
        return Err("the prompt holds no block fenced as ```sh, so there is nothing to run".into());
    }
    let mut given = std::mem::take(&mut session.asked).then_some(reply);
    while session.next < blocks.len() {
        let number = session.next + 1;
        let call = format!("block-{number}");
        let of = format!("block {number} of {}", blocks.len());
        update(
            session,
            json!({"sessionUpdate": "tool_call", "toolCallId": call, "kind": "execute",
            "title": format!("sh: {of}"), "status": "in_progress", "rawInput": {"script": blocks[number - 1]}}),
        );
        let say = |chunk: &str| {
            if !chunk.is_empty() {
                update(
                    session,
                    json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": chunk}}),
                );
            }
        };
        let answer = if for_all { given } else { given.take() };
        let ran = shell::run(&blocks[number - 1], &session.cwd, answer, say).await;
        let ran = ran.map_err(|e| format!("{of}: sh cannot be started: {e}"))?;
        let status = if ran.code == 0 { "completed" } else { "failed" };
        update(
            session,
            json!({"sessionUpdate": "tool_call_update", "toolCallId": call, "status": status,
            "content": [{"type": "content", "content": {"type": "text", "text": ran.output}}]}),
        );
        match ran.code {
            0 => {
                session.log.push_str(&ran.output);
                session.log.push('\n');
                session.next += 1;
            }
            ASK => {
                session.asked = true;
                let Some(server) = &session.server else {
                    return Err(format!("{of} asks a human, but no MCP server was given to ask through"));
                };
                let question = if ran.output.is_empty() { format!("{of} asks for an answer.") } else { ran.output };
                let question = head(&question, SUMMARY);
                let ask = json!({"question": question, "context": format!("The script agent stopped at {of}.")});
                return server.call("request_human_steering", ask).await.map(drop);
            }
            code => {
                let last: Vec<&str> = ran.output.lines().rev().take(10).collect();
                let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
                return Err(format!("{of} exited with {code}:\n{last}"));
            }
        }
    }
    let title = std::env::var("SYMPHONY_ISSUE_TITLE").ok().filter(|t| !t.trim().is_empty());
    let title = title.unwrap_or_else(|| "Run the script".into());
    shell::commit_all(&session.cwd, &title).await?;
    let Some(server) = &session.server else { return Ok(()) };
    let summary = head(session.log.trim(), SUMMARY);
    let summary = if summary.is_empty() { "All blocks succeeded without output." } else { summary };
    server.call("mark_done", json!({"title": title, "summary": summary})).await.map(drop)
}

/// At most `cap` bytes of the text.
fn head(text: &str, cap: usize) -> &str {
    let mut end = text.len().min(cap);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn update(session: &Session, update: Value) {
    send(&json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": session.id, "update": update}}));
}

fn answer(id: &Value, result: Value) {
    send(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
}

fn fail(id: &Value, code: i32, message: &str) {
    send(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}));
}

fn send(message: &Value) {
    let mut line = message.to_string();
    line.push('\n');
    let mut out = std::io::stdout().lock();
    // A reader that is gone shows as the end of stdin.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
