//! The part of a run that has a sandbox: boot, agent, talk, last export, and the end of it all.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use symphony_core::board::{FailureCode, ParkReason, RunEnd};
use symphony_core::runtimes::Kind;
use symphony_core::workflow::{AgentOf, Sizes};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::export::ExportError;
use super::judge::Asking;
use super::line::{Line, Report};
use super::session::{Agent, Opening};
use super::turns::Talk;
use super::word::Word;
use super::{Attempt, ServeStream, failed, marker};
use crate::agent::event::AgentEvent;
use crate::airlock::Airlock;
use crate::sandbox::channel::Channel;
use crate::sandbox::choose::Picked;
use crate::sandbox::{BootSpec, Life};
use crate::workspace::Ready;

/// Where the guest program has the work tree.
pub(crate) const TREE: &str = "/work";
/// What an agent gets to end by itself after its input closed.
const AGENT_GRACE: Duration = Duration::from_secs(2);
/// What a guest program gets to kill everything, sync and exit.
pub(super) const GUEST_GRACE: Duration = Duration::from_secs(5);

/// What the sandbox part of a run left behind; its sandbox is gone.
pub(super) enum Left {
    /// The agent said where its issue goes, and its last work is in the airlock.
    Said(Word),
    /// Everything else.
    Ended(RunEnd),
}

