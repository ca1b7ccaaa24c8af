//! `credentials: stage`: what 0.1.0 did for agents that cannot be brokered. The host's login of the agent is copied into
//! its home in the sandbox, and variables that the workflow names go into its environment.
//!
//! Only where the workflow says so. Never on a command line, in a file of the host, or in a log: what is staged is redacted
//! by its values.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use symphony_core::board::{FailureCode, ParkReason, RunEnd};
use symphony_core::broker::Provider;
use symphony_guest::wire::{Exit, Program, SpawnRequest};
use tokio::io::AsyncWriteExt as _;

use super::program::{HOME, PATH};
use super::{Attempt, failed};
use crate::sandbox::channel::Channel;

/// Putting a file in its place takes no time; a guest that takes longer is not waited for.
const WITHIN: Duration = Duration::from_secs(30);
/// Shorter values of a login are no secrets: the name of a plan, a scope.
const SECRET_LEAST: usize = 12;
/// Puts its input in the place that is its argument, for its owner alone.
const PUT: &str = r#"umask 077 && mkdir -p "${1%/*}" && cat >"$1.staged" && mv -f "$1.staged" "$1""#;

/// Reads the host's login for a provider: `None` where there is none.
pub type ReadLogin = Arc<dyn Fn(Provider) -> BoxFuture<'static, Result<Option<Vec<u8>>, String>> + Send + Sync>;
/// Reads a variable of the host.
pub type ReadVariable = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What may be staged.
#[derive(Clone)]
pub struct Stage {
    /// Files of logins.
    pub login: ReadLogin,
    /// Variables.
    pub variable: ReadVariable,
}

/// What goes into one sandbox.
#[derive(Default)]
pub(super) struct Staged {
    /// Where in the home, and what.
    login: Option<(&'static str, Vec<u8>)>,
    /// For the agent's environment.
    pub(super) variables: Vec<(String, String)>,
    /// What must not be written down.
    pub(super) secrets: Vec<String>,
}

impl Attempt {
    /// What is to be staged for this run's agent; nothing, unless the workflow says so.
    pub(super) async fn to_stage(&self) -> Result<Staged, RunEnd> {
        let mut staged = Staged::default();
        if !self.workflow.models.staged {
            return Ok(staged);
        }
        for name in &self.workflow.smolvm.forward_env {
            if let Some(value) = (self.parts.stage.variable)(name).filter(|value| !value.is_empty()) {
                staged.secrets.push(value.clone());
                staged.variables.push((name.clone(), value));
            }
        }
        let agent = self.agent();
        let Some((place, provider)) = agent.adapter.login_file().filter(|_| self.workflow.stages(&agent)) else {
            return Ok(staged);
        };
        let remedy = |what: String| {
            let name = agent.adapter.name();
            let detail = format!("`credentials: stage`: {what}; log in to {name} on the host, or remove the line");
            RunEnd::NeedsHuman(ParkReason::AgentStart { detail })
        };
        match (self.parts.stage.login)(provider).await {
            Ok(Some(text)) => {
                staged.secrets.extend(secrets(&text));
                staged.login = Some((place, text));
            }
            // A variable may do instead.
            Ok(None) if staged.variables.iter().any(|(name, _)| name == provider.api_key_env()) => {}
            Ok(None) => {
                return Err(remedy(format!("there is no ~/{place} on the host, nor {}", provider.api_key_env())));
            }
            Err(why) => return Err(remedy(format!("~/{place} of the host cannot be read: {why}"))),
        }
        Ok(staged)
    }

    /// Puts the login where the agent looks for it.
    pub(super) async fn stage(&self, channel: &Channel, staged: &Staged) -> Result<(), RunEnd> {
        let Some((place, text)) = &staged.login else { return Ok(()) };
        let failed = |why: String| failed(FailureCode::StartupFailed, format!("credential staging error: {why}"));
        tracing::warn!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier,
            run_id = self.plan.run.0, place = %format!("~/{place}"), "a login is copied into the sandbox, as `credentials: stage` says");
        let put = async {
            let mut process = channel.spawn(in_home(PUT, place)).await.map_err(|error| error.to_string())?;
            process.stdin.write_all(text).await.map_err(|error| error.to_string())?;
            process.stdin.shutdown().await.map_err(|error| error.to_string())?;
            let exit = process.exit.await.map_err(|error| error.to_string())?;
            if exit == Exit::Code(0) { Ok(()) } else { Err(format!("it cannot be put into the sandbox: {exit:?}")) }
        };
        tokio::time::timeout(WITHIN, put)
            .await
            .unwrap_or_else(|_| Err("the sandbox does not take it".to_owned()))
            .map_err(failed)
    }

    /// Takes it away again: the disk may stay for long. A guest that died keeps it.
    pub(super) async fn unstage(&self, channel: &Channel) {
        let agent = self.agent();
        let Some((place, _)) = agent.adapter.login_file().filter(|_| self.workflow.stages(&agent)) else { return };
        let remove = async {
            let process = channel.spawn(in_home(r#"rm -f "$1""#, place)).await.ok()?;
            process.exit.await.ok()
        };
        if tokio::time::timeout(WITHIN, remove).await.ok().flatten().is_none_or(|exit| exit != Exit::Code(0)) {
            tracing::warn!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier,
                run_id = self.plan.run.0, place = %format!("~/{place}"), "the copied login could not be removed; it stays on the work disk");
        }
    }
}

fn in_home(script: &str, place: &str) -> SpawnRequest {
    let path = format!("{HOME}/{place}");
    let argv = ["/bin/sh", "-c", script, "sh", &path].map(str::to_owned).to_vec();
    let env = vec![("HOME".to_owned(), HOME.to_owned()), ("PATH".to_owned(), PATH.to_owned())];
    SpawnRequest { program: Program::Argv(argv), env, cwd: Some(HOME.to_owned()) }
}

/// Every long text in a login: which of them are tokens, its owner alone knows.
fn secrets(text: &[u8]) -> Vec<String> {
    let mut found = vec![];
    let mut left: Vec<Value> = serde_json::from_slice(text).ok().into_iter().collect();
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) if text.len() >= SECRET_LEAST => found.push(text),
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => left.extend(fields.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::secrets;

    #[test]
    fn every_long_text_of_a_login_is_a_secret_however_deep_it_lies() {
        let login =
            br#"{"claudeAiOauth": {"accessToken": "a-token-of-some-length", "expiresAt": 1, "scopes": ["user"]},
            "more": [["another-token-of-some-length"]]}"#;
        let mut found = secrets(login);
        found.sort();
        assert_eq!(found, ["a-token-of-some-length", "another-token-of-some-length"]);
        assert!(secrets(b"no JSON").is_empty());
    }
}
