//! Templates: what renders, what is refused, and what the refusal says.

mod bounded;

use indexmap::IndexMap;
use proptest::prelude::*;

use super::*;
use crate::ids::{Identifier, IssueId, StateName};
use crate::issue::Blocker;
use crate::workflow::{Role, StateRule};

fn issue() -> Issue {
    Issue {
        id: IssueId("i-1".into()),
        title: "Mend <it>".into(),
        description: Some("Do {{ issue.id }} {% nope %}".into()),
        priority: Some(2),
        labels: vec!["bug".into(), "ui".into()],
        blocked_by: vec![Blocker { id: None, identifier: Identifier("ABC-0".into()), state: None }],
        created_at: Some("2026-01-02T03:04:05Z".parse().expect("instant")),
        ..Issue::bare("ABC-1", "Todo")
    }
}

fn render(template: &str) -> Result<String, PromptError> {
    Prompt::parse(template)?.render(&issue(), &Attempt::default())
}

fn states() -> States {
    let rule = StateRule::of;
    let rules = [("Todo", Role::Active), ("Review", Role::Active), ("Done", Role::Terminal)];
    let rules: IndexMap<_, _> = rules.into_iter().map(|(name, role)| (StateName::new(name), rule(role))).collect();
    States { rules, declared: true }
}

/// P1.
#[test]
fn variables_render_and_nothing_is_escaped_or_rendered_twice() {
    for (template, want) in [
        ("{{ issue.identifier }}: {{ issue.title }}", "ABC-1: Mend <it>"),
        ("{{ issue.description }}", "Do {{ issue.id }} {% nope %}"),
        ("[{{ attempt }}{{ issue.url }}{{ retry_kind }}{{ last_end }}]", "[]"),
        ("{{ issue.labels | join: ', ' }} {{ issue.labels.size }} {{ issue.labels.first }}", "bug, ui 2 bug"),
        ("{{ issue.created_at }}", "2026-01-02T03:04:05Z"),
        ("{{ issue.native_ref }} {{ issue.dispatchable }} {{ issue.priority }}", "Todo/ABC-1.md true 2"),
        ("{% for b in issue.blocked_by %}{{ b.identifier }}{% if b.state %}!{% endif %}{% endfor %}", "ABC-0"),
        ("{% for l in issue.labels %}{{ l }}{% if forloop.last %}.{% else %},{% endif %}{% endfor %}", "bug,ui."),
        ("{% if attempt %}again{% else %}first{% endif %}", "first"),
        ("{% if true %}{% for l in issue.labels %}{{ forloop.index }}{% endfor %}{% endif %}", "12"),
        ("{% assign x = issue.title %}{% if x %}{{ x | upcase }}{% endif %}", "MEND <IT>"),
        ("{{ issue.labels | json }}{{ issue.url | json }}", "[\"bug\",\"ui\"]null"),
        ("{{ issue.url | default: 'none' }}", "none"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(want), "{template}");
    }
    let json = render("{{ issue | json }}").expect("renders");
    assert!(json.starts_with("{\"assignee_id\":null,") && json.contains("\"identifier\":\"ABC-1\""), "{json}");
}

/// P2, P5, C58.
#[test]
fn an_unknown_name_fails_wherever_it_stands() {
    for template in [
        "{{ nope }}",
        "{{ issue.nope }}",
        "{{ issue.toString }}",
        "{{ issue.constructor }}",
        "{{ issue.title.nope }}",
        "{{ nope | default: 'x' }}",
        "{% if nope %}{% endif %}",
        "{% unless issue.nope %}{% endunless %}",
        "{% if issue.title and nope %}{% endif %}",
        "{% if issue.nope == 'x' %}{% endif %}",
        "{% if issue.title.nope %}{% endif %}",
        "{% if false %}{% elsif nope %}{% endif %}",
        "{% for b in issue.blocked_by %}{% if b.nope %}{% endif %}{% endfor %}",
        "{% for x in issue.nope %}{% endfor %}",
        "{% assign x = issue %}{% if x.nope %}{% endif %}",
        "{% case nope %}{% when 1 %}{% endcase %}",
        "{% capture c %}{% if nope %}{% endif %}{% endcapture %}",
    ] {
        match render(template) {
            Err(error @ PromptError::Render { .. }) => assert_eq!(error.code(), "template_render_error"),
            other => panic!("{template}: {other:?}"),
        }
    }
}

