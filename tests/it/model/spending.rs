//! Budgets in tokens and money as their owner meets them: the real binary, an agent in its jail, a provider on this machine.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::server::Server;
use super::{BOTH, command, noted, project};
use crate::rig::{Project, Running, until};

const PRICES: &str = "prices:\n  big*: {input: 1000, output: 1000}\n  json*: {input: 1000, output: 1000}\n";

fn start(project: &Project) -> Running {
    project.start_command(command(project, &["WORKFLOW.md", "--port", "0"], &BOTH))
}

/// What the agent noted up to now, wherever its work tree is exported to.
fn notes(project: &Project, issue: &str) -> String {
    let airlock = project.dir().join(format!(".symphony/airlock/{issue}.git"));
    crate::rig::git(&airlock, &["show", "refs/symphony/wip:notes.txt"])
}

fn idle<'s>(state: &'s Value, issue: &str) -> &'s Value {
    let rows = state["idle"].as_array().expect("rows");
    rows.iter().find(|row| row["issue_identifier"] == issue).unwrap_or(&Value::Null)
}

/// Each request can take some 460 tokens, and takes 260; with 1000 allowed the fourth does not fit.
/// It asks until it is refused, and then goes on and on, as an agent does that does not understand.
const ASKS_ON: &str = r#"turn() {
    local words=$(printf '%0300d' 0) body
    body="{\"model\":\"stream\",\"max_tokens\":60,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"$words\"}]}"
    echo "$past" >>turns.txt
    for n in 1 2 3 4 5 6; do model /anthropic/v1/messages "$body"; note "answer-$past-$n"; [[ $answer == *"HTTP/1.1 200"* ]] || break; done
    echo kept >kept.txt
    [[ $answer == *"HTTP/1.1 200"* ]] && { done_; return; }
    sleep 600
}
sessions=load"#;

