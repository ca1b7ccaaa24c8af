//! What readers see of the conductor: live facts of runs, joined with the board into a snapshot.

use std::collections::VecDeque;
use std::path::PathBuf;

use jiff::Timestamp;
use symphony_core::board::{Claim, Plan, RunEnd, StopCause};
use symphony_core::broker::Metered;
use symphony_core::ids::{IssueId, RunId};
use symphony_core::issue::Issue;
use symphony_core::snapshot::{
    AskedRow, EventRow, FinishedRow, Question, RunningRow, Snapshot, Spent, Stage, StateRow, Tokens, Totals,
    waiting_rows,
};
use symphony_core::steering::OpenQuestion;
use symphony_core::time::Tick;
use symphony_core::workflow::Role;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Conductor, Hands};
use crate::run::line::{Posted, Report, WAITING};

/// What a run does whose agent waits for a provider's leave.
const HELD: &str = "waiting for its model provider";

/// Events kept per run (0.1.0 §1.8).
const KEPT_EVENTS: usize = 50;
/// Finished issues kept with what their runs left.
const KEPT_FINISHED: usize = 50;

/// What is known of a live run besides the board's claim.
pub(super) struct Live {
    pub(super) issue: Issue,
    pub(super) phase: &'static str,
    /// Whether its agent waits for a provider's leave.
    held: bool,
    pub(super) question: Option<Question>,
    pub(super) stop: watch::Sender<Option<StopCause>>,
    pub(super) letters: mpsc::Sender<Posted>,
    /// The letters in the prompt of the turn under way.
    pub(super) handed: Vec<u64>,
    /// The letters of turns that ended.
    pub(super) taken: Vec<u64>,
    /// Whether it hands its work off or on: its agent hears nothing any more.
    pub(super) finishing: bool,
    /// What the board was told last of whether it waits for a human.
    pub(super) told_asking: bool,
    pub(super) started: Instant,
    started_at: Timestamp,
    attempt: Option<u32>,
    /// The label of what isolates it.
    sandbox: String,
    workspace: Option<PathBuf>,
    pub(super) session: Option<String>,
    /// Whether the session is that of an earlier run.
    continued: bool,
    pub(super) turns: u32,
    pub(super) tokens: Tokens,
    /// Whether they were counted where they passed, and are not the agent's word.
    metered: bool,
    pub(super) marked_done: bool,
    events: VecDeque<EventRow>,
}

/// What is kept of the runs that ended in this process.
#[derive(Debug, Default)]
pub(super) struct Ended {
    tokens: Tokens,
    seconds: f64,
    /// Newest first.
    finished: VecDeque<FinishedRow>,
}

impl Ended {
    pub(super) fn add(&mut self, live: &Live, end: &RunEnd) {
        self.tokens = sum(self.tokens, live.tokens);
        self.seconds += live.started.elapsed().as_secs_f64();
        // A newer run of the same issue replaces what an older one left.
        self.finished.retain(|row| row.id != live.issue.id);
        if *end == RunEnd::Done {
            let handoff = live.events.iter().rfind(|event| event.event == "handoff");
            self.finished.push_front(FinishedRow {
                id: live.issue.id.clone(),
                identifier: live.issue.identifier.clone(),
                title: live.issue.title.clone(),
                end: end.reason(),
                outcome: handoff.map_or_else(|| "done".to_owned(), |event| event.message.clone()),
                at: Timestamp::now(),
            });
            self.finished.truncate(KEPT_FINISHED);
        }
    }
}

fn sum(a: Tokens, b: Tokens) -> Tokens {
    let add = u64::saturating_add;
    Tokens { input: add(a.input, b.input), output: add(a.output, b.output), total: add(a.total, b.total) }
}

impl Live {
    pub(super) fn new(
        plan: &Plan,
        sandbox: &str,
        stop: watch::Sender<Option<StopCause>>,
        letters: mpsc::Sender<Posted>,
    ) -> Self {
        Self {
            issue: plan.issue.clone(),
            phase: "preparing",
            held: false,
            question: None,
            stop,
            letters,
            handed: vec![],
            taken: vec![],
            finishing: false,
            told_asking: false,
            started: Instant::now(),
            started_at: Timestamp::now(),
            attempt: plan.attempt,
            // Until it says so itself, a moment later.
            sandbox: sandbox.to_owned(),
            workspace: None,
            session: None,
            continued: false,
            turns: 0,
            tokens: Tokens::default(),
            metered: false,
            marked_done: false,
            events: VecDeque::new(),
        }
    }