/// P3, C59.
#[test]
fn what_is_not_our_liquid_does_not_parse_and_says_where() {
    for (template, at) in [
        ("a\n{{ issue.title | nope }}", 2),
        ("a\nb\n{% nope %}", 3),
        ("a\n{% include 'file' %}", 2),
        ("a\n{% render 'file' %}", 2),
        ("a\n{{ issue.title", 2),
        ("{{ 99999999999999999999 }}", 1),
    ] {
        match Prompt::parse(template).err() {
            Some(error @ PromptError::Parse { line, .. }) => {
                assert_eq!((line, error.code()), (at, "template_parse_error"), "{template}: {error}");
            }
            other => panic!("{template}: {other:?}"),
        }
    }
    let error = Prompt::parse("{% include 'x' %}").err().expect("refused");
    assert!(error.to_string().contains("not available"), "{error}");
}

/// P4, C62.
#[test]
fn a_blank_template_becomes_the_default_prompt() {
    let text = render("  \n").expect("renders");
    assert!(text.contains("ABC-1") && text.contains("Mend <it>") && text.contains("Do {{ issue.id }}"), "{text}");
    assert!(Prompt::parse("").expect("parses").check(&states(), 1).is_empty());
}

#[test]
fn impossible_arithmetic_is_an_error_with_its_reason() {
    let error = render("a\n{{ 1 | divided_by: 0 }}").expect_err("impossible");
    assert!(matches!(&error, PromptError::Render { line: 2, message } if message.contains("divide")), "{error}");
}

#[test]
fn messages_say_what_exists_and_nothing_of_the_engine() {
    let error = render("{{ issue.nope }}").expect_err("unknown").to_string();
    assert!(error.contains("there is no `issue.nope`; known are assignee_id, blocked_by,"), "{error}");
    let error = render("{{ issue.titel }}").expect_err("unknown").to_string();
    assert!(error.contains("there is no `issue.titel` (did you mean `title`?); known"), "{error}");
    let error = Prompt::parse("{{ 1 | nope }}").err().expect("unknown").to_string();
    assert!(error.contains("there is no filter `nope`; known are abs, "), "{error}");
    let error = Prompt::parse("{% nope %}").err().expect("unknown").to_string();
    assert!(error.contains("nope") && error.contains("known are assign, break, capture,"), "{error}");
}

#[test]
fn a_check_finds_mistakes_in_branches_of_other_states_retries_and_bare_issues() {
    let text = "one\n{% if issue.state == 'Review' %}\n{{ issue.nope }}\n{% endif %}\n\
                {% if retry_kind == 'failure' %}\n{{ last_end.nope }}\n{% endif %}";
    let problems = Prompt::parse(text).expect("parses").check(&states(), 10);
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [15, 12], "{problems:?}");
    let bare = Prompt::parse("{{ issue.labels.first }}").expect("parses").check(&states(), 1);
    assert_eq!(bare.len(), 1, "{bare:?}");
}

#[test]
fn earlier_runs_are_visible() {
    let prompt = Prompt::parse("{{ attempt }} {{ retry_kind }} {{ last_end }}").expect("parses");
    let attempt = Attempt {
        number: Some(3),
        retry_kind: Some(RetryKind::Failure),
        last_end: Some("timed out".to_owned()),
        last_left: None,
    };
    assert_eq!(prompt.render(&issue(), &attempt).as_deref(), Ok("3 failure timed out"));
}

proptest! {
    #[test]
    fn any_template_in_no_panic_out(text in "[{}%a-f.| :'0-9\n-]{0,80}") {
        if let Ok(prompt) = Prompt::parse(&text) {
            let _ = prompt.render(&issue(), &Attempt::default());
        }
    }
}

#[test]
fn nesting_is_bounded_before_the_engine_recurses() {
    let nested = |depth: usize| format!("{}x{}", "{% if true %}".repeat(depth), "{% endif %}".repeat(depth));
    assert_eq!(render(&nested(shape::MAX_TAGS / 2)).as_deref(), Ok("x"));
    assert!(Prompt::parse(&nested(shape::MAX_TAGS)).is_err());
    for deep in ["[issue", "(1.."] {
        assert!(Prompt::parse(&format!("a\n{{{{ issue{} }}}}", deep.repeat(100_000))).is_err());
        assert!(Prompt::parse(&format!("a\n{{{{ issue{}{} }}}}", deep.repeat(10_000), "]".repeat(10_000))).is_err());
    }
    assert!(render(&"[link](there) ".repeat(1000)).is_ok());
}

