//! Attacks that a machine survives, one a line on the channel, each answered by a line of JSON: a text.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::{read_line, search, start};

pub(crate) fn obey(mut port: File) {
    start::root();
    while let Some(line) = read_line(&mut port) {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match word {
            "sh" => shell(rest),
            "console" => console(rest.parse().unwrap_or(0)),
            "memory" => memory(),
            "processes" => processes(),
            "find" => search::find(rest),
            "plant" => search::plant(rest),
            other => format!("no such order: {other}"),
        };
        let mut line = serde_json::to_vec(&answer).expect("plain data");
        line.push(b'\n');
        if port.write_all(&line).is_err() {
            break;
        }
    }
}

/// A script as root of the machine.
fn shell(script: &str) -> String {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").stdin(Stdio::null());
    // SAFETY: two system calls between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::chroot(start::ROOT).and_then(|()| rustix::process::chdir("/"))?))
    };
    match command.output() {
        Ok(output) => {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => error.to_string(),
    }
}

/// Writes so many KiB to the console.
fn console(kib: usize) -> String {
    let line = [&[b'c'; 127][..], b"\n"].concat().repeat(8);
    let wrote = (0..kib).take_while(|_| std::io::stdout().write_all(&line).is_ok()).count();
    format!("{wrote}")
}

/// A child that takes memory until it is killed.
fn memory() -> String {
    // SAFETY: one thread; the child only allocates, and ends by a signal or by leaving.
    match unsafe { libc::fork() } {
        0 => {
            let mut taken = Vec::new();
            for _ in 0..64 * 1024 {
                taken.push(vec![1_u8; 1024 * 1024]);
            }
            std::process::exit(i32::from(taken.len() > 1_000_000));
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if libc::WIFSIGNALED(status) { format!("signal {}", libc::WTERMSIG(status)) } else { "ended".to_owned() }
        }
    }
}

/// Starts processes that stay, until no more can be had.
fn processes() -> String {
    let mut started = 0;
    while started < 100_000 {
        // SAFETY: one thread; the child only waits for its end.
        match unsafe { libc::fork() } {
            -1 => break,
            0 => loop {
                // SAFETY: no memory is involved.
                unsafe { libc::pause() };
            },
            _ => started += 1,
        }
    }
    format!("{started}")
}
