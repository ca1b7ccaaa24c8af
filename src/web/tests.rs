//! The door under real requests: a real listener, a scripted conductor behind the handle, a small tracker.

mod api;
mod changes;
mod decide;
mod entry;
mod hosts;
mod pages;
mod raise;
mod streams;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use symphony_core::board::{EndReason, LastRun, NotNow, ParkReason, Parked};
use symphony_core::egress::{Card, Decision, NotDecided, Reach, Target, Verb};
use symphony_core::ids::{Identifier, IssueId, RunId, StateName};
use symphony_core::issue::{Ambiguity, Malformed, Scan};
use symphony_core::snapshot::{
    AskedRow, EventRow, FinishedRow, HostCard, HostDecision, IdleRow, Question, RetryRow, RunningRow, Snapshot, Spent,
    Stage, StateRow, Tokens, Totals,
};
use symphony_core::spend::{Amount, Unit};
use symphony_core::steering::By;
use symphony_core::time::Tick;
use symphony_core::workflow::{Auth, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Door, OperatorToken, ServeError, bind, reachable, serve};
use crate::conductor::handle::{About, AnswerError, Handle, RaiseError, Raised, Request, Taken};
use crate::tracker::{Created, Moved, NewIssue, Tracker, TrackerError};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A tracker that remembers what was created and moved, and lists what it was given.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) created: Mutex<Vec<NewIssue>>,
    /// Issue, from, to.
    pub(super) moved: Mutex<Vec<(String, String, String)>>,
    /// What the next move comes to, if not to success.
    pub(super) trouble: Mutex<Option<TrackerError>>,
    pub(super) scan: Mutex<Option<Scan>>,
}

impl Tracker for Shelf {
    fn scan(&self) -> BoxFuture<'_, Result<Scan, TrackerError>> {
        let scan = self.scan.lock().expect("lock").clone();
        let missing = || TrackerError::RootRead { path: "/gone".into(), message: "no such directory".into() };
        Box::pin(async move { scan.ok_or_else(missing) })
    }

    fn move_issue<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<Moved, TrackerError>> {
        if let Some(trouble) = self.trouble.lock().expect("lock").take() {
            return Box::pin(async { Err(trouble) });
        }
        self.moved.lock().expect("lock").push((id.0.clone(), from.0.clone(), to.0.clone()));
        Box::pin(async { Ok(Moved { file: "x.md".into() }) })
    }

    fn check_move<'a>(
        &'a self,
        id: &'a IssueId,
        _: &'a StateName,
        _: &'a StateName,
    ) -> BoxFuture<'a, Result<(), TrackerError>> {
        panic!("the door wanted to move {id}")
    }

    fn append_note<'a>(&'a self, id: &'a IssueId, _: &'a str) -> BoxFuture<'a, Result<(), TrackerError>> {
        panic!("the door wrote into {id}")
    }

    fn create(&self, new: NewIssue) -> BoxFuture<'_, Result<Created, TrackerError>> {
        let identifier = new.identifier.clone().unwrap_or_else(|| Identifier("7".into()));
        if identifier.0 == "TAKEN" {
            return Box::pin(async { Err(TrackerError::TargetExists("Todo/TAKEN.md".into())) });
        }
        let created = Created {
            path: format!("/issues/{}/{identifier}.md", new.state),
            identifier,
            state: StateName::new(&new.state),
        };
        self.created.lock().expect("lock").push(new);
        Box::pin(async { Ok(created) })
    }
}

type Said = Arc<Mutex<Vec<(String, bool, By)>>>;

