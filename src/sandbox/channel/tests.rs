//! The channel against the real guest program, in a process of its own, over a socket pair.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;

mod hostile;
mod lies;
mod trees;

/// Far above what this program and the library that starts children have open: a channel put on one of
/// their descriptors would be closed, or would close theirs, between fork and exec.
const CHANNEL_FD: i32 = 900;
const GUEST_FD: &str = "SYMPHONY_TEST_GUEST_DIR";
const LONG: Duration = Duration::from_secs(30);

/// Not a test of its own: the other tests start this binary again with a directory to be the guest program in.
#[test]
fn the_guest_program_of_the_other_tests() {
    if let Some(dir) = std::env::var_os(GUEST_FD) {
        let dir = std::path::PathBuf::from(dir);
        let mut args = vec!["run".into(), "--channel-fd".into(), CHANNEL_FD.to_string().into()];
        for name in ["work", "home", "state"] {
            args.push(format!("--{name}").into());
            args.push(dir.join(name).into());
        }
        symphony_guest::main(vec!["/bin/true".into()], args);
        std::process::exit(0);
    }
}

struct Rig {
    channel: Channel,
    info: HelloInfo,
    guest: Guest,
    dir: TempDir,
}

struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[allow(unsafe_code, reason = "a descriptor is handed to a child process")]
fn boot_guest(dir: &std::path::Path, uid: Option<u32>) -> (UnixStream, Guest) {
    use std::os::unix::process::CommandExt;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut program = std::env::current_exe().unwrap();
    if uid.is_some() {
        // The build directory may be closed to others.
        let copy = dir.join("guest");
        std::fs::copy(&program, &copy).unwrap();
        program = copy;
    }
    let mut command = Command::new(program);
    // So may be where the tester stands.
    command.current_dir(dir);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    command
        .args(["sandbox::channel::tests::the_guest_program_of_the_other_tests", "--exact", "--nocapture"])
        .arg("--test-threads=1")
        .env(GUEST_FD, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let fd = theirs.as_raw_fd();
    // SAFETY: only a system call between fork and exec.
    unsafe {
        command.pre_exec(
            move || if libc::dup2(fd, CHANNEL_FD) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) },
        );
    }
    let child = command.spawn().unwrap();
    (UnixStream::from_std(ours).unwrap(), Guest(child))
}

async fn boot_in(dir: TempDir) -> Rig {
    let (io, guest) = boot_guest(dir.path(), None);
    let (channel, info) = Channel::open(io, "token", LONG).await.unwrap();
    Rig { channel, info, guest, dir }
}

async fn boot() -> Rig {
    boot_in(tempfile::tempdir().unwrap()).await
}

fn sh(script: &str) -> SpawnRequest {
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    SpawnRequest { program: Program::Argv(vec!["sh".into(), "-c".into(), script.into()]), env, cwd: None }
}

async fn finish(process: Process) -> (Exit, String, String) {
    let Process { stdin, mut stdout, mut stderr, exit, killer: _ } = process;
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let (o, e, exit) =
        timeout(LONG, async { tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err), exit) })
            .await
            .unwrap();
    o.unwrap();
    e.unwrap();
    (exit.unwrap(), out, err)
}

fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

async fn dies(pid: &str) {
    timeout(LONG, async {
        while alive(pid) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the process is gone");
}

#[tokio::test]
async fn a_hello_tells_what_the_guest_is_and_what_it_kept() {
    let rig = boot().await;
    assert_eq!(rig.info.version, VERSION);
    assert!(!rig.info.tree);
    assert_eq!(rig.info.marker, None);
    rig.channel.ping(LONG).await.unwrap();
    rig.channel.marker("checkpoint 7").await.unwrap();
    rig.channel.shutdown(LONG).await.unwrap();
    assert_eq!(rig.channel.closed().await, Ended::Peer);
    let Rig { guest, dir, channel, .. } = rig;
    drop((guest, channel));
    let again = boot_in(dir).await;
    assert_eq!(again.info.marker.as_deref(), Some("checkpoint 7"));
}

#[tokio::test]
async fn bytes_echo_through_a_spawned_program_until_its_stdin_closes() {
    let rig = boot().await;
    let mut cat = rig.channel.spawn(sh("cat; echo over >&2; exit 7")).await.unwrap();
    for round in 0..50 {
        let line = format!("line {round}\n");
        cat.stdin.write_all(line.as_bytes()).await.unwrap();
        let mut back = vec![0; line.len()];
        timeout(LONG, cat.stdout.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, line.as_bytes());
    }
    let (exit, out, err) = finish(cat).await;
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Code(7), "", "over\n"));
}

