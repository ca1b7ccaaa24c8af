//! Pipelines: `states:` with rules of their own, and agents that hand issues on.

use serde_json::{Value, json};

use crate::conformance::mcp::{DONE, Notes};
use crate::rig::Project;

/// A project whose agent plays this scenario under these states; `front` stands beside them.
fn pipeline(scenario: &str, states: &str, front: &str) -> Project {
    let project = Project::acting(scenario, &format!("states:\n{states}{front}"));
    let lists = "  active_states: [Todo, In Progress]\n  terminal_states: [Done, Cancelled]\n";
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replace(lists, ""));
    project
}

/// What the agent noted in the tree that its sandbox left.
fn noted(project: &Project, key: &str) -> Notes {
    Notes::of(&project.read(&format!(".symphony/disks/{key}/tree/notes.txt")))
}

/// What a tool's answer says as data.
pub(crate) fn data(notes: &Notes, name: &str) -> Value {
    notes.json(name)["result"]["structuredContent"].clone()
}

/// Runs of any issue so far.
pub(crate) fn runs(project: &Project) -> usize {
    std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count()
}

#[test]
fn two_agents_hand_an_issue_on_and_the_second_finds_the_work_and_the_words_of_the_first() {
    let states = "  Todo: {role: active, adapter: claude, model: writer-1, allowed_transitions: [Review]}\n  \
                  Review: {role: active, adapter: codex, model: reviewer-1}\n  Done: {role: terminal}\n";
    let scenario = format!(
        r#"turn() {{
        answer="$SYMPHONY_MODEL/$ANTHROPIC_MODEL"; note "model of $SYMPHONY_MODEL"
        case $SYMPHONY_MODEL in
        writer-1)
            echo 1 >one.txt; git add one.txt; git commit -qm One; echo 2 >two.txt
            {DONE}; note early
            call transition '{{"to_state":"review","notes":"Wrote it.\n\nLook at two."}}'; note moved
            call transition '{{"to_state":"Review"}}'; note again
            {DONE}; note done
            call request_human_steering '{{"question":"Or not?"}}'; note asked ;;
        *)
            answer="$(cat one.txt two.txt)$(git status --porcelain two.txt)"; note found
            answer=$prompt; note prompt
            call transition '{{"to_state":"Done","notes":"It is fine."}}' ;;
        esac; }}"#
    );
    let project = pipeline(&scenario, states, "");
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 0);
    let clone = project.apply_patch("A-1");
    let notes = Notes::of(&std::fs::read_to_string(clone.join("notes.txt")).expect("noted"));
    assert_eq!(notes.raw("found").trim(), "1\n2?? two.txt", "committed or not, the work is there");
    assert_eq!(notes.raw("model of writer-1").trim(), "writer-1/writer-1");
    assert_eq!(notes.raw("model of reviewer-1").trim(), "reviewer-1/", "only claude has a name of its own for it");
    let (text, failed) = notes.tool("early");
    assert!(failed && text.starts_with("transition_not_allowed: ") && text.ends_with("to: Review"), "{text}");
    for same in ["moved", "again"] {
        assert!(!notes.tool(same).1, "{}", notes.raw(same));
        assert_eq!(data(&notes, same), json!({"to_state": "Review"}), "in the workflow's spelling");
    }
    for other in ["done", "asked"] {
        let (text, failed) = notes.tool(other);
        assert!(failed && text.contains("the issue goes to Review"), "one run has one word: {text}");
    }
    let issue = project.read("issues/Done/A-1.md");
    for (heading, words) in
        [("· Todo → Review\n\n", "> Wrote it.\n>\n> Look at two.\n"), ("· Review → Done\n\n", "> It is fine.\n")]
    {
        assert_eq!(issue.matches(&format!("{heading}{words}")).count(), 1, "{issue}");
    }
    assert_eq!(issue.matches("## agent · ").count(), 2, "{issue}");
    assert!(notes.raw("prompt").contains("> Wrote it."), "{}", notes.raw("prompt"));
    assert!(
        project.read(".symphony/patches/agent_A-1.patch").contains("\n\nIt is fine.\n"),
        "a summary like any other"
    );
}

