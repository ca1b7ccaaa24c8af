//! The rules a compiler does not know: floors, file length, headers, forbidden words, and documents that name tests.
//!
//! Reads tracked files only, and must never change one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use symphony_core::workflow::{Place, Workflow};

/// DESIGN §5: imports go down or sideways.
const HOST_FLOORS: &[(u8, &[&str])] = &[
    (5, &["main", "app", "cli", "fuzz", "hands"]),
    (4, &["web", "gateway", "operator"]),
    (3, &["conductor", "run", "nudge", "storage"]),
    (
        2,
        &[
            "agent",
            "airlock",
            "egress",
            "failpoint",
            "files",
            "git",
            "handoff",
            "hooks",
            "journal",
            "layout",
            "lock",
            "log",
            "memory",
            "metering",
            "process",
            "random",
            "sandbox",
            "tracker",
            "workflow_file",
            "workspace",
        ],
    ),
];
const CORE_FLOORS: &[(u8, &[&str])] = &[
    (
        1,
        &[
            "board",
            "broker",
            "budget",
            "egress",
            "explain",
            "patience",
            "prompt",
            "retention",
            "runtimes",
            "session",
            "snapshot",
            "spend",
            "turn",
            "workflow",
        ],
    ),
    (0, &["front_matter", "ids", "issue", "json_weight", "money", "spelling", "steering", "time", "yaml"]),
];

/// What a pure crate cannot need.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant",
    "tracing",
    "println",
    "getrandom",
];

/// Lines of a file: more is two subjects.
const LONGEST: usize = 600;

/// Hosts that our own texts may name. Anything else is a slip, a machine of somebody's, or a request a page would make.
const KNOWN_HOSTS: &[&str] = &[
    "127.0.0.1",
    "localhost",
    "api.anthropic.com",
    "api.openai.com",
    "chatgpt.com",
    "generativelanguage.googleapis.com",
    "platform.claude.com",
    "auth.openai.com",
    "www.w3.org",
    "github.com",
    "git-lfs.github.com",
    "nobody",
    "agentclientprotocol.com",
    "modelcontextprotocol.io",
    "htmx.org",
    "git-lfs.github.com",
    "nobody",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Tracked text files, by path from the root.
fn tracked() -> Vec<(String, String)> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git");
    assert!(listed.status.success(), "these tests need the repository: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("names in UTF-8");
    let names = names.split_terminator('\0').filter(|name| !is_lock(name) && !name.starts_with("assets/vendor/"));
    // A file that is deleted but not yet committed is listed and not there.
    names.filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?))).collect()
}

/// Written by package tools, about other people's packages.
fn is_lock(name: &str) -> bool {
    name.ends_with(".lock") || name.ends_with("package-lock.json")
}

fn rust_files() -> Vec<(String, String)> {
    let all = tracked().into_iter().filter(|(name, _)| name.ends_with(".rs")).collect::<Vec<_>>();
    assert!(all.len() > 100, "only {} source files are tracked", all.len());
    all
}

fn report(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

/// The part of a file that ships: without comments, and without what stands below `#[cfg(test)]` in braces.
fn shipped(text: &str) -> String {
    let mut lines = vec![];
    let mut testing = false;
    for line in text.lines() {
        if testing && line.starts_with("mod ") && line.ends_with('{') {
            break;
        }
        testing = line == "#[cfg(test)]";
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        lines.push(code);
    }
    lines.join("\n")
}

fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// The top-level modules that a source text names, by `crate::x`, `crate::{x, y}` or enough `super::`s.
fn named_modules(text: &str, depth: usize) -> BTreeSet<String> {
    let ident = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    let up = "super::".repeat(depth);
    for start in ["crate::", up.as_str()] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == '$' || text[..at].ends_with("super::") {
                continue;
            }
            let rest = &text[at + start.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                found.insert(ident(rest));
                continue;
            };
            let mut level = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => level += 1,
                    '}' if level == 0 => break,
                    '}' => level -= 1,
                    ',' if level == 0 => {
                        found.insert(ident(item.trim()));
                        item.clear();
                    }
                    _ if level == 0 => item.push(c),
                    _ => {}
                }
            }
            found.insert(ident(item.trim()));
        }
    }
    found
}