    /// A turn begins: what was answered is on its way with it.
    pub(super) fn turn_began(&mut self, number: u32, letters: &[u64], open: Option<&OpenQuestion>) {
        self.turns = number;
        self.marked_done = false;
        self.handed = letters.to_vec();
        self.question.take_if(|question| question.answered);
        // It said that it is done, and then it heard of something else: its question counts again.
        if self.question.is_none() {
            self.question = open.map(shown);
        }
    }

    /// Whether only a human can bring this run forward.
    pub(super) fn is_asking(&self) -> bool {
        self.phase == WAITING && self.question.as_ref().is_some_and(|q| !q.answered)
    }

    pub(super) fn take(&mut self, report: Report) {
        match report {
            Report::Phase(phase) => {
                if !self.phase.starts_with("stopping") {
                    self.phase = phase;
                }
            }
            Report::Sandbox(label) => self.sandbox = label.to_owned(),
            Report::Workspace(path) => self.workspace = Some(path),
            Report::Session { id, continued } => {
                let how = if continued { "continued" } else { "started" };
                tracing::info!(issue_id = %self.issue.id, issue_identifier = %self.issue.identifier, session_id = %id,
                    "agent session {how}");
                (self.session, self.continued) = (Some(id), continued);
            }
            Report::Tokens(_) if self.metered => {}
            Report::Tokens(tokens) => self.tokens = tokens,
            Report::Metered(Metered { provider, model, tier, usage, whole }, _) => {
                let used = usage.unwrap_or_default();
                tracing::debug!(issue_id = %self.issue.id, issue_identifier = %self.issue.identifier, provider = provider.name(),
                    %model, tier = tier.as_deref().unwrap_or_default(), input = used.input, output = used.output, cache_read = used.cache_read,
                    cache_write = used.cache_write, known = usage.is_some(), whole, "a model answered");
                let said = if self.metered { self.tokens } else { Tokens::default() };
                let (input, output) = (used.given(), used.output);
                self.tokens = sum(said, Tokens { input, output, total: input.saturating_add(output) });
                self.metered = true;
            }
            Report::Asked(question) => {
                tracing::info!(issue_id = %self.issue.id, issue_identifier = %self.issue.identifier,
                    question = %question.asked.question, "the agent asks a human");
                self.question = Some(shown(&question));
            }
            Report::MarkedDone | Report::Moving => {
                self.marked_done |= report == Report::MarkedDone;
                // Nobody has to answer what the agent went on without.
                self.question = None;
            }
            Report::Event(event) => {
                if self.events.len() == KEPT_EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
            Report::Held(held) => self.held = held,
            Report::Finishing | Report::SpendMet(_) => {}
        }
    }
}

/// A question as readers see it.
fn shown(open: &OpenQuestion) -> Question {
    Question {
        id: open.id,
        question: open.asked.question.clone(),
        context: open.asked.context.clone(),
        asked_at: open.asked_at,
        default_at: open.default.as_ref().map(|default| default.at),
        default_answer: open.default.as_ref().map(|default| default.text.clone()),
        answered: false,
    }
}

impl<H: Hands> Conductor<H> {
    /// Questions of issues that no run waits for, oldest first.
    fn asked_rows(&self) -> Vec<AskedRow> {
        let is_live = |id: &IssueId| self.live.values().any(|live| live.issue.id == *id);
        let open = self.questions.iter().filter(|(id, _)| !is_live(id) && !self.answering.contains_key(*id));
        let row = |(id, open): (&IssueId, &OpenQuestion)| {
            let issue = self.board.issue(id)?;
            Some(AskedRow {
                id: id.clone(),
                identifier: issue.identifier.clone(),
                title: issue.title.clone(),
                body: issue.description.clone(),
                url: issue.url.clone(),
                run: open.run,
                question: shown(open),
            })
        };
        let mut rows: Vec<AskedRow> = open.filter_map(row).collect();
        rows.sort_by_key(|row| row.question.id);
        rows
    }

