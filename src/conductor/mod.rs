//! The loop that owns the board. It never awaits the outside world: whatever a command asks for is
//! spawned, and its result comes back through the mailbox as an event.

mod egress;
mod ends;
mod files;
pub mod handle;
mod letters;
mod past;
mod perform;
mod sessions;
mod shutdown;
mod spend;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use symphony_core::board::{
    Board, Closed, Closures, Command, Event, NotNow, Parked, Policy, RunEnd, Settled, Stocks, StopCause,
};
use symphony_core::ids::{IssueId, RunId};
use symphony_core::issue::Scan;
use symphony_core::runtimes::Kind;
use symphony_core::session::Kept;
use symphony_core::snapshot::{Patches, Snapshot};
use symphony_core::steering::{Letter, OpenQuestion};
use symphony_core::time::Tick;
use symphony_core::workflow::{Role, Workflow};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ends::Unkept;
use self::handle::Request;
use self::letters::Stored;
use self::past::past;
use self::view::{Ended, Live};
use crate::egress::Book;
use crate::journal::{Journal, Memory};
use crate::metering::Metering;
use crate::nudge::Nudge;
use crate::run::line::{Ended as RunEnded, FromRun, Report};
use crate::sandbox::choose::Picked;
use crate::tracker::Tracker;

/// Snapshots are published at most this often; changes in between are one change.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);

/// A crash forgets at most this much of the time that a live run used.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// What the world is made of, for the conductor: hands it calls but never awaits.
pub trait Hands: Send + Sync + 'static {
    /// Reads the workflow file again if it changed, then looks at the tracker.
    fn look(&self) -> futures::future::BoxFuture<'static, Looked>;
    /// Carries out one attempt; resolves when its sandbox is gone.
    fn attempt(&self, start: crate::run::Start) -> futures::future::BoxFuture<'static, RunEnded>;
    /// Removes the workspace of a terminal issue, if it is ours; reports trouble itself.
    fn remove_workspace(
        &self,
        issue: symphony_core::issue::Issue,
        workflow: Arc<Workflow>,
    ) -> futures::future::BoxFuture<'static, ()>;
}

/// The result of one look.
pub struct Looked {
    /// The workflow in force from now on.
    pub workflow: Arc<Workflow>,
    /// Its tracker.
    pub tracker: Arc<dyn Tracker>,
    /// What isolates the runs that start now.
    pub sandbox: Chosen,
    /// What stands in the way of any dispatch.
    pub closed: Option<Closed>,
    /// Why the file on disk is not in force.
    pub problems: Vec<String>,
    /// What the check warned of.
    pub warnings: Vec<String>,
    /// Memory that programs of this host could still take, in MiB, if it can be told.
    pub available_mib: Option<u64>,
    /// What was found of the images that runs boot.
    pub stocks: Stocks,
    /// Providers to which no request can go.
    pub modelless: Closures,
    /// The patches that are there.
    pub patches: Arc<Patches>,
    /// What the tracker showed.
    pub scan: Result<Scan, String>,
}

/// What isolates the runs that start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// `None`: nothing does, and nothing starts.
    pub kind: Option<Kind>,
    /// The label of the runtime, or `none`.
    pub label: String,
    /// Why it is this one, or why there is none.
    pub reason: String,
}

impl Chosen {
    /// In the words of the runtimes.
    pub fn of(picked: &Result<Picked, Closed>) -> Self {
        match picked {
            Ok(picked) => Self {
                kind: Some(picked.kind),
                label: picked.sandbox.label().to_owned(),
                reason: picked.reason.clone(),
            },
            Err(closed) => Self { kind: None, label: "none".to_owned(), reason: closed.why().to_owned() },
        }
    }
}

/// Things that do not change while the process lives.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Absolute path of the workflow file.
    pub workflow_path: String,
    /// End as soon as nothing is left to do.
    pub once: bool,
    /// What was decided about hosts, and what waits.
    pub book: Book,
}

/// Results of spawned work.
enum Message {
    Looked(Box<Looked>),
    ParkEnded(IssueId, Result<(), String>),
    ResumeEnded(IssueId, Result<(), String>),
    WorkspaceRemoved(IssueId),
    Stored(IssueId, Stored),
    EndUnkept(Unkept),
    Raised,
}