/// A door that is open, and both sides of it.
pub(super) struct House {
    pub(super) address: SocketAddr,
    pub(super) token: String,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) tracker: Arc<Shelf>,
    /// What people said unasked, whether at once, and which way.
    pub(super) said: Said,
    pub(super) shutdown: CancellationToken,
    pub(super) serving: JoinHandle<Result<(), ServeError>>,
    _dir: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.body))
    }

    /// Status and error code of a refusal.
    pub(super) fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
        (self.status, json["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl House {
    pub(super) async fn open() -> Self {
        Self::with(Auth::Token, sample()).await
    }

    pub(super) async fn with(auth: Auth, snapshot: Snapshot) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let token = OperatorToken::load_or_create(&dir.path().join("token")).expect("token");
        let link = token.login_link("x");
        let (snapshots, readers) = watch::channel(Arc::new(snapshot));
        let (requests, mut mailbox) = mpsc::channel(8);
        let said = Said::default();
        let heard = said.clone();
        tokio::spawn(async move {
            let mut asked = false;
            while let Some(request) = mailbox.recv().await {
                match request {
                    Request::Refresh { reply } => {
                        let _ = reply.send(asked);
                        asked = true;
                    }
                    Request::DecideHost { about, verb, by, reply } => {
                        let is_it = about == About::Card(31);
                        let taken = if is_it { Ok(hosts().1.decision) } else { Err(NotDecided::NotAsked.into()) };
                        if taken.is_ok() {
                            heard.lock().expect("lock").push((verb.as_str().to_owned(), false, by));
                        }
                        let _ = reply.send(taken);
                    }
                    Request::ForgetHost { decision, reply } => {
                        let done = if decision == 41 { Ok(()) } else { Err(NotDecided::NoDecision.into()) };
                        let _ = reply.send(done);
                    }
                    Request::Say { identifier, text, now, by, reply } => {
                        let taken = match identifier.0.as_str() {
                            "BUSY/1 ä" => Ok(Taken { at: at("2026-01-02T03:04:05.678Z"), waits: None }),
                            "BLOCKED-1" => Ok(Taken {
                                at: at("2026-01-02T03:04:05.678Z"),
                                waits: Some("blocked by BUSY-1".into()),
                            }),
                            "ASK-1" => Err(AnswerError::AsksItself(identifier)),
                            "PARKED-1" => Err(AnswerError::NobodyWorks(identifier)),
                            _ => Err(AnswerError::NoSuchIssue(identifier)),
                        };
                        if taken.is_ok() {
                            heard.lock().expect("lock").push((text, now, by));
                        }
                        let _ = reply.send(taken);
                    }
                    Request::Raise { identifier, amount, seen, reply, .. } => {
                        let told = match (identifier.0.as_str(), seen.allowed) {
                            ("SPENT-1", Some(1)) => Err(RaiseError::Already(identifier)),
                            ("SPENT-1", _) => Unit::Money
                                .parse(&amount)
                                .map_err(RaiseError::Amount)
                                .map(|amount| Raised { key: "budget.usd", by: Amount(Unit::Money, amount) }),
                            ("NOPE", _) => Err(RaiseError::NoSuchIssue(identifier)),
                            _ => Err(RaiseError::NotMet(identifier)),
                        };
                        let _ = reply.send(told);
                    }
                    Request::Answer { identifier, question: Some(other), reply, .. } if other != 7 => {
                        let _ = reply.send(Err(AnswerError::AnsweredAlready(identifier)));
                    }
                    Request::Answer { identifier, text, reply, .. } => {
                        let taken = match (identifier.0.as_str(), text.as_str()) {
                            ("ASK-1", "disk full") => Err(AnswerError::NotStored(text)),
                            ("ASK-1", "late") => Err(AnswerError::AnsweredAlready(identifier)),
                            ("ASK-1", _) => Ok(at("2026-01-02T03:04:05.678Z")),
                            _ => Err(AnswerError::NotWaiting(identifier)),
                        };
                        let _ = reply.send(taken);
                    }
                }
            }
        });
        let tracker = Arc::new(Shelf::default());
        let door = Door {
            handle: Handle::new(readers, requests),
            tracker: tracker.clone(),
            token,
            auth,
            host: "127.0.0.1".into(),
        };
        let (listener, address) = bind("127.0.0.1", 0).await.expect("bound");
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, door, shutdown.clone()));
        let token = link.split_once("token=").expect("link").1.to_owned();
        Self { address, token, snapshots, tracker, said, shutdown, serving, _dir: dir }
    }

    /// Sends raw lines after `Host`; `\n` in `head` becomes a line break.
    pub(super) async fn raw(&self, head: &str, body: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let text = format!("{}\r\nConnection: close\r\n\r\n{body}", head.replace('\n', "\r\n"));
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut all = vec![];
        timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("answered in time").expect("read");
        let all = String::from_utf8(all).expect("text");
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// One request with `Host` and `more` header lines; a body comes with its length.
    pub(super) async fn ask(&self, method: &str, path: &str, more: &[&str], body: &str) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\nHost: {}", self.address);
        for line in more {
            head.push('\n');
            head.push_str(line);
        }
        if !body.is_empty() {
            head.push_str(&format!("\nContent-Length: {}", body.len()));
        }
        self.raw(&head, body).await
    }

    /// `GET` as a bearer.
    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[&self.bearer()], "").await
    }

    /// `POST` of JSON as a bearer.
    pub(super) async fn post(&self, path: &str, body: &str) -> Reply {
        self.ask("POST", path, &[&self.bearer(), "Content-Type: application/json"], body).await
    }

    pub(super) fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// Logs in as a browser does and returns its `Cookie` line.
    pub(super) async fn log_in(&self) -> String {
        let reply = self.ask("GET", &format!("/login?token={}", self.token), &[], "").await;
        assert_eq!((reply.status, reply.header("location")), (303, Some("/")));
        let cookie = reply.header("set-cookie").expect("a cookie");
        format!("Cookie: {}", cookie.split(';').next().expect("a pair"))
    }

    /// The value our forms carry, read from the page as a browser would.
    pub(super) async fn csrf(&self) -> String {
        let page = self.get("/").await.body;
        let after = page.split_once("name=\"csrf\" value=\"").expect("a form").1;
        after.split('"').next().expect("a value").to_owned()
    }

    pub(super) fn origin(&self) -> String {
        format!("Origin: http://{}", self.address)
    }

    /// Publishes a changed snapshot.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshots.send_modify(|snapshot| {
            let mut next = Snapshot::clone(snapshot);
            next.version += 1;
            change(&mut next);
            *snapshot = Arc::new(next);
        });
    }
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// Nothing anywhere.
pub(super) fn empty() -> Snapshot {
    let state = |name: &str, role| StateRow { name: StateName::new(name), role };
    Snapshot {
        version: 1,
        generated_at: at("2026-01-02T03:00:00Z"),
        workflow_path: "/home/me/project/WORKFLOW.md".into(),
        tracker_root: "/home/me/project/issues".into(),
        sandbox: "jail".into(),
        sandbox_reason: "no <microVM> here".into(),
        states: vec![
            state("Todo", Role::Active),
            state("In Progress", Role::Active),
            state("Done", Role::Terminal),
            state("Triage", Role::Holding),
        ],
        ..Snapshot::empty()
    }
}

