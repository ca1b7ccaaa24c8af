//! symphony, the host program. Floors and their rules: `ARCHITECTURE.md`.

pub mod conductor;
pub mod sandbox;
pub mod tracker;
