//! One ACP session: initialize, session/new (or the continuation of an older one, `continued.rs`), prompts, cancel, close. The SDK stays behind this file.
//!
//! Requests we send are built from the SDK's types; what the agent sends is read as plain JSON, because
//! the SDK's types refuse or drop whole messages for one unknown word in them (an update's kind, an
//! option's kind, a stop reason). The SDK's version guard is off for the same reason: the check is ours.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema as acp;
use agent_client_protocol::{Agent, Builder, Client, ConnectionTo, JsonRpcMessage, Lines};
use futures::SinkExt as _;
use serde_json::{Value, json};
use symphony_core::patience::{Patience, TurnLimits};
use symphony_core::time::Tick;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, PollSender};
use tokio_util::task::AbortOnDropHandle;

use super::activity::Activity;
use super::error::{self, AgentError};
use super::event::{AgentEvent, Events};
use super::peer::{Peer, Shared};
use super::redact::Secrets;
use super::transcript::Transcript;
use super::turn::{Turn, TurnEnd, Usage};
use super::wire::{self, Fault, Taps};

mod continued;
mod greeting;

/// How long an agent may take to end a turn it was told to cancel; real ones need up to 420 ms.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Longest session id an agent may choose, in bytes; real ones are UUIDs.
const SESSION_ID: usize = 512;
/// Longest sleep when no limit is set; only wakes the loop.
const IDLE: Duration = Duration::from_secs(3600);

/// Milliseconds since anything crossed the sandbox's channel.
pub type ChannelIdle<'a> = &'a (dyn Fn() -> u64 + Sync);

/// What else is known of an agent while its turn is under way.
#[derive(Clone, Default)]
pub struct Outside<'a> {
    /// The activity of everything that crosses the sandbox's channel.
    pub idle: Option<ChannelIdle<'a>>,
    /// How many of its requests wait for a provider that asked to wait: the limits do not count that time.
    pub held: Option<watch::Receiver<usize>>,
}

pub use self::continued::Begun;
use self::continued::Way;
pub use self::greeting::Greeting;

/// Our MCP endpoint as the agent reaches it.
#[derive(Clone)]
pub struct McpServer {
    /// For example `http://127.0.0.1:7777/api/v1/issues/A-1/mcp`.
    pub url: String,
    /// The run's token; redacted wherever frames and events are written.
    pub bearer: String,
}

/// How a session starts.
pub struct StartOptions {
    /// The work tree, absolute, as the agent sees it.
    pub cwd: String,
    /// Our version, for `clientInfo`.
    pub client_version: String,
    /// `<identifier>: <title>`, in `_meta` because ACP knows no title a client sets (C162).
    pub title: String,
    /// `None`: the agent gets no tools.
    pub mcp: Option<McpServer>,
    /// An older session of this agent to go on with, if the agent can.
    pub resume: Option<String>,
    /// A mode to set once, if the agent offers it.
    pub mode: Option<String>,
    /// Limit of each start-up request.
    pub read_timeout: Duration,
    /// Longest line the agent may send, in bytes; 0: 10 MB (C159).
    pub max_line: usize,
    /// What must not be written down.
    pub secrets: Secrets,
    /// Where frames are recorded.
    pub transcript: Option<Transcript>,
}

/// A session with a live agent. Dropping it ends the connection at once.
pub struct Session {
    id: String,
    begun: Begun,
    continuable: bool,
    greeting: Greeting,
    connection: ConnectionTo<Agent>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    driver: AbortOnDropHandle<()>,
    writer: AbortOnDropHandle<()>,
    lost: bool,
}

impl Session {
    /// Makes a session over the agent's standard streams (C160, C163).
    ///
    /// # Errors
    /// Every way an agent can fail to start; the connection is gone then.
    pub async fn start(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        options: StartOptions,
        events: mpsc::Sender<AgentEvent>,
    ) -> Result<Self, AgentError> {
        let secrets = match &options.mcp {
            Some(mcp) => options.secrets.and(&mcp.bearer),
            None => options.secrets.clone(),
        };
        let transcript = options.transcript.clone().map(|t| match &options.mcp {
            Some(mcp) => t.hiding(&mcp.bearer),
            None => t,
        });
        let taps = Taps {
            events: Events::new(events, secrets),
            transcript,
            activity: Activity::new(),
            fault: Arc::new(OnceLock::new()),
            replay: Arc::default(),
            max_line: if options.max_line == 0 { wire::MAX_LINE } else { options.max_line },
        };
        let mut session = Self::connect(reader, writer, taps).await?;
        let started = session.shake_hands(&options).await;
        if let Err(error) = &started {
            session.shared.events.send(error.code().as_str(), &error.to_string(), false);
        }
        started.map(|()| session)
    }

