//! Hosts as readers see them: cards that wait for a person, and what was decided.

use crate::egress::{Card, Decision};
use crate::ids::Identifier;

/// A host that an agent asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCard {
    /// What was asked.
    pub card: Card,
    /// The shown name; its id where its file is gone.
    pub identifier: Identifier,
    /// The title.
    pub title: String,
}

/// A decision about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDecision {
    /// What was decided.
    pub decision: Decision,
    /// The shown name of the issue whose agent asked; its id where its file is gone.
    pub identifier: Identifier,
}
