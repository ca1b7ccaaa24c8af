//! The agent of a run and its session: the one of an earlier run where that can go on, else a new one. Nothing that goes
//! wrong over an older session fails the run.

use std::time::Duration;

use jiff::Timestamp;
use symphony_core::board::{FailureCode, ParkReason, RunEnd};
use symphony_core::prompt::{self, Task};
use symphony_core::session::{Fresh, Kept, Place, candidate, digest, identity};
use symphony_core::snapshot::EventRow;

use super::egress::{self, Egress};
use super::inside::{Door, GUEST_GRACE, TREE};
use super::line::{Line, Report};
use super::mcp::Mcp;
use super::models::Models;
use super::program::{self, HOME, NotStarted, Started, search_path};
use super::turns::attempt_of;
use super::{Attempt, failed};
use crate::agent::error::AgentError;
use crate::agent::event::one_line;
use crate::agent::profile::{self, Inside, Launch};
use crate::agent::readable::About;
use crate::agent::redact::Secrets;
use crate::agent::session::{Begun, Session, StartOptions};
use crate::agent::transcript::Transcript;
use crate::sandbox::channel::{Channel, ExitFuture, Killer};

/// Characters of a title that a transcript says.
const TITLE_MAX: usize = 200;

/// What an agent is told first, rendered before anything boots.
pub(super) struct Opening {
    /// To one that knows nothing.
    pub(super) full: String,
    /// The task alone, without a word of earlier runs.
    pub(super) task: String,
    /// Whether the workflow has words for a run like this one that are not in the task.
    pub(super) of_retries: bool,
}

/// A live agent with a session.
pub(super) struct Agent {
    pub(super) session: Session,
    pub(super) exit: ExitFuture,
    pub(super) killer: Killer,
    /// What it is told first.
    pub(super) prompt: String,
    /// What is kept of its session once it has answered a turn; none of one that could not be continued.
    pub(super) answered: Option<Kept>,
    /// Its words on their way to readers.
    pub(super) doors: [Door; 2],
    /// Its way to models, if it has one.
    pub(super) models: Option<Models>,
    /// Its way to the network.
    pub(super) egress: Egress,
}

/// Why there is no session yet.
enum Broken {
    /// The older session broke it.
    Continuing(AgentError),
    /// Everything else.
    End(RunEnd),
}

impl Attempt {
    /// Starts the agent. `stood`: the work disk held a tree, and the agent's home beside it, before this run.
    pub(super) async fn start_agent(
        &self,
        channel: &Channel,
        stood: bool,
        mut mcp: Option<&mut Mcp>,
        opening: Opening,
        line: &Line,
    ) -> Result<Agent, RunEnd> {
        let inside = Inside { path: search_path(&self.workflow, self.picked.kind), home: HOME.into() };
        let mut launch = profile::launch(&self.agent(), &self.workflow.acp.shell, &self.plan.issue, &inside)
            .map_err(|error| failed(FailureCode::AgentNotConfigured, error))?;
        // What runs without a model gets no way to one.
        let models = match launch.program {
            profile::Program::Builtin => None,
            // What is staged knows its own way, and would not find it beside ours.
            profile::Program::Command(_) if self.workflow.stages(&self.agent()) => None,
            profile::Program::Command(_) => self.open_models(channel, line).await?,
        };
        let staged = self.to_stage().await?;
        self.stage(channel, &staged).await?;
        if let Some(Models { door, .. }) = &models {
            launch.env.extend(profile::model_variables(&self.agent(), &door.ways, &door.token));
        }
        let egress = self.open_egress(channel, line).await?;
        launch.env.extend(profile::egress_variables(egress::PORT));
        // What is said already stays: a key that the broker knows is the run's own token.
        for (name, value) in staged.variables {
            if !launch.env.iter().any(|(known, _)| *known == name) {
                launch.env.push((name, value));
            }
        }
        launch.env.sort();
        let tokens = models.iter().map(|models| models.door.token.clone());
        // The session adds its own token for our tools.
        let secrets = Secrets::new(tokens.chain(staged.secrets));
        let secrets = models.iter().fold(secrets, |secrets, models| secrets.learning(&models.door.learned));
        if let Some(mcp) = mcp.as_deref_mut() {
            mcp.hide(secrets.clone());
        }
        let transcript = Transcript::open(&self.dir.join("acp.jsonl"), secrets.clone())
            .map_err(|error| tracing::warn!(%error, "frames of this run are not recorded"))
            .ok();
        if let Some(transcript) = &transcript {
            if let Some(models) = &models {
                models.list_in(transcript);
            }
            let issue = &self.plan.issue;
            let (identifier, id) = (issue.identifier.0.clone(), issue.id.0.clone());
            transcript.begin(About {
                identifier,
                issue: id,
                title: one_line(&secrets.redact(&issue.title, TITLE_MAX)),
            });
        }
        let options = |mcp: Option<&Mcp>, resume: Option<String>| StartOptions {
            cwd: TREE.into(),
            client_version: env!("CARGO_PKG_VERSION").into(),
            title: format!("{}: {}", self.plan.issue.identifier, self.plan.issue.title),
            mcp: mcp.map(Mcp::server),
            resume,
            mode: launch.mode.map(str::to_owned),
            read_timeout: Duration::from_millis(self.workflow.acp.read_timeout_ms),
            max_line: 0,
            secrets: secrets.clone(),
            transcript: transcript.clone(),
        };
        let older = self.older_session(stood, line).await;
        let started = match &older {
            None => self.start(channel, &launch, options(mcp.as_deref(), None), line).await,
            Some(kept) => {
                match self.start(channel, &launch, options(mcp.as_deref(), Some(kept.id.clone())), line).await {
                    Err(Broken::Continuing(error)) => {
                        self.not_continued(&error.to_string());
                        let row = EventRow {
                            at: Timestamp::now(),
                            event: "session_not_continued".into(),
                            message: one_line(&error.to_string()),
                        };
                        line.report(Report::Event(row)).await;
                        // Whatever hangs in there must not meet the new one.
                        if let Err(error) = channel.clear(GUEST_GRACE).await {
                            tracing::debug!(run_id = self.plan.run.0, %error, "the agent could not be cleared away");
                        }
                        // Nor is what it said the new one's word, however late it arrives.
                        if let Some(mcp) = mcp.as_deref_mut() {
                            self.renew_mcp(mcp)?;
                        }
                        self.start(channel, &launch, options(mcp.as_deref(), None), line).await
                    }
                    started => started,
                }
            }
        };
        let Started { session, exit, killer, doors } = started.map_err(|broken| match broken {
            Broken::Continuing(error) => failed(error.code(), error),
            Broken::End(end) => end,
        })?;
        if let Begun::Refused(why) = session.begun() {
            self.not_continued(why);
        }
        let continued = older.filter(|_| *session.begun() == Begun::Continued);
        line.report(Report::Session { id: session.id().to_owned(), continued: continued.is_some() }).await;
        let task = digest(&opening.task);
        let answered = self.remember(&session, continued.is_some(), task.clone(), line).await;
        let prompt = match continued.as_ref().and_then(|kept| kept.told.as_ref()) {
            None => opening.full,
            Some(told) => {
                let task = match (*told == task, opening.of_retries) {
                    (true, false) => Task::Known,
                    (true, true) => Task::Again(&opening.full),
                    (false, true) => Task::Changed(&opening.full),
                    (false, false) => Task::Changed(&opening.task),
                };
                prompt::resumed(&self.plan.issue, &attempt_of(&self.plan), task, self.workflow.mcp.enabled)
            }
        };
        Ok(Agent { session, exit, killer, prompt, answered, doors, models, egress })
    }

