//! Whether runs would find something to start from: asked before any starts, so that none fails over it.
//!
//! A commit that was found once is not asked for again under the same settings: a look must stay cheap. A repository that
//! loses its commits later fails the run that notices, as before.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use symphony_core::board::Closed;
use symphony_core::workflow::Workflow;

use super::WorkspaceError;
use super::clone::{Begin, begin};
use crate::git::Git;

/// Longest question to git.
const PATIENCE: Duration = Duration::from_secs(5);

/// What decides over it.
type Asked = (PathBuf, Option<PathBuf>, Option<String>, bool);

/// The answer of git, unless it takes too long: its source may hang.
pub async fn soon<T>(asked: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, asked).await.ok()
}

/// What is known. Clones share it.
#[derive(Clone, Debug)]
pub struct Ground {
    git: Git,
    found: Arc<Mutex<Option<Asked>>>,
}

impl Ground {
    /// Nothing is known yet.
    pub fn new(git: Git) -> Self {
        Self { git, found: Arc::default() }
    }

    /// Why no run could have a workspace, until somebody mends it; `None` also when that cannot be told.
    pub async fn closed(&self, workflow: &Workflow) -> Option<Closed> {
        let settings = &workflow.workspace;
        let hooked = workflow.hooks.after_create.is_some();
        let asked = (workflow.dir.clone(), settings.source.clone(), settings.base.clone(), hooked);
        if self.found.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&asked) {
            return None;
        }
        // A source that hangs must not keep symphony from looking at the issues.
        match soon(begin(&self.git, workflow)).await? {
            // A directory may become a repository, and then one without a commit.
            Ok(Begin::Nothing(_)) => None,
            Ok(Begin::Commit | Begin::Hook) => {
                *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
                None
            }
            Err(error @ (WorkspaceError::NoBase { .. } | WorkspaceError::NoSource { .. })) => {
                Some(Closed::NoSource(format!("work has nothing to start from: {error}")))
            }
            // git may have been in somebody's way: the run says what is wrong.
            Err(_) => None,
        }
    }
}
