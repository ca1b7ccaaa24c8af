//! The program's door: what a process is to be is decided before any thread exists.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use symphony::cli::{Arguments, Verb};
use symphony::sandbox::jail;

/// Re-executed inside a jail, the program is its guest.
const GUEST_WORD: &str = "__guest";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|word| word.to_str()) {
        Some(jail::LAUNCHER_WORD) => return jail::launcher_main(&args[2..]),
        Some(GUEST_WORD) => {
            let itself = std::env::current_exe().map_or_else(|_| args[0].clone(), Into::into);
            return symphony_guest::main(vec![itself, GUEST_WORD.into()], args[2..].to_vec());
        }
        _ => {}
    }
    let arguments = match Arguments::try_parse_from(&args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to stdout and is a success; everything else is wrong usage.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Some(message) = arguments.unknown_command() {
        eprintln!("symphony: {message}");
        return ExitCode::from(2);
    }
    match &arguments.verb {
        Some(Verb::Explain(question)) => return question.run(),
        Some(Verb::Answer(answer)) => return answer.run(),
        Some(Verb::Say(say)) => return say.run(),
        Some(Verb::Journal(journal)) => return journal.run(),
        Some(Verb::Log(log)) => return log.run(),
        Some(Verb::Egress(egress)) => return egress.run(),
        Some(Verb::Raise(raise)) => return raise.run(),
        Some(Verb::Doctor(_) | Verb::Gc(_)) | None => {}
    }
    let examining = matches!(arguments.verb, Some(Verb::Doctor(_)));
    if !examining {
        symphony::log::start(std::env::var("SYMPHONY_LOG_LEVEL").ok().as_deref());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("symphony: cannot start its threads: {error}");
            return ExitCode::from(1);
        }
    };
    let code = match &arguments.verb {
        Some(Verb::Doctor(doctor)) => runtime.block_on(doctor.run()),
        Some(Verb::Gc(gc)) => runtime.block_on(gc.run()),
        _ => runtime.block_on(symphony::app::run(arguments)),
    };
    // A blocking call that hangs (a dead disk) must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    code
}
