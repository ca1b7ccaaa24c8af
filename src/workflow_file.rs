//! `WORKFLOW.md` on disk: the last good version stays in force, whatever happens to the file.
//!
//! Each look reads the current content and compares its hash, so no change of a burst is lost, however
//! coarse the file system's clock, and the kind of write (in place, rename-over, delete and recreate) does not
//! matter. Blocking; a caller on the runtime uses `spawn_blocking`. Must never write the file.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use symphony_core::workflow::{Code, Place, Problem, Workflow};

/// Longest accepted file, in bytes.
const MAX_BYTES: u64 = 2 * 1024 * 1024;

/// Looks an environment variable up.
pub type Variable = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What `~` and `$NAME` stand for.
#[derive(Clone)]
pub struct Environment {
    /// The operator's home, if there is one.
    pub home: Option<PathBuf>,
    /// Looks a variable up.
    pub variable: Arc<Variable>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Self { home, variable: Arc::new(|name| std::env::var(name).ok()) }
    }
}

/// Why a workflow cannot be used at start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No such file, or it cannot be read (C30).
    #[error("cannot read the workflow file {path}: {message}; give its path as the argument, or create it")]
    Missing {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// Every problem of the file.
    #[error("{}", problems.iter().map(|problem| problem.in_file(path)).collect::<Vec<_>>().join("\n"))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// In the order of the file; at least one is an error.
        problems: Vec<Problem>,
    },
}

impl LoadError {
    /// The exit code of a start that fails with it: 2 for a missing file, a tracker that does not exist and an
    /// open server without authentication, else 1 (contract §1.1, DESIGN §6).
    pub fn exit_code(&self) -> u8 {
        let calls_for_two = |problem: &Problem| {
            let codes = [Code::MissingTrackerKind, Code::UnsupportedTrackerKind, Code::OpenServerWithoutAuth];
            problem.is_error() && codes.contains(&problem.code)
        };
        match self {
            Self::Missing { .. } => 2,
            Self::Invalid { problems, .. } if problems.iter().any(calls_for_two) => 2,
            Self::Invalid { .. } => 1,
        }
    }

    fn into_problems(self) -> Vec<Problem> {
        match self {
            Self::Invalid { problems, .. } => problems,
            Self::Missing { message, .. } => {
                let message = format!("the workflow file cannot be read: {message}");
                let problem = Problem::error(Code::MissingWorkflowFile, (1, 1), message);
                vec![problem.hint("put it back; until then the last good version stays in force")]
            }
        }
    }
}

/// What a look at the file found.
#[derive(Clone, Debug, PartialEq)]
pub enum Reload {
    /// Nothing new since the last look; a known problem is not reported again.
    Unchanged,
    /// A new version is in force.
    Changed(Box<Change>),
    /// The file is not usable, for these reasons; the last good version stays, nothing new may start (C75).
    Broken(Vec<Problem>),
    /// The file was broken and again says what is in force.
    Healed,
}

/// A new version.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What is in force now.
    pub workflow: Arc<Workflow>,
    /// Its warnings.
    pub problems: Vec<Problem>,
    /// Keys that changed and take effect only at the next start (C73).
    pub restart_needed: Vec<&'static str>,
}

/// A workflow file with its last good version.
pub struct WorkflowFile {
    path: PathBuf,
    environment: Environment,
    workflow: Arc<Workflow>,
    /// Of the version in force.
    good: [u8; 32],
    /// Of the version in force.
    problems: Vec<Problem>,
    /// Why the file on disk is not in force, and the hash of what was there, if anything was.
    broken: Option<(Option<[u8; 32]>, Vec<Problem>)>,
}

