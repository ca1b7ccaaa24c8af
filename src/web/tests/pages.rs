//! The page: what stands where, in whose words, and that nothing hostile gets through.

use symphony_core::board::{EndReason, LastRun};
use symphony_core::snapshot::Snapshot;
use symphony_core::workflow::Auth;

use super::{House, empty, sample};

#[tokio::test]
async fn the_page_shows_every_region_in_order_without_its_script() {
    let house = House::open().await;
    let page = house.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let mut rest = page.body.as_str();
    for next in [
        "symphony",
        "WORKFLOW.md",
        "/home/me/project/issues",
        "4 need you · 1 running · 2 waiting",
        "jail",
        "attention",
        "Todo/&#60;bad&#62;.md:3:7",
        "TWICE",
        "<h2>attention</h2>",
        "ASK-1",
        "turn 2",
        "original task &#38; agent&#39;s context",
        "name=\"question\" value=\"7\"",
        "send reply",
        "PARKED-1",
        "no agent heard: Use &#60;tabs&#62;.",
        "move this file back to <code>In Progress/</code>",
        "resume",
        "discard",
        ">sessions (2)</h2>",
        "awaiting",
        "BUSY/1 ä",
        "attempt 2 · turn 2 · qemu (TCG)",
        "last run <span class=\"tag\">stalled</span>",
        "tell the agent",
        "nothing is interrupted",
        "cancels the turn under way",
        ">on disk (2)</h2>",
        "RETRY-1",
        "retrying",
        "due <time datetime=\"2026-01-02T03:00:40.000Z\">",
        "waits for its next attempt · last run <span class=\"tag\">agent-exit</span> port_exit",
        "left 1 commit in the work tree",
        "BLOCKED-1",
        "blocked by BUSY-1, which is in Todo",
        "Finish BUSY-1 first, or remove it from <code>blocked_by</code>.",
        "finished (1)",
        "READY-1",
        "git am /home/me/project/.symphony/patches/agent_READY-1.patch",
        "no agent heard: Use &#60;tabs&#62;.",
        "holding (1)",
        "SHELVED-1",
        "done (1)",
        "DONE-1",
        "no agent heard: Use &#60;tabs&#62;.",
        "new issue",
        "create issue",
        "1200 in",
        "300 out",
        "1500 total",
        "1h 2m runtime",
    ] {
        let at = rest.find(next).unwrap_or_else(|| panic!("`{next}` is missing, or not after what comes before it"));
        rest = &rest[at + next.len()..];
    }
    let attention = house.get("/api/v1/partials/attention").await.body;
    assert!(!attention.contains("RETRY-1"), "a retry needs no human");
}

#[tokio::test]
async fn nothing_an_agent_or_issue_wrote_becomes_markup() {
    let house = House::open().await;
    house.publish(|snapshot| {
        snapshot.sandbox = "<i>jail".into();
        snapshot.workflow_problems = vec!["<script>p".into()];
        snapshot.states[0].name = symphony_core::ids::StateName::new("\"><script>s");
        snapshot.running[1].workspace = Some("</p><script>w".into());
        snapshot.running[1].phase = "<script>".into();
        snapshot.discard_target = symphony_core::ids::StateName::new("\"><script>d");
        snapshot.asked.push(super::released());
        snapshot.idle.push(super::proposal("\"><script>p", "**Do** <script>alert(3)</script> [x](javascript:y)"));
    });
    let mut pages = vec![house.get("/").await.body];
    for name in ["header", "attention", "sessions", "disk", "totals"] {
        let part = house.get(&format!("/api/v1/partials/{name}")).await;
        assert_eq!((part.status, part.header("cache-control")), (200, Some("no-store")), "{name}");
        assert!(!part.body.contains("<html"));
        pages.push(part.body);
    }
    for page in pages {
        // Every `<` that stands in the page is ours, so a look at the tags finds whatever got through.
        for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default()) {
            let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap_or_default();
            assert!(!["img", "b", "boom", "again", "i", "bad", "iframe", "style"].contains(&name), "<{tag}> in {page}");
            assert!(name != "script" || tag.starts_with("script src=\"/assets/") || tag == "/script", "<{tag}>");
            for forbidden in [" on", " style=", "javascript:", "hx-on", "=\"http:", "\"//"] {
                assert!(!tag.to_lowercase().contains(forbidden), "<{tag}>");
            }
        }
    }
    let attention = house.get("/api/v1/partials/attention").await.body;
    assert!(attention.contains("Go <strong>on</strong>?"), "{attention}");
    assert!(attention.contains("Which <strong>way</strong>?"), "{attention}");
    assert!(attention.contains("&lt;img src=x"), "{attention}");
    assert!(attention.contains("<a href=\"https://example.org/\" rel=\"noopener noreferrer\">this</a>"), "{attention}");
}

