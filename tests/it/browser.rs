//! The dashboard in a real browser: what a person sees, types and presses.

use serde_json::{Value, json};

use crate::rig::{Project, Running, until};
use crate::webdriver::{Browser, ENTER, TAB};

/// Asks once, then writes down the answer.
const ASKS: &str = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Which colour?'; exit 75; fi\nprintf '%s\\n' \"$SYMPHONY_ANSWER\" > colour.txt\n```";
const NEVER_ENDS: &str = "```sh\nsleep 3000\n```";
const REPLY: &str = "#attention textarea";

/// Logs in, as a person does: with the link from the terminal.
fn log_in(browser: &Browser, running: &Running) -> String {
    let client = running.client();
    let origin = format!("http://{}", client.address);
    browser.open(&format!("{origin}/login?token={}", client.bearer.expect("a token")));
    origin
}

/// A mark in the page that a reload would wipe away.
fn mark(browser: &Browser) {
    browser.value("window.marked = true");
}

fn is_marked(browser: &Browser) -> bool {
    browser.value("window.marked === true") == json!(true)
}

/// Nothing was refused, reported or asked for elsewhere.
fn all_was_quiet(browser: &Browser, origin: &str) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let requests = browser.requests();
    assert!(requests.iter().any(|url| url.contains("/assets/")), "{requests:?}");
    // The browser's own empty first page is none of ours.
    let own = [format!("{origin}/"), "chrome://".into(), "chrome-untrusted://".into(), "data:".into()];
    let foreign: Vec<_> = requests.iter().filter(|url| !own.iter().any(|own| url.starts_with(own))).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

fn green_was_handed_off(project: &Project) {
    until("the issue to be done", || project.exists("issues/Done/Q-1.md"));
    let patch = project.read(".symphony/patches/agent_Q-1.patch");
    assert!(patch.contains("+green"), "{patch}");
}

#[test]
fn the_printed_link_logs_in_and_its_token_leaves_the_address_bar() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    let running = project.start();
    let origin = format!("http://{}", running.client().address);
    browser.open(&origin);
    assert!(browser.text("main").contains("needs the operator token"));
    log_in(&browser, &running);
    assert_eq!(browser.address(), format!("{origin}/"));
    assert!(browser.text("header").contains("symphony"), "{}", browser.text("body"));
    let token = running.client().bearer.expect("a token");
    let cookies = browser.cookies();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert_eq!((&cookies[0]["httpOnly"], &cookies[0]["sameSite"]), (&json!(true), &json!("Strict")));
    assert_ne!(cookies[0]["value"], json!(token));
    let kept = browser.value("document.documentElement.outerHTML + document.referrer + document.cookie");
    assert!(!kept.as_str().expect("text").contains(&token), "the page knows the token");
}

#[test]
fn a_question_appears_without_a_reload_and_a_draft_survives_news_until_enter_sends_it() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    project.issue("Todo", "LONG-1", NEVER_ENDS);
    let running = project.start();
    let origin = log_in(&browser, &running);
    mark(&browser);
    browser.until_says("#sessions", "The title of LONG-1");
    project.issue("Todo", "Q-0", ASKS);
    browser.until_says("#attention", "Q-0");

    project.issue("Todo", "Q-1", ASKS);
    browser.until_says("#attention", "Q-1");
    let mine = "#attention article:nth-of-type(2) textarea";
    assert!(browser.text("header .badge").eq_ignore_ascii_case("attention"));
    until("the tab to say it", || browser.value("document.title").as_str().is_some_and(|t| t.starts_with("(!)")));
    browser.fill(mine, "gre");

    project.issue("Backlog", "NEWS-1", "Nobody works on this.");
    project.issue("Todo", "LONG-2", NEVER_ENDS);
    browser.until_says("#sessions", "The title of LONG-2");
    // Somebody else answers the question above: this one moves up, with its draft.
    let elsewhere = running.post("/api/v1/issues/Q-0/steering-reply", &json!({"text": "red"}));
    assert_eq!(elsewhere.status, 202);
    until("the other question to leave", || !browser.text("#attention").contains("Q-0"));
    let draft = "(r => [r.value, document.activeElement === r])(document.querySelector('#attention textarea'))";
    assert_eq!(browser.value(draft), json!(["gre", true]), "draft and focus stay");
    browser.press(&format!("en{ENTER}"));

    until("the question to leave", || !browser.shows(REPLY));
    green_was_handed_off(&project);
    until("the badge to settle", || browser.text("header .badge").eq_ignore_ascii_case("working"));
    assert!(is_marked(&browser), "the page was never reloaded");
    all_was_quiet(&browser, &origin);
}

