//! The agent's branch in the host workspace follows the verified head, by compare-and-swap.

use std::path::Path;

use symphony_core::workflow::Checkout;

use super::{Airlock, AirlockError, BRANCH, HEAD, import, io};
use crate::failpoint::{Phase, reach};
use crate::git::{GitError, Oid};

/// What became of the branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It stands at the verified head now, or stood there already.
    Advanced {
        /// The head.
        head: Oid,
    },
    /// Somebody moved it meanwhile. It was left alone; the work stands in the workspace as
    /// `refs/symphony/head` and in the airlock.
    Diverged {
        /// Where the branch is; `None` when it was deleted.
        found: Option<Oid>,
    },
    /// Plain files: there is no branch.
    NoRepository,
}

impl Airlock {
    /// Moves the agent's branch in the host workspace to the verified head, if it is still where the
    /// work took it from. Only with [`Checkout::Agent`] do the agent's files appear on the host.
    /// Repeating it, also after a restart, changes nothing.
    ///
    /// # Errors
    /// When git fails, or the branch cannot be checked out.
    pub async fn advance_branch(&self, checkout: Checkout) -> Result<Advance, AirlockError> {
        let Some(workspace) = &self.workspace else { return Ok(Advance::NoRepository) };
        let head = self.head().await?;
        let name = format!("refs/heads/{}", self.key.branch());
        let git_dir = workspace.join(".git");
        let here = || self.git.bare(&git_dir);
        // Its objects, and a name to find them by whatever happens to the branch.
        import::fetch(&self.git, &git_dir, &self.dir, &format!("+{HEAD}:{HEAD}")).await?;
        let found = self.branch_in(workspace).await?;
        let at = |phase| reach("branch", "advance", phase).map_err(io("move the agent's branch in", &git_dir));
        at(Phase::Before)?;
        if found.as_ref() != Some(&head) {
            let known = self.lookup(BRANCH).await?;
            let (Some(at), true) = (&found, found == known) else { return Ok(Advance::Diverged { found }) };
            self.leave_branch(&git_dir, &name, at).await?;
            match here().args(["update-ref", &name, head.as_str(), at.as_str()]).run().await {
                Ok(_) => {}
                Err(GitError::Failed { .. }) => {
                    return Ok(Advance::Diverged { found: self.branch_in(workspace).await? });
                }
                Err(error) => return Err(error.into()),
            }
        }
        at(Phase::Torn)?;
        self.transaction(&[format!("update {BRANCH} {head}")]).await?;
        at(Phase::After)?;
        if checkout == Checkout::Agent {
            let branch = self.key.branch();
            match self.git.in_tree(workspace).args(["checkout", "--quiet", &branch, "--"]).run().await {
                Ok(_) => {}
                Err(GitError::Failed { stderr, .. }) => return Err(AirlockError::Checkout(stderr)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Advance::Advanced { head })
    }

    /// Detaches HEAD where it is when the branch itself is checked out: else its files would look
    /// like changes that undo the agent's work.
    async fn leave_branch(&self, git_dir: &Path, name: &str, at: &Oid) -> Result<(), AirlockError> {
        let here = || self.git.bare(git_dir);
        let (code, found) = here().args(["symbolic-ref", "--quiet", "HEAD"]).run_any().await?;
        if code == 0 && found.stdout.text().trim() == name {
            here().args(["update-ref", "--no-deref", "HEAD", at.as_str()]).run().await?;
        }
        Ok(())
    }
}
