//! A project in a temporary directory, and the real binary running on it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Answer, Client};

/// Generous: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// Front matter every test starts from: quick polls, quick retries, the script agent.
pub(crate) const FRONT: &str = "tracker:\n  kind: local\n  active_states: [Todo, In Progress]\n  terminal_states: [Done, Cancelled]\npolling:\n  interval_ms: 300\nagent:\n  max_retry_backoff_ms: 300\nacp:\n  adapter: script\n";
/// The prompt every test starts from.
pub(crate) const BODY: &str = "{{ issue.identifier }}: {{ issue.title }}\n\n{{ issue.description }}\n";

/// A git repository with a workflow and issues.
pub(crate) struct Project {
    tmp: tempfile::TempDir,
    /// Whether it may find the image of a microVM.
    pub(crate) microvms: bool,
}

impl Project {
    pub(crate) fn new() -> Self {
        Self::with(FRONT)
    }

    /// A project whose workflow has this front matter.
    pub(crate) fn with(front: &str) -> Self {
        let project = Self { tmp: tempfile::tempdir().expect("a directory"), microvms: false };
        let dir = project.dir();
        std::fs::create_dir(&dir).expect("project directory");
        std::fs::create_dir(project.runtime_dir()).expect("runtime directory");
        project.write("WORKFLOW.md", &format!("---\n{front}---\n{BODY}"));
        project.write("README.md", "A project.\n");
        project.write(".gitignore", "/issues\n");
        std::fs::create_dir_all(dir.join("issues/Todo")).expect("issues");
        git(&dir, &["init", "-q", "-b", "main"]);
        git(&dir, &["add", "-A"]);
        git(&dir, &["commit", "-q", "-m", "Begin"]);
        project
    }

    /// A project whose agent is `agents/acp.sh` playing this scenario; `front` stands beside the usual settings.
    pub(crate) fn acting(scenario: &str, front: &str) -> Self {
        let project = Self::new();
        let agent = project.tmp.path().canonicalize().expect("exists").join("agent");
        std::fs::create_dir(&agent).expect("agent directory");
        std::fs::write(agent.join("acp.sh"), include_str!("agents/acp.sh")).expect("agent");
        std::fs::write(agent.join("scenario.sh"), scenario).expect("scenario");
        let agent = agent.display();
        let front = format!(
            "{}  command: bash {agent}/acp.sh {agent}/scenario.sh\nsandbox:\n  jail:\n    read_only: [{agent}]\n{front}",
            FRONT.replace("  adapter: script\n", "")
        );
        project.write("WORKFLOW.md", &format!("---\n{front}---\n{BODY}"));
        git(&project.dir(), &["commit", "-q", "-a", "-m", "Act"]);
        project
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.tmp.path().canonicalize().expect("exists").join("project")
    }

    /// Where sockets of this project's programs go: not where the tester's own are.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.tmp.path().canonicalize().expect("exists").join("run")
    }

    /// A directory beside the project, for clones and outside files.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.dir().join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
        std::fs::write(&path, text).expect("written");
    }

    /// Drops an issue, as an editor would: complete at once.
    pub(crate) fn issue(&self, state: &str, name: &str, body: &str) {
        self.write(&format!("issues/{state}/{name}.md"), &format!("---\ntitle: The title of {name}\n---\n{body}\n"));
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.dir().join(path).exists()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The frames of every run so far, one after the other.
    pub(crate) fn transcripts(&self) -> String {
        let runs = std::fs::read_dir(self.dir().join(".symphony/runs")).expect("runs").flatten();
        runs.map(|run| std::fs::read_to_string(run.path().join("acp.jsonl")).unwrap_or_default()).collect()
    }

    /// A parked issue's text, once its note stands in it: the file moves first, the note follows.
    pub(crate) fn parked_note(&self, name: &str) -> String {
        let path = self.dir().join(format!("issues/Parked/{name}.md"));
        let mut text = String::new();
        until(&format!("the note in {}", path.display()), || {
            text = std::fs::read_to_string(&path).unwrap_or_default();
            text.contains("Parked: ")
        });
        text
    }

    pub(crate) fn wait_for(&self, path: &str) {
        until(&format!("{path} to appear"), || self.exists(path));
    }

    /// The binary with these arguments, in the project, with a clean environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.around(env!("CARGO_BIN_EXE_symphony"), args)
    }

    /// A program that becomes the binary, in the same place and environment.
    pub(crate) fn around(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir()).env_remove("SYMPHONY_LOG_LEVEL");
        command.env("XDG_RUNTIME_DIR", self.runtime_dir());
        // Whoever runs the tests may have keys and logins; no test asks a real provider.
        command.env_remove("ANTHROPIC_API_KEY").env_remove("OPENAI_API_KEY").env_remove("GEMINI_API_KEY");
        command.env("CLAUDE_CONFIG_DIR", "/no login").env("CODEX_HOME", "/no login");
        // On a machine that can have microVMs, tests that do not ask for one still mean the jail.
        match self.microvms {
            true => command.env_remove("SYMPHONY_VM_IMAGE"),
            false => command.env("SYMPHONY_VM_IMAGE", "/no image"),
        };
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).stdin(Stdio::null()).output().expect("starts");
        println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        output
    }

    /// `--once`, and its exit code.
    pub(crate) fn once(&self) -> i32 {
        self.run(&["WORKFLOW.md", "--once"]).status.code().expect("not killed")
    }

    /// Starts the program and waits for its dashboard.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&["WORKFLOW.md", "--port", "0"])
    }

    pub(crate) fn start_with(&self, args: &[&str]) -> Running {
        self.start_in(args, &[])
    }

    /// Starts the program with these variables.
    pub(crate) fn start_in(&self, args: &[&str], env: &[(&str, &str)]) -> Running {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        self.start_command(command)
    }

    /// Starts the program by a command that [`Self::command`] made, or by one around it, and waits for its dashboard or
    /// its end.
    pub(crate) fn start_command(&self, mut command: Command) -> Running {
        let mut child = command
            .env("SYMPHONY_LOG_LEVEL", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (out, err) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        for stream in [Box::new(out) as Box<dyn std::io::Read + Send>, Box::new(err)] {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut log = log.lock().expect("lock");
                    log.push_str(&line);
                    log.push('\n');
                }
            });
        }
        let running = Running { child, log };
        // The log and the banner come through two pipes, in any order.
        let said = |log: &str| log.contains("symphony started") && log.contains("\n  next ");
        until("the program to start", || said(&running.log()) || running.ended());
        running
    }

    /// The patch of an issue, applied to a fresh clone with `git am`; the clone's directory.
    pub(crate) fn apply_patch(&self, key: &str) -> PathBuf {
        let patch = self.dir().join(format!(".symphony/patches/agent_{key}.patch"));
        let clone = self.beside(&format!("clone-{key}"));
        git(self.tmp.path(), &["clone", "-q", self.dir().to_str().expect("utf-8"), clone.to_str().expect("utf-8")]);
        git(&clone, &["am", "-q", patch.to_str().expect("utf-8")]);
        clone
    }
}