#[test]
fn an_issue_made_in_the_form_runs_and_is_finished() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    project.issue("Done", "OLD-1", "Long ago.");
    let running = project.start();
    running.until_state("the first look", |s| s["idle"][0].is_object());
    let origin = log_in(&browser, &running);
    mark(&browser);
    browser.click("#new-issue summary");
    browser.fill("#new-title", "Made in the browser");
    browser.fill("#new-identifier", "MADE-1");
    browser.fill("#new-description", "```sh\necho here > here.txt\n```");
    browser.click("#new-issue-form button");
    browser.until_says("#new-message", "created MADE-1");
    assert_eq!(browser.value("document.querySelector('#new-title').value"), json!(""));
    until("the issue to be done", || project.exists("issues/Done/MADE-1.md"));
    assert_eq!(std::fs::read_to_string(project.apply_patch("MADE-1").join("here.txt")).expect("made"), "here\n");
    let patch = project.dir().join(".symphony/patches/agent_MADE-1.patch");
    browser.until_says("#disk .command", &format!("git am {}", patch.display()));
    assert!(is_marked(&browser), "the page was never reloaded");
    all_was_quiet(&browser, &origin);
}

/// Whatever way one of these runs, the mark it leaves is the same.
const ATTACKS: &str = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1><svg onload=window.pwned=1>\
    <iframe src=javascript:top.pwned=1></iframe>[press](javascript:window.pwned=1) ![x](https://evil.example/x.png) \
    <a href='javascript:window.pwned=1'>here</a> <b hx-get=/ hx-trigger=load hx-on:load='window.pwned=1'>x</b> \
    <link rel=stylesheet href=https://evil.example/x.css> [far](https://evil.example/) </textarea></title></script>\"'";

#[test]
fn hostile_words_in_issues_and_questions_run_nothing_and_call_nobody() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::with(&format!("{}budget:\n  failures_in_a_row: 1\n", crate::rig::FRONT));
    let issue = |state: &str, name: &str, body: &str| {
        let title = json!(ATTACKS);
        let text = format!(
            "---\ntitle: {title}\nurl: \"javascript:window.pwned=1\"\n---\n{ATTACKS}\n\nSee {ATTACKS}\n\n{body}\n"
        );
        project.write(&format!("issues/{state}/{name}.md"), &text);
    };
    let quoted = ATTACKS.replace('\'', "'\\''");
    issue("Todo", "ASKS-1", &format!("```sh\nprintf '%s\\n' '{quoted}'; exit 75\n```"));
    issue("Todo", "FAILS-1", &format!("```sh\nprintf '%s\\n' '{quoted}'; exit 1\n```"));
    issue("Done", "DONE-1", "");
    issue("Backlog", "IDLE-1", "");
    project.write("issues/Todo/<img src=x onerror=window.pwned=1>.md", "---\ntitle: [\n---\n");
    let running = project.start();
    let origin = log_in(&browser, &running);
    mark(&browser);
    browser.until_says("#attention article", "ASKS-1");
    browser.until_says("#attention article.parked", "FAILS-1");
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)");
    // Links that stayed are pressed too; only those to web addresses may be left.
    let links = browser.value("[...document.querySelectorAll('main a[href]')].map(a => a.href)");
    let links: Vec<_> = links.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(!links.is_empty() && links.iter().all(|l| *l == "https://evil.example/"), "{links:?}");
    let planted = "main :is(script, img, svg, iframe, link, object, [onerror], [onload], main [style], b)";
    assert!(!browser.shows(planted), "{}", browser.value("document.querySelector('main').outerHTML"));
    assert!(browser.text("#attention").contains("<script>window.pwned=1</script>"), "it is shown as the text it is");
    // The same words again, through the event stream and htmx.
    project.issue("Todo", "NEWS-1", NEVER_ENDS);
    browser.until_says("#sessions", "The title of NEWS-1");
    assert_eq!(browser.value("window.pwned === undefined"), json!(true));
    assert!(is_marked(&browser) && browser.address() == format!("{origin}/"), "{}", browser.address());
    all_was_quiet(&browser, &origin);
}

