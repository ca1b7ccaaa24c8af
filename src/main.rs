//! The program's door: what a process is to be is decided before any thread exists.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|word| word.to_str()) {
        Some(symphony::sandbox::jail::LAUNCHER_WORD) => symphony::sandbox::jail::launcher_main(&args[2..]),
        _ => ExitCode::SUCCESS,
    }
}
