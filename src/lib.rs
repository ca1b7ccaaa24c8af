//! symphony, the host program. Floors and their rules: `ARCHITECTURE.md`.

pub mod agent;
pub mod airlock;
pub mod app;
pub mod cli;
pub mod conductor;
pub mod egress;
pub mod failpoint;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod gateway;
pub mod git;
pub mod handoff;
pub mod hands;
pub mod hooks;
pub mod journal;
pub mod layout;
pub mod lock;
pub mod log;
pub mod memory;
pub mod metering;
pub mod nudge;
pub mod operator;
pub mod process;
pub mod random;
pub mod run;
pub mod sandbox;
#[cfg(test)]
#[path = "../tests/it/skip.rs"]
#[expect(dead_code, reason = "the tests of the real binary use all of it")]
mod skip;
pub mod storage;
pub mod tracker;
pub mod web;
pub mod workflow_file;
pub mod workspace;
