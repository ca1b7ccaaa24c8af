//! What the attention region shows: everything that needs a human, questions first. Pure: words, no markup but what
//! [`markdown`] made safe.

use symphony_core::board::{LastRun, NotNow, one_line};
use symphony_core::egress::Verb;
use symphony_core::explain;
use symphony_core::ids::{Identifier, IssueId, StateName, hash16};
use symphony_core::snapshot::{AskedRow, Capped, IdleRow, Question, RetryRow, RunningRow, Snapshot, cap_in_the_way};
use symphony_core::spend::Unit;
use symphony_core::workflow::Role;

use super::markdown::{self, Safe};
use super::view::{Clock, LastEnd, MAX_SHELF, with_unheard};
use super::words::{Piece, link, percent_encoded, pieces, short};
use super::{decide, hosts};
use crate::log::harmless;

/// Longest amount that is shown again, in characters.
const TYPED_MAX: usize = 40;
/// Of a default answer: it stands beside its time.
const DEFAULT_MAX: usize = 200;

/// One question that waits for an answer.
pub(super) struct Asking {
    /// Unique in the page and safe as an element id.
    pub(super) key: String,
    pub(super) identifier: String,
    /// The identifier as part of an address.
    pub(super) path: String,
    pub(super) title: String,
    pub(super) url: Option<String>,
    /// The turn that waits; `None` when no sandbox does: the answer starts the issue again.
    pub(super) turn: Option<u32>,
    /// The number of the question, so that no answer is taken for one to a later question.
    pub(super) number: u64,
    pub(super) asked: Clock,
    /// When a default counts as the answer.
    pub(super) default_at: Option<Clock>,
    /// That default.
    pub(super) default_answer: String,
    pub(super) question: Safe,
    pub(super) context: Option<Safe>,
    pub(super) body: Option<Safe>,
    /// What the disclosure holds, in 0.1.0's words.
    pub(super) summary: &'static str,
}

/// One issue that waits for a person's decision.
pub(super) struct Deciding {
    /// Unique in the page and safe as an element id.
    pub(super) key: String,
    pub(super) identifier: String,
    /// The identifier as part of an address.
    pub(super) path: String,
    pub(super) title: String,
    pub(super) state: String,
    /// `parked`, `proposed` or `stuck`.
    pub(super) pill: &'static str,
    /// Why it is here.
    pub(super) reason: String,
    pub(super) last: Option<LastEnd>,
    /// What to do about it, in pieces of prose and code.
    pub(super) remedy: Vec<Piece>,
    /// What a proposal says, as it stands: rendered, Markdown hides link definitions, titles and addresses, and a
    /// person would approve what only the agent reads.
    pub(super) source: Option<String>,
    /// Where a budget can be raised that was met.
    pub(super) raise: Option<Raise>,
    pub(super) verbs: Vec<Move>,
}

/// "raise by how much, or stop?"
pub(super) struct Raise {
    /// The key of the workflow.
    pub(super) budget: &'static str,
    /// What is allowed as it is shown: a second answer is told from the first.
    pub(super) seen: u64,
    pub(super) unit: &'static str,
    /// The least that helps: `at least $0.20`.
    pub(super) least: String,
    /// What was typed and not taken.
    pub(super) typed: String,
}

/// One thing that a person may decide.
pub(super) struct Move {
    pub(super) route: &'static str,
    pub(super) label: &'static str,
    /// Where it sends the issue.
    pub(super) to: String,
    pub(super) is_main: bool,
}

/// What needs a human.
pub(super) struct Attention {
    pub(super) asking: Vec<Asking>,
    /// Parked issues, then those that only a person can mend, then proposals.
    pub(super) deciding: Vec<Deciding>,
    /// How many proposals are not shown.
    pub(super) more: usize,
    /// How many of those that only a person can mend are not shown.
    pub(super) more_stuck: usize,
    /// Hosts that agents asked for, and how many are not shown.
    pub(super) hosts: Vec<hosts::Asking>,
    pub(super) more_hosts: usize,
    pub(super) host_verbs: [(Verb, &'static str, &'static str); 4],
}

