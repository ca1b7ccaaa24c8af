//! The guest program as a binary of its own, for guests that cannot run the host program. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if symphony_guest::machine::is_first() {
        return symphony_guest::machine::main();
    }
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_else(|| "symphony-guest".into());
    // By its own path where there is one: the working directory of a spawned agent is another.
    let program = std::env::current_exe().map_or(program, Into::into);
    symphony_guest::main(vec![program], args.collect())
}