    pub(super) fn view(&self) -> Snapshot {
        let (now, generated_at) = (self.now(), Timestamp::now());
        let mut totals = Totals { tokens: self.ended.tokens, seconds_running: self.ended.seconds };
        for live in self.live.values() {
            totals.tokens = sum(totals.tokens, live.tokens);
            totals.seconds_running += live.started.elapsed().as_secs_f64();
        }
        let (hosts_asked, hosts_decided) = self.hosts();
        let (mut retrying, mut idle) = waiting_rows(&self.board, now, generated_at, &self.policy);
        for row in &mut retrying {
            row.spent = self.with_spend(row.spent, &row.id, None);
            self.with_present_cap(&row.id, &mut row.why);
        }
        for row in &mut idle {
            row.spent = self.with_spend(row.spent, &row.id, None);
            self.with_present_cap(&row.id, &mut row.why);
        }
        Snapshot {
            version: self.version,
            generated_at,
            workflow_path: self.facts.workflow_path.clone(),
            tracker_root: self.workflow.tracker.root.display().to_string(),
            sandbox: self.sandbox.label.clone(),
            sandbox_reason: self.sandbox.reason.clone(),
            states: self
                .workflow
                .states
                .rules
                .iter()
                .map(|(n, r)| StateRow { name: n.clone(), role: r.role })
                .collect(),
            discard_target: self.workflow.states.discard_target(),
            spend: self.metering.view(),
            budget: Some(self.policy.budget.clone()),
            running: self.live.iter().map(|(run, live)| self.running_row(*run, live, now)).collect(),
            asked: self.asked_rows(),
            hosts_asked,
            hosts_decided,
            hosts_undecided: self.facts.book.undecided(),
            patches: self.patches.clone(),
            unheard: self.unheard(),
            retrying,
            idle,
            finished: self.ended.finished.iter().filter(|row| self.is_over(row)).cloned().collect(),
            malformed: self.board.malformed().to_vec(),
            ambiguous: self.board.ambiguous().to_vec(),
            oddities: self.oddities(),
            totals,
            workflow_problems: self.problems.clone(),
            warnings: self.warnings.clone(),
            tracker_problem: self.board.look_error().map(str::to_owned),
            draining: self.board.is_draining(),
            polling: self.board.is_looking(),
        }
    }

    /// Whether nobody put the issue back to work.
    fn is_over(&self, row: &FinishedRow) -> bool {
        let issue = self.board.issue(&row.id);
        issue.is_some_and(|issue| self.policy.states.role(&issue.state) != Role::Active)
    }

    fn running_row(&self, run: RunId, live: &Live, now: Tick) -> RunningRow {
        let issue = self.board.issue(&live.issue.id).unwrap_or(&live.issue);
        let counters = self.board.counters_at(now, &issue.id);
        let claim = self.board.claims().find(|(_, claim)| claim.run() == Some(run)).map(|(_, claim)| claim);
        let last = live.events.back();
        RunningRow {
            run,
            id: issue.id.clone(),
            identifier: issue.identifier.clone(),
            title: issue.title.clone(),
            body: issue.description.clone(),
            url: issue.url.clone(),
            state: issue.state.clone(),
            stage: match claim {
                Some(Claim::Finishing { .. }) => Stage::Finishing,
                Some(Claim::Stopping { cause, .. }) => Stage::Stopping(*cause),
                _ => Stage::Running,
            },
            phase: if live.held { HELD.to_owned() } else { live.phase.to_owned() },
            sandbox: live.sandbox.clone(),
            attempt: live.attempt,
            session_id: live.session.clone(),
            session_continued: live.continued,
            turn_count: live.turns,
            last_event: last.map(|e| e.event.clone()),
            last_message: last.map(|e| e.message.clone()),
            started_at: live.started_at,
            last_event_at: last.map(|e| e.at),
            tokens: live.tokens,
            tokens_metered: live.metered,
            reach: self.facts.book.reach_of(run),
            question: live.question.clone(),
            marked_done: live.marked_done,
            workspace: live.workspace.as_ref().map(|p| p.display().to_string()),
            recent_events: live.events.iter().cloned().collect(),
            spent: self.with_spend(Spent::of(&counters), &issue.id, Some(run)),
            last: counters.last,
        }
    }
}