#[test]
fn a_cap_that_is_met_refuses_and_parks_and_a_form_of_the_inbox_raises_it() {
    let server = Server::start();
    let project = project(ASKS_ON, &server, "budget:\n  tokens: 1000\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    let note = project.parked_note("A-1");
    assert!(note.contains("of 1000 tokens (budget.tokens); the next request could take up to "), "{note}");
    assert!(note.contains("Raise `budget.tokens` in the dashboard's inbox"), "{note}");
    // Its file was seen where it was put.
    let state = running.until_state("the card", |state| idle(state, "A-1")["role"] == "holding");
    let row = idle(&state, "A-1");
    assert_eq!(row["parked"], true, "{row}");
    assert_eq!(row["last_end"]["reason"], "budget-spend", "{row}");
    let used = row["issue_spend"]["total_tokens"].as_u64().expect("counted");
    let asked = server.asked().len();
    // 10 + 200 given and 50 written, each.
    assert_eq!((used, asked), (780, 3));
    let said = notes(&project, "A-1");
    let last = said.split("== ").last().expect("noted");
    assert!(last.contains("HTTP/1.1 400") && last.contains("x-should-retry: false"), "{last}");
    assert!(last.contains("invalid_request_error") && last.contains("(budget.tokens)"), "{last}");
    let kept = project.dir().join(".symphony/airlock/A-1.git");
    assert_eq!(crate::rig::git(&kept, &["show", "refs/symphony/wip:kept.txt"]), "kept", "its work is exported");
    let events = "SELECT count(*) FROM counters WHERE issue = 'A-1' AND failures_in_a_row > 0";
    assert_eq!(number(&project, events), 0, "nobody failed");

    let (browser, cookie) = running.client().browser();
    let page = browser.send("GET", "/", &[("Cookie", cookie.as_str())], "").body;
    assert!(page.contains("raise <code>budget.tokens</code> by how much, or stop?"), "{page}");
    let value = |name: &str| {
        let at = page.split_once(&format!("name=\"{name}\" value=\"")).expect("a field").1;
        at.split('"').next().expect("a value").to_owned()
    };
    let saw = |name: &str| format!("{name}={}", value(name));
    let form = |amount: &str| format!("{}&{}&{}&amount={amount}", saw("csrf"), saw("seen"), saw("budget"));
    let send = |amount: &str| {
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Cookie", cookie.as_str())];
        browser.send("POST", "/api/v1/issues/A-1/raise", &headers, &form(amount))
    };
    let wrong = send("lots");
    assert!(wrong.status == 400 && wrong.body.contains("this is no number of tokens"), "{}", wrong.body);
    assert!(wrong.body.contains("value=\"lots\""), "what was typed stands there again");
    assert_eq!(send("1000000").status, 303);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    let twice = running.post("/api/v1/issues/A-1/raise", &json!({"amount": "5"}));
    assert_eq!((twice.status, twice.error_code()), (409, "budget_not_met".into()));
    assert_eq!(number(&project, "SELECT count(*) FROM raises"), 1);
    assert_eq!(running.stop(), 0);
    let journal =
        symphony::journal::inspect::check(&project.dir().join(".symphony/journal.db"), None).expect("readable");
    assert_eq!(journal.differences, Vec::<String>::new());
}

/// Regression: a raise that was too small was taken, and every later one was refused as if it had been enough.
#[test]
fn a_raise_that_is_too_small_is_refused_in_words_and_the_issue_can_still_be_raised() {
    let server = Server::start();
    let project = project(ASKS_ON, &server, "budget:\n  tokens: 1000\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    running.until_state("the card", |state| {
        idle(state, "A-1")["role"] == "holding" && idle(state, "A-1")["parked"] == json!(true)
    });
    let raise = |amount: &str| running.post("/api/v1/issues/A-1/raise", &json!({"amount": amount}));
    for _ in 0..2 {
        let little = raise("1");
        let said = little.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((little.status, little.error_code()), (400, "bad_request".into()), "{said}");
        assert!(said.contains("780 tokens of 1000 tokens is used and the next request could take up to "), "{said}");
        assert!(said.contains("raise budget.tokens by at least "), "{said}");
    }
    // What the owner changes in the file is the cap that the card shows, and that a raise counts from.
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replace("tokens: 1000", "tokens: 500"));
    running.until_state("the present cap", |state| {
        idle(state, "A-1")["reason"].as_str().is_some_and(|reason| reason.contains("780 of 500 tokens"))
    });
    let page = running.client().get("/api/v1/partials/attention").body;
    assert!(page.contains("name=\"seen\" value=\"500\"") && page.contains("tokens, at least "), "{page}");
    assert_eq!(raise("500").status, 400, "as much as there was, which did not reach");
    // Regression: whoever saw another cap, on an old page, raised the one that is in the way now.
    let old = json!({"amount": "1000000", "seen": 900, "budget": "budget.day.tokens"});
    let old = running.post("/api/v1/issues/A-1/raise", &old);
    let said = old.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(old.status == 400 && said.contains("what keeps it waiting is budget.tokens now"), "{said}");
    assert_eq!(number(&project, "SELECT count(*) FROM raises"), 0);
    assert_eq!(raise("1000000").status, 202);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    assert_eq!(running.stop(), 0);
}

fn number(project: &Project, sql: &str) -> i64 {
    let db = Connection::open(project.dir().join(".symphony/journal.db")).expect("a journal");
    db.busy_timeout(Duration::from_secs(10)).expect("set");
    db.query_row(sql, [], |r| r.get(0)).expect(sql)
}

