//! Issue files as people write them, and as they should not.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Issue {
    parse("Todo/X-1.md", "Todo", text.as_bytes()).expect("an issue")
}

fn fields(yaml: &str) -> Issue {
    read(&format!("---\n{yaml}\n---\nbody\n"))
}

fn refused(text: &str) -> Malformed {
    parse("Todo/X-1.md", "Todo", text.as_bytes()).expect_err("malformed")
}

fn at(file: &str, text: &str) -> Issue {
    parse(file, file.split('/').next().expect("state"), text.as_bytes()).expect("an issue")
}

#[test]
fn fences_are_unindented_lines_of_three_dashes() {
    let cases = [
        ("---\na: 1\n---\nbody", Some("a: 1\n"), "body"),
        ("---  \r\na: 1\r\n---\t\r\nbody", Some("a: 1\r\n"), "body"),
        ("\u{feff}---\n---\n", Some(""), ""),
        ("---\na: |\n  x\n  ---\n---", Some("a: |\n  x\n  ---\n"), ""),
        ("\n---\na: 1\n---\n", None, "\n---\na: 1\n---\n"),
        ("----\na: 1\n---\n", None, "----\na: 1\n---\n"),
        ("---\na: 1\n", None, "---\na: 1\n"),
        ("", None, ""),
    ];
    for (text, front, body) in cases {
        let split = split(text);
        assert_eq!((split.front, split.body), (front, body), "{text:?}");
    }
    assert!(split("---\na: 1").unclosed && !split("a").unclosed);
}

#[test]
fn a_file_without_front_matter_is_an_issue_named_by_its_stem() {
    for text in ["# Just text\n", "---\nPlain text below a ruler.\n", "---\n# A heading\ntext\n"] {
        let issue = read(text);
        assert_eq!((issue.id.0.as_str(), issue.identifier.0.as_str(), issue.title.as_str()), ("X-1", "X-1", "X-1"));
        assert_eq!(issue.description.as_deref(), Some(text.trim()));
        assert_eq!((issue.state.as_str(), issue.file.as_str(), issue.dispatchable), ("Todo", "Todo/X-1.md", true));
    }
    assert_eq!(read("---\n---\n").description, None);
}

/// Regression: two seconds after it was saved, such a file ran as plain text, its `blocked_by` and `profile` ignored.
#[test]
fn a_file_whose_fields_never_end_is_no_issue_and_says_how_to_close_them() {
    let fields =
        ["title: unclosed\nblocked_by: [BLK]\n\ntext\n", "\n# a comment\nprofile:\n", "'hold': true", "", "\n \n"];
    for text in fields.map(|fields| format!("---\n{fields}")) {
        let error = refused(&text);
        assert!(error.message.contains("add a line `---`") && error.line == Some(1), "{text:?}: {error:?}");
        assert!(looks_half_saved(text.as_bytes()).is_some(), "{text:?}");
    }
    for ruler in ["see https://a.example/", "Do this now: mend it", "- a: 1", "# only a heading"] {
        let text = format!("---\n{ruler}\n");
        assert_eq!(read(&text).description.as_deref(), Some(text.trim()));
    }
}

/// Regression: it became a run of an agent without a task.
#[test]
fn an_empty_file_is_no_issue() {
    for text in ["", " \n\t\r\n", "\u{feff}", "\u{feff}\n"] {
        let error = refused(text);
        assert!(error.message.contains("empty; write into it"), "{text:?}: {error:?}");
    }
}