/// One of everything, with hostile text where an agent or an issue may write it.
pub(super) fn sample() -> Snapshot {
    let mut all = empty();
    all.version = 42;
    all.running = vec![asking(), busy()];
    all.retrying = vec![RetryRow {
        id: IssueId("retry-1".into()),
        identifier: Identifier("RETRY-1".into()),
        title: "Try me <again>".into(),
        url: None,
        state: StateName::new("Todo"),
        attempt: 3,
        due_at: at("2026-01-02T03:00:40Z"),
        error: Some("agent exited with <code> 1".into()),
        why: Some(NotNow::BackingOff(Tick(40_000))),
        last: Some(LastRun {
            reason: EndReason::AgentExit,
            end: "port_exit: the agent said <boom>".into(),
            left: Some("1 commit in the work tree".into()),
        }),
        spent: Spent { failures_in_a_row: 2, ..Spent::default() },
    }];
    let reason = ParkReason::FailuresInARow { count: 5, last: "<boom>".into() };
    let parked = Parked { reason, from: StateName::new("In Progress") };
    all.idle = vec![
        idle("BLOCKED-1", "Todo", Role::Active, NotNow::BlockedBy(Identifier("BUSY-1".into()), StateName::new("Todo"))),
        idle("PARKED-1", "Triage", Role::Holding, NotNow::Parked(parked, None)),
        idle("SHELVED-1", "Triage", Role::Holding, NotNow::Holding),
        idle("READY-1", "Done", Role::Terminal, NotNow::Terminal),
        idle("DONE-1", "Done", Role::Terminal, NotNow::Terminal),
    ];
    all.finished = vec![FinishedRow {
        id: IssueId("ready-1".into()),
        identifier: Identifier("READY-1".into()),
        title: "Title of <READY-1>".into(),
        end: EndReason::Done,
        outcome: "git am /home/me/project/.symphony/patches/agent_READY-1.patch".into(),
        at: at("2026-01-02T02:40:00Z"),
    }];
    let words = |name: &str| (IssueId(name.into()), vec!["Use <tabs>.".to_owned()]);
    all.unheard = [words("ready-1"), words("done-1"), words("parked-1")].into();
    all.malformed = vec![Malformed {
        file: "Todo/<bad>.md".into(),
        line: Some(3),
        column: Some(7),
        message: "expected a title".into(),
    }];
    all.ambiguous =
        vec![Ambiguity { name: "TWICE".into(), files: vec!["Todo/TWICE.md".into(), "Done/TWICE.md".into()] }];
    all.totals = Totals { tokens: Tokens { input: 1200, output: 300, total: 1500 }, seconds_running: 3725.5 };
    all
}