#[test]
fn a_kill_with_a_request_under_way_charges_all_that_was_set_aside_and_totals_are_kept() {
    let server = Server::start();
    let scenario =
        r#"turn() { ask stream; if [ -e "$HOME/again" ]; then done_; else : >"$HOME/again"; ask hang; fi; }"#;
    let project = project(scenario, &server, "");
    project.issue("Todo", "A-1", "Ask.");
    let mut running = start(&project);
    until("the second request", || server.asked().len() == 2);
    let open = "SELECT coalesce(sum(input + output), 0) FROM reservations";
    let most = number(&project, open);
    assert!(most > 9, "the bytes of the body, and 9 of output: {most}");
    let state = running.until_state("the first to be charged", |state| state["spend"]["ever"]["total_tokens"] == 260);
    assert_eq!(state["running"][0]["spend"]["total_tokens"], 260, "{state}");
    running.signal(rustix::process::Signal::KILL);
    assert!(running.killed());
    let running = start(&project);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    let state = running.until_state("the end", |state| state["running"] == json!([]));
    let spend = &state["spend"]["ever"];
    assert_eq!(spend["total_tokens"], json!(260 + most + 260), "{spend}");
    assert_eq!((&spend["assumed_tokens"], &spend["requests"]), (&json!(most), &json!(3)));
    let said = command(&project, &["explain", "A-1"], &[]).output().expect("runs").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(&format!("{} tokens ({most} of them assumed)", 520 + most)), "{said}");
    assert_eq!(running.stop(), 0);
    assert_eq!(number(&project, open), 0);
    let journal =
        symphony::journal::inspect::check(&project.dir().join(".symphony/journal.db"), None).expect("readable");
    assert_eq!(journal.differences, Vec::<String>::new());
}

/// Regression: what a single request used was kept nowhere.
#[test]
fn each_request_is_a_line_of_the_transcript_and_the_log_sums_them_up() {
    let server = Server::start();
    let scenario = r#"turn() { ask stream; ask json; ask cut; note cut; model /anthropic/v1/messages/count_tokens '{"model":"json","messages":[]}'; done_; }"#;
    let project = project(scenario, &server, PRICES);
    super::worked(&project, &BOTH);
    let lines = project.transcripts();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let requests: Vec<_> = lines.iter().filter_map(|line| line.get("request")).collect();
    assert_eq!(requests.len(), 3, "{requests:?}");
    let told = json!({"provider": "anthropic", "model": "big-1", "input": 10, "output": 50, "cache_read": 200, "cache_write": 0});
    for (name, value) in told.as_object().expect("an object") {
        assert_eq!(requests[0][name], *value, "{name} of {}", requests[0]);
    }
    assert_eq!((&requests[0]["charged"], &requests[1]["cost_usd"]), (&json!("told"), &json!("0.007")));
    // What its provider did not tell to the end is charged as it was set aside.
    let cut = requests[2];
    assert_eq!((&cut["charged"], &cut["cost_usd"]), (&json!("reserved"), &Value::Null), "{cut}");
    assert_eq!(cut["reserved_tokens"], json!(cut["input"].as_u64().expect("counted") + 9), "{cut}");
    let all: Vec<_> = lines.iter().filter_map(|line| line.get("requests")).collect();
    assert_eq!((all.len(), &all[0]["requests"], &all[0]["cache_read"]), (1, &json!(3), &json!(200)));
    let written = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    assert!(!written.contains(super::KEY), "{written}");
    let out = command(&project, &["log", "A-1"], &[]).output().expect("runs").stdout;
    let out = String::from_utf8_lossy(&out).into_owned();
    let turns: Vec<&str> = out.lines().filter(|line| line.contains("  models      ")).collect();
    assert!(!turns.is_empty() && turns.len() <= 2 && turns[0].contains(" to big-1"), "{out}");
    let last = out.lines().find(|line| line.contains("  used        3 requests in all: ")).expect("a sum");
    assert!(last.contains(" assumed)") && last.contains(" · $") && last.contains(" unpriced tokens"), "{last}");
}