#[test]
fn a_refused_transition_names_the_allowed_ones_and_leaves_the_issue_where_it_is() {
    let states = "  Todo: {role: active, max_turns: 1, allowed_transitions: [Review, Parked]}\n  Review: {role: active}\n  \
                  Parked: {role: holding}\n  Done: {role: terminal}\n";
    let scenario = r#"turn() {
        call transition '{"to_state":"Done"}'; note forbidden
        call transition '{"to_state":"Reveiw"}'; note unknown
        call transition '{"to_state":" "}'; note blank
        call transition '{"to_state":"todo"}'; note same
        call mark_done '{"title":"t","summary":"s"}'; note done
        call transition '{}'; note missing
    }"#;
    let project = pipeline(scenario, states, "budget: {sessions: 1}\n");
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 3);
    let notes = noted(&project, "A-1");
    for (name, code) in [
        ("forbidden", "transition_not_allowed"),
        ("unknown", "unknown_state"),
        ("blank", "blank_state"),
        ("same", "already_there"),
        ("done", "transition_not_allowed"),
    ] {
        let (text, failed) = notes.tool(name);
        assert!(failed && text.starts_with(code) && text.ends_with("to: Review, Parked"), "{name}: {text}");
        assert_eq!(data(&notes, name), json!({"error": code, "allowed": ["Review", "Parked"]}), "{name}");
    }
    assert!(notes.tool("unknown").0.contains("did you mean `Review`?"));
    assert!(notes.tool("missing").0.contains("`to_state` is required"));
    let text = project.parked_note("A-1");
    assert!(text.contains("· Todo → Parked"), "it had not moved: {text}");
    assert_eq!(project.transcripts().matches("\"session/prompt\"").count(), 1, "max_turns of the state is in force");
}

/// The turns stay open until they are cancelled, 10 s after the word, which counts all the same.
#[test]
fn a_person_who_moves_the_issue_meanwhile_wins_and_no_notes_are_added() {
    let states = "  Todo: {role: active, model: first}\n  In Progress: {role: active, model: second}\n  \
                  Review: {role: active, model: second}\n  Done: {role: terminal}\n";
    let scenario = format!(
        r#"turn() {{
        case $SYMPHONY_MODEL in
        first) call transition '{{"to_state":"Review","notes":"Never seen."}}'; sleep 300 ;;
        *) {DONE} ;;
        esac; }}"#
    );
    let project = pipeline(&scenario, states, "");
    // One goes elsewhere, the other to where its agent wanted it, but by a person's hand.
    let issues = [("A-1", "In Progress"), ("B-1", "Review")];
    issues.iter().for_each(|(name, _)| project.issue("Todo", name, "Do it."));
    let running = project.start();
    running.until_state("both words", |s| {
        let rows = s["running"].as_array().expect("rows");
        rows.len() == 2 && rows.iter().all(|row| row["last_event"] == json!("transition"))
    });
    for (name, to) in issues {
        let file = |state: &str| project.dir().join(format!("issues/{state}/{name}.md"));
        assert!(file("Todo").exists(), "nothing moves before the turn has ended");
        std::fs::create_dir_all(project.dir().join(format!("issues/{to}"))).expect("directory");
        std::fs::rename(file("Todo"), file(to)).expect("moved");
    }
    for (name, _) in issues {
        let done = format!("issues/Done/{name}.md");
        project.wait_for(&done);
        let issue = project.read(&done);
        assert!(!issue.contains("Never seen.") && !issue.contains("## agent"), "{issue}");
    }
    assert!(!project.exists("issues/Review/A-1.md"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_transition_to_an_end_hands_the_work_off_and_one_to_a_holding_state_keeps_it() {
    let states =
        "  Todo: {role: active}\n  Wait: {role: holding}\n  Rejected: {role: terminal}\n  Done: {role: terminal}\n";
    let scenario = format!(
        r#"turn() {{
        echo "$SYMPHONY_ISSUE_ID" >"$SYMPHONY_ISSUE_ID.txt"
        case $SYMPHONY_ISSUE_ID in
        DONE-1) call transition '{{"to_state":"done"}}'; {DONE}; note same ;;
        SAME-1) {DONE}; call transition '{{"to_state":"Done","notes":"Late."}}'; note same
                call transition '{{"to_state":"Wait"}}'; note other ;;
        NO-1) call transition '{{"to_state":"Rejected","notes":"Not worth it."}}'; {DONE}; note other ;;
        *) call transition '{{"to_state":"Wait","notes":"Look at it."}}' ;;
        esac; }}"#
    );
    let hook = "hooks:\n  after_run: |\n    cp .git/symphony-runtime/mark_done.md ../../../said-$SYMPHONY_ISSUE_ID.md\n    \
                find ../../../issues -name $SYMPHONY_ISSUE_ID.md > ../../../seen-$SYMPHONY_ISSUE_ID.txt\n";
    let project = pipeline(&scenario, states, hook);
    for name in ["DONE-1", "SAME-1", "NO-1", "WAIT-1"] {
        project.issue("Todo", name, "Do it.");
    }
    assert_eq!(project.once(), 0);
    for (name, to) in [("DONE-1", "Done"), ("SAME-1", "Done"), ("NO-1", "Rejected"), ("WAIT-1", "Wait")] {
        assert_eq!(project.read(&format!("seen-{name}.txt")), format!("../../../issues/{to}/{name}.md\n"));
        let over = to != "Wait";
        assert_eq!(project.exists(&format!(".symphony/patches/agent_{name}.patch")), over, "{name}");
        assert_eq!(project.exists(&format!(".symphony/workspaces/{name}")), !over, "{name}");
    }
    let notes =
        |name: &str| Notes::of(&std::fs::read_to_string(project.apply_patch(name).join("notes.txt")).expect("noted"));
    for (name, refused) in [("DONE-1", false), ("SAME-1", false), ("NO-1", true)] {
        let notes = notes(name);
        assert_eq!(notes.tool(if refused { "other" } else { "same" }).1, refused, "one run has one word: {name}");
        if name == "SAME-1" {
            assert!(notes.tool("same").0.contains("these notes are not added"));
            assert!(notes.tool("other").0.contains("the issue goes to Done"));
        }
    }
    assert_eq!(project.read("said-NO-1.md"), "# The title of NO-1\n\nNot worth it.\n");
    assert!(project.read("issues/Rejected/NO-1.md").ends_with("· Todo → Rejected\n\n> Not worth it.\n"));
    assert!(!project.read("issues/Done/SAME-1.md").contains("Late."), "the first word is the one that counts");
    assert!(project.read("issues/Wait/WAIT-1.md").ends_with("> Look at it.\n"));
    assert!(project.exists(".symphony/disks/WAIT-1/tree/WAIT-1.txt"), "what is handed on stays as it is");
}