#[test]
fn every_field_is_read() {
    let issue = fields(
        "id: uuid-9\nidentifier: ABC-7\ntitle: ' Fix it '\npriority: 2\nbranch_name: b\nurl: https://x.example/\n\
         assignee_id: ann\nlabels: [' Bug ', bug, '', UI]\nblocked_by: [A, 7, A]\n\
         created_at: 2026-01-02T03:04:05Z\nupdated_at: '2026-01-02T03:04:05+01:00'",
    );
    assert_eq!((issue.id.0.as_str(), issue.identifier.0.as_str(), issue.title.as_str()), ("uuid-9", "ABC-7", "Fix it"));
    assert_eq!(issue.priority, Some(2));
    assert_eq!(issue.labels, ["bug", "ui"]);
    assert_eq!(issue.blocked_by.iter().map(|b| b.identifier.0.as_str()).collect::<Vec<_>>(), ["A", "7"]);
    assert_eq!(issue.branch_name.as_deref(), Some("b"));
    assert_eq!(issue.url.as_deref(), Some("https://x.example/"));
    assert_eq!(issue.assignee_id.as_deref(), Some("ann"));
    assert_eq!(issue.created_at.map(|t| t.to_string()).as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(issue.updated_at.map(|t| t.to_string()).as_deref(), Some("2026-01-02T02:04:05Z"));
    assert_eq!(issue.description.as_deref(), Some("body"));
}

#[test]
fn whole_numbers_serve_as_names() {
    let issue = fields("id: 7\nidentifier: 8");
    assert_eq!((issue.id.0.as_str(), issue.identifier.0.as_str(), issue.title.as_str()), ("7", "8", "8"));
}

#[test]
fn unusable_optional_metadata_never_makes_a_file_malformed() {
    let issue = fields(
        "id: [a]\nidentifier: ' '\ntitle: 5\npriority: high\nlabels: 3\nblocked_by: true\nurl: {a: b}\n\
         created_at: yesterday\nhold: maybe\nunknown: x",
    );
    assert_eq!((issue.id.0.as_str(), issue.identifier.0.as_str(), issue.title.as_str()), ("X-1", "X-1", "X-1"));
    assert_eq!((issue.priority, issue.url, issue.created_at), (None, None, None));
    assert!(issue.labels.is_empty() && issue.blocked_by.is_empty() && issue.dispatchable);
    for (text, want) in [("1.5", None), ("' 3 '", Some(3)), ("-1", Some(-1)), ("null", None), ("[1]", None)] {
        assert_eq!(fields(&format!("priority: {text}")).priority, want, "{text}");
    }
}

#[test]
fn a_blocker_written_without_brackets_still_blocks() {
    assert_eq!(fields("blocked_by: X-2").blocked_by.len(), 1);
    assert_eq!(fields("blocked_by: [{identifier: X-2}]").blocked_by[0].identifier.0, "X-2");
}

#[test]
fn hold_keeps_an_issue_from_starting() {
    for (text, dispatchable) in [("true", false), ("yes", false), ("false", true), ("no", true), ("~", true)] {
        assert_eq!(fields(&format!("hold: {text}")).dispatchable, dispatchable, "{text}");
    }
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    let cases = [
        ("---\ntitle: x\nlabels: [a\n---\n", 3, "" /* the parser's words */),
        ("---\n- a\n---\n", 2, "a list"),
        ("---\na: 1\na: 2\n---\n", 3, "second time"),
        ("---\nid: x\nidentifier: ..\n---\n", 3, "another `identifier`"),
        ("---\nidentifier: refresh\n---\n", 2, "page of the dashboard"),
        ("---\nid: \"a\\nb\"\n---\n", 2, "control character"),
        ("a\nb\0\n", 2, "NUL"),
    ];
    for (text, line, words) in cases {
        let error = refused(text);
        assert!(error.message.contains(words) && error.file == "Todo/X-1.md", "{text:?}: {error:?}");
        assert!(error.line.is_some_and(|at| at >= line) && error.column.is_some(), "{text:?}: {error:?}");
    }
    let error = parse("Todo/a.md", "Todo", b"a\nb\xff\n").expect_err("not UTF-8");
    assert_eq!((error.line, error.column), (Some(2), Some(2)));
    let error = parse("Todo/state.md", "Todo", b"x").expect_err("reserved");
    assert_eq!((error.line, error.message.contains("`state`")), (None, true));
    assert!(refused(&"x".repeat(MAX_BYTES + 1)).message.contains("longer"));
    assert!(parse("Todo/a.md", "Todo", "x".repeat(MAX_BYTES).as_bytes()).is_ok());
}

#[test]
fn an_empty_or_unclosed_file_looks_half_saved() {
    for text in ["", " \n", "---\n", "---\nid: x\n", "---\nid: x\n---\n\0\0"] {
        assert!(looks_half_saved(text.as_bytes()).is_some(), "{text:?}");
    }
    for text in ["x", "---\n---\n", "---\nid: x\n---\n"] {
        assert!(looks_half_saved(text.as_bytes()).is_none(), "{text:?}");
    }
}

#[test]
fn blockers_are_found_by_identifier_id_or_stem_in_every_state() {
    let mut issues = vec![
        at("Todo/a.md", "---\nblocked_by: [ABC-1, uuid-2, c, nobody]\n---\n"),
        at("Done/b.md", "---\nid: uuid-1\nidentifier: ABC-1\n---\n"),
        at("Review/x.md", "---\nid: uuid-2\nidentifier: ABC-2\n---\n"),
        at("Todo/c.md", "---\nid: uuid-3\nidentifier: ABC-3\n---\n"),
    ];
    resolve(&mut issues);
    let found: Vec<_> = issues[0]
        .blocked_by
        .iter()
        .map(|b| (b.id.as_ref().map(|id| id.0.as_str()), b.state.as_ref().map(StateName::as_str)))
        .collect();
    let want = [(Some("uuid-1"), Some("Done")), (Some("uuid-2"), Some("Review")), (Some("uuid-3"), Some("Todo"))];
    assert_eq!(found[..3], want);
    assert_eq!(found[3], (None, None));
}

#[test]
fn names_that_stand_twice_are_ambiguous_and_no_issue() {
    let (alone, ambiguous) = separate(vec![
        at("Todo/same.md", "x"),
        at("Done/same.md", "x"),
        at("Todo/1.md", "---\nid: i1\nidentifier: abc-1\n---\n"),
        at("Todo/2.md", "---\nid: i2\nidentifier: ABC-1\n---\n"),
        at("Todo/3.md", "---\nid: i3\nidentifier: n3\n---\n"),
        at("Todo/4.md", "---\nid: i3\nidentifier: n4\n---\n"),
        at("Todo/alone.md", "x"),
    ]);
    assert_eq!(alone.iter().map(|i| i.file.as_str()).collect::<Vec<_>>(), ["Todo/alone.md"]);
    let shown: Vec<_> = ambiguous.iter().map(|a| (a.name.as_str(), a.files.join(" "))).collect();
    let want = [
        ("abc-1", "Todo/1.md Todo/2.md".to_owned()),
        ("i3", "Todo/3.md Todo/4.md".to_owned()),
        ("same", "Done/same.md Todo/same.md".to_owned()),
    ];
    assert_eq!(shown, want);
}

#[test]
fn a_new_file_has_the_format_of_the_contract() {
    let now = "2026-01-02T03:04:05.678912Z".parse().expect("instant");
    let (labels, blocked_by) = (["bug".to_owned(), "a \"b\"".to_owned()], ["A-1".to_owned()]);
    let new = NewFile {
        identifier: "A-2",
        title: "Fix: \"it\"\n",
        description: Some("\n Do it.\n\n"),
        priority: Some(1),
        labels: &labels,
        blocked_by: &blocked_by,
        proposed: None,
    };
    let want = "---\nid: \"A-2\"\nidentifier: \"A-2\"\ntitle: \"Fix: \\\"it\\\"\\n\"\n\
                created_at: \"2026-01-02T03:04:05.678Z\"\nupdated_at: \"2026-01-02T03:04:05.678Z\"\n\
                priority: 1\nlabels: [\"bug\", \"a \\\"b\\\"\"]\nblocked_by: [\"A-1\"]\n---\n\nDo it.\n";
    assert_eq!(render_new(&new, now), want);
    let bare = NewFile { description: None, priority: None, labels: &[], blocked_by: &[], ..new };
    assert!(render_new(&bare, now).ends_with("updated_at: \"2026-01-02T03:04:05.678Z\"\n---\n"));
}

#[test]
fn a_proposed_file_says_where_it_comes_from_and_its_text_adds_no_field() {
    let now = "2026-01-02T03:04:05Z".parse().expect("instant");
    let proposed = Proposed { by: Identifier("A \"1\"\nhold: false".into()), run: RunId(7) };
    let new = NewFile {
        identifier: "8",
        title: "t\nproposed_by: me",
        description: Some("---\npriority: 1\n---\nDo it."),
        priority: None,
        labels: &[],
        blocked_by: &[],
        proposed: Some(&proposed),
    };
    let text = render_new(&new, now);
    assert!(text.contains("\nproposed_at: \"2026-01-02T03:04:05.000Z\"\nproposed_in_run: 7\n---\n"), "{text}");
    let issue = at("Triage/8.md", &text);
    assert_eq!(issue.proposed_by.as_deref(), Some("A \"1\"\nhold: false"));
    assert_eq!((issue.priority, issue.description.as_deref()), (None, new.description));
}

proptest! {
    #[test]
    fn any_bytes_in_no_panic_out(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (parse("a/b.md", "a", &bytes), looks_half_saved(&bytes));
        let mut fenced = b"---\n".to_vec();
        fenced.extend(&bytes);
        fenced.extend(b"\n---\n");
        let _ = parse("a/b.md", "a", &fenced);
    }

    #[test]
    fn what_is_written_is_read_back(title in "\\PC{1,40}", label in any::<String>(), body in any::<String>()) {
        prop_assume!(!body.contains('\0'));
        let labels = [label];
        let new = NewFile {
            identifier: "A-1", title: &title, description: Some(&body), priority: Some(3), labels: &labels,
            blocked_by: &labels, proposed: None,
        };
        let now = "2026-01-02T03:04:05Z".parse().expect("instant");
        let issue = at("Todo/A-1.md", &render_new(&new, now));
        let title = if title.trim().is_empty() { "A-1" } else { title.trim() };
        prop_assert_eq!(issue.title.as_str(), title);
        prop_assert_eq!(issue.description.unwrap_or_default(), body.trim());
        let label = labels[0].trim();
        prop_assert_eq!(issue.blocked_by.first().map_or("", |b| b.identifier.0.as_str()), label);
        prop_assert_eq!(issue.labels.concat(), label.to_lowercase());
    }
}

#[test]
fn a_profile_is_a_name_and_what_is_none_is_not_dropped() {
    let profile = |yaml: &str| fields(yaml).profile;
    assert_eq!(profile("profile: ' big '").as_deref(), Some("big"));
    assert_eq!(profile("profile: 5").as_deref(), Some("5"));
    for none in ["title: x", "profile:", "profile: ''", "profile: null"] {
        assert_eq!(profile(none), None, "{none}");
    }
    assert!(profile("profile: [big]").is_some_and(|name| name.contains("list")));
}

fn remarks(yaml: &str) -> Vec<String> {
    fields(yaml).remarks().collect()
}

/// Regression: `blocked-by`, `prioriti`, `priority: high` and `model` all counted for nothing without a word.
#[test]
fn a_key_nobody_knows_or_a_value_of_no_use_is_remarked_on_with_its_place() {
    let said = remarks("title: x\nprioriti: 1\npriority: high\nmodel: foo\nowner: ann");
    let want = [
        "Todo/X-1.md:3:1: unknown key `prioriti` (did you mean `priority`?)",
        "Todo/X-1.md:4:11: `priority` is not a whole number, so the issue has none",
        "Todo/X-1.md:5:1: unknown key `model` (`acp.model` or `states.*.model` of the workflow names the model)",
        "Todo/X-1.md:6:1: unknown key `owner`",
    ];
    assert_eq!(said, want);
    assert!(fields("prioriti: 1\nowner: ann\nstatus: Todo\nlocked_by: ann\nblocked_at: now\nold: 1").doubt().is_none());
    for fine in
        ["priority: ' 3 '\nhold: no\nlabels:\ntitle: ''\nblocked_by: X-2", "created_at: 2026-01-02T03:04:05Z\nid: 7"]
    {
        assert_eq!(remarks(fine), [""; 0], "{fine}");
    }
    for odd in
        ["title: 5", "labels: bug", "blocked_by: true", "hold: maybe", "created_at: yesterday", "id: [a]", "url: 5"]
    {
        assert_eq!(remarks(odd).len(), 1, "{odd}");
    }
    let known = render_new(
        &NewFile {
            identifier: "A",
            title: "t",
            description: None,
            priority: Some(1),
            labels: &["a".into()],
            blocked_by: &["b".into()],
            proposed: Some(&Proposed { by: Identifier("B".into()), run: RunId(1) }),
        },
        "2026-01-02T03:04:05Z".parse().expect("instant"),
    );
    assert_eq!(at("Triage/A.md", &known).oddities, []);
}

#[test]
fn a_key_that_is_nearly_a_blocker_a_profile_or_a_hold_keeps_its_issue_from_starting() {
    for (key, meant) in [
        ("blocked-by", "blocked_by"),
        ("Blocked_By", "blocked_by"),
        ("blocked by", "blocked_by"),
        ("blocked", "blocked_by"),
        ("bloked_by", "blocked_by"),
        ("profil", "profile"),
        ("Profile", "profile"),
        ("on-hold", "hold"),
        ("Hold", "hold"),
    ] {
        let issue = fields(&format!("{key}: [A]"));
        let doubt = issue.doubt().unwrap_or_else(|| panic!("{key}"));
        assert!(doubt.message.contains(&format!("did you mean `{meant}`?")), "{doubt:?}");
        assert!(issue.dispatchable, "it is an issue like any other (C185)");
        for nothing in ["[]", "", "''", "false"] {
            let issue = fields(&format!("{key}: {nothing}"));
            assert!(issue.doubt().is_none() && issue.oddities.len() == 1, "{key}: {nothing}");
        }
    }
}

#[test]
fn of_many_odd_keys_a_few_are_told_and_never_without_the_one_that_holds() {
    let many: String = (0..30).map(|at| format!("foreign{at}: 1\n")).collect();
    let issue = fields(&format!("{many}blocked-by: [A]"));
    assert!(issue.doubt().is_some() && issue.oddities.len() == 8, "{:?}", issue.oddities);
    assert!(issue.oddities.iter().any(|odd| odd.message.ends_with("; and 23 more like it")), "{:?}", issue.oddities);
}

#[test]
fn the_readme_has_every_key() {
    let readme = include_str!("../../../README.md");
    let table: String = readme.lines().filter(|line| line.starts_with("| `")).collect();
    for key in KEYS {
        assert!(table.contains(&format!("`{key}`")), "{key} has no row");
    }
}
