//! symphony, the host program. Floors and their rules: `ARCHITECTURE.md`.

pub mod agent;
pub mod conductor;
pub mod gateway;
pub mod tracker;
