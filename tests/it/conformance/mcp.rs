//! What an agent meets at its MCP endpoint, from inside its jail, byte by byte (0.1.0 §1.9; J1–J19, U4).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::rig::{Project, until};

/// What an agent noted, by heading: each the raw answer of our server.
pub(crate) struct Notes(BTreeMap<String, String>);

impl Notes {
    pub(crate) fn of(text: &str) -> Self {
        let notes = text.split("== ").filter_map(|note| note.split_once('\n'));
        Self(notes.map(|(name, answer)| (name.to_owned(), answer.to_owned())).collect())
    }

    /// Plays a scenario that ends with `mark_done`, and reads what it wrote down.
    fn after(scenario: &str) -> Self {
        let project = Project::acting(scenario, "");
        project.issue("Todo", "A-1", "Do it.");
        assert_eq!(project.once(), 0);
        Self::of(&std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("noted"))
    }

    pub(crate) fn raw(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("{name} was not noted: {:?}", self.0))
    }

    fn status(&self, name: &str) -> u16 {
        self.raw(name)
            .split_whitespace()
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("{:?}", self.raw(name)))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        let body = self.raw(name).split_once("\n\n").map_or("", |(_, body)| body);
        serde_json::from_str(body.trim()).unwrap_or_else(|e| panic!("{name}: {e}: {:?}", self.raw(name)))
    }

    /// The text of a tool's answer, and whether it is an error.
    pub(crate) fn tool(&self, name: &str) -> (String, bool) {
        let result = self.json(name)["result"].clone();
        let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{}", self.raw(name))).to_owned();
        (text, result["isError"] == json!(true))
    }
}

pub(crate) const DONE: &str = "call mark_done '{\"title\":\"Note it\",\"summary\":\"Everything was noted.\"}'";

#[test]
fn the_session_is_answered_as_the_protocol_says() {
    let notes = Notes::after(&format!(
        r#"turn() {{
        mcp '{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-06-18","capabilities":{{}},"clientInfo":{{"name":"t","version":"1"}}}}}}'; note initialize
        mcp '{{"jsonrpc":"2.0","method":"notifications/initialized"}}'; note initialized
        mcp '{{"jsonrpc":"2.0","id":2,"method":"ping"}}'; note ping
        mcp '{{"jsonrpc":"2.0","id":3,"method":"tools/list"}}'; note tools
        mcp '{{"jsonrpc":"2.0","id":"four","method":"resources/frob"}}'; note method
        call frob '{{}}'; note tool
        mcp '[{{"jsonrpc":"2.0","id":5,"method":"ping"}}]'; note batch
        mcp '{{'; note garbage
        {DONE}; note done
        }}"#
    ));
    let hello = notes.json("initialize");
    assert_eq!((&hello["id"], &hello["result"]["protocolVersion"]), (&json!(1), &json!("2025-06-18")), "{hello}");
    assert!(
        hello["result"]["capabilities"]["tools"].is_object() && hello["result"]["serverInfo"]["name"] == "symphony"
    );
    assert_eq!(notes.status("initialized"), 202);
    assert_eq!(notes.json("ping")["result"], json!({}));
    let tools = notes.json("tools")["result"]["tools"].clone();
    let names: Vec<&str> = tools.as_array().expect("a list").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["mark_done", "request_human_steering", "transition", "propose_issue"]);
    assert_eq!(tools[0]["inputSchema"]["required"], json!(["title", "summary"]));
    let unknown = notes.json("method");
    assert_eq!((&unknown["error"]["code"], &unknown["id"]), (&json!(-32601), &json!("four")), "{unknown}");
    let error = &notes.json("tool")["error"];
    assert!(error["code"] == -32601 && error["message"].as_str().is_some_and(|m| m.contains("frob")), "{error}");
    for wrong in ["batch", "garbage"] {
        assert!((400..500).contains(&notes.status(wrong)), "{}", notes.raw(wrong));
    }
    let (text, failed) = notes.tool("done");
    assert!(!failed && text.to_lowercase().contains("done") && text.contains("stop"), "{text}");
}

