//! One attempt at an issue.

pub mod line;

use std::sync::Arc;

use symphony_core::board::Plan;
use symphony_core::workflow::Workflow;

use self::line::Line;
use crate::tracker::Tracker;

/// Everything one attempt is bound to from its dispatch on; a reload changes none of it (C173).
pub struct Start {
    /// What to run.
    pub plan: Plan,
    /// The workflow in force when it was dispatched.
    pub workflow: Arc<Workflow>,
    /// The tracker that showed the issue.
    pub tracker: Arc<dyn Tracker>,
    /// To and from the conductor.
    pub line: Line,
}
