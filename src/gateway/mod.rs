//! The guest's doors: what a run's sandbox can reach through its channel, and nothing else.

pub mod mcp;
mod mcp_tools;
