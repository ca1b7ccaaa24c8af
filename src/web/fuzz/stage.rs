//! A door with somebody behind it: the real router over any byte stream, a tracker that only remembers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use symphony_core::board::{EndReason, LastRun};
use symphony_core::egress::{Card, Decision, NotDecided, Reach, Target};
use symphony_core::ids::{Identifier, IssueId, RunId, StateName};
use symphony_core::issue::{Malformed, Scan};
use symphony_core::snapshot::{
    EventRow, FinishedRow, HostCard, IdleRow, Question, RunningRow, Snapshot, Spent, Stage as RunStage, StateRow,
    Tokens,
};
use symphony_core::workflow::{Auth, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::{App, OperatorToken, host, listen, router};
use crate::conductor::handle::{About, AnswerError, Handle, RaiseError, Request, Taken};
use crate::tracker::{Created, Moved, NewIssue, Tracker, TrackerError};

pub(super) const HOST: &str = "127.0.0.1:8787";
/// A client that says nothing more is over long before.
const HANG: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct Shelf {
    created: Mutex<Vec<NewIssue>>,
    moved: Mutex<usize>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracker for Shelf {
    fn scan(&self) -> BoxFuture<'_, Result<Scan, TrackerError>> {
        Box::pin(async { Ok(Scan::default()) })
    }

    fn move_issue<'a>(
        &'a self,
        _: &'a IssueId,
        _: &'a StateName,
        _: &'a StateName,
    ) -> BoxFuture<'a, Result<Moved, TrackerError>> {
        *lock(&self.moved) += 1;
        Box::pin(async { Ok(Moved { file: "x.md".into() }) })
    }

    fn check_move<'a>(
        &'a self,
        id: &'a IssueId,
        _: &'a StateName,
        _: &'a StateName,
    ) -> BoxFuture<'a, Result<(), TrackerError>> {
        panic!("the door asked about {id}")
    }

    fn append_note<'a>(&'a self, id: &'a IssueId, _: &'a str) -> BoxFuture<'a, Result<(), TrackerError>> {
        panic!("the door wrote into {id}")
    }

    fn create(&self, new: NewIssue) -> BoxFuture<'_, Result<Created, TrackerError>> {
        let identifier = new.identifier.clone().unwrap_or_else(|| Identifier("7".into()));
        let created = Created { path: "x.md".into(), identifier, state: StateName::new(&new.state) };
        lock(&self.created).push(new);
        Box::pin(async { Ok(created) })
    }
}

pub(super) struct Stage {
    token: OperatorToken,
    shelf: Arc<Shelf>,
    snapshot: Snapshot,
}

impl Stage {
    /// A snapshot in which every text of a stranger is `words`.
    pub(super) fn set(words: &str) -> Self {
        let token = OperatorToken::of_text("f022".repeat(16));
        Self { token, shelf: Arc::default(), snapshot: snapshot(words) }
    }

    pub(super) fn token(&self) -> &'static str {
        const TEXT: &str = "f022f022f022f022f022f022f022f022f022f022f022f022f022f022f022f022";
        TEXT
    }

    pub(super) fn csrf(&self) -> String {
        self.token.csrf_value()
    }

    /// Whether the bytes hold the token, or the cookie that is made from it.
    pub(super) fn is_known_in(&self, bytes: &[u8]) -> bool {
        let has = |secret: &str| bytes.windows(secret.len()).any(|part| part.eq_ignore_ascii_case(secret.as_bytes()));
        has(self.token()) || has(&self.token.cookie_value())
    }

    pub(super) fn changes(&self) -> usize {
        lock(&self.shelf.created).len() + *lock(&self.shelf.moved)
    }

    pub(super) fn created(&self) -> Vec<NewIssue> {
        lock(&self.shelf.created).clone()
    }

    /// What the door answers to these bytes, until it hangs up or has nothing to say for a while.
    pub(super) async fn say(&self, bytes: &[u8]) -> Vec<u8> {
        let (_snapshots, readers) = watch::channel(Arc::new(self.snapshot.clone()));
        let (requests, mailbox) = mpsc::channel(8);
        let conductor = tokio::spawn(conduct(mailbox));
        let closing = CancellationToken::new();
        let app = App {
            handle: Handle::new(readers, requests),
            tracker: self.shelf.clone(),
            token: self.token.clone(),
            auth: Auth::Token,
            names: host::Names { configured: "127.0.0.1".into(), ip: [127, 0, 0, 1].into(), port: 8787 },
            shutdown: closing.clone(),
        };
        let (mut client, door) = tokio::io::duplex(1 << 20);
        let serving =
            tokio::spawn(async move { listen::converse(door, router::routes(Arc::new(app)), &closing).await });
        client.write_all(bytes).await.expect("it fits");
        let mut said = vec![];
        let mut buffer = [0; 8192];
        let quiet = Duration::from_secs(5);
        while let Ok(Ok(n @ 1..)) = tokio::time::timeout(quiet, client.read(&mut buffer)).await {
            said.extend_from_slice(&buffer[..n]);
            if said.len() > 1 << 20 {
                break;
            }
        }
        drop(client);
        let served = tokio::time::timeout(HANG, serving).await.expect("a client that is gone is let go");
        served.expect("the door did not panic");
        conductor.abort();
        said
    }
}

