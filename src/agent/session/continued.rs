//! An older session goes on: `session/resume` where the agent has it, else `session/load`, whose retold history is
//! dropped. An agent that refuses gets a new session; one that hangs or dies over it is the caller's to start again.

use std::time::Duration;

use agent_client_protocol::v1::schema as acp;
use serde_json::Value;

use super::{Session, StartOptions, servers};
use crate::agent::error::{self, AgentError};

/// How a session began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// As a new one.
    New,
    /// As the continuation of an older one.
    Continued,
    /// As a new one, because the agent did not go on with the older one; why.
    Refused(String),
}

/// How the agent takes an older session up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Without a word about what was.
    Resume,
    /// It tells the whole history first.
    Load,
}

impl Way {
    /// The best one in the answer to `initialize`.
    pub(super) fn offered(agent: &Value) -> Option<Self> {
        // An empty object is an offer; `false` is what an agent says that takes it for a flag.
        let resume = agent.pointer("/agentCapabilities/sessionCapabilities/resume");
        match resume {
            Some(Value::Object(_) | Value::Bool(true)) => Some(Self::Resume),
            _ if agent.pointer("/agentCapabilities/loadSession") == Some(&Value::Bool(true)) => Some(Self::Load),
            _ => None,
        }
    }
}

impl Session {
    /// Goes on with `id`. `None`: the agent answered that it does not.
    pub(super) async fn go_on(
        &mut self,
        way: Way,
        id: &str,
        options: &StartOptions,
        limit: Duration,
    ) -> Result<Option<Value>, AgentError> {
        self.shared.replay.begin();
        let (cwd, servers) = (options.cwd.clone(), servers(options));
        let answered = match way {
            Way::Resume => {
                let resume = acp::ResumeSessionRequest::new(id.to_owned(), cwd).mcp_servers(servers);
                self.call(error::RESUME_SESSION, &resume, limit).await
            }
            Way::Load => {
                let load = acp::LoadSessionRequest::new(id.to_owned(), cwd).mcp_servers(servers);
                self.call(error::LOAD_SESSION, &load, limit).await
            }
        };
        match answered {
            Ok(session) => {
                id.clone_into(&mut self.id);
                self.begun = Begun::Continued;
                Ok(Some(session))
            }
            Err(refusal @ AgentError::Agent { .. }) => {
                self.end_of_history();
                let why = refusal.to_string();
                self.shared.events.send("session_not_continued", &why, false);
                self.begun = Begun::Refused(why);
                Ok(None)
            }
            Err(broken) => Err(broken),
        }
    }

    /// What the agent says from here on is new.
    pub(super) fn end_of_history(&self) {
        let dropped = self.shared.replay.end();
        if dropped > 0 {
            let message = format!("{dropped} updates of its history");
            self.shared.events.send("history_dropped", &message, false);
        }
    }
}
