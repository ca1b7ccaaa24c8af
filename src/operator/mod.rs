//! The operator's local door: a unix socket on which programs of the same user ask a running symphony.
//!
//! One JSON object a line in, one out, one request a connection. It reads snapshots, and hands a person's words to the
//! conductor as the dashboard does; without it symphony runs all the same.

mod ask;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod hosts;
mod place;
mod raise;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

pub use ask::{AskError, ask, hosts, raise, tell};
pub use hosts::{Done, HostRow, Hosts};
pub use place::{Place, PlaceError, Socket, is_same_file};
pub use raise::Allowed;
pub use serve::serve;
pub use wire::{Accepted, Answer, Explanation, LastEnd, Of, Refusal, Request, Run, VERSION};