#[test]
fn without_javascript_a_reload_shows_the_question_and_the_plain_form_answers_it() {
    let Some(browser) = Browser::without_javascript() else { return };
    let project = Project::new();
    project.issue("Todo", "Q-1", ASKS);
    let running = project.start();
    let origin = log_in(&browser, &running);
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    browser.open(&origin);
    assert!(browser.text("noscript").contains("does not update itself"));
    assert!(!browser.shows("html.script"), "scripts are off");
    browser.fill(REPLY, "green");
    browser.click("#attention form button");
    // This page never changes by itself: it is the next one that does not ask again.
    until("the next page", || !browser.shows(REPLY));
    assert_eq!(browser.address(), format!("{origin}/"), "answered, and back at the page");
    green_was_handed_off(&project);

    browser.click("#new-issue summary");
    browser.fill("#new-title", "Made without a script");
    browser.fill("#new-identifier", "PLAIN-1");
    browser.fill("#new-description", "```sh\ntrue\n```");
    browser.click("#new-issue-form button");
    assert_eq!(browser.address(), format!("{origin}/"));
    until("the issue to be done", || project.exists("issues/Done/PLAIN-1.md"));
}

#[test]
fn one_click_discards_a_proposal_and_resumes_a_parked_issue_with_and_without_the_script() {
    for (browser, scripted) in [(Browser::start(), true), (Browser::without_javascript(), false)] {
        let Some(browser) = browser else { return };
        let project = Project::with(&crate::rig::FRONT.replace("agent:\n", "budget: {sessions: 1}\nagent:\n"));
        project.write("issues/Triage/7.md", "---\ntitle: Follow up\nproposed_by: A-1\n---\nBecause.\n");
        project.issue("Todo", "P-1", "```sh\n[ -e ~/again ] || { touch ~/again; exit 7; }\n```");
        let running = project.start();
        running.until_state("both to wait", |s| {
            let held = |row: &Value| row["role"] == json!("holding");
            s["counts"]["blocked"] == json!(2) && s["idle"].as_array().is_some_and(|rows| rows.iter().all(held))
        });
        let origin = log_in(&browser, &running);
        if scripted {
            mark(&browser);
        }
        browser.until_says("#attention article.proposed", "proposed by A-1");
        assert!(browser.text("header").contains("2 need you"), "{}", browser.text("header"));
        browser.click("[aria-label='discard 7']");
        project.wait_for("issues/Cancelled/7.md");
        until("the proposal to leave the page", || !browser.shows("article.proposed"));
        browser.click("[aria-label='resume P-1']");
        project.wait_for("issues/Done/P-1.md");
        until("the parked issue to leave the page", || !browser.shows("article.parked"));
        assert!(is_marked(&browser) == scripted && browser.address() == format!("{origin}/"));
        all_was_quiet(&browser, &origin);
    }
}

/// Regression: the inbox was drawn again at once, and took the words about a refusal with it.
#[test]
fn why_a_button_did_nothing_stays_on_the_page_until_the_next_try() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    project.write("issues/Triage/7.md", "---\ntitle: Follow up\nproposed_by: A-1\n---\nBecause.\n");
    project.write("issues/Cancelled/7.md", "---\ntitle: [half saved\n---\n");
    let running = project.start();
    running.until_state("both", |s| s["counts"]["blocked"] == json!(2));
    log_in(&browser, &running);
    browser.until_says("#attention article.proposed", "proposed by A-1");
    browser.click("[aria-label='discard 7']");
    browser.until_says("#refused", "7");
    let said = browser.text("#refused");
    project.issue("Backlog", "NEWS-1", "Nothing.");
    browser.until_says("#disk", "holding (1)");
    assert_eq!(browser.text("#refused"), said);
    std::fs::remove_file(project.dir().join("issues/Cancelled/7.md")).expect("removed");
    browser.click("[aria-label='discard 7']");
    project.wait_for("issues/Cancelled/7.md");
    until("the words to go", || browser.text("#refused").is_empty());
}

/// Presses Tab until `css` has the focus.
fn tab_to(browser: &Browser, css: &str) {
    for _ in 0..40 {
        browser.press(&TAB.to_string());
        if browser.value(&format!("document.activeElement.matches({})", json!(css))) == json!(true) {
            let outline = "(s => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1)(getComputedStyle(document.activeElement))";
            assert_eq!(browser.value(outline), json!(true), "the focus on {css} can be seen");
            return;
        }
    }
    panic!("Tab never reaches {css}");
}

