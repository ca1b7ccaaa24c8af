//! symphony, the host program. Floors and their rules: `ARCHITECTURE.md`.

pub mod conductor;
pub mod nudge;
pub mod tracker;
pub mod workflow_file;
