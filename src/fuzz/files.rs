//! Files that people and agents write: issues, the workflow, its prompt. The parsers are the core's.

use std::path::PathBuf;

use symphony_core::front_matter::{self, NewFile};
use symphony_core::ids::WorkspaceKey;
use symphony_core::issue::Issue;
use symphony_core::prompt::{Attempt, Prompt, PromptError};
use symphony_core::workflow::{Place, Problem, Role, Workflow};
use symphony_core::yaml::{self, Kind, MAX_DEPTH, MAX_NODES, MAX_TEXT, Node};

/// Lines of `text`, as an editor counts them: one past the last line break is one more.
fn lines(text: &[u8]) -> u32 {
    let breaks = text.iter().filter(|b| matches!(b, b'\n' | b'\r')).count();
    // A parser may take other characters for line breaks; each has at least one byte.
    u32::try_from(breaks).expect("a short text") + 1
}

/// An issue is read or refused with a reason, the same twice, and what is read can be written and read again.
pub(super) fn issue(bytes: &[u8]) {
    let read = front_matter::parse("Todo/A-1.md", "Todo", bytes);
    assert_eq!(read, front_matter::parse("Todo/A-1.md", "Todo", bytes), "read twice, the same");
    let _ = front_matter::looks_half_saved(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let split = front_matter::split(text);
        assert!(split.body.len() + split.front.map_or(0, str::len) <= text.len());
        assert!(text.ends_with(split.body) && text.contains(split.front.unwrap_or_default()));
        assert!(!(split.unclosed && split.front.is_some()));
    }
    let issue = match read {
        Ok(issue) => issue,
        Err(malformed) => {
            assert!(!malformed.message.is_empty() && malformed.message.len() < 4096, "{malformed:?}");
            assert!(malformed.line.is_none_or(|line| (1..=lines(bytes)).contains(&line)), "{malformed:?}");
            return;
        }
    };
    WorkspaceKey::of(&issue.identifier).expect("an issue can name a workspace");
    assert!(issue.id.0.len() <= front_matter::MAX_NAME && issue.identifier.0.len() <= front_matter::MAX_NAME);
    assert!(!issue.title.trim().is_empty() && issue.labels.iter().all(|label| !label.trim().is_empty()));
    again(&issue);
    let mut one = [issue.clone()];
    front_matter::resolve(&mut one);
    assert_eq!(front_matter::separate(vec![issue.clone(), issue]).1.len(), 1, "the same name twice is ambiguous");
}

/// What an issue says, in a new file.
fn again(issue: &Issue) {
    let blocked_by: Vec<String> = issue.blocked_by.iter().map(|blocker| blocker.identifier.0.clone()).collect();
    let new = NewFile {
        identifier: &issue.identifier.0,
        title: &issue.title,
        description: issue.description.as_deref(),
        priority: issue.priority,
        labels: &issue.labels,
        blocked_by: &blocked_by,
        proposed: None,
    };
    let text = front_matter::render_new(&new, jiff::Timestamp::UNIX_EPOCH);
    let read = front_matter::parse("Todo/other.md", "Todo", text.as_bytes()).expect("our own file");
    assert_eq!((&read.identifier, &read.title), (&issue.identifier, &issue.title), "{text}");
    assert_eq!((&read.description, read.priority), (&issue.description, issue.priority), "{text}");
    assert_eq!((&read.labels, &read.blocked_by), (&issue.labels, &issue.blocked_by), "{text}");
    assert!(read.dispatchable && read.profile.is_none(), "nothing in a text becomes a field: {text}");
}

/// A tree keeps its budgets, every value has a place in the text, and an error has one too.
pub(super) fn yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let last =
        lines(bytes) + u32::try_from(text.matches(['\u{85}', '\u{2028}', '\u{2029}']).count()).expect("short") + 7;
    match yaml::parse(text, 7) {
        Ok(tree) => {
            let mut total = (0, 0);
            walk(&tree, 1, last, &mut total);
            assert!(total.0 <= MAX_NODES && total.1 <= MAX_TEXT);
        }
        Err(error) => {
            assert!((8..=last).contains(&error.line) && error.column >= 1, "{error:?}");
            assert!(!error.message.is_empty() && error.message.len() < 1024, "{error:?}");
        }
    }
}

