//! Google's API through the broker, at the level of the others: streams pass and are counted, only plain inference goes, the key
//! stays on the host, limits pause it alone, and the agent of that name is told what it needs.

use serde_json::Value;

use super::credentials::SEARCH;
use super::server::Server;
use super::{BOTH, KEY, TOOLS, agents, command, noted, project, worked};
use crate::rig::{Project, until};
use crate::search::files_with;

const GOOGLE: [(&str, &str); 1] = [("GEMINI_API_KEY", KEY)];

/// `google MODEL METHOD [BODY] [HEADER]...` asks; without a body, one that says hi.
const ASKS: &str = r#"
google() { local host=127.0.0.1:8485; http POST "/google/v1beta/models/$1:$2" "${3:-{\"contents\":[{\"parts\":[{\"text\":\"hi\"\}]\}]\}}" "x-goog-api-key: $GEMINI_API_KEY" "Content-Type: application/json" "${@:4}"; }
stream() { google "$1" 'streamGenerateContent?alt=sse' "${@:2}"; }
"#;

fn asking(scenario: &str, server: &Server, more: &str) -> Project {
    project(&format!("{ASKS}\n{scenario}"), server, more)
}

#[test]
fn an_answer_of_google_s_streams_through_under_the_hosts_key_and_what_it_used_is_counted() {
    let server = Server::start();
    let scenario = r#"turn() {
        stream gemini-x; note stream
        google gemini-x generateContent; note whole
        google gemini-x countTokens '' "x-goog-user-project: theirs" "x-gemini-api-privileged-user-id: mine"; note count
        local host=127.0.0.1:8485
        http GET "/google/v1beta/models?key=$GEMINI_API_KEY" ""; note models
        http POST "/google/v1beta/models/gemini-x:streamGenerateContent?key=$GEMINI_API_KEY&alt=sse" '{"contents":[]}'; note query
        answer="$GOOGLE_GEMINI_BASE_URL ${ANTHROPIC_BASE_URL-none}"; note urls
        answer=$(search planted-""key-04''51); note key
        echo "$GEMINI_API_KEY" >~/planted; answer=$(search "$GEMINI_API_KEY"); note control
        host=127.0.0.1:8484; done_
    }"#;
    let project = asking(&format!("{SEARCH}\n{scenario}"), &server, "");
    // The others are far away, so that there is no key for them.
    let workflow = project.read("WORKFLOW.md");
    let own =
        workflow.split_once("providers:\n").expect("providers").1.split_once("  google:").expect("one").0.to_owned();
    project.write("WORKFLOW.md", &workflow.replace(&own, ""));
    let (notes, log) = worked(&project, &GOOGLE);
    let stream = noted(&notes, "stream");
    assert!(stream.starts_with("HTTP/1.1 200") && stream.contains("\"finishReason\":\"STOP\""), "{stream}");
    assert!(!notes.contains("planted"), "{notes}");
    // In its environment, in every process, in every file that it may read.
    assert_eq!(noted(&notes, "key").split_whitespace().collect::<Vec<_>>(), ["0", "0", "0"], "{notes}");
    let control = noted(&notes, "control").split_whitespace().all(|count| count != "0");
    assert!(control, "the same search finds what is there: {notes}");
    assert_eq!(noted(&notes, "urls").trim(), "http://127.0.0.1:8485/google none");
    for name in ["whole", "count", "models", "query"] {
        assert!(noted(&notes, name).starts_with("HTTP/1.1 200"), "{name}: {notes}");
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 5, "{asked:#?}");
    let key = format!("x-goog-api-key: {KEY}\r\n");
    let target = "/v1beta/models/gemini-x:streamgeneratecontent?alt=sse http/1.1\r\n";
    for at in [0, 4] {
        assert!(asked[at].head.starts_with(&format!("post {target}")), "{asked:#?}");
    }
    assert!(asked[3].head.starts_with("get /v1beta/models http/1.1\r\n"), "{asked:#?}");
    assert!(asked.iter().all(|asked| asked.head.contains(&key)), "{asked:#?}");
    let theirs = ["user-project", "privileged", "?key", "&key"];
    assert!(asked.iter().all(|asked| !theirs.iter().any(|word| asked.head.contains(word))), "{asked:#?}");
    // Three answers of 10 + 200 in and 30 + 20 out. Counting tokens uses none.
    let totals = r#""input_tokens":630,"output_tokens":150,"total_tokens":780"#;
    assert!(log.contains(totals), "{log}");
    assert_eq!(files_with(&project.dir(), KEY), Vec::<String>::new());
}