impl Attention {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let parked = snapshot.idle.iter().filter(|row| row.is_parked());
        let proposals = snapshot.idle.iter().filter(|row| row.is_proposal());
        let more = proposals.clone().count().saturating_sub(MAX_SHELF);
        let stuck = snapshot.idle.iter().filter(|row| row.needs_human() && !row.is_parked() && !row.is_proposal());
        let mut deciding: Vec<_> = parked.map(|row| Deciding::of(row, snapshot)).collect();
        let retrying = snapshot.retrying.iter().filter(|row| row.needs_human());
        let (idle, retrying) = (stuck.map(Stuck::idle), retrying.map(Stuck::retrying));
        let stuck: Vec<_> = idle.chain(retrying).collect();
        let more_stuck = stuck.len().saturating_sub(MAX_SHELF);
        deciding.extend(cap_in_the_way(snapshot).map(|row| Deciding::capped(row, snapshot)));
        deciding.extend(stuck.into_iter().take(MAX_SHELF).map(|row| Deciding::stuck(row, snapshot)));
        deciding.extend(proposals.take(MAX_SHELF).map(|row| Deciding::of(row, snapshot)));
        let waiting = snapshot.running.iter().filter_map(Asking::running);
        Self {
            asking: waiting.chain(snapshot.asked.iter().filter_map(Asking::released)).collect(),
            deciding,
            more,
            more_stuck,
            hosts: snapshot.hosts_asked.iter().take(MAX_SHELF).map(hosts::Asking::of).collect(),
            more_hosts: snapshot.hosts_asked.len().saturating_sub(MAX_SHELF),
            host_verbs: hosts::VERBS,
        }
    }
}

impl Asking {
    fn running(row: &RunningRow) -> Option<Self> {
        let issue = (&row.identifier, row.title.as_str(), row.url.as_deref(), row.body.as_deref());
        Self::of(row.question.as_ref()?, issue, Some(row.turn_count))
    }

    fn released(row: &AskedRow) -> Option<Self> {
        let issue = (&row.identifier, row.title.as_str(), row.url.as_deref(), row.body.as_deref());
        Self::of(&row.question, issue, None)
    }

    fn of(
        question: &Question,
        (identifier, title, url, body): (&Identifier, &str, Option<&str>, Option<&str>),
        turn: Option<u32>,
    ) -> Option<Self> {
        let context = question.context.as_deref();
        (!question.answered).then(|| Self {
            // Of the question, not of the run: what a person types stays when the run is released, and goes when
            // another question is asked.
            key: format!("question-{}", question.id),
            identifier: identifier.0.clone(),
            path: percent_encoded(&identifier.0),
            title: title.to_owned(),
            url: link(url),
            turn,
            number: question.id,
            asked: Clock::of(question.asked_at),
            default_at: question.default_at.map(Clock::of),
            default_answer: one_line(question.default_answer.as_deref().unwrap_or_default(), DEFAULT_MAX),
            question: markdown::render(&question.question),
            context: context.map(markdown::render),
            body: body.map(markdown::render),
            summary: match (body, context) {
                (_, None) => "original task",
                (None, Some(_)) => "agent's context",
                (Some(_), Some(_)) => "original task & agent's context",
            },
        })
    }
}

