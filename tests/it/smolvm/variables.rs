//! `smolvm.forward_env`: a variable of the host reaches the agent of a machine only under `credentials: stage`, over the
//! channel, and no call of smolvm, which keeps arguments and variables in clear.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use symphony::workflow_file::{Environment, WorkflowFile};

use super::bench::{Bench, block_on};
use super::issues::{parked, work_in};
use crate::rig::{FRONT, Project};
use crate::search::files_with;

/// Of the host: a key that a broker would know, and one that only the task does.
const KEYS: [(&str, &str); 2] =
    [("OPENAI_API_KEY", "planted-key-0451-of-the-host"), ("TASK_KEY", "planted-task-0451-of-the-host")];
/// What the agent leaves of them is no secret. The second issue fails, so that its machine stays.
const SUMS: &str = "```sh\nfor name in OPENAI_API_KEY TASK_KEY; do printf %s \"$(printenv $name || echo none)\" | sha256sum; done >sums.txt\n```";

fn environment() -> Environment {
    let variable = |name: &str| KEYS.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Environment { home: None, variable: Arc::new(variable) }
}

fn sum(text: &str) -> String {
    let output = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", text]).output().expect("a shell");
    String::from_utf8(output.stdout).expect("text")
}

/// What its agent saw of the two, with these lines in the workflow; what is written is searched for both.
#[track_caller]
fn seen(bench: &Bench, lines: &str) -> String {
    let project = Project::with(&format!(
        "{lines}smolvm:\n  forward_env: [OPENAI_API_KEY, TASK_KEY]\n{FRONT}budget:\n  failures_in_a_row: 1\n"
    ));
    project.issue("Todo", "ENV-1", SUMS);
    project.issue("Todo", "ENV-2", "```sh\n[ -n \"$HOME\" ] && exit 1\n```");
    block_on(work_in(&project.dir(), Arc::new(bench.runtime()), environment()));
    assert!(project.exists("issues/Done/ENV-1.md"), "{}\n{}", parked(&project, "ENV-1"), bench.log());
    assert!(project.exists("issues/Parked/ENV-2.md"), "{}", bench.log());
    assert_eq!(bench.machines().len(), 1, "the machine of the second is kept");
    let log = bench.log();
    assert!(log.contains("machine exec") && !log.contains("--env") && !log.contains(" -e "), "{log}");
    for (name, value) in KEYS {
        assert!(!log.contains(name) && !log.contains(value), "{log}");
        for place in [project.dir(), bench.root(), bench.bin()] {
            assert_eq!(files_with(Path::new(&place), value), Vec::<String>::new(), "{name}");
        }
    }
    std::fs::read_to_string(project.apply_patch("ENV-1").join("sums.txt")).expect("in the patch")
}

#[test]
fn under_stage_a_forwarded_variable_reaches_the_agent_and_no_call_of_smolvm_nor_any_file() {
    let Some(bench) = Bench::new() else { return };
    let wanted = KEYS.map(|(_, value)| sum(value)).concat();
    assert_eq!(seen(&bench, "credentials: stage\n"), wanted);
}

#[test]
fn without_stage_no_variable_is_forwarded_and_the_workflow_says_so() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(seen(&bench, ""), sum("none").repeat(2));
    let project = Project::with(&format!("smolvm:\n  forward_env: [OPENAI_API_KEY, TASK_KEY, NOT_SET]\n{FRONT}"));
    let file = WorkflowFile::load(&project.dir().join("WORKFLOW.md"), environment()).expect("a workflow");
    let said: Vec<String> = file.problems().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    for ((name, value), said) in KEYS.iter().zip(said) {
        assert!(said.contains(&format!("{name} is not forwarded: no secret enters a machine")), "{said}");
        assert!(said.contains("`credentials: stage`") && !said.contains(value), "{said}");
    }
}