/// The conductor; [`Conductor::run`] consumes it.
pub struct Conductor<H: Hands> {
    board: Board,
    policy: Policy,
    workflow: Arc<Workflow>,
    tracker: Arc<dyn Tracker>,
    problems: Vec<String>,
    warnings: Vec<String>,
    sandbox: Chosen,
    /// What the newest look found of the images.
    stocks: Stocks,
    /// What the newest look found of the patches.
    patches: Arc<Patches>,
    /// Who waits for an image, and what was said about it.
    imageless: BTreeMap<IssueId, String>,
    /// What was said about the files of issues.
    odd: BTreeMap<IssueId, Vec<String>>,
    /// Issues that wait for a host, and that the newest good look did not know.
    strays: BTreeSet<IssueId>,
    hands: Arc<H>,
    journal: Journal,
    metering: Metering,
    facts: Facts,
    live: BTreeMap<RunId, Live>,
    /// Questions without an answer.
    questions: BTreeMap<IssueId, OpenQuestion>,
    /// Issues whose open question is being answered, with its number.
    answering: BTreeMap<IssueId, u64>,
    /// Letters that no turn has taken, oldest first.
    letters: BTreeMap<IssueId, Vec<Letter>>,
    /// The newest session of each issue's agent.
    sessions: BTreeMap<IssueId, Kept>,
    /// Ends of runs that the journal could not keep, oldest first.
    unkept: VecDeque<Unkept>,
    /// The workflow of each issue's newest run: its workspace stands where that one says (C155).
    homes: BTreeMap<IssueId, Arc<Workflow>>,
    /// Issues that an earlier process put aside, until their files were looked at for the note that says so.
    unread: BTreeMap<IssueId, Parked>,
    ended: Ended,
    origin: Instant,
    version: u64,
    tasks: TaskTracker,
    /// Drops every run where it stands; their sandboxes and children die with them.
    kill: CancellationToken,
    to_self: mpsc::UnboundedSender<Message>,
    mailbox: mpsc::UnboundedReceiver<Message>,
    to_runs: mpsc::Sender<FromRun>,
    from_runs: mpsc::Receiver<FromRun>,
    requests: mpsc::Receiver<Request>,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl<H: Hands> Conductor<H> {
    /// A conductor on this workflow and tracker; its own first look follows at once.
    pub fn new(
        hands: Arc<H>,
        first: Looked,
        journal: Journal,
        memory: Memory,
        metering: Metering,
        facts: Facts,
    ) -> (Self, handle::Handle) {
        let (to_self, mailbox) = mpsc::unbounded_channel();
        let (to_runs, from_runs) = mpsc::channel(256);
        let (to_requests, requests) = mpsc::channel(64);
        let (closed, kind) = (first.closed.clone(), first.sandbox.kind);
        let policy = Policy::of(&first.workflow, closed, first.available_mib, kind, &first.stocks, metering.standing());
        let policy = policy.without(first.modelless);
        let board = Board::new(past(&memory, policy.max_backoff_ms, Timestamp::now()));
        let mut conductor = Self {
            board,
            policy,
            workflow: first.workflow,
            tracker: first.tracker,
            // Both are told, and shown, at the first look.
            problems: vec![],
            warnings: vec![],
            sandbox: first.sandbox,
            stocks: first.stocks,
            patches: first.patches,
            imageless: BTreeMap::new(),
            odd: BTreeMap::new(),
            strays: BTreeSet::new(),
            hands,
            journal,
            metering,
            facts,
            live: BTreeMap::new(),
            questions: memory.questions,
            answering: BTreeMap::new(),
            unkept: VecDeque::new(),
            letters: memory.letters,
            sessions: memory.sessions,
            homes: BTreeMap::new(),
            unread: memory.parked,
            ended: Ended::default(),
            origin: Instant::now(),
            version: 0,
            tasks: TaskTracker::new(),
            kill: CancellationToken::new(),
            to_self,
            mailbox,
            to_runs,
            from_runs,
            requests,
            snapshots: watch::channel(Arc::new(Snapshot::empty())).0,
        };
        conductor.publish();
        let handle = handle::Handle::new(conductor.snapshots.subscribe(), to_requests);
        (conductor, handle)
    }

    /// Runs until the drain is over, or, with `--once`, until nothing moves by itself any more.
    /// `nudges` wake a look; a closed channel means polling alone.
    pub async fn run(
        mut self,
        mut nudges: mpsc::Receiver<Nudge>,
        drain: CancellationToken,
        kill: CancellationToken,
    ) -> Settled {
        let mut publish = tokio::time::interval(PUBLISH_EVERY);
        publish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = tokio::time::interval(COUNT_EVERY);
        count.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut hosts = self.facts.book.changes();
        let _killing = kill.clone().drop_guard();
        self.kill = kill;
        let (mut dirty, mut nudged, mut settled) = (true, true, Settled::Finished);
        self.step(Event::LookWanted);
        loop {
            let wake = self.board.wake_at(&self.policy).map(|at| self.origin + Duration::from_millis(at.0));
            tokio::select! {
                biased;
                () = drain.cancelled(), if !self.board.is_draining() => self.step(Event::DrainAsked),
                Some(message) = self.mailbox.recv() => self.on_message(message),
                Some(request) = self.requests.recv() => self.on_request(request),
                nudge = nudges.recv(), if nudged => match nudge {
                    // A look reads the workflow file too: both hints ask for the same.
                    Some(Nudge::Tracker | Nudge::Workflow) => self.step(Event::LookWanted),
                    None => nudged = false,
                },
                () = sleep_until(wake), if wake.is_some() => self.step(Event::Woke),
                _ = count.tick(), if !self.live.is_empty() => {
                    self.board.count_time(self.now());
                    self.keep_changed();
                }
                _ = publish.tick(), if dirty => {
                    self.publish();
                    dirty = false;
                    continue;
                }
                // Last: what guests cause must not starve the rest.
                Some(message) = self.from_runs.recv() => self.on_run(message),
                Ok(()) = hosts.changed() => {}
            }
            dirty = true;
            if self.board.is_draining() && self.live.is_empty() {
                break;
            }
            if self.facts.once
                && !self.board.is_draining()
                && let Some(found) = self.board.settled(self.now(), &self.policy)
            {
                settled = found;
                self.say_what_waits();
                self.step(Event::DrainAsked);
                if self.live.is_empty() {
                    break;
                }
            }
        }
        self.publish();
        // Nobody is told any more that words were taken; who waits for that is told the truth below.
        self.requests.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.finish_writing();
        self.tasks.wait().await;
        settled
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// One step of the board, its commands carried out. The log of events and commands is the audit trail.
    fn step(&mut self, event: Event) {
        let commands = self.board.step(self.now(), event, &self.policy);
        for command in commands {
            self.perform(command);
        }
        self.keep_changed();
    }

    fn keep_changed(&mut self) {
        for issue in self.board.take_changed() {
            self.keep_counters(issue);
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Looked(looked) => self.looked(*looked),
            Message::ParkEnded(issue, result) => {
                if let Err(why) = &result {
                    let name = self.board.issue(&issue).map(|issue| issue.identifier.0.clone()).unwrap_or_default();
                    tracing::error!(issue_id = %issue, issue_identifier = %name, error = %why, "an issue could not be parked");
                }
                self.step(Event::ParkEnded(issue, result));
            }
            Message::ResumeEnded(issue, result) => {
                if let Err(why) = &result {
                    tracing::error!(issue_id = %issue, error = %why, "an issue could not be moved back; move it yourself");
                }
                self.step(Event::ResumeEnded(issue, result));
            }
            Message::WorkspaceRemoved(issue) => self.step(Event::WorkspaceRemoved(issue)),
            Message::Stored(issue, stored) => self.stored(issue, stored),
            Message::EndUnkept(unkept) => self.remember_end(unkept),
            Message::Raised => self.step(Event::LookWanted),
        }
    }

    fn looked(&mut self, looked: Looked) {
        if looked.problems != self.problems {
            for problem in &looked.problems {
                tracing::error!(%problem, "the workflow file is not in force; nothing new starts until it is fixed");
            }
            if looked.problems.is_empty() {
                tracing::info!("the workflow file is in force again");
            }
        }
        if looked.warnings != self.warnings {
            for warning in &looked.warnings {
                tracing::warn!(%warning, "workflow warning");
            }
        }
        if let Err(error) = &looked.scan
            && self.board.look_error() != Some(error.as_str())
        {
            tracing::error!(%error, "the issues could not be read; running work goes on, nothing new starts");
        }
        if looked.workflow.tracker.root != self.workflow.tracker.root {
            self.step(Event::TrackerChanged);
        }
        (self.workflow, self.tracker) = (looked.workflow, looked.tracker);
        (self.problems, self.warnings) = (looked.problems, looked.warnings);
        if looked.sandbox != self.sandbox {
            tracing::info!(sandbox = %looked.sandbox.label, reason = %looked.sandbox.reason, "what isolates new runs");
            self.sandbox = looked.sandbox;
        }
        let kind = self.sandbox.kind;
        self.metering.follow(&self.workflow.spending);
        self.keep_ends();
        self.policy = Policy::of(
            &self.workflow,
            self.journal_trouble().or(looked.closed),
            looked.available_mib,
            kind,
            &looked.stocks,
            self.metering.standing(),
        )
        .without(looked.modelless);
        (self.stocks, self.patches) = (looked.stocks, looked.patches);
        let seen = looked.scan.is_ok();
        let before = (self.board.malformed().to_vec(), self.board.ambiguous().to_vec());
        self.step(Event::PollEnded(looked.scan));
        if seen {
            self.withdraw_hosts();
            self.add_missing_notes();
        }
        self.tell_files(&before.0, &before.1);
        self.tell_imageless();
    }

    /// Once for each issue and each reason: what its sandbox would boot is not there.
    fn tell_imageless(&mut self) {
        let now = self.now();
        let mut imageless = BTreeMap::new();
        for issue in self.board.issues() {
            let (reason, hint) = match self.board.verdict(issue, now, &self.policy) {
                Err(ref why @ NotNow::ImageUnclear { .. }) => (why.to_string(), String::new()),
                Err(ref why @ NotNow::ImageMissing { ref hint, .. }) => (why.to_string(), hint.clone()),
                _ => continue,
            };
            if self.imageless.get(&issue.id) != Some(&reason) {
                tracing::warn!(issue_id = %issue.id, issue_identifier = %issue.identifier, %reason, %hint,
                    "an issue waits for what its sandbox boots; it is looked for again by itself");
            }
            imageless.insert(issue.id.clone(), reason);
        }
        self.imageless = imageless;
    }

    /// What could not be kept must not begin. Each look asks whether writing works again.
    fn journal_trouble(&self) -> Option<Closed> {
        let why = self.journal.trouble()?;
        let probed = self.journal.probed();
        self.tasks.spawn(async move { drop(probed.await) });
        Some(Closed::Journal(why))
    }

    fn on_run(&mut self, message: FromRun) {
        match message {
            FromRun::Report(run, Report::Finishing) => {
                if let Some(live) = self.live.get_mut(&run) {
                    live.phase = "handing off";
                    live.finishing = true;
                }
                self.step(Event::RunFinishing(run));
            }
            FromRun::Report(run, Report::SpendMet(met)) => self.spend_met(run, met),
            FromRun::Report(run, report) => {
                match &report {
                    Report::Asked(question) => self.asked(run, question.clone()),
                    Report::Held(held) => self.step(Event::Held(run, *held)),
                    _ => {}
                }
                if let Some(live) = self.live.get_mut(&run) {
                    live.take(report);
                }
                self.tell_asking(run);
            }
            FromRun::Turn { run, number, autonomous, letters, kept } => {
                let Some(live) = self.live.get_mut(&run) else { return };
                let issue = live.issue.id.clone();
                let open = self.questions.get(&issue).filter(|_| !self.answering.contains_key(&issue));
                live.turn_began(number, &letters, open);
                // Turn and count are kept together: a kill between them would leave one without the other.
                let commands = self.board.step(self.now(), Event::TurnBegan(run, autonomous), &self.policy);
                for command in commands {
                    self.perform(command);
                }
                for other in self.board.take_changed().into_iter().filter(|other| *other != issue) {
                    self.keep_counters(other);
                }
                let written = self.journal.turn_began(run, issue.clone(), self.board.counters(&issue), letters);
                self.tasks.spawn(async move {
                    let written = written.await.map_err(|error| error.to_string());
                    if let Err(error) = &written {
                        tracing::error!(issue_id = %issue, %error, "a turn could not be counted, so it does not begin");
                    }
                    // A run that is gone does not want to know.
                    let _ = kept.send(written);
                });
            }
            FromRun::Session { run, session, kept } => self.keep_session(run, session, kept),
            FromRun::TurnEnded { run, kept } => self.turn_ended(run, kept),
            FromRun::Ended(run, ended) => self.run_ended(run, ended),
        }
    }

    /// Tells the board when a run begins or ends to wait for a human.
    fn tell_asking(&mut self, run: RunId) {
        let Some(live) = self.live.get_mut(&run) else { return };
        let asking = live.is_asking();
        if asking != live.told_asking {
            live.told_asking = asking;
            self.step(Event::Asking(run, asking));
        }
    }

    /// What an issue used so far, and what it was granted anew, survives a crash.
    fn keep_counters(&self, id: IssueId) {
        let written = self.journal.counted(id.clone(), self.board.counters(&id));
        self.tasks.spawn(async move {
            if let Err(error) = written.await {
                tracing::error!(issue_id = %id, %error, "what the issue used could not be kept");
            }
        });
    }

    fn run_ended(&mut self, run: RunId, ended: RunEnded) {
        let RunEnded { end, left } = ended;
        let Some(live) = self.live.remove(&run) else { return };
        let id = live.issue.id.clone();
        let (issue, session) = (&live.issue.identifier, live.session.as_deref().unwrap_or_default());
        let seconds = live.started.elapsed().as_secs();
        self.ended.add(&live, &end);
        self.metering.forget(run);
        self.step(Event::RunEnded(run, end.clone(), left));
        // The board's word: it knows when a run that used its turns used up the issue's allowance.
        let reason = self.board.counters(&id).last.map_or_else(|| end.reason(), |last| last.reason);
        match &end {
            RunEnd::Failed(_) | RunEnd::NeedsHuman(_) => tracing::warn!(issue_id = %id, issue_identifier = %issue,
                run_id = run.0, session_id = session, %reason, outcome = %end, seconds, "run ended"),
            _ => tracing::info!(issue_id = %id, issue_identifier = %issue,
                run_id = run.0, session_id = session, %reason, outcome = %end, seconds, "run ended"),
        }
        self.tell_unheard(&id, &end);
        let (tokens, taken) = (live.tokens.total, live.taken);
        self.keep_end(Unkept { run, issue: id, reason, end: end.to_string(), tokens, taken });
    }

    /// `--once` ends here: nobody looks at the dashboard, so the log says what is left for a person.
    fn say_what_waits(&self) {
        let view = self.view();
        for row in view.running.iter().filter(|row| row.question.is_some()) {
            tracing::warn!(issue_id = %row.id, issue_identifier = %row.identifier, "waits for an answer");
        }
        for row in view.idle.iter().filter(|row| row.is_parked() || row.role == Role::Active) {
            tracing::warn!(issue_id = %row.id, issue_identifier = %row.identifier, reason = %row.reason(), "waits");
        }
    }

    fn publish(&mut self) {
        self.version += 1;
        let snapshot = self.view();
        self.snapshots.send_replace(Arc::new(snapshot));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The sentence a stop is logged and shown with.
fn stop_phase(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Drain => "stopping: shutdown",
        StopCause::Terminal => "stopping: moved to a terminal state",
        StopCause::NotActive => "stopping: moved away",
        StopCause::NotRoutable => "stopping: on hold",
        StopCause::Missing => "stopping: file gone",
        StopCause::WallTime => "stopping: out of wall time",
        StopCause::ProviderPaused(_) | StopCause::ProviderLogin(_) => "stopping: its model provider does not answer it",
        StopCause::BudgetBusy => "stopping: no room in a budget beside others",
        StopCause::Spend => "stopping: a budget is used up",
        StopCause::Released => "stopping: the question can wait without a sandbox",
    }
}

impl<H: Hands> Conductor<H> {
    fn perform(&mut self, command: Command) {
        match command {
            Command::Poll => self.spawn_look(),
            Command::Start(plan) => self.spawn_run(*plan),
            Command::Stop(run, cause) => {
                if let Some(live) = self.live.get_mut(&run) {
                    live.phase = stop_phase(cause);
                    live.stop.send_replace(Some(cause));
                }
            }
            Command::Park { issue, from, reason } => self.spawn_park(issue, from, reason),
            Command::Resume { issue, from, to } => self.spawn_resume(issue, from, to),
            Command::Withdraw(issue) => self.withdraw(issue),
            Command::AnswerByDefault(issue) => self.answer_by_default(issue),
            Command::RemoveWorkspace(issue) => self.spawn_removal(*issue),
        }
    }
}