fn floor(floors: &[(u8, &[&str])], module: &str) -> Option<u8> {
    floors.iter().find(|(_, modules)| modules.contains(&module)).map(|(floor, _)| *floor)
}

fn climbs(files: &[(String, String)], source: &str, floors: &[(u8, &[&str])]) -> Vec<String> {
    let mut broken = vec![];
    for (name, text) in files {
        let Some(inside) = name.strip_prefix(source) else { continue };
        let module = inside.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" {
            let declared = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
            for module in declared.filter(|module| floor(floors, module).is_none()) {
                broken
                    .push(format!("{name}: `{module}` has no floor; give it one in tests/tidy.rs and ARCHITECTURE.md"));
            }
            continue;
        }
        let Some(own) = floor(floors, module) else {
            broken.push(format!("{name}: `{module}` has no floor; give it one in tests/tidy.rs and ARCHITECTURE.md"));
            continue;
        };
        let depth = inside.trim_end_matches("/mod.rs").split('/').count();
        for other in named_modules(&shipped(text), depth) {
            if let Some(theirs) = floor(floors, &other).filter(|theirs| *theirs > own) {
                broken.push(format!("{name} (floor {own}) names `{other}` (floor {theirs})"));
            }
        }
    }
    broken
}

#[test]
fn imports_go_down_the_floors_only() {
    let files = rust_files();
    report("imports go down or sideways", &climbs(&files, "src/", HOST_FLOORS));
    report("imports go down or sideways", &climbs(&files, "core/src/", CORE_FLOORS));
}

#[test]
fn a_climbing_import_is_found_however_it_is_written() {
    let file = |text: &str| vec![("src/git.rs".to_owned(), text.to_owned())];
    for climbing in [
        "use crate::web::Door;",
        "use crate::{process, web};",
        "use crate::{git::{A, B}, run};",
        "fn f() { super::app::run() }",
    ] {
        assert_eq!(climbs(&file(climbing), "src/", HOST_FLOORS).len(), 1, "{climbing}");
    }
    for fine in [
        "use crate::process::Run;",
        "// crate::web",
        "use super::process;",
        "#[cfg(test)]\nmod tests {\n use crate::web;\n}",
    ] {
        assert_eq!(climbs(&file(fine), "src/", HOST_FLOORS), Vec::<String>::new(), "{fine}");
    }
    assert_eq!(
        climbs(&[("src/new.rs".into(), String::new())], "src/", HOST_FLOORS).len(),
        1,
        "a module without a floor"
    );
}

#[test]
fn the_core_is_pure() {
    let mut broken = vec![];
    for (name, text) in rust_files().iter().filter(|(name, _)| name.starts_with("core/src/")) {
        let code = shipped(text);
        broken.extend(IMPURE.iter().filter(|word| code.contains(*word)).map(|word| format!("{name} names {word}")));
    }
    report("core/ has no IO, clock, environment or log", &broken);
}

#[test]
fn files_have_one_subject_a_header_and_nothing_unfinished() {
    // Written apart, so that this file does not contain what it looks for.
    let unfinished =
        [concat!("#[ig", "nore"), concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];
    let mut broken = vec![];
    for (name, text) in rust_files() {
        let lines = text.lines().count();
        if lines > LONGEST {
            broken.push(format!("{name}: {lines} lines, at most {LONGEST}"));
        }
        if !text.starts_with("//!") {
            broken.push(format!("{name}: starts without a `//!` that says what it owns"));
        }
        broken.extend(unfinished.iter().filter(|word| text.contains(*word)).map(|word| format!("{name}: {word}")));
        if !is_test_file(&name) && shipped(&text).contains(".unwrap()") {
            broken.push(format!("{name}: unwrap; use expect(\"why it holds\") or an error"));
        }
    }
    report("files are short, headed and finished", &broken);
}

