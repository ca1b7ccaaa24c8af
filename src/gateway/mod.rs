//! The guest's doors: what a run's sandbox can reach through its channel, and nothing else.

pub mod broker;
pub mod egress;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod mcp;
mod mcp_tools;
