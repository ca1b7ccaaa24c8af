//! A person's word: asked for once, applied at once, kept for good.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::lab::{self, Lab};
use super::{block, left, project};
use crate::rig::{Running, until};

/// The number of the card of an issue for a host, once it is there.
fn card(running: &Running, issue: &str, host: &str) -> u64 {
    let mut number = 0;
    running.until_state(&format!("{issue} to ask for {host}"), |state| {
        let rows = state["egress"]["asked"].as_array().cloned().unwrap_or_default();
        let found = rows.iter().find(|row| row["issue_identifier"] == json!(issue) && row["host"] == json!(host));
        number = found.and_then(|row| row["number"].as_u64()).unwrap_or(0);
        number > 0
    });
    number
}

fn decide(running: &Running, number: u64, verb: &str) -> u16 {
    running.post(&format!("/api/v1/egress/{number}/decide"), &json!({"verb": verb})).status
}

fn decided(state: &Value) -> Vec<String> {
    let rows = state["egress"]["decided"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .map(|row| format!("{} {}", row["host"].as_str().unwrap_or(""), row["verb"].as_str().unwrap_or("")))
        .collect()
}

#[test]
fn a_denied_host_is_asked_for_and_reached_by_the_same_run_once_a_person_allows_it() {
    lab::inside(|lab: &Lab| {
        let project = project(lab, "");
        let work = r#"
until get https://asked.example/page >page.txt 2>/dev/null; do sleep 0.2; done
until get https://once.example/page >once.txt 2>/dev/null; do sleep 0.2; done
get https://once.example/page >twice.txt 2>&1 || true
until get -v https://never.example/page 2>&1 | grep 'never to be reached' >never.txt; do sleep 0.2; done
"#;
        project.issue("Todo", "A-1", &block(lab, work));
        let running = project.start();
        let asked = card(&running, "A-1", "asked.example");
        // The card counts a request first, the run once it was answered.
        running.until_state("its counts to grow", |state| {
            state["egress"]["asked"][0]["times"].as_u64() > Some(2)
                && state["running"][0]["egress"]["denied"].as_u64() > Some(2)
        });
        let state = running.state();
        let run = state["running"][0]["run_id"].clone();
        assert_eq!(state["counts"]["blocked"], json!(1), "{state}");
        let page = running.client().get("/").body;
        assert!(
            page.contains("asked.example:443")
                && page.contains("for this issue")
                && page.contains(&format!("/api/v1/egress/{asked}/decide")),
            "{page}"
        );
        let explained = String::from_utf8(project.run(&["explain", "A-1"]).stdout).expect("text");
        assert!(
            explained.contains("asks for asked.example:443")
                && explained.contains(&format!("symphony egress decide {asked}")),
            "{explained}"
        );

        assert_eq!(decide(&running, asked, "perhaps"), 400);
        assert_eq!(decide(&running, asked, "issue"), 200);
        let late = running.post(&format!("/api/v1/egress/{asked}/decide"), &json!({"verb": "never"}));
        assert_eq!((late.status, late.error_code()), (409, "no_pending_host".into()), "the first word counts");
        assert_eq!(decide(&running, card(&running, "A-1", "once.example"), "once"), 200);
        let never = card(&running, "A-1", "never.example");
        let said = |args: &[&str]| String::from_utf8(project.run(&[&["egress"], args].concat()).stdout).expect("text");
        let number = never.to_string();
        let always = said(&["decide", &number, "always"]);
        let words = "never.example:443: allowed for every issue; take back: symphony egress forget ";
        assert!(always.starts_with(words), "{always}");
        assert!(said(&["list"]).contains("never.example:443  always, asked by A-1"), "the list that follows has it");
        assert!(said(&["decide", &number, "once"]).contains("allowed once for A-1"), "by the number of its card");
        assert!(said(&["decide", "never.example", "never"]).contains("never allowed"), "and by its host");
        assert_eq!(project.run(&["egress", "decide", "unasked.example", "never"]).status.code(), Some(2));
        assert_eq!(left(&project, "A-1", "page.txt"), "the page\n");
        assert_eq!(left(&project, "A-1", "once.txt"), "the page\n");
        assert!(!left(&project, "A-1", "twice.txt").contains("the page"), "once is once");
        assert!(left(&project, "A-1", "never.txt").contains("403 symphony: a person decided"));
        let kinds = rows_of_run(&project, &run);
        assert!(
            kinds.iter().any(|kind| kind == "egress_asked") && kinds.iter().any(|kind| kind == "egress_forgotten"),
            "{kinds:?}"
        );
        assert_eq!(
            decided(&running.state()),
            ["asked.example issue", "never.example never"],
            "what was used up is gone"
        );
        assert!(!project.read("WORKFLOW.md").contains("asked.example"), "never written there");
        assert_eq!(running.stop(), 0);
        assert!(project.run(&["journal", "check"]).status.success());
    });
}

/// Regression: a connection that was open when a person said never went on for as long as its ends liked.
#[test]
fn never_ends_a_connection_that_is_open() {
    lab::inside(|lab: &Lab| {
        let project = project(lab, "");
        let hold = r#"
mkfifo /tmp/in; exec 7<>/tmp/in; up=
until [ "$up" ]; do
    openssl s_client -brief -proxy 127.0.0.1:8486 -connect asked.example:443 -servername asked.example </tmp/in >/tmp/said 2>&1 &
    while kill -0 $! 2>/dev/null && [ -z "$up" ]; do sleep 0.1; grep -q ESTABLISHED /tmp/said && up=1; done
done
get https://once.example/page >/dev/null 2>&1 || true
wait $! || true; echo over >over.txt
"#;
        project.issue("Todo", "A-1", &block(lab, hold));
        let running = project.start();
        assert_eq!(decide(&running, card(&running, "A-1", "asked.example"), "issue"), 200);
        // It asks for the second one when it has the first.
        card(&running, "A-1", "once.example");
        assert!(project.exists("issues/Todo/A-1.md"), "the connection is held");
        let said = project.run(&["egress", "decide", "asked.example", "never"]);
        assert!(said.status.success(), "{said:?}");
        assert_eq!(left(&project, "A-1", "over.txt"), "over\n");
        assert_eq!(running.stop(), 0);
    });
}

/// Regression: cards of a finished issue went away, and nobody learnt that its agent had been refused anything.
#[test]
fn what_a_finished_issue_was_refused_is_told_also_after_a_restart_and_can_be_allowed_for_the_next_time() {
    lab::inside(|lab: &Lab| {
        let project = project(lab, "");
        project.issue("Todo", "A-1", &block(lab, "get https://asked.example/page >page.txt 2>&1 || true"));
        let running = project.start();
        project.wait_for("issues/Done/A-1.md");
        let explained = || String::from_utf8(project.run(&["explain", "A-1"]).stdout).expect("text");
        let told = "was refused 1 host: asked.example:443; nobody decided about that in time; ";
        until("the refusal to be told", || explained().contains(told));
        let page = running.client().get("/api/v1/partials/disk").body;
        assert!(
            page.contains(told) && page.contains("<code>symphony egress decide asked.example:443 always</code>"),
            "{page}"
        );
        assert_eq!(running.stop(), 0);

        let running = project.start();
        running.until_state("the issues to be read", |state| state["idle"] != json!([]));
        until("the refusal to be told again", || explained().contains(told));
        let page = running.client().get("/api/v1/partials/disk").body;
        assert!(page.contains(told), "{page}");
        let decided = project.run(&["egress", "decide", "asked.example:443", "always"]);
        assert!(String::from_utf8_lossy(&decided.stdout).contains("allowed for every issue"), "{decided:?}");
        until("it to be history", || !explained().contains("was refused"));
        project.issue("Todo", "B-1", &block(lab, "get https://asked.example/page >page.txt"));
        assert_eq!(left(&project, "B-1", "page.txt"), "the page\n");
        assert_eq!(running.stop(), 0);
        assert!(project.run(&["journal", "check"]).status.success());
    });
}

fn rows_of_run(project: &crate::rig::Project, run: &Value) -> Vec<String> {
    let db = rusqlite::Connection::open(project.dir().join(".symphony/journal.db")).expect("the journal");
    let mut query = db.prepare("SELECT kind FROM events WHERE run = ?1").expect("a query");
    let rows = query.query_map([run.as_i64()], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("text")).collect()
}

#[test]
fn cards_and_decisions_survive_a_kill_and_each_reaches_as_far_as_it_says() {
    lab::inside(|lab: &Lab| {
        let project = project(lab, "");
        let wait = |host: &str| format!("until get https://{host}/page >page.txt 2>/dev/null; do sleep 0.2; done");
        project.issue("Todo", "A-1", &block(lab, &wait("asked.example")));
        project.issue("Todo", "B-1", &block(lab, &wait("asked.example")));
        let running = project.start();
        let (a, b) = (card(&running, "A-1", "asked.example"), card(&running, "B-1", "asked.example"));
        running.signal(Signal::KILL);
        drop(running);

        let running = project.start();
        let asked = running.state()["egress"]["asked"].clone();
        let numbers: Vec<_> =
            asked.as_array().expect("cards").iter().filter_map(|row| row["number"].as_u64()).collect();
        assert_eq!(
            numbers,
            {
                let mut all = vec![a, b];
                all.sort_unstable();
                all
            },
            "{asked}"
        );
        assert_eq!(decide(&running, a, "issue"), 200);
        running.signal(Signal::KILL);
        drop(running);

        let running = project.start();
        assert_eq!(decided(&running.state()), ["asked.example issue"], "what was accepted stands");
        assert_eq!(left(&project, "A-1", "page.txt"), "the page\n");
        assert!(!project.exists("issues/Done/B-1.md"), "this issue is not that one");
        assert_eq!(decide(&running, a, "always"), 409);
        assert_eq!(decide(&running, b, "always"), 200);
        assert_eq!(left(&project, "B-1", "page.txt"), "the page\n");
        let list = String::from_utf8(project.run(&["egress", "list"]).stdout).expect("text");
        assert!(list.contains("asked.example:443  always, asked by B-1") && list.contains("waiting (0)"), "{list}");
        let state = running.state();
        for row in state["egress"]["decided"].as_array().expect("decisions") {
            let forget = format!("/api/v1/egress/{}/forget", row["number"]);
            assert_eq!(running.post(&forget, &json!({})).status, 200);
            assert_eq!(running.post(&forget, &json!({})).status, 409);
        }
        project.issue("Todo", "C-1", &block(lab, "get https://asked.example/page >page.txt 2>&1 || true"));
        assert!(left(&project, "C-1", "page.txt").contains("403"), "taken back for every issue");
        until("the decisions to be gone", || decided(&running.state()).is_empty());
        assert_eq!(running.stop(), 0);
        assert!(project.run(&["journal", "check"]).status.success());
    });
}

#[test]
fn in_a_machine_the_way_out_is_the_same() {
    if !crate::machine::bench::have_machines() {
        return;
    }
    let front = format!("{}sandbox: {{runtime: qemu, memory_mib: 512, cpus: 1, disk_mib: 1024}}\n", crate::rig::FRONT);
    let mut project = crate::rig::Project::with(&front);
    project.microvms = true;
    let knock = "exec 7<>/dev/tcp/127.0.0.1/8486; printf \"CONNECT asked.example:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\" >&7; read -r line <&7; echo \"$line\"";
    project.issue("Todo", "A-1", &format!("```sh\nbash -c '{knock}' >said.txt; echo \"$https_proxy\" >>said.txt\n```"));
    let running = project.start();
    card(&running, "A-1", "asked.example");
    let said = left(&project, "A-1", "said.txt");
    assert!(said.contains("403 symphony: asked.example:443 is not in egress.allow"), "{said}");
    assert!(said.ends_with("http://127.0.0.1:8486\n"), "{said}");
    assert_eq!(running.stop(), 0);
}