#[test]
fn the_keyboard_alone_logs_in_answers_and_makes_an_issue() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    project.issue("Todo", "Q-1", ASKS);
    let running = project.start();
    let client = running.client();
    browser.open(&format!("http://{}/", client.address));
    tab_to(&browser, "#token");
    browser.press(&format!("{}{ENTER}", client.bearer.expect("a token")));
    browser.until_says("#attention", "Which colour?");
    tab_to(&browser, REPLY);
    browser.press("green");
    tab_to(&browser, "#attention form button");
    browser.press(&ENTER.to_string());
    green_was_handed_off(&project);
    until("the question to leave", || !browser.shows(REPLY));
    tab_to(&browser, "#new-issue summary");
    browser.press(&ENTER.to_string());
    tab_to(&browser, "#new-title");
    browser.press(&format!("By keys alone{ENTER}"));
    browser.until_says("#new-message", "created");
    let issues = running.client().get("/api/v1/issues").json();
    assert!(issues["issues"].as_array().expect("a list").iter().any(|i| i["title"] == "By keys alone"), "{issues}");
}

/// Text whose contrast with what is behind it is below WCAG AA.
const FAINT: &str = "(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const lum = c => [0, 1, 2].map(i => c[i] / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && [...e.childNodes]
    .some(n => n.nodeType === 3 && n.data.trim())).flatMap(e => {
      const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(behind(e))].sort((x, y) => y - x);
      const ratio = (a + .05) / (b + .05);
      return ratio < 4.5 ? [e.tagName + '.' + e.className + ' ' + ratio.toFixed(2) + ' ' + e.textContent.trim().slice(0, 30)] : [];
    });
})()";

#[test]
fn dark_or_light_wide_or_on_a_phone_all_can_be_read_and_nothing_sticks_out() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::with(&format!("{}budget:\n  failures_in_a_row: 1\n", crate::rig::FRONT));
    let long = "averyveryverylongwordthathasnospaceanywhereandgoesonandonuntilnophonecouldshowitinoneline".repeat(2);
    let issue = |state: &str, name: &str, body: &str| {
        project.write(&format!("issues/{state}/{name}.md"), &format!("---\ntitle: {long}\n---\n{long}\n\n{body}\n"));
    };
    issue("Todo", "Q-1", &format!("```sh\necho '{long}?'; exit 75\n```"));
    issue("Todo", &format!("LONG-{}", &long[..60]), NEVER_ENDS);
    issue("Todo", "FAILS-1", &format!("```sh\necho {long}; exit 1\n```"));
    issue("Done", "DONE-1", "");
    issue("Backlog", "IDLE-1", "");
    project.write("issues/Todo/BLOCKED-1.md", "---\ntitle: Waits\nblocked_by: [Q-1]\n---\nLater.\n");
    project.write(&format!("issues/Todo/{}.md", &long[..100]), "---\ntitle: [\n---\n");
    let running = project.start();
    log_in(&browser, &running);
    browser.until_says("#attention article.parked", "FAILS-1");
    browser.until_says("#attention .question", &long);
    browser.until_says("#disk", "BLOCKED-1");
    let mut pages = vec![];
    for scheme in ["light", "dark"] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", &features);
        for width in [360, 1200] {
            let size = json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500});
            browser.devtools("Emulation.setDeviceMetricsOverride", &size);
            browser.value("document.querySelectorAll('details').forEach(d => d.open = true)");
            let inner = browser.value("(e => [innerWidth, e.scrollWidth - e.clientWidth])(document.documentElement)");
            assert_eq!(inner, json!([width, 0]), "{scheme} at {width}: something sticks out");
            assert_eq!(browser.value(FAINT), json!([]), "{scheme} at {width}: too faint");
        }
        pages.push(browser.value("getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(pages[0], pages[1], "dark is not light");
}

#[test]
fn a_page_whose_program_ended_says_so() {
    let Some(browser) = Browser::start() else { return };
    let project = Project::new();
    let running = project.start();
    log_in(&browser, &running);
    // Its script, which says it, is there.
    until("the script", || browser.shows("html.script"));
    assert_eq!(running.stop(), 0);
    browser.until_says("#link", "connection lost");
}
