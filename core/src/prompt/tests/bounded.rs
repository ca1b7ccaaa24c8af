//! What one template or one issue may cost: each case here once took minutes, gigabytes or the process.

use super::*;

fn render_of(template: &str, change: impl FnOnce(&mut Issue)) -> Result<String, PromptError> {
    let mut issue = issue();
    change(&mut issue);
    Prompt::parse(template)?.render(&issue, &Attempt::default())
}

/// What is said of a template that `issue()` fills in.
fn refusal(template: &str) -> String {
    render(template).expect_err("refused").to_string()
}

#[test]
fn many_labels_and_words_are_made_unique_in_time_that_grows_like_them() {
    let labels = |issue: &mut Issue| issue.labels = (0..49_000).chain(0..9).map(|n| format!("label-{n}")).collect();
    let joined = render_of("{{ issue.labels | uniq | join: ', ' }}", labels).expect("filled in");
    assert_eq!(joined.split(", ").count(), 49_000);
    assert!(joined.starts_with("label-0, label-1, "), "{}", &joined[..40]);
    let words = |issue: &mut Issue| {
        issue.description = Some((0..170_000).map(|n| format!("{n:05}")).collect::<Vec<_>>().join(" "));
    };
    let template = "{{ issue.description | split: ' ' | uniq | size }}";
    assert_eq!(render_of(template, words).as_deref(), Ok("170000"));
}

