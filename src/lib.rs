//! symphony, the host program. Floors and their rules: `ARCHITECTURE.md`.

pub mod agent;
pub mod cli;
pub mod conductor;
pub mod gateway;
pub mod journal;
pub mod log;
pub mod random;
pub mod run;
pub mod sandbox;
pub mod tracker;
