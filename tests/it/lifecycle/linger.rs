//! Agents that work without our tools, leave requests open, write settings of their own, or do not end.

use serde_json::json;

use super::{mark, sleeper, sleepers, until_gone};
use crate::fake_agent;
use crate::rig::{Project, until};

fn runs(project: &Project) -> usize {
    std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count()
}

#[test]
fn an_agent_that_never_asks_for_our_tools_is_tried_once_more_with_a_new_session_and_then_parked() {
    let project = Project::acting("sessions=load unlisted=1\nturn() { say 'all done'; }", "");
    project.issue("Todo", "A-1", "Work.");
    let running = project.start();
    let note = project.parked_note("A-1");
    for part in
        ["its agent cannot work here: ", "never asked for symphony's tools", "twice in a row", "mcp.enabled: false"]
    {
        assert!(note.contains(part), "no `{part}` in {note}");
    }
    assert_eq!(runs(&project), 2, "one retry");
    assert!(project.read(".symphony/runs/2/acp.jsonl").contains("session/new"), "it began anew");
    assert!(!project.read(".symphony/runs/2/acp.jsonl").contains("session/load"));
    let log = running.log();
    assert!(log.contains("the agent works without our tools") && log.contains("tools_unseen"), "{log}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_agent_that_calls_a_tool_unlisted_or_finds_them_late_is_fine() {
    let unlisted = fake_agent::project("on_list() { :; }", "", "");
    unlisted.issue("Todo", "A-1", "Work.");
    assert_eq!(unlisted.once(), 0);
    assert_eq!(runs(&unlisted), 1);
    // As agents do that connect beside their work: the turn was over first.
    let late = "late() { post \"$path\" \"$token\" '{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"tools/list\"}' > /dev/null; }\n\
        on_list() { :; }\n\
        on_prompt() { turns=${turns}x; if [ $turns = x ]; then stop end_turn; sleep 1; late; else mark_done > /dev/null; stop end_turn; fi; }";
    let project = fake_agent::project(late, "", "");
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 0);
    assert_eq!(runs(&project), 1);
}

#[test]
fn forty_permissions_asked_for_at_once_are_all_answered_and_each_with_the_least() {
    let asks = r#"on_prompt() {
        prompt=$id
        for n in $(seq 40); do
            say "{\"jsonrpc\":\"2.0\",\"id\":\"p$n\",\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"fake-1\",\"toolCall\":{\"toolCallId\":\"t\"},\"options\":[{\"optionId\":\"for-ever\",\"name\":\"a\",\"kind\":\"allow_always\"},{\"optionId\":\"no\",\"name\":\"n\",\"kind\":\"reject_once\"},{\"optionId\":\"this-once\",\"name\":\"o\",\"kind\":\"allow_once\"}]}}"
        done
        for n in $(seq 40); do IFS= read -r line; printf '%s\n' "$line" >> /work/answers.txt; done
        mark_done > /dev/null; id=$prompt; stop end_turn
    }"#;
    let project = fake_agent::project(asks, "", "");
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 0);
    let answers = std::fs::read_to_string(project.apply_patch("A-1").join("answers.txt")).expect("answers");
    let allowed = answers.lines().filter(|line| line.contains("\"optionId\":\"this-once\""));
    assert_eq!((allowed.count(), answers.lines().count()), (40, 40), "{answers}");
}

#[test]
fn a_permission_that_is_asked_for_while_the_turn_is_cancelled_is_answered_and_not_granted() {
    let asks = r#"on_prompt() { prompt=$id; }
    on_cancel() {
        say '{"jsonrpc":"2.0","id":"late","method":"session/request_permission","params":{"sessionId":"fake-1","toolCall":{"toolCallId":"t"},"options":[{"optionId":"yes","name":"y","kind":"allow_once"}]}}'
        IFS= read -r line; id=$prompt; stop cancelled
    }"#;
    let project = fake_agent::project(asks, "  turn_timeout_ms: 1000\n", "budget:\n  failures_in_a_row: 1\n");
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 3);
    let frames = project.read(".symphony/runs/1/acp.jsonl");
    let answer = frames.lines().find(|line| line.contains("outcome")).expect("an answer");
    assert!(answer.contains("late") && answer.contains("cancelled") && !answer.contains("selected"), "{answer}");
}

/// What Claude Code 0.100 and older do on "always".
#[test]
fn settings_that_an_agent_writes_for_itself_are_no_work_unless_they_are_tracked_or_added_by_force() {
    let writes = "turn() { mkdir -p .claude; echo '{\"mine\":1}' >.claude/settings.local.json; echo work >work.txt; echo a >.claude/agent.md; \
                  $FORCE git add -A; git commit -qm Work; echo later >later.txt; \
                  call mark_done '{\"title\":\"Done\",\"summary\":\"All of it.\"}'; }";
    let made = |scenario: &str, before: bool| {
        let project = Project::acting(scenario, "");
        if before {
            project.write(".claude/settings.local.json", "{}\n");
            crate::rig::git(&project.dir(), &["add", "-A"]);
            crate::rig::git(&project.dir(), &["commit", "-q", "-m", "Settings"]);
        }
        project.issue("Todo", "A-1", "Work.");
        assert_eq!(project.once(), 0);
        let clone = project.apply_patch("A-1");
        assert!(clone.join("work.txt").exists() && clone.join("later.txt").exists(), "the work is all there");
        assert!(clone.join(".claude/agent.md").exists(), "only settings are left out");
        std::fs::read_to_string(clone.join(".claude/settings.local.json")).ok()
    };
    assert_eq!(made(&writes.replace("$FORCE", ""), false), None);
    let mine = Some("{\"mine\":1}\n".to_owned());
    assert_eq!(made(&writes.replace("$FORCE", ""), true), mine, "a tracked file stays tracked");
    assert_eq!(made(&writes.replace("$FORCE", "git add -f .claude;"), false), mine, "it was meant");
}