    fn place(&self) -> Place {
        Place {
            agent: identity(&self.agent(), &self.workflow.acp.shell),
            state: self.plan.issue.state.clone(),
            runtime: self.picked.kind.runtime().to_owned(),
            cwd: TREE.to_owned(),
        }
    }

    /// The session to go on with. That it is tried is kept first: a session that kills its agent, or us, does so once.
    async fn older_session(&self, stood: bool, line: &Line) -> Option<Kept> {
        let kept = match candidate(self.session.as_ref(), &self.place(), stood, self.workflow.acp.resume) {
            Ok(kept) => kept.clone(),
            Err(Fresh::None) => return None,
            Err(why) => {
                self.not_continued(&why.to_string());
                return None;
            }
        };
        match line.session(Some(Kept { tried: true, ..kept.clone() })).await {
            Ok(()) => Some(kept),
            Err(error) => {
                self.not_continued(&error);
                None
            }
        }
    }

    fn not_continued(&self, why: &str) {
        let issue = &self.plan.issue;
        tracing::info!(issue_id = %issue.id, issue_identifier = %issue.identifier, run_id = self.plan.run.0, %why,
            "the agent's last session is not continued");
    }

    /// Keeps the name of a new session, and says what to keep once a turn of it was answered.
    async fn remember(&self, session: &Session, continued: bool, task: String, line: &Line) -> Option<Kept> {
        let keeps = session.is_continuable() && self.workflow.acp.resume;
        let fresh = keeps
            .then(|| Kept { id: session.id().to_owned(), place: self.place(), told: None, tried: false })
            .filter(|_| !continued);
        if (fresh.is_some() || (!keeps && self.session.is_some()))
            && let Err(error) = line.session(fresh).await
        {
            // Then the next run begins a new one.
            tracing::warn!(issue_id = %self.plan.issue.id, %error, "the agent's session could not be remembered");
        }
        keeps.then(|| Kept { id: session.id().to_owned(), place: self.place(), told: Some(task), tried: false })
    }

    /// One program, one try at a session.
    async fn start(
        &self,
        channel: &Channel,
        launch: &Launch,
        options: StartOptions,
        line: &Line,
    ) -> Result<Started, Broken> {
        let agent = (&self.agent(), self.picked.kind);
        let started = tokio::select! {
            started = program::start(channel, agent, launch, options, (line.run, line.reports.clone())) => started,
            cause = line.stopped() => return Err(Broken::End(RunEnd::Stopped(cause))),
        };
        started.map_err(|not| match not {
            NotStarted::Agent(error) if error.is_of_continuing() => Broken::Continuing(error),
            NotStarted::Agent(error) => Broken::End(failed(error.code(), error)),
            NotStarted::Channel(error) => Broken::End(failed(FailureCode::AgentNotFound, error)),
            // For a person to bring there.
            NotStarted::Lacking(detail) => Broken::End(RunEnd::NeedsHuman(ParkReason::AgentStart { detail })),
        })
    }
}
