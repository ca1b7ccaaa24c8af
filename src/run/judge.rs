//! An agent's word that its turn ended well, against what others saw of that turn: the broker of its models, the door of
//! its tools.

use jiff::Timestamp;
use symphony_core::board::{FailureCode, ParkReason, RunEnd};
use symphony_core::broker::Seen;
use symphony_core::snapshot::EventRow;
use symphony_core::turn::Outcome;
use tokio::sync::watch;

use super::line::{Line, Report};
use super::mcp::Mcp;
use super::{Attempt, failure};
use crate::agent::event::one_line;
use crate::agent::turn::{Turn, TurnEnd};

/// What is seen of a turn's requests to models; nothing where there is no way to one.
#[derive(Debug, Default)]
pub(super) struct Asking {
    seen: Option<watch::Sender<Seen>>,
    /// Why this turn is not waited for any longer.
    hopeless: Option<String>,
}

impl Asking {
    pub(super) fn of(seen: Option<watch::Sender<Seen>>) -> Self {
        Self { seen, hopeless: None }
    }

    /// A turn begins: what came before is not its doing.
    pub(super) fn begin(&mut self) -> Option<watch::Receiver<Seen>> {
        self.hopeless = None;
        let seen = self.seen.as_ref()?;
        seen.send_replace(Seen::default());
        Some(seen.subscribe())
    }

    fn now(&self) -> Option<Seen> {
        self.seen.as_ref().map(|seen| seen.borrow().clone())
    }
}

/// The next change; never comes where nothing is seen.
pub(super) async fn changed(seen: Option<&mut watch::Receiver<Seen>>) -> Seen {
    let Some(seen) = seen else { return std::future::pending().await };
    match seen.changed().await {
        Ok(()) => seen.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}

impl Attempt {
    /// Says what the broker sees while the agent is silent about it, and whether to wait any longer. `told` is how many
    /// failures in a row were told last.
    pub(super) async fn on_seen(&self, seen: Seen, told: &mut u32, asking: &mut Asking, line: &Line) -> bool {
        let Some((count, words)) = seen.failing() else {
            *told = 0;
            return false;
        };
        // Seldom: an agent can fail as often as it likes.
        if count >= told.saturating_mul(2).max(2) {
            *told = count;
            let issue = &self.plan.issue;
            let message = one_line(&format!("{words}; the agent goes on asking"));
            tracing::warn!(issue_id = %issue.id, issue_identifier = %issue.identifier, run_id = self.plan.run.0,
                failures = count, says = %message, "the model fails again and again");
            let row = EventRow { at: Timestamp::now(), event: "model_failing".into(), message };
            line.report(Report::Event(row)).await;
        }
        // What comes while the agent is being stopped is no other reason.
        asking.hopeless = asking.hopeless.take().or_else(|| seen.hopeless(self.workflow.acp.stall_timeout_ms));
        asking.hopeless.is_some()
    }

    /// `said` is what the agent's answer alone would mean; `word`: it has said through our tools what becomes of its issue.
    pub(super) async fn judged(
        &self,
        said: Outcome,
        turn: &Turn,
        word: bool,
        asking: &mut Asking,
        mcp: Option<&Mcp>,
        line: &Line,
    ) -> Outcome {
        let seen = asking.now().unwrap_or_default();
        let is_bad = matches!(said, Outcome::Failed(_)) || seen.contradicts_end(false).is_some();
        let is_over = turn.end != TurnEnd::Cancelled || asking.hopeless.is_some();
        if let Some(why) = seen.barred().filter(|_| is_bad && is_over && !word) {
            return Outcome::Failed(failure(FailureCode::ModelBarred, why));
        }
        match said {
            Outcome::Failed(failed) => {
                if let Some(why) = asking.hopeless.take() {
                    return Outcome::Failed(failure(FailureCode::TurnFailed, why));
                }
                let failing = seen.failing().filter(|_| matches!(turn.end, TurnEnd::TimedOut(_)));
                let why = failing.map(|(_, words)| format!("{}; meanwhile {words}", failed.message));
                Outcome::Failed(failure(failed.code, why.unwrap_or(failed.message)))
            }
            // Its word counts, however it came to it; and a turn that we cancelled says nothing.
            Outcome::Ended if word || turn.end != TurnEnd::EndTurn => Outcome::Ended,
            Outcome::Ended => match seen.contradicts_end(self.needs_model()) {
                Some(why) => Outcome::Failed(failure(FailureCode::TurnFailed, why)),
                None => self.knows_tools(mcp, line).await,
            },
        }
    }

    /// Of `acp.command` nobody knows whether it asks models at all.
    fn needs_model(&self) -> bool {
        let agent = self.agent();
        // One with a login of its own asks them past us.
        agent.command.is_none() && !self.workflow.stages(&agent) && !agent.adapter.providers(agent.model).is_empty()
    }

    /// An agent without our tools would use its turns up and could never say that it is done.
    async fn knows_tools(&self, mcp: Option<&Mcp>, line: &Line) -> Outcome {
        let Some(mcp) = mcp else { return Outcome::Ended };
        if mcp.is_known().await {
            return Outcome::Ended;
        }
        let issue = &self.plan.issue;
        let message = "the agent ended its turn and never asked for symphony's tools, so it cannot say when it is done";
        tracing::warn!(issue_id = %issue.id, issue_identifier = %issue.identifier, run_id = self.plan.run.0,
            "the agent works without our tools");
        let row = EventRow { at: Timestamp::now(), event: "tools_unseen".into(), message: message.into() };
        line.report(Report::Event(row)).await;
        // The next try begins anew: a session that lost them would not find them again.
        if let Err(error) = line.session(None).await {
            tracing::warn!(issue_id = %issue.id, %error, "the agent's session could not be forgotten");
        }
        Outcome::Failed(failure(FailureCode::ToolsUnseen, message))
    }

    /// The end of a run whose last turn ended so: what a second try did not mend, or none will, is for a person.
    pub(super) fn or_a_person(&self, end: RunEnd) -> RunEnd {
        let again = |code| self.plan.last.as_ref().is_some_and(|last| last.failed_with(code));
        match end {
            RunEnd::Failed(failed) if failed.code == FailureCode::ToolsUnseen && again(failed.code) => {
                let detail = format!(
                    "{}, twice in a row with a session of its own; its notes are in `symphony log {}`. See whether it reaches MCP servers \
                     over HTTP at all (`symphony doctor --agent`), or set `mcp.enabled: false` to let it work without tools",
                    failed.message, self.plan.issue.identifier
                );
                RunEnd::NeedsHuman(ParkReason::AgentStart { detail })
            }
            RunEnd::Failed(failed) if failed.code == FailureCode::ModelBarred => {
                RunEnd::NeedsHuman(ParkReason::AgentStart { detail: failed.message })
            }
            end => end,
        }
    }
}