fn walk(node: &Node, depth: usize, last: u32, total: &mut (usize, usize)) {
    assert!(depth <= MAX_DEPTH && (8..=last).contains(&node.line) && node.column >= 1, "{node:?}");
    total.0 += 1;
    match &node.kind {
        Kind::Str(text) => total.1 += text.len(),
        Kind::Seq(items) => items.iter().for_each(|item| walk(item, depth + 1, last, total)),
        Kind::Map(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                assert!(entries[..at].iter().all(|other| other.key != entry.key), "a key stands once");
                total.0 += 1;
                total.1 += entry.key.len();
                walk(&entry.value, depth + 1, last, total);
            }
        }
        _ => {}
    }
}

/// A workflow is in force or refused, the same twice, every problem has its place and a short sentence, and nothing
/// that the environment holds is said.
pub(super) fn workflow(bytes: &[u8]) {
    const SECRET: &str = "from-the-environment-4711";
    // A file that names the value itself may be quoted; a fuzzer reads it off our comparison.
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| !text.contains(SECRET)) else { return };
    let env = |name: &str| (name == "S").then(|| SECRET.to_owned());
    let place = || Place { dir: PathBuf::from("/project"), home: Some(PathBuf::from("/home/me")), env: &env };
    let read = Workflow::parse(text, &place());
    assert_eq!(read, Workflow::parse(text, &place()), "read twice, the same");
    let (workflow, problems) = match read {
        Ok((workflow, problems)) => (Some(workflow), problems),
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.is_error()), "refused without an error: {problems:?}");
            (None, problems)
        }
    };
    let last = lines(bytes) + u32::try_from(text.matches(['\u{85}', '\u{2028}', '\u{2029}']).count()).expect("short");
    for problem in &problems {
        assert!((1..=last).contains(&problem.line) && problem.column >= 1, "{problem:?}");
        let said = problem.to_string();
        assert!(!problem.message.is_empty() && said.len() < 8192 && !said.contains(SECRET), "{problem:?}");
    }
    if let Some(workflow) = workflow {
        assert!(workflow.tracker.root.is_absolute() && workflow.workspace.root.is_absolute());
        assert!(workflow.agent.max_turns > 0 && workflow.polling.interval_ms > 0);
        // The lists of 0.1.0 may be empty, and that is said.
        let said = |problem: &Problem| problem.key.as_deref() == Some("tracker.active_states");
        let active = workflow.states.with_role(Role::Active).count();
        assert!(active > 0 || (!workflow.states.declared && problems.iter().any(said)), "nothing can ever start");
    }
}

/// A template with a text of an issue: filled in within bounds or refused with a line of the template, and the text
/// is never a template itself.
pub(super) fn prompt(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (template, words) = text.split_once('\0').unwrap_or((&text, "{{ issue.nothing }} {% include 'x' %}"));
    let last = lines(template.as_bytes()).max(6);
    let check = |error: &PromptError| {
        let (PromptError::Parse { line, message } | PromptError::Render { line, message }) = error;
        assert!((1..=last).contains(line) && !message.is_empty() && message.len() < 8192, "{error:?}");
    };
    let mut issue = Issue::bare("A-1", "Todo");
    issue.title = words.to_owned();
    issue.description = Some(words.to_owned());
    issue.labels = vec![words.to_owned(), "bug".into()];
    let first = Attempt::default();
    match Prompt::parse(template) {
        Err(error) => check(&error),
        Ok(prompt) => match prompt.render(&issue, &first) {
            Err(error) => check(&error),
            Ok(filled) => {
                assert!(filled.len() <= symphony_core::prompt::MAX_FILLED, "{} bytes", filled.len());
                // An object as a text has its fields in any order, and the clock goes on.
                let whole = |name: &str| {
                    template.match_indices(name).any(|(at, _)| !template[at + name.len()..].starts_with('.'))
                };
                if !["issue", "forloop", "parentloop", "tablerow", "now", "today"].into_iter().any(whole) {
                    assert_eq!(prompt.render(&issue, &first), Ok(filled), "filled in twice, the same");
                }
            }
        },
    }
    let shown = Prompt::parse("{{ issue.title }}").expect("plain").render(&issue, &first).expect("filled in");
    assert!(shown.starts_with(words), "a text is a value, never a template");
}