#[test]
fn a_range_that_would_take_all_memory_is_refused_with_its_line_and_a_small_one_is_not() {
    for endless in [
        "a\n{% for i in (1..9999999999) %}x{% endfor %}",
        "ä{% raw %}{% for{% endraw %}\n\u{e4}{%- for j in (1..200000) %}{% endfor %}",
        "a\r\n{% for i in (\"1\"..\"99999999\") %}{% endfor %}",
        "a\n{% tablerow i in (1..10001) %}x{% endtablerow %}",
    ] {
        match Prompt::parse(endless).map(drop).expect_err("refused") {
            PromptError::Parse { line, message } => {
                assert_eq!(line, 2, "{endless}: {message}");
                assert!(message.contains("turns at most 10000 times"), "{message}");
            }
            other => panic!("{other}"),
        }
    }
    for (fine, filled) in [
        ("{% for i in (1..3) %}{{ i }}{% endfor %}{% for i in (1..9000) %}{% endfor %}", "123"),
        ("{% raw %}{% for i in (1..n) %}{% endraw %}", "{% for i in (1..n) %}"),
        ("{% comment %}{% for i in (1..n) %}{% endfor %}{% endcomment %}.", "."),
        ("{% assign a = 'b..%}(' | split: '..' %}{% for i in a %}{{ i }}{% endfor %}", "b%}("),
        ("{% for i in (1..2) %}{% for j in (-1..0) %}{{ i }}{{ j }} {% endfor %}{% endfor %}", "1-1 10 2-1 20 "),
    ] {
        assert_eq!(render(fine).as_deref(), Ok(filled), "{fine}");
    }
}

/// What is said of a template that an issue with long words and many labels fills in.
fn refused(template: &str) -> String {
    let mut issue = Issue::bare("A-1", "Todo");
    issue.title = "y".repeat(4096);
    issue.description = Some("x".repeat(100_000));
    issue.labels = vec!["bug".to_owned(); 10_000];
    let prompt = Prompt::parse(template).expect("a template");
    prompt.render(&issue, &Attempt::default()).expect_err("too much").to_string()
}

#[test]
fn a_prompt_that_grows_without_end_is_refused() {
    let literal = format!("{{% for i in (1..10000) %}}{}{{% endfor %}}", "x".repeat(4096));
    assert!(refused(&literal).contains("longer than"));
    // Doubled again and again, what is looked at is too much before any value is.
    for inside in ["capture a %}{{ a }}{{ a }}{% endcapture", "assign a = a | append: a"] {
        let doubled = format!("{{% assign a = issue.title %}}{{% for i in (1..60) %}}{{% {inside} %}}{{% endfor %}}");
        assert!(refused(&doubled).contains("too much work"), "{inside}");
        let by_hand = format!("{{% assign a = issue.title %}}{}", format!("{{% {inside} %}}").repeat(60));
        assert!(refused(&by_hand).contains("too much work"), "{inside}");
    }
    let wide = format!("{{% assign a = issue.description{} %}}", " | append: issue.description".repeat(99));
    assert!(refused(&wide).contains("too much work"));
    assert!(refused("{% assign a = issue.description | split: '' %}").contains("grows beyond"));
    let captured = format!("{{% capture a %}}{literal}{{% endcapture %}}");
    assert!(refused(&captured).contains("grows beyond"));
}

#[test]
fn words_of_an_issue_that_multiply_each_other_are_refused() {
    for template in [
        "{{ issue.description | replace: 'x', issue.title }}",
        "{{ issue.description | split: '' | join: issue.title }}",
    ] {
        assert!(refused(template).contains("the result is longer than"), "{template}");
    }
    assert_eq!(render("{{ 'aXbX' | replace: 'X', '--' | replace: 'b' }}").as_deref(), Ok("a----"));
    assert_eq!(render("{{ 'a,b' | split: ',' | join }}{{ 'a,b' | split: ',' | join: '+' }}").as_deref(), Ok("a ba+b"));
}

#[test]
fn loops_that_walk_long_lists_in_each_other_end() {
    for inside in [
        "for b in issue.labels %}{% endfor",
        "for i in (1..10000) %}{% endfor",
        "capture b %}{% tablerow i in (1..1000) %}{% endtablerow %}{% endcapture",
        "assign b = issue.description",
    ] {
        let error = refused(&format!("{{% for a in issue.labels %}}{{% {inside} %}}{{% endfor %}}"));
        assert!(error.contains("too much work"), "{inside}: {error}");
    }
    let mut issue = Issue::bare("A-1", "Todo");
    issue.labels = vec!["l".to_owned(); 300];
    let pairs = "{% for a in issue.labels %}{% for b in issue.labels %}{{ a }}{% endfor %}{% endfor %}";
    let text = Prompt::parse(pairs).expect("a template").render(&issue, &Attempt::default());
    assert_eq!(text.map(|text| text.len()), Ok(300 * 300), "what a person may well write is filled in");
}

#[test]
fn a_page_of_captured_and_assigned_words_is_as_the_engine_fills_it() {
    let text = "{% capture a %}<{{ issue.identifier }}>{% endcapture %}{% assign b = a | append: '!' %}{{ b }}{{ a }}";
    assert_eq!(render(text).as_deref(), Ok("<ABC-1>!<ABC-1>"));
    assert!(render("{% capture %}{% endcapture %}").is_err());
    assert!(render("{% capture a b %}{% endcapture %}").is_err());
    assert!(render("{% capture a %}{{ nothing }}{% endcapture %}").is_err());
}