impl Deciding {
    fn of(row: &IdleRow, snapshot: &Snapshot) -> Self {
        let is_proposal = row.is_proposal();
        let reason = row.reason();
        // The pill before it says so already.
        let mut reason = reason.strip_prefix("parked: ").unwrap_or(&reason).to_owned();
        if is_proposal && !row.labels.is_empty() {
            reason.push_str(&format!(" · labels {}", harmless(&row.labels.join(", "))));
        }
        let verb = |route, label, to: StateName, is_main| Move { route, label, to: to.0, is_main };
        let approve = if is_proposal { "approve" } else { "resume" };
        let raise = Raise::of(row.why.as_ref());
        let verbs = match raise {
            // Without more it would only be put aside again.
            Some(_) => vec![verb("discard", "stop", snapshot.discard_target.clone(), false)],
            None => vec![
                verb("approve", approve, decide::approved(snapshot, row), true),
                verb("discard", "discard", snapshot.discard_target.clone(), false),
            ],
        };
        Self {
            key: format!("issue-{}", hash16(&row.identifier.0)),
            identifier: row.identifier.0.clone(),
            path: percent_encoded(&row.identifier.0),
            title: row.title.clone(),
            state: row.state.0.clone(),
            pill: if is_proposal { "proposed" } else { "parked" },
            last: row.last.as_ref().map(|last| LastEnd::of(last, &row.reason())),
            remedy: match is_proposal {
                true => vec![],
                false => explain::remedy_of(row, snapshot).map_or_else(Vec::new, |text| pieces(&text)),
            },
            reason: with_unheard(reason, snapshot, &row.id),
            source: row.proposal.as_deref().filter(|text| !text.is_empty()).map(in_the_open),
            raise: raise.filter(|_| row.role == Role::Holding),
            // An issue that could not be moved out of where it is worked on cannot be moved back either.
            verbs: if row.role == Role::Holding { verbs } else { vec![] },
        }
    }
}

/// An issue that waits for something that only a person can mend.
struct Stuck<'a> {
    id: &'a IssueId,
    identifier: &'a Identifier,
    title: &'a str,
    state: &'a StateName,
    why: Option<&'a NotNow>,
    reason: String,
    last: Option<&'a LastRun>,
}

impl<'a> Stuck<'a> {
    fn idle(row: &'a IdleRow) -> Self {
        let IdleRow { id, identifier, title, state, why, last, .. } = row;
        Self { id, identifier, title, state, why: why.as_ref(), reason: row.reason(), last: last.as_ref() }
    }

    fn retrying(row: &'a RetryRow) -> Self {
        let RetryRow { id, identifier, title, state, why, last, .. } = row;
        Self { id, identifier, title, state, why: why.as_ref(), reason: row.reason(), last: last.as_ref() }
    }
}

impl Deciding {
    /// A cap of all issues that is met: one card, of the first issue that waits for it.
    fn capped(row: Capped<'_>, snapshot: &Snapshot) -> Self {
        let Capped { id, identifier, title, state, why, last } = row;
        let reason = why.map(ToString::to_string).unwrap_or_default();
        let card = Self::stuck(Stuck { id, identifier, title, state, why, reason, last }, snapshot);
        Self { raise: Raise::of(why), ..card }
    }

    /// There is nothing to press: what is wrong stands in a file, or on this machine.
    fn stuck(row: Stuck<'_>, snapshot: &Snapshot) -> Self {
        Self {
            key: format!("issue-{}", hash16(&row.identifier.0)),
            identifier: row.identifier.0.clone(),
            path: percent_encoded(&row.identifier.0),
            title: row.title.to_owned(),
            state: row.state.0.clone(),
            pill: "stuck",
            last: row.last.map(|last| LastEnd::of(last, &row.reason)),
            remedy: explain::remedy(row.why, row.identifier, snapshot).map_or_else(Vec::new, |text| pieces(&text)),
            reason: with_unheard(row.reason, snapshot, row.id),
            source: None,
            raise: None,
            verbs: vec![],
        }
    }
}

impl Raise {
    fn of(why: Option<&NotNow>) -> Option<Self> {
        let met = why?.cap()?;
        let unit = match met.unit {
            Unit::Tokens => "tokens",
            Unit::Money => "US dollars",
        };
        Some(Self { budget: met.key(), seen: met.allowed, unit, least: met.least(), typed: String::new() })
    }
}

impl Attention {
    /// With what was typed for this issue and not taken.
    pub(super) fn with_typed(mut self, typed: Option<(&str, &str)>) -> Self {
        for row in &mut self.deciding {
            if let (Some(raise), Some((identifier, text))) = (&mut row.raise, typed)
                && row.identifier == identifier
            {
                raise.typed = short(text, TYPED_MAX);
            }
        }
        self
    }
}

/// Line for line, with nothing that could hide or pass for something else.
fn in_the_open(text: &str) -> String {
    text.lines().map(|line| harmless(&line.replace('\t', "    "))).collect::<Vec<_>>().join("\n")
}