impl Attempt {
    /// Boots, works, exports, and takes everything down again, whatever happened.
    pub(super) async fn inside(&self, airlock: &Airlock, ready: &Ready, opening: Opening, line: &mut Line) -> Left {
        let taken_over = tokio::select! {
            taken_over = self.take_over(airlock, line) => taken_over,
            cause = line.stopped() => return Left::Ended(RunEnd::Stopped(cause)),
        };
        let stood = match taken_over {
            Ok(stood) => stood,
            Err(end) => return Left::Ended(end),
        };
        line.report(Report::Phase("booting")).await;
        let booted = tokio::select! {
            booted = self.boot(&self.picked, self.sizes.clone()) => booted,
            cause = line.stopped() => return Left::Ended(RunEnd::Stopped(cause)),
        };
        let (mut guest, channel, disk) = match booted {
            Ok(booted) => booted,
            Err(end) => return Left::Ended(end),
        };
        let mut talk = Talk::default();
        // Without the mark, another runtime would take what the agent is about to do for an older copy.
        let prepared = self.prepare_disk(airlock, &channel, &disk, stood, line).await.and_then(|()| self.mark());
        let end = match prepared {
            Ok(()) => self.converse(airlock, &channel, ready, (disk.tree, opening), &mut talk, line).await,
            Err(end) => Err(end),
        };
        let handing_off = end.is_ok();
        if handing_off {
            line.report(Report::Finishing).await;
        }
        let over = Instant::now();
        // Export comes before teardown. A guest that died is asked again below, on its work disk.
        // A tree that was not seeded to its end is nobody's work: taken, it would look like mass deletion.
        if talk.seeded
            && let Err(error) = channel.clear(GUEST_GRACE).await
        {
            tracing::debug!(run_id = self.plan.run.0, %error, "what the agent left running could not be cleared away");
        }
        self.unstage(&channel).await;
        let exported = match talk.seeded {
            true => self.export(airlock, &channel, talk.done_message(&self.plan.issue)).await.map(drop),
            false => Ok(()),
        };
        let stopping = Instant::now();
        if let Err(error) = channel.shutdown(GUEST_GRACE).await {
            tracing::debug!(run_id = self.plan.run.0, %error, "the guest program did not say goodbye");
        }
        drop(channel);
        let ending = guest.stop(GUEST_GRACE).await;
        crate::files::touch(&self.disk_of(&self.picked));
        tracing::debug!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier, run_id = self.plan.run.0, ?ending,
            agent_ms = millis(talk.ending), exported_ms = millis(stopping - over), sandbox_ms = millis(stopping.elapsed()), "sandbox gone");
        let exported = match exported {
            Err(error) if error.is_guest_gone() => {
                line.report(Report::Phase("rescuing")).await;
                self.rescue(airlock, talk.done_message(&self.plan.issue)).await
            }
            other => other,
        };
        // What an earlier run left was not taken when this one did not come to its talk.
        if exported.is_ok()
            && (talk.seeded || !stood)
            && let Err(error) = marker::clear(&self.parts.layout, &self.key)
        {
            tracing::warn!(issue_id = %self.plan.issue.id, %error, "the work is out, but its work disk stays marked");
        }
        self.conclude(end, exported, ending.out_of_memory)
    }

    /// Marks a disk that holds what the airlock holds: from now on it may be ahead.
    fn mark(&self) -> Result<(), RunEnd> {
        marker::set(&self.parts.layout, &self.key, self.picked.kind.runtime()).map_err(|error| {
            let place = self.parts.layout.unexported(&self.key);
            let message = format!("cannot mark the work disk as in use: {}: {error}", place.display());
            failed(FailureCode::SandboxBootFailed, message)
        })
    }

    /// Joins how the talk ended with whether its work arrived.
    fn conclude(&self, end: Result<Word, RunEnd>, exported: Result<(), ExportError>, no_memory: bool) -> Left {
        let end = match (end, exported) {
            (Ok(word), Ok(())) => return Left::Said(word),
            (Err(end), Ok(())) => end,
            // The agent can mend some exports (a history that left the base, a file too large): it is told next time.
            (Ok(_) | Err(RunEnd::Failed(_) | RunEnd::TurnsUsed), Err(error)) if error.is_for_the_agent() => {
                failed(FailureCode::ExportRefused, error)
            }
            (Ok(_) | Err(RunEnd::Failed(_) | RunEnd::TurnsUsed), Err(error)) => {
                let disk = self.disk_of(&self.picked);
                let detail = format!(
                    "{error}; what the sandbox holds is kept on its work disk {} until the issue is tried again",
                    disk.display()
                );
                RunEnd::NeedsHuman(ParkReason::HandoffFailed { detail })
            }
            (Err(end), Err(error)) => {
                tracing::warn!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier, %error,
                    "the last work was not exported; it is on the work disk");
                end
            }
        };
        Left::Ended(match end {
            RunEnd::Failed(mut failure) if no_memory => {
                let key = match self.picked.kind {
                    Kind::Jail => "sandbox.jail.memory_mib",
                    Kind::Smolvm => "smolvm.mem_mib",
                    Kind::QemuKvm | Kind::QemuTcg => "sandbox.memory_mib",
                };
                failure.message.push_str(&format!(" (the sandbox ran out of memory: {key}, or that of its profile)"));
                RunEnd::Failed(failure)
            }
            other => other,
        })
    }

    /// Where the issue's work disk for this runtime is.
    pub(super) fn disk_of(&self, picked: &Picked) -> PathBuf {
        self.parts.layout.work_disk(picked.kind.runtime(), &self.key)
    }

    /// What a sandbox gets that has no agent and is asked for the work on its disk.
    pub(super) fn rescue_sizes(&self, picked: &Picked) -> Sizes {
        let sandbox = &self.workflow.sandbox;
        let profile = sandbox.profile_of(self.plan.issue.profile.as_deref()).ok().flatten();
        let sizes = sandbox.rescue_sizes(profile, picked.kind, &self.workflow.smolvm);
        match picked.kind == self.picked.kind {
            true => Sizes { image: self.sizes.image.clone(), ..sizes },
            false => sizes,
        }
    }

    pub(super) async fn boot(
        &self,
        picked: &Picked,
        sizes: Sizes,
    ) -> Result<(Box<dyn Life>, Channel, DiskState), RunEnd> {
        let disk = self.disk_of(picked);
        let place = disk.parent().map_or(Ok(()), crate::files::create_private_dir);
        place.map_err(|error| {
            failed(FailureCode::SandboxBootFailed, format!("cannot make {}: {error}", disk.display()))
        })?;
        let deadline = Duration::from_millis(self.workflow.acp.boot_timeout_ms);
        let spec = BootSpec {
            run: self.plan.run,
            disk,
            image: sizes.image,
            packages: sizes.packages,
            templates: self.workflow.sandbox.templates,
            read_only: self.workflow.sandbox.jail.read_only.clone(),
            cpus: sizes.cpus,
            memory_mib: sizes.memory_mib,
            pids: sizes.pids,
            file_size_mib: sizes.file_size_mib,
            disk_mib: sizes.disk_mib,
            deadline,
            program: vec![],
        };
        // What the runtime logs on the way names the issue; an error's level passes every filter.
        let issue = &self.plan.issue;
        let span = tracing::error_span!("boot", issue_id = %issue.id, issue_identifier = %issue.identifier);
        let guest = picked
            .sandbox
            .boot(spec)
            .instrument(span)
            .await
            .map_err(|error| failed(FailureCode::SandboxBootFailed, error))?;
        let (io, mut guest) = guest.into_parts();
        let token = crate::random::token(16).map_err(|error| failed(FailureCode::SandboxBootFailed, error))?;
        match Channel::open(io, &token, deadline).await {
            Ok((channel, hello)) => {
                // What a guest writes changes no time at the top.
                crate::files::touch(&self.disk_of(picked));
                Ok((guest, channel, DiskState { tree: hello.tree, marker: hello.marker }))
            }
            Err(error) => {
                let ending = guest.stop(Duration::ZERO).await;
                let said = ending.stderr.trim();
                let message = if said.is_empty() { error.to_string() } else { format!("{error}; it said: {said}") };
                Err(failed(FailureCode::SandboxBootFailed, message))
            }
        }
    }

    /// Starts the agent and talks with it until the talk has an end. `Ok`: it said where its issue goes.
    async fn converse(
        &self,
        airlock: &Airlock,
        channel: &Channel,
        ready: &Ready,
        (stood, opening): (bool, Opening),
        talk: &mut Talk,
        line: &mut Line,
    ) -> Result<Word, RunEnd> {
        talk.seeded = true;
        line.report(Report::Phase("starting the agent")).await;
        let mut mcp = self.open_mcp(channel).await?;
        let agent = self.start_agent(channel, stood, mcp.as_mut(), opening, line).await?;
        let Agent { mut session, exit, killer, prompt, answered, doors, models, egress } = agent;
        talk.session = answered;
        talk.providers = models.as_ref().map(|models| models.door.watch.clone());
        talk.asking = Asking::of(models.as_ref().map(|models| models.door.seen.clone()));
        let end = self.turns(airlock, channel, &mut session, mcp.as_mut(), ready, prompt, talk, line).await;
        if let Some(mcp) = &mcp {
            mcp.close();
        }
        if let Some(said) = session.ignored() {
            let issue = &self.plan.issue;
            tracing::debug!(issue_id = %issue.id, issue_identifier = %issue.identifier, run_id = self.plan.run.0, %said,
                "the agent says what symphony has no word for");
        }
        let closing = Instant::now();
        session.close(AGENT_GRACE).await;
        if tokio::time::timeout(AGENT_GRACE, exit).await.is_err() {
            let issue = &self.plan.issue;
            tracing::debug!(issue_id = %issue.id, issue_identifier = %issue.identifier, run_id = self.plan.run.0,
                "the agent did not end when its input did; it ends with everything it started");
            killer.kill();
        }
        talk.ending = closing.elapsed();
        if let Some(models) = models {
            models.end().await;
        }
        egress.end().await;
        drop((doors, mcp));
        end
    }

    /// Every connection to this port of the guest is served here, until the result is dropped.
    pub(super) async fn relay(&self, channel: &Channel, port: u16, serve: ServeStream) -> Result<Door, RunEnd> {
        let mut incoming = channel.listen(port).await.map_err(|error| failed(FailureCode::StartupFailed, error))?;
        Ok(Door(tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Some(stream) = incoming.accept().await {
                while open.try_join_next().is_some() {}
                open.spawn(serve(stream));
            }
        })))
    }

    /// The agent of the state the issue was dispatched in.
    pub(super) fn agent(&self) -> AgentOf<'_> {
        self.workflow.agent_of(&self.plan.issue.state)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a guest program found on its disk.
pub(super) struct DiskState {
    pub(super) tree: bool,
    pub(super) marker: Option<String>,
}

impl DiskState {
    /// Whether it was seeded to its end: anything else is nobody's work.
    pub(super) fn holds_work(&self) -> bool {
        self.tree && self.marker.is_some()
    }
}

/// A task that ends with its scope.
pub(crate) struct Door(pub(super) tokio::task::JoinHandle<()>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn forward(
    mut events: mpsc::Receiver<AgentEvent>,
    run: symphony_core::ids::RunId,
    reports: mpsc::Sender<super::line::FromRun>,
) {
    while let Some(event) = events.recv().await {
        let row = symphony_core::snapshot::EventRow {
            at: jiff::Timestamp::now(),
            event: event.kind.to_owned(),
            message: event.message,
        };
        if reports.send(super::line::FromRun::Report(run, Report::Event(row))).await.is_err() {
            return;
        }
    }
}