#[test]
fn what_survives_the_end_of_input_and_every_polite_signal_is_gone_with_its_run_and_that_is_told() {
    let mark = mark();
    // A daemon in a session of its own that ignores the signals, and an agent that does not end when its input does.
    let parts = format!(
        "trap 'while :; do sleep 1; done' EXIT; trap '' TERM HUP INT\n\
         on_prompt() {{ (trap '' TERM HUP INT; setsid sleep {mark} > /dev/null 2>&1 &); mark_done > /dev/null; stop end_turn; }}"
    );
    let project = fake_agent::project(&parts, "", "");
    project.issue("Todo", "A-1", "Work.");
    let running = project.start();
    until("the run to be over", || running.log().contains("run ended"));
    until_gone(&mark);
    assert!(project.exists("issues/Done/A-1.md"));
    let log = running.log();
    assert!(log.contains("the agent did not end when its input did"), "{log}");
    let told = log.lines().find(|line| line.contains("sandbox gone")).expect("a line");
    assert!(told.contains("agent_ms=") && told.contains("sandbox_ms="), "{told}");
    assert_eq!(running.stop(), 0);
}

/// As codex-acp does: what the turn had started goes on, but the next prompt waits for the end of that turn.
#[test]
fn after_a_cancel_the_next_prompt_waits_for_its_answer_and_a_command_that_goes_on_ends_with_the_run() {
    let mark = mark();
    let parts = format!(
        "on_prompt() {{ turns=${{turns}}x; if [ $turns = x ]; then sleep {mark} > /dev/null 2>&1 & prompt=$id; \
         else while [ ! -e /work/go ]; do sleep 0.1; done; rm /work/go; mark_done > /dev/null; stop end_turn; fi; }}\n\
         on_cancel() {{ sleep 1; id=$prompt; stop cancelled; }}"
    );
    let project = fake_agent::project(&parts, "", "");
    project.issue("Todo", "A-1", "Work.");
    let running = project.start();
    sleeper(&mark);
    let said = running.post("/api/v1/issues/A-1/message", &json!({"text": "another way", "when": "now"}));
    assert_eq!(said.status, 202, "{}", said.body);
    let order = || -> Vec<&str> {
        let frames = project.read(".symphony/runs/1/acp.jsonl");
        let word = |line: &str| {
            ["session/prompt", "session/cancel", "stopReason"].into_iter().find(|word| line.contains(word))
        };
        frames.lines().filter_map(word).collect()
    };
    until("the second prompt", || order().iter().filter(|word| **word == "session/prompt").count() == 2);
    let order = order();
    assert_eq!(order, ["session/prompt", "session/cancel", "stopReason", "session/prompt"]);
    assert_eq!(sleepers(&mark).len(), 1, "it is the agent's own, and nobody can tell it from a server that it needs");
    std::fs::write(project.dir().join(".symphony/disks/A-1/tree/go"), "").expect("written");
    until("the issue to be done", || project.exists("issues/Done/A-1.md"));
    until_gone(&mark);
    assert_eq!(running.stop(), 0);
}

/// What Claude Code 0.100 and Qwen send, and what nobody sends yet.
#[test]
fn messages_of_kinds_that_nobody_knows_are_counted_and_told_once_a_run() {
    let talks = r#"turn() {
        for n in 1 2 3 4 5 6 7 8 9; do
            emit '{"jsonrpc":"2.0","method":"_auth/status_update","params":{}}'
            emit '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s-1","update":{"sessionUpdate":"hologram"}}}'
        done
        emit '{"jsonrpc":"2.0","method":"qwen/notify/session/prompt-suggestion","params":{}}'
        say "and a word"
        [ $turn = 1 ] || call mark_done '{"title":"Done","summary":"All of it."}'
    }"#;
    let project = Project::acting(talks, "");
    project.issue("Todo", "A-1", "Work.");
    let running = project.start();
    until("the run to be over", || running.log().contains("run ended"));
    let log = running.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("symphony has no word for")).collect();
    assert_eq!(told.len(), 1, "{log}");
    let words = "38 messages of kinds that symphony does not know: _auth/status_update (18), hologram (18), qwen/notify/session/prompt-suggestion (2)";
    assert!(told[0].contains(words), "{}", told[0]);
    assert!(project.exists("issues/Done/A-1.md"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_line_beyond_the_limit_names_the_agent_and_the_limit() {
    let floods = "on_initialize() { result '{\"protocolVersion\":1,\"agentInfo\":{\"name\":\"flooder\",\"version\":\"7\"},\"agentCapabilities\":{\"mcpCapabilities\":{\"http\":true}}}'; }\n\
        on_prompt() { head -c 11000000 /dev/zero | tr '\\0' x; echo; }";
    let project = fake_agent::project(floods, "", "budget:\n  failures_in_a_row: 1\n");
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 3);
    let note = project.parked_note("A-1");
    assert!(note.contains("flooder 7 sent a line of more than 10000000 bytes"), "{note}");
}

#[test]
fn a_command_that_is_not_in_the_sandbox_parks_its_issue_after_one_run_and_says_how_to_bring_it() {
    let project = Project::new();
    let workflow = project.read("WORKFLOW.md").replace("adapter: script\n", "command: exec no-such-agent --acp\n");
    project.write("WORKFLOW.md", &workflow);
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 3);
    let note = project.parked_note("A-1");
    for part in ["`acp.command` ended at once with exit code 127", "no-such-agent", "sandbox.jail.read_only"] {
        assert!(note.contains(part), "no {part} in {note}");
    }
    assert_eq!(runs(&project), 1, "no retry");
}
