//! The asking end, for the command line: blocking, one request, one answer.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::hosts::Hosts;
use super::place::{Place, PlaceError};
use super::raise::Allowed;
use super::wire::{Accepted, Answer, Line, Refusal, Request, VERSION};

/// Longest answer, in bytes: far above what a tracker of a hundred thousand issues takes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// How long the other end may be silent; its own deadline is shorter.
const SILENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no symphony listens at {}", .0.display())]
    Nobody(std::path::PathBuf),
    /// The socket's directory is not to be trusted.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It listens, but says nothing one can understand.
    #[error("symphony does not answer: {0}")]
    Silent(String),
    /// It understood and refuses.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// Asks the symphony of `place` about one issue, or about all.
///
/// # Errors
/// When nobody answers, or the answer is no.
pub fn ask(place: &Place, issue: Option<&str>) -> Result<Answer, AskError> {
    exchange(
        place,
        &Request { v: VERSION, command: "explain".to_owned(), issue: issue.map(str::to_owned), ..Request::default() },
    )
}

/// Hands a person's words to the symphony of `place`.
///
/// # Errors
/// When nobody answers, or the words are not taken. After [`AskError::Silent`] they may have been.
pub fn tell(place: &Place, request: &Request) -> Result<Accepted, AskError> {
    exchange(place, request)
}

/// Asks the symphony of `place` about hosts, or hands it a person's word about one.
///
/// # Errors
/// As [`tell`].
pub fn hosts(place: &Place, request: &Request) -> Result<Hosts, AskError> {
    exchange(place, request)
}

/// Asks the symphony of `place` to allow more of a budget.
///
/// # Errors
/// As [`tell`].
pub fn raise(place: &Place, request: &Request) -> Result<Allowed, AskError> {
    exchange(place, request)
}

fn exchange<T: DeserializeOwned>(place: &Place, request: &Request) -> Result<T, AskError> {
    let said = |error: std::io::Error| AskError::Silent(error.to_string());
    let mut stream = place.connect()?.ok_or_else(|| AskError::Nobody(place.path()))?;
    stream.set_read_timeout(Some(SILENCE)).and_then(|()| stream.set_write_timeout(Some(SILENCE))).map_err(said)?;
    let mut line = serde_json::to_vec(request).map_err(|error| AskError::Silent(error.to_string()))?;
    line.push(b'\n');
    // An answer may come before all is read: too long a question is refused.
    let written = stream.write_all(&line);
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(said)?;
    if answer.is_empty() {
        written.map_err(said)?;
        return Err(AskError::Silent("it closed the connection".to_owned()));
    }
    match serde_json::from_slice::<Line<T, Refusal>>(&answer) {
        Ok(Line::Answered(answer)) => Ok(answer),
        Ok(Line::Refused { error }) => Err(AskError::Refused(error)),
        Err(error) => Err(AskError::Silent(format!("it speaks another version ({error})"))),
    }
}