#[test]
fn uniq_keeps_the_first_of_what_is_the_same() {
    assert_eq!(render("{{ 'b,a,b,A,,' | split: ',' | uniq | json }}").as_deref(), Ok(r#"["b","a","A",""]"#));
    assert_eq!(render("{{ issue.blocked_by | concat: issue.blocked_by | uniq | size }}").as_deref(), Ok("1"));
    assert!(refusal("{{ issue.title | uniq }}").contains("an array is expected"));
}

#[test]
fn every_filter_tag_and_block_of_the_standard_language_is_there_but_those_that_read_files() {
    let known = |template: &str, from: &str| {
        let said = Prompt::parse(template).err().expect("unknown").to_string();
        said.split_once(from).expect("a list").1.to_owned()
    };
    assert_eq!(known("{{ 1 | nope }}", "known are ").split(", ").count(), 49);
    assert_eq!(
        known("{% nope %}", "known are "),
        "assign, break, capture, case, comment, continue, cycle, decrement, for, if, ifchanged, increment, raw, \
         tablerow, unless"
    );
}

#[test]
fn filters_pay_for_what_they_look_at_outside_of_every_tag_and_for_plain_values() {
    let long = "x".repeat(180_000);
    let literal = format!("{{% for i in (1..1000) %}}{{{{ '{long}' | strip_html | size }}}}{{% endfor %}}");
    let argument = format!("{{% for i in (1..1000) %}}{{{{ 'x' | replace: '{long}' | size }}}}{{% endfor %}}");
    let compared = format!("{{% for i in (1..10000) %}}{{% if '{long}' == '{long}y' %}}{{% endif %}}{{% endfor %}}");
    let cased =
        format!("{{% for i in (1..10000) %}}{{% case '{long}' %}}{{% when '{long}y' %}}{{% endcase %}}{{% endfor %}}");
    for template in [literal, argument, compared, cased] {
        assert!(refusal(&template).contains("too much work"), "{}", &template[..60]);
    }
    let outside = "{{ issue.description | strip_html | size }}".repeat(100);
    let long = |issue: &mut Issue| issue.description = Some("x".repeat(1_000_000));
    assert!(render_of(&outside, long).expect_err("refused").to_string().contains("too much work"));
    let argument = "{{ 'x' | append: issue.description | size }}".repeat(100);
    assert!(render_of(&argument, long).expect_err("refused").to_string().contains("too much work"));
    assert_eq!(render_of("{{ issue.description | strip_html | size }}", long).as_deref(), Ok("1000000"));
}

#[test]
fn what_a_filter_makes_has_an_end() {
    let lines = |issue: &mut Issue| issue.description = Some("\n".repeat(1_000_000));
    let grown = format!("{{% assign a = issue.description{} %}}", " | newline_to_br".repeat(60));
    assert!(render_of(&grown, lines).expect_err("refused").to_string().contains("the result is longer than"));
    let pieces = "{{ issue.description | split: '' | size }}";
    assert!(render_of(pieces, lines).expect_err("refused").to_string().contains("the result has more than"));
    assert_eq!(render("{{ 'a-b' | split: '-' | last }}{{ '' | split: '-' | size }}").as_deref(), Ok("b0"));
}

#[test]
fn what_is_filled_aside_has_an_end() {
    let long = "x".repeat(4096);
    for block in ["ifchanged", "capture a"] {
        let end = block.split(' ').next().expect("a name");
        let inside = format!("{{% for i in (1..10000) %}}{long}{{% endfor %}}");
        let one = format!("{{% {block} %}}{inside}{{% end{end} %}}");
        assert!(refusal(&one).contains("grows beyond"), "{block}");
        // Each keeps below its own end, and the ones around it stay.
        let some = format!("{{% {block} %}}{{% for i in (1..1500) %}}{long}{{% endfor %}}");
        let nested = format!("{}{}", some.repeat(20), format!("{{% end{end} %}}").repeat(20));
        assert!(refusal(&nested).contains("too much work"), "{block}");
    }
    let changed =
        "{% for l in issue.labels %}{% ifchanged %}{{ l | slice: 0, 0 | default: 'x' }}{% endifchanged %}{% endfor %}";
    assert!(render(changed).is_err(), "a slice has a length");
    let changed = "{% for i in (1..6) %}{% ifchanged %}{{ i | divided_by: 3 }}{% endifchanged %}{% endfor %}";
    assert_eq!(render(changed).as_deref(), Ok("012"));
}

#[test]
fn a_date_has_narrow_fields() {
    for wide in ["%4000000000Y", "%1000Y", "%-01000d", "%_99999999999999999999H"] {
        let said = refusal(&format!("{{{{ issue.created_at | date: '{wide}' | size }}}}"));
        assert!(said.contains("is wider than 999"), "{wide}: {said}");
    }
    let many = format!("{{{{ issue.created_at | date: '{}' | size }}}}", "%999Y".repeat(20_000));
    assert!(refusal(&many).contains("longer than"));
    for (format, date) in [
        ("%Y-%m-%d %H:%M", "2026-01-02 03:04"),
        ("2026 %e%%", "2026  2%"),
        ("%6Y", "002026"),
        ("", "2026-01-02T03:04:05Z"),
    ] {
        let template = format!("{{{{ issue.created_at | date: '{format}' }}}}");
        assert_eq!(render(&template).as_deref(), Ok(date), "{format}");
    }
    assert_eq!(render("{{ issue.title | date: '%Y' }}").as_deref(), Ok("Mend <it>"));
    assert!(refusal("{{ issue.created_at | date: '%8' }}").contains("date format `%8` is wrong"));
}

#[test]
fn a_condition_has_an_end_before_the_engine_recurses() {
    for word in ["and", "or"] {
        let long = |times: usize| format!("a\n{{% if true {} %}}x{{% endif %}}", format!("{word} true ").repeat(times));
        assert_eq!(render(&long(200)).as_deref(), Ok("a\nx"));
        for times in [201, 200_000] {
            match Prompt::parse(&long(times)).map(drop).expect_err("refused") {
                PromptError::Parse { line: 2, message } => assert!(message.contains("`and` or `or`"), "{message}"),
                other => panic!("{other}"),
            }
        }
    }
    let quoted = format!("{{% if issue.title == '{}' %}}x{{% endif %}}.", "and or ".repeat(500));
    assert_eq!(render(&quoted).as_deref(), Ok("."));
}

#[test]
fn an_end_in_quotes_hides_no_brackets() {
    let deep = format!("{{{{ issue[\"}}}}\"]{} }}}}", "[issue".repeat(100_000));
    assert!(Prompt::parse(&deep).map(drop).expect_err("refused").to_string().contains("brackets"));
    let behind = format!("{{{{ ' {{{{ issue{} }}}}", "[issue".repeat(100_000));
    assert!(Prompt::parse(&behind).map(drop).expect_err("refused").to_string().contains("brackets"));
}

#[test]
fn a_long_template_is_looked_at_about_once() {
    assert!(Prompt::parse(&"{{ issue.id }} ".repeat(20_000)).is_ok());
    for endless in ["{{ '", "{{ ", "{{", "{{ a | b: \""] {
        let said =
            Prompt::parse(&format!("a\n{}", endless.repeat(200_000))).map(drop).expect_err("refused").to_string();
        assert!(said.contains("line 2") && said.contains("has no end"), "{endless}: {said}");
    }
    assert!(Prompt::parse(&" ".repeat(1_000_000)).is_ok(), "nothing but space is no template");
    let spaces = format!("a{}b", " ".repeat(100_000));
    assert!(Prompt::parse(&spaces).map(drop).expect_err("refused").to_string().contains("runs of spaces"));
    assert!(Prompt::parse(&format!("{}b", "a\n\n    ".repeat(100_000))).is_ok());
}

#[test]
fn a_costly_template_is_tried_on_few_of_many_states() {
    let rules = (0..2000).map(|n| (StateName::new(format!("S{n}").as_str()), StateRule::of(Role::Active))).collect();
    let states = States { rules, declared: true };
    let costly = "{% for i in (1..10000) %}{% for j in (1..30) %}{% endfor %}{% endfor %}";
    assert!(Prompt::parse(costly).expect("a template").check(&states, 1).is_empty());
    let wrong = format!("{costly}{{{{ issue.nope }}}}");
    assert_eq!(Prompt::parse(&wrong).expect("a template").check(&states, 1).len(), 1);
}

#[test]
fn an_empty_list_has_no_first_item_and_the_error_says_what_to_ask() {
    let bare = |issue: &mut Issue| issue.labels.clear();
    for template in ["a\n{{ issue.labels.first }}", "a\n{% assign x = issue.labels.last %}", "a\n{{ issue.labels[0] }}"]
    {
        match render_of(template, bare).expect_err("empty") {
            PromptError::Render { line, message } => {
                assert!(
                    message.contains("the list is empty; ask first, `{% if issue.labels.size > 0 %}`"),
                    "{message}"
                );
                assert!(!message.contains("did you mean"), "{message}");
                assert_eq!(line, 2, "{template}");
            }
            other => panic!("{other}"),
        }
    }
    let asked = "{% if issue.labels.size > 0 %}{{ issue.labels.first }}{% endif %}.";
    assert_eq!(render_of(asked, bare).as_deref(), Ok("."));
    assert_eq!(render(asked).as_deref(), Ok("bug."));
}

#[test]
fn a_range_may_end_at_a_value_and_is_bounded_when_that_is_known() {
    assert_eq!(render("{% for i in (1..issue.priority) %}{{ i }}{% endfor %}").as_deref(), Ok("12"));
    assert_eq!(render("{% for i in (3..issue.priority) %}{{ i }}{% else %}none{% endfor %}").as_deref(), Ok("none"));
    let template = "{% for i in (1..issue.priority) %}{{ i }}{% endfor %}";
    for (priority, why) in
        [(Some(i64::MAX), "turns at most 10000 times"), (None, "between two whole numbers; ask first")]
    {
        let said = render_of(template, |issue| issue.priority = priority).expect_err("refused").to_string();
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(render_of(template, |issue| issue.priority = Some(i64::MIN)).as_deref(), Ok(""));
    assert!(refusal("{% for i in (1..issue.title) %}{% endfor %}").contains("between two whole numbers"));
}

#[test]
fn loops_do_what_the_standard_language_says() {
    for (template, filled) in [
        ("{% for i in (1..6) reversed limit: 2 offset: 1 %}{{ i }}{% endfor %}", "32"),
        (
            "{% for i in (1..9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "134",
        ),
        (
            "{% for i in (1..2) %}{% for j in (1..9) %}{% if j > i %}{% break %}{% endif %}{{ j }}{% endfor %}.{% endfor %}",
            "1.12.",
        ),
        (
            "{% for l in issue.labels %}{{ forloop.index }}/{{ forloop.length }}{{ forloop.rindex0 }}{{ forloop.first }} {% endfor %}",
            "1/21true 2/20false ",
        ),
        ("{% for i in (1..2) %}{% for j in (1..1) %}{{ forloop.parentloop.index }}{% endfor %}{% endfor %}", "12"),
        (
            "{% tablerow i in (1..3) cols: 2 %}{{ i }}{{ tablerow.col_last }}{% endtablerow %}",
            "<tr class=\"row1\"><td class=\"col1\">1false</td><td class=\"col2\">2true</td></tr><tr class=\"row2\"><td class=\"col1\">3true</td></tr>",
        ),
        (
            "{% tablerow i in (1..1) cols: 0 %}{{ i }}{% endtablerow %}",
            "<tr class=\"row1\"><td class=\"col1\">1</td></tr>",
        ),
        ("{% for x in issue.url %}{% else %}none{% endfor %}", "none"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(filled), "{template}");
    }
    for wrong in [
        "{% for x in issue.title %}{% endfor %}",
        "{% for x in issue.labels limit: -1 %}{% endfor %}",
        "{% for x in issue.labels limit: issue.title %}{% endfor %}",
        "{% for x in issue.labels cols: 1 %}{% endfor %}",
        "{% for x issue.labels %}{% endfor %}",
        "{% for x in issue.labels %}",
    ] {
        assert!(render(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_loop_walks_the_fields_of_an_object_in_the_same_order_each_time() {
    let names = "{% for field in issue.blocked_by.first %}{{ field.first }} {% endfor %}";
    assert_eq!(render(names).as_deref(), Ok("id identifier state "));
    let all = render("{% for field in issue %}{{ field | json }}{% endfor %}").expect("filled in");
    assert!(all.starts_with(r#"["assignee_id",null]["blocked_by","#), "{all}");
}