#[test]
fn notes_that_no_longer_fit_into_the_issue_are_kept_beside_its_run() {
    let states = "  Todo: {role: active}\n  Wait: {role: holding}\n  Done: {role: terminal}\n";
    let project = pipeline("turn() { call transition '{\"to_state\":\"Wait\",\"notes\":\"Too much.\"}'; }", states, "");
    // The prompt leaves the text out: this is about the file.
    let workflow = project.read("WORKFLOW.md").replace("{{ issue.description }}", "");
    project.write("WORKFLOW.md", &workflow);
    project.issue("Todo", "A-1", &"x".repeat(1024 * 1024 - 64));
    assert_eq!(project.once(), 0);
    assert!(project.exists("issues/Wait/A-1.md") && !project.read("issues/Wait/A-1.md").contains("Too much."));
    assert!(project.read(".symphony/runs/1/notes.md").ends_with("· Todo → Wait\n\n> Too much."));
}

#[test]
fn an_issue_that_its_agents_push_back_and_forth_is_parked_and_says_so() {
    let states = "  Todo: {role: active, model: writer}\n  Review: {role: active, model: reviewer}\n  \
                  Done: {role: terminal}\n";
    let scenario = r#"turn() {
        case $SYMPHONY_MODEL in
        writer) call transition '{"to_state":"Review"}' ;;
        *) call transition '{"to_state":"Todo"}' ;;
        esac; }"#;
    let project = pipeline(scenario, states, "budget: {bounces: 2}\n");
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 3);
    let text = project.parked_note("A-1");
    assert!(text.contains("budget.bounces") && text.contains("· Review → Parked"), "{text}");
    assert_eq!(runs(&project), 3, "there, back, and there again");
}

#[test]
fn a_state_names_its_own_agent_and_its_own_limit() {
    let states = "  Todo: {role: active, adapter: script, max_concurrent: 1}\n  Done: {role: terminal}\n";
    let project = pipeline("turn() { exit 1; }", states, "");
    for n in 1..=3 {
        project.issue("Todo", &format!("N-{n}"), &format!("```sh\nsleep 0.5; echo {n} > n{n}.txt\n```"));
    }
    let running = project.start();
    let mut most = 0;
    running.until_state("all three to finish", |state| {
        most = most.max(state["running"].as_array().map_or(0, Vec::len));
        (1..=3).all(|n| project.exists(&format!("issues/Done/N-{n}.md")))
    });
    assert_eq!(most, 1);
    assert!(project.apply_patch("N-2").join("n2.txt").exists(), "the built-in agent ran, not the command");
}
