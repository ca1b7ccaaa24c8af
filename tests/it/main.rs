//! Tests of the real binary, in one test program so that linking happens once.

mod api;
mod bounds;
mod browser;
mod cli;
mod conformance;
mod edges;
mod explain;
mod fake_agent;
mod handoff_flow;
mod hostile;
mod http;
mod jail;
mod journey;
mod lifecycle;
mod machine;
mod numbers;
mod overload;
mod proposals;
mod rig;
mod soak;
mod states;
mod steering;
mod webdriver;
mod words_given;