#[tokio::test]
async fn a_program_gets_exactly_the_environment_given_and_the_work_tree_as_its_directory() {
    let rig = boot().await;
    let (_, out, _) = finish(rig.channel.spawn(sh("/usr/bin/env; pwd")).await.unwrap()).await;
    let mut lines: Vec<_> = out.lines().filter(|l| !l.starts_with("PWD=") && !l.starts_with("_=")).collect();
    lines.retain(|l| !l.starts_with("SHLVL=") && !l.starts_with("OLDPWD="));
    let work = rig.dir.path().canonicalize().unwrap().join("work");
    assert_eq!(lines, ["PATH=/usr/bin:/bin", work.to_str().unwrap()]);
    let (_, fds, _) = finish(rig.channel.spawn(sh("ls /proc/self/fd")).await.unwrap()).await;
    // 3 is the directory that ls reads.
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn a_program_that_cannot_start_is_a_refusal_that_names_it() {
    let rig = boot().await;
    let mut request = sh("");
    request.program = Program::Argv(vec!["no-such-program".into()]);
    match rig.channel.spawn(request).await {
        Err(ChannelError::Refused(r)) => {
            assert_eq!(r.kind, RefusalKind::Spawn);
            assert!(r.message.contains("no-such-program"), "{}", r.message);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_slow_reader_of_one_stream_does_not_hold_up_the_others() {
    let rig = boot().await;
    let mut slow = rig.channel.spawn(sh("head -c 8000000 /dev/zero")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let parallel = (0..8).map(|n| {
        let channel = rig.channel.clone();
        async move {
            let process = channel.spawn(sh(&format!("head -c {} /dev/zero; exit {n}", 1_000_000 + n))).await.unwrap();
            let (exit, out, _) = finish(process).await;
            assert_eq!((exit, out.len()), (Exit::Code(n), 1_000_000 + usize::try_from(n).unwrap()));
        }
    });
    timeout(LONG, futures::future::join_all(parallel)).await.unwrap();
    let mut total = 0;
    let mut buffer = vec![0; 70_000];
    loop {
        let n = timeout(LONG, slow.stdout.read(&mut buffer)).await.unwrap().unwrap();
        if n == 0 {
            break;
        }
        total += n;
    }
    assert_eq!(total, 8_000_000);
    assert_eq!(slow.exit.await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn a_program_that_never_reads_its_stdin_can_still_be_killed() {
    let rig = boot().await;
    let mut process = rig.channel.spawn(sh("exec sleep 1000")).await.unwrap();
    let flood = timeout(Duration::from_secs(1), process.stdin.write_all(&vec![0; 4_000_000])).await;
    assert!(flood.is_err(), "the flood is held back");
    process.killer.kill();
    assert_eq!(timeout(LONG, process.exit).await.unwrap().unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn dropping_the_exit_kills_the_whole_group() {
    let rig = boot().await;
    let mut process = rig.channel.spawn(sh("sleep 1000 & echo $!; wait")).await.unwrap();
    let mut pid = vec![0; 32];
    let n = timeout(LONG, process.stdout.read(&mut pid)).await.unwrap().unwrap();
    let pid = String::from_utf8(pid[..n].to_vec()).unwrap();
    assert!(alive(&pid));
    drop(process.exit);
    dies(&pid).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_delay_its_exit() {
    let rig = boot().await;
    let process = rig.channel.spawn(sh("sleep 1000 & echo $!; exit 3")).await.unwrap();
    let (exit, pid, _) = finish(process).await;
    assert_eq!(exit, Exit::Code(3));
    dies(&pid).await;
}

#[tokio::test]
async fn when_the_channel_closes_everything_in_the_guest_dies() {
    let mut rig = boot().await;
    let mut process = rig.channel.spawn(sh("sleep 1000 & echo $!; wait")).await.unwrap();
    let mut pid = vec![0; 32];
    let n = timeout(LONG, process.stdout.read(&mut pid)).await.unwrap().unwrap();
    let pid = String::from_utf8(pid[..n].to_vec()).unwrap();
    drop(rig.channel);
    dies(&pid).await;
    let status = timeout(LONG, tokio::task::spawn_blocking(move || rig.guest.0.wait())).await.unwrap().unwrap();
    assert!(status.unwrap().success());
    assert!(matches!(process.exit.await, Err(ChannelError::Closed(_))));
}

#[tokio::test]
async fn when_the_guest_program_is_killed_every_call_ends() {
    let mut rig = boot().await;
    let process = rig.channel.spawn(sh("exec sleep 1000")).await.unwrap();
    let mut incoming = rig.channel.listen(0).await.unwrap();
    rig.guest.0.kill().unwrap();
    assert!(matches!(timeout(LONG, process.exit).await.unwrap(), Err(ChannelError::Closed(_))));
    assert!(timeout(LONG, incoming.accept()).await.unwrap().is_none());
    assert!(matches!(timeout(LONG, rig.channel.ping(LONG)).await.unwrap(), Err(ChannelError::Closed(_))));
}

#[tokio::test]
async fn a_connection_inside_the_guest_arrives_here_and_half_closes_pass_both_ways() {
    let rig = boot().await;
    let mut incoming = rig.channel.listen(0).await.unwrap();
    let mut client = tokio::net::TcpStream::connect(("127.0.0.1", incoming.port())).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut relay = timeout(LONG, incoming.accept()).await.unwrap().unwrap();
    let mut heard = String::new();
    timeout(LONG, relay.read_to_string(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, "question");
    relay.write_all(b"answer").await.unwrap();
    relay.shutdown().await.unwrap();
    let mut back = String::new();
    timeout(LONG, client.read_to_string(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, "answer");
    let port = incoming.port();
    drop(incoming);
    timeout(LONG, async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the port closes");
}

#[tokio::test]
async fn a_relay_that_breaks_here_is_a_broken_connection_there() {
    let rig = boot().await;
    let mut incoming = rig.channel.listen(0).await.unwrap();
    let mut client = tokio::net::TcpStream::connect(("127.0.0.1", incoming.port())).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let mut relay = timeout(LONG, incoming.accept()).await.unwrap().unwrap();
    relay.write_all(b"half an ans").await.unwrap();
    let mut half = [0; 11];
    timeout(LONG, client.read_exact(&mut half)).await.unwrap().unwrap();
    drop(relay);
    let end = timeout(LONG, client.read(&mut half)).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_port_that_is_taken_and_one_listener_too_many_are_refusals() {
    let rig = boot().await;
    let first = rig.channel.listen(0).await.unwrap();
    assert!(
        matches!(rig.channel.listen(first.port()).await, Err(ChannelError::Refused(r)) if r.kind == RefusalKind::Listen)
    );
    let mut held = vec![first];
    for _ in 1..wire::MAX_LISTENERS {
        held.push(rig.channel.listen(0).await.unwrap());
    }
    assert!(matches!(rig.channel.listen(0).await, Err(ChannelError::Refused(r)) if r.kind == RefusalKind::TooLarge));
}

/// The version of Landlock the kernel has; scopes came with 6.
#[allow(unsafe_code, reason = "a system call without a wrapper")]
fn landlock_abi() -> i64 {
    // SAFETY: asks for the version; no pointer is followed.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, 1u32) }
}

#[tokio::test]
async fn an_agent_can_neither_read_nor_trace_nor_signal_the_guest_program() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let dir = tempfile::tempdir().unwrap();
    // Root may read everything: what a user may is the question.
    let uid = rustix::process::geteuid().is_root().then_some(61_234);
    if uid.is_some() {
        chown(dir.path(), uid, uid).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (io, _guest) = boot_guest(dir.path(), uid);
    let (channel, _) = Channel::open(io, "token", LONG).await.unwrap();
    let try_all = "try() { if ls /proc/$1/fd; then echo $2-fd; fi; if cat /proc/$1/environ; then echo $2-environ; fi; \
                   if (exec 4</proc/$1/mem); then echo $2-mem; fi; if kill -0 $1; then echo $2-signal; fi; } 2>/dev/null; \
                   sleep 1000 & try $! own; try $PPID guest; kill $!; exit 0";
    let (_, out, _) = finish(channel.spawn(sh(try_all)).await.unwrap()).await;
    for control in ["own-fd", "own-environ", "own-mem", "own-signal"] {
        assert!(out.contains(control), "the same attempt on a process of its own works: {control}: {out}");
    }
    for attack in ["guest-fd", "guest-environ", "guest-mem"] {
        assert!(!out.contains(attack), "{attack}: {out}");
    }
    assert_eq!(out.contains("guest-signal"), landlock_abi() < 6, "{out}");
}

#[tokio::test]
async fn idle_counts_from_the_last_bytes_of_payload() {
    let rig = boot().await;
    let quiet = rig.channel.spawn(sh("exec sleep 1000")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(rig.channel.idle() >= Duration::from_secs(1));
    rig.channel.ping(LONG).await.unwrap();
    assert!(rig.channel.idle() < Duration::from_secs(1));
    drop(quiet);
}

/// An agent with many parts asks many models at once; beyond the bound a connection waits, and none is lost.
#[tokio::test]
async fn fifty_connections_of_one_port_are_open_together_and_more_than_may_be_wait_for_their_turn() {
    let rig = boot().await;
    let mut incoming = rig.channel.listen(0).await.unwrap();
    let port = incoming.port();
    tokio::spawn(async move {
        while let Some(mut stream) = incoming.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(&mut stream);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    let mut open = vec![];
    for _ in 0..100 {
        open.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let echo = async |stream: &mut tokio::net::TcpStream| {
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.map(drop)
    };
    for stream in &mut open[..50] {
        timeout(LONG, echo(stream)).await.unwrap().unwrap();
    }
    let late = open.split_off(64);
    drop(open);
    for mut stream in late {
        timeout(LONG, echo(&mut stream)).await.unwrap().unwrap();
    }
}

/// Our tools must answer an agent whatever else it holds.
#[tokio::test]
async fn a_listener_whose_neighbours_are_full_still_carries_connections() {
    let rig = boot().await;
    let mut held = vec![];
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..2 {
        let mut incoming = rig.channel.listen(0).await.unwrap();
        for _ in 0..80 {
            held.push(tokio::net::TcpStream::connect(("127.0.0.1", incoming.port())).await.unwrap());
        }
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let mut streams = vec![];
            while let Some(stream) = incoming.accept().await {
                streams.push(stream);
                arrived.send(()).unwrap();
            }
        });
    }
    // Both have what is everybody's, and each its own.
    for _ in 0..112 {
        timeout(LONG, arrivals.recv()).await.unwrap().unwrap();
    }
    let mut tools = rig.channel.listen(0).await.unwrap();
    for _ in 0..3 {
        let mut program = tokio::net::TcpStream::connect(("127.0.0.1", tools.port())).await.unwrap();
        let mut here = timeout(LONG, tools.accept()).await.unwrap().unwrap();
        here.write_all(b"done").await.unwrap();
        timeout(LONG, program.read_exact(&mut [0; 4])).await.unwrap().unwrap();
        held.push(program);
    }
    assert!(arrivals.try_recv().is_err(), "the others were full all the time");
}
