//! What the broker costs, as ratios: a request straight to a server on this machine, the same through a guest's channel
//! alone, and the same through channel and broker, in turn, in one run. Started by `scripts/bench-broker`.
//! Nothing here is a test: figures are printed, never asserted.

mod client;
mod host;
#[path = "../sandbox/series.rs"]
mod series;
mod server;
mod worked;

/// What this process is: the broker's, or one of the other two.
const ROLE: &str = "SYMPHONY_BENCH_ROLE";

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("server") => server::main(),
        Ok("client") => client::main(),
        _ => host::main(),
    }
}