/// The program, alive. Killed with its whole process group when dropped.
pub(crate) struct Running {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("lock").clone()
    }

    /// A client that carries the operator token as a bearer.
    pub(crate) fn client(&self) -> Client {
        self.client_if_any().unwrap_or_else(|| panic!("no link: {}", self.log()))
    }

    /// The same; none while the program has not said where it listens.
    pub(crate) fn client_if_any(&self) -> Option<Client> {
        let log = self.log();
        let link = log.lines().find_map(|l| l.trim().strip_prefix("dashboard"))?;
        let link = link.trim().strip_prefix("http://").expect("a link");
        let (address, token) = link.split_once("/login?token=").expect("a login link");
        Some(Client { address: address.to_owned(), bearer: Some(token.to_owned()) })
    }

    /// `GET /api/v1/state`.
    pub(crate) fn state(&self) -> Value {
        self.client().get("/api/v1/state").json()
    }

    /// Waits until the state shows what is wanted, and returns it.
    pub(crate) fn until_state(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        until_or(
            what,
            || {
                last = self.state();
                wanted(&last)
            },
            || format!("{}\n{}", self.log(), self.state()),
        );
        last
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.client().post_json(path, body)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it lives");
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.code()
    }

    /// Waits for the end, and its exit code.
    pub(crate) fn code(&mut self) -> i32 {
        let log = self.log.clone();
        let mut status = None;
        until_or(
            "the program to end",
            || {
                status = self.child.try_wait().expect("a child");
                status.is_some()
            },
            || log.lock().expect("lock").clone(),
        );
        status.and_then(|s| s.code()).expect("ended by itself")
    }

    /// Waits for the end; whether a signal made it.
    pub(crate) fn killed(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        let mut status = None;
        let log = self.log.clone();
        until_or(
            "the program to end",
            || {
                status = self.child.try_wait().expect("a child");
                status.is_some()
            },
            || log.lock().expect("lock").clone(),
        );
        status.is_some_and(|status| status.signal().is_some())
    }

    pub(crate) fn ended(&self) -> bool {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a pid");
        rustix::process::waitid(
            rustix::process::WaitId::Pid(pid),
            rustix::process::WaitIdOptions::EXITED
                | rustix::process::WaitIdOptions::NOHANG
                | rustix::process::WaitIdOptions::NOWAIT,
        )
        .is_ok_and(|status| status.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a pid");
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// git for tests: nobody's configuration, a fixed author.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=Tester", "-c", "user.email=tester@example.org"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git");
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Waits for a condition, and says for what when it never comes.
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    until_or(what, condition, String::new);
}

/// The same for what may take longer than anything else.
pub(crate) fn until_within(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    wait(limit, what, condition, String::new);
}

fn until_or(what: &str, condition: impl FnMut() -> bool, explain: impl Fn() -> String) {
    wait(SOON, what, condition, explain);
}

fn wait(limit: Duration, what: &str, mut condition: impl FnMut() -> bool, explain: impl Fn() -> String) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}\n{}", explain());
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Processes whose command line contains `mark`, without this test program's own.
pub(crate) fn processes_with(mark: &str) -> Vec<String> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(mark) && !line.contains("--test-threads") {
            found.push(line);
        }
    }
    found
}