#[tokio::test]
async fn a_question_that_no_sandbox_waits_with_stands_with_the_others_and_nowhere_else() {
    let house = House::with(Auth::Token, empty()).await;
    house.publish(|snapshot| {
        let mut row = super::idle("AWAY-1", "Todo", super::Role::Active, super::NotNow::AwaitingAnswer);
        row.id = super::IssueId("away-1".into());
        snapshot.idle.push(row);
        snapshot.asked.push(super::released());
    });
    let page = house.get("/").await.body;
    assert!(page.contains("1 needs you</span>") && page.contains("badge attention"), "{page}");
    for next in [
        "released",
        "answered by default at <time datetime=\"2026-01-02T04:05:06.000Z\">",
        "</time>: Go &#60;b&#62;on&#60;/b&#62;.</span>",
        "name=\"question\" value=\"6\"",
    ] {
        assert!(page.contains(next), "no {next} in {page}");
    }
    assert!(!page.contains(">turn "), "no turn waits: {page}");
    let disk = house.get("/api/v1/partials/disk").await.body;
    assert!(!disk.contains("AWAY-1"), "{disk}");
}

#[tokio::test]
async fn only_an_agent_that_works_and_asks_nothing_can_be_told_something() {
    let house = House::open().await;
    let forms = async || house.get("/api/v1/partials/sessions").await.body.matches("/message\" hx-post").count();
    assert_eq!(forms().await, 1);
    house.publish(|snapshot| snapshot.running[1].marked_done = true);
    assert_eq!(forms().await, 0);
    house.publish(|snapshot| {
        snapshot.running[1].marked_done = false;
        snapshot.running[1].stage = symphony_core::snapshot::Stage::Finishing;
    });
    assert_eq!(forms().await, 0);
}

#[tokio::test]
async fn an_empty_tracker_says_what_to_do_and_opens_the_form() {
    let house = House::with(Auth::Token, empty()).await;
    let page = house.get("/").await.body;
    assert!(page.contains("no sessions running. agents wake when an issue lands in <code>Todo/</code>."));
    assert!(page.contains("tracker is clean. drop a markdown file into <code>Todo/</code>"));
    assert!(page.contains("<details id=\"new-issue-box\" open>"));
    assert!(page.contains("class=\"pill badge idle\"") && !page.contains("<h2>attention</h2>"));
    assert!(page.contains("<option selected>Todo</option><option>In Progress</option>"));
    assert!(!page.contains(" total"), "nothing was used yet");
}

#[tokio::test]
async fn a_tracker_with_unusable_files_is_not_clean_and_one_being_read_is_not_yet_empty() {
    let snapshot = Snapshot { malformed: sample().malformed, polling: true, ..empty() };
    let house = House::with(Auth::Token, snapshot).await;
    let page = house.get("/").await.body;
    assert!(page.contains("nothing else waits; what needs you stands above") && !page.contains("tracker is clean"));
    assert!(page.contains("<details id=\"new-issue-box\">"), "the form does not open by itself");
}

#[tokio::test]
async fn years_of_finished_issues_do_not_swell_the_page() {
    let house = House::open().await;
    house.publish(|snapshot| {
        let done = snapshot.idle.iter().find(|row| row.identifier.0 == "DONE-1").expect("done").clone();
        snapshot.idle.extend(std::iter::repeat_n(done, 999));
    });
    let disk = house.get("/api/v1/partials/disk").await.body;
    assert!(disk.contains("done (1000)") && disk.contains("and 950 more"), "{disk}");
    assert_eq!(disk.matches(" id\">DONE-1</span>").count(), 50);
}