#[test]
fn only_the_runs_own_token_and_only_plain_inference_reach_google() {
    let server = Server::start();
    let scenario = r#"turn() {
        local mine=$GEMINI_API_KEY host
        GEMINI_API_KEY=wrong; stream gemini-x; note stranger; GEMINI_API_KEY=$mine
        host=127.0.0.1:8485; http POST "/google/v1beta/models/gemini-x:generateContent?key=wrong" '{}'; note query; host=127.0.0.1:8484
        host=127.0.0.1:8485; http POST "/anthropic/v1/messages?key=$mine" '{}'; note elsewhere; host=127.0.0.1:8484
        stream gemini-x '{"tools":[{"googleSearch":{}}]}'; note search
        stream gemini-x '{"tools":[{"urlContext":{}}]}'; note url
        stream gemini-x '{"contents":[{"parts":[{"fileData":{"fileUri":"https://example.com/a"}}]}]}'; note file
        stream gemini-x '{"cachedContent":"cachedContents/a"}'; note cached
        stream gemini-x '{"model":"models/other"}'; note twice
        stream other; note model
        google gemini-x streamGenerateContent; note list
        google gemini-x batchEmbedContents; note method
        done_
    }"#;
    let project = asking(scenario, &server, "");
    let workflow = project.read("WORKFLOW.md").replace("  google:\n", "  google:\n    models: [gemini-x]\n");
    project.write("WORKFLOW.md", &workflow);
    let (notes, log) = worked(&project, &[BOTH[0], BOTH[1], GOOGLE[0]]);
    for (name, status, word) in [
        ("stranger", 401, "\"status\":\"UNAUTHENTICATED\""),
        ("query", 401, "not the token of a run"),
        ("elsewhere", 401, "not the token of a run"),
        ("search", 400, "own tool `googleSearch`"),
        ("url", 400, "own tool `urlContext`"),
        ("file", 400, "contents[0].parts[0].fileData"),
        ("cached", 400, "cachedContent"),
        ("twice", 400, "stands in the path"),
        ("model", 400, "the workflow lists: gemini-x"),
        ("list", 400, "`alt=sse`"),
        ("method", 404, "\"status\":\"NOT_FOUND\""),
    ] {
        let noted = noted(&notes, name);
        assert!(noted.starts_with(&format!("HTTP/1.1 {status}")) && noted.contains(word), "{name}: {noted}");
    }
    assert!(server.asked().is_empty(), "{:#?}", server.asked());
    assert!(log.contains("model_refused"), "the operator sees it: {log}");
}

#[test]
fn a_cap_in_tokens_holds_for_google_s_models_and_a_failing_one_is_told_in_its_own_words() {
    // Each request can take some 400 tokens, and takes 260; with 1000 allowed the fourth does not fit.
    let capped = r#"turn() {
        local words=$(printf '%0200d' 0)
        for n in 1 2 3 4 5; do
            google gemini-x generateContent "{\"contents\":[{\"parts\":[{\"text\":\"$words\"}]}],\"generationConfig\":{\"maxOutputTokens\":90}}"
            say "answer $n: ${answer:0:12} $([[ $answer == *budget.tokens* ]] && echo of a budget)"
        done
        sleep 60
    }"#;
    let failing = "turn() { google broken generateContent; }";
    for (scenario, more, parked, requests) in [
        (capped, "budget:\n  tokens: 1000\n", "of 1000 tokens (budget.tokens); the next request could take up to ", 3),
        (failing, "budget:\n  failures_in_a_row: 1\n", "google answered 500 to broken: no", 1),
    ] {
        let server = Server::start();
        let project = asking(scenario, &server, more);
        project.issue("Todo", "A-1", "Ask.");
        let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &GOOGLE));
        let note = project.parked_note("A-1");
        assert!(note.contains(parked), "{note}\n{}", running.log());
        assert_eq!(server.asked().len(), requests, "{}", project.transcripts());
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn a_limit_of_google_s_in_the_words_of_its_error_is_waited_for_and_nothing_is_asked_meanwhile() {
    let server = Server::start();
    let scenario = r#"turn() { stream limited-once; note asked; done_; }"#;
    let (notes, log) = worked(&asking(scenario, &server, ""), &GOOGLE);
    assert!(noted(&notes, "asked").contains("\"finishReason\":\"STOP\""), "the agent saw a slow answer: {notes}");
    assert_eq!(server.asked().len(), 2, "{:#?}", server.asked());
    assert!(log.contains("google answered 429 to limited-once: nothing is asked for 2 s"), "{log}");
}

