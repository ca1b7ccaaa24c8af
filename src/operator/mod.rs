//! The operator's local door: a unix socket on which programs of the same user ask a running symphony.
//!
//! One JSON object a line in, one out, one request a connection. It reads snapshots only; nothing here changes
//! anything, and without it symphony runs all the same.

mod ask;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod place;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

pub use ask::{AskError, ask};
pub use place::{Place, PlaceError, Socket};
pub use serve::serve;
pub use wire::{Answer, Explanation, LastEnd, Of, Refusal, Request, Run, VERSION};