/// The keys and defaults themselves: `symphony_core`, `workflow::tests::every_key_stands_in_the_template_with_its_default`.
#[test]
fn the_shipped_workflows_parse_without_a_complaint() {
    for name in ["WORKFLOW.md", "WORKFLOW.template.md"] {
        let text = std::fs::read_to_string(root().join(name)).expect("shipped");
        let env = |_: &str| None;
        let place = Place { dir: "/project".into(), home: Some("/home/me".into()), env: &env };
        let (_, problems) = Workflow::parse(&text, &place).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn templates_carry_no_code_no_style_and_no_address() {
    let mut broken = vec![];
    for (name, text) in tracked().iter().filter(|(name, _)| name.starts_with("templates/")) {
        let lower = text.to_lowercase();
        for word in
            ["<style", " style=", "javascript:", "http://", "https://", "hx-on", "hx-vals='js", "|safe", "| safe"]
        {
            // What our own code rendered and sanitised may pass; see src/web/markdown.rs.
            let allowed =
                word.ends_with("safe") && lower.matches(word).count() == lower.matches(&format!("_html{word}")).count();
            if lower.contains(word) && !allowed {
                broken.push(format!("{name}: {word}"));
            }
        }
        for (at, _) in lower.match_indices("<script") {
            let tag = lower[at..].split_once("</script>").map_or(&lower[at..], |(tag, _)| tag);
            if !(tag.contains(" src=") && tag.trim_end().ends_with('>')) {
                broken.push(format!("{name}: an inline script"));
            }
        }
        for (at, _) in lower.match_indices(" on") {
            let word: String = lower[at + 1..].chars().take_while(char::is_ascii_alphabetic).collect();
            if lower[at + 1 + word.len()..].starts_with("=\"") {
                broken.push(format!("{name}: {word}="));
            }
        }
    }
    report("the policy of our pages forbids it", &broken);
}

/// Regression: what a passing test prints with the usual macros is never seen. What a benchmark prints is.
#[test]
fn a_skipped_test_says_so_where_it_is_seen() {
    let silent = ["println!(\"skip", "print!(\"skip"].map(str::to_owned);
    let is_silent = |text: &str| silent.iter().any(|words| text.contains(words.as_str()));
    let broken: Vec<String> = rust_files()
        .into_iter()
        .filter(|(name, text)| !name.starts_with("benches/") && name != "tests/tidy.rs" && is_silent(text))
        .map(|(name, _)| name)
        .collect();
    report("say it with tests/it/skip.rs", &broken);
}

#[test]
fn no_machine_stands_in_a_tracked_text() {
    let mut machine = vec![root().display().to_string()];
    for place in ["HOME", "CARGO_HOME", "CARGO_TARGET_DIR"].iter().filter_map(std::env::var_os) {
        machine.push(place.to_string_lossy().into_owned());
    }
    // Short ones are words: `/root` and `/home/me` stand in many a test for good reason.
    machine.retain(|mark| mark.len() > 12);
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    machine.extend(Some(name.trim().to_owned()).filter(|n| n.len() > 7 && n.chars().any(|c| c.is_ascii_digit())));
    let (sparse, replace) = (concat!("spa", "rse+"), concat!("replace", "-with"));
    let mut broken = vec![];
    // What a fuzzer wrote names hosts that are nobody's.
    for (name, text) in tracked().into_iter().filter(|(name, _)| !name.starts_with("fuzz/corpus/")) {
        if name.contains(".cargo/") {
            broken.push(format!("{name}: cargo settings belong to a machine"));
        }
        broken.extend(machine.iter().filter(|mark| text.contains(*mark)).map(|mark| format!("{name}: {mark}")));
        broken
            .extend([sparse, replace].iter().filter(|mark| text.contains(*mark)).map(|mark| format!("{name}: {mark}")));
        for (at, start) in text.match_indices("://") {
            let scheme = text[..at].rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
            let host: String =
                text[at + start.len()..].chars().take_while(|c| c.is_alphanumeric() || "-.".contains(*c)).collect();
            let host = host.trim_end_matches('.');
            let web = matches!(scheme, "http" | "https" | "git" | "ssh");
            let example = host.ends_with(".example")
                || host.ends_with(".invalid")
                || host.ends_with("example.org")
                || host.ends_with("example.com");
            if web && host.len() > 1 && !example && !KNOWN_HOSTS.contains(&host) {
                broken.push(format!("{name}: {scheme}://{host} (a known host goes into KNOWN_HOSTS of tests/tidy.rs)"));
            }
        }
    }
    report("paths and hosts of a machine are nobody else's business", &broken);
}

/// A row of a Markdown table, its cells by the names of its header.
struct Row {
    line: usize,
    cells: Vec<(String, String)>,
}

impl Row {
    fn cell(&self, name: &str) -> Option<&str> {
        self.cells.iter().find(|(head, _)| head == name).map(|(_, cell)| cell.as_str())
    }
}

/// The rows of every table that has a `test` column.
fn rows_with_tests(text: &str) -> Vec<Row> {
    let mut rows = vec![];
    let mut heads: Option<Vec<String>> = None;
    for (number, line) in text.lines().enumerate() {
        let Some(line) = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            heads = None;
            continue;
        };
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        match &heads {
            None => heads = Some(cells),
            Some(heads) => {
                let ruler = cells.iter().all(|cell| !cell.is_empty() && cell.chars().all(|c| "-: ".contains(c)));
                if heads.iter().any(|head| head == "test") && !ruler {
                    let cells = heads.iter().cloned().zip(cells).collect();
                    rows.push(Row { line: number + 1, cells });
                }
            }
        }
    }
    rows
}

/// Whether `module::…::name` is a test that stands in a file of that name.
fn exists(files: &[(String, String)], path: &str) -> bool {
    let mut parts: Vec<&str> = path.split("::").collect();
    let Some(function) = parts.pop().filter(|_| !parts.is_empty()) else { return false };
    let call = format!("fn {function}(");
    files.iter().any(|(name, text)| {
        let mut places = name.trim_end_matches(".rs").split('/');
        let there = parts.iter().all(|part| places.any(|place| place == *part));
        let is_test = |at: usize| {
            let before = text[..at].trim_end().trim_end_matches("async").trim_end();
            before
                .lines()
                .rev()
                .take_while(|line| line.trim_start().starts_with(['#', '/']))
                .any(|line| line.contains("test"))
        };
        there && text.match_indices(&call).any(|(at, _)| is_test(at))
    })
}

fn complaints(files: &[(String, String)], document: &str, text: &str) -> Vec<String> {
    let mut broken = vec![];
    for row in rows_with_tests(text) {
        let place = format!("{document}:{}", row.line);
        let tests = row.cell("test").unwrap_or_default();
        let status = row.cell("status");
        if let Some(status) = status.filter(|status| !["done", "differs", "later", "n/a"].contains(status)) {
            broken.push(format!("{place}: `{status}` is no status"));
        }
        if tests == "—" {
            if status == Some("done") {
                broken.push(format!("{place}: done without a test"));
            }
            continue;
        }
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let between: String = tests.split('`').step_by(2).collect();
        if named.is_empty() || between.chars().any(|c| !", ".contains(c)) {
            broken.push(format!("{place}: the test column holds `file::test_name`s or —, not {tests:?}"));
        }
        broken.extend(named.iter().filter(|path| !exists(files, path)).map(|path| format!("{place}: no test {path}")));
    }
    broken
}

#[test]
fn documents_name_only_tests_that_exist() {
    let files = rust_files();
    let mut broken = vec![];
    for (document, rows) in [("ARCHITECTURE.md", 13), ("docs/CONFORMANCE.md", 300), ("docs/SECURITY.md", 40)] {
        let text = std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        broken.extend(complaints(&files, document, &text));
        if rows_with_tests(&text).len() < rows {
            broken.push(format!("{document}: fewer than {rows} rows in tables with a `test` column"));
        }
    }
    report("documents and tests agree", &broken);
}

#[test]
fn a_document_that_names_a_missing_test_is_found() {
    let files = vec![("src/git/oid.rs".to_owned(), "    #[test]\n    fn a_b() {}\n    fn c() {}\n".to_owned())];
    let table = |cells: &str| format!("| what | status | test |\n| --- | --- | --- |\n{cells}\n");
    for fine in ["| x | done | `oid::a_b` |", "| x | later | — |", "| x | done | `git::oid::a_b`, `src::oid::a_b` |"]
    {
        assert_eq!(complaints(&files, "d", &table(fine)), Vec::<String>::new(), "{fine}");
    }
    for wrong in [
        "| x | done | — |",
        "| x | done | `oid::z` |",
        "| x | done | `git::c` |",
        "| x | done | `web::a_b` |",
        "| x | done | by eye |",
        "| x | done | `a_b` |",
        "| x | perhaps | — |",
    ] {
        assert_eq!(complaints(&files, "d", &table(wrong)).len(), 1, "{wrong}");
    }
}