#[test]
fn only_the_run_s_own_token_on_its_own_path_is_let_in() {
    let notes = Notes::after(&format!(
        r#"try() {{ http POST "$path" '{{"jsonrpc":"2.0","id":1,"method":"tools/list"}}' "${{accepts[@]}}" "$2"; note "$1"; }}
        turn() {{
        try none 'X-Nothing: 1'
        try shorter "Authorization: Bearer ${{token%?}}"
        try longer "Authorization: Bearer ${{token}}x"
        case $token in A*) other=B${{token#?}} ;; *) other=A${{token#?}} ;; esac
        try other "Authorization: Bearer $other"
        try foreign "Authorization: Bearer é${{token#??}}"
        try blank "Authorization: Bearer "
        try basic "Authorization: Basic $token"
        try right "Authorization: Bearer $token"
        http GET "$path" '' "Authorization: Bearer $token"; note get
        http POST /api/v1/state '{{}}' "Authorization: Bearer $token" "${{accepts[@]}}"; note operator
        http POST /api/v1/issues/B-2/mcp '{{}}' "Authorization: Bearer $token" "${{accepts[@]}}"; note neighbour
        http POST "$path" '{{"jsonrpc":"2.0","id":1,"method":"ping"}}' "Authorization: Bearer $token" "${{accepts[@]}}" 'Host: evil.example'; note host
        http POST "$path" 'a=b' "Authorization: Bearer $token" 'Accept: application/json, text/event-stream' 'Content-Type: text/plain'; note type
        {DONE}
        }}"#
    ));
    assert_eq!(notes.status("right"), 200);
    for none in ["none", "blank", "basic"] {
        assert_eq!((notes.status(none), &notes.json(none)["error"]["code"]), (401, &json!("unauthorized")), "{none}");
    }
    for wrong in ["shorter", "longer", "other", "foreign", "operator", "neighbour"] {
        assert_eq!((notes.status(wrong), &notes.json(wrong)["error"]["code"]), (404, &json!("not_found")), "{wrong}");
    }
    assert_eq!((notes.status("get"), notes.json("get")["error"]["code"].clone()), (405, json!("method_not_allowed")));
    assert_eq!((notes.status("host"), notes.status("type")), (403, 415));
}

#[test]
fn wrong_arguments_are_tool_errors_and_leave_the_issue_where_it_is() {
    let notes = Notes::after(&format!(
        r#"turn() {{
        call mark_done '{{"summary":"s"}}'; note title
        call mark_done '{{"title":"  ","summary":"s"}}'; note blank
        call mark_done '{{"title":"a\nb","summary":"s"}}'; note lines
        call mark_done '{{"title":"t","summary":" \n "}}'; note summary
        call request_human_steering '{{"question":""}}'; note question
        {DONE}; note first
        {DONE}; note again
        }}"#
    ));
    for (name, words) in [
        ("title", "`title` is required"),
        ("blank", "`title` must not be blank"),
        ("lines", "newline"),
        ("summary", "`summary` must not be blank"),
        ("question", "`question` must not be blank"),
    ] {
        let (text, failed) = notes.tool(name);
        assert!(failed && text.contains(words), "{name}: {text}");
    }
    // That both were taken shows that none of the wrong ones was.
    assert!(!notes.tool("first").1 && !notes.tool("again").1, "saying it twice is no error");
}

#[test]
fn mark_done_moves_the_file_cleans_up_and_leaves_its_words_for_the_hook() {
    let hook = "hooks:\n  after_run: |\n    cp .git/symphony-runtime/mark_done.md ../../../said.md\n    ls ../../../issues/Done > ../../../seen.txt\n";
    let project = Project::acting(&format!("turn() {{ {DONE}; }}"), hook);
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 0);
    assert!(project.exists("issues/Done/A-1.md") && !project.exists("issues/Todo/A-1.md"));
    assert_eq!(project.read("said.md"), "# Note it\n\nEverything was noted.\n");
    assert_eq!(project.read("seen.txt"), "A-1.md\n", "after_run finds the file moved");
    assert!(!project.exists(".symphony/workspaces/A-1"), "the workspace goes with its issue");
}

#[test]
fn a_file_in_the_way_refuses_mark_done_and_is_not_overwritten() {
    let scenario = format!(
        "turn() {{ {DONE}; case $answer in *isError*true*) say \"${{answer//[^a-zA-Z .-]/}}\"; sleep 0.3 ;; esac; }}"
    );
    let project = Project::acting(&scenario, "budget: {sessions: 1000}\n");
    project.issue("Todo", "A-1", "Do it.");
    project.write("issues/Done/A-1.md", "---\nid: stale\nidentifier: STALE-1\ntitle: Older\n---\nkeep me\n");
    let running = project.start();
    running.until_state("the refusal", |s| {
        s["running"][0]["last_message"].as_str().is_some_and(|m| m.contains("failed to mark done"))
    });
    assert!(project.exists("issues/Todo/A-1.md"), "the live file stays in place");
    assert!(project.read("issues/Done/A-1.md").contains("keep me"));
    std::fs::remove_file(project.dir().join("issues/Done/A-1.md")).expect("removed");
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(running.stop(), 0);
}

/// Asks first, and is done once it has its answer.
fn asks_then_done() -> String {
    format!(
        r#"turn() {{
        case $turn in
        1) call request_human_steering '{{"question":"Which way?","context":"There are two."}}'; note asked
           call request_human_steering '{{"question":"Which one?"}}'; note twice ;;
        *) printf '%s' "$prompt" >answer.txt; {DONE} ;;
        esac; }}"#
    )
}

