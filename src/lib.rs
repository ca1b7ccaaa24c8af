//! symphony, the host program. Floors and their rules: `ARCHITECTURE.md`.

pub mod airlock;
pub mod conductor;
pub mod git;
pub mod handoff;
pub mod hooks;
pub mod process;
pub mod tracker;
pub mod workspace;