#[test]
fn under_a_cap_of_money_a_model_without_a_price_is_refused_with_the_remedy() {
    let server = Server::start();
    let scenario = r#"turn() {
        ask stream; note unpriced
        ask json; note priced
        model /anthropic/v1/messages '{"model":"json","max_tokens":9,"service_tier":"priority","messages":[]}'; note tier
        done_
    }"#;
    let project = project(scenario, &server, &format!("budget:\n  usd: 100\n{PRICES}"));
    let (said, log) = super::worked(&project, &BOTH);
    let refused = noted(&said, "unpriced");
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("x-should-retry: false"), "{refused}");
    assert!(
        refused.contains("`stream` has no price") && refused.contains("below `prices` in WORKFLOW.md"),
        "{refused}"
    );
    assert!(noted(&said, "tier").contains("`json priority` has no price"), "{said}");
    assert!(noted(&said, "priced").starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(server.asked().len(), 1, "what is refused is not sent");
    // 3 given and 4 written at a tenth of a cent.
    assert!(log.contains(r#""usd":"0.007""#) && log.contains("model_refused"), "{log}");
}

#[test]
fn without_prices_tokens_are_counted_and_no_amount_is_shown_as_if_it_were_all() {
    let server = Server::start();
    let project =
        project("turn() { ask stream; ask json; done_; }", &server, "prices:\n  json*: {input: 1000, output: 1000}\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    running.until_state("the end", |state| state["running"] == json!([]));
    let page = running.client().get("/api/v1/partials/totals").body;
    assert!(page.contains("267 tokens · $0.007 + 260 unpriced tokens"), "{page}");
    assert!(page.contains("today, big-1") && page.contains("today, json-1"), "{page}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_days_budget_that_is_met_stops_what_needs_a_model_and_a_changed_file_lets_it_go_on() {
    let server = Server::start();
    // The first takes 260, and less than a tenth is left: too little for the second.
    let scenario =
        r#"turn() { ask stream; ask stream; if [[ $answer == *"HTTP/1.1 200"* ]]; then done_; else sleep 600; fi; }"#;
    let project = project(scenario, &server, "budget:\n  day: {tokens: 280}\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    let note = project.parked_note("A-1");
    assert!(note.contains("(budget.day.tokens)") && note.contains("as it does when the next day begins"), "{note}");
    assert_eq!(server.asked().len(), 1, "what does not fit is never sent");
    project.issue("Todo", "B-1", "Ask.");
    let state = running.until_state("the reason", |state| idle(state, "B-1")["reason_code"] == "spend");
    let reason = idle(&state, "B-1")["reason"].as_str().expect("words").to_owned();
    assert!(reason.contains("it goes on when ") && reason.contains("budget.day.tokens is raised"), "{reason}");
    assert_eq!(running.stop(), 0);
    // The next process knows it too.
    let running = start(&project);
    running.until_state("the reason", |state| idle(state, "B-1")["reason_code"] == "spend");
    let workflow = project.read("WORKFLOW.md").replace("tokens: 280}", "tokens: 100000}");
    project.write("WORKFLOW.md", &workflow);
    until("both to be done", || ["A-1", "B-1"].iter().all(|name| project.exists(&format!("issues/Done/{name}.md"))));
    assert_eq!(running.stop(), 0);
}

/// DESIGN: overshoot is at most what was in flight; with reservations it is none while their bounds hold.
#[test]
fn ten_requests_at_once_against_a_budget_for_three_pass_none_of_it() {
    let server = Server::start();
    // Each can take the bytes of its body, some 120, and 200 of output.
    let scenario = r#"turn() {
        local body='{"model":"slow","max_tokens":200,"stream":true,"messages":[{"role":"user","content":"ten at once, please"}]}'
        local -a pids=()
        for n in 1 2 3 4 5 6 7 8 9 10; do
            { model /anthropic/v1/messages "$body"; printf '%s\n' "${answer%%$'\n'*}" >"$HOME/status-$n"; } &
            pids+=($!)
        done
        wait "${pids[@]}"
        answer=$(cat "$HOME"/status-*); note statuses
        sleep 600
    }"#;
    let allowed = 1000;
    let project = project(scenario, &server, &format!("budget:\n  tokens: {allowed}\n"));
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    until("three requests", || server.asked().len() == 3);
    let held = number(&project, "SELECT coalesce(sum(input + output), 0) FROM reservations");
    assert!(held <= allowed && held * 4 > allowed * 3, "three fit, and no fourth: {held}");
    server.release();
    project.parked_note("A-1");
    let state = running.until_state("the card", |state| idle(state, "A-1")["parked"] == json!(true));
    let used = idle(&state, "A-1")["issue_spend"]["total_tokens"].as_i64().expect("counted");
    let asked = server.asked().len();
    let over = (used - allowed).max(0);
    println!(
        "overshoot: 10 requests at once, {allowed} tokens allowed, {held} set aside for the first 3, {asked} sent, {used} used, {over} above the cap"
    );
    assert_eq!(over, 0);
    assert!((3..10).contains(&asked), "{asked}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_run_without_room_beside_the_requests_of_others_ends_without_a_failure_and_goes_on_when_one_has_ended() {
    let server = Server::start();
    // The one holds some 900 of the day's 1000 until it is let go; the other needs some 400, and asks on and on.
    let scenario = r#"turn() {
        case $prompt in
        *A-1*) model /anthropic/v1/messages '{"model":"slow","max_tokens":800,"stream":true,"messages":[]}' ;;
        *) for n in 1 2 3; do
            model /anthropic/v1/messages '{"model":"stream","max_tokens":300,"stream":true,"messages":[]}'
            [[ $answer == *"HTTP/1.1 200"* ]] && break
        done ;;
        esac
        note asked
        if [[ $answer == *"HTTP/1.1 200"* ]]; then done_; fi
    }"#;
    let budget = "  hold_ms: 500\nbudget:\n  day: {tokens: 1000}\n  failures_in_a_row: 1\n";
    let project = project(scenario, &server, budget);
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    until("the first to hold the rest", || server.asked().len() == 1);
    project.issue("Todo", "B-2", "Ask.");
    let state = running.until_state("the other to wait", |state| idle(state, "B-2")["reason_code"] == "no-budget-room");
    let row = idle(&state, "B-2");
    assert_eq!(row["last_end"]["reason"], "budget-busy", "{row}");
    let why = row["reason"].as_str().expect("a reason");
    assert!(why.contains("set aside for requests of other issues; it goes on when one of them has ended"), "{row}");
    assert_eq!(server.asked().len(), 1, "what has no room is not sent");
    let times = || number(&project, "SELECT coalesce(max(times), 0) FROM in_vain");
    assert_eq!(times(), 1, "it was sent away once, and does not come again and again");
    server.release();
    until("both to be done", || ["A-1", "B-2"].iter().all(|name| project.exists(&format!("issues/Done/{name}.md"))));
    assert!(!project.dir().join("issues/Parked").exists(), "one failure would have parked it");
    assert_eq!(times(), 0, "an answer ends the count");
    assert_eq!(running.stop(), 0);
}

#[test]
fn names_that_an_agent_invents_take_no_place_among_the_models_that_answered() {
    let server = Server::start();
    // Its provider breaks off each of them, before it says what it used.
    let project = project("turn() { ask invented-1; ask invented-2; ask stream; done_; }", &server, "");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    let state = running.until_state("the end", |state| state["running"] == json!([]));
    let models = state["spend"]["models"].as_array().expect("rows");
    let mut names: Vec<_> = models.iter().filter_map(|row| row["model"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["(others)", "big-1"], "{state}");
    assert_eq!(state["spend"]["ever"]["requests"], 3, "all of it is counted: {state}");
    assert_eq!(running.stop(), 0);
    assert_eq!(number(&project, "SELECT count(*) FROM spend WHERE model LIKE 'invented%'"), 0);
}

/// How a command ended, and what it printed.
fn told(project: &Project, args: &[&str]) -> (i32, String) {
    let output = command(project, args, &[]).output().expect("runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ended by itself"), String::from_utf8(text).expect("text"))
}

#[test]
fn a_budget_is_raised_from_the_command_line_in_its_own_unit_and_once() {
    let server = Server::start();
    let scenario = r#"turn() { ask stream; if [[ $answer == *"HTTP/1.1 200"* ]]; then done_; else sleep 600; fi; }"#;
    let project = project(scenario, &server, "budget:\n  tokens: 50\n");
    let (code, said) = told(&project, &["raise", "A-1", "--tokens", "1000"]);
    assert!(
        code == 1 && said.contains("no symphony runs on ") && said.contains("start one: symphony "),
        "{code} {said}"
    );
    project.issue("Todo", "A-1", "Ask.");
    project.issue("Backlog", "B-1", "Not yet.");
    let running = start(&project);
    running.until_state("the card", |state| idle(state, "A-1")["parked"] == json!(true));
    let (code, help) = told(&project, &["raise", "--help"]);
    assert!(code == 0 && help.contains("--usd <AMOUNT>") && help.contains("--tokens <NUMBER>"), "{help}");
    for (args, expected, says) in [
        (&["raise", "A-1"][..], 2, "--usd <AMOUNT>"),
        (&["raise", "A-1", "--usd", "5", "--tokens", "5"], 2, "cannot be used with"),
        (
            &["raise", "A-1", "--tokens", "many"],
            2,
            "--tokens many: this is no number of tokens; write it in digits, like 200000",
        ),
        (&["raise", "A-1", "--tokens", "0"], 2, "the amount is zero"),
        (&["raise", "A-1", "--usd", "1e9"], 2, "--usd 1e9: this is no amount in US dollars; write it like 5 or 2.50"),
        (&["raise", "NOPE", "--usd", "5"], 2, "NOPE"),
        (
            &["raise", "A-1", "--usd", "5"],
            1,
            "A-1 waits for budget.tokens, which counts tokens\n  say by how much with --tokens",
        ),
        (&["raise", "B-1", "--usd", "5"], 1, "B-1 does not wait for a budget in tokens or money"),
        (&["raise", "A-1", "--usd", "5", "--workflow", "OTHER.md"], 1, "no symphony runs on "),
    ] {
        let (code, said) = told(&project, args);
        assert!(code == expected && said.contains(says), "{args:?}: {code} {said}");
    }
    assert_eq!(number(&project, "SELECT count(*) FROM raises"), 0, "none of it raised anything");
    let (code, said) = told(&project, &["raise", "a-1", "--tokens", "1_000"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "A-1: budget.tokens was raised by 1000 tokens; it goes back to work by itself\n")
    );
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    let (code, said) = told(&project, &["raise", "A-1", "--tokens", "1000"]);
    assert!(code == 1 && said.contains("there is nothing to raise"), "{code} {said}");
    assert_eq!(running.stop(), 0);
    assert_eq!(number(&project, "SELECT count(*) FROM raises"), 1);
    assert_eq!(
        number(&project, "SELECT count(*) FROM events WHERE kind = 'raised' AND body LIKE '%\"by\":\"cli\"%'"),
        1
    );
}

#[test]
fn a_kill_while_a_budget_is_raised_raises_it_once_or_not_at_all() {
    for (point, raised) in [("before", 0), ("torn", 0), ("after", 1)] {
        let server = Server::start();
        let scenario =
            r#"turn() { ask stream; if [[ $answer == *"HTTP/1.1 200"* ]]; then done_; else sleep 600; fi; }"#;
        let project = project(scenario, &server, "budget:\n  tokens: 50\n");
        project.issue("Todo", "A-1", "Ask.");
        let failing = ("SYMPHONY_FAILPOINT", format!("journal/raised/{point}"));
        let env: Vec<_> = BOTH.into_iter().chain([(failing.0, failing.1.as_str())]).collect();
        let mut running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &env));
        running.until_state("the card", |state| idle(state, "A-1")["parked"] == json!(true));
        let answer = running.client().try_post_json("/api/v1/issues/A-1/raise", &json!({"amount": "1000"}));
        assert!(answer.as_ref().map_or(0, |answer| answer.status) == 0, "nobody answers: {answer:?}");
        assert!(running.killed(), "{point}");
        assert_eq!(number(&project, "SELECT count(*) FROM raises"), raised, "{point}");
        let running = start(&project);
        if raised == 0 {
            running.until_state("the card again", |state| idle(state, "A-1")["parked"] == json!(true));
            assert_eq!(running.post("/api/v1/issues/A-1/raise", &json!({"amount": 1000})).status, 202);
        }
        until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
        assert_eq!(running.stop(), 0);
        assert_eq!(number(&project, "SELECT count(*) FROM raises"), 1, "{point}");
    }
}

