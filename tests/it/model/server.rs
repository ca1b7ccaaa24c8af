//! A provider on this machine: what it answers is told by the model that is asked for, and every request is kept.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::talk;

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Request line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: Value,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    /// Whether slow answers may go on.
    released: bool,
    /// Connections that the client closed while an answer was due.
    dropped: usize,
    /// Credentials that are refused, and what is done before saying so.
    refused: Option<(String, Box<dyn Fn() + Send>)>,
    /// What `conversation` has its agent do.
    script: talk::Script,
    /// What goes wrong.
    spoilt: Option<Spoilt>,
    /// How many requests it hit.
    hit: usize,
}

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A refusal: its status, and headers that each end with a line break.
    Refusal(u16, &'static str),
    /// Not a byte comes, until the client is gone.
    Hang,
    /// It comes in small pieces, each after a moment.
    Drip,
    /// Half of it comes; then the connection ends.
    Cut,
    /// It begins well, and ends with an error of this kind.
    Broken(&'static str),
}

struct Spoilt {
    hits: Box<dyn Fn(&Asked) -> bool + Send>,
    fault: Fault,
    /// So many more; then it is over.
    times: usize,
}

/// The provider, alive as long as the test program.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = Self { url, shared: Arc::default() };
        let accepting = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = accepting.clone();
                std::thread::spawn(move || while server.answer_one(&stream).is_some() {});
            }
        });
        server
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.0.lock().expect("lock").asked.clone()
    }

    pub(crate) fn dropped(&self) -> usize {
        self.shared.0.lock().expect("lock").dropped
    }

    /// Lets slow answers go on.
    pub(crate) fn release(&self) {
        self.shared.0.lock().expect("lock").released = true;
        self.shared.1.notify_all();
    }

    /// Refuses a credential that holds this, after doing that.
    pub(crate) fn refuse(&self, part: &str, then: impl Fn() + Send + 'static) {
        self.shared.0.lock().expect("lock").refused = Some((part.to_lowercase(), Box::new(then)));
    }

    /// Refuses this many requests whose path holds `path`, with these headers; each ends with a line break.
    pub(crate) fn limit(&self, path: &'static str, status: u16, headers: &'static str, times: usize) {
        self.fail(Fault::Refusal(status, headers), times, move |asked| asked.head.contains(path));
    }

    /// The same for those to a model.
    pub(crate) fn limit_model(&self, model: &'static str, status: u16, headers: &'static str) {
        self.fail(Fault::Refusal(status, headers), usize::MAX, move |asked| asked.body["model"] == model);
    }

    /// Ends the answers to all requests whose path holds `path` with an error of this kind.
    pub(crate) fn break_off(&self, path: &'static str, kind: &'static str) {
        self.fail(Fault::Broken(kind), usize::MAX, move |asked| asked.head.contains(path));
    }

    /// Spoils the answers to this many requests of an agent at work; those for a title are not.
    pub(crate) fn spoil(&self, fault: Fault, times: usize) {
        self.fail(fault, times, |asked| !talk::tools(&asked.body).is_empty());
    }

    fn fail(&self, fault: Fault, times: usize, hits: impl Fn(&Asked) -> bool + Send + 'static) {
        self.shared.0.lock().expect("lock").spoilt = Some(Spoilt { hits: Box::new(hits), fault, times });
    }

    /// Nothing goes wrong any more; how many requests it hit since the last time.
    pub(crate) fn lift(&self) -> usize {
        let mut state = self.shared.0.lock().expect("lock");
        state.spoilt = None;
        std::mem::take(&mut state.hit)
    }

    /// What the model `conversation` has its agent run.
    pub(crate) fn has_done(&self, command: &str) {
        command.clone_into(&mut self.shared.0.lock().expect("lock").script.command);
    }

    /// Has it ask a person this before all else; it goes on once it was told something that holds `answer`.
    pub(crate) fn has_asked(&self, question: &str, answer: &str) {
        self.shared.0.lock().expect("lock").script.question = Some((question.to_owned(), answer.to_owned()));
    }

    /// `None` when the connection is over.
    fn answer_one(&self, stream: &TcpStream) -> Option<()> {
        let asked = read(stream)?;
        let (refused, fault, script) = {
            let mut state = self.shared.0.lock().expect("lock");
            state.asked.push(asked.clone());
            let spoilt = state.spoilt.as_mut().filter(|spoilt| spoilt.times > 0 && (spoilt.hits)(&asked));
            let fault = spoilt.map(|spoilt| {
                spoilt.times -= 1;
                spoilt.fault.clone()
            });
            state.hit += usize::from(fault.is_some());
            let hit = state.refused.as_ref().filter(|(part, _)| asked.head.contains(part));
            (hit.map(|(_, then)| then()).is_some(), fault, state.script.clone())
        };
        let mut out = stream;
        let mut send = |text: String| out.write_all(text.as_bytes()).ok();
        if refused {
            return send(whole(401, "", &json!({"error": {"message": format!("bad: {}", asked.head)}})));
        }
        let said = || talk::answer(&asked.head, &asked.body, &script);
        match fault {
            None => {}
            Some(Fault::Refusal(status, headers)) => {
                let kind = if status == 500 { "api_error" } else { "rate_limit_error" };
                return send(whole(
                    status,
                    headers,
                    &json!({"type": "error", "error": {"type": kind, "message": "no"}}),
                ));
            }
            Some(Fault::Hang) => return self.until_gone(stream, || Some(())),
            Some(Fault::Drip) => {
                for piece in said().as_bytes().chunks(40) {
                    out.write_all(piece).ok()?;
                    std::thread::sleep(Duration::from_millis(40));
                }
                return Some(());
            }
            Some(Fault::Broken(kind)) => {
                let error = json!({"error": {"type": kind, "message": "it is broken off"}});
                return send(format!(
                    "{STREAM}{}{}0\r\n\r\n",
                    event("message_start", &begun()),
                    event("error", &error)
                ));
            }
            Some(Fault::Cut) => {
                let said = said();
                out.write_all(&said.as_bytes()[..said.len() / 2]).ok()?;
                return None;
            }
        }
        if let Some((model, method)) = talk::google_path(&asked.head) {
            return send(google(model, method, said, self.times(model)));
        }
        match asked.body["model"].as_str().unwrap_or_default() {
            "conversation" => send(said()),
            "slow" => {
                send(format!("{STREAM}{}", event("message_start", &begun())))?;
                let state = self.shared.0.lock().expect("lock");
                let waited = self.shared.1.wait_timeout_while(state, Duration::from_secs(90), |state| !state.released);
                drop(waited.expect("lock"));
                send(format!("{}0\r\n\r\n", rest()))
            }
            "hang" | "drip" => {
                let drips = asked.body["model"] == "drip";
                if drips {
                    send(format!("{STREAM}{}", event("message_start", &begun())))?;
                }
                self.until_gone(stream, || if drips { send(chunk(": drip\n\n")) } else { Some(()) })
            }
            model if model == "cut" || model.starts_with("invented-") => {
                send(format!("{STREAM}{}", event("message_start", &begun())))?;
                None
            }
            "cut-late" => {
                let block = json!({"index": 0, "content_block": {"type": "text", "text": ""}});
                let delta = json!({"index": 0, "delta": {"type": "text_delta", "text": "I will now"}});
                let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "big-1",
                    "stop_reason": null, "usage": {"input_tokens": 10, "output_tokens": 1}});
                let all = [
                    ("message_start", json!({"message": message})),
                    ("content_block_start", block),
                    ("content_block_delta", delta),
                ];
                let events: String = all.iter().map(|(kind, value)| event(kind, value)).collect();
                // Cut by a proxy: the connection itself ends in order.
                send(format!("{STREAM}{events}0\r\n\r\n"))
            }
            "limited" => {
                send(whole(429, "retry-after: 7\r\n", &json!({"type": "error", "error": {"type": "rate_limit_error"}})))
            }
            "overloaded" => {
                send(whole(529, "retry-after: 9\r\n", &json!({"type": "error", "error": {"type": "overloaded_error"}})))
            }
            "broken" => send(whole(500, "", &json!({"type": "error", "error": {"message": "the oven is\non fire"}}))),
            "no-such-model" => {
                let error = json!({"type": "not_found_error", "message": "model: no-such-model"});
                send(whole(404, "", &json!({"type": "error", "error": error})))
            }
            "broken-late" => {
                let error = json!({"error": {"type": "api_error", "message": "the oven went out"}});
                send(format!("{STREAM}{}{}0\r\n\r\n", event("message_start", &begun()), event("error", &error)))
            }
            "unknown" => send(whole(404, "", &json!({"error": {"message": "there is no such model"}}))),
            "moved" => send(whole(307, "location: http://127.0.0.1:1/\r\n", &json!({}))),
            "json" => {
                let usage = json!({"input_tokens": 3, "output_tokens": 4});
                send(whole(200, COOKIE, &json!({"type": "message", "model": "json-1", "content": [], "usage": usage})))
            }
            "chat" => {
                let part = |value: Value| chunk(&format!("data: {value}\n\n"));
                let word = part(json!({"model": "chat-1", "choices": [{"delta": {"content": "hello"}}]}));
                let used = part(
                    json!({"model": "chat-1", "choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}),
                );
                send(format!("{STREAM}{word}{used}{}0\r\n\r\n", chunk("data: [DONE]\n\n")))
            }
            _ => send(format!("{STREAM}{}{}0\r\n\r\n", event("message_start", &begun()), rest())),
        }
    }

    /// How many requests there were to this model of Google's.
    fn times(&self, model: &str) -> usize {
        let is = |asked: &&Asked| talk::google_path(&asked.head).is_some_and(|(named, _)| named == model);
        self.shared.0.lock().expect("lock").asked.iter().filter(is).count()
    }

    /// Waits until the client hangs up; `meanwhile` says whether it still listens.
    fn until_gone(&self, stream: &TcpStream, mut meanwhile: impl FnMut() -> Option<()>) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
        loop {
            let mut byte = [0];
            let gone = match (&mut &*stream).read(&mut byte) {
                Ok(0) => true,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
                Ok(_) => false,
            };
            if gone || meanwhile().is_none() {
                self.shared.0.lock().expect("lock").dropped += 1;
                return None;
            }
        }
    }
}

