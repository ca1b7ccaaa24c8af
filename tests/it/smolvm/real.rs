//! The real command line, up to the start of a machine, and the stand-in held against it: the same calls get the same exit
//! codes and the same keys. The directory of the real one is in `SYMPHONY_TEST_SMOLVM` (`scripts/smolvm-cli` prints it).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use symphony::sandbox::Sandbox as _;
use symphony::sandbox::smolvm::{Settings, Smolvm};

use super::bench::{Bench, block_on};
use crate::skip::skip;

fn real() -> Option<PathBuf> {
    let dir = std::env::var_os("SYMPHONY_TEST_SMOLVM").map(PathBuf::from);
    if dir.is_none() {
        skip("SYMPHONY_TEST_SMOLVM does not name the directory of the real smolvm (scripts/smolvm-cli)");
    }
    dir
}

fn call(program: &Path, data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).env("SMOLVM_DATA_DIR", data).env_remove("SMOLVM_BOOT_BINARY").env_remove("SMOLVM_MACHINE_NAME");
    command.stdin(Stdio::null()).output().expect("runs")
}

/// What must agree of two answers: the exit code, the keys of JSON, the code of an error.
fn gist(output: &Output) -> (Option<i32>, BTreeSet<String>, String) {
    let stdout: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let row = stdout.as_array().and_then(|rows| rows.first()).unwrap_or(&stdout);
    let keys = row.as_object().map(|row| row.keys().cloned().collect()).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let error = stderr.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap_or_default();
    (output.status.code(), keys, error["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_stand_in_answers_as_the_real_one_does() {
    let (Some(dir), Some(bench)) = (real(), Bench::new()) else { return };
    let place = tempfile::tempdir().expect("a directory");
    let name = ["--name", "sy-abcd-app-123456"];
    let json = ["--error-format", "json"];
    let socket = ["--mount-socket", "/tmp/x.sock:/run/symphony.sock"];
    let labels = ["--label", "owner=symphony", "--label", "instance=i"];
    let create =
        [&["machine", "create"], &name[..], &["--cpus", "2", "--mem", "512", "--storage", "4", "--overlay", "4"]];
    let create = [&create.concat()[..], &labels, &socket, &json].concat();
    let of = |verb: &'static str, more: &[&'static str]| [&["machine", verb], &name[..], more, &json].concat();
    let calls: Vec<Vec<&str>> = vec![
        vec!["--version"],
        vec!["machine", "ls", "--json"],
        of("status", &["--json"]),
        of("stop", &["-t", "5"]),
        of("data-dir", &[]),
        of("delete", &["-f"]),
        create.clone(),
        create,
        vec!["machine", "create", "positional", "--error-format", "json"],
        vec!["machine", "create", "--name", "a", "--no-such-flag"],
        vec!["machine", "create", "--name", "a--b", "--error-format", "json"],
        vec!["machine", "ls", "--json"],
        of("status", &["--json"]),
        of("exec", &["--", "true"]).into_iter().filter(|word| !json.contains(word)).collect(),
        vec!["machine", "cp", "/etc/hostname", "sy-abcd-app-123456:/x", "--error-format", "json"],
        of("stop", &["-t", "5"]),
        of("data-dir", &[]),
        of("delete", &["-f"]),
        of("delete", &["-f"]),
        vec!["machine", "ls", "--json"],
    ];
    let data = bench.root().join("pinned");
    for args in calls {
        let (real, ours) =
            (call(&dir.join("smolvm"), place.path(), &args), call(&bench.bin().join("smolvm"), &data, &args));
        let words = |output: &Output| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        assert_eq!(gist(&real), gist(&ours), "{args:?}\nreal: {}\nours: {}", words(&real), words(&ours));
    }
}

#[test]
fn the_real_one_takes_every_argument_we_give_and_keeps_our_labels() {
    let (Some(dir), Some(bench)) = (real(), Bench::new()) else { return };
    let settings = Settings { bin: Some(dir.join("smolvm")), ..bench.settings() };
    block_on(async {
        let runtime = Smolvm::new(settings.clone(), bench.places());
        let mut spec = bench.spec("REAL-1");
        // Enough to make it; whether it starts is this machine's affair.
        spec.deadline = std::time::Duration::from_secs(20);
        match runtime.boot(spec).await {
            Ok(guest) => drop(guest.stop(std::time::Duration::from_secs(1)).await),
            Err(error) => {
                let said = error.to_string();
                println!("no machine starts here: {said}");
                assert!(!said.contains("does not know an argument") && !said.contains("made its machine"), "{said}");
            }
        }
        let listed = call(&dir.join("smolvm"), &bench.data(), &["machine", "ls", "--json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let row = &listed[0];
        assert_eq!(row["labels"]["owner"], "symphony", "{listed}");
        assert_eq!(row["labels"]["issue"], "REAL-1");
        assert_eq!((&row["network"], &row["mounts"], &row["cpus"]), (&false.into(), &0.into(), &1.into()));
        assert_eq!((&row["memory_mib"], &row["storage_gb"]), (&256.into(), &2.into()));
        // What a start that failed left is stopped, kept, and removed with the disk.
        let swept = runtime.sweep_but(&[]).await.expect("sweeps");
        assert_eq!(swept.monitors, 0, "{swept:?}");
        runtime.discard_disk(&bench.disk("REAL-1")).await.expect("goes");
        let listed = call(&dir.join("smolvm"), &bench.data(), &["machine", "ls", "--json"]);
        assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "[]");
        assert_eq!(bench.monitors(), [""; 0]);
    });
}
