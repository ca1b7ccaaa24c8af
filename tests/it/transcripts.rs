//! `symphony log`: a run's transcript for people, of finished runs and of one that is under way.

use std::io::Read as _;
use std::process::{Output, Stdio};

use crate::rig::{FRONT, Project, until};

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("not killed"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_finished_run_is_shown_in_words_with_no_key_in_them_and_unknown_ones_are_refused() {
    let project = Project::with(FRONT);
    let (code, out, _) = said(&project.run(&["log"]));
    assert_eq!((code, out.as_str()), (0, "no transcripts are kept: no agent has run yet\n"));
    let key = format!("sk-ant-api03-{}", "aB3".repeat(20));
    let body = format!("```sh\nprintf 'found {key}\\033[2J\\n'\n# 2\n# 3\n# 4\necho made > made.txt\n```\n");
    project.issue("Todo", "LOG-1", &body);
    assert_eq!(project.once(), 0);
    let (code, out, err) = said(&project.run(&["log", "log-1"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("run 1 of LOG-1: "), "{out}");
    for wanted in
        ["Z  agent       ", "Z  prompt      ", "Z  tool        ", "Z  done        ", "Z  turn end    end_turn"]
    {
        assert!(out.contains(wanted), "no {wanted:?} in {out}");
    }
    assert!(out.contains("more lines (--whole)"), "{out}");
    let (_, whole, _) = said(&project.run(&["log", "--run", "1", "--whole"]));
    assert!(whole.lines().count() > out.lines().count() && whole.contains("echo made > made.txt"), "{whole}");
    // The agent shows what it prints, and the issue, which has the key in it, is its prompt.
    assert!(whole.contains("found [redacted]"), "{whole}");
    for text in [&out, &whole, &project.transcripts()] {
        assert!(!text.contains(&key) && !text.contains('\u{1b}'), "{text}");
    }
    let (code, out, _) = said(&project.run(&["log"]));
    assert_eq!(code, 0);
    assert!(out.starts_with("run 1     LOG-1  "), "{out}");
    for (args, words) in [
        (&["log", "NOPE"][..], "no transcript of NOPE in "),
        (&["log", "--run", "9"], "no transcript of run 9 in "),
        (&["log", "--follow"], "whom to follow?"),
        (&["log", "LOG-1", "--run", "1"], "cannot be used with"),
    ] {
        let (code, _, err) = said(&project.run(args));
        assert!(code == 2 && err.contains(words), "{code} {err}");
    }
}

#[test]
fn a_run_under_way_is_followed_into_the_next_one() {
    let project = Project::with(FRONT);
    let body =
        "```sh\ntest -e tried || { touch tried; echo first-try; sleep 1; kill -9 $PPID; }\necho second-try\n```\n";
    project.issue("Todo", "LOG-2", body);
    let running = project.start();
    until("a transcript", || project.exists(".symphony/runs/1/acp.jsonl"));
    until("its first line", || !project.read(".symphony/runs/1/acp.jsonl").is_empty());
    let mut command = project.command(&["log", "LOG-2", "--follow"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().expect("started");
    let mut stdout = follower.stdout.take().expect("piped");
    let read = std::thread::spawn(move || {
        let (mut seen, mut part) = (String::new(), [0; 4096]);
        while !(seen.contains("run 2 of LOG-2") && seen.contains("turn end    end_turn")) {
            match stdout.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(read) => seen.push_str(&String::from_utf8_lossy(&part[..read])),
            }
        }
        seen
    });
    project.wait_for("issues/Done/LOG-2.md");
    until("the end of the second run to be shown", || read.is_finished());
    follower.kill().expect("killed");
    follower.wait().expect("ended");
    let seen = read.join().expect("read");
    assert!(seen.contains("run 1 of LOG-2"), "{seen}");
    assert!(seen.find("run 1 of LOG-2") < seen.find("run 2 of LOG-2"), "{seen}");
    drop(running);
}
