//! Words and decisions of symphony.
//!
//! Floor 0 (plain data): [`ids`], [`issue`], [`front_matter`], [`money`], [`time`], [`yaml`], [`json_weight`].
//! Floor 1 (decisions): [`board`], [`budget`], [`egress`], [`turn`], [`prompt`], [`patience`], [`retention`], [`runtimes`],
//! [`session`], [`snapshot`], [`spend`], [`explain`], and [`workflow`], because reading a workflow test-renders its prompt. `tests/tidy.rs` keeps imports going down.
//!
//! Nothing in this crate reads a clock, a file, the environment or a socket, and nothing logs:
//! time and facts are arguments, the answer is data. See `ARCHITECTURE.md` at the repository root.

pub mod board;
pub mod broker;
pub mod budget;
pub mod egress;
pub mod explain;
pub mod front_matter;
pub mod ids;
pub mod issue;
pub mod json_weight;
pub mod money;
pub mod patience;
pub mod prompt;
pub mod retention;
pub mod runtimes;
pub mod session;
pub mod snapshot;
pub mod spelling;
pub mod spend;
pub mod steering;
pub mod time;
pub mod turn;
pub mod workflow;
pub mod yaml;
