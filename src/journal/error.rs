//! What can be wrong with a journal, said to the operator: which file, what, and a safe way on.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// What went wrong with the journal; every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Opening, reading or writing failed for a reason that is none of those below.
    #[error("the journal {path} cannot be used: {message} (hint: `symphony journal check` says more)")]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        message: String,
    },
    /// No room is left. Nothing was lost: what did not fit was not promised.
    #[error("the journal {path} cannot grow: {message} (hint: make room on that disk; symphony goes on by itself)")]
    Full {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        message: String,
    },
    /// The file, its directory or its file system does not let us write.
    #[error(
        "the journal {path} cannot be written: {message} (hint: symphony needs to write this file and its directory)"
    )]
    ReadOnly {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        message: String,
    },
    /// Its bytes are not what was written.
    #[error(
        "the journal {path} is damaged: {message} (hint: `symphony journal export` saves what can still be read; then move the file away and start again: issues, patches and work disks are kept, counters and open questions are forgotten)"
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A newer symphony wrote it.
    #[error(
        "the journal {path} has format {found}, this symphony knows up to {known} (hint: use the newer symphony, or put the copy back that it kept beside the journal as {kept})"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
        /// The name of the copy in our format.
        kept: String,
    },
    /// There is none.
    #[error("there is no journal at {0} (hint: symphony makes it when it first runs on a workflow)")]
    Missing(PathBuf),
    /// The write crashed.
    #[error("the journal crashed; this is a bug in symphony")]
    Crashed,
}

impl JournalError {
    /// What SQLite said about the database at `path`, for a reader.
    pub(super) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let (path, message) = (path.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path, message },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                Self::ReadOnly { path, message }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { path, message },
            _ => Self::Unusable { path, message },
        }
    }
}
