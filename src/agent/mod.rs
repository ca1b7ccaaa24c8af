//! The agent of a run: how it is launched, how it is spoken with (ACP), what it may ask of us (tools).
//!
//! Never executes, sources or trusts what an agent says: its words become data, events and a transcript.

pub mod activity;
mod chunks;
pub mod error;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod ignored;
pub mod mark_done;
mod peer;
pub mod permission;
pub mod profile;
pub mod readable;
pub mod redact;
pub mod session;
pub mod stderr;
pub mod tools;
pub mod transcript;
pub mod turn;
mod update;
mod wire;

pub use activity::Activity;
pub use error::AgentError;
pub use event::AgentEvent;
pub use redact::Secrets;
pub use session::{McpServer, Session, StartOptions};
pub use transcript::Transcript;
pub use turn::{Turn, TurnEnd, Usage};