#[test]
fn a_key_that_google_calls_a_bad_request_makes_issues_wait_with_the_remedy_and_counts_as_no_failure() {
    let server = Server::start();
    let scenario = r#"turn() { stream no-key; sleep 60; }"#;
    let project = asking(scenario, &server, "");
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &GOOGLE));
    until("the run to end", || running.log().contains("reason=provider-login"));
    assert!(running.log().contains("google refuses the key in GEMINI_API_KEY"), "{}", running.log());
    assert_eq!(server.asked().len(), 1);
    assert!(!running.log().contains(KEY) && !project.exists("issues/Parked/A-1.md"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn gemini_starts_by_its_name_and_is_told_model_address_and_token() {
    let server = Server::start();
    let project = agents::project("gemini", &server);
    let notes = format!(
        "{TOOLS}\nturn() {{ answer=$(env); note told; answer=$ARGUMENTS; note arguments; answer=$(cat ~/.gemini/settings.json); note home; done_; }}"
    );
    agents::install(&project, "gemini", &notes);
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &GOOGLE));
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
    for part in [
        "GEMINI_MODEL=some/model-1",
        "GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8485/google\n",
        "GEMINI_CLI_TRUST_WORKSPACE=true",
        "GEMINI_CLI_NO_RELAUNCH=1",
    ] {
        assert!(noted(&notes, "told").contains(part), "no {part} in {notes}");
    }
    assert!(!notes.contains(KEY) && noted(&notes, "told").contains("GEMINI_API_KEY="), "{notes}");
    assert_eq!(noted(&notes, "arguments").trim(), "--acp");
    let settings: Value = serde_json::from_str(noted(&notes, "home")).expect("JSON");
    assert_eq!(settings["security"]["auth"]["selectedType"], "gemini-api-key");
    let told = &settings["modelConfigs"]["customOverrides"][2];
    assert_eq!(told["match"]["model"], "some/model-1");
    assert_eq!(told["modelConfig"]["generateContentConfig"]["thinkingConfig"]["thinkingLevel"], "high");
    assert_eq!(running.stop(), 0);
}

#[test]
fn without_a_key_an_issue_of_gemini_s_waits_and_is_told_that_no_login_is_used() {
    let server = Server::start();
    let project = agents::project("gemini", &server);
    let workflow = project.read("WORKFLOW.md");
    project
        .write("WORKFLOW.md", &workflow.replace(&format!("google:\n    base_url: {}\n", server.url), "google: {}\n"));
    let remedy = "no credential for google on the host: set GEMINI_API_KEY to a key of the Gemini API; a login of Gemini CLI is not used";
    let said = command(&project, &["doctor"], &BOTH).output().expect("runs").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(&format!("gemini --acp: {remedy}")), "{said}");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let state = running.until_state("the issue to wait", |state| state["idle"][0]["reason_code"] == "no-credential");
    assert_eq!(state["idle"][0]["reason"], remedy, "{state}");
    assert!(!project.exists(".symphony/workspaces/A-1") && !project.exists("issues/Parked/A-1.md"));
    assert_eq!(running.stop(), 0);
}
