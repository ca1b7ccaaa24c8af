//! What can be wrong with a journal, said to the operator: which file, what, and a safe way on.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// What went wrong with the journal; every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Opening, reading or writing failed for a reason that is none of those below.
    #[error(
        "the journal {path} cannot be used: {message} (hint: see that its disk works and that no other program has it open)"
    )]
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
        "the journal {path} is damaged: {message} (hint: `symphony journal export --output FILE` saves what can still be read; then move {path}, {path}-wal and {path}-shm away together and start again: issues, patches, work disks and run numbers are kept, counters and open questions are forgotten)"
    )]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The database is sound, but its events are not those that were written.
    #[error(
        "the journal {path} does not hold what was written: {message} (hint: symphony can go on with it, but from there on it proves nothing; keep what `symphony journal export --output FILE` gives, and to begin a new one move {path}, {path}-wal and {path}-shm away together: issues, patches, work disks and run numbers are kept, counters and open questions are forgotten)"
    )]
    Broken {
        /// The database file.
        path: PathBuf,
        /// The first fault, with its place.
        message: String,
    },
    /// An older symphony wrote it.
    #[error(
        "the journal {path} has format {found}, this symphony writes {known} (hint: start symphony on it once: it brings it up to date and keeps a copy)"
    )]
    Older {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The key that signs checkpoints.
    #[error(
        "the key {path} cannot be used: {message} (hint: put the right one back; if it is lost, move this one away; `symphony journal compact --new-key` then makes a new one and signs the checkpoint with it)"
    )]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong; never what it holds.
        message: String,
    },
    /// What was exported cannot be written.
    #[error("the export cannot be written: {0}")]
    Output(std::io::Error),
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
    /// Another file has its name, or none.
    #[error(
        "the journal {0} is not the file any more that symphony writes to: it was moved, removed or replaced (hint: put the one back that was there, and symphony goes on by itself; or stop it and start it again with what is there now)"
    )]
    Replaced(PathBuf),
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
            // What we ask is always the same: tables that do not know it are not those that symphony made.
            _ if matches!(error, rusqlite::Error::SqlInputError { .. }) => Self::Damaged { path, message },
            _ if is_strange(error) => Self::Damaged { path, message },
            _ => Self::Unusable { path, message },
        }
    }
}

/// Whether a value was read that symphony does not write: the database is sound, what it holds is not.
pub(super) fn is_strange(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}
