//! From a file dropped into Todo to the first byte of its agent, with the real program.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::series::Series;

const SOON: Duration = Duration::from_secs(120);
/// A run that was not begun by then will not begin.
const BEGUN: Duration = Duration::from_secs(15);

pub(super) fn compare(exe: &Path, rounds: usize) {
    println!();
    Series::head();
    for (runtime, name) in
        [("jail", "drop to first agent byte, jail"), ("qemu", "drop to first agent byte, qemu restored")]
    {
        match measure(exe, runtime, name, rounds) {
            Ok(series) => series.row(),
            Err(reason) => println!("skipped: {name}: {reason}"),
        }
    }
}

fn measure(exe: &Path, runtime: &str, name: &'static str, rounds: usize) -> Result<Series, String> {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    let front = format!(
        "tracker: {{kind: local}}\nacp: {{adapter: script}}\nsandbox: {{runtime: {runtime}}}\npolling: {{interval_ms: 1000}}"
    );
    fs::write(dir.join("WORKFLOW.md"), format!("---\n{front}\n---\n{{{{ issue.description }}}}\n")).expect("written");
    fs::write(dir.join(".gitignore"), "/issues\n/.symphony\n").expect("written");
    fs::create_dir_all(dir.join("issues/Todo")).expect("made");
    let git = "git init -q -b main . && git add -A && git -c user.name=b -c user.email=b@b commit -q -m first";
    assert!(Command::new("sh").args(["-c", git]).current_dir(dir).status().expect("git runs").success());
    let mut command = Command::new(exe);
    command.arg("WORKFLOW.md").current_dir(dir).env("XDG_RUNTIME_DIR", dir.join("run"));
    fs::create_dir(dir.join("run")).expect("made");
    let log = fs::File::create(dir.join("log")).expect("made");
    let host = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
    let _host = Killed(host);
    let mut series = Series::new(name);
    // The first makes the template, and is not counted.
    for number in 0..=rounds {
        let issue = format!("---\ntitle: one\n---\n```sh\necho {number} > file-{number}\n```\n");
        fs::write(dir.join("issues/new.md"), issue).expect("written");
        let started = Instant::now();
        fs::rename(dir.join("issues/new.md"), dir.join(format!("issues/Todo/B-{number}.md"))).expect("dropped");
        while answered(dir) <= number {
            if started.elapsed() > SOON || (started.elapsed() > BEGUN && number == 0 && runs(dir) == 0) {
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(log.lines().last().unwrap_or("nothing started, and nothing was said").to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if number > 0 {
            series.add(started.elapsed());
        }
        let done = dir.join(format!("issues/Done/B-{number}.md"));
        while !done.exists() && started.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(series)
}

/// Runs in which an agent has said something.
fn answered(dir: &Path) -> usize {
    let runs = fs::read_dir(dir.join(".symphony/runs")).into_iter().flatten().flatten();
    let said = |path: &Path| fs::read_to_string(path).unwrap_or_default().contains(r#""dir":"in""#);
    runs.filter(|run| said(&run.path().join("acp.jsonl"))).count()
}

fn runs(dir: &Path) -> usize {
    fs::read_dir(dir.join(".symphony/runs")).into_iter().flatten().count()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It takes its sandboxes with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