/// Regression: Claude Code asks with every request to leave out old thinking. Twice of what each could use was set aside, and a
/// cap with room for one parked the issue before it was asked at all.
#[test]
fn a_request_that_leaves_out_old_thinking_is_not_set_aside_for_twice_and_a_note_says_what_lets_one_pass() {
    let server = Server::start();
    let scenario = r#"turn() {
        local head='{"model":"stream","max_tokens":600,"stream":true,"messages":[]'
        model /anthropic/v1/messages "$head"',"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]}}'; note clears
        model /anthropic/v1/messages "$head"',"context_management":{"edits":[{"type":"compact_20260112"}]}}'; note compacts
        sleep 600
    }"#;
    let project = project(scenario, &server, "budget:\n  tokens: 1000\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    let note = project.parked_note("A-1");
    let said = notes(&project, "A-1");
    assert!(noted(&said, "clears").starts_with("HTTP/1.1 200"), "{said}");
    assert!(noted(&said, "compacts").starts_with("HTTP/1.1 400"), "{said}");
    assert!(note.contains("used 260 of 1000 tokens") && note.contains(", 1200 of them for its answer"), "{note}");
    assert!(
        note.contains("in the workflow file, by at least ") && note.contains("ask for shorter answers, by "),
        "{note}"
    );
    assert!(note.contains("it may use no more than the 740 tokens that are left"), "{note}");
    assert_eq!((running.stop(), server.asked().len()), (0, 1));
}