pub(super) const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nset-cookie: planted=1\r\nrequest-id: req-1\r\n\r\n";
const COOKIE: &str = "set-cookie: planted=1\r\nrequest-id: req-1\r\n";

/// Google's answers: a conversation, a limit that is over the second time, a key that is none, and words.
fn google(model: &str, method: &str, conversation: impl FnOnce() -> String, times: usize) -> String {
    let refused = |status: u16, word: &str, detail: Value| {
        let message = "no";
        whole(status, "", &json!({"error": {"code": status, "message": message, "status": word, "details": [detail]}}))
    };
    match (model, method) {
        ("broken", _) => refused(500, "INTERNAL", json!({})),
        ("limited-once", _) if times == 1 => {
            let kind = "type.googleapis.com/google.rpc.RetryInfo";
            refused(429, "RESOURCE_EXHAUSTED", json!({"@type": kind, "retryDelay": "2s"}))
        }
        ("no-key", _) => {
            let kind = "type.googleapis.com/google.rpc.ErrorInfo";
            refused(400, "INVALID_ARGUMENT", json!({"@type": kind, "reason": "API_KEY_INVALID"}))
        }
        (_, "counttokens") => whole(200, COOKIE, &json!({"totalTokens": 5})),
        (_, "generatecontent") => whole(200, COOKIE, &talk::google_says(&json!({"text": "It is made."}))),
        _ => conversation(),
    }
}

fn begun() -> Value {
    json!({"message": {"model": "big-1", "usage": {"input_tokens": 10, "cache_read_input_tokens": 200, "output_tokens": 1}}})
}

fn rest() -> String {
    let call = json!({"content_block": {"type": "tool_use", "id": "t1", "name": "bash", "input": {}}});
    let used = json!({"delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 50}});
    [event("content_block_start", &call), event("message_delta", &used), event("message_stop", &json!({}))].concat()
}

pub(super) fn event(kind: &str, value: &Value) -> String {
    let mut value = value.clone();
    value["type"] = json!(kind);
    chunk(&format!("event: {kind}\ndata: {value}\n\n"))
}

pub(super) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn whole(status: u16, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut head = String::new();
    while reader.read_line(&mut head).ok()? > 2 {}
    let head = head.to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    (!head.is_empty()).then(|| Asked { head, body: serde_json::from_slice(&body).unwrap_or_default() })
}