#[test]
fn a_question_waits_as_long_as_it_takes_and_its_answer_is_the_next_prompt() {
    let project = Project::acting(&asks_then_done(), "");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    let asked = |s: &Value| s["running"][0]["steering_requested"] == json!(true);
    let state = running.until_state("the question", asked);
    assert_eq!(state["running"][0]["steering_question"], json!("Which way?"));
    assert_eq!(state["running"][0]["steering_context"], json!("There are two."));
    let turns = state["running"][0]["turn_count"].clone();
    let later = state["version"].as_u64().expect("a version");
    // Looks go by; the question stays, and no turn is begun without its answer.
    running.post("/api/v1/refresh", &json!({}));
    let state = running.until_state("another look", |s| s["version"].as_u64() > Some(later));
    assert!(asked(&state) && state["running"][0]["turn_count"] == turns, "{state}");
    assert_eq!(running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "Left."})).status, 202);
    project.wait_for("issues/Done/A-1.md");
    let clone = project.apply_patch("A-1");
    let answer = std::fs::read_to_string(clone.join("answer.txt")).expect("written");
    for word in ["Which way?", "There are two.", "Left.", "mark_done"] {
        assert!(answer.contains(word), "no {word:?} in {answer}");
    }
    let notes = Notes::of(&std::fs::read_to_string(clone.join("notes.txt")).expect("noted"));
    assert!(!notes.tool("asked").1 && notes.tool("twice").1, "a second question is refused while one waits");
}

#[test]
fn moving_an_issue_away_ends_its_wait_and_its_run() {
    let project = Project::acting(&asks_then_done(), "");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    std::fs::create_dir_all(project.dir().join("issues/Cancelled")).expect("directory");
    std::fs::rename(project.dir().join("issues/Todo/A-1.md"), project.dir().join("issues/Cancelled/A-1.md"))
        .expect("moved");
    running.until_state("the end of the run", |s| s["running"] == json!([]));
    until("the workspace to go", || !project.exists(".symphony/workspaces/A-1"));
    let late = running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "Left."}));
    assert_eq!((late.status, late.error_code()), (409, "no_pending_steering".into()));
    assert!(project.exists("issues/Cancelled/A-1.md") && !project.exists("issues/Done/A-1.md"));
}

#[test]
fn a_run_ends_where_it_was_dispatched_whatever_the_workflow_says_now() {
    let project = Project::acting(&asks_then_done(), "");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    // Another root with a decoy in it, and another target.
    project.write("decoy/Todo/A-1.md", "---\ntitle: A decoy\n---\n");
    let text = project
        .read("WORKFLOW.md")
        .replace("[Done, Cancelled]", "[Closed]")
        .replace("kind: local\n", "kind: local\n  root: ./decoy\n");
    project.write("WORKFLOW.md", &text);
    until("the reload", || running.log().contains("workflow reloaded"));
    assert_eq!(running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "Left."})).status, 202);
    project.wait_for("issues/Done/A-1.md");
    assert!(project.exists("decoy/Todo/A-1.md") && !project.exists("issues/Closed"), "{}", running.log());
}

#[test]
fn an_identifier_is_encoded_in_the_endpoint_s_path() {
    let project = Project::acting(&format!("turn() {{ answer=$url; note url; {DONE}; }}"), "");
    project.write("issues/Todo/odd.md", "---\nidentifier: \"A B+ü\"\ntitle: Odd\n---\nDo it.\n");
    assert_eq!(project.once(), 0);
    let patches = std::fs::read_dir(project.dir().join(".symphony/patches")).expect("patches").flatten();
    let patch = patches.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(|n| n.ends_with(".patch"));
    let patch = patch.expect("a patch");
    let key = patch.trim_start_matches("agent_").trim_end_matches(".patch");
    assert!(key.starts_with("A_B_") && key.len() > "A_B__".len(), "sanitised, with a suffix: {key}");
    let notes = std::fs::read_to_string(project.apply_patch(key).join("notes.txt")).expect("noted");
    assert!(notes.contains("/api/v1/issues/A%20B%2B%C3%BC/mcp"), "{notes}");
}

#[test]
fn without_the_tools_the_agent_is_told_of_none() {
    let scenario = "turn() { answer=\"$url|$prompt\"; note seen; say \"url is ($url)\"; sleep 0.2; }";
    let project = Project::acting(scenario, "mcp: {enabled: false}\nbudget: {sessions: 1}\n");
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replace("agent:\n", "agent:\n  max_turns: 2\n"));
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 3, "nobody can mark it done");
    let transcripts = project.transcripts();
    assert!(transcripts.contains("url is ()") && !transcripts.contains("mark_done tool"), "{transcripts}");
}