async fn conduct(mut mailbox: mpsc::Receiver<Request>) {
    while let Some(request) = mailbox.recv().await {
        match request {
            Request::Refresh { reply } => drop(reply.send(false)),
            Request::DecideHost { about, verb, by, reply } => {
                let (issue, target) = (IssueId("a-1".into()), Target::kept("asked.example".into(), 443));
                let decision = Decision { id: 41, issue, target, verb, by, at: Timestamp::UNIX_EPOCH };
                let is_it = about == About::Card(31);
                drop(reply.send(if is_it { Ok(decision) } else { Err(NotDecided::NotAsked.into()) }));
            }
            Request::ForgetHost { decision, reply } => {
                drop(reply.send(if decision == 41 { Ok(()) } else { Err(NotDecided::NoDecision.into()) }));
            }
            Request::Say { text, reply, .. } => {
                assert!(!text.trim().is_empty(), "a blank message");
                drop(reply.send(Ok(Taken { at: Timestamp::UNIX_EPOCH, waits: None })));
            }
            Request::Raise { identifier, reply, .. } => drop(reply.send(Err(RaiseError::NotMet(identifier)))),
            Request::Answer { identifier, text, reply, .. } => {
                assert!(!text.trim().is_empty(), "a blank answer");
                let taken = identifier.0 == "A-1";
                let answer = if taken { Ok(Timestamp::UNIX_EPOCH) } else { Err(AnswerError::NotWaiting(identifier)) };
                drop(reply.send(answer));
            }
        }
    }
}

fn snapshot(words: &str) -> Snapshot {
    let state = |name: &str, role| StateRow { name: StateName::new(name), role };
    let at = Timestamp::UNIX_EPOCH;
    let last = LastRun { reason: EndReason::AgentExit, end: words.into(), left: Some(words.into()) };
    let finished = FinishedRow {
        id: IssueId("d-1".into()),
        identifier: Identifier(words.into()),
        title: words.into(),
        end: EndReason::Done,
        outcome: words.into(),
        at,
    };
    let bad = Malformed { file: words.into(), line: Some(3), column: Some(7), message: words.into() };
    Snapshot {
        version: 1,
        workflow_path: "/project/WORKFLOW.md".into(),
        tracker_root: "/project/issues".into(),
        sandbox: "jail".into(),
        sandbox_reason: words.into(),
        states: vec![state("Todo", Role::Active), state("Done", Role::Terminal), state("Triage", Role::Holding)],
        running: vec![running(words, last.clone())],
        idle: vec![proposal(words, last)],
        finished: vec![finished],
        hosts_asked: vec![host(words)],
        unheard: [(IssueId("d-1".into()), vec![words.to_owned()])].into(),
        malformed: vec![bad],
        oddities: [(IssueId("d-1".into()), vec![words.to_owned()])].into(),
        workflow_problems: vec![words.into()],
        warnings: vec![words.into()],
        ..Snapshot::empty()
    }
}

fn host(words: &str) -> HostCard {
    let target = Target::kept(words.into(), 443);
    let card =
        Card { id: 31, issue: IssueId("a-1".into()), run: RunId(5), target, asked_at: Timestamp::UNIX_EPOCH, times: 2 };
    HostCard { card, identifier: Identifier(words.into()), title: words.into() }
}

fn running(words: &str, last: LastRun) -> RunningRow {
    let at = Timestamp::UNIX_EPOCH;
    let question = Question {
        id: 7,
        question: words.into(),
        context: Some(words.into()),
        asked_at: at,
        default_at: None,
        default_answer: None,
        answered: false,
    };
    RunningRow {
        run: RunId(5),
        id: IssueId("a-1".into()),
        identifier: Identifier("A-1".into()),
        title: words.into(),
        body: Some(words.into()),
        url: Some(words.into()),
        state: StateName::new("Todo"),
        stage: RunStage::Running,
        phase: "waiting for a human".into(),
        sandbox: "jail".into(),
        attempt: None,
        session_id: Some(words.into()),
        session_continued: false,
        turn_count: 2,
        last_event: Some("tool_call".into()),
        last_message: Some(words.into()),
        started_at: at,
        last_event_at: Some(at),
        tokens: Tokens { input: 1, output: 2, total: 3 },
        tokens_metered: false,
        reach: Reach::default(),
        question: Some(question),
        marked_done: false,
        workspace: None,
        recent_events: vec![EventRow { at, event: "tool_call".into(), message: words.into() }],
        last: Some(last),
        spent: Spent::default(),
    }
}

fn proposal(words: &str, last: LastRun) -> IdleRow {
    IdleRow {
        id: IssueId("p-1".into()),
        identifier: Identifier("P-1".into()),
        title: words.into(),
        state: StateName::new("Triage"),
        role: Role::Holding,
        why: None,
        last: Some(last),
        spent: Spent::default(),
        proposed_by: Some(words.into()),
        proposal: Some(words.into()),
        labels: vec![words.into()],
    }
}
