//! What the tests of the jail share: booting a shell in one, and running a test as two users.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::skip::{pass_on, skip};
use symphony::sandbox::jail::Jail;
use symphony::sandbox::{BootError, BootSpec, Ending, Guest, Sandbox};
use symphony_core::ids::RunId;
use tokio::io::AsyncReadExt;

/// Generous: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);
const AS_USER: &str = "SYMPHONY_TEST_AS_USER";
/// Where the ordinary user finds the binary under test.
const PROGRAM: &str = "SYMPHONY_TEST_PROGRAM";
/// The ordinary user that root becomes for the second round.
pub(crate) const USER: u32 = 65534;

/// Runs the body, and when root, once more as an ordinary user. `name` is the test's own path.
pub(crate) fn both_ways<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Bench) -> F) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::new();
        if let Err(BootError::Forbidden { message, hint }) = bench.jail.trial(None).await {
            // Asked of somebody else, so that a broken jail cannot pass for a strict machine.
            let others =
                "unshare --user --map-root-user --mount --net --ipc --uts --pid --fork mount -t proc proc /proc";
            let refused = outside(&format!("{others} 2>/dev/null && echo allowed"));
            assert_eq!(refused, "", "this machine allows namespaces, but the jail says: {message}");
            skip(format_args!("{message}: {hint}"));
            return;
        }
        body(bench).await;
    });
    if is_root() {
        as_user(name);
    }
}

/// The binary under test, where whoever runs this can execute it.
pub(crate) fn program() -> PathBuf {
    std::env::var_os(PROGRAM).map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_symphony")), PathBuf::from)
}

/// The same file for an ordinary user: a checkout may stand where only its owner gets, as below root's home.
pub(crate) fn reachable(place: &Path, file: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let opened = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place, opened).expect("opened");
    let copy = place.join(file.file_name().expect("a name"));
    if std::fs::hard_link(file, &copy).is_err() {
        std::fs::copy(file, &copy).expect("copied");
    }
    copy
}

/// Runs the test of this name once more as an ordinary user. Only root can.
pub(crate) fn as_user(name: &str) {
    let place = tempfile::tempdir().expect("a directory");
    let me = reachable(place.path(), &std::env::current_exe().expect("this test program has a path"));
    let mut again = Command::new(me);
    again.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(AS_USER, "1").env("TMPDIR", "/tmp");
    again.env(PROGRAM, reachable(place.path(), &program())).current_dir("/").uid(USER).gid(USER);
    let output = again.output().expect("the test program starts as an ordinary user");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    pass_on(&format!("as user {USER}"), &errors);
    println!("--- as user {USER}:\n{text}{errors}");
    assert!(output.status.success(), "as user {USER}:\n{text}{errors}");
    assert!(text.contains("1 passed"), "the test must run as user {USER}: {text}");
}

/// What only one user can do was done by that one when this is the second round.
pub(crate) fn skip_unless_again(reason: &str) {
    if std::env::var_os(AS_USER).is_none() {
        skip(reason);
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A jail and a place for its disks.
pub(crate) struct Bench {
    pub(crate) jail: Jail,
    pub(crate) place: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { jail: Jail::new(program()), place: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.place.path().join("disk")
    }

    pub(crate) fn spec(&self, script: &str) -> BootSpec {
        BootSpec {
            run: RunId(unique()),
            disk: self.disk(),
            image: None,
            packages: Vec::new(),
            templates: false,
            read_only: Vec::new(),
            cpus: 0,
            memory_mib: 512,
            pids: 128,
            file_size_mib: 64,
            disk_mib: 0,
            deadline: SOON,
            program: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        }
    }

    pub(crate) async fn boot(&self, script: &str) -> Guest {
        self.jail.boot(self.spec(script)).await.expect("the jail boots")
    }

    /// Runs a script to its end; returns what it wrote to descriptor 3, and how it ended.
    pub(crate) async fn run_spec(&self, spec: BootSpec) -> (String, Ending) {
        let mut guest = self.jail.boot(spec).await.expect("the jail boots");
        let mut said = Vec::new();
        let read = tokio::time::timeout(SOON, guest.io.read_to_end(&mut said)).await;
        read.expect("the script ends in time").expect("the channel can be read");
        let ending = tokio::time::timeout(SOON, guest.wait()).await.expect("the jail ends in time");
        (String::from_utf8_lossy(&said).into_owned(), ending)
    }

    pub(crate) async fn run(&self, script: &str) -> (String, Ending) {
        self.run_spec(self.spec(script)).await
    }

    /// Boots, reads at most one line of descriptor 3 for a few seconds, and stops.
    pub(crate) async fn run_until_line(&self, spec: BootSpec) -> String {
        let mut guest = self.jail.boot(spec).await.expect("the jail boots");
        let mut line = String::new();
        let mut lines = tokio::io::BufReader::new(&mut guest.io);
        let read = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line);
        let _ = tokio::time::timeout(Duration::from_secs(10), read).await;
        guest.stop(Duration::from_millis(10)).await;
        line
    }

    /// The script's output on descriptor 3, trimmed; its exit code must be 0.
    pub(crate) async fn say(&self, script: &str) -> String {
        let (said, ending) = self.run(&format!("exec >&3\n{script}")).await;
        assert_eq!(ending.code, Some(0), "{said}\n{ending:?}");
        said.trim().to_owned()
    }
}

/// Run numbers that do not repeat within this test program.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The same script outside any jail: the control of an attack.
pub(crate) fn outside(script: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", script]).output().expect("a shell runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits until no process carries the mark in its arguments.
pub(crate) async fn gone(mark: &str) -> bool {
    for _ in 0..100 {
        if !alive(mark) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// Whether a process carries the mark as one of its arguments.
pub(crate) fn alive(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    processes.map(|process| process.path().join("cmdline")).any(|path: PathBuf| carries(&path, mark))
}

fn carries(cmdline: &Path, mark: &str) -> bool {
    let text = std::fs::read(cmdline).unwrap_or_default();
    text.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())
}

/// The process that keeps the gate of the jail in which a process carries the mark.
pub(crate) fn launcher_of(mark: &str) -> Option<i32> {
    let mut pid = processes().find(|pid| carries(&Path::new("/proc").join(pid.to_string()).join("cmdline"), mark))?;
    // Up to the last process whose arguments are a launcher's: pid 1 shares them with its parent.
    let mut found = None;
    while pid > 1 {
        if carries(&Path::new("/proc").join(pid.to_string()).join("cmdline"), "__jail") {
            found = Some(pid);
        } else if found.is_some() {
            break;
        }
        pid = parent_of(pid)?;
    }
    found
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// What each descriptor of the launcher and of pid 1 of a jail refers to; only root may see.
pub(crate) fn held_by_the_keepers(mark: &str) -> Vec<Vec<String>> {
    let launcher = launcher_of(mark).expect("the launcher");
    let first = processes().find(|pid| parent_of(*pid) == Some(launcher)).expect("pid 1");
    let open = |pid: i32| {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("root may look").flatten();
        links.filter_map(|link| Some(std::fs::read_link(link.path()).ok()?.display().to_string())).collect()
    };
    vec![open(launcher), open(first)]
}

/// Waits until a process carries the mark.
pub(crate) async fn appears(mark: &str) {
    for _ in 0..200 {
        if alive(mark) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{mark} never started: the test would prove nothing");
}
