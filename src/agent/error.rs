//! What can go wrong between us and an agent: transport, protocol, agent and timeout are different things.

use symphony_core::board::FailureCode;
use symphony_core::patience::Impatience;

/// A failure of the agent's session, with the normalised codes of C178.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The program could not be started; reported by who starts it.
    #[error("cannot start the agent `{program}`: {message}. Is it installed where the sandbox can see it?")]
    NotFound {
        /// What was to be started.
        program: String,
        /// What the system said.
        message: String,
    },
    /// Transport: the agent's output ended or broke.
    #[error("the agent's connection closed during {during}: {message}")]
    Transport {
        /// The ACP method that was under way.
        during: &'static str,
        /// What is known about it.
        message: String,
    },
    /// Protocol: the agent spoke, but not the protocol.
    #[error("the agent broke the protocol during {during}: {message}")]
    Protocol {
        /// The ACP method that was under way.
        during: &'static str,
        /// What it did.
        message: String,
    },
    /// Protocol: the agent cannot use our tools, so it could never report anything (C163).
    #[error(
        "the agent does not offer MCP over HTTP, so it cannot report its work; set `mcp.enabled: false` to run without tools"
    )]
    McpCapability,
    /// Agent: it answered a request with an error.
    // Its own words first: they say what happened, and a line may be cut.
    #[error("{message} (the agent's answer to {during}, error {code})")]
    Agent {
        /// The ACP method it answered.
        during: &'static str,
        /// JSON-RPC error code.
        code: i64,
        /// Its message, shortened and redacted.
        message: String,
    },
    /// Timeout: no answer to a start-up request.
    #[error("the agent did not answer {during} within {after_ms} ms (`acp.read_timeout_ms`)")]
    Response {
        /// The ACP method.
        during: &'static str,
        /// The limit.
        after_ms: u64,
    },
}

impl AgentError {
    /// The stable code (C178; `startup_failed` and `mcp_capability_mismatch` are 0.1.0's).
    pub fn code(&self) -> FailureCode {
        match self {
            Self::NotFound { .. } => FailureCode::AgentNotFound,
            Self::Transport { .. } => FailureCode::PortExit,
            Self::Protocol { during, .. } if *during == PROMPT => FailureCode::TurnFailed,
            Self::Protocol { .. } => FailureCode::StartupFailed,
            Self::McpCapability => FailureCode::McpCapabilityMismatch,
            Self::Agent { during, .. } if *during == PROMPT => FailureCode::TurnFailed,
            Self::Agent { .. } => FailureCode::ResponseError,
            Self::Response { .. } => FailureCode::ResponseTimeout,
        }
    }
}

impl AgentError {
    /// Whether it happened while an older session was to be continued. A new one may work all the same.
    pub fn is_of_continuing(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::McpCapability => false,
            Self::Transport { during, .. }
            | Self::Protocol { during, .. }
            | Self::Agent { during, .. }
            | Self::Response { during, .. } => matches!(*during, LOAD_SESSION | RESUME_SESSION),
        }
    }
}

/// The category of a limit that ran out during a prompt (C178, C120).
pub fn timeout_code(which: Impatience) -> FailureCode {
    match which {
        Impatience::Total => FailureCode::TurnTooLong,
        Impatience::Silence => FailureCode::TurnSilent,
        Impatience::Stall => FailureCode::Stalled,
    }
}

pub(crate) const INITIALIZE: &str = "initialize";
pub(crate) const NEW_SESSION: &str = "session/new";
pub(crate) const LOAD_SESSION: &str = "session/load";
pub(crate) const RESUME_SESSION: &str = "session/resume";
pub(crate) const SET_MODE: &str = "session/set_mode";
pub(crate) const PROMPT: &str = "session/prompt";
