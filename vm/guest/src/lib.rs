//! What runs inside a sandbox, and the words it shares with the host: the wire protocol, the multiplexer, the guest
//! program, the script agent, and the reaper for a pid namespace's first process.
//!
//! The guest program needs nothing in the guest but a kernel (git and sh are only spawned) and no privilege. It must
//! never trust what it spawns, and never outlive its channel.

mod check;
mod child;
mod enter;
mod export;
mod git;
pub mod init;
mod listen;
pub mod machine;
pub mod mux;
mod run;
mod script;
mod seed;
mod serve;
mod spawn;
mod state;
mod stdio;
pub mod wire;

pub use run::main;