#[tokio::test]
async fn the_badge_lights_only_for_what_needs_a_human() {
    let house = House::open().await;
    let badge = async || {
        let header = house.get("/api/v1/partials/header").await.body;
        ["attention", "working", "idle"]
            .into_iter()
            .find(|name| header.contains(&format!("badge {name}")))
            .expect("a badge")
    };
    assert_eq!(badge().await, "attention");
    house.publish(|snapshot| snapshot.running[0].question.as_mut().expect("asked").answered = true);
    assert_eq!(badge().await, "attention", "one issue is parked");
    house.publish(|snapshot| {
        snapshot.idle.retain(|row| !row.is_parked());
        snapshot.idle.push(super::proposal("P-1", "Do it."));
    });
    assert_eq!(badge().await, "attention", "one is proposed");
    house.publish(|snapshot| snapshot.idle.retain(|row| !row.is_proposal()));
    assert_eq!(badge().await, "attention", "a file is none, a name is that of two");
    house.publish(|snapshot| {
        (snapshot.malformed, snapshot.ambiguous) = (vec![], vec![]);
    });
    assert_eq!(badge().await, "working", "a retry is no reason");
    house.publish(|snapshot| snapshot.running.clear());
    assert_eq!(badge().await, "idle");
}

/// Regression: the header was green, or grey, while only a person could bring something forward.
#[tokio::test]
async fn the_header_counts_what_the_command_line_lists_and_the_inbox_says_what_is_stuck() {
    let house = House::with(Auth::Token, empty()).await;
    type Change = fn(&mut Snapshot);
    let steps: [(&str, Change); 5] = [
        ("1 needs you", |s| s.workflow_problems = vec!["WORKFLOW.md:3:1: unknown key".into()]),
        ("2 need you", |s| s.tracker_problem = Some("gone".into())),
        ("4 need you", |s| (s.malformed, s.ambiguous) = (sample().malformed, sample().ambiguous)),
        ("5 need you", |s| s.hosts_asked.push(super::hosts().0)),
        ("6 need you", |s| {
            let why = super::NotNow::UnknownBlocker(super::Identifier("NOPE".into()));
            s.idle.push(super::idle("LOST-1", "Todo", super::Role::Active, why));
        }),
    ];
    for (at, (count, change)) in steps.into_iter().enumerate() {
        house.publish(change);
        let header = house.get("/api/v1/partials/header").await.body;
        assert!(header.contains(count) && header.contains("badge attention"), "{count}: {header}");
        let state = house.get("/api/v1/state").await.json();
        assert!(count.starts_with(&state["counts"]["blocked"].to_string()), "step {at}: {}", state["counts"]);
        assert_eq!(state["counts"]["queued"], 0, "what is stuck does not wait for its turn");
    }
    let page = house.get("/").await.body;
    let (inbox, disk) = page.split_once("id=\"sessions\"").expect("both");
    assert!(inbox.contains("blocked by NOPE, which does not exist") && inbox.contains("Add an issue NOPE"), "{inbox}");
    assert!(!disk.contains("LOST-1") && !disk.contains("tracker is clean"), "{disk}");
}

#[tokio::test]
async fn a_broken_workflow_and_a_drain_stand_above_everything() {
    let house = House::with(Auth::Token, empty()).await;
    house.publish(|snapshot| {
        snapshot.workflow_problems = vec!["WORKFLOW.md:3:1: unknown key `trakcer`".into()];
        snapshot.tracker_problem = Some("cannot read the issue directory".into());
        snapshot.draining = true;
    });
    let header = house.get("/api/v1/partials/header").await.body;
    for text in [
        "unknown key `trakcer`",
        "cannot read the issue directory",
        "nothing new starts until this is fixed",
        "shutting down",
    ] {
        assert!(header.contains(text), "{text} in {header}");
    }
}

/// Regression: an error was cut at 200 characters, and the hint at its end was lost.
#[test]
fn an_error_of_ordinary_length_keeps_its_hint() {
    let end = format!("boot_failed: {} (hint: build it)", "x".repeat(300));
    let last = LastRun { reason: EndReason::AgentExit, end: end.clone(), left: None };
    assert_eq!(crate::web::view::LastEnd::of(&last, "").text, end);
}