/// Regression: a day's cap below what was used already kept everything waiting below a page that said "idle", and nothing
/// but an edit of the workflow file could raise it.
#[test]
fn a_days_cap_that_no_issue_was_put_aside_for_is_raised_by_an_issue_that_waits_for_it() {
    let server = Server::start();
    let project = project("turn() { ask stream; done_; }", &server, "budget:\n  day: {tokens: 1000}\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replace("tokens: 1000}", "tokens: 100}"));
    project.issue("Todo", "B-1", "Ask.");
    let state = running.until_state("it to wait", |state| idle(state, "B-1")["reason_code"] == "spend");
    assert_eq!(state["counts"]["blocked"], 1, "{state}");
    let page = running.client().get("/api/v1/partials/attention").body;
    assert!(page.contains("raise <code>budget.day.tokens</code> by how much, or stop?"), "{page}");
    let (code, said) = told(&project, &["explain", "B-1"]);
    assert!(said.contains("`symphony raise B-1 --tokens NUMBER`"), "{code} {said}");
    let (code, said) = told(&project, &["raise", "B-1", "--usd", "1"]);
    assert!(code == 1 && said.contains("B-1 waits for budget.day.tokens, which counts tokens"), "{code} {said}");
    let (code, said) = told(&project, &["raise", "B-1", "--tokens", "5"]);
    assert!(code == 1 && said.contains("that is not enough: 260 tokens of 100 tokens is used"), "{code} {said}");
    let (code, said) = told(&project, &["raise", "B-1", "--tokens", "5000"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "B-1: budget.day.tokens was raised by 5000 tokens; it goes back to work by itself\n")
    );
    until("the other to be done", || project.exists("issues/Done/B-1.md") || running.ended());
    assert_eq!(running.stop(), 0);
}

