//! What these tests share: a stand-in for smolvm in a directory of its own, and the runtime over it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use symphony::sandbox::BootSpec;
use symphony::sandbox::smolvm::{Places, Settings, Smolvm};
use symphony_core::ids::RunId;

use crate::rig::SOON;
use crate::skip::skip;

pub(crate) const INSTANCE: &str = "0123456789abcdef";

/// A stand-in, and a workflow's private directory.
pub(crate) struct Bench {
    tmp: tempfile::TempDir,
}

impl Bench {
    /// `None`, with the reason printed, where the stand-in cannot have its namespaces.
    pub(crate) fn new() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        let own: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
        let allowed = Command::new("unshare").args(own).args(["--mount", "--pid", "--net", "--fork", "true"]).output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            skip("this machine does not allow namespaces, in which the stand-in's machines run");
            return None;
        }
        let bench = Self { tmp: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(bench.bin()).expect("made");
        std::fs::create_dir(bench.root()).expect("made");
        executable(&bench.bin().join("smolvm"), include_str!("../agents/smolvm.sh"));
        let program = Path::new(env!("CARGO_BIN_EXE_symphony"));
        executable(&bench.guest(), "#!/bin/sh\nexec /opt/stand-in/symphony __guest \"$@\"\n");
        let seen = program.parent().expect("a directory").display().to_string();
        std::fs::write(bench.bin().join("seen"), seen).expect("written");
        Some(bench)
    }

    fn path(&self) -> PathBuf {
        self.tmp.path().canonicalize().expect("exists")
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.path().join("bin")
    }

    /// The `.symphony` of a workflow.
    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("s")
    }

    pub(crate) fn guest(&self) -> PathBuf {
        self.bin().join("guest")
    }

    /// Where the runtime keeps its machines.
    pub(crate) fn data(&self) -> PathBuf {
        self.root().join("smolvm/d")
    }

    /// What the stand-in does wrong from now on.
    pub(crate) fn mood(&self, mood: &str) {
        std::fs::write(self.bin().join("mood"), mood).expect("written");
    }

    /// The calls so far, one a line.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.bin().join("log")).unwrap_or_default()
    }

    pub(crate) fn places(&self) -> Places {
        // A door that always opens: KVM itself is not what is tested.
        Places { root: self.root(), guest: self.guest(), instance: INSTANCE.into(), kvm: "/dev/null".into() }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { bin: Some(self.bin().join("smolvm")), cpus: 2, memory_mib: 512, ..Settings::default() }
    }

    pub(crate) fn runtime(&self) -> Smolvm {
        Smolvm::new(self.settings(), self.places())
    }

    pub(crate) fn disk(&self, key: &str) -> PathBuf {
        self.root().join("disks").join(key)
    }

    pub(crate) fn spec(&self, key: &str) -> BootSpec {
        BootSpec {
            run: RunId(7),
            disk: self.disk(key),
            image: None,
            packages: vec![],
            templates: false,
            read_only: Vec::new(),
            cpus: 1,
            memory_mib: 256,
            pids: 0,
            file_size_mib: 0,
            disk_mib: 2048,
            deadline: SOON,
            program: Vec::new(),
        }
    }

    /// A call of the stand-in as somebody else's, or ours by hand; its output.
    pub(crate) fn call(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.bin().join("smolvm"));
        command.args(args).env("SMOLVM_DATA_DIR", self.data()).stdin(Stdio::null());
        let output = command.output().expect("runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Name and state of every machine, in order.
    pub(crate) fn machines(&self) -> Vec<(String, String)> {
        let listed: serde_json::Value = serde_json::from_str(&self.call(&["machine", "ls", "--json"])).expect("JSON");
        let text = |row: &serde_json::Value, key: &str| row[key].as_str().expect("a string").to_owned();
        listed.as_array().expect("rows").iter().map(|row| (text(row, "name"), text(row, "state"))).collect()
    }

    /// Monitors of this bench's machines that live.
    pub(crate) fn monitors(&self) -> Vec<String> {
        let of_ours = crate::rig::processes_with(&self.data().display().to_string());
        of_ours.into_iter().filter(|line| line.contains("_boot-vm")).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What a failed test left; each is a stand-in of this bench by its path.
        let mark = self.data().display().to_string();
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
            if String::from_utf8_lossy(&line).contains(&mark)
                && let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
                && pid != rustix::process::getpid()
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

pub(crate) fn executable(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("made executable");
}

/// Runs a body with a runtime of its own.
pub(crate) fn block_on<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(body)
}

pub(crate) const GRACE: Duration = Duration::from_secs(10);
