//! What the tests of machines share: an image, a runtime, a guest to ask.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::rig::Project;
use crate::skip::skip;
use symphony::sandbox::channel::{Channel, CheckRequest, Exit, HelloInfo};
use symphony::sandbox::qemu::Qemu;
use symphony::sandbox::{BootSpec, Ending, Life, Sandbox};
use symphony_core::ids::RunId;
use tempfile::TempDir;

/// An emulated machine on a busy one takes its time.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// Whether machines can be had here; says why not.
pub(crate) fn have_machines() -> bool {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/image/manifest.json");
    let emulator = std::process::Command::new("qemu-system-x86_64").arg("--version").output();
    let missing = if !image.exists() {
        "there is no VM image; run scripts/build-vm.sh"
    } else if emulator.is_err() {
        "qemu-system-x86_64 is not installed"
    } else {
        return true;
    };
    assert!(std::env::var_os("SYMPHONY_REQUIRE_VM").is_none(), "{missing}");
    skip(missing);
    false
}

/// A project whose agent is `agents/acp.sh` in a machine, playing this scenario.
pub(crate) fn acting(scenario: &str, front: &str) -> Project {
    let mut project = Project::acting(scenario, "");
    project.microvms = true;
    // Nothing of the host is seen in there: the agent travels in its command.
    let place = project.beside("agent").canonicalize().expect("there");
    let command = format!("bash {0}/acp.sh {0}/scenario.sh", place.display());
    let file = |text: &str| text.replace('\'', "'\\''");
    let brought = format!(
        "printf %s '{}' >~/acp.sh; printf %s '{}' >~/scenario.sh; exec bash ~/acp.sh ~/scenario.sh",
        file(include_str!("../agents/acp.sh")),
        file(scenario)
    );
    let workflow = project.read("WORKFLOW.md");
    let (before, after) = workflow.split_once("sandbox:\n").expect("a section");
    let (_, body) = after.split_once("---\n").expect("its end");
    let before = before.replace(&command, &serde_json::to_string(&brought).expect("a string"));
    let sandbox = "sandbox: {runtime: qemu, memory_mib: 512, cpus: 1, disk_mib: 1024}\n";
    project.write("WORKFLOW.md", &format!("{before}{sandbox}{front}---\n{body}"));
    project
}

/// Places for one test's machines.
pub(crate) struct Bench {
    pub(crate) place: TempDir,
}

/// A machine that answers.
pub(crate) struct Awake {
    pub(crate) channel: Channel,
    pub(crate) hello: HelloInfo,
    pub(crate) life: Box<dyn Life>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { place: tempfile::tempdir().expect("directory") }
    }

    /// Machines that are booted cold, each time.
    pub(crate) fn cold(&self) -> Qemu {
        Qemu::new(PathBuf::from(env!("CARGO_BIN_EXE_symphony")), false, None)
    }

    /// Machines that are restored from a template.
    pub(crate) fn templated(&self) -> Qemu {
        Qemu::new(
            PathBuf::from(env!("CARGO_BIN_EXE_symphony")),
            false,
            Some(symphony::sandbox::qemu::Templates::new(self.place.path().join("templates"))),
        )
    }

    pub(crate) fn spec(&self, disk: &str) -> BootSpec {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        BootSpec {
            run: RunId(NEXT.fetch_add(1, Ordering::Relaxed)),
            disk: self.place.path().join(disk),
            image: None,
            packages: Vec::new(),
            templates: true,
            read_only: Vec::new(),
            cpus: 1,
            memory_mib: 512,
            pids: 200,
            file_size_mib: 0,
            disk_mib: 1024,
            deadline: SOON,
            program: Vec::new(),
        }
    }
}

impl Awake {
    pub(crate) async fn boot(runtime: &dyn Sandbox, spec: BootSpec) -> Self {
        let (io, life) = runtime.boot(spec).await.expect("the machine boots").into_parts();
        let (channel, hello) = Channel::open(io, "token", SOON).await.expect("the guest program answers");
        Self { channel, hello, life }
    }

    /// What a shell in the guest says, trimmed; it must succeed.
    pub(crate) async fn sh(&self, script: &str) -> String {
        let (exit, text) = self.try_sh(script).await;
        assert_eq!(exit, Exit::Code(0), "{script}: {text}");
        text
    }

    pub(crate) async fn try_sh(&self, script: &str) -> (Exit, String) {
        let request = CheckRequest {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned())],
            cwd: None,
            timeout_ms: 60_000,
            max_output: 64 * 1024,
        };
        let (outcome, output) = self.channel.check(request).await.expect("the guest runs it");
        (outcome.exit, String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) -> Ending {
        self.channel.shutdown(Duration::from_secs(20)).await.expect("the guest says goodbye");
        drop(self.channel);
        self.life.stop(Duration::from_secs(20)).await
    }
}