    /// Starts the two tasks of the connection.
    async fn connect(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        taps: Taps,
    ) -> Result<Self, AgentError> {
        let shared = Arc::new(Shared {
            events: taps.events.clone(),
            activity: taps.activity.clone(),
            fault: taps.fault.clone(),
            updates: Mutex::default(),
            replay: taps.replay.clone(),
            longest: taps.longest(),
            in_turn: AtomicBool::new(false),
            who: OnceLock::new(),
            tools: Notify::new(),
        });
        let (lines, queue) = mpsc::channel(wire::OUTGOING);
        let sink = PollSender::new(lines.clone()).sink_map_err(|_| std::io::ErrorKind::BrokenPipe.into());
        let transport = Lines::new(sink, Box::pin(wire::incoming(reader, lines, taps.clone())));
        let writer = AbortOnDropHandle::new(tokio::spawn(wire::outgoing(writer, queue, taps)));

        let stop = CancellationToken::new();
        let (hand_over, connection) = oneshot::channel();
        let peer = Peer { shared: shared.clone() };
        let stopped = stop.clone();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let run = Builder::new(Client).name("symphony").with_handler(peer).connect_with(
                transport,
                async move |connection: ConnectionTo<Agent>| {
                    drop(hand_over.send(connection));
                    stopped.cancelled().await;
                    Ok(())
                },
            );
            if let Err(error) = run.await {
                tracing::debug!(code = i32::from(error.code), "the agent's connection ended");
            }
        }));
        let Ok(connection) = connection.await else {
            let message = "it closed before it opened".to_owned();
            return Err(AgentError::Transport { during: error::INITIALIZE, message });
        };
        let (id, begun, continuable, greeting) = (String::new(), Begun::New, false, Greeting::default());
        Ok(Self { id, begun, continuable, greeting, connection, shared, stop, driver, writer, lost: false })
    }

    async fn shake_hands(&mut self, options: &StartOptions) -> Result<(), AgentError> {
        let limit = options.read_timeout;
        let capabilities = acp::ClientCapabilities::new();
        let client = acp::Implementation::new("symphony", options.client_version.clone());
        let hello =
            acp::InitializeRequest::new(ProtocolVersion::V1).client_capabilities(capabilities).client_info(client);
        let asked = Instant::now();
        let agent = self.call(error::INITIALIZE, &hello, limit).await?;
        let (initialized, asked) = (asked.elapsed(), Instant::now());
        let said = Greeting::of(&agent, &Value::Null, initialized, Duration::ZERO);
        drop(self.shared.who.set(self.shared.events.presentable(&said.who())));
        match agent.get("protocolVersion").and_then(Value::as_u64) {
            Some(1) => {}
            Some(other) => {
                let message = format!("it speaks ACP version {other}, we speak version 1");
                return Err(AgentError::Protocol { during: error::INITIALIZE, message });
            }
            None => {
                let message = "its answer has no protocolVersion".to_owned();
                return Err(AgentError::Protocol { during: error::INITIALIZE, message });
            }
        }
        let http = agent.pointer("/agentCapabilities/mcpCapabilities/http") == Some(&Value::Bool(true));
        if options.mcp.is_some() && !http {
            return Err(AgentError::McpCapability);
        }

        let way = Way::offered(&agent);
        self.continuable = way.is_some();
        let continued = match (way, &options.resume) {
            (Some(way), Some(id)) => self.go_on(way, id, options, limit).await?,
            _ => None,
        };
        let session = match continued {
            Some(session) => session,
            None => self.begin(options, limit).await?,
        };
        if let Some(mode) = &options.mode {
            self.set_mode(mode, &session, limit).await;
        }
        self.greeting = Greeting::of(&agent, &session, initialized, asked.elapsed());
        let kind = if self.begun == Begun::Continued { "session_continued" } else { "session_started" };
        self.shared.events.send(kind, &format!("{} · {}", self.id, self.greeting.who()), false);
        Ok(())
    }

    /// A session of its own.
    async fn begin(&mut self, options: &StartOptions, limit: Duration) -> Result<Value, AgentError> {
        let mut meta = acp::Meta::new();
        meta.insert("symphony/title".into(), json!(options.title));
        let new = acp::NewSessionRequest::new(options.cwd.clone()).mcp_servers(servers(options)).meta(meta);
        let session = self.call(error::NEW_SESSION, &new, limit).await?;
        match session.get("sessionId").and_then(Value::as_str) {
            // The id is shown and sent back with every request.
            Some(id) if !id.is_empty() && id.len() <= SESSION_ID => id.clone_into(&mut self.id),
            _ => {
                let message = format!("its answer has no sessionId of at most {SESSION_ID} bytes");
                return Err(AgentError::Protocol { during: error::NEW_SESSION, message });
            }
        }
        Ok(session)
    }

    /// Sets the mode if the agent offers it. Without it the agent asks, and permissions are answered.
    async fn set_mode(&self, mode: &str, session: &Value, limit: Duration) {
        let offered = session.pointer("/modes/availableModes").and_then(Value::as_array);
        let has = offered.is_some_and(|all| all.iter().any(|one| one.get("id").and_then(Value::as_str) == Some(mode)));
        if !has {
            return;
        }
        let request = acp::SetSessionModeRequest::new(self.id.clone(), mode.to_owned());
        if let Err(error) = self.call(error::SET_MODE, &request, limit).await {
            self.shared.events.send("unsupported", &error.to_string(), false);
        }
    }

    /// The agent's name for this session; one for all turns of a run (C164).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the agent said of itself.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// How it began.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Whether the agent says that a later run could go on with it.
    pub fn is_continuable(&self) -> bool {
        self.continuable
    }

    /// What it said so far that there is no word for, counted, in a sentence that may be shown.
    pub fn ignored(&self) -> Option<String> {
        let ignored = self.shared.updates().ignored();
        ignored.map(|ignored| self.shared.events.presentable(&ignored))
    }

    /// When the agent last put out a line.
    pub fn activity(&self) -> &Activity {
        &self.shared.activity
    }

    /// Waits until the agent's side is gone, for whoever waits between turns.
    pub async fn closed(&self) {
        tokio::select! {
            () = self.connection.incoming_closed() => {}
            _ = self.connection.terminated() => {}
        }
    }

    /// One turn: sends `text` and waits for its end, a limit, or `cancel`. `answer` is a human's reply as
    /// they typed it, in `_meta`. On a limit or `cancel`, `session/cancel` is sent once and the agent gets 5 s.
    pub async fn prompt(
        &mut self,
        text: &str,
        answer: Option<&str>,
        limits: TurnLimits,
        outside: Outside<'_>,
        cancel: &CancellationToken,
    ) -> Turn {
        if self.lost {
            let message = "an earlier turn never ended".to_owned();
            return self.ended(TurnEnd::Failed(AgentError::Protocol { during: error::PROMPT, message }), None);
        }
        let block = acp::ContentBlock::Text(acp::TextContent::new(text));
        let mut request = acp::PromptRequest::new(self.id.clone(), vec![block]);
        if let Some(answer) = answer {
            let mut meta = acp::Meta::new();
            meta.insert("symphony/answer".into(), json!(answer));
            request = request.meta(meta);
        }
        let message = match request.to_untyped_message() {
            Ok(message) => message,
            Err(error) => return self.ended(TurnEnd::Failed(self.classify(error::PROMPT, &error)), None),
        };
        self.shared.in_turn.store(true, Ordering::SeqCst);
        self.end_of_history();
        let mut response = pin!(self.connection.send_request(message).block_task());
        let waited = tokio::select! {
            biased;
            answered = &mut response => Ok(answered),
            stopped = self.wait(limits, outside, cancel) => Err(stopped),
        };
        let stopped = match waited {
            Ok(answered) => {
                let (end, usage) = self.read_answer(answered);
                return self.ended(end, usage);
            }
            Err(stopped) => stopped,
        };
        // From here on permission requests are answered `cancelled`, as the protocol demands.
        self.shared.in_turn.store(false, Ordering::SeqCst);
        if self.connection.send_notification(acp::CancelNotification::new(self.id.clone())).is_err() {
            tracing::debug!("the agent is gone, nothing to cancel");
        }
        let answered = tokio::time::timeout(CANCEL_GRACE, response).await;
        let (usage, usable) = match answered {
            Ok(answered) => match self.read_answer(answered) {
                (TurnEnd::Failed(AgentError::Transport { .. } | AgentError::Protocol { .. }), _) => (None, false),
                // Some agents answer a cancel with an error; the turn is over all the same.
                (_, usage) => (usage, true),
            },
            Err(_) => (None, false),
        };
        self.lost = !usable;
        self.ended(stopped, usage)
    }

    /// Waits until a limit runs out or `cancel` says so.
    async fn wait(&self, limits: TurnLimits, outside: Outside<'_>, cancel: &CancellationToken) -> TurnEnd {
        let Outside { idle, mut held } = outside;
        let clock = &self.shared.activity;
        let ago = |now: Tick, ms: u64| Tick(now.0.saturating_sub(ms));
        let mut patience = Patience::new(clock.now(), limits);
        loop {
            let now = clock.now();
            patience.tool_open(now, self.shared.updates().tool_open());
            patience.agent_spoke(ago(now, clock.idle_ms()));
            if let Some(idle) = idle {
                patience.channel_moved(ago(now, idle()));
            }
            patience.stands_still(now, held.as_mut().is_some_and(|held| *held.borrow_and_update() > 0));
            if let Some(which) = patience.verdict(now) {
                return TurnEnd::TimedOut(which);
            }
            let sleep = patience.next_deadline().map_or(IDLE, |(at, _)| Duration::from_millis(at.since(now).max(1)));
            tokio::select! {
                () = cancel.cancelled() => return TurnEnd::Cancelled,
                () = self.shared.tools.notified() => {}
                () = changed(&mut held) => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Ends the connection: the agent's input is closed and what is queued is written, within `grace`.
    pub async fn close(mut self, grace: Duration) {
        if let Some(ignored) = self.ignored() {
            self.shared.events.send("ignored", &ignored, false);
        }
        self.stop.cancel();
        let orderly = async {
            // A task that panicked or was aborted has nothing left to close.
            drop((&mut self.driver).await);
            drop((&mut self.writer).await);
        };
        if tokio::time::timeout(grace, orderly).await.is_err() {
            tracing::debug!("the agent's connection did not close in time");
        }
    }

    fn ended(&self, end: TurnEnd, usage: Option<Usage>) -> Turn {
        self.shared.in_turn.store(false, Ordering::SeqCst);
        let last = self.shared.updates().end_turn();
        if let Some((kind, text)) = last {
            self.shared.events.send(kind, &text, false);
        }
        self.shared.events.send(end.code(), &end.to_string(), false);
        let failed = matches!(&end, TurnEnd::Failed(AgentError::Transport { .. } | AgentError::Protocol { .. }));
        Turn { end, usage, usable: !failed && !self.lost }
    }

    fn read_answer(&self, answered: Result<Value, agent_client_protocol::Error>) -> (TurnEnd, Option<Usage>) {
        let response = match answered {
            Ok(response) => response,
            Err(error) => return (TurnEnd::Failed(self.classify(error::PROMPT, &error)), None),
        };
        let end = TurnEnd::of(&response).unwrap_or_else(|unknown| {
            // The turn did end: the next prompt may work, so this is the agent's failure.
            let message = self.shared.events.presentable(&unknown);
            TurnEnd::Failed(AgentError::Agent { during: error::PROMPT, code: 0, message })
        });
        (end, Usage::of(&response))
    }

    /// Sends a start-up request and waits for its answer.
    async fn call(
        &self,
        during: &'static str,
        request: &impl JsonRpcMessage,
        limit: Duration,
    ) -> Result<Value, AgentError> {
        let message = request.to_untyped_message().map_err(|error| self.classify(during, &error))?;
        let response = self.connection.send_request(message).block_task();
        match tokio::time::timeout(limit, response).await {
            Ok(answered) => answered.map_err(|error| self.classify(during, &error)),
            Err(_) => {
                let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                Err(AgentError::Response { during, after_ms })
            }
        }
    }

    /// Whose failure an error of the SDK is.
    fn classify(&self, during: &'static str, error: &agent_client_protocol::Error) -> AgentError {
        use agent_client_protocol::{is_connection_terminated, is_incoming_transport_closed};
        match self.shared.fault.get() {
            Some(Fault::TooLarge) => {
                let who = self.shared.who.get().map_or("the agent", String::as_str);
                let message = format!("{who} sent {}: more is not taken", self.shared.longest);
                return AgentError::Protocol { during, message };
            }
            Some(Fault::Broken(message)) => return AgentError::Transport { during, message: message.clone() },
            None => {}
        }
        if is_incoming_transport_closed(error) || is_connection_terminated(error) {
            return AgentError::Transport { during, message: "the agent's output ended".into() };
        }
        let detail = error.data.as_ref().map(|data| format!(" {data}")).unwrap_or_default();
        let message = self.shared.events.presentable(&format!("{}{detail}", error.message));
        AgentError::Agent { during, code: i64::from(i32::from(error.code)), message }
    }
}

/// Resolves at the next change; never where there is none.
async fn changed(held: &mut Option<watch::Receiver<usize>>) {
    let gone = match held {
        Some(receiver) => receiver.changed().await.is_err(),
        None => return std::future::pending().await,
    };
    if gone {
        *held = None;
    }
}

/// Our tools, as every way to a session names them.
fn servers(options: &StartOptions) -> Vec<acp::McpServer> {
    let server = |mcp: &McpServer| {
        let bearer = acp::HttpHeader::new("Authorization", format!("Bearer {}", mcp.bearer));
        acp::McpServer::Http(acp::McpServerHttp::new("symphony", mcp.url.clone()).headers(vec![bearer]))
    };
    options.mcp.iter().map(server).collect()
}

#[cfg(test)]
mod tests;
