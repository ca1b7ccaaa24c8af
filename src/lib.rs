//! symphony, the host program. Floors and their rules: `ARCHITECTURE.md`.

pub mod conductor;
pub mod journal;
pub mod random;
pub mod tracker;
