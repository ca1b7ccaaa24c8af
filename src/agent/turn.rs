//! How a turn ended: data, and the reading of `session/prompt`'s answer.

use std::fmt;

use serde_json::Value;
use symphony_core::board::FailureCode;
use symphony_core::patience::Impatience;

use super::error::{self, AgentError};

/// How a turn ended, and what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How it ended.
    pub end: TurnEnd,
    /// Consumption the agent reported with its answer.
    pub usage: Option<Usage>,
    /// Whether the session can take another prompt.
    pub usable: bool,
}

/// How a turn ended (C165). Only [`TurnEnd::EndTurn`] is success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// The agent finished its turn.
    EndTurn,
    /// The model's token limit.
    MaxTokens,
    /// The agent's own limit of model requests.
    MaxTurnRequests,
    /// The agent refuses to go on.
    Refusal,
    /// Cancelled, by us or by the agent itself.
    Cancelled,
    /// One of the prompt's limits ran out.
    TimedOut(Impatience),
    /// Transport, protocol or agent failed.
    Failed(AgentError),
}

impl TurnEnd {
    /// What the agent's `stopReason` says; `Err` describes one that ACP does not know.
    pub(crate) fn of(response: &Value) -> Result<Self, String> {
        match response.get("stopReason").and_then(Value::as_str) {
            Some("end_turn") => Ok(Self::EndTurn),
            Some("max_tokens") => Ok(Self::MaxTokens),
            Some("max_turn_requests") => Ok(Self::MaxTurnRequests),
            Some("refusal") => Ok(Self::Refusal),
            Some("cancelled") => Ok(Self::Cancelled),
            Some(other) => Err(format!("unknown stop reason `{other}`")),
            None => Err("the answer has no stop reason".to_owned()),
        }
    }

    /// The stable code: an event name of C169, or an error category of C178.
    pub fn code(&self) -> &'static str {
        self.failure().map_or("turn_completed", FailureCode::as_str)
    }

    /// The category of the failure; `None` is success.
    pub fn failure(&self) -> Option<FailureCode> {
        match self {
            Self::EndTurn => None,
            Self::MaxTokens | Self::MaxTurnRequests | Self::Refusal => Some(FailureCode::TurnFailed),
            Self::Cancelled => Some(FailureCode::TurnCancelled),
            Self::TimedOut(which) => Some(error::timeout_code(*which)),
            Self::Failed(error) => Some(error.code()),
        }
    }
}

impl fmt::Display for TurnEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndTurn => "the agent ended its turn",
            Self::MaxTokens => "the model reached its token limit",
            Self::MaxTurnRequests => "the agent reached its own limit of model requests",
            Self::Refusal => "the agent refused to go on",
            Self::Cancelled => "the turn was cancelled",
            Self::TimedOut(Impatience::Total) => "the prompt took longer than acp.prompt_timeout_ms",
            Self::TimedOut(Impatience::Silence) => "the agent was silent for acp.turn_timeout_ms",
            Self::TimedOut(Impatience::Stall) => "nothing moved for acp.stall_timeout_ms",
            Self::Failed(error) => return error.fmt(f),
        })
    }
}

/// Tokens of one turn, as the agent counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sent to the model, without what was cached.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
    /// Read from the cache.
    pub cached: u64,
    /// The agent's own total.
    pub total: u64,
}

impl Usage {
    /// `PromptResponse.usage`, whatever of it is there.
    pub(crate) fn of(response: &Value) -> Option<Self> {
        let usage = response.get("usage").filter(|usage| usage.is_object())?;
        let number = |key: &str| usage.get(key).and_then(Value::as_u64).unwrap_or(0);
        let (input, output, cached) = (number("inputTokens"), number("outputTokens"), number("cachedReadTokens"));
        let total = number("totalTokens").max(input.saturating_add(output));
        Some(Self { input, output, cached, total })
    }
}
