//! The session against scripted agents: real bytes over an in-memory pipe, and one real child.

use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines as TokioLines, ReadHalf, WriteHalf, split,
};

use super::*;

mod continued;
mod faults;
mod start;
mod turns;

const FOREVER: TurnLimits = TurnLimits { total_ms: 0, silence_ms: 0, stall_ms: 0 };

/// The agent's end of the pipe; each test writes its script.
struct Script {
    lines: TokioLines<BufReader<ReadHalf<DuplexStream>>>,
    out: WriteHalf<DuplexStream>,
}

impl Script {
    async fn read(&mut self) -> Value {
        let line = self.lines.next_line().await.expect("readable").expect("a line");
        serde_json::from_str(&line).expect("we send JSON")
    }

    async fn raw(&mut self, text: &str) {
        self.out.write_all(text.as_bytes()).await.expect("written");
    }

    async fn send(&mut self, message: Value) {
        self.raw(&format!("{message}\n")).await;
    }

    async fn answer(&mut self, request: &Value, result: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    }

    async fn update(&mut self, update: Value) {
        self.send(
            json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s-1", "update": update}}),
        )
        .await;
    }

    /// Answers initialize and session/new well; gives back both requests.
    async fn handshake(&mut self) -> (Value, Value) {
        let hello = self.read().await;
        let capabilities = json!({"mcpCapabilities": {"http": true}, "invented": [1]});
        self.answer(
            &hello,
            json!({"protocolVersion": 1, "agentCapabilities": capabilities, "authMethods": [{"type": "odd"}]}),
        )
        .await;
        let new = self.read().await;
        self.answer(
            &new,
            json!({"sessionId": "s-1", "modes": {"currentModeId": "a", "availableModes": [{"id": "b", "name": "B"}]}}),
        )
        .await;
        (hello, new)
    }

    async fn ask_permission(&mut self, options: Value) -> Value {
        let params = json!({"sessionId": "s-1", "toolCall": {"toolCallId": "t", "title": "rm"}, "options": options});
        self.send(json!({"jsonrpc": "2.0", "id": "p", "method": "session/request_permission", "params": params})).await;
        self.read().await["result"]["outcome"].clone()
    }
}

fn options() -> StartOptions {
    StartOptions {
        cwd: "/work".into(),
        client_version: "9.9.9".into(),
        title: "A-1: First".into(),
        mcp: Some(McpServer {
            url: "http://127.0.0.1:1/api/v1/issues/A-1/mcp".into(),
            bearer: "the-run-s-token".into(),
        }),
        resume: None,
        mode: None,
        read_timeout: Duration::from_secs(30),
        max_line: 0,
        secrets: Secrets::default(),
        transcript: None,
    }
}

fn pipe() -> (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>, Script) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = split(ours);
    let (lines, out) = split(theirs);
    (reader, writer, Script { lines: BufReader::new(lines).lines(), out })
}

async fn started() -> (Session, Script, mpsc::Receiver<AgentEvent>) {
    let (reader, writer, mut script) = pipe();
    let (to, events) = mpsc::channel(512);
    let (session, _) = tokio::join!(Session::start(reader, writer, options(), to), script.handshake());
    (session.expect("started"), script, events)
}

/// Starts against `script` and expects that to fail.
async fn refused(options: StartOptions, script: impl AsyncFnOnce(Script)) -> AgentError {
    let (reader, writer, agent) = pipe();
    let (to, _events) = mpsc::channel(512);
    let (session, ()) = tokio::join!(Session::start(reader, writer, options, to), script(agent));
    session.err().expect("refused")
}

/// One prompt without limits, while the agent plays `script`.
async fn turn(session: &mut Session, script: impl Future<Output = ()>) -> Turn {
    let cancel = CancellationToken::new();
    let (turn, ()) = tokio::join!(session.prompt("do it", None, FOREVER, Outside::default(), &cancel), script);
    turn
}

fn kinds(events: &mut mpsc::Receiver<AgentEvent>) -> Vec<&'static str> {
    std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.kind).collect()
}
