//! The guest program does nothing before its host says something: a template may be saved at that point.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn before_the_first_byte_of_its_channel_the_guest_program_touches_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let [work, home, state] = ["work", "home", "state"].map(|name| place.path().join(name));
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    let mut program = Command::new(env!("CARGO_BIN_EXE_symphony-guest"));
    program.args(["run", "--channel-fd", "3"]).current_dir(place.path()).stdin(Stdio::null());
    program.arg("--work").arg(&work).arg("--home").arg(&home).arg("--state").arg(&state);
    let fd = theirs.as_raw_fd();
    // SAFETY: one system call on a descriptor that lives until the program is started.
    unsafe {
        program.pre_exec(move || {
            let done = if fd == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(fd, 3) };
            if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    let mut program = program.spawn().expect("it starts");
    drop(theirs);
    // Asleep again and again: it waits.
    let mut asleep = 0;
    while asleep < 20 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.id())).expect("it runs");
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        asleep = if state == Some('S') { asleep + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!work.exists() && !home.exists() && !state.exists(), "it made its directories before it was spoken to");
    // The control: spoken to, it begins.
    ours.write_all(&[0]).expect("written");
    while !state.exists() {
        assert!(program.try_wait().expect("it can be waited for").is_none(), "it ended before it began");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(ours);
    program.wait().expect("it ends with its channel");
}