/// Regression: with the parked issue moved away, nothing named a way to raise the workflow's cap that others wait for.
#[test]
fn a_workflows_cap_whose_parked_issue_was_stopped_is_raised_by_another_issue() {
    let server = Server::start();
    let scenario =
        r#"turn() { ask stream; ask stream; if [[ $answer == *"HTTP/1.1 200"* ]]; then done_; else sleep 600; fi; }"#;
    let project = project(scenario, &server, "budget:\n  workflow: {tokens: 280}\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project);
    running.until_state("the card", |state| idle(state, "A-1")["parked"] == json!(true));
    project.issue("Todo", "B-1", "Ask.");
    running.until_state("the other to wait", |state| idle(state, "B-1")["reason_code"] == "spend");
    let cards = |page: &str| page.matches("raise <code>budget.workflow.tokens</code>").count();
    let page = running.client().get("/api/v1/partials/attention").body;
    assert!(cards(&page) == 1 && page.contains("/issues/A-1/raise"), "the one that was put aside asks: {page}");
    let stopped = running.post("/api/v1/issues/A-1/discard", &json!({}));
    assert!(stopped.status < 300, "{stopped:?}");
    let state = running.until_state("it to be gone", |state| idle(state, "A-1")["parked"] != json!(true));
    assert_eq!(state["counts"]["blocked"], 1, "{state}");
    let page = running.client().get("/api/v1/partials/attention").body;
    assert!(cards(&page) == 1 && page.contains("/issues/B-1/raise"), "{page}");
    let (_, said) = told(&project, &["explain"]);
    assert!(said.contains("budget.workflow.tokens") && said.contains("`symphony raise B-1 --tokens NUMBER`"), "{said}");
    assert_eq!(running.post("/api/v1/issues/B-1/raise", &json!({"amount": "100000"})).status, 202);
    until("the other to be done", || project.exists("issues/Done/B-1.md") || running.ended());
    assert_eq!(running.stop(), 0);
}

/// Regression: a request for a longer context was set aside for, and charged, at the usual price.
#[test]
fn under_a_cap_of_money_a_longer_context_is_refused_until_its_price_is_said() {
    let server = Server::start();
    let scenario = r#"turn() {
        local body='{"model":"json","max_tokens":9,"messages":[]}'
        model /anthropic/v1/messages "$body" "Anthropic-Beta: x-1, context-1m-2025-08-07"; note long
        model /anthropic/v1/messages "$body" "Anthropic-Beta: x-1"; note usual
        done_
    }"#;
    let project = project(scenario, &server, &format!("budget:\n  usd: 100\n{PRICES}"));
    let (said, _) = super::worked(&project, &BOTH);
    let long = noted(&said, "long");
    assert!(long.starts_with("HTTP/1.1 400") && long.contains("x-should-retry: false"), "{long}");
    assert!(long.contains("add `long_context: {above: 200000, input: …, output: …}` to it"), "{long}");
    assert!(noted(&said, "usual").starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(server.asked().len(), 1, "what is refused is not sent");
}

/// Regression: a model that the workflow's own rules refuse was found out by running: each issue was started once, and parked.
#[test]
fn issues_whose_agent_is_to_ask_a_model_that_would_be_refused_wait_and_start_once_the_workflow_is_mended() {
    let server = Server::start();
    let project = Project::new();
    std::fs::create_dir_all(project.beside("home")).expect("home");
    let acting = crate::rig::FRONT.replace("adapter: script\n", "adapter: codex\n  model: g-1\n");
    let front = format!("{acting}{}budget: {{usd: 5}}\n{PRICES}", super::providers(&server));
    project.write("WORKFLOW.md", &format!("---\n{front}---\nWork.\n"));
    project.issue("Todo", "A-1", "Ask.");
    let output = command(&project, &["doctor"], &BOTH).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = "its agent is to ask `g-1`, which has no price, and the workflow bounds money";
    assert!(said.contains(&format!("no issue in `Todo` will start: {why}")), "{said}");
    let running = start(&project);
    let state = running.until_state("it to wait", |state| idle(state, "A-1")["reason_code"] == "model-barred");
    assert_eq!(idle(&state, "A-1")["reason"], why, "{state}");
    assert_eq!(state["counts"]["blocked"], 1, "{state}");
    let (_, said) = told(&project, &["explain", "A-1"]);
    assert!(said.contains("Add `g-1: {input: …, output: …}` below `prices`"), "{said}");
    assert_eq!(number(&project, "SELECT count(*) FROM runs"), 0, "nothing was started");
    project.write(
        "WORKFLOW.md",
        &project.read("WORKFLOW.md").replace("prices:\n", "prices:\n  g-*: {input: 1, output: 1}\n"),
    );
    // Its program is not in the sandbox: it gets as far as that.
    let note = project.parked_note("A-1");
    assert!(note.contains("codex-acp"), "{note}");
    assert_eq!(running.stop(), 0);
}