impl WorkflowFile {
    /// Reads `path` for the first time.
    ///
    /// # Errors
    /// When the file cannot be read or used; there is no last good version yet.
    pub fn load(path: &Path, environment: Environment) -> Result<Self, LoadError> {
        let absolute = std::path::absolute(path).map_err(|error| missing(path, &error))?;
        let bytes = read(&absolute)?;
        let good = Sha256::digest(&bytes).into();
        let (workflow, problems) = parse(&absolute, &environment, bytes)?;
        Ok(Self { path: absolute, environment, workflow: Arc::new(workflow), good, problems, broken: None })
    }

    /// The file, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version in force.
    pub fn workflow(&self) -> Arc<Workflow> {
        Arc::clone(&self.workflow)
    }

    /// Warnings of the version in force.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Why the file on disk is not in force; empty when it is.
    pub fn broken(&self) -> &[Problem] {
        self.broken.as_ref().map_or(&[], |(_, problems)| problems)
    }

    /// Whether new runs may start (C77).
    pub fn may_dispatch(&self) -> bool {
        self.broken.is_none()
    }

    /// Looks at the file again.
    pub fn reload(&mut self) -> Reload {
        let (hash, parsed) = match read(&self.path) {
            Err(error) => (None, Err(error)),
            Ok(bytes) => {
                let hash: [u8; 32] = Sha256::digest(&bytes).into();
                match &self.broken {
                    None if hash == self.good => return Reload::Unchanged,
                    Some((Some(known), _)) if *known == hash => return Reload::Unchanged,
                    Some(_) if hash == self.good => {
                        self.broken = None;
                        return Reload::Healed;
                    }
                    _ => (Some(hash), parse(&self.path, &self.environment, bytes).map(|parsed| (hash, parsed))),
                }
            }
        };
        match parsed {
            Ok((hash, (workflow, problems))) => {
                let restart_needed = restart_needed(&self.workflow, &workflow);
                self.workflow = Arc::new(workflow);
                (self.good, self.problems, self.broken) = (hash, problems.clone(), None);
                Reload::Changed(Box::new(Change { workflow: self.workflow(), problems, restart_needed }))
            }
            Err(error) => {
                let problems = error.into_problems();
                let known = self.broken.as_ref().is_some_and(|(_, known)| *known == problems);
                self.broken = Some((hash, problems.clone()));
                if known { Reload::Unchanged } else { Reload::Broken(problems) }
            }
        }
    }
}

/// The listener is bound once, and what is copied into machines is read once.
fn restart_needed(old: &Workflow, new: &Workflow) -> Vec<&'static str> {
    let changed = [
        ("server.port", old.server.port != new.server.port),
        ("server.host", old.server.host != new.server.host),
        ("server.auth", old.server.auth != new.server.auth),
        ("smolvm.volumes", old.smolvm.volumes != new.smolvm.volumes),
        ("smolvm.bin_path", old.smolvm.bin_path != new.smolvm.bin_path),
    ];
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

fn missing(path: &Path, error: &std::io::Error) -> LoadError {
    LoadError::Missing { path: path.to_owned(), message: error.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| missing(path, &error))?;
    // A FIFO or a device could block or never end.
    if !file.metadata().map_err(|error| missing(path, &error))?.is_file() {
        return Err(LoadError::Missing { path: path.to_owned(), message: "it is not a file".to_owned() });
    }
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| missing(path, &error))?;
    Ok(bytes)
}

fn parse(path: &Path, environment: &Environment, bytes: Vec<u8>) -> Result<(Workflow, Vec<Problem>), LoadError> {
    let refused = |line: usize, message: String| {
        let place = (u32::try_from(line).unwrap_or(u32::MAX), 1);
        LoadError::Invalid {
            path: path.to_owned(),
            problems: vec![Problem::error(Code::WorkflowParseError, place, message)],
        }
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refused(1, format!("the file is longer than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        refused(line, "the file is not UTF-8 text".to_owned())
    })?;
    let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
    let place = Place { dir, home: environment.home.clone(), env: &*environment.variable };
    Workflow::parse(&text, &place).map_err(|problems| LoadError::Invalid { path: path.to_owned(), problems })
}

#[cfg(test)]
mod tests;