fn asking() -> RunningRow {
    RunningRow {
        run: RunId(5),
        id: IssueId("ask-1".into()),
        identifier: Identifier("ASK-1".into()),
        title: "<script>alert('title')</script>".into(),
        body: Some("Do *this*.\n\n<script>alert('body')</script>".into()),
        url: Some("javascript:alert(1)".into()),
        state: StateName::new("Todo"),
        stage: Stage::Running,
        phase: "waiting for a human".into(),
        sandbox: "qemu (TCG)".into(),
        attempt: None,
        session_id: Some("sess-0123456789".into()),
        session_continued: true,
        turn_count: 2,
        last_event: Some("tool_call".into()),
        last_message: Some("<b>asks</b>".into()),
        started_at: at("2026-01-02T02:50:00Z"),
        last_event_at: Some(at("2026-01-02T02:59:00Z")),
        tokens: Tokens { input: 1200, output: 300, total: 1500 },
        tokens_metered: true,
        reach: Reach::default(),
        question: Some(Question {
            id: 7,
            default_at: None,
            default_answer: None,
            question: "Which **way**? <img src=x onerror=alert(1)>".into(),
            context: Some("[look](javascript:alert(2)) and [this](https://example.org/)".into()),
            asked_at: at("2026-01-02T02:59:00Z"),
            answered: false,
        }),
        marked_done: false,
        workspace: Some("/home/me/project/.symphony/workspaces/ASK-1".into()),
        recent_events: vec![EventRow {
            at: at("2026-01-02T02:59:00Z"),
            event: "tool_call".into(),
            message: "request_human_steering".into(),
        }],
        last: None,
        spent: Spent::default(),
    }
}

fn busy() -> RunningRow {
    RunningRow {
        run: RunId(6),
        id: IssueId("busy-1".into()),
        identifier: Identifier("BUSY/1 ä".into()),
        title: "Keep going".into(),
        body: None,
        url: Some("https://example.org/BUSY-1".into()),
        phase: "turn".into(),
        attempt: Some(2),
        question: None,
        workspace: None,
        recent_events: vec![],
        last: Some(LastRun { reason: EndReason::Stalled, end: "stalled: <silent>".into(), left: None }),
        ..asking()
    }
}

fn idle(identifier: &str, state: &str, role: Role, why: NotNow) -> IdleRow {
    IdleRow {
        id: IssueId(identifier.to_lowercase()),
        identifier: Identifier(identifier.into()),
        title: format!("Title of {identifier}"),
        state: StateName::new(state),
        role,
        why: Some(why),
        last: None,
        spent: Spent::default(),
        proposed_by: None,
        proposal: None,
        labels: vec![],
    }
}

/// A question whose run gave its sandbox up.
fn released() -> AskedRow {
    AskedRow {
        id: IssueId("away-1".into()),
        identifier: Identifier("AWAY-1".into()),
        title: "<script>alert('away')</script>".into(),
        body: None,
        url: Some("javascript:alert(4)".into()),
        run: RunId(4),
        question: Question {
            id: 6,
            question: "Go **on**? <img src=x onerror=alert(5)>".into(),
            context: Some("<iframe src=//evil.example>".into()),
            asked_at: at("2026-01-02T01:00:00Z"),
            default_at: Some(at("2026-01-02T04:05:06Z")),
            default_answer: Some("Go <b>on</b>.".into()),
            answered: false,
        },
    }
}

/// An issue that an agent proposed.
fn proposal(identifier: &str, text: &str) -> IdleRow {
    let row = idle(identifier, "Triage", Role::Holding, NotNow::Holding);
    IdleRow { proposed_by: Some("<b>ASK-1".into()), proposal: Some(text.into()), labels: vec!["ok".into()], ..row }
}

/// A host that an agent asked for, and one that was decided.
pub(super) fn hosts() -> (HostCard, HostDecision) {
    let at = at("2026-01-02T02:58:00Z");
    let target = |host: &str| Target::kept(host.into(), 443);
    let issue = IssueId("busy-1".into());
    let asked =
        Card { id: 31, issue: issue.clone(), run: RunId(6), target: target("asked.example"), asked_at: at, times: 3 };
    let decided = Decision { id: 41, issue, target: target("decided.example"), verb: Verb::Issue, by: By::Api, at };
    let identifier = Identifier("BUSY/1 <b>ä</b>".into());
    let card = HostCard { card: asked, identifier: identifier.clone(), title: "<i>title</i>".into() };
    (card, HostDecision { decision: decided, identifier })
}
